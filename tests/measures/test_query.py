"""Queries: a product of several sources must give what the naive product gives, however its tests are placed."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange.errors import MeasureError
from hiexchange.measures.cql import library
from hiexchange.measures.cql.compiler import Program, Unit
from hiexchange.measures.cql.model import Model
from hiexchange.measures.cql.subject import Context, Subject


def subject_and(defines):
    statements = [{"name": name, "expression": node} for name, node in defines.items()]
    elm = library.read({"library": {"identifier": {"id": "T"}, "statements": statements}})
    return Subject(Context(Program(Model()), {}), []), Unit(Program(Model()), elm, {}, {}, "T")


def evaluate(node):
    subject, unit = subject_and({"T": node})
    return subject.evaluate(unit.define("T"))


def number(value):
    if value is None:
        return {"type": "As", "asType": "{urn:hl7-org:elm-types:r1}Integer", "operand": {"type": "Null"}}
    return {"type": "Literal", "valueType": "{urn:hl7-org:elm-types:r1}Integer", "value": str(value)}


def numbers(values):
    return {"type": "List", "element": [number(value) for value in values]}


def alias(name):
    return {"type": "AliasRef", "name": name}


def let(name):
    return {"type": "QueryLetRef", "name": name}


def call(kind, *operands):
    return {"type": kind, "operand": list(operands)}


def every(parts):
    node = parts[0]
    for part in parts[1:]:
        node = call("And", node, part)
    return node


def query(sources, where=None, *, lets=None, more=None):
    row = {"type": "Tuple", "element": [{"name": name, "value": alias(name)} for name in sources]}
    node = {
        "type": "Query",
        "source": [{"alias": name, "expression": node} for name, node in sources.items()],
        "let": [{"identifier": name, "expression": node} for name, node in (lets or {}).items()],
        "return": {"expression": row, "distinct": False},
        **(more or {}),
    }
    return node if where is None else {**node, "where": where}


names = ("a", "b", "c")
lists = st.lists(st.one_of(st.integers(0, 4), st.none()), max_size=4)
tests = st.lists(
    st.tuples(
        st.sampled_from(["Less", "Equal", "GreaterOrEqual"]), st.sampled_from([*names, "sum"]), st.integers(0, 5)
    ),
    max_size=4,
)


@given(st.lists(lists, min_size=3, max_size=3), tests)
def test_tests_made_early_drop_the_same_rows(values, conditions):
    def holds(row, kind, name, bound):
        found = (None if None in row[:2] else row[0] + row[1]) if name == "sum" else row[names.index(name)]
        if found is None:
            return False
        return {"Less": found < bound, "Equal": found == bound, "GreaterOrEqual": found >= bound}[kind]

    parts = [call(kind, let(name) if name == "sum" else alias(name), number(bound)) for kind, name, bound in conditions]
    node = query(
        dict(zip(names, map(numbers, values), strict=True)),
        every(parts) if parts else None,
        lets={"sum": call("Add", alias("a"), alias("b"))},
    )
    wanted = [row for row in product(*values) if all(holds(row, *condition) for condition in conditions)]
    assert [tuple(row[name] for name in names) for row in evaluate(node)] == wanted


def test_a_scalar_source_beside_a_list_makes_a_list_even_when_its_row_is_dropped_early():
    dropped = call("Less", alias("a"), number(0))
    assert evaluate(query({"a": number(1), "b": numbers([1, 2])}, dropped)) == []
    assert evaluate(query({"a": number(1), "b": number(2)}, dropped)) is None
    assert evaluate(query({"a": number(1), "b": number(None)}, dropped)) is None
    assert evaluate(query({"a": number(1), "b": number(2), "c": numbers([])}, dropped)) == []


def several():
    """An expression that fails whenever it is evaluated."""
    return call("Equal", call("SingletonFrom", numbers([1, 2])), alias("a"))


def test_a_test_that_fails_is_made_only_where_the_one_before_it_held():
    never = call("Less", alias("b"), number(0))
    sources = {"a": numbers([1]), "b": numbers([1, 2])}
    assert evaluate(query(sources, every([never, several()]))) == []
    with pytest.raises(MeasureError):
        evaluate(query(sources, every([several(), never])))
    assert evaluate(query({"a": numbers([1]), "b": numbers([])}, several())) == []


def test_a_let_nobody_reads_before_the_row_is_dropped_is_not_evaluated():
    lets = {"bad": several()}
    assert evaluate(query({"a": numbers([1])}, call("Less", alias("a"), number(0)), lets=lets)) == []


def test_an_aggregate_sees_each_row_of_the_product_that_is_kept():
    total = {"type": "Add", "operand": [let("total"), call("Multiply", alias("a"), alias("b"))]}
    more = {"aggregate": {"identifier": "total", "starting": number(0), "expression": total}}
    node = query({"a": numbers([1, 2, 3]), "b": numbers([10, 20])}, call("Less", alias("a"), number(3)), more=more)
    assert evaluate(node) == 90


def test_a_sort_by_expression_without_other_sources_finds_its_row():
    by = {"type": "ByExpression", "direction": "desc", "expression": {"type": "IdentifierRef", "name": "$this"}}
    assert evaluate({"type": "Sort", "source": numbers([1, 3, 2]), "by": [by]}) == [3, 2, 1]


@given(st.lists(st.integers(0, 5), max_size=5), st.lists(st.integers(0, 8), max_size=5))
def test_what_an_inner_query_asks_of_the_outer_row_follows_that_row(outer, inner):
    # Interval[a, a + 2] is the same for every row of the inner query, and another for each of the outer.
    span = {"type": "Interval", "low": alias("a"), "high": call("Add", alias("a"), number(2))}
    within = {
        "type": "Query",
        "source": [{"alias": "b", "expression": numbers(inner)}],
        "where": call("In", alias("b"), span),
    }
    node = {
        "type": "Query",
        "source": [{"alias": "a", "expression": numbers(outer)}],
        "return": {"expression": {"type": "Count", "source": within}, "distinct": False},
    }
    assert evaluate(node) == [sum(a <= b <= a + 2 for b in inner) for a in outer]
