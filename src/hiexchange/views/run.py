"""Run a view on one record batch: rows as parent indices, columns as Arrow arrays, all vectorised.

Every level of the view gives :class:`Rows`. forEach makes each element a row of a new frame; sibling
levels are crossed and unions concatenated on the parent index. A resource never crosses a batch, so a
view streams batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import FHIRPathError, ViewError
from hiexchange.fhirpath import Collection, Environment, Frame, Part, parse
from hiexchange.fhirpath.columns import Ints, slots_of
from hiexchange.fhirpath.frame import truth
from hiexchange.views.definition import Column, Select
from hiexchange.views.schema import cast

MAX_DEPTH = 64
"""Levels that ``repeat`` follows."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Output rows of one level, each belonging to a row of the frame above."""

    n: int
    parents: Ints | None
    """Ascending; None: exactly one row for each parent, in order."""
    columns: tuple[pa.Array, ...]

    def parent_rows(self) -> Ints:
        """Return the parent of each row."""
        return np.arange(self.n) if self.parents is None else self.parents


@dataclass(frozen=True, slots=True)
class Plan:
    """A view ready to run: its levels and the Arrow field of each column."""

    select: tuple[Select, ...]
    where: tuple[str, ...]
    schema: pa.Schema


def run_batch(plan: Plan, batch: pa.RecordBatch, resource: str, env: Environment) -> pa.RecordBatch:
    """Return the view's rows for one batch of resources."""
    frame = _frame(batch, resource, env)
    mask: pa.Array | None = None
    for path in plan.where:
        true = truth(_boolean(frame.eval(parse(path)), path), "a where").fill_null(False)
        mask = true if mask is None else pc.and_(mask, true)
    if mask is not None and pc.all(mask).as_py() is False:
        frame = _frame(batch.filter(mask), resource, env)
    fields = iter(plan.schema)
    levels = [_level(select, frame, fields) for select in plan.select]
    rows = _cross(levels, frame.n)
    return pa.RecordBatch.from_arrays(list(rows.columns), schema=plan.schema)


def _frame(batch: pa.RecordBatch, resource: str, env: Environment) -> Frame:
    structs = batch.to_struct_array() if batch.num_columns else pa.nulls(batch.num_rows, pa.struct([]))
    return Frame(Collection(batch.num_rows, (Part(structs, resource),)), env)


def _boolean(collection: Collection, path: str) -> Collection:
    for part in collection.parts:
        if part.type not in ("boolean", "System.Boolean"):
            raise ViewError("a where path must give true or false", where=path)
    return collection


def _level(select: Select, frame: Frame, fields: Iterator[pa.Field]) -> Rows:
    """Evaluate one select under a frame; ``fields`` is consumed column by column."""
    mine = [next(fields) for _ in select.all_columns()]
    if select.for_each is None and not select.repeat:
        return _body(select, frame, mine)
    if select.repeat:
        pieces = _repeated(select, frame)
    else:
        pieces = _iterated(frame.eval(parse(select.for_each or "")), frame, select.or_null)
    done = [(_body(select, piece.frame, mine), piece) for piece in pieces]
    if not done:
        return Rows(0, np.empty(0, np.int64), tuple(pa.nulls(0, field.type) for field in mine))
    if len(done) == 1:
        rows, piece = done[0]
        return Rows(rows.n, piece.rows if rows.parents is None else piece.rows[rows.parents], rows.columns)
    return _interleave(done)


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """One typed part of an iteration, as a frame of its own."""

    frame: Frame
    rows: Ints
    """Row above of each element."""
    order: Ints
    """Place of each element among those of all pieces."""


def _iterated(collection: Collection, frame: Frame, or_null: bool) -> list[_Piece]:
    if or_null and len(collection.parts) < 2:
        return [_with_nulls(collection, frame)]
    pieces = []
    for part, rank, index in zip(collection.sparse(), collection.ranks(), collection.positions(), strict=True):
        assert part.rows is not None
        inner = frame.inner(part, index)
        inner.row_index = index
        pieces.append(_Piece(inner, part.rows, rank))
    if or_null:
        missing = np.flatnonzero(collection.counts() == 0)
        total = sum(len(piece.order) for piece in pieces)
        inner = Frame(Collection(len(missing)), frame.env, outer=frame, rows=missing)
        inner.row_index = np.zeros(len(missing), np.int64)
        pieces.append(_Piece(inner, missing, total + np.arange(len(missing))))
    return pieces


