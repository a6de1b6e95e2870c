"""Keep a lake tidy: put small files together, sort, and remove what no kept snapshot needs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from hiexchange.lake.parts import write_batches
from hiexchange.lake.store import META, DataFile, Store

SMALL_FILE = 16 << 20
MANY = 8
ROWS_A_FILE = 2_000_000
KEEP_SNAPSHOTS = 10
KEEP_DAYS = 7.0


def tidied(root: Path, table: str, files: Sequence[DataFile], schema: pa.Schema, load: str) -> tuple[DataFile, ...]:
    """Return the files with the small ones put into one, when there are more than eight of them."""
    small = [file for file in files if file.size_bytes < SMALL_FILE]
    if len(small) <= MANY:
        return tuple(files)
    batches = _scan(root, small, schema, None)
    together = write_batches(root, table, schema, batches, load)
    return (*(file for file in files if file not in small), *((together,) if together else ()))


def compacted(
    root: Path, table: str, files: Sequence[DataFile], schema: pa.Schema, load: str, *, rows: int = ROWS_A_FILE
) -> tuple[DataFile, ...]:
    """Return the rows in files of one schema, sorted by patient, then key, of about ``rows`` rows each.

    A patient's rows are never split over files. Memory is bounded by one file's rows.
    """
    written = []
    for chosen in _ranges(root, files, schema, rows):
        part = ds.dataset([str(root / file.path) for file in files], schema=schema, format="parquet")
        data = part.to_table(filter=chosen).sort_by([("__hx_patient", "ascending"), ("__hx_key", "ascending")])
        done = write_batches(root, table, schema, data.to_batches(), load)
        if done is not None:
            written.append(replace(done, sorted=True))
    return tuple(written)


def _ranges(root: Path, files: Sequence[DataFile], schema: pa.Schema, rows: int) -> Iterator[pc.Expression | None]:
    """Yield filters that part the table: by patient, and rows without one by key."""
    if sum(file.rows for file in files) <= rows:
        yield None
        return
    data = ds.dataset([str(root / file.path) for file in files], schema=schema, format="parquet")
    keys = data.to_table(columns=["__hx_patient", "__hx_key"])
    patients = keys["__hx_patient"].drop_null()
    patient, key = ds.field("__hx_patient"), ds.field("__hx_key")
    yield from _between(patient, _cuts(patients, rows), patient.is_valid())
    nameless = keys.filter(pc.is_null(keys["__hx_patient"]))["__hx_key"]
    yield from _between(key, _cuts(nameless, rows), patient.is_null())


def _cuts(values: pa.ChunkedArray, rows: int) -> list[str] | None:
    if not len(values):
        return None
    order = values.combine_chunks().sort() if isinstance(values, pa.ChunkedArray) else values.sort()
    return list(dict.fromkeys(order[place].as_py() for place in range(rows, len(order), rows)))


def _between(column: pc.Expression, cuts: list[str] | None, base: pc.Expression) -> Iterator[pc.Expression]:
    if cuts is None:
        return
    edges: list[str | None] = [None, *cuts, None]
    for low, high in itertools.pairwise(edges):
        chosen = base
        if low is not None:
            chosen = chosen & (column >= low)
        if high is not None:
            chosen = chosen & (column < high)
        yield chosen


def _scan(
    root: Path, files: Sequence[DataFile], schema: pa.Schema, chosen: pc.Expression | None
) -> Iterator[pa.RecordBatch]:
    data = ds.dataset([str(root / file.path) for file in files], schema=schema, format="parquet")
    for batch in data.scanner(filter=chosen, batch_readahead=4, fragment_readahead=1).to_batches():
        if batch.num_rows:
            yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)


@dataclass(frozen=True)
class Vacuumed:
    """What a vacuum removed, or would remove."""

    snapshots: tuple[int, ...]
    files: tuple[str, ...]
    """Paths relative to the lake's folder."""
    size_bytes: int
    dry_run: bool


def vacuum(store: Store, *, keep_snapshots: int, keep_days: float, dry_run: bool, now: float | None = None) -> Vacuumed:
    """Remove old snapshots and the data files that no kept one refers to; the caller holds the lock.

    Files of a crashed writer belong to no snapshot and go too.
    """
    oldest = (time.time() if now is None else now) - keep_days * 86_400
    numbers = store.snapshots()
    young = {number for number in numbers if store.snapshot_path(number).stat().st_mtime >= oldest}
    kept = {*numbers[-max(1, keep_snapshots) :], *young}
    needed = {file.path for number in kept for file in store.snapshot(number).files()}
    parts = [path for path in store.root.glob("*/*.parquet") if path.parent.name != META]
    unneeded = [path for path in parts if path.relative_to(store.root).as_posix() not in needed]
    gone = tuple(number for number in numbers if number not in kept)
    size = sum(path.stat().st_size for path in unneeded)
    if not dry_run:
        for number in gone:
            store.snapshot_path(number).unlink(missing_ok=True)
        for path in unneeded:
            path.unlink(missing_ok=True)
    names = tuple(sorted(path.relative_to(store.root).as_posix() for path in unneeded))
    return Vacuumed(gone, names, size, dry_run)
