"""Links and attribution by person, for routing as events arrive.

A state's rosters are millions of rows; one message needs a handful of them. The index is a DuckDB file
sorted by person, so that a look-up reads one block and not the whole table. It is a copy: build it anew
after every roster or matching run.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa

from hiexchange.routing.inputs import NEEDED, connect, register
from hiexchange.tables import INSTANT

_LINKS = """
CREATE TABLE link AS
SELECT * FROM (
  SELECT * FROM link_in WHERE known_from <= $known_at
  QUALIFY row_number() OVER (PARTITION BY member_key ORDER BY known_from DESC, band = 'auto', person_id) = 1
) WHERE known_to > $known_at AND person_id IS NOT NULL ORDER BY person_id
"""
_ATTRIBUTION = """
CREATE TABLE attribution AS
SELECT l.person_id, a.* FROM attribution_in a JOIN link l USING (member_key)
WHERE l.band = 'auto' AND a.known_from <= $known_at ORDER BY l.person_id
"""
_PERSON = """
CREATE TABLE person AS
SELECT person_id, min(birth_date) AS birth_date, min(deceased_at) AS deceased_at FROM person_in GROUP BY person_id ORDER BY person_id
"""
BLOCK = 8_192
"""Rows in a block of the file: what one look-up reads."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class Known:
    """What the index holds of one person; instants are microseconds since 1970."""

    links: list[dict[str, Any]] = field(default_factory=list)
    """One row a member."""
    attribution: list[dict[str, Any]] = field(default_factory=list)
    """Every assertion about its members."""
    person: Mapping[str, Any] | None = None
    """birth_date and deceased_at, where persons were given."""

    def linked_at(self, known_at: datetime) -> dict[str, str]:
        """Return the members that are linked to the person as known at an instant, with the band of each link."""
        at = (known_at - _EPOCH) // _MICROSECOND
        return {row["member_key"]: row["band"] for row in self.links if row["known_from"] <= at < row["known_to"]}

    def attributed_at(self, known_at: datetime, members: Container[str]) -> list[dict[str, Any]]:
        """Return the last assertion of each attribution of these members, with ``first_known`` of its first."""
        at = (known_at - _EPOCH) // _MICROSECOND
        last: dict[str, dict[str, Any]] = {}
        first: dict[str, int] = {}
        for row in self.attribution:
            key, known_from = row["attribution_id"], row["known_from"]
            if row["member_key"] not in members or known_from > at:
                continue
            first[key] = min(known_from, first.get(key, known_from))
            if key not in last or _is_later(row, last[key]):
                last[key] = row
        return [
            row | {"first_known": _EPOCH + first[key] * _MICROSECOND}
            for key, row in last.items()
            if row["known_to"] > at
            and row["change_type"] not in (None, "cancelled")
            and row["valid_from"] < row["valid_to"]
        ]


def _is_later(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    one, two = ((at["known_from"], at["list_seq"] or 0, at["as_of_on"] or date.min) for at in (row, other))
    return one > two or (one == two and (row["change_type"] or "") < (other["change_type"] or ""))


class RoutingIndex:
    """Look up the links and attribution rows of a few people. One thread at a time."""

    def __init__(
        self,
        path: str | Path,
        *,
        attribution: Any,
        links: Any,
        known_at: datetime,
        persons: Any = None,
        memory_limit: str = "1GB",
    ) -> None:
        """Build the index.

        Args:
            path: DuckDB file; one that is there is replaced.
            attribution: ATTRIBUTION rows: a table, a lake table, or paths of Parquet files.
            links: PERSON_LINK rows, likewise.
            known_at: Knowledge time (aware): later assertions are not in the index.
            persons: PERSON rows, likewise, for filters by age and the rule about the deceased.
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
            ("person_in", persons, "person", _PERSON),
        ):
            register(self._connection, name, given, kind)
            self._connection.execute(query, {"known_at": self.known_at} if "$known_at" in query else None)

    def lookup(self, person_ids: Iterable[str | None]) -> tuple[pa.Table, pa.Table]:
        """Return (attribution, links) of some people, ready for :func:`route`."""
        wanted = sorted({person for person in person_ids if person is not None})
        found = []
        for table in ("attribution", "link"):
            marks = ", ".join("?" * len(wanted)) or "NULL"
            query = f"SELECT {', '.join(NEEDED[table][1])} FROM {table} WHERE person_id IN ({marks})"
            found.append(self._connection.sql(query, params=wanted).to_arrow_table())
        return found[0], found[1]

    def of(self, person_ids: Iterable[str]) -> dict[str, Known]:
        """Return what is known of some people, for :class:`hiexchange.routing.Router`."""
        wanted = sorted(set(person_ids))
        found: dict[str, Known] = {}
        if not wanted:
            return found
        marks = ", ".join("?" * len(wanted))
        for kind in ("link", "attribution", "person"):
            table, names = NEEDED[kind]
            cells = [f"epoch_us({name})" if table.schema.field(name).type == INSTANT else name for name in names]
            query = f"SELECT person_id, {', '.join(cells)} FROM {kind} WHERE person_id IN ({marks})"
            # Rows as tuples, not as an Arrow table: a third of the time for the handful that one message needs.
            for person_id, *values in self._connection.execute(query, wanted).fetchall():
                known = found.setdefault(person_id, Known())
                row = dict(zip(names, values, strict=True))
                if kind == "link":
                    known.links.append(row)
                elif kind == "attribution":
                    known.attribution.append(row)
                else:
                    known.person = row
        return found

    def close(self) -> None:
        """Release the file; it may be deleted then."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
