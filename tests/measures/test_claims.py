"""Claims alone against claims and clinical data: what can be computed of a measure."""

from __future__ import annotations

from datetime import date

import pytest

from hiexchange.measures import Measure, completeness
from hiexchange.measures.claims import events

YEAR = (date(2026, 1, 1), date(2026, 12, 31))


def code(value, system="http://example.org"):
    return {"coding": [{"system": system, "code": value}]}


def claim(name, patient, lines, *, diagnoses=(), **more):
    items = [{"sequence": n, "productOrService": code(value), **span} for n, (value, span) in enumerate(lines, 1)]
    return {
        "resourceType": "ExplanationOfBenefit",
        "id": name,
        "status": "active",
        "use": "claim",
        "outcome": "complete",
        "patient": {"reference": f"Patient/{patient}"},
        "billablePeriod": {"start": "2026-03-01", "end": "2026-03-31"},
        "item": items,
        "diagnosis": [{"sequence": 1, "diagnosisCodeableConcept": code(value)} for value in diagnoses],
        **more,
    }


def kinds(resources):
    return sorted((row["resourceType"], row["id"]) for row in resources)


def test_a_claim_stands_for_visits_diagnoses_and_procedures():
    day = {"servicedDate": "2026-03-02"}
    span = {"servicedPeriod": {"start": "2026-03-05", "end": "2026-03-06"}}
    procedure = [{"sequence": 1, "date": "2026-03-05", "procedureCodeableConcept": code("cut")}]
    found = list(events(claim("c", "p", [("a", day), ("b", day), ("x", span)], diagnoses=["ill"], procedure=procedure)))
    visits = [row for row in found if row["resourceType"] == "Encounter"]
    assert [(row["period"]["start"], row["period"]["end"]) for row in visits] == [
        ("2026-03-02", "2026-03-02"),
        ("2026-03-05", "2026-03-06"),
    ]
    assert [len(row["type"]) for row in visits] == [2, 1]
    assert [row["onsetDateTime"] for row in found if row["resourceType"] == "Condition"] == ["2026-03-02"]
    done = {row["code"]["coding"][0]["code"] for row in found if row["resourceType"] == "Procedure"}
    assert done == {"a", "b", "x", "cut"}
    assert all(row["subject"] == {"reference": "Patient/p"} for row in found)
    assert len(kinds(found)) == len(set(kinds(found)))


def test_a_line_without_dates_takes_those_of_the_claim():
    (visit, _) = events(claim("c", "p", [("a", {})]))
    assert visit["period"] == {"start": "2026-03-01", "end": "2026-03-31"}
    assert visit["class"]["code"] == "AMB"
    inpatient = next(events(claim("c", "p", [("a", {})], subType=code("inpatient"))))
    assert inpatient["class"]["code"] == "IMP"


@pytest.mark.parametrize("more", [{"status": "cancelled"}, {"use": "preauthorization"}, {"outcome": "error"}])
def test_what_is_no_settled_claim_stands_for_nothing(more):
    assert list(events(claim("c", "p", [("a", {})], **more))) == []


@pytest.fixture
def hybrid(people):
    """The small measure's people; two have their visit only in claims, one has everything only in clinical data."""
    for person in people[:2]:
        name = person["entry"][0]["resource"]["id"]
        rest = [e for e in person["entry"] if e["resource"]["resourceType"] != "Encounter"]
        visit = claim(f"{name}-eob", name, [("visit", {"servicedDate": "2026-06-02"})])
        person["entry"] = [*rest, {"resource": visit}]
    return people


def test_completeness_tells_what_each_kind_of_data_can_compute(small_bundle, hybrid):
    rows = {row["data"]: row for row in completeness([Measure.load(small_bundle)], hybrid, period=YEAR).to_pylist()}
    # a-hit and b-high are in by claims, c-none and d-old-value by clinical data.
    assert [rows[part]["denominator"] for part in ("claims", "clinical", "both")] == [2, 2, 4]
    # The pressure that makes the hit is clinical, its visit a claim: only together do they count.
    assert [rows[part]["numerator"] for part in ("claims", "clinical", "both")] == [0, 0, 1]
    assert rows["claims"]["denominator_share"] == 0.5
    assert rows["claims"]["numerator_share"] == 0.0
    assert rows["claims"]["not_found"] == 2
    assert rows["both"]["rate"] == 0.25
    assert {row["patients"] for row in rows.values()} == {6}
    assert {row["errors"] for row in rows.values()} == {0}


def test_completeness_reads_a_lake_as_it_reads_bundles(small_bundle, hybrid, tmp_path):
    import json

    from hiexchange.lake import Lake

    (tmp_path / "in").mkdir()
    for person in hybrid:
        for entry in person["entry"]:
            with (tmp_path / "in" / f"{entry['resource']['resourceType']}.ndjson").open("a") as file:
                file.write(json.dumps(entry["resource"]) + "\n")
    lake = Lake(tmp_path / "lake")
    lake.ingest(tmp_path / "in")
    measure = Measure.load(small_bundle)
    assert completeness([measure], lake, period=YEAR).equals(completeness([measure], hybrid, period=YEAR))
