"""Write Parquet parts: row groups by bytes, one schema a file, private, complete or absent."""

from __future__ import annotations

import inspect
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hiexchange._files import PRIVATE, storage_errors
from hiexchange.lake.store import DataFile, sync_file

ROW_GROUP_BYTES = 32 << 20
LEVEL = 2
"""Measured on Observation and ExplanationOfBenefit: 1 saves no time, 3 takes 10 % more for files no smaller."""
UNIQUE = ("id", "__hx_key", "__hx_line")
"""Columns of FHIR tables that repeat nothing: a dictionary of them is work for larger files."""

KEYS_A_GROUP = 250_000
"""Bloom filters are made for so many keys at most: row groups of ordinary resources hold fewer."""
ORDER = ("__hx_patient", "__hx_key")
"""Columns that compacted files are sorted by."""


class PartWriter:
    """Writes batches of one schema to one file; flushes a row group every 32 MB."""

    def __init__(self, root: Path, table: str, schema: pa.Schema, load: str, *, sorted_rows: int | None = None) -> None:
        """Start a part.

        Args:
            root: The lake's folder.
            table: Name of the table.
            schema: Of every batch.
            load: Id of the load.
            sorted_rows: How many rows will come, at most, when they come in the order of ``ORDER``.
        """
        self._root = root
        self._path = root / table / f"part-{uuid.uuid4().hex}.parquet"
        self._load = load
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = 0
        self._rows = 0
        self._bounds: list[str] = []
        self._sorted = sorted_rows is not None
        with storage_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
            self._writer = pq.ParquetWriter(
                self._path,
                schema,
                compression="zstd",
                compression_level=LEVEL,
                write_page_index=True,
                **(_encodings(schema) if "__hx_key" in schema.names else {}),
                **({} if sorted_rows is None else _sorted_options(schema, sorted_rows)),
            )

    @property
    def schema(self) -> pa.Schema:
        """The schema every batch must have."""
        return self._schema

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._waiting.append(batch)
        self._bytes += batch.nbytes
        self._rows += batch.num_rows
        if self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.Table.from_batches(self._waiting, schema=self._schema)
        if "__hx_patient" in self._schema.names:
            bounds = pc.min_max(table["__hx_patient"])
            self._bounds += [text for text in (bounds["min"].as_py(), bounds["max"].as_py()) if text is not None]
        with storage_errors(self._path):
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._waiting, self._bytes = [], 0

    def close(self) -> DataFile | None:
        """Finish and sync the file; a part without rows is removed and gives None."""
        self._flush()
        with storage_errors(self._path):
            self._writer.close()
            if not self._rows:
                self._path.unlink()
                return None
            sync_file(self._path)
        return DataFile(
            path=self._path.relative_to(self._root).as_posix(),
            rows=self._rows,
            size_bytes=self._path.stat().st_size,
            load=self._load,
            min_patient=min(self._bounds, default=None),
            max_patient=max(self._bounds, default=None),
            sorted=self._sorted,
        )

    def abandon(self) -> None:
        """Remove the unfinished file."""
        self._writer.close()
        self._path.unlink(missing_ok=True)


def _sorted_options(schema: pa.Schema, rows: int) -> dict[str, Any]:
    """Declare the order, and ask for bloom filters of the keys, where this pyarrow can write them."""
    leaf = 0
    leaves = {}
    for field in schema:
        leaves[field.name] = leaf
        leaf += _leaves(field.type)
    # Leaves are counted here: SortingColumn.from_ordering (pyarrow 26) counts top-level fields.
    options: dict[str, Any] = {"sorting_columns": [pq.SortingColumn(leaves[name]) for name in ORDER]}
    if "bloom_filter_options" in inspect.signature(pq.ParquetWriter.__init__).parameters:
        filters = {name: {"ndv": max(1, min(rows, KEYS_A_GROUP)), "fpp": 0.05} for name in ("id", "__hx_key")}
        options["bloom_filter_options"] = {name: made for name, made in filters.items() if name in leaves}
    return options


def _encodings(schema: pa.Schema) -> dict[str, Any]:
    """Choose encodings and statistics by column; a reader's filters look at no bounds of items of lists."""
    paths = [path for field in schema for path in _paths(field.name, field.type)]
    numbers = {"__hx_line": "DELTA_BINARY_PACKED"} if "__hx_line" in schema.names else {}
    return {
        "use_dictionary": [path for path in paths if path not in UNIQUE],
        "write_statistics": [path for path in paths if ".list." not in path],
        "column_encoding": numbers,
    }


def _paths(name: str, kind: pa.DataType) -> list[str]:
    """Return the Parquet paths of a column's leaves."""
    if pa.types.is_list(kind):
        return _paths(f"{name}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [path for field in kind for path in _paths(f"{name}.{field.name}", field.type)]
    return [name]


def _leaves(kind: pa.DataType) -> int:
    if pa.types.is_list(kind):
        return _leaves(kind.value_type)
    return sum(_leaves(field.type) for field in kind) if pa.types.is_struct(kind) else 1


def read_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a part in stored order, holding less than one row group.

    A dataset's scanner holds four times as much or more (pyarrow 26, measured), and a batch of so many rows
    over row groups can be a gigabyte of claims.
    """
    with pq.ParquetFile(path, pre_buffer=False) as source:
        for group in range(source.num_row_groups):
            yield from source.iter_batches(row_groups=[group], columns=columns, use_threads=False)


def write_part(root: Path, table: str, data: pa.Table, load: str) -> DataFile | None:
    """Write a table as one part."""
    return write_batches(root, table, data.schema, data.to_batches(), load)


def write_batches(
    root: Path,
    table: str,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    load: str,
    *,
    sorted_rows: int | None = None,
) -> DataFile | None:
    """Write batches as one part; nothing is left behind when an error comes out of them."""
    writer = PartWriter(root, table, schema, load, sorted_rows=sorted_rows)
    try:
        for batch in batches:
            writer.write(batch)
        return writer.close()
    except BaseException:
        writer.abandon()
        raise
