"""The bitemporal history: one more roster in, the ATTRIBUTION rows to append out.

The history of a list is a fold over its files in the order of the days they speak of, never of their
arrival. A file that is the newest is folded onto the present state; a late one makes the list be
folded anew from the assertions kept in the history, and only differences are appended. Stored rows
are never edited, and what was known at a past instant stays what it was: a file never becomes known
before the last one of its list.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange._duck import quiet_connection
from hiexchange.attribution import fold
from hiexchange.errors import ConfigError
from hiexchange.tables import ATTRIBUTION, INSTANT, MEMBER, OPEN_DATE, OPEN_INSTANT, check

CARRIED = tuple(
    column.name
    for column in ATTRIBUTION.columns
    if column.name in {other.name for other in MEMBER.columns}
    and column.name not in ("valid_from", "valid_to", "roster_id", "row_no", "row_sha", "as_of_on")
)
"""Columns that an attribution takes over from its roster line."""

SHARED = 1 << 16
"""Rows of a chunk of a constant column; all its chunks are one."""


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
    late = any(known > edition for known in editions)
    order = sorted([*editions, edition]) if late else [edition]
    keys = fold.business_keys(members, roster.list_id)
    changes = _folded(past, members, keys, order, order.index(edition) + 1)
    # Knowledge is not back-dated: a late file is known when we get it.
    known_from = max([known_at, *_column_max(past, "known_from")])
    sequence = 1 + max([0, *_column_max(past, "list_seq")])
    changes, past = _rested_on(changes, past)
    return _assemble(changes, (past, members), keys, roster.list_id, order, known_from, sequence)


def _folded(past: pa.Table, members: pa.Table, keys: pa.ChunkedArray, order: list[Edition], newest: int) -> pa.Table:
    """Return what the fold changes; the list is folded anew where later files are known."""
    con = quiet_connection()
    try:
        work = fold.Work(con, past, members, keys, [known.roster_id for known in order], newest)
        work.start()
        for number, known in enumerate(order, 1):
            work.step(number, known)
        return work.differences()
    finally:
        con.close()


def _rested_on(changes: pa.Table, past: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the changes with the only rows of the history they rest on: few, where most lines are confirmed."""
    old = changes["old"].to_numpy()
    rows = changes["src"].to_numpy().copy()
    kept = past.take(pa.array(rows[old]))
    rows[old] = np.arange(len(kept))
    return changes.set_column(changes.schema.get_field_index("src"), "src", pa.array(rows)), kept


def _edition(roster: RosterLike) -> Edition:
    begin = getattr(roster, "authority_from", None) or roster.as_of
    end = getattr(roster, "authority_to", None) or OPEN_DATE
    return Edition(roster.as_of, roster.received_at, roster.roster_id, roster.mode, begin, end)


def _of_list(history: Any, roster: RosterLike, members: pa.Table) -> pa.Table:
    """Return the history of the roster's list, read batch by batch: a history has millions of rows.

    Without ``attribution_id``, which follows from business key and first day.
    """
    if history is None:
        return ATTRIBUTION.empty().drop_columns("attribution_id")
    payers = pa.array({roster.payer_id, *pc.unique(members["payer_id"]).to_pylist()})
    held = isinstance(history, pa.Table)
    reader = history.to_reader(SHARED) if held else pa.RecordBatchReader.from_stream(history)
    parts, pending, shared = [], list[pa.Table](), dict[str, pa.Array]()
    for batch in reader:
        table = check(pa.Table.from_batches([batch]), ATTRIBUTION).drop_columns("attribution_id")
        mask = pc.and_(pc.is_in(table["payer_id"], value_set=payers), pc.equal(table["list_id"], roster.list_id))
        pending.append(table if pc.all(mask).as_py() else table.filter(mask))
        if held or len(pending) == 4:
            parts.append(_slim(pa.concat_tables(pending), shared, copy=not held))
            pending.clear()
    parts.extend(_slim(table, shared, copy=False) for table in pending)
    pa.default_memory_pool().release_unused()  # what the reader took, a tenth of a gigabyte
    return pa.concat_tables(parts) if parts else ATTRIBUTION.empty().drop_columns("attribution_id")


def _slim(table: pa.Table, shared: dict[str, pa.Array], *, copy: bool) -> pa.Table:
    """Return the rows with columns of one value in a chunk ``shared`` between calls.

    ``copy`` takes the other columns out of a reader's roomy buffers.
    """
    columns = []
    for field, column in zip(table.schema, table.columns, strict=True):
        first = column[0] if len(column) else None
        empty = column.null_count == len(column)
        if first is None or not (
            empty or (not column.null_count and column[-1] == first and pc.all(pc.equal(column, first)).as_py())
        ):
            columns.append(column.combine_chunks() if copy else column)
            continue
        if field.name not in shared or shared[field.name][0] != first:
            shared[field.name] = pa.repeat(first, SHARED)
        columns.append(_of_chunk(shared[field.name], len(column)))
    return pa.table(columns, schema=table.schema)


