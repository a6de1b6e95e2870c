"""Mathematics: exact on decimals; roots, logarithms and powers keep eight places."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_UP, Decimal

import pyarrow.compute as pc

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import numbers, tree
from hiexchange.fhirpath.columns import Collection, Part, dense, empty
from hiexchange.fhirpath.frame import Frame
from hiexchange.fhirpath.kinds import kind_of

_ROUNDINGS = {"ceiling": ROUND_CEILING, "floor": ROUND_FLOOR, "truncate": ROUND_DOWN}


def _number(node: tree.Call, frame: Frame) -> Part | None:
    parts = frame.eval(node.parent).singles(f"{node.name}()")
    for part in parts:
        if kind_of(part.type) not in ("Integer", "Decimal", "Quantity"):
            raise FHIRPathError(f"{node.name}() works on numbers, not on {part.type}", position=node.position)
    if len(parts) > 1:
        raise FHIRPathError(f"{node.name}() got several types of number", position=node.position)
    return parts[0] if parts else None


def _argument(node: tree.Call, frame: Frame) -> Decimal | None:
    """Return a constant argument, or None where it is empty."""
    parts = frame.eval(node.arguments[0]).singles(f"{node.name}()")
    if not parts:
        return None
    if not parts[0].constant:
        raise FHIRPathError(f"the argument of {node.name}() must be a literal or a constant", position=node.position)
    value = parts[0].values.as_py()
    return None if value is None else Decimal(str(value))


def _absolute(node: tree.Call, frame: Frame) -> Collection:
    part = _number(node, frame)
    if part is None:
        return empty(frame.n)
    if kind_of(part.type) == "Integer":
        return dense(pc.abs(part.array(frame.n)), "System.Integer", frame.n)
    if kind_of(part.type) == "Decimal":
        return dense(numbers.map_decimals(part, frame.n, abs), "System.Decimal", frame.n)
    raise FHIRPathError("abs() of a quantity is not supported", position=node.position)


def _to_integer(node: tree.Call, frame: Frame) -> Collection:
    part = _number(node, frame)
    if part is None:
        return empty(frame.n)
    rounding = _ROUNDINGS[node.name]
    texts = numbers.map_decimals(part, frame.n, lambda value: value.to_integral_value(rounding))
    return dense(numbers.whole(texts), "System.Integer", frame.n)


def _round(node: tree.Call, frame: Frame) -> Collection:
    part = _number(node, frame)
    places = _argument(node, frame) if node.arguments else Decimal(0)
    if part is None or places is None:
        return empty(frame.n)
    if places < 0:
        raise FHIRPathError("round() cannot take a negative precision", position=node.position)
    unit = Decimal(1).scaleb(-int(places))
    texts = numbers.map_decimals(part, frame.n, lambda value: value.quantize(unit, ROUND_HALF_UP))
    return dense(texts, "System.Decimal", frame.n)


def _real(function: Callable[[float], float]) -> Callable[[tree.Call, Frame], Collection]:
    def run(node: tree.Call, frame: Frame) -> Collection:
        part = _number(node, frame)
        if part is None:
            return empty(frame.n)
        return dense(
            numbers.map_decimals(part, frame.n, lambda value: _safe(function, value)), "System.Decimal", frame.n
        )

    return run


def _safe(function: Callable[[float], float], value: Decimal) -> Decimal | None:
    try:
        result = function(float(value))
    except (ValueError, OverflowError):
        return None
    return round(Decimal(result), numbers.PLACES) if math.isfinite(result) else None


def _log(node: tree.Call, frame: Frame) -> Collection:
    base = _argument(node, frame)
    if base is None:
        return empty(frame.n)
    return _real(lambda value: math.log(value, float(base)))(node, frame)


def _power(node: tree.Call, frame: Frame) -> Collection:
    part, exponent = _number(node, frame), _argument(node, frame)
    if part is None or exponent is None:
        return empty(frame.n)

    def raised(value: Decimal) -> Decimal | None:
        if exponent == exponent.to_integral_value() and exponent >= 0:
            return value**exponent
        return None if value < 0 else _safe(lambda number: number ** float(exponent), value)

    texts = numbers.map_decimals(part, frame.n, raised)
    if kind_of(part.type) == "Integer" and exponent == exponent.to_integral_value() and exponent >= 0:
        return dense(numbers.whole(texts), "System.Integer", frame.n)
    return dense(texts, "System.Decimal", frame.n)


FUNCTIONS = {
    "abs": (0, 0, _absolute),
    "ceiling": (0, 0, _to_integer),
    "floor": (0, 0, _to_integer),
    "truncate": (0, 0, _to_integer),
    "round": (0, 1, _round),
    "sqrt": (0, 0, _real(math.sqrt)),
    "exp": (0, 0, _real(math.exp)),
    "ln": (0, 0, _real(math.log)),
    "log": (1, 1, _log),
    "power": (1, 1, _power),
}
