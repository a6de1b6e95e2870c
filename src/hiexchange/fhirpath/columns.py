"""Collections of many rows at once: flat Arrow values and the row each belongs to.

A FHIRPath collection is evaluated for all rows of a frame together. A :class:`Part` holds its values
of one type, either *dense* (one slot a row, null where the row has none) or *sparse* (non-null values
and a sorted row index). A :class:`Collection` has several parts only where types differ: choice
elements, unions, levels of a recursion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hiexchange.errors import FHIRPathError

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Values of one type, many rows."""

    values: Any
    """``pa.Array``; a ``pa.Scalar`` stands for the same value in every row."""
    type: str
    """FHIR type (``string``, ``HumanName``, ``Patient.contact``) or ``System.String`` and its like."""
    rows: Ints | None = None
    """Row of each value, ascending; None when dense."""
    twin: pa.Array | None = None
    """The ``_x`` sibling of a primitive (id and extensions), aligned with ``values``. Only with it may
    a sparse part hold nulls: elements that have extensions and no value."""
    order: Ints | None = None
    """Sort key within a row against the collection's other parts; None when it is the only one."""

    @property
    def constant(self) -> bool:
        """Whether all rows share one scalar."""
        return isinstance(self.values, pa.Scalar)

    def array(self, n: int) -> pa.Array:
        """Return the values with a scalar spread over ``n`` rows."""
        if not self.constant:
            return self.values
        if self.values.is_valid:
            return pa.repeat(self.values, n)
        return pa.nulls(n, self.values.type)

    def sparse(self, n: int) -> Part:
        """Return this part with a row index and without empty slots."""
        if self.rows is not None:
            return self
        values = self.array(n)
        if values.null_count == 0:
            return replace(self, values=values, rows=np.arange(n))
        keep = values.is_valid()
        if self.twin is not None:
            keep = pc.or_(keep, self.twin.is_valid())
        rows = np.flatnonzero(mask_of(keep))
        index = pa.array(rows)
        twin = None if self.twin is None else self.twin.take(index)
        order = None if self.order is None else self.order[rows]
        return Part(values.take(index), self.type, rows, twin, order)

    def dense(self, n: int) -> Part:
        """Return this part with one slot a row; the caller knows that no row has two."""
        if self.rows is None:
            return self
        if len(self.rows) == n:
            return Part(self.values, self.type, None, self.twin)
        slots = slots_of(self.rows, n)
        twin = None if self.twin is None else self.twin.take(slots)
        return Part(self.values.take(slots), self.type, None, twin)

    def keep(self, mask: NDArray[np.bool_]) -> Part:
        """Return the values of a sparse part where ``mask`` is true."""
        if mask.all():
            return self
        index = np.flatnonzero(mask)
        assert self.rows is not None
        twin = None if self.twin is None else self.twin.take(pa.array(index))
        order = None if self.order is None else self.order[index]
        return Part(self.values.take(pa.array(index)), self.type, self.rows[index], twin, order)

    def present(self, n: int) -> NDArray[np.bool_]:
        """Return which rows of a dense part have an element."""
        there = mask_of(self.array(n).is_valid())
        return there if self.twin is None else there | mask_of(self.twin.is_valid())


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """One FHIRPath collection a row, for ``n`` rows."""

    n: int
    parts: tuple[Part, ...] = ()

    def counts(self) -> Ints:
        """Return how many elements each row has."""
        total = np.zeros(self.n, dtype=np.int64)
        for part in self.parts:
            if part.rows is None:
                total += part.present(self.n)
            else:
                total += np.bincount(part.rows, minlength=self.n)
        return total

    def singles(self, what: str) -> tuple[Part, ...]:
        """Return the parts dense, proving that no row has more than one element.

        Raises:
            FHIRPathError: A row has several; ``what`` names who wanted one.
        """
        if all(part.rows is None for part in self.parts) and len(self.parts) < 2:
            return self.parts
        if self.n and self.counts().max(initial=0) > 1:
            raise FHIRPathError(f"{what} needs a single value and got several", hint="use first() or where(...)")
        return tuple(part.dense(self.n) for part in self.parts)

    def sparse(self) -> tuple[Part, ...]:
        """Return the parts with row indices."""
        return tuple(part.sparse(self.n) for part in self.parts)

    def ranks(self) -> list[Ints]:
        """Return for each part (sparse) the place of its elements in the whole collection."""
        parts = self.sparse()
        if len(parts) == 1:
            return [np.arange(len(parts[0].values))]
        rows = np.concatenate([part.rows for part in parts]) if parts else np.empty(0, np.int64)
        keys = [
            part.order if part.order is not None else np.full(len(part.values), at) for at, part in enumerate(parts)
        ]
        order = np.lexsort((np.concatenate(keys), rows)) if parts else rows
        rank = np.empty(len(rows), dtype=np.int64)
        rank[order] = np.arange(len(rows))
        return np.split(rank, np.cumsum([len(part.values) for part in parts])[:-1]) if parts else []

    def positions(self) -> list[Ints]:
        """Return for each part (sparse) the 0-based place of its elements within their rows."""
        starts = np.concatenate([[0], np.cumsum(self.counts())])
        return [rank - starts[part.rows] for rank, part in zip(self.ranks(), self.sparse(), strict=True)]


