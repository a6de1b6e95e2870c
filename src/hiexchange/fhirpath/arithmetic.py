"""``+ - * / div mod &`` for numbers, text, dates with quantities, and quantities."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import calendar_math, numbers, quantity
from hiexchange.fhirpath.columns import Collection, Part, dense, empty, join_same_type
from hiexchange.fhirpath.kinds import kind_of

_NUMBERS = ("Integer", "Decimal")
_DATES = ("Date", "DateTime", "Time")


def arithmetic(operator: str, left: Collection, right: Collection) -> Collection:
    """Apply an arithmetic operator to singletons; empty where either side is (``&``: empty counts as '')."""
    if operator == "&":
        return _join(left, right)
    n = left.n
    found: list[Part] = []
    for a in left.singles(f"operator {operator}"):
        for b in right.singles(f"operator {operator}"):
            values, type = _pair(operator, a, b, n)
            found.append(Part(values, type))
    if len(found) < 2:
        return Collection(n, tuple(found))
    return join_same_type(Collection(n, tuple(part.sparse(n) for part in found)))


def negate(operand: Collection) -> Collection:
    """Return numbers and quantities with the sign turned."""
    n = operand.n
    minus = Part(pa.scalar(-1, pa.int64()), "System.Integer")
    found = []
    for part in operand.singles("the sign"):
        if part.constant and kind_of(part.type) == "Integer" and part.values.is_valid:
            # Stays a constant, for functions that take a literal.
            found.append(Part(pa.scalar(-part.values.as_py(), pa.int64()), "System.Integer"))
        elif kind_of(part.type) == "Quantity":
            values = _each(part, n, lambda item: {**item, "value": numbers.plain(Decimal(item["value"]).copy_negate())})
            found.append(Part(values, "System.Quantity"))
        elif kind_of(part.type) in _NUMBERS:
            found.append(Part(*numbers.arithmetic("*", part, minus, n)))
        else:
            raise FHIRPathError(f"{part.type} has no sign")
    return Collection(n, tuple(found))


def _pair(operator: str, left: Part, right: Part, n: int) -> tuple[pa.Array, str]:
    a, b = kind_of(left.type), kind_of(right.type)
    if a in _NUMBERS and b in _NUMBERS:
        return numbers.arithmetic(operator, left, right, n)
    if a == b == "String" and operator == "+":
        values = pc.binary_join_element_wise(left.array(n), right.array(n), pa.scalar("", pa.string()))
        return values, "System.String"
    if a in _DATES and b == "Quantity" and operator in ("+", "-"):
        return calendar_math.shift(left, right, n, 1 if operator == "+" else -1)
    if a == b == "Quantity" and operator in ("+", "-"):
        return _quantities(left, right, n, 1 if operator == "+" else -1), "System.Quantity"
    if operator in ("*", "/") and {a, b} <= {"Quantity", *_NUMBERS} and a is not None:
        return _scaled(operator, left, right, n)
    raise FHIRPathError(f"{left.type} {operator} {right.type} is not defined")


def _quantities(left: Part, right: Part, n: int, sign: int) -> pa.Array:
    pairs = zip(left.array(n).to_pylist(), right.array(n).to_pylist(), strict=True)
    return pa.array([quantity.add(a, b, sign) for a, b in pairs], quantity.LITERAL)


def _scaled(operator: str, left: Part, right: Part, n: int) -> tuple[pa.Array, str]:
    """Multiply or divide a quantity by a number; units of products are not computed."""
    if kind_of(right.type) == "Quantity" and (operator == "/" or kind_of(left.type) == "Quantity"):
        raise FHIRPathError("products and quotients of two quantities are not supported")
    amount, factor = (right, left) if kind_of(right.type) == "Quantity" else (left, right)
    items = amount.array(n).to_pylist()
    definite = [None if quantity.number(item) is None else item["value"] for item in items]
    texts = Part(pa.array(definite, pa.string()), "System.Decimal")
    values = numbers.arithmetic(operator, texts, factor, n)[0].to_pylist()
    done = [
        None if item is None or value is None else {"value": value, "unit": item.get("unit"), "code": item.get("code")}
        for item, value in zip(items, values, strict=True)
    ]
    return pa.array(done, quantity.LITERAL), "System.Quantity"


def _each(part: Part, n: int, change: Callable[[dict[str, Any]], dict[str, Any]]) -> pa.Array:
    items = part.array(n).to_pylist()
    done = [None if quantity.number(item) is None else change(item) for item in items]
    return pa.array(
        [item and {key: item.get(key) for key in ("value", "unit", "code")} for item in done], quantity.LITERAL
    )


def _join(left: Collection, right: Collection) -> Collection:
    n = left.n
    sides = [_text(side) for side in (left, right)]
    if any(side is None for side in sides):
        return empty(n)
    return dense(pc.binary_join_element_wise(*sides, pa.scalar("", pa.string())), "System.String", n)


def _text(side: Collection) -> pa.Array:
    result = pa.nulls(side.n, pa.string())
    for part in side.singles("operator &"):
        if kind_of(part.type) != "String":
            raise FHIRPathError(f"operator & joins strings, not {part.type}", hint="use toString()")
        result = pc.coalesce(result, part.array(side.n))
    return result.fill_null("")
