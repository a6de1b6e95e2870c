"""FHIRHelpers 4.x in Python: every measure calls it thousands of times, always for the same few shapes.

The ELM bodies stay in the bundles; tests compare these functions with them.

Source: cqframework/clinical_quality_language, FHIRHelpers-4.4.000.cql.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.convert import calendar_unit
from hiexchange.measures.cql.model import Element, code, concept, get
from hiexchange.measures.cql.values import EvaluationError, Interval, Quantity, Ratio, ValueSet

_QUANTITIES = {"Quantity", "Age", "Count", "Distance", "Duration", "SimpleQuantity", "MoneyQuantity"}
# FHIR types ToValue passes through unchanged are those that are not in this table.
_MEMO = object()


def _memo(element: Element, key: str, compute: Callable[[Element], Any]) -> Any:
    found = element.cache.get(key, _MEMO)
    if found is _MEMO:
        found = element.cache[key] = compute(element)
    return found


def to_quantity(value: Any) -> Any:
    """Return a System Quantity.

    Raises:
        EvaluationError: The FHIR Quantity has a comparator: its value is not a value. Or its unit is not UCUM's.
    """
    if value is None or isinstance(value, Quantity):
        return value
    if not isinstance(value, Element):
        return None
    if value.get("value") is None:
        return None
    if value.get("comparator") is not None:
        raise EvaluationError("FHIRHelpers.ToQuantity: a Quantity with a comparator has no single value")
    return _memo(value, "#quantity", _quantity)


def to_quantity_ignoring_comparator(value: Any) -> Any:
    """Return a System Quantity, whatever its comparator."""
    if not isinstance(value, Element) or value.get("value") is None:
        return value if isinstance(value, Quantity) else None
    return _memo(value, "#quantity", _quantity)


_UNIT_SYSTEMS = (None, "http://unitsofmeasure.org", "http://hl7.org/fhirpath/CodeSystem/calendar-units")


def _quantity(element: Element) -> Quantity:
    if element.get("system") not in _UNIT_SYSTEMS:
        raise EvaluationError("FHIRHelpers.ToQuantity: the unit is of a system that is not UCUM")
    # FHIRHelpers reads code first, then unit.
    unit = element.get("code") or element.get("unit") or "1"
    return Quantity(element.get("value"), calendar_unit(unit))


def to_interval(value: Any) -> Any:
    """Return an Interval of a Period, Range, or Quantity with comparator.

    A Period without start has an unknown (open) low end, without end an ongoing (closed) high one.
    """
    if value is None or isinstance(value, Interval):
        return value
    if not isinstance(value, Element):
        return None
    return _memo(value, "#interval", _interval)


def _interval(element: Element) -> Any:
    name = element.type.name
    if name == "Period":
        start = element.get("start")
        return Interval(start, element.get("end"), start is not None, True, t.DateTime)
    if name == "Range":
        return Interval(to_quantity(element.get("low")), to_quantity(element.get("high")), True, True, Quantity)
    if name in _QUANTITIES:
        return _quantity_interval(element)
    return None


def _quantity_interval(element: Element) -> Interval:
    value, comparator = to_quantity_ignoring_comparator(element), element.get("comparator")
    if comparator in ("<", "<="):
        return Interval(None, value, True, comparator == "<=", Quantity)
    if comparator in (">", ">="):
        return Interval(value, None, comparator == ">=", True, Quantity)
    return Interval(value, value, True, True, Quantity)


def to_ratio(value: Any) -> Any:
    """Return a System Ratio."""
    if not isinstance(value, Element):
        return value
    return Ratio(to_quantity(value.get("numerator")), to_quantity(value.get("denominator")))


def to_value(value: Any) -> Any:
    """Return the System value of a FHIR choice element: what it is decides how it is converted."""
    if not isinstance(value, Element):
        return [to_value(item) for item in value] if isinstance(value, list) else value
    name = value.type.name
    convert = _BY_TYPE.get(name)
    return convert(value) if convert is not None else value


_BY_TYPE: dict[str, Callable[[Any], Any]] = {
    "CodeableConcept": concept,
    "Coding": code,
    "Period": to_interval,
    "Range": to_interval,
    "Ratio": to_ratio,
    **dict.fromkeys(_QUANTITIES, to_quantity),
}


def to_concept(value: Any) -> Any:
    """Return a Concept of a CodeableConcept; of a list, of each."""
    return [concept(item) for item in value] if isinstance(value, list) else concept(value)


def to_code(value: Any) -> Any:
    """Return a Code of a Coding."""
    return [code(item) for item in value] if isinstance(value, list) else code(value)


def _plain(value: Any) -> Any:
    return get(value, "value") if isinstance(value, Element | dict) else value


def extension(element: Any, url: Any) -> list[Any]:
    """Return the extensions of an element that have a URL."""
    found = get(element, "extension")
    return [item for item in found or [] if item is not None and item.get("url") == url]


def modifier_extension(element: Any, url: Any) -> list[Any]:
    """Return the modifier extensions of an element that have a URL."""
    found = get(element, "modifierExtension")
    return [item for item in found or [] if item is not None and item.get("url") == url]


def to_value_set(uri: Any) -> Any:
    """Return a value set by URL, its codes unknown until it is resolved."""
    return None if uri is None else ValueSet(uri, uri, None, "it was named at run time")


def to_decimal(value: Any) -> Any:
    """Return the decimal of a FHIR decimal."""
    plain = _plain(value)
    return Decimal(plain) if isinstance(plain, int) and not isinstance(plain, bool) else plain


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ToValue": to_value,
    "ToInterval": to_interval,
    "ToConcept": to_concept,
    "ToQuantity": to_quantity,
    "ToQuantityIgnoringComparator": to_quantity_ignoring_comparator,
    "ToCode": to_code,
    "ToRatio": to_ratio,
    "ToString": _plain,
    "ToDateTime": _plain,
    "ToDate": _plain,
    "ToTime": _plain,
    "ToBoolean": _plain,
    "ToInteger": _plain,
    "ToDecimal": to_decimal,
    "ToCalendarUnit": calendar_unit,
    "ToValueSet": to_value_set,
    "extension": extension,
    "modifierExtension": modifier_extension,
    "hasValue": lambda value: _plain(value) is not None,
    "getValue": _plain,
}
"""By name; what FHIRHelpers declares external and is not here is refused when it is called."""
