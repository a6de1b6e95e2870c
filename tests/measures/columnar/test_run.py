"""A run on columns gives the table a run on rows gives: counts, evidence, reasons of gaps, errors, all of it."""

from __future__ import annotations

import json
from datetime import date

import pytest

from hiexchange.errors import ConfigError
from hiexchange.lake import Lake
from hiexchange.measures import Measure, evaluate_all
from hiexchange.measures.columnar import data
from hiexchange.testing.population import generate

GIVEN = (date(2026, 1, 1), date(2026, 12, 31))
GENERATED = (date(2025, 1, 1), date(2025, 12, 31))


def bundles(subjects):
    return [{"resourceType": "Bundle", "id": name, "entry": [{"resource": r} for r in rows]} for name, rows in subjects]


def same_tables(measures, source, period, **options):
    rows = evaluate_all(measures, source, period=period, prefilter=False)
    columns = evaluate_all(measures, source, period=period, engine="columns", **options)
    for one, other in zip(rows, columns, strict=True):
        assert other.table.to_pylist() == one.table.to_pylist(), one.measure.id
    return rows


def lake_of(folder, subjects, *, copies=1):
    """A lake of the subjects, each resource under an id of its own; types in files, files in no patient's order."""
    lines = {}
    for number in range(copies):
        for case, rows in subjects:
            names = {f"{row['resourceType']}/{row.get('id')}" for row in rows}
            for row in rows:
                text = json.dumps({**row, "id": f"{row.get('id')}-{case[:6]}-{number}"}, default=float)
                for name in names:
                    text = text.replace(f'"{name}"', f'"{name}-{case[:6]}-{number}"')
                lines.setdefault(row["resourceType"], []).append(text)
    (folder / "in").mkdir()
    for kind, texts in lines.items():
        (folder / "in" / f"{kind}.ndjson").write_text("\n".join(texts) + "\n")
    lake = Lake(folder / "lake")
    lake.ingest(folder / "in")
    return lake


@pytest.mark.parametrize("name", ["CMS165", "CMS130", "CMS816", "CMS986", "CMS72", "CMS1244"])
def test_a_run_on_columns_gives_the_same_table(official, name):
    ((measure, periods),) = official(name)
    for period, subjects in periods.items():
        same_tables([measure], bundles(subjects), period)


@pytest.mark.parametrize("name", ["CMS816", "CMS996", "CMS122"])
def test_a_lake_gives_the_same_table(official, name, tmp_path):
    ((measure, periods),) = official(name)
    ((period, subjects),) = periods.items()
    same_tables([measure], lake_of(tmp_path, subjects), period)


def test_small_batches_and_sorted_files_do_not_change_the_table(official, tmp_path, monkeypatch):
    ((measure, periods),) = official("CMS130")
    ((period, subjects),) = periods.items()
    lake = lake_of(tmp_path, subjects, copies=3)
    monkeypatch.setattr(data, "CHUNK", 20)
    monkeypatch.setattr(data, "PIECE", 7)
    monkeypatch.setattr(data, "BATCH", 11)
    (run,) = same_tables([measure], lake, period)
    assert run.summary().first.counts["initial_population"] > 20


def test_several_measures_in_one_pass_give_the_same_tables(official, tmp_path):
    loaded = [next(iter(official(name))) for name in ("CMS165", "CMS122", "CMS349")]
    period = next(iter(loaded[0][1]))
    subjects = [subject for _, periods in loaded for subject in periods[period]]
    same_tables([measure for measure, _ in loaded], lake_of(tmp_path, subjects), period)


def test_workers_do_not_change_the_table(official, tmp_path):
    ((measure, periods),) = official("CMS996")
    ((period, subjects),) = periods.items()
    same_tables([measure], lake_of(tmp_path, subjects), period, workers=2)


def test_a_generated_population_gives_the_same_table(official, tmp_path):
    generate(tmp_path / "people", patients=300)
    lake = Lake(tmp_path / "lake")
    lake.ingest(tmp_path / "people" / "fhir")
    measures = [next(iter(official(name)))[0] for name in ("CMS165", "CMS130", "CMS68")]
    same_tables(measures, lake, GENERATED)


def test_a_measure_of_our_own_runs_on_columns(small_bundle, people):
    measure = Measure.load(small_bundle)
    same_tables([measure], people, GIVEN)
    by_method = measure.evaluate(people, period=GIVEN, engine="auto")
    assert "engine" not in by_method.options  # Bundles are parsed already: rows are the shorter way
    assert by_method.table.equals(measure.evaluate(people, period=GIVEN).table)


def test_a_run_tells_how_many_patients_were_left_to_rows(small_bundle, people):
    patient = people[0]["entry"][0]["resource"]
    people[0]["entry"].append({"resource": {**patient, "id": "second"}})
    measure = Measure.load(small_bundle)
    same_tables([measure], people, GIVEN)
    run = measure.evaluate(people, period=GIVEN, engine="columns")
    assert run.options["engine"] == "columns"
    assert run.options["patients_left_to_rows"] == "1"


def test_a_population_that_has_no_columns_is_left_to_rows(small, bundle_of, people):
    measure, libraries, value_sets = small
    for define in libraries[0]["library"]["statements"]["def"]:
        if define["name"] == "Numerator":
            define["expression"] = {
                "type": "And",
                "operand": [define["expression"], {"type": "IsNull", "operand": {"type": "Today"}}],
            }
    loaded = Measure.load(bundle_of(measure, libraries, value_sets))
    same_tables([loaded], people, GIVEN)
    run = loaded.evaluate(people, period=GIVEN, engine="columns")
    assert run.options["patients_left_to_rows"] == str(len(people))


def test_an_unknown_engine_is_refused(small_bundle, people):
    with pytest.raises(ConfigError, match="the engine 'sql' is not known"):
        Measure.load(small_bundle).evaluate(people, period=GIVEN, engine="sql")


@pytest.mark.slow
def test_runs_of_all_measures_give_the_same_tables(official):
    for measure, periods in official():
        for period, subjects in periods.items():
            same_tables([measure], bundles(subjects), period)


@pytest.mark.slow
def test_lakes_of_all_measures_give_the_same_tables(official, tmp_path):
    for measure, periods in official():
        for number, (period, subjects) in enumerate(periods.items()):
            folder = tmp_path / f"{measure.id}-{number}"
            folder.mkdir()
            same_tables([measure], lake_of(folder, subjects), period)
