"""Export a list as Da Vinci ATR resources: Group with changeType, and what its members refer to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.attribution.knowledge import as_known
from hiexchange.tables import OPEN_DATE

ATR = "http://hl7.org/fhir/us/davinci-atr/StructureDefinition/"
NPI = "http://hl7.org/fhir/sid/us-npi"
TIN = "urn:oid:2.16.840.1.113883.4.4"
MEMBER_NUMBER = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MB"}]}
STATUSES = ("draft", "open", "final")


def attribution_list(
    history: Any,
    members: pa.Table,
    *,
    list_id: str,
    known_at: datetime,
    as_of: date,
    status: str = "open",
) -> dict[str, list[dict[str, Any]]]:
    """Return the resources of one list by type, to be written as NDJSON.

    Args:
        history: ATTRIBUTION rows as stored.
        members: MEMBER rows that describe the people; the last row of a member is taken.
        list_id: The list.
        known_at: Knowledge time.
        as_of: Day of the list: members whose attribution ended before it are inactive.
        status: ``draft``, ``open`` or ``final``. A final list leaves inactive members out, as ATR asks.

    Returns:
        ``Group`` (one), ``Patient``, ``Coverage``, ``Practitioner`` and ``Organization``. Each member
        entry carries period (last day inclusive), changeType, coverage and attributed provider.
    """
    known = as_known(history, known_at)
    rows = known.filter(pc.equal(known["list_id"], list_id)).to_pylist()
    rows = [row for row in rows if row["valid_to"] > as_of or status != "final"]
    people = {row["member_key"]: row for row in members.to_pylist()}
    providers = _Providers()
    entries = [_entry(row, providers, as_of) for row in rows]
    keys = sorted({row["member_key"] for row in rows})
    return {
        "Group": [_group(list_id, rows, entries, known_at, status)],
        "Patient": [_patient(key, people.get(key)) for key in keys],
        "Coverage": [_coverage(key, next(row for row in rows if row["member_key"] == key)) for key in keys],
        **providers.resources(),
    }


def _group(
    list_id: str, rows: list[dict[str, Any]], entries: list[dict[str, Any]], known_at: datetime, status: str
) -> dict[str, Any]:
    payer = rows[0]["payer_id"] if rows else list_id
    return {
        "resourceType": "Group",
        "id": _id(list_id),
        "meta": {"lastUpdated": known_at.isoformat().replace("+00:00", "Z")},
        "extension": [{"url": f"{ATR}ext-attributionListStatus", "valueCode": status}],
        "identifier": [{"system": "urn:hiexchange:list", "value": list_id}],
        "active": True,
        "type": "person",
        "actual": True,
        "quantity": len(entries),
        "name": f"Attribution list {list_id}",
        "managingEntity": {"display": payer},
        "member": entries,
    }


def _entry(row: dict[str, Any], providers: _Providers, as_of: date) -> dict[str, Any]:
    period = {"start": row["valid_from"].isoformat()}
    if row["valid_to"] != OPEN_DATE:
        period["end"] = (row["valid_to"] - timedelta(days=1)).isoformat()
    key = row["member_key"]
    return {
        "extension": [
            {"url": f"{ATR}ext-changeType", "valueCode": row["change_type"]},
            {"url": f"{ATR}ext-coverageReference", "valueReference": {"reference": f"Coverage/{_id(key)}"}},
            {"url": f"{ATR}ext-attributedProvider", "valueReference": {"reference": providers.reference(row)}},
        ],
        "entity": {"reference": f"Patient/{_id(key)}"},
        "period": period,
        "inactive": row["valid_to"] <= as_of,
    }


class _Providers:
    """Practitioners and organisations that a list names."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}

    def reference(self, row: dict[str, Any]) -> str:
        """Return the reference of a row's provider; the clinician before the organisation."""
        if row["provider_npi"]:
            return self.keep("Practitioner", row["provider_npi"], [{"system": NPI, "value": row["provider_npi"]}])
        identifier = {"system": TIN, "value": row["provider_tin"]} if row["provider_tin"] else None
        name = row["org_id"] or row["provider_tin"]
        return self.keep("Organization", name, [identifier] if identifier else [], name=name)

    def keep(self, kind: str, key: str, identifiers: list[dict[str, Any]], **more: Any) -> str:
        reference = f"{kind}/{_id(key)}"
        self.found[reference] = {
            "resourceType": kind,
            "id": _id(key),
            "identifier": identifiers,
            "active": True,
            **more,
        }
        return reference

    def resources(self) -> dict[str, list[dict[str, Any]]]:
        """Return them by type, sorted by id; resources without identifiers have none."""
        result: dict[str, list[dict[str, Any]]] = {"Practitioner": [], "Organization": []}
        for _, resource in sorted(self.found.items()):
            if not resource["identifier"]:
                del resource["identifier"]
            result[resource["resourceType"]].append(resource)
        return result


def _patient(key: str, person: dict[str, Any] | None) -> dict[str, Any]:
    resource: dict[str, Any] = {"resourceType": "Patient", "id": _id(key)}
    if person is None:
        return resource
    identifier = {"type": MEMBER_NUMBER, "system": _system(person["member_id_system"]), "value": person["member_id"]}
    given = [text for text in (person["first_name"], person["middle_name"]) if text]
    name = {"use": "official", "family": person["last_name"], "given": given, "suffix": [person["suffix"]]}
    address = {
        "line": [person["address_line"]],
        "city": person["city"],
        "state": person["state"],
        "postalCode": person["zip"],
    }
    resource["identifier"] = [identifier]
    resource |= {
        "name": [_filled(name)],
        "gender": person["sex"],
        "birthDate": person["birth_on"].isoformat() if person["birth_on"] else None,
        "telecom": [{"system": kind, "value": person[kind]} for kind in ("phone", "email") if person[kind]],
        "address": [_filled(address)],
    }
    return _filled(resource)


def _coverage(key: str, row: dict[str, Any]) -> dict[str, Any]:
    period = {
        "start": row["coverage_from"].isoformat() if row["coverage_from"] else None,
        "end": (row["coverage_to"] - timedelta(days=1)).isoformat() if row["coverage_to"] else None,
    }
    return _filled(
        {
            "resourceType": "Coverage",
            "id": _id(key),
            "identifier": [
                {"type": MEMBER_NUMBER, "system": _system(row["member_id_system"]), "value": row["member_id"]}
            ],
            "status": "active",
            "beneficiary": {"reference": f"Patient/{_id(key)}"},
            "period": _filled(period),
            "payor": [{"display": row["payer_id"]}],
        }
    )


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    """Return a FHIR object without empty elements, which FHIR forbids."""

    def keep(value: Any) -> bool:
        return value not in (None, "", [], {}) and value != [None] and value != [{}]

    return {name: value for name, value in values.items() if keep(value)}


def _system(text: str) -> str:
    return text if ":" in text else f"urn:hiexchange:payer:{text}"


def _id(text: str) -> str:
    """Return a FHIR id: letters, digits, dash and dot, at most 64 characters."""
    return "".join(_characters(text))[:64]


def _characters(text: str) -> Iterator[str]:
    for character in text:
        yield character if character.isascii() and (character.isalnum() or character in "-.") else "-"
