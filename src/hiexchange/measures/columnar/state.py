"""What the evaluation of one batch keeps: values of defines, selections of retrieves, subjects without a value.

A :class:`Ctx` is a set of rows expressions are evaluated for: the subjects themselves, or rows of a query
below them. Names resolve along its parents, gathered to its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hiexchange.measures.columnar.cells import Col, Ints, Mask, Nulls, Unsupported, concat
from hiexchange.measures.columnar.data import Batch
from hiexchange.measures.cql.compiler import Define
from hiexchange.measures.cql.subject import Context


class Ctx:
    """Rows, the subject of each, and the names in scope."""

    __slots__ = ("element", "names", "owner", "parent", "up")

    def __init__(
        self, owner: Ints, parent: Ctx | None = None, up: Ints | None = None, names: dict[str, Col] | None = None
    ) -> None:
        """Keep rows by their subjects; ``up`` is the row of the parent each lies under."""
        self.owner = owner
        self.parent = parent
        self.up = up
        self.names: dict[str, Col] = names if names is not None else {}
        self.element: Col | None = None

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.owner)

    def sub(self, rows: Ints) -> Ctx:
        """Return some of the rows."""
        return self.below(rows, {})

    def below(self, up: Ints, names: dict[str, Col]) -> Ctx:
        """Return rows that lie under these ones."""
        found = Ctx(self.owner[up], self, up, names)
        if self.element is not None:
            found.element = self.element.take(up)
        return found

    def get(self, name: str) -> Col | None:
        """Return a name's values for the rows, None when it is not in scope."""
        found = self.names.get(name)
        if found is None:
            if self.parent is None or self.up is None:
                return None
            above = self.parent.get(name)
            if above is None:
                return None
            found = self.names[name] = above.take(self.up)
        return found


class Value:
    """A define's values, for the subjects it was asked for so far."""

    __slots__ = ("busy", "col", "failed", "place")

    def __init__(self, n: int) -> None:
        self.place = np.full(n, -1, np.int64)
        self.col: Col = Nulls(0)
        self.failed: Mask = np.zeros(n, np.bool_)
        self.busy = False


class Selection:
    """The rows one retrieve selects, by subject."""

    __slots__ = ("counts", "doubtful", "inferred", "reached", "rows", "starts", "table")

    def __init__(self, table: Any, rows: Ints, inferred: Ints, doubtful: Mask, n: int) -> None:
        """Keep the selected rows, those judged by structure, and the subjects whose rows cannot be judged here."""
        self.table = table
        self.rows = rows
        self.inferred = inferred
        self.doubtful = doubtful
        owners = table.owner[rows] if table is not None else np.zeros(0, np.int64)
        self.counts = np.bincount(owners, minlength=n)
        self.starts = np.cumsum(self.counts) - self.counts
        self.reached: Mask = np.zeros(n, np.bool_)


class State:
    """The evaluation of one batch."""

    def __init__(self, context: Context, batch: Batch) -> None:
        """Start with nothing computed; ``failed`` collects the subjects an expression has no value for."""
        self.context = context
        self.program = context.program
        self.batch = batch
        self.n = batch.n
        self.values: dict[int, Value] = {}
        self.selections: dict[Any, Selection] = {}
        self.failed: Mask = np.zeros(batch.n, np.bool_)
        self.failed[batch.refused] = True
        self.memo: dict[Any, Any] = {}
        self.depth = 0

    # What a closure of stage 1 asks a subject for, where it reads nothing but parameters.

    @property
    def parameters(self) -> dict[str, Any]:
        """The run's parameters."""
        return self.context.parameters

    @property
    def run_memo(self) -> dict[int, Any]:
        """Values computed once a run."""
        return self.context.memo

    def fail(self, ctx: Ctx, rows: Ints | Mask | None = None) -> None:
        """Leave the subjects of rows to stage 1: what is asked has no value here."""
        self.failed[ctx.owner if rows is None else ctx.owner[rows]] = True

    def define(self, define: Define, ctx: Ctx, evaluate: Callable[[Define, Ctx], Col]) -> Col:
        """Return a define's values for rows, computing them for subjects not asked for before."""
        value = self.values.get(define.index)
        if value is None:
            value = self.values[define.index] = Value(self.n)
        wanted = np.unique(ctx.owner)
        missing = wanted[value.place[wanted] < 0]
        if len(missing):
            self._compute(define, value, missing, evaluate)
        self.failed[wanted] |= value.failed[wanted]
        return value.col.take(value.place[ctx.owner])

    def _compute(self, define: Define, value: Value, missing: Ints, evaluate: Callable[[Define, Ctx], Col]) -> None:
        if value.busy:
            raise Unsupported("a define that asks for itself")
        outer, self.failed = self.failed, np.zeros(self.n, np.bool_)
        self.failed[self.batch.refused] = True
        value.busy = True
        try:
            col = evaluate(define, Ctx(missing))
            value.failed[missing] = self.failed[missing]
        finally:
            self.failed = outer
            value.busy = False
        value.place[missing] = np.arange(value.col.n, value.col.n + len(missing))
        value.col = concat([value.col, col]) if value.col.n else col
