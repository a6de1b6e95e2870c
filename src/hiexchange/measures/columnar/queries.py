"""Query on columns: expand the sources, drop rows test by test, give what is left.

Rows of all subjects are expanded, tested and sorted together. The plan is stage 1's: a test is made as
soon as the aliases it reads are bound, a let is evaluated for the rows left once a test reads it.
"""

from __future__ import annotations

import itertools
from functools import cmp_to_key
from typing import Any

import numpy as np

from hiexchange.measures.columnar import scalar
from hiexchange.measures.columnar.cells import (
    Col,
    Ints,
    Lists,
    Mask,
    Mixed,
    Nulls,
    Records,
    Times,
    Unsupported,
    spread,
)
from hiexchange.measures.columnar.evaluate import Evaluator, property_of, step
from hiexchange.measures.columnar.moments import sizes
from hiexchange.measures.columnar.operators import as_lists, distinct
from hiexchange.measures.columnar.state import Ctx
from hiexchange.measures.cql import compare
from hiexchange.measures.cql.compiler import EFFECT, Unit
from hiexchange.measures.cql.library import Node, walk
from hiexchange.measures.cql.query import Plan, Step, conjuncts, staged
from hiexchange.measures.cql.values import Quantity

PRODUCT = 1_000_000
"""Pairs of a row and a row of a relationship that are looked at together."""


class _Rows:
    """The rows of a query while it is worked on: their context, and the row of the outer context each is of."""

    def __init__(self, ctx: Ctx) -> None:
        self.outer = ctx
        self.ctx = ctx
        self.base: Ints = np.arange(ctx.n)
        self.listed: Mask = np.zeros(ctx.n, np.bool_)

    def bind(self, alias: str, col: Col) -> None:
        """Bind a source: a row for each of its elements."""
        if isinstance(col, Lists):
            self.listed[self.base[col.there]] = True
            up, values = col.owner, col.child
        elif isinstance(col, Mixed) and any(isinstance(part, Lists) for part in col.parts):
            raise Unsupported("a source that is a list for some")
        else:
            up = np.flatnonzero(col.known())
            values = col if len(up) == col.n else col.take(up)
        self.ctx = self.ctx.below(up, {alias: values})
        self.base = self.base[up]

    def keep(self, rows: Ints) -> None:
        """Drop all but some rows."""
        if len(rows) < self.ctx.n:
            self.ctx = self.ctx.sub(rows)
            self.base = self.base[rows]


