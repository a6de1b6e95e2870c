"""Newest wins: keep one row a resource id, rewriting only the files that hold a loser.

Order of versions (reference: cumulus and Pathling differ here; ours repairs on re-processing): a row
that is SUBSETTED never beats a whole one; then newer ``meta.lastUpdated`` as an instant, the incoming
row on a tie or when either has none; then ``meta.versionId`` as a number; then the later transaction
time. A tombstone beats the versions not newer than it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

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
        tombstones: Columns ``key`` and ``at`` (the deletion's instant, nullable) of this table.
    """
    losers = beaten(root, [*old, *new], tombstones)
    kept: list[DataFile] = []
    for index, file in enumerate([*old, *new]):
        dead = losers.get(index)
        if dead is None:
            kept.append(file)
            continue
        rewritten = _without(root, table, file, dead)
        if rewritten is not None:
            kept.append(rewritten)
    return tuple(kept)


def beaten(root: Path, files: Sequence[DataFile], tombstones: pa.Table | None) -> dict[int, Positions]:
    """Return, per file index, the positions of the rows that lose."""
    con = duckdb.connect()
    con.execute("set threads = 2")
    con.register("keys", _keys(root, files))
    deleted = ""
    if tombstones is not None and tombstones.num_rows:
        con.register("tombstones", tombstones)
        deleted = _DELETED
    lost = con.sql(_LOSERS + deleted).to_arrow_table()
    file, position = lost["file"].to_numpy(), lost["position"].to_numpy()
    return {index: position[file == index] for index in np.unique(file).tolist()}


# A row without lastUpdated can't be compared: whatever came after it wins. So in each group only the
# rows after the last such one compete, and it stands when it is itself the last.
_LOSERS = """
with doubled as materialized (select key from keys group by key having count(*) > 1),
rivals as (
    select *, max(case when updated is null then file * 1000000000::hugeint + position end)
        over (partition by key, subsetted) as last_undated, file * 1000000000::hugeint + position as seq
    from keys where key in (select key from doubled)
),
ranked as (
    select file, position, row_number() over (
        partition by key order by subsetted, last_undated is not null and seq < last_undated,
            seq is not distinct from last_undated, updated desc, try_cast(version as bigint) desc nulls last,
            transaction_time desc nulls last, seq desc) as rank
    from rivals
)
select file, position from ranked where rank > 1
"""
_DELETED = """
union
select file, position from keys join (select key, max(at) as at, bool_or(at is null) as always from tombstones group by key)
    using (key)
where always or updated is null or updated <= at
"""


def _keys(root: Path, files: Sequence[DataFile]) -> pa.Table:
    """Return key columns of every row, with the index of its file and its position there."""
    tables = []
    for index, file in enumerate(files):
        data = ds.dataset(root / file.path, format="parquet")
        columns = {name.removeprefix("__hx_"): ds.field(name) for name in _KEYS}
        meta = data.schema.get_field_index("meta")
        versioned = meta >= 0 and data.schema.field(meta).type.get_field_index("versionId") >= 0
        columns["version"] = ds.field("meta", "versionId") if versioned else pc.scalar(pa.scalar(None, pa.string()))
        keys = data.to_table(columns=columns)
        keys = keys.append_column("file", pa.repeat(pa.scalar(index, pa.int32()), keys.num_rows))
        tables.append(keys.append_column("position", pa.array(np.arange(keys.num_rows, dtype=np.int64))))
    return pa.concat_tables(tables)


def _without(root: Path, table: str, file: DataFile, dead: Positions) -> DataFile | None:
    """Rewrite a file without some of its rows."""
    source = pq.ParquetFile(root / file.path)
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
