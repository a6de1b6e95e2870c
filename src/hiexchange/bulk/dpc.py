"""Upkeep of a DPC roster: add and remove patients of a Group with attestation, list lapsing ones.

DPC asks for an ``X-Provenance`` header at every change: who attests, on behalf of which
organisation, that the provider treats the patients. Attributions lapse after 90 days.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hiexchange import ndjson
from hiexchange._http import Response, Session
from hiexchange._urls import redact
from hiexchange.bulk.answers import read_object, to_answer
from hiexchange.bulk.manifest import parse_instant
from hiexchange.errors import ProtocolViolation, RequestRefused
from hiexchange.servers import Server

ATTESTATION = "https://dpc.cms.gov/api/v1/StructureDefinition/dpc-profile-attestation"
REASON = {"system": "http://hl7.org/fhir/v3/ActReason", "code": "TREAT"}
AGENT = {"system": "http://hl7.org/fhir/v3/RoleClass", "code": "AGNT"}


@dataclass(frozen=True, slots=True)
class Attribution:
    """One member of a DPC Group."""

    patient_id: str = field(repr=False)
    ends_at: datetime | None
    active: bool


def provenance(organization_id: str, practitioner_id: str, *, now: datetime) -> dict[str, Any]:
    """Return the attestation (STU3 Provenance) for the ``X-Provenance`` header."""
    return {
        "resourceType": "Provenance",
        "meta": {"profile": [ATTESTATION]},
        "recorded": now.isoformat(timespec="milliseconds"),
        "reason": [REASON],
        "agent": [
            {
                "role": [{"coding": [AGENT]}],
                "whoReference": {"reference": f"Organization/{organization_id}"},
                "onBehalfOfReference": {"reference": f"Practitioner/{practitioner_id}"},
            }
        ],
    }


def add_members(server: Server, group_id: str, patients: Iterable[str], attestation: Mapping[str, Any]) -> None:
    """Add patients to a Group, or attest them again (``$add``).

    Raises:
        RequestRefused: DPC refused; says the issue codes.
    """
    _change(server, group_id, "$add", patients, attestation)


def remove_members(server: Server, group_id: str, patients: Iterable[str]) -> None:
    """Remove patients from a Group (``$remove``); no attestation is needed.

    Raises:
        RequestRefused: DPC refused; says the issue codes.
    """
    _change(server, group_id, "$remove", patients, None)


def members(server: Server, group_id: str) -> list[Attribution]:
    """Return a Group's members with the end of their attribution.

    Raises:
        RequestRefused: There is no such Group, or it may not be read.
    """
    session = server.connect()
    try:
        return read_members(session, group_id)
    finally:
        session.close()


def read_members(session: Session, group_id: str) -> list[Attribution]:
    """Return a Group's members, in a session that is open; otherwise as :func:`members`."""
    url = f"{session.base_url}/Group/{group_id}"
    group = _accepted(
        session.send("GET", url, token=session.auth is not None, headers={"Accept": "application/fhir+json"})
    )
    return [_attribution(member) for member in ndjson.objects(group.get("member"))]


def lapsing(roster: Iterable[Attribution], *, before: datetime) -> list[Attribution]:
    """Return the members whose attribution has lapsed or ends before an instant, soonest first."""
    found = [item for item in roster if not item.active or (item.ends_at is not None and item.ends_at < before)]
    return sorted(found, key=lambda item: (item.ends_at is None, item.ends_at, item.patient_id))


def _attribution(member: Mapping[str, Any]) -> Attribution:
    entity, period = (value if isinstance(value := member.get(name), Mapping) else {} for name in ("entity", "period"))
    reference = str(entity.get("reference", ""))
    return Attribution(reference.rsplit("/", 1)[-1], _end(period.get("end")), not member.get("inactive", False))


def _end(text: object) -> datetime | None:
    """Return when a period ends; one whose end is a day, at the beginning of that day: too early is only a reminder."""
    known = text if isinstance(text, str) else ""
    return parse_instant(known) or parse_instant(f"{known}T00:00:00Z")


def _change(
    server: Server, group_id: str, operation: str, patients: Iterable[str], attestation: Mapping[str, Any] | None
) -> None:
    body = {
        "resourceType": "Group",
        "type": "person",
        "actual": True,
        "member": [{"entity": {"reference": f"Patient/{patient}"}} for patient in patients],
    }
    headers = {"Accept": "application/fhir+json", "Content-Type": "application/fhir+json"}
    if attestation is not None:
        headers["X-Provenance"] = json.dumps(attestation, separators=(",", ":"))
    session = server.connect()
    try:
        url = f"{server.url}/Group/{group_id}/{operation}"
        _accepted(
            session.send("POST", url, token=server.auth is not None, headers=headers, content=json.dumps(body).encode())
        )
    finally:
        session.close()


def _accepted(response: Response) -> Mapping[str, Any]:
    where = f"{response.request.method} {redact(str(response.request.url))}"
    if response.status_code >= 400:
        codes = to_answer(response).codes()
        raise RequestRefused(
            f"the server refused ({response.status_code})", issues=codes, where=where, said=", ".join(codes) or None
        )
    body = read_object(response.content)
    if body is None:
        raise ProtocolViolation("the server did not answer with a resource", where=where)
    return body
