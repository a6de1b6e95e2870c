"""Columns a lake has only when asked: the line as it came, and a hash of its content.

Both are about what was received, before any vendor repair. They are added to a batch after encoding, so
the encoder knows nothing of them; a file without them reads as null there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import msgspec
import numpy as np
import pyarrow as pa

from hiexchange.errors import ConfigError
from hiexchange.lake.cut import Block
from hiexchange.lake.lines import parse
from hiexchange.lake.schema import plan
from hiexchange.lake.store import TableState

RAW = "__hx_raw"
"""The line as it came, without its ``\\n``: byte-identical return."""
SHA256 = "__hx_sha256"
"""Hash of the canonical JSON: members sorted, numbers as literal text, no white space."""


def _text(line: bytes) -> str:
    return line.decode()


def canonical_hash(line: bytes) -> str:
    """Return the hex SHA-256 of a resource's content: equal for equal JSON, whatever its member order or white space.

    Raises:
        Refused: The line is not one JSON object.
    """
    return hashlib.sha256(msgspec.json.encode(parse(line), order="sorted")).hexdigest()


_MAKERS: dict[str, Callable[[bytes], str]] = {RAW: _text, SHA256: canonical_hash}


def check_extras(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of optional columns in their fixed order.

    Raises:
        ConfigError: No optional column has that name.
    """
    for name in names:
        if name not in _MAKERS:
            raise ConfigError(f"there is no optional column {name!r}", hint=f"use {', '.join(_MAKERS)}")
    return tuple(name for name in _MAKERS if name in names)


def with_extras(batch: pa.RecordBatch, block: Block, names: tuple[str, ...]) -> pa.RecordBatch:
    """Return a batch with optional columns at its end.

    Args:
        batch: Rows encoded from the block, with their ``__hx_line``.
        block: The whole lines they came from.
        names: Optional columns, as from :func:`check_extras`.
    """
    if not names:
        return batch
    lines = block.data.split(b"\n")
    chosen = [lines[index] for index in (np.asarray(batch["__hx_line"]) - block.line).tolist()]
    for name in names:
        batch = batch.append_column(name, pa.array(map(_MAKERS[name], chosen), pa.string()))
    return batch


def stored_schema(state: TableState) -> pa.Schema:
    """Return the schema of a table of FHIR resources, its optional columns included."""
    schema = plan(state.resource, state.shape, state.version).stored_schema
    for name in state.extras:
        schema = schema.append(pa.field(name, pa.string()))
    return schema
