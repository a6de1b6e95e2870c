"""Newest wins: keep one row a resource, rewriting only the files that hold a beaten one.

Order of the versions of one id:
1. a SUBSETTED row never beats a whole one;
2. newer ``meta.lastUpdated``, compared as instants; what comes after a row without it wins;
3. higher ``meta.versionId``, when both are numbers;
4. later transaction time;
5. the incoming one, so that processing the same export again can repair rows.

A tombstone beats the versions not newer than it; a newer re-creation beats the tombstone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from hiexchange._duck import quiet_connection
from hiexchange.lake.parts import write_batches
from hiexchange.lake.store import DataFile

Positions = npt.NDArray[np.int64]
_KEYS = ["__hx_key", "__hx_updated", "__hx_subsetted", "__hx_transaction_time"]


def merge(
    root: Path, table: str, old: Sequence[DataFile], new: Sequence[DataFile], tombstones: pa.Table | None = None
) -> tuple[DataFile, ...]:
    """Return the files of a table after an upsert; files with a beaten row are rewritten.

    Args:
        root: The lake's folder.
        table: Name of the table.
        old: Files before; each key stands in at most one row.
        new: Files of the load, in the order of its input; a later row is the more recent.
        tombstones: Columns ``id``, ``at`` (instant, nullable) and ``fresh`` (bool: of this load), of this
            resource type.
    """
    dead = beaten(root, old, new, tombstones)
    kept: list[DataFile] = []
    for index, file in enumerate([*old, *new]):
        rewritten = _without(root, table, file, dead[index]) if index in dead else file
        if rewritten is not None:
            kept.append(rewritten)
    return tuple(kept)


def beaten(
    root: Path, old: Sequence[DataFile], new: Sequence[DataFile], tombstones: pa.Table | None
) -> dict[int, Positions]:
    """Return, per index into ``[*old, *new]``, the positions of the rows that lose."""
    buried = tombstones is not None and tombstones.num_rows > 0
    looked_for = [_only_keys(root / file.path) for file in new]
    if buried and tombstones is not None:
        looked_for.append(tombstones["id"])
    wanted = pa.chunked_array([chunk for column in looked_for for chunk in column.chunks], pa.string())
    # Keys of the old files are unique, so only rows whose key comes in again can lose.
    hits = [pc.indices_nonzero(pc.is_in(_only_keys(root / file.path), value_set=wanted)) for file in old]
    if not buried and not any(len(found) for found in hits) and pc.count_distinct(wanted).as_py() == len(wanted):
        return {}
    stored = [_keys(root / file.path, index, found) for index, (file, found) in enumerate(zip(old, hits, strict=True))]
    incoming = [_keys(root / file.path, len(old) + index, None) for index, file in enumerate(new)]
    con = quiet_connection()
    con.execute("set threads = 2")
    con.register("keys", pa.concat_tables([_NO_KEYS, *stored, *incoming], promote_options="permissive"))
    query = _LOSERS
    if buried:
        con.register("tombstones", tombstones)
        query += _BURIED
    lost = con.sql(query).to_arrow_table()
    file, position = lost["file"].to_numpy(), lost["position"].to_numpy()
    return {index: position[file == index] for index in np.unique(file).tolist()}


_NO_KEYS = pa.schema(
    [
        ("key", pa.string()),
        ("updated", pa.timestamp("us", tz="UTC")),
        ("subsetted", pa.bool_()),
        ("transaction_time", pa.timestamp("us", tz="UTC")),
        ("version", pa.string()),
        ("file", pa.int32()),
        ("position", pa.int64()),
    ]
).empty_table()

# A row without lastUpdated can't be compared: what came after it wins. So in each group only the rows
# after the last such one compete, and it stands when it is itself the last.
_LOSERS = """
with doubled as materialized (select key from keys group by key having count(*) > 1),
rivals as (
    select *, file * 1000000000000::hugeint + position as seq from keys where key in (select key from doubled)
),
dated as (
    select *, max(case when updated is null then seq end) over (partition by key, subsetted) as undated from rivals
),
ranked as (
    select file, position, row_number() over (
        partition by key order by subsetted, undated is not null and seq < undated,
            seq is not distinct from undated, updated desc, try_cast(version as bigint) desc nulls last,
            transaction_time desc nulls last, seq desc) as rank
    from dated
)
select file, position from ranked where rank > 1
"""
# An older tombstone buries an undated row only when the row's export was not later.
_BURIED = """
union
select file, position from keys join tombstones on key = id
where tombstones."at" is null and fresh or updated <= tombstones."at"
    or updated is null and (fresh or transaction_time <= tombstones."at")
"""


def _only_keys(path: Path) -> pa.ChunkedArray:
    with pq.ParquetFile(path) as file:
        return file.read(["__hx_key"], use_threads=False)["__hx_key"]


def _keys(path: Path, index: int, positions: pa.Array | None) -> pa.Table:
    """Return key columns of the rows of a file, all or those at some positions."""
    if positions is not None and not len(positions):
        return _NO_KEYS
    data = ds.dataset(path, format="parquet")
    columns = {name.removeprefix("__hx_"): ds.field(name) for name in _KEYS}
    meta = data.schema.get_field_index("meta")
    versioned = meta >= 0 and data.schema.field(meta).type.get_field_index("versionId") >= 0
    columns["version"] = ds.field("meta", "versionId") if versioned else pc.scalar(pa.scalar(None, pa.string()))
    keys = data.to_table(columns=columns)
    if positions is None:
        positions = pa.array(np.arange(keys.num_rows, dtype=np.int64))
    else:
        keys = keys.take(positions)
    keys = keys.append_column("file", pa.repeat(pa.scalar(index, pa.int32()), keys.num_rows))
    return keys.append_column("position", positions.cast(pa.int64()))


def _without(root: Path, table: str, file: DataFile, dead: Positions) -> DataFile | None:
    """Rewrite a file without some of its rows; None when nothing is left."""
    with pq.ParquetFile(root / file.path) as source:
        alive = np.ones(source.metadata.num_rows, bool)
        alive[dead] = False

        def batches() -> Iterator[pa.RecordBatch]:
            start = 0
            for batch in source.iter_batches():
                mask = alive[start : start + batch.num_rows]
                start += batch.num_rows
                if mask.any():
                    yield batch if mask.all() else batch.filter(pa.array(mask))

        written = write_batches(root, table, source.schema_arrow, batches(), file.load)
    return None if written is None else replace(written, sorted=file.sorted)
