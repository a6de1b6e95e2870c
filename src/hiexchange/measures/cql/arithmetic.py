"""Arithmetic on Integers, Longs, Decimals, Quantities and dates. Null in, null out; overflow is null.

Source: CQL 1.5, Appendix B, section 6 ("Arithmetic Operators").
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal, InvalidOperation, Overflow
from typing import Any

from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql import ucum
from hiexchange.measures.cql.values import (
    MAX_DECIMAL,
    MAX_INTEGER,
    MAX_LONG,
    MIN_DECIMAL,
    MIN_INTEGER,
    MIN_LONG,
    STEP,
    Interval,
    Quantity,
)


def checked(value: Any) -> Any:
    """Return an integer or decimal within CQL's range and scale, else None."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if MIN_LONG <= value <= MAX_LONG else None
    if isinstance(value, Decimal):
        if not value.is_finite() or not MIN_DECIMAL <= value <= MAX_DECIMAL:
            return None
        exponent = value.as_tuple().exponent
        assert isinstance(exponent, int)
        return value if exponent >= -8 else value.quantize(STEP, ROUND_HALF_UP)
    return value


def _small(value: int) -> int | None:
    return value if MIN_INTEGER <= value <= MAX_INTEGER else None


def _both_small(a: Any, b: Any) -> bool:
    return isinstance(a, int) and isinstance(b, int) and _small(a) is not None and _small(b) is not None


def unit_product(a: str, b: str, sign: int = 1) -> str:
    """Return the unit of a product or quotient."""
    return ucum.product(a, b, sign)


def in_unit(quantity: Quantity, unit: str) -> Decimal | None:
    """Return the value in another unit, or None."""
    return None if quantity.value is None else ucum.convert(quantity.value, quantity.unit, unit)


def add(a: Any, b: Any) -> Any:
    """Return a + b; a date plus a quantity of time is a date; lists of characters are not numbers."""
    return _sum(a, b, 1)


def subtract(a: Any, b: Any) -> Any:
    """Return a - b."""
    return _sum(a, b, -1)


def _sum(a: Any, b: Any, sign: int) -> Any:
    if a is None or b is None:
        return None
    if isinstance(a, t.Temporal):
        return shift(a, b, sign)
    if isinstance(a, str) and isinstance(b, str):
        return a + b if sign > 0 else None
    if isinstance(a, t.Uncertainty) or isinstance(b, t.Uncertainty):
        x, y = _spread(a), _spread(b)
        return _uncertain(x[0] + (y[0] if sign > 0 else -y[1]), x[1] + (y[1] if sign > 0 else -y[0]))
    if isinstance(a, Quantity) or isinstance(b, Quantity):
        return _sum_quantities(_quantity(a), _quantity(b), sign)
    total = a + sign * b
    return _small(total) if _both_small(a, b) else checked(total)


def _spread(value: Any) -> tuple[int, int]:
    return (value.low, value.high) if isinstance(value, t.Uncertainty) else (value, value)


def _uncertain(low: int, high: int) -> Any:
    return low if low == high else t.Uncertainty(low, high)


def _quantity(value: Any) -> Quantity:
    return value if isinstance(value, Quantity) else Quantity(Decimal(value), "1")


def _sum_quantities(a: Quantity, b: Quantity, sign: int) -> Quantity | None:
    if a.value is None or b.value is None:
        return None
    # The result is in the finer unit of the two: nothing is rounded away.
    factor = ucum.ratio(b.unit, a.unit)
    if factor is None:
        return None
    if factor > 1:
        return Quantity(checked(a.value + sign * ucum.times(b.value, factor)), a.unit)
    return Quantity(checked(ucum.times(a.value, 1 / factor) + sign * b.value), b.unit)


def shift(value: t.Temporal, quantity: Any, sign: int = 1) -> Any:
    """Return a date or time moved by a quantity of time; decimals are cut for calendar units."""
    if not isinstance(quantity, Quantity) or quantity.value is None:
        return None
    word = ucum.calendar_word(quantity.unit) or ucum.CALENDAR_WORDS.get(quantity.unit)
    if word is None:
        return None
    if word == "second" and quantity.value != quantity.value.to_integral():
        return t.add(value, sign * int(quantity.value * 1000), t.MILLISECOND)
    return t.add(value, sign * int(quantity.value), t.PRECISIONS[word.capitalize()], weeks=word == "week")


def multiply(a: Any, b: Any) -> Any:
    """Return a * b; units multiply."""
    if a is None or b is None:
        return None
    if isinstance(a, t.Uncertainty) or isinstance(b, t.Uncertainty):
        products = [i * j for i in _spread(a) for j in _spread(b)]
        return _uncertain(min(products), max(products))
    if isinstance(a, Quantity) or isinstance(b, Quantity):
        x, y = _quantity(a), _quantity(b)
        if x.value is None or y.value is None:
            return None
        return Quantity(checked(x.value * y.value), ucum.product(x.unit, y.unit, 1))
    total = a * b
    return _small(total) if _both_small(a, b) else checked(total)


