"""Links and attribution by person, for routing as events arrive.

A state's rosters are millions of rows; one message needs a handful of them. The index is a DuckDB file
sorted by person, so that a look-up reads one block and not the whole table. It is a copy: build it anew
after every roster or matching run.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa

from hiexchange.routing.inputs import NEEDED, connect, register

_LINKS = """
CREATE TABLE link AS
SELECT * FROM (
  SELECT * FROM link_in WHERE known_from <= $known_at
  QUALIFY row_number() OVER (PARTITION BY member_key ORDER BY known_from DESC) = 1
) WHERE known_to > $known_at AND person_id IS NOT NULL ORDER BY person_id
"""
_ATTRIBUTION = """
CREATE TABLE attribution AS
SELECT l.person_id, a.* FROM attribution_in a JOIN link l USING (member_key)
WHERE l.band = 'auto' AND a.known_from <= $known_at ORDER BY l.person_id
"""
BLOCK = 8_192
"""Rows in a block of the file: what one look-up reads."""


class RoutingIndex:
    """Look up the links and attribution rows of a few people. One thread at a time."""

    def __init__(
        self, path: str | Path, *, attribution: Any, links: Any, known_at: datetime, memory_limit: str = "1GB"
    ) -> None:
        """Build the index.

        Args:
            path: DuckDB file; one that is there is replaced.
            attribution: ATTRIBUTION rows: a table, a lake table, or paths of Parquet files.
            links: PERSON_LINK rows, likewise.
            known_at: Knowledge time (aware): later assertions are not in the index.
            memory_limit: What building may hold in memory, in DuckDB's words; the rest is spilled.
        """
        self.path = Path(path)
        self.known_at = known_at.astimezone(UTC)
        self.path.unlink(missing_ok=True)
        self._connection: duckdb.DuckDBPyConnection = connect()
        self._connection.execute(f"SET memory_limit = '{memory_limit}'")
        self._connection.execute(f"ATTACH '{self.path}' AS stored (ROW_GROUP_SIZE {BLOCK})")
        self._connection.execute("USE stored")
        for name, given, kind, query in (
            ("link_in", links, "link", _LINKS),
            ("attribution_in", attribution, "attribution", _ATTRIBUTION),
        ):
            register(self._connection, name, given, kind)
            self._connection.execute(query, {"known_at": self.known_at})

    def lookup(self, person_ids: Iterable[str | None]) -> tuple[pa.Table, pa.Table]:
        """Return (attribution, links) of some people, ready for :func:`route`."""
        wanted = sorted({person for person in person_ids if person is not None})
        found = []
        for table in ("attribution", "link"):
            marks = ", ".join("?" * len(wanted)) or "NULL"
            query = f"SELECT {', '.join(NEEDED[table][1])} FROM {table} WHERE person_id IN ({marks})"
            found.append(self._connection.sql(query, params=wanted).to_arrow_table())
        return found[0], found[1]

    def close(self) -> None:
        """Release the file; it may be deleted then."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
