"""Kernels on packed dates give what stage 1's functions give, value by value."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiexchange.measures.columnar import moments, scalar
from hiexchange.measures.columnar.cells import Spans, Times, Unsupported, Words, constant, from_values
from hiexchange.measures.columnar.show import plain, shown
from hiexchange.measures.columnar.state import Ctx
from hiexchange.measures.cql import intervals
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compare import less, less_or_equal
from hiexchange.measures.cql.operators import PRECISE
from hiexchange.measures.cql.values import Interval

PRECISIONS = [None, t.YEAR, t.MONTH, t.DAY, t.HOUR, t.MINUTE, t.SECOND, t.MILLISECOND]


@st.composite
def instants(draw, cls=t.DateTime):
    """Close to each other, so that they often agree down to some component."""
    parts = [draw(st.sampled_from([2023, 2024])), draw(st.sampled_from([1, 2, 12])), draw(st.sampled_from([1, 28, 29]))]
    if parts[:2] == [2023, 2]:
        parts[2] = min(parts[2], 28)
    parts += [
        draw(st.sampled_from([0, 23])),
        draw(st.sampled_from([0, 59])),
        draw(st.sampled_from([0, 59])),
        draw(st.sampled_from([0, 999])),
    ]
    return t.make(cls, parts[: draw(st.integers(1, 3 if cls is t.Date else 7))], 0)


optional = st.one_of(st.none(), instants())


@st.composite
def spans(draw):
    return Interval(draw(optional), draw(optional), draw(st.booleans()), draw(st.booleans()), t.DateTime)


def truths(values):
    return [None if value < 0 else bool(value) for value in values.tolist()]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(instants(), instants()), min_size=1, max_size=8), st.sampled_from(PRECISIONS))
def test_order_of_points(pairs, p):
    a, b = (from_values([pair[side] for pair in pairs]) for side in (0, 1))
    expected = [intervals.before(x, y, p) for x, y in pairs]
    assert truths(moments.truth(moments.before(a, b, p), a, b).values) == expected
    if p is None:
        assert truths(moments.less_or_equal(a, b, None)) == [less_or_equal(x, y) for x, y in pairs]
        assert truths(moments.less(a, b, None)) == [less(x, y) for x, y in pairs]


some = st.one_of(st.none(), spans())
SPAN = Interval(t.MIN_DATETIME, t.MAX_DATETIME, True, True, t.DateTime)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(some, some), max_size=6),
    st.sampled_from(PRECISIONS),
    st.sampled_from(sorted(set(moments.PRECISE) - {"In", "Contains"})),
)
def test_relations_of_intervals(pairs, p, kind):
    pairs = [(SPAN, SPAN), *pairs]
    a, b = (from_values([pair[side] for pair in pairs]) for side in (0, 1))
    assert isinstance(a, Spans)
    assert truths(scalar.precise(kind, a, b, p).values) == [PRECISE[kind](x, y, p) for x, y in pairs]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(optional, some), max_size=6), st.sampled_from(PRECISIONS))
def test_points_in_intervals(pairs, p):
    pairs = [(SPAN.low, SPAN), *pairs]
    a, b = (from_values([pair[side] for pair in pairs]) for side in (0, 1))
    for kind in ("In", "IncludedIn", "SameOrBefore", "SameOrAfter", "Before", "After"):
        assert truths(scalar.precise(kind, a, b, p).values) == [PRECISE[kind](x, y, p) for x, y in pairs]
    for kind in ("Contains", "Includes"):
        assert truths(scalar.precise(kind, b, a, p).values) == [PRECISE[kind](y, x, p) for x, y in pairs]


@settings(max_examples=200, deadline=None)
@given(st.lists(spans(), min_size=1, max_size=8))
def test_ends_of_intervals(values):
    col = from_values(values)
    for found, name in ((moments.start(col), "start"), (moments.end(col), "end")):
        assert [shown(found, at) for at in range(col.n)] == [plain(getattr(value, name)) for value in values]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(instants(), min_size=1, max_size=8),
    st.integers(-40_000, 40_000),
    st.sampled_from(PRECISIONS[1:]),
    st.booleans(),
)
def test_additions(values, amount, unit, weeks):
    weeks = weeks and unit == t.DAY
    found = moments.add(from_values(values), amount, unit, weeks=weeks)
    expected = [t.add(value, amount, unit, weeks=weeks) for value in values]
    assert [shown(found, at) for at in range(found.n)] == [plain(value) for value in expected]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(instants(), instants()), min_size=1, max_size=6), st.sampled_from(PRECISIONS[1:]), st.booleans()
)
def test_durations(pairs, unit, weeks):
    weeks = weeks and unit == t.DAY
    a, b = (from_values([pair[side] for pair in pairs]) for side in (0, 1))
    for whole, measure in ((True, t.duration), (False, t.difference)):
        found = moments.between(a, b, unit, weeks=weeks, whole=whole)
        expected = [measure(x, y, unit, weeks=weeks) for x, y in pairs]
        if found is None:
            needed = max(unit, t.SECOND) if whole else max(unit, t.DAY)
            assert any(value.precision < needed for pair in pairs for value in pair)
        else:
            assert found.tolist() == expected


@pytest.mark.parametrize("cls", [t.Date, t.DateTime])
def test_text_is_read_as_in_stage_1(cls):
    texts = [
        "2024",
        "2024-02",
        "2024-02-29",
        "2023-02-29",
        "2024-02-29T23:30:00-05:00",
        "2024-01-01T00:00:00.5Z",
        "x",
        None,
    ]
    found = moments.parse(pa.array(texts), cls, 60)
    read = t.parse_date if cls is t.Date else (lambda text: t.parse_datetime(text, 60))
    assert [shown(found, at) for at in range(found.n)] == [
        None if text is None else plain(read(text)) for text in texts
    ]


def test_a_slot_of_minus_one_is_null_in_every_kind_of_from_values():
    values = [True, t.MIN_DATE, "a", Interval(t.MIN_DATE, None), ["a", None], {"x": 1}]
    for value in values:
        col = constant(value, 2).take(np.array([1, -1]))
        assert shown(col, 0) == plain(value)
        assert shown(col, 1) is None


def test_columns_of_several_kinds_keep_their_order():
    values = ["a", t.MIN_DATE, None, True, t.MIN_DATETIME, 3, "a"]
    col = from_values(values)
    assert [shown(col, at) for at in range(col.n)] == [plain(value) for value in values]
    assert isinstance(from_values(values[1:2]), Times)


def test_more_combinations_than_a_number_holds_are_left_to_rows():
    many = Words(np.arange(60_000), list(range(60_000)))
    with pytest.raises(Unsupported):
        scalar.apply(None, Ctx(np.zeros(60_000, np.int64)), lambda *values: values[0] == values[3], [many] * 4)
