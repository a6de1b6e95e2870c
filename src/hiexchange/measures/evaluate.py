"""Run measures over a population: one pass over each patient, all measures sharing what they retrieve.

One subject's failure is one subject's row. With several processes the parent reads and the workers
evaluate; blocks come back in order, so the result does not depend on how many there are.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from hiexchange.errors import ConfigError, MeasureError
from hiexchange.events import Reporter, SubjectsEvaluated, ignore
from hiexchange.measures import gaps, populations, rows, sources
from hiexchange.measures.asked import check_period
from hiexchange.measures.cql.subject import POLICIES, Context, Subject
from hiexchange.measures.measure import Compiled, Measure, minutes, new_program, parameters
from hiexchange.measures.native.model import engine_version
from hiexchange.measures.prefilter import candidates
from hiexchange.measures.result import MeasureRun
from hiexchange.measures.sources import SubjectRows

CHUNK = 100
"""Patients sent to a worker at a time."""
REPORT_EVERY = 1_000
ENGINES = ("rows", "columns", "auto")


@dataclass(frozen=True)
class Job:
    """What a worker needs to evaluate patients; compiled closures are made where they are used."""

    measures: tuple[Measure, ...]
    period: tuple[date, date]
    offset: timedelta
    profiles: str


class Engine:
    """Measures compiled into one program, for one period."""

    def __init__(self, job: Job) -> None:
        """Compile the measures; equal libraries are shared."""
        self.program = new_program(job.offset)
        self.compiled = [measure.compile(self.program) for measure in job.measures]
        self.context = Context(self.program, parameters(job.period, job.offset), profiles=job.profiles)
        self._retrieves: list[frozenset[int]] = [frozenset() for _ in self.compiled]
        self._known = -1
        self._asked = [_asked(compiled.measure) for compiled in self.compiled] if len(self.compiled) > 1 else []

    def evaluate(self, subject: SubjectRows) -> list[list[rows.Row]]:
        """Return each measure's rows for one patient."""
        name, raw = subject
        if not raw:
            return [rows.outside(name, compiled.criteria) for compiled in self.compiled]
        resources: list[Any] = [sources.decode(item) if isinstance(item, bytes) else item for item in raw]
        s = Subject(self.context, resources)
        return [self._measure(at, compiled, name, s) for at, compiled in enumerate(self.compiled)]

    def _measure(self, at: int, compiled: Compiled, name: str, s: Subject) -> list[rows.Row]:
        result: list[rows.Row] = []
        for criteria in compiled.criteria:
            try:
                members = populations.evaluate(criteria, s)
                found = gaps.reasons(criteria, s, members)
                result += rows.rows_of(name, criteria, s, members, self.reached(at), found)
            except MeasureError as error:
                result.append(rows.error_row(name, criteria, error))
            except Exception as error:  # one patient's odd data must not end the run for all others
                result.append(rows.error_row(name, criteria, error))
        return result

    def reached(self, at: int) -> frozenset[int]:
        """Return the retrieves one measure uses; with a single measure that is all of them."""
        if self._known != len(self.program.retrieve_specs):
            self._known = len(self.program.retrieve_specs)
            every = frozenset(range(self._known))
            if len(self.compiled) == 1:
                self._retrieves = [every]
            else:
                some = zip(self.compiled, self._asked, strict=True)
                self._retrieves = [frozenset(_retrieves_of(compiled, asked) & every) for compiled, asked in some]
        return self._retrieves[at]


def _asked(measure: Measure) -> tuple[set[tuple[str, str]], set[str]]:
    """Return what a measure's libraries retrieve, as (type, profile), and their value sets."""
    kinds = {
        (node["dataType"].rpartition("}")[2], (node.get("templateId") or "").rpartition("/")[2].partition("|")[0])
        for elm in measure.libraries
        for node in elm.nodes
        if node["type"] == "Retrieve"
    }
    urls = {url.partition("|")[0] for elm in measure.libraries for url in (v["id"] for v in elm.value_sets.values())}
    return kinds, urls


def _retrieves_of(compiled: Compiled, asked: tuple[set[tuple[str, str]], set[str]]) -> set[int]:
    kinds, urls = asked
    return {
        spec.index
        for spec in compiled.program.retrieve_specs
        if (spec.kind, spec.template) in kinds and (not hasattr(spec.codes, "id") or spec.codes.id in urls)
    }


