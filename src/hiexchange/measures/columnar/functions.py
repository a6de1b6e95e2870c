"""Functions on columns: FHIRHelpers as stage 1 has it, the others by their ELM bodies with columns for operands.

Overloads are chosen as in stage 1, by the values of each row, kind by kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hiexchange.measures.columnar import scalar
from hiexchange.measures.columnar.cells import (
    Col,
    Lists,
    Mixed,
    Nulls,
    Spans,
    Things,
    Times,
    Truth,
    Unsupported,
    Words,
    empty,
    merge,
    no_times,
)
from hiexchange.measures.columnar.evaluate import DEPTH, Evaluator, compare, sample, step
from hiexchange.measures.columnar.state import Ctx
from hiexchange.measures.cql import fhirhelpers
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compiler import Function, Unit
from hiexchange.measures.cql.library import Node

_PLAIN = {"ToString", "ToDateTime", "ToDate", "ToTime", "ToBoolean", "ToInteger", "getValue"}
_CONVERTED = {
    "CodeableConcept", "Coding", "Period", "Range", "Ratio", "Quantity", "Age", "Count", "Distance", "Duration",
    "SimpleQuantity", "MoneyQuantity",
}  # fmt: skip


@step("FunctionRef")
def _function_ref(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    owner = ev.unit_of(node, unit)
    name = node["name"]
    cols = [ev.expression(item, unit, ctx) for item in node.get("operand", [])]
    if owner.library.id == "FHIRHelpers" and name in fhirhelpers.FUNCTIONS:
        return scalar.by_kind(cols, ctx, lambda plain, sub: _native(ev, sub, name, plain))
    candidates = [function for function in owner.functions.get(name, []) if function.arity == len(cols)]
    if not candidates:
        raise Unsupported("a function that does not exist")
    if len(candidates) == 1:
        return _call(ev, ctx, candidates[0], cols)
    return scalar.by_kind(cols, ctx, lambda plain, sub: _overloaded(ev, sub, candidates, plain))


def _call(ev: Evaluator, ctx: Ctx, function: Function, cols: list[Col]) -> Col:
    if function.node.get("external") or "expression" not in function.node:
        raise Unsupported(f"the external function {function.name}")
    if ev.state.depth >= DEPTH:
        raise Unsupported("functions nested without end")
    names: dict[str, Any] = {
        operand["name"]: col for operand, col in zip(function.node.get("operand", []), cols, strict=True)
    }
    ev.state.depth += 1
    try:
        return ev.expression(function.node["expression"], function.unit, Ctx(ctx.owner, names=names))
    finally:
        ev.state.depth -= 1


def _overloaded(ev: Evaluator, ctx: Ctx, candidates: list[Function], cols: list[Col]) -> Col:
    kinds = np.zeros(ctx.n, np.int64)
    samples: list[list[Any]] = []
    for col in cols:
        tags, values = _kinds(col)
        kinds = kinds * (len(values) + 1) + tags + 1
        samples.append(values)
    pieces = []
    for kind in np.unique(kinds).tolist():
        rows = np.flatnonzero(kinds == kind)
        arguments: list[Any] = []
        for values in reversed(samples):
            kind, tag = divmod(kind, len(values) + 1)
            arguments.append(values[tag - 1] if tag else None)
        function = _chosen(candidates, arguments[::-1])
        if function is None:
            ev.state.fail(ctx, rows)
        else:
            pieces.append((rows, _call(ev, ctx.sub(rows), function, [col.take(rows) for col in cols])))
    return merge(ctx.n, pieces)


def _chosen(candidates: list[Function], arguments: list[Any]) -> Function | None:
    best, found = None, None
    for candidate in candidates:
        fit = candidate.fit(arguments)
        if fit is not None and (best is None or fit < best):
            best, found = fit, candidate
    return found


def _kinds(col: Col) -> tuple[Any, list[Any]]:
    """Return for each row the place of a value like its own, -1 for null."""
    if isinstance(col, Nulls):
        return np.full(col.n, -1, np.int64), []
    if isinstance(col, Words):
        classes: dict[Any, int] = {}
        values: list[Any] = []
        tags = []
        for value in col.values:
            kind = (type(value), value.type.name if hasattr(value, "type") else getattr(value, "kind", None))
            if kind not in classes:
                classes[kind] = len(values)
                values.append(value)
            tags.append(classes[kind])
        return np.array([*tags, -1], np.int64)[col.codes], values
    if isinstance(col, Lists):
        return _list_kinds(col)
    return np.where(col.known(), 0, -1), [sample(col)]


def _list_kinds(col: Lists) -> tuple[Any, list[Any]]:
    """Lists are typed by their first element that is not null."""
    rows = np.flatnonzero(col.child.known())
    owners, first = np.unique(col.owner[rows], return_index=True)
    heads = col.child.take(rows[first])
    tags = np.where(col.there, 0, -1)
    values: list[Any] = [[]]
    parts = heads.split() if isinstance(heads, Mixed) else [(np.arange(heads.n), heads)]
    for some, part in parts:
        kinds, samples = _kinds(part)
        tags[owners[some]] = kinds + len(values)
        values += [[item] for item in samples]
    return tags, values


# FHIRHelpers ----------------------------------------------------------------------------------


def _native(ev: Evaluator, ctx: Ctx, name: str, cols: list[Col]) -> Col:
    compute: Callable[..., Any] = fhirhelpers.FUNCTIONS[name]
    if name in ("extension", "modifierExtension"):
        return _extension(ev, ctx, name, cols)
    if isinstance(cols[0], Nulls) and name not in ("hasValue",):
        return Nulls(ctx.n)
    col = cols[0]
    if isinstance(col, Lists):
        if name not in ("ToValue", "ToConcept", "ToCode"):
            raise Unsupported(f"FHIRHelpers.{name} of a list")
        inner = ctx.below(col.owner, {})
        child = scalar.by_kind([col.child], inner, lambda plain, sub: _native(ev, sub, name, plain))
        return Lists(col.owner, child, col.there)
    if name in _PLAIN and isinstance(col, (Words, Times, Truth)):
        return col
    if name in ("ToInterval", "ToValue") and isinstance(col, Things) and col.node.kind == "Period":
        return _period(col)
    if name == "ToInterval" and isinstance(col, Spans):
        return col
    if name == "ToValue" and (not isinstance(col, Things) or col.node.kind not in _CONVERTED):
        return col
    if name == "ToInterval" and not isinstance(col, (Things, Words)):
        return Nulls(ctx.n)
    return ev.scalar(ctx, compute, cols, strict=False)


def _period(col: Things) -> Col:
    start, end = _instants(col.node.child("start")), _instants(col.node.child("end"))
    every = np.ones(col.node.n, np.bool_)
    return Spans(start, end, start.known(), every, every).take(col.rows)


def _instants(col: Col) -> Times:
    return col if isinstance(col, Times) else no_times(t.DateTime, col.n)


def _extension(ev: Evaluator, ctx: Ctx, name: str, cols: list[Col]) -> Col:
    """Extensions of an element that have a URL; an empty list where there are none."""
    col, url = cols
    every = np.ones(ctx.n, np.bool_)
    if isinstance(col, Things):
        held = col.node.child(name).take(col.rows)
        if isinstance(held, Lists) and isinstance(held.child, Things):
            urls = held.child.node.child("url").take(held.child.rows)
            inner = ctx.below(held.owner, {})
            same = compare(ev, inner, "Equal", urls, url.take(held.owner))
            rows = np.flatnonzero(scalar.truth(same) == 1)
            return Lists(held.owner[rows], held.child.take(rows), every)
    elif not isinstance(col, Nulls):
        raise Unsupported("extensions of a primitive")
    return empty(every)
