"""The tables of CQL 1.5, row by row: appendix B of the specification (operators, with nulls, open and unknown ends,
precisions, offsets, leap days) in expressions of our own, with answers worked out from its text by hand.

``cql/tables.ndjson`` holds each expression and the ELM that @cqframework/cql 5.3.0 makes of it. Both engines evaluate
them: a patient at a time, and on columns, where nothing is folded beforehand. Read beside them: cqframework/cql-tests.
"""

from __future__ import annotations

import json
from calendar import monthrange
from collections import Counter
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiexchange.errors import MeasureError
from hiexchange.measures.columnar.cells import Unsupported
from hiexchange.measures.columnar.data import Batch
from hiexchange.measures.columnar.evaluate import STEPS, Names
from hiexchange.measures.columnar.plan import evaluator
from hiexchange.measures.columnar.show import plain, shown
from hiexchange.measures.columnar.state import Ctx, State
from hiexchange.measures.cql import intervals, library, lists
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compiler import Program, Unit
from hiexchange.measures.cql.model import Model
from hiexchange.measures.cql.operators import PRECISE
from hiexchange.measures.cql.subject import Context, Subject
from hiexchange.measures.cql.values import Interval, predecessor, successor

ROWS = [
    json.loads(line)
    for name in ("tables", "operators")
    for line in (Path(__file__).parent / "cql" / f"{name}.ndjson").read_text().splitlines()
]
TABLES = [row for row in ROWS if "table" in row]
NOW = t.parse_datetime("2026-01-01T00:00:00.000Z")


def compiled(node):
    elm = library.read({"library": {"identifier": {"id": "T"}, "statements": [{"name": "T", "expression": node}]}})
    program = Program(Model())
    define = Unit(program, elm, {}, {}, "T").define("T")
    return Context(program, {}, now=NOW), define


@pytest.mark.parametrize("row", TABLES, ids=[f"{row['row']}: {row['cql'][:60]}" for row in TABLES])
def test_a_row_of_the_specification(row):
    context, define = compiled(row["elm"])
    if row["expected"] == "error":
        with pytest.raises(MeasureError):
            Subject(context, []).evaluate(define)
    else:
        assert repr(Subject(context, []).evaluate(define)) == row["expected"]


def test_every_table_has_its_rows():
    rows = Counter(row["table"] for row in TABLES)
    assert len(TABLES) > 500
    assert min(rows.values()) >= 3, rows


class Unfolded(Names):
    """Lets columns compute what they have a step for, constants included."""

    def of(self, node):
        free, fixed = super().of(node)
        return free, fixed and node.get("type") not in STEPS


def test_columns_answer_the_same_rows_alike():
    answered = 0
    for row in ROWS:
        context, define = compiled(row["elm"])
        state = State(context, Batch(context.program.model, ["p"], {}))
        try:
            col = evaluator(state, Unfolded()).define(define, Ctx(np.zeros(1, np.int64)))
        except Unsupported:
            continue
        if state.values[define.index].failed[0]:
            continue
        answered += 1
        assert shown(col, 0) == plain(Subject(context, []).evaluate(define)), row["cql"]
    assert answered > 700


# Ends that are unknown, and components that are missing: what holds in every world they allow -----------------------

WORLD = range(-2, 12)
points = st.integers(0, 7)


@st.composite
def ends(draw):
    """An interval of integers whose ends may be open, and unknown where they are."""
    low, high = sorted((draw(points), draw(points)))
    low, high = (end if draw(st.integers(0, 3)) else None for end in (low, high + 2))
    return Interval(low, high, draw(st.booleans()) and low is not None, draw(st.booleans()) and high is not None, int)


def worlds(interval):
    """Every (first, last) an interval may have."""
    firsts = WORLD if interval.low is None else [interval.low + (not interval.low_closed)]
    lasts = WORLD if interval.high is None else [interval.high - (not interval.high_closed)]
    return [(first, last) for first in firsts for last in lasts if first <= last]


RELATIONS = {
    "Before": lambda s, e, x, y: e < x,
    "After": lambda s, e, x, y: s > y,
    "SameOrBefore": lambda s, e, x, y: e <= x,
    "SameOrAfter": lambda s, e, x, y: s >= y,
    "SameAs": lambda s, e, x, y: s == x and e == y,
    "Meets": lambda s, e, x, y: e + 1 == x or y + 1 == s,
    "MeetsBefore": lambda s, e, x, y: e + 1 == x,
    "MeetsAfter": lambda s, e, x, y: y + 1 == s,
    "Overlaps": lambda s, e, x, y: s <= y and x <= e,
    "OverlapsBefore": lambda s, e, x, y: s < x <= e,
    "OverlapsAfter": lambda s, e, x, y: s <= y < e,
    "Starts": lambda s, e, x, y: s == x and e <= y,
    "Ends": lambda s, e, x, y: e == y and s >= x,
    "IncludedIn": lambda s, e, x, y: x <= s and e <= y,
    "Includes": lambda s, e, x, y: s <= x and y <= e,
    "ProperIncludedIn": lambda s, e, x, y: x <= s and e <= y and (s, e) != (x, y),
    "ProperIncludes": lambda s, e, x, y: s <= x and y <= e and (s, e) != (x, y),
}