def evaluate_all(
    measures: Sequence[Measure],
    source: Any,
    *,
    period: tuple[date, date],
    run_id: str = "run",
    offset: timedelta = timedelta(0),
    profiles: str = "infer",
    workers: int = 1,
    prefilter: bool = True,
    engine: str = "rows",
    on_event: Reporter = ignore,
) -> list[MeasureRun]:
    """Evaluate several measures in one pass over a population; see :meth:`Measure.evaluate`.

    ``prefilter`` leaves unread the patients of a lake who provably are in no initial population. ``engine`` is
    ``rows`` (stage 1: a patient at a time), ``columns`` (stage 2: many at once, the same results) or ``auto``
    (columns for a lake).

    Returns:
        One run a measure, in their order.
    """
    check_period(period, offset)
    if profiles not in POLICIES:
        raise ConfigError(f"the profile policy {profiles!r} is not known", hint=f"use one of {', '.join(POLICIES)}")
    if engine not in ENGINES:
        raise ConfigError(f"the engine {engine!r} is not known", hint=f"use one of {', '.join(ENGINES)}")
    job = Job(tuple(measures), period, offset, profiles)
    gatherers = [
        rows.Gatherer(rows.constants(m.id, m.version, f"elm {engine_version()}", run_id, period)) for m in measures
    ]
    types = frozenset().union(*(measure.types for measure in measures))
    elements = sources.elements_of(library for measure in measures for library in measure.libraries)
    options = _options(job)
    if engine == "columns" or (engine == "auto" and hasattr(source, "files")):
        results = _on_columns(job, (source, types, elements), workers, options)
    else:
        keep = _candidates(job, source) if prefilter and hasattr(source, "files") else None
        results = _evaluated(job, sources.subjects(source, types, elements, keep=keep), workers)
    progress = _Progress(on_event, ", ".join(measure.id for measure in measures))
    for found in results:
        for gatherer, some in zip(gatherers, found, strict=True):
            gatherer.add(some)
        progress.count(found)
    progress.report()
    # Bundles handed over as an iterator are gone; a lake or a folder can be read again.
    kept = source if isinstance(source, str | Path | list | tuple) or hasattr(source, "files") else None
    return [
        MeasureRun(gatherer.table(), measure.info, period, run_id, measure.accepted, options, kept)
        for measure, gatherer in zip(measures, gatherers, strict=True)
    ]


def _on_columns(
    job: Job, wanted: tuple[Any, frozenset[str], frozenset[str]], workers: int, options: dict[str, str]
) -> Iterator[list[list[rows.Row]]]:
    """Yield each patient's rows; write into ``options`` how many were left to stage 1."""
    from hiexchange.measures.columnar.data import batches
    from hiexchange.measures.columnar.run import Columns, interleaved

    engine = Engine(job)
    columns = Columns(engine.compiled, engine.context, engine.reached)
    found = batches(engine.program.model, *wanted)
    yield from interleaved(columns, found, lambda people: _evaluated(job, people, workers, engine))
    options |= {"engine": "columns", "patients_left_to_rows": str(columns.left)}


def _candidates(job: Job, lake: Any) -> Any:
    program = new_program(job.offset)
    return candidates(lake, [measure.compile(program) for measure in job.measures])


def _options(job: Job) -> dict[str, str]:
    return {"offset_minutes": str(minutes(job.offset)), "profiles": job.profiles}


def _evaluated(
    job: Job, people: Iterable[SubjectRows], workers: int, engine: Engine | None = None
) -> Iterator[list[list[rows.Row]]]:
    if workers <= 1:
        engine = engine or Engine(job)
        for subject in people:
            yield engine.evaluate(subject)
        return
    ahead = iter(people)
    chunks = iter(lambda: list(itertools.islice(ahead, CHUNK)), [])
    with multiprocessing.get_context("spawn").Pool(workers, _start, (job,)) as pool:
        yield from itertools.chain.from_iterable(_bounded(pool, chunks, workers * 3))


def _bounded(pool: Any, chunks: Iterator[list[SubjectRows]], ahead: int) -> Iterator[list[list[list[rows.Row]]]]:
    """Keep only so many chunks under way: ``imap`` alone would read the whole population into its queue."""
    waiting = [pool.apply_async(_work, (chunk,)) for chunk in itertools.islice(chunks, ahead)]
    while waiting:
        yield waiting.pop(0).get()
        waiting += [pool.apply_async(_work, (chunk,)) for chunk in itertools.islice(chunks, 1)]


_engine: Engine | None = None


def _start(job: Job) -> None:
    global _engine
    _engine = Engine(job)


def _work(chunk: list[SubjectRows]) -> list[list[list[rows.Row]]]:
    assert _engine is not None
    return [_engine.evaluate(subject) for subject in chunk]


class _Progress:
    """Counts patients and errors, and tells of them now and then."""

    def __init__(self, on_event: Reporter, measure: str) -> None:
        self.on_event = on_event
        self.measure = measure
        self.done = 0
        self.errors = 0

    def count(self, found: list[list[rows.Row]]) -> None:
        """Take one patient's rows."""
        self.done += 1
        self.errors += any(row[_STATUS] == "error" for some in found for row in some)
        if self.done % REPORT_EVERY == 0:
            self.report()

    def report(self) -> None:
        """Tell how far it is."""
        self.on_event(SubjectsEvaluated(self.measure, self.done, self.errors))


_STATUS = rows.VARYING.index("status")
