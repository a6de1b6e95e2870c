"""Write a view's rows to a file: Parquet, CSV, NDJSON or Arrow, batch by batch, whole or absent."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from hiexchange._files import atomic_file
from hiexchange.errors import ViewError

Batches = Iterable[pa.RecordBatch]


def write_rows(batches: Batches, schema: pa.Schema, path: str | Path) -> int:
    """Write record batches to a file whose suffix names the format; return the number of rows.

    Args:
        batches: The rows, as :meth:`View.stream` yields them; read once.
        schema: Their schema.
        path: ``.parquet``, ``.csv``, ``.ndjson`` or ``.arrow``. The file appears when it is complete.

    Raises:
        ViewError: The suffix names no format.
        StorageError: The file cannot be written.
    """
    target = Path(path)
    writer = _WRITERS.get(target.suffix.lower())
    if writer is None:
        raise ViewError(f"no format is called {target.suffix or target.name!r}", hint=f"use {', '.join(_WRITERS)}")
    with atomic_file(target) as file:
        return writer(batches, schema, file)


def write_text(batches: Batches, schema: pa.Schema, file: IO[bytes], format: str) -> int:
    """Write ``csv`` or ``ndjson`` to an open file; return the number of rows."""
    return (_csv if format == "csv" else _ndjson)(batches, schema, file)


def _parquet(batches: Batches, schema: pa.Schema, file: IO[bytes]) -> int:
    rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _arrow(batches: Batches, schema: pa.Schema, file: IO[bytes]) -> int:
    rows = 0
    with pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _ndjson(batches: Batches, schema: pa.Schema, file: IO[bytes]) -> int:
    rows = 0
    encode = msgspec.json.Encoder(enc_hook=str, decimal_format="number").encode
    for batch in batches:
        for row in batch.to_pylist():
            file.write(encode(row) + b"\n")
        rows += batch.num_rows
    return rows


def _csv(batches: Batches, schema: pa.Schema, file: IO[bytes]) -> int:
    rows = 0
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(schema.names)
    for batch in batches:
        columns = [[_cell(value) for value in column.to_pylist()] for column in batch.columns]
        writer.writerows(zip(*columns, strict=True))
        rows += batch.num_rows
    text.flush()
    text.detach()
    return rows


def _cell(value: Any) -> str:
    """Return RFC 4180 text: null is empty, lists are JSON, instants ISO 8601 with offset."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, list | dict):
        return msgspec.json.encode(value, enc_hook=str).decode()
    return str(value)


_WRITERS: dict[str, Callable[[Batches, pa.Schema, IO[bytes]], int]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".ndjson": _ndjson,
    ".arrow": _arrow,
}
