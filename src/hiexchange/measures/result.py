"""What an evaluation gives back: MEASURE_RESULT rows, and the counts and rates drawn from them."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

POPULATIONS = (
    "initial_population",
    "denominator",
    "denominator_exclusion",
    "denominator_exception",
    "numerator",
    "numerator_exclusion",
    "measure_population",
    "measure_population_exclusion",
)
"""Population columns of MEASURE_RESULT; the FHIR code is the same with hyphens."""

Z_95 = 1.959963984540054


def wilson(hits: int, total: int, *, z: float = Z_95) -> tuple[float, float] | None:
    """Return the Wilson score interval of ``hits`` out of ``total``, or None when ``total`` is 0.

    Source:
        Wilson, JASA 22 (1927), 209-212; the default ``z`` gives 95 %.
    """
    if total <= 0:
        return None
    share = hits / total
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    centre = share + z * z / (2 * total)
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@dataclass(frozen=True)
class MeasureInfo:
    """What a run has to say about the measure it evaluated."""

    id: str
    """Short id, as in the ``measure`` column."""
    version: str
    """Version of the definition."""
    title: str
    """Name for people."""
    url: str
    """Canonical URL, without version."""
    scoring: Mapping[str, str] = field(default_factory=dict)
    """Group id to proportion, ratio, continuous-variable or cohort."""
    improvement: Mapping[str, str] = field(default_factory=dict)
    """Group id to increase or decrease."""
    copyright: str = ""
    """Licence text of the measure's owner, carried into every output."""
    population_ids: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(group, population column) to the id the measure gives that population."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Group id to the population columns the group has; empty: whichever are filled."""
    observations: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """Group id to its (observation id, aggregate method); of a ratio, the denominator's first."""
    applies_to: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """(group, stratifier) to the population columns it cuts, where it does not cut all."""
    initials: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Group id to the ids of its initial populations, where it has several."""


@dataclass(frozen=True)
class Stratum:
    """One stratum of one stratifier."""

    stratifier: str
    """Stratifier id."""
    value: str
    """true, false, or the value that makes the stratum."""
    counts: Mapping[str, int]
    """Population column to membership count."""
    rate: float | None
    """By the same rule as the group's."""


@dataclass(frozen=True)
class GroupSummary:
    """Counts and score of one population group."""

    group: str
    """Group id of the measure."""
    basis: str
    """boolean, or the resource type that is counted."""
    scoring: str
    """proportion, ratio, continuous-variable or cohort."""
    improvement: str
    """increase or decrease: which way is better."""
    subjects: int
    """Subjects looked at, errors included."""
    errors: int
    """Subjects whose evaluation failed; they are in no count."""
    counts: Mapping[str, int]
    """Population column to membership count; only populations the group has."""
    rate: float | None
    """Numerator over the denominator left after exclusions and exceptions; None when that is empty.

    Of a ratio that has observations, the numerator's over the denominator's.
    """
    low: float | None
    """Lower end of the 95 % Wilson interval of the rate."""
    high: float | None
    """Upper end of it."""
    strata: tuple[Stratum, ...] = ()
    """Strata of the measure's own stratifiers, those of zero included."""
    observations: Mapping[str, float] = field(default_factory=dict)
    """Observation id to the aggregated value, by the measure's method."""
    initials: Mapping[str, int] = field(default_factory=dict)
    """Id of each initial population to its count, where the group has several."""

    @property
    def eligible(self) -> int:
        """Denominator less exclusions and exceptions: what the rate divides by."""
        return (
            self.counts.get("denominator", 0)
            - self.counts.get("denominator_exclusion", 0)
            - self.counts.get("denominator_exception", 0)
        )

    @property
    def hits(self) -> int:
        """Numerator less numerator exclusions."""
        return self.counts.get("numerator", 0) - self.counts.get("numerator_exclusion", 0)


