"""Builder of Query: sources, lets, relationships, where, return, aggregate, sort.

A query is scalar when all its sources are: it gives the element, or null when filtered out or when a
source is null; it never gives an empty list. Otherwise it gives a list. See the reference's section
3.6 for the public cases that break when several scalar sources are taken for lists.

Source: CQL 1.5, Author's Guide section 1.11 and Developer's Guide ("Query Semantics").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cmp_to_key
from typing import Any

from hiexchange.measures.cql import compare, lists
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compiler import SUBJECT, Compiler, Fn, Scope, builds
from hiexchange.measures.cql.library import Node
from hiexchange.measures.cql.model import get

Relation = Callable[[Any, list[Any]], bool]


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
        fn = c.expression(item["expression"], inner)
        slot = sc.frame.slot()
        names[item["identifier"]] = slot
        lets.append((slot, fn))
        inner = sc.child(names)
    own = set(names.values())
    tests = [_relationship(c, item, inner, own) for item in n.get("relationship") or []]
    if n.get("where") is not None:
        where = c.expression(n["where"], inner)
        tests.append(lambda s, e: where(s, e) is True)
    aliases = [(item["alias"], names[item["alias"]]) for item in n["source"]]
    select, merge = _selection(c, n, inner, aliases)
    order = _sort(c, n.get("sort"), sc)
    fold = _aggregate(c, n["aggregate"], inner, own) if n.get("aggregate") else None
    c.without(own)
    if fold is not None:
        return _folding(sources, lets, tests, fold)
    if len(sources) == 1:
        return _single(sources[0], lets, tests, select, merge, order)
    return _product(sources, lets, tests, select, merge, order)


Slot = tuple[int, Fn]
Order = Callable[[Any, list[Any], list[Any]], list[Any]]


def _single(
    source: Slot, lets: list[Slot], tests: list[Relation], select: Fn | None, merge: bool, order: Order | None
) -> Fn:
    slot, fn = source

    def keep(s: Any, e: list[Any]) -> bool:
        for at, let in lets:
            e[at] = let(s, e)
        return all(test(s, e) for test in tests)

    plain = not lets and not tests

    def query(s: Any, e: list[Any]) -> Any:
        values = fn(s, e)
        if values is None:
            return None
        if not isinstance(values, list):
            e[slot] = values
            if not plain and not keep(s, e):
                return None
            return values if select is None else select(s, e)
        result = []
        for value in values:
            e[slot] = value
            if plain or keep(s, e):
                result.append(value if select is None else select(s, e))
        if merge:
            result = lists.distinct(result)
        return result if order is None else order(s, e, result)

    return query


def _rows(sources: list[Slot], s: Any, e: list[Any], lists_seen: list[int]) -> Iterator[None]:
    """Walk the product of the sources, each row laid into the frame; note sources that are lists."""
    slot, fn = sources[0]
    values = fn(s, e)
    if values is None:
        return
    if isinstance(values, list):
        lists_seen.append(slot)
    for value in values if isinstance(values, list) else (values,):
        e[slot] = value
        if len(sources) == 1:
            yield
        else:
            yield from _rows(sources[1:], s, e, lists_seen)


def _product(
    sources: list[Slot], lets: list[Slot], tests: list[Relation], select: Fn | None, merge: bool, order: Order | None
) -> Fn:
    assert select is not None

    def query(s: Any, e: list[Any]) -> Any:
        result: list[Any] = []
        seen: list[int] = []
        for _ in _rows(sources, s, e, seen):
            for at, let in lets:
                e[at] = let(s, e)
            if all(test(s, e) for test in tests):
                result.append(select(s, e))
        if not seen:
            return result[0] if result else None
        if merge:
            result = lists.distinct(result)
        return result if order is None else order(s, e, result)

    return query


def _relationship(c: Compiler, n: Node, sc: Scope, own: set[int]) -> Relation:
    fn, reads = c.reading(n["expression"], sc)
    slot = sc.frame.slot()
    such_that = c.expression(n.get("suchThat"), sc.child({n["alias"]: slot}))
    c.without({slot})
    wanted: bool = n["type"] == "With"
    if not (reads & own) and max(reads, default=SUBJECT) < 0 and sc.rows:
        # The rows of a With that reads nothing of the query are the same for all of it.
        fn = _once_a_subject(c, fn)

    def related(s: Any, e: list[Any]) -> bool:
        values = fn(s, e)
        if values is None:
            return not wanted
        for value in values if isinstance(values, list) else (values,):
            e[slot] = value
            if such_that(s, e) is True:
                return wanted
        return not wanted

    return related


def _once_a_subject(c: Compiler, fn: Fn) -> Fn:
    place = c.program.memo()

    def once(s: Any, e: list[Any]) -> Any:
        memo = s.memo
        if place not in memo:
            memo[place] = fn(s, e)
        return memo[place]

    return once


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
    if known and all(isinstance(key, t.Temporal) and len(key.key) == 7 for key, _ in known):
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


def _folding(sources: list[Slot], lets: list[Slot], tests: list[Relation], fold: tuple[int, Fn, Fn, bool]) -> Fn:
    slot, starting, body, distinct = fold

    def query(s: Any, e: list[Any]) -> Any:
        total = starting(s, e)
        seen: set[Any] = set()
        for _ in _rows(sources, s, e, []):
            for at, let in lets:
                e[at] = let(s, e)
            if not all(test(s, e) for test in tests):
                continue
            if distinct:
                row = tuple(compare.token(e[at]) for at, _ in sources)
                if row in seen:
                    continue
                seen.add(row)
            e[slot] = total
            total = body(s, e)
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
