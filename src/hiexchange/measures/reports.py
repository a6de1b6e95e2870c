"""Individual and subject-list MeasureReports (FHIR R4), which name patients; supplemental data in any of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import MeasureError
from hiexchange.measures.report import CODES, IMPROVEMENT_SYSTEM, population
from hiexchange.measures.result import MeasureRun

USAGE = "http://terminology.hl7.org/CodeSystem/measure-data-usage"
REFERENCE = "http://hl7.org/fhir/us/cqfmeasures/StructureDefinition/cqfm-criteriaReference"


def individual_report(run: MeasureRun, subject: str, *, supplemental: pa.Table | None = None) -> dict[str, Any]:
    """Return one subject's MeasureReport, with the resources its retrieves found as evaluatedResource.

    ``supplemental`` are rows of :meth:`Measure.supplemental`; the subject's become contained Observations.

    Raises:
        MeasureError: The run has no rows of that subject, or its evaluation failed.
    """
    rows = run.table.filter(pc.equal(run.table["subject"], subject)).to_pylist()
    if not rows:
        raise MeasureError("the run holds nothing of this subject", hint="subjects are named by Patient.id")
    failed = next((row for row in rows if row["status"] == "error"), None)
    if failed is not None:
        raise MeasureError(
            "the subject's evaluation failed: there is nothing true to report", where=failed["error_define"]
        )
    body = _head(run, "individual", subject)
    body["subject"] = {"reference": f"Patient/{subject}"}
    body["group"] = [_individual_group(run, name, rows) for name in _groups(run, rows)]
    evidence = {(item["type"], item["id"]) for row in rows for item in row["evidence"] or () if item["id"]}
    if evidence:
        body["evaluatedResource"] = [{"reference": f"{kind}/{name}"} for kind, name in sorted(evidence)]
    return body if supplemental is None else _with_individual(body, supplemental, subject)


def subject_list_report(run: MeasureRun) -> dict[str, Any]:
    """Return the subject-list MeasureReport: each population refers to a contained List of its patients."""
    body = _head(run, "subject-list", "")
    contained: list[dict[str, Any]] = []
    body["group"] = []
    for group in run.summary().groups:
        rows = run.table.filter(pc.and_(pc.equal(run.table["group"], group.group), pc.equal(run.table["status"], "ok")))
        populations = []
        for column, count in group.counts.items():
            entry = _population(run, group.group, column, count)
            subjects = _members(rows, column)
            if subjects:
                name = f"{group.group}-{column}".replace("_", "-").lower()
                contained.append(_list(name, subjects))
                entry["subjectResults"] = {"reference": f"#{name}"}
            populations.append(entry)
        body["group"].append({"id": group.group, "population": populations})
    if contained:
        body["contained"] = contained
    return body


def _head(run: MeasureRun, kind: str, subject: str) -> dict[str, Any]:
    parts = (run.measure.url, run.measure.version, run.run_id, *(day.isoformat() for day in run.period), kind, subject)
    return {
        "resourceType": "MeasureReport",
        "id": hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32],
        "status": "complete",
        "type": kind,
        "measure": f"{run.measure.url}|{run.measure.version}",
        "period": {"start": run.period[0].isoformat(), "end": run.period[1].isoformat()},
        "improvementNotation": {
            "coding": [
                {"system": IMPROVEMENT_SYSTEM, "code": next(iter(run.measure.improvement.values()), "increase")},
            ]
        },
    }


def _groups(run: MeasureRun, rows: list[dict[str, Any]]) -> list[str]:
    return list(run.measure.scoring) or list(dict.fromkeys(row["group"] for row in rows))


def _individual_group(run: MeasureRun, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [row for row in rows if row["group"] == name]
    columns = run.measure.columns.get(name) or [
        column for column in CODES if any(row[column] is not None for row in mine)
    ]
    populations = []
    for column in columns:
        if column == "initial_population" and name in run.measure.initials:
            found = [item for row in mine for item in row["initial_populations"] or ()]
            populations += [population(item, column, found.count(item)) for item in run.measure.initials[name]]
        else:
            populations.append(_population(run, name, column, sum(row[column] or 0 for row in mine)))
    body: dict[str, Any] = {"id": name, "population": populations}
    labels = sorted({label for row in mine for label in row["strata"] or ()})
    stratifiers: dict[str, list[dict[str, Any]]] = {}
    for label in labels:
        stratifier, _, value = label.partition(" = ")
        inside = [row for row in mine if label in (row["strata"] or ())]
        cut = run.measure.applies_to.get((name, stratifier), tuple(columns))
        counts = [
            _population(run, name, column, sum(row[column] or 0 for row in inside))
            for column in columns
            if column in cut
        ]
        stratifiers.setdefault(stratifier, []).append({"value": {"text": value}, "population": counts})
    if stratifiers:
        body["stratifier"] = [{"id": key, "stratum": strata} for key, strata in stratifiers.items()]
    return body


def _population(run: MeasureRun, group: str, column: str, count: int) -> dict[str, Any]:
    return population(run.measure.population_ids.get((group, column)), column, count)


def _members(rows: pa.Table, column: str) -> list[str]:
    inside = rows.filter(pc.greater(rows[column], 0))
    return sorted(set(inside["subject"].to_pylist()))


def _list(name: str, subjects: list[str]) -> dict[str, Any]:
    return {
        "resourceType": "List",
        "id": name,
        "status": "current",
        "mode": "snapshot",
        "entry": [{"item": {"reference": f"Patient/{subject}"}} for subject in subjects],
    }


# Supplemental data ----------------------------------------------------------------------------


def _with_individual(report: dict[str, Any], table: pa.Table, subject: str) -> dict[str, Any]:
    """Add one subject's supplemental data as contained Observations."""
    rows = [row for row in table.filter(pc.equal(table["subject"], subject)).to_pylist() if row["error"] is None]
    return _with(report, [_observation(row, {"code": _usage(row), **_value(row)}) for row in rows])


