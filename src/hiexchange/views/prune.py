"""Leave out of a batch, or of a Parquet file, the elements that a view does not read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hiexchange.definitions import Definitions
from hiexchange.fhirpath import parse
from hiexchange.fhirpath.needs import Needs, Places, Wanted
from hiexchange.fhirpath.needs import Path as ElementPath
from hiexchange.views.definition import Definition, Select


def needed(definition: Definition, definitions: Definitions) -> Wanted:
    """Return the elements a view reads."""
    needs = Needs(definitions, definition.resource)
    for path in definition.where:
        needs.use(needs.read(parse(path), needs.root()))
    for select in definition.select:
        _level(select, needs, needs.root())
    return needs.wanted()


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


def covers(wanted: Wanted, path: ElementPath) -> bool:
    """Say whether a stored leaf belongs to a needed element (the ``_x`` sibling goes with ``x``)."""
    plain = tuple(name[1:] if name.startswith("_") and not name.startswith("__") else name for name in path)
    return any(path[: len(item)] == item or plain[: len(item)] == item for item in wanted.whole)


def parquet_batches(path: Path, wanted: Wanted, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of a Parquet file with only the needed leaf columns."""
    with pq.ParquetFile(path, memory_map=True) as file:
        names = [file.schema.column(index).path for index in range(len(file.schema))]
        stored = _stored(wanted, {name: tuple(name.replace(".list.element", "").split(".")) for name in names})
        yield from file.iter_batches(batch_size=rows, columns=stored, use_threads=False)


def _stored(wanted: Wanted, stored: dict[str, ElementPath]) -> list[str]:
    """Choose the stored columns that hold the needed elements."""
    chosen = {name for name, path in stored.items() if covers(wanted, path)}
    # Whether an element exists shows in any leaf below it: one stands for those whose members are not
    # read, or were never seen.
    parents = set(wanted.part) | {item[:depth] for item in wanted.whole | wanted.part for depth in range(1, len(item))}
    for parent in sorted(parents, key=len, reverse=True):
        sibling = (*parent[:-1], "_" + parent[-1])
        for place in (parent, sibling):
            below = [name for name, path in stored.items() if path[: len(place)] == place]
            if below and not chosen & set(below):
                chosen.add(below[0])
    # No element is read at all, yet each resource is a row.
    return [name for name in stored if name in chosen] or list(stored)[:1]


def prune(batch: pa.RecordBatch, wanted: Wanted) -> pa.RecordBatch:
    """Return a batch with only the needed columns and struct members; nothing is copied."""
    kept = [
        (name, pruned)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
        if (pruned := _pruned(column, (name,), wanted)) is not None
    ]
    if not kept:
        kept = [(batch.schema.names[0], batch.columns[0])] if batch.num_columns else []
    return pa.RecordBatch.from_arrays([array for _, array in kept], names=[name for name, _ in kept])


def _pruned(array: pa.Array, path: ElementPath, wanted: Wanted) -> pa.Array | None:
    if covers(wanted, path):
        return array
    plain = tuple(name.removeprefix("_") for name in path)
    if not any(item[: len(path)] in (path, plain) for item in wanted.whole | wanted.part):
        return None
    if pa.types.is_struct(array.type) and array.offset == 0:
        members = [
            (array.type.field(at).name, pruned)
            for at in range(array.type.num_fields)
            if (pruned := _pruned(array.field(at), (*path, array.type.field(at).name), wanted)) is not None
        ]
        if not members:
            return array
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays([item for _, item in members], [name for name, _ in members], mask=mask)
    if pa.types.is_list(array.type) and array.offset == 0 and array.null_count == 0:
        items = _pruned(array.values, path, wanted)
        return array if items is None else pa.ListArray.from_arrays(array.offsets, items)
    return array
