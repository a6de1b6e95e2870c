"""Keep a lake tidy: put small files together, sort, and remove what no kept snapshot needs."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hiexchange._files import storage_errors
from hiexchange.lake.columns import cast_wide
from hiexchange.lake.parts import ORDER, read_batches, write_batches
from hiexchange.lake.store import META, DataFile, Store

SMALL_FILE = 16 << 20
SMALL_ROWS = 250_000
"""A file with more rows is not small, however well its rows compress."""
MANY = 8
ROWS_A_FILE = 2_000_000
BYTES_A_FILE = 128 << 20
"""Of rows in memory: a compacted file's rows are sorted there, which takes three times as much."""
OPEN_FILES = 400
SAMPLE = 200_000
TEMPORARY = "tmp-"
"""Folders below ``_hx`` whose names start so are a writer's scratch space."""
PARTS = "*/part-*.parquet"
"""The data files of a lake; what else lies in its folders is not the lake's."""
KEEP_SNAPSHOTS = 10
KEEP_DAYS = 7.0


def tidied(root: Path, table: str, files: Sequence[DataFile], schema: pa.Schema, load: str) -> tuple[DataFile, ...]:
    """Return the files with the small ones put into one, when there are more than eight of them."""
    small = [file for file in files if file.size_bytes < SMALL_FILE and file.rows < SMALL_ROWS]
    if len(small) <= MANY:
        return tuple(files)
    together = write_batches(root, table, schema, _scan(root, small, schema), load)
    return (*(file for file in files if file not in small), *((together,) if together else ()))


def is_compact(files: Sequence[DataFile]) -> bool:
    """Say whether the files are those of one compaction, with nothing added since; rows may have gone."""
    return all(file.sorted for file in files) and len({file.load for file in files}) <= 1


