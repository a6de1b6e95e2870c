"""FHIR Encounter rows (the view ``encounter``) to events.

A resource is a state, not a message: a finished inpatient stay stands for an admission and a
discharge, an emergency visit for a registration and a discharge, an ambulatory visit for its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from hiexchange._files import sha256_text
from hiexchange.encounters.codes import EMERGENCY, INPATIENT
from hiexchange.encounters.history import said_of
from hiexchange.encounters.rows import Intake, Row, event_key, events_table, issue, issues_table, material_hash
from hiexchange.encounters.times import Moment, Zones, parse_fhir

UNKNOWN_FACILITY = "unknown"
TOLERANCE = timedelta(hours=6)
"""How far ahead of its receipt an event may lie: clocks and zones are off by hours, not by days."""

# FHIR R4 EncounterStatus -> the five of ENCOUNTER_EVENT.
STATUS = {
    "planned": "planned",
    "arrived": "arrived",
    "triaged": "arrived",
    "in-progress": "in-progress",
    "onleave": "in-progress",
    "finished": "finished",
    "cancelled": "cancelled",
    "entered-in-error": "cancelled",
}


def from_view(
    encounters: Any,
    *,
    organizations: Any = None,
    practitioners: Any = None,
    conditions: Any = None,
    received_at: datetime,
    zones: Mapping[str, str] | None = None,
    history: Any = None,
) -> pa.Table:
    """Return ENCOUNTER_EVENT rows of Encounter rows; :func:`read_view` also says what was not taken.

    Args:
        encounters: The view ``encounter``: see ``views/library/encounter.json``.
        organizations: Rows with ``organization_id``, ``name``, ``npi`` for the facilities.
        practitioners: Rows with ``practitioner_id``, ``npi`` for the attending clinicians.
        conditions: Rows with ``condition_id``, ``system``, ``code``, ``display`` for diagnoses, and ``labels``.
        received_at: When the resources were received (aware).
        zones: Facility id -> IANA zone; ``*`` for all others.
        history: ENCOUNTER_EVENT rows of earlier calls (a table, a lake table, or paths of Parquet files): what
            they hold unchanged is not repeated, what changed since becomes the next version.

    Raises:
        SchemaMismatch: A needed column of the view is absent.
    """
    return read_view(
        encounters,
        organizations=organizations,
        practitioners=practitioners,
        conditions=conditions,
        received_at=received_at,
        zones=zones,
        history=history,
    ).events


def read_view(
    encounters: Any,
    *,
    organizations: Any = None,
    practitioners: Any = None,
    conditions: Any = None,
    received_at: datetime,
    zones: Mapping[str, str] | None = None,
    history: Any = None,
) -> Intake:
    """Return the events of Encounter rows with the account of them; arguments as :func:`from_view`."""
    names = _lookup(organizations, ("organization_id", "id"))
    clinicians = _lookup(practitioners, ("practitioner_id", "id"))
    diagnoses = _lookup(conditions, ("condition_id", "id"))
    sources = _table(encounters).to_pylist()
    known = _Known(said_of(history, {source["encounter_id"] for source in sources}))
    zone_of = Zones(zones)
    events: list[Row] = []
    issues: list[Row] = []
    quarantined = duplicates = 0
    for source in sources:
        base = _base(source, names, clinicians, diagnoses, received_at)
        zone = zone_of.of(base["facility_id"])
        start, end = parse_fhir(source.get("period_start"), zone), parse_fhir(source.get("period_end"), zone)
        base["period_start_at"], base["period_end_at"] = start and start.at, end and end.at
        for trigger, moment, status in _triggers(base, start, end):
            if moment is None:
                quarantined += 1
                issues.append(issue("no_time", "the encounter has no usable period", base, column="period"))
                continue
            if moment.at > received_at + TOLERANCE and status != "planned":
                quarantined += 1
                issues.append(issue("future_time", "the event lies in the future", base, column="period"))
                continue
            row = _event(base, trigger, moment, status)
            if not known.unchanged(row):
                events.append(known.versioned(row))
            elif not known.labelled(row):
                # No news, but on record: what was told before under fewer labels is held by it where it still waits.
                events.append(known.versioned(row | {"material": False, "swallowed_reason": "unchanged"}))
            else:
                duplicates += 1
    return Intake(
        events=events_table(events),
        issues=issues_table(issues),
        read=len(events) + quarantined + duplicates,
        quarantined=quarantined,
        duplicates=duplicates,
    )


def _base(
    source: Mapping[str, Any],
    organizations: Mapping[str, Mapping[str, Any]],
    practitioners: Mapping[str, Mapping[str, Any]],
    conditions: Mapping[str, Mapping[str, Any]],
    received_at: datetime,
) -> Row:
    facility = bare_id(source.get("service_provider_id"))
    organization = organizations.get(facility or "", {})
    attending = bare_id(source.get("attending_practitioner_id"))
    attending_npi = (practitioners.get(attending or "") or {}).get("npi") or npi_of(
        source.get("attending_practitioner_id")
    )
    codes = [conditions.get(bare_id(item) or "") for item in source.get("diagnosis_condition_ids") or ()]
    status = STATUS.get(source.get("status") or "")
    flags = [] if status else ["unknown_status"]
    if facility is None:
        flags.append("unknown_facility")
    raw = [str(source.get(name) or "") for name in ("encounter_id", "status", "class", "period_start", "period_end")]
    return {
        "facility_id": facility or UNKNOWN_FACILITY,
        "facility_name": organization.get("name") or source.get("service_provider_display"),
        "facility_npi": organization.get("npi") or npi_of(source.get("service_provider_id")),
        "visit_number": source["encounter_id"],
        "received_at": received_at,
        "person_id": bare_id(source.get("patient_id")),
        "patient_id_sent": bare_id(source.get("patient_id")),
        "encounter_id": source["encounter_id"],
        "class": source.get("class"),
        "status": status or ("finished" if source.get("period_end") else "in-progress"),
        "admit_source": source.get("admit_source"),
        "discharge_disposition": source.get("discharge_disposition"),
        "attending_npi": attending_npi,
        "diagnoses": [
            {"system": code.get("system"), "code": code.get("code"), "display": code.get("display")}
            for code in codes
            if code and code.get("code")
        ],
        # A label on one diagnosis speaks of the event that carries it.
        "labels": sorted({*(source.get("labels") or ()), *(label for code in codes if code for label in _said(code))}),
        "flags": flags,
        "source": "fhir",
        "source_file": source.get("source_file"),
        "source_line": source.get("source_line"),
        "message_sha": sha256_text(*raw, str(source.get("last_updated") or "")),
    }


def _said(condition: Mapping[str, Any]) -> Iterable[str]:
    return condition.get("labels") or ()


def _triggers(
    base: Mapping[str, Any], start: Moment | None, end: Moment | None
) -> Iterator[tuple[str, Moment | None, str]]:
    """Yield (trigger, moment, status after it) for the events that a resource's state stands for."""
    status, class_ = base["status"], base["class"]
    if status == "cancelled":
        yield "cancel_admit", start or end, status
    elif status == "planned":
        yield "preadmit", start or end, status
    elif class_ in INPATIENT or class_ in EMERGENCY:
        yield ("admit" if class_ in INPATIENT else "register"), start or end, "in-progress"
        if status == "finished":
            yield "discharge", end or start, status
    elif status == "finished":
        yield "discharge", end or start, status
    else:
        yield "register", start or end, status