@pytest.mark.parametrize("kind", sorted(RELATIONS))
@settings(deadline=None)
@given(ends(), ends())
def test_a_relation_that_is_told_holds_whatever_the_unknown_ends_are(kind, a, b):
    found = PRECISE[kind](a, b, None)
    outcomes = {RELATIONS[kind](*one, *other) for one in worlds(a) for other in worlds(b)}
    assert found is None or outcomes == {found}
    if None not in (a.low, a.high, b.low, b.high):
        assert found is not None


@settings(deadline=None)
@given(ends(), st.integers(-1, 10))
def test_membership_is_null_only_where_unknown_ends_decide(span, point):
    outcomes = {first <= point <= last for first, last in worlds(span)}
    assert lists.contains(span, point) is (outcomes.pop() if len(outcomes) == 1 else None)
    inner = {first < point < last for first, last in worlds(span)}
    found = intervals.proper_contains(span, point)
    assert found is None or inner == {found}


@st.composite
def moments(draw):
    """An instant near others, of any precision, and the first and last instant it may be."""
    parts = [
        2024,
        draw(st.sampled_from([1, 2, 3])),
        draw(st.sampled_from([1, 28, 29])),
        draw(st.sampled_from([0, 12, 23])),
    ]
    parts += [draw(st.sampled_from([0, 30, 59])), draw(st.sampled_from([0, 59])), draw(st.sampled_from([0, 500, 999]))]
    size = draw(st.integers(1, 7))
    known = parts[:size]
    value = t.make(t.DateTime, known, 0)
    if size == 6:
        known.append(0)  # CQL: seconds and milliseconds are one number
    month = known[1] if len(known) > 1 else 12
    tops = [2024, 12, monthrange(2024, month)[1], 23, 59, 59, 999]
    first, last = [*known, *[2024, 1, 1, 0, 0, 0, 0][len(known) :]], [*known, *tops[len(known) :]]
    return value, tuple(first), tuple(last)


LEVELS = [t.YEAR, t.MONTH, t.DAY, t.HOUR, t.MINUTE, t.SECOND, t.MILLISECOND]


@settings(deadline=None)
@given(moments(), moments(), st.sampled_from(LEVELS))
def test_comparison_at_a_precision_is_null_only_where_missing_components_decide(one, other, level):
    (a, a_first, a_last), (b, b_first, b_last) = one, other
    first, last, begin, end = (key[:level] for key in (a_first, a_last, b_first, b_last))
    before = True if last < begin else False if first >= end else None
    same = True if first == last == begin == end else False if last < begin or end < first else None
    on_or_before = True if last <= begin else False if first > end else None
    found = [
        (intervals.before(a, b, level), before),
        (intervals.after(b, a, level), before),
        (intervals.same_as(a, b, level), same),
        (PRECISE["SameOrBefore"](a, b, level), on_or_before),
        (PRECISE["SameOrAfter"](b, a, level), on_or_before),
    ]
    # CQL looks at components, not at what is possible: 2024-01 is not told to be on or before 2024.
    missing = first != last or begin != end
    assert all(answer is told or (answer is None and missing) for answer, told in found)


@settings(deadline=None)
@given(moments(), moments(), st.sampled_from([("Day", 86_400_000), ("Hour", 3_600_000), ("Minute", 60_000)]))
def test_whole_units_between_range_over_what_the_operands_may_be(one, other, unit):
    (a, a_first, a_last), (b, b_first, b_last) = one, other
    name, size = unit

    def whole(x, y):
        span = (instant(y) - instant(x)) // timedelta(milliseconds=1)
        return span // size if span >= 0 else -(-span // size)

    def instant(key):
        return datetime(*key[:6], key[6] * 1000)

    low, high = whole(a_last, b_first), whole(a_first, b_last)
    found = t.duration(a, b, t.PRECISIONS[name])
    assert (found.low, found.high) == (low, high) if isinstance(found, t.Uncertainty) else found == low == high


@given(st.dates(date(1900, 1, 1), date(2100, 12, 31)), st.integers(-2000, 2000), st.sampled_from(["Month", "Year"]))
def test_adding_months_keeps_the_day_or_the_last_of_the_month(day, amount, name):
    months = day.year * 12 + day.month - 1 + amount * (12 if name == "Year" else 1)
    year, month = months // 12, months % 12 + 1
    value = t.Date((day.year, day.month, day.day), t.DAY)
    found = t.add(value, amount, t.PRECISIONS[name])
    if not 1 <= year <= 9999:
        assert found is None
    else:
        assert found.key == (year, month, min(day.day, monthrange(year, month)[1]))


@settings(deadline=None)
@given(moments(), st.sampled_from([-720, -330, 0, 60, 840]))
def test_an_offset_moves_the_clock_and_not_the_instant(one, minutes):
    value = one[0]
    if value.precision < t.MINUTE:
        return
    there = t.parse_datetime(t.text(value), 0)
    moved = t.parse_datetime(t.text(value).replace("Z", "+00:00"), minutes)
    assert t.compare(there, value) == 0
    # Read in another evaluation's offset the components are others, by exactly that many minutes.
    clock = [datetime(*key[:5]) for key in ((*there.key, 0, 0)[:5], (*moved.key, 0, 0)[:5])]
    assert (clock[1] - clock[0]) == timedelta(minutes=minutes)


@given(st.decimals(min_value=-1000, max_value=1000, places=4))
def test_successor_and_predecessor_undo_each_other(number):
    for value in (int(number), number, t.Date((2024, 2, 28 + (number > 0)), t.DAY)):
        assert predecessor(successor(value)) == value
    assert successor(number) - number == Decimal("0.00000001")
