"""Result rows of a batch of subjects out of columns, and who is left to stage 1.

Populations are settled, gaps explained and rows made by the functions of stage 1; only the values of defines
come out of columns. A subject is left to stage 1 whole where one of its values is.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from hiexchange.errors import MeasureError
from hiexchange.measures import gaps, populations, rows
from hiexchange.measures.columnar.cells import Col, Ints, Lists, Mask, Mixed, Nulls, Unsupported
from hiexchange.measures.columnar.data import Batch
from hiexchange.measures.columnar.evaluate import Evaluator, Names
from hiexchange.measures.columnar.plan import evaluator
from hiexchange.measures.columnar.scalar import truth
from hiexchange.measures.columnar.state import Ctx, State
from hiexchange.measures.columnar.subject import Row
from hiexchange.measures.cql.compiler import Define
from hiexchange.measures.cql.subject import Context
from hiexchange.measures.measure import Compiled
from hiexchange.measures.populations import Criteria
from hiexchange.measures.sources import SubjectRows

Rows = list[list[rows.Row]]
_INFERRED = rows.VARYING.index("profiles_inferred")


class Columns:
    """Measures of one program on columns."""

    def __init__(self, compiled: list[Compiled], context: Context, retrieves: Any) -> None:
        """Keep the measures; ``retrieves`` gives a measure's retrieves by its place (see ``evaluate.Engine``)."""
        self.compiled = compiled
        self.context = context
        self.retrieves = retrieves
        self.names = Names()
        self.given_up: Counter[tuple[str, str]] = Counter()
        """(measure, reason) of measures that columns could not hold, by batches."""
        self.left = 0
        """Subjects left to stage 1 so far."""

    def evaluate(self, batch: Batch) -> list[Rows | None]:
        """Return each subject's rows by measure, None for one that is left to stage 1."""
        state = State(self.context, batch)
        ev = evaluator(state, self.names)
        left: Mask = np.zeros(batch.n, np.bool_)
        left[batch.refused] = True
        found: list[Rows] = [[] for _ in batch.names]
        for at, compiled in enumerate(self.compiled):
            try:
                self._measure(ev, at, compiled, found, left)
            except Unsupported as error:
                self.given_up[compiled.measure.id, error.what] += 1
                left[:] = True
                break
        self.left += int(left.sum())
        return [None if left[at] else found[at] for at in range(batch.n)]

    def _measure(self, ev: Evaluator, at: int, compiled: Compiled, found: list[Rows], left: Mask) -> None:
        """Add one measure's rows to ``found``; mark who is left."""
        for some in found:
            some.append([])
        for criteria in compiled.criteria:
            inside = primed(ev, criteria, left)
            inferred = judged(ev.state)
            blank = [(row[1:_INFERRED], row[_INFERRED + 1 :]) for row in rows.outside("", [criteria])]
            together = inside & ~left
            reached = _reached(ev.state)
            for subject in np.flatnonzero(~left).tolist():
                if not inside[subject]:
                    name = ev.state.batch.names[subject]
                    found[subject][-1] += [(name, *first, int(inferred[subject]), *rest) for first, rest in blank]
                    continue
                s = Row(ev.state, subject, int(inferred[subject]), reached=reached[:, subject], together=together)
                made = self._rows(s, criteria, at)
                if made is None:
                    left[subject] = True
                else:
                    found[subject][-1] += made

    def _rows(self, subject: Row, criteria: Criteria, at: int) -> list[rows.Row] | None:
        s: Any = subject
        try:
            members = populations.evaluate(criteria, s)
            reasons = gaps.reasons(criteria, s, members)
            name = subject.state.batch.names[subject.at]
            return rows.rows_of(name, criteria, s, members, self.retrieves(at), reasons)
        except (MeasureError, KeyError):
            return None  # what was not computed here is stage 1's to say


def _reached(state: State) -> Any:
    """Return which selections found rows for which subjects they were asked for."""
    some = [found.reached & (found.counts > 0) for found in state.selections.values()]
    return np.stack(some) if some else np.zeros((0, state.n), np.bool_)


def primed(ev: Evaluator, criteria: Criteria, left: Mask) -> Mask:
    """Compute what the populations of a group ask for, for whom they ask; return who may be in one.

    Marks in ``left`` those for whom something has no value here.
    """
    boolean = criteria.group.basis == "boolean"
    everyone = np.flatnonzero(~left)
    firsts = [define for _, define in criteria.initials] or [criteria.defines.get("initial_population")]
    inside = np.zeros(len(left), np.bool_)
    for first in firsts:
        if first is not None:
            col = _computed(ev, first, everyone, left)
            inside[everyone] |= truth(col) == 1 if boolean else _filled(col)
        elif boolean and "initial_population" not in criteria.defines:
            inside[everyone] = True
    inside &= ~left
    reached: Mask = np.zeros(len(left), np.bool_)
    for column, define in criteria.defines.items():
        if column == "initial_population":
            reached |= inside
            continue
        rows_in = np.flatnonzero(inside & ~left)
        if define is not None:
            col = _computed(ev, define, rows_in, left)
            if boolean:
                reached[rows_in] |= truth(col) == 1
    for _, define in criteria.stratifiers:
        rows_in = np.flatnonzero((reached if boolean else inside) & ~left)
        if define is not None:
            _computed(ev, define, rows_in, left)
    if any(call is not None for _, call, _ in criteria.observations):
        left |= inside  # an observation calls a function a member at a time
    return inside


def _computed(ev: Evaluator, define: Define, subjects: Ints, left: Mask) -> Col:
    if not len(subjects):
        return Nulls(0)
    col = ev.define(define, Ctx(subjects))
    left |= ev.state.values[define.index].failed
    return col


def _filled(col: Col) -> Mask:
    if isinstance(col, Lists):
        return col.having(col.child.known())
    if isinstance(col, Mixed):
        raise Unsupported("a population of several kinds")
    return col.known()


def judged(state: State) -> Ints:
    """Return how many rows of each subject were judged by their structure so far."""
    rows_of: dict[int, tuple[Any, Mask]] = {}
    for found in state.selections.values():
        if found.table is not None and len(found.inferred):
            _, mask = rows_of.setdefault(id(found.table), (found.table, np.zeros(found.table.n, np.bool_)))
            mask[found.inferred[found.reached[found.table.owner[found.inferred]]]] = True
    total: Ints = np.zeros(state.n, np.int64)
    for table, mask in rows_of.values():
        total += np.bincount(table.owner[mask], minlength=state.n)
    return total


def interleaved(
    columns: Columns, batches: Iterable[Batch], evaluate: Callable[[Iterable[SubjectRows]], Iterator[Rows]]
) -> Iterator[Rows]:
    """Yield every subject's rows in order: out of columns, or from ``evaluate`` (stage 1) for those left.

    ``evaluate`` may read ahead; it is given an empty subject after each batch, so that what waits stays bounded.
    """
    waiting: deque[Rows | None] = deque()
    ends: deque[int] = deque()
    given = 0

    def left() -> Iterator[SubjectRows]:
        nonlocal given
        for batch in batches:
            found = columns.evaluate(batch)
            waiting.extend(found)
            rest = np.array([some is None for some in found], np.bool_)
            given += int(rest.sum())
            yield from batch.resources(rest)
            waiting.append(None)
            ends.append(given)
            given += 1
            yield "", []

    for number, found in enumerate(evaluate(left())):
        while (ready := waiting.popleft()) is not None:
            yield ready
        if ends and ends[0] == number:
            ends.popleft()
        else:
            yield found
