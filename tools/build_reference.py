"""Write docs/reference/*.md from the code: tables, errors, events, configuration, command line.

    python tools/build_reference.py [--check]

``--check`` writes nothing and exits 1 where a page is not what the code says; a test runs it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import typer

from hiexchange import config, errors, events, servers, tables
from hiexchange._policy import Policy
from hiexchange.cli.app import app, register_verbs
from hiexchange.routing import subscriptions
from hiexchange.routing.subscriptions import Channel, Subscription

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
    yield "\nCodes of their own, each with the class that bears it:\n\n| code | error | said when |\n|---|---|---|\n"
    for code, (name, messages) in sorted(special_codes().items()):
        yield f"| {code} | `{name}` | {'; '.join(dict.fromkeys(messages))} |\n"


def special_codes() -> dict[str, tuple[str, list[str]]]:
    """Return {code: (class, messages)} of the errors that are raised with a code other than their class's."""
    found: dict[str, tuple[str, list[str]]] = {}
    for path in sorted(Path(errors.__file__).parent.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                codes = [item.value for item in call.keywords if item.arg in ("code", "number")]
                # A roster's refusal has its issue's code first.
                message = call.args[1 if call.func.id == "refusal" else 0] if call.args else None
                if codes and isinstance(codes[0], ast.Constant) and str(codes[0].value).startswith("HX-") and message:
                    name = "RosterError" if call.func.id == "refusal" else call.func.id
                    found.setdefault(codes[0].value, (name, []))[1].append(_words(message))
    return found


def _words(message: ast.expr) -> str:
    """Return a message as it is written, with an ellipsis for what is filled in."""
    if isinstance(message, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in message.values)
    return str(message.value) if isinstance(message, ast.Constant) else "…"


def events_page() -> Iterator[str]:
    """Yield the progress events."""
    yield (
        "# Progress events\n\nEvery long call takes `on_event`, a callable of one frozen record (a msgspec Struct: "
        "`msgspec.json.encode(event)` is its JSON).\n\n"
    )
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
    yield from _section("top level", config.Settings)
    yield "\n## [servers.NAME]\n\n| key | meaning |\n|---|---|\n"
    for name, meaning in servers.OPTIONS.items():
        yield f"| `{name}` | {meaning} |\n"
    for title, kind in (
        ("[servers.NAME.policy]", Policy),
        ("[export]", config.ExportSettings),
        ("[[rosters]]", config.RosterSettings),
        ("[rosters.crosswalk]", config.CrosswalkSettings),
        ("[matching]", config.MatchingSettings),
        ("[events]", config.EventSettings),
        ("[routing]", config.RoutingSettings),
        ("[[subscriptions]]", Subscription),
        ("[[subscriptions.channels]]", Channel),
        ("[[measures]]", config.MeasureSettings),
        ("[feedback]", config.FeedbackSettings),
    ):
        yield from _section(title, kind)
    yield "\nOne channel may be written in the subscription itself: `channel` is then its `url`. See [Routing](../routing.md).\n"


def _section(title: str, kind: type) -> Iterator[str]:
    yield f"\n## {title}\n\n| key | default | meaning |\n|---|---|---|\n"
    meanings = docstrings(kind)
    for name, default in _defaults(kind):
        if (name, kind) not in (("base", config.Settings), ("version", Subscription)):
            yield f"| `{name}` | {default} | {_spelt_out(meanings.get(name, ''))} |\n"


def _spelt_out(meaning: str) -> str:
    """Return a meaning with the values in place of the name of the constant that lists them."""

    def values(found: re.Match[str]) -> str:
        return ", ".join(f"`{value}`" for value in getattr(subscriptions, found[1]))

    return re.sub(r":data:`(\w+)`", values, meaning)


def _defaults(kind: type) -> Iterator[tuple[str, str]]:
    """Yield each key with its default, as it would be written in TOML where that can be."""
    if dataclasses.is_dataclass(kind):
        for item in dataclasses.fields(kind):
            optional = item.default_factory is not dataclasses.MISSING
            missing = item.default is dataclasses.MISSING
            yield item.name, ("" if optional else "required" if missing else _written(item.default))
        return
    for field in msgspec.structs.fields(kind):
        known = field.default is not msgspec.NODEFAULT
        yield field.name, ("required" if field.required else _written(field.default) if known else "")


def _written(default: object) -> str:
    """Return a default as it stands in a file; that of what is absent is nothing."""
    if default is None or default == () or default == "":
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


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
