"""What every source of events shares: keys, the material hash, and rows on their way to a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from hiexchange._files import sha256_text
from hiexchange.encounters.people import Merge
from hiexchange.tables import ENCOUNTER_EVENT, ISSUE

Row = dict[str, Any]
"""One ENCOUNTER_EVENT row under construction."""


@dataclass(frozen=True, slots=True)
class Intake:
    """What came of a set of messages or resources: ``read = events + quarantined + duplicates``."""

    events: pa.Table
    """ENCOUNTER_EVENT rows, in order of event_at."""
    issues: pa.Table
    """ISSUE rows: each quarantined message, and doubts about accepted ones (severity warning)."""
    read: int
    """Messages, or events that a resource stands for."""
    quarantined: int
    """Those that could not become an event."""
    duplicates: int
    """Those already known: the same message from the same sender, or the same state of the same visit."""
    merges: tuple[Merge, ...] = ()
    """Identifiers that A40 messages joined."""


def event_key(facility_id: str, visit_number: str, trigger: str, version: int) -> str:
    """Return the key of an event: the same inputs give the same key, for ever."""
    return sha256_text(facility_id, visit_number, trigger, str(version))


def material_hash(row: Mapping[str, Any]) -> str:
    """Return a hash of what a recipient cares about: class, status, facility, disposition, diagnoses, patient."""
    codes = sorted({f"{code['system'] or ''}|{code['code'] or ''}" for code in row.get("diagnoses") or ()})
    return sha256_text(
        row.get("class") or "",
        row["status"],
        row["facility_id"],
        row.get("discharge_disposition") or "",
        row.get("person_id") or row.get("patient_id_sent") or "",
        *codes,
    )


def issue(
    code: str, message: str, row: Mapping[str, Any], *, severity: str = "error", column: str | None = None
) -> Row:
    """Return an ISSUE row about a message; holds where it is, never what it says."""
    return {
        "stage": "encounters",
        "severity": severity,
        "code": code,
        "message": message,
        "file": row.get("source_file"),
        "row_no": row.get("source_line"),
        "column": column,
        "subject_key": row.get("event_key"),
    }


def events_table(rows: Iterable[Row]) -> pa.Table:
    """Return ENCOUNTER_EVENT rows in order of time, ties by receipt and key."""
    ordered = sorted(rows, key=lambda row: (row["event_at"], row["received_at"], row["event_key"]))
    return pa.Table.from_pylist(ordered, schema=ENCOUNTER_EVENT.schema)


def issues_table(rows: Iterable[Row]) -> pa.Table:
    """Return ISSUE rows."""
    return pa.Table.from_pylist(list(rows), schema=ISSUE.schema)
