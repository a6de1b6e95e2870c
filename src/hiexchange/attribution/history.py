"""The bitemporal history: one more roster in, the ATTRIBUTION rows to append out.

The history of a list is a fold over its files in the order of the days they speak of, never of their
arrival. A file that is the newest is folded onto the present state; a late one makes the list be
folded anew from the assertions kept in the history, and only differences are appended. Stored rows
are never edited, and what was known at a past instant stays what it was: a file never becomes known
before the last one of its list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.attribution import fold
from hiexchange.errors import ConfigError
from hiexchange.tables import ATTRIBUTION, MEMBER, OPEN_DATE, OPEN_INSTANT, check

CARRIED = tuple(
    column.name
    for column in ATTRIBUTION.columns
    if column.name in {other.name for other in MEMBER.columns}
    and column.name not in ("valid_from", "valid_to", "roster_id", "row_no", "row_sha")
)
"""Columns that an attribution takes over from its roster line."""


class RosterLike(Protocol):
    """What attribution needs of a roster."""

    @property
    def roster_id(self) -> str: ...
    @property
    def payer_id(self) -> str: ...
    @property
    def list_id(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def as_of(self) -> date: ...
    @property
    def received_at(self) -> datetime: ...
    @property
    def members(self) -> pa.Table: ...
    @property
    def state(self) -> str: ...


@dataclass(frozen=True, order=True)
class Edition:
    """One file of a list; the order is the order of folding."""

    as_of: date
    received_at: datetime
    roster_id: str
    mode: str
    authority_from: date
    authority_to: date

    @property
    def restates(self) -> bool:
        """Say whether the file speaks for other days than those from its as-of date on."""
        return (self.authority_from, self.authority_to) != (self.as_of, OPEN_DATE)


def attribute(roster: RosterLike, history: Any = None, *, known_at: datetime) -> pa.Table:
    """Return the ATTRIBUTION rows that one roster adds to the history.

    Every accepted roster line is recorded once (``change_type`` new, changed, nochange, dropped or
    cancelled); members that a full file no longer names are dropped (``row_no`` 0). The result
    does not depend on the order in which the files of a list arrive: after the same files, whatever
    their order and however often each was sent, :func:`as_known` shows the same attributions.

    Args:
        roster: Its ``members`` are MEMBER rows. A roster that is not ``accepted`` adds nothing.
        history: ATTRIBUTION rows of any lists, as stored; None or empty at the start. Anything with
            ``__arrow_c_stream__``.
        known_at: When the file was accepted. Never earlier than the list's last file in effect:
            knowledge is not back-dated.

    Returns:
        Rows to append; none when the same file is already part of the history.

    Raises:
        SchemaMismatch: A table is not what it should be.
        ConfigError: ``known_at`` has no time zone.
    """
    if known_at.tzinfo is None:
        raise ConfigError("known_at must be timezone-aware", hint="datetime.now(UTC)")
    if roster.state != "accepted":
        return ATTRIBUTION.empty()
    members = check(roster.members, MEMBER)
    past = _of_list(history, roster, members)
    edition = _edition(roster)
    editions = _editions(past)
    if any(known.roster_id == edition.roster_id for known in editions):
        return ATTRIBUTION.empty()
    con = duckdb.connect()
    try:
        late = any(known > edition for known in editions)
        order = sorted([*editions, edition]) if late else [edition]
        identities = [known.roster_id for known in order]
        work = fold.Work(con, past, members, roster.list_id, identities, order.index(edition) + 1)
        work.start(empty=late)
        for number, known in enumerate(order, 1):
            work.step(number, known)
        changes = work.differences(late=late)
    finally:
        con.close()
    return _assemble(changes, past, members, roster, order, edition, known_at)


def _edition(roster: RosterLike) -> Edition:
    begin = getattr(roster, "authority_from", None) or roster.as_of
    end = getattr(roster, "authority_to", None) or OPEN_DATE
    return Edition(roster.as_of, roster.received_at, roster.roster_id, roster.mode, begin, end)


def _of_list(history: Any, roster: RosterLike, members: pa.Table) -> pa.Table:
    if history is None:
        return ATTRIBUTION.empty()
    table = check(history, ATTRIBUTION)
    if not len(table):
        return table
    payers = pa.array({roster.payer_id, *pc.unique(members["payer_id"]).to_pylist()})
    mask = pc.and_(pc.is_in(table["payer_id"], value_set=payers), pc.equal(table["list_id"], roster.list_id))
    return table if pc.all(mask).as_py() else table.filter(mask)


def _editions(past: pa.Table) -> list[Edition]:
    names = ["as_of_on", "received_at", "roster_id", "list_mode", "authority_from", "authority_to"]
    rows = past.select(names).group_by(names).aggregate([]).to_pylist()
    return [Edition(*(row[name] for name in names)) for row in rows]


def _assemble(
    changes: pa.Table,
    past: pa.Table,
    members: pa.Table,
    roster: RosterLike,
    order: list[Edition],
    edition: Edition,
    known_at: datetime,
) -> pa.Table:
    """Return ATTRIBUTION rows: the fold's decisions with the payload of the lines they rest on."""
    if not len(changes):
        return ATTRIBUTION.empty()
    known_from = max([known_at, *(_column_max(past, "known_from"))])
    sequence = 1 + max([0, *_column_max(past, "list_seq")])
    parts = []
    for old in (False, True):
        chosen = changes.filter(pc.equal(changes["old"], old))
        if not len(chosen):
            continue
        source = past if old else members
        payload = source.select([*CARRIED, "row_sha"]).take(chosen["src"])
        editions = pc.subtract(chosen["ord"], 1)
        columns: dict[str, Any] = {name: payload[name] for name in (*CARRIED, "row_sha")}
        columns |= {name: chosen[name] for name in fold.DECIDED}
        columns |= _edition_columns(order, editions)
        columns |= {
            "list_id": pa.repeat(roster.list_id, len(chosen)),
            "known_from": pa.repeat(pa.scalar(known_from, pa.timestamp("us", "UTC")), len(chosen)),
            # A late file's lines that later files already outrank are kept, but were never in force.
            "known_to": pc.if_else(
                chosen["hidden"],
                pa.scalar(known_from, pa.timestamp("us", "UTC")),
                pa.scalar(OPEN_INSTANT, pa.timestamp("us", "UTC")),
            ),
            "list_seq": pa.repeat(pa.scalar(sequence, pa.int64()), len(chosen)),
        }
        columns |= _status(columns)
        arrays = [columns[column.name] for column in ATTRIBUTION.columns]
        parts.append(pa.table(arrays, schema=ATTRIBUTION.schema))
    result = pa.concat_tables(parts)
    if len(parts) > 1 or edition is not order[-1]:
        result = result.sort_by([("business_key", "ascending"), ("valid_from", "ascending"), ("known_to", "ascending")])
    return result


