"""The quarantine, table ``_rejects``: lines that could not become rows, with where they stood and why."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from hiexchange.lake.decode import Reject

REJECTS = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("line", pa.int64()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("reason", pa.string()),
        pa.field("raw", pa.binary()),
        pa.field("table", pa.string()),
        pa.field("load", pa.string()),
    ]
)
"""Columns of the quarantine."""


def reject_rows(rejects: Iterable[Reject], file: str, table: str, load: str) -> pa.RecordBatch:
    """Return the rows for lines of one file that were to go to one table."""
    rows = [
        {
            "file": file,
            "line": reject.line,
            "offset": reject.offset,
            "length": reject.length,
            "reason": reject.reason,
            "raw": reject.raw,
            "table": table,
            "load": load,
        }
        for reject in rejects
    ]
    return pa.RecordBatch.from_pylist(rows, schema=REJECTS)
