"""Interval operators, with precision, open and null ends, and points on either side.

A closed null end is unbounded, an open null end is unknown: :attr:`Interval.start` and ``end`` give
the extreme or None, and three-valued comparison does the rest. Every function returns True, False
or None (or an interval, or a list of them).

Source: CQL 1.5, Appendix B, section 7 ("Interval Operators").
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import cmp_to_key
from typing import Any

from hiexchange.measures.cql import compare, ucum
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compare import Truth
from hiexchange.measures.cql.values import EvaluationError, Interval, Quantity, predecessor, successor


def rank(a: Any, b: Any, precision: int | None) -> int | None:
    """Order two points, looking no further than ``precision`` where one is given."""
    if a is None or b is None:
        return None
    if isinstance(a, t.Temporal) and isinstance(b, t.Temporal):
        return t.compare(a, b) if precision is None else t.compare_to(a, b, precision)
    return compare.order(a, b)


def _lt(a: Any, b: Any, p: int | None) -> Truth:
    found = rank(a, b, p)
    if found is not None:
        return found < 0
    return compare.less(a, b) if _uncertain(a, b) else None


def _le(a: Any, b: Any, p: int | None) -> Truth:
    found = rank(a, b, p)
    if found is not None:
        return found <= 0
    return compare.less_or_equal(a, b) if _uncertain(a, b) else None


def _uncertain(a: Any, b: Any) -> bool:
    """Tell whether a side has no rank although it may be on or before the other: 4 to 5 is on or before 5."""
    return isinstance(a, t.Uncertainty) or isinstance(b, t.Uncertainty)


def both(a: Truth, b: Truth) -> Truth:
    """Kleene and."""
    if a is False or b is False:
        return False
    return True if a and b else None


def negate(a: Truth) -> Truth:
    """Kleene not."""
    return None if a is None else not a


def _ends(value: Any) -> tuple[Any, Any]:
    return (value.start, value.end) if isinstance(value, Interval) else (value, value)


def contains(interval: Any, point: Any, p: int | None = None) -> Truth:
    """Tell whether the interval holds the point."""
    if interval is None or point is None:
        return None
    return _within(interval.start, interval.end, point, point, p)


def _within(start: Any, end: Any, first: Any, last: Any, p: int | None) -> Truth:
    """Tell whether ``first`` to ``last`` lie between two ends; one that is unknown is on its side of the other."""
    after = _le(start, first, p) if start is not None else _le(end, first, p) or None
    if after is False:
        return False
    return both(after, _le(last, end, p) if end is not None else _le(last, start, p) or None)


def proper_contains(interval: Any, point: Any, p: int | None = None) -> Truth:
    """Tell whether the point lies between the ends of the interval, and is neither."""
    if interval is None or point is None:
        return None
    return both(_lt(interval.start, point, p), _lt(point, interval.end, p))


def included_in(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``a`` (an interval, or a point) lies within ``b``."""
    if a is None or b is None:
        return None
    if not isinstance(a, Interval):
        return contains(b, a, p)
    return _within(b.start, b.end, a.start, a.end, p)


