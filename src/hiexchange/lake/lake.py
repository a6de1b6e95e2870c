"""The lake: one folder of Parquet that is always a whole snapshot.

lake = Lake("lake")
report = lake.ingest("export/")          # NDJSON, gzipped or not
lake.table("Patient").to_arrow()
lake.sql("select count(*) from Encounter")
list(lake.to_ndjson("Patient"))          # the JSON that came in
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hiexchange.definitions import Definitions
from hiexchange.errors import ConfigError, LakeError
from hiexchange.events import Reporter, RowsWritten, Warned, ignore
from hiexchange.lake import maintain, mirror
from hiexchange.lake.contained import contained
from hiexchange.lake.ingest import Done, Work, load_files
from hiexchange.lake.job import Job, Loadable
from hiexchange.lake.lineage import RAW, SHA256, stored_schema
from hiexchange.lake.memory import system_allocator
from hiexchange.lake.parts import write_part
from hiexchange.lake.pinned import Pinned
from hiexchange.lake.publish import published, works
from hiexchange.lake.read import LakeTable, readable
from hiexchange.lake.repairs import check_repairs
from hiexchange.lake.report import IngestReport, refuse_unmapped, report, touched
from hiexchange.lake.store import Load, Snapshot, Store, TableState
from hiexchange.lake.validate import Validation
from hiexchange.lake.validate import validate as validate_lines
from hiexchange.tables import TABLES, check


class Lake:
    """A folder of tables: FHIR types in Parquet on FHIR layout, and corridor tables.

    One process writes at a time; readers are never blocked and see one snapshot a call.
    """

    def __init__(self, path: str | Path, *, fhir_version: str = "4.0.1") -> None:
        """Open a lake, or name the folder of a new one; nothing is written yet.

        Args:
            path: The folder.
            fhir_version: Version of resources ingested without one. The first one's tables have plain names,
                those of other versions the release: ``Patient_STU3``.
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
        workers: int = 1,
        transaction_time: datetime | None = None,
        watermark_key: str | None = None,
        fhir_version: str | None = None,
        repairs: Sequence[str] = (),
        validate: int = 0,
        strict: bool = False,
        raw: bool = False,
        sha256: bool = False,
    ) -> IngestReport:
        """Load NDJSON into typed tables; rows, tombstones and watermark appear in one step.

        Bad lines go to quarantine (``table("_rejects")``) and never cost their neighbours; members
        without a column are kept as text. Loading the same job again does nothing; loading the same
        files again leaves the same rows.

        Args:
            source: A folder of NDJSON files (``.gz`` too), a list of files, a finished export, or an
                iterator of files: each is then encoded while the next is awaited.
            on_event: Gets RowsWritten a file, and Warned.
            max_bad_lines: More bad lines than this raise LakeError after the rest has been stored.
            workers: So many files, or pieces of a large plain one, are encoded at once, in threads.
            transaction_time: The export's, in UTC unless it has an offset; a job folder's receipt gives it too.
            watermark_key: Set the watermark of this key to the transaction time.
            fhir_version: Of these files; default the lake's.
            repairs: Sets of vendor repairs (``bcda``) to apply to the resources, counted.
            validate: Check so many resources of each type with ``fhir.resources``; reported, never blocking.
            strict: Store nothing when a member has no column: unknown, ill-typed, null or empty.
            raw: Keep each line as it came in ``__hx_raw``, for byte-identical return; doubles the size.
            sha256: Add ``__hx_sha256``, a hash of each resource's JSON whatever its member order: what changed
                between two loads is found by it.

        Raises:
            LakeError: There are more bad lines than allowed, or members without a column and ``strict``.
            ConfigError: A file's resource type is unknown in that FHIR version.
            JobLocked: Another process writes to the lake.
            StorageError: The disk is full; the lake is as before.
        """
        started = time.perf_counter()
        check_repairs(tuple(repairs))
        job = Job.of(source, transaction_time, watermark_key)
        version = Definitions.load(fhir_version).version if fhir_version else self.fhir_version
        extras = (*((RAW,) if raw else ()), *((SHA256,) if sha256 else ()))
        load = Load(uuid.uuid4().hex[:12], job.key, _now(), 0, 0)
        model = Work(Path(), "", "", "", version, load.id, extras=extras, transaction_time=job.transaction_time,
                     repairs=tuple(repairs))  # fmt: skip
        with self._writing() as snapshot, system_allocator():
            if job.key and any(job.key == done.key for done in snapshot.loads):
                return IngestReport("", snapshot.number, 0, 0, 0, 0.0, 0, watermark=job.watermark, skipped=True)
            finished = self._encoded(job, works(job, snapshot, model, self.fhir_version), workers, on_event)
            if strict:
                refuse_unmapped(finished, self.path)
            with readable(self.path / file.path for file in snapshot.files()):
                snapshot = published(self.path, snapshot, finished, job, load)
            self._store.commit(snapshot)
        validation = {name: self._validated(name, snapshot, validate) for name in touched(finished)} if validate else {}
        done_report = report(finished, snapshot, load, job, time.perf_counter() - started)
        done_report.check(max_bad_lines, self.path)
        return replace(done_report, validation=validation)

    def _encoded(self, job: Job, arriving: Iterator[Work], workers: int, on_event: Reporter) -> list[Done]:
        """Write the parts of every file."""
        finished = []
        awaited = arriving if isinstance(job.files, Iterator) else list(arriving)
        with contextlib.closing(load_files(self.path, awaited, workers)) as loading:
            for done in loading:
                finished.append(done)
                _tell(done, on_event)
        return finished

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Snapshot]:
        """Be the lake's only writer, from the current snapshot on; what is written and not committed is removed."""
        started = time.time()
        with self._store.writing():
            snapshot = self._store.current()
            try:
                yield snapshot
            except BaseException:
                maintain.sweep(self._store, started)
                raise

    def _validated(self, name: str, snapshot: Snapshot, sample: int) -> Validation:
        state = snapshot.tables[name]
        return validate_lines(Pinned(self.path, snapshot).spread(name, sample), state.resource, state.version)

    def append(self, name: str, table: Any) -> int:
        """Add rows to one corridor table; see :meth:`append_all`."""
        return self.append_all({name: table})

    def append_all(self, tables: Mapping[str, Any]) -> int:
        """Add rows to corridor tables (``attribution``, ``encounter_event`` …), all in one snapshot or none.

        Args:
            tables: Lower-case names, those of ``hiexchange.tables`` with their schema, and rows: a
                ``pyarrow.Table``, or anything with ``__arrow_c_stream__``.

        Returns:
            The number of the snapshot that holds the rows; the current one when there are none.

        Raises:
            ConfigError: A name can't be a table's, or two columns have the same.
            SchemaMismatch: The columns are not those of the table.
            LakeError: A table is there already with other columns.
        """
        given = {name: _corridor_rows(name, table) for name, table in tables.items()}
        with self._writing() as snapshot:
            load = Load(uuid.uuid4().hex[:12], "", _now(), sum(data.num_rows for data in given.values()), 0)
            states = dict(snapshot.tables)
            for name, data in given.items():
                state = states.get(name) or TableState("corridor", ())
                if state.files:
                    data = _same_columns(name, data, pq.read_schema(self.path / state.files[0].path))
                part = write_part(self.path, name, data, load.id)
                if part is not None:
                    files = maintain.tidied(self.path, name, (*state.files, part), data.schema, load.id)
                    states[name] = replace(state, files=files)
            if states == snapshot.tables:
                return snapshot.number
            snapshot = snapshot.next(load, tables=states)
            self._store.commit(snapshot)
            return snapshot.number

    def compact(self, *names: str, rows_a_file: int = maintain.ROWS_A_FILE) -> int:
        """Rewrite FHIR tables (default all) to one schema, sorted by patient and key.

        Returns:
            The number of the new snapshot; the current one when every table is compact already.
        """
        with self._writing() as snapshot:
            tables = dict(snapshot.tables)
            load = uuid.uuid4().hex[:12]
            for name in names or [name for name, state in tables.items() if state.kind == "fhir"]:
                state = Pinned(self.path, snapshot).fhir(name)
                if maintain.is_compact(state.files):
                    continue
                schema = stored_schema(state)
                with readable(self.path / file.path for file in state.files):
                    files = maintain.compacted(self.path, name, state.files, schema, load, rows=rows_a_file)
                tables[name] = replace(state, files=files)
            if tables == snapshot.tables:
                return snapshot.number
            snapshot = snapshot.next(tables=tables)
            self._store.commit(snapshot)
            return snapshot.number

    def vacuum(
        self,
        *,
        keep_snapshots: int = maintain.KEEP_SNAPSHOTS,
        keep_days: float = maintain.KEEP_DAYS,
        dry_run: bool = True,
    ) -> maintain.Vacuumed:
        """Remove snapshots beyond the last ten and older than seven days, and the files only they need.

        A dry run, the default, removes nothing and says what would go. Files that a crashed writer left go too.
        """
        with self._store.writing():
            return maintain.vacuum(self._store, keep_snapshots=keep_snapshots, keep_days=keep_days, dry_run=dry_run)

    def copy_to(
        self, url: str, *, options: Mapping[str, str] | None = None, snapshot: int | None = None
    ) -> mirror.Copied:
        """Copy a snapshot (default the current one) to an object store; only files that are not there are sent.

        The copy is a lake of one snapshot. Its manifest is replaced last, so whoever reads it never sees half.

        Args:
            url: ``s3://bucket/prefix``, ``gs://``, ``az://`` or ``file:///folder``.
            options: Settings of obstore's store (``region``, ``endpoint``, ``access_key_id`` …); without them it
                looks where the cloud's own tools do.
            snapshot: Number of a snapshot.

        Raises:
            MissingExtra: obstore is not installed.
            ConfigError: The address can't be used.
            LakeError: The copy holds a later snapshot, or something else.
            StorageError: The store refused a file or can't be reached; what arrived is not sent again.
        """
        return mirror.copy(self._store, self._pinned(snapshot).snapshot, url, options or {})

    # Reading ------------------------------------------------------------------------------

    def tables(self, snapshot: int | None = None) -> dict[str, int]:
        """Return {table: rows} of a snapshot (default the current one), names sorted."""
        tables = self._pinned(snapshot).snapshot.tables
        return {name: tables[name].rows for name in sorted(tables)}

    def watermark(self, key: str) -> str | None:
        """Return what a key was last set to: where the next export of it starts."""
        return self._store.current().watermarks.get(key)

    def table(
        self,
        name: str,
        *,
        columns: Sequence[str] | None = None,
        where: Any = None,
        since: datetime | None = None,
        snapshot: int | None = None,
    ) -> LakeTable:
        """Return a lazy table: a FHIR type, a corridor table, ``_rejects`` or ``_tombstones``.

        Args:
            name: Of the table.
            columns: Names or dotted paths (``period.start``); default all.
            where: A ``pyarrow.compute`` expression over the stored columns.
            since: Only resources with ``meta.lastUpdated`` at or after this instant.
            snapshot: Number of a snapshot; default the current one.

        A corridor table that nothing was appended to is empty; a FHIR type that is not in the lake
        is an error, for its columns are not known.

        Raises:
            LakeError: The lake has no such table.
        """
        if since is not None:
            newer = pc.field("__hx_updated") >= pa.scalar(since, pa.timestamp("us", tz="UTC"))
            where = newer if where is None else where & newer
        return self._pinned(snapshot).table(name).select(columns, where)

    def files(self, name: str, *, snapshot: int | None = None) -> list[Path]:
        """Return the Parquet files of a table; their schemas may be narrower than the table's."""
        _, files = self._pinned(snapshot).described(name)
        return [self.path / file.path for file in files]

    def to_ndjson(
        self, name: str, *, snapshot: int | None = None, order: str = "stored", raw: bool = False
    ) -> Iterator[bytes]:
        """Yield the resources of a type as JSON lines, each ended by ``\\n``, equal to what came in.

        Args:
            name: A FHIR table.
            snapshot: Default the current one.
            order: ``stored``, or ``source`` for the order of files and lines they came from.
            raw: Give the very bytes that came, where they were ingested with ``raw=True``.
        """
        return self._pinned(snapshot).lines(name, order, raw=raw)

    def contained(self, name: str, resource: str, *, where: Any = None, snapshot: int | None = None) -> pa.Table:
        """Return the resources of one type that are contained in those of a table, in the layout of their own type.

        ``__hx_key`` is ``parent#id``; ``__hx_patient`` and lineage are the parent's. Views run over the result
        as over a table of the lake.

        Args:
            name: Table of the parents (``ExplanationOfBenefit``).
            resource: Type of the contained resources (``Practitioner``).
            where: A ``pyarrow.compute`` expression that chooses parents.
            snapshot: Number of a snapshot; default the current one.

        Raises:
            LakeError: The lake has no such table, or a contained resource can't be read.
            ConfigError: The type is unknown in the table's FHIR version.
        """
        return contained(self._pinned(snapshot), name, resource, where)

    def sql(self, query: str, params: Any = None, *, snapshot: int | None = None) -> pa.Table:
        """Run a DuckDB query over a snapshot (default the current one); every table has its name.

        Args:
            query: One SELECT; FHIR types by name (``from Encounter``).
            params: Values for ``?`` or ``$name``.
            snapshot: Number of a snapshot.

        Raises:
            LakeError: The query can't be answered, or a file is gone or damaged.
        """
        return self._pinned(snapshot).sql(query, params)

    def snapshots(self) -> list[int]:
        """Return the numbers of the snapshots kept, oldest first."""
        return self._store.snapshots()

    def _pinned(self, number: int | None) -> Pinned:
        return Pinned(self.path, self._store.current() if number is None else self._store.snapshot(number))


_CORRIDOR = re.compile(r"[a-z][a-z0-9_]{0,62}")


def _corridor_rows(name: str, table: Any) -> pa.Table:
    if not _CORRIDOR.fullmatch(name):
        raise ConfigError(f"{name!r} can't be the name of a table", hint="use lower case, digits and _")
    data = table if isinstance(table, pa.Table) else pa.table(table)
    if len(set(data.column_names)) < data.num_columns:
        raise ConfigError(f"two columns of table {name} have the same name")
    return check(data, TABLES[name]) if name in TABLES else data


def _same_columns(name: str, data: pa.Table, schema: pa.Schema) -> pa.Table:
    if set(data.column_names) != set(schema.names):
        raise LakeError(f"table {name} has the columns {', '.join(schema.names)}; the rows to append have others")
    return data.select(schema.names).cast(schema)


def _tell(done: Done, on_event: Reporter) -> None:
    on_event(RowsWritten(done.work.table, done.work.file, done.rows, done.reasons.total()))
    if done.lines and done.slow_lines > max(20, done.lines // 20):
        on_event(Warned(f"{done.work.file}: {done.slow_lines:,} of {done.lines:,} lines were odd and slow"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
