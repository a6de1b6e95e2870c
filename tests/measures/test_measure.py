"""A whole measure of our own in ELM: load, check, evaluate, explain, report."""

from __future__ import annotations

import copy
import json
from datetime import date, timedelta

import pytest

from hiexchange.errors import ConfigError, MeasureError
from hiexchange.lake import Lake
from hiexchange.measures import Measure, evaluate_all
from hiexchange.tables import MEASURE_RESULT, check

YEAR = (date(2026, 1, 1), date(2026, 12, 31))
EXPECTED = {
    "a-hit": (1, 1),
    "b-high": (1, 0),
    "c-none": (1, 0),
    "d-old-value": (1, 0),
    "e-young": (0, 0),
    "f-no-visit": (0, 0),
}


def flags(table):
    return {row["subject"]: (row["denominator"], row["numerator"]) for row in table.to_pylist()}


def test_a_measure_gives_one_row_a_patient(small_bundle, people):
    run = Measure.load(small_bundle).evaluate(people, period=YEAR, run_id="night")
    table = check(run.table, MEASURE_RESULT)
    assert flags(table) == EXPECTED
    assert run.summary().counts == {"initial_population": 4, "denominator": 4, "numerator": 1}
    rows = {row["subject"]: row for row in table.to_pylist()}
    assert [item["id"] for item in rows["a-hit"]["evidence"]] == ["a-hit-v", "a-hit-o", "a-hit"]
    assert rows["e-young"]["evidence"] is None
    assert rows["a-hit"]["strata"] == ["s1 = true"]
    assert rows["b-high"]["strata"] == ["s1 = false"]


def test_workers_and_sources_do_not_change_the_result(small_bundle, people, tmp_path):
    file = tmp_path / "measure.json"
    file.write_text(json.dumps(small_bundle))
    folder = tmp_path / "patients"
    folder.mkdir()
    for bundle in people:
        (folder / f"{bundle['entry'][0]['resource']['id']}.json").write_text(json.dumps(bundle))
    measure = Measure.load(file)
    alone = measure.evaluate(people, period=YEAR)
    assert measure.evaluate(folder, period=YEAR).table.equals(alone.table)
    assert measure.evaluate(folder, period=YEAR, workers=2).table.equals(alone.table)


def test_a_lake_gives_the_same_rows_as_bundles(small_bundle, people, tmp_path):
    lines = {}
    for bundle in people:
        for entry in bundle["entry"]:
            lines.setdefault(entry["resource"]["resourceType"], []).append(json.dumps(entry["resource"]))
    (tmp_path / "in").mkdir()
    bare = {"resourceType": "Patient", "id": "g-bare", "birthDate": "1970-01-01", "gender": "male"}
    lines["Patient"].append(json.dumps(bare))
    people.append({"resourceType": "Bundle", "entry": [{"resource": bare}]})
    for kind, texts in lines.items():
        (tmp_path / "in" / f"{kind}.ndjson").write_text("\n".join(texts) + "\n")
    lake = Lake(tmp_path / "lake")
    lake.ingest(tmp_path / "in")
    measure = Measure.load(small_bundle)
    run = measure.evaluate(lake, period=YEAR)
    assert run.table.equals(
        measure.evaluate(people, period=YEAR).table.replace_schema_metadata(run.table.schema.metadata)
    )
    (whole,) = evaluate_all([measure], lake, period=YEAR, prefilter=False)
    assert whole.table.equals(run.table)
    cut = run.by("sex", min_cell=1)
    assert {row["sex"]: (row["eligible"], row["hits"]) for row in cut.to_pylist()} == {"female": (3, 1), "male": (1, 0)}
    assert all(run.by("sex").column("suppressed").to_pylist())


@pytest.mark.parametrize("engine", ["rows", "columns"])
def test_a_date_range_within_a_retrieve_selects_as_the_query_would(small, bundle_of, people, engine):
    """Translators may move ``during`` from a query into its Retrieve (date range optimization)."""
    measure, libraries, sets = small
    statements = libraries[0]["library"]["statements"]["def"]
    query = next(item["expression"] for item in statements if item["name"] == "Visits in Period")
    query["source"][0]["expression"] |= {"dateProperty": "period", "dateRange": query.pop("where")["operand"][1]}
    assert (
        flags(Measure.load(bundle_of(measure, libraries, sets)).evaluate(people, period=YEAR, engine=engine).table)
        == EXPECTED
    )