@dataclass(frozen=True)
class Summary:
    """Counts and rates of a run, one entry a group; the shortcuts below speak of the first group."""

    measure: MeasureInfo
    """What was measured."""
    period: tuple[date, date]
    """First and last day, inclusive."""
    groups: tuple[GroupSummary, ...]
    """In the order of the measure."""
    accepted: tuple[str, ...] = ()
    """Defects of the bundle that the caller accepted."""

    @property
    def first(self) -> GroupSummary:
        """The first group."""
        return self.groups[0]

    @property
    def counts(self) -> Mapping[str, int]:
        """Counts of the first group."""
        return self.first.counts

    @property
    def rate(self) -> float | None:
        """Rate of the first group."""
        return self.first.rate

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson interval of the first group."""
        return None if self.first.low is None or self.first.high is None else (self.first.low, self.first.high)

    def to_fhir(self, *, generated_at: datetime | None = None) -> dict[str, Any]:
        """Return the summary MeasureReport (R4) as a dictionary; see :mod:`hiexchange.measures.report`."""
        from hiexchange.measures import report

        return report.summary_report(self, generated_at=generated_at)

    def __str__(self) -> str:
        return f"{self.measure.title}: " + "; ".join(_group_line(group) for group in self.groups)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("group", *POPULATIONS, "errors", "rate", "95 %"))
        rows = "".join(_group_row(group) for group in self.groups)
        title = html.escape(f"{self.measure.title} {self.measure.version}")
        span = f"{self.period[0]} to {self.period[1]}"
        return f"<table><caption>{title}, {span}</caption><tr>{head}</tr>{rows}</table>"


@dataclass(frozen=True)
class MeasureRun:
    """The result of one measure over one population and period."""

    table: pa.Table
    """MEASURE_RESULT rows: one a subject and group, or one an episode for a resource basis."""
    measure: MeasureInfo
    """What was measured."""
    period: tuple[date, date]
    """First and last day, inclusive."""
    run_id: str
    """The caller's name for the evaluation."""
    accepted: tuple[str, ...] = ()
    """Defects of the bundle that the caller accepted; printed in every report."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What the evaluation was told: offset, profile policy."""
    source: Any = field(default=None, repr=False, compare=False)
    """Where the patients came from, where it can be read again: :meth:`by` needs it."""

    def summary(self) -> Summary:
        """Return counts, rates and intervals per group."""
        order = list(self.measure.scoring) or _distinct(self.table["group"])
        groups = tuple(summarise_group(self.table, group, self.measure) for group in order)
        return Summary(self.measure, self.period, groups, self.accepted)

    def by(
        self,
        *keys: str,
        source: Any = None,
        min_cell: int = 11,
        attribution: pa.Table | None = None,
        links: pa.Table | None = None,
    ) -> pa.Table:
        """Return rates by one or several of race, ethnicity, language, sex, payer, provider.

        Args:
            keys: What to cut by; several give each combination.
            source: Where demographics are read; default: the source of the evaluation.
            min_cell: Counts above zero and under it are suppressed, with one more cell of the group where
                a single one could be worked out from the total.
            attribution: ATTRIBUTION rows, for ``provider``.
            links: PERSON_LINK rows, for ``provider``.

        Returns:
            One row a group and stratum: subjects, eligible, hits, rate, Wilson low and high, suppressed.

        Raises:
            ConfigError: A key is not known, or what it needs was not given.
        """
        from hiexchange.measures import by

        found = by.people(
            self.source if source is None else source, keys, self.period, attribution=attribution, links=links
        )
        return by.table(self.table, self.measure, keys, found, min_cell)

    def gaps(
        self, *, as_of: date | None = None, attribution: pa.Table | None = None, links: pa.Table | None = None
    ) -> pa.Table:
        """Return who is in the denominator without the numerator, with reason and attributed provider.

        For measures where a lower rate is better, the gap is a numerator that was met. Excluded and
        excepted subjects, and those outside the denominator, have no gap.

        Args:
            as_of: The day of asking; before the period's end a gap is ``prospective``, else ``open``.
            attribution: ATTRIBUTION rows, to name the provider.
            links: PERSON_LINK rows, to name the provider.
        """
        from hiexchange.measures import by, gaps

        known = (
            by.providers(attribution, links, self.period[1]) if attribution is not None and links is not None else {}
        )
        return gaps.table(self.table, dict(self.measure.improvement), as_of=as_of, providers=known)

    def gaps_document(
        self, subject: str, *, reporter: str, generated_at: datetime, as_of: date | None = None
    ) -> dict[str, Any]:
        """Return a subject's gaps-in-care document (DEQM): open, prospective and closed gaps with their reasons.

        Args:
            subject: Patient.id.
            reporter: Reference to the organisation that reports.
            generated_at: The document's date, timezone-aware.
            as_of: The day of asking; before the period's end an unmet gap is prospective.
        """
        from hiexchange.measures.gaps_report import gaps_document

        return gaps_document(self, subject, reporter=reporter, generated_at=generated_at, as_of=as_of)

    def individual(self, subject: str, *, supplemental: pa.Table | None = None) -> dict[str, Any]:
        """Return the individual MeasureReport (R4) of a subject as a dictionary.

        ``supplemental`` is what :meth:`Measure.supplemental` gives for this run.
        """
        from hiexchange.measures import reports

        return reports.individual_report(self, subject, supplemental=supplemental)

    def subject_list(self) -> dict[str, Any]:
        """Return the subject-list MeasureReport (R4): a contained List for each population."""
        from hiexchange.measures import reports

        return reports.subject_list_report(self)

    def to_fhir(self, *, generated_at: datetime | None = None, supplemental: pa.Table | None = None) -> dict[str, Any]:
        """Return the summary MeasureReport (R4) as a dictionary.

        ``supplemental`` is what :meth:`Measure.supplemental` gives for this run: each coded value is counted.
        """
        from hiexchange.measures import reports

        found = self.summary().to_fhir(generated_at=generated_at)
        return found if supplemental is None else reports.with_supplemental(found, supplemental)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def summarise_group(table: pa.Table, group: str, info: MeasureInfo) -> GroupSummary:
    """Count one group's populations over ``table`` and score them.

    Rows with status ``error`` are counted as errors and in nothing else.
    """
    rows = _where(table.select(_COUNTED), pc.equal(table["group"], group))
    failed = rows.filter(pc.equal(rows["status"], "error"))
    good = _where(rows, pc.equal(rows["status"], "ok"))
    counts = {name: int(pc.sum(good[name]).as_py()) for name in POPULATIONS if good[name].null_count < len(good)}
    scoring = info.scoring.get(group, "proportion")
    if not counts and scoring == "proportion":
        counts = {"initial_population": 0, "denominator": 0, "numerator": 0}
    plain = GroupSummary(
        group=group,
        basis=(_distinct(rows["basis"]) or ["boolean"])[0],
        scoring=scoring,
        improvement=info.improvement.get(group, "increase"),
        subjects=pc.count_distinct(rows["subject"]).as_py(),
        errors=pc.count_distinct(failed["subject"]).as_py(),
        counts=counts,
        rate=None,
        low=None,
        high=None,
        strata=_strata(good, counts, info, group),
        observations=_observations(good, info.observations.get(group, ())),
        initials=_initials(good, info.initials.get(group, ())),
    )
    return scored(plain, info)


