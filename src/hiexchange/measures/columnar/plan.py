"""Which defines columns can hold, and why others cannot: told from the ELM alone, before any data is read.

What only the data show (a list of several kinds, a sort key without an order) is not told here: such a
define is given up while it is evaluated, and counted then.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from hiexchange.measures.columnar import functions, logic, operators, queries, retrieves
from hiexchange.measures.columnar.evaluate import STEPS, Evaluator, Names
from hiexchange.measures.columnar.state import State
from hiexchange.measures.cql.compiler import Define, Program, Unit
from hiexchange.measures.cql.fhirhelpers import FUNCTIONS
from hiexchange.measures.cql.library import Node, walk

PARTS = (functions, logic, operators, queries, retrieves)
"""Modules that register the node types; imported so that they do."""
_NOT_EXPRESSIONS = {
    "With", "Without", "ByExpression", "ByColumn", "ByDirection", "NamedTypeSpecifier", "ListTypeSpecifier",
    "IntervalTypeSpecifier", "ChoiceTypeSpecifier", "TupleTypeSpecifier", "FunctionDef",
}  # fmt: skip
_CONSTANTS = {
    "Literal", "Null", "Quantity", "Ratio", "Code", "Concept", "CodeRef", "ConceptRef", "ValueSetRef", "CodeSystemRef",
    "ParameterRef", "MinValue", "MaxValue", "Date", "DateTime", "Time",
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """Whether columns can hold one define."""

    library: str
    define: str
    reason: str | None
    """None for a columnar define, else what stands in the way."""


@dataclass(frozen=True)
class Plan:
    """The verdicts on all defines of some libraries, FHIRHelpers apart."""

    verdicts: tuple[Verdict, ...]

    @property
    def share(self) -> float:
        """Share of the defines that are columnar."""
        return sum(v.reason is None for v in self.verdicts) / max(len(self.verdicts), 1)

    def blockers(self) -> Counter[str]:
        """Return how many defines each reason stands in the way of."""
        return Counter(v.reason for v in self.verdicts if v.reason is not None)


def evaluator(state: State, names: Names | None = None) -> Evaluator:
    """Return an evaluator that knows every node type there is a column for."""
    return Evaluator(state, names or Names())


def plan(program: Program) -> Plan:
    """Classify every define of the libraries compiled into a program."""
    seen: dict[Any, str | None] = {}
    verdicts = []
    for unit in program.units.values():
        for name in unit.library.defines if unit.library.id != "FHIRHelpers" else ():
            define = unit.define(name)
            assert define is not None
            verdicts.append(Verdict(unit.library.id, name, _reason(define, seen)))
    return Plan(tuple(verdicts))


def _reason(define: Define, seen: dict[Any, str | None]) -> str | None:
    key = ("define", define.index)
    if key not in seen:
        seen[key] = None
        seen[key] = _first(define.node.get("expression"), define.unit, seen)
    return seen[key]


def _first(node: Node | None, unit: Unit, seen: dict[Any, str | None]) -> str | None:
    """Return the first thing below a node that stands in the way."""
    for item in walk(node):
        kind = item["type"]
        owner = unit.includes.get(item.get("libraryName", ""), unit)
        reason = None
        if kind == "ExpressionRef":
            define = owner.define(item["name"])
            reason = "a define that does not exist" if define is None else _reason(define, seen)
        elif kind == "FunctionRef":
            reason = _of_function(item, owner, seen)
        elif kind == "Query" and item.get("aggregate"):
            reason = "Query with aggregate"
        elif kind == "Retrieve" and item.get("dateRange") is not None:
            reason = "Retrieve by date"
        elif kind not in STEPS and kind not in _CONSTANTS and kind not in _NOT_EXPRESSIONS:
            reason = kind
        if reason is not None:
            return reason
    return None


def _of_function(node: Node, owner: Unit, seen: dict[Any, str | None]) -> str | None:
    name = node["name"]
    if owner.library.id == "FHIRHelpers" and name in FUNCTIONS:
        return None
    for function in owner.functions.get(name, []):
        if function.arity != len(node.get("operand", [])):
            continue
        key = ("function", id(function))
        if key not in seen:
            seen[key] = None
            external = function.node.get("external") or "expression" not in function.node
            seen[key] = (
                f"the external function {name}" if external else _first(function.node["expression"], owner, seen)
            )
        if seen[key] is not None:
            return seen[key]
    return None
