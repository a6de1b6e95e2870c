"""HL7 v2 ADT messages to events: A01-A08, A11-A13, A40.

A merge (A40) is about no visit: in place of the visit number its event bears the identifier that ended (MRG-1).

Every message is counted: ``read = events + quarantined + duplicates``. What cannot become an event is
an ISSUE row that says which file, message and field, never what was in it.

Source: HL7/v2-to-fhir (mapping), HL7 v2.8.2 chapter 3 (ADT), DirectTrust event notification map.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from hiexchange import hl7v2
from hiexchange.encounters.codes import CLASSES, TRIGGERS, code_system, is_npi
from hiexchange.encounters.history import concerned
from hiexchange.encounters.people import Identities, Merge, digits, folded
from hiexchange.encounters.rows import Intake, Row, events_table, issue, issues_table
from hiexchange.encounters.state import settle
from hiexchange.encounters.times import Moment, Zones, parse_dtm
from hiexchange.errors import DataError

TOLERANCE = timedelta(hours=6)
"""How far ahead of its receipt an event may lie: clocks and zones are off by hours, not by days."""
UNKNOWN_FACILITY = "unknown"
_UNRESOLVED = {
    "identity_conflict": "the birth date is not that of the person with this id",
    "identity_unproven": "the index has this id under another namespace, and birth date and name do not say it is the same person",
    "merge_unproven": "the id ended in a merge, and the first name is not that of the person it was joined to",
}
_TEST_NAME = re.compile(r"Z{2,}(TEST.*|)\Z", re.IGNORECASE)
_RECEIVED = re.compile(r"(\d{8}T\d{6}\.\d{6})Z-")
"""How the listener names files: the instant of receipt comes first."""


@dataclass(frozen=True, slots=True)
class RawMessage:
    """One message as received."""

    data: bytes
    file: str | None = None
    line: int | None = None
    """Number of the message in the file, from 1."""
    received_at: datetime | None = None


@dataclass(frozen=True)
class AdtSettings:
    """What is known about the senders."""

    zones: Zones = field(default_factory=Zones)
    facilities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Any name a sender uses for a facility -> its row (facility_id, name, npi)."""
    identities: Identities = field(default_factory=Identities)
    future_tolerance: timedelta = TOLERANCE


def from_adt(
    source: str | Path | Iterable[bytes | RawMessage],
    *,
    received_at: datetime,
    persons: Any = None,
    facilities: Any = None,
    zones: Mapping[str, str] | None = None,
    history: Any = None,
) -> pa.Table:
    """Return ENCOUNTER_EVENT rows of ADT messages; :func:`read_adt` also says what was not taken.

    Args:
        source: A file, a folder of files (``*.hl7``, in name order), or messages in order of receipt.
        received_at: When messages were received that do not say it themselves (aware).
        persons: PERSON rows: patients are resolved by medical record number and checked by birth date.
        facilities: Rows with ``facility_id``, ``name``, ``npi`` and ``codes`` (what senders write in
            PV1-3.4, EVN-7 or MSH-4). Without it the sender's own code is the facility id.
        zones: Facility id -> IANA zone, for times without offset; ``*`` for all others.
        history: ENCOUNTER_EVENT rows of earlier calls: a table, a lake table, or paths of Parquet files (nothing
            of them is held in memory but what the messages concern).
    """
    return read_adt(
        source, received_at=received_at, persons=persons, facilities=facilities, zones=zones, history=history
    ).events


def read_adt(
    source: str | Path | Iterable[bytes | RawMessage],
    *,
    received_at: datetime,
    persons: Any = None,
    facilities: Any = None,
    zones: Mapping[str, str] | None = None,
    history: Any = None,
    identities: Identities | None = None,
) -> Intake:
    """Return the events of ADT messages with the account of them; arguments as :func:`from_adt`.

    ``identities`` stands for ``persons`` where assigning authorities are known.
    """
    settings = AdtSettings(Zones(zones), facility_names(facilities), identities or Identities.of(persons))
    return collect(messages(source, received_at), settings, history=history)


def collect(raws: Iterable[RawMessage], settings: AdtSettings, *, history: Any = None) -> Intake:
    """Return the events of messages in order of receipt."""
    candidates, issues, quarantined = _candidates(raws, settings)
    known = concerned(history, candidates)
    seen = {(row["sending_facility"], row["message_control_id"], row["message_sha"]) for row in known}
    control_ids = {(row["sending_facility"], row["message_control_id"]) for row in known}
    rows: list[Row] = []
    for row in candidates:
        mark = (row["sending_facility"], row["message_control_id"], row["message_sha"])
        if mark not in seen:
            seen.add(mark)
            issues += _doubts(row, mark, control_ids)
            rows.append(row)
    merges = [_merge(row, row["old_id"]) for row in candidates if row["trigger"] == "merge"]
    # A merge on record bears the identifier that ended in place of a visit number.
    earlier = [_merge(row, row["visit_number"]) for row in known if row["trigger"] == "merge"]
    people = settings.identities.merged([*earlier, *merges])
    _announce(rows, known)
    for row in rows:
        people.resolve(row)
    issues += [
        issue(code, _UNRESOLVED[code], row, severity="warning")
        for row in rows
        for code in _UNRESOLVED
        if code in row["flags"]
    ]
    settled = settle(rows, [people.canonical(row) for row in known])
    for row in settled:
        _strip(row)
    read, duplicates = len(candidates) + quarantined, len(candidates) - len(rows)
    return Intake(events_table(settled), issues_table(issues), read, quarantined, duplicates, tuple(merges))


