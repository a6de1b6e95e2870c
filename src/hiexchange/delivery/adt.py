"""HL7 v2.5.1 ADT messages, after the DirectTrust event notification map.

MSH-10 is the first 20 characters of the delivery id (the v2.5 limit), constant over retries; MSH-7
and EVN-2 come from the event, never from the clock. ZHX carries the whole delivery id, the
sequence number and the replay flag: receivers ignore Z segments they do not know. The statement of a
42 CFR Part 2 consent is ARV-5: v2.5.1 has no place for it, v2.6 made this one, and a reader that does not know
the segment passes over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hiexchange import hl7v2
from hiexchange.delivery.base import Page
from hiexchange.delivery.channel import ChannelSpec
from hiexchange.errors import DeliveryError

CONTROL_ID_LENGTH = 20
TRIGGERS = {
    "admit": "A01",
    "transfer": "A02",
    "discharge": "A03",
    "register": "A04",
    "preadmit": "A05",
    "update": "A08",
    "cancel_admit": "A11",
    "cancel_transfer": "A12",
    "cancel_discharge": "A13",
    "merge": "A40",
}
STRUCTURES = {"A04": "A01", "A07": "A06", "A08": "A01", "A11": "A09", "A13": "A01", "A40": "A39"}
"""Message structure by trigger event where it is not the event's own (HL7 table 0354)."""
CLASSES = {"EMER": "E", "IMP": "I", "ACUTE": "I", "NONAC": "I", "PRENC": "P"}
"""v3 ActCode -> PV1-2 (table 0004); everything else is an outpatient."""
PART2 = ("42CFRPart2", "42 CFR Part 2 information", "ActCode")
"""ARV-3 of an event under a Part 2 consent (v3 ActCode)."""
SEXES = {"male": "M", "female": "F", "other": "O", "unknown": "U"}
_CODE_SYSTEMS = {"http://hl7.org/fhir/sid/icd-10-cm": "I10", "http://snomed.info/sct": "SCT"}


def control_id(delivery_id: str) -> str:
    """Return MSH-10 of a delivery."""
    return delivery_id[:CONTROL_ID_LENGTH]


@dataclass(frozen=True, slots=True)
class ADT:
    """One ADT message an event; in a file, one after the other."""

    extension: str = "hl7"
    content_type: str = "x-application/hl7-v2+er7; charset=utf-8"
    message: bool = True
    row_limit: int | None = None

    def render(self, page: Page) -> bytes:
        """See :class:`~hiexchange.delivery.base.Format`."""
        return b"".join(hl7v2.write(_segments(record, page)) for record in page.records)


def _segments(record: Mapping[str, Any], page: Page) -> list[Sequence[hl7v2.Value]]:
    spec: ChannelSpec = page.spec
    trigger = _trigger(record)
    options = spec.options
    sequence = str(page.sequence) if len(page.records) == 1 else None
    segments: list[Sequence[hl7v2.Value]] = [
        (
            "MSH",
            options.get("sending_application", "hiexchange"),
            options.get("sending_facility", "HIE"),
            options.get("receiving_application") or None,
            options.get("receiving_facility", spec.subscriber_id),
            _dtm(record.get("received_at") or record.get("event_at")),
            None,
            ("ADT", trigger, f"ADT_{STRUCTURES.get(trigger, trigger)}"),
            control_id(record["delivery_id"]),
            "P",
            "2.5.1",
            sequence,
            *[None] * 4,
            "UNICODE UTF-8",
        ),
        (
            "EVN",
            None,
            _dtm(record.get("received_at")),
            None,
            None,
            None,
            _dtm(record.get("event_at")),
            _facility(record),
        ),
        _pid(record, trigger),
        ("PD1", None, None, None, (record.get("provider_npi"), *[None] * 7, ("", "2.16.840.1.113883.4.6", "ISO"))),
    ]
    segments += _merged(record) if trigger == "A40" else _visit(record)
    segments.append(("ZHX", record["delivery_id"], str(page.sequence), "Y" if record.get("replay") else "N"))
    return segments


