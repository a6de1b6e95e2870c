"""An official measure, loaded and compiled: ``Measure.load(bundle)`` then ``.evaluate(source, period=...)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from hiexchange.errors import MeasureError
from hiexchange.events import Reporter, ignore
from hiexchange.measures import bundle, checks
from hiexchange.measures.bundle import Content, Group, Observation
from hiexchange.measures.checks import Finding
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compiler import Define, Function, Program, Unit
from hiexchange.measures.cql.library import Library
from hiexchange.measures.cql.model import Model
from hiexchange.measures.cql.values import Interval, ValueSet
from hiexchange.measures.populations import Criteria
from hiexchange.measures.result import MeasureInfo, MeasureRun
from hiexchange.tables import ISSUE

INITIAL = "initial_population"


@dataclass(frozen=True)
class Compiled:
    """A measure within a program: its groups' criteria, ready for subjects."""

    measure: Measure
    program: Program
    unit: Unit
    criteria: tuple[Criteria, ...]
    supplemental: tuple[tuple[str, Define], ...]
    """(id, define) of supplemental data and risk adjustment."""


class Measure:
    """A measure bundle, checked. Nothing is compiled until it is first needed."""

    def __init__(self, content: Content, *, accept: Iterable[str] = (), source: Any = None) -> None:
        """Check the content; see :meth:`load`."""
        self.content = content
        self._source = source
        self.accept = frozenset(accept)
        self._shipped = _shipped(content)
        self.library = _main(content, self._shipped)
        reached = _reach(self.library, self._shipped) if self.library is not None else []
        self.libraries: tuple[Library, ...] = tuple(reached)
        self.findings: tuple[Finding, ...] = tuple(checks.check(content, self.library, reached))
        refused = checks.refused(self.findings, self.accept)
        if refused:
            first = refused[0]
            more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
            raise MeasureError(
                f"the measure {self.id} cannot be trusted: {first.message}{more}",
                where=first.key,
                hint="`hiexchange measure check` lists all; accept what is known with accept={...}",
            )
        self.accepted = checks.accepted(self.findings, self.accept)
        if {checks.TRANSLATOR, "all"} & self.accept and self.library is not None:
            self._shipped = {name: replace(elm, errors=()) for name, elm in self._shipped.items()}
            self.library = self._shipped[self.library.id]

    @staticmethod
    def load(
        source: str | Path | Mapping[str, Any] | Iterable[Mapping[str, Any]],
        *,
        accept: Iterable[str] = (),
        measure: str | None = None,
    ) -> Measure:
        """Load a measure and check that it can be evaluated truthfully.

        Args:
            source: A collection Bundle, its file (``.json``, ``.json.gz``), a folder of such files, or resources.
            accept: Codes of findings to accept (``"valueset-truncated"``), or single ones
                (``"valueset-empty:<url>"``), or ``"all"``. They are recorded in every result.
            measure: Id or URL of the Measure to take when the source has several.

        Raises:
            MeasureError: The content is incomplete, of disagreeing versions, or uses ELM that is not supported.
        """
        content = bundle.read(source, measure=measure)
        return Measure(content, accept=accept, source=source)

    @staticmethod
    def check(source: Any, *, measure: str | None = None) -> pa.Table:
        """Return every finding about a bundle as ISSUE rows, without refusing it."""
        loaded = Measure.load(source, accept=("all",), measure=measure)
        return ISSUE.from_rows(
            {
                "stage": "measures",
                "severity": finding.severity,
                "code": finding.code,
                "message": finding.message,
                "column": finding.where,
                "subject_key": f"Measure/{loaded.id}",
            }
            for finding in loaded.findings
        )

    @property
    def id(self) -> str:
        """The Measure's id."""
        return str(self.content.measure.get("id") or self.content.measure.get("name"))

    @property
    def version(self) -> str:
        """The Measure's version."""
        return str(self.content.measure.get("version") or "")

    @property
    def groups(self) -> tuple[Group, ...]:
        """The population groups."""
        return self.content.groups

    @property
    def info(self) -> MeasureInfo:
        """What a result says about the measure."""
        resource = self.content.measure
        return MeasureInfo(
            id=self.id,
            version=self.version,
            title=str(resource.get("title") or resource.get("name") or self.id),
            url=str(resource.get("url") or f"Measure/{self.id}"),
            scoring={group.id: group.scoring for group in self.groups},
            improvement={group.id: group.improvement for group in self.groups},
            copyright=str(resource.get("copyright") or ""),
            population_ids={
                (group.id, item.column): item.id
                for group in reversed(self.groups)
                for item in reversed(group.populations)
            },
            columns={
                group.id: tuple(dict.fromkeys(item.column for item in group.populations)) for group in self.groups
            },
            observations={group.id: _methods(group) for group in self.groups},
            applies_to={
                (group.id, item.id): item.applies_to
                for group in self.groups
                for item in group.stratifiers
                if item.applies_to
            },
            initials={
                group.id: names
                for group in self.groups
                if len(names := tuple(item.id for item in group.populations if item.column == INITIAL)) > 1
            },
        )

    def __repr__(self) -> str:
        return f"Measure({self.id!r}, version={self.version!r}, groups={len(self.groups)})"

    def _repr_html_(self) -> str:
        counts = (
            f"{len(self.groups)} groups, {len(self.libraries)} libraries, {len(self.content.value_sets)} value sets"
        )
        return f"<p><b>{self.info.title}</b> {self.version}: {counts}</p>"

    def __reduce__(self) -> tuple[Any, ...]:
        # Workers read the bundle again: compiled closures do not travel between processes.
        return _reload, (self._source, tuple(self.accept), str(self.content.measure.get("id")))

    @property
    def types(self) -> frozenset[str]:
        """FHIR types the measure retrieves, Patient and those reached by reference included."""
        kinds = {
            node["dataType"].rpartition("}")[2]
            for elm in self.libraries
            for node in elm.nodes
            if node["type"] == "Retrieve"
        }
        return frozenset(kinds | {"Patient"})

    def compile(self, program: Program) -> Compiled:
        """Place the measure into a program, sharing libraries that are equal there already."""
        assert self.library is not None
        unit = _unit(program, self.library, self.content, self._shipped)
        return Compiled(
            measure=self,
            program=program,
            unit=unit,
            criteria=tuple(_criteria(unit, group) for group in self.groups),
            supplemental=tuple(
                (name, define)
                for name, expression, _ in self.content.supplemental
                if (define := unit.define(expression)) is not None
            ),
        )

    def evaluate(
        self,
        source: Any,
        *,
        period: tuple[date, date],
        run_id: str = "run",
        offset: timedelta = timedelta(0),
        profiles: str = "infer",
        workers: int = 1,
        engine: str = "rows",
        on_event: Reporter = ignore,
    ) -> MeasureRun:
        """Evaluate the measure over a population.

        Args:
            source: A ``Lake``, a folder of Bundles (one a patient), or an iterable of Bundles.
            period: First and last day of the measurement period, inclusive.
            run_id: Name of the evaluation, written into every row.
            offset: Offset from UTC in which days are told apart; recorded in the result.
            profiles: ``infer``, ``trust`` or ``ignore``: what decides whether a resource fits a profile.
            workers: Processes that evaluate; the result does not depend on it.
            engine: ``rows`` (a patient at a time), ``columns`` (many at once) or ``auto`` (columns for a lake); the
                result does not depend on it.
            on_event: Gets :class:`~hiexchange.events.SubjectsEvaluated` as the run proceeds.

        Returns:
            MEASURE_RESULT rows, one a subject and group, or one an episode; errors are rows too.
        """
        from hiexchange.measures.evaluate import evaluate_all

        (run,) = evaluate_all(
            [self],
            source,
            period=period,
            run_id=run_id,
            offset=offset,
            profiles=profiles,
            workers=workers,
            engine=engine,
            on_event=on_event,
        )
        return run

    def supplemental(self, run: MeasureRun, source: Any = None) -> pa.Table:
        """Return supplemental data and risk adjustment of a run's initial population, one row a value.

        Args:
            run: A run of this measure.
            source: Where the patients are read; default: the source of the run.

        Returns:
            subject, id of the element, usage, part, system, code, text, value, unit, and the define that failed where
            one did. :meth:`MeasureRun.to_fhir` and :meth:`MeasureRun.individual` take it as ``supplemental``.

        Raises:
            ConfigError: The run's source cannot be read again and none was given.
        """
        from hiexchange.measures.supplemental import supplemental

        return supplemental(self, run, source)

    def why(self, source: Any, subject: str, *, period: tuple[date, date], **options: Any) -> Any:
        """Explain one subject's result: see :func:`hiexchange.measures.why.explain`."""
        from hiexchange.measures.why import explain

        return explain(self, source, subject, period=period, **options)


