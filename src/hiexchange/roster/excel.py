"""Read XLSX rosters (extra ``excel``) as text columns: what a spreadsheet did to ids and dates is undone.

Spreadsheets turn ids into floats (``1112223334.0``) and dates into serials counted from 1900 or 1904.
Whole floats become digits again; a float beyond 2^53 has lost digits, and its row is refused.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from hiexchange.errors import MissingExtra
from hiexchange.roster.delimited import Raw
from hiexchange.roster.issues import issue, refusal
from hiexchange.roster.layout import FileRule

EXACT = 1 << 53
SERIALS = (10_000, 80_000)
"""Serial days taken for dates in date columns: 1927 to 2119."""


def workbook(data: pa.Buffer, rule: FileRule, *, file: str) -> tuple[Raw, Any]:
    """Return a worksheet as text columns, and a function that tells which columns hold dates.

    Args:
        data: The workbook.
        rule: ``sheet`` and ``header``; by default the first visible sheet.
        file: File name, for issues.

    Returns:
        The rows, and ``as_dates(numbers)``: to be called with the numbers (from 1) of date columns
        before the rows are read.

    Raises:
        MissingExtra: python-calamine is not installed.
        RosterError: No workbook, no such sheet, or no rows.
    """
    try:
        import python_calamine as calamine
    except ImportError:
        raise MissingExtra("excel", "reading XLSX rosters") from None
    content = data.to_pybytes()
    try:
        book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(content))
    except calamine.PasswordError:
        raise refusal(
            "encrypted", "the workbook needs a password", file=file, hint="decrypt it before intake"
        ) from None
    except calamine.CalamineError:
        raise refusal("truncated", "the file is no readable workbook", file=file, hint="ask for it again") from None
    name, notes = _sheet(book, rule, calamine, file)
    rows = book.get_sheet_by_name(name).to_python(skip_empty_area=False)
    rows = rows[max(rule.header - 1, 0) :]
    while rows and not any(value != "" for value in rows[-1]):
        rows.pop()
    header = [_text(value).strip() for value in rows[0]] if rule.header and rows else []
    body = rows[1:] if rule.header else rows
    if not any(any(value != "" for value in row) for row in body):
        raise refusal("no_rows", "the worksheet has no rows", file=file, hint="is file.sheet the right one?")
    width = max(len(row) for row in rows)
    raw = Raw(header + [""] * (width - len(header)) if rule.header else [], width, iter(()), file, issues=notes)
    dates: set[int] = set()
    raw.batches = _batches(raw, body, dates, _epoch(content))
    return raw, dates.update


def _sheet(book: Any, rule: FileRule, calamine: Any, file: str) -> tuple[str, list[dict[str, object]]]:
    sheets = [meta for meta in book.sheets_metadata if meta.typ == calamine.SheetTypeEnum.WorkSheet]
    visible = [meta.name for meta in sheets if meta.visible == calamine.SheetVisibleEnum.Visible]
    notes = []
    if len(visible) < len(sheets):
        message = f"{len(sheets) - len(visible)} hidden worksheets are passed over"
        notes.append(issue("hidden_sheet", message, file=file, severity="warning"))
    if isinstance(rule.sheet, str) and not rule.sheet.isdigit():
        chosen = rule.sheet if any(meta.name == rule.sheet for meta in sheets) else None
    else:
        number = int(rule.sheet or 1)
        chosen = visible[number - 1] if number <= len(visible) else None
        if rule.sheet is None and len(visible) > 1:
            message = f"{len(visible)} visible worksheets: the first is read"
            notes.append(issue("several_sheets", message, file=file, severity="warning"))
    if chosen is None:
        raise refusal("no_sheet", "the workbook has no such worksheet", file=file, hint="set file.sheet in the layout")
    return chosen, notes


def _batches(raw: Raw, body: list[list[Any]], dates: set[int], epoch: date) -> Iterator[pa.Table]:
    numbers, columns = [], [list[str]() for _ in range(raw.width)]
    for number, row in enumerate(body, 1):
        if not any(value != "" for value in row):
            continue
        values = [_cell(value, place in dates, epoch) for place, value in enumerate(row, 1)]
        values += [""] * (raw.width - len(values))
        if None in values:
            message = "a number has more digits than a spreadsheet keeps"
            raw.ragged.append(issue("lost_digits", message, file=raw.file, row_no=number))
            raw.ragged_rows += 1
            continue
        numbers.append(number)
        for column, value in zip(columns, values, strict=True):
            column.append(value or "")
    arrays = [pa.array(column, pa.string()) for column in columns]
    names = ["row_no", *(f"c{index}" for index in range(1, raw.width + 1))]
    yield pa.table([pa.array(np.array(numbers, dtype=np.int64)), *arrays], names=names)


def _cell(value: Any, is_date: bool, epoch: date) -> str | None:
    """Return a cell as text; None where digits are lost."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if is_date and SERIALS[0] <= value <= SERIALS[1]:
            return (epoch + timedelta(days=int(value))).isoformat()
        if abs(value) > EXACT:
            return None
        return str(int(value)) if float(value).is_integer() else repr(value)
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.date().isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if not isinstance(value, float) else str(int(value)) if value.is_integer() else repr(value)


def _epoch(content: bytes) -> date:
    """Return day 0 of the workbook's serials; 1900 counts a 29 February that never was."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            properties = parts.read("xl/workbook.xml")
    except (zipfile.BadZipFile, KeyError):
        return date(1899, 12, 30)
    later = re.search(rb'date1904="(1|true)"', properties)
    return date(1904, 1, 1) if later else date(1899, 12, 30)
