"""Batches of subjects as tables of resources, out of a lake or of JSON resources.

JSON goes through the lake's own decoder, so that both sources give the same columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.lake.cut import Block
from hiexchange.lake.decode import Source, encode
from hiexchange.measures import lakes, sources
from hiexchange.measures.columnar.cells import Ints, Mask
from hiexchange.measures.columnar.nodes import Table
from hiexchange.measures.cql.model import Model
from hiexchange.measures.lakes import OWNER, PLACE, SHARED, SORTED, Shared

BATCH = 2_000
"""Subjects evaluated together: memory holds one batch, whatever the size of the population."""
CHUNK = 50_000
"""Rows of a lake sorted at a time."""
PIECE = 500
"""Rows of each sorted file in memory at a time."""
_MEDICATION = r"(?:^|/)Medication/(?P<key>[^/]+)$"
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class Batch:
    """Some subjects, and the tables of their resources by type."""

    def __init__(
        self,
        model: Model,
        names: list[str],
        tables: dict[str, Table],
        *,
        refused: Ints | None = None,
        elsewhere: frozenset[str] = frozenset(),
    ) -> None:
        """Keep the tables.

        ``refused`` are subjects with a resource that no table holds, ``elsewhere`` types that are not here though
        the source may have them.
        """
        self.model = model
        self.names = names
        self.tables = tables
        self.n = len(names)
        self.refused = np.zeros(0, np.int64) if refused is None else refused
        self.elsewhere = elsewhere
        self.attach: Callable[[list[sources.Raw]], list[sources.Raw]] = lambda rows: rows
        """Adds to a subject's resources what they refer to, outside the tables."""
        self.given: Sequence[sources.SubjectRows] | None = None
        """The subjects as they came, where they came as JSON."""

    def resources(self, subjects: Mask) -> Iterator[sources.SubjectRows]:
        """Yield some subjects with their resources as JSON, by type and then as they came."""
        for at in np.flatnonzero(subjects).tolist():
            if self.given is not None:
                yield self.given[at]
                continue
            rows: list[sources.Raw] = []
            for kind, table in self.tables.items():
                if kind in SHARED:
                    continue  # attached below, as in stage 1
                begin = int(table.starts[at])
                bodies = (table.body(row, subjects) for row in range(begin, begin + int(table.counts[at])))
                rows += [_ENCODER.encode(body) for body in bodies]
            yield self.names[at], self.attach(rows)


def from_json(model: Model, subjects: Sequence[sources.SubjectRows]) -> Batch:
    """Return subjects given as JSON resources as a batch."""
    lines: dict[str, list[bytes]] = {}
    owners: dict[str, list[int]] = {}
    for at, (_, resources) in enumerate(subjects):
        for raw in resources:
            body = sources.decode(raw) if isinstance(raw, bytes) else raw
            kind = body["resourceType"]
            lines.setdefault(kind, []).append(raw if isinstance(raw, bytes) else _ENCODER.encode(body))
            owners.setdefault(kind, []).append(at)
    tables: dict[str, Table] = {}
    refused: set[int] = set()
    for kind, texts in lines.items():
        if kind not in model.definitions.resources:
            continue
        encoded = encode(Block(b"\n".join(texts) + b"\n", 1, 0), {}, Source(kind, "", "", version=model.version))
        owner = np.array(owners[kind], np.int64)
        kept = np.asarray(encoded.batch.column("__hx_line").to_numpy(zero_copy_only=False), np.int64) - 1
        refused |= set(owner[[reject.line - 1 for reject in encoded.rejects]].tolist())
        data = pa.Table.from_batches([encoded.batch])
        # What has no column of its own may be what an expression reads.
        unmapped = data.column("__unmapped").is_valid().combine_chunks()
        refused |= set(owner[kept[np.asarray(unmapped)]].tolist())
        tables[kind] = Table(model, kind, data, owner[kept], len(subjects))
    batch = Batch(model, [name for name, _ in subjects], tables, refused=np.array(sorted(refused), np.int64))
    batch.given = subjects
    return batch


def batches(model: Model, source: Any, types: frozenset[str], elements: frozenset[str] | None) -> Iterator[Batch]:
    """Yield the patients of any source in batches; see :func:`..sources.subjects`."""
    if hasattr(source, "files") and hasattr(source, "tables"):
        yield from from_lake(model, source, types, elements)
        return
    people = sources.subjects(source, types, elements)
    while subjects := list(islice(people, BATCH)):
        yield from_json(model, subjects)


