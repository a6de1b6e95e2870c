"""The lake: one folder of Parquet that is always a whole snapshot.

lake = Lake("lake")
report = lake.ingest("export/")          # NDJSON, gzipped or not
lake.table("Patient").to_arrow()
lake.sql("select count(*) from Encounter")
list(lake.to_ndjson("Patient"))          # the JSON that came in
"""

from __future__ import annotations

import itertools
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hiexchange._duck import quiet_connection
from hiexchange.definitions import VERSIONS, Definitions
from hiexchange.errors import ConfigError, LakeError
from hiexchange.events import Reporter, RowsWritten, Warned, ignore
from hiexchange.lake import maintain, restore
from hiexchange.lake.ingest import Done, Work, check_resource, load_files, resource_of, stored_schema
from hiexchange.lake.job import TOMBSTONES, Job, Loadable
from hiexchange.lake.merge import merge as merge_files
from hiexchange.lake.parts import write_part
from hiexchange.lake.read import LakeTable
from hiexchange.lake.repairs import check_repairs
from hiexchange.lake.report import REJECTS, IngestReport, reject_rows, touched
from hiexchange.lake.report import report as summed
from hiexchange.lake.shape import merge as merge_shapes
from hiexchange.lake.store import DataFile, Load, Snapshot, Store, TableState
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
        repairs: Sequence[str] = (),
        validate: int = 0,
    ) -> IngestReport:
        """Load NDJSON into typed tables; rows, tombstones and watermark appear in one step.

        Bad lines go to quarantine (``table("_rejects")``) and never cost their neighbours; members
        without a column are kept as text. Loading the same job again does nothing; loading the same
        files again leaves the same rows.

        Args:
            source: A folder of NDJSON files (``.gz`` too), a list of files, a finished export, or an
                iterator of files: each is then encoded in another process while the next is awaited.
            on_event: Gets RowsWritten a file, and Warned.
            max_bad_lines: More bad lines than this raise LakeError after the rest has been stored.
            processes: Files are encoded in so many processes.
            transaction_time: The export's; a job folder's receipt gives it too.
            watermark_key: Set the watermark of this key to the transaction time.
            fhir_version: Of these files; default the lake's.
            repairs: Sets of vendor repairs (``bcda``) to apply to the resources, counted.
            validate: Check so many resources of each type with ``fhir.resources``; reported, never blocking.

        Raises:
            LakeError: There are more bad lines than allowed.
            ConfigError: A file's resource type is unknown in that FHIR version.
            JobLocked: Another process writes to the lake.
            StorageError: The disk is full; the lake is as before.
        """
        started = time.perf_counter()
        check_repairs(tuple(repairs))
        job = Job.of(source, transaction_time, watermark_key)
        version = Definitions.load(fhir_version).version if fhir_version else self.fhir_version
        model = Work(Path(), "", "", "", version, "", transaction_time=job.transaction_time, repairs=tuple(repairs))
        with self._store.writing():
            snapshot = self._store.current()
            load = Load(uuid.uuid4().hex[:12], job.key, _now(), 0, 0)
            if job.key and any(job.key == done.key for done in snapshot.loads):
                return IngestReport("", snapshot.number, 0, 0, 0, 0.0, 0, watermark=job.watermark, skipped=True)
            arriving = self._works(job, snapshot, replace(model, load=load.id))
            works = arriving if isinstance(job.files, Iterator) else list(arriving)
            finished: list[Done] = []
            try:
                for done in load_files(self.path, works, processes):
                    finished.append(done)
                    _tell(done, on_event)
                snapshot = self._published(snapshot, finished, job, load)
                self._store.commit(snapshot)
            except BaseException:
                for part in (part for done in finished for part in done.parts):
                    (self.path / part.path).unlink(missing_ok=True)
                raise
        validation = {name: self._validated(name, snapshot, validate) for name in touched(finished)} if validate else {}
        report = summed(finished, snapshot, load, job, time.perf_counter() - started)
        report = replace(report, validation=validation)
        if max_bad_lines is not None and report.rejected > max_bad_lines:
            raise LakeError(
                f"{report.rejected:,} lines are in quarantine, more than the {max_bad_lines:,} allowed",
                where=str(self.path),
                said=", ".join(f"{reason} {count:,}" for reason, count in report.reasons.items()),
                hint='the other rows are stored; see Lake.table("_rejects")',
            )
        return report

    def _validated(self, name: str, snapshot: Snapshot, sample: int) -> Validation:
        """Check resources spread over the rows of a table."""
        state = snapshot.tables[name]
        step = max(1, state.rows // sample)
        lines = self.to_ndjson(name, snapshot=snapshot.number)
        return validate_lines(itertools.islice(lines, 0, step * sample, step), state.resource, state.version)

    def _works(self, job: Job, snapshot: Snapshot, model: Work) -> Iterator[Work]:
        """Yield what is to be done for each file, made from ``model``."""
        for path, name in job.files:
            resource = resource_of(path)
            if resource is None:
                continue
            check_resource(resource, model.version, name)
            table = table_name(resource, model.version, self.fhir_version)
            state = snapshot.tables.get(table)
            yield replace(
                model, path=path, file=name, resource=resource, table=table, shape=state.shape if state else {}
            )

    def _published(self, snapshot: Snapshot, finished: list[Done], job: Job, load: Load) -> Snapshot:
        """Return the next snapshot: new parts merged in, deletions applied, rejects kept, watermark moved."""
        fresh = job.tombstones(load.id)
        known = self._buried(snapshot, fresh)
        tables = dict(snapshot.tables)
        names = touched(finished)
        deleted_types = set(fresh["type"].to_pylist())
        names |= dict.fromkeys(name for name, state in tables.items() if state.resource in deleted_types)
        for table in names:
            mine = [done for done in finished if done.work.table == table]
            state = tables.get(table) or TableState("fhir", (), mine[0].work.resource, mine[0].work.version)
            new = [part for done in mine for part in done.parts]
            shape = state.shape
            for done in mine:
                shape = merge_shapes(shape, done.shape)
            graves = known.filter(pc.equal(known["type"], state.resource))
            files = merge_files(self.path, table, state.files, new, graves)
            schema = stored_schema(state.resource, shape, state.version)
            files = maintain.tidied(self.path, table, files, schema, load.id)
            tables[table] = replace(state, files=files, shape=shape)
        rejected = reject_rows(finished, load.id)
        rows = sum(done.rows for done in finished)
        return snapshot.next(
            tables=tables,
            rejects=(*snapshot.rejects, *self._part("_rejects", rejected, load.id)),
            tombstones=(*snapshot.tombstones, *self._part("_tombstones", fresh, load.id)),
            loads=(*snapshot.loads, replace(load, rows=rows, rejected=rejected.num_rows, deleted=fresh.num_rows)),
            watermarks={**snapshot.watermarks, **dict([job.watermark] if job.watermark else [])},
        )

    def _part(self, name: str, data: pa.Table, load: str) -> tuple[DataFile, ...]:
        part = write_part(self.path, name, data, load) if data.num_rows else None
        return (part,) if part else ()

    def _buried(self, snapshot: Snapshot, fresh: pa.Table) -> pa.Table:
        """Return all tombstones, those of this load marked."""
        parts = [pq.read_table(self.path / file.path).cast(TOMBSTONES) for file in snapshot.tombstones]
        flags = [pa.repeat(False, part.num_rows) for part in parts] + [pa.repeat(True, fresh.num_rows)]
        return pa.concat_tables(
            [part.append_column("fresh", flag) for part, flag in zip([*parts, fresh], flags, strict=True)]
        )

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
            ConfigError: A name can't be a table's.
            SchemaMismatch: The columns are not those of the table.
            LakeError: A table is there already with other columns.
        """
        given = {name: _corridor_rows(name, table) for name, table in tables.items()}
        with self._store.writing():
            snapshot = self._store.current()
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
            snapshot = snapshot.next(tables=states, loads=(*snapshot.loads, load))
            self._store.commit(snapshot)
            return snapshot.number

    def compact(self, *names: str, rows_a_file: int = maintain.ROWS_A_FILE) -> int:
        """Rewrite FHIR tables (default all) to one schema, sorted by patient and key.

        Returns:
            The number of the new snapshot; the current one when every table is compact already.
        """
        with self._store.writing():
            snapshot = self._store.current()
            tables = dict(snapshot.tables)
            load = uuid.uuid4().hex[:12]
            for name in names or [name for name, state in tables.items() if state.kind == "fhir"]:
                state = tables.get(name)
                if state is None or state.kind != "fhir":
                    raise self._unknown(name, snapshot)
                if all(file.sorted for file in state.files) and len(state.files) <= 1 + state.rows // rows_a_file:
                    continue
                schema = stored_schema(state.resource, state.shape, state.version)
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
        pinned = self._pinned(snapshot)
        schema, files = self._described(pinned, name)
        paths = [self.path / file.path for file in files]
        if since is not None:
            newer = pc.field("__hx_updated") >= pa.scalar(since, pa.timestamp("us", tz="UTC"))
            where = newer if where is None else where & newer
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
        con = quiet_connection()
        con.execute("set timezone = 'UTC'")
        words = {word.lower() for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", query)}
        for name in [*pinned.tables, *_HOUSE, *(name for name in TABLES if name not in pinned.tables)]:
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
        if name in _HOUSE:
            return _HOUSE[name], pinned.rejects if name == "_rejects" else pinned.tombstones
        state = pinned.tables.get(name)
        if state is not None and state.kind == "fhir":
            return stored_schema(state.resource, state.shape, state.version), state.files
        if name in TABLES:
            return TABLES[name].schema, state.files if state else ()
        if state is not None:
            return pq.read_schema(self.path / state.files[0].path), state.files
        raise self._unknown(name, pinned)

    def _unknown(self, name: str, pinned: Snapshot) -> LakeError:
        names = ", ".join(sorted(pinned.tables)) or "nothing yet"
        return LakeError(f"the lake has no table {name!r}", where=str(self.path), hint=f"it holds {names}")


_HOUSE = {"_rejects": REJECTS, "_tombstones": TOMBSTONES}
_CORRIDOR = re.compile(r"[a-z][a-z0-9_]{0,62}")


def table_name(resource: str, version: str, main: str) -> str:
    """Return the name of a type's table: the type, with the release when it is not the lake's own."""
    return resource if version == main else f"{resource}_{VERSIONS[version]}"


def _corridor_rows(name: str, table: Any) -> pa.Table:
    if not _CORRIDOR.fullmatch(name):
        raise ConfigError(f"{name!r} can't be the name of a table", hint="use lower case, digits and _")
    data = table if isinstance(table, pa.Table) else pa.table(table)
    return check(data, TABLES[name]) if name in TABLES else data


def _same_columns(name: str, data: pa.Table, schema: pa.Schema) -> pa.Table:
    if set(data.column_names) != set(schema.names):
        raise LakeError(f"table {name} has the columns {', '.join(schema.names)}; the rows to append have others")
    return data.select(schema.names).cast(schema)


def _tell(done: Done, on_event: Reporter) -> None:
    on_event(RowsWritten(done.work.table, done.work.file, done.rows, len(done.rejects)))
    if done.lines and done.slow_lines > max(20, done.lines // 20):
        on_event(Warned(f"{done.work.file}: {done.slow_lines:,} of {done.lines:,} lines were odd and slow"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
