"""List operators, and the operators that serve both lists and intervals (chosen by operand value).

Source: CQL 1.5, Appendix B, sections 10 and 11 ("List Operators", "Aggregate Functions").
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from decimal import ROUND_HALF_UP, Decimal
from functools import reduce
from typing import Any

from hiexchange.measures.cql import arithmetic, compare, intervals
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compare import Truth
from hiexchange.measures.cql.values import EvaluationError, Interval, Quantity

CENT = Decimal("0.00000001")


def distinct(values: Any) -> Any:
    """Return the values without repetition, first ones kept; null counts as one value."""
    if values is None:
        return None
    if len(values) < 2:
        return values
    seen: set[Any] = set()
    result = []
    for value in values:
        key = compare.token(value)
        if key not in seen:
            seen.add(key)
            result.append(value)
    return result


def exists(values: Any) -> bool:
    """Tell whether a list has an element that is not null."""
    if values is None:
        return False
    if isinstance(values, list):
        return any(value is not None for value in values)
    return True


def flatten(values: Any) -> Any:
    """Join lists of lists, one level; elements that are no lists stay."""
    if values is None:
        return None
    result: list[Any] = []
    for value in values:
        if isinstance(value, list):
            result += value
        elif value is not None:
            result.append(value)
    return result


def singleton(values: Any) -> Any:
    """Return the only element, None of an empty list.

    Raises:
        EvaluationError: There are several.
    """
    if values is None or not isinstance(values, list):
        return values
    if len(values) > 1:
        raise EvaluationError("a list of more than one element was to give its single element")
    return values[0] if values else None


def first(values: Any) -> Any:
    """Return the first element, None of nothing."""
    return values[0] if values else None


def last(values: Any) -> Any:
    """Return the last element, None of nothing."""
    return values[-1] if values else None


def indexer(values: Any, index: Any) -> Any:
    """Return the element at a zero-based index, None outside."""
    if values is None or index is None or not 0 <= index < len(values):
        return None
    return values[index]


def index_of(values: Any, element: Any) -> Any:
    """Return the zero-based index of the first equal element, -1 for none."""
    if values is None or element is None:
        return None
    return next((at for at, value in enumerate(values) if compare.equal(value, element)), -1)


def slice_(values: Any, start: Any, end: Any) -> Any:
    """Return the elements from ``start`` up to but not including ``end`` (null: the list's end)."""
    if values is None:
        return None
    start = start or 0
    end = len(values) if end is None else end
    return values[start:end] if start >= 0 and end > start else []


def member(element: Any, values: Any) -> Truth:
    """Tell whether a list holds an equal element; a null only if the list holds a null."""
    if values is None:
        return False
    if element is None:
        return any(value is None for value in values)
    if isinstance(element, str):
        return element in values
    return any(compare.equal(element, value) for value in values)


def includes(outer: Any, inner: Any) -> Truth:
    """Tell whether every element of ``inner`` is in ``outer``."""
    if outer is None or inner is None:
        return None
    return all(member(value, outer) for value in inner)


def in_(element: Any, container: Any, p: int | None = None) -> Truth:
    """Tell whether a list or an interval holds an element."""
    if isinstance(container, Interval):
        return intervals.contains(container, element, p)
    return member(element, container)


def contains(container: Any, element: Any, p: int | None = None) -> Truth:
    """Turn :func:`in_` round."""
    return in_(element, container, p)


def included_in(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``a`` (interval, point or list) lies within ``b``."""
    if isinstance(a, list) or isinstance(b, list):
        if not isinstance(a, list):
            return None if a is None else member(a, b)
        return includes(b, a)
    return intervals.included_in(a, b, p)


def includes_any(a: Any, b: Any, p: int | None = None) -> Truth:
    """Turn :func:`included_in` round."""
    return included_in(b, a, p)


def proper_included_in(a: Any, b: Any, p: int | None = None) -> Truth:
    """Tell whether ``a`` lies within ``b`` and ``b`` holds more."""
    if isinstance(a, list) or isinstance(b, list):
        if not isinstance(a, list):
            return None if a is None else proper_in(a, b)
        return None if b is None else intervals.both(includes(b, a), len(b) > len(a))
    return intervals.proper_included_in(a, b, p)


def proper_in(element: Any, container: Any, p: int | None = None) -> Truth:
    """Tell whether a list or an interval holds an element, and others than it."""
    if isinstance(container, Interval):
        return intervals.proper_contains(container, element, p)
    if not member(element, container):
        return False
    if element is None:
        return any(value is not None for value in container)
    others = [intervals.negate(compare.equal(value, element)) for value in container]
    return True if True in others else None if None in others else False


def proper_contains(container: Any, element: Any, p: int | None = None) -> Truth:
    """Turn :func:`proper_in` round."""
    return proper_in(element, container, p)


def proper_includes(a: Any, b: Any, p: int | None = None) -> Truth:
    """Turn :func:`proper_included_in` round."""
    return proper_included_in(b, a, p)


def union(a: Any, b: Any) -> Any:
    """Return the union of two intervals, or of two lists without repetition (a null list adds nothing)."""
    if isinstance(a, Interval) or isinstance(b, Interval):
        return intervals.union(a, b)
    if a is None and b is None:
        return []
    return distinct((a or []) + (b or []))


def intersect(a: Any, b: Any) -> Any:
    """Return what two intervals, or two lists, share."""
    if isinstance(a, Interval) or isinstance(b, Interval):
        return intervals.intersect(a, b)
    if a is None or b is None:
        return None
    keys = {compare.token(value) for value in b}
    return distinct([value for value in a if compare.token(value) in keys])


def except_(a: Any, b: Any) -> Any:
    """Return the first interval, or list, without what the second holds."""
    if isinstance(a, Interval) or isinstance(b, Interval):
        return intervals.except_(a, b)
    if a is None:
        return None
    keys = {compare.token(value) for value in b or []}
    return distinct([value for value in a if compare.token(value) not in keys])


# Aggregates: nulls are left out; of nothing they give null, but Count 0, AllTrue true, AnyTrue false.


def _known(values: Any) -> list[Any]:
    return [value for value in values or [] if value is not None]


def count(values: Any) -> int:
    """Return how many elements are not null."""
    return len(_known(values))


def sum_(values: Any) -> Any:
    """Return the sum."""
    known = _known(values)
    return reduce(arithmetic.add, known) if known else None


def product(values: Any) -> Any:
    """Return the product."""
    known = _known(values)
    return reduce(arithmetic.multiply, known) if known else None


def _extreme(values: Any, better: Callable[[Any, Any], Truth]) -> Any:
    best = None
    for value in _known(values):
        if best is None or better(value, best):
            best = value
    return best


def minimum(values: Any) -> Any:
    """Return the least element."""
    return _extreme(values, compare.less)


def maximum(values: Any) -> Any:
    """Return the greatest element."""
    return _extreme(values, compare.greater)


def _in_one_unit(values: Iterable[Any]) -> tuple[list[Decimal], str | None] | None:
    numbers: list[Decimal] = []
    unit: str | None = None
    for value in values:
        if isinstance(value, Quantity):
            unit = unit or value.unit
            converted = arithmetic.in_unit(value, unit)
            if converted is None:
                return None
            numbers.append(converted)
        else:
            numbers.append(Decimal(value))
    return numbers, unit


def _statistic(values: Any, compute: Callable[[list[Decimal]], Decimal | None], *, squared: bool = False) -> Any:
    known = _known(values)
    found = _in_one_unit(known) if known else None
    if found is None:
        return None
    numbers, unit = found
    result = compute(numbers)
    if result is None:
        return None
    result = result.quantize(CENT, ROUND_HALF_UP)
    if unit is None:
        return result
    return Quantity(result, arithmetic.unit_product(unit, unit) if squared else unit)


def average(values: Any) -> Any:
    """Return the mean."""
    return _statistic(values, lambda numbers: sum(numbers, Decimal(0)) / len(numbers))


def median(values: Any) -> Any:
    """Return the median."""
    return _statistic(values, statistics.median)


def variance(values: Any) -> Any:
    """Return the sample variance; null of fewer than two."""
    return _statistic(values, lambda n: statistics.variance(n) if len(n) > 1 else None, squared=True)


def population_variance(values: Any) -> Any:
    """Return the population variance."""
    return _statistic(values, statistics.pvariance, squared=True)


def std_dev(values: Any) -> Any:
    """Return the sample standard deviation; null of fewer than two."""
    return _statistic(values, lambda n: statistics.stdev(n) if len(n) > 1 else None)


def population_std_dev(values: Any) -> Any:
    """Return the population standard deviation."""
    return _statistic(values, statistics.pstdev)


def geometric_mean(values: Any) -> Any:
    """Return the geometric mean."""
    return _statistic(values, lambda n: reduce(lambda x, y: x * y, n) ** (Decimal(1) / len(n)))


def mode(values: Any) -> Any:
    """Return the most frequent element, the first of several."""
    known = _known(values)
    tokens = [compare.token(value) for value in known]
    return known[tokens.index(statistics.mode(tokens))] if known else None


def all_true(values: Any) -> bool:
    """Tell whether no element is false."""
    return all(value is not False for value in _known(values))


def any_true(values: Any) -> bool:
    """Tell whether an element is true."""
    return any(value is True for value in _known(values))


def temporal_precision(name: str | None) -> int | None:
    """Return the number of a precision given by name."""
    return t.PRECISIONS[name.capitalize()] if name else None