def proper_included_in(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``a`` lies within ``b`` and is not all of it."""
    if a is None or b is None:
        return None
    if not isinstance(a, Interval):
        return proper_contains(b, a, p)
    return both(included_in(a, b, p), negate(both(_same(a.start, b.start, p), _same(a.end, b.end, p))))


def _same(a: Any, b: Any, p: int | None) -> Truth:
    found = rank(a, b, p)
    return None if found is None else found == 0


def same_as(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether points, or both ends of intervals, are the same to the precision."""
    if a is None or b is None:
        return None
    (s, e), (x, y) = _ends(a), _ends(b)
    return both(_same(s, x, p), _same(e, y, p))


def same_or_before(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``a`` ends on or before the start of ``b``."""
    if a is None or b is None:
        return None
    return _le(_ends(a)[1], _ends(b)[0], p)


def same_or_after(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``a`` starts on or after the end of ``b``."""
    if a is None or b is None:
        return None
    return _le(_ends(b)[1], _ends(a)[0], p)


def before(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``a`` ends before ``b`` starts."""
    if a is None or b is None:
        return None
    return _lt(_ends(a)[1], _ends(b)[0], p)


def after(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``a`` starts after ``b`` ends."""
    if a is None or b is None:
        return None
    return _lt(_ends(b)[1], _ends(a)[0], p)


def overlaps(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether the intervals share a point."""
    if a is None or b is None:
        return None
    (s, e), (x, y) = _ends(a), _ends(b)
    return both(_le(s, y, p), _le(x, e, p))


def overlaps_before(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``a`` starts before ``b`` and overlaps it."""
    if a is None or b is None:
        return None
    return both(_lt(_ends(a)[0], _ends(b)[0], p), overlaps(a, b, p))


def overlaps_after(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``a`` ends after ``b`` and overlaps it."""
    if a is None or b is None:
        return None
    return both(_lt(_ends(b)[1], _ends(a)[1], p), overlaps(a, b, p))


def _next_is(end: Any, start: Any, p: int | None) -> Truth:
    if p is not None and isinstance(end, t.Temporal):
        end = t.truncate(end, p)
        start = t.truncate(start, p)
    following = successor(end)
    return False if following is None else _same(following, start, p)


def _follows(a: Interval, b: Interval, p: int | None) -> Truth:
    end, start = a.end, b.start
    if end is not None and start is not None:
        return _next_is(end, start, p)
    # An unknown end is not before its start, an unknown start not after its end: that may be enough to tell.
    first, last = a.start if end is None else end, b.end if start is None else start
    return False if _le(last, first, p) else None


def meets_before(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``b`` starts right after ``a`` ends."""
    return None if a is None or b is None else _follows(a, b, p)


def meets_after(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``a`` starts right after ``b`` ends."""
    return None if a is None or b is None else _follows(b, a, p)


def meets(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether the intervals touch without overlapping."""
    first, second = meets_before(a, b, p), meets_after(a, b, p)
    if first or second:
        return True
    return None if first is None or second is None else False


def starts(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``a`` starts with ``b`` and ends no later."""
    return None if a is None or b is None else both(_same(a.start, b.start, p), _le(a.end, b.end, p))


def ends(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``a`` ends with ``b`` and starts no earlier."""
    return None if a is None or b is None else both(_le(b.start, a.start, p), _same(a.end, b.end, p))


def width(interval: Any) -> Any:
    """Return end less start; dates have no width (CQL refuses it)."""
    if interval is None:
        return None
    start, end = interval.start, interval.end
    if start is None or end is None or isinstance(start, t.Temporal):
        return None
    if isinstance(start, Quantity):
        moved = ucum.convert(start.value or Decimal(0), start.unit, end.unit)
        return None if moved is None or end.value is None else Quantity(end.value - moved, end.unit)
    return end - start


def size(interval: Any) -> Any:
    """Return the number of points: width plus one point."""
    span = width(interval)
    if isinstance(span, Quantity):
        return Quantity(successor(span.value), span.unit)
    return None if span is None else successor(span)


def point_from(interval: Any) -> Any:
    """Return the only point of a unit interval, None where it cannot be told.

    Raises:
        EvaluationError: The interval holds several points.
    """
    if interval is None:
        return None
    alone = compare.equal(interval.start, interval.end)
    if alone is False:
        raise EvaluationError("a point was asked from an interval of several")
    return interval.start if alone else None


def intersect(a: Any, b: Any) -> Any:
    """Return what both intervals share, or None."""
    if a is None or b is None or overlaps(a, b) is False:
        return None
    low = _pick(a, b, "start", latest=True)
    high = _pick(a, b, "end", latest=False)
    if low is _UNKNOWN or high is _UNKNOWN:
        return None
    return Interval(low[0], high[0], low[1], high[1], a.kind or b.kind)


_UNKNOWN: Any = object()


def _pick(a: Interval, b: Interval, end: str, *, latest: bool) -> Any:
    """Return (bound, closed) of whichever interval's end lies further in (or out)."""
    x, y = getattr(a, end), getattr(b, end)
    parts = ("low", "low_closed") if end == "start" else ("high", "high_closed")
    first, second = ((getattr(i, parts[0]), getattr(i, parts[1])) for i in (a, b))
    if x is None or y is None:
        # One end is unknown: so is the result's, an open null.
        return (None, False)
    found = rank(x, y, None)
    if found is None:
        return _UNKNOWN
    return first if (found > 0) == latest or found == 0 else second


def union(a: Any, b: Any) -> Any:
    """Return one interval over both when they overlap or meet, else None."""
    if a is None or b is None:
        return None
    if not (overlaps(a, b) or meets(a, b)):
        return None
    low = _pick(a, b, "start", latest=False)
    high = _pick(a, b, "end", latest=True)
    if low is _UNKNOWN or high is _UNKNOWN:
        return None
    return Interval(low[0], high[0], low[1], high[1], a.kind or b.kind)


def except_(a: Any, b: Any) -> Any:
    """Return ``a`` without ``b`` when one interval is left, else None."""
    if a is None or b is None:
        return None
    if overlaps(a, b) is False:
        return a
    begins = _lt(a.start, b.start, None)
    finishes = _lt(b.end, a.end, None)
    if begins and finishes is False:
        return Interval(a.low, predecessor(b.start), a.low_closed, True)
    if finishes and begins is False:
        return Interval(successor(b.end), a.high, True, a.high_closed)
    return None


def collapse(intervals: Any, per: Quantity | None = None) -> Any:
    """Merge intervals that overlap or meet; ``per`` widens what counts as meeting."""
    if intervals is None:
        return None
    given = [item for item in intervals if item is not None and (item.start is not None and item.end is not None)]
    # Intervals with an unknown end cannot be placed; the specification leaves them out.
    given.sort(key=cmp_to_key(_by_start))
    merged: list[Interval] = []
    for item in given:
        if merged and _joins(merged[-1], item, per):
            last = merged[-1]
            if compare.greater(item.end, last.end):
                merged[-1] = Interval(last.start, item.end, True, True)
        else:
            merged.append(Interval(item.start, item.end, True, True))
    return merged


def _by_start(a: Interval, b: Interval) -> int:
    return rank(a.start, b.start, None) or rank(a.end, b.end, None) or 0


def _joins(a: Interval, b: Interval, per: Quantity | None) -> bool:
    if per is not None and per.value is not None:
        precision = _precision(per)
        reach = _plus(a.end, per)
        if reach is None:
            return True
        return _le(b.start, reach, precision if isinstance(reach, t.Temporal) else None) is True
    return bool(overlaps(a, b)) or bool(meets_before(a, b))


def _precision(per: Quantity) -> int | None:
    word = ucum.calendar_word(per.unit)
    return t.PRECISIONS[word.capitalize()] if word else None


def _plus(value: Any, per: Quantity) -> Any:
    assert per.value is not None
    if isinstance(value, t.Temporal):
        word = ucum.calendar_word(per.unit)
        if word is None:
            return None
        return t.add(value, int(per.value), t.PRECISIONS[word.capitalize()], weeks=word == "week")
    if isinstance(value, Quantity):
        step = ucum.convert(per.value, per.unit, value.unit)
        return None if step is None or value.value is None else Quantity(value.value + step, value.unit)
    return value + (int(per.value) if isinstance(value, int) else per.value)


MAX_EXPANSION = 100_000
"""Intervals one Expand may give; beyond it the expression has no value rather than no end."""


def expand(intervals: Any, per: Quantity | None, *, points: bool = False) -> Any:
    """Cut intervals into unit intervals of ``per`` (default: one point), or into their start points."""
    if intervals is None:
        return None
    result: list[Any] = []
    for item in collapse(intervals):
        step = per or _unit(item)
        if step is None:
            return None
        pieces = _expand_one(item, step)
        if pieces is None:
            return None
        result += [piece.low for piece in pieces] if points else pieces
    return result


def _unit(item: Interval) -> Quantity | None:
    point = item.start
    if isinstance(point, t.Temporal):
        names = {t.MILLISECOND: "millisecond"}
        return Quantity(Decimal(1), names.get(point.precision, t.NAMES[point.precision]))
    if isinstance(point, Quantity):
        return Quantity(Decimal(1), point.unit)
    return Quantity(Decimal(1), "1")


def _expand_one(item: Interval, step: Quantity) -> list[Interval] | None:
    low, end = item.start, item.end
    precision = _precision(step) if isinstance(low, t.Temporal) else None
    if isinstance(low, t.Temporal):
        if precision is None or precision > low.precision:
            return []
        low, end = t.truncate(low, precision), t.truncate(end, precision)
    elif isinstance(low, Decimal) and step.value == step.value.to_integral() if step.value is not None else False:
        low = low.to_integral(rounding="ROUND_FLOOR") if low == low.to_integral() else low
    pieces: list[Interval] = []
    while compare.less_or_equal(low, end):
        following = _plus(low, step)
        if following is None or len(pieces) >= MAX_EXPANSION:
            return None
        midnight = isinstance(low, t.Time) and not any(following.key)
        last = t.truncate(t.MAX_TIME, low.precision) if midnight else _last_of(low, following)
        if compare.greater(last, end) or compare.less(last, low):
            break
        pieces.append(Interval(low, last, True, True))
        if midnight:
            break  # a clock goes round: what would follow is the next day's
        low = following
    return pieces


def _last_of(low: Any, following: Any) -> Any:
    """Return the last point of the unit interval that starts at ``low``."""
    if isinstance(low, Decimal):
        # Interval[2.1, ...] per 1 gives [2.1, 2.1]...: the step is the point's own scale.
        return low if following - low == 1 else predecessor(following)
    if isinstance(low, Quantity):
        return low if following.value - low.value == 1 else predecessor(following)
    return predecessor(following)


Operator = Callable[[Any, Any, int | None], Truth]
PRECISE: dict[str, Operator] = {
    "SameAs": same_as,
    "SameOrBefore": same_or_before,
    "SameOrAfter": same_or_after,
    "Before": before,
    "After": after,
    "Overlaps": overlaps,
    "OverlapsBefore": overlaps_before,
    "OverlapsAfter": overlaps_after,
    "Meets": meets,
    "MeetsBefore": meets_before,
    "MeetsAfter": meets_after,
    "Starts": starts,
    "Ends": ends,
}
"""ELM operators of two operands and an optional precision that never mean lists."""
