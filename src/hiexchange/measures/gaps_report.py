"""A subject's gaps in care as a FHIR document: Composition, one DetectedIssue a gap, and the MeasureReport it rests on.

Source: Da Vinci DEQM 4.0, Gaps in Care Reporting: profiles gaps-bundle-deqm, gaps-composition-deqm,
gaps-detectedissue-deqm, and the extension gapStatus.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from typing import Any

import pyarrow.compute as pc

from hiexchange.measures.gaps import reason, state
from hiexchange.measures.reports import individual_report
from hiexchange.measures.result import MeasureRun

DEQM = "http://hl7.org/fhir/us/davinci-deqm/"
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
BASE = "https://hiexchange.example/fhir/"
REASONS = f"{BASE}CodeSystem/gap-reason"
IDENTIFIER = f"{BASE}gaps-in-care"
STATUS = {"open": "open-gap", "closed": "closed-gap", "prospective": "prospective-gap"}


def gaps_document(
    run: MeasureRun, subject: str, *, reporter: str, generated_at: datetime, as_of: date | None = None
) -> dict[str, Any]:
    """Return the gaps-in-care document of one subject.

    A subject outside the denominator, excluded or excepted gets a document without issues: nothing is asked of them.

    Args:
        run: An evaluated measure.
        subject: Patient.id.
        reporter: Reference to the organisation that reports (``Organization/hie``).
        generated_at: The document's date, timezone-aware.
        as_of: The day of asking; before the period's end an unmet gap is prospective.

    Raises:
        MeasureError: The run has no rows of that subject, or its evaluation failed.
    """
    report = individual_report(run, subject)
    report["meta"] = {"profile": [f"{DEQM}StructureDefinition/indv-measurereport-deqm"]}
    moment = generated_at.astimezone(UTC).isoformat(timespec="seconds")
    report |= {"date": moment, "reporter": {"reference": reporter}}
    rows = run.table.filter(pc.equal(run.table["subject"], subject)).to_pylist()
    issues = [_issue(run, row, report["id"], gap) for row in rows if (gap := _state(run, row, as_of)) is not None]
    composition = _composition(run, report, issues, moment)
    name = _id("bundle", report["id"], moment)
    return {
        "resourceType": "Bundle",
        "id": name,
        "meta": {"profile": [f"{DEQM}StructureDefinition/gaps-bundle-deqm"]},
        "identifier": {"system": IDENTIFIER, "value": name},
        "type": "document",
        "timestamp": moment,
        "entry": [
            {"fullUrl": f"{BASE}{item['resourceType']}/{item['id']}", "resource": item}
            for item in (composition, report, *issues)
        ],
    }


def _state(run: MeasureRun, row: dict[str, Any], as_of: date | None) -> str | None:
    return state(row, run.measure.improvement.get(row["group"], "increase"), as_of)


def _issue(run: MeasureRun, row: dict[str, Any], report: str, gap: str) -> dict[str, Any]:
    code, define = reason(row)
    coding = {"system": f"{DEQM}CodeSystem/gaps-status", "code": STATUS[gap]}
    body: dict[str, Any] = {
        "resourceType": "DetectedIssue",
        "id": _id("issue", report, row["group"], row["episode"] or ""),
        "meta": {"profile": [f"{DEQM}StructureDefinition/gaps-detectedissue-deqm"]},
        "modifierExtension": [
            {"url": f"{DEQM}StructureDefinition/extension-gapStatus", "valueCodeableConcept": {"coding": [coding]}}
        ],
        "status": "final",
        "code": {"coding": [{"system": ACT, "code": "CAREGAP"}], "text": f"{run.measure.title}, {row['group']}"},
        "patient": {"reference": f"Patient/{row['subject']}"},
        "evidence": [{"detail": [{"reference": f"MeasureReport/{report}"}]}],
    }
    if gap != "closed" and code is not None:
        body["evidence"][0]["code"] = [{"coding": [{"system": REASONS, "code": code}], "text": define or code}]
    if row["episode"] is not None:
        body["implicated"] = [{"reference": row["episode"]}]
    return body


def _composition(run: MeasureRun, report: dict[str, Any], issues: list[dict[str, Any]], moment: str) -> dict[str, Any]:
    section: dict[str, Any] = {"title": run.measure.title, "focus": {"reference": f"MeasureReport/{report['id']}"}}
    if issues:
        section["entry"] = [{"reference": f"DetectedIssue/{issue['id']}"} for issue in issues]
    else:
        empty = {"system": "http://terminology.hl7.org/CodeSystem/list-empty-reason", "code": "nilknown"}
        section["emptyReason"] = {"coding": [empty]}
    return {
        "resourceType": "Composition",
        "id": _id("composition", report["id"], moment),
        "meta": {"profile": [f"{DEQM}StructureDefinition/gaps-composition-deqm"]},
        "status": "final",
        "type": {"coding": [{"system": "http://loinc.org", "code": "96315-7", "display": "Gaps in care report"}]},
        "subject": report["subject"],
        "date": moment,
        "author": [report["reporter"]],
        "title": f"Gaps in care: {run.measure.title}",
        "section": [section],
    }


def _id(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