def _with_nulls(collection: Collection, frame: Frame) -> _Piece:
    """Iterate a collection of one type, with one empty element for each parent that has none."""
    n = frame.n
    if not collection.parts:
        rows = np.arange(n)
        inner = Frame(Collection(n), frame.env, outer=frame, rows=rows)
        inner.row_index = np.zeros(n, np.int64)
        return _Piece(inner, rows, rows)
    part = collection.parts[0]
    if part.rows is None:
        inner = frame.inner(Part(part.array(n), part.type, np.arange(n), part.twin), np.zeros(n, np.int64))
        inner.row_index = np.zeros(n, np.int64)
        return _Piece(inner, np.arange(n), np.arange(n))
    counts = collection.counts()
    missing = np.flatnonzero(counts == 0)
    rows = np.concatenate([part.rows, missing])
    order = np.argsort(rows, kind="stable")
    slots = np.concatenate([np.arange(len(part.rows)), np.full(len(missing), -1)])[order]
    index = pa.array(slots, mask=slots < 0)
    place = np.concatenate([collection.positions()[0], np.zeros(len(missing), np.int64)])[order]
    twin = None if part.twin is None else part.twin.take(index)
    inner = frame.inner(Part(part.values.take(index), part.type, rows[order], twin), place)
    inner.row_index = place
    return _Piece(inner, rows[order], np.arange(len(rows)))


def _repeated(select: Select, frame: Frame) -> list[_Piece]:
    """Follow the paths recursively; elements in preorder, each level a piece (its type may differ)."""
    paths = [parse(path) for path in select.repeat]
    found: list[tuple[Frame, Ints, list[Ints]]] = []
    level: list[tuple[Frame, Ints, list[Ints]]] = [(frame, np.arange(frame.n), [])]
    for _ in range(MAX_DEPTH):
        below: list[tuple[Frame, Ints, list[Ints]]] = []
        for parent, roots, key in level:
            for at, path in enumerate(paths):
                collection = parent.eval(path)
                for part, index in zip(collection.sparse(), collection.positions(), strict=True):
                    if not len(part.values):
                        continue
                    assert part.rows is not None
                    inner = frame.inner(Part(part.values, part.type, roots[part.rows], part.twin), index)
                    steps = [column[part.rows] for column in key]
                    below.append((inner, roots[part.rows], [*steps, np.full(len(index), at), index]))
        if not below:
            break
        found += below
        level = below
    else:
        raise ViewError(f"repeat does not end within {MAX_DEPTH} levels", where=", ".join(select.repeat))
    return _preorder(found, frame.n)


def _preorder(found: Sequence[tuple[Frame, Ints, list[Ints]]], n: int) -> list[_Piece]:
    if not found:
        return []
    depth = max(len(key) for _, _, key in found)
    padded = [
        np.column_stack([roots, *key, *[np.full(len(roots), -1)] * (depth - len(key))]) for _, roots, key in found
    ]
    keys = np.concatenate(padded)
    order = np.lexsort(keys.T[::-1])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    starts = np.concatenate([[0], np.cumsum(np.bincount(keys[:, 0], minlength=n))])
    pieces, at = [], 0
    for inner, roots, _ in found:
        mine = rank[at : at + len(roots)]
        inner.row_index = mine - starts[roots]
        pieces.append(_Piece(inner, roots, mine))
        at += len(roots)
    return pieces


def _interleave(done: Sequence[tuple[Rows, _Piece]]) -> Rows:
    """Put the rows of several pieces in the order of their elements."""
    parents, keys = [], []
    for rows, piece in done:
        inner = rows.parent_rows()
        parents.append(piece.rows[inner])
        keys.append(piece.order[inner])
    order = np.lexsort((np.concatenate(keys), np.concatenate(parents)))
    index = pa.array(order)
    columns = [
        pa.concat_arrays(list(arrays)).take(index) for arrays in zip(*(rows.columns for rows, _ in done), strict=True)
    ]
    return Rows(len(order), np.concatenate(parents)[order], tuple(columns))


