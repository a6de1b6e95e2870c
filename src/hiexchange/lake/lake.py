"""The lake: one folder of Parquet that is always a whole snapshot.

lake = Lake("lake")
report = lake.ingest("export/")          # NDJSON, gzipped or not
lake.table("Patient").to_arrow()
lake.sql("select count(*) from Encounter")
list(lake.to_ndjson("Patient"))          # the JSON that came in
"""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import duckdb
import pyarrow as pa

from hiexchange._files import read_json, sha256_text
from hiexchange.definitions import VERSIONS, Definitions
from hiexchange.errors import ConfigError, LakeError
from hiexchange.events import Reporter, RowsWritten, Warned, ignore
from hiexchange.lake import restore
from hiexchange.lake.ingest import Done, Work, check_resource, find_files, load_files, resource_of, stored_schema
from hiexchange.lake.merge import merge as merge_files
from hiexchange.lake.parts import write_part
from hiexchange.lake.read import LakeTable
from hiexchange.lake.schema import OURS
from hiexchange.lake.shape import merge as merge_shapes
from hiexchange.lake.store import DataFile, Load, Snapshot, Store, TableState
from hiexchange.tables import TABLES


@runtime_checkable
class ExportFolder(Protocol):
    """What a bulk export hands over: a folder, and the watermark to set with its rows."""

    folder: Path
    watermark: tuple[str, str] | None


Loadable: TypeAlias = "str | Path | Sequence[str | Path] | ExportFolder"


@dataclass(frozen=True)
class IngestReport:
    """What a load did."""

    load: str
    """Id of the load, as in column ``__hx_ingest``."""
    snapshot: int
    files: int
    rows: int
    """Resources read into rows, before newest-wins."""
    rejected: int
    """Lines in quarantine."""
    seconds: float
    size_bytes: int
    """Bytes of the files as they lie on disk."""
    tables: dict[str, int] = field(default_factory=dict)
    """{table: rows read}."""
    reasons: dict[str, int] = field(default_factory=dict)
    """{quarantine reason: lines}."""
    unmapped: dict[str, int] = field(default_factory=dict)
    """{type and JSON pointer: members kept as text}."""
    slow_lines: int = 0
    """Lines that took the exact path."""
    deleted: int = 0
    """Tombstones read."""
    watermark: tuple[str, str] | None = None
    skipped: bool = False
    """The same load is in the lake already; nothing was done."""


