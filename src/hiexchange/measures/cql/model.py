"""FHIR resources as CQL sees them: typed elements over plain JSON, children made on first use.

Primitives become System values at once (``status`` is a String, ``birthDate`` a Date): ELM written
against QI-Core reads ``status.value`` as well as ``status``, and ``value`` of an unwrapped value is
the value. A choice element is found by its stem (``onset``), by its concrete form (``onsetDateTime``)
and by the translators' misspelling of it (``onsetDatetime``).
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from hiexchange.definitions import Definitions, TypeDef
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.values import Code, Concept

Convert = Callable[[Any], Any]
Load = Callable[[dict[str, Any]], Any]


class FHIRString(str):
    """A primitive that carries extensions of its own (JSON member ``_x``)."""

    __slots__ = ("extension",)
    extension: list[Element]


class Element:
    """One FHIR element: its type, its JSON, and what was already read from it."""

    __slots__ = ("cache", "data", "row", "type")

    def __init__(self, type: ElementType, data: dict[str, Any], row: int | None = None) -> None:
        """Keep JSON and type; ``row`` is set for resources and is their identity."""
        self.type = type
        self.data = data
        self.row = row
        self.cache: dict[Any, Any] = {}

    def get(self, path: str) -> Any:
        """Return a child by element name: a value, a list (elements that repeat) or None."""
        try:
            return self.cache[path]
        except KeyError:
            first, _, rest = path.partition(".")
            found = get(self.get(first), rest) if rest else self.type.loader(path)(self.data)
            value = self.cache[path] = found
            return value

    @property
    def id(self) -> str | None:
        """The element's or resource's id."""
        return self.data.get("id")

    def __repr__(self) -> str:
        return f"<{self.type.name}>"


class ElementType:
    """A FHIR type of one model: knows how to read each of its elements."""

    __slots__ = ("chain", "definition", "loaders", "model", "name")

    def __init__(self, model: Model, name: str, definition: TypeDef | None) -> None:
        """Keep the definition; ``chain`` holds the type and all its bases."""
        self.model = model
        self.name = name
        self.definition = definition
        self.loaders: dict[str, Load] = {}
        self.chain = model.chain(name)

    def loader(self, path: str) -> Load:
        """Return the function that reads ``path`` from this type's JSON."""
        found = self.loaders.get(path)
        if found is None:
            found = self.loaders[path] = self._make(path)
        return found

    def _make(self, path: str) -> Load:
        if path == "resourceType":
            return lambda data: data.get("resourceType")
        elements = self.definition.elements if self.definition is not None else {}
        element = elements.get(path)
        if element is not None:
            members = [(name, self.model.converter(kind)) for name, kind in element.json_names().items()]
            if len(members) == 1:
                return _many(*members[0]) if element.many else _one(*members[0])
            return _choice(members)
        members = [
            (name, self.model.converter(kind))
            for name, (_, kind) in (self.definition.json_members if self.definition is not None else {}).items()
            if name.lower() == path.lower()
        ]
        # An element the definitions do not have is absent, as in any instance that conforms to them.
        return _one(*members[0]) if members else lambda data: None

    def __repr__(self) -> str:
        return f"ElementType({self.name})"


def _one(name: str, convert: Convert) -> Load:
    extra = "_" + name

    def load(data: dict[str, Any]) -> Any:
        value = data.get(name)
        if value is None:
            return None
        if isinstance(value, list):
            value = value[0] if value else None
        if value is None:
            return None
        return convert(value) if extra not in data else _extended(convert(value), data[extra])

    return load


def _many(name: str, convert: Convert) -> Load:
    def load(data: dict[str, Any]) -> Any:
        values = data.get(name)
        if values is None:
            # An absent repeating element is an empty list for Exists and null tests alike: null.
            return None
        if not isinstance(values, list):
            values = [values]
        return [convert(value) for value in values if value is not None]

    return load


def _choice(members: list[tuple[str, Convert]]) -> Load:
    def load(data: dict[str, Any]) -> Any:
        for name, convert in members:
            value = data.get(name)
            if value is not None:
                return convert(value)
        return None

    return load


def _extended(value: Any, sibling: Any) -> Any:
    if not isinstance(value, str) or not isinstance(sibling, dict) or not sibling.get("extension"):
        return value
    text = FHIRString(value)
    wrap = R4.converter("Extension")
    text.extension = [wrap(item) for item in sibling["extension"]]
    return text


