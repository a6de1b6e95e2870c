"""Operators on columns: kernels for truth, dates and intervals; stage 1's own functions once a distinct value elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hiexchange.measures.columnar import moments
from hiexchange.measures.columnar.cells import (
    Col,
    Ints,
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
    from_values,
    merge,
    temporal,
)
from hiexchange.measures.columnar.state import Ctx, State
from hiexchange.measures.cql.compiler import FAULTS
from hiexchange.measures.cql.values import Interval

Factor = tuple[Ints, list[Any]]


def truth(col: Col) -> Any:
    """Return true 1, false 0, null -1 a row; a value that is no Boolean is taken for null.

    Raises:
        Unsupported: Values are no Booleans.
    """
    if isinstance(col, Truth):
        return col.values
    if isinstance(col, Nulls):
        return np.full(col.n, -1, np.int8)
    raise Unsupported("a condition that is no Boolean")


def factor(col: Col) -> Factor:
    """Return a column as places in a list of distinct Python values, -1 for null.

    Raises:
        Unsupported: Resources, lists and tuples have no distinct values here.
    """
    if isinstance(col, Words):
        return _used(col)
    if isinstance(col, Truth):
        return col.values.astype(np.int64), [False, True]
    if isinstance(col, Nulls):
        return np.full(col.n, -1, np.int64), []
    if isinstance(col, Times):
        return _factored(col.known(), [col.packed, col.precision], lambda row: temporal(col.cls, row[0], row[1]))
    if isinstance(col, Spans):
        return _factor_spans(col)
    if isinstance(col, Things) and not col.node.resource:
        codes, values = col.node.signatures(col.rows)
        return _used(Words(codes, values))
    if isinstance(col, Lists):
        return _factor_lists(col)
    if isinstance(col, Mixed):
        found, held = np.full(col.n, -1, np.int64), list[Any]()
        for rows, part in col.split():
            codes, values = factor(part)
            found[rows] = np.where(codes < 0, -1, codes + len(held))
            held += values
        return found, held
    raise Unsupported(f"an operator on {_name(col)}")


def _used(col: Words) -> Factor:
    if len(col.values) <= col.n:
        return col.codes, col.values
    # Few rows of a long list of values: compute for those that occur.
    known = col.known()
    used, places = np.unique(col.codes[known], return_inverse=True)
    codes = np.full(col.n, -1, np.int64)
    codes[known] = places
    return codes, [col.values[code] for code in used]


def _name(col: Col) -> str:
    return f"resources ({col.node.kind})" if isinstance(col, Things) else type(col).__name__.lower()


def _factored(known: Any, parts: Sequence[Any], make: Callable[[list[int]], Any]) -> Factor:
    rows = np.flatnonzero(known)
    codes = np.full(len(known), -1, np.int64)
    if not len(rows):
        return codes, []
    distinct, inverse = np.unique(
        np.stack([np.asarray(part, np.int64)[rows] for part in parts]), axis=1, return_inverse=True
    )
    codes[rows] = inverse.reshape(-1)
    return codes, [make(row) for row in distinct.T.tolist()]


def _factor_spans(col: Spans) -> Factor:
    cls = col.low.cls

    def make(row: list[int]) -> Interval:
        low = temporal(cls, row[0], row[1]) if row[1] else None
        high = temporal(cls, row[2], row[3]) if row[3] else None
        return Interval(low, high, bool(row[4]), bool(row[5]), cls)

    parts = [col.low.packed, col.low.precision, col.high.packed, col.high.precision, col.low_closed, col.high_closed]
    return _factored(col.there, parts, make)


def _factor_lists(col: Lists) -> Factor:
    """Lists as Python lists: for short ones of values that have no kernel (the parts of a split text)."""
    codes, values = factor(col.child)
    items = [None if code < 0 else values[code] for code in codes.tolist()]
    starts, counts = col.starts().tolist(), col.counts().tolist()
    there = col.there.tolist()
    distinct: dict[tuple[Any, ...], int] = {}
    found: list[Any] = []
    places = np.full(col.n, -1, np.int64)
    each = codes.tolist()
    for row in range(col.n):
        if there[row]:
            begin, end = starts[row], starts[row] + counts[row]
            key = tuple(each[begin:end])
            if key not in distinct:
                distinct[key] = len(found)
                found.append(items[begin:end])
            places[row] = distinct[key]
    return places, found


def by_kind(cols: list[Col], ctx: Ctx, compute: Callable[[list[Col], Ctx], Col]) -> Col:
    """Compute kind by kind where some column is mixed, at once where none is."""
    if not any(isinstance(col, Mixed) for col in cols):
        return compute(cols, ctx)
    tags = np.zeros(ctx.n, np.int64)
    for col in cols:
        if isinstance(col, Mixed):
            tags = tags * (len(col.parts) + 1) + col.tag + 1
    pieces = []
    for tag in np.unique(tags):
        rows = np.flatnonzero(tags == tag)
        plain = [_plain(col, rows) for col in cols]
        pieces.append((rows, compute(plain, ctx.sub(rows))))
    return merge(ctx.n, pieces)


def _plain(col: Col, rows: Ints) -> Col:
    if not isinstance(col, Mixed):
        return col.take(rows)
    tag = int(col.tag[rows[0]])
    return Nulls(len(rows)) if tag < 0 else col.parts[tag].take(col.place[rows])


def apply(state: State, ctx: Ctx, compute: Callable[..., Any], cols: list[Col], *, strict: bool = True) -> Col:
    """Apply a function of stage 1 once a distinct combination of values; strict ones give null for any null."""
    return by_kind(cols, ctx, lambda plain, sub: _applied(state, sub, compute, plain, strict))


def _applied(state: State, ctx: Ctx, compute: Callable[..., Any], cols: list[Col], strict: bool) -> Col:
    if strict and any(isinstance(col, Nulls) for col in cols):
        return Nulls(ctx.n)
    factors = [factor(col) for col in cols]
    if math.prod(len(values) + 1 for _, values in factors) > np.iinfo(np.int64).max:
        raise Unsupported("more combinations of values than a number can tell apart")
    combined = np.zeros(ctx.n, np.int64)
    known = np.ones(ctx.n, np.bool_)
    for codes, values in factors:
        combined = combined * (len(values) + 1) + codes + 1
        known &= codes >= 0
    rows = np.flatnonzero(known) if strict else np.arange(ctx.n)
    if not len(rows):
        return Nulls(ctx.n)
    distinct, inverse = np.unique(combined[rows], return_inverse=True)
    results, bad = [], []
    for place, code in enumerate(distinct.tolist()):
        arguments: list[Any] = []
        for _, values in reversed(factors):
            code, at = divmod(code, len(values) + 1)
            arguments.append(values[at - 1] if at else None)
        try:
            results.append(compute(*reversed(arguments)))
        except FAULTS:
            results.append(None)
            bad.append(place)
    if bad:
        state.fail(ctx, rows[np.isin(inverse, bad)])
    slots = np.full(ctx.n, -1, np.int64)
    slots[rows] = inverse
    return from_values(results).take(slots)


# Comparison ------------------------------------------------------------------------------------


def precise(kind: str, a: Col, b: Col, p: int | None) -> Col | None:
    """Return a kernel's answer for two columns of dates or intervals of dates, None where there is none."""
    if not isinstance(a, (Times, Spans)) or not isinstance(b, (Times, Spans)):
        return None
    within, holder = (a, b) if kind in ("In", "IncludedIn") else (b, a)
    if kind in ("In", "Contains") and not isinstance(within, Times):
        return None
    if kind in ("In", "Contains", "IncludedIn", "Includes") and not isinstance(holder, Spans):
        return None
    kernel = moments.PRECISE.get(kind)
    if kernel is None:
        return None
    found = moments.truth(kernel(a, b, p), a, b)
    # Nothing is in an interval that is null: CQL says false of In and Contains, and null of the others.
    return Truth(np.where(holder.known(), found.values, 0)) if kind in ("In", "Contains") else found


