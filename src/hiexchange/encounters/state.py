"""The encounter state machine: what a message means, given what was already said about the visit. Pure.

Per visit (facility, visit number) messages are applied in order of event time, ties by receipt, so a
late message lands where it belongs. A message makes news only when what a recipient cares about
changes: class, status, facility, disposition, diagnoses, patient. The rest is swallowed and counted.

Messages already on record are applied again but never changed: they are immutable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hiexchange.encounters.codes import EMERGENCY, INPATIENT
from hiexchange.encounters.rows import Row, event_key, material_hash

NONE, PLANNED, REGISTERED, ADMITTED, FINISHED, CANCELLED = (
    "none",
    "planned",
    "registered",
    "admitted",
    "finished",
    "cancelled",
)
OPEN = (REGISTERED, ADMITTED)
STATUS = {
    PLANNED: "planned",
    REGISTERED: "in-progress",
    ADMITTED: "in-progress",
    FINISHED: "finished",
    CANCELLED: "cancelled",
}
BESIDE = ("test_patient", "merge")
"""Swallowed for what they are, before the machine looks at the visit."""


SELF = "@"
"""Stands in ``told`` for the event being ruled on, whose key is not known yet."""


@dataclass(frozen=True, slots=True)
class Visit:
    """What is known of one visit."""

    phase: str = NONE
    class_: str | None = None
    disposition: str | None = None
    diagnoses: tuple[Any, ...] = ()
    patient: str | None = None
    facts: str = ""
    """Hash of the material facts as they stand."""
    core: str = ""
    """The same without diagnoses."""
    told: str | None = None
    """Key of the event that led to this phase; None when it was swallowed."""
    before: Visit | None = None
    """The state a cancel goes back to."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of one message."""

    visit: Visit
    """The state after it."""
    material: bool = True
    reason: str | None = None
    """Why it was swallowed."""
    trigger: str | None = None
    """Another trigger than the message's own."""
    corrects: str | None = None
    """Key of the event it takes back."""
    flags: tuple[str, ...] = ()


def settle(rows: Iterable[Row], known: Iterable[Mapping[str, Any]] = ()) -> list[Row]:
    """Return the new rows with material, reason, trigger, version, key and flags set.

    Args:
        rows: New candidate rows in order of receipt. ``status`` may be None where the message does not
            say it. Rows with ``swallowed_reason`` set (test patients, merges) pass by the machine.
        known: ENCOUNTER_EVENT rows already on record, of the same visits or more.
    """
    fresh = list(rows)
    touched = {_place(row) for row in fresh}
    visits: dict[tuple[str, str], list[tuple[Any, ...]]] = {place: [] for place in touched}
    versions: dict[tuple[str, str, str], int] = {}
    for position, row in enumerate(known):
        place = _place(row)
        if place in touched:
            # Tables tie by key, which is a hash: of one minute, a cancel must stay behind its admission.
            order = (row.get("source_file") or "", row.get("source_line") or 0, position)
            visits[place].append((row["event_at"], row["received_at"], 0, order, dict(row)))
            key = (*place, row["trigger"])
            versions[key] = max(versions.get(key, 0), row["version"])
    for position, row in enumerate(fresh):
        visits[_place(row)].append((row["event_at"], row["received_at"], 1, position, row))
    for messages in visits.values():
        _play(sorted(messages, key=lambda item: item[:4]), versions)
    return fresh


def _place(row: Mapping[str, Any]) -> tuple[str, str]:
    return (row["facility_id"], row["visit_number"])


