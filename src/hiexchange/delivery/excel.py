"""XLSX: every cell is text, so ids keep their leading zeros and nothing is taken for a formula."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import datetime

from hiexchange.delivery.base import Page
from hiexchange.delivery.text import Cells, headings
from hiexchange.errors import DeliveryError, MissingExtra

CREATED = datetime(2000, 1, 1)
"""The workbook's own clock, pinned: with it two renderings are the same bytes."""
CELL_LIMIT = 32767


@dataclass(frozen=True, slots=True)
class Workbook:
    """One sheet, headings in the first row, frozen."""

    extension: str = "xlsx"
    content_type: str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    message: bool = False
    row_limit: int | None = 1_048_575
    """Rows of an Excel sheet, less the headings."""

    def render(self, page: Page) -> bytes:
        """See :class:`~hiexchange.delivery.base.Format`.

        Raises:
            MissingExtra: xlsxwriter is not installed.
        """
        try:
            import xlsxwriter
        except ImportError:
            raise MissingExtra("excel", "the xlsx format") from None
        buffer = io.BytesIO()
        # In memory: xlsxwriter would otherwise leave patient data in temporary files after a crash.
        with xlsxwriter.Workbook(buffer, {"in_memory": True, "strings_to_formulas": False}) as book:
            book.set_properties({"created": CREATED})
            sheet = book.add_worksheet("events")
            sheet.freeze_panes(1, 0)
            for column, text in enumerate(headings(page)):
                sheet.write_string(0, column, text)
            cells = Cells(page.spec)
            for row, record in enumerate(page.records, 1):
                for column, name in enumerate(page.columns):
                    text = cells.text(record.get(name))
                    if len(text) > CELL_LIMIT:
                        # xlsxwriter would leave the cell out and say nothing.
                        raise DeliveryError(f"{name} is too long for a cell", where=record["delivery_id"])
                    sheet.write_string(row, column, text)
        return buffer.getvalue()


XLSX = Workbook()
