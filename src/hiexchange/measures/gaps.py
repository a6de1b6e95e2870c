"""Gaps in care: who is in the denominator without the numerator, what is missing, and who is attributed.

A reason comes from the parts of the numerator that failed, found while the subject was evaluated and
kept in the result's ``messages`` as ``gap: <code> <define>``:

- ``not-found``: nothing of the kind was retrieved,
- ``out-of-period``: it was, but only outside the measurement period,
- ``value-missing``: it was, without a value,
- ``negated``: it was recorded as not done,
- ``not-qualifying``: it was, and a further condition failed,
- ``numerator-met``: of a measure where the numerator is the bad outcome.

Nobody outside the denominator, excluded or excepted has a gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pyarrow as pa

from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compiler import Define, Program
from hiexchange.measures.cql.library import Node, walk
from hiexchange.measures.cql.model import Element, get
from hiexchange.measures.cql.retrieve import PRIMARY, matches
from hiexchange.measures.cql.subject import Subject
from hiexchange.measures.cql.values import Interval, ValueSet
from hiexchange.measures.populations import Criteria, Member

PREFIX = "gap: "
_DATES = (
    "effective", "performed", "period", "authoredOn", "occurrence", "onset", "recordedDate", "issued", "whenHandedOver", "sent",
    "date",
)  # fmt: skip
_NEGATIVE = ("not-done", "cancelled", "rejected", "declined", "entered-in-error")

SCHEMA = pa.schema(
    [
        ("subject", pa.string()),
        ("measure", pa.string()),
        ("group", pa.string()),
        ("episode", pa.string()),
        ("gap", pa.string()),
        ("reason", pa.string()),
        ("define", pa.string()),
        ("provider_npi", pa.string()),
        ("due_on", pa.date32()),
    ]
)
"""One row a gap; ``gap`` is open, or prospective before the period's end."""


def has_gap(flags: dict[str, bool], improvement: str) -> bool:
    """Tell whether a member has a gap."""
    if not flags.get("denominator") or flags.get("denominator_exclusion") or flags.get("denominator_exception"):
        return False
    if "numerator" not in flags:
        return False
    met = flags["numerator"] and not flags.get("numerator_exclusion")
    return met if improvement == "decrease" else not met


def reasons(criteria: Criteria, s: Subject, members: list[Member]) -> list[str]:
    """Return the reasons of a subject's gaps as messages, once each."""
    improvement = criteria.group.improvement
    if not any(has_gap(member.flags, improvement) for member in members):
        return []
    define = criteria.defines.get("numerator")
    if improvement == "decrease" or define is None:
        return [f"{PREFIX}numerator-met {define.name if define is not None else ''}".rstrip()]
    return list(dict.fromkeys(f"{PREFIX}{code} {name}" for code, name in _failed(define, s, 0)))


def _failed(define: Define, s: Subject, depth: int) -> Iterator[tuple[str, str]]:
    value = s.results.get(define.index)
    if value is True or (isinstance(value, list) and value):
        return
    below = _below(define) if depth < 8 else []
    if below:
        for child in below:
            if child.index in s.results:
                yield from _failed(child, s, depth + 1)
        return
    yield _leaf(define, s), define.name


def _below(define: Define) -> list[Define]:
    facts, key = define.unit.program.facts, ("conjuncts", define.index)
    if key not in facts:
        facts[key] = list(_conjuncts(define.node.get("expression"), define))
    found: list[Define] = facts[key]
    return found


def _conjuncts(node: Node | None, define: Define) -> Iterator[Define]:
    """Walk through logic, Exists and plain references: what a failed define hangs on."""
    if node is None:
        return
    kind = node.get("type")
    if kind == "ExpressionRef":
        unit = define.unit.includes.get(node.get("libraryName", ""), define.unit)
        child = unit.define(node["name"])
        if child is not None and child.name != "Patient":
            yield child
    elif kind in ("And", "Or", "Exists", "Union", "Intersect", "IsTrue"):
        operands = node.get("operand") or []
        for operand in operands if isinstance(operands, list) else [operands]:
            yield from _conjuncts(operand, define)


def _leaf(define: Define, s: Subject) -> str:
    rows = list(_retrieved(define, s, 0))
    if not rows:
        return "negated" if _negated(define, s) else "not-found"
    period = s.parameters.get("Measurement Period")
    if isinstance(period, Interval) and not any(_within(row, period) for row in rows):
        return "out-of-period"
    if all(row.type.name == "Observation" and row.get("value") is None and not row.get("component") for row in rows):
        return "value-missing"
    return "not-qualifying"


def _retrieved(define: Define, s: Subject, depth: int) -> Iterator[Element]:
    program = define.unit.program
    # Retrieves are compiled as they are reached: what is known grows until all of them are.
    key = ("retrieves", define.index, len(program.retrieve_specs))
    if key not in program.facts:
        program.facts[key] = list(dict.fromkeys(_retrieves(program, define, depth)))
    for index in program.facts[key]:
        yield from s.retrieved.get(index, ())


