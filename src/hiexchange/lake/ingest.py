"""From files to parts: find NDJSON, encode it block by block, write Parquet. No snapshot is touched here."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import threading
import zlib
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import IO, cast

import numpy as np

from hiexchange.definitions import Definitions
from hiexchange.errors import ConfigError, LakeError
from hiexchange.lake.cut import BLOCK_SIZE, Block, blocks
from hiexchange.lake.decode import Encoded, Source, encode
from hiexchange.lake.lineage import with_extras
from hiexchange.lake.mixed import by_type, has_others, type_of
from hiexchange.lake.parts import PartWriter
from hiexchange.lake.quarantine import REJECTS, reject_rows
from hiexchange.lake.scan import number_of
from hiexchange.lake.shape import Shape, merge
from hiexchange.lake.store import DataFile
from hiexchange.ndjson import BOM, open_bytes

PIECE = 64 << 20
"""Smaller files are not shared among workers."""
NDJSON = (".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz")
_NEWLINE = ord("\n")
_NOT_DATA = {"deleted", "error", "errors", "_hx", "_rejects", "_tombstones"}
_HEAD = 1 << 20
"""Bytes of a file that are looked at for its resource type."""
_TYPE = re.compile(rb'"resourceType"\s*:\s*"([A-Za-z]+)"')


@dataclass(frozen=True)
class Work:
    """One file to load into one table."""

    path: Path
    file: str
    """Name in the lineage column: relative to the source folder."""
    resource: str
    table: str
    version: str
    load: str
    shape: Shape = field(default_factory=dict)
    transaction_time: datetime | None = None
    fast: bool = True
    repairs: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    """Optional columns, see ``lineage``."""
    block_size: int = BLOCK_SIZE
    start: int = 0
    """First byte of this piece of the file, at the start of a line."""
    size: int | None = None
    """Bytes of this piece; None for the rest of the file."""
    line: int = 1
    """Number of its first line."""


@dataclass
class Done:
    """What a file became."""

    work: Work
    parts: list[DataFile] = field(default_factory=list)
    shape: Shape = field(default_factory=dict)
    quarantined: list[DataFile] = field(default_factory=list)
    """Parts of table ``_rejects``."""
    reasons: Counter[str] = field(default_factory=Counter)
    """{quarantine reason: lines}."""
    unmapped: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    lines: int = 0
    slow_lines: int = 0
    size_bytes: int = 0
    others: dict[str, Done] = field(default_factory=dict)
    """What lines of other resource types in the file became, by type."""


def find_files(folder: Path) -> list[tuple[Path, str]]:
    """Return (path, relative name) of the NDJSON files of any exporter's folder, in the order of names.

    A job folder of ``hiexchange.bulk`` has them in ``output/``. Logs, errors and deletions are left out.
    """
    base = folder / "output" if (folder / "output").is_dir() else folder
    found = [
        path
        for path in sorted(base.rglob("*"))
        if path.name.lower().endswith(NDJSON)
        and not path.name.startswith(("log.", "."))
        and not _NOT_DATA & {part.lower() for part in path.relative_to(base).parts[:-1]}
        and path.is_file()
    ]
    return [(path, path.relative_to(folder).as_posix()) for path in found]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a plain or gzipped file; with the ``fast`` extra (isal) gzip takes half the time.

    Raises:
        LakeError: The compressed data are cut short or damaged.
    """
    try:
        with _fast_gzip(path) or open_bytes(path) as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise LakeError(
            "the compressed file is cut short or damaged", where=path.name, hint="fetch it again; nothing was stored"
        ) from None


def _fast_gzip(path: Path) -> IO[bytes] | None:
    try:
        from isal import igzip
    except ImportError:
        return None
    with path.open("rb") as raw:
        if raw.read(2) != b"\x1f\x8b":
            return None
    stream: IO[bytes] = igzip.open(path, "rb")
    return stream