def compacted(
    root: Path, table: str, files: Sequence[DataFile], schema: pa.Schema, load: str, *, rows: int = ROWS_A_FILE
) -> tuple[DataFile, ...]:
    """Return the rows in files of one schema, sorted by patient, then key, of at most about ``rows`` rows each.

    A patient's rows are never split over files. Memory is bounded: rows are parted on disk first, in one
    scan, and each part is sorted by itself.
    """
    total = sum(file.rows for file in files)
    rows = max(min(rows, BYTES_A_FILE // _bytes_a_row(root, files, schema)), total // OPEN_FILES, 1)
    if total <= rows:
        part = _sorted_part(root, table, schema, _scan(root, files, schema), load)
        return (part,) if part else ()
    written = []
    with storage_errors(root), tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=root / META) as folder:
        for path in _parted(root, files, schema, rows, Path(folder)):
            with pa.OSFile(str(path)) as source:
                written.append(_sorted_part(root, table, schema, _stored(pa.ipc.open_file(source)), load))
            path.unlink()
            pa.default_memory_pool().release_unused()  # or each part would come on top of what Arrow kept of the last
    return tuple(part for part in written if part)


def _bytes_a_row(root: Path, files: Sequence[DataFile], schema: pa.Schema) -> int:
    """Return what a row takes in memory, by the first rows of the largest file."""
    largest = max(files, key=lambda file: file.size_bytes, default=None)
    first = next(_scan(root, [largest], schema), None) if largest else None
    return max(1, first.nbytes // first.num_rows) if first is not None else 1


def _stored(reader: pa.ipc.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _sorted_part(
    root: Path, table: str, schema: pa.Schema, rows: Iterator[pa.RecordBatch], load: str
) -> DataFile | None:
    # take() of nested columns in many chunks would copy them all each time.
    data = pa.Table.from_batches(rows, schema=schema).combine_chunks()
    order = pc.sort_indices(data, [(name, "ascending") for name in ORDER])
    batches = (
        batch
        for start in range(0, len(order), 1 << 16)
        for batch in data.take(order.slice(start, 1 << 16)).combine_chunks().to_batches()
    )
    return write_batches(root, table, schema, batches, load, sorted_rows=len(order))


def _parted(root: Path, files: Sequence[DataFile], schema: pa.Schema, rows: int, folder: Path) -> list[Path]:
    """Write the rows to files of about ``rows`` rows, by ranges of patients, then of keys of rows without one."""
    patients, keys = _cuts(root, files, schema, rows)
    paths = [folder / f"{number}.arrow" for number in range(len(patients) + len(keys) + 2)]
    with contextlib.ExitStack() as stack:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        writers = [stack.enter_context(pa.ipc.new_file(str(path), schema, options=options)) for path in paths]
        for batch in _scan(root, files, schema):
            places = _places(batch, patients, keys)
            order = np.argsort(places, kind="stable")
            numbers, starts = np.unique(places[order], return_index=True)
            for number, rows_of in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
                writers[number].write_batch(batch if len(numbers) == 1 else batch.take(pa.array(rows_of)))
    return paths


def _cuts(root: Path, files: Sequence[DataFile], schema: pa.Schema, rows: int) -> tuple[list[str], list[str]]:
    """Return the patients, and the keys of rows without a patient, at which parts start; by a sample of many rows."""
    stride = min(max(1, sum(file.rows for file in files) // SAMPLE), 1000)
    patients, keys = [], []
    for batch in _scan(root, files, pa.schema([schema.field(name) for name in ORDER])):
        few = batch.take(pa.array(np.arange(0, batch.num_rows, stride)))
        owned = pc.is_valid(few[ORDER[0]])
        patients += few[ORDER[0]].filter(owned).to_pylist()
        keys += few[ORDER[1]].filter(pc.invert(owned)).to_pylist()
    step = max(1, rows // stride)
    return sorted(set(sorted(patients)[step::step])), sorted(set(sorted(keys)[step::step]))


def _places(batch: pa.RecordBatch, patients: list[str], keys: list[str]) -> npt.NDArray[np.int64]:
    """Return the number of the part each row belongs to."""
    coded = batch[ORDER[0]].dictionary_encode()
    of_patient = np.array([*(bisect_right(patients, patient) for patient in coded.dictionary.to_pylist()), -1])
    places: npt.NDArray[np.int64] = of_patient[np.asarray(pc.fill_null(coded.indices, len(of_patient) - 1))]
    nameless = np.flatnonzero(places < 0)
    if len(nameless):
        without = batch[ORDER[1]].take(pa.array(nameless)).to_pylist()
        places[nameless] = [len(patients) + 1 + bisect_right(keys, key) for key in without]
    return places


def _scan(root: Path, files: Sequence[DataFile], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows of files in one schema, null where a file has not the column."""
    for file in files:
        stored = pq.read_schema(root / file.path)
        for batch in read_batches(root / file.path, [name for name in schema.names if name in stored.names]):
            columns = [
                cast_wide(batch[field.name], field.type)
                if field.name in batch.schema.names
                else pa.nulls(batch.num_rows, field.type)
                for field in schema
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def sweep(store: Store, since: float) -> None:
    """Remove the parts written since an instant that no snapshot names; the caller holds the lock.

    A writer that fails for want of space would leave ever less of it.
    """
    # The clock of files lags behind by some milliseconds.
    fresh = [path for path in store.root.glob(PARTS) if path.stat().st_mtime >= since - 1]
    if fresh:
        needed = {file.path for number in store.snapshots() for file in store.snapshot(number).files()}
        for path in fresh:
            if path.relative_to(store.root).as_posix() not in needed:
                path.unlink(missing_ok=True)


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
    unneeded = [path for path in store.root.glob(PARTS) if path.relative_to(store.root).as_posix() not in needed]
    gone = tuple(number for number in numbers if number not in kept)
    size = sum(path.stat().st_size for path in unneeded)
    if not dry_run:
        for scratch in (store.root / META).glob(TEMPORARY + "*"):  # a crashed writer's: the caller holds the lock
            shutil.rmtree(scratch, ignore_errors=True)
        for unfinished in (store.root / META).rglob(".*.part"):
            unfinished.unlink(missing_ok=True)
        for number in gone:
            store.snapshot_path(number).unlink(missing_ok=True)
        for path in unneeded:
            path.unlink(missing_ok=True)
    names = tuple(sorted(path.relative_to(store.root).as_posix() for path in unneeded))
    return Vacuumed(gone, names, size, dry_run)
