"""An ADT message as FHIR R4 resources: Patient, Encounter and its Conditions.

Plain dictionaries, in the order a Bundle wants them. Ids are hashes of the sender's identifiers, so the
next message of the same visit updates the same resources.

Source: HL7/v2-to-fhir, PID-Patient, PV1-Encounter and DG1-Condition maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from hiexchange import hl7v2
from hiexchange._files import sha256_text
from hiexchange.encounters.adt import AdtSettings, RawMessage, read_message
from hiexchange.encounters.codes import (
    CLASS_NAMES,
    DISPOSITIONS,
    GENDERS,
    US_NPI,
    US_SSN,
    V2_0203,
    V3_ACT_CODE,
    V3_PARTICIPATION,
    is_npi,
)
from hiexchange.encounters.rows import Row
from hiexchange.encounters.times import Moment, parse_dtm

Resource = dict[str, Any]

PARTICIPANTS = ((7, "ATND", "attender"), (8, "REF", "referrer"), (9, "CON", "consultant"), (17, "ADM", "admitter"))
"""PV1 field, v3 ParticipationType, its name."""
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
_STATUS = {"preadmit": "planned", "cancel_admit": "cancelled"}


def to_fhir(message: hl7v2.Message, *, received_at: datetime, settings: AdtSettings | None = None) -> list[Resource]:
    """Return Patient, Encounter and Conditions of an ADT message.

    Raises:
        DataError: The message cannot become an event (:func:`hiexchange.encounters.adt.read_message`).
    """
    settings = settings or AdtSettings()
    row = read_message(message, RawMessage(b"", None, None, received_at), settings)
    pid = message.first("PID")
    assert pid is not None  # read_message refuses a message without it
    zone = settings.zones.of(row["facility_id"])
    person = patient(pid, row, zone)
    conditions = [_condition(code, index, row, person["id"]) for index, code in enumerate(row["diagnoses"], 1)]
    pv1 = message.first("PV1")
    if pv1 is None:
        return [person, *conditions]
    return [person, encounter(pv1, row, zone, person["id"], [item["id"] for item in conditions]), *conditions]


def patient(pid: hl7v2.Segment, row: Row, zone: ZoneInfo | None) -> Resource:
    """Return the Patient of a PID segment."""
    identifiers = [item for index in _each(pid, 3) if (item := _identifier(pid, 3, index))]
    if pid.value(19).strip():
        identifiers.append({"type": _coded(V2_0203, "SS"), "system": US_SSN, "value": pid.value(19).strip()})
    born, died = _date(pid.value(7)), parse_dtm(pid.value(29), zone) if pid.value(29) else None
    deceased: Resource = {}
    if died is not None:
        deceased = {"deceasedDateTime": _instant(died)}
    elif pid.value(30).upper() in ("Y", "N"):
        deceased = {"deceasedBoolean": pid.value(30).upper() == "Y"}
    return _whole(
        {
            "resourceType": "Patient",
            "id": patient_id(row),
            "identifier": identifiers,
            "name": [item for index in _each(pid, 5) if (item := _name(pid, 5, index))],
            "telecom": [
                item for number in (13, 14) for index in _each(pid, number) if (item := _telecom(pid, number, index))
            ],
            "gender": GENDERS.get(pid.value(8).upper()),
            "birthDate": born,
            **deceased,
            "address": [item for index in _each(pid, 11) if (item := _address(pid, 11, index))],
        }
    )


def encounter(
    pv1: hl7v2.Segment, row: Row, zone: ZoneInfo | None, patient_reference: str, conditions: list[str]
) -> Resource:
    """Return the Encounter of a PV1 segment; status is finished when PV1-45 is valued."""
    start, end = (parse_dtm(pv1.value(number), zone) if pv1.value(number) else None for number in (44, 45))
    class_ = row["class"]
    status = "finished" if end or row["trigger"] == "discharge" else _STATUS.get(row["trigger"])
    location = " ".join(text for part in (1, 2, 3) if (text := pv1.value(3, part).strip()))
    disposition = pv1.value(36)
    return _whole(
        {
            "resourceType": "Encounter",
            "id": encounter_id(row),
            "meta": {"security": [_label(label) for label in row["labels"]]},
            "identifier": [{"type": _coded(V2_0203, "VN", "visit number"), "value": row["visit_number"]}],
            "status": status or ("planned" if class_ == "PRENC" else "in-progress"),
            "class": {"system": V3_ACT_CODE, "code": class_, "display": CLASS_NAMES[class_]}
            if class_
            else {"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "UNK"},
            "type": [_coded("http://terminology.hl7.org/CodeSystem/v2-0007", pv1.value(4))],
            "serviceType": _coded("http://terminology.hl7.org/CodeSystem/v2-0069", pv1.value(10)),
            "subject": {"reference": f"Patient/{patient_reference}"},
            "participant": [
                item for number, code, text in PARTICIPANTS for item in _participants(pv1, number, code, text)
            ],
            "period": {"start": _instant(start), "end": _instant(end)},
            "diagnosis": [
                {"condition": {"reference": f"Condition/{item}"}, "rank": index}
                for index, item in enumerate(conditions, 1)
            ],
            "hospitalization": {
                "preAdmissionIdentifier": _identifier(pv1, 5, 1),
                "admitSource": _coded("http://terminology.hl7.org/CodeSystem/v2-0023", pv1.value(14)),
                "reAdmission": _coded("http://terminology.hl7.org/CodeSystem/v2-0092", pv1.value(13)),
                "specialCourtesy": [_coded("http://terminology.hl7.org/CodeSystem/v2-0099", pv1.value(16))],
                "dischargeDisposition": _coded(
                    "http://terminology.hl7.org/CodeSystem/discharge-disposition"
                    if disposition in DISPOSITIONS
                    else "http://terminology.hl7.org/CodeSystem/v2-0112",
                    DISPOSITIONS.get(disposition, disposition),
                ),
            },
            "location": [{"location": {"display": location}}] if location else [],
            "serviceProvider": {
                "identifier": {"system": US_NPI, "value": row["facility_npi"]} if row["facility_npi"] else None,
                "display": row["facility_name"],
            },
        }
    )


def patient_id(row: Mapping[str, Any]) -> str:
    """Return the Patient.id of a sender's patient: the same for every message about them."""
    return sha256_text("Patient", row["patient_id_system"] or row["facility_id"], row["patient_id_sent"])[:32]


