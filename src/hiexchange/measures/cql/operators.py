"""Builders of references, literals, logic, conditionals and every strict operator.

An operator that gives null for any null operand is one row of a table; the rest have a builder.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

from hiexchange.errors import MeasureError
from hiexchange.measures.cql import arithmetic, compare, convert, intervals, lists, types
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compiler import EFFECT, SUBJECT, Compiler, Fn, Scope, builds
from hiexchange.measures.cql.library import Node
from hiexchange.measures.cql.query import conjuncts
from hiexchange.measures.cql.values import (
    EvaluationError,
    predecessor,
    successor,
)

# Logic ----------------------------------------------------------------------------------------


@builds("And")
def _and(c: Compiler, n: Node, sc: Scope) -> Fn:
    # A chain of And is one loop: conditions of ten parts are common.
    parts = [c.expression(part, sc) for part in conjuncts(n)]

    def and_(s: Any, e: list[Any]) -> Any:
        result: bool | None = True
        for part in parts:
            x = part(s, e)
            if x is not True:
                if x is False:
                    return False
                result = None
        return result

    return and_


@builds("Or")
def _or(c: Compiler, n: Node, sc: Scope) -> Fn:
    a, b = c.operands(n, sc)

    def or_(s: Any, e: list[Any]) -> Any:
        x = a(s, e)
        if x is True:
            return True
        y = b(s, e)
        if y is True:
            return True
        return False if x is False and y is False else None

    return or_


@builds("Implies")
def _implies(c: Compiler, n: Node, sc: Scope) -> Fn:
    a, b = c.operands(n, sc)

    def implies(s: Any, e: list[Any]) -> Any:
        x = a(s, e)
        if x is False:
            return True
        y = b(s, e)
        if y is True:
            return True
        return False if x is True and y is False else None

    return implies


@builds("Xor")
def _xor(c: Compiler, n: Node, sc: Scope) -> Fn:
    return _strict(c.operands(n, sc), lambda x, y: x is not y)


@builds("IsNull")
def _is_null(c: Compiler, n: Node, sc: Scope) -> Fn:
    (a,) = c.operands(n, sc)
    return lambda s, e: a(s, e) is None


@builds("IsTrue")
def _is_true(c: Compiler, n: Node, sc: Scope) -> Fn:
    (a,) = c.operands(n, sc)
    return lambda s, e: a(s, e) is True


@builds("IsFalse")
def _is_false(c: Compiler, n: Node, sc: Scope) -> Fn:
    (a,) = c.operands(n, sc)
    return lambda s, e: a(s, e) is False


@builds("If")
def _if(c: Compiler, n: Node, sc: Scope) -> Fn:
    condition, then, other = (c.expression(n.get(key), sc) for key in ("condition", "then", "else"))
    return lambda s, e: then(s, e) if condition(s, e) is True else other(s, e)


@builds("Case")
def _case(c: Compiler, n: Node, sc: Scope) -> Fn:
    items = [(c.expression(item["when"], sc), c.expression(item["then"], sc)) for item in n.get("caseItem", [])]
    other = c.expression(n.get("else"), sc)
    if n.get("comparand") is None:

        def case(s: Any, e: list[Any]) -> Any:
            for when, then in items:
                if when(s, e) is True:
                    return then(s, e)
            return other(s, e)

        return case
    comparand = c.expression(n["comparand"], sc)

    def switch(s: Any, e: list[Any]) -> Any:
        value = comparand(s, e)
        for when, then in items:
            if compare.equal(value, when(s, e)):
                return then(s, e)
        return other(s, e)

    return switch


@builds("Coalesce")
def _coalesce(c: Compiler, n: Node, sc: Scope) -> Fn:
    items = c.operands(n, sc)
    # Of one operand that is a list, the first element that is not null.
    single = len(items) == 1

    def coalesce(s: Any, e: list[Any]) -> Any:
        for item in items:
            value = item(s, e)
            if value is not None:
                if single and isinstance(value, list):
                    return next((element for element in value if element is not None), None)
                return value
        return None

    return coalesce


# Types ----------------------------------------------------------------------------------------


@builds("As")
def _as(c: Compiler, n: Node, sc: Scope) -> Fn:
    (a,) = c.operands(n, sc)
    spec = types.specifier(n, "as")
    test = types.test_for(spec)
    kind = types.point_class(spec) if isinstance(spec, dict) and spec.get("type") == "IntervalTypeSpecifier" else None
    strict = bool(n.get("strict"))
    if isinstance(spec, dict) and spec.get("type") == "ListTypeSpecifier" and not strict:
        return a  # a list passes through: its elements are typed where they are used

    def as_(s: Any, e: list[Any]) -> Any:
        value = a(s, e)
        if value is None or test(value):
            if kind is not None and value is not None and value.kind is None:
                value.kind = kind
            return value
        if strict:
            raise EvaluationError("a value is not of the type it is cast to")
        return None

    return as_


@builds("Is")
def _is(c: Compiler, n: Node, sc: Scope) -> Fn:
    (a,) = c.operands(n, sc)
    test = types.test_for(types.specifier(n, "is"))

    def is_(s: Any, e: list[Any]) -> Any:
        value = a(s, e)
        return value is not None and test(value)

    return is_


@builds("Convert", "CanConvert")
def _convert(c: Compiler, n: Node, sc: Scope) -> Fn:
    (a,) = c.operands(n, sc)
    spec = types.specifier(n, "to")
    name = spec if isinstance(spec, str) else (spec or {}).get("name", "")
    target = convert.TARGETS.get(types.split_name(name)[1])
    if target is None:
        raise MeasureError("a conversion to this type is not known", library=c.unit.library.name)
    if target is convert.to_datetime:
        target = partial(convert.to_datetime, offset=c.program.model.offset)
    return _strict([a], target if n["type"] == "Convert" else lambda value: target(value) is not None)


@builds("ToDateTime")
def _to_datetime(c: Compiler, n: Node, sc: Scope) -> Fn:
    offset = c.program.model.offset
    return _strict(c.operands(n, sc), lambda value: convert.to_datetime(value, offset))


@builds("ToList")
def _to_list(c: Compiler, n: Node, sc: Scope) -> Fn:
    return _loose(c.operands(n, sc), convert.to_list)


# Operators by table ---------------------------------------------------------------------------


def _strict(operands: list[Fn], compute: Callable[..., Any]) -> Fn:
    """Return a closure that is null whenever an operand is."""
    if len(operands) == 1:
        a = operands[0]

        def one(s: Any, e: list[Any]) -> Any:
            x = a(s, e)
            return None if x is None else compute(x)

        return one
    if len(operands) == 2:
        a, b = operands

        def two(s: Any, e: list[Any]) -> Any:
            x = a(s, e)
            if x is None:
                return None
            y = b(s, e)
            return None if y is None else compute(x, y)

        return two

    def many(s: Any, e: list[Any]) -> Any:
        values = [operand(s, e) for operand in operands]
        return None if any(value is None for value in values) else compute(*values)

    return many


def _loose(operands: list[Fn], compute: Callable[..., Any]) -> Fn:
    """Return a closure that leaves nulls to the operator."""
    if len(operands) == 1:
        a = operands[0]
        return lambda s, e: compute(a(s, e))
    if len(operands) == 2:
        a, b = operands
        return lambda s, e: compute(a(s, e), b(s, e))
    return lambda s, e: compute(*[operand(s, e) for operand in operands])


def _can(operation: Callable[[Any], Any]) -> Callable[[Any], bool]:
    return lambda value: operation(value) is not None


STRICT: dict[str, Callable[..., Any]] = {
    "Not": lambda x: not x,
    "Equal": compare.equal,
    "NotEqual": lambda x, y: intervals.negate(compare.equal(x, y)),
    "Less": compare.less,
    "LessOrEqual": compare.less_or_equal,
    "Greater": compare.greater,
    "GreaterOrEqual": compare.greater_or_equal,
    "Add": arithmetic.add,
    "Subtract": arithmetic.subtract,
    "Multiply": arithmetic.multiply,
    "Divide": arithmetic.divide,
    "TruncatedDivide": arithmetic.truncated_divide,
    "Modulo": arithmetic.modulo,
    "Power": arithmetic.power,
    "Negate": arithmetic.negate,
    "Abs": arithmetic.absolute,
    "Ceiling": arithmetic.ceiling,
    "Floor": arithmetic.floor,
    "Truncate": arithmetic.truncate,
    "Ln": arithmetic.ln,
    "Exp": arithmetic.exp,
    "Log": arithmetic.log,
    "Precision": arithmetic.precision_of,
    "Successor": successor,
    "Predecessor": predecessor,
    "Concatenate": convert.concatenate,
    "Upper": str.upper,
    "Lower": str.lower,
    "StartsWith": str.startswith,
    "EndsWith": str.endswith,
    "Matches": convert.matches,
    "ReplaceMatches": convert.replace_matches,
    "ConvertQuantity": convert.convert_quantity,
    "CanConvertQuantity": lambda q, unit: convert.convert_quantity(q, unit) is not None,
    "DateFrom": convert.to_date,
    "TimeFrom": convert.to_time,
    "TimezoneOffsetFrom": lambda value: Decimal(value.offset or 0) / 60 if isinstance(value, t.DateTime) else None,
    "Width": intervals.width,
    "Size": intervals.size,
    "PointFrom": intervals.point_from,
    "Start": lambda value: value.start,
    "End": lambda value: value.end,
    **convert.CONVERSIONS,
    **{name: _can(operation) for name, operation in convert.CONVERTS.items()},
}
"""Null when any operand is null."""

LOOSE: dict[str, Callable[..., Any]] = {
    "Equivalent": compare.equivalent,
    "Exists": lists.exists,
    "Flatten": lists.flatten,
    "Distinct": lists.distinct,
    "SingletonFrom": lists.singleton,
    "Indexer": lambda value, index: lists.indexer(value, index),
    "Union": lists.union,
    "Intersect": lists.intersect,
    "Except": lists.except_,
    "Count": lists.count,
    "Sum": lists.sum_,
    "Product": lists.product,
    "Min": lists.minimum,
    "Max": lists.maximum,
    "Avg": lists.average,
    "Median": lists.median,
    "Mode": lists.mode,
    "Variance": lists.variance,
    "PopulationVariance": lists.population_variance,
    "StdDev": lists.std_dev,
    "PopulationStdDev": lists.population_std_dev,
    "GeometricMean": lists.geometric_mean,
    "AllTrue": lists.all_true,
    "AnyTrue": lists.any_true,
    "LowBoundary": lambda value, digits=None: arithmetic.boundary(value, digits, upper=False),
    "HighBoundary": lambda value, digits=None: arithmetic.boundary(value, digits, upper=True),
}
"""Nulls are the operator's own matter."""

