"""Clock, tree navigation, aggregate and resolve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import tree
from hiexchange.fhirpath.columns import Collection, Ints, Part, dense, empty, join_same_type, merge, unite
from hiexchange.fhirpath.frame import Frame, spread
from hiexchange.fhirpath.kinds import kind_of
from hiexchange.fhirpath.navigate import child

MAX_DEPTH = 64
"""Levels that descendants() follows."""


def _clock(node: tree.Call, frame: Frame) -> Collection:
    now = frame.env.now
    if now is None:
        raise FHIRPathError(f"{node.name}() needs a clock", position=node.position, hint="pass now=datetime(...)")
    text, kind = _CLOCK[node.name](now)
    return dense(pa.scalar(text, pa.string()), kind, frame.n)


_CLOCK: dict[str, Callable[[datetime], tuple[str, str]]] = {
    "now": lambda now: (now.isoformat(timespec="milliseconds"), "System.DateTime"),
    "today": lambda now: (now.date().isoformat(), "System.Date"),
    "timeOfDay": lambda now: (now.isoformat(timespec="milliseconds")[11:23], "System.Time"),
}


def _children(node: tree.Call, frame: Frame) -> Collection:
    return children(frame.eval(node.parent), frame)


def children(parent: Collection, frame: Frame) -> Collection:
    """Return every element directly under those of ``parent``; those of one parent stay together."""
    parts: list[Part] = []
    for part, rank in zip(parent.sparse(), parent.ranks(), strict=True):
        names = _element_names(part, frame)
        inner = frame.inner(part, None)
        for at, name in enumerate(names):
            found = child(inner.this, name, frame.env)
            for item, place in zip(found.sparse(), found.positions(), strict=True):
                assert item.rows is not None and part.rows is not None
                order = (rank[item.rows] * len(names) + at) * (2**20) + place
                parts.append(replace(item, rows=part.rows[item.rows], order=order))
    return merge(frame.n, parts)


def _element_names(part: Part, frame: Frame) -> list[str]:
    if kind_of(part.type) not in (None, "Quantity"):
        return ["id", "extension"]
    definition = frame.env.definitions.get(part.type)
    return list(definition.elements) if definition else []


def _descendants(node: tree.Call, frame: Frame) -> Collection:
    level = children(frame.eval(node.parent), frame)
    levels = []
    for _ in range(MAX_DEPTH):
        if not level.parts:
            break
        levels.append(level)
        level = children(level, frame)
    return unite(frame.n, levels)


def _aggregate(node: tree.Call, frame: Frame) -> Collection:
    """Fold each row's elements from the first to the last: all first ones together, then all second ones."""
    parent = frame.eval(node.parent)
    total = frame.eval(node.arguments[1]) if len(node.arguments) == 2 else empty(frame.n)
    sparse, positions = parent.sparse(), parent.positions()
    for step in range(int(parent.counts().max(initial=0))):
        touched = np.zeros(frame.n, dtype=np.bool_)
        done: list[Part] = []
        for part, place in zip(sparse, positions, strict=True):
            here = part.keep(place == step)
            if not len(here.values):
                continue
            assert here.rows is not None
            inner = frame.inner(here, np.full(len(here.rows), step))
            inner.total = spread(total, here.rows)
            touched[here.rows] = True
            done += [_outer(found, here.rows) for found in inner.eval(node.arguments[0]).sparse()]
        done += [part.keep(~touched[part.rows]) for part in total.sparse()]
        total = join_same_type(merge(frame.n, done))
    return total


def _outer(found: Part, rows: Ints) -> Part:
    assert found.rows is not None
    return replace(found, rows=rows[found.rows])


def _trace(node: tree.Call, frame: Frame) -> Collection:
    # A trace would put content into a log; the input passes through.
    return frame.eval(node.parent)


def _resolve(node: tree.Call, frame: Frame) -> Collection:
    """Follow references into the resource's own ``contained``; others lead outside and give nothing."""
    references = child(frame.eval(node.parent), "reference", frame.env)
    root, rows = frame.root()
    if not any(pc.any(pc.starts_with(part.array(frame.n), "#")).as_py() for part in references.parts):
        return empty(frame.n)
    # Evaluated in the root frame, which keeps it: the text is read once for all references.
    resources = root.eval(tree.Child(tree.This(), "contained"))
    if not resources.parts:
        return empty(frame.n)
    places: dict[tuple[int, str], tuple[int, int]] = {}
    for at, part in enumerate(resources.sparse()):
        assert part.rows is not None
        for slot, (row, key) in enumerate(
            zip(part.rows.tolist(), pc.struct_field(part.values, "id").to_pylist(), strict=True)
        ):
            if key is not None:
                places.setdefault((row, f"#{key}"), (at, slot))
    return _resolved(references, resources, places, rows)


def _resolved(
    references: Collection, resources: Collection, places: dict[tuple[int, str], tuple[int, int]], rows: Ints | None
) -> Collection:
    hits: list[list[tuple[int, int, int]]] = [[] for _ in resources.parts]
    for part, ranks in zip(references.sparse(), references.ranks(), strict=True):
        assert part.rows is not None
        for row, rank, text in zip(part.rows.tolist(), ranks.tolist(), part.values.to_pylist(), strict=True):
            found = places.get((row if rows is None else int(rows[row]), text or ""))
            if found is not None:
                hits[found[0]].append((row, rank, found[1]))
    parts = []
    for part, found_here in zip(resources.sparse(), hits, strict=True):
        if found_here:
            row_of, order, slots = (np.array(column, np.int64) for column in zip(*sorted(found_here), strict=True))
            parts.append(Part(part.values.take(pa.array(slots)), part.type, row_of, None, order))
    return merge(references.n, parts)


FUNCTIONS = {
    "now": (0, 0, _clock),
    "today": (0, 0, _clock),
    "timeOfDay": (0, 0, _clock),
    "children": (0, 0, _children),
    "descendants": (0, 0, _descendants),
    "aggregate": (1, 2, _aggregate),
    "trace": (1, 2, _trace),
    "resolve": (0, 0, _resolve),
}
