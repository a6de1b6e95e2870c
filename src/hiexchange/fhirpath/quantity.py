"""Quantities: comparison and sums in one unit, with the common UCUM units of time, mass, length, volume."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from hiexchange.fhirpath.columns import Part

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


def compare(operator: str, left: Part, right: Part, n: int) -> pa.Array:
    """Compare quantities slot by slot; units that do not convert give null (``=``: null, as FHIRPath says)."""
    result = [
        _compare(operator, a, b) for a, b in zip(left.array(n).to_pylist(), right.array(n).to_pylist(), strict=True)
    ]
    return pa.array(result, pa.bool_())


def base(value: dict[str, Any] | None) -> tuple[str, Decimal] | None:
    """Return a quantity in the base unit of its dimension, or None if it has no number."""
    if value is None or value.get("value") is None:
        return None
    code = value.get("code") or value.get("unit") or "1"
    code = _CALENDAR.get(code, code)
    try:
        number = Decimal(value["value"])
    except InvalidOperation:
        return None
    name, scale = _SCALE.get(code, (code, Decimal(1)))
    return name, number * scale


def key(value: dict[str, Any]) -> Any:
    """Return a hashable stand-in, equal for equal quantities."""
    return ("quantity", base(value))


def add(left: dict[str, Any] | None, right: dict[str, Any] | None, sign: int) -> dict[str, Any] | None:
    """Return the sum (``sign`` 1) or difference (-1) in the left unit; None where units do not convert."""
    a, b = base(left), base(right)
    if left is None or a is None or b is None or a[0] != b[0]:
        return None
    code = left.get("code") or left.get("unit") or "1"
    scale = _SCALE.get(_CALENDAR.get(code, code), ("", Decimal(1)))[1]
    return {"value": format((a[1] + sign * b[1]) / scale, "f"), "unit": left.get("unit") or code, "code": code}


def _compare(operator: str, left: dict[str, Any] | None, right: dict[str, Any] | None) -> bool | None:
    a, b = base(left), base(right)
    if a is None or b is None or a[0] != b[0]:
        return None
    x, y = a[1], b[1]
    return {"=": x == y, "!=": x != y, "<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y}[operator]
