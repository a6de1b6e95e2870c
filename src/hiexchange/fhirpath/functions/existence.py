"""Functions that ask whether and how many: exists, empty, all, count, not, allTrue, subsetOf, isDistinct."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import tree
from hiexchange.fhirpath.columns import Collection, dense, mask_of
from hiexchange.fhirpath.compare import element_keys
from hiexchange.fhirpath.frame import Frame, booleans, truth
from hiexchange.fhirpath.functions.filtering import criteria, filtered
from hiexchange.fhirpath.kinds import kind_of


def _exists(node: tree.Call, frame: Frame) -> Collection:
    parent = frame.eval(node.parent)
    if node.arguments:
        parent = filtered(parent, node.arguments[0], frame)
    return booleans(parent.counts() > 0, frame.n)


def _empty(node: tree.Call, frame: Frame) -> Collection:
    return booleans(frame.eval(node.parent).counts() == 0, frame.n)


def _count(node: tree.Call, frame: Frame) -> Collection:
    return dense(pa.array(frame.eval(node.parent).counts()), "System.Integer", frame.n)


def _not(node: tree.Call, frame: Frame) -> Collection:
    return dense(pc.invert(truth(frame.eval(node.parent), "not()")), "System.Boolean", frame.n)


def _all(node: tree.Call, frame: Frame) -> Collection:
    failed = np.zeros(frame.n, dtype=np.bool_)
    for part, true in criteria(frame.eval(node.parent), node.arguments[0], frame):
        failed[part.rows[~true]] = True  # type: ignore[index]
    return booleans(~failed, frame.n)


def _quantifier(any_: bool, wanted: bool) -> Callable[[tree.Call, Frame], Collection]:
    def run(node: tree.Call, frame: Frame) -> Collection:
        hit = np.zeros(frame.n, dtype=np.bool_)
        for part in frame.eval(node.parent).sparse():
            if kind_of(part.type) != "Boolean":
                raise FHIRPathError(f"{node.name}() needs Booleans, not {part.type}", position=node.position)
            match = mask_of(part.values) if wanted else ~mask_of(part.values)
            hit[part.rows[match if any_ else ~match]] = True  # type: ignore[index]
        return booleans(hit if any_ else ~hit, frame.n)

    return run


def _subset(node: tree.Call, frame: Frame) -> Collection:
    mine, others = element_keys(frame.eval(node.parent)), element_keys(frame.eval(node.arguments[0]))
    small, large = (mine, others) if node.name == "subsetOf" else (others, mine)
    return booleans(np.array([set(a) <= set(b) for a, b in zip(small, large, strict=True)], np.bool_), frame.n)


def _is_distinct(node: tree.Call, frame: Frame) -> Collection:
    keys = element_keys(frame.eval(node.parent))
    return booleans(np.array([len(set(row)) == len(row) for row in keys], np.bool_), frame.n)


FUNCTIONS = {
    "exists": (0, 1, _exists),
    "empty": (0, 0, _empty),
    "count": (0, 0, _count),
    "not": (0, 0, _not),
    "all": (1, 1, _all),
    "allTrue": (0, 0, _quantifier(False, True)),
    "anyTrue": (0, 0, _quantifier(True, True)),
    "allFalse": (0, 0, _quantifier(False, False)),
    "anyFalse": (0, 0, _quantifier(True, False)),
    "subsetOf": (1, 1, _subset),
    "supersetOf": (1, 1, _subset),
    "isDistinct": (0, 0, _is_distinct),
}
