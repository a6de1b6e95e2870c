"""Encounter rows as events."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.encounters import from_view, read_view
from hiexchange.tables import ENCOUNTER_EVENT, check

RECEIVED = datetime(2026, 3, 10, tzinfo=UTC)


def encounter(**changes: Any) -> dict[str, Any]:
    row = {
        "encounter_id": "e1",
        "status": "finished",
        "class": "IMP",
        "type_code": None,
        "patient_id": "p1",
        "period_start": "2026-03-01T22:00:00-06:00",
        "period_end": "2026-03-04T10:00:00-06:00",
        "admit_source": None,
        "discharge_disposition": "home",
        "service_provider_id": "h1",
        "service_provider_display": "General",
        "attending_practitioner_id": "d1",
        "attending_display": None,
        "diagnosis_condition_ids": ["c1"],
        "last_updated": "2026-03-05T00:00:00Z",
        "labels": [],
        "source_file": "Encounter.ndjson",
        "source_line": 1,
    }
    return row | changes


def table(*rows: dict[str, Any]) -> pa.Table:
    schema = pa.schema(
        [
            (name, pa.string())
            for name in encounter()
            if name not in ("diagnosis_condition_ids", "labels", "source_line")
        ]
        + [
            ("diagnosis_condition_ids", pa.list_(pa.string())),
            ("labels", pa.list_(pa.string())),
            ("source_line", pa.int64()),
        ]
    )
    return pa.Table.from_pylist(list(rows), schema=schema)


def told(**changes: Any) -> list[tuple[str, str]]:
    events = from_view(table(encounter(**changes)), received_at=RECEIVED)
    return list(zip(events["trigger"].to_pylist(), events["status"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [("admit", "in-progress"), ("discharge", "finished")]),
        ({"class": "EMER"}, [("register", "in-progress"), ("discharge", "finished")]),
        ({"class": "AMB"}, [("discharge", "finished")]),
        ({"status": "in-progress", "period_end": None}, [("admit", "in-progress")]),
        ({"status": "in-progress", "class": "AMB", "period_end": None}, [("register", "in-progress")]),
        ({"status": "planned"}, [("preadmit", "planned")]),
        ({"status": "onleave", "period_end": None}, [("admit", "in-progress")]),
        ({"status": "unknown"}, [("admit", "in-progress"), ("discharge", "finished")]),
        ({"status": "cancelled"}, [("cancel_admit", "cancelled")]),
    ],
)
def test_a_state_stands_for_its_events(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert told(**changes) == expected


def test_names_and_codes_come_from_the_other_resources() -> None:
    events = from_view(
        table(encounter(service_provider_id="Organization/h1", attending_practitioner_id="Practitioner/d1")),
        organizations=pa.Table.from_pylist(
            [{"organization_id": "h1", "name": "General Hospital", "npi": "1999999976"}]
        ),
        practitioners=pa.Table.from_pylist([{"practitioner_id": "d1", "npi": "1999999984"}]),
        conditions=pa.Table.from_pylist([{"condition_id": "c1", "system": "s", "code": "I10", "display": "x"}]),
        received_at=RECEIVED,
        zones={"h1": "America/Chicago"},
    )
    assert check(events, ENCOUNTER_EVENT).equals(events)
    admit = events.to_pylist()[0]
    assert (admit["facility_name"], admit["facility_npi"], admit["attending_npi"]) == (
        "General Hospital", "1999999976", "1999999984",
    )  # fmt: skip
    assert admit["diagnoses"] == [{"system": "s", "code": "I10", "display": "x"}]
    assert (admit["event_on"], admit["discharge_disposition"]) == (date(2026, 3, 1), None)


def test_conditional_references_give_the_npi() -> None:
    reference = "Practitioner?identifier=http://hl7.org/fhir/sid/us-npi|1999999984"
    events = from_view(table(encounter(attending_practitioner_id=reference)), received_at=RECEIVED)
    assert events["attending_npi"].to_pylist() == ["1999999984"] * 2


def test_keys_are_the_same_every_day() -> None:
    once, again = (from_view(table(encounter()), received_at=at) for at in (RECEIVED, datetime(2026, 4, 1, tzinfo=UTC)))
    assert once["event_key"].equals(again["event_key"])


def test_what_is_on_record_is_not_repeated_and_what_changed_is_a_new_version() -> None:
    first = read_view(table(encounter(status="in-progress", period_end=None)), received_at=RECEIVED)
    second = read_view(table(encounter()), received_at=RECEIVED, history=first.events)
    assert (second.duplicates, second.events["trigger"].to_pylist()) == (1, ["discharge"])
    record = pa.concat_tables([first.events, second.events])
    third = read_view(table(encounter(discharge_disposition="exp")), received_at=RECEIVED, history=record)
    (row,) = third.events.to_pylist()
    assert (row["trigger"], row["version"], row["corrects"]) == ("discharge", 2, second.events["event_key"][0].as_py())
    cancelled = read_view(table(encounter(status="entered-in-error")), received_at=RECEIVED, history=record)
    (row,) = cancelled.events.to_pylist()
    assert row["material"] and row["corrects"] == first.events["event_key"][0].as_py()


def test_labels_that_come_later_are_put_on_record_though_they_are_no_news() -> None:
    first = read_view(table(encounter()), received_at=RECEIVED)
    labelled = table(encounter(labels=["PSY"]))
    second = read_view(labelled, received_at=RECEIVED, history=first.events)
    assert {(row["material"], row["swallowed_reason"], *row["labels"]) for row in second.events.to_pylist()} == {
        (False, "unchanged", "PSY")
    }
    assert not set(second.events["event_key"].to_pylist()) & set(first.events["event_key"].to_pylist())
    history = pa.concat_tables([first.events, second.events])
    for again in (labelled, table(encounter())):
        assert read_view(again, received_at=RECEIVED, history=history).duplicates == first.events.num_rows


def test_a_visit_first_seen_as_cancelled_is_swallowed() -> None:
    (row,) = from_view(table(encounter(status="cancelled")), received_at=RECEIVED).to_pylist()
    assert (row["material"], row["swallowed_reason"]) == (False, "cancelled_before_send")


def test_rows_without_a_usable_time_are_counted_and_named() -> None:
    intake = read_view(
        table(
            encounter(period_start=None, period_end=None, **{"class": "AMB"}),
            encounter(encounter_id="e2", period_start="2026-13-01", period_end="2026", **{"class": "AMB"}),
            encounter(encounter_id="e3", period_start="2027-01-01", period_end="2027-01-02"),
            encounter(encounter_id="e4", service_provider_id=None, **{"class": "AMB"}),
        ),
        received_at=RECEIVED,
    )
    assert intake.issues["code"].to_pylist() == ["no_time", "no_time", "future_time", "future_time"]
    assert (intake.read, intake.quarantined) == (5, 4)
    assert "unknown_facility" in intake.events.to_pylist()[0]["flags"]
