"""Type specifiers as tests on values: what Is, As, Case on types and overloads ask for.

A value's type is its Python class or, for a FHIR element, its definition; nothing in the ELM says it.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.model import Element
from hiexchange.measures.cql.values import Code, CodeSystem, Concept, Interval, Quantity, Ratio, ValueSet

Test = Callable[[Any], bool]
SYSTEM = "urn:hl7-org:elm-types:r1"
FHIR = "http://hl7.org/fhir"


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_SYSTEM: dict[str, Test] = {
    "Any": lambda value: True,
    "Boolean": lambda value: isinstance(value, bool),
    "Integer": _integer,
    "Long": _integer,
    "Decimal": lambda value: isinstance(value, Decimal),
    "String": lambda value: isinstance(value, str),
    "DateTime": lambda value: isinstance(value, t.DateTime),
    "Date": lambda value: isinstance(value, t.Date),
    "Time": lambda value: isinstance(value, t.Time),
    "Quantity": lambda value: isinstance(value, Quantity),
    "Ratio": lambda value: isinstance(value, Ratio),
    "Code": lambda value: isinstance(value, Code),
    "Concept": lambda value: isinstance(value, Concept),
    "ValueSet": lambda value: isinstance(value, ValueSet),
    "CodeSystem": lambda value: isinstance(value, CodeSystem),
    "Vocabulary": lambda value: isinstance(value, ValueSet | CodeSystem),
    "Tuple": lambda value: isinstance(value, dict),
}
# FHIR primitives are System values as soon as they are read.
_PRIMITIVES: dict[str, Test] = {
    "boolean": _SYSTEM["Boolean"],
    "integer": _integer,
    "positiveInt": _integer,
    "unsignedInt": _integer,
    "integer64": _integer,
    "decimal": _SYSTEM["Decimal"],
    "date": _SYSTEM["Date"],
    "dateTime": _SYSTEM["DateTime"],
    "instant": _SYSTEM["DateTime"],
    "time": _SYSTEM["Time"],
    **dict.fromkeys(
        ("string", "code", "uri", "url", "canonical", "id", "oid", "uuid", "markdown", "base64Binary", "xhtml"),
        _SYSTEM["String"],
    ),
}
_POINTS: dict[str, Any] = {
    "Integer": int,
    "Long": int,
    "Decimal": Decimal,
    "DateTime": t.DateTime,
    "Date": t.Date,
    "Time": t.Time,
    "Quantity": Quantity,
}


def split_name(name: str) -> tuple[str, str]:
    """Return (namespace, local name) of ``{namespace}Local``; a bare name has the namespace of System."""
    if name.startswith("{"):
        namespace, _, local = name[1:].partition("}")
        return namespace, local
    return SYSTEM, name.rpartition(".")[2]


def specifier(node: dict[str, Any], name: str) -> Any:
    """Return the type an Is, As or operand asks for: a QName string or a specifier node."""
    return node.get(f"{name}Type") or node.get(f"{name}TypeSpecifier")


def test_for(spec: Any) -> Test:
    """Return the test for a type specifier; null passes none but is asked separately."""
    if isinstance(spec, str):
        return _named(spec)
    if spec is None:
        return _SYSTEM["Any"]
    kind = spec.get("type")
    if kind == "NamedTypeSpecifier":
        return _named(spec["name"])
    if kind == "IntervalTypeSpecifier":
        return _interval(spec["pointType"])
    if kind == "ListTypeSpecifier":
        return _list(test_for(spec.get("elementType")))
    if kind == "ChoiceTypeSpecifier":
        tests = tuple(test_for(choice) for choice in spec.get("choice") or spec.get("type") or ())
        return lambda value: any(test(value) for test in tests)
    if kind == "TupleTypeSpecifier":
        return _SYSTEM["Tuple"]
    return _SYSTEM["Any"]


def _named(name: str) -> Test:
    namespace, local = split_name(name)
    if namespace == SYSTEM:
        return _SYSTEM.get(local, lambda value: False)
    if local in _PRIMITIVES:
        return _PRIMITIVES[local]
    if local in ("Element", "Any"):
        return lambda value: not isinstance(value, list | Interval | dict)
    # FHIR codes with a required binding appear as types of their own (AdministrativeGender).
    return lambda value: (
        (isinstance(value, Element) and local in value.type.chain)
        or (type(value) is str and local not in _COMPLEX_HINT and local[:1].isupper() and _is_code_type(local))
    )


_COMPLEX_HINT = {"Resource", "DomainResource", "Reference", "Patient", "Encounter", "Condition", "Observation"}


def _is_code_type(local: str) -> bool:
    from hiexchange.measures.cql.model import R4

    return R4.definitions.get(local) is None


def _interval(point: Any) -> Test:
    name = split_name(point["name"])[1] if isinstance(point, dict) and "name" in point else None
    wanted = _POINTS.get(name or "")

    def test(value: Any) -> bool:
        return isinstance(value, Interval) and (wanted is None or value.kind is None or value.kind is wanted)

    return test


def _list(element: Test) -> Test:
    def test(value: Any) -> bool:
        if not isinstance(value, list):
            return False
        # Lists are typed by their first element that is not null.
        return next((element(item) for item in value if item is not None), True)

    return test


def point_class(spec: Any) -> Any:
    """Return the class of an interval type's points, or of a named point type; None when not known."""
    if isinstance(spec, dict) and spec.get("type") == "IntervalTypeSpecifier":
        spec = spec["pointType"]
    name = spec if isinstance(spec, str) else (spec or {}).get("name")
    return _POINTS.get(split_name(name)[1]) if name else None


def score(spec: Any, value: Any, test: Test) -> int | None:
    """Return how closely a value fits an operand's type: 0 exact, larger is looser, None not at all."""
    if value is None:
        return 2
    if not test(value):
        return None
    name = spec if isinstance(spec, str) else (spec or {}).get("name", "")
    local = split_name(name)[1] if name else ""
    if isinstance(value, Element) and local:
        return 0 if value.type.name == local else 1
    return 3 if local in ("Any", "Element", "Resource", "DomainResource") else 0