class Lake:
    """A folder of tables: FHIR types in Parquet on FHIR layout, and corridor tables.

    One process writes at a time; readers are never blocked and see one snapshot a call.
    """

    def __init__(self, path: str | Path, *, fhir_version: str = "4.0.1") -> None:
        """Open a lake, or name the folder of a new one; nothing is written yet.

        Args:
            path: The folder.
            fhir_version: Version of resources ingested without one. Tables of other versions are named
                with the release: ``Patient_STU3``.
        """
        self.path = Path(path)
        self.fhir_version = Definitions.load(fhir_version).version
        self._store = Store(self.path)

    def __repr__(self) -> str:
        return f"Lake({str(self.path)!r})"

    # Writing ------------------------------------------------------------------------------

    def ingest(
        self,
        source: Loadable,
        *,
        on_event: Reporter = ignore,
        max_bad_lines: int | None = None,
        processes: int = 1,
        transaction_time: datetime | None = None,
        watermark_key: str | None = None,
        fhir_version: str | None = None,
    ) -> IngestReport:
        """Load NDJSON into typed tables; rows, tombstones and watermark appear in one step.

        Bad lines go to quarantine (``table("_rejects")``) and never cost their neighbours; members
        without a column are kept as text. Loading the same job again does nothing; loading the same
        files again leaves the same rows.

        Args:
            source: A folder of NDJSON files (``.gz`` too), a list of files, or a finished export.
            on_event: Gets RowsWritten a file, and Warned.
            max_bad_lines: More bad lines than this raise LakeError after the rest has been stored.
            processes: Files are encoded in so many processes.
            transaction_time: The export's; a job folder's receipt gives it too.
            watermark_key: Set the watermark of this key to the transaction time.
            fhir_version: Of these files; default the lake's.

        Raises:
            LakeError: There are more bad lines than allowed.
            ConfigError: A file's resource type is unknown in that FHIR version.
            JobLocked: Another process writes to the lake.
            StorageError: The disk is full; the lake is as before.
        """
        started = time.perf_counter()
        job = _Job.of(source, transaction_time, watermark_key)
        version = Definitions.load(fhir_version).version if fhir_version else self.fhir_version
        with self._store.writing():
            snapshot = self._store.current()
            load = Load(uuid.uuid4().hex[:12], job.key, _now(), 0, 0)
            if job.key and any(job.key == done.key for done in snapshot.loads):
                return IngestReport("", snapshot.number, 0, 0, 0, 0.0, 0, watermark=job.watermark, skipped=True)
            works = self._works(job, snapshot, version, load.id)
            finished: list[Done] = []
            for done in load_files(self.path, works, processes):
                finished.append(done)
                on_event(RowsWritten(done.work.table, done.work.file, done.rows, len(done.rejects)))
                if done.lines and done.slow_lines > max(20, done.lines // 20):
                    on_event(Warned(f"{done.work.file}: {done.slow_lines:,} of {done.lines:,} lines were odd and slow"))
            snapshot = self._published(snapshot, finished, job, load)
            self._store.commit(snapshot)
        report = _report(finished, snapshot, load, job, time.perf_counter() - started)
        if max_bad_lines is not None and report.rejected > max_bad_lines:
            raise LakeError(
                f"{report.rejected:,} lines are in quarantine, more than the {max_bad_lines:,} allowed",
                where=str(self.path),
                said=", ".join(f"{reason} {count:,}" for reason, count in report.reasons.items()),
                hint='the other rows are stored; see Lake.table("_rejects")',
            )
        return report

    def _works(self, job: _Job, snapshot: Snapshot, version: str, load: str) -> list[Work]:
        works = []
        for path, name in job.files:
            resource = resource_of(path)
            if resource is None:
                continue
            check_resource(resource, version, name)
            table = table_name(resource, version, self.fhir_version)
            state = snapshot.tables.get(table)
            shape = state.shape if state else {}
            works.append(Work(path, name, resource, table, version, load, shape, job.transaction_time))
        return works

    def _published(self, snapshot: Snapshot, finished: list[Done], job: _Job, load: Load) -> Snapshot:
        """Return the next snapshot: new parts merged in, rejects kept, watermark moved."""
        tables = dict(snapshot.tables)
        for table in dict.fromkeys(done.work.table for done in finished):
            mine = [done for done in finished if done.work.table == table]
            state = tables.get(table)
            old = state.files if state else ()
            new = [part for done in mine for part in done.parts]
            shape = state.shape if state else {}
            for done in mine:
                shape = merge_shapes(shape, done.shape)
            files = merge_files(self.path, table, old, new)
            tables[table] = TableState("fhir", files, mine[0].work.resource, mine[0].work.version, shape)
        rejected = _rejects(finished, load.id)
        part = write_part(self.path, "_rejects", rejected, load.id) if rejected.num_rows else None
        rows = sum(done.rows for done in finished)
        watermarks = snapshot.watermarks
        if job.watermark:
            watermarks = {**watermarks, job.watermark[0]: job.watermark[1]}
        return replace(
            snapshot,
            number=snapshot.number + 1,
            written_at=_now(),
            tables=tables,
            rejects=(*snapshot.rejects, part) if part else snapshot.rejects,
            loads=(*snapshot.loads, replace(load, rows=rows, rejected=rejected.num_rows)),
            watermarks=watermarks,
        )

    def append(self, name: str, table: Any) -> int:
        """Add rows to a corridor table (``attribution``, ``encounter_event`` …), atomically.

        Args:
            name: A lower-case name; that of a table in ``hiexchange.tables`` must have its schema.
            table: A ``pyarrow.Table``, or anything with ``__arrow_c_stream__``.

        Returns:
            The number of the snapshot that holds the rows; the current one when there are none.

        Raises:
            ConfigError: The name can't be a table's.
            SchemaMismatch: The columns are not those of the table.
        """
        if not _CORRIDOR.fullmatch(name):
            raise ConfigError(f"{name!r} can't be the name of a table", hint="use lower case, digits and _")
        data = self._checked(name, table)
        with self._store.writing():
            snapshot = self._store.current()
            state = snapshot.tables.get(name) or TableState("corridor", ())
            if state.files:
                data = _same_columns(name, data, pq_schema(self.path / state.files[0].path))
            if not data.num_rows and state.files:
                return snapshot.number
            load = Load(uuid.uuid4().hex[:12], "", _now(), data.num_rows, 0)
            part = write_part(self.path, name, data, load.id)
            files = (*state.files, part) if part else state.files
            if not part:
                return snapshot.number
            snapshot = replace(
                snapshot.with_table(name, replace(state, files=files)),
                number=snapshot.number + 1,
                written_at=_now(),
                loads=(*snapshot.loads, load),
            )
            self._store.commit(snapshot)
            return snapshot.number

    def _checked(self, name: str, table: Any) -> pa.Table:
        from hiexchange.tables import check

        data = table if isinstance(table, pa.Table) else pa.table(table)
        return check(data, TABLES[name]) if name in TABLES else data

    # Reading ------------------------------------------------------------------------------

    def tables(self, snapshot: int | None = None) -> dict[str, int]:
        """Return {table: rows} of a snapshot (default the current one), names sorted."""
        pinned = self._pinned(snapshot)
        return {name: pinned.tables[name].rows for name in sorted(pinned.tables)}

    def watermark(self, key: str) -> str | None:
        """Return what a key was last set to: where the next export of it starts."""
        return self._store.current().watermarks.get(key)

    def table(
        self,
        name: str,
        *,
        columns: Sequence[str] | None = None,
        where: Any = None,
        snapshot: int | None = None,
    ) -> LakeTable:
        """Return a lazy table: a FHIR type, a corridor table, or ``_rejects``.

        A corridor table that nothing was appended to is empty; a FHIR type that is not in the lake
        is an error, for its columns are not known.

        Raises:
            LakeError: The lake has no such table.
        """
        pinned = self._pinned(snapshot)
        schema, files = self._described(pinned, name)
        paths = [self.path / file.path for file in files]
        return LakeTable(name, paths, schema, sum(file.rows for file in files), columns=columns, where=where)

    def files(self, name: str, *, snapshot: int | None = None) -> list[Path]:
        """Return the Parquet files of a table; their schemas may be narrower than the table's."""
        _, files = self._described(self._pinned(snapshot), name)
        return [self.path / file.path for file in files]

    def to_ndjson(self, name: str, *, snapshot: int | None = None, order: str = "stored") -> Iterator[bytes]:
        """Yield the resources of a type as JSON lines, each ended by ``\\n``, equal to what came in.

        Args:
            name: A FHIR table.
            snapshot: Default the current one.
            order: ``stored``, or ``source`` for the order of files and lines they came from.
        """
        pinned = self._pinned(snapshot)
        state = pinned.tables.get(name)
        if state is None or state.kind != "fhir":
            raise self._unknown(name, pinned)
        if order not in ("stored", "source"):
            raise ConfigError(f"order {order!r} is not known", hint="use 'stored' or 'source'")
        table = self.table(name, snapshot=snapshot)
        if order == "source":
            sorted_rows = table.to_arrow().sort_by([("__hx_file", "ascending"), ("__hx_line", "ascending")])
            batches: Iterator[pa.RecordBatch] = iter(sorted_rows.combine_chunks().to_batches(max_chunksize=10_000))
        else:
            batches = table.to_batches()
        for batch in batches:
            for line in restore.lines(batch, state.resource, state.version):
                yield line + b"\n"

    def sql(self, query: str, params: Any = None) -> pa.Table:
        """Run a DuckDB query over the current snapshot; every table has its name.

        Args:
            query: One SELECT; FHIR types by name (``from Encounter``).
            params: Values for ``?`` or ``$name``.
        """
        pinned = self._pinned(None)
        con = duckdb.connect()
        con.execute("set timezone = 'UTC'")
        words = {word.lower() for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", query)}
        for name in [*pinned.tables, "_rejects", *(name for name in TABLES if name not in pinned.tables)]:
            if name.lower() in words:
                self._create_view(con, name, pinned)
        return con.sql(query, params=params).to_arrow_table()

    def _create_view(self, con: duckdb.DuckDBPyConnection, name: str, pinned: Snapshot) -> None:
        schema, files = self._described(pinned, name)
        if files:
            listed = ", ".join("'" + str(self.path / file.path).replace("'", "''") + "'" for file in files)
            con.execute(f'create view "{name}" as from read_parquet([{listed}], union_by_name = true)')
        else:
            con.register(name, schema.empty_table())

    def snapshots(self) -> list[int]:
        """Return the numbers of the snapshots kept, oldest first."""
        return self._store.snapshots()

    def _pinned(self, number: int | None) -> Snapshot:
        return self._store.current() if number is None else self._store.snapshot(number)

    def _described(self, pinned: Snapshot, name: str) -> tuple[pa.Schema, tuple[DataFile, ...]]:
        if name == "_rejects":
            return REJECTS, pinned.rejects
        state = pinned.tables.get(name)
        if state is not None and state.kind == "fhir":
            return stored_schema(state.resource, state.shape, state.version), state.files
        if name in TABLES:
            return TABLES[name].schema, state.files if state else ()
        if state is not None:
            return pq_schema(self.path / state.files[0].path), state.files
        raise self._unknown(name, pinned)

    def _unknown(self, name: str, pinned: Snapshot) -> LakeError:
        names = ", ".join(sorted(pinned.tables)) or "nothing yet"
        return LakeError(f"the lake has no table {name!r}", where=str(self.path), hint=f"it holds {names}")


REJECTS = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("line", pa.int64()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("reason", pa.string()),
        pa.field("raw", pa.binary()),
        pa.field("table", pa.string()),
        pa.field("load", pa.string()),
    ]
)
"""Columns of the quarantine, table ``_rejects``."""

_CORRIDOR = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class _Job:
    """The files of one load, and what is to be published with them."""

    files: list[tuple[Path, str]]
    key: str
    transaction_time: datetime | None
    watermark: tuple[str, str] | None

    @staticmethod
    def of(source: Loadable, transaction_time: datetime | None, watermark_key: str | None) -> _Job:
        """Look at what the caller gave."""
        watermark = None
        if isinstance(source, str | Path):
            folder: Path | None = Path(source)
        elif isinstance(source, ExportFolder):
            folder, watermark = Path(source.folder), source.watermark
        else:
            folder = None
        if folder is None:
            assert not isinstance(source, str | Path | ExportFolder)
            files = [(Path(path), Path(path).name) for path in source]
        elif folder.is_file():
            files = [(folder, folder.name)]
        elif folder.is_dir():
            files = find_files(folder)
        else:
            raise ConfigError("there is no such folder or file to ingest", where=str(folder))
        missing = [str(path) for path, _ in files if not path.is_file()]
        if missing:
            raise ConfigError("there is no such file to ingest", where=missing[0])
        receipt = _receipt(folder)
        at = transaction_time or _instant(receipt.get("transactionTime"))
        if watermark is None and watermark_key and at is not None:
            watermark = (watermark_key, at.isoformat().replace("+00:00", "Z"))
        key = sha256_text(folder.name if folder else "", str(receipt)) if receipt else ""
        return _Job(files, key, at, watermark)


def _receipt(folder: Path | None) -> dict[str, Any]:
    path = folder / "receipt.json" if folder else None
    if path is None or not path.is_file():
        return {}
    found = read_json(path)
    return found if isinstance(found, dict) else {}


def _instant(text: Any) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def table_name(resource: str, version: str, main: str) -> str:
    """Return the name of a type's table: the type, with the release when it is not the lake's own."""
    return resource if version == main else f"{resource}_{VERSIONS[version]}"


def pq_schema(path: Path) -> pa.Schema:
    """Return the Arrow schema of a Parquet file."""
    import pyarrow.parquet as pq

    return pq.read_schema(path)


def _same_columns(name: str, data: pa.Table, schema: pa.Schema) -> pa.Table:
    if set(data.column_names) != set(schema.names):
        raise LakeError(f"table {name} has the columns {', '.join(schema.names)}; the rows to append have others")
    return data.select(schema.names).cast(schema)


def _rejects(finished: list[Done], load: str) -> pa.Table:
    rows = [
        {
            "file": done.work.file,
            "line": reject.line,
            "offset": reject.offset,
            "length": reject.length,
            "reason": reject.reason,
            "raw": reject.raw,
            "table": done.work.table,
            "load": load,
        }
        for done in finished
        for reject in done.rejects
    ]
    return pa.Table.from_pylist(rows, schema=REJECTS)


def _report(finished: list[Done], snapshot: Snapshot, load: Load, job: _Job, seconds: float) -> IngestReport:
    tables: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    unmapped: Counter[str] = Counter()
    for done in finished:
        tables[done.work.table] += done.rows
        reasons.update(reject.reason for reject in done.rejects)
        unmapped.update({done.work.table + pointer: count for pointer, count in done.unmapped.items()})
    return IngestReport(
        load=load.id,
        snapshot=snapshot.number,
        files=len(finished),
        rows=sum(tables.values()),
        rejected=sum(reasons.values()),
        seconds=seconds,
        size_bytes=sum(done.size_bytes for done in finished),
        tables=dict(tables),
        reasons=dict(reasons),
        unmapped=dict(unmapped.most_common()),
        slow_lines=sum(done.slow_lines for done in finished),
        watermark=job.watermark,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


__all__ = ["OURS", "REJECTS", "ExportFolder", "IngestReport", "Lake", "table_name"]