PRECISE: dict[str, Callable[..., Any]] = {
    **intervals.PRECISE,
    "In": lists.in_,
    "Contains": lists.contains,
    "IncludedIn": lists.included_in,
    "Includes": lists.includes_any,
    "ProperIncludedIn": lists.proper_included_in,
    "ProperIncludes": lists.proper_includes,
    "ProperIn": lists.proper_in,
    "ProperContains": lists.proper_contains,
}
"""Two operands and an optional precision."""


@builds(*STRICT)
def _strict_operator(c: Compiler, n: Node, sc: Scope) -> Fn:
    return _strict(c.operands(n, sc), STRICT[n["type"]])


def length_of_null(n: Node) -> int | None:
    """Return what Length gives for null: 0 for a list, null for a text; only the type it is cast to tells which."""
    given = n["operand"][0] if isinstance(n["operand"], list) else n["operand"]
    return 0 if (given.get("asTypeSpecifier") or {}).get("type") == "ListTypeSpecifier" else None


@builds("Length")
def _length(c: Compiler, n: Node, sc: Scope) -> Fn:
    (a,) = c.operands(n, sc)
    nothing = length_of_null(n)

    def length(s: Any, e: list[Any]) -> Any:
        value = a(s, e)
        return nothing if value is None else len(value)

    return length


