"""Did every source send what it usually does? Expected against received, by day or hour; and who has fallen silent.

What is usual is the median of the same weekday (and hour) of the weeks before: hospitals have weekends. Every
message counts, swallowed ones too, since a feed that only repeats itself is not broken. Table in, table out.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa

from hiexchange._duck import quiet_connection
from hiexchange.tables import ENCOUNTER_EVENT, INSTANT, INT, NUMBER, TEXT, check

COMPLETENESS = pa.schema(
    [
        pa.field("source", TEXT, nullable=False),
        pa.field("starts_at", INSTANT, nullable=False),
        pa.field("received", INT, nullable=False),
        pa.field("expected", NUMBER),
        pa.field("state", TEXT, nullable=False),
        pa.field("latency_s", NUMBER),
        pa.field("with_person", NUMBER),
        pa.field("with_class", NUMBER),
        pa.field("with_attending", NUMBER),
        pa.field("with_diagnoses", NUMBER),
        pa.field("with_disposition", NUMBER),
    ]
)
"""One source and one day or hour. ``source``: MSH-4, else the facility. ``starts_at``: local midnight, or the hour.
``expected``: median of the same weekday and hour of the weeks before; null where there are none. ``state``: ok, low,
silent (nothing came though something was expected), high, or new. ``latency_s``: median seconds from event to
receipt. ``with_…``: part of the messages that say it, 0 to 1 (``with_disposition``: of the discharges)."""

_QUERY = """
WITH seen AS (
  SELECT coalesce(sending_facility, facility_id) AS source, date_trunc($unit, timezone($zone, received_at)) AS slot, *
  FROM event_in
), counted AS (
  SELECT source, slot, count(*) AS received, median(epoch(received_at) - epoch(event_at)) AS latency_s,
         avg((person_id IS NOT NULL)::INTEGER) AS with_person, avg(("class" IS NOT NULL)::INTEGER) AS with_class,
         avg((attending_npi IS NOT NULL)::INTEGER) AS with_attending,
         avg((coalesce(len(diagnoses), 0) > 0)::INTEGER) AS with_diagnoses,
         avg((discharge_disposition IS NOT NULL)::INTEGER) FILTER (WHERE trigger = 'discharge') AS with_disposition
  FROM seen GROUP BY source, slot
), begun AS (SELECT source, min(slot) AS first FROM counted GROUP BY source),
grid AS (
  SELECT source, first, unnest(generate_series($since, $until, $step)) AS slot FROM begun
), usual AS (
  SELECT g.source, g.slot, median(coalesce(c.received, 0)) AS expected
  FROM grid g CROSS JOIN range(1, $weeks + 1) k
  LEFT JOIN counted c ON c.source = g.source AND c.slot = g.slot - to_days((7 * k.range)::INTEGER)
  WHERE g.slot - to_days((7 * k.range)::INTEGER) >= g.first
  GROUP BY g.source, g.slot
)
SELECT g.source, timezone($zone, g.slot) AS starts_at, coalesce(c.received, 0) AS received, u.expected,
       CASE WHEN u.expected IS NULL THEN 'new'
            WHEN coalesce(c.received, 0) = 0 AND u.expected > 0 THEN 'silent'
            WHEN c.received < u.expected * $low THEN 'low'
            WHEN u.expected > 0 AND c.received * $low > u.expected THEN 'high'
            ELSE 'ok' END AS state,
       c.latency_s, c.with_person, c.with_class, c.with_attending, c.with_diagnoses, c.with_disposition
FROM grid g LEFT JOIN usual u USING (source, slot) LEFT JOIN counted c USING (source, slot)
WHERE g.slot >= g.first
ORDER BY g.source, g.slot
"""


def completeness(
    events: Any,
    *,
    since: date,
    until: date,
    by: Literal["day", "hour"] = "day",
    weeks: int = 8,
    zone: str = "UTC",
    low: float = 0.5,
) -> pa.Table:
    """Return :data:`COMPLETENESS` rows of every source, from its first message on.

    Args:
        events: ENCOUNTER_EVENT rows: those of the period, and of the weeks before it.
        since: First day.
        until: Last day, inclusive; a day that is not over reads as low.
        by: One row a day or an hour.
        weeks: How many weeks back what is usual is taken from.
        zone: IANA zone in which days begin.
        low: Part of what is expected under which a period is low; over its inverse it is high.

    Raises:
        SchemaMismatch: The events are not ENCOUNTER_EVENT rows.
    """
    last = datetime.combine(until, datetime.min.time()) + timedelta(hours=23 if by == "hour" else 0)
    parameters = {
        "unit": by,
        "zone": zone,
        "since": datetime.combine(since, datetime.min.time()),
        "until": last,
        "step": timedelta(hours=1) if by == "hour" else timedelta(days=1),
        "weeks": weeks,
        "low": low,
    }
    with quiet_connection() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("event_in", check(events, ENCOUNTER_EVENT))
        return connection.sql(_QUERY, params=parameters).to_arrow_table().cast(COMPLETENESS)


@dataclass(frozen=True, slots=True)
class Silence:
    """A source that should have sent something by now."""

    source: str
    last_at: datetime
    """Receipt of its last message."""
    missing: float
    """Messages that usually come in the time since."""


def silent_sources(events: Any, *, now: datetime, least: float = 5.0, weeks: int = 4) -> tuple[Silence, ...]:
    """Return the sources that have been silent for a time in which they usually send ``least`` messages.

    A clinic that is closed at night is not silent then; a hospital is, within the hour.

    Args:
        events: ENCOUNTER_EVENT rows of the last weeks.
        now: The instant to judge by (aware).
        least: Expected messages from which silence is no accident.
        weeks: How many weeks back what is usual is taken from; the time a source has existed counts.
    """
    table = check(events, ENCOUNTER_EVENT)
    at = now.astimezone(UTC)
    begin = at - timedelta(weeks=weeks)
    received: dict[str, list[datetime]] = {}
    columns = (table[name].to_pylist() for name in ("sending_facility", "facility_id", "received_at"))
    for sender, facility, instant in zip(*columns, strict=True):
        if begin <= instant <= at:
            received.setdefault(sender or facility, []).append(instant)
    found = []
    for source, instants in sorted(received.items()):
        instants.sort()
        missing = _usually(instants, at)
        if missing >= least:
            found.append(Silence(source, instants[-1], round(missing, 1)))
    return tuple(found)


def _usually(instants: list[datetime], now: datetime) -> float:
    """Return how many came, on average, in the stretch of earlier weeks that corresponds to the time since the last."""
    first, last, counts = instants[0], instants[-1], []
    shift = timedelta(weeks=1)
    while last - shift >= first:
        counts.append(bisect_right(instants, now - shift) - bisect_right(instants, last - shift))
        shift += timedelta(weeks=1)
    return sum(counts) / len(counts) if counts else 0.0