def _editions(past: pa.Table) -> list[Edition]:
    names = ["as_of_on", "received_at", "roster_id", "list_mode", "authority_from", "authority_to"]
    rows = past.select(names).group_by(names).aggregate([]).to_pylist()
    return [Edition(*(row[name] for name in names)) for row in rows]


def _assemble(
    changes: pa.Table,
    sources: tuple[pa.Table, pa.Table],
    keys: pa.ChunkedArray,
    list_id: str,
    order: list[Edition],
    known_from: datetime,
    sequence: int,
) -> pa.Table:
    """Return ATTRIBUTION rows: the fold's decisions with the payload of the lines they rest on."""
    past, members = sources
    parts = []
    for old, source in ((False, members), (True, past)):
        chosen = changes.filter(pc.equal(changes["old"], old))
        if not len(chosen):
            continue
        rows = chosen["src"]
        begin, end = ("asserted_from", "asserted_to") if old else ("valid_from", "valid_to")
        absent = chosen["absent"]
        key = (past["business_key"] if old else keys).take(rows)
        columns: dict[str, Any] = {name: _taken(source[name], rows) for name in (*CARRIED, "row_sha")}
        columns |= {
            "attribution_id": fold.attribution_ids(key, chosen["f"], chosen["hidden"], sequence),
            "business_key": key,
            "valid_from": chosen["f"],
            "valid_to": chosen["t"],
            "change_type": pa.array(fold.CHANGES).take(chosen["change"]),
            "row_no": pc.if_else(absent, 0, source["row_no"].take(rows)),
            "asserted_from": pc.if_else(absent, None, source[begin].take(rows)),
            "asserted_to": pc.if_else(absent, None, source[end].take(rows)),
            "list_id": _repeated(list_id, pa.string(), len(chosen)),
            "list_seq": _repeated(sequence, pa.int64(), len(chosen)),
            "known_from": _repeated(known_from, INSTANT, len(chosen)),
            # Lines of a late file that later files already outrank are kept, but were never in force.
            "known_to": pc.if_else(chosen["hidden"], pa.scalar(known_from, INSTANT), pa.scalar(OPEN_INSTANT, INSTANT)),
        }
        columns |= _edition_columns(order, chosen["ord"])
        columns |= _status(columns)
        parts.append(pa.table([columns[column.name] for column in ATTRIBUTION.columns], schema=ATTRIBUTION.schema))
    return pa.concat_tables(parts) if parts else ATTRIBUTION.empty()


def _taken(column: pa.ChunkedArray, rows: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return chosen values; a column of one value stays one value that shares memory."""
    if column.null_count == len(column):
        return _repeated(None, column.type, len(rows))
    if not column.null_count and pa.types.is_string(column.type):
        low_high = pc.min_max(column)
        if low_high["min"] == low_high["max"]:
            return _repeated(low_high["min"].as_py(), column.type, len(rows))
    return column.take(rows)


def _repeated(value: Any, kind: pa.DataType, count: int) -> pa.ChunkedArray:
    return _of_chunk(pa.repeat(pa.scalar(value, kind), min(count, SHARED)), count)


def _of_chunk(chunk: pa.Array, count: int) -> pa.ChunkedArray:
    whole, rest = divmod(count, SHARED)
    return pa.chunked_array(
        [*[chunk] * whole, chunk.slice(0, rest)] if whole else [chunk.slice(0, rest)], type=chunk.type
    )


def _edition_columns(order: list[Edition], numbers: pa.ChunkedArray) -> dict[str, Any]:
    given: dict[str, tuple[list[Any], Any]] = {
        "roster_id": ([known.roster_id for known in order], pa.string()),
        "as_of_on": ([known.as_of for known in order], pa.date32()),
        "received_at": ([known.received_at for known in order], INSTANT),
        "list_mode": ([known.mode for known in order], pa.string()),
        "authority_from": ([known.authority_from for known in order], pa.date32()),
        "authority_to": ([known.authority_to for known in order], pa.date32()),
    }
    if len(order) == 1:
        return {name: _repeated(values[0], kind, len(numbers)) for name, (values, kind) in given.items()}
    places = pc.subtract(numbers, 1)
    return {name: pa.array(values, kind).take(places) for name, (values, kind) in given.items()}


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
