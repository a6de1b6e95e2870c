"""Columns for operators on values and on lists; what has no kernel is stage 1's function, once a distinct value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hiexchange.measures.columnar import moments, scalar
from hiexchange.measures.columnar.cells import (
    Col,
    Ints,
    Lists,
    Mixed,
    Nulls,
    Spans,
    Things,
    Times,
    Truth,
    Unsupported,
    Words,
    concat,
    empty,
)
from hiexchange.measures.columnar.evaluate import Evaluator, compare, first_of, operands, step
from hiexchange.measures.columnar.state import Ctx
from hiexchange.measures.cql import compare as cql_compare
from hiexchange.measures.cql import convert, intervals, lists, ucum
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compiler import Unit
from hiexchange.measures.cql.library import Node
from hiexchange.measures.cql.operators import LOOSE, PRECISE, STRICT, length_of_null
from hiexchange.measures.cql.retrieve import in_value_set
from hiexchange.measures.cql.values import Interval, Quantity

_VALUES = (
    "Multiply", "Divide", "TruncatedDivide", "Modulo", "Power", "Negate", "Abs", "Ceiling", "Floor", "Truncate", "Concatenate",
    "Upper", "Lower", "StartsWith", "EndsWith", "Matches", "ConvertQuantity", "ToBoolean", "ToInteger", "ToLong",
    "ToDecimal", "ToTime", "ToQuantity", "ToConcept", "Successor", "Predecessor",
)  # fmt: skip


@step(*_VALUES)
def _strict(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    return ev.scalar(ctx, STRICT[node["type"]], ev.operands(node, unit, ctx))


@step("ToString")
def _to_string(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    offset = ev.program.model.offset

    def written(value: Any) -> Any:
        # Columns hold components without an offset: all of them are in the evaluation's.
        return convert.to_string(
            t.DateTime(value.key, value.precision, offset) if isinstance(value, t.DateTime) else value
        )

    return ev.scalar(ctx, written, ev.operands(node, unit, ctx))


@step("Length")
def _length(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    nothing = length_of_null(node)
    (col,) = ev.operands(node, unit, ctx)
    if isinstance(col, Lists):
        return _numbers(col.counts(), col.there if nothing is None else np.ones(ctx.n, np.bool_))
    return ev.scalar(ctx, lambda value: nothing if value is None else len(value), [col], strict=False)


@step("Equivalent")
def _equivalent(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    return ev.scalar(ctx, LOOSE["Equivalent"], ev.operands(node, unit, ctx), strict=False)


@step("Split", "Substring")
def _text(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    names = ("stringToSplit", "separator") if node["type"] == "Split" else ("stringToSub", "startIndex", "length")
    compute: Callable[..., Any] = convert.split if node["type"] == "Split" else convert.substring
    return ev.scalar(ctx, compute, [ev.expression(node.get(name), unit, ctx) for name in names], strict=False)


# Dates ----------------------------------------------------------------------------------------


@step("DateFrom", "ToDate")
def _date_from(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    def dated(cols: list[Col], sub: Ctx) -> Col:
        (col,) = cols
        return moments.to_date(col) if isinstance(col, Times) else ev.scalar(sub, convert.to_date, [col])

    return scalar.by_kind(ev.operands(node, unit, ctx), ctx, dated)


@step("ToDateTime")
def _to_datetime(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    offset = ev.program.model.offset

    def converted(cols: list[Col], sub: Ctx) -> Col:
        (col,) = cols
        if isinstance(col, Times):
            return Times(t.DateTime, col.packed, col.precision)
        return ev.scalar(sub, lambda value: convert.to_datetime(value, offset), [col])

    return scalar.by_kind(ev.operands(node, unit, ctx), ctx, converted)


@step("Add", "Subtract")
def _add(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    sign = 1 if node["type"] == "Add" else -1
    second, fixed = operands(node)[1], None
    if second.get("type") == "Quantity":
        fixed = _shift(Quantity(convert.to_decimal(str(second["value"])), second.get("unit")), sign)

    def moved(plain: list[Col], sub: Ctx) -> Col:
        if fixed is not None and isinstance(plain[0], Times):
            amount, precision, weeks = fixed
            return moments.add(plain[0], amount, precision, weeks=weeks)
        return ev.scalar(sub, STRICT[node["type"]], plain)

    return scalar.by_kind(ev.operands(node, unit, ctx), ctx, moved)


def _shift(quantity: Quantity, sign: int) -> tuple[int, int, bool] | None:
    """Return (amount, precision, weeks) of a shift by whole calendar units, None for other quantities."""
    word = ucum.calendar_word(quantity.unit)
    if word is None or quantity.value is None or quantity.value != quantity.value.to_integral():
        return None
    return sign * int(quantity.value), t.PRECISIONS[word.capitalize()], word == "week"


@step("DurationBetween", "DifferenceBetween", "CalculateAgeAt")
def _between(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    name, kind = node["precision"].capitalize(), node["type"]
    precision, weeks = t.PRECISIONS[name], name == "Week"
    # Ages in years to days are counted on dates: the hour of birth does not matter.
    on_dates = kind == "CalculateAgeAt" and precision <= t.DAY
    measure = t.difference if kind == "DifferenceBetween" else t.duration

    def between(x: Any, y: Any) -> Any:
        if on_dates:
            x, y = t.as_date(x), t.as_date(y)
        elif type(x) is not type(y):
            x, y = t.as_datetime(x), t.as_datetime(y)
        return measure(x, y, precision, weeks=weeks)

    def counted(cols: list[Col], sub: Ctx) -> Col:
        a, b = cols
        if isinstance(a, Times) and isinstance(b, Times):
            first, last = (moments.to_date(a), moments.to_date(b)) if on_dates else (a, b)
            units = moments.between(first, last, precision, weeks=weeks, whole=kind != "DifferenceBetween")
            if units is not None:
                return _numbers(units, a.known() & b.known())
        return ev.scalar(sub, between, cols)

    return scalar.by_kind(ev.operands(node, unit, ctx), ctx, counted)


def _numbers(numbers: Ints, known: Any) -> Col:
    distinct_numbers, places = np.unique(numbers, return_inverse=True)
    return Words(np.where(known, places, -1), [int(number) for number in distinct_numbers])


@step("DateTimeComponentFrom")
def _component(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    precision = t.PRECISIONS[node["precision"].capitalize()]
    cols = ev.operands(node, unit, ctx)
    return ev.scalar(ctx, lambda value: value.key[precision - 1] if value.precision >= precision else None, cols)


# Intervals and membership ----------------------------------------------------------------------


_MEMBERSHIP = ("In", "Contains", "ProperIn", "ProperContains")
"""False, not null, of a container that is null."""


@step(*PRECISE)
def _precise(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    p = lists.temporal_precision(node.get("precision"))
    kind = node["type"]

    def related(cols: list[Col], sub: Ctx) -> Col:
        a, b = cols
        if isinstance(a, Lists) or isinstance(b, Lists):
            if kind == "In":
                return _member(ev, sub, a, b)
            if kind == "Contains":
                return _member(ev, sub, b, a)
            raise Unsupported(f"{kind} of lists")
        found = scalar.precise(kind, a, b, p)
        if found is not None:
            return found
        if kind not in _MEMBERSHIP and (isinstance(a, Nulls) or isinstance(b, Nulls)):
            return Nulls(sub.n)
        return ev.scalar(sub, lambda x, y: PRECISE[kind](x, y, p), cols, strict=False)

    return scalar.by_kind(ev.operands(node, unit, ctx), ctx, related)


def _member(ev: Evaluator, ctx: Ctx, element: Col, col: Col) -> Col:
    """Tell whether a list holds an equal element; a null only if the list holds a null."""
    if not isinstance(col, Lists):
        return Truth(np.zeros(ctx.n, np.int8))
    against = element.take(col.owner)
    same = compare(ev, ctx.below(col.owner, {}), "Equal", against, col.child)
    hit = scalar.truth(same) == 1
    hit |= ~against.known() & ~col.child.known()
    return Truth(col.having(hit))


@step("InValueSet")
def _in_value_set(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    sets = ev.expression(node.get("valuesetExpression") or node.get("valueset"), unit, ctx)
    return _in_sets(ev, ctx, ev.expression(node["code"], unit, ctx), sets)


@step("AnyInValueSet")
def _any_in_value_set(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    sets = ev.expression(node.get("valuesetExpression") or node.get("valueset"), unit, ctx)
    codes = ev.expression(node["codes"], unit, ctx)
    if isinstance(codes, Nulls):
        return Truth(np.zeros(ctx.n, np.int8))
    return _in_sets(ev, ctx, codes, sets)


def _in_sets(ev: Evaluator, ctx: Ctx, codes: Col, sets: Col) -> Col:
    if not isinstance(codes, Lists):
        return ev.scalar(ctx, in_value_set, [codes, sets], strict=False)
    inner = ctx.below(codes.owner, {})
    hit = scalar.truth(_in_sets(ev, inner, codes.child, sets.take(codes.owner))) == 1
    return Truth(codes.having(hit))


# Lists ----------------------------------------------------------------------------------------


def as_lists(col: Col) -> Lists:
    """Return a column of lists; null for null.

    Raises:
        Unsupported: Some value is no list.
    """
    if isinstance(col, Lists):
        return col
    if isinstance(col, Nulls):
        return empty(np.zeros(col.n, np.bool_))
    raise Unsupported("a list operator on values that are no lists")


@step("Exists")
def _exists(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    col = ev.expression(operands(node)[0], unit, ctx)
    return Truth(col.having(col.child.known()) if isinstance(col, Lists) else col.known())


@step("Count")
def _count(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    col = as_lists(ev.expression(operands(node)[0], unit, ctx))
    return _numbers(np.bincount(col.owner[col.child.known()], minlength=col.n), np.ones(ctx.n, np.bool_))


@step("First", "Last")
def _first(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    source = node.get("source") or {}
    if node["type"] == "Last" and source.get("type") == "Split":
        # The last segment of a reference, asked for once a reference: no list is needed for it.
        texts = [ev.expression(source.get(name), unit, ctx) for name in ("stringToSplit", "separator")]
        return ev.scalar(ctx, lambda text, by: lists.last(convert.split(text, by)), texts, strict=False)
    col = as_lists(ev.expression(node.get("source"), unit, ctx))
    if node["type"] == "First":
        return first_of(col)
    counts = col.counts()
    return col.child.take(np.where(counts > 0, col.starts() + counts - 1, -1))


@step("Indexer")
def _indexer(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    values, index = ev.operands(node, unit, ctx)
    col = as_lists(values)
    codes, numbers = scalar.factor(index)
    at = np.array([*(number if 0 <= number < 2**31 else -1 for number in numbers), -1], np.int64)[codes]
    return col.child.take(np.where((at >= 0) & (at < col.counts()), col.starts() + at, -1))


@step("SingletonFrom")
def _singleton(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    col = ev.expression(operands(node)[0], unit, ctx)
    if not isinstance(col, (Lists, Mixed)):
        return col
    col = as_lists(col)
    many = np.flatnonzero(col.counts() > 1)
    if len(many):
        ev.state.fail(ctx, many)
    return first_of(col)


@step("ToList")
def _to_list(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    col = ev.expression(operands(node)[0], unit, ctx)
    if isinstance(col, Lists):
        return Lists(col.owner, col.child, np.ones(ctx.n, np.bool_))
    rows = np.flatnonzero(col.known())
    return Lists(rows, col.take(rows), np.ones(ctx.n, np.bool_))


@step("Flatten")
def _flatten(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    col = as_lists(ev.expression(operands(node)[0], unit, ctx))
    child = col.child
    if isinstance(child, Lists):
        return Lists(col.owner[child.owner], child.child, col.there)
    if isinstance(child, Mixed) and any(isinstance(part, Lists) for part in child.parts):
        raise Unsupported("Flatten of lists and others")
    rows = np.flatnonzero(child.known())
    return Lists(col.owner[rows], child.take(rows), col.there)


@step("Distinct")
def _distinct(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    return distinct(as_lists(ev.expression(operands(node)[0], unit, ctx)))


def distinct(col: Lists) -> Lists:
    """Return the lists without repetition, first ones kept; null counts as one value."""
    if not len(col.owner) or col.counts().max() < 2:
        return col
    (keys,) = scalar.tokens([col.child], cql_compare.token)
    first = np.sort(np.unique(np.stack([col.owner, keys]), axis=1, return_index=True)[1])
    return col if len(first) == len(keys) else Lists(col.owner[first], col.child.take(first), col.there)


@step("Union", "Intersect", "Except")
def _set_operator(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    kind = node["type"]

    def combined(cols: list[Col], sub: Ctx) -> Col:
        if any(isinstance(col, (Spans, Times, Truth, Things)) for col in cols):
            return ev.scalar(sub, LOOSE[kind], cols, strict=False)
        a, b = as_lists(cols[0]), as_lists(cols[1])
        return _union(a, b) if kind == "Union" else _without(a, b, keep=kind == "Intersect")

    return scalar.by_kind(ev.operands(node, unit, ctx), ctx, combined)


def _union(a: Lists, b: Lists) -> Lists:
    every = np.ones(a.n, np.bool_)
    if not len(b.owner) or not len(a.owner):
        some = a if len(a.owner) else b
        return distinct(Lists(some.owner, some.child, every))
    owner = np.concatenate([a.owner, b.owner])
    order = np.argsort(owner, kind="stable")
    return distinct(Lists(owner[order], concat([a.child, b.child]).take(order), every))


def _without(a: Lists, b: Lists, *, keep: bool) -> Lists:
    first, second = scalar.tokens([a.child, b.child], cql_compare.token)
    both = np.stack([np.concatenate([a.owner, b.owner]), np.concatenate([first, second])])
    places = np.unique(both, axis=1, return_inverse=True)[1].reshape(-1) if both.size else np.zeros(0, np.int64)
    found = np.isin(places[: len(first)], places[len(first) :])
    rows = np.flatnonzero(found if keep else ~found)
    return distinct(Lists(a.owner[rows], a.child.take(rows), a.there & b.there if keep else a.there))


_REDUCED = ("Sum", "Max", "Min", "AnyTrue", "AllTrue", "Avg", "Median")


@step(*_REDUCED)
def _reduced(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    """Aggregates: stage 1's function once a distinct list."""
    (col,) = ev.operands(node, unit, ctx)
    return ev.scalar(ctx, LOOSE[node["type"]], [as_lists(col)], strict=False)


@step("Collapse", "Expand")
def _pieces(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    cols = ev.operands(node, unit, ctx)
    if node["type"] == "Collapse":
        return ev.scalar(ctx, lambda values, per=None: intervals.collapse(values, per), cols, strict=False)

    def expand(given: Any, per: Any = None) -> Any:
        single = isinstance(given, Interval)
        return intervals.expand([given] if single else given, per, points=single)

    return ev.scalar(ctx, expand, cols, strict=False)


@step("Message")
def _message(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    """A message that is sent belongs into that subject's result, or stops it: stage 1 does either."""
    sent = np.ones(ctx.n, np.bool_)
    if "condition" in node:
        sent = scalar.truth(ev.expression(node["condition"], unit, ctx)) == 1
    if sent.any():
        ev.state.fail(ctx, sent)
    return ev.expression(node.get("source"), unit, ctx)
