"""Numbers: integers as int64, decimals as text outside and exact decimals inside."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath.columns import Part
from hiexchange.fhirpath.kinds import kind_of

NARROW = pa.decimal128(38, 18)
WIDE = pa.decimal256(76, 38)
PLACES = 8
"""Digits after the point that a quotient keeps, as FHIRPath's own decimals have."""

EXACT = Context(prec=60)
"""Arithmetic that does not round what FHIR allows."""
_LIMIT = 2**31


def decimals(part: Part) -> Any:
    """Return a number part as exact Arrow decimals (array or scalar), for comparison.

    Raises:
        FHIRPathError: A number has more than 38 digits before or after the point.
    """
    values = part.values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        values = pc.cast(values, pa.string())
    for target in (NARROW, WIDE):
        try:
            return values.cast(target) if part.constant else pc.cast(values, target)
        except pa.ArrowInvalid:
            continue
    raise FHIRPathError("a decimal has more digits than can be compared exactly (38 before, 38 after the point)")


def align(left: Any, right: Any) -> tuple[Any, Any]:
    """Bring two decimal operands to one Arrow type."""
    if left.type == right.type:
        return left, right
    wide = WIDE if pa.types.is_decimal256(left.type) or pa.types.is_decimal256(right.type) else NARROW
    return left.cast(wide), right.cast(wide)


def plain(value: Decimal) -> str:
    """Write a decimal with all its digits, without exponent; there is no negative zero."""
    return format(value.copy_abs() if value.is_zero() else value, "f")


def equivalent(left: Decimal, right: Decimal) -> bool:
    """Compare two numbers rounded to the digits of the less precise one; trailing zeros are none."""
    digits = min(_places(left), _places(right))
    return round(left, digits) == round(right, digits)


def _places(value: Decimal) -> int:
    exponent = value.normalize(EXACT).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def text_of(value: Decimal) -> str:
    """Write a computed decimal plainly: no exponent, no trailing zeros after the point."""
    text = plain(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def arithmetic(operator: str, left: Part, right: Part, n: int) -> tuple[pa.Array, str]:
    """Apply ``+ - * / div mod`` to numbers; return values and System type.

    Integers stay integers (a result beyond 32 bits is empty), except under ``/``. Division by zero is
    empty. Decimals are computed exactly; quotients keep 8 places.
    """
    both_integers = kind_of(left.type) == kind_of(right.type) == "Integer"
    if both_integers and operator != "/":
        return _integers(operator, left.array(n), right.array(n)), "System.Integer"
    compute = _DECIMAL[operator]
    result: list[Any] = []
    with localcontext(EXACT):
        for a, b in zip(_python(left, n), _python(right, n), strict=True):
            try:
                result.append(None if a is None or b is None else compute(a, b))
            except ArithmeticError:
                result.append(None)
    if operator == "div":
        return whole(pa.array([None if x is None else plain(x) for x in result], pa.string())), "System.Integer"
    # Sums and products keep their digits (1.50 + 1 is 2.50); a quotient's trailing zeros mean nothing.
    write = text_of if operator in ("/", "mod") else plain
    return pa.array([None if x is None else write(x) for x in result], pa.string()), "System.Decimal"


def map_decimals(part: Part, n: int, function: Callable[[Decimal], Decimal | None]) -> pa.Array:
    """Apply a function to each distinct decimal; return decimal text."""
    encoded = pc.dictionary_encode(part.array(n).cast(pa.string()))
    with localcontext(EXACT):
        done = [_applied(function, text) for text in encoded.dictionary.to_pylist()]
    return pa.array(done, pa.string()).take(encoded.indices)


def whole(texts: pa.Array) -> pa.Array:
    """Return whole numbers of decimal text as Integers; what is beyond 32 bits is empty."""
    encoded = pc.dictionary_encode(texts)
    found = [Decimal(text) for text in encoded.dictionary.to_pylist()]
    fine = [int(item) if -_LIMIT <= item < _LIMIT else None for item in found]
    return pa.array(fine, pa.int64()).take(encoded.indices)


def _applied(function: Callable[[Decimal], Decimal | None], text: str) -> str | None:
    try:
        value = function(Decimal(text))
    except ArithmeticError:
        return None
    return None if value is None else text_of(value)


def _integers(operator: str, left: pa.Array, right: pa.Array) -> pa.Array:
    valid = pc.and_(left.is_valid(), right.is_valid())
    a = np.asarray(left.fill_null(0).cast(pa.int64()))
    b = np.asarray(right.fill_null(0).cast(pa.int64()))
    ok = np.asarray(valid.to_numpy(zero_copy_only=False))
    if operator in ("div", "mod"):
        ok = ok & (b != 0)
        safe = np.where(b == 0, 1, b)
        # FHIRPath truncates toward zero; numpy floors.
        quotient = np.sign(a) * np.sign(safe) * (np.abs(a) // np.abs(safe))
        result = quotient if operator == "div" else a - quotient * safe
    else:
        compute = {"+": np.add, "-": np.subtract, "*": np.multiply}[operator]
        result = compute(a, b)
        # In floating point as well: what leaves 64 bits comes back in as something else.
        size = np.abs(compute(a.astype(float), b.astype(float)))
        ok = ok & (result >= -_LIMIT) & (result < _LIMIT) & (size <= _LIMIT)
    return pa.array(result, mask=~ok, type=pa.int64())


def _python(part: Part, n: int) -> list[Decimal | None]:
    if part.constant:
        value = part.values.as_py()
        return [None if value is None else Decimal(str(value))] * n
    return [None if value is None else Decimal(str(value)) for value in part.values.to_pylist()]


def _divide(a: Decimal, b: Decimal) -> Decimal | None:
    return None if b == 0 else round(a / b, PLACES)


def _div(a: Decimal, b: Decimal) -> Decimal | None:
    return None if b == 0 else Decimal(int(a / b))


_DECIMAL: dict[str, Callable[[Decimal, Decimal], Decimal | None]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "div": _div,
    "mod": lambda a, b: None if b == 0 else a - b * int(a / b),
}
