"""Read the history: what was known at an instant, and who was attributed on a day."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange._duck import quiet_connection
from hiexchange.errors import ConfigError
from hiexchange.tables import ATTRIBUTION, OPEN_INSTANT, check


def as_known(history: Any, known_at: datetime) -> pa.Table:
    """Return what was known at an instant: of each attribution the last assertion until then.

    Nothing that became known later has any effect, so a past instant always gives the same answer.
    Attributions that were taken back (true of no day) are left out.

    Args:
        history: ATTRIBUTION rows as stored; anything with ``__arrow_c_stream__``.
        known_at: The instant, timezone-aware.

    Returns:
        ATTRIBUTION rows, one an ``attribution_id``, sorted by ``business_key`` and ``valid_from``;
        ``known_to`` is open.
    """
    table = _until(history, known_at)
    rows = _select(
        table,
        "row",
        "QUALIFY row_number() OVER (PARTITION BY attribution_id ORDER BY known_from DESC, list_seq DESC) = 1 "
        "AND valid_from < valid_to ORDER BY business_key, valid_from",
    )
    chosen = table.take(rows["row"])
    return _with_known_to(chosen, pa.repeat(pa.scalar(OPEN_INSTANT, pa.timestamp("us", "UTC")), len(chosen)))


def versions(history: Any) -> pa.Table:
    """Return every assertion with ``known_to`` derived: the instant at which the next one replaced it.

    The point-in-time join over both axes reads this: ``valid_from <= day < valid_to AND known_from
    <= known_at < known_to``. Lines of late files that were never in force are left out.
    """
    table = check(history, ATTRIBUTION)
    rows = _select(
        table,
        "row, lead(known_from, 1, TIMESTAMPTZ '9999-12-31 00:00:00+00') "
        "OVER (PARTITION BY attribution_id ORDER BY known_from, list_seq) AS until",
        "ORDER BY business_key, valid_from, known_from",
    )
    chosen = table.take(rows["row"])
    chosen = _with_known_to(chosen, rows["until"].cast(pa.timestamp("us", "UTC")))
    keep = pc.and_(pc.less(chosen["known_from"], chosen["known_to"]), pc.less(chosen["valid_from"], chosen["valid_to"]))
    return chosen.filter(keep)


def active(history: Any, on: date, known_at: datetime) -> pa.Table:
    """Return the attributions in force on a day, as known at an instant.

    Args:
        history: ATTRIBUTION rows as stored.
        on: The day; for an encounter, the local date at the facility.
        known_at: The knowledge time.

    Returns:
        ATTRIBUTION rows as :func:`as_known`, ``valid_from <= on < valid_to``. Suppressed rows (the
        payer reports an opt-out) are among them, with their ``status``.
    """
    known = as_known(history, known_at)
    day = pa.scalar(on, pa.date32())
    return known.filter(pc.and_(pc.less_equal(known["valid_from"], day), pc.greater(known["valid_to"], day)))


def _until(history: Any, known_at: datetime) -> pa.Table:
    if known_at.tzinfo is None:
        raise ConfigError("known_at must be timezone-aware", hint="datetime.now(UTC)")
    table = check(history, ATTRIBUTION)
    moment = pa.scalar(known_at, pa.timestamp("us", "UTC"))
    return table.filter(pc.less_equal(table["known_from"], moment))


def _select(table: pa.Table, columns: str, tail: str) -> pa.Table:
    names = ["attribution_id", "business_key", "valid_from", "valid_to", "known_from", "known_to", "list_seq"]
    slim = table.select(names).append_column("row", pa.array(np.arange(len(table))))
    con = quiet_connection()
    try:
        con.execute("SET TimeZone = 'UTC'")
        con.register("slim", slim)
        return con.sql(f"SELECT {columns} FROM slim WHERE known_to > known_from {tail}").to_arrow_table()
    finally:
        con.close()


def _with_known_to(table: pa.Table, known_to: Any) -> pa.Table:
    place = table.schema.get_field_index("known_to")
    return table.set_column(place, ATTRIBUTION.schema.field("known_to"), known_to)