_COUNTED = ["subject", "group", "basis", "status", *POPULATIONS, "strata", "observations", "initial_populations"]


def _where(rows: pa.Table, mask: pa.ChunkedArray) -> pa.Table:
    """Filter, without a copy where all rows are kept: a large run's rows lie in a mapped file."""
    return rows if pc.all(mask).as_py() else rows.filter(mask)


def _initials(rows: pa.Table, names: tuple[str, ...]) -> dict[str, int]:
    if not names:
        return {}
    found = pc.list_flatten(rows["initial_populations"]).to_pylist()
    return {name: found.count(name) for name in names}


def _strata(rows: pa.Table, whole: Mapping[str, int], info: MeasureInfo, group: str) -> tuple[Stratum, ...]:
    # A ratio of observations has no rate of counts.
    scoring = info.scoring.get(group, "proportion")
    counted = scoring == "proportion" or (scoring == "ratio" and not info.observations.get(group))
    cells: dict[str, dict[str, int]] = {}
    for row in rows.select(["strata", *whole]).to_pylist() if rows["strata"].null_count < len(rows) else []:
        for label in row["strata"] or ():
            cell = cells.setdefault(label, dict.fromkeys(whole, 0))
            for name in whole:
                cell[name] += row[name] or 0
    found = []
    for label, every in sorted(cells.items()):
        name, _, value = label.partition(" = ")
        cut = info.applies_to.get((group, name), tuple(every))
        counts = {column: count for column, count in every.items() if column in cut}
        left = (
            counts.get("denominator", 0)
            - counts.get("denominator_exclusion", 0)
            - counts.get("denominator_exception", 0)
        )
        hits = counts.get("numerator", 0) - counts.get("numerator_exclusion", 0)
        found.append(
            Stratum(
                name,
                value,
                counts,
                hits / left if left > 0 and "numerator" in counts and counted else None,
            )
        )
    return tuple(found)


