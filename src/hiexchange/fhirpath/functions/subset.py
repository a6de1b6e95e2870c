"""Functions that pick elements by place or by sameness: first, last, tail, skip, take, distinct, union."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import tree
from hiexchange.fhirpath.columns import Collection, Ints, empty, merge, unite
from hiexchange.fhirpath.compare import element_keys
from hiexchange.fhirpath.frame import Frame
from hiexchange.fhirpath.kinds import kind_of


def at_index(collection: Collection, index: Collection) -> Collection:
    """Return the element at a 0-based place of each row."""
    return _pick(collection, lambda place, rows: place == _integer(index, "an index")[rows])


def first(collection: Collection) -> Collection:
    """Return the first element of each row."""
    if len(collection.parts) == 1 and collection.parts[0].rows is None:
        return collection
    if len(collection.parts) == 1:
        part = collection.parts[0]
        assert part.rows is not None
        change = np.empty(len(part.rows), dtype=np.bool_)
        change[:1] = True
        np.not_equal(part.rows[1:], part.rows[:-1], out=change[1:])
        return Collection(collection.n, (part.keep(change).dense(collection.n),))
    return _pick(collection, lambda place, rows: place == 0)


def distinct(collection: Collection) -> Collection:
    """Return each row's elements without repeats, first ones kept."""
    if len(collection.parts) == 1 and collection.parts[0].rows is None:
        return collection
    return fresh(collection, [set() for _ in range(collection.n)])


def fresh(collection: Collection, seen: list[set[object]]) -> Collection:
    """Return the elements whose like a row has not seen, once each; they are then seen."""
    new: list[bool] = []
    for row, known in zip(element_keys(collection), seen, strict=True):
        for key in row:
            new.append(key not in known)
            known.add(key)
    kept = np.array(new, dtype=np.bool_)
    parts = zip(collection.sparse(), collection.ranks(), strict=True)
    return merge(collection.n, [part.keep(kept[rank]) for part, rank in parts])


def _integer(collection: Collection, what: str) -> Ints:
    """Return one integer a row; a row without one gets a place that no element has."""
    result = np.full(collection.n, -1, dtype=np.int64)
    for part in collection.singles(what):
        if kind_of(part.type) != "Integer":
            raise FHIRPathError(f"{what} must be an Integer, not {part.type}")
        values = part.array(collection.n)
        there = np.asarray(values.is_valid())
        result[there] = np.asarray(values.fill_null(0), dtype=np.int64)[there]
    return result


def _pick(collection: Collection, wanted: Callable[[Ints, Ints], NDArray[np.bool_]]) -> Collection:
    parts = []
    for part, place in zip(collection.sparse(), collection.positions(), strict=True):
        assert part.rows is not None
        parts.append(part.keep(wanted(place, part.rows)))
    return merge(collection.n, parts)


def _first(node: tree.Call, frame: Frame) -> Collection:
    return first(frame.eval(node.parent))


def _last(node: tree.Call, frame: Frame) -> Collection:
    parent = frame.eval(node.parent)
    counts = parent.counts()
    return _pick(parent, lambda place, rows: place == counts[rows] - 1)


def _tail(node: tree.Call, frame: Frame) -> Collection:
    return _pick(frame.eval(node.parent), lambda place, rows: place > 0)


def _skip(node: tree.Call, frame: Frame) -> Collection:
    number = _integer(frame.eval(node.arguments[0]), "skip()")
    return _pick(frame.eval(node.parent), lambda place, rows: place >= number[rows])


def _take(node: tree.Call, frame: Frame) -> Collection:
    number = _integer(frame.eval(node.arguments[0]), "take()")
    return _pick(frame.eval(node.parent), lambda place, rows: place < number[rows])


def _single(node: tree.Call, frame: Frame) -> Collection:
    parent = frame.eval(node.parent)
    return Collection(frame.n, parent.singles("single()"))


def _distinct(node: tree.Call, frame: Frame) -> Collection:
    return distinct(frame.eval(node.parent))


def _combine(node: tree.Call, frame: Frame) -> Collection:
    return unite(frame.n, [frame.eval(node.parent), frame.eval(node.arguments[0])])


def _union(node: tree.Call, frame: Frame) -> Collection:
    return distinct(_combine(node, frame))


def _among(node: tree.Call, frame: Frame) -> Collection:
    """Run intersect (distinct) and exclude (repeats kept)."""
    parent = frame.eval(node.parent)
    if not parent.parts:
        return empty(frame.n)
    others = [set(row) for row in element_keys(frame.eval(node.arguments[0]))]
    inside = [key in other for row, other in zip(element_keys(parent), others, strict=True) for key in row]
    kept = np.array(inside, dtype=np.bool_)
    if node.name == "exclude":
        kept = ~kept
    parts = zip(parent.sparse(), parent.ranks(), strict=True)
    result = merge(frame.n, [part.keep(kept[rank]) for part, rank in parts])
    return distinct(result) if node.name == "intersect" else result


FUNCTIONS = {
    "first": (0, 0, _first),
    "last": (0, 0, _last),
    "tail": (0, 0, _tail),
    "skip": (1, 1, _skip),
    "take": (1, 1, _take),
    "single": (0, 0, _single),
    "distinct": (0, 0, _distinct),
    "combine": (1, 1, _combine),
    "union": (1, 1, _union),
    "intersect": (1, 1, _among),
    "exclude": (1, 1, _among),
}
