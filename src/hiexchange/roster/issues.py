"""ISSUE rows of the roster room, and the error a whole file is refused with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from hiexchange.errors import RosterError
from hiexchange.tables import ISSUE

STAGE = "roster"


def issue(
    code: str, message: str, *, file: str, severity: str = "error", row_no: int | None = None, column: str | None = None
) -> dict[str, Any]:
    """Return one ISSUE row of this room."""
    return {
        "stage": STAGE,
        "severity": severity,
        "code": code,
        "message": message,
        "file": file,
        "row_no": row_no,
        "column": column,
    }


def table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Return ISSUE rows in file order: whole-file issues first, then by row and column."""
    ordered = sorted(rows, key=lambda row: (row["row_no"] or 0, row["code"], row["column"] or ""))
    return ISSUE.from_rows(ordered)


def refusal(code: str, message: str, *, file: str, hint: str, number: str = "HX-501") -> RosterError:
    """Return the error that refuses a whole file; its ``issues`` hold the reason as one row."""
    return RosterError(message, issues=table([issue(code, message, file=file)]), where=file, hint=hint, code=number)