def mask_of(array: Any) -> NDArray[np.bool_]:
    """Return a boolean Arrow array as numpy, null as false."""
    if array.null_count:
        array = array.fill_null(False)
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.bool_)


def slots_of(rows: Ints, n: int) -> pa.Array:
    """Return, for each of ``n`` rows, the index of its value in a sparse part; null where it has none."""
    slots = np.full(n, -1, dtype=np.int64)
    slots[rows] = np.arange(len(rows))
    return pa.array(slots, mask=slots < 0)


def empty(n: int) -> Collection:
    """Return a collection without elements."""
    return Collection(n)


def dense(values: Any, type: str, n: int) -> Collection:
    """Return a collection of at most one element a row."""
    return Collection(n, (Part(values, type),))


def merge(n: int, parts: Iterable[Part]) -> Collection:
    """Gather parts whose ``order`` keys already agree, leaving out those without values."""
    kept = tuple(part for part in parts if part.constant or len(part.values))
    return Collection(n, kept)


def unite(n: int, collections: Sequence[Collection]) -> Collection:
    """Concatenate collections row by row: the first one's elements, then the second one's."""
    kept = [collection for collection in collections if collection.parts]
    if len(kept) < 2:
        return kept[0] if kept else empty(n)
    parts: list[Part] = []
    base = 0
    for collection in kept:
        size = 0
        for part, rank in zip(collection.sparse(), collection.ranks(), strict=True):
            parts.append(replace(part, order=rank + base))
            size += len(rank)
        base += size
    return join_same_type(merge(n, parts))


def join_same_type(collection: Collection) -> Collection:
    """Make one part of parts that share a type, so that later steps run once."""
    kinds = {(part.type, part.values.type) for part in collection.parts}
    if len(kinds) != 1 or len(collection.parts) < 2 or any(part.twin is not None for part in collection.parts):
        return collection
    parts = collection.sparse()
    order = np.argsort(np.concatenate(collection.ranks()), kind="stable")
    values = pa.concat_arrays([part.values for part in parts]).take(pa.array(order))
    rows = np.concatenate([part.rows for part in parts])[order]
    return Collection(collection.n, (Part(values, parts[0].type, rows),))


def struct_child(values: pa.Array, name: str) -> pa.Array | None:
    """Return a field of a struct array, null where the struct is; None if it has no such field."""
    if not pa.types.is_struct(values.type) or values.type.get_field_index(name) < 0:
        return None
    child = pc.struct_field(values, name)
    if values.null_count:
        # struct_field ignores the parent's validity; producers other than Parquet may hide values there.
        hidden = pc.and_(values.is_null(), child.is_valid())
        if pc.any(hidden).as_py():
            child = pc.if_else(values.is_valid(), child, pa.scalar(None, child.type))
    return child


def explode(values: pa.Array) -> tuple[pa.Array, Ints]:
    """Return the elements of a list array and the slot each came from."""
    lengths = pc.list_value_length(values)
    if lengths.null_count:
        lengths = lengths.fill_null(0)
    counts = np.asarray(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)
    return pc.list_flatten(values), np.repeat(np.arange(len(values)), counts)
