"""What Encounter rows point to, from a real lake: diagnoses, and the labels that come with them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.encounters import lookups, read_view
from hiexchange.lake import Lake

ROW = {
    "encounter_id": "e1",
    "status": "finished",
    "class": "IMP",
    "patient_id": "p1",
    "period_start": "2026-03-01T22:00:00Z",
    "period_end": "2026-03-04T10:00:00Z",
    "diagnosis_condition_ids": ["Condition/c1"],
    "labels": ["N"],
}


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        (None, ["N"]),
        ({"versionId": "1"}, ["N"]),
        ({"security": [{"system": "s", "code": "ETH"}]}, ["ETH", "N"]),
        ({"security": [{"system": "s"}]}, ["N", "unreadable"]),
    ],
)
def test_a_label_on_a_condition_is_a_label_of_the_event(
    tmp_path: Path, meta: dict[str, Any] | None, expected: list[str]
) -> None:
    condition = {"resourceType": "Condition", "id": "c1", "code": {"coding": [{"system": "s", "code": "F10"}]}}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "Condition.ndjson").write_text(json.dumps(condition | ({"meta": meta} if meta else {})) + "\n")
    lake = Lake(tmp_path / "lake")
    lake.ingest(tmp_path / "in")
    tables = lookups(lake)
    assert list(tables) == ["conditions"]
    intake = read_view(pa.Table.from_pylist([ROW]), **tables, received_at=datetime(2026, 3, 10, tzinfo=UTC))
    assert intake.events["labels"].to_pylist() == [expected, expected]
    assert intake.events["diagnoses"][0].as_py()[0]["code"] == "F10"


def test_names_and_numbers_are_found_where_they_are_given(tmp_path: Path) -> None:
    npi = {"system": "http://hl7.org/fhir/sid/us-npi", "value": "1999999984"}
    organizations = [
        {"resourceType": "Organization", "id": "h1", "identifier": [{"value": "7"}, npi], "name": "General"},
        {"resourceType": "Organization", "id": "h2"},
    ]
    (tmp_path / "in").mkdir()
    text = "".join(json.dumps(item) + "\n" for item in organizations)
    (tmp_path / "in" / "Organization.ndjson").write_text(text)
    (tmp_path / "in" / "Practitioner.ndjson").write_text('{"resourceType":"Practitioner","id":"d1"}\n')
    lake = Lake(tmp_path / "lake")
    lake.ingest(tmp_path / "in")
    tables = lookups(lake)
    assert sorted(tables["organizations"].to_pylist(), key=str) == [
        {"organization_id": "h1", "npi": "1999999984", "name": "General"},
        {"organization_id": "h2", "npi": None, "name": None},
    ]
    assert tables["practitioners"].to_pylist() == [{"practitioner_id": "d1", "npi": None}]
