"""ELM operators: expressions of the CQL specification, and its laws as properties.

``cql/operators.ndjson`` holds CQL translated by @cqframework/cql 5.3.0. The expected values are those
of that package's own engine, except where it departs from the text of CQL 1.5: seconds and
milliseconds compare as one, overflow is null, quantities add in the finer unit, decimals keep eight
places, 29 February comes of age on 1 March.
"""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange.measures import checks
from hiexchange.measures.cql import compare, intervals, library, lists, ucum
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compiler import BUILDERS, Program, Unit
from hiexchange.measures.cql.model import Model
from hiexchange.measures.cql.subject import Context, Subject
from hiexchange.measures.cql.values import Interval, Quantity

CASES = [json.loads(line) for line in (Path(__file__).parent / "cql" / "operators.ndjson").read_text().splitlines()]


def evaluate(node):
    """Evaluate one expression for a patient without data."""
    elm = library.read({"library": {"identifier": {"id": "T"}, "statements": [{"name": "T", "expression": node}]}})
    program = Program(Model())
    unit = Unit(program, elm, {}, {}, "T")
    subject = Subject(Context(program, {}, now=t.parse_datetime("2026-01-01T00:00:00.000Z")), [])
    return subject.evaluate(unit.define("T"))


@pytest.mark.parametrize("case", CASES, ids=[case["cql"][:70] for case in CASES])
def test_an_expression_of_the_specification(case):
    assert repr(evaluate(case["elm"])) == case["expected"]


TRUTH = [True, False, None]


def boolean(value):
    kind = {"type": "Literal", "valueType": "{urn:hl7-org:elm-types:r1}Boolean", "value": str(value).lower()}
    return {"type": "Null"} if value is None else kind


@pytest.mark.parametrize("a", TRUTH)
@pytest.mark.parametrize("b", TRUTH)
def test_logic_is_kleenes(a, b):
    def rank(value):
        return {False: 0, None: 1, True: 2}[value]

    back = {0: False, 1: None, 2: True}
    operand = [boolean(a), boolean(b)]
    assert evaluate({"type": "And", "operand": operand}) is back[min(rank(a), rank(b))]
    assert evaluate({"type": "Or", "operand": operand}) is back[max(rank(a), rank(b))]
    assert evaluate({"type": "Implies", "operand": operand}) is back[max(2 - rank(a), rank(b))]
    assert evaluate({"type": "Not", "operand": operand[0]}) is back[2 - rank(a)]
    assert evaluate({"type": "Xor", "operand": operand}) is (None if None in (a, b) else a != b)


def test_every_node_type_the_loader_accepts_has_a_builder():
    assert not set(BUILDERS) & (checks.SPECIFIERS - {"With", "Without"})
    assert len(BUILDERS) > 150


# Dates ------------------------------------------------------------------------------------------

days = st.dates(date(1900, 1, 1), date(2100, 12, 31))


def as_date(day):
    return t.Date((day.year, day.month, day.day), t.DAY)


@given(days, days)
def test_days_between_dates_are_calendar_days(a, b):
    assert t.duration(as_date(a), as_date(b), t.DAY) == (b - a).days == t.difference(as_date(a), as_date(b), t.DAY)


@given(days, st.integers(-5000, 5000))
def test_adding_days_agrees_with_the_calendar(day, amount):
    assert t.add(as_date(day), amount, t.DAY) == as_date(day + timedelta(days=amount))


@given(days, days)
def test_years_between_count_birthdays(a, b):
    if a <= b:
        years = b.year - a.year - ((b.month, b.day) < (a.month, a.day))
        assert t.duration(as_date(a), as_date(b), t.YEAR) == years


@given(days, st.integers(1, 3), days, st.integers(1, 3))
def test_a_comparison_is_null_only_when_precision_is_missing(a, p, b, q):
    x, y = t.truncate(as_date(a), p), t.truncate(as_date(b), q)
    found = t.compare(x, y)
    outcomes = {t.compare(i, j) for i in (t.low(x), t.high(x)) for j in (t.low(y), t.high(y))}
    if found is None:
        assert p != q
    elif found or p != q:
        assert outcomes == {found}


