"""Contained resources as rows of their own type, made when asked from the text a lake keeps.

They are not stored as tables: a newer version of the parent would leave those of its older version behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from hiexchange.definitions import Definitions
from hiexchange.errors import ConfigError, LakeError
from hiexchange.lake.cut import Block
from hiexchange.lake.decode import Encoded, Source, encode
from hiexchange.lake.lineage import stored_schema
from hiexchange.lake.mixed import type_of
from hiexchange.lake.pinned import Pinned
from hiexchange.lake.shape import Shape
from hiexchange.lake.store import TableState

_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_PARENTS = ("__hx_patient", "__hx_updated", "__hx_file", "__hx_line", "__hx_transaction_time", "__hx_ingest")
"""Columns a contained resource has from its parent: it has no life without it."""


def contained(pinned: Pinned, name: str, resource: str, where: Any = None) -> pa.Table:
    """Return the contained resources of one type; see ``Lake.contained``."""
    state = pinned.fhir(name)
    if not Definitions.load(state.version).is_resource(resource):
        raise ConfigError(f"{resource!r} is no resource type of FHIR {state.version}")
    table = pinned.table(name)
    if "contained" not in table.schema.names:
        return _schema(resource, {}, state.version).empty_table()
    shape: Shape = {}
    found = []
    for batch in table.to_batches(["__hx_key", "contained", *_PARENTS], where):
        encoded, parents = _encoded(batch, resource, state.version, shape)
        if encoded is not None:
            shape = encoded.shape
            found.append(_owned(encoded.batch, batch.take(parents)))
    schema = _schema(resource, shape, state.version)
    return pa.concat_tables([schema.empty_table(), *found], promote_options="permissive").cast(schema)


def _schema(resource: str, shape: Shape, version: str) -> pa.Schema:
    return stored_schema(TableState("fhir", (), resource, version, shape))


def _encoded(batch: pa.RecordBatch, resource: str, version: str, shape: Shape) -> tuple[Encoded | None, pa.Array]:
    """Return the resources of one type in a batch of parents, and the index of each one's parent."""
    texts = [(index, line) for index, kind, line in resources_in(batch["contained"]) if kind == resource]
    if not texts:
        return None, pa.array([], pa.int64())
    block = Block(b"\n".join(line for _, line in texts), 1, 0)
    encoded = encode(block, shape, Source(resource, "", "", version))
    if encoded.rejects:
        raise LakeError(
            f"{len(encoded.rejects)} contained {resource} resources can't be read: {encoded.rejects[0].reason}",
            hint="their parents keep them as text; choose other parents with where=",
        )
    return encoded, pa.array(np.array([index for index, _ in texts])[np.asarray(encoded.batch["__hx_line"]) - 1])


def resources_in(column: pa.Array) -> Iterator[tuple[int, str, bytes]]:
    """Yield (index of the parent, resource type or "", text) of each resource in a column ``contained``."""
    for index, text in enumerate(column.to_pylist()):
        for raw in _split(text) if text else ():
            line = bytes(raw)
            yield index, type_of(line), line


def _owned(rows: pa.RecordBatch, parents: pa.RecordBatch) -> pa.Table:
    """Return rows keyed ``parent#id``, with the lineage of their parents."""
    keys = zip(parents["__hx_key"].to_pylist(), rows["__hx_key"].to_pylist(), strict=True)
    table = pa.table(rows)
    table = table.set_column(
        table.schema.get_field_index("__hx_key"), "__hx_key", [[f"{one}#{two}" for one, two in keys]]
    )
    for name in _PARENTS:
        table = table.set_column(table.schema.get_field_index(name), name, parents[name])
    return table