def encounter_id(row: Mapping[str, Any]) -> str:
    """Return the Encounter.id of a visit."""
    return sha256_text("Encounter", row["facility_id"], row["visit_number"])[:32]


def _condition(code: Mapping[str, Any], rank: int, row: Row, patient_reference: str) -> Resource:
    return _whole(
        {
            "resourceType": "Condition",
            "id": sha256_text("Condition", encounter_id(row), str(rank), code["system"] or "", code["code"])[:32],
            "category": [_coded("http://terminology.hl7.org/CodeSystem/condition-category", "encounter-diagnosis")],
            "code": {"coding": [dict(code)], "text": code["display"]},
            "subject": {"reference": f"Patient/{patient_reference}"},
            "encounter": {"reference": f"Encounter/{encounter_id(row)}"},
        }
    )


# Data types -------------------------------------------------------------------------------------


def _identifier(segment: hl7v2.Segment, number: int, index: int) -> Resource | None:
    value = segment.value(number, 1, repetition=index).strip()
    if not value:
        return None
    kind = segment.value(number, 5, repetition=index).strip()
    authority, oid = segment.value(number, 4, repetition=index), segment.value(number, 4, 2, repetition=index)
    return {
        "type": _coded(V2_0203, kind),
        "system": f"urn:oid:{oid}" if oid.replace(".", "").isdigit() and "." in oid else None,
        "value": value,
        "assigner": {"display": authority.strip()},
    }