def test_a_filter_of_a_retrieve_that_is_not_known_is_an_error_and_never_ignored(small, bundle_of, people):
    measure, libraries, sets = small
    statements = libraries[0]["library"]["statements"]["def"]
    query = next(item["expression"] for item in statements if item["name"] == "Visits in Period")
    query["source"][0]["expression"]["otherFilter"] = [{"property": "status", "comparator": "="}]
    run = Measure.load(bundle_of(measure, libraries, sets)).evaluate(people, period=YEAR)
    assert {row["status"] for row in run.table.to_pylist() if row["subject"] != "e-young"} == {"error"}


@pytest.mark.parametrize("engine", ["rows", "columns"])
def test_the_period_and_what_falls_into_it_are_told_in_the_given_offset(small, bundle_of, people, engine):
    measure, libraries, sets = small
    (visit,) = (e["resource"] for e in people[5]["entry"] if e["resource"]["resourceType"] == "Encounter")
    visit["period"] = {"start": "2026-12-31T23:00:00-05:00", "end": "2026-12-31T23:30:00-05:00"}
    # A stratum whose value is a text of an instant, to be written in the offset too.
    first = {"type": "First", "source": {"type": "ExpressionRef", "name": "Visits in Period"}}
    period = {"type": "Property", "path": "period", "source": first}
    start = {"type": "FunctionRef", "libraryName": "FHIRHelpers", "name": "ToInterval", "operand": [period]}
    node = {"type": "ToString", "operand": {"type": "Start", "operand": start}}
    libraries[0]["library"]["statements"]["def"].append({"name": "When", "expression": node})
    measure["group"][0]["stratifier"][0]["criteria"]["expression"] = "When"
    loaded = Measure.load(bundle_of(measure, libraries, sets))
    rows = {
        hours: {row["subject"]: row for row in run.table.to_pylist()}
        for hours in (0, -5)
        for run in [loaded.evaluate(people, period=YEAR, offset=timedelta(hours=hours), engine=engine)]
    }
    assert rows[0]["f-no-visit"]["denominator"] == 0
    assert rows[-5]["f-no-visit"]["denominator"] == 1
    assert rows[-5]["f-no-visit"]["strata"] == ["s1 = 2026-12-31T23:00:00-05:00"]


def test_one_bad_patient_is_one_error_row(small_bundle, people):
    spoilt = copy.deepcopy(people)
    value = spoilt[1]["entry"][2]["resource"]["valueQuantity"]
    value["comparator"] = "<"
    run = Measure.load(small_bundle).evaluate(spoilt, period=YEAR)
    rows = {row["subject"]: row for row in run.table.to_pylist()}
    assert rows["b-high"]["status"] == "error"
    assert rows["b-high"]["denominator"] is None
    assert rows["b-high"]["error_define"] == "SmallMeasure|1.0.0 Controlled Pressures"
    assert run.summary().first.errors == 1
    assert run.summary().counts["denominator"] == 3


def test_several_measures_share_one_pass(small_bundle, people):
    other = copy.deepcopy(small_bundle)
    other["entry"][0]["resource"]["id"] = "Other"
    other["entry"][0]["resource"]["group"][0]["population"][2]["criteria"]["expression"] = "Is Female"
    first, second = evaluate_all([Measure.load(small_bundle), Measure.load(other)], people, period=YEAR)
    assert flags(first.table) == EXPECTED
    assert flags(second.table)["b-high"] == (1, 0)
    assert flags(second.table)["c-none"] == (1, 1)


def test_gaps_say_what_is_missing(small_bundle, people):
    gaps = Measure.load(small_bundle).evaluate(people, period=YEAR).gaps(as_of=date(2026, 7, 1))
    assert {row["subject"]: row["reason"] for row in gaps.to_pylist()} == {
        "b-high": "not-qualifying",
        "c-none": "not-found",
        "d-old-value": "out-of-period",
    }
    assert set(gaps["gap"].to_pylist()) == {"prospective"}


def test_why_names_the_deciding_resources(small_bundle, people):
    found = Measure.load(small_bundle).why(people, "b-high", period=YEAR)
    text = str(found)
    assert "Numerator: false" in text
    assert "Observation/b-high-o" in text
    page = found.to_html()
    assert "<script" not in page
    assert "Controlled Pressures" in page
    with pytest.raises(MeasureError):
        Measure.load(small_bundle).why(people, "nobody", period=YEAR)


