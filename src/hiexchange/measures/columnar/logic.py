"""Logic and conditions on columns: each branch is evaluated for the rows that take it, and for no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hiexchange.measures.columnar import moments, scalar
from hiexchange.measures.columnar.cells import Col, Ints, Lists, Truth, merge
from hiexchange.measures.columnar.evaluate import Evaluator, compare, first_of, operands, step
from hiexchange.measures.columnar.state import Ctx
from hiexchange.measures.cql.compiler import Unit
from hiexchange.measures.cql.library import Node


def _progressive(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx, stop: int, combine: Callable[[Any, Any], Any]) -> Col:
    first, second = operands(node)
    left = scalar.truth(ev.expression(first, unit, ctx))
    rows = np.flatnonzero(left != stop)
    right = np.full(ctx.n, -1, np.int8)
    right[rows] = scalar.truth(ev.expression(second, unit, ctx if len(rows) == ctx.n else ctx.sub(rows)))
    return Truth(combine(left, right))


@step("And")
def _and(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    return _progressive(ev, node, unit, ctx, 0, moments.both)


@step("Or")
def _or(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    return _progressive(ev, node, unit, ctx, 1, moments.either)


@step("Implies")
def _implies(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    return _progressive(ev, node, unit, ctx, 0, lambda x, y: moments.either(moments.negate(x), y))


@step("Not")
def _not(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    return Truth(moments.negate(scalar.truth(ev.expression(operands(node)[0], unit, ctx))))


@step("IsTrue", "IsFalse")
def _is_truth(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    values = scalar.truth(ev.expression(operands(node)[0], unit, ctx))
    return Truth(values == (1 if node["type"] == "IsTrue" else 0))


@step("IsNull")
def _is_null(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    return Truth(~ev.expression(operands(node)[0], unit, ctx).known())


@step("If")
def _if(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    condition = scalar.truth(ev.expression(node["condition"], unit, ctx)) == 1
    pieces = []
    for branch, rows in (("then", np.flatnonzero(condition)), ("else", np.flatnonzero(~condition))):
        if len(rows):
            pieces.append((rows, ev.expression(node.get(branch), unit, ctx.sub(rows))))
    return merge(ctx.n, pieces)


@step("Case")
def _case(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    rest: Ints = np.arange(ctx.n)
    pieces: list[tuple[Ints, Col]] = []
    comparand = ev.expression(node["comparand"], unit, ctx) if node.get("comparand") is not None else None
    for item in node.get("caseItem", []):
        if not len(rest):
            break
        sub = ctx.sub(rest)
        when = ev.expression(item["when"], unit, sub)
        if comparand is not None:
            when = compare(ev, sub, "Equal", comparand.take(rest), when)
        hit = scalar.truth(when) == 1
        taken = rest[hit]
        if len(taken):
            pieces.append((taken, ev.expression(item["then"], unit, ctx.sub(taken))))
        rest = rest[~hit]
    if len(rest):
        pieces.append((rest, ev.expression(node.get("else"), unit, ctx.sub(rest))))
    return merge(ctx.n, pieces)


@step("Coalesce")
def _coalesce(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    items = operands(node)
    rest: Ints = np.arange(ctx.n)
    pieces: list[tuple[Ints, Col]] = []
    for item in items:
        if not len(rest):
            break
        col = ev.expression(item, unit, ctx.sub(rest))
        if len(items) == 1 and isinstance(col, Lists):
            keep = np.flatnonzero(col.child.known())
            col = first_of(Lists(col.owner[keep], col.child.take(keep), col.there))
        known = col.known()
        pieces.append((rest[known], col.take(np.flatnonzero(known))))
        rest = rest[~known]
    return merge(ctx.n, pieces)
