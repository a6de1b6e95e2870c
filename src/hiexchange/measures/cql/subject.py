"""One patient under evaluation: resources by type, results by define, and what was touched.

A :class:`Context` is what a run shares: parameters, the clock, and the policy on profiles.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compiler import MAX_DEPTH, Define, Program
from hiexchange.measures.cql.model import Element
from hiexchange.measures.cql.values import EvaluationError, Interval

POLICIES = ("infer", "trust", "ignore")


class Context:
    """What all subjects of a run share."""

    def __init__(
        self, program: Program, parameters: dict[str, Any], *, profiles: str = "infer", now: t.DateTime | None = None
    ) -> None:
        """Keep parameters by name; ``now`` is the clock of Now and Today (default: the period's end)."""
        self.program = program
        self.parameters = parameters
        self.profiles = profiles
        self.memo: dict[int, Any] = {}
        period = parameters.get("Measurement Period")
        self.now = now or (period.end if isinstance(period, Interval) else None)


class Subject:
    """One patient: lives for one pass over all measures of the program."""

    __slots__ = (
        "context",
        "depth",
        "inferred",
        "memo",
        "messages",
        "parameters",
        "patient",
        "results",
        "retrieved",
        "rows",
        "run_memo",
        "trace",
    )

    def __init__(self, context: Context, resources: Iterable[dict[str, Any]]) -> None:
        """Take the patient's resources as JSON, in file order."""
        self.context = context
        self.parameters = context.parameters
        self.run_memo = context.memo
        self.results: dict[int, Any] = {}
        self.memo: dict[int, Any] = {}
        self.retrieved: dict[int, list[Element]] = {}
        self.messages: list[str] = []
        self.inferred = 0
        self.depth = 0
        self.trace: Any = None
        self.patient: Element | None = None
        self.rows: dict[str, list[Element]] = {}
        wrap = context.program.model.resource
        for row, data in enumerate(resources):
            element = wrap(data, row)
            kind = data["resourceType"]
            if kind in self.rows:
                self.rows[kind].append(element)
            else:
                self.rows[kind] = [element]
        patients = self.rows.get("Patient")
        if patients:
            self.patient = patients[0]

    def enter(self, define: Define) -> None:
        """Count nesting, and tell the trace."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise EvaluationError("an expression calls itself")
        if self.trace is not None:
            self.trace.enter(define)

    def leave(self) -> None:
        """Undo :meth:`enter`."""
        self.depth -= 1
        if self.trace is not None:
            self.trace.leave()

    def evaluate(self, define: Define) -> Any:
        """Return the value of a define, computed at most once."""
        try:
            return self.results[define.index]
        except KeyError:
            return define.compute(self)
