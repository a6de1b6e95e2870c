"""Supplemental data and gaps-in-care documents: what leaves the house as FHIR."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from fhir.resources.R4B.composition import Composition
from fhir.resources.R4B.detectedissue import DetectedIssue
from fhir.resources.R4B.measurereport import MeasureReport

from hiexchange.errors import ConfigError, MeasureError
from hiexchange.measures import Measure

YEAR = (date(2026, 1, 1), date(2026, 12, 31))
NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)


def literal(value):
    return {"type": "Literal", "valueType": "{urn:hl7-org:elm-types:r1}Integer", "value": value}


@pytest.fixture
def with_supplemental(small, bundle_of):
    """The small measure, asking for a truth, a code, a number of visits, and for what cannot be had."""
    measure, libraries, sets = small
    code = {
        "type": "Instance",
        "classType": "{urn:hl7-org:elm-types:r1}Code",
        "element": [
            {"name": "code", "value": {**literal("x"), "valueType": "{urn:hl7-org:elm-types:r1}String"}},
            {"name": "system", "value": {**literal("http://x.org"), "valueType": "{urn:hl7-org:elm-types:r1}String"}},
        ],
    }
    libraries[0]["library"]["statements"]["def"] += [
        {"name": "Coded", "expression": {"type": "Tuple", "element": [{"name": "kind", "value": code}]}},
        {
            "name": "Visits",
            "expression": {"type": "Count", "source": {"type": "ExpressionRef", "name": "Visits in Period"}},
        },
        {
            "name": "Broken",
            "expression": {"type": "SingletonFrom", "operand": {"type": "List", "element": [literal("1")] * 2}},
        },
    ]
    usage = [{"coding": [{"code": "risk-adjustment-factor"}]}]
    measure["supplementalData"] = [
        {"id": "sde-female", "criteria": {"expression": "Is Female"}},
        {"id": "sde-coded", "criteria": {"expression": "Coded"}},
        {"id": "risk-visits", "usage": usage, "criteria": {"expression": "Visits"}},
        {"id": "risk-broken", "usage": usage, "criteria": {"expression": "Broken"}},
    ]
    return Measure.load(bundle_of(measure, libraries, sets))


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