def _reload(source: Any, accept: tuple[str, ...], name: str) -> Measure:
    return Measure.load(source, accept=accept, measure=name)


def _shipped(content: Content) -> dict[str, Library]:
    return {elm.id: elm for _, elm in content.libraries}


def _main(content: Content, shipped: Mapping[str, Library]) -> Library | None:
    for canonical in content.measure.get("library") or ():
        url, _, version = str(canonical).partition("|")
        for resource, elm in content.libraries:
            if resource.get("url") == url and (not version or resource.get("version") == version):
                return elm
        if url.rpartition("/")[2] in shipped:
            return shipped[url.rpartition("/")[2]]
    return None


def _reach(main: Library, shipped: Mapping[str, Library]) -> list[Library]:
    found: dict[str, Library] = {}
    queue = [main]
    while queue:
        elm = queue.pop(0)
        if elm.id not in found:
            found[elm.id] = elm
            queue += [shipped[include.id] for include in elm.includes.values() if include.id in shipped]
    return list(found.values())


def _unit(program: Program, elm: Library, content: Content, shipped: Mapping[str, Library]) -> Unit:
    includes = {
        alias: _unit(program, shipped[include.id], content, shipped)
        for alias, include in elm.includes.items()
        if include.id in shipped
    }
    value_sets = {}
    for name, item in elm.value_sets.items():
        url = item["id"].partition("|")[0]
        codes = checks.resolve(content, url)
        # A missing set that the caller accepted is empty; the acceptance is in the result.
        value_sets[name] = ValueSet(
            url, name, codes.pairs if codes is not None and codes.pairs is not None else frozenset()
        )
    key = (
        elm.id,
        elm.version,
        elm.sha256,
        tuple(sorted((alias, unit.key) for alias, unit in includes.items())),
        tuple(sorted((name, hash(value_set.pairs)) for name, value_set in value_sets.items())),
    )
    found = program.units.get(key)
    if found is None:
        found = program.units[key] = Unit(program, elm, includes, value_sets, key)
    return found


