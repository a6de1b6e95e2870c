"""ELM operators: expressions of the CQL specification, and its laws as properties.

``cql/operators.ndjson`` holds CQL translated by @cqframework/cql 5.3.0. The expected values are those
of that package's own engine, except where it departs from the text of CQL 1.5: seconds and
milliseconds compare as one, overflow is null, quantities add in the finer unit, decimals keep eight
places, 29 February comes of age on 1 March, whole units between imprecise values are uncertain.
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


def evaluate(node, *, offset=0):
    """Evaluate one expression for a patient without data."""
    elm = library.read({"library": {"identifier": {"id": "T"}, "statements": [{"name": "T", "expression": node}]}})
    program = Program(Model(offset=offset))
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
    told = {-1: False, 0: True}  # the unknown end is not before the start
    assert intervals.contains(unknown, point) is told.get(compare.order(point, unknown.start))
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


# Examples and tables of CQL 1.5, Appendix B, for operators the translated cases above do not reach ------------------

S = "{urn:hl7-org:elm-types:r1}"


def lit(value, kind=None):
    if value is None:
        return {"type": "Null"}
    if isinstance(value, tuple):
        return {"type": "Quantity", "value": value[0], "unit": value[1]}
    if isinstance(value, list):
        return {"type": "List", "element": [lit(item) for item in value]}
    names = {bool: "Boolean", int: "Integer", float: "Decimal", str: "String"}
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return {"type": "Literal", "valueType": S + (kind or names[type(value)]), "value": text}


def moment(text):
    return {"type": "ToDateTime", "operand": lit(text)}


def op(kind, *operands, **more):
    given = [item if isinstance(item, dict) else lit(item) for item in operands]
    return {"type": kind, "operand": given if len(given) > 1 else given[0], **more}


def case(items, other, comparand=None):
    rows = [{"when": lit(when), "then": lit(then)} for when, then in items]
    node = {"type": "Case", "caseItem": rows, "else": lit(other)}
    return node if comparand is None else {**node, "comparand": lit(comparand)}


def scoped(kind, source, name, body):
    return {"type": kind, "source": lit(source), "scope": "$this", name: body}


THIS = {"type": "Current", "scope": "$this"}
SPECIFICATION = [
    *(
        (op("ConvertsToBoolean", text), truth)
        for text, truth in (("true", True), ("N", True), ("foo", False), ("", False))
    ),
    *(
        (op("ConvertsToInteger", text), truth)
        for text, truth in (("-128", True), ("+4", True), ("3.14", False), ("foo", False))
    ),
    *((op("ConvertsToDecimal", text), truth) for text, truth in (("25.5", True), ("-0.1", True), ("foo", False))),
    *((op("ConvertsToLong", text), truth) for text, truth in (("12345", True), ("foo", False))),
    *(
        (op("ConvertsToDate", text), truth)
        for text, truth in (("2014-01-01", True), ("2014-12", True), ("2014-13-01", False))
    ),
    (op("ConvertsToDateTime", "2014-01-01T12:00:00.0-06:00"), True),
    (op("ConvertsToDateTime", "2014/01/01"), False),
    *((op("ConvertsToTime", text), truth) for text, truth in (("T14:30:00.0", True), ("25:00", False))),
    (op("ConvertsToQuantity", "5.5 'cm'"), True),
    (op("ConvertsToQuantity", "cm 5"), False),
    (op("ConvertsToRatio", "1.0 'mg':2.0 'mg'"), True),
    (op("ConvertsToString", 5), True),
    *((op(f"ConvertsTo{kind}", None), None) for kind in ("Boolean", "Date", "Decimal", "Integer", "Quantity", "Time")),
    (op("CanConvertQuantity", (5, "mg"), "g"), True),
    (op("CanConvertQuantity", (5, "mg"), "mL"), False),
    (op("ToLong", "123"), 123),
    (op("ToLong", "one"), None),
    (op("ToChars", "abc"), ["a", "b", "c"]),
    (op("ToList", 1), [1]),
    (op("ToList", None), []),
    (op("Convert", "5", toType=f"{S}Integer"), 5),
    (op("CanConvert", "five", toType=f"{S}Integer"), False),
    (op("NotEqual", 1, 2), True),
    (op("NotEqual", 1, 1), False),
    (op("NotEqual", 1, None), None),
    (op("NotEqual", (1, "g"), (1000, "mg")), False),
    *(
        (op("GreaterOrEqual", a, b), truth)
        for a, b, truth in ((2, 2, True), (2, 1, True), (1, 2, False), (1, None, None))
    ),
    *((op("LessOrEqual", a, b), truth) for a, b, truth in ((2, 2, True), (2, 1, False), (1, 2, True), (None, 2, None))),
    (op("Lower", "ABC"), "abc"),
    (op("Lower", None), None),
    (op("EndsWith", "Chris Schuler is the man!!", "n!!"), True),
    (op("EndsWith", "Chris Schuler is the man!!", "n!"), False),
    *((op("IsTrue", value), value is True) for value in TRUTH),
    *((op("IsFalse", value), value is False) for value in TRUTH),
    (op("SameOrAfter", moment("2012-03-01"), moment("2012-02-28"), precision="Month"), True),
    (op("SameOrAfter", moment("2012-02-01"), moment("2012-02-28"), precision="Month"), True),
    (op("SameOrAfter", moment("2012-01-31"), moment("2012-02-28"), precision="Month"), False),
    (op("SameOrAfter", moment("2012"), moment("2012-02"), precision="Month"), None),
    (op("ProperContains", ["a", "b"], "a"), True),
    (op("ProperContains", ["a"], "a"), False),
    (op("CalculateAge", {"type": "ToDate", "operand": lit("2000-01-02")}, precision="Year"), 25),
    (op("CalculateAge", {"type": "ToDate", "operand": lit("2000-01-01")}, precision="Year"), 26),
    (case([(False, "a"), (None, "b"), (True, "c")], "d"), "c"),
    (case([(False, "a"), (None, "b")], "d"), "d"),
    (case([(1, "one"), (2, "two")], "many", comparand=2), "two"),
    (case([(1, "one"), (None, "none")], "many", comparand=3), "many"),
    (scoped("Filter", [1, 2, None, 3], "condition", op("Greater", THIS, 1)), [2, 3]),
    (scoped("ForEach", [1, 2, 3], "element", op("Multiply", THIS, 2)), [2, 4, 6]),
]


@pytest.mark.parametrize(
    ("node", "expected"), SPECIFICATION, ids=lambda value: value["type"] if isinstance(value, dict) else None
)
def test_an_operator_does_as_the_specification_has_it(node, expected):
    found = evaluate(node)
    assert found == expected
    assert type(found) is type(expected)


def test_conversions_and_statistics_of_the_specification_that_are_no_plain_values():
    converted = evaluate(op("ConvertQuantity", (5, "mg"), "g"))
    assert (converted.value, converted.unit) == (Decimal("0.005"), "g")
    assert evaluate(op("ConvertQuantity", (5, "mg"), "mL")) is None
    ratio = evaluate(op("ToRatio", "1.0 'mg':2.0 'mL'"))
    assert [(part.value, part.unit) for part in (ratio.numerator, ratio.denominator)] == [(1, "mg"), (2, "mL")]
    assert evaluate({"type": "PopulationVariance", "source": lit([1.0, 2.0, 3.0, 4.0, 5.0])}) == 2
    clock = {"type": "Now"}
    assert repr(evaluate(clock)) == "DateTime(2026-01-01T00:00:00.000Z)"
    assert repr(evaluate({"type": "Today"})) == "Date(2026-01-01)"
    assert repr(evaluate({"type": "TimeOfDay"})) == "Time(00:00:00.000)"
    assert evaluate({"type": "TimezoneOffsetFrom", "operand": clock}) == 0


@pytest.mark.parametrize(
    "conversion", [{"type": "ToDateTime"}, {"type": "Convert", "toType": "{urn:hl7-org:elm-types:r1}DateTime"}]
)
def test_a_text_without_an_offset_is_in_the_evaluations(conversion):
    assert t.text(evaluate({**conversion, "operand": lit("2026-03-01T10:00")}, offset=-300)) == "2026-03-01T10:00-05:00"