class Model:
    """The FHIR types of one version, read in one evaluation offset (minutes from UTC)."""

    def __init__(self, version: str = "4.0.1", offset: int = 0) -> None:
        """Load the definitions; types are built on first use."""
        self.version = version
        self.offset = offset
        self.definitions = Definitions.load(version)
        self.types: dict[str, ElementType] = {}
        self._converters: dict[str, Convert] = {}
        self._chains: dict[str, frozenset[str]] = {}

    def chain(self, name: str) -> frozenset[str]:
        """Return the type and all its bases."""
        if name not in self._chains:
            definition = self.definitions.get(name)
            base = definition.base if definition is not None else ""
            self._chains[name] = frozenset({name}) | (self.chain(base) if base else frozenset())
        return self._chains[name]

    def type(self, name: str) -> ElementType:
        """Return a type by name."""
        found = self.types.get(name)
        if found is None:
            found = self.types[name] = ElementType(self, name, self.definitions.get(name))
        return found

    def resource(self, data: dict[str, Any], row: int) -> Element:
        """Wrap a resource's JSON; ``row`` is its identity among the subject's resources."""
        return Element(self.type(data["resourceType"]), data, row)

    def converter(self, kind: str) -> Convert:
        """Return the function that turns JSON of a FHIR type into a value."""
        found = self._converters.get(kind)
        if found is None:
            found = self._converters[kind] = self._converter(kind)
        return found

    def _converter(self, kind: str) -> Convert:
        if kind == "boolean":
            return lambda value: value if isinstance(value, bool) else None
        if kind in ("integer", "positiveInt", "unsignedInt", "integer64"):
            return _integer
        if kind == "decimal":
            return to_decimal
        if kind == "date":
            return lambda value: t.parse_date(value) if isinstance(value, str) else None
        if kind in ("dateTime", "instant"):
            offset = self.offset
            return lambda value: t.parse_datetime(value, offset) if isinstance(value, str) else None
        if kind == "time":
            return lambda value: t.parse_time(value) if isinstance(value, str) else None
        definition = self.definitions.get(kind)
        if kind in ("Resource", "DomainResource"):
            return lambda value: self.resource(value, -1) if isinstance(value, dict) else None
        if definition is not None and definition.kind == "primitive":
            return lambda value: value
        return _Wrap(self, kind)


class _Wrap:
    """Makes elements of one complex type; a class so that the type is looked up only once."""

    __slots__ = ("type",)

    def __init__(self, model: Model, kind: str) -> None:
        self.type = model.type(kind)

    def __call__(self, value: Any) -> Any:
        return Element(self.type, value) if isinstance(value, dict) else None


R4 = Model()
"""The R4 model at offset 0."""


def _integer(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def to_decimal(value: Any) -> Decimal | None:
    """Return a JSON number, or the literal text the lake keeps, as a decimal."""
    try:
        return Decimal(value) if isinstance(value, int | str | Decimal) else Decimal(repr(value))
    except (InvalidOperation, TypeError):
        return None


def get(value: Any, path: str) -> Any:
    """Return a property of any value by its CQL path; of a list, of each element, nulls dropped."""
    if value is None:
        return None
    if isinstance(value, Element):
        return value.get(path)
    if path == "value" and isinstance(value, str | bool | int | Decimal | t.Temporal):
        return value
    if isinstance(value, list):
        found = (get(item, path) for item in value)
        return [item for item in found if item is not None]
    first, _, rest = path.partition(".")
    if isinstance(value, dict):
        child = value.get(first)
    elif first in _ALIASES:
        child = getattr(value, _ALIASES[first], None)
    elif first.isidentifier() and not first.startswith("_"):
        child = getattr(value, first, None)
        if callable(child):
            child = None
    else:
        child = None
    return get(child, rest) if rest else child


_ALIASES = {"lowClosed": "low_closed", "highClosed": "high_closed"}

_NO_CONCEPT = object()


def code(element: Any) -> Code | None:
    """Return the Code of a Coding."""
    if element is None or isinstance(element, Code):
        return element
    data = element.data
    return Code(data.get("code"), data.get("system"), data.get("version"), data.get("display"))


def concept(element: Any) -> Concept | None:
    """Return the Concept of a CodeableConcept (or of a Coding), made once per element."""
    if element is None or isinstance(element, Concept):
        return element
    if isinstance(element, Code):
        return Concept([element])
    if not isinstance(element, Element):
        return None
    found = element.cache.get("#concept", _NO_CONCEPT)
    if found is _NO_CONCEPT:
        data = element.data
        codings = [data] if element.type.name == "Coding" else data.get("coding") or ()
        codes = [
            Code(item.get("code"), item.get("system"), item.get("version"), item.get("display"))
            for item in codings
            if item
        ]
        found = element.cache["#concept"] = Concept(codes, data.get("text"))
    assert found is None or isinstance(found, Concept)
    return found
