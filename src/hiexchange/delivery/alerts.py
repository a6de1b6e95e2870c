"""Da Vinci Alerts 1.1 message Bundles: MessageHeader first, focus Encounter, one notification a Bundle.

The exchange is the guide's Intermediary: it is the sender, and a Provenance says that it transmitted, and wrote
anew, what the facility is responsible for. A merge has no notification event; it is a message of the same framework
with the HL7 v2 event A40 and the Patient as focus. The statement of a 42 CFR Part 2 consent is a Consent resource.

Every id and time is derived from the delivery id and the event, so the same delivery is the same
bytes. What is emitted is validated with fhir.resources (R4B models).

Source: HL7/davinci-alerts, notifications-bundle, notifications-messageheader, adt-notification-encounter,
CapabilityStatement notification-forwarder ("update the MessageHeader.sender", "add a US Core Provenance").
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from hiexchange.delivery.base import Page
from hiexchange.delivery.channel import ChannelSpec
from hiexchange.errors import DeliveryError

PROFILES = "http://hl7.org/fhir/us/davinci-alerts/StructureDefinition/"
EVENT_SYSTEM = "http://hl7.org/fhir/us/davinci-alerts/CodeSystem/notification-event"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
V2_EVENT = f"{TERMINOLOGY}v2-0003"
AGENT = f"{TERMINOLOGY}provenance-participant-type"
PART2 = "42CFRPart2"
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
NPI = "http://hl7.org/fhir/sid/us-npi"
DELIVERY_ID = "urn:hiexchange:delivery-id"
DISPLAYS = {"admit": "Admit", "discharge": "Discharge", "transfer": "Transfer"}
EVENTS = {
    "admit": "admit",
    "register": "admit",
    "preadmit": "admit",
    "discharge": "discharge",
    "transfer": "transfer",
    "class_change": "transfer",
    "cancel_admit": "admit",
    "cancel_discharge": "discharge",
    "cancel_transfer": "transfer",
}
"""Trigger -> notification event. A cancel repeats the event it takes back, with the visit's present
status and the reason in words: the code system has no code of its own for it."""
_NAMESPACE = uuid.UUID("5a1f3b0e-7c52-5d3e-9b1a-2f6c0d4e8a90")


@dataclass(frozen=True, slots=True)
class Alerts:
    """One message Bundle an event; in a file, one a line (or the file itself when max_rows is 1)."""

    extension: str = "fhir.ndjson"
    content_type: str = "application/fhir+json"
    message: bool = True
    row_limit: int | None = None

    def render(self, page: Page) -> bytes:
        """See :class:`~hiexchange.delivery.base.Format`."""
        lines = [msgspec.json.encode(bundle(record, page.spec)) for record in page.records]
        if page.spec.carries_messages:
            return b"\n".join(lines)
        return b"".join(line + b"\n" for line in lines)


def bundle(record: Mapping[str, Any], spec: ChannelSpec) -> dict[str, Any]:
    """Return the message Bundle of one event, validated.

    Raises:
        DeliveryError: The event cannot be said as a notification; ``where`` is the delivery id.
    """
    key = record["delivery_id"]
    resources = _merge(record, spec) if record.get("trigger") == "merge" else _visit(record, spec)
    resources += [_intermediary(record, spec), *_consent(record), _provenance(record)]
    received = record.get("received_at") or record["event_at"]
    message: dict[str, Any] = {
        "resourceType": "Bundle",
        "id": _id(key, "Bundle"),
        "meta": {"profile": [f"{PROFILES}notifications-bundle"]},
        "identifier": {"system": DELIVERY_ID, "value": key},
        "type": "message",
        "timestamp": _instant(received),
        "entry": [{"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource} for resource in resources],
    }
    if record.get("notice"):
        message["meta"]["security"] = [_label(PART2)]
    if record.get("replay"):
        message["meta"]["tag"] = [{"system": "urn:hiexchange:delivery", "code": "replay"}]
    _validate(message, key)
    return message


def _visit(record: Mapping[str, Any], spec: ChannelSpec) -> list[dict[str, Any]]:
    conditions = [_condition(record, number) for number in range(len(record.get("diagnoses") or ()))]
    resources = [_header(record, spec, _event(record)), _encounter(record, len(conditions)), _patient(record)]
    return [*resources, _facility(record), *_attending(record), *conditions]


def _merge(record: Mapping[str, Any], spec: ChannelSpec) -> list[dict[str, Any]]:
    """Return header, the patient as known from now on, the identifier that ended, and the facility."""
    key = record["delivery_id"]
    if not record.get("visit_number"):
        raise DeliveryError(
            "a merge needs the identifier that ended",
            where=key,
            hint="let the subscription's columns include visit_number",
        )
    patient = _patient(record) | {"link": [{"other": _reference(key, "Patient/ended"), "type": "replaces"}]}
    ended: dict[str, Any] = {
        "resourceType": "Patient",
        "id": _id(key, "Patient/ended"),
        "identifier": [_mrn(record["visit_number"], record.get("patient_id_system"))],
        "active": False,
        "link": [{"other": _reference(key, "Patient"), "type": "replaced-by"}],
    }
    return [_header(record, spec, "merge"), patient, ended, _facility(record)]


@functools.cache
def _model() -> Any:
    from fhir.resources.R4B.bundle import Bundle

    return Bundle


def _validate(message: dict[str, Any], key: str) -> None:
    try:
        _model().model_validate(message)
    except ValueError as error:
        # The model's message quotes values: only the number of errors may leave.
        count = getattr(error, "error_count", lambda: 1)()
        raise DeliveryError(f"the message is not valid FHIR ({count} errors)", where=key) from None


def _event(record: Mapping[str, Any]) -> str:
    trigger = record.get("trigger")
    if trigger == "update":
        return "discharge" if record.get("status") == "finished" else "admit"
    if trigger not in EVENTS or "event_at" not in record or "class" not in record or "status" not in record:
        raise DeliveryError(
            "a notification needs trigger, event_at, class and status",
            where=record["delivery_id"],
            hint="let the subscription's columns include them",
        )
    return EVENTS[trigger]


def _id(key: str, role: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{key}/{role}"))


def _reference(key: str, role: str, display: str | None = None) -> dict[str, str]:
    found = {"reference": f"urn:uuid:{_id(key, role)}"}
    return found | {"display": display} if display else found


def _header(record: Mapping[str, Any], spec: ChannelSpec, event: str) -> dict[str, Any]:
    key = record["delivery_id"]
    options = spec.options
    endpoint = options.get("endpoint_reference") or (
        spec.url if spec.carries_messages else f"urn:hiexchange:{spec.key}"
    )
    merge = event == "merge"
    profiles = [f"{PROFILES}notifications-messageheader"]
    coding = {"system": V2_EVENT, "code": "A40", "display": "ADT/ACK - Merge patient - patient identifier list"}
    if not merge:
        profiles.append(f"{PROFILES}{event}-notification-messageheader")
        display = f"{DISPLAYS[event]} Notification"
        coding = {"system": EVENT_SYSTEM, "code": f"notification-{event}", "display": display}
    header = {
        "resourceType": "MessageHeader",
        "id": _id(key, "MessageHeader"),
        "meta": {"profile": profiles},
        "eventCoding": coding,
        "destination": [{"name": spec.subscriber_id, "endpoint": endpoint}],
        "sender": _reference(key, "Organization/intermediary", _exchange_name(spec)),
        "source": {
            "name": options.get("sending_application", "hiexchange"),
            "endpoint": options.get("endpoint", "urn:hiexchange"),
        },
        "responsible": _reference(key, "Organization", record.get("facility_name")),
        "focus": [_reference(key, "Patient" if merge else "Encounter")],
    }
    if record["trigger"] not in ("admit", "discharge", "transfer"):
        header["reason"] = {"text": record["trigger"].replace("_", " ")}
    return header


def _encounter(record: Mapping[str, Any], conditions: int) -> dict[str, Any]:
    key = record["delivery_id"]
    resource: dict[str, Any] = {
        "resourceType": "Encounter",
        "id": _id(key, "Encounter"),
        "meta": {"profile": [f"{US_CORE}encounter", f"{PROFILES}adt-notification-encounter"]},
        "status": record["status"],
        "class": {"system": ACT_CODE, "code": record["class"] or "AMB"},
        "type": [{"text": record["class"] or "unknown"}],
        "subject": _reference(key, "Patient"),
        "serviceProvider": _reference(key, "Organization", record.get("facility_name")),
    }
    if record.get("labels"):
        resource["meta"]["security"] = [_label(code) for code in record["labels"]]
    if record.get("visit_number"):
        resource["identifier"] = [{"type": {"coding": [_v2("0203", "VN")]}, "value": record["visit_number"]}]
    period = {
        name: _instant(record[column])
        for name, column in (("start", "period_start_at"), ("end", "period_end_at"))
        if record.get(column)
    }
    if period:
        resource["period"] = period
    if record.get("attending_npi"):
        kind = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "ATND"}]}
        resource["participant"] = [{"type": [kind], "individual": _reference(key, "Practitioner")}]
    stay = {
        name: {"text": record[column]}
        for name, column in (("admitSource", "admit_source"), ("dischargeDisposition", "discharge_disposition"))
        if record.get(column)
    }
    if stay:
        resource["hospitalization"] = stay
    if conditions:
        resource["diagnosis"] = [{"condition": _reference(key, f"Condition/{number}")} for number in range(conditions)]
    return resource


def _patient(record: Mapping[str, Any]) -> dict[str, Any]:
    key = record["delivery_id"]
    ids = []
    if record.get("person_id"):
        ids.append({"system": "urn:hiexchange:person", "value": record["person_id"]})
    if record.get("patient_id_sent"):
        ids.append(_mrn(record["patient_id_sent"], record.get("patient_id_system")))
    resource: dict[str, Any] = {
        "resourceType": "Patient",
        "id": _id(key, "Patient"),
        "meta": {"profile": [f"{US_CORE}patient"]},
        "identifier": ids or [{"extension": [_masked()]}],
        "name": [_name(record)],
        "gender": record.get("sex") or "unknown",
    }
    if record.get("birth_date"):
        resource["birthDate"] = record["birth_date"]
    address = {
        name: record[column]
        for name, column in (("city", "city"), ("state", "state"), ("postalCode", "zip"))
        if record.get(column)
    }
    if record.get("address_line"):
        address["line"] = [record["address_line"]]
    if address:
        resource["address"] = [address]
    if record.get("phone"):
        resource["telecom"] = [{"system": "phone", "value": record["phone"]}]
    return resource


def _mrn(value: str, system: str | None) -> dict[str, Any]:
    return {"type": {"coding": [_v2("0203", "MR")]}, "value": value} | ({"system": system} if system else {})


def _name(record: Mapping[str, Any]) -> dict[str, Any]:
    given = [record[name] for name in ("first_name", "middle_name") if record.get(name)]
    name: dict[str, Any] = {"use": "official"}
    if record.get("last_name"):
        name["family"] = record["last_name"]
    if given:
        name["given"] = given
    return name if len(name) > 1 else {"extension": [_masked()]}


def _masked() -> dict[str, str]:
    # US Core asks for name and identifier; a subscriber that may not have them is told so.
    return {"url": ABSENT, "valueCode": "masked"}


def _facility(record: Mapping[str, Any]) -> dict[str, Any]:
    resource = {
        "resourceType": "Organization",
        "id": _id(record["delivery_id"], "Organization"),
        "active": True,
        "name": record.get("facility_name") or record.get("facility_id") or "unknown",
    }
    if record.get("facility_npi"):
        resource["identifier"] = [{"system": NPI, "value": record["facility_npi"]}]
    return resource


def _intermediary(record: Mapping[str, Any], spec: ChannelSpec) -> dict[str, Any]:
    return {
        "resourceType": "Organization",
        "id": _id(record["delivery_id"], "Organization/intermediary"),
        "active": True,
        "name": _exchange_name(spec),
    }


def _exchange_name(spec: ChannelSpec) -> str:
    return spec.options.get("sending_facility", "HIE")


def _provenance(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return who did what: the facility is the author, the exchange transmits and, as it writes its own, assembles."""
    key = record["delivery_id"]
    exchange = _reference(key, "Organization/intermediary")
    agents = [("author", _reference(key, "Organization")), ("transmitter", exchange), ("assembler", exchange)]
    return {
        "resourceType": "Provenance",
        "id": _id(key, "Provenance"),
        "meta": {"profile": [f"{US_CORE}provenance"]},
        "target": [_reference(key, "MessageHeader")],
        "recorded": _instant(record.get("received_at") or record["event_at"]),
        "agent": [{"type": {"coding": [{"system": AGENT, "code": role}]}, "who": who} for role, who in agents],
    }


