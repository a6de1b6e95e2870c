"""Evaluate a syntax tree in a frame: navigation, operators, and the way to the functions.

Pure computation over Arrow: no I/O, no clock (``now`` is an argument of the environment).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import compare, functions, quantity, tree
from hiexchange.fhirpath.arithmetic import arithmetic, negate
from hiexchange.fhirpath.columns import Collection, Ints, dense, empty, unite
from hiexchange.fhirpath.frame import Environment, Frame, spread
from hiexchange.fhirpath.functions.subset import at_index, distinct
from hiexchange.fhirpath.functions.typing import as_type, is_type
from hiexchange.fhirpath.navigate import child


def walk(node: tree.Node, frame: Frame) -> Collection:
    """Return what a node gives in each row of a frame."""
    try:
        return _WALK[type(node)](node, frame)
    except FHIRPathError as error:
        if error.position is None:
            error.position = node.position
        raise


def environment(definitions: Any, **rest: Any) -> Environment:
    """Return an :class:`Environment` with this evaluator in it."""
    return Environment(definitions, walk, **rest)


def _literal(node: tree.Literal, frame: Frame) -> Collection:
    return dense(literal_scalar(node), f"System.{node.type}", frame.n)


def literal_scalar(node: tree.Literal) -> pa.Scalar:
    """Return a literal's Arrow value: decimals and dates as text."""
    if node.type == "Integer":
        return pa.scalar(node.value, pa.int64())
    if node.type == "Boolean":
        return pa.scalar(node.value, pa.bool_())
    if node.type == "Quantity":
        return quantity.scalar(str(node.value), node.unit)
    return pa.scalar(str(node.value), pa.string())


def _index(node: tree.Index, frame: Frame) -> Collection:
    index: Ints = frame.index if frame.index is not None else np.zeros(frame.n, np.int64)
    return dense(pa.array(index), "System.Integer", frame.n)


def _total(node: tree.Total, frame: Frame) -> Collection:
    here: Frame | None = frame
    rows: Ints | None = None
    while here is not None:
        if here.total is not None:
            return here.total if rows is None else spread(here.total, rows)
        if here.rows is not None:
            rows = here.rows if rows is None else here.rows[rows]
        here = here.outer
    raise FHIRPathError("$total is only known inside aggregate(...)", position=node.position)


def _child(node: tree.Child, frame: Frame) -> Collection:
    parent = frame.eval(node.parent)
    if isinstance(node.parent, tree.This) and frame.env.definitions.is_resource(node.name):
        # A path may start with the type's own name: Patient.name.
        kept = [part for part in parent.parts if frame.env.definitions.is_a(part.type, node.name)]
        if kept or all(not frame.env.definitions.is_resource(part.type) for part in parent.parts):
            return Collection(parent.n, tuple(kept))
        return empty(parent.n)
    return child(parent, node.name, frame.env)


def _at(node: tree.At, frame: Frame) -> Collection:
    return at_index(frame.eval(node.parent), frame.eval(node.index))


def _call(node: tree.Call, frame: Frame) -> Collection:
    return functions.call(node, frame)


def _unary(node: tree.Unary, frame: Frame) -> Collection:
    operand = frame.eval(node.operand)
    return operand if node.operator == "+" else negate(operand)


def _binary(node: tree.Binary, frame: Frame) -> Collection:
    operator = node.operator
    if operator in _LOGIC:
        values = _LOGIC[operator](
            frame.truth(node.left, f"operator {operator}"), frame.truth(node.right, f"operator {operator}")
        )
        return dense(values, "System.Boolean", frame.n)
    left, right = frame.eval(node.left), frame.eval(node.right)
    if operator in ("=", "!=", "<", "<=", ">", ">="):
        return dense(compare.compare(operator, left, right), "System.Boolean", frame.n)
    if operator in ("~", "!~"):
        same = compare.equivalent(left, right)
        return dense(same if operator == "~" else pc.invert(same), "System.Boolean", frame.n)
    if operator == "|":
        return distinct(unite(frame.n, [left, right]))
    if operator in ("in", "contains"):
        item, container = (left, right) if operator == "in" else (right, left)
        return dense(_member(item, container, operator), "System.Boolean", frame.n)
    return arithmetic(operator, left, right)


def _member(item: Collection, container: Collection, operator: str) -> pa.Array:
    counts = item.counts()
    if counts.max(initial=0) > 1:
        raise FHIRPathError(f"operator {operator} needs a single value and got several")
    inside = compare.element_keys(container)
    found = [
        keys[0] in others if keys else False for keys, others in zip(compare.element_keys(item), inside, strict=True)
    ]
    return pa.array(np.array(found, dtype=np.bool_), mask=counts == 0)


def _type_test(node: tree.TypeTest, frame: Frame) -> Collection:
    operand = frame.eval(node.operand)
    test = is_type if node.operator == "is" else as_type
    return test(operand, node.type, frame.env, node.position)


def _implies(left: pa.Array, right: pa.Array) -> pa.Array:
    return pc.or_kleene(pc.invert(left), right)


_LOGIC: dict[str, Callable[[pa.Array, pa.Array], pa.Array]] = {
    "and": pc.and_kleene,
    "or": pc.or_kleene,
    "xor": pc.xor,
    "implies": _implies,
}

_WALK: dict[type, Callable[[Any, Frame], Collection]] = {
    tree.Literal: _literal,
    tree.Empty: lambda node, frame: empty(frame.n),
    tree.This: lambda node, frame: frame.this,
    tree.Index: _index,
    tree.Total: _total,
    tree.Variable: lambda node, frame: frame.variable(node),
    tree.Child: _child,
    tree.Call: _call,
    tree.At: _at,
    tree.Unary: _unary,
    tree.Binary: _binary,
    tree.TypeTest: _type_test,
}
