"""Builders of nodes whose operands have names: dates and times, strings, list access, intervals of lists.

Source: CQL 1.5, Appendix B; ELM schema 1.5 for the member names.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from hiexchange.measures.cql import arithmetic, convert, intervals, lists
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compiler import PARAMETER, SUBJECT, Compiler, Fn, Scope, builds
from hiexchange.measures.cql.library import Node
from hiexchange.measures.cql.model import get
from hiexchange.measures.cql.values import EvaluationError, Interval

_DATE_PARTS = ("year", "month", "day", "hour", "minute", "second", "millisecond")


def _parts(c: Compiler, n: Node, sc: Scope, names: tuple[str, ...]) -> list[Fn]:
    return [c.expression(n[name], sc) for name in names if n.get(name) is not None]


def _known(parts: list[Fn], s: Any, e: list[Any]) -> list[int]:
    # The first null component ends the precision.
    values: list[int] = []
    for part in parts:
        value = part(s, e)
        if value is None:
            break
        values.append(value)
    return values


@builds("Date")
def _date(c: Compiler, n: Node, sc: Scope) -> Fn:
    parts = _parts(c, n, sc, _DATE_PARTS[:3])

    def date(s: Any, e: list[Any]) -> Any:
        values = _known(parts, s, e)
        return t.make(t.Date, values) if values else None

    return date


@builds("DateTime")
def _datetime(c: Compiler, n: Node, sc: Scope) -> Fn:
    parts = _parts(c, n, sc, _DATE_PARTS)
    zone = c.expression(n["timezoneOffset"], sc) if n.get("timezoneOffset") is not None else None
    evaluation = c.program.model.offset

    def datetime(s: Any, e: list[Any]) -> Any:
        values = _known(parts, s, e)
        if not values:
            return None
        hours = zone(s, e) if zone is not None else None
        offset = evaluation if hours is None else int(Decimal(hours) * 60)
        return t.make(t.DateTime, values, offset, evaluation=evaluation)

    return datetime


@builds("Time")
def _time(c: Compiler, n: Node, sc: Scope) -> Fn:
    parts = _parts(c, n, sc, _DATE_PARTS[3:])

    def time(s: Any, e: list[Any]) -> Any:
        values = _known(parts, s, e)
        return t.make(t.Time, values) if values else None

    return time


@builds("Now", "Today", "TimeOfDay")
def _clock(c: Compiler, n: Node, sc: Scope) -> Fn:
    kind = n["type"]
    c.note(PARAMETER, SUBJECT)

    def clock(s: Any, e: list[Any]) -> Any:
        now = s.context.now
        if now is None or kind == "Now":
            return now
        return t.as_date(now) if kind == "Today" else convert.to_time(now)

    return clock


def _between(c: Compiler, n: Node, sc: Scope, measure: Callable[..., Any]) -> Fn:
    name = n["precision"].capitalize()
    unit, weeks = t.PRECISIONS[name], name == "Week"
    a, b = c.operands(n, sc)

    def between(s: Any, e: list[Any]) -> Any:
        x, y = a(s, e), b(s, e)
        if x is None or y is None:
            return None
        if type(x) is not type(y):
            x, y = t.as_datetime(x), t.as_datetime(y)
        return measure(x, y, unit, weeks=weeks)

    return between


@builds("DurationBetween")
def _duration(c: Compiler, n: Node, sc: Scope) -> Fn:
    return _between(c, n, sc, t.duration)


@builds("DifferenceBetween")
def _difference(c: Compiler, n: Node, sc: Scope) -> Fn:
    return _between(c, n, sc, t.difference)


@builds("CalculateAgeAt")
def _age_at(c: Compiler, n: Node, sc: Scope) -> Fn:
    unit = t.PRECISIONS[n["precision"].capitalize()]
    weeks = n["precision"].capitalize() == "Week"
    a, b = c.operands(n, sc)

    def age(s: Any, e: list[Any]) -> Any:
        return _age(a(s, e), b(s, e), unit, weeks)

    return age


@builds("CalculateAge")
def _age_now(c: Compiler, n: Node, sc: Scope) -> Fn:
    unit = t.PRECISIONS[n["precision"].capitalize()]
    weeks = n["precision"].capitalize() == "Week"
    (a,) = c.operands(n, sc)
    c.note(PARAMETER, SUBJECT)
    return lambda s, e: _age(a(s, e), s.context.now, unit, weeks)


def _age(born: Any, at: Any, unit: int, weeks: bool) -> Any:
    if born is None or at is None:
        return None
    if unit <= t.DAY:
        # Ages in years to days are counted on dates: the hour of birth does not matter.
        return t.duration(t.as_date(born), t.as_date(at), unit, weeks=weeks)
    return t.duration(t.as_datetime(born), t.as_datetime(at), unit)


@builds("DateTimeComponentFrom")
def _component(c: Compiler, n: Node, sc: Scope) -> Fn:
    unit = t.PRECISIONS[n["precision"].capitalize()]
    (a,) = c.operands(n, sc)

    def component(s: Any, e: list[Any]) -> Any:
        value = a(s, e)
        return value.key[unit - 1] if value is not None and value.precision >= unit else None

    return component


@builds("Round")
def _round(c: Compiler, n: Node, sc: Scope) -> Fn:
    (a,) = c.operands(n, sc)
    digits = c.expression(n.get("precision"), sc)
    return lambda s, e: arithmetic.round_(a(s, e), digits(s, e))


# Lists and strings by member names ------------------------------------------------------------

_MEMBERS: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    "First": (("source",), lists.first),
    "Last": (("source",), lists.last),
    "IndexOf": (("source", "element"), lists.index_of),
    "Slice": (("source", "startIndex", "endIndex"), lists.slice_),
    "Combine": (("source", "separator"), convert.combine),
    "Split": (("stringToSplit", "separator"), convert.split),
    "SplitOnMatches": (("stringToSplit", "separatorPattern"), convert.split_on_matches),
    "Substring": (("stringToSub", "startIndex", "length"), convert.substring),
}


@builds(*_MEMBERS)
def _members(c: Compiler, n: Node, sc: Scope) -> Fn:
    names, compute = _MEMBERS[n["type"]]
    operands = [c.expression(n.get(name), sc) for name in names]
    if len(operands) == 1:
        only = operands[0]
        return lambda s, e: compute(only(s, e))
    return lambda s, e: compute(*[operand(s, e) for operand in operands])


@builds("PositionOf", "LastPositionOf")
def _position(c: Compiler, n: Node, sc: Scope) -> Fn:
    compute = convert.position if n["type"] == "PositionOf" else convert.last_position
    pattern, text = c.expression(n["pattern"], sc), c.expression(n["string"], sc)

    def position(s: Any, e: list[Any]) -> Any:
        x, y = pattern(s, e), text(s, e)
        return None if x is None or y is None else compute(x, y)

    return position


@builds("Collapse")
def _collapse(c: Compiler, n: Node, sc: Scope) -> Fn:
    operands = c.operands(n, sc)

    def collapse(s: Any, e: list[Any]) -> Any:
        values = [operand(s, e) for operand in operands]
        return intervals.collapse(values[0], values[1] if len(values) > 1 else None)

    return collapse


@builds("Expand")
def _expand(c: Compiler, n: Node, sc: Scope) -> Fn:
    operands = c.operands(n, sc)

    def expand(s: Any, e: list[Any]) -> Any:
        values = [operand(s, e) for operand in operands]
        given = values[0]
        # Expanding one interval gives points, expanding a list of them gives unit intervals.
        single = isinstance(given, Interval)
        return intervals.expand([given] if single else given, values[1] if len(values) > 1 else None, points=single)

    return expand


# Functional nodes (ELM 1.5) --------------------------------------------------------------------


@builds("Filter", "ForEach", "Repeat")
def _functional(c: Compiler, n: Node, sc: Scope) -> Fn:
    source = c.expression(n["source"], sc)
    slot = sc.frame.slot()
    inner = sc.child({n.get("scope") or "$this": slot, "$this": slot})
    body = c.expression(n["condition"] if n["type"] == "Filter" else n["element"], inner)
    c.without({slot})
    kind = n["type"]

    def each(s: Any, e: list[Any]) -> Any:
        values = source(s, e)
        if values is None:
            return None
        result: list[Any] = []
        queue = list(convert.to_list(values))
        for value in queue:
            e[slot] = value
            found = body(s, e)
            if kind == "Filter":
                if found is True:
                    result.append(value)
            elif kind == "ForEach":
                result.append(found)
            else:
                fresh = [item for item in convert.to_list(found) if not lists.member(item, result)]
                result += fresh
                queue += fresh
        return result

    return each


@builds("Current")
def _current(c: Compiler, n: Node, sc: Scope) -> Fn:
    slot = sc.names[n.get("scope") or "$this"]
    c.note(slot)
    return lambda s, e: e[slot]


@builds("Times")
def _times(c: Compiler, n: Node, sc: Scope) -> Fn:
    a, b = c.operands(n, sc)

    def times(s: Any, e: list[Any]) -> Any:
        x, y = a(s, e), b(s, e)
        return None if x is None or y is None else [{**i, **j} for i in x for j in y]

    return times


@builds("Children", "Descendents")
def _children(c: Compiler, n: Node, sc: Scope) -> Fn:
    (a,) = c.operands(n, sc)
    deep = n["type"] == "Descendents"

    def children(s: Any, e: list[Any]) -> Any:
        value = a(s, e)
        return None if value is None else list(_below(value, deep))

    return children


def _below(value: Any, deep: bool) -> list[Any]:
    data = getattr(value, "data", None)
    names = [name for name in (data if data is not None else value) if not name.startswith("_")]
    result: list[Any] = []
    for name in names:
        for item in convert.to_list(get(value, name)):
            result.append(item)
            if deep and (isinstance(item, dict) or hasattr(item, "data")):
                result += _below(item, deep)
    return result


@builds("Subsumes", "SubsumedBy", "ExpandValueSet")
def _terminology(c: Compiler, n: Node, sc: Scope) -> Fn:
    kind = n["type"]
    if kind == "ExpandValueSet":
        (a,) = c.operands(n, sc)
        return lambda s, e: _codes_of(a(s, e))

    def refuse(s: Any, e: list[Any]) -> Any:
        raise EvaluationError(f"{kind} needs a terminology service, which is not part of this engine")

    c.note(SUBJECT)
    return refuse


def _codes_of(value: Any) -> Any:
    from hiexchange.measures.cql.values import Code

    if value is None or value.pairs is None:
        return None
    return [Code(code, system) for system, code in sorted(value.pairs, key=lambda pair: (pair[0] or "", pair[1] or ""))]
