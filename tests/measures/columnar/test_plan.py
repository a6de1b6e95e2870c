"""What columns can hold is told before data are read, with the reason for what they cannot."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from hiexchange.measures import Measure
from hiexchange.measures.columnar import moments
from hiexchange.measures.columnar.check import check
from hiexchange.measures.columnar.plan import plan
from hiexchange.measures.measure import new_program
from hiexchange.measures.sources import bundled

YEAR = (date(2026, 1, 1), date(2026, 12, 31))


def planned(bundle):
    program = new_program(timedelta(0))
    Measure.load(bundle, accept={"all"}).compile(program)
    return plan(program)


def with_define(small, bundle_of, expression):
    measure, libraries, value_sets = small
    defines = libraries[0]["library"]["statements"]["def"]
    defines.append({"name": "Odd", "context": "Patient", "expression": expression})
    uses = {"type": "IsNull", "operand": {"type": "ExpressionRef", "name": "Odd"}}
    defines.append({"name": "Asks for Odd", "context": "Patient", "expression": uses})
    return bundle_of(measure, libraries, value_sets)


def test_a_measure_of_plain_defines_is_columnar(small_bundle):
    found = planned(small_bundle)
    assert found.share == 1
    assert not found.blockers()


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ({"type": "Today"}, "Today"),
        ({"type": "FunctionRef", "name": "f", "operand": []}, "the external function f"),
        (
            {
                "type": "Query",
                "source": [{"alias": "V", "expression": {"type": "ExpressionRef", "name": "Visits in Period"}}],
                "aggregate": {"identifier": "n", "expression": {"type": "Null"}},
            },
            "Query with aggregate",
        ),
    ],
)
def test_what_stands_in_the_way_is_named(small, bundle_of, people, expression, reason):
    function = {"type": "FunctionDef", "name": "f", "external": True, "operand": []}
    small[1][0]["library"]["statements"]["def"].append(function)
    bundle = with_define(small, bundle_of, expression)
    found = planned(bundle)
    assert {v.define: v.reason for v in found.verdicts if v.reason} == {"Odd": reason, "Asks for Odd": reason}
    assert found.blockers() == {reason: 2}
    # The rest of the measure still runs on columns, and agrees.
    result = check(Measure.load(bundle, accept={"all"}), [bundled(person) for person in people], period=YEAR)
    assert {define for _, define in result.unsupported} == {"Odd", "Asks for Odd"}
    assert result.differences == []
    assert result.left == 0


def test_a_subject_without_a_value_is_left_alone(small_bundle, people):
    rows = people[0]["entry"]
    rows.append({"resource": {**rows[0]["resource"], "id": "second"}})
    result = check(Measure.load(small_bundle), [bundled(person) for person in people], period=YEAR)
    assert result.differences == []
    assert 0 < result.left < result.values


def test_a_wrong_kernel_does_not_go_unseen(small_bundle, people, monkeypatch):
    monkeypatch.setitem(moments.PRECISE, "IncludedIn", lambda a, b, p: np.ones(a.n, np.int8))
    result = check(Measure.load(small_bundle), [bundled(person) for person in people], period=YEAR)
    assert ("SmallMeasure", "Visits in Period", "f-no-visit") in result.differences


def test_every_define_of_the_official_measures_is_planned(official):
    for measure, _ in official("CMS12"):
        program = new_program(timedelta(0))
        measure.compile(program)
        assert plan(program).share == 1, plan(program).blockers()
