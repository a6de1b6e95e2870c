"""Layouts: how a payer's file is read, as versioned data (TOML or a dictionary), never as code per payer.

A layout says what container the file is, which of its columns feed which column of MEMBER, where the
as-of date stands, whether the list is full or a delta, and which thresholds the acceptance gate uses.
Shipped layouts live beside this module; a payer's own one usually starts with ``extends = "csv"``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec

from hiexchange.errors import ConfigError, UnknownLayout
from hiexchange.tables import MEMBER

COMPUTED = {"roster_id", "row_no", "row_sha", "member_key", "synthetic", "as_of_on"}
HELPERS = {"ssn": "only its last four digits are kept", "full_name": "'Last, First Middle', split on reading"}
TARGETS = frozenset(column.name for column in MEMBER.columns) - COMPUTED | frozenset(HELPERS)
"""What a layout's ``[columns]`` may name."""


class ColumnRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one column of MEMBER is filled: ``[columns.NAME]``. A plain string means ``source``."""

    source: str | tuple[str, ...] = ()
    """Header of the file's column, or alternatives of which the first present one is taken. Spelling
    is compared without case, spaces and punctuation. A number counts columns from 1."""
    join: tuple[str, ...] = ()
    """Several source columns put together by ``separator``, for composite ids."""
    separator: str = "-"
    constant: str | None = None
    """Value of every row; with a source, the value where the source is empty."""
    format: str | tuple[str, ...] = ()
    """strptime formats of a date, tried in order."""
    pivot: int | None = None
    """Two-digit years up to this one are 20yy, others 19yy."""
    month_end: bool = False
    """Take the last day of the date's month: for end dates given as a month."""
    inclusive: bool | None = None
    """The end date is the last day rather than the first day after. Default: yes, except for sources
    called valid_to or coverage_to."""
    required: bool = False
    """A row without it is refused, a file without the column too."""
    nulls: tuple[str, ...] = ()
    """Further texts that mean nothing."""
    codes: dict[str, str] = {}
    """The payer's code -> ours; compared without case. A code that is not listed is passed on."""
    pad: int | None = None
    """Length to restore by leading zeros that a spreadsheet took away."""
    start: int | None = None
    """First character, from 1: fixed width only."""
    width: int | None = None


class FileRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the bytes are: ``[file]``."""

    kind: Literal["delimited", "fixed", "xlsx", "atr", "dpc", "x12-834"] = "delimited"
    delimiter: str = "auto"
    """One character, or ``auto``: the one of comma, tab, pipe and semicolon that the header uses most."""
    quote: str = '"'
    """Empty: quotes are ordinary characters."""
    encoding: str = "auto"
    """``auto``: byte-order mark, else UTF-8, else cp1252 with a warning."""
    header: int = 1
    """Line of the header; 0: none, columns are known by number."""
    sheet: str | int | None = None
    """Name or number (from 1) of the worksheet; default the first visible one."""
    trailer: str | None = None
    """First field of the last line when that line is a trailer."""
    count_field: int | None = None
    """Field of the trailer, from 1, that declares the number of rows."""
    member: str | None = None
    """Pattern of the one archive member that is the roster."""
    max_bytes: int = 8_000_000_000
    """Limit on the expanded size."""


class AsOfRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the file declares the day it speaks of. Never the file's modification time."""

    file_name: str | None = None
    """Regular expression with one group, the date's text."""
    column: str | None = None
    """Column that holds the same date in every row."""
    format: str = "%Y-%m-%d"


class ListRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What list the file is and how its rows are judged: ``[list]``."""

    payer_id: str | None = None
    list_id: str | None = None
    """Name of the list among the payer's lists. Files of one list replace each other: give a name to
    each where a payer sends several side by side. Default: the payer has one list."""
    mode: Literal["full", "delta", "auto"] = "full"
    """``full``: an absent member is dropped. ``auto``: the file says so (834 BGN08), else full."""
    as_of: AsOfRule = msgspec.field(default_factory=AsOfRule)
    restates_year: bool = False
    """Each file restates its whole performance year: it speaks for the days from 1 January on."""
    restated_from: date | None = None
    """A restatement: the file speaks for the days from here on (and before ``restated_to``)."""
    restated_to: date | None = None
    duplicates: Literal["quarantine", "last"] = "quarantine"
    """Rows of one member and provider that overlap and differ: refuse all, or take the last."""
    level: Literal["clinician", "practice", "org", "aco"] | None = None
    """Default: clinician with an NPI, practice with a tax id, else org."""
    basis: str = "payer_assigned"
    method: str | None = None
    """The attribution method as the payer publishes it."""
    npi: Literal["checked", "unchecked"] = "checked"
    """``unchecked``: ten digits are enough, for synthetic data."""
    production: bool = False
    """True: synthetic identifiers (MBI with S second) are refused."""
    max_refused_share: float = 0.2
    max_drop_share: float = 0.10
    max_row_change: float = 0.25
    min_members_for_guard: int = 20
    """Lists smaller than this are not held by shares."""


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One layout, complete."""

    name: str
    version: str = "1"
    description: str = ""
    verified: bool = True
    """False: the column map was not confirmed by anyone; refused until a person sets it true."""
    columns: dict[str, ColumnRule] = {}
    file: FileRule = msgspec.field(default_factory=FileRule)
    list: ListRule = msgspec.field(default_factory=ListRule)
    synonyms: bool = False
    """MEMBER columns without a rule are also looked for under their usual names."""


