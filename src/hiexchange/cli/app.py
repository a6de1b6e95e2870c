"""Assemble the verbs, map errors to exit codes.

Exit codes: 0 ok, 1 unexpected, 2 usage, 3 configuration or credential, 4 server refused, 5 network
exhausted (resumable), 6 partial, 7 data rejected, 8 delivery failed, 130 interrupted (state saved).
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer
import typer.core

from hiexchange._files import FULL_DISK
from hiexchange.cli import render
from hiexchange.errors import HIExchangeError, StorageError

INTERRUPTED = 130
NOT_VERBS = {"app", "render"}


class Verbs(typer.core.TyperGroup):
    """The verbs; an interrupted one says how to go on, which typer would end without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            render.err(str(stop) or "interrupted: what was finished is kept, run the same command again for the rest")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # `| head` has read enough; click would exit 1
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - what is flushed at the end has nowhere to go
            raise typer.Exit from None


app = typer.Typer(
    name="hiexchange",
    cls=Verbs,
    help="FHIR bulk export, Parquet lake, roster routing and quality measures, in one process.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_debug = False


def _version(asked: bool) -> None:
    if asked:
        from hiexchange import __version__

        render.out(f"hiexchange {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """FHIR bulk export, Parquet lake, roster routing and quality measures, in one process."""
    global _debug
    _debug = debug


def register_verbs() -> None:
    """Load every verb file of this package; each has ``register(app)``."""
    package = importlib.import_module("hiexchange.cli")
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        if module not in NOT_VERBS and not module.startswith("_"):
            importlib.import_module(f"hiexchange.cli.{module}").register(app)


def main() -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    register_verbs()
    try:
        app(standalone_mode=True)
    except HIExchangeError as error:
        if _debug:
            raise
        render.failure(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before a verb began
        sys.exit(INTERRUPTED)
    except OSError as error:  # of a verb that did not expect it: the system's own words and the path say enough
        if _debug:
            raise
        render.failure(_storage(error))
        sys.exit(StorageError.exit_code)
    except Exception as error:  # the last line of defence: one message instead of a traceback, exit 1
        if _debug:
            raise
        render.err(f"error HX-100 unexpected {type(error).__name__}")
        render.err("  do     run again with --debug before the verb to see where, and report it")
        sys.exit(1)


def _storage(error: OSError) -> StorageError:
    return StorageError(
        "a file or folder cannot be used",
        where=str(error.filename) if error.filename is not None else None,
        said=error.strerror,
        hint="free space, then run the same command again"
        if error.errno in FULL_DISK
        else "check the path and its permissions",
    )


def _as_interrupt(signum: int, frame: FrameType | None) -> None:
    # SIGTERM stops like Ctrl-C: orchestrators send it, and state must be saved the same way.
    raise KeyboardInterrupt
