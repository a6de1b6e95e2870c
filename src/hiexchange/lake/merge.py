"""Newest wins: keep one row a resource, rewriting only the files that hold a beaten one.

Order of the versions of one id:
1. a SUBSETTED row never beats a whole one;
2. newer ``meta.lastUpdated``, compared as instants; what comes after a row without it wins;
3. higher ``meta.versionId``, when all of that instant are numbers;
4. later transaction time;
5. the incoming one, so that processing the same export again can repair rows.

A tombstone beats the versions not newer than it; a newer re-creation beats the tombstone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hiexchange._duck import quiet_connection
from hiexchange.errors import StorageError
from hiexchange.lake.parts import read_batches, write_batches
from hiexchange.lake.store import META, DataFile

Positions = npt.NDArray[np.int64]
MEMORY = "400MB"
"""What DuckDB may hold while keys are compared; beyond it, it spills below ``_hx``."""

FEW = 250_000
"""Keys of loads up to this size are looked up in Arrow first: 1 ms against DuckDB's 35 when nothing is beaten."""


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

    Raises:
        StorageError: Keys don't fit into memory, nor what is left of them on the disk.
    """
    try:
        dead = beaten(root, old, new, tombstones)
    except duckdb.OutOfMemoryException:
        raise StorageError(
            "the disk has no room to compare keys", where=str(root / META), hint="free space, then run it again"
        ) from None

    def kept(index: int, file: DataFile) -> DataFile | None:
        return _without(root, table, file, dead[index]) if index in dead else file

    # Two files at a time: Arrow works outside the interpreter's lock, and memory stays that of two row groups.
    with ThreadPoolExecutor(2) as pool:
        files = [*old, *new]
        return tuple(file for file in pool.map(kept, range(len(files)), files) if file is not None)


def beaten(
    root: Path, old: Sequence[DataFile], new: Sequence[DataFile], tombstones: pa.Table | None
) -> dict[int, Positions]:
    """Return, per index into ``[*old, *new]``, the positions of the rows that lose.

    Keys of the old files are unique, so only rows whose key comes in again, or is deleted, can lose: they
    alone are ranked.
    """
    buried = tombstones is not None and tombstones.num_rows > 0
    if not buried and sum(file.rows for file in new) <= FEW and _all_alone(root, old, new):
        return {}
    with quiet_connection() as con:
        con.execute(f"set threads = 2; set memory_limit = '{MEMORY}'")
        con.execute(f"set temp_directory = {_quoted(root / META / 'tmp-merge')}")
        incoming = "select key from tombstones" if buried else "select null::varchar as key where false"
        con.execute(_TABLES)
        if tombstones is not None and buried:
            con.register("tombstones", tombstones.rename_columns({"id": "key"}))
            con.execute("insert into contested select key from tombstones")
        if new:
            listed = ", ".join(_quoted(root / file.path) for file in new)
            keys = f"select __hx_key as key from read_parquet([{listed}])"
            incoming = f"{incoming} union all {keys}"
            con.execute(f"insert into contested {keys} group by all having count(*) > 1")
        if old:
            con.execute(f"create temp table wanted as {incoming}")
            for index, file in enumerate(old):
                _enter(con, root / file.path, index, "wanted")
            con.execute("insert into contested select key from rivals")
        if not con.execute("select 1 from contested limit 1").fetchall():
            return {}
        for index, file in enumerate(new, len(old)):
            _enter(con, root / file.path, index, "contested")
        lost = con.sql(_LOSERS + _BURIED if buried else _LOSERS).to_arrow_table()
    place, position = lost["file"].to_numpy(), lost["position"].to_numpy()
    return {index: position[place == index] for index in np.unique(place).tolist()}


def _all_alone(root: Path, old: Sequence[DataFile], new: Sequence[DataFile]) -> bool:
    """Say whether every key of the new files is there once, and in no old file."""
    keys = [_only_keys(root / file.path) for file in new]
    fresh = pa.chunked_array([chunk for column in keys for chunk in column.chunks], pa.string())
    if pc.count_distinct(fresh).as_py() < len(fresh):
        return False
    return not any(pc.any(pc.is_in(_only_keys(root / file.path), value_set=fresh)).as_py() for file in old)


def _only_keys(path: Path) -> pa.ChunkedArray:
    with pq.ParquetFile(path) as file:
        return file.read(["__hx_key"], use_threads=False)["__hx_key"]


def _enter(con: duckdb.DuckDBPyConnection, path: Path, index: int, keys: str) -> None:
    """Add the rows of a file whose key is in table ``keys`` to the rivals."""
    schema = pq.read_schema(path)
    meta = schema.get_field_index("meta")
    versioned = meta >= 0 and schema.field(meta).type.get_field_index("versionId") >= 0
    con.execute(f"""
        insert into rivals
        select __hx_key, __hx_updated, __hx_subsetted, __hx_transaction_time,
            {"meta.versionId" if versioned else "null"}, {index}, file_row_number
        from read_parquet({_quoted(path)}, file_row_number = true) where __hx_key in (select key from {keys})
    """)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


_TABLES = """
create temp table contested (key varchar);
create temp table rivals (key varchar, updated timestamptz, subsetted boolean, transaction_time timestamptz,
    version varchar, file integer, position bigint);
"""

# A row without lastUpdated can't be compared: what came after it wins. So in each group only the rows
# after the last such one compete, and it stands when it is itself the last.
_LOSERS = """
with shared as (
    select *, file * 1000000000000::hugeint + position as seq from rivals
    where key in (select key from rivals group by key having count(*) > 1)
),
dated as (
    select *, max(case when updated is null then seq end) over (partition by key, subsetted) as undated from shared
),
versioned as (
    select *, bool_and(try_cast(version as bigint) is not null)
        over (partition by key, subsetted, updated, undated is not null and seq < undated) as numbered from dated
),
ranked as (
    select file, position, row_number() over (
        partition by key order by subsetted, undated is not null and seq < undated,
            seq is not distinct from undated, updated desc, case when numbered then try_cast(version as bigint) end desc,
            transaction_time desc nulls last, seq desc) as rank
    from versioned
)
select file, position from ranked where rank > 1
"""
# An older tombstone buries an undated row only when the row's export was not later.
_BURIED = """
union
select file, position from rivals join tombstones using (key)
where tombstones."at" is null and fresh or updated <= tombstones."at"
    or updated is null and (fresh or transaction_time <= tombstones."at")
"""


def _without(root: Path, table: str, file: DataFile, dead: Positions) -> DataFile | None:
    """Rewrite a file without some of its rows; None when nothing is left."""
    alive = np.ones(file.rows, bool)
    alive[dead] = False

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in read_batches(root / file.path):
            mask = alive[start : start + batch.num_rows]
            start += batch.num_rows
            if mask.any():
                yield batch if mask.all() else batch.filter(pa.array(mask))

    order = len(alive) - len(dead) if file.sorted else None
    return write_batches(root, table, pq.read_schema(root / file.path), batches(), file.load, sorted_rows=order)
