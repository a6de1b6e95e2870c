"""From files to parts: find NDJSON, encode it block by block, write Parquet. No snapshot is touched here."""

from __future__ import annotations

import contextlib
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import IO

import pyarrow as pa

from hiexchange.definitions import Definitions
from hiexchange.errors import ConfigError, LakeError
from hiexchange.lake.cut import BLOCK_SIZE, blocks
from hiexchange.lake.decode import Reject, Source, encode
from hiexchange.lake.parts import PartWriter
from hiexchange.lake.schema import plan
from hiexchange.lake.shape import Shape, merge
from hiexchange.lake.store import DataFile
from hiexchange.ndjson import open_bytes

NDJSON = (".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz")
_NOT_DATA = {"deleted", "error", "errors", "_hx", "_rejects", "_tombstones"}
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
    require_id: bool = False
    block_size: int = BLOCK_SIZE


@dataclass
class Done:
    """What a file became."""

    work: Work
    parts: list[DataFile] = field(default_factory=list)
    shape: Shape = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    unmapped: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    lines: int = 0
    slow_lines: int = 0
    size_bytes: int = 0


def find_files(folder: Path) -> list[tuple[Path, str]]:
    """Return (path, relative name) of the NDJSON files of any exporter's folder, in the order of names.

    A job folder of ``hiexchange.bulk`` has them in ``output/``. Logs, errors and deletions are left out.
    """
    base = folder / "output" if (folder / "output").is_dir() else folder
    found = [
        path
        for path in sorted(base.rglob("*"))
        if path.name.endswith(NDJSON)
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


def resource_of(path: Path) -> str | None:
    """Return the resource type of a file by its first lines, or None for an empty file."""
    with opened(path) as stream:
        head = stream.read(1 << 20)
    match = _TYPE.search(head)
    if match:
        return match[1].decode()
    return None if not head.strip() else re.split(r"[._-]", path.name)[0]


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


def load_file(root: Path, work: Work) -> Done:
    """Encode one file into parts under the lake's folder; they belong to no snapshot yet.

    Memory is bounded by a few blocks and one row group. A wider schema starts a new part.
    """
    done = Done(work, shape=work.shape, size_bytes=work.path.stat().st_size)
    source = Source(
        resource=work.resource,
        file=work.file,
        load=work.load,
        version=work.version,
        transaction_time=work.transaction_time,
        fast=work.fast,
        require_id=work.require_id,
    )
    writer: PartWriter | None = None
    try:
        with opened(work.path) as stream:
            for block in blocks(stream, size=work.block_size):
                encoded = encode(block, done.shape, source)
                done.shape = merge(done.shape, encoded.shape)
                done.rejects += encoded.rejects
                done.unmapped.update(encoded.unmapped)
                done.rows += encoded.batch.num_rows
                done.lines += encoded.lines
                done.slow_lines += encoded.slow_lines
                if not encoded.batch.num_rows:
                    continue
                if writer is None or not writer.schema.equals(encoded.batch.schema):
                    _close(writer, done)
                    writer = PartWriter(root, work.table, encoded.batch.schema, work.load)
                writer.write(encoded.batch)
        _close(writer, done)
    except BaseException:
        if writer is not None:
            writer.abandon()
        raise
    return done


def _close(writer: PartWriter | None, done: Done) -> None:
    part = writer.close() if writer is not None else None
    if part is not None:
        done.parts.append(part)


def load_files(root: Path, works: Sequence[Work], processes: int) -> Iterator[Done]:
    """Load files one after the other, or in parallel processes; results in the order of ``works``."""
    if processes <= 1 or len(works) <= 1:
        shapes: dict[str, Shape] = {}
        for work in works:
            done = load_file(root, _with_shape(work, shapes.get(work.table, {})))
            shapes[work.table] = done.shape
            yield done
        return
    # spawn: a forked child of a process with Arrow's or DuckDB's threads may hang.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(load_file, [root] * len(works), works)


def _with_shape(work: Work, shape: Shape) -> Work:
    return replace(work, shape=merge(work.shape, shape))


def stored_schema(resource: str, shape: Shape, version: str) -> pa.Schema:
    """Return the schema of a table's current shape."""
    return plan(resource, shape, version).stored_schema
