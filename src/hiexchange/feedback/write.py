"""Feedback as files: one set for all payers, in a tabular format, and one static page."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from hiexchange import ndjson
from hiexchange._cells import FORMULA
from hiexchange._files import write_bytes
from hiexchange.errors import UnknownLayout
from hiexchange.feedback.compute import Feedback
from hiexchange.feedback.page import render
from hiexchange.feedback.suppress import shareable


def write(given: Feedback, folder: str | Path, *, format: str = "csv") -> list[Path]:
    """Write the file set, ``feedback.html`` and, under ``shareable/``, the form without small cells.

    Returns:
        The paths. File names hold the payer and the period, never a member.

    Raises:
        UnknownLayout: The format is none of csv, tsv, ndjson, parquet.
        StorageError: The folder cannot be written.
    """
    if format not in FORMATS:
        raise UnknownLayout(f"'{format}' is no format of feedback", hint=f"one of {', '.join(FORMATS)}")
    open_form = shareable(given)
    target = Path(folder)
    return [*_write(given, target, format), *_write(open_form, target / "shareable", format)]


def _write(given: Feedback, folder: Path, format: str) -> list[Path]:
    first, last = given.period
    stem = f"{given.payer_id}_{first:%Y%m%d}-{last:%Y%m%d}"
    written = []
    for name, table in given.tables().items():
        if given.suppressed and not table.num_rows:
            continue
        path = folder / f"{stem}_{name}.{format}"
        write_bytes(path, FORMATS[format](table))
        written.append(path)
    page = folder / f"{stem}.html"
    write_bytes(page, render(given).encode())
    return [*written, page]


def _delimited(delimiter: str) -> Callable[[pa.Table], bytes]:
    def encode(table: pa.Table) -> bytes:
        out = io.BytesIO()
        options = pyarrow.csv.WriteOptions(delimiter=delimiter, quoting_style="needed")
        pyarrow.csv.write_csv(_flat(table), out, options)
        return out.getvalue()

    return encode


def _flat(table: pa.Table) -> pa.Table:
    """Return a table of texts and numbers only; cells that a spreadsheet would run are made harmless."""
    columns = {}
    for name in table.column_names:
        values = table[name].to_pylist()
        if pa.types.is_list(table[name].type):
            columns[name] = pa.array([None if value is None else ";".join(map(str, value)) for value in values])
        elif pa.types.is_string(table[name].type):
            columns[name] = pa.array([_harmless(value) for value in values], pa.string())
        elif pa.types.is_timestamp(table[name].type):
            columns[name] = pa.array([value and value.isoformat() for value in values], pa.string())
        else:
            columns[name] = table[name]
    return pa.table(columns)


def _harmless(value: str | None) -> str | None:
    return f"'{value}" if value and value.startswith(FORMULA) else value


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out)
    return out.getvalue()


def _ndjson(table: pa.Table) -> bytes:
    return ndjson.dumps(msgspec.to_builtins(row) for row in table.to_pylist())


FORMATS: dict[str, Callable[[Any], bytes]] = {
    "csv": _delimited(","),
    "tsv": _delimited("\t"),
    "ndjson": _ndjson,
    "parquet": _parquet,
}
"""Name of a format -> its writer."""
