"""Kernels on packed dates and intervals of dates: order with uncertainty, shifts, text.

The functions follow :mod:`..cql.temporal` and :mod:`..cql.intervals` one by one; what is rare there
(text of an odd form, an addition to a value without days) is left to them, once a distinct value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hiexchange.measures.columnar.cells import SHIFT, Bytes, Ints, Mask, Spans, Times, Truth, pack, temporal
from hiexchange.measures.cql import temporal as t

UNKNOWN = 2
_DAY = 86_400_000
_MIN = {t.Date: t.MIN_DATE, t.DateTime: t.MIN_DATETIME}
_MAX = {t.Date: t.MAX_DATE, t.DateTime: t.MAX_DATETIME}


def sizes(times: Times) -> Ints:
    """Return how many components each value has, 0 for null; seconds bring their milliseconds."""
    return np.where(times.precision >= t.SECOND, 7, times.precision).astype(np.int64)


def rank(a: Times, b: Times, precision: int | None) -> Bytes:
    """Return -1, 0, 1 or UNKNOWN a row, looking no further than ``precision`` where one is given."""
    x, y = sizes(a), sizes(b)
    n = np.minimum(x, y)
    if precision is not None:
        n = np.minimum(n, precision)
    shift = SHIFT[n]
    p, q = a.packed >> shift, b.packed >> shift
    found = (p > q).astype(np.int8) - (p < q).astype(np.int8)
    short = x != y if precision is None else np.minimum(x, y) < precision
    found[short & (found == 0)] = UNKNOWN
    found[(x == 0) | (y == 0)] = UNKNOWN
    return found


def less_or_equal(a: Times, b: Times, p: int | None) -> Bytes:
    """Return a <= b, -1 for null."""
    found = rank(a, b, p)
    return np.where(found == UNKNOWN, -1, found <= 0).astype(np.int8)


def less(a: Times, b: Times, p: int | None) -> Bytes:
    """Return a < b, -1 for null."""
    found = rank(a, b, p)
    return np.where(found == UNKNOWN, -1, found < 0).astype(np.int8)


def same(a: Times, b: Times, p: int | None) -> Bytes:
    """Return a = b, -1 for null."""
    found = rank(a, b, p)
    return np.where(found == UNKNOWN, -1, found == 0).astype(np.int8)


def both(a: NDArray[Any], b: NDArray[Any]) -> Bytes:
    """Kleene and."""
    return np.where((a == 0) | (b == 0), 0, np.where((a == 1) & (b == 1), 1, -1)).astype(np.int8)


def either(a: NDArray[Any], b: NDArray[Any]) -> Bytes:
    """Kleene or."""
    return np.where((a == 1) | (b == 1), 1, np.where((a == 0) & (b == 0), 0, -1)).astype(np.int8)


def negate(a: NDArray[Any]) -> Bytes:
    """Kleene not."""
    return np.where(a < 0, -1, 1 - a).astype(np.int8)


# Ends of intervals ----------------------------------------------------------------------------


def start(span: Spans) -> Times:
    """Return the first point: as :attr:`Interval.start`."""
    return _end(span.low, span.low_closed, span.there, _MIN, 1)


def end(span: Spans) -> Times:
    """Return the last point: as :attr:`Interval.end`."""
    return _end(span.high, span.high_closed, span.there, _MAX, -1)


def _end(times: Times, closed: Mask, there: Mask, limits: dict[Any, t.Temporal], sign: int) -> Times:
    packed, precision = times.packed.copy(), times.precision.copy()
    known = precision > 0
    limit = limits[times.cls]
    unbounded = ~known & closed & there
    packed[unbounded], precision[unbounded] = pack(limit.key), limit.precision
    precision[~known & ~unbounded] = 0
    opened = np.flatnonzero(known & ~closed)
    if len(opened):
        moved = _step(Times(times.cls, packed[opened], precision[opened]), sign)
        packed[opened], precision[opened] = moved.packed, moved.precision
    return Times(times.cls, packed, precision)


def _step(times: Times, sign: int) -> Times:
    fast = times.precision >= t.DAY
    if not fast.all():
        return by_value(times, lambda value: t.add(value, sign, value.precision))
    size = np.array([0, 0, 0, *(t.UNIT_MS[unit] for unit in range(t.DAY, t.MILLISECOND + 1))], np.int64)
    return _from_ms(times, to_ms(times) + sign * size[times.precision])


def points(col: Times | Spans) -> tuple[Times, Times]:
    """Return both ends of intervals, or the points twice."""
    return (start(col), end(col)) if isinstance(col, Spans) else (col, col)


# Arithmetic -----------------------------------------------------------------------------------


def to_ms(times: Times) -> Ints:
    """Return milliseconds since year 1, missing components at their least."""
    p = times.packed
    month = np.maximum(p >> 32 & 15, 1)
    months = ((p >> 36) - 1970) * 12 + month - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    days = first + np.maximum(p >> 27 & 31, 1) - 1
    clock = (((p >> 22 & 31) * 60 + (p >> 16 & 63)) * 60 + (p >> 10 & 63)) * 1000 + (p & 1023)
    found: Ints = days * _DAY + clock
    return found


_FIRST = int(np.datetime64("0001-01-01", "D").astype(np.int64))
_LAST = int(np.datetime64("9999-12-31", "D").astype(np.int64))


def _from_ms(like: Times, ms: Ints) -> Times:
    """Return values of the same precisions at other instants; null beyond the years 1 to 9999."""
    days, clock = np.divmod(ms, _DAY)
    inside = (days >= _FIRST) & (days <= _LAST)
    days = np.where(inside, days, 0)
    date = days.astype("datetime64[D]")
    months = date.astype("datetime64[M]")
    month = months.astype(np.int64)
    day = days - months.astype("datetime64[D]").astype(np.int64) + 1
    seconds, milli = np.divmod(clock, 1000)
    packed = _pack(month // 12 + 1970, month % 12 + 1, day, seconds, milli)
    keep = SHIFT[sizes(like)]
    return Times(like.cls, packed >> keep << keep, np.where(inside, like.precision, 0))


def _pack(year: Ints, month: Ints, day: Ints, seconds: Ints, milli: Ints) -> Ints:
    date = (year << 4 | month) << 5 | day
    found: Ints = (((date << 5 | seconds // 3600) << 6 | seconds // 60 % 60) << 6 | seconds % 60) << 10 | milli
    return found


def add(times: Times, amount: int, unit: int, *, weeks: bool = False) -> Times:
    """Return the values plus ``amount`` units: as :func:`..cql.temporal.add`."""
    if unit >= t.DAY and bool((times.precision[times.precision > 0] >= unit).all()):
        moved = _from_ms(times, to_ms(times) + amount * (7 if weeks else 1) * t.UNIT_MS[unit])
        return Times(times.cls, moved.packed, np.where(times.precision > 0, moved.precision, 0))
    if unit <= t.MONTH and bool((times.precision[times.precision > 0] >= t.DAY).all()):
        return _add_months(times, amount * (12 if unit == t.YEAR else 1))
    return by_value(times, lambda value: t.add(value, amount, unit, weeks=weeks))


def _add_months(times: Times, amount: int) -> Times:
    p = times.packed
    months = (p >> 36) * 12 + (p >> 32 & 15) - 1 + amount
    year, month = months // 12, months % 12 + 1
    inside = (times.precision > 0) & (year >= 1) & (year <= 9999)
    count = np.where(inside, (year - 1970) * 12 + month - 1, 0)
    days = (count + 1).astype("datetime64[M]").astype("datetime64[D]") - count.astype("datetime64[M]").astype(
        "datetime64[D]"
    )
    day = np.minimum(p >> 27 & 31, days.astype(np.int64))
    packed = ((year << 4 | month) << 5 | day) << 27 | (p & ((1 << 27) - 1))
    return Times(times.cls, np.where(inside, packed, 0), np.where(inside, times.precision, 0))


def by_value(times: Times, compute: Callable[[t.Temporal], Any]) -> Times:
    """Apply a function of stage 1 that keeps the class, once a distinct value."""
    both_parts = np.stack([times.packed, times.precision.astype(np.int64)])
    distinct, inverse = np.unique(both_parts, axis=1, return_inverse=True)
    values = [compute(temporal(times.cls, int(p), int(k))) if k else None for p, k in distinct.T]
    packed = np.array([0 if value is None else pack(value.key) for value in values], np.int64)
    precision = np.array([0 if value is None else value.precision for value in values], np.int8)
    inverse = inverse.reshape(-1)
    return Times(times.cls, packed[inverse], precision[inverse])


def to_date(times: Times) -> Times:
    """Return the date part: as :func:`..cql.temporal.as_date`."""
    shift = int(SHIFT[t.DAY])
    return Times(t.Date, times.packed >> shift << shift, np.minimum(times.precision, t.DAY))


def between(a: Times, b: Times, unit: int, *, weeks: bool, whole: bool) -> Ints | None:
    """Return the units from ``a`` to ``b``, whole ones or boundaries crossed; None where precision may lack.

    As ``_whole`` and ``_boundaries`` of :mod:`..cql.temporal`; rows with a null give any number.
    """
    # Whole units hang on the time of day, where there is one; boundaries on nothing below the unit.
    need = max(unit, t.DAY) if not whole else t.DAY if a.cls is b.cls is t.Date else max(unit, t.SECOND)
    if any(bool((times.precision[times.precision > 0] < need).any()) for times in (a, b)):
        return None
    if unit <= t.MONTH:
        first, last = ((p >> 36) * 12 + (p >> 32 & 15) for p in (a.packed, b.packed))
        if not whole:
            return (b.packed >> 36) - (a.packed >> 36) if unit == t.YEAR else last - first
        months = last - first
        rest = (1 << 32) - 1
        # The last month counts only once its day and time are reached again.
        order = np.sign((b.packed & rest) - (a.packed & rest))
        months -= (months > 0) & (order < 0)
        months += (months < 0) & (order > 0)
        return np.asarray(np.sign(months) * (abs(months) // 12) if unit == t.YEAR else months, np.int64)
    size = t.UNIT_MS[unit] * (7 if weeks else 1)
    if not whole:
        # Weeks start on Sunday: so does the count of days of year 1 that stage 1 uses.
        start = -_FIRST + 1
        return (to_ms(b) + start * _DAY) // size - (to_ms(a) + start * _DAY) // size
    ms = to_ms(b) - to_ms(a)
    return np.asarray(np.sign(ms) * (abs(ms) // size), np.int64)


# Text -----------------------------------------------------------------------------------------


def parse(texts: pa.Array, cls: type[t.Temporal], offset: int) -> Times:
    """Return the values written in ISO 8601; null where the text is none, as in stage 1."""
    coded = texts.dictionary_encode()
    distinct = coded.dictionary.to_pylist()
    codes = np.asarray(coded.indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)
    found = [
        (t.parse_date(text) if cls is t.Date else t.parse_datetime(text, offset)) if isinstance(text, str) else None
        for text in distinct
    ]
    packed = np.array([*(0 if value is None else pack(value.key) for value in found), 0], np.int64)
    precision = np.array([*(0 if value is None else value.precision for value in found), 0], np.int8)
    return Times(cls, packed[codes], precision[codes])


# Operators with an optional precision ----------------------------------------------------------

Points = Times | Spans


def contains(a: Points, b: Points, p: int | None) -> Bytes:
    """Tell whether the interval ``a`` holds the point, or interval, ``b``."""
    (s, e), (x, y) = points(a), points(b)
    after, before = less_or_equal(s, x, p), less_or_equal(y, e, p)
    # An end that is unknown is on its side of the other: what lies at that one is within.
    after[~s.known() & (less_or_equal(e, x, p) == 1)] = 1
    before[~e.known() & (less_or_equal(y, s, p) == 1)] = 1
    return both(after, before)


def included_in(a: Points, b: Points, p: int | None) -> Bytes:
    """Tell whether ``a`` lies within ``b``."""
    return contains(b, a, p)


def same_as(a: Points, b: Points, p: int | None) -> Bytes:
    """Tell whether both ends are the same."""
    (s, e), (x, y) = points(a), points(b)
    return both(same(s, x, p), same(e, y, p))


def same_or_before(a: Points, b: Points, p: int | None) -> Bytes:
    """Tell whether ``a`` ends on or before the start of ``b``."""
    return less_or_equal(points(a)[1], points(b)[0], p)


def same_or_after(a: Points, b: Points, p: int | None) -> Bytes:
    """Tell whether ``a`` starts on or after the end of ``b``."""
    return less_or_equal(points(b)[1], points(a)[0], p)


def before(a: Points, b: Points, p: int | None) -> Bytes:
    """Tell whether ``a`` ends before ``b`` starts."""
    return less(points(a)[1], points(b)[0], p)


def after(a: Points, b: Points, p: int | None) -> Bytes:
    """Tell whether ``a`` starts after ``b`` ends."""
    return less(points(b)[1], points(a)[0], p)


def overlaps(a: Points, b: Points, p: int | None) -> Bytes:
    """Tell whether the intervals share a point."""
    (s, e), (x, y) = points(a), points(b)
    return both(less_or_equal(s, y, p), less_or_equal(x, e, p))


def overlaps_before(a: Points, b: Points, p: int | None) -> Bytes:
    """Tell whether ``a`` starts before ``b`` and overlaps it."""
    return both(less(points(a)[0], points(b)[0], p), overlaps(a, b, p))


def overlaps_after(a: Points, b: Points, p: int | None) -> Bytes:
    """Tell whether ``a`` ends after ``b`` and overlaps it."""
    return both(less(points(b)[1], points(a)[1], p), overlaps(a, b, p))


PRECISE: dict[str, Callable[[Points, Points, int | None], Bytes]] = {
    "In": included_in,
    "IncludedIn": included_in,
    "Contains": contains,
    "Includes": contains,
    "SameAs": same_as,
    "SameOrBefore": same_or_before,
    "SameOrAfter": same_or_after,
    "Before": before,
    "After": after,
    "Overlaps": overlaps,
    "OverlapsBefore": overlaps_before,
    "OverlapsAfter": overlaps_after,
}
"""Kernels by ELM node type, for two operands that are points or intervals of dates."""
ORDER: dict[str, Callable[[Times, Times], Bytes]] = {
    "Less": lambda a, b: less(a, b, None),
    "LessOrEqual": lambda a, b: less_or_equal(a, b, None),
    "Greater": lambda a, b: less(b, a, None),
    "GreaterOrEqual": lambda a, b: less_or_equal(b, a, None),
    "Equal": lambda a, b: same(a, b, None),
    "NotEqual": lambda a, b: negate(same(a, b, None)),
}
"""Kernels of comparison of two columns of points."""


def truth(values: Bytes, *cols: Times | Spans) -> Truth:
    """Return a column of truth that is null where an operand is."""
    found = values
    for col in cols:
        found = np.where(col.known(), found, -1)
    return Truth(found)
