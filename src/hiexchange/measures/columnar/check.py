"""Stage 2 against stage 1: every define of a measure, for every subject, value by value.

What the tests and the benchmark use; nothing of a run depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np

from hiexchange.errors import MeasureError
from hiexchange.measures.columnar.cells import Unsupported
from hiexchange.measures.columnar.data import from_json
from hiexchange.measures.columnar.plan import evaluator
from hiexchange.measures.columnar.show import same
from hiexchange.measures.columnar.state import Ctx, State
from hiexchange.measures.cql.compiler import Define, Program
from hiexchange.measures.cql.subject import Context, Subject
from hiexchange.measures.measure import Measure, new_program, parameters
from hiexchange.measures.sources import SubjectRows, decode


@dataclass
class Check:
    """What a comparison found."""

    defines: int = 0
    """Defines of the measure's libraries, FHIRHelpers apart."""
    unsupported: dict[tuple[str, str], str] = field(default_factory=dict)
    """(library, define) to the reason for those stage 2 left to stage 1."""
    values: int = 0
    """Values of defines stage 2 gave, a define and subject each."""
    left: int = 0
    """Values stage 2 left to stage 1 because of that subject's data."""
    differences: list[tuple[str, str, str]] = field(default_factory=list)
    """(library, define, subject) where the two do not agree; no values, they may be patients' data."""


def defines_of(program: Program) -> list[Define]:
    """Return every define of the libraries in a program, FHIRHelpers apart."""
    units = [unit for unit in program.units.values() if unit.library.id != "FHIRHelpers"]
    return [
        define
        for unit in units
        for name in unit.library.defines
        for define in [unit.define(name)]
        if define is not None
    ]


def check(
    measure: Measure,
    subjects: Sequence[SubjectRows],
    *,
    period: tuple[date, date],
    offset: timedelta = timedelta(0),
    profiles: str = "infer",
) -> Check:
    """Evaluate all defines of a measure both ways and compare them for each subject, null and errors included."""
    program = new_program(offset)
    measure.compile(program)
    context = Context(program, parameters(period, offset), profiles=profiles)
    batch = from_json(program.model, subjects)
    rows = [Subject(context, [decode(r) if isinstance(r, bytes) else dict(r) for r in raw]) for _, raw in subjects]
    ev = evaluator(State(context, batch))
    found = Check()
    for define in defines_of(program):
        found.defines += 1
        try:
            col = ev.define(define, Ctx(np.arange(batch.n)))
        except Unsupported as error:
            found.unsupported[define.unit.library.id, define.name] = error.what
            continue
        left = ev.state.values[define.index].failed
        found.values += int((~left).sum())
        found.left += int(left.sum())
        for at in np.flatnonzero(~left).tolist():
            if not _agree(define, rows[at], col, at):
                found.differences.append((define.unit.library.id, define.name, batch.names[at]))
    return found


def _agree(define: Define, subject: Subject, col: Any, at: int) -> bool:
    try:
        value = subject.evaluate(define)
    except MeasureError:
        return False  # an error there must be left alone here
    return same(value, col, at, subject)