def _name(segment: hl7v2.Segment, number: int, index: int) -> Resource:
    family, given, middle, suffix, prefix = (
        segment.value(number, part, repetition=index).strip() for part in range(1, 6)
    )
    use = {"L": "official", "N": "nickname", "M": "maiden", "A": "anonymous"}
    return {
        "use": use.get(segment.value(number, 7, repetition=index).upper()),
        "family": family,
        "given": [text for text in (given, middle) if text],
        "prefix": [prefix] if prefix else [],
        "suffix": [suffix] if suffix else [],
    }


def _telecom(segment: hl7v2.Segment, number: int, index: int) -> Resource | None:
    email = segment.value(number, 4, repetition=index).strip()
    phone = segment.value(number, 1, repetition=index).strip() or segment.value(number, 12, repetition=index).strip()
    if not phone:
        parts = [segment.value(number, part, repetition=index).strip() for part in (6, 7)]
        phone = "-".join(text for text in parts if text)
    use = "work" if number == 14 else "home"
    if phone:
        return {"system": "phone", "value": phone, "use": use}
    return {"system": "email", "value": email, "use": use} if "@" in email else None


def _address(segment: hl7v2.Segment, number: int, index: int) -> Resource:
    line, other, city, state, code, country = (
        segment.value(number, part, repetition=index).strip() for part in range(1, 7)
    )
    lines = [text for text in (line, other) if text]
    return {"line": lines, "city": city, "state": state, "postalCode": code, "country": country}


def _participants(pv1: hl7v2.Segment, number: int, code: str, text: str) -> list[Resource]:
    found = []
    for index in _each(pv1, number):
        identifier = pv1.value(number, 1, repetition=index).strip()
        names = [pv1.value(number, part, repetition=index).strip() for part in (3, 2)]
        display = " ".join(name for name in names if name)
        if identifier or display:
            who = {
                "identifier": {"system": US_NPI if is_npi(identifier) else None, "value": identifier},
                "display": display,
            }
            found.append({"type": [_coded(V3_PARTICIPATION, code, text)], "individual": who})
    return found


def _coded(system: str, code: str, text: str | None = None) -> Resource | None:
    return {"coding": [{"system": system, "code": code.strip()}], "text": text} if code.strip() else None


def _label(label: str) -> Resource:
    if label in ("U", "L", "M", "N", "R", "V"):
        return {"system": CONFIDENTIALITY, "code": label}
    if label == "VIP":
        return {"system": "http://terminology.hl7.org/CodeSystem/v2-0099", "code": label}
    return {"code": label}


def _date(text: str) -> str | None:
    digits = text[:8]
    if not digits.isdigit() or len(digits) not in (4, 6, 8):
        return None
    if len(digits) == 8 and parse_dtm(digits, None) is None:
        return None
    return "-".join(part for part in (digits[:4], digits[4:6], digits[6:8]) if part)


def _instant(moment: Moment | None) -> str | None:
    if moment is None:
        return None
    return moment.on.isoformat() if "date_only" in moment.flags else moment.at.isoformat()


def _each(segment: hl7v2.Segment, number: int) -> range:
    return range(1, len(segment.repetitions(number)) + 1)


def _whole(resource: Resource) -> Resource:
    """Return a resource without its empty parts, at any depth: FHIR allows no empty value."""
    return {key: item for key, value in resource.items() if (item := _pruned(value)) or item is False}


def _pruned(value: Any) -> Any:
    if isinstance(value, str):
        return value or None
    if isinstance(value, dict):
        return {key: item for key, part in value.items() if (item := _pruned(part))}
    if isinstance(value, list):
        return [item for part in value if (item := _pruned(part))]
    # ``deceasedBoolean: false`` says something; an empty text does not.
    return value if value or value is False else None
