"""Da Vinci Alerts message Bundles as a source of events.

A notification names its event in ``MessageHeader.eventCoding`` and its Encounter in ``focus``.
Source: HL7/davinci-alerts 1.1, admit-transfer-discharge use case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa

from hiexchange._files import sha256_text
from hiexchange.encounters.adt import AdtSettings, facility_names
from hiexchange.encounters.codes import EMERGENCY
from hiexchange.encounters.fhir import STATUS, UNKNOWN_FACILITY, bare_id
from hiexchange.encounters.history import concerned
from hiexchange.encounters.people import Identities, digits, folded
from hiexchange.encounters.rows import Intake, Row, events_table, issue, issues_table
from hiexchange.encounters.state import settle
from hiexchange.encounters.times import Moment, Zones, parse_fhir

EVENTS = {"notification-admit": "admit", "notification-transfer": "transfer", "notification-discharge": "discharge"}


def from_alerts(
    bundles: Iterable[bytes | Mapping[str, Any]],
    *,
    received_at: datetime,
    persons: Any = None,
    facilities: Any = None,
    zones: Mapping[str, str] | None = None,
    history: Any = None,
) -> pa.Table:
    """Return ENCOUNTER_EVENT rows of notification Bundles; :func:`read_alerts` also says what was not taken."""
    return read_alerts(
        bundles, received_at=received_at, persons=persons, facilities=facilities, zones=zones, history=history
    ).events


def read_alerts(
    bundles: Iterable[bytes | Mapping[str, Any]],
    *,
    received_at: datetime,
    persons: Any = None,
    facilities: Any = None,
    zones: Mapping[str, str] | None = None,
    history: Any = None,
) -> Intake:
    """Return the events of notification Bundles with the account of them.

    Args:
        bundles: Message Bundles, as JSON or as dictionaries, in order of receipt.
        received_at: When they were received (aware).
        persons: PERSON rows: patients are resolved by identifier and checked by birth date.
        facilities: As for :func:`hiexchange.encounters.adt.from_adt`.
        zones: Facility id -> IANA zone, for times without offset.
        history: ENCOUNTER_EVENT rows of earlier calls.
    """
    settings = AdtSettings(Zones(zones), facility_names(facilities), Identities.of(persons))
    candidates: list[Row] = []
    issues: list[Row] = []
    for number, raw in enumerate(bundles, 1):
        where: Row = {"source_file": None, "source_line": number}
        row = _read(raw, where, received_at, settings)
        if "event_at" in row:
            candidates.append(row)
        else:
            issues.append(issue(row["code"], row["message"], where, column=row["column"]))
    known = concerned(history, candidates)
    seen = {_mark(row) for row in known if row["source"] == "alert"}
    rows: list[Row] = []
    for row in candidates:
        if _mark(row) not in seen:
            seen.add(_mark(row))
            settings.identities.resolve(row)
            rows.append(row)
    settled = settle(rows, known)
    for row in settled:
        for name in ("birth", "names", "other_facility"):
            row.pop(name)
    read, duplicates = len(candidates) + len(issues), len(candidates) - len(rows)
    return Intake(events_table(settled), issues_table(issues), read, len(issues), duplicates)


def _mark(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what tells a notification: two senders may give theirs the same id."""
    return (row["sending_facility"], row["message_control_id"])


def _read(raw: bytes | Mapping[str, Any], where: Row, received_at: datetime, settings: AdtSettings) -> Row:
    """Return a candidate row, or code, message and column of what is wrong."""
    try:
        bundle = raw if isinstance(raw, Mapping) else msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _wrong("not_json", "the notification is not JSON", None)
    resources = _resources(bundle)
    header = next((item for item in resources.values() if item.get("resourceType") == "MessageHeader"), None)
    if header is None or bundle.get("type") != "message":
        return _wrong("not_alert", "no message Bundle with a MessageHeader", "Bundle.type")
    event = (header.get("eventCoding") or {}).get("code")
    trigger = EVENTS.get(event or "")
    if trigger is None:
        return _wrong("unsupported_trigger", "the event is none of the three notifications", "MessageHeader.event")
    focus = [resources.get(_key(item.get("reference"))) for item in header.get("focus") or ()]
    encounter = next((item for item in focus if item and item.get("resourceType") == "Encounter"), None)
    if encounter is None:
        return _wrong("no_encounter", "the focus is no Encounter of the Bundle", "MessageHeader.focus")
    patient = resources.get(_key((encounter.get("subject") or {}).get("reference"))) or {}
    facility = _facility(encounter, header, resources, settings)
    zone = settings.zones.of(facility["facility_id"])
    period = encounter.get("period") or {}
    start, end = parse_fhir(period.get("start"), zone), parse_fhir(period.get("end"), zone)
    moment = _moment(trigger, start, end, parse_fhir(bundle.get("timestamp"), zone))
    if moment is None:
        return _wrong("no_time", "neither period nor timestamp says when", "Encounter.period")
    if moment.at > received_at + settings.future_tolerance:
        return _wrong("future_time", "the event lies in the future", "Encounter.period")
    identifier = _first(patient.get("identifier"))
    stay = encounter.get("hospitalization") or {}
    class_ = (encounter.get("class") or {}).get("code")
    return {
        **where,
        **facility,
        "visit_number": (_first(encounter.get("identifier")) or {}).get("value") or encounter.get("id") or "",
        # The IG has no event of its own for the registration at an emergency department.
        "trigger": "register" if trigger == "admit" and class_ in EMERGENCY else trigger,
        "trigger_code": None,
        "event_at": moment.at,
        "event_time_text": moment.text,
        "event_on": moment.on,
        "received_at": received_at,
        "patient_id_sent": (identifier or {}).get("value") or patient.get("id") or "",
        "patient_id_system": (identifier or {}).get("system"),
        "encounter_id": encounter.get("id"),
        "class": class_,
        "status": STATUS.get(encounter.get("status") or ""),
        "period_start_at": start.at if start else None,
        "period_end_at": end.at if end else None,
        "admit_source": _code(stay.get("admitSource")),
        "discharge_disposition": _code(stay.get("dischargeDisposition")),
        "attending_npi": None,
        "diagnoses": _diagnoses(encounter, resources),
        # Of everything in the message: a label on one diagnosis speaks of the event that carries it.
        "labels": sorted({code for item in (bundle, *resources.values()) for code in _labels(item)}),
        "flags": [*facility["flags"], *moment.flags],
        "source": "alert",
        "message_sha": sha256_text(msgspec.json.encode(bundle, order="deterministic").decode()),
        "message_control_id": (bundle.get("identifier") or {}).get("value") or bundle.get("id"),
        "sending_facility": (header.get("source") or {}).get("endpoint"),
        "birth": digits(patient.get("birthDate")),
        "names": [folded(text) for name in patient.get("name") or () for text in (name.get("family"), *_given(name))],
        "other_facility": trigger == "transfer",
    }


