"""Leave out of a batch, or of a Parquet file, the elements that a view does not read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hiexchange.definitions import Definitions
from hiexchange.fhirpath import parse
from hiexchange.fhirpath.needs import Needs, Places
from hiexchange.fhirpath.needs import Path as ElementPath
from hiexchange.views.definition import Definition, Select

Leaves = frozenset[ElementPath]


def needed(definition: Definition, definitions: Definitions) -> Leaves:
    """Return the element paths a view reads; ``()`` alone means everything."""
    needs = Needs(definitions, definition.resource)
    for path in definition.where:
        needs.use(needs.read(parse(path), needs.root()))
    for select in definition.select:
        _level(select, needs, needs.root())
    return needs.leaves()


def _level(select: Select, needs: Needs, this: Places) -> None:
    if select.for_each is not None:
        this = needs.read(parse(select.for_each), this)
        needs.count(this)
    for path in select.repeat:
        # Each depth has a path of its own; the first one whole covers them all.
        found = needs.read(parse(path), this)
        needs.use(found)
        this = found
    for column in select.columns:
        needs.use(needs.read(parse(column.path), this))
    for below in (*select.selects, *select.union_all):
        _level(below, needs, this)


def covers(leaves: Leaves, path: ElementPath) -> bool:
    """Say whether a stored leaf belongs to a needed element (the ``_x`` sibling goes with ``x``)."""
    plain = tuple(name[1:] if name.startswith("_") and not name.startswith("__") else name for name in path)
    return any(path[: len(leaf)] == leaf or plain[: len(leaf)] == leaf for leaf in leaves)


def parquet_batches(path: Path, leaves: Leaves, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of a Parquet file with only the needed leaf columns."""
    with pq.ParquetFile(path, memory_map=True) as file:
        names = [file.schema.column(index).path for index in range(len(file.schema))]
        wanted = _stored(leaves, {name: tuple(name.replace(".list.element", "").split(".")) for name in names})
        yield from file.iter_batches(batch_size=rows, columns=wanted, use_threads=False)


def _stored(leaves: Leaves, stored: dict[str, ElementPath]) -> list[str]:
    """Choose the stored columns that hold the needed elements."""
    wanted = {name for name, path in stored.items() if covers(leaves, path)}
    # An element exists although none of its needed members was ever seen: one other member stands for it.
    parents = {leaf[:depth] for leaf in leaves for depth in range(1, len(leaf))}
    for parent in sorted(parents, key=len, reverse=True):
        below = [name for name, path in stored.items() if path[: len(parent)] == parent]
        if below and not wanted & set(below):
            wanted.add(below[0])
    # No element is read at all, yet each resource is a row.
    return [name for name in stored if name in wanted] or list(stored)[:1]


def prune(batch: pa.RecordBatch, leaves: Leaves) -> pa.RecordBatch:
    """Return a batch with only the needed columns and struct members; nothing is copied."""
    kept = [
        (name, pruned)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
        if (pruned := _pruned(column, (name,), leaves)) is not None
    ]
    if not kept:
        kept = [(batch.schema.names[0], batch.columns[0])] if batch.num_columns else []
    return pa.RecordBatch.from_arrays([array for _, array in kept], names=[name for name, _ in kept])


def _pruned(array: pa.Array, path: ElementPath, leaves: Leaves) -> pa.Array | None:
    if covers(leaves, path):
        return array
    plain = tuple(name.removeprefix("_") for name in path)
    if not any(leaf[: len(path)] in (path, plain) for leaf in leaves):
        return None
    if pa.types.is_struct(array.type) and array.offset == 0:
        members = [
            (array.type.field(at).name, pruned)
            for at in range(array.type.num_fields)
            if (pruned := _pruned(array.field(at), (*path, array.type.field(at).name), leaves)) is not None
        ]
        if not members:
            return array
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays([item for _, item in members], [name for name, _ in members], mask=mask)
    if pa.types.is_list(array.type) and array.offset == 0 and array.null_count == 0:
        items = _pruned(array.values, path, leaves)
        return array if items is None else pa.ListArray.from_arrays(array.offsets, items)
    return array
