"""Read the packed tables; see the package docstring."""

from __future__ import annotations

import difflib
import gzip
import importlib.resources
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from hiexchange.errors import ConfigError

VERSIONS = {"3.0.2": "STU3", "4.0.1": "R4", "4.3.0": "R4B", "5.0.0": "R5"}
"""FHIR versions shipped, and their release names."""

# Servers announce technical corrections and bare releases; the elements are the same.
_ALIASES = {
    **{release: version for version, release in VERSIONS.items()},
    "3.0": "3.0.2",
    "3.0.0": "3.0.2",
    "3.0.1": "3.0.2",
    "4.0": "4.0.1",
    "4.0.0": "4.0.1",
    "4.1": "4.3.0",
    "4.3": "4.3.0",
    "4.3.0": "4.3.0",
    "5.0": "5.0.0",
}


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a type, as the definitions name it (choice elements without ``[x]``)."""

    name: str
    """FHIR name; of a choice element the stem: ``value``, ``deceased``."""
    types: tuple[str, ...]
    """Type names; a backbone element's is its path (``Patient.contact``), also where the definitions
    say contentReference (``Questionnaire.item`` has ``item`` of type ``Questionnaire.item``)."""
    many: bool
    """Whether it repeats: max is not 1."""
    choice: bool
    """Whether its JSON name is stem plus type: ``valueQuantity``."""
    required: bool = False
    """Whether min is above 0."""

    def json_names(self) -> dict[str, str]:
        """Return {JSON member name: type}; one entry unless the element is a choice."""
        if not self.choice:
            return {self.name: self.types[0]}
        return {self.name + kind[0].upper() + kind[1:]: kind for kind in self.types}


@dataclass(frozen=True)
class TypeDef:
    """One FHIR type: a primitive, a data type, a resource, or a backbone element."""

    name: str
    kind: str
    """``primitive``, ``complex``, ``resource`` or ``backbone``."""
    base: str
    """Name of the type it specialises; empty for the roots Element and Resource."""
    elements: dict[str, Element]
    """By FHIR name, inherited ones first, in the order of the definitions."""

    @cached_property
    def json_members(self) -> dict[str, tuple[Element, str]]:
        """{JSON member name: (element, type)}, choices spelled out; without ``resourceType`` and ``_x``."""
        return {
            name: (element, kind) for element in self.elements.values() for name, kind in element.json_names().items()
        }


class Definitions:
    """The types of one FHIR version."""

    def __init__(self, version: str, packed: Mapping[str, Any]) -> None:
        """Keep a packed table; use :meth:`load`."""
        self.version = version
        self._packed = packed
        self._types: dict[str, TypeDef] = {}

    @staticmethod
    def load(version: str = "4.0.1") -> Definitions:
        """Return the definitions of a version (``4.0.1``, ``R4``, ``4.0``), read once a process.

        Raises:
            ConfigError: No table of that version is shipped.
        """
        known = _ALIASES.get(version, version)
        if known not in VERSIONS:
            raise ConfigError(
                f"no FHIR definitions of version {version!r} are shipped",
                hint=f"use one of {', '.join(VERSIONS)}, or {', '.join(VERSIONS.values())}",
            )
        return _load(known)

    def __contains__(self, name: object) -> bool:
        return name in self._packed

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __repr__(self) -> str:
        return f"Definitions({self.version!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Definitions.load, (self.version,))

    @cached_property
    def resources(self) -> tuple[str, ...]:
        """Names of the resource types, abstract ones left out, sorted."""
        # R5 adds interfaces that no instance has; nothing derives from them.
        abstract = {base for _, base, _ in self._packed.values()} | {
            "Resource",
            "CanonicalResource",
            "MetadataResource",
        }
        return tuple(
            sorted(name for name, (kind, _, _) in self._packed.items() if kind == "resource" and name not in abstract)
        )

    def type(self, name: str) -> TypeDef:
        """Return a type by name, or by path for a backbone element (``Patient.contact``).

        Raises:
            ConfigError: This FHIR version has no such type.
        """
        found = self.get(name)
        if found is None:
            near = difflib.get_close_matches(name, self._packed, 1)
            raise ConfigError(
                f"FHIR {self.version} has no type {name!r}", hint=f"did you mean {near[0]}?" if near else None
            )
        return found

    def get(self, name: str) -> TypeDef | None:
        """Return a type by name, or None."""
        found = self._types.get(name)
        if found is None and name in self._packed:
            kind, base, own = self._packed[name]
            parent = self.get(base)
            elements = dict(parent.elements) if parent else {}
            for leaf, (types, many, choice, required) in own.items():
                elements[leaf] = Element(leaf, tuple(types), bool(many), bool(choice), bool(required))
            found = self._types[name] = TypeDef(name, kind, base, elements)
        return found

    def is_a(self, name: str, ancestor: str) -> bool:
        """Say whether ``name`` is ``ancestor`` or specialises it."""
        while name:
            if name == ancestor:
                return True
            name = self._packed[name][1] if name in self._packed else ""
        return False

    def is_primitive(self, name: str) -> bool:
        """Say whether values of this type are JSON scalars."""
        return name in self._packed and self._packed[name][0] == "primitive"

    def is_resource(self, name: str) -> bool:
        """Say whether the type is a resource, abstract ``Resource`` and ``DomainResource`` included."""
        return name in self._packed and self._packed[name][0] == "resource"


@cache
def _load(version: str) -> Definitions:
    data = importlib.resources.files(__package__).joinpath("data", f"{version}.json.gz").read_bytes()
    return Definitions(version, json.loads(gzip.decompress(data))["types"])
