"""Read a ViewDefinition (SQL on FHIR v2) into frozen records, and refuse what is not one.

Source: https://sql-on-fhir.org, StructureDefinition-ViewDefinition (FHIR/sql-on-fhir-v2 at 49fc1ad).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hiexchange.errors import FHIRPathError, ViewError
from hiexchange.fhirpath import dates, parse

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
CONSTANT_TYPES = {
    "Base64Binary": "base64Binary",
    "Boolean": "boolean",
    "Canonical": "canonical",
    "Code": "code",
    "Date": "date",
    "DateTime": "dateTime",
    "Decimal": "decimal",
    "Id": "id",
    "Instant": "instant",
    "Integer": "integer",
    "Integer64": "integer64",
    "Oid": "oid",
    "PositiveInt": "positiveInt",
    "String": "string",
    "Time": "time",
    "UnsignedInt": "unsignedInt",
    "Uri": "uri",
    "Url": "url",
    "Uuid": "uuid",
}
"""Suffix of ``value[x]`` in a constant, and the FHIR type it gives."""

_RANGES = {
    "integer": (-(2**31), 2**31 - 1),
    "positiveInt": (1, 2**31 - 1),
    "unsignedInt": (0, 2**31 - 1),
    "integer64": (-(2**63), 2**63 - 1),
}
_INTEGER = re.compile(r"-?[0-9]+\Z")
_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\Z")
_MEMBERS: dict[str, dict[str, str | None]] = {
    "": {"resourceType": None, "select": "select", "where": "where", "constant": "constant", "resource": None},
    "select": {
        "column": "column",
        "select": "select",
        "unionAll": "select",
        "forEach": None,
        "forEachOrNull": None,
        "repeat": None,
    },
    "where": {"path": None, "description": None},
    "constant": {"name": None},
    "column": {"name": None, "path": None, "type": None, "collection": None, "description": None, "tag": "tag"},
    "tag": {"name": None, "value": None},
}
"""Members of each part of a view, and the kind of part they hold."""


@dataclass(frozen=True, slots=True)
class Column:
    """One output column."""

    name: str
    path: str
    type: str | None = None
    """Declared FHIR type; None: what the path gives."""
    collection: bool = False
    """Whether a row may hold several values (a list column)."""
    ansi_type: str | None = None
    """Value of the tag ``ansi/type``, which overrides the Arrow type."""
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Select:
    """One level of the row structure."""

    columns: tuple[Column, ...] = ()
    selects: tuple[Select, ...] = ()
    union_all: tuple[Select, ...] = ()
    for_each: str | None = None
    or_null: bool = False
    """``for_each`` came as forEachOrNull: a parent without elements keeps one row."""
    repeat: tuple[str, ...] = ()

    def paths(self) -> Iterator[str]:
        """Yield every expression of this level and those below."""
        if self.for_each is not None:
            yield self.for_each
        yield from self.repeat
        for column in self.columns:
            yield column.path
        for below in (*self.selects, *self.union_all):
            yield from below.paths()

    def all_columns(self) -> tuple[Column, ...]:
        """Return the output columns in their order: own, nested selects, union."""
        own = list(self.columns)
        for below in self.selects:
            own += below.all_columns()
        if self.union_all:
            own += self.union_all[0].all_columns()
        return tuple(own)


@dataclass(frozen=True, slots=True)
class Constant:
    """A named value that paths use as ``%name``."""

    name: str
    type: str
    value: Any


@dataclass(frozen=True, slots=True)
class Definition:
    """One ViewDefinition."""

    resource: str
    select: tuple[Select, ...]
    where: tuple[str, ...] = ()
    constants: tuple[Constant, ...] = ()
    name: str | None = None
    url: str | None = None
    title: str | None = None
    description: str | None = None
    fhir_versions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """Members that mean nothing where they stand, such as a misspelt ``collection``."""

    def columns(self) -> tuple[Column, ...]:
        """Return the output columns in their order."""
        return tuple(column for select in self.select for column in select.all_columns())

    def paths(self) -> Iterator[str]:
        """Yield every expression of the view."""
        yield from self.where
        for select in self.select:
            yield from select.paths()


def read_definition(given: Mapping[str, Any]) -> Definition:
    """Return the record of a ViewDefinition's JSON.

    Raises:
        ViewError: A part is missing, of the wrong type, or contradicts another one.
        FHIRPathError: A path does not parse.
    """
    if not isinstance(given, Mapping):
        raise ViewError("a ViewDefinition is a JSON object")
    kind = given.get("resourceType", "ViewDefinition")
    if kind != "ViewDefinition":
        raise ViewError(f"this is a {kind}, not a ViewDefinition")
    found = Definition(
        resource=_text(given, "resource", "the view", required=True) or "",
        select=tuple(_select(item, f"select[{at}]") for at, item in enumerate(_list(given, "select", "the view"))),
        where=tuple(_where(item, f"where[{at}]") for at, item in enumerate(_list(given, "where", "the view"))),
        constants=tuple(_constant(item, at) for at, item in enumerate(_list(given, "constant", "the view"))),
        name=_text(given, "name", "the view"),
        url=_text(given, "url", "the view"),
        title=_text(given, "title", "the view"),
        description=_text(given, "description", "the view"),
        fhir_versions=tuple(str(item) for item in _list(given, "fhirVersion", "the view")),
        warnings=tuple(_unknown(given, "", "the view")),
    )
    if not found.select:
        raise ViewError("the view has no select")
    _check_names(found)
    return found


def _where(given: Any, where: str) -> str:
    if not isinstance(given, Mapping):
        raise ViewError(f"{where} is not a JSON object")
    return _path(given, "path", where, required=True) or ""


def _select(given: Any, where: str) -> Select:
    if not isinstance(given, Mapping):
        raise ViewError(f"{where} is not a JSON object")
    each, or_null = _path(given, "forEach", where), _path(given, "forEachOrNull", where)
    repeat = given.get("repeat") or []
    if isinstance(repeat, str) or not isinstance(repeat, list):
        raise ViewError(f"{where}.repeat is not a list of paths")
    if sum(1 for item in (each, or_null, repeat or None) if item) > 1:
        raise ViewError(f"{where} has more than one of forEach, forEachOrNull and repeat")
    found = Select(
        columns=tuple(_column(item, f"{where}.column[{at}]") for at, item in enumerate(_list(given, "column", where))),
        selects=tuple(_select(item, f"{where}.select[{at}]") for at, item in enumerate(_list(given, "select", where))),
        union_all=tuple(
            _select(item, f"{where}.unionAll[{at}]") for at, item in enumerate(_list(given, "unionAll", where))
        ),
        for_each=each or or_null,
        or_null=or_null is not None,
        repeat=tuple(_path({"repeat": item}, "repeat", where) or "" for item in repeat),
    )
    if not (found.columns or found.selects or found.union_all):
        raise ViewError(f"{where} has no column, select or unionAll")
    _check_union(found, where)
    return found


def _column(given: Any, where: str) -> Column:
    if not isinstance(given, Mapping):
        raise ViewError(f"{where} is not a JSON object")
    name = _text(given, "name", where, required=True) or ""
    if not _NAME.match(name):
        raise ViewError(f"{where}: {name!r} is no column name", hint="letters, digits and _, starting with a letter")
    collection = given.get("collection", False)
    if not isinstance(collection, bool):
        raise ViewError(f"{where}.collection is not true or false")
    tags = [tag for tag in _list(given, "tag", where) if isinstance(tag, Mapping)]
    ansi = [_text(tag, "value", f"{where}.tag", required=True) for tag in tags if tag.get("name") == "ansi/type"]
    return Column(
        name=name,
        path=_path(given, "path", where, required=True) or "",
        type=_type(_text(given, "type", where)),
        collection=collection,
        ansi_type=ansi[0] if ansi else None,
        description=_text(given, "description", where),
    )


def _constant(given: Any, at: int) -> Constant:
    where = f"constant[{at}]"
    if not isinstance(given, Mapping):
        raise ViewError(f"{where} is not a JSON object")
    name = _text(given, "name", where, required=True) or ""
    if not _NAME.match(name):
        raise ViewError(f"{where}: {name!r} is no name for a constant")
    values = [key for key in given if key.startswith("value")]
    if len(values) != 1 or values[0][5:] not in CONSTANT_TYPES:
        raise ViewError(f"the constant {name} needs one value[x]", hint=f"one of {', '.join(sorted(CONSTANT_TYPES))}")
    type = CONSTANT_TYPES[values[0][5:]]
    value = _constant_value(given[values[0]], type)
    if value is None:
        raise ViewError(f"the constant {name} is no {type}")
    return Constant(name, type, value)


def _constant_value(value: Any, type: str) -> str | int | bool | None:
    """Return a constant's value, or None where it is none of its type."""
    if type == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    if type in _RANGES:
        # JSON has integer64 as text.
        number = int(value) if type == "integer64" and _INTEGER.match(str(value)) else value
        lowest, highest = _RANGES[type]
        return number if isinstance(number, int) and lowest <= number <= highest else None
    if type == "decimal":
        return str(value) if _DECIMAL.match(str(value)) else None
    if not isinstance(value, str):
        return None
    dated = type in ("date", "dateTime", "instant", "time")
    return None if dated and dates.parse(value, time=type == "time") is None else value