def _candidates(raws: Iterable[RawMessage], settings: AdtSettings) -> tuple[list[Row], list[Row], int]:
    """Return the candidate rows of messages, an issue for each that gives none, and how many those are."""
    rows: list[Row] = []
    issues: list[Row] = []
    for raw in raws:
        try:
            rows.append(read_message(hl7v2.parse(raw.data), raw, settings))
        except DataError as error:
            where: Row = {"source_file": raw.file, "source_line": raw.line}
            issues.append(issue(getattr(error, "issue_code", "not_hl7"), error.what, where, column=error.where))
    return rows, issues, len(issues)


def messages(source: str | Path | Iterable[bytes | RawMessage], received_at: datetime) -> Iterator[RawMessage]:
    """Yield the messages of a file, a folder or an iterable, each with its place and time of receipt."""
    if isinstance(source, str | Path):
        for file in files_of(Path(source)):
            yield from messages_in(file, received_at)
        return
    for number, item in enumerate(source, 1):
        if isinstance(item, RawMessage):
            yield item if item.received_at else RawMessage(item.data, item.file, item.line or number, received_at)
        else:
            yield RawMessage(item, None, number, received_at)


def files_of(path: Path) -> list[Path]:
    """Return the files of messages in a folder, in name order; a file is the one of itself."""
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    return [file for file in files if not file.name.startswith(".") and file.suffix != ".part"]


def messages_in(file: Path, received_at: datetime) -> Iterator[RawMessage]:
    """Yield the messages of a file; ``received_at`` holds where its name does not say when they came."""
    at = _received(file.name) or received_at
    for number, data in enumerate(hl7v2.split(file.read_bytes()), 1):
        yield RawMessage(data, file.name, number, at)


class _Refused(DataError):
    """A message that cannot become an event, with the code of its ISSUE row."""

    def __init__(self, code: str, what: str, path: str) -> None:
        super().__init__(what, where=path, code=hl7v2.CODE)
        self.issue_code = code


def read_message(message: hl7v2.Message, raw: RawMessage, settings: AdtSettings) -> Row:
    """Return the candidate row of one message, before the state machine sees it.

    Raises:
        DataError: The message is of another kind, or lacks what an event needs.
    """
    code = message.trigger_code.upper()
    trigger = TRIGGERS.get(code)
    if trigger is None:
        raise _Refused("unsupported_trigger", "the trigger event is none that is routed", "MSH-9.2")
    header = message.segments[0]
    empty = hl7v2.Segment("PV1", message.delimiters)
    pid, pv1, evn = (message.first(name) or empty for name in ("PID", "PV1", "EVN"))
    if pid is empty:
        raise _Refused("no_patient", "the message has no PID segment", "PID")
    facility = _facility(message, pv1, evn, settings)
    zone = settings.zones.of(facility["facility_id"])
    given = {"start": pv1.value(44), "end": pv1.value(45)}
    given |= {"occurred": evn.value(6), "recorded": evn.value(2), "sent": header.value(7)}
    times = {name: parse_dtm(text, zone) if text else None for name, text in given.items()}
    received_at = raw.received_at or datetime.min.replace(tzinfo=UTC)
    moment = _moment(trigger, times, latest=received_at + settings.future_tolerance)
    patient_id, patient_system = _patient(pid, settings.identities.authorities)
    if not patient_id:
        raise _Refused("no_patient", "the message has no patient identifier", "PID-3")
    row: Row = {
        **facility,
        "trigger": trigger,
        "trigger_code": code,
        "event_at": moment.at,
        "event_time_text": moment.text,
        "event_on": moment.on,
        "received_at": received_at,
        "patient_id_sent": patient_id,
        "patient_id_system": patient_system,
        "person_id": None,
        "class": CLASSES.get(pv1.value(2).strip().upper()),
        "status": "finished" if times["end"] else None,
        "period_start_at": times["start"].at if times["start"] else None,
        "period_end_at": times["end"].at if times["end"] else None,
        "admit_source": pv1.value(14) or None,
        "discharge_disposition": pv1.value(36) or None,
        "attending_npi": npi(pv1, 7),
        "diagnoses": diagnoses(message),
        "labels": labels(message, pv1),
        "flags": [*facility["flags"], *moment.flags],
        "source": "hl7v2",
        "source_file": raw.file,
        "source_line": raw.line,
        "message_sha": hashlib.sha256(bytes(message)).hexdigest(),
        "message_control_id": message.control_id or None,
        "sending_facility": header.value(4) or None,
        "birth": digits(pid.value(7)),
        "names": [folded(pid.value(5, part)) for part in (1, 2)],
        "old_id": "",
    }
    _visit_number(row, pid, pv1, times)
    _mark(row, message, pid, pv1)
    if trigger == "merge":
        _merge_row(row, message)
    return row


