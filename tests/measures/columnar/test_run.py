"""A run on columns gives the table a run on rows gives: counts, evidence, reasons of gaps, errors, all of it."""

from __future__ import annotations

import pytest

from hiexchange.measures import evaluate_all


def bundles(subjects):
    return [{"resourceType": "Bundle", "id": name, "entry": [{"resource": r} for r in rows]} for name, rows in subjects]


def compared(measures, source, period):
    rows = evaluate_all(measures, source, period=period, prefilter=False)
    columns = evaluate_all(measures, source, period=period, engine="columns")
    for one, other in zip(rows, columns, strict=True):
        assert other.table.to_pylist() == one.table.to_pylist(), one.measure.id


@pytest.mark.parametrize("name", ["CMS165", "CMS130", "CMS816", "CMS986", "CMS72", "CMS1244"])
def test_a_run_on_columns_gives_the_same_table(official, name):
    ((measure, periods),) = official(name)
    for period, subjects in periods.items():
        compared([measure], bundles(subjects), period)


@pytest.mark.slow
def test_runs_of_all_measures_give_the_same_tables(official):
    for measure, periods in official():
        for period, subjects in periods.items():
            compared([measure], bundles(subjects), period)