def _body(select: Select, frame: Frame, fields: list[pa.Field]) -> Rows:
    """Evaluate columns, nested selects and unions of one level whose elements are the frame's rows."""
    rest = iter(fields)
    own = tuple(_column(column, frame, next(rest)) for column in select.columns)
    parts = [Rows(frame.n, None, own)]
    parts += [_level(below, frame, rest) for below in select.selects]
    if select.union_all:
        shared = list(rest)
        parts.append(_union([_level(branch, frame, iter(shared)) for branch in select.union_all], shared))
    return _cross(parts, frame.n)


def _union(branches: list[Rows], fields: list[pa.Field]) -> Rows:
    parents = np.concatenate([rows.parent_rows() for rows in branches])
    order = np.argsort(parents, kind="stable")
    index = pa.array(order)
    columns = [pa.concat_arrays([rows.columns[at] for rows in branches]).take(index) for at in range(len(fields))]
    return Rows(len(order), parents[order], tuple(columns))


def _cross(parts: Sequence[Rows], n: int) -> Rows:
    """Join levels on their parent: each combination of their rows, first ones outermost."""
    result = parts[0]
    for other in parts[1:]:
        result = _cross_two(result, other, n)
    return result


def _cross_two(left: Rows, right: Rows, n: int) -> Rows:
    if left.parents is None and right.parents is None:
        return Rows(n, None, left.columns + right.columns)
    if left.parents is None:
        index = pa.array(right.parent_rows())
        columns = tuple(column.take(index) for column in left.columns)
        return Rows(right.n, right.parents, columns + right.columns)
    if right.parents is None:
        index = pa.array(left.parents)
        return Rows(left.n, left.parents, left.columns + tuple(column.take(index) for column in right.columns))
    counts = np.bincount(right.parents, minlength=n)
    starts = np.concatenate([[0], np.cumsum(counts)])
    times = counts[left.parents]
    take_left = np.repeat(np.arange(left.n), times)
    first = np.concatenate([[0], np.cumsum(times)])[:-1]
    take_right = starts[left.parents][take_left] + np.arange(len(take_left)) - first[take_left]
    columns = tuple(column.take(pa.array(take_left)) for column in left.columns)
    columns += tuple(column.take(pa.array(take_right)) for column in right.columns)
    return Rows(len(take_left), left.parents[take_left], columns)


def _column(column: Column, frame: Frame, field: pa.Field) -> pa.Array:
    try:
        collection = frame.eval(parse(column.path))
        if column.collection:
            return _list_column(column, collection, field.type)
        return _single_column(column, collection, field.type)
    except FHIRPathError as error:
        error.where = error.where or f"column {column.name}: {column.path}"
        raise


def _single_column(column: Column, collection: Collection, wanted: pa.DataType) -> pa.Array:
    n = collection.n
    if not (len(collection.parts) == 1 and collection.parts[0].rows is None) and collection.counts().max(initial=0) > 1:
        raise ViewError(
            f"the column {column.name} has several values in one row",
            where=column.path,
            hint='use first(), forEach, or "collection": true',
        )
    result: pa.Array | None = None
    for part in collection.parts:
        if part.rows is not None:
            values = cast(part.values, part.type, wanted, column.name)
            if len(part.rows) != n:
                values = values.take(slots_of(part.rows, n))
        else:
            values = cast(part.array(n), part.type, wanted, column.name)
        result = values if result is None else pc.coalesce(result, values)
    return pa.nulls(n, wanted) if result is None else result


def _list_column(column: Column, collection: Collection, wanted: pa.DataType) -> pa.Array:
    parts = collection.sparse()
    item = wanted.value_type
    values = [cast(part.values, part.type, item, column.name) for part in parts]
    if not parts:
        flat, rows = pa.nulls(0, item), np.empty(0, np.int64)
    elif len(parts) == 1:
        assert parts[0].rows is not None
        flat, rows = values[0], parts[0].rows
    else:
        order = np.argsort(np.concatenate(collection.ranks()), kind="stable")
        flat = pa.concat_arrays(values).take(pa.array(order))
        rows = np.concatenate([part.rows for part in parts])[order]
    if flat.null_count:
        keep = np.asarray(flat.is_valid())
        flat, rows = flat.drop_null(), rows[keep]
    offsets = np.searchsorted(rows, np.arange(collection.n + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=wanted)