# Parts of a message -----------------------------------------------------------------------------


def npi(pv1: hl7v2.Segment, number: int) -> str | None:
    """Return the NPI among the repetitions of an XCN field, if one is."""
    for index in range(1, len(pv1.repetitions(number)) + 1):
        identifier = pv1.value(number, 1, repetition=index).strip()
        named = {pv1.value(number, part, repetition=index).upper() for part in (9, 13)}
        if identifier and ("NPI" in named or is_npi(identifier)):
            return identifier
    return None


def diagnoses(message: hl7v2.Message) -> list[dict[str, str | None]]:
    """Return the codes of the DG1 segments, each once, in order."""
    found: dict[tuple[str | None, str], dict[str, str | None]] = {}
    for segment in message.all("DG1"):
        code = segment.value(3).strip()
        # Table 0206: D takes the diagnosis back.
        if code and segment.value(21).upper() != "D":
            system = code_system(segment.value(3, 3) or segment.value(2))
            text = segment.value(3, 2).strip() or segment.value(4).strip() or None
            found.setdefault((system, code), {"system": system, "code": code, "display": text})
    return list(found.values())


def labels(message: hl7v2.Message, pv1: hl7v2.Segment) -> list[str]:
    """Return what the message says about who may see it: inputs of the policy gate, never dropped.

    PV1-16 is ``VIP``; each ARV segment that restricts is ``ARV:`` and its reason; PD1-12, PV2-22
    (protection wanted) and DG1-18 (confidential) are ``R``; MSH-26 and MSH-28 (v2.9) are labels as they stand.
    """
    header = message.segments[0]
    found = [header.value(number, repetition=index) for number in (26, 28) for index in _count(header, number)]
    if pv1.value(16):
        found.append("VIP")
    for name, number in (("PD1", 12), ("PV2", 22), ("DG1", 18)):
        if any(segment.value(number).upper() == "Y" for segment in message.all(name)):
            found.append("R")
    for segment in message.all("ARV"):
        # Table 0206: D takes a restriction back, X says it is unchanged, so it still holds.
        if segment.value(2).upper() != "D":
            found.append(f"ARV:{segment.value(3).upper() or 'UNSPECIFIED'}")
    return sorted({label for label in found if label})


def _count(segment: hl7v2.Segment, number: int) -> range:
    return range(1, len(segment.repetitions(number)) + 1)


def _facility(message: hl7v2.Message, pv1: hl7v2.Segment, evn: hl7v2.Segment, settings: AdtSettings) -> Row:
    header = message.segments[0]
    names = [pv1.value(3, 4), evn.value(7), evn.value(7, 2), header.value(4), header.value(4, 2)]
    for name in names:
        row = settings.facilities.get(name) if name else None
        if row is not None:
            return {
                "facility_id": row["facility_id"],
                "facility_name": row.get("name"),
                "facility_npi": row.get("npi"),
                "flags": [],
            }
    given = next((name for name in (header.value(4), evn.value(7), pv1.value(3, 4)) if name), None)
    number = evn.value(7, 2)
    return {
        "facility_id": given or UNKNOWN_FACILITY,
        "facility_name": given,
        "facility_npi": number if is_npi(number) else None,
        # A sender that the exchange has not listed is heard, but nobody can say where that is.
        "flags": [] if given and not settings.facilities else ["unknown_facility"],
    }


def _moment(trigger: str, times: Mapping[str, Moment | None], *, latest: datetime) -> Moment:
    """Return when it happened: the visit's own time first, then when it occurred, was recorded, was sent."""
    own = {"admit": "start", "register": "start", "preadmit": "start", "discharge": "end"}.get(trigger)
    known = (times[name] for name in (own, "occurred", "recorded", "sent") if name)
    moment = next((one for one in known if one is not None), None)
    if moment is None:
        raise _Refused("no_time", "no usable time says when it happened", "EVN-2")
    if moment.at > latest and trigger != "preadmit":
        raise _Refused("future_time", "the event lies in the future", "EVN-2")
    return moment


