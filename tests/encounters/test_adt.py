"""ADT messages as events: what is taken, flagged, quarantined; every fault of the reference's list."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from hiexchange import hl7v2
from hiexchange.encounters import AdtSettings, Identities, Intake, RawMessage, from_adt, joined_people, read_adt
from hiexchange.encounters.adt import collect
from hiexchange.errors import ConfigError

SECRET = "Zylstra"


def one(intake: Intake) -> dict[str, Any]:
    (row,) = intake.events.to_pylist()
    return row


def codes(intake: Intake) -> list[str]:
    return intake.issues["code"].to_pylist()


def test_lf_messages_keep_their_patient(world: SimpleNamespace) -> None:
    message = world.adt("A01").replace(b"\r", b"\n")
    assert one(world.read(message))["patient_id_sent"] == "100"


def test_the_same_message_with_other_line_ends_is_a_duplicate(world: SimpleNamespace) -> None:
    message = world.adt("A01")
    assert world.read(message, message.replace(b"\r", b"\r\n")).duplicates == 1


def test_a_control_id_of_two_senders_is_two_messages(world: SimpleNamespace) -> None:
    intake = world.read(world.adt("A01", control="1", sender="A"), world.adt("A01", control="1", sender="B"))
    assert (intake.events.num_rows, intake.duplicates, codes(intake)) == (2, 0, [])


def test_a_missing_or_reused_control_id_is_taken_with_a_warning(world: SimpleNamespace) -> None:
    missing = world.adt("A01", control="CTRL").replace(b"|CTRL|", b"||")
    assert codes(world.read(missing, missing)) == ["no_control_id"]
    assert world.read(missing, missing).duplicates == 1
    reused = world.read(world.adt("A01", control="1"), world.adt("A03", "20260303100000-0600", control="1"))
    assert (codes(reused), reused.events.num_rows) == (["control_id_reused"], 2)


@pytest.mark.parametrize(
    ("change", "code", "column"),
    [
        ((b"ADT^A01", b"ORU^R01"), "unsupported_trigger", "MSH-9.2"),
        ((b"PID|1||100^^^GH^MR", b"PID|1||"), "no_patient", "PID-3"),
        ((b"\rPID|", b"\rZPD|"), "no_patient", "PID"),
        ((b"|V1\r", b"|\r"), "no_visit", "PV1-19"),
        ((b"20260302100000-0600", b"202"), "no_time", "EVN-2"),
        ((b"20260302100000-0600", b"20260402100000-0600"), "future_time", "EVN-2"),
        ((b"MSH|", b"MSX|"), "not_hl7", None),
    ],
)
def test_what_cannot_be_an_event_is_quarantined_by_place_not_by_content(
    world: SimpleNamespace, change: tuple[bytes, bytes], code: str, column: str | None
) -> None:
    broken = world.adt("A01", visit="V1").replace(*change)
    intake = world.read(RawMessage(broken, "inbox-1.hl7", 7))
    (issue,) = intake.issues.to_pylist()
    assert (issue["code"], issue["column"], issue["file"], issue["row_no"]) == (code, column, "inbox-1.hl7", 7)
    assert SECRET not in str(issue) and intake.quarantined == 1


def test_a_merge_without_the_ending_id_is_quarantined(world: SimpleNamespace) -> None:
    assert codes(world.read(world.adt("A40", old=""))) == ["no_merge_id"]


def test_times_without_offset_take_the_facilitys_zone_and_say_so(world: SimpleNamespace) -> None:
    message = world.adt("A01", "20260302233000")
    row = one(world.read(message, zones={"*": "America/Chicago"}))
    assert (row["event_at"], row["event_on"]) == (datetime(2026, 3, 3, 5, 30, tzinfo=UTC), date(2026, 3, 2))
    assert "naive_time" in row["flags"]
    assert one(world.read(message))["event_at"] == datetime(2026, 3, 2, 23, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "instant", "flag"),
    [
        ("20260308023000", datetime(2026, 3, 8, 8, 30, tzinfo=UTC), "dst_gap"),
        ("20251102013000", datetime(2025, 11, 2, 6, 30, tzinfo=UTC), "dst_overlap"),
    ],
)
def test_times_that_do_not_exist_or_exist_twice(
    world: SimpleNamespace, text: str, instant: datetime, flag: str
) -> None:
    row = one(world.read(world.adt("A01", text), zones={"GENERAL": "America/Chicago"}))
    assert row["event_at"] == instant and flag in row["flags"]


def test_a_utc_stamp_belongs_to_the_facilitys_day(world: SimpleNamespace) -> None:
    row = one(world.read(world.adt("A01", "20260303030000+0000"), zones={"GENERAL": "America/Chicago"}))
    assert row["event_on"] == date(2026, 3, 2)


def test_an_unusable_class_is_flagged(world: SimpleNamespace) -> None:
    row = one(world.read(world.adt("A01", class_="?")))
    assert row["class"] is None and "unknown_class" in row["flags"]


@pytest.mark.parametrize(
    "changes", [{"processing": "T"}, {"processing": "D"}, {"name": ("ZZTEST", "ONE")}, {"name": ("zzz", "x")}]
)
def test_test_patients_are_swallowed_and_counted(world: SimpleNamespace, changes: dict[str, Any]) -> None:
    row = one(world.read(world.adt("A01", **changes)))
    assert (row["material"], row["swallowed_reason"]) == (False, "test_patient")


def test_newborns_are_flagged_and_keep_their_own_visit(world: SimpleNamespace) -> None:
    intake = world.read(
        world.adt("A01", patient="100", visit="V1"), world.adt("A01", patient="101", visit="V2", name=("BABY BOY", "X"))
    )
    assert ["newborn" in row["flags"] for row in intake.events.to_pylist()] in ([False, True], [True, False])


def test_facilities_are_known_by_any_of_their_names(world: SimpleNamespace) -> None:
    listed = [{"facility_id": "h1", "name": "General", "npi": "1999999976", "codes": ["GENERAL"]}]
    row = one(world.read(world.adt("A01"), facilities=listed))
    assert (row["facility_id"], row["facility_npi"], row["flags"]) == ("h1", "1999999976", [])
    unknown = one(world.read(world.adt("A01", sender="ELSEWHERE"), facilities=listed))
    assert unknown["facility_id"] == "ELSEWHERE" and "unknown_facility" in unknown["flags"]
    nameless = world.adt("A01").replace(b"|APP|GENERAL|", b"|APP||").replace(b"3W^^^GENERAL", b"3W")
    assert one(world.read(nameless))["facility_id"] == "unknown"


def test_a_facility_npi_may_come_with_the_event(world: SimpleNamespace) -> None:
    message = world.adt("A01")
    told = message.replace(b"\rPID", b"|||||GH^1999999976^NPI\rPID", 1)
    assert one(world.read(message))["facility_npi"] is None
    assert one(world.read(told))["facility_npi"] == "1999999976"


def test_z_segments_and_phi_in_the_header_do_no_harm(world: SimpleNamespace) -> None:
    message = world.adt("A01", extra=(("ZPI", "1", ("a", ("b", "c"))), ("ZZ9", "x")))
    leaky = message.replace(b"|HX|HIE|", f"|{SECRET}|HIE|".encode()).replace(b"|P|2.5.1", f"|P|2.5.1|{SECRET}".encode())
    intake = world.read(leaky)
    assert intake.events.num_rows == 1
    assert SECRET not in str(intake.events.to_pylist())


def test_labels_come_from_every_place_that_restricts(world: SimpleNamespace) -> None:
    message = world.adt(
        "A01",
        vip="Y",
        extra=(("ARV", "1", "A", "DEM"), ("ARV", "2", "D", "LOC"), ("PD1", *[None] * 11, "Y"), ("ARV", "3", "A")),
    )
    assert one(world.read(message))["labels"] == ["ARV:DEM", "ARV:UNSPECIFIED", "R", "VIP"]


def test_patients_are_resolved_by_id_and_checked_by_birth_date(world: SimpleNamespace) -> None:
    persons = world.table(
        [world.person("p1", "100"), world.person("p2", "GH|200"), world.person("p3", "300"), world.person("p4", "300")]
    )
    found = {
        patient: one(world.read(world.adt("A01", patient=patient, born=born), persons=persons))
        for patient, born in (("100", "19600101"), ("200", "19600101"), ("300", "19600101"), ("999", "19600101"))
    }
    assert {patient: row["person_id"] for patient, row in found.items()} == {
        "100": "p1", "200": "p2", "300": None, "999": None,
    }  # fmt: skip
    conflict = world.read(world.adt("A01", patient="100", born="19700101"), persons=persons)
    assert one(conflict)["person_id"] is None and codes(conflict) == ["identity_conflict"]


@pytest.mark.parametrize(
    ("index", "sent", "expected", "code"),
    [
        ({"mrn": "urn:other|100"}, {}, "p1", None),
        ({"mrn": "urn:other|100"}, {"name": ("Else", "Who")}, None, "identity_unproven"),
        ({"mrn": "urn:other|100"}, {"name": ("ZYLSTRA", "Anna")}, "p1", None),
        ({"mrn": "urn:other|100"}, {"born": ""}, None, "identity_unproven"),
        ({"mrn": "urn:other|100"}, {"born": "1960"}, None, "identity_unproven"),
        ({"mrn": "100", "birth_date": None}, {}, None, "identity_unproven"),
        ({"mrn": None, "member_ids": ["payer|100"]}, {"name": ("Else", "Who")}, None, "identity_unproven"),
        ({"mrn": "GH|100"}, {"born": ""}, "p1", None),
        ({"mrn": "GH|100"}, {"born": "1970-01-01"}, None, "identity_conflict"),
        ({"mrn": "GH|100"}, {"born": "1960-01-01"}, "p1", None),
        ({"mrn": "GH|100"}, {"born": "1970"}, None, "identity_conflict"),
        ({"mrn": "GH|100", "birth_date": "1970"}, {}, None, "identity_conflict"),
    ],
)
def test_a_number_under_another_namespace_is_taken_only_where_birth_date_and_name_agree(
    world: SimpleNamespace, index: dict[str, Any], sent: dict[str, Any], expected: str | None, code: str | None
) -> None:
    intake = world.read(world.adt("A01", patient="100", **sent), persons=world.table([world.person("p1", "") | index]))
    assert one(intake)["person_id"] == expected
    assert codes(intake) == ([code] if code else [])


def test_merges_name_the_records_that_are_one_person(world: SimpleNamespace) -> None:
    persons = world.table(
        [
            world.person("pA", "GH|100"),
            world.person("pB", "urn:other|200"),
            world.person("pC", "GH|300"),
            world.person("twin", "urn:other|400", "1961-01-01"),
        ]
    )
    merges = [
        world.adt("A40", patient="200", old="100"),
        world.adt("A40", patient="300", old="200"),
        world.adt("A40", patient="300", old="400"),
        world.adt("A40", patient="300", old="999"),
    ]
    events = world.read(world.adt("A01", patient="100"), *merges, persons=persons).events
    assert joined_people(events, persons) == [("pA", "pC"), ("pB", "pC")]
    assert joined_people(events.slice(0, 0), persons) == []


def test_a_message_under_an_ended_number_must_name_the_survivor(world: SimpleNamespace) -> None:
    """Twins joined in error: what still comes under the one's own number is not the other's."""
    persons = world.table([world.person("twin", "GH|100"), world.person("pC", "GH|300") | {"first_name": "Odo"}])
    merge = world.adt("A40", patient="300", old="100")
    sent = {"Odo": "pC", "ODO": "pC", "Una": None, "": "pC"}
    for given, person in sent.items():
        late = world.adt("A01", patient="100", name=("Zylstra", given), visit="V9")
        events = world.read(merge, late, persons=persons).events.to_pylist()
        (row,) = (row for row in events if row["trigger"] == "admit")
        assert row["person_id"] == person, given
        assert ("merge_unproven" in row["flags"]) is (person is None)


def test_diagnoses_are_read_once_each_and_deletions_left_out(world: SimpleNamespace) -> None:
    message = world.adt(
        "A01", diagnoses=("I10", "I10", "E11.9"), extra=(("DG1", "9", "I10", "Z99", *[None] * 17, "D"),)
    )
    assert [(item["system"], item["code"]) for item in one(world.read(message))["diagnoses"]] == [
        ("http://hl7.org/fhir/sid/icd-10-cm", "I10"),
        ("http://hl7.org/fhir/sid/icd-10-cm", "E11.9"),
    ]


def test_a_visit_without_number_is_told_by_patient_and_admission(world: SimpleNamespace) -> None:
    start = "20260302100000-0600"
    intake = world.read(
        world.adt("A01", visit="", start=start), world.adt("A03", visit="", start=start, end="20260304100000-0600")
    )
    assert len(set(intake.events["visit_number"].to_pylist())) == 1
    assert "derived_visit_number" in one(world.read(world.adt("A01", visit="", start=start)))["flags"]


def test_a_folder_is_read_in_name_order_with_the_listeners_times(world: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "20260305T120000.000001Z-1.hl7").write_bytes(world.adt("A03", "20260304100000-0600"))
    (tmp_path / "20260304T120000.000001Z-1.hl7").write_bytes(world.adt("A01") + world.adt("A08", "20260303100000-0600"))
    (tmp_path / ".hidden").write_bytes(b"junk")
    (tmp_path / "later.part").write_bytes(b"junk")
    table = from_adt(tmp_path, received_at=world.RECEIVED)
    assert table["trigger"].to_pylist() == ["admit", "update", "discharge"]
    assert table["source_line"].to_pylist() == [1, 2, 1]
    assert table["received_at"].to_pylist()[2] == datetime(2026, 3, 5, 12, 0, 0, 1, tzinfo=UTC)


def test_the_samples_of_v2_to_fhir_are_accounted_for(shared: Path) -> None:
    intake = read_adt(shared / "data/hl7v2-adt", received_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert intake.read == intake.events.num_rows + intake.quarantined + intake.duplicates == 12
    triggers = intake.events["trigger_code"].to_pylist()
    # The samples' EVN-2 lies in 2029: those that have no other time are refused as future.
    assert {"A01", "A04", "A40"} <= set(triggers)
    assert set(intake.issues["code"].to_pylist()) <= {"future_time", "control_id_reused"}


def test_every_message_is_counted_once(world: SimpleNamespace) -> None:
    good = world.adt("A01")
    intake = world.read(good, good, b"junk", world.adt("A31"), world.adt("A03", "20260303100000-0600"))
    assert (intake.read, intake.events.num_rows, intake.quarantined, intake.duplicates) == (5, 2, 2, 1)


def test_custom_delimiters_make_no_difference(world: SimpleNamespace) -> None:
    plain = hl7v2.parse(world.adt("A01"))
    marks = hl7v2.Delimiters("*", ":", "!", "%", ";")
    swapped = str.maketrans("|^~\\&", "*:!%;")
    text = "\r".join(str(segment).translate(swapped) for segment in plain.segments)
    row = one(world.read(text.encode()))
    assert hl7v2.parse(text).delimiters == marks and row["patient_id_sent"] == "100"


def test_a_number_is_its_assigning_authoritys_by_whatever_name(world: SimpleNamespace) -> None:
    """Two hospitals number from one upwards; without birth date and name only the namespace says whose 100 it is."""
    persons = world.table([world.person("pA", ""), world.person("pB", "")])
    identifiers = pa.table(
        {
            "person_id": ["pA", "pB", "pB"],
            "system": ["http://general.example/mrn", "urn:oid:2.16.840.1.5", "http://pay.example"],
            "value": ["100", "100", "100"],
        }
    )
    named = {"general": ["http://general.example/mrn", "GH"], "county": ["2.16.840.1.5"]}

    def whose(namespace: tuple[str, ...], *, born: str = "", authorities: Any = named) -> tuple[str | None, list[str]]:
        bare = world.adt("A01", patient="100", born=born, name=("Else", "Somebody")).replace(
            b"^^^GH^MR", b"^^^" + "&".join(namespace).encode() + b"^MR"
        )
        people = Identities.of(persons, identifiers=identifiers, authorities=authorities)
        (row,) = collect(
            [RawMessage(bare, received_at=world.RECEIVED)], AdtSettings(identities=people)
        ).events.to_pylist()
        return row["person_id"], [flag for flag in row["flags"] if flag.startswith("identity")]

    assert whose(("GH",)) == ("pA", [])
    assert whose(("", "2.16.840.1.5", "ISO")) == ("pB", [])
    assert whose(("COUNTY-ADT", "2.16.840.1.5", "ISO")) == ("pB", []), (
        "the universal id counts where the name is nobody's"
    )
    assert whose(("elsewhere",)) == (None, [])
    assert whose(("GH",), born="19700101") == (None, ["identity_conflict"]), "checked by birth date all the same"
    assert whose(("GH",), authorities=None) == (None, [])
    with pytest.raises(ConfigError, match="general and county, go by the name GH"):
        Identities.of(persons, authorities={"general": ["GH"], "county": ["GH"]})
