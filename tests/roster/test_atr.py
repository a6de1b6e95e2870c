"""Attribution lists in FHIR: NDJSON, Bundle, the official example, DPC Groups."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from hiexchange.errors import RosterError
from hiexchange.roster import Roster

Read = Callable[..., Roster]
Codes = Callable[[Roster], list[tuple[int | None, str, str | None]]]
ATR = "http://hl7.org/fhir/us/davinci-atr/StructureDefinition/"
NPI = "http://hl7.org/fhir/sid/us-npi"


def entry(number: int, *, provider: str = "Practitioner/p1", change: str | None = None, **more: Any) -> dict[str, Any]:
    extension = [
        {"url": f"{ATR}ext-coverageReference", "valueReference": {"reference": f"Coverage/c{number}"}},
        {"url": f"{ATR}ext-attributedProvider", "valueReference": {"reference": provider}},
    ]
    if change:
        extension.append({"url": f"{ATR}ext-changeType", "valueCode": change})
    base = {"extension": extension, "entity": {"reference": f"Patient/-{number}"}, "period": {"start": "2026-01-01"}}
    return {**base, **more}


def resources(members: list[dict[str, Any]], people: int = 3, **group: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "resourceType": "Group",
            "id": "g1",
            "meta": {"lastUpdated": "2026-01-31T00:00:00Z"},
            "member": members,
            **group,
        },
        {"resourceType": "Practitioner", "id": "p1", "identifier": [{"system": NPI, "value": "1234567893"}]},
        {
            "resourceType": "PractitionerRole",
            "id": "r1",
            "practitioner": {"reference": "Practitioner/p1"},
            "organization": {"reference": "Organization/o1"},
            "location": [{"reference": "Location/l1"}],
        },
        {
            "resourceType": "Organization",
            "id": "o1",
            "identifier": [{"system": "urn:oid:2.16.840.1.113883.4.4", "value": "710000001"}],
        },
    ]
    for number in range(1, people + 1):
        name = [{"use": "official", "family": f"Smith{number}", "given": ["Ann", "B"]}]
        found.append(
            {
                "resourceType": "Patient",
                "id": f"-{number}",
                "name": name,
                "birthDate": f"1960-01-0{number}",
                "gender": "female",
            }
        )
        code = {"coding": [{"code": "MB"}]}
        found.append(
            {
                "resourceType": "Coverage",
                "id": f"c{number}",
                "subscriberId": "S1",
                "identifier": [{"type": code, "system": "urn:p", "value": f"M{number}"}],
                "period": {"start": "2025-01-01", "end": "2026-12"},
            }
        )
    return found


def ndjson(found: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in found).encode()


def test_a_list_becomes_rows(read: Read, codes: Codes) -> None:
    members = [entry(1, change="new"), entry(2, provider="PractitionerRole/r1"), entry(3, provider="Organization/o1")]
    roster = read(ndjson(resources(members)), "atr-ndjson", as_of=None)
    assert (roster.as_of, roster.mode, codes(roster)) == (date(2026, 1, 31), "full", [])
    first, second, third = roster.members.to_pylist()
    assert (first["member_id"], first["member_id_system"], first["subscriber_id"]) == ("M1", "urn:p", "S1")
    assert (first["first_name"], first["middle_name"], first["payer_change_type"]) == ("Ann", "B", "new")
    assert (first["coverage_from"], first["coverage_to"]) == (date(2025, 1, 1), date(2027, 1, 1))
    assert (second["provider_npi"], second["provider_tin"], second["org_id"], second["location_id"]) == (
        "1234567893",
        "710000001",
        "o1",
        "l1",
    )
    assert (third["provider_npi"], third["provider_tin"], third["org_id"], third["attribution_level"]) == (
        None,
        "710000001",
        "o1",
        "practice",
    )


def test_a_bundle_a_zip_and_a_folder_say_the_same(read: Read, tmp_path: Path) -> None:
    found = resources([entry(1), entry(2)])
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"fullUrl": f"urn:x:{n}", "resource": r} for n, r in enumerate(found)],
    }
    folder = tmp_path / "export"
    folder.mkdir()
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for kind in {value["resourceType"] for value in found}:
            data = ndjson([value for value in found if value["resourceType"] == kind])
            (folder / f"{kind}.ndjson").write_bytes(data)
            archive.writestr(f"{kind}.ndjson", data)
    first = read(ndjson(found), "atr-ndjson").members.drop_columns(["roster_id"])
    for other in (json.dumps(bundle).encode(), json.dumps(bundle, indent=1).encode(), folder, tmp_path / "export.zip"):
        assert read(other, "atr-ndjson").members.drop_columns(["roster_id"]).equals(first)


@pytest.mark.parametrize("end", ["2²26-03", "0000-03", "2026-13", "march"])
def test_an_end_that_is_no_date_refuses_its_row(read: Read, codes: Codes, end: str) -> None:
    roster = read(ndjson(resources([entry(1), entry(2, period={"start": "2026-01", "end": end})])), "atr-ndjson")
    assert codes(roster) == [(2, "bad_date", "valid_to")]


def test_inactive_members_are_dropped(read: Read) -> None:
    members = [
        entry(1, inactive=True, period={"start": "2025-01-01", "end": "2026-01-15"}),
        entry(2, inactive=True, period=None),
        entry(3, inactive=True, change="cancelled"),
    ]
    for member in members:
        if member["period"] is None:
            del member["period"]
    rows = read(ndjson(resources(members)), "atr-ndjson").members.to_pylist()
    assert [row["payer_change_type"] for row in rows] == ["dropped", "dropped", "cancelled"]
    assert rows[0]["valid_to"] == date(2026, 1, 16)
    assert rows[1]["valid_from"] == rows[1]["valid_to"] == date(2026, 1, 31)


def test_a_group_without_its_practitioner_refuses_those_rows(read: Read, codes: Codes) -> None:
    roster = read(ndjson(resources([entry(1, provider="Practitioner/p9"), entry(2)])), "atr-ndjson")
    assert [(row, code) for row, code, _ in codes(roster)] == [(1, "missing_provider"), (1, "provider_missing")]
    assert roster.counts.accepted == 1


def test_a_member_missing_from_patient_is_kept_by_its_coverage_and_reported(read: Read, codes: Codes) -> None:
    found = [value for value in resources([entry(1), entry(2)]) if value["id"] != "-1"]
    roster = read(ndjson(found), "atr-ndjson")
    assert codes(roster) == [(1, "patient_missing", "Group.member.entity")]
    assert roster.members["member_id"].to_pylist() == ["M1", "M2"]


def test_provider_of_the_group_where_members_name_none(read: Read) -> None:
    member = entry(1)
    member["extension"] = member["extension"][:1]
    roster = read(
        ndjson(resources([member], identifier=[{"system": NPI, "value": "1999999984"}, {"value": "CONTRACT-7"}])),
        "atr-ndjson",
    )
    row = roster.members.to_pylist()[0]
    assert (row["provider_npi"], row["contract_id"]) == ("1999999984", "CONTRACT-7")


def test_a_large_group_on_one_line(read: Read) -> None:
    count = 20_000
    members = [
        {
            "entity": {"reference": f"Patient/-{n}"},
            "extension": entry(1)["extension"][1:],
            "period": {"start": "2026-01-01"},
        }
        for n in range(count)
    ]
    people = [{"resourceType": "Patient", "id": f"-{n}", "birthDate": "1960-01-01"} for n in range(count)]
    found = [*resources(members, people=0), *people]
    assert read(ndjson(found), "atr-ndjson").counts.accepted == count


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"not json", "not_fhir"),
        (b'{"resourceType":"Patient","id":"-1"}\n', "no_group"),
        (b'{"resourceType":"Group","id":"g"}\n', "no_rows"),
        (b'{"resourceType":"Group","id":"g","member":[{"entity":"Patient/1"}]}\n', "not_fhir"),
    ],
)
def test_what_is_no_list(read: Read, data: bytes, code: str) -> None:
    with pytest.raises(RosterError) as caught:
        read(data, "atr-ndjson")
    assert caught.value.issues["code"].to_pylist() == [code]


def test_a_dpc_group(read: Read) -> None:
    trait = {
        "code": {"coding": [{"code": "attributed-to"}]},
        "valueCodeableConcept": {"coding": [{"system": NPI, "code": "1234567893"}]},
        "exclude": False,
    }
    member = {
        "entity": {"reference": "Patient/-1"},
        "period": {"start": "2026-01-20", "end": "2026-04-20"},
        "inactive": False,
    }
    group = {"resourceType": "Group", "id": "g7", "characteristic": [trait], "member": [member]}
    patient = {
        "resourceType": "Patient",
        "id": "-1",
        "birthDate": "1950-01-01",
        "identifier": [{"system": "http://hl7.org/fhir/sid/us-mbi", "value": "1SG4TE5MK73"}],
    }
    roster = read(ndjson([group, patient]), "dpc-group")
    row = roster.members.to_pylist()[0]
    assert roster.list_id == "payer-a/g7"
    assert (row["provider_npi"], row["mbi"], row["member_id"]) == ("1234567893", "1SG4TE5MK73", "1SG4TE5MK73")
    # A PUT resets begin dates, so the day of first sight counts.
    assert (row["valid_from"], row["valid_to"]) == (date(2026, 2, 1), date(2026, 4, 21))


LISTS = {"extension", "identifier", "member", "coding"}


def as_json(element: ET.Element) -> dict[str, Any]:
    """FHIR XML to JSON, as far as the official example Group needs it."""
    result: dict[str, Any] = {}
    for child in element:
        name = child.tag.split("}")[1]
        if name == "text":
            continue
        value: Any = as_json(child) if len(child) else child.get("value")
        if child.get("url"):
            value = {"url": child.get("url"), **value}
        value = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
        if name in LISTS:
            result.setdefault(name, []).append(value)
        else:
            result[name] = value
    return result


def test_the_official_example_shows_a_shared_member_number(
    shared: Path, tmp_path: Path, read: Read, codes: Codes
) -> None:
    source = shared / "data" / "davinci-atr"
    group = {"resourceType": "Group", **as_json(ET.parse(source / "group-fullexample.xml").getroot())}
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "Group.ndjson").write_text(json.dumps(group) + "\n")
    for file in source.glob("*.json"):
        (tmp_path / "list" / file.name).write_bytes(file.read_bytes())
    roster = read(tmp_path / "list", {"extends": "atr-ndjson", "list": {"npi": "unchecked"}}, as_of=None)
    assert roster.as_of == date(2019, 6, 6)
    # Coverage/1 and Coverage/3 of the example carry the same member number for two people.
    assert [(row, code) for row, code, _ in codes(roster)] == [(1, "shared_member_id"), (3, "shared_member_id")]
    row = roster.members.to_pylist()[0]
    assert (row["member_id"], row["provider_npi"], row["valid_from"]) == ("789123", "9941339100", date(2015, 4, 2))


def test_synthea_groups_need_a_provider(shared: Path, read: Read, codes: Codes) -> None:
    path = shared / "data" / "synthea-100" / "Group.ndjson.gz"
    layout = {"extends": "atr-ndjson", "columns": {"org_id": {"constant": "practice-1"}, "member_id": "patient_id"}}
    roster = read(path, layout)
    assert roster.counts.read == roster.counts.accepted > 50
    assert {code for _, code, _ in codes(roster)} == {"patient_missing"}
    assert read(path, {"extends": "atr-ndjson"}).state == "refused"
