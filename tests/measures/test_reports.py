"""Supplemental data and gaps-in-care documents: what leaves the house as FHIR."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fhir.resources.R4B.composition import Composition
from fhir.resources.R4B.detectedissue import DetectedIssue
from fhir.resources.R4B.measurereport import MeasureReport

from hiexchange.errors import ConfigError, MeasureError
from hiexchange.measures import Measure
from hiexchange.measures.supplemental import SCHEMA, shares

YEAR = (date(2026, 1, 1), date(2026, 12, 31))
NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)


@pytest.fixture
def with_supplemental(supplemental_bundle):
    return Measure.load(supplemental_bundle)


def test_supplemental_data_is_of_the_initial_population_and_an_error_spoils_nothing(with_supplemental, people):
    run = with_supplemental.evaluate(people, period=YEAR)
    rows = with_supplemental.supplemental(run).to_pylist()
    assert {row["subject"] for row in rows} == {"a-hit", "b-high", "c-none", "d-old-value"}
    mine = {row["id"]: row for row in rows if row["subject"] == "b-high"}
    assert mine["sde-female"]["text"] == "false"
    assert (mine["sde-coded"]["part"], mine["sde-coded"]["system"], mine["sde-coded"]["code"]) == (
        "kind",
        "http://x.org",
        "x",
    )
    assert (mine["risk-visits"]["value"], mine["risk-visits"]["usage"]) == (1.0, "risk-adjustment-factor")
    assert mine["risk-broken"]["error"] == "Broken"
    assert run.summary().first.errors == 0


def test_supplemental_data_needs_a_source_that_can_be_read_again(with_supplemental, people):
    run = with_supplemental.evaluate(iter(people), period=YEAR)
    with pytest.raises(ConfigError, match="read again"):
        with_supplemental.supplemental(run)
    assert with_supplemental.supplemental(run, people).num_rows == 16


def test_measure_reports_carry_supplemental_data(with_supplemental, people):
    run = with_supplemental.evaluate(people, period=YEAR)
    table = with_supplemental.supplemental(run)
    report = run.individual("a-hit", supplemental=table)
    MeasureReport.model_validate(report)
    assert len(report["contained"]) == 3
    references = {item["reference"] for item in report["evaluatedResource"]}
    assert {f"#{item['id']}" for item in report["contained"]} <= references
    whole = run.to_fhir(supplemental=table)
    MeasureReport.model_validate(whole)
    (counted,) = whole["contained"]
    assert (counted["code"]["coding"][0]["code"], counted["valueInteger"]) == ("x", 4)


def cell(subject, element, code, error=None):
    blank = dict.fromkeys(SCHEMA.names)
    return {**blank, "subject": subject, "id": element, "code": code, "error": error}


def test_small_cells_of_supplemental_data_are_hidden_with_the_next_smallest(with_supplemental, people):
    run = with_supplemental.evaluate(people, period=YEAR)
    (row,) = run.table.filter(pc.equal(run.table["subject"], "a-hit")).to_pylist()
    many = [{**row, "subject": f"p{n}"} for n in range(40)]
    run = replace(run, table=pa.Table.from_pylist(many, schema=run.table.schema))
    values = [cell(f"p{n}", "sex", "f" if n < 25 else "m") for n in range(40)]
    values += [cell(f"p{n}", "payer", "a" if n < 20 else "b") for n in range(35)]
    values += [cell(f"p{n}", "race", "x") for n in range(12)] + [cell("p39", "race", None, error="Race")]
    found = shares(run, pa.Table.from_pylist(values, schema=SCHEMA)).to_pylist()
    assert {(row["id"], row["code"]): row["patients"] for row in found} == {
        ("sex", "f"): 25,
        ("sex", "m"): 15,
        ("payer", "a"): 20,
        ("payer", "b"): None,  # the next smallest: without it the five of no payer could be worked out
        ("payer", None): None,
        ("race", "x"): 12,
        ("race", None): 28,
    }
    assert [row["suppressed"] for row in found].count(True) == 2


def issues(document):
    found = [entry["resource"] for entry in document["entry"] if entry["resource"]["resourceType"] == "DetectedIssue"]
    return [(item["modifierExtension"][0]["valueCodeableConcept"]["coding"][0]["code"], item) for item in found]


@pytest.mark.parametrize(
    ("subject", "as_of", "status", "reason"),
    [
        ("a-hit", None, "closed-gap", None),
        ("b-high", None, "open-gap", "not-qualifying"),
        ("c-none", date(2026, 6, 1), "prospective-gap", "not-found"),
        ("d-old-value", None, "open-gap", "out-of-period"),
    ],
)
def test_a_gaps_document_says_what_is_missing_and_why(small_bundle, people, subject, as_of, status, reason):
    run = Measure.load(small_bundle).evaluate(people, period=YEAR)
    document = run.gaps_document(subject, reporter="Organization/hie", generated_at=NOW, as_of=as_of)
    ((found, issue),) = issues(document)
    assert found == status
    codes = [coding["code"] for concept in issue["evidence"][0].get("code", []) for coding in concept["coding"]]
    assert codes == ([reason] if reason else [])
    composition, report = (entry["resource"] for entry in document["entry"][:2])
    Composition.model_validate(composition)
    DetectedIssue.model_validate(issue)
    MeasureReport.model_validate(report)
    assert composition["section"][0]["entry"] == [{"reference": f"DetectedIssue/{issue['id']}"}]
    assert composition["section"][0]["focus"] == {"reference": f"MeasureReport/{report['id']}"}
    assert document == run.gaps_document(subject, reporter="Organization/hie", generated_at=NOW, as_of=as_of)


def test_nothing_is_asked_of_those_outside_the_denominator(small_bundle, people):
    run = Measure.load(small_bundle).evaluate(people, period=YEAR)
    document = run.gaps_document("e-young", reporter="Organization/hie", generated_at=NOW)
    assert issues(document) == []
    assert "emptyReason" in document["entry"][0]["resource"]["section"][0]
    with pytest.raises(MeasureError, match="nothing of this subject"):
        run.gaps_document("nobody", reporter="Organization/hie", generated_at=NOW)
