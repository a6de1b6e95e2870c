"""Write docs/reference/*.md from the code: tables, errors, events, configuration, command line.

    python tools/build_reference.py [--check]

``--check`` writes nothing and exits 1 where a page is not what the code says; a test runs it.
"""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import typer

from hiexchange import config, errors, events, tables
from hiexchange.cli.app import app, register_verbs

TARGET = Path(__file__).resolve().parents[1] / "docs" / "reference"
NOTE = "<!-- written by tools/build_reference.py from the code; do not edit -->\n\n"


def tables_page() -> Iterator[str]:
    """Yield the dictionary of the corridor tables."""
    yield "# Tables\n\nThe Arrow tables in which stages meet (`hiexchange.tables`). Bold columns are never null.\n"
    for table in tables.TABLES.values():
        yield f"\n## {table.name}\n\n{table.doc} Key: {', '.join(table.key)}.\n\n"
        yield "| column | type | meaning |\n|---|---|---|\n"
        for column in table.columns:
            name = f"**{column.name}**" if column.required else column.name
            yield f"| {name} | {column.type} | {column.doc} |\n".replace("list<item: ", "list<")


def errors_page() -> Iterator[str]:
    """Yield the catalogue of error codes and exit codes."""
    yield (
        "# Errors and exit codes\n\nExit codes: 0 ok, 1 unexpected, 2 usage, 3 configuration or credential, 4 server refused, "
        "5 network exhausted (resumable), 6 partial, 7 data rejected, 8 delivery failed, 130 interrupted (state saved).\n\n"
        "An error says what happened, where, what the other side said, and what to do. No message holds resource content.\n\n"
        "| code | error | exit | when |\n|---|---|---|---|\n"
    )
    kinds = [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.HIExchangeError)
    ]
    for kind in sorted(kinds, key=lambda kind: (kind.code, kind.__name__)):
        yield f"| {kind.code} | `{kind.__name__}` | {kind.exit_code} | {first_line(kind)} |\n"


def events_page() -> Iterator[str]:
    """Yield the progress events."""
    yield "# Progress events\n\nEvery long call takes `on_event`, a callable of one frozen record.\n\n"
    yield "| event | fields | when |\n|---|---|---|\n"
    for name, kind in classes(events):
        if issubclass(kind, events.Event) and kind is not events.Event:
            names = ", ".join(field.name for field in msgspec.structs.fields(kind))
            yield f"| `{name}` | {names} | {first_line(kind)} |\n"


def configuration_page() -> Iterator[str]:
    """Yield the keys of the configuration file."""
    yield (
        "# Configuration\n\nOne TOML file. Flag > `HIEXCHANGE_*` (`__` between levels) > project file > "
        "`~/.config/hiexchange/config.toml` > default. A key that does not exist is an error. Secrets only as `env:NAME` or "
        "`file:PATH`.\n"
    )
    for title, kind in (
        ("top level", config.Settings),
        ("[export]", config.ExportSettings),
        ("[[rosters]]", config.RosterSettings),
        ("[[measures]]", config.MeasureSettings),
    ):
        yield f"\n## {title}\n\n| key | default | meaning |\n|---|---|---|\n"
        meanings = docstrings(kind)
        for field in msgspec.structs.fields(kind):
            if field.name != "base":
                default = (
                    "required"
                    if field.required
                    else f"`{field.default!r}`"
                    if field.default is not msgspec.NODEFAULT
                    else ""
                )
                yield f"| `{field.name}` | {default} | {meanings.get(field.name, '')} |\n"
    yield (
        "\n`[servers.NAME]` is checked by `hiexchange.servers.build`, `[[subscriptions]]` by "
        "`hiexchange.routing.load_subscriptions`; see [Bulk export](../bulk-export.md) and [Routing](../routing.md).\n"
    )


def cli_page() -> Iterator[str]:
    """Yield every verb with its options."""
    register_verbs()
    yield "# Command line\n\nResults on stdout, progress on stderr. `--debug` before the verb shows tracebacks.\n"
    yield from _commands(typer.main.get_command(app), "hiexchange")


def _commands(command: object, path: str) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children is None:
        yield f"\n## `{path}`\n\n{' '.join((command.help or '').split())}\n"  # type: ignore[attr-defined]
        options = [parameter for parameter in command.params if parameter.name != "help"]  # type: ignore[attr-defined]
        if options:
            yield "\n| | |\n|---|---|\n"
            for option in options:
                flags = option.opts[0].startswith("-")
                names = ", ".join((*option.opts, *option.secondary_opts)) if flags else option.name.upper()
                yield f"| `{names}` | {(getattr(option, 'help', '') or '').replace('|', '/')} |\n"
        return
    for name, child in sorted(children.items()):
        yield from _commands(child, f"{path} {name}")


def classes(module: ModuleType) -> list[tuple[str, type]]:
    """Return the classes a module defines, in the order of the source."""
    own = [
        (name, kind) for name, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__
    ]
    return sorted(own, key=lambda pair: inspect.getsourcelines(pair[1])[1])


def docstrings(kind: type) -> dict[str, str]:
    """Return the docstring under each field of a class."""
    import ast
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    found = {}
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(after.value.value).split())
    return found


def first_line(kind: type) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(kind) or "").splitlines()[0]


PAGES = {
    "tables.md": tables_page,
    "errors.md": errors_page,
    "events.md": events_page,
    "configuration.md": configuration_page,
    "cli.md": cli_page,
}


def main() -> int:
    """Write the pages, or compare them."""
    stale = []
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        text = NOTE + "".join(page())
        path = TARGET / name
        if "--check" in sys.argv:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"stale: {', '.join(stale)}; run python tools/build_reference.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