def _edition_columns(order: list[Edition], numbers: Any) -> dict[str, Any]:
    def of(values: Iterable[Any], kind: pa.DataType) -> Any:
        return pa.array(list(values), kind).take(numbers)

    return {
        "roster_id": of((known.roster_id for known in order), pa.string()),
        "as_of_on": of((known.as_of for known in order), pa.date32()),
        "received_at": of((known.received_at for known in order), pa.timestamp("us", "UTC")),
        "list_mode": of((known.mode for known in order), pa.string()),
        "authority_from": of((known.authority_from for known in order), pa.date32()),
        "authority_to": of((known.authority_to for known in order), pa.date32()),
    }


def _status(columns: dict[str, Any]) -> dict[str, Any]:
    """Derive status: inactive = true of no day, suppressed = the payer reports an opt-out."""
    void = pc.less_equal(columns["valid_to"], columns["valid_from"])
    out = pc.fill_null(pc.equal(columns["sharing_pref"], "opt-out"), False)
    status = pc.if_else(void, "inactive", pc.if_else(out, "suppressed", "active"))
    reason = pc.if_else(void, columns["change_type"], pc.if_else(out, "opt_out", pa.scalar(None, pa.string())))
    return {"status": status, "reason_code": reason}


def _column_max(table: pa.Table, name: str) -> list[Any]:
    value = pc.max(table[name]).as_py() if len(table) else None
    return [] if value is None else [value]