def resource_of(path: Path, version: str) -> str | None:
    """Return the resource type of a file by its first lines, one of this FHIR version if any; None for an empty file."""
    known = Definitions.load(version)
    head, unknown = b"", ""
    with opened(path) as stream:
        for _ in range(20):
            line = stream.readline(_HEAD)
            kind = type_of(line.removeprefix(BOM))
            if known.is_resource(kind):
                return kind
            unknown = unknown or kind
            head += line
            if not line or len(head) > _HEAD:
                break
    if unknown or not head.strip():
        return unknown or None
    match = _TYPE.search(head)  # a first line longer than is looked at, or none that is JSON
    return match[1].decode() if match else re.split(r"[._-]", path.name)[0]


def check_resource(name: str, version: str, file: str) -> None:
    """Refuse a file whose type this FHIR version doesn't have.

    Raises:
        ConfigError: The type is unknown.
    """
    definitions = Definitions.load(version)
    if not definitions.is_resource(name):
        raise ConfigError(
            f"{file} holds {name!r}, which is no resource type of FHIR {version}",
            hint="name the FHIR version with fhir_version=, or leave the file out",
        )


def pieces(work: Work, count: int) -> Iterator[Work]:
    """Cut a large plain file into ``count`` pieces at line ends, so that several workers share it.

    The lines of a piece are counted when the next one is asked for: the workers have begun by then. A gzipped file
    stays whole: its lines can't be found without decompressing what is before them.
    """
    size = work.path.stat().st_size
    with work.path.open("rb") as file:
        if count < 2 or size < PIECE or file.read(2) == b"\x1f\x8b":
            yield work
            return
        start, line = 0, 1
        for number in range(1, count + 1):
            file.seek(max(start, size * number // count))
            file.readline()
            end = file.tell()
            if end > start:
                yield replace(work, start=start, size=end - start, line=line)
                if end < size:
                    file.seek(start)
                    line += _lines_in(file, end - start)
                start = end


def _lines_in(file: IO[bytes], size: int) -> int:
    buffer = memoryview(bytearray(min(size, 1 << 20)))  # one that is used again: new memory costs more than counting
    count = 0
    while size > 0 and (read := file.readinto(buffer[:size])):  # type: ignore[attr-defined]
        count += number_of(np.frombuffer(buffer[:read], np.uint8), _NEWLINE)
        size -= read
    return count


class _Piece(io.RawIOBase):
    """The first ``size`` bytes from where a file stands."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def load_file(root: Path, work: Work, stopped: threading.Event | None = None) -> Done:
    """Encode one file into parts under the lake's folder; they belong to no snapshot yet.

    Memory is bounded by a few blocks and one row group. A wider schema starts a new part. Lines of other
    resource types go to tables of theirs.

    Raises:
        CancelledError: ``stopped`` was set; nothing is left behind.
    """
    tables = {work.resource: _Table(root, work)}
    tables[work.resource].done.size_bytes = work.size or work.path.stat().st_size
    try:
        with opened(work.path) as stream:
            if work.size is not None:
                stream.seek(work.start)
            source_bytes = stream if work.size is None else cast("IO[bytes]", _Piece(stream, work.size))
            for block in blocks(source_bytes, size=work.block_size, line=work.line, offset=work.start):
                if stopped is not None and stopped.is_set():
                    raise CancelledError
                _take(block, root, work, tables)
                del block  # or it would be held while the next is made
        for table in tables.values():
            table.finish()
    except BaseException:
        for table in tables.values():
            table.abandon()
        raise
    done = tables.pop(work.resource).done
    done.others = {name: table.done for name, table in tables.items()}
    return done


def _take(block: Block, root: Path, work: Work, tables: dict[str, _Table]) -> None:
    """Add a block to the tables its lines belong to."""
    main = tables[work.resource]
    if len(tables) == 1:
        encoded = main.encoded(block)
        if not has_others(encoded.rejects, work.version):
            main.add(encoded, block)
            return
    # From the first line of another type on, each block is sorted before it is encoded.
    for resource, part in by_type(block, work.resource, work.version):
        if resource not in tables:
            name = resource + work.table.removeprefix(work.resource)
            tables[resource] = _Table(root, replace(work, resource=resource, table=name, shape={}))
        tables[resource].add(tables[resource].encoded(part), part)


class _Table:
    """The parts that one file adds to one table."""

    def __init__(self, root: Path, work: Work) -> None:
        self.done = Done(work, shape=work.shape)
        self._root = root
        self._writer: PartWriter | None = None
        self._quarantine: PartWriter | None = None
        self._source = Source(
            resource=work.resource,
            file=work.file,
            load=work.load,
            version=work.version,
            transaction_time=work.transaction_time,
            fast=work.fast,
            repairs=work.repairs,
        )

    def encoded(self, block: Block) -> Encoded:
        """Encode a block into the columns known so far, widened by its own."""
        return encode(block, self.done.shape, self._source)

    def add(self, encoded: Encoded, block: Block) -> None:
        """Count what a block became, and write its rows."""
        done = self.done
        done.shape = merge(done.shape, encoded.shape)
        done.reasons.update(bad.reason for bad in encoded.rejects)
        done.unmapped.update(encoded.unmapped)
        done.repaired.update(encoded.repaired)
        done.rows += encoded.batch.num_rows
        done.lines += encoded.lines
        done.slow_lines += encoded.slow_lines
        if encoded.rejects:
            # Written as they come: of a file that is no NDJSON at all, all would be held.
            if self._quarantine is None:
                self._quarantine = PartWriter(self._root, "_rejects", REJECTS, done.work.load)
            self._quarantine.write(reject_rows(encoded.rejects, done.work.file, done.work.table, done.work.load))
        if not encoded.batch.num_rows:
            return
        batch = with_extras(encoded.batch, block, done.work.extras)
        if self._writer is None or not self._writer.schema.equals(batch.schema):
            self.close()
            self._writer = PartWriter(self._root, done.work.table, batch.schema, done.work.load)
        self._writer.write(batch)

    def finish(self) -> None:
        """Finish all parts."""
        self.close()
        part = self._quarantine.close() if self._quarantine is not None else None
        self._quarantine = None
        if part is not None:
            self.done.quarantined.append(part)

    def close(self) -> None:
        """Finish the part being written."""
        part = self._writer.close() if self._writer is not None else None
        self._writer = None
        if part is not None:
            self.done.parts.append(part)

    def abandon(self) -> None:
        """Remove what was written."""
        for writer in (self._writer, self._quarantine):
            if writer is not None:
                writer.abandon()
        for part in (*self.done.parts, *self.done.quarantined):
            (self._root / part.path).unlink(missing_ok=True)


def load_files(root: Path, works: Iterable[Work], workers: int) -> Generator[Done]:
    """Load files one after the other, or by several workers at once; results in the order of ``works``.

    Works that arrive one by one (an iterator) are encoded while the next is awaited. Close the iterator when it
    is left early, for the workers to stop; whoever holds the lake's lock removes what they made.
    """
    if workers <= 1 and isinstance(works, Sequence):
        shapes: dict[str, Shape] = {}
        for work in works:
            done = load_file(root, replace(work, shape=merge(work.shape, shapes.get(work.table, {}))))
            shapes[work.table] = done.shape
            yield from _all(done)
    else:
        cut = 4 * workers if workers > 1 else 1
        yield from _at_once(root, (piece for work in works for piece in pieces(work, cut)), max(1, workers))


def _at_once(root: Path, works: Iterable[Work], workers: int) -> Iterator[Done]:
    """Load files in threads: nearly all the work is done by DuckDB, Arrow and numpy, outside the interpreter's lock.

    Processes took half a second of CPU to start, as much again for cold libraries, and twice the memory
    (docs/benchmarks/ingest.md).
    """
    stopped = threading.Event()
    waiting: deque[Future[Done]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="hiexchange-lake")
    try:
        for work in works:
            waiting.append(pool.submit(load_file, root, work, stopped))
            while waiting and waiting[0].done():
                yield from _all(waiting.popleft().result())
        while waiting:
            yield from _all(waiting.popleft().result())
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


def _all(done: Done) -> tuple[Done, ...]:
    return done, *done.others.values()