def _play(messages: list[tuple[Any, ...]], versions: dict[tuple[str, str, str], int]) -> None:
    """Apply the messages of one visit in order of time, then number the new ones in order of receipt."""
    visit = Visit()
    fresh: list[tuple[int, Row]] = []
    for _, _, new, position, row in messages:
        if new:
            fresh.append((position, row))
        if row["trigger"] == "merge" or row.get("swallowed_reason") in BESIDE:
            row["material"] = row.get("swallowed_reason") is None
            continue
        if not new and row["trigger"] == "transfer":
            row["other_facility"] = row["material"]
        ruling = rule(visit, row)
        visit = ruling.visit
        if visit.told == SELF:
            # What was once swallowed was not told, whatever a later-received message says now.
            visit = replace(visit, told=f"#{position}" if new else row["event_key"] if row["material"] else None)
        if new:
            _apply(row, ruling)
    keys: dict[str, str] = {}
    for position, row in sorted(fresh, key=lambda item: item[0]):
        key = (*_place(row), row["trigger"])
        versions[key] = row["version"] = versions.get(key, 0) + 1
        row["event_key"] = keys[f"#{position}"] = event_key(*key, row["version"])
    for _, row in fresh:
        row["corrects"] = keys.get(row.get("corrects") or "", row.get("corrects"))


def _apply(row: Row, ruling: Ruling) -> None:
    row["material"] = ruling.material
    row["swallowed_reason"] = ruling.reason
    row["trigger"] = ruling.trigger or row["trigger"]
    row["corrects"] = ruling.corrects
    row["flags"] = [*row["flags"], *ruling.flags]
    row["material_hash"] = material_hash(row)


def rule(visit: Visit, row: Row) -> Ruling:
    """Return what a message means for a visit in this state.

    Completes the row: ``status``, and class, disposition and diagnoses that this message leaves out.
    """
    row["class"] = row.get("class") or visit.class_
    if visit.phase == FINISHED and row["trigger"] in ("update", "discharge"):
        row["discharge_disposition"] = row.get("discharge_disposition") or visit.disposition
    row["diagnoses"] = row.get("diagnoses") or list(visit.diagnoses)
    return _RULES[row["trigger"]](visit, row)


def _admit(visit: Visit, row: Row) -> Ruling:
    phase = ADMITTED if row["trigger"] == "admit" else REGISTERED
    row["status"] = row.get("status") or "in-progress"
    after = _state(visit, row, phase, told=SELF)
    if visit.phase in (NONE, PLANNED, CANCELLED):
        return Ruling(after)
    if visit.phase == FINISHED:
        return Ruling(after, flags=("reopened",))
    if visit.phase == REGISTERED and phase == ADMITTED:
        # Registered, then admitted under the same visit number: the stay begins now.
        return Ruling(after)
    if after.facts == visit.facts or phase != visit.phase:
        return Ruling(visit, material=False, reason="unchanged")
    return Ruling(replace(after, before=visit.before), corrects=visit.told)


def _preadmit(visit: Visit, row: Row) -> Ruling:
    row["status"] = "planned"
    after = _state(visit, row, PLANNED, told=SELF)
    if visit.phase in (NONE, CANCELLED) or (visit.phase == PLANNED and after.facts != visit.facts):
        return Ruling(after)
    return Ruling(visit, material=False, reason="unchanged")


def _transfer(visit: Visit, row: Row) -> Ruling:
    row["status"] = row.get("status") or "in-progress"
    phase = ADMITTED if row["class"] in INPATIENT or visit.phase not in OPEN else visit.phase
    flags = ("transfer_without_admit",) if visit.phase == NONE else ()
    if (visit.class_ in EMERGENCY and row["class"] in INPATIENT) or row.get("other_facility"):
        return Ruling(_state(visit, row, phase, told=SELF), flags=flags)
    # Beds change many times a day; nobody outside wants to know. But a cancel must find the move.
    return Ruling(_state(visit, row, phase, told=None), material=False, reason="bed_move", flags=flags)


def _class_change(visit: Visit, row: Row) -> Ruling:
    row["status"] = row.get("status") or "in-progress"
    after = _state(visit, row, ADMITTED if row["class"] in INPATIENT else REGISTERED, told=SELF)
    if visit.phase == NONE:
        return Ruling(after, flags=("change_without_admit",))
    if visit.class_ == row["class"]:
        return Ruling(visit, material=False, reason="unchanged")
    into_stay = visit.class_ in EMERGENCY and row["class"] in INPATIENT
    return Ruling(after, trigger="transfer" if into_stay else None)