def _visit(record: Mapping[str, Any]) -> list[Sequence[hl7v2.Value]]:
    segments = [_pv1(record)]
    if record.get("notice"):
        segments.append(("ARV", "1", "A", PART2, None, record["notice"]))
    for number, coding in enumerate(record.get("diagnoses") or (), 1):
        kind = "F" if record.get("status") == "finished" else "W"
        system = _CODE_SYSTEMS.get(coding.get("system") or "", "L")
        segments.append(
            ("DG1", str(number), None, (coding.get("code"), coding.get("display"), system), None, None, kind)
        )
    return segments


def _merged(record: Mapping[str, Any]) -> list[Sequence[hl7v2.Value]]:
    ended = (record["visit_number"], None, None, _authority(record.get("patient_id_system")), "MR")
    return [("MRG", ended)]


def _trigger(record: Mapping[str, Any]) -> str:
    trigger = record.get("trigger")
    if trigger == "class_change":
        return "A06" if record.get("class") in ("IMP", "ACUTE", "NONAC") else "A07"
    if trigger not in TRIGGERS:
        raise DeliveryError(
            "an event without a trigger cannot be written as ADT",
            where=record["delivery_id"],
            hint="let the subscription's columns include trigger",
        )
    return TRIGGERS[trigger]


def _pid(record: Mapping[str, Any], trigger: str) -> Sequence[hl7v2.Value]:
    visit = record.get("visit_number")
    if not visit:
        # The DirectTrust map requires PID-18; of a merge it is MRG-1, required too.
        raise DeliveryError(
            "an event without visit number has no PID-18",
            where=record["delivery_id"],
            hint="let the subscription's columns include visit_number",
        )
    ids: list[Any] = []
    if record.get("person_id"):
        ids.append((record["person_id"], None, None, "HIE", "PI"))
    if record.get("patient_id_sent"):
        ids.append((record["patient_id_sent"], None, None, _authority(record.get("patient_id_system")), "MR"))
    address = (
        record.get("address_line"),
        None,
        record.get("city"),
        record.get("state"),
        record.get("zip"),
    )
    name = (record.get("last_name"), record.get("first_name"), record.get("middle_name"), record.get("suffix"))
    birth = (record.get("birth_date") or "").replace("-", "")
    return (
        *("PID", "1", None, ids, None, name, None, birth or None, SEXES.get(record.get("sex") or "")),
        *(None, None, address, None, record.get("phone")),
        *[None] * 4,
        visit if trigger != "A40" else None,
    )


def _pv1(record: Mapping[str, Any]) -> Sequence[hl7v2.Value]:
    attending = (
        (record["attending_npi"], *[None] * 7, ("", "2.16.840.1.113883.4.6", "ISO"))
        if record.get("attending_npi")
        else None
    )
    kind = CLASSES.get(record["class"], "O") if record.get("class") else "U"
    location = (
        None,
        None,
        None,
        (record.get("facility_name"), record.get("facility_npi"), "NPI" if record.get("facility_npi") else None),
    )
    return (
        *("PV1", "1", kind, location, None, None, None, attending),
        *[None] * 6,
        record.get("admit_source"),
        *[None] * 4,
        record.get("visit_number"),
        *[None] * 16,
        record.get("discharge_disposition"),
        *[None] * 7,
        _dtm(record.get("period_start_at")),
        _dtm(record.get("period_end_at")),
    )


def _facility(record: Mapping[str, Any]) -> hl7v2.Value:
    npi = record.get("facility_npi")
    return (record.get("facility_name"), npi, "NPI" if npi else None)


def _authority(system: str | None) -> str | tuple[str | None, ...] | None:
    if system and system.startswith("urn:oid:"):
        return ("", system.removeprefix("urn:oid:"), "ISO")
    return ("", system, "URI") if system else None


def _dtm(value: datetime | None) -> str | None:
    return hl7v2.dtm(value) if value is not None else None


HL7V2 = ADT()
