"""ELM expressions on columns: one function a node type, ``f(evaluator, node, unit, ctx) -> Col``.

Laziness is stage 1's: the right side of And is evaluated for the rows its left side leaves open, a branch
for the rows that take it. So the same retrieves are reached, and the same subjects are in error. A subject
for whom an expression has no value here is noted (:meth:`State.fail`) and left to stage 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np

from hiexchange.measures.columnar import moments, scalar
from hiexchange.measures.columnar.cells import (
    Col,
    Lists,
    Mixed,
    Nulls,
    Records,
    Spans,
    Things,
    Times,
    Truth,
    Unsupported,
    Words,
    constant,
    merge,
    no_times,
)
from hiexchange.measures.columnar.state import Ctx, State
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql import types
from hiexchange.measures.cql.compiler import FAULTS, Define, Scope, Unit, registering
from hiexchange.measures.cql.compiler import Frame as CompilerFrame
from hiexchange.measures.cql.library import IGNORED, Node
from hiexchange.measures.cql.model import Element, get
from hiexchange.measures.cql.operators import STRICT
from hiexchange.measures.cql.query import Plan
from hiexchange.measures.cql.references import INSTANCES, point_hint
from hiexchange.measures.cql.values import Interval

Step = Callable[["Evaluator", Node, Unit, Ctx], Col]
STEPS: dict[str, Step] = {}
DEPTH = 60
"""Nesting of function calls beyond which an expression is left to stage 1."""

_DYNAMIC = {
    "AliasRef", "OperandRef", "QueryLetRef", "IdentifierRef", "ExpressionRef", "FunctionRef", "Retrieve", "Message", "Now",
    "Today", "TimeOfDay", "Query", "Total", "Current",
}  # fmt: skip
_WORTH_ONCE = {"Query", "FunctionRef", "First", "Last", "Exists", "Count", "Union", "Flatten", "SingletonFrom"}


step = registering(STEPS)


class Names:
    """What is known of nodes without evaluating them, by identity."""

    def __init__(self) -> None:
        self.memo: dict[int, tuple[Node, frozenset[str], bool]] = {}
        self.plans: dict[int, tuple[list[str], list[Plan[Node]]]] = {}
        """The steps of each Query, by the node's identity; ELM lives as long as the program."""

    def of(self, node: Node) -> tuple[frozenset[str], bool]:
        """Return the names a node reads from its scope, and whether it is constant for the run."""
        found = self.memo.get(id(node))
        if found is None:
            kind = node.get("type")
            free: set[str] = set()
            fixed = kind not in _DYNAMIC
            if kind in ("AliasRef", "OperandRef", "QueryLetRef", "IdentifierRef"):
                free.add(node["name"])
            elif kind == "Property" and "scope" in node and node.get("source") is None:
                free.add(node["scope"])
                fixed = False
            for child in _children(node):
                names, constant_too = self.of(child)
                free |= names
                fixed = fixed and constant_too
            found = self.memo[id(node)] = (node, frozenset(free), fixed)
        return found[1], found[2]


def _children(node: Node) -> Iterator[Node]:
    for key, value in node.items():
        if key not in IGNORED:
            for item in value if isinstance(value, list) else (value,):
                if isinstance(item, dict):
                    yield item


