"""The ledger as corridor tables."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

import pyarrow as pa

from hiexchange.delivery.base import Health, microseconds
from hiexchange.delivery.cadence import windowed
from hiexchange.delivery.ledger import Store
from hiexchange.delivery.sealing import channels, due_channels
from hiexchange.tables import DELIVERY, INSTANT, INT, OPEN_INSTANT, RECEIPT, TEXT, Table

INACTIVE = "subscriber_inactive"
_WAITING = ("pending", "retry")


def deliveries(store: Store, now: datetime | None) -> pa.Table:
    """Return DELIVERY rows; a sealed delivery has its batch's state."""
    found = store.rows(
        "SELECT d.delivery_id, d.subscriber_id, d.channel_id, d.event_key, d.material_version, d.template_major, "
        "COALESCE(b.state, d.state), COALESCE(b.attempts, 0), COALESCE(b.due_at, d.due_at), d.batch_id, b.sequence, "
        "COALESCE(b.reason, d.reason), d.created_at, b.acked_at "
        "FROM delivery d LEFT JOIN batch b ON b.batch_id = d.batch_id ORDER BY d.created_at, d.delivery_id"
    )
    rows = [list(row) for row in found]
    closed = inactive_places(store, now)
    if closed:
        for row in rows:
            if (row[1], row[2]) in closed and row[6] in _WAITING:
                row[6], row[11] = "held", INACTIVE
    return _table(DELIVERY, rows)


def receipts(store: Store) -> pa.Table:
    """Return RECEIPT rows."""
    found = store.rows(
        "SELECT a.batch_id, a.attempt_no, b.subscriber_id, b.channel_id, b.sequence, b.name, a.started_at, a.ended_at, "
        "a.outcome, a.code, b.row_count, b.size_bytes, b.sha256 FROM attempt a JOIN batch b ON b.batch_id = a.batch_id "
        "ORDER BY a.started_at, b.subscriber_id, b.channel_id, b.sequence, a.attempt_no"
    )
    return _table(RECEIPT, found)


LOG = pa.schema([("n", INT), ("at", INSTANT), ("kind", TEXT), ("subject", TEXT), ("data", TEXT), ("hash", TEXT)])


def log(store: Store, last: int | None) -> pa.Table:
    """Return the audit trail, oldest first; the ``last`` rows of it when given."""
    found = store.rows("SELECT n, at, kind, subject, data, hash FROM audit ORDER BY n DESC LIMIT ?", (last or 2**62,))
    columns: list[Any] = list(zip(*reversed(found), strict=True)) or [[] for _ in LOG]
    arrays = [
        pa.array(values, pa.int64()).cast(INSTANT) if field.type == INSTANT else pa.array(values, field.type)
        for values, field in zip(columns, LOG, strict=True)
    ]
    return pa.table(arrays, schema=LOG)


def states(store: Store, now: datetime) -> dict[str, int]:
    """Return deliveries by state; their sum is the number of delivery rows.

    Counted from the batches and the unsealed rows, which have indexes, rather than from every row
    ever delivered: a ledger keeps years.
    """
    counts: Counter[str] = Counter()
    sealed = "SELECT state, sum(row_count) FROM batch WHERE replay = 0 AND state <> 'void'"
    loose = "SELECT state, count(*) FROM delivery WHERE batch_id IS NULL"
    for sql in (sealed, loose):
        for state, count in store.rows(f"{sql} GROUP BY state"):
            counts[state] += int(count)
    for place in inactive_places(store, now):
        for sql in (sealed, loose):
            of_place = (
                f"{sql} AND subscriber_id = ? AND channel_id = ? AND state IN ('pending', 'retry') GROUP BY state"
            )
            for state, count in store.rows(of_place, place):
                counts[state] -= int(count)
                counts["held"] += int(count)
    return {state: count for state, count in sorted(counts.items()) if count}


def inactive_places(store: Store, now: datetime | None) -> set[tuple[str, str]]:
    """Return the channels whose subscription is not in force: their backlog is held, not lost."""
    every = {
        (subscriber, channel) for subscriber, channel in store.rows("SELECT subscriber_id, channel_id FROM channel")
    }
    on = {row.place for row in channels(store) if now is None or row.spec.active(now.date())}
    return every - on


def health(store: Store, now: datetime) -> Health:
    """Return what an operator should be woken for."""
    at = microseconds(now)
    oldest = store.rows(
        "SELECT min(d.created_at) FROM delivery d LEFT JOIN batch b ON b.batch_id = d.batch_id "
        "WHERE (b.batch_id IS NULL AND d.state = 'pending' AND d.due_at <= ?) "
        "OR b.state IN ('pending', 'retry', 'unknown', 'claimed', 'sent')",
        (at,),
    )[0][0]
    dead = "SELECT (SELECT count(*) FROM batch WHERE state = 'dead') + (SELECT count(*) FROM delivery WHERE state = 'dead')"
    doubt = "SELECT count(*) FROM batch WHERE state = 'unknown'"
    circuits = store.rows("SELECT name FROM endpoint WHERE open_until > ? ORDER BY name", (at,))
    return Health(
        oldest_waiting_s=(at - oldest) / 1e6 if oldest is not None and oldest < at else 0.0,
        dead=int(store.rows(dead)[0][0]),
        in_doubt=int(store.rows(doubt)[0][0]),
        open_circuits=tuple(name for (name,) in circuits),
        overdue=tuple(row.spec.key for row in due_channels(store, now) if windowed(row.spec)),
    )


def _table(table: Table, rows: list[Any]) -> pa.Table:
    if not rows:
        return table.empty()
    limit = microseconds(OPEN_INSTANT)
    arrays = []
    for column, values in zip(table.columns, zip(*rows, strict=True), strict=True):
        if pa.types.is_timestamp(column.type):
            clipped = [None if value is None else min(value, limit) for value in values]
            arrays.append(pa.array(clipped, pa.int64()).cast(column.type))
        else:
            arrays.append(pa.array(values, column.type))
    return pa.table(arrays, schema=table.schema)
