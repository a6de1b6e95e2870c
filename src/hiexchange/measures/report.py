"""MeasureReports (FHIR R4) drawn from a run. Every dictionary is valid by ``fhir.resources`` R4B."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hiexchange.measures.result import GroupSummary, Stratum, Summary

POPULATION_SYSTEM = "http://terminology.hl7.org/CodeSystem/measure-population"
IMPROVEMENT_SYSTEM = "http://terminology.hl7.org/CodeSystem/measure-improvement-notation"
ACCEPTED = "https://hiexchange.example/fhir/StructureDefinition/accepted-defect"
CODES = {
    "initial_population": "initial-population",
    "denominator": "denominator",
    "denominator_exclusion": "denominator-exclusion",
    "denominator_exception": "denominator-exception",
    "numerator": "numerator",
    "numerator_exclusion": "numerator-exclusion",
    "measure_population": "measure-population",
    "measure_population_exclusion": "measure-population-exclusion",
}


def summary_report(summary: Summary, *, generated_at: datetime | None = None) -> dict[str, Any]:
    """Return the summary MeasureReport of a run.

    The id is a hash of measure, version, period and counts, so the same result has the same id.
    ``date`` appears only when ``generated_at`` (timezone-aware) is given: clocks are arguments.
    """
    info = summary.measure
    body: dict[str, Any] = {
        "resourceType": "MeasureReport",
        "id": _identifier(summary),
        "status": "complete",
        "type": "summary",
        "measure": f"{info.url}|{info.version}",
        "period": {"start": summary.period[0].isoformat(), "end": summary.period[1].isoformat()},
    }
    if generated_at is not None:
        body["date"] = generated_at.astimezone(UTC).isoformat(timespec="seconds")
    if summary.accepted:
        # What the caller accepted of the bundle's defects travels with every figure drawn from it.
        body["extension"] = [{"url": ACCEPTED, "valueString": item} for item in summary.accepted]
    body["improvementNotation"] = {
        "coding": [
            {"system": IMPROVEMENT_SYSTEM, "code": summary.groups[0].improvement if summary.groups else "increase"}
        ]
    }
    body["group"] = [_group(group, summary) for group in summary.groups]
    return body


def _group(group: GroupSummary, summary: Summary) -> dict[str, Any]:
    populations = []
    for column, count in group.counts.items():
        if column == "initial_population" and group.initials:
            populations += [population(name, column, found) for name, found in group.initials.items()]
        else:
            name = summary.measure.population_ids.get((group.group, column))
            populations.append(population(name, column, count))
    body: dict[str, Any] = {"id": group.group, "population": populations}
    score = score_of(group)
    if score is not None:
        # Six decimals are more than any population supports, and end the binary tail of a float.
        body["measureScore"] = {"value": round(score, 6)}
    if group.strata:
        ids = {column: summary.measure.population_ids.get((group.group, column)) for column in group.counts}
        body["stratifier"] = _stratifiers(group.strata, ids)
    return body


def population(name: str | None, column: str, count: int) -> dict[str, Any]:
    """Return a population of a MeasureReport."""
    entry: dict[str, Any] = {"id": name} if name else {}
    return {**entry, "code": {"coding": [{"system": POPULATION_SYSTEM, "code": CODES[column]}]}, "count": count}


def score_of(group: GroupSummary) -> float | None:
    """Return a group's score: its rate, or an aggregated observation."""
    if group.scoring == "continuous-variable":
        return next(iter(group.observations.values()), None)
    return group.rate


def _stratifiers(strata: tuple[Stratum, ...], ids: Mapping[str, str | None]) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for stratum in strata:
        entry: dict[str, Any] = {"value": {"text": stratum.value}}
        entry["population"] = [population(ids[column], column, count) for column, count in stratum.counts.items()]
        if stratum.rate is not None:
            entry["measureScore"] = {"value": round(stratum.rate, 6)}
        found.setdefault(stratum.stratifier, []).append(entry)
    return [{"id": name, "stratum": entries} for name, entries in found.items()]


def _identifier(summary: Summary) -> str:
    parts = [summary.measure.url, summary.measure.version, *(day.isoformat() for day in summary.period)]
    parts += [f"{group.group}:{sorted(group.counts.items())}" for group in summary.groups]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
