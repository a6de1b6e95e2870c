"""Parquet: corridor types, instants in UTC; with a date format, dates and instants as text."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hiexchange.delivery.base import Page
from hiexchange.delivery.text import Cells, headings
from hiexchange.tables import ENCOUNTER_EVENT, FLAG, PERSON, TEXT, TEXTS

_TYPES = {column.name: column.type for column in (*PERSON.columns, *ENCOUNTER_EVENT.columns)}
_TYPES |= {"delivery_id": TEXT, "provider_npi": TEXT, "org_id": TEXT, "payer_ids": TEXTS}
_TYPES |= {"catch_up": FLAG, "replay": FLAG}


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """One row group, zstd, no writer's schema beside the file's own."""

    extension: str = "parquet"
    content_type: str = "application/vnd.apache.parquet"
    message: bool = False
    row_limit: int | None = None

    def render(self, page: Page) -> bytes:
        """See :class:`~hiexchange.delivery.base.Format`."""
        arrays = [self._array(page, name) for name in page.columns]
        table = pa.table(arrays, names=headings(page))
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", version="2.6", store_schema=False)
        return buffer.getvalue()

    def _array(self, page: Page, name: str) -> pa.Array:
        kind = _TYPES[name]
        values: list[Any] = [record.get(name) for record in page.records]
        if page.spec.date_format != "iso" and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            cells = Cells(page.spec)
            return pa.array([None if value is None else cells.text(value) for value in values], TEXT)
        return pa.array(values, kind)


PARQUET = ParquetFile()
