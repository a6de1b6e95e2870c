"""Quantities: comparison and sums in one unit, with the common UCUM units of time, mass, length, volume."""

from __future__ import annotations

from decimal import Decimal, Inexact, InvalidOperation
from typing import Any, NamedTuple

import pyarrow as pa

from hiexchange.fhirpath import numbers
from hiexchange.fhirpath.columns import Part
from hiexchange.fhirpath.numbers import EXACT

LITERAL = pa.struct([("value", pa.string()), ("unit", pa.string()), ("code", pa.string())])
"""Arrow type of System.Quantity."""

_CALENDAR = {"second": "s", "millisecond": "ms", "minute": "min", "hour": "h", "day": "d", "week": "wk"}
"""Calendar words that equal a UCUM unit; years and months of a calendar have no fixed length."""

_PREFIX = {"k": "1e3", "": "1", "d": "1e-1", "c": "1e-2", "m": "1e-3", "u": "1e-6", "n": "1e-9", "p": "1e-12"}
_SCALE: dict[str, tuple[str, Decimal]] = {
    **{prefix + base: (base, Decimal(size)) for base in ("g", "m", "L", "mol") for prefix, size in _PREFIX.items()},
    **{prefix + "l": ("L", Decimal(size)) for prefix, size in _PREFIX.items()},
    "ms": ("s", Decimal("1e-3")),
    "s": ("s", Decimal(1)),
    "min": ("s", Decimal(60)),
    "h": ("s", Decimal(3600)),
    "d": ("s", Decimal(86400)),
    "wk": ("s", Decimal(604800)),
    "mo": ("mo", Decimal(1)),
    "a": ("mo", Decimal(12)),
    "month": ("month", Decimal(1)),
    "year": ("month", Decimal(12)),
    "[in_i]": ("m", Decimal("0.0254")),
    "[ft_i]": ("m", Decimal("0.3048")),
    "[lb_av]": ("g", Decimal("453.59237")),
    "[oz_av]": ("g", Decimal("28.349523125")),
    "%": ("1", Decimal("0.01")),
    "1": ("1", Decimal(1)),
}


def scalar(value: str, unit: str | None) -> pa.Scalar:
    """Return a literal such as ``4 days`` or ``1.5 'mg'``."""
    code = unit or "1"
    return pa.scalar({"value": value, "unit": code, "code": code}, LITERAL)


class Base(NamedTuple):
    """A quantity in the base unit of its dimension."""

    unit: str
    number: Decimal
    scale: Decimal
    """How many base units the quantity's own unit is."""


def number(value: dict[str, Any] | None) -> Decimal | None:
    """Return the number of a quantity; one with a comparator (``< 5 mg``) has none that could be worked with."""
    if value is None or value.get("value") is None or value.get("comparator"):
        return None
    try:
        return Decimal(value["value"])
    except InvalidOperation:
        return None


def unit_of(value: dict[str, Any]) -> str:
    """Return the code of a quantity's unit, or what stands for it."""
    return value.get("code") or value.get("unit") or "1"


def base(value: dict[str, Any] | None, *, calendar: bool = False) -> Base | None:
    """Return a quantity in the base unit of its dimension, or None if it has no definite number.

    Args:
        value: The quantity.
        calendar: Whether years and months of a calendar are those of UCUM (``a``, ``mo``).
    """
    amount = number(value)
    if value is None or amount is None:
        return None
    code = unit_of(value)
    unit, scale = _SCALE.get(_CALENDAR.get(code, code), (code, Decimal(1)))
    return Base("mo" if calendar and unit == "month" else unit, EXACT.multiply(amount, scale), scale)


def compare(operator: str, left: Part, right: Part, n: int) -> pa.Array:
    """Compare quantities slot by slot; units that do not convert give null (``=``: null, as FHIRPath says).

    FHIR says years and months by UCUM and means those of the calendar; between literals the two are apart.
    """
    calendar = not left.type == right.type == "System.Quantity"
    result = [
        _compare(operator, base(a, calendar=calendar), base(b, calendar=calendar))
        for a, b in zip(left.array(n).to_pylist(), right.array(n).to_pylist(), strict=True)
    ]
    return pa.array(result, pa.bool_())


def equivalent(left: Base, right: Base) -> bool:
    """Compare in the larger of the two units, rounded to the digits of the less precise number."""
    if left.unit != right.unit:
        return False
    scale = max(left.scale, right.scale)
    return numbers.equivalent(EXACT.divide(left.number, scale), EXACT.divide(right.number, scale))


def add(left: dict[str, Any] | None, right: dict[str, Any] | None, sign: int) -> dict[str, Any] | None:
    """Return the sum (``sign`` 1) or difference (-1) in the finer unit; None where units do not convert."""
    a, b = base(left), base(right)
    if left is None or right is None or a is None or b is None or a.unit != b.unit:
        return None
    finer, scale = (left, a.scale) if a.scale <= b.scale else (right, b.scale)
    total = EXACT.add(a.number, b.number if sign > 0 else b.number.copy_negate())
    context = EXACT.copy()
    context.clear_flags()
    amount = context.divide(total, scale)
    if context.flags[Inexact]:
        amount = round(amount, numbers.PLACES)
    code = unit_of(finer)
    return {"value": numbers.plain(amount), "unit": finer.get("unit") or code, "code": code}


def _compare(operator: str, a: Base | None, b: Base | None) -> bool | None:
    if a is None or b is None or a.unit != b.unit:
        return None
    x, y = a.number, b.number
    return {"=": x == y, "!=": x != y, "<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y}[operator]