def _observations(rows: pa.Table, methods: tuple[tuple[str, str], ...]) -> dict[str, float]:
    if not methods or rows["observations"].null_count == len(rows):
        return {}
    values: dict[str, list[float]] = {}
    for observed in rows["observations"].to_pylist():
        for item in observed or ():
            if item["value"] is not None:
                values.setdefault(item["id"], []).append(item["value"])
    return aggregated(values, methods)


def aggregated(values: Mapping[str, list[float]], methods: tuple[tuple[str, str], ...]) -> dict[str, float]:
    """Return each observation's values by the measure's method; nothing of one that was never made."""
    return {name: METHODS.get(method.lower(), sum)(values[name]) for name, method in methods if values.get(name)}


def _median(values: list[float]) -> float:
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


METHODS: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "count": len,
    "average": lambda values: sum(values) / len(values),
    "min": min,
    "minimum": min,
    "max": max,
    "maximum": max,
    "median": _median,
}
"""``cqfm-aggregateMethod`` over the observed values."""


def scored(group: GroupSummary, info: MeasureInfo) -> GroupSummary:
    """Return ``group`` with rate and interval, where its scoring has one (proportion, ratio)."""
    observed = [name for name, _ in info.observations.get(group.group, ())]
    if group.scoring == "ratio" and len(observed) == 2:
        below = group.observations.get(observed[0])
        return replace(group, rate=group.observations.get(observed[1], 0.0) / below if below else None)
    if group.scoring not in ("proportion", "ratio") or group.eligible <= 0:
        return group
    rate = group.hits / group.eligible
    # A ratio's numerator need not lie within its denominator: no binomial interval then.
    interval = wilson(group.hits, group.eligible) if group.scoring == "proportion" else None
    low, high = interval or (None, None)
    return replace(group, rate=rate, low=low, high=high)


def _distinct(column: pa.ChunkedArray) -> list[Any]:
    values: Iterable[Any] = pc.unique(column).to_pylist()
    return [value for value in values if value is not None]


def percent(value: float | None) -> str:
    """Return a rate as people read it, or a dash."""
    return "-" if value is None else f"{100 * value:.1f} %"


def _group_line(group: GroupSummary) -> str:
    if group.rate is None or group.observations:
        score = "" if group.rate is None else f", ratio of observations {group.rate:.4g}"
        return f"{group.group} " + ", ".join(f"{name} {count:,}" for name, count in group.counts.items()) + score
    line = f"{group.hits:,}/{group.eligible:,} = {percent(group.rate)}"
    return line if group.low is None or group.high is None else f"{line} ({100 * group.low:.1f}-{100 * group.high:.1f})"


def _group_row(group: GroupSummary) -> str:
    interval = "-" if group.low is None or group.high is None else f"{100 * group.low:.1f}-{100 * group.high:.1f}"
    counts = [f"{group.counts[name]:,}" if name in group.counts else "" for name in POPULATIONS]
    cells = (html.escape(group.group), *counts, f"{group.errors:,}", percent(group.rate), interval)
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