@builds(*LOOSE)
def _loose_operator(c: Compiler, n: Node, sc: Scope) -> Fn:
    return _loose(c.operands(n, sc), LOOSE[n["type"]])


@builds(*PRECISE)
def _precise_operator(c: Compiler, n: Node, sc: Scope) -> Fn:
    compute = PRECISE[n["type"]]
    precision = lists.temporal_precision(n.get("precision"))
    a, b = c.operands(n, sc)
    if n["type"] == "In" and isinstance(c.constants.get(b), list):
        return _in_constant(a, c.constants[b])
    return lambda s, e: compute(a(s, e), b(s, e), precision)


def _in_constant(a: Fn, values: list[Any]) -> Fn:
    """Return membership in a list written out in the text: ``status in { 'final', 'amended' }``."""

    def in_constant(s: Any, e: list[Any]) -> Any:
        x = a(s, e)
        return x in values if isinstance(x, str) else lists.member(x, values)

    return in_constant


@builds("Message")
def _message(c: Compiler, n: Node, sc: Scope) -> Fn:
    source, condition, code, severity = (
        c.expression(n.get(key), sc) for key in ("source", "condition", "code", "severity")
    )
    always = "condition" not in n
    c.note(EFFECT, SUBJECT)

    def message(s: Any, e: list[Any]) -> Any:
        if always or condition(s, e) is True:
            level, name = severity(s, e) or "Message", code(s, e) or ""
            if level == "Error":
                raise EvaluationError(f"the measure stops here: {name}")
            # The text may hold values; only severity and code leave the evaluation.
            s.messages.append(f"{level} {name}".strip())
        return source(s, e)

    return message
