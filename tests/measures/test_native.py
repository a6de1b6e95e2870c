"""Readmission, well visits, social-need screening, completeness: edges worked out by hand."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pytest

from hiexchange.errors import ConfigError
from hiexchange.measures import evaluate, measures
from hiexchange.tables import MEASURE_RESULT, check

YEAR = (date(2026, 1, 1), date(2026, 12, 31))


def hits(run):
    """Subject or episode to (exclusion, numerator)."""
    return {
        (row["episode"] or row["subject"]).removeprefix("Encounter/"): (row["denominator_exclusion"], row["numerator"])
        for row in run.table.to_pylist()
    }


def test_readmission_counts_days_1_to_30_and_acute_stays_only(encounter, tables):
    rows = [
        encounter("a1", "a", "IMP", "2026-03-01", "2026-03-03"),
        encounter("a2", "a", "IMP", "2026-04-02", "2026-04-04"),
        encounter("b1", "b", "IMP", "2026-03-01", "2026-03-03"),
        encounter("b2", "b", "IMP", "2026-04-03", "2026-04-04"),
        encounter("c1", "c", "IMP", "2026-03-01", "2026-03-03"),
        encounter("c2", "c", "OBSENC", "2026-03-10", "2026-03-11"),
        encounter("d1", "d", "IMP", "2026-03-01", "2026-03-03", disposition="aadvice"),
        encounter("d2", "d", "IMP", "2026-03-10", "2026-03-11"),
        encounter("e1", "e", "IMP", "2026-12-01", "2026-12-02"),
        encounter("f1", "f", "IMP", "2026-11-30", "2026-12-01"),
    ]
    run = evaluate("readmission-30d", tables(rows), period=YEAR, run_id="r")
    found = hits(run)
    assert found["a1"] == (0, 1), "day 30"
    assert found["b1"] == (0, 0), "day 31"
    assert found["c1"] == (0, 0), "observation stay"
    assert found["d1"] == (1, 0), "left against advice"
    assert "e1" not in found, "less than 30 days of the period left"
    assert found["f1"] == (0, 0)
    assert run.summary().groups[0].improvement == "decrease"
    assert set(run.gaps()["episode"].to_pylist()) == {"Encounter/a1"}, (
        "where lower is better, the readmission is the gap"
    )


def test_planned_readmissions_are_left_out_by_the_users_list(encounter, tables):
    chemo = {"reasonCode": [{"coding": [{"code": "Z51.11"}]}]}
    rows = [
        encounter("a1", "a", "IMP", "2026-03-01", "2026-03-03", reasonCode=None),
        encounter("a2", "a", "IMP", "2026-03-20", "2026-03-21", **chemo),
    ]
    assert hits(evaluate("readmission-30d", tables(rows), period=YEAR, run_id="r"))["a1"] == (0, 1)
    planned = evaluate("readmission-30d", tables(rows), period=YEAR, run_id="r", parameters={"planned": ["Z51.11"]})
    assert hits(planned)["a1"] == (0, 0)


def test_six_well_child_visits_by_15_months(encounter, tables):
    reason = {"reasonCode": [{"coding": [{"code": "Z00.129"}]}]}
    days = ["2025-02-01", "2025-03-01", "2025-05-01", "2025-07-01", "2025-10-01", "2026-04-10"]
    rows = [encounter(f"six{n}", "six", "AMB", day, **reason) for n, day in enumerate(days)]
    rows += [encounter(f"late{n}", "late", "AMB", day, **reason) for n, day in enumerate([*days[:5], "2026-04-11"])]
    rows += [encounter(f"twice{n}", "twice", "AMB", day, **reason) for n, day in enumerate([*days[:5], days[4]])]
    rows += [encounter("old", "old", "AMB", "2026-01-10", **reason)]
    born = {name: {"birthDate": "2025-01-10"} for name in ("six", "late", "twice")}
    source = tables(rows, **born, old={"birthDate": "2024-09-30"})
    found = hits(evaluate("well-child-15m", source, period=YEAR, run_id="r"))
    assert found == {"late": (None, 0), "six": (None, 1), "twice": (None, 0)}


def test_well_care_is_for_3_to_21_years_at_the_end_of_the_period(encounter, tables):
    reason = {"reasonCode": [{"coding": [{"code": "Z00.00"}]}]}
    ages = {"three": "2023-12-31", "two": "2024-01-01", "last": "2005-01-01", "past": "2004-12-31"}
    ages["none"] = "2015-05-05"
    rows = [encounter(f"v-{name}", name, "AMB", "2026-06-01", **reason) for name in ages if name != "none"]
    source = tables(rows, **{name: {"birthDate": born} for name, born in ages.items()})
    found = hits(evaluate("well-care", source, period=YEAR, run_id="r"))
    assert found == {"last": (None, 1), "none": (None, 0), "three": (None, 1)}


def test_social_need_screening_counts_final_answers_in_the_period(encounter, tables):
    rows = [encounter(f"v-{name}", name, "AMB", "2026-06-01") for name in ("yes", "no", "draft", "child")]
    source = tables(
        rows, child={"birthDate": "2008-01-02"}, **{n: {"birthDate": "1980-01-01"} for n in ("yes", "no", "draft")}
    )

    def answer(key, patient, status):
        return {
            "id": key,
            "status": status,
            "subject": {"reference": f"Patient/{patient}"},
            "code": {"coding": [{"system": "http://loinc.org", "code": "71802-3"}]},
            "effectiveDateTime": "2026-06-01",
        }

    source["Observation"] = pa.Table.from_pylist([answer("o1", "yes", "final"), answer("o2", "draft", "preliminary")])
    found = hits(evaluate("social-need-screening", source, period=YEAR, run_id="r"))
    assert found == {"draft": (None, 0), "no": (None, 0), "yes": (None, 1)}


def test_completeness_names_what_is_missing(encounter, tables):
    full = {
        "birthDate": "1980-01-01",
        "gender": "female",
        "extension": [
            {"url": f"http://hl7.org/fhir/us/core/StructureDefinition/us-core-{n}"} for n in ("race", "ethnicity")
        ],
        "communication": [{"preferred": True}],
        "address": [{"city": "Nowhere"}],
    }
    blank = dict.fromkeys(full)
    rows = [encounter("v1", "full", "AMB", "2026-06-01"), encounter("v2", "bare", "AMB", "2026-06-01")]
    run = evaluate(
        "data-completeness", tables(rows, full=full, bare={**blank, "birthDate": "1990-01-01"}), period=YEAR, run_id="r"
    )
    rows = {row["subject"]: row for row in run.table.to_pylist()}
    assert rows["full"]["numerator"] == 1
    assert rows["bare"]["messages"] == [f"missing {n}" for n in ("gender", "race", "ethnicity", "language", "address")]


@pytest.mark.parametrize("name", sorted(measures()))
def test_every_native_measure_is_documented_and_runs_on_nothing(name):
    measure = measures()[name]
    assert "denominator" in measure.definition.lower()
    run = evaluate(name, {}, period=YEAR, run_id="r")
    assert check(run.table, MEASURE_RESULT).num_rows == 0


def test_an_unknown_parameter_is_refused():
    with pytest.raises(ConfigError, match="has no parameter"):
        evaluate("well-care", {}, period=YEAR, run_id="r", parameters={"codes": []})