def from_lake(model: Model, lake: Any, types: frozenset[str], elements: frozenset[str] | None) -> Iterator[Batch]:
    """Yield a lake's patients in batches, in the order of their ids; each type is read once, whatever its order."""
    held = lake.tables()
    if "Patient" not in held:
        return
    with lakes.reading() as (con, folder):
        focus = lakes.focus_patients(con, lake)
        runs: dict[str, _Runs] = {}
        for kind in (kind for kind in sorted(types) if held.get(kind) and kind not in SHARED):
            rows = lakes.owned(con, lake.files(kind), elements, focus=focus, packed=False)
            query = f"{rows} where {OWNER} is not null"
            runs[kind] = _Runs(*lakes.sorted_runs(con, query, folder / kind, chunk=CHUNK, piece=PIECE))
        outside = {kind: lake.files(kind) for kind in SHARED if kind in types and held.get(kind)}
        shared = Shared(con, outside, elements)
        medications = _medications(con, outside.get("Medication"), elements)
        names = lakes.patient_ids(con, lake)
        for at in range(0, len(names), BATCH):
            block = names.slice(at, BATCH)
            found = {kind: run.upto(block[-1].as_py()) for kind, run in runs.items()}
            batch = _batch(model, block.to_pylist(), found)
            batch.attach = shared.with_references
            batch.elsewhere = frozenset(outside)
            # An AdverseEvent refers to medications in places that are not looked into here.
            if medications is not None and "AdverseEvent" not in batch.tables:
                batch.tables["Medication"] = _attached(batch, medications)
                batch.elsewhere -= {"Medication"}
            yield batch


def _batch(model: Model, names: list[str], found: dict[str, pa.Table]) -> Batch:
    index, tables = pa.array(names, pa.string()), {}
    for kind, data in found.items():
        owner = pc.index_in(data.column(OWNER), index).combine_chunks()
        if owner.null_count:
            data, owner = data.filter(owner.is_valid()), owner.drop_null()
        rows = np.asarray(owner.to_numpy(zero_copy_only=False), np.int64)
        tables[kind] = Table(model, kind, data.drop_columns([OWNER, PLACE]), rows, len(names))
    return Batch(model, names, tables)


def _medications(con: Any, files: Any, elements: frozenset[str] | None) -> pa.Table | None:
    """Medications stand outside a patient's rows and are found by reference: all of them, by key."""
    if not files:
        return None
    source, columns, _, _ = lakes.scan(con, files, elements)
    names = ", ".join(f'"{name}"' for name in columns)
    return con.sql(f"select __hx_key, {names} from {source}").to_arrow_table()


def _attached(batch: Batch, medications: pa.Table) -> Table:
    """Return the medications the subjects' rows refer to, as rows of theirs, once each."""
    owners, places = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for kind in sorted(batch.tables):
        table = batch.tables[kind]
        held = table.fields.get("medicationReference")
        if held is None or held.type.get_field_index("reference") < 0:
            continue
        texts = pc.extract_regex(pc.struct_field(held, "reference"), _MEDICATION)
        place = pc.index_in(pc.struct_field(texts, "key"), medications.column("__hx_key")).fill_null(-1)
        rows = np.asarray(place.to_numpy(zero_copy_only=False), np.int64)
        owners.append(table.owner[rows >= 0])
        places.append(rows[rows >= 0])
    pairs = np.stack([np.concatenate(owners), np.concatenate(places)])
    first = np.sort(np.unique(pairs, axis=1, return_index=True)[1])
    pairs = pairs[:, first]
    owner, place = pairs[:, np.argsort(pairs[0], kind="stable")]
    data = medications.drop_columns(["__hx_key"]).take(pa.array(place))
    return Table(batch.model, "Medication", data, owner, batch.n)


class _Runs:
    """The rows of one type by patient and place: sorted files, given out batch by batch."""

    def __init__(self, schema: pa.Schema, paths: list[Path]) -> None:
        self.schema = schema
        self.waiting = [lakes.pieces(path) for path in paths]
        self.heads = [next(run, None) for run in self.waiting]

    def upto(self, last: str) -> pa.Table:
        """Return the rows of patients not beyond ``last``, in order."""
        found: list[pa.RecordBatch] = []
        for at, run in enumerate(self.waiting):
            piece = self.heads[at]
            while piece is not None:
                count = pc.sum(pc.less_equal(piece.column(OWNER), last)).as_py() or 0
                found.append(piece.slice(0, count))
                if count < piece.num_rows:
                    piece = piece.slice(count)
                    break
                piece = next(run, None)
            self.heads[at] = piece
        table = pa.Table.from_batches(found, schema=self.schema)
        if len(self.waiting) < 2:
            return table
        return table.sort_by(SORTED)
