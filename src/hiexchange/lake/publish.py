"""From what a load wrote to the next snapshot: rows merged, deletions applied, rejects kept, watermark moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hiexchange.definitions import VERSIONS
from hiexchange.lake import maintain
from hiexchange.lake.ingest import Done, Work, check_resource, resource_of
from hiexchange.lake.job import TOMBSTONES, Job
from hiexchange.lake.lineage import check_extras, stored_schema
from hiexchange.lake.merge import merge as merge_files
from hiexchange.lake.parts import write_part
from hiexchange.lake.quarantine import REJECTS
from hiexchange.lake.report import touched
from hiexchange.lake.shape import merge as merge_shapes
from hiexchange.lake.store import DataFile, Load, Snapshot, TableState


def table_name(resource: str, version: str, main: str) -> str:
    """Return the name of a type's table: the type, with the release when it is not the lake's own."""
    return resource if version == main else f"{resource}_{VERSIONS[version]}"


def main_version(snapshot: Snapshot, wanted: str) -> str:
    """Return the FHIR version whose tables have plain names: that of the tables there are, else the one wanted.

    Empty when the tables of the version wanted have its release in their names already.
    """
    found = {name == state.resource: state.version for name, state in snapshot.tables.items() if state.kind == "fhir"}
    taken = any(state.version == wanted for name, state in snapshot.tables.items() if name != state.resource)
    return found.get(True) or ("" if taken else wanted)


def works(job: Job, snapshot: Snapshot, model: Work, wanted: str) -> Iterator[Work]:
    """Yield what is to be done for each file, made from ``model``; ``wanted`` is the FHIR version of a new lake.

    Raises:
        ConfigError: A file's resource type is unknown in its FHIR version.
    """
    main = main_version(snapshot, wanted)
    for path, name in job.files:
        resource = resource_of(path, model.version)
        if resource is None:
            continue
        check_resource(resource, model.version, name)
        table = table_name(resource, model.version, main)
        state = snapshot.tables.get(table)
        yield replace(model, path=path, file=name, resource=resource, table=table, shape=state.shape if state else {})


def published(root: Path, snapshot: Snapshot, finished: list[Done], job: Job, load: Load) -> Snapshot:
    """Return the snapshot that follows ``snapshot``; its files are written, it is not committed yet."""
    fresh = job.tombstones(load.id)
    known = _buried(root, snapshot, fresh)
    tables = dict(snapshot.tables)
    names = touched(finished)
    deleted_types = set(fresh["type"].to_pylist())
    names |= dict.fromkeys(name for name, state in tables.items() if state.resource in deleted_types)
    for table in names:
        mine = [done for done in finished if done.work.table == table]
        state = tables.get(table) or TableState("fhir", (), mine[0].work.resource, mine[0].work.version)
        graves = known.filter(pc.equal(known["type"], state.resource))
        tables[table] = _merged(root, table, state, mine, graves, load.id)
    refused = [part for done in finished for part in done.quarantined]
    counted = replace(
        load,
        rows=sum(done.rows for done in finished),
        rejected=sum(part.rows for part in refused),
        deleted=fresh.num_rows,
    )
    return snapshot.next(
        counted,
        tables=tables,
        rejects=maintain.tidied(root, "_rejects", (*snapshot.rejects, *refused), REJECTS, load.id),
        tombstones=_with_tombstones(root, snapshot.tombstones, fresh, load.id),
        watermarks={**snapshot.watermarks, **dict([job.watermark] if job.watermark else [])},
    )


def _merged(root: Path, table: str, state: TableState, mine: list[Done], graves: pa.Table, load: str) -> TableState:
    """Return the state of a table after an upsert and deletions."""
    new = [part for done in mine for part in done.parts]
    shape, extras = state.shape, set(state.extras)
    for done in mine:
        shape = merge_shapes(shape, done.shape)
        extras.update(done.work.extras)
    files = merge_files(root, table, state.files, new, graves)
    wider = replace(state, shape=shape, extras=check_extras(extras))
    return replace(wider, files=maintain.tidied(root, table, files, stored_schema(wider), load))


def _with_tombstones(root: Path, files: tuple[DataFile, ...], fresh: pa.Table, load: str) -> tuple[DataFile, ...]:
    """Return the files of the tombstones with those of this load."""
    part = write_part(root, "_tombstones", fresh, load) if fresh.num_rows else None
    return maintain.tidied(root, "_tombstones", (*files, part), fresh.schema, load) if part else files


def _buried(root: Path, snapshot: Snapshot, fresh: pa.Table) -> pa.Table:
    """Return all tombstones, those of this load marked."""
    parts = [pq.read_table(root / file.path).cast(TOMBSTONES) for file in snapshot.tombstones]
    flags = [pa.repeat(False, part.num_rows) for part in parts] + [pa.repeat(True, fresh.num_rows)]
    return pa.concat_tables(
        [part.append_column("fresh", flag) for part, flag in zip([*parts, fresh], flags, strict=True)]
    )