class Evaluator:
    """Evaluates defines of one program for one batch."""

    def __init__(self, state: State, names: Names) -> None:
        """Keep the state; ``names`` may be shared by all batches."""
        self.state = state
        self.names = names
        self.program = state.program

    def define(self, define: Define, ctx: Ctx) -> Col:
        """Return a define's values for rows."""
        return self.state.define(define, ctx, self._body)

    def _body(self, define: Define, ctx: Ctx) -> Col:
        return self.expression(define.node.get("expression"), define.unit, ctx)

    def expression(self, node: Node | None, unit: Unit, ctx: Ctx) -> Col:
        """Return an expression's values for rows.

        Raises:
            Unsupported: It has no columns.
        """
        if node is None or not ctx.n:
            return Nulls(ctx.n)
        kind = node.get("type", "ValueSetRef")
        free, fixed = self.names.of(node)
        if fixed:
            return self._fixed(node, unit, ctx)
        found = STEPS.get(kind)
        if found is None:
            raise Unsupported(kind)
        if not free and ctx.parent is not None and kind in _WORTH_ONCE:
            subjects, places = np.unique(ctx.owner, return_inverse=True)
            if len(subjects) < ctx.n:
                return found(self, node, unit, Ctx(subjects)).take(places)
        return found(self, node, unit, ctx)

    def _fixed(self, node: Node, unit: Unit, ctx: Ctx) -> Col:
        """A value of literals and parameters: stage 1 computes it once."""
        memo = self.state.memo
        found = memo.get(id(node))
        if found is None:
            try:
                value = unit.compiler.expression(node, Scope(CompilerFrame(), {}))(self.state, [])
                found = (node, constant(value, 1), False)
            except FAULTS:
                found = (node, Nulls(1), True)
            memo[id(node)] = found
        _, col, failed = found
        if failed:
            self.state.fail(ctx)
        assert isinstance(col, Col)
        return col.take(np.zeros(ctx.n, np.int64))

    def operands(self, node: Node, unit: Unit, ctx: Ctx) -> list[Col]:
        """Return the values of a node's operands."""
        return [self.expression(item, unit, ctx) for item in operands(node)]

    def unit_of(self, node: Node, unit: Unit) -> Unit:
        """Return the library a reference points into."""
        alias = node.get("libraryName")
        if alias is None:
            return unit
        if alias not in unit.includes:
            raise Unsupported("a library that is not included")
        return unit.includes[alias]

    def scalar(self, ctx: Ctx, compute: Callable[..., Any], cols: list[Col], *, strict: bool = True) -> Col:
        """Apply a function of stage 1, once a distinct combination of values."""
        return scalar.apply(self.state, ctx, compute, cols, strict=strict)


def operands(node: Node) -> list[Node]:
    """Return a node's operands."""
    given = node.get("operand")
    if given is None:
        given = [node["source"]] if "source" in node else []
    return given if isinstance(given, list) else [given]


# References -----------------------------------------------------------------------------------