def _unknown(given: Mapping[str, Any], kind: str, where: str) -> Iterator[str]:
    """Yield what is to be said about members that no rule reads: often a slip, and rows are not what was meant."""
    for name, value in given.items():
        known = name in (*_MEMBERS[kind], "id", "extension", "modifierExtension") or name.startswith("_")
        if kind == "constant":
            known = known or name.startswith("value")
        if not kind:  # all that a canonical resource may hold
            known = known or not difflib.get_close_matches(name, _MEMBERS[kind], 1, 0.75)
        if not known:
            yield f"{where} has a member {name}, which means nothing there"
        below = _MEMBERS[kind].get(name)
        for at, item in enumerate(value if below and isinstance(value, list) else ()):
            if isinstance(item, Mapping):
                yield from _unknown(item, below or "", f"{name}[{at}]" if not kind else f"{where}.{name}[{at}]")


def _type(given: str | None) -> str | None:
    """Return the bare name of a column type, which may be written as a StructureDefinition URL."""
    return given.rpartition("/")[2] if given else None


def _check_union(select: Select, where: str) -> None:
    names = [[column.name for column in branch.all_columns()] for branch in select.union_all]
    for at, other in enumerate(names[1:], 1):
        if other != names[0]:
            raise ViewError(
                f"{where}.unionAll[{at}] has other columns than unionAll[0]",
                said=f"{', '.join(other)} against {', '.join(names[0])}",
                hint="all branches need the same column names in the same order",
            )


def _check_names(found: Definition) -> None:
    seen: set[str] = set()
    for column in found.columns():
        if column.name in seen:
            raise ViewError(f"the column name {column.name} is used twice")
        seen.add(column.name)
    constants = [constant.name for constant in found.constants]
    for name in constants:
        if constants.count(name) > 1:
            raise ViewError(f"the constant {name} is defined twice")


def _path(given: Mapping[str, Any], key: str, where: str, *, required: bool = False) -> str | None:
    text = _text(given, key, where, required=required)
    if text is not None:
        try:
            parse(text)
        except FHIRPathError as error:
            error.said = f"{where}.{key}"
            raise
    return text


def _text(given: Mapping[str, Any], key: str, where: str, *, required: bool = False) -> str | None:
    value = given.get(key)
    if value is None:
        if required:
            raise ViewError(f"{where} has no {key}")
        return None
    if not isinstance(value, str) or not value.strip():
        raise ViewError(f"{where}.{key} is not a text")
    return value


def _list(given: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = given.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ViewError(f"{where}.{key} is not a list")
    return value