@given(st.datetimes(), st.sampled_from([-720, -300, 0, 330, 840]))
def test_text_of_an_instant_reads_back(moment, offset):
    if 2 <= moment.year <= 9998:
        key = (
            moment.year,
            moment.month,
            moment.day,
            moment.hour,
            moment.minute,
            moment.second,
            moment.microsecond // 1000,
        )
        value = t.DateTime(key, t.MILLISECOND, offset)
        again = t.parse_datetime(t.text(value), offset)
        assert again == value


# Intervals --------------------------------------------------------------------------------------

points = st.integers(-20, 20)


@st.composite
def spans(draw):
    low, high = sorted((draw(points), draw(points)))
    return Interval(low, high + 2, draw(st.booleans()), draw(st.booleans()))


def inside(interval):
    return set(range(interval.start, interval.end + 1))


@given(spans(), spans())
def test_interval_operators_agree_with_sets_of_points(a, b):
    x, y = inside(a), inside(b)
    assert intervals.overlaps(a, b) is bool(x & y)
    assert intervals.included_in(a, b) is (x <= y)
    assert intervals.proper_included_in(a, b) is (x < y)
    assert intervals.before(a, b) is (max(x) < min(y))
    assert intervals.after(a, b) is (min(x) > max(y))
    assert intervals.meets(a, b) is (max(x) + 1 == min(y) or max(y) + 1 == min(x))
    assert intervals.starts(a, b) is (min(x) == min(y) and max(x) <= max(y))
    assert intervals.overlaps_before(a, b) is (bool(x & y) and min(x) < min(y))
    shared = intervals.intersect(a, b)
    assert (inside(shared) if shared else set()) == x & y
    joined = intervals.union(a, b)
    assert joined is None or inside(joined) == x | y
    assert compare.equal(a, b) is (x == y)


@given(st.lists(spans(), max_size=6))
def test_collapse_keeps_every_point_and_leaves_no_neighbours(given_spans):
    merged = intervals.collapse(given_spans)
    assert set().union(*map(inside, merged)) == set().union(*map(inside, given_spans))
    assert all(b.start > a.end + 1 for a, b in pairwise(merged))


@given(spans(), points)
def test_an_unknown_end_is_null_only_where_it_could_matter(span, point):
    unknown = Interval(span.low, None, span.low_closed, False)
    assert intervals.contains(unknown, point) is (False if point < unknown.start else None)
    unbounded = Interval(span.low, None, span.low_closed, True)
    assert intervals.contains(unbounded, point) is (point >= unbounded.start)


# Quantities and lists ---------------------------------------------------------------------------


@given(
    st.decimals(min_value=0, max_value=10_000, places=3),
    st.sampled_from([("g", "mg"), ("L", "mL"), ("m", "cm"), ("h", "min")]),
)
def test_converted_quantities_stay_equal(value, units):
    there = ucum.convert(value, *units)
    assert compare.equal(Quantity(value, units[0]), Quantity(there, units[1])) is True
    assert ucum.convert(there, units[1], units[0]) == value


@pytest.mark.parametrize(
    ("a", "b"), [("mg", "mL"), ("mmol/L", "mg"), ("Cel", "K"), ("year", "a"), ("[IU]", "mg"), ("nonsense!", "mg")]
)
def test_what_cannot_be_compared_is_null(a, b):
    assert compare.equal(Quantity(Decimal(1), a), Quantity(Decimal(1), b)) is None


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=8),
    st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=8),
)
def test_lists_behave_as_sets_that_keep_order(a, b):
    assert lists.distinct(a) == list(dict.fromkeys(a))
    assert lists.union(a, b) == list(dict.fromkeys(a + b))
    assert lists.except_(a, b) == [x for x in dict.fromkeys(a) if x not in b]
    assert lists.intersect(a, b) == [x for x in dict.fromkeys(a) if x in b]