@step("Query")
def _query(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    if node.get("aggregate"):
        raise Unsupported("Query with aggregate")
    rows = _Rows(ctx)
    names, plans = ev.names.plans.get(id(node)) or _planned(ev, node)
    for item, plan in zip(node["source"], plans, strict=True):
        rows.bind(item["alias"], ev.expression(item["expression"], unit, rows.ctx))
        for slot, test in plan:
            if slot is not None:
                rows.ctx.names[names[slot]] = ev.expression(test, unit, rows.ctx)
            elif test.get("type") in ("With", "Without") and "suchThat" in test:
                _relate(ev, test, unit, rows)
            else:
                rows.keep(np.flatnonzero(scalar.truth(ev.expression(test, unit, rows.ctx)) == 1))
    return _given(ev, node, unit, rows, [item["alias"] for item in node["source"]])


def _planned(ev: Evaluator, node: Node) -> tuple[list[str], list[Plan[Node]]]:
    """Return the names of sources and lets, and what is to be done once each source is bound: stage 1's plan."""
    lets = node.get("let") or []
    names = [item["alias"] for item in node["source"]] + [item["identifier"] for item in lets]

    def step(slot: int | None, own: Node, *parts: Node | None) -> Step[Node]:
        nodes = [part for part in parts if part is not None]
        reads = {names.index(name) for part in nodes for name in ev.names.of(part)[0] if name in names}
        tells = any(item["type"] == "Message" for part in nodes for item in walk(part))
        return Step(slot, own, frozenset(reads | {EFFECT} if tells else reads))

    count = len(node["source"])
    steps = [step(count + at, item["expression"], item["expression"]) for at, item in enumerate(lets)]
    tests = [step(None, item, item["expression"], item.get("suchThat")) for item in node.get("relationship") or []]
    tests += [step(None, item, item) for item in conjuncts(node.get("where"))]
    found = ev.names.plans[id(node)] = names, staged(list(range(count)), steps, tests)
    return found


def _relate(ev: Evaluator, node: Node, unit: Unit, rows: _Rows) -> None:
    """Keep the rows some row of the relationship goes with (With), or none (Without)."""
    ctx = rows.ctx
    if not ctx.n:
        return
    outer, inverse = ctx, np.arange(ctx.n)
    if not ev.names.of(node["expression"])[0]:
        subjects, inverse = np.unique(ctx.owner, return_inverse=True)
        outer = Ctx(subjects)
    col = ev.expression(node["expression"], unit, outer)
    if not isinstance(col, (Lists, Mixed)):
        known = np.flatnonzero(col.known())
        col = Lists(known, col.take(known), col.known())
    related = as_lists(col)
    counts, starts = related.counts()[inverse], related.starts()[inverse]
    hit = np.zeros(ctx.n, np.bool_)
    for begin, end in _chunks(counts):
        index, up = spread(starts[begin:end], counts[begin:end])
        up = up + begin
        inner = ctx.below(up, {node["alias"]: related.child.take(index)})
        passed = scalar.truth(ev.expression(node.get("suchThat"), unit, inner)) == 1
        hit[up[passed]] = True
    rows.keep(np.flatnonzero(hit if node["type"] == "With" else ~hit))


def _chunks(counts: Ints) -> list[tuple[int, int]]:
    """Cut rows so that each piece has a bounded number of pairs; a single row may have more."""
    ends = np.cumsum(counts)
    cuts, begin, done = [], 0, 0
    while begin < len(counts):
        end = max(int(np.searchsorted(ends, done + PRODUCT, side="right")), begin + 1)
        cuts.append((begin, end))
        done, begin = int(ends[end - 1]), end
    return cuts


def _given(ev: Evaluator, node: Node, unit: Unit, rows: _Rows, sources: list[str]) -> Col:
    given = node.get("return")
    ctx = rows.ctx
    if given is not None:
        col, merged = ev.expression(given["expression"], unit, ctx), given.get("distinct", True)
    elif len(sources) == 1:
        col, merged = ctx.get(sources[0]) or Nulls(ctx.n), False
    else:
        fields = {name: ctx.get(name) or Nulls(ctx.n) for name in sources}
        col, merged = Records(fields, np.ones(ctx.n, np.bool_)), True
    outer = rows.outer
    if not rows.listed.any():
        # All sources are scalar (or null): the element, or null when it was filtered out.
        first = np.full(outer.n, -1, np.int64)
        first[rows.base[::-1]] = np.arange(ctx.n)[::-1]
        return col.take(first)
    if not rows.listed[rows.base].all():
        raise Unsupported("a source that is a list for some")
    result = Lists(rows.base, col, rows.listed)
    if merged:
        result = distinct(result)
    return _sorted(ev, node["sort"], unit, outer, result) if node.get("sort") else result


# Sort -----------------------------------------------------------------------------------------


def _sorted(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx, col: Lists) -> Lists:
    """Sort each list stably; nulls first ascending, last descending."""
    several = col.counts()[col.owner] > 1
    rows = np.flatnonzero(several)
    if not len(rows):
        return col
    inner = ctx.below(col.owner[rows], {})
    values = col.child.take(rows)
    keys = []
    for item in node.get("by", []):
        descending = item.get("direction", "asc").startswith("desc")
        key = _key(ev, item, unit, inner, values)
        keys.append(_ranks(key, descending))
    order = np.lexsort((*reversed(keys), col.owner[rows]))
    places = np.arange(len(col.owner))
    places[rows] = rows[order]
    return Lists(col.owner, col.child.take(places), col.there)


def _key(ev: Evaluator, item: Node, unit: Unit, ctx: Ctx, values: Col) -> Col:
    kind = item.get("type")
    if kind == "ByColumn":
        return property_of(ev, ctx, values, item["path"])
    if kind != "ByExpression":
        return values
    inner = ctx.below(np.arange(ctx.n), {})
    inner.element = values
    return ev.expression(item["expression"], unit, inner)


def _ranks(key: Col, descending: bool) -> Ints:
    if isinstance(key, Nulls):
        return np.zeros(key.n, np.int64)
    if isinstance(key, Times):
        # A day comes before its hours: of values that begin alike the shorter one is first, as in stage 1.
        ranks, known = key.packed << 3 | sizes(key), key.known()
    else:
        codes, values = scalar.factor(key)
        known = codes >= 0
        ranks = np.array([*_places(values), 0], np.int64)[codes]
    signed = -ranks if descending else ranks
    end = np.iinfo(np.int64).max if descending else np.iinfo(np.int64).min
    return np.where(known, signed, end)


def _places(values: list[Any]) -> list[int]:
    """Return each value's place in their order.

    Raises:
        Unsupported: Some have no order among them.
    """
    numbers = all(compare.is_number(value) for value in values)
    texts = all(isinstance(value, str) for value in values)
    units = {value.unit if isinstance(value, Quantity) and value.value is not None else None for value in values}
    if not (numbers or texts or (len(units) == 1 and None not in units)):
        raise Unsupported("a sort key without an order")

    def rank(i: int, j: int) -> int:
        return compare.order(values[i], values[j]) or 0

    order = sorted(range(len(values)), key=cmp_to_key(rank))
    places = [0] * len(values)
    for before, at in itertools.pairwise(order):
        places[at] = places[before] + (1 if compare.order(values[before], values[at]) else 0)
    return places