def compared(kind: str, a: Col, b: Col) -> Col | None:
    """Return a kernel's answer for the comparison of two columns, None where there is none."""
    if isinstance(a, Times) and isinstance(b, Times):
        return moments.truth(moments.ORDER[kind](a, b), a, b)
    if isinstance(a, Words) and isinstance(b, Words) and kind == "Equal" and _texts(a.values) and _texts(b.values):
        places = {text: place for place, text in enumerate(a.values)}
        other = np.array([*(places.get(text, -1) for text in b.values), -1], np.int64)[b.codes]
        # Equal texts may stand twice in one list: compare by the place of the last.
        own = np.array([*(places[text] for text in a.values), -1], np.int64)[a.codes]
        return Truth(np.where((a.codes < 0) | (b.codes < 0), -1, own == other))
    if isinstance(a, Things) and isinstance(b, Things) and kind == "Equal" and a.node.resource and b.node.resource:
        alike = (a.rows == b.rows) if a.node is b.node else np.zeros(a.n, np.bool_)
        return Truth(np.where((a.rows < 0) | (b.rows < 0), -1, alike))
    return None


def _texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def tokens(cols: Sequence[Col], token: Callable[[Any], Any]) -> list[Ints]:
    """Return integers that are the same where Distinct takes values for the same, over all the columns given.

    Raises:
        Unsupported: Their kinds cannot be told apart by content here.
    """
    ids: dict[Any, int] = {None: 0}

    def number(key: Any) -> int:
        return ids.setdefault(key, len(ids))

    return [_tokens(col, token, number) for col in cols]


def _tokens(col: Col, token: Callable[[Any], Any], number: Callable[[Any], int]) -> Ints:
    if isinstance(col, Mixed):
        found = np.zeros(col.n, np.int64)
        for rows, part in col.split():
            found[rows] = _tokens(part, token, number)
        return found
    if isinstance(col, Things) and col.node.resource:
        base = number(("node", id(col.node)))
        # Far above any other number: a resource is only itself.
        return np.where(col.rows < 0, 0, (base + 1) * 10**12 + col.rows)
    if isinstance(col, Records):
        parts = np.stack([_tokens(field, token, number) for field in col.fields.values()])
        distinct, inverse = np.unique(parts, axis=1, return_inverse=True)
        keys = np.array([number(("record", tuple(row))) for row in distinct.T.tolist()], np.int64)
        return np.where(col.there, keys[inverse.reshape(-1)] if len(keys) else 0, 0)
    if isinstance(col, Lists):
        items = _tokens(col.child, token, number).tolist()
        starts, counts = col.starts().tolist(), col.counts().tolist()
        lists = [number(("list", tuple(items[at : at + count]))) for at, count in zip(starts, counts, strict=True)]
        return np.where(col.there, np.array(lists, np.int64), 0)
    codes, values = factor(col)
    keys = np.array([*(number(token(value)) for value in values), 0], np.int64)
    return keys[codes]