def load_layout(name_or_path: str | Path | Mapping[str, Any] | Layout) -> Layout:
    """Return a layout by its shipped name, from a TOML file, or from a dictionary.

    Raises:
        UnknownLayout: No shipped layout has the name and no file the path.
        ConfigError: The layout has a key or a value that does not exist; says which.
    """
    if isinstance(name_or_path, Layout):
        return name_or_path
    if isinstance(name_or_path, Mapping):
        return _build(dict(name_or_path), "layout", ())
    return _build(*_find(str(name_or_path)), ())


def shipped_layouts() -> list[Layout]:
    """Return every layout of this package, sorted by name."""
    return [load_layout(name) for name in _shipped()]


@cache
def _shipped() -> tuple[str, ...]:
    folder = resources.files("hiexchange.roster") / "layouts"
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


def _find(name: str) -> tuple[dict[str, Any], str]:
    if name in _shipped():
        text = (resources.files("hiexchange.roster") / "layouts" / f"{name}.toml").read_text(encoding="utf-8")
        return tomllib.loads(text), f"{name}.toml"
    path = Path(name)
    if not path.is_file():
        raise UnknownLayout(
            f"there is no roster layout `{name}`",
            hint=f"give the path of a TOML file, or one of {', '.join(_shipped())}",
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the layout is not TOML: {error}", where=path.name) from None
    values.setdefault("name", path.stem)
    return values, path.name


def _build(values: dict[str, Any], where: str, seen: tuple[str, ...]) -> Layout:
    parent = values.pop("extends", None)
    if parent is not None:
        if parent in seen:
            raise ConfigError(f"layouts extend each other in a circle: {' -> '.join((*seen, parent))}", where=where)
        base = msgspec.to_builtins(_build(*_find(str(parent)), (*seen, str(parent))))
        values = _merge({**base, "name": f"{base['name']}-extended", "description": ""}, _spelled_out(values))
    try:
        layout = msgspec.convert(_spelled_out(values), Layout, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"the layout is not valid: {error}", where=where, hint="see docs/rosters.md for every key"
        ) from None
    _check(layout, where)
    return layout


def _spelled_out(values: dict[str, Any]) -> dict[str, Any]:
    columns = {
        name: {"source": rule} if isinstance(rule, str | list) else rule
        for name, rule in dict(values.get("columns", {})).items()
    }
    return {**values, "columns": columns} if columns else values


def _merge(lower: dict[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(lower)
    for key, value in upper.items():
        if key == "columns":
            # A column rule replaces the inherited one whole: mixing two rules' sources helps nobody.
            result[key] = {**result.get(key, {}), **value}
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _merge(result[key], value)
        else:
            result[key] = value
    return result


def _check(layout: Layout, where: str) -> None:
    unknown = sorted(set(layout.columns) - TARGETS)
    if unknown:
        raise ConfigError(
            f"the layout fills columns that MEMBER does not have: {', '.join(unknown)}",
            where=where,
            hint=f"it has {', '.join(sorted(TARGETS))}",
        )
    if len(layout.file.delimiter) != 1 and layout.file.delimiter != "auto":
        raise ConfigError("the layout's delimiter must be one character or 'auto'", where=where)
    if layout.list.as_of.file_name is not None:
        try:
            groups = re.compile(layout.list.as_of.file_name).groups
        except re.error as error:
            raise ConfigError(f"list.as_of.file_name is no regular expression: {error}", where=where) from None
        if groups != 1:
            raise ConfigError("list.as_of.file_name needs exactly one group: the date", where=where)