def _event(base: Row, trigger: str, moment: Moment, status: str) -> Row:
    row = {
        **base,
        "trigger": trigger,
        "status": status,
        "event_at": moment.at,
        "event_time_text": moment.text,
        "event_on": moment.on,
        "flags": [*base["flags"], *moment.flags],
        "material": True,
    }
    if trigger in ("admit", "register"):
        # What is only known at the end is no part of the admission.
        row |= {"discharge_disposition": None, "period_end_at": None} if status == "in-progress" else {}
    row["material_hash"] = material_hash(row)
    return row


class _Known:
    """What earlier calls already said about each visit."""

    def __init__(self, said: Iterable[Mapping[str, Any]]) -> None:
        self._hashes: dict[tuple[str, str, str], list[str]] = {}
        self._keys: dict[tuple[str, str, str], str] = {}
        self._labels: dict[tuple[str, str, str], set[str]] = {}
        for row in said:
            self._note(row)

    def _note(self, row: Mapping[str, Any]) -> None:
        key = (row["facility_id"], row["visit_number"], row["trigger"])
        self._hashes.setdefault(key, []).append(row["material_hash"])
        if row["material"]:
            self._keys[key] = row["event_key"]
        self._labels.setdefault(key, set()).update(row["labels"] or ())

    def unchanged(self, row: Row) -> bool:
        key = (row["facility_id"], row["visit_number"], row["trigger"])
        return bool(self._hashes.get(key, [""])[-1] == row["material_hash"])

    def labelled(self, row: Row) -> bool:
        """Say whether all labels of a row are on record."""
        key = (row["facility_id"], row["visit_number"], row["trigger"])
        return self._labels.get(key, set()).issuperset(row["labels"])

    def versioned(self, row: Row) -> Row:
        place = (row["facility_id"], row["visit_number"])
        key = (*place, row["trigger"])
        row["version"] = len(self._hashes.get(key, ())) + 1
        row["event_key"] = event_key(*key, row["version"])
        row["corrects"] = self._keys.get(key) if row["material"] else None
        if row["trigger"] == "cancel_admit" and row["material"]:
            row["corrects"] = self._keys.get((*place, "admit")) or self._keys.get((*place, "register"))
            if row["corrects"] is None:
                # Nobody was told of a visit that we first see as cancelled.
                row |= {"material": False, "swallowed_reason": "cancelled_before_send"}
        self._note(row)
        return row


def bare_id(reference: str | None) -> str | None:
    """Return the id of a reference: of ``Type/id``, ``urn:uuid:id``, ``Type?identifier=system|value`` or ``id``."""
    if not reference:
        return None
    return reference.rpartition("|" if "|" in reference else "/")[2].removeprefix("urn:uuid:") or None


def npi_of(reference: str | None) -> str | None:
    """Return the NPI of a conditional reference (``Practitioner?identifier=…us-npi|1999999984``), if it is one."""
    if reference and "us-npi|" in reference:
        return reference.rpartition("|")[2] or None
    return None


def _lookup(data: Any, keys: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    if data is None:
        return {}
    table = _table(data)
    key = next((name for name in keys if name in table.column_names), keys[0])
    return {str(row[key]): row for row in table.to_pylist() if row.get(key) is not None}


def _table(data: Any) -> pa.Table:
    return data if isinstance(data, pa.Table) else pa.table(data)