def test_measure_reports_are_valid_fhir(small_bundle, people):
    from fhir.resources.R4B.measurereport import MeasureReport

    run = Measure.load(small_bundle).evaluate(people, period=YEAR)
    for report in (run.to_fhir(), run.individual("a-hit"), run.subject_list()):
        MeasureReport.model_validate(report)
    assert {entry["item"]["reference"] for entry in run.subject_list()["contained"][-1]["entry"]} == {"Patient/a-hit"}
    stratum = run.to_fhir()["group"][0]["stratifier"][0]["stratum"]
    assert {item["value"]["text"]: [p["count"] for p in item["population"]] for item in stratum} == {
        "true": [3, 3, 1],
        "false": [1, 1, 0],
    }


def test_policies_and_periods_are_checked(small_bundle, people):
    measure = Measure.load(small_bundle)
    with pytest.raises(ConfigError):
        measure.evaluate(people, period=(YEAR[1], YEAR[0]))
    with pytest.raises(ConfigError):
        measure.evaluate(people, period=YEAR, profiles="guess")
    assert flags(measure.evaluate(people, period=YEAR, profiles="trust").table)["a-hit"] == (1, 0)


# Loader checks ----------------------------------------------------------------------------------


def codes(source):
    return set(Measure.check(source)["code"].to_pylist())


def test_a_whole_bundle_has_no_findings(small_bundle):
    assert codes(small_bundle) == set()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda m, ls, vs: vs.pop(next(iter(vs))), "valueset-missing"),
        (lambda m, ls, vs: vs.update({next(iter(vs)): []}), "valueset-empty"),
        (lambda m, ls, vs: ls.pop(), "include-missing"),
        (lambda m, ls, vs: ls[1]["library"]["identifier"].update(version="4.1.000"), "include-version"),
        (lambda m, ls, vs: m["group"][0]["population"][2]["criteria"].update(expression="Nothing"), "criteria-missing"),
        (lambda m, ls, vs: m["group"][0].update(population=m["group"][0]["population"][1:]), "population-missing"),
        (lambda m, ls, vs: m.update(scoring={"coding": [{"code": "guess"}]}), "scoring"),
        (
            lambda m, ls, vs: ls[0]["library"]["statements"]["def"][3]["expression"].update(type="Magic"),
            "node-unsupported",
        ),
    ],
)
def test_what_is_broken_is_named_and_refused(small, bundle_of, spoil, code):
    spoil(*small)
    broken = bundle_of(*small)
    assert code in codes(broken)
    with pytest.raises(MeasureError) as caught:
        Measure.load(broken)
    assert caught.value.exit_code == 7


def test_versions_of_library_and_elm_must_agree(small_bundle):
    small_bundle["entry"][1]["resource"]["version"] = "2.0.0"
    assert "elm-version" in codes(small_bundle)


def test_a_truncated_value_set_is_refused_unless_accepted_and_then_recorded(small_bundle, people):
    value_set = small_bundle["entry"][-1]["resource"]
    value_set["expansion"]["total"] = 1000
    with pytest.raises(MeasureError, match="1 of 1,000"):
        Measure.load(small_bundle)
    run = Measure.load(small_bundle, accept={"valueset-truncated"}).evaluate(people, period=YEAR)
    assert run.accepted == (f"valueset-truncated:{value_set['url']}",)
    assert run.to_fhir()["extension"][0]["valueString"] == run.accepted[0]


def test_what_a_translator_could_not_resolve_is_an_error_and_never_false(small, bundle_of, people):
    main = small[1][0]["library"]
    main["annotation"] = [
        {
            "type": "CqlToElmError",
            "errorSeverity": "error",
            "message": "Could not resolve call",
            "startLine": 4,
            "startChar": 6,
            "endLine": 4,
            "endChar": 9,
        }
    ]
    main["statements"]["def"][4]["expression"] = {"type": "Null", "locator": "4:3-4:12"}
    broken = bundle_of(*small)
    assert codes(broken) == {"translator-error"}
    rows = Measure.load(broken).evaluate(people[:1], period=YEAR).table.to_pylist()
    assert rows[0]["status"] == "error"
    run = Measure.load(broken, accept={"translator-error"}).evaluate(people[:1], period=YEAR)
    assert run.table.to_pylist()[0]["numerator"] == 0
    assert run.accepted


def test_a_bundle_without_measure_or_a_missing_file_is_refused(small_bundle, tmp_path):
    with pytest.raises(MeasureError):
        Measure.load({"resourceType": "Bundle", "entry": []})
    with pytest.raises(MeasureError):
        Measure.load(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(MeasureError):
        Measure.load(tmp_path)
