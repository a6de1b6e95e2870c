"""Equality, equivalence and order, many rows at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import dates, numbers, quantity
from hiexchange.fhirpath.columns import Collection, Part
from hiexchange.fhirpath.kinds import kind_of

_ARROW: dict[str, Callable[..., Any]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_NUMBERS = {"Integer", "Decimal"}
_DATES = {"Date", "DateTime"}
_SPACES = re.compile(r"\s+")


def compare(operator: str, left: Collection, right: Collection) -> pa.Array:
    """Return ``left operator right`` a row for ``= != < <= > >=``; null where undecided or empty."""
    n = left.n
    if operator in ("=", "!=") and not (_single(left) and _single(right)):
        equal = _collections_equal(left, right)
        return equal if operator == "=" else pc.invert(equal)
    result: pa.Array | None = None
    for a in left.singles(f"operator {operator}"):
        for b in right.singles(f"operator {operator}"):
            found = parts(operator, a, b, n)
            result = found if result is None else pc.coalesce(result, found)
    return pa.nulls(n, pa.bool_()) if result is None else result


def parts(operator: str, left: Part, right: Part, n: int) -> pa.Array:
    """Compare two dense parts slot by slot."""
    a, b = kind_of(left.type), kind_of(right.type)
    if a in _NUMBERS and b in _NUMBERS:
        if a == b == "Integer":
            return _arrow(operator, left.values, right.values, n)
        return _arrow(operator, *numbers.align(numbers.decimals(left), numbers.decimals(right)), n)
    if (a in _DATES and b in _DATES) or (a == b == "Time"):
        time = a == "Time"
        return dates.compare(
            operator, dates.moments(left.array(n), time=time), dates.moments(right.array(n), time=time)
        )
    if a == b == "Quantity":
        return quantity.compare(operator, left, right, n)
    if a == b == "String" or (a == b == "Boolean" and operator in ("=", "!=")):
        return _arrow(operator, left.values, right.values, n)
    if operator not in ("=", "!="):
        raise FHIRPathError(f"{left.type} and {right.type} cannot be compared with {operator}")
    if a is None and b is None:
        return _structures(operator, left, right, n)
    both = pa.array(left.present(n) & right.present(n))
    return pc.if_else(both, operator == "!=", pa.scalar(None, pa.bool_()))


def equivalent(left: Collection, right: Collection) -> pa.Array:
    """Return ``left ~ right`` a row: never null; empty is equivalent to empty, order does not matter."""
    counts_left, counts_right = left.counts(), right.counts()
    result = counts_left == counts_right
    keys_left, keys_right = _keys(left, equivalence_key), _keys(right, equivalence_key)
    for row in np.flatnonzero(result & (counts_left > 0)):
        result[row] = _same_items(keys_left[row], keys_right[row])
    return pa.array(result)


def element_keys(collection: Collection) -> list[list[Any]]:
    """Return per row the hashable values of its elements, equal where the elements are equal."""
    return _keys(collection, equality_key)


def equality_key(value: Any, kind: str | None) -> Any:
    """Return a hashable stand-in for one value under ``=``."""
    if value is None:
        return None
    if kind in _NUMBERS:
        return ("number", Decimal(str(value)))
    if kind in _DATES or kind == "Time":
        found = dates.parse(value, time=kind == "Time")
        return (kind == "Time", found[0], found[2]) if found else ("text", value)
    if kind == "Quantity" and (found_base := quantity.base(value)):
        return ("quantity", found_base.unit, found_base.number)
    if isinstance(value, dict):
        return frozenset((name, equality_key(item, None)) for name, item in value.items() if item is not None)
    if isinstance(value, list):
        return tuple(equality_key(item, None) for item in value)
    return (type(value).__name__, value)


def equivalence_key(value: Any, kind: str | None) -> Any:
    """Return a hashable stand-in under ``~``, numbers apart (they round to the lesser precision)."""
    if kind == "String" or (kind is None and isinstance(value, str)):
        return ("text", _SPACES.sub(" ", value.strip()).casefold())
    if kind == "Quantity" and (found := quantity.base(value, calendar=True)):
        return found
    if isinstance(value, dict):
        return frozenset((name, equivalence_key(item, None)) for name, item in value.items() if item not in (None, []))
    if isinstance(value, list):
        return frozenset(equivalence_key(item, None) for item in value)
    return equality_key(value, kind)


def _same_items(left: list[Any], right: list[Any]) -> bool:
    rest = list(right)
    for key in left:
        match = next((at for at, other in enumerate(rest) if _equivalent_keys(key, other)), None)
        if match is None:
            return False
        rest.pop(match)
    return True


def _equivalent_keys(left: Any, right: Any) -> bool:
    if left == right:
        return True
    if isinstance(left, quantity.Base) and isinstance(right, quantity.Base):
        return quantity.equivalent(left, right)
    if isinstance(left, tuple) and isinstance(right, tuple) and left[:1] == right[:1] == ("number",):
        return numbers.equivalent(left[1], right[1])
    return False


def _single(collection: Collection) -> bool:
    if len(collection.parts) < 2 and all(part.rows is None for part in collection.parts):
        return True
    return bool(collection.counts().max(initial=0) <= 1)


def _arrow(operator: str, left: Any, right: Any, n: int) -> pa.Array:
    if isinstance(left, pa.Scalar) and isinstance(right, pa.Scalar):
        left = pa.repeat(left, n) if left.is_valid else pa.nulls(n, left.type)
    return _ARROW[operator](left, right)


def _structures(operator: str, left: Part, right: Part, n: int) -> pa.Array:
    result = [
        None if a is None or b is None else (equality_key(a, None) == equality_key(b, None)) is (operator == "=")
        for a, b in zip(left.array(n).to_pylist(), right.array(n).to_pylist(), strict=True)
    ]
    return pa.array(result, pa.bool_())


def _collections_equal(left: Collection, right: Collection) -> pa.Array:
    counts_left, counts_right = left.counts(), right.counts()
    known = (counts_left > 0) & (counts_right > 0)
    result = counts_left == counts_right
    keys_left, keys_right = element_keys(left), element_keys(right)
    for row in np.flatnonzero(known & result):
        result[row] = keys_left[row] == keys_right[row]
    return pa.array(result, mask=~known)


def _keys(collection: Collection, key: Callable[[Any, str | None], Any]) -> list[list[Any]]:
    """Per row, in order: one key an element."""
    found: list[list[Any]] = [[] for _ in range(collection.n)]
    ranked: list[tuple[int, int, Any]] = []
    for part, ranks in zip(collection.sparse(), collection.ranks(), strict=True):
        kind = kind_of(part.type)
        keys = [key(value, kind) for value in part.values.to_pylist()]
        assert part.rows is not None
        ranked.extend(zip(ranks.tolist(), part.rows.tolist(), keys, strict=True))
    for _, row, value in sorted(ranked, key=lambda item: item[0]):
        found[row].append(value)
    return found