def _wrong(code: str, message: str, column: str | None) -> Row:
    return {"code": code, "message": message, "column": column}


def _resources(bundle: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for entry in bundle.get("entry") or ():
        resource = entry.get("resource") or {}
        found[_key(entry.get("fullUrl") or f"{resource.get('resourceType')}/{resource.get('id')}")] = resource
        found.setdefault(f"{resource.get('resourceType')}/{resource.get('id')}", resource)
    return found


def _key(reference: str | None) -> str:
    """Return ``Type/id`` of a relative or absolute reference; URNs stay as they are."""
    if not reference or reference.startswith("urn:"):
        return reference or ""
    return "/".join(reference.split("/")[-2:])


def _facility(
    encounter: Mapping[str, Any],
    header: Mapping[str, Any],
    resources: Mapping[str, Mapping[str, Any]],
    settings: AdtSettings,
) -> Row:
    # An Intermediary that forwards puts itself in as sender; responsible stays who sent first.
    provider = encounter.get("serviceProvider") or header.get("responsible") or header.get("sender") or {}
    organization = resources.get(_key(provider.get("reference"))) or {}
    identifiers = [item for item in organization.get("identifier") or () if item.get("value")]
    number = next((item["value"] for item in identifiers if str(item.get("system")).endswith("us-npi")), None)
    names = (number, organization.get("id"), bare_id(provider.get("reference")), organization.get("name"))
    for name in names:
        row = settings.facilities.get(name) if name else None
        if row is not None:
            known = {"facility_name": row.get("name"), "facility_npi": row.get("npi") or number}
            return {"facility_id": row["facility_id"], **known, "flags": []}
    given = next((name for name in (organization.get("id"), bare_id(provider.get("reference")), number) if name), None)
    return {
        "facility_id": given or UNKNOWN_FACILITY,
        "facility_name": organization.get("name") or provider.get("display"),
        "facility_npi": number,
        "flags": [] if given and not settings.facilities else ["unknown_facility"],
    }


def _moment(trigger: str, start: Moment | None, end: Moment | None, sent: Moment | None) -> Moment | None:
    if trigger == "discharge":
        return end or sent
    return (start if trigger == "admit" else None) or sent or start


def _diagnoses(encounter: Mapping[str, Any], resources: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = [
        resources.get(_key((item.get("condition") or {}).get("reference"))) for item in encounter.get("diagnosis") or ()
    ]
    concepts = [item.get("code") for item in found if item] + list(encounter.get("reasonCode") or ())
    codings = [coding for concept in concepts if concept for coding in concept.get("coding") or ()]
    return [
        {"system": coding.get("system"), "code": coding["code"], "display": coding.get("display")}
        for coding in codings
        if coding.get("code")
    ]


def _given(name: Mapping[str, Any]) -> list[str]:
    """Return the first given name, as ADT and the index have it."""
    return list(name.get("given") or ())[:1]


def _labels(resource: Mapping[str, Any]) -> list[str]:
    # A label without a code is still a label: the gate holds what it does not know.
    return [item.get("code") or "unreadable" for item in (resource.get("meta") or {}).get("security") or ()]


def _first(items: Any) -> dict[str, Any] | None:
    return next((item for item in items or () if item.get("value")), None)


def _code(concept: Any) -> str | None:
    codings = (concept or {}).get("coding") or ()
    return next((coding["code"] for coding in codings if coding.get("code")), None)
