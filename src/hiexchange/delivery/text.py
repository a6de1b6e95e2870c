"""CSV, TSV, pipe-separated and NDJSON: fixed column order, no locale, the same bytes on any day."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from hiexchange._cells import neutral
from hiexchange.delivery.base import Page
from hiexchange.delivery.channel import ChannelSpec

_FLAGS = {True: "true", False: "false"}


class Cells:
    """Turn values to the text a channel wants: zone, date format, null text, neutralised formulas."""

    def __init__(self, spec: ChannelSpec) -> None:
        self._zone = ZoneInfo(spec.zone)
        self._pattern = "" if spec.date_format == "iso" else spec.date_format
        self._null = spec.null_text

    def text(self, value: Any) -> str:
        """Return one cell."""
        if value is None or value == []:
            return self._null
        if isinstance(value, str):
            return neutral(value)
        if isinstance(value, bool):
            return _FLAGS[value]
        if isinstance(value, datetime):
            return self.instant(value)
        if isinstance(value, date):
            return value.strftime(self._pattern) if self._pattern else value.isoformat()
        if isinstance(value, list):
            return neutral(";".join(_item(item) for item in value))
        return str(value)

    def instant(self, value: datetime) -> str:
        """Return an instant in the channel's zone, with its offset; Z for UTC."""
        local = value.astimezone(self._zone)
        if self._pattern:
            return local.strftime(self._pattern)
        text = local.isoformat(timespec="seconds")
        return text[:-6] + "Z" if local.utcoffset() == UTC.utcoffset(None) else text


def _item(value: Any) -> str:
    # A coding: its code says enough in a cell; NDJSON and Parquet carry the whole.
    return str(value.get("code") or value.get("display") or "") if isinstance(value, Mapping) else str(value)


def headings(page: Page) -> list[str]:
    """Return the header texts of a page's columns."""
    return [page.spec.names.get(name, name) for name in page.columns]


@dataclass(frozen=True, slots=True)
class Separated:
    """Rows of text between separators (RFC 4180 quoting)."""

    extension: str
    content_type: str
    separator: str
    message: bool = False
    row_limit: int | None = None

    def render(self, page: Page) -> bytes:
        """See :class:`~hiexchange.delivery.base.Format`."""
        spec: ChannelSpec = page.spec
        cells = Cells(spec)
        buffer = io.StringIO(newline="")
        end = "\r\n" if spec.options.get("crlf") == "true" else "\n"
        separator = spec.options.get("delimiter") or self.separator
        writer = csv.writer(buffer, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_MINIMAL)
        writer.writerow(headings(page))
        for record in page.records:
            writer.writerow([cells.text(record.get(name)) for name in page.columns])
        encoding = "utf-8-sig" if spec.options.get("bom") == "true" else "utf-8"
        return buffer.getvalue().encode(encoding)


@dataclass(frozen=True, slots=True)
class Lines:
    """One JSON object a line: values keep their type, instants are ISO 8601 text, absent stays absent."""

    extension: str = "ndjson"
    content_type: str = "application/x-ndjson"
    message: bool = False
    row_limit: int | None = None

    def render(self, page: Page) -> bytes:
        """See :class:`~hiexchange.delivery.base.Format`."""
        cells = Cells(page.spec)
        names = page.spec.names
        encode = msgspec.json.Encoder().encode
        lines = []
        for record in page.records:
            row = {}
            for name in page.columns:
                value = record.get(name)
                if value is not None:
                    row[names.get(name, name)] = cells.text(value) if isinstance(value, date) else value
            lines.append(encode(row))
        return b"".join(line + b"\n" for line in lines)


CSV = Separated("csv", "text/csv; charset=utf-8", ",")
TSV = Separated("tsv", "text/tab-separated-values; charset=utf-8", "\t")
PIPE = Separated("txt", "text/plain; charset=utf-8", "|")
NDJSON = Lines()
