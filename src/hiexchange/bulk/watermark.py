"""When and where the next export may start: the watermark's key, its value, and reasons to hold it.

Pure but for :class:`SqliteWatermarks`. The value is the manifest's ``transactionTime``, never our
clock; it moves only after the data were committed.
"""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hiexchange.bulk.manifest import parse_instant
from hiexchange.bulk.request import ExportRequest

if TYPE_CHECKING:
    import sqlite3

CLOCK_TOLERANCE = timedelta(minutes=5)


class WatermarkStore(Protocol):
    """Where a watermark is kept."""

    def get(self, key: str) -> str | None:
        """Return the instant last committed under ``key``."""

    def commit(self, key: str, value: str, run_id: str) -> None:
        """Keep ``value``; called after the data of ``run_id`` were committed."""


def watermark_key(base_url: str, version: int | None, request: ExportRequest) -> str:
    """Return what a watermark is bound to: server, API version, level, group, types, filters, elements.

    The version is part of it because BCDA's ids change between v2 and v3: a switch is a full load.
    """
    parts = [base_url, f"v{version}" if version else "", request.level or "", request.group or ""]
    parts += [",".join(sorted(part)) for part in (request.types, request.type_filters, request.elements)]
    parts += [f"{name}={value}" for name, value in sorted(request.extra.items())]
    return "|".join(parts)


def watermark_value(
    transaction_time: str | None, *, until: str | None = None, newest: str = "", overlap_s: float = 0
) -> str | None:
    """Return the next ``_since``: ``transactionTime``, or if that is older the request's ``_until``, up to which the
    export goes, or the newest resource seen."""
    moment = parse_instant(transaction_time)
    if moment is None:
        return None
    moment = min(known for known in (moment, parse_instant(until), parse_instant(newest)) if known is not None)
    try:
        moment -= timedelta(seconds=overlap_s)
    except OverflowError:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def reason_to_hold(transaction_time: str | None, *, now: datetime) -> str | None:
    """Say why a ``transactionTime`` cannot be a watermark, or None."""
    if not transaction_time:
        return "transactionTime is missing"
    moment = parse_instant(transaction_time)
    if moment is None:
        return "transactionTime cannot be read, or has no offset"
    if moment > now + CLOCK_TOLERANCE:
        return "transactionTime lies in the future, or the clock of this machine is behind"
    return None


class SqliteWatermarks:
    """Watermarks in a SQLite file, for exports that do not go into a lake."""

    def __init__(self, path: str | Path) -> None:
        """Open or create the file."""
        self.path = Path(path)
        with closing(self._connect()) as connection, connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS watermark (key TEXT PRIMARY KEY, value TEXT NOT NULL, run_id TEXT NOT NULL)"
            )

    def get(self, key: str) -> str | None:
        """Return the instant last committed under ``key``."""
        with closing(self._connect()) as connection:
            row = connection.execute("SELECT value FROM watermark WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def commit(self, key: str, value: str, run_id: str) -> None:
        """Keep ``value``; committing the same twice changes nothing."""
        with closing(self._connect()) as connection, connection:
            connection.execute(
                "INSERT INTO watermark VALUES (?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value, run_id = excluded.run_id",
                (key, value, run_id),
            )

    def _connect(self) -> sqlite3.Connection:
        import sqlite3  # most exports go into a lake

        return sqlite3.connect(self.path)