def _consent(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the scope of the Part 2 consent under which this is disclosed (42 CFR 2.32(b)), if it is."""
    if not record.get("notice"):
        return []
    key = record["delivery_id"]
    return [
        {
            "resourceType": "Consent",
            "id": _id(key, "Consent"),
            "meta": {"security": [_label(PART2)]},
            "status": "active",
            "scope": {"coding": [{"system": f"{TERMINOLOGY}consentscope", "code": "patient-privacy"}]},
            "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
            "patient": _reference(key, "Patient"),
            "policyRule": {"coding": [_label(PART2)], "text": record["notice"]},
        }
    ]


def _attending(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    npi = record.get("attending_npi")
    if not npi:
        return []
    practitioner = {"resourceType": "Practitioner", "id": _id(record["delivery_id"], "Practitioner")}
    return [practitioner | {"identifier": [{"system": NPI, "value": npi}]}]


def _condition(record: Mapping[str, Any], number: int) -> dict[str, Any]:
    key = record["delivery_id"]
    coding = {name: value for name, value in record["diagnoses"][number].items() if value}
    category = {"system": "http://terminology.hl7.org/CodeSystem/condition-category", "code": "encounter-diagnosis"}
    return {
        "resourceType": "Condition",
        "id": _id(key, f"Condition/{number}"),
        "category": [{"coding": [category]}],
        "code": {"coding": [coding]},
        "subject": _reference(key, "Patient"),
        "encounter": _reference(key, "Encounter"),
    }


def _label(code: str) -> dict[str, str]:
    return {"system": CONFIDENTIALITY if code in ("U", "L", "M", "N", "R", "V") else ACT_CODE, "code": code}


def _v2(table: str, code: str) -> dict[str, str]:
    return {"system": f"http://terminology.hl7.org/CodeSystem/v2-{table}", "code": code}


def _instant(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


FHIR = Alerts()