def divide(a: Any, b: Any) -> Any:
    """Return a / b as Decimal; null for division by zero; units divide, like ones cancel."""
    if a is None or b is None:
        return None
    if isinstance(a, Quantity) or isinstance(b, Quantity):
        x, y = _quantity(a), _quantity(b)
        if x.value is None or y.value is None or y.value == 0:
            return None
        factor = ucum.ratio(x.unit, y.unit)
        if factor is not None:
            scaled = x.value * factor.numerator / (y.value * factor.denominator)
            return Quantity(checked(scaled), "1")
        return Quantity(checked(x.value / y.value), ucum.product(x.unit, y.unit, -1))
    return None if b == 0 else checked(Decimal(a) / Decimal(b))


def truncated_divide(a: Any, b: Any) -> Any:
    """Return the quotient cut towards zero."""
    if a is None or b is None:
        return None
    if isinstance(a, Quantity) and isinstance(b, Quantity):
        found = divide(a, b)
        return None if found is None else Quantity(Decimal(int(found.value)), found.unit)
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        whole = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return _small(whole) if _both_small(a, b) else checked(whole)
    return checked(Decimal(int(Decimal(a) / Decimal(b))))


def modulo(a: Any, b: Any) -> Any:
    """Return the remainder, with the sign of the dividend."""
    if a is None or b is None:
        return None
    if isinstance(a, Quantity) and isinstance(b, Quantity):
        divisor = in_unit(b, a.unit)
        return None if not divisor or a.value is None else Quantity(a.value % divisor, a.unit)
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return int(math.copysign(1, a)) * (abs(a) % abs(b))
    return checked(Decimal(a) % Decimal(b))


def power(a: Any, b: Any) -> Any:
    """Return a to the power b; integers stay integers while the result is one."""
    if a is None or b is None:
        return None
    try:
        if isinstance(a, int) and isinstance(b, int):
            if b >= 0:
                return _small(a**b) if abs(a) <= 1 or b < 64 else None
            return checked(Decimal(a) ** b)
        return checked(Decimal(a) ** Decimal(b))
    except (InvalidOperation, Overflow, ZeroDivisionError):
        return None


def negate(a: Any) -> Any:
    """Return -a."""
    if isinstance(a, Quantity):
        return Quantity(None if a.value is None else -a.value, a.unit)
    if a is None:
        return None
    return _small(-a) if isinstance(a, int) and a >= MIN_INTEGER else checked(-a)


def absolute(a: Any) -> Any:
    """Return the magnitude."""
    if isinstance(a, Quantity):
        return Quantity(None if a.value is None else abs(a.value), a.unit)
    return None if a is None else (_small(abs(a)) if isinstance(a, int) and a >= MIN_INTEGER else checked(abs(a)))


def ceiling(a: Any) -> Any:
    """Return the least integer not below."""
    return None if a is None else _small(int(Decimal(a).to_integral(ROUND_CEILING)))


def floor(a: Any) -> Any:
    """Return the greatest integer not above."""
    return None if a is None else _small(int(Decimal(a).to_integral(ROUND_FLOOR)))


def truncate(a: Any) -> Any:
    """Return the integer part."""
    return None if a is None else _small(int(Decimal(a)))


def round_(a: Any, precision: Any = None) -> Any:
    """Return ``a`` to a number of decimals; halves go up (CQL: round half up, towards positive)."""
    if a is None:
        return None
    value, unit = Decimal(a), Decimal(1).scaleb(-(precision or 0))
    # Round half up means towards positive infinity here: Round(-0.5) is 0.
    return checked(((value / unit) + Decimal("0.5")).to_integral(ROUND_FLOOR) * unit)


def ln(a: Any) -> Any:
    """Return the natural logarithm, null of what has none."""
    return None if a is None or a <= 0 else checked(Decimal(a).ln())


def exp(a: Any) -> Any:
    """Return e to the power a."""
    try:
        return None if a is None else checked(Decimal(a).exp())
    except Overflow:
        return None


def log(a: Any, base: Any) -> Any:
    """Return the logarithm of ``a`` to a base."""
    if a is None or base is None or a <= 0 or base <= 0 or base == 1:
        return None
    return checked(Decimal(a).ln() / Decimal(base).ln())


def precision_of(a: Any) -> Any:
    """Return digits after the point, or the digits of a date or time."""
    if a is None:
        return None
    if isinstance(a, t.Temporal):
        digits = {1: 4, 2: 6, 3: 8, 4: 10, 5: 12, 6: 14, 7: 17}[a.precision]
        return digits - 8 if isinstance(a, t.Time) else digits
    exponent = Decimal(a).as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def boundary(a: Any, precision: Any, *, upper: bool) -> Any:
    """Return the least (or greatest) value that ``a`` may stand for, at a given number of digits."""
    if a is None:
        return None
    if isinstance(a, t.Temporal):
        full = t.high(a) if upper else t.low(a)
        wanted = (
            {4: 1, 6: 2, 8: 3, 10: 4, 12: 5, 14: 6, 17: 7} if not isinstance(a, t.Time) else {2: 4, 4: 5, 6: 6, 9: 7}
        )
        return full if precision is None else t.truncate(full, wanted.get(precision, 7))
    value = Decimal(a)
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    digits = 8 if precision is None else precision
    if digits <= -exponent:
        return checked(value)
    fill = Decimal(1).scaleb(exponent) - Decimal(1).scaleb(-digits)
    return checked(value + fill) if upper else checked(value)


def point_type(value: Any) -> Any:
    """Return the class of a value's points: of an interval its ends', else its own."""
    return value.kind if isinstance(value, Interval) else type(value)
