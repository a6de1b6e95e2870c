"""Batches of subjects as tables of resources, out of a lake or of JSON resources.

JSON goes through the lake's own decoder, so that both sources give the same columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from hiexchange._duck import quiet_connection
from hiexchange.lake.cut import Block
from hiexchange.lake.decode import Source, encode
from hiexchange.measures import sources
from hiexchange.measures.columnar.cells import Ints
from hiexchange.measures.columnar.nodes import Table
from hiexchange.measures.cql.model import Model

BATCH = 2_000
"""Subjects evaluated together: memory holds one batch, whatever the size of the population."""
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class Batch:
    """Some subjects, and the tables of their resources by type."""

    def __init__(
        self, model: Model, names: list[str], tables: dict[str, Table], *, refused: Ints | None = None
    ) -> None:
        """Keep the tables; ``refused`` are subjects with a resource that no table holds."""
        self.model = model
        self.names = names
        self.tables = tables
        self.n = len(names)
        self.refused = np.zeros(0, np.int64) if refused is None else refused


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
    names = [name for name, _ in subjects]
    return Batch(model, names, tables, refused=np.array(sorted(refused), np.int64))


def from_lake(
    model: Model, lake: Any, types: frozenset[str], elements: frozenset[str] | None, *, size: int = BATCH
) -> Iterator[Batch]:
    """Yield a lake's patients in batches, in the order of their ids."""
    held = lake.tables()
    if "Patient" not in held:
        return
    with quiet_connection() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute("set threads = 2")
        queries = {
            kind: _query(con, lake.files(kind), elements)
            for kind in sorted(types)
            if held.get(kind) and kind not in sources.SHARED
        }
        names = (name for name in sources.patient_ids(con, lake).to_pylist())
        while block := list(islice(names, size)):
            tables = {}
            index = pa.array(block)
            for kind, query in queries.items():
                data = con.sql(query, params={"low": block[0], "high": block[-1]}).to_arrow_table()
                owner = pa.compute.index_in(data.column("__hx_owner"), index).combine_chunks()
                data = data.filter(owner.is_valid()).drop_columns(["__hx_owner"])
                rows = np.asarray(owner.drop_null().to_numpy(zero_copy_only=False), np.int64)
                tables[kind] = Table(model, kind, data, rows, len(block))
            yield Batch(model, block, tables)


def _query(con: Any, files: Any, elements: frozenset[str] | None) -> str:
    source, columns, patient, order = sources.scan(con, files, elements)
    chosen = ", ".join(f'"{name}"' for name in columns)
    return (
        f"select {patient} as __hx_owner, {chosen} from {source} "
        f"where {patient} between $low and $high order by {', '.join(['__hx_owner', *order])}"
    )
