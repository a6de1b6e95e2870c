"""Shipped views on real data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from hiexchange import tables
from hiexchange.views import load_view, view, view_names


def resources(path: Path) -> list[dict]:
    with gzip.open(path) as file:
        return [json.loads(line, parse_float=str) for line in file]


def test_patient_demographics_has_the_columns_of_person(shared: Path) -> None:
    people = view("patient_demographics", shared / "data/synthea-100")
    assert tables.check(people, tables.PERSON).num_rows == 100


def test_patient_demographics_agrees_with_the_json(shared: Path) -> None:
    people = {row["person_id"]: row for row in view("patient_demographics", shared / "data/synthea-100").to_pylist()}
    for patient in resources(shared / "data/synthea-100/Patient.ndjson.gz"):
        row = people[patient["id"]]
        name = next(item for item in patient["name"] if item["use"] == "official")
        assert (row["first_name"], row["last_name"]) == (name["given"][0], name["family"])
        assert (row["birth_date"], row["sex"]) == (patient["birthDate"], patient["gender"])
        codes = {item["type"]["coding"][0]["code"]: item["value"] for item in patient["identifier"] if "type" in item}
        assert row["mrn"] == codes["MR"]
        assert row["ssn4"] == codes["SS"][-4:]
        assert row["zip"] == patient["address"][0].get("postalCode")
        assert row["phone"] == patient["telecom"][0]["value"]


@pytest.mark.parametrize(
    ("folder", "mbi", "zip_code"), [("r4-v2", "3456789", "12345"), ("r4-v3", "ABB2BB0BB22", "77840")]
)
def test_the_current_mbi_of_a_medicare_patient(shared: Path, folder: str, mbi: str, zip_code: str) -> None:
    (row,) = view("patient_demographics", shared / "data/cms-claims" / folder).to_pylist()
    assert (row["mbi"], row["zip"]) == (mbi, zip_code)


def test_encounters_agree_with_the_json(shared: Path) -> None:
    rows = view("encounter", shared / "data/synthea-100").to_pylist()
    given = resources(shared / "data/synthea-100/Encounter.ndjson.gz")
    assert [row["encounter_id"] for row in rows] == [item["id"] for item in given]
    for row, encounter in zip(rows, given, strict=True):
        assert row["class"] == encounter["class"]["code"]
        assert row["patient_id"] == encounter["subject"]["reference"].removeprefix("Patient/")
        assert (row["period_start"], row["period_end"]) == (encounter["period"]["start"], encounter["period"]["end"])
        assert row["attending_display"] == encounter["participant"][0]["individual"]["display"]
        assert row["service_provider_display"] == encounter["serviceProvider"]["display"]
    assert [row["source_line"] for row in rows] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize("name", view_names())
def test_every_shipped_view_is_clean_and_empty_on_no_data(name: str) -> None:
    shipped = load_view(name)
    assert shipped.warnings == ()
    nothing = pa.table({"resourceType": pa.array([], pa.string())})
    assert shipped.run(nothing).schema == shipped.schema()
