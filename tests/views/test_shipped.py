"""Shipped views on real data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hiexchange import tables
from hiexchange.views import SQLQuery, load_view, view, view_names

Reader = Callable[[Path], list[dict[str, Any]]]


def test_patient_demographics_has_the_columns_of_person(shared: Path) -> None:
    people = view("patient_demographics", shared / "data/synthea-100")
    assert tables.check(people, tables.PERSON).num_rows == 100


def test_patient_demographics_agrees_with_the_json(shared: Path, resources: Reader) -> None:
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


def test_encounters_agree_with_the_json(shared: Path, resources: Reader) -> None:
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
    if isinstance(shipped, SQLQuery):
        assert shipped.schema().names
    else:
        nothing = pa.table({"resourceType": pa.array([], pa.string())})
        assert shipped.run(nothing).schema == shipped.schema()


@pytest.mark.parametrize(
    ("name", "resource", "key"),
    [
        ("condition", "Condition", "condition_id"),
        ("observation", "Observation", "observation_id"),
        ("medication_request", "MedicationRequest", "medication_request_id"),
        ("procedure", "Procedure", "procedure_id"),
        ("immunization", "Immunization", "immunization_id"),
        ("organization", "Organization", "organization_id"),
        ("practitioner", "Practitioner", "practitioner_id"),
    ],
)
def test_every_resource_is_there_once(shared: Path, resources: Reader, name: str, resource: str, key: str) -> None:
    ids = [item["id"] for item in resources(shared / f"data/synthea-100/{resource}.ndjson.gz")]
    given = list(dict.fromkeys(view(name, shared / "data/synthea-100")[key].to_pylist()))
    assert given == ids


def test_observation_values_keep_their_digits(shared: Path, resources: Reader) -> None:
    expected: list[tuple[Any, ...]] = []
    for item in resources(shared / "data/synthea-100/Observation.ndjson.gz"):
        for place, part in enumerate([item, *item.get("component", [])], -1):
            quantity = part.get("valueQuantity", {})
            number = quantity.get("value")
            concept = part.get("valueCodeableConcept", {}).get("coding", [{}])[0].get("code")
            code = part["code"]["coding"][0]["code"]
            expected.append(
                (item["id"], place, code, None if number is None else str(number), quantity.get("code"), concept)
            )
    rows = view("observation", shared / "data/synthea-100").to_pylist()
    columns = ("observation_id", "component", "code", "value_number", "value_unit", "value_code")
    given = [tuple(row[name] for name in columns) for row in rows]
    # Decimal text such as 1E+2 is written differently by Python; compare numbers beside the digits.
    assert [row[:3] + row[4:] for row in given] == [row[:3] + row[4:] for row in expected]
    assert [row[3] for row in given] == [row[3] for row in expected]


def test_conditions_agree_with_the_json(shared: Path, resources: Reader) -> None:
    rows = view("condition", shared / "data/synthea-100").to_pylist()
    given = resources(shared / "data/synthea-100/Condition.ndjson.gz")
    for row, item in zip(rows, given, strict=True):
        assert (row["code"], row["display"]) == (
            item["code"]["coding"][0]["code"],
            item["code"]["coding"][0]["display"],
        )
        assert (row["onset"], row["abatement"]) == (item.get("onsetDateTime"), item.get("abatementDateTime"))
        assert row["encounter_id"] == item["encounter"]["reference"].removeprefix("Encounter/")


def test_encounter_events_are_a_begin_and_an_end(shared: Path, resources: Reader) -> None:
    rows = view("encounter_event", shared / "data/synthea-100").to_pylist()
    expected = []
    begin = {"EMER": "register", "IMP": "admit", "ACUTE": "admit"}
    for item in resources(shared / "data/synthea-100/Encounter.ndjson.gz"):
        expected.append((item["id"], begin.get(item["class"]["code"], "begin"), item["period"]["start"]))
        if "end" in item["period"]:
            expected.append((item["id"], "discharge", item["period"]["end"]))
    assert [(row["encounter_id"], row["change"], row["change_text"]) for row in rows] == expected


def test_coverage_of_cms(shared: Path) -> None:
    v2 = view("coverage", shared / "data/cms-claims/r4-v2").to_pylist()
    assert [row["plan"] for row in v2] == ["Part A", "Part B", "Part C", "Part D"]
    v3 = view("coverage", shared / "data/cms-claims/r4-v3").to_pylist()
    assert {row["mbi"] for row in v3 if row["plan"] != "Part C"} <= {"ABB2BB0BB22", None}
    assert v3[0]["mbi"] == "ABB2BB0BB22"
    assert v3[0]["payor_name"] == "Centers for Medicare & Medicaid Services"


def test_us_core_extensions_of_a_patient(encoded: Any) -> None:
    core = "http://hl7.org/fhir/us/core/StructureDefinition/"

    def omb(name: str, *codes: str) -> dict[str, Any]:
        parts = [{"url": "ombCategory", "valueCoding": {"code": code, "display": f"d{code}"}} for code in codes]
        return {"url": core + name, "extension": [*parts, {"url": "text", "valueString": "as told"}]}

    patient = {
        "resourceType": "Patient",
        "id": "-1",
        "extension": [
            omb("us-core-race", "2106-3", "2028-9"),
            omb("us-core-ethnicity", "2186-5"),
            {"url": core + "us-core-birthsex", "valueCode": "F"},
        ],
        "communication": [
            {"language": {"coding": [{"code": "en"}]}},
            {"language": {"coding": [{"code": "es"}]}, "preferred": True},
        ],
    }
    (row,) = view("patient_demographics", encoded(patient)).to_pylist()
    assert (row["race_code"], row["race_categories"]) == ("2106-3", ["2106-3", "2028-9"])
    assert (row["race_text"], row["ethnicity"], row["birth_sex"]) == ("as told", "d2186-5", "F")
    assert row["language"] == "es"


def test_an_odd_social_security_number_is_not_shown(encoded: Any) -> None:
    odd = {"system": "http://hl7.org/fhir/sid/us-ssn", "value": "123-45-678X"}
    (row,) = view(
        "patient_demographics", encoded({"resourceType": "Patient", "id": "-1", "identifier": [odd]})
    ).to_pylist()
    assert row["ssn4"] is None