def with_supplemental(report: dict[str, Any], table: pa.Table) -> dict[str, Any]:
    """Return a summary MeasureReport with a contained Observation for each coded value: how many patients have it.

    Numbers and texts are left out of it: they may be as many as there are patients.
    """
    found = [
        _observation(row, {"code": _value(row)["valueCodeableConcept"], "valueInteger": count})
        for row, count in counted(table)
    ]
    return _with(report, found)


def counted(table: pa.Table) -> list[tuple[dict[str, Any], int]]:
    """Return each coded value of supplemental data, as one of its rows, and how many patients have it."""
    rows = [row for row in table.to_pylist() if row["error"] is None and row["code"] is not None]
    named = {(row["id"], row["system"] or "", row["code"]): row for row in rows}
    patients = {(row["id"], row["system"] or "", row["code"], row["subject"]) for row in rows}
    counts = Counter(item[:3] for item in patients)
    return [(named[key], count) for key, count in sorted(counts.items())]


def _with(report: dict[str, Any], observations: list[dict[str, Any]]) -> dict[str, Any]:
    unique = list({item["id"]: item for item in observations}.values())
    if not unique:
        return report
    references = [{"extension": item["extension"], "reference": f"#{item['id']}"} for item in unique]
    return {
        **report,
        "contained": [*report.get("contained", []), *unique],
        "evaluatedResource": [*report.get("evaluatedResource", []), *references],
    }


def _observation(row: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    parts = [str(row[name]) for name in ("id", "part", "system", "code", "text", "value", "unit")]
    return {
        "resourceType": "Observation",
        "id": hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32],
        "extension": [{"url": REFERENCE, "valueString": row["id"]}],
        "status": "final",
        **body,
    }


def _usage(row: dict[str, Any]) -> dict[str, Any]:
    return {"coding": [{"system": USAGE, "code": row["usage"]}], "text": row["part"] or row["id"]}


def _value(row: dict[str, Any]) -> dict[str, Any]:
    if row["code"] is not None:
        coding = {"system": row["system"], "code": row["code"], "display": row["text"]}
        return {"valueCodeableConcept": {"coding": [{key: value for key, value in coding.items() if value}]}}
    if row["value"] is not None:
        unit = {"unit": row["unit"]} if row["unit"] not in (None, "1") else {}
        return {"valueQuantity": {"value": row["value"], **unit}}
    return {"valueString": row["text"]}