def _discharge(visit: Visit, row: Row) -> Ruling:
    row["status"] = "finished"
    after = _state(visit, row, FINISHED, told=SELF)
    if visit.phase == FINISHED:
        if after.facts == visit.facts:
            return Ruling(visit, material=False, reason="unchanged")
        return Ruling(replace(after, before=visit.before), corrects=visit.told)
    if visit.phase in OPEN:
        return Ruling(after)
    # The open encounter is synthesised, so that a cancel has something to go back to.
    opened = replace(after, phase=ADMITTED if row["class"] in INPATIENT else REGISTERED, told=None, before=None)
    return Ruling(replace(after, before=opened), flags=("discharge_without_admit",))


def _update(visit: Visit, row: Row) -> Ruling:
    if visit.phase in (FINISHED, CANCELLED):
        row["status"] = STATUS[visit.phase]
    row["status"] = row.get("status") or STATUS.get(visit.phase, "in-progress")
    if visit.phase == NONE:
        phase = FINISHED if row["status"] == "finished" else ADMITTED if row["class"] in INPATIENT else REGISTERED
        return Ruling(_state(visit, row, phase, told=SELF), flags=("update_without_admit",))
    # What a later cancel takes back is the event that led to this phase, not the update.
    after = replace(_state(visit, row, visit.phase, told=visit.told), before=visit.before)
    if after.facts == visit.facts or visit.phase == CANCELLED:
        return Ruling(visit, material=False, reason="unchanged")
    flags = []
    if visit.patient and after.patient != visit.patient:
        flags.append("patient_changed")
    if after.core == visit.core:
        flags.append("diagnosis_only")
    return Ruling(after, flags=tuple(flags))


def _cancel_admit(visit: Visit, row: Row) -> Ruling:
    if visit.phase in (NONE, PLANNED, CANCELLED):
        row["status"] = "cancelled"
        after = _state(visit, row, CANCELLED, told=None)
        # Nobody was told of an admission, so there is nothing to take back.
        return Ruling(after, material=False, reason="cancelled_before_send", flags=("cancel_without_original",))
    state = visit
    if state.phase == FINISHED and state.before is not None:
        state = state.before
    while state.before is not None and state.before.phase == state.phase:
        state = state.before
    if state.phase == ADMITTED and state.before is not None and state.before.phase == REGISTERED:
        row["status"] = STATUS[REGISTERED]
        return Ruling(state.before, corrects=state.told)
    row["status"] = "cancelled"
    return Ruling(replace(_state(visit, row, CANCELLED, told=None), before=None), corrects=state.told)


def _cancel_transfer(visit: Visit, row: Row) -> Ruling:
    row["status"] = row.get("status") or STATUS.get(visit.phase, "in-progress")
    if visit.phase not in OPEN or visit.before is None or visit.before.phase not in OPEN:
        return Ruling(visit, material=False, reason="unchanged", flags=("cancel_without_original",))
    if visit.told is None:
        return Ruling(visit.before, material=False, reason="bed_move")
    return Ruling(visit.before, corrects=visit.told)


def _cancel_discharge(visit: Visit, row: Row) -> Ruling:
    if visit.phase != FINISHED or visit.before is None:
        row["status"] = row.get("status") or STATUS.get(visit.phase, "in-progress")
        return Ruling(visit, material=False, reason="unchanged", flags=("cancel_without_original",))
    row["status"] = "in-progress"
    return Ruling(visit.before, corrects=visit.told)


_RULES: dict[str, Callable[[Visit, Row], Ruling]] = {
    "admit": _admit,
    "register": _admit,
    "preadmit": _preadmit,
    "transfer": _transfer,
    "class_change": _class_change,
    "discharge": _discharge,
    "update": _update,
    "cancel_admit": _cancel_admit,
    "cancel_transfer": _cancel_transfer,
    "cancel_discharge": _cancel_discharge,
}


def _state(visit: Visit, row: Row, phase: str, *, told: str | None) -> Visit:
    return Visit(
        phase,
        row["class"],
        row.get("discharge_disposition"),
        tuple(row["diagnoses"]),
        row.get("person_id") or row.get("patient_id_sent"),
        material_hash(row),
        material_hash({**row, "diagnoses": None}),
        told,
        visit if visit.phase != NONE else None,
    )
