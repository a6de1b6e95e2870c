"""ADT as FHIR, and Da Vinci Alerts as a source: validated by fhir.resources."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hiexchange import hl7v2
from hiexchange.encounters import encounter_events, read_alerts, to_fhir
from hiexchange.errors import DataError

RECEIVED = datetime(2030, 1, 1, tzinfo=UTC)


def valid(resources: list[dict[str, Any]]) -> list[str]:
    """Validate with fhir.resources (R4B) and return the types."""
    from fhir.resources.R4B import get_fhir_model_class

    for resource in resources:
        get_fhir_model_class(resource["resourceType"]).model_validate_json(json.dumps(resource))
    return [resource["resourceType"] for resource in resources]


@pytest.mark.parametrize("file", ["A01", "A02", "A03", "A04", "A06", "A07", "A08", "A11", "A13"])
def test_the_samples_become_valid_resources(shared: Path, file: str) -> None:
    message = hl7v2.parse((shared / f"data/hl7v2-adt/ADT-{file}-01.hl7").read_bytes())
    types = valid(to_fhir(message, received_at=RECEIVED))
    assert types[:2] == ["Patient", "Encounter"]


def test_fields_go_where_the_map_says(world: SimpleNamespace) -> None:
    message = world.adt(
        "A03", start="20260302100000-0600", end="20260304100000-0600", disposition="01", diagnoses=("I10",), vip="Y"
    )
    patient, encounter, condition = resources = to_fhir(hl7v2.parse(message), received_at=RECEIVED)
    assert valid(resources) == ["Patient", "Encounter", "Condition"]
    assert (patient["birthDate"], patient["gender"], patient["name"][0]["family"]) == ("1960-01-01", "male", "Zylstra")
    assert encounter["identifier"][0]["value"] == "V1"
    assert (encounter["status"], encounter["class"]["code"]) == ("finished", "IMP")
    assert encounter["period"] == {"start": "2026-03-02T16:00:00+00:00", "end": "2026-03-04T16:00:00+00:00"}
    assert encounter["participant"][0]["type"][0]["coding"][0]["code"] == "ATND"
    assert encounter["participant"][0]["individual"]["identifier"]["value"] == "1999999984"
    assert encounter["hospitalization"]["dischargeDisposition"]["coding"][0]["code"] == "home"
    assert encounter["diagnosis"][0]["condition"]["reference"] == f"Condition/{condition['id']}"
    assert encounter["meta"]["security"][0]["code"] == "VIP"


def test_the_next_message_of_a_visit_updates_the_same_resources(world: SimpleNamespace) -> None:
    first, second = (
        to_fhir(hl7v2.parse(world.adt(trigger, diagnoses=("I10",))), received_at=RECEIVED) for trigger in ("A01", "A08")
    )
    assert [item["id"] for item in first] == [item["id"] for item in second]


def test_a_merge_is_a_patient_alone(shared: Path) -> None:
    message = hl7v2.parse((shared / "data/hl7v2-adt/ADT-A40-01.hl7").read_bytes())
    assert valid(to_fhir(message, received_at=RECEIVED)) == ["Patient"]


def test_what_is_no_event_is_refused(world: SimpleNamespace) -> None:
    with pytest.raises(DataError):
        to_fhir(hl7v2.parse(world.adt("A31")), received_at=RECEIVED)


def alert(event: str = "notification-admit", **changes: Any) -> dict[str, Any]:
    encounter = {
        "resourceType": "Encounter",
        "id": "e1",
        "identifier": [{"value": "V1"}],
        "status": "in-progress",
        "class": {"code": "IMP"},
        "subject": {"reference": "urn:uuid:p"},
        "period": {"start": "2026-03-02T10:00:00-06:00"},
        "serviceProvider": {"reference": "Organization/h1"},
        "diagnosis": [{"condition": {"reference": "Condition/c1"}}],
        "meta": {"security": [{"system": "s", "code": "R"}]},
        **changes,
    }
    header = {"eventCoding": {"code": event}, "focus": [{"reference": "Encounter/e1"}]}
    patient = {"birthDate": "1960-01-01", "identifier": [{"system": "GH", "value": "100"}]}
    npi = {"system": "http://hl7.org/fhir/sid/us-npi", "value": "1999999976"}
    resources = [
        ("http://x/MessageHeader/m1", {"resourceType": "MessageHeader", "id": "m1", **header}),
        ("http://x/Encounter/e1", encounter),
        ("urn:uuid:p", {"resourceType": "Patient", "id": "p", **patient}),
        (
            "http://x/Organization/h1",
            {"resourceType": "Organization", "id": "h1", "name": "General", "identifier": [npi]},
        ),
        ("http://x/Condition/c1", {"resourceType": "Condition", "id": "c1", "code": {"coding": [{"code": "I10"}]}}),
    ]
    return {
        "resourceType": "Bundle",
        "id": f"b-{event}",
        "type": "message",
        "timestamp": "2026-03-02T16:05:00Z",
        "entry": [{"fullUrl": url, "resource": resource} for url, resource in resources],
    }


def test_a_notification_is_an_event(world: SimpleNamespace) -> None:
    persons = world.table([world.person("p1", "GH|100")])
    intake = read_alerts([json.dumps(alert()).encode()], received_at=world.RECEIVED, persons=persons)
    (row,) = intake.events.to_pylist()
    assert (row["trigger"], row["person_id"], row["visit_number"], row["facility_npi"]) == (
        "admit", "p1", "V1", "1999999976",
    )  # fmt: skip
    assert (row["labels"], row["source"], row["diagnoses"][0]["code"]) == (["R"], "alert", "I10")


def test_notifications_follow_the_same_machine(world: SimpleNamespace) -> None:
    end = {"start": "2026-03-02T10:00:00-06:00", "end": "2026-03-04T10:00:00-06:00"}
    discharge = alert("notification-discharge", status="finished", period=end)
    transfer = alert("notification-transfer")
    intake = read_alerts([alert(), discharge, transfer, alert()], received_at=world.RECEIVED)
    assert world.story(intake) == [("admit", None), ("transfer", None), ("discharge", None)]
    assert (intake.read, intake.duplicates) == (4, 1)
    register = read_alerts([alert(**{"class": {"code": "EMER"}})], received_at=world.RECEIVED)
    assert world.story(register) == [("register", None)]
    assert read_alerts([alert()], received_at=world.RECEIVED, history=intake.events).duplicates == 1


def test_two_senders_may_give_their_notifications_one_id(world: SimpleNamespace) -> None:
    other = alert(identifier=[{"value": "V9"}])
    header = next(item["resource"] for item in other["entry"] if item["resource"]["resourceType"] == "MessageHeader")
    header["source"] = {"endpoint": "https://other.example"}
    first = read_alerts([alert()], received_at=world.RECEIVED)
    intake = read_alerts([other], received_at=world.RECEIVED, history=first.events)
    assert (intake.duplicates, intake.events.num_rows) == (0, 1)


@pytest.mark.parametrize(
    ("bundle", "code"),
    [
        (b"{", "not_json"),
        ({"type": "batch"}, "not_alert"),
        (alert("notification-other"), "unsupported_trigger"),
        (alert(id="other") | {"entry": alert()["entry"][:1]}, "no_encounter"),
        (alert("notification-discharge", period={}) | {"timestamp": None}, "no_time"),
        (alert(period={"start": "2027-01-01T00:00:00Z"}), "future_time"),
    ],
)
def test_what_is_no_notification_is_quarantined(world: SimpleNamespace, bundle: Any, code: str) -> None:
    intake = read_alerts([bundle], received_at=world.RECEIVED)
    assert intake.issues["code"].to_pylist() == [code]
    assert (intake.read, intake.quarantined, intake.events.num_rows) == (1, 1, 0)


def test_a_notification_from_a_listed_facility(world: SimpleNamespace) -> None:
    listed = [{"facility_id": "general", "name": "General", "npi": "1999999976"}]
    (row,) = read_alerts([alert()], received_at=world.RECEIVED, facilities=listed).events.to_pylist()
    assert (row["facility_id"], row["flags"]) == ("general", [])


def test_a_label_on_a_diagnosis_is_a_label_of_the_event(world: SimpleNamespace) -> None:
    bundle = alert()
    bundle["entry"][4]["resource"]["meta"] = {"security": [{"code": "PSY"}]}
    (row,) = read_alerts([bundle], received_at=world.RECEIVED).events.to_pylist()
    assert row["labels"] == ["PSY", "R"]


def test_a_forwarded_notification_is_of_who_sent_it_first(world: SimpleNamespace) -> None:
    bundle = alert(serviceProvider=None)
    header = bundle["entry"][0]["resource"]
    header["sender"], header["responsible"] = {"reference": "Organization/other-hie"}, {"reference": "Organization/h1"}
    (row,) = read_alerts([bundle], received_at=world.RECEIVED).events.to_pylist()
    assert (row["facility_id"], row["facility_name"]) == ("h1", "General")


def test_all_sources_make_one_table(world: SimpleNamespace) -> None:
    events = encounter_events(
        received_at=world.RECEIVED, adt=[world.adt("A01", "20260302120000+0000")], alerts=[alert()]
    )
    assert events["source"].to_pylist() == ["hl7v2", "alert"]
    assert encounter_events(received_at=world.RECEIVED).num_rows == 0
