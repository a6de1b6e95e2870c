"""Follow-up after discharge: every edge worked out by hand."""

from __future__ import annotations

from datetime import date, timedelta

import pyarrow as pa
import pytest

from hiexchange.errors import ConfigError, UnknownLayout
from hiexchange.measures import evaluate
from hiexchange.tables import MEASURE_RESULT, check

YEAR = (date(2026, 1, 1), date(2026, 12, 31))


def flags(run):
    """Episode to (exclusion, numerator)."""
    rows = run.table.to_pylist()
    return {row["episode"].removeprefix("Encounter/"): (row["denominator_exclusion"], row["numerator"]) for row in rows}


def test_day_zero_is_no_follow_up_but_days_one_to_seven_are(encounter, tables):
    rows = []
    starts = {
        0: "2026-03-10T23:59:59Z",
        1: "2026-03-11T00:00:00Z",
        7: "2026-03-17T23:59:59Z",
        8: "2026-03-18T00:00:00Z",
    }
    for day, time in starts.items():
        rows.append(encounter(f"stay{day}", f"p{day}", "IMP", "2026-03-05T10:00:00Z", "2026-03-10T12:00:00Z"))
        rows.append(encounter(f"visit{day}", f"p{day}", "AMB", time))
    run = evaluate("followup-7d", tables(rows), period=YEAR, run_id="r")
    assert flags(run) == {"stay0": (0, 0), "stay1": (0, 1), "stay7": (0, 1), "stay8": (0, 0)}
    assert flags(evaluate("followup-30d", tables(rows), period=YEAR, run_id="r"))["stay8"] == (0, 1)


def test_ambulatory_virtual_and_home_visits_count_emergency_and_cancelled_ones_do_not(encounter, tables):
    rows = []
    for kind in ("AMB", "VR", "HH", "EMER"):
        rows.append(encounter(f"stay-{kind}", kind, "ACUTE", "2026-03-05", "2026-03-10"))
        rows.append(encounter(f"visit-{kind}", kind, kind, "2026-03-12"))
    rows.append(encounter("stay-gone", "gone", "IMP", "2026-03-05", "2026-03-10"))
    rows.append(encounter("visit-gone", "gone", "AMB", "2026-03-12", status="cancelled"))
    found = flags(evaluate("followup-7d", tables(rows), period=YEAR, run_id="r"))
    assert {key for key, value in found.items() if value == (0, 1)} == {"stay-AMB", "stay-VR", "stay-HH"}
    assert found["stay-EMER"] == found["stay-gone"] == (0, 0)


def test_a_transfer_or_a_return_the_next_day_is_the_same_episode(encounter, tables):
    rows = [
        encounter("first", "p", "IMP", "2026-03-01T08:00:00Z", "2026-03-03T12:00:00Z"),
        encounter("second", "p", "IMP", "2026-03-03T13:00:00Z", "2026-03-05T12:00:00Z"),
        encounter("third", "p", "IMP", "2026-03-06T01:00:00Z", "2026-03-09T12:00:00Z"),
        encounter("visit", "p", "AMB", "2026-03-16T09:00:00Z"),
    ]
    assert flags(evaluate("followup-7d", tables(rows), period=YEAR, run_id="r")) == {"third": (0, 1)}


def test_a_stay_inside_a_longer_one_does_not_end_it(encounter, tables):
    rows = [
        encounter("long", "p", "IMP", "2026-03-01", "2026-03-20"),
        encounter("inner", "p", "IMP", "2026-03-02", "2026-03-04"),
        encounter("later", "p", "IMP", "2026-03-21", "2026-03-22"),
    ]
    assert list(flags(evaluate("followup-7d", tables(rows), period=YEAR, run_id="r"))) == ["later"]


def test_readmission_or_death_within_the_window_excludes(encounter, tables):
    rows = [
        encounter("again", "a", "IMP", "2026-03-01", "2026-03-03"),
        encounter("again2", "a", "IMP", "2026-03-10", "2026-03-11"),
        encounter("visit-a", "a", "AMB", "2026-03-05"),
        encounter("later", "b", "IMP", "2026-03-01", "2026-03-03"),
        encounter("later2", "b", "IMP", "2026-03-11", "2026-03-12"),
        encounter("died", "c", "IMP", "2026-03-01", "2026-03-03"),
        encounter("outlived", "d", "IMP", "2026-03-01", "2026-03-03"),
        encounter("in-stay", "e", "IMP", "2026-03-01", "2026-03-03"),
    ]
    source = tables(
        rows,
        c={"deceasedDateTime": "2026-03-10"},
        d={"deceasedDateTime": "2026-03-11"},
        e={"deceasedDateTime": "2026-03-03"},
    )
    found = flags(evaluate("followup-7d", source, period=YEAR, run_id="r"))
    assert found["again"] == (1, 0), "day 7 readmission, and an excluded episode is never a hit"
    assert found["later"] == (0, 0), "day 8 readmission"
    assert found["died"] == (1, 0)
    assert found["outlived"] == (0, 0)
    assert "in-stay" not in found