@step("ExpressionRef")
def _expression_ref(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    define = ev.unit_of(node, unit).define(node["name"])
    if define is None:
        raise Unsupported("a define that does not exist")
    return ev.define(define, ctx)


@step("AliasRef", "OperandRef", "QueryLetRef")
def _name_ref(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    found = ctx.get(node["name"])
    if found is None:
        raise Unsupported("a name that is not in scope")
    return found


@step("IdentifierRef")
def _identifier(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    if ctx.element is not None:
        return ctx.element if node["name"] == "$this" else property_of(ev, ctx, ctx.element, node["name"])
    found = ctx.get(node["name"])
    return found if found is not None else _expression_ref(ev, node, unit, ctx)


@step("Property")
def _property(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    if node.get("source") is not None:
        return property_of(ev, ctx, ev.expression(node["source"], unit, ctx), node["path"])
    found = ctx.get(node["scope"])
    if found is None:
        raise Unsupported("a name that is not in scope")
    return property_of(ev, ctx, found, node["path"])


def property_of(ev: Evaluator, ctx: Ctx, col: Col, path: str) -> Col:
    """Return a property of every value: as :func:`..cql.model.get`."""
    if isinstance(col, Nulls):
        return col
    if isinstance(col, Mixed):
        pieces = [(rows, property_of(ev, ctx.sub(rows), part, path)) for rows, part in col.split()]
        return merge(col.n, pieces)
    if isinstance(col, Things):
        first, _, rest = path.partition(".")
        found = col.node.child(first).take(col.rows)
        return property_of(ev, ctx, found, rest) if rest else found
    if isinstance(col, Lists):
        child = property_of(ev, ctx.below(col.owner, {}), col.child, path)
        rows = np.flatnonzero(child.known())
        if isinstance(child, Lists):
            raise Unsupported("a list in a list")
        return Lists(col.owner[rows], child.take(rows), col.there)
    if isinstance(col, Records):
        first, _, rest = path.partition(".")
        field = col.fields.get(first, Nulls(col.n))
        return property_of(ev, ctx, field, rest) if rest else field
    if path == "value" and _primitive(col):
        return col
    if isinstance(col, Spans) and path in ("low", "high"):
        return col.low if path == "low" else col.high
    if isinstance(col, Spans) and path in ("lowClosed", "highClosed"):
        closed = col.low_closed if path == "lowClosed" else col.high_closed
        return Truth(np.where(col.there, closed, -1))
    return ev.scalar(ctx, lambda value: get(value, path), [col])


def _primitive(col: Col) -> bool:
    """Whether the property ``value`` of every value is the value."""
    plain = (str, int, Decimal)
    return isinstance(col, (Times, Truth)) or (isinstance(col, Words) and all(isinstance(v, plain) for v in col.values))


# Types ----------------------------------------------------------------------------------------


def sample(col: Col) -> Any:
    """Return a value of a column's type, for tests that look at nothing else; Words have none."""
    if isinstance(col, Truth):
        return True
    if isinstance(col, Times):
        return t.MIN_DATE if col.cls is t.Date else t.MIN_DATETIME
    if isinstance(col, Spans):
        return Interval(None, None, True, True, col.low.cls)
    if isinstance(col, Things):
        return Element(col.node.model.type(col.node.kind), {}, 0 if col.node.resource else None)
    if isinstance(col, Records):
        return {}
    if isinstance(col, Lists):
        if isinstance(col.child, (Mixed, Words)):
            raise Unsupported("the type of a list of several kinds")
        return [] if isinstance(col.child, Nulls) else [sample(col.child)]
    return None


def fits(ev: Evaluator, ctx: Ctx, test: types.Test, col: Col) -> Any:
    """Return which values pass a test of type; null passes none."""
    if isinstance(col, Mixed):
        found = np.zeros(col.n, np.bool_)
        for rows, part in col.split():
            found[rows] = fits(ev, ctx.sub(rows), test, part)
        return found
    if isinstance(col, Words):
        passed = np.array([*(bool(test(value)) for value in col.values), False], np.bool_)
        return passed[col.codes]
    if isinstance(col, Nulls):
        return np.zeros(col.n, np.bool_)
    if isinstance(col, Lists):
        # A list without elements is of every type; the elements of others are of one kind.
        filled = col.having(col.child.known())
        return col.there & (~filled | bool(test(sample(col)))) & (filled | bool(test([])))
    return col.known() & bool(test(sample(col)))


@step("As")
def _as(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    col = ev.expression(operands(node)[0], unit, ctx)
    spec = types.specifier(node, "as")
    strict = bool(node.get("strict"))
    if isinstance(spec, dict) and spec.get("type") == "ListTypeSpecifier" and not strict:
        return col
    passed = fits(ev, ctx, types.test_for(spec), col)
    if strict:
        state_rows = np.flatnonzero(col.known() & ~passed)
        if len(state_rows):
            ev.state.fail(ctx, state_rows)
    if passed.all():
        return col
    return col.take(np.where(passed, np.arange(ctx.n), -1))


@step("Is")
def _is(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    col = ev.expression(operands(node)[0], unit, ctx)
    return Truth(fits(ev, ctx, types.test_for(types.specifier(node, "is")), col))


# Values ---------------------------------------------------------------------------------------


@step("List")
def _list(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    items = [ev.expression(item, unit, ctx) for item in node.get("element", [])]
    if any(isinstance(item, Lists) for item in items) and not all(isinstance(item, (Lists, Nulls)) for item in items):
        raise Unsupported("a list of lists and others")
    count = len(items)
    child = merge(ctx.n * count, [(np.arange(ctx.n) * count + at, item) for at, item in enumerate(items)])
    return Lists(np.repeat(np.arange(ctx.n), count), child, np.ones(ctx.n, np.bool_))


@step("Tuple")
def _tuple(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    fields = {item["name"]: ev.expression(item["value"], unit, ctx) for item in node.get("element", [])}
    return Records(fields, np.ones(ctx.n, np.bool_))


@step("Instance")
def _instance(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    namespace, local = types.split_name(node["classType"])
    make = INSTANCES.get(local) if namespace == types.SYSTEM else None
    if make is None or local == "Tuple":
        raise Unsupported(f"Instance of {local}")
    names = [item["name"] for item in node.get("element", [])]
    cols = [ev.expression(item["value"], unit, ctx) for item in node.get("element", [])]
    return ev.scalar(ctx, lambda *values: make(dict(zip(names, values, strict=True))), cols, strict=False)


@step("Interval")
def _interval(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    low, high = ev.expression(node.get("low"), unit, ctx), ev.expression(node.get("high"), unit, ctx)
    kind = point_hint(node.get("low")) or point_hint(node.get("high"))
    given = "lowClosedExpression" in node or "highClosedExpression" in node
    closed = [
        ev.expression(node[f"{end}Expression"], unit, ctx)
        if f"{end}Expression" in node
        else constant(bool(node.get(end, True)), ctx.n)
        for end in ("lowClosed", "highClosed")
    ]

    def make(ends: list[Col], sub: Ctx) -> Col:
        found = _span(ends, given, kind)
        if found is not None:
            return found

        def interval(x: Any, y: Any, begins: Any, finishes: Any) -> Any:
            if given and begins is None and finishes is None and x is None and y is None:
                return None
            return Interval(x, y, begins is not False, finishes is not False, kind)

        return ev.scalar(sub, interval, ends, strict=False)

    return scalar.by_kind([low, high, *closed], ctx, make)


def _span(ends: list[Col], given: bool, kind: Any) -> Col | None:
    """An interval of dates of one class, as a column of intervals."""
    low, high, begins, finishes = ends
    classes = {end.cls for end in (low, high) if isinstance(end, Times)}
    if len(classes) != 1 or not all(isinstance(end, (Times, Nulls)) for end in (low, high)):
        return None
    (cls,) = classes
    sides = [end if isinstance(end, Times) else no_times(cls, end.n) for end in (low, high)]
    neither = ~sides[0].known() & ~sides[1].known()
    first, last = scalar.truth(begins), scalar.truth(finishes)
    absent = neither & (first < 0) & (last < 0) & given
    if bool((neither & ~absent).any()) and kind is not cls:
        return None
    return Spans(sides[0], sides[1], first != 0, last != 0, ~absent)


@step("Start", "End")
def _end(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    kernel = moments.start if node["type"] == "Start" else moments.end

    def ended(cols: list[Col], sub: Ctx) -> Col:
        (col,) = cols
        return kernel(col) if isinstance(col, Spans) else ev.scalar(sub, STRICT[node["type"]], [col])

    return scalar.by_kind(ev.operands(node, unit, ctx), ctx, ended)


# Comparison -----------------------------------------------------------------------------------


def compare(ev: Evaluator, ctx: Ctx, kind: str, a: Col, b: Col) -> Col:
    """Return an order or equality of two columns."""

    def compared(cols: list[Col], sub: Ctx) -> Col:
        found = scalar.compared(kind, *cols)
        return found if found is not None else ev.scalar(sub, STRICT[kind], cols)

    return scalar.by_kind([a, b], ctx, compared)


@step("Equal", "NotEqual", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
def _comparison(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    first, second = operands(node)
    a = ev.expression(first, unit, ctx)
    # Null on the left decides before the right side is asked, as in stage 1.
    known = np.flatnonzero(a.known())
    if len(known) == ctx.n:
        return compare(ev, ctx, node["type"], a, ev.expression(second, unit, ctx))
    sub = ctx.sub(known)
    found = compare(ev, sub, node["type"], a.take(known), ev.expression(second, unit, sub))
    return merge(ctx.n, [(known, found)])


def first_of(col: Lists) -> Col:
    """Return the first element of every list, null of an empty one."""
    counts = col.counts()
    return col.child.take(np.where(counts > 0, col.starts(), -1))