def _retrieves(program: Program, define: Define, depth: int) -> Iterator[int]:
    """Return the retrieves under a define, other defines included."""
    for node in walk(define.node.get("expression")):
        if node["type"] == "Retrieve" and node["dataType"].rpartition("}")[2] != "Patient":
            yield from _index(program, node, define)
        elif node["type"] == "ExpressionRef" and node["name"] != "Patient" and depth < 4:
            unit = define.unit.includes.get(node.get("libraryName", ""), define.unit)
            child = unit.define(node["name"])
            if child is not None and child is not define:
                yield from _retrieves(program, child, depth + 1)


def _index(program: Program, node: Node, define: Define) -> Iterator[int]:
    kind = node["dataType"].rpartition("}")[2]
    template = (node.get("templateId") or "").rpartition("/")[2].partition("|")[0]
    wanted = _value_set(node, define)
    for spec in program.retrieve_specs:
        if spec.kind == kind and spec.template == template:
            same = isinstance(spec.codes, ValueSet) and wanted is not None and spec.codes.id == wanted.id
            if same or (wanted is None and not isinstance(spec.codes, ValueSet)):
                yield spec.index


def _value_set(node: Node, define: Define) -> ValueSet | None:
    codes = node.get("codes") or {}
    if codes.get("type") != "ValueSetRef":
        return None
    unit = define.unit.includes.get(codes.get("libraryName", ""), define.unit)
    return unit.value_sets.get(codes["name"])


def _negated(define: Define, s: Subject) -> bool:
    """Tell whether rows of the codes asked for exist, recorded as not done."""
    facts, key = define.unit.program.facts, ("negatable", define.index)
    if key not in facts:
        nodes = [node for node in walk(define.node.get("expression")) if node["type"] == "Retrieve"]
        kinds = [node["dataType"].rpartition("}")[2] for node in nodes]
        facts[key] = [
            (kind, node.get("codeProperty") or PRIMARY.get(kind, "code"), _value_set(node, define))
            for node, kind in zip(nodes, kinds, strict=True)
        ]
    for kind, path, value_set in facts[key]:
        for row in s.rows.get(kind, ()):
            negative = row.get("status") in _NEGATIVE or row.get("doNotPerform") is True
            if (
                negative
                and value_set is not None
                and value_set.pairs
                and matches(s, row, path, value_set.pairs, value_set.id)
            ):
                return True
    return False


def _within(row: Element, period: Interval) -> bool:
    for name in _DATES:
        value = get(row, name)
        if isinstance(value, Element):
            value = value.get("end") or value.get("start")
        if isinstance(value, t.Temporal):
            at = t.as_datetime(value)
            return t.compare(at, period.start) != -1 and t.compare(at, period.end) != 1
    return True


def table(rows: pa.Table, improvement: dict[str, str], *, as_of: date | None, providers: dict[str, str]) -> pa.Table:
    """Return the gaps in a MEASURE_RESULT table; see :meth:`hiexchange.measures.MeasureRun.gaps`."""
    found: list[dict[str, Any]] = []
    for batch in rows.to_batches():
        for row in batch.to_pylist():
            gap = state(row, improvement.get(row["group"], "increase"), as_of)
            if gap not in ("open", "prospective"):
                continue
            code, define = reason(row)
            found.append(
                {
                    "subject": row["subject"],
                    "measure": row["measure"],
                    "group": row["group"],
                    "episode": row["episode"],
                    "gap": gap,
                    "reason": code,
                    "define": define,
                    "provider_npi": providers.get(row["subject"]),
                    "due_on": row["period_end"],
                }
            )
    return pa.Table.from_pylist(found, schema=SCHEMA)


_FLAGS = {"denominator", "denominator_exclusion", "denominator_exception", "numerator", "numerator_exclusion"}


def state(row: dict[str, Any], improvement: str, as_of: date | None) -> str | None:
    """Return open, prospective (unmet before the period's end) or closed; None for whom nothing is asked."""
    if row["status"] != "ok":
        return None
    flags = {name: bool(row[name]) for name in _FLAGS if row[name] is not None}
    if has_gap(flags, improvement):
        return "prospective" if as_of is not None and as_of < row["period_end"] else "open"
    asked = flags.get("denominator") and "numerator" in flags
    return (
        "closed"
        if asked and not flags.get("denominator_exclusion") and not flags.get("denominator_exception")
        else None
    )


def reason(row: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return why a row has its gap, and the define that failed."""
    for message in row["messages"] or ():
        if message.startswith(PREFIX):
            code, _, define = message.removeprefix(PREFIX).partition(" ")
            return code, define or None
    return None, None
