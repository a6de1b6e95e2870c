"""One ELM library, read into the parts the compiler asks for, whatever translator wrote it.

Translators differ: ``statements`` is a list or ``{"def": [...]}``, result types and signatures may
be absent, and nothing here relies on them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from hiexchange.errors import MeasureError

Node = dict[str, Any]

IGNORED = {"annotation", "resultTypeSpecifier", "signature", "localId", "locator", "resultTypeName"}


@dataclass(frozen=True)
class Include:
    """A library another one includes."""

    alias: str
    """Name by which the including library calls it."""
    id: str
    """Its identifier."""
    version: str | None
    """The version asked for."""


@dataclass(frozen=True, eq=False)
class Library:
    """An ELM library by its parts, all by name."""

    id: str
    version: str | None
    sha256: str
    """Hash of the ELM text: equal libraries of several bundles compile once."""
    includes: dict[str, Include]
    parameters: dict[str, Node]
    code_systems: dict[str, Node]
    value_sets: dict[str, Node]
    codes: dict[str, Node]
    concepts: dict[str, Node]
    defines: dict[str, Node]
    functions: dict[str, list[Node]]
    translator: str | None = None
    """Version of the translator that wrote it, where it says so."""
    errors: tuple[tuple[str, str], ...] = ()
    """Errors the translator left in the text: (locator, message)."""

    @property
    def name(self) -> str:
        """Id and version, as in messages."""
        return f"{self.id}|{self.version}" if self.version else self.id

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node of the library's defines and functions."""
        statements = [*self.defines.values(), *(item for items in self.functions.values() for item in items)]
        return tuple(node for statement in statements for node in walk(statement))

    def error_at(self, locator: str | None) -> str | None:
        """Return the translator's error that a node at ``locator`` stands for, or None.

        A translator writes Null in place of what it could not resolve; the node's range encloses the error's.
        """
        span = _span(locator)
        if span is None:
            return None
        for place, message in self.errors:
            inner = _span(place)
            if inner is not None and span[0] <= inner[0] and inner[1] <= span[1]:
                return message
        return None


def read(data: bytes | str | Node) -> Library:
    """Return the library in an ELM JSON text or value.

    Raises:
        MeasureError: It is not an ELM library.
    """
    raw = data if not isinstance(data, dict) else msgspec.json.encode(data)
    try:
        body = data if isinstance(data, dict) else msgspec.json.decode(data)
        library = body.get("library", body)
        identifier = library["identifier"]
        name = identifier["id"]
    except (msgspec.DecodeError, KeyError, TypeError):
        raise MeasureError("the content of a Library is not ELM JSON") from None
    statements = _items(library, "statements")
    functions: dict[str, list[Node]] = {}
    for statement in statements:
        if statement.get("type") == "FunctionDef":
            functions.setdefault(statement["name"], []).append(statement)
    errors = tuple(_errors(library))
    return Library(
        id=name,
        version=identifier.get("version"),
        sha256=hashlib.sha256(raw.encode() if isinstance(raw, str) else raw).hexdigest(),
        includes={
            item["localIdentifier"]: Include(
                item["localIdentifier"], item["path"].rpartition("/")[2], item.get("version")
            )
            for item in _items(library, "includes")
        },
        parameters=_named(library, "parameters"),
        code_systems=_named(library, "codeSystems"),
        value_sets=_named(library, "valueSets"),
        codes=_named(library, "codes"),
        concepts=_named(library, "concepts"),
        defines={item["name"]: item for item in statements if item.get("type") != "FunctionDef"},
        functions=functions,
        translator=_translator(library),
        errors=errors,
    )


def _items(library: Node, key: str) -> list[Node]:
    value = library.get(key) or []
    items = value.get("def", []) if isinstance(value, dict) else value
    return [item for item in items if isinstance(item, dict)]


def _named(library: Node, key: str) -> dict[str, Node]:
    return {item["name"]: item for item in _items(library, key)}


def _annotations(library: Node) -> list[Node]:
    value = library.get("annotation") or []
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]


def _translator(library: Node) -> str | None:
    return next((item["translatorVersion"] for item in _annotations(library) if "translatorVersion" in item), None)


def _errors(library: Node) -> Iterator[tuple[str, str]]:
    for item in _annotations(library):
        # A library repeats the warnings and errors of those it includes; only its own are its own.
        if (
            item.get("errorSeverity") == "error"
            and item.get("libraryId", library["identifier"]["id"]) == library["identifier"]["id"]
        ):
            lines = (item.get("startLine"), item.get("startChar"), item.get("endLine"), item.get("endChar"))
            locator = "{}:{}-{}:{}".format(*lines) if None not in lines else ""
            yield locator, str(item.get("message", ""))


_LOCATOR = re.compile(r"^(\d+):(\d+)(?:-(\d+):(\d+))?$")


def _span(locator: str | None) -> tuple[tuple[int, int], tuple[int, int]] | None:
    match = _LOCATOR.match(locator or "")
    if match is None:
        return None
    start = (int(match[1]), int(match[2]))
    return start, (int(match[3]), int(match[4])) if match[3] else start


def walk(value: Any) -> Iterator[Node]:
    """Yield every ELM node below a value, the value itself included; annotations are passed over."""
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value
        for key, child in value.items():
            if key not in IGNORED:
                yield from walk(child)
    elif isinstance(value, list):
        for child in value:
            yield from walk(child)
