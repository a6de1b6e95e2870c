"""Stage 2 gives what stage 1 gives: every define, every official case, null and errors included."""

from __future__ import annotations

import pytest

from hiexchange.measures.columnar.check import check


@pytest.mark.parametrize("name", ["CMS165", "CMS122", "CMS771", "CMS832", "CMS986", "CMS996"])
def test_every_define_of_a_measure_agrees_on_every_case(official, name):
    ((measure, periods),) = official(name)
    for period, subjects in periods.items():
        found = check(measure, subjects, period=period)
        assert found.differences == []
        assert found.unsupported == {}
        assert found.values > 10 * found.left


@pytest.mark.slow
def test_every_define_of_all_measures_agrees_on_all_cases(official):
    values = left = defines = 0
    unsupported = {}
    for measure, periods in official():
        for period, subjects in periods.items():
            found = check(measure, subjects, period=period)
            assert found.differences == [], measure.id
            unsupported |= {(measure.id, *key): reason for key, reason in found.unsupported.items()}
            values, left, defines = values + found.values, left + found.left, defines + found.defines
    assert len(unsupported) <= 0.005 * defines, unsupported
    assert left <= 0.015 * values
