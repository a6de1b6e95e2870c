"""Functions that walk a collection with an expression: where, select, repeat, extension, aggregate, iif."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import tree
from hiexchange.fhirpath.columns import (
    Collection,
    Ints,
    Part,
    empty,
    join_same_type,
    mask_of,
    merge,
    unite,
)
from hiexchange.fhirpath.frame import Frame, spread
from hiexchange.fhirpath.functions.subset import fresh
from hiexchange.fhirpath.navigate import child

MAX_DEPTH = 64
"""Levels that repeat() follows; the lake caps recursion at 32."""


def criteria(collection: Collection, node: tree.Node, frame: Frame) -> list[tuple[Part, NDArray[np.bool_]]]:
    """Return each part (sparse) with the truth of ``node`` for its elements; empty is false."""
    found = []
    for part, index in zip(collection.sparse(), collection.positions(), strict=True):
        inner = frame.inner(part, index)
        found.append((part, mask_of(inner.truth(node, "a criterion"))))
    return found


def filtered(collection: Collection, node: tree.Node, frame: Frame) -> Collection:
    """Keep the elements for which ``node`` is true."""
    if len(collection.parts) == 1 and collection.parts[0].rows is None and collection.parts[0].twin is None:
        return _filtered_dense(collection, node, frame)
    return merge(collection.n, [part.keep(true) for part, true in criteria(collection, node, frame)])


def _filtered_dense(collection: Collection, node: tree.Node, frame: Frame) -> Collection:
    # At most one element a row: keep the slots, which spares the compaction.
    part = collection.parts[0]
    values = part.array(collection.n)
    inner = frame.inner(Part(values, part.type), np.zeros(collection.n, np.int64))
    true = mask_of(inner.truth(node, "a criterion"))
    if true.all():
        return collection
    if not true.any():
        return empty(collection.n)
    kept = pc.if_else(pa.array(true), values, pa.scalar(None, values.type))
    return Collection(collection.n, (Part(kept, part.type),))


def _where(node: tree.Call, frame: Frame) -> Collection:
    return filtered(frame.eval(node.parent), node.arguments[0], frame)


def _select(node: tree.Call, frame: Frame) -> Collection:
    return projected(frame.eval(node.parent), node.arguments[0], frame)


def projected(collection: Collection, node: tree.Node, frame: Frame) -> Collection:
    """Evaluate ``node`` for each element and gather the results in order."""
    pieces = []
    sparse = collection.sparse()
    for part, rank, index in zip(sparse, collection.ranks(), collection.positions(), strict=True):
        result = frame.inner(part, index).eval(node)
        pieces.append((part, rank, result))
    plain = len(pieces) == 1 and len(pieces[0][2].parts) == 1
    parts = [
        _lifted(found, part, None if plain else rank, inner_rank)
        for part, rank, result in pieces
        for found, inner_rank in zip(result.sparse(), result.ranks(), strict=True)
    ]
    return join_same_type(merge(frame.n, parts))


def _lifted(found: Part, outer: Part, rank: Ints | None, inner_rank: Ints) -> Part:
    """Turn rows of an inner frame into rows of the outer one; ``rank`` orders the inner rows."""
    assert outer.rows is not None and found.rows is not None
    order = None if rank is None else rank[found.rows] * (2**32) + inner_rank
    return replace(found, rows=outer.rows[found.rows], order=order)


def _repeat(node: tree.Call, frame: Frame) -> Collection:
    from_here = frame.eval(node.parent)
    levels = []
    # N1, 5.2.3: items are added as long as they are new, as = sees it; repeatAll() of 3.0 adds all.
    seen: list[set[object]] | None = [set() for _ in range(frame.n)] if node.name == "repeat" else None
    for _ in range(MAX_DEPTH):
        from_here = projected(from_here, node.arguments[0], frame)
        if seen is not None:
            from_here = fresh(from_here, seen)
        if not from_here.parts:
            break
        levels.append(from_here)
    else:
        raise FHIRPathError(f"{node.name}() does not end within {MAX_DEPTH} levels", position=node.position)
    return unite(frame.n, levels)


def _extension(node: tree.Call, frame: Frame) -> Collection:
    url = node.arguments[0]
    extensions = child(frame.eval(node.parent), "extension", frame.env)
    test = tree.Binary("=", tree.Child(tree.This(), "url"), url)
    return filtered(extensions, test, frame)


def _iif(node: tree.Call, frame: Frame) -> Collection:
    parts = frame.eval(node.parent).singles("iif()")
    if not isinstance(node.parent, tree.This):
        # Its arguments are about what it is called on, as those of where() are.
        frame = Frame(Collection(frame.n, parts), frame.env, outer=frame)
    true = mask_of(frame.truth(node.arguments[0], "iif()"))
    found = [*_branch(node.arguments[1], frame, true)]
    if len(node.arguments) == 3:
        found += _branch(node.arguments[2], frame, ~true)
    return join_same_type(merge(frame.n, found))


def _branch(node: tree.Node, frame: Frame, chosen: NDArray[np.bool_]) -> list[Part]:
    """Return what a branch gives in the rows it was chosen for."""
    try:
        # In all rows: paths are shared with the rest of the expression and mostly cannot fail.
        return [part.keep(chosen[part.rows]) for part in frame.eval(node).sparse()]
    except FHIRPathError:
        if chosen.all():
            raise
    # It fails in some row, perhaps one that the other branch was for.
    rows = np.flatnonzero(chosen)
    inner = Frame(spread(frame.this, rows), frame.env, outer=frame, rows=rows)
    inner.index = None if frame.index is None else frame.index[rows]
    return [replace(part, rows=rows[part.rows]) for part in inner.eval(node).sparse()]


def _coalesce(node: tree.Call, frame: Frame) -> Collection:
    """Return the first argument that is not empty in each row; what comes after it need not be right there."""
    left = np.ones(frame.n, np.bool_)
    parts: list[Part] = []
    for argument in node.arguments:
        found = _branch(argument, frame, left)
        for part in found:
            left[part.rows] = False
        parts += found
    return join_same_type(merge(frame.n, parts))


FUNCTIONS = {
    "where": (1, 1, _where),
    "select": (1, 1, _select),
    "repeat": (1, 1, _repeat),
    "repeatAll": (1, 1, _repeat),
    "extension": (1, 1, _extension),
    "iif": (2, 3, _iif),
    "coalesce": (1, 255, _coalesce),
}
