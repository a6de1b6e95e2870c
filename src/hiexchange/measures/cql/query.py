"""Builder of Query: sources, lets, relationships, where, return, aggregate, sort.

A query is scalar when all its sources are: it gives the element, or null when filtered out or when a
source is null; it never gives an empty list. Otherwise it gives a list. See the reference's section
3.6 for the public cases that break when several scalar sources are taken for lists.

Source: CQL 1.5, Author's Guide section 1.11 and Developer's Guide ("Query Semantics").
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cmp_to_key
from typing import Any, Generic, NamedTuple, TypeVar

from hiexchange.measures.cql import compare, lists
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compiler import EFFECT, FAULTS, SUBJECT, Compiler, Fn, Scope, builds, once_a_subject
from hiexchange.measures.cql.library import Node
from hiexchange.measures.cql.model import get


@builds("Query")
def _query(c: Compiler, n: Node, sc: Scope) -> Fn:
    sources, names = [], {}
    inner = sc
    for item in n["source"]:
        # A later source may use the aliases of earlier ones.
        fn = c.expression(item["expression"], inner)
        slot = sc.frame.slot()
        names[item["alias"]] = slot
        sources.append((slot, fn))
        inner = sc.child(names)
    lets = []
    for item in n.get("let") or []:
        fn, reads = c.reading(item["expression"], inner)
        slot = sc.frame.slot()
        names[item["identifier"]] = slot
        lets.append(Step(slot, fn, reads))
        inner = sc.child(names)
    own = set(names.values())
    inner = sc.child(names, varying=_innermost(sources[-1][0], lets))
    tests = [_relationship(c, item, inner, own) for item in n.get("relationship") or []]
    tests += [Step(None, *c.reading(part, inner)) for part in conjuncts(n.get("where"))]
    aliases = [(item["alias"], names[item["alias"]]) for item in n["source"]]
    select, merge = _selection(c, n, inner, aliases)
    finish = _finish(merge, _sort(c, n.get("sort"), sc))
    fold = _aggregate(c, n["aggregate"], inner, own) if n.get("aggregate") else None
    c.without(own)
    if fold is not None:
        return _folding(_walk(sources, lets, tests), [slot for slot, _ in sources], fold)
    if len(sources) == 1:
        return _single(sources[0], _plan(lets, tests), select, finish)
    assert select is not None
    return _product(_walk(sources, lets, tests), select, finish)


Slot = tuple[int, Fn]
Order = Callable[[Any, list[Any], list[Any]], list[Any]]
F = TypeVar("F")
Plan = list[tuple[int | None, F]]
Walk = Callable[[Any, list[Any], Callable[[], None]], bool]


class Step(NamedTuple, Generic[F]):
    """One let (it fills a slot) or one test of a row (it fills none), and what it reads."""

    slot: int | None
    fn: F
    reads: frozenset[int]


def _innermost(source: int, lets: list[Step[Fn]]) -> frozenset[int]:
    """Return what changes with every row of a product: its last source, and the lets that read it."""
    varying = {source}
    varying.update(let.slot for let in lets if let.slot is not None and varying & let.reads)
    return frozenset(varying)


def conjuncts(node: Node | None) -> list[Node]:
    """Return what a condition asks for, And by And, from left to right."""
    if node is None:
        return []
    if node.get("type") != "And":
        return [node]
    return [part for operand in node["operand"] for part in conjuncts(operand)]


def _finish(merge: bool, order: Order | None) -> Order | None:
    if not merge:
        return order
    if order is None:
        return lambda s, e, values: lists.distinct(values)
    return lambda s, e, values: order(s, e, lists.distinct(values))


# Rows -----------------------------------------------------------------------------------------


def _plan(lets: list[Step[F]], tests: list[Step[F]]) -> Plan[F]:
    """Return lets and tests in the order a row needs them: a let only once something reads it.

    Tests keep the author's order. Where a step tells of something (Message), so do lets.
    """
    plan: list[Step[F]] = []
    left = {let.slot: let for let in lets}

    def need(step: Step[F]) -> None:
        for slot in sorted(slot for slot in left if slot in step.reads):
            let = left.pop(slot, None)
            if let is not None:
                need(let)
                plan.append(let)

    if any(EFFECT in step.reads for step in (*lets, *tests)):
        plan += lets
        left.clear()
    for test in tests:
        need(test)
        plan.append(test)
    for let in lets:
        if let.slot in left:
            need(let)
            plan.append(left.pop(let.slot))
    return [(step.slot, step.fn) for step in plan]


def _keeps(plan: Plan[Fn], s: Any, e: list[Any]) -> bool:
    """Carry out a plan on the row in the frame; tell whether every test is true."""
    for slot, fn in plan:
        if slot is not None:
            e[slot] = fn(s, e)
        elif fn(s, e) is not True:
            return False
    return True


def _single(source: Slot, plan: Plan[Fn], select: Fn | None, finish: Order | None) -> Fn:
    slot, fn = source

    def query(s: Any, e: list[Any]) -> Any:
        values = fn(s, e)
        if values is None:
            return None
        if not isinstance(values, list):
            e[slot] = values
            if not _keeps(plan, s, e):
                return None
            return values if select is None else select(s, e)
        result = []
        for value in values:
            e[slot] = value
            for at, step in plan:
                if at is not None:
                    e[at] = step(s, e)
                elif step(s, e) is not True:
                    break
            else:
                result.append(value if select is None else select(s, e))
        return result if finish is None else finish(s, e, result)

    return query


def _walk(sources: list[Slot], lets: list[Step[Fn]], tests: list[Step[Fn]]) -> Walk:
    """Return a function that lays each row of the product into the frame and calls back for those kept.

    Three sources of six rows make 216 combinations, most of them dropped by a test of one source or
    two: each test is made as soon as the aliases it reads are bound. It returns whether a source is a list.
    """
    plain = unstaged(len(sources), lets, tests)
    plans = staged([slot for slot, _ in sources], lets, tests)
    last = len(sources) - 1

    def walk(s: Any, e: list[Any], emit: Callable[[], None], at: int, plans: list[Plan[Fn]], listed: bool) -> bool:
        slot, fn = sources[at]
        values = fn(s, e)
        if values is None:
            return listed
        if isinstance(values, list):
            listed = True
        else:
            values = (values,)
        plan, found = plans[at], listed
        for value in values:
            e[slot] = value
            if at == last:
                if _keeps(plan, s, e):
                    emit()
                continue
            onward = plans
            try:
                kept = _keeps(plan, s, e)
            except FAULTS:
                # A test made ahead of others met what they would have kept from it: make it in its place.
                onward, kept = plain, True
            if kept:
                found = walk(s, e, emit, at + 1, onward, listed)
            elif not listed:
                found = _lists_among(sources[at + 1 :], s, e)
        return found

    return lambda s, e, emit: walk(s, e, emit, 0, plans, False)


def _lists_among(sources: list[Slot], s: Any, e: list[Any]) -> bool:
    """Tell whether a source gives a list, before one that gives nothing."""
    for slot, fn in sources:
        values = fn(s, e)
        if values is None or isinstance(values, list):
            return values is not None
        e[slot] = values
    return False


def unstaged(sources: int, lets: list[Step[F]], tests: list[Step[F]]) -> list[Plan[F]]:
    """Return a plan for each of so many sources: all of it once the last is bound."""
    return [[] for _ in range(sources - 1)] + [_plan(lets, tests)]


def staged(sources: list[int], lets: list[Step[F]], tests: list[Step[F]]) -> list[Plan[F]]:
    """Return a plan for each source, unstaged where the order of steps can be seen from outside."""
    if any(EFFECT in step.reads for step in (*lets, *tests)):
        return unstaged(len(sources), lets, tests)
    depth = {slot: at for at, slot in enumerate(sources)}
    placed: list[tuple[list[Step[F]], list[Step[F]]]] = [([], []) for _ in sources]
    for step in (*lets, *tests):
        at = max((depth[slot] for slot in step.reads if slot in depth), default=0)
        if step.slot is not None:
            depth[step.slot] = at
        placed[at][step.slot is None].append(step)
    return [_plan(*stage) for stage in placed]


def _product(walk: Walk, select: Fn, finish: Order | None) -> Fn:
    def query(s: Any, e: list[Any]) -> Any:
        result: list[Any] = []
        if not walk(s, e, lambda: result.append(select(s, e))):
            return result[0] if result else None
        return result if finish is None else finish(s, e, result)

    return query


def _relationship(c: Compiler, n: Node, sc: Scope, own: set[int]) -> Step[Fn]:
    fn, reads = c.reading(n["expression"], sc)
    slot = sc.frame.slot()
    such_that, more = c.reading(n.get("suchThat"), sc.child({n["alias"]: slot}))
    c.without({slot})
    wanted: bool = n["type"] == "With"
    if not (reads & own) and max(reads, default=SUBJECT) < 0 and sc.rows:
        # The rows of a With that reads nothing of the query are the same for all of it.
        fn = once_a_subject(fn, c.program.memo())

    def related(s: Any, e: list[Any]) -> bool:
        values = fn(s, e)
        if values is None:
            return not wanted
        for value in values if isinstance(values, list) else (values,):
            e[slot] = value
            if such_that(s, e) is True:
                return wanted
        return not wanted

    return Step(None, related, (reads | more) - {slot})


def _selection(c: Compiler, n: Node, sc: Scope, aliases: list[tuple[str, int]]) -> tuple[Fn | None, bool]:
    """Return what a row gives (None: the row itself) and whether repetitions are dropped."""
    given = n.get("return")
    if given is not None:
        return c.expression(given["expression"], sc), given.get("distinct", True)
    if len(aliases) == 1:
        return None, False
    return (lambda s, e: {name: e[slot] for name, slot in aliases}), True


# Sort -----------------------------------------------------------------------------------------


def _sort(c: Compiler, n: Node | None, sc: Scope) -> Order | None:
    if n is None:
        return None
    keys: list[tuple[Callable[[Any, list[Any], Any], Any], bool]] = []
    for item in n.get("by", []):
        descending = item.get("direction", "asc").startswith("desc")
        keys.append((_key(c, item, sc), descending))

    def order(s: Any, e: list[Any], values: list[Any]) -> list[Any]:
        if len(values) < 2:
            return values
        # From the last key to the first: each pass is stable.
        for key, descending in reversed(keys):
            decorated = [(key(s, e, value), value) for value in values]
            values = [value for _, value in _sorted(decorated, descending)]
        return values

    return order


def _key(c: Compiler, item: Node, sc: Scope) -> Callable[[Any, list[Any], Any], Any]:
    kind = item.get("type")
    if kind == "ByColumn":
        path = item["path"]
        return lambda s, e, value: get(value, path)
    if kind == "ByExpression":
        slot = sc.frame.slot()
        fn = c.expression(item["expression"], sc.child({"$this": slot}, element=slot))
        c.without({slot})

        def by_expression(s: Any, e: list[Any], value: Any) -> Any:
            e[slot] = value
            return fn(s, e)

        return by_expression
    return lambda s, e, value: value


def _sorted(rows: list[tuple[Any, Any]], descending: bool) -> list[tuple[Any, Any]]:
    """Sort stably; nulls first ascending, last descending; keys that cannot be told apart keep their order."""
    nulls = [row for row in rows if row[0] is None]
    known = [row for row in rows if row[0] is not None]
    if known and all(isinstance(key, t.Temporal) for key, _ in known):
        # A list must come in some order: a day comes before its hours, as any prefix before what it begins.
        known.sort(key=lambda row: row[0].key, reverse=descending)
    else:
        known.sort(key=cmp_to_key(_falling if descending else _rank))
    return known + nulls if descending else nulls + known


def _rank(a: tuple[Any, Any], b: tuple[Any, Any]) -> int:
    return compare.order(a[0], b[0]) or 0


def _falling(a: tuple[Any, Any], b: tuple[Any, Any]) -> int:
    return -_rank(a, b)


@builds("Sort")
def _sort_node(c: Compiler, n: Node, sc: Scope) -> Fn:
    source = c.expression(n["source"], sc)
    order = _sort(c, n, sc)

    def sort(s: Any, e: list[Any]) -> Any:
        values = source(s, e)
        return values if values is None or order is None else order(s, e, values)

    return sort


# Aggregate ------------------------------------------------------------------------------------


def _aggregate(c: Compiler, n: Node, sc: Scope, own: set[int]) -> tuple[int, Fn, Fn, bool]:
    starting = c.expression(n.get("starting"), sc)
    slot = sc.frame.slot()
    own.add(slot)
    body = c.expression(n["expression"], sc.child({n["identifier"]: slot}))
    return slot, starting, body, bool(n.get("distinct"))


def _folding(walk: Walk, sources: list[int], fold: tuple[int, Fn, Fn, bool]) -> Fn:
    slot, starting, body, distinct = fold

    def query(s: Any, e: list[Any]) -> Any:
        total = starting(s, e)
        seen: set[Any] = set()

        def step() -> None:
            nonlocal total
            if distinct:
                row = tuple(compare.token(e[at]) for at in sources)
                if row in seen:
                    return
                seen.add(row)
            e[slot] = total
            total = body(s, e)

        walk(s, e, step)
        return total

    return query


@builds("Aggregate")
def _aggregate_node(c: Compiler, n: Node, sc: Scope) -> Fn:
    source, starting = c.expression(n["source"], sc), c.expression(n.get("initialValue"), sc)
    row, total = sc.frame.slot(), sc.frame.slot()
    body = c.expression(n["iteration"], sc.child({"$this": row, "$total": total}))
    c.without({row, total})

    def aggregate(s: Any, e: list[Any]) -> Any:
        result = starting(s, e)
        for value in source(s, e) or []:
            e[row], e[total] = value, result
            result = body(s, e)
        return result

    return aggregate


@builds("Total")
def _total(c: Compiler, n: Node, sc: Scope) -> Fn:
    slot = sc.names["$total"]
    c.note(slot)
    return lambda s, e: e[slot]
