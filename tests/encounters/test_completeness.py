"""Expected against received, by source: weekends, gaps, new sources, and who has fallen silent."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.encounters import completeness, silent_sources
from hiexchange.encounters.completeness import COMPLETENESS
from hiexchange.errors import SchemaMismatch
from hiexchange.tables import ENCOUNTER_EVENT

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)


def feed(source: str, instants: Iterable[datetime], **changes: Any) -> list[dict[str, Any]]:
    """One event an instant, received two minutes after it happened."""
    return [
        {
            "event_key": f"{source}{number}{at.isoformat()}",
            "facility_id": "fac",
            "sending_facility": source,
            "visit_number": str(number),
            "trigger": "admit",
            "version": 1,
            "event_at": at - timedelta(minutes=2),
            "event_on": at.date(),
            "received_at": at,
            "person_id": "p" if number % 2 else None,
            "status": "in-progress",
            "material_hash": "h",
            "material": True,
            "source": "hl7v2",
            "message_sha": "s",
            **changes,
        }
        for number, at in enumerate(instants)
    ]


def workdays(weeks: int, each: int) -> list[datetime]:
    """``each`` messages an hour apart from 08:00 on, Monday to Friday, in the weeks before MONDAY."""
    days = (MONDAY - timedelta(days=number) for number in range(1, 7 * weeks + 1))
    return [day + timedelta(hours=8 + hour) for day in days if day.weekday() < 5 for hour in range(each)]


def by_day(table: pa.Table, source: str) -> list[tuple[int, int, float | None, str]]:
    """(day of March, received, expected, state) of one source."""
    return [
        (row["starts_at"].day, row["received"], row["expected"], row["state"])
        for row in table.to_pylist()
        if row["source"] == source
    ]


def test_a_weekend_is_no_gap_and_a_weekday_is() -> None:
    rows = feed("clinic", [*workdays(4, 6), *(MONDAY + timedelta(hours=8 + hour) for hour in range(2))])
    table = completeness(ENCOUNTER_EVENT.from_rows(rows), since=date(2026, 2, 28), until=date(2026, 3, 3))
    assert table.schema == COMPLETENESS
    assert by_day(table, "clinic") == [(28, 0, 0.0, "ok"), (1, 0, 0.0, "ok"), (2, 2, 6.0, "low"), (3, 0, 6.0, "silent")]


def test_rates_and_latency_are_of_the_day() -> None:
    rows = feed("a", [MONDAY + timedelta(hours=hour) for hour in range(4)], attending_npi="1999999984")
    (row,) = completeness(ENCOUNTER_EVENT.from_rows(rows), since=MONDAY.date(), until=MONDAY.date()).to_pylist()
    assert (row["state"], row["expected"], row["latency_s"]) == ("new", None, 120.0)
    assert [row[name] for name in ("with_person", "with_class", "with_attending", "with_disposition")] == [
        0.5,
        0.0,
        1.0,
        None,
    ]


def test_hours_are_counted_in_the_zone_and_a_flood_is_seen() -> None:
    usual = [MONDAY - timedelta(weeks=week) + timedelta(hours=14) for week in (1, 2, 3)]
    flood = [MONDAY + timedelta(hours=14, minutes=minute) for minute in range(9)]
    table = completeness(
        ENCOUNTER_EVENT.from_rows(feed("a", [*usual, *flood])),
        since=MONDAY.date(),
        until=MONDAY.date(),
        by="hour",
        zone="America/Chicago",
    )
    rows = [row for row in table.to_pylist() if row["received"]]
    assert [(row["starts_at"], row["received"], row["expected"], row["state"]) for row in rows] == [
        (MONDAY + timedelta(hours=14), 9, 1.0, "high")
    ]
    assert table.num_rows == 24


def test_who_is_silent_depends_on_what_usually_comes() -> None:
    hospital = [MONDAY - timedelta(hours=hour) for hour in range(4, 24 * 28)]
    clinic = workdays(4, 8)
    events = ENCOUNTER_EVENT.from_rows([*feed("hospital", hospital), *feed("clinic", clinic)])
    # Sunday to Monday midnight: the clinic is closed, four messages of the hospital are no alarm yet.
    assert silent_sources(events, now=MONDAY, least=5) == ()
    (one,) = silent_sources(events, now=MONDAY + timedelta(hours=3), least=5)
    assert (one.source, one.last_at, one.missing) == ("hospital", MONDAY - timedelta(hours=4), 7.0)
    names = [one.source for one in silent_sources(events, now=MONDAY + timedelta(hours=14), least=5)]
    assert names == ["clinic", "hospital"]


def test_a_new_source_and_no_source_are_never_silent() -> None:
    events = ENCOUNTER_EVENT.from_rows(feed("new", [MONDAY]))
    assert silent_sources(events, now=MONDAY + timedelta(days=3)) == ()
    assert silent_sources(ENCOUNTER_EVENT.empty(), now=MONDAY) == ()
    assert completeness(ENCOUNTER_EVENT.empty(), since=MONDAY.date(), until=MONDAY.date()).num_rows == 0


def test_other_tables_are_refused() -> None:
    with pytest.raises(SchemaMismatch):
        completeness(pa.table({"a": [1]}), since=MONDAY.date(), until=MONDAY.date())