@pytest.mark.parametrize(
    ("end", "counted"), [("2025-12-31", False), ("2026-01-01", True), ("2026-12-24", True), ("2026-12-25", False)]
)
def test_the_discharge_lies_in_the_period_and_leaves_seven_days(encounter, tables, end, counted):
    rows = [encounter("stay", "p", "IMP", "2025-12-20", end)]
    assert (evaluate("followup-7d", tables(rows), period=YEAR, run_id="r").table.num_rows == 1) is counted


def test_deaths_hospice_open_and_unfinished_stays_are_no_discharges(encounter, tables):
    rows = [
        encounter("expired", "a", "IMP", "2026-03-01", "2026-03-03", disposition="exp"),
        encounter("hospice", "b", "IMP", "2026-03-01", "2026-03-03", disposition="51"),
        encounter("home", "c", "IMP", "2026-03-01", "2026-03-03", disposition="home"),
        encounter("open", "d", "IMP", "2026-03-01", None, open=True, status="in-progress"),
        encounter("month", "e", "IMP", "2026-03-01", "2026-03"),
        encounter("void", "f", "IMP", "2026-03-01", "2026-03-03", status="entered-in-error"),
    ]
    assert list(flags(evaluate("followup-7d", tables(rows), period=YEAR, run_id="r"))) == ["home"]


def test_days_are_told_apart_in_the_given_offset(encounter, tables):
    rows = [
        encounter("stay", "p", "IMP", "2026-03-01T10:00:00Z", "2026-03-10T23:00:00-05:00"),
        encounter("visit", "p", "AMB", "2026-03-18T12:00:00Z"),
    ]
    assert flags(evaluate("followup-7d", tables(rows), period=YEAR, run_id="r"))["stay"] == (0, 1)
    west = evaluate("followup-7d", tables(rows), period=YEAR, run_id="r", offset=timedelta(hours=-5))
    assert flags(west)["stay"] == (0, 0)


def test_the_result_is_a_measure_result_with_counts_interval_and_evidence(encounter, tables):
    rows = [
        encounter("s1", "p1", "IMP", "2026-03-01", "2026-03-03"),
        encounter("v1", "p1", "AMB", "2026-03-09"),
        encounter("v0", "p1", "AMB", "2026-03-04"),
        encounter("s2", "p2", "IMP", "2026-03-01", "2026-03-03"),
        encounter("s3", "p2", "IMP", "2026-06-01", "2026-06-03"),
        encounter("s4", "p2", "IMP", "2026-06-08", "2026-06-09"),
    ]
    run = evaluate("followup-7d", tables(rows), period=YEAR, run_id="night")
    table = check(run.table, MEASURE_RESULT)
    assert table.num_rows == 4
    assert set(table["basis"].to_pylist()) == {"Encounter"}
    first = table.to_pylist()[0]
    assert [item["id"] for item in first["evidence"]] == ["s1", "v0"]
    summary = run.summary()
    assert summary.counts == {"initial_population": 4, "denominator": 4, "denominator_exclusion": 1, "numerator": 1}
    assert summary.rate == pytest.approx(1 / 3)
    # Wilson, 1 of 3: by hand with z = 1.96 (0.0615, 0.7923).
    assert summary.interval == pytest.approx((0.0615, 0.7923), abs=5e-4)
    assert "p1" not in run._repr_html_()


def test_the_summary_measure_report_is_valid_fhir(encounter, tables):
    from fhir.resources.R4B.measurereport import MeasureReport

    rows = [encounter("s1", "p1", "IMP", "2026-03-01", "2026-03-03"), encounter("v1", "p1", "AMB", "2026-03-09")]
    report = evaluate("followup-7d", tables(rows), period=YEAR, run_id="r").to_fhir()
    MeasureReport.model_validate(report)
    assert report["group"][0]["measureScore"] == {"value": 1.0}
    assert {p["code"]["coding"][0]["code"]: p["count"] for p in report["group"][0]["population"]} == {
        "initial-population": 1,
        "denominator": 1,
        "denominator-exclusion": 0,
        "numerator": 1,
    }
    empty = evaluate("followup-7d", {}, period=YEAR, run_id="r")
    MeasureReport.model_validate(empty.to_fhir())
    assert empty.summary().rate is None
    assert empty.table.schema == MEASURE_RESULT.schema


def test_a_pruned_schema_is_enough(tables):
    source = {"Encounter": pa.table({"id": ["x"], "status": ["finished"]}), "Patient": pa.table({"id": ["p"]})}
    assert evaluate("followup-7d", source, period=YEAR, run_id="r").table.num_rows == 0


def test_an_unknown_measure_or_a_backward_period_is_refused():
    with pytest.raises(UnknownLayout, match="did you mean 'followup-7d'"):
        evaluate("followup-7", {}, period=YEAR, run_id="r")
    with pytest.raises(ConfigError):
        evaluate("followup-7d", {}, period=(YEAR[1], YEAR[0]), run_id="r")