def _patient(pid: hl7v2.Segment, authorities: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the patient's medical record number and its namespace; the first identifier where none is MR.

    Of a namespace's name and its universal id the one counts that an authority goes by, else the name.
    """
    best: tuple[str, str | None] = ("", None)
    for index in _count(pid, 3):
        identifier = pid.value(3, 1, repetition=index).strip()
        if not identifier:
            continue
        names = [name for part in (1, 2) if (name := pid.value(3, 4, part, repetition=index))]
        system = next((name for name in names if name in authorities), next(iter(names), None))
        if pid.value(3, 5, repetition=index).upper() == "MR":
            return identifier, system
        if not best[0]:
            best = (identifier, system)
    return best if best[0] else (pid.value(2).strip(), None)


def _visit_number(row: Row, pid: hl7v2.Segment, pv1: hl7v2.Segment, times: Mapping[str, Moment | None]) -> None:
    number = pv1.value(19).strip() or pid.value(18).strip()
    if not number and row["trigger"] != "merge":
        start = times["start"] or times["end"]
        if start is None:
            raise _Refused("no_visit", "neither visit number, account number nor admission time is given", "PV1-19")
        # Hospitals that send no visit number have one visit a patient and admission time.
        number = f"{row['patient_id_sent']}@{start.at:%Y%m%d%H%M}"
        row["flags"].append("derived_visit_number")
    row["visit_number"] = number or row["patient_id_sent"]


def _mark(row: Row, message: hl7v2.Message, pid: hl7v2.Segment, pv1: hl7v2.Segment) -> None:
    """Set what the message says about itself: test data, newborns, unusable classes, transfers elsewhere."""
    family = pid.value(5).strip()
    if message.segments[0].value(11)[:1].upper() in ("T", "D") or _TEST_NAME.match(family):
        row["swallowed_reason"] = "test_patient"
    if pv1.value(4).upper() == "N" or family.upper().startswith(("BABY", "NEWBORN")):
        row["flags"].append("newborn")
    if row["class"] is None and row["trigger"] != "merge":
        row["flags"].append("unknown_class")
    before, now = pv1.value(6, 4), pv1.value(3, 4)
    row["other_facility"] = bool(before and now and before != now)


def _merge_row(row: Row, message: hl7v2.Message) -> None:
    mrg = message.first("MRG")
    old = mrg.value(1).strip() if mrg is not None else ""
    if not old:
        raise _Refused("no_merge_id", "a merge without the identifier that ends", "MRG-1")
    row["old_id"] = row["visit_number"] = old
    row["status"] = "finished"
    row.setdefault("swallowed_reason", "merge")


def _announce(rows: list[Row], known: list[Row]) -> None:
    """Make news of the merges whose ended identifier other events bear: somebody may know the patient by it."""
    borne = {(row["patient_id_system"], row["patient_id_sent"]) for row in (*known, *rows) if row["trigger"] != "merge"}
    for row in rows:
        merge = row["trigger"] == "merge" and row["swallowed_reason"] == "merge"
        if merge and (row["patient_id_system"], row["old_id"]) in borne:
            row["swallowed_reason"] = None


def _merge(row: Row, ended: str) -> Merge:
    return Merge(row["patient_id_system"], ended, row["patient_id_sent"], row["event_at"])


def _doubts(row: Row, mark: tuple[Any, Any, Any], control_ids: set[tuple[Any, Any]]) -> list[Row]:
    """Return warnings about a message that was taken."""
    if row["message_control_id"] is None:
        return [issue("no_control_id", "the message has no control id", row, severity="warning", column="MSH-10")]
    if mark[:2] in control_ids:
        text = "the sender used the control id of another message"
        return [issue("control_id_reused", text, row, severity="warning", column="MSH-10")]
    control_ids.add(mark[:2])
    return []


def _strip(row: Row) -> None:
    for name in ("birth", "names", "old_id", "other_facility"):
        row.pop(name, None)
    row.setdefault("material_hash", "")
    row["status"] = row["status"] or "in-progress"


# Inputs -----------------------------------------------------------------------------------------


def facility_names(facilities: Any) -> dict[str, dict[str, Any]]:
    """Return every name that a facility goes by -> its row (facility_id, name, npi)."""
    if facilities is None:
        return {}
    rows = facilities if isinstance(facilities, list) else _table(facilities).to_pylist()
    names: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = row.get("facility_id") or row.get("organization_id") or row["id"]
        entry = {"facility_id": key, "name": row.get("name"), "npi": row.get("npi")}
        for name in (key, row.get("npi"), *(row.get("codes") or ())):
            if name:
                names[str(name)] = entry
    return names


def _received(name: str) -> datetime | None:
    found = _RECEIVED.match(name)
    return datetime.strptime(found.group(1), "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC) if found else None


def _table(data: Any) -> pa.Table:
    return data if isinstance(data, pa.Table) else pa.table(data)