def _criteria(unit: Unit, group: Group) -> Criteria:
    defines: dict[str, Define | None] = {}
    for item in group.populations:
        defines.setdefault(item.column, unit.define(item.expression))
    initials = [item for item in group.populations if item.column == INITIAL]
    several = len(initials) > 1
    observations = []
    for at, observation in enumerate(group.observations):
        functions = unit.functions.get(observation.expression)
        call: Function | Define | None = functions[0] if functions else unit.define(observation.expression)
        observations.append((observation, call, _observed(group, observation, at)))
    return Criteria(
        group=group,
        defines=defines,
        initials=tuple((item.id, unit.define(item.expression)) for item in initials) if several else (),
        linked=_linked(group, {item.id for item in initials}) if several else {},
        observations=tuple(observations),
        stratifiers=tuple((item.id, unit.define(item.expression)) for item in group.stratifiers),
    )


def _linked(group: Group, initials: set[str]) -> dict[str, str]:
    """Return the initial population each other one names; what names another population draws from where that does."""
    by_id = {item.id: item for item in group.populations}
    found: dict[str, str] = {}
    for item in group.populations:
        reference, seen = item.reference, {item.id}
        while reference is not None and reference not in initials and reference not in seen:
            seen.add(reference)
            reference = by_id[reference].reference if reference in by_id else None
        if reference in initials and item.column != INITIAL:
            found[item.column] = str(reference)
    return found


def _observed(group: Group, observation: Observation, at: int) -> str:
    """Return the population an observation is made of."""
    reference = (observation.reference or "").partition("|")[0]
    columns = {item.id: item.column for item in group.populations}
    found = columns.get(reference) or reference.replace("-", "_")
    if found in columns.values():
        return found
    if group.scoring != "ratio":
        return "measure_population"
    # CMS871 refers to its populations by GUIDs it does not hold; a ratio observes denominator, then numerator.
    name = observation.expression.lower()
    if "numerator" in name or "denominator" in name:
        return "numerator" if "numerator" in name else "denominator"
    return "denominator" if at == 0 else "numerator"


def _methods(group: Group) -> tuple[tuple[str, str], ...]:
    """Return (id, aggregate method) of a group's observations; of a ratio, what it divides by comes first."""
    observed = {item.id: _observed(group, item, at) for at, item in enumerate(group.observations)}
    found = [(item.id, item.method) for item in group.observations]
    if group.scoring == "ratio":
        found.sort(key=lambda item: observed[item[0]] != "denominator")
    return tuple(found)


def parameters(period: tuple[date, date], offset: timedelta = timedelta(0)) -> dict[str, Any]:
    """Return the run's parameters: the whole days of the period in the evaluation's offset, closed at both ends."""
    first, last = period
    start = t.DateTime((first.year, first.month, first.day, 0, 0, 0, 0), t.MILLISECOND, minutes(offset))
    end = t.DateTime((last.year, last.month, last.day, 23, 59, 59, 999), t.MILLISECOND, minutes(offset))
    return {checks.PERIOD: Interval(start, end, True, True, t.DateTime)}


def new_program(offset: timedelta) -> Program:
    """Return an empty program for one evaluation offset."""
    return Program(Model(offset=minutes(offset)))


def minutes(offset: timedelta) -> int:
    """Return an offset from UTC as CQL's dates bear it."""
    return int(offset.total_seconds() // 60)


def as_instant(value: datetime) -> t.DateTime:
    """Return a clock as CQL sees it."""
    key = (value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond // 1000)
    return t.DateTime(key, t.MILLISECOND, 0)
