"""After an A40 the members of the record that ended are the survivor's: at once, and no further than the merge holds."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hiexchange import config, pipeline, tables
from hiexchange.encounters import AdtSettings, Identities, RawMessage, read_adt
from hiexchange.encounters.adt import collect
from hiexchange.lake import Lake
from hiexchange.matching import PERSON_XREF
from hiexchange.pipeline import RunResult
from hiexchange.pipeline.inputs import identities_of
from hiexchange.pipeline.merges import Merges
from hiexchange.views import view

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
CONFIGURATION = """
output = "out"
known_at = "{known_at}"
[events]
adt = "adt"
[routing]
consents = "consents.csv"
[[rosters]]
path = "roster.csv"
layout = "roster.toml"
as_of = 2026-01-01
[[subscriptions]]
id = "clinic"
npi = ["1003000126"]
[[subscriptions.channels]]
id = "now"
url = "clinic"
format = "csv"
cadence = "immediate"
"""
LAYOUT = """
name = "plain"
version = "1"
[list]
payer_id = "payer-a"
mode = "full"
[columns]
member_id = { source = "ID", required = true }
member_id_system = { constant = "urn:a" }
first_name = "FIRST"
last_name = "LAST"
birth_on = { source = "DOB", format = "%Y-%m-%d" }
address_line = "STREET"
zip = "ZIP"
phone = "PHONE"
provider_npi = "NPI"
"""


class Site:
    """A lake with an old and a new record of patients, and one member, who is the old record's."""

    def __init__(self, folder: Path, **new: str) -> None:
        self.folder = folder
        (folder / "adt").mkdir()
        (folder / "in").mkdir()
        face = {"first": "Ada", "last": "Lovelace", "birth": "1960-01-01"}
        patients = [self.patient("old", "1", **face), self.patient("new", "2", **face | {"last": "Lovelase"} | new)]
        (folder / "in" / "Patient.ndjson").write_text("".join(json.dumps(one) + "\n" for one in patients))
        self.lake = Lake(folder / "out" / "lake")
        self.lake.ingest(folder / "in")
        header = "ID,FIRST,LAST,DOB,STREET,ZIP,PHONE,NPI\n"
        (folder / "roster.csv").write_text(
            header + "m1,Ada,Lovelace,1960-01-01,12 Oak Street,72032,5015550147,1003000126\n"
        )
        (folder / "roster.toml").write_text(LAYOUT)
        (folder / "consents.csv").write_text("person_id,scope,decision\n")
        self.number = 0

    @staticmethod
    def patient(key: str, number: str, *, first: str, last: str, birth: str) -> dict[str, Any]:
        home = {"line": ["12 Oak Street" if key == "old" else "9 Elm Road"], "postalCode": "72032"}
        return {
            "resourceType": "Patient",
            "id": key,
            "identifier": [{"type": {"coding": [{"code": "MR"}]}, "system": "HOSP", "value": number}],
            "name": [{"use": "official", "family": last, "given": [first]}],
            "birthDate": birth,
            "address": [home],
            "telecom": [{"system": "phone", "value": "501-555-0147" if key == "old" else "501-555-9999"}],
        }

    def send(self, trigger: str, patient: str, *, visit: str = "", birth: str = "19600101", ended: str = "") -> None:
        self.number += 1
        at = f"2026010510{self.number:02}00+0000"
        file = self.folder / "adt" / f"{self.number:03}.hl7"
        file.write_text(
            f"MSH|^~\\&|ADT|HOSP|HX|HIE|{at}||ADT^{trigger}|C{self.number}|P|2.5.1\rEVN|{trigger}|{at}\r"
            f"PID|1||{patient}^^^HOSP^MR||Lovelace^Ada||{birth}\r"
            + (f"MRG|{ended}^^^HOSP^MR\r" if ended else f"PV1|1|I{'|' * 17}{visit}\r")
        )
        os.utime(file, (NOON.timestamp(), NOON.timestamp()))

    def run(self, *, days: int = 0, **more: Any) -> RunResult:
        text = CONFIGURATION.replace("{known_at}", (NOON + timedelta(days=days)).isoformat())
        (self.folder / "hiexchange.toml").write_text(text)
        result = pipeline.run(config.load(self.folder / "hiexchange.toml"), **more)
        assert result.identity_holds
        return result


def link(result: RunResult) -> tuple[str | None, str]:
    (row,) = result.links.to_pylist()
    return row["person_id"], row["band"]


def got(result: RunResult) -> dict[str, str]:
    """Return the state of the notice of each visit."""
    visits = {row["event_key"]: row["visit_number"] for row in result.routing.events.to_pylist()}
    return {visits[row["event_key"]]: row["state"] for row in result.deliveries.to_pylist()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_merge_moves_links_in_the_run_that_hears_of_it_and_back_when_it_is_taken_back(site: Site) -> None:
    site.send("A01", "1", visit="V1")
    first = site.run()
    assert link(first) == ("old", "auto") and got(first) == {"V1": "acked"}
    site.send("A40", "2", ended="1")
    site.send("A01", "2", visit="V2")
    site.send("A01", "1", visit="V3")  # a system that has not heard of the merge yet
    second = site.run(days=1)
    assert link(second) == ("new", "auto")
    assert got(second) == {"V1": "acked", "V2": "acked", "V3": "acked"}
    assert second.misdirected.num_rows == 0, "a merge is no wrong link"
    third = site.run(days=2)
    assert third.lake.tables() == second.lake.tables(), "said once"
    assert third.deliveries.num_rows == second.deliveries.num_rows and link(third) == ("new", "auto")
    undone = {"person_id": "old", "survivor_id": None, "known_from": NOON + timedelta(days=2), "source": "j.doe"}
    site.lake.append(PERSON_XREF.name, PERSON_XREF.from_rows([undone]))
    site.send("A01", "2", visit="V4")
    parted = site.run(days=3)
    assert link(parted) == ("old", "auto") and "V4" not in got(parted)
    visits = {row["event_key"]: row["visit_number"] for row in parted.routing.events.to_pylist()}
    assert {visits[key] for key in parted.misdirected["event_key"].to_pylist()} == {"V2", "V3"}, (
        "what was the old record's own was right"
    )


def said(lake: Lake, *pairs: tuple[str, str], start: int = 0) -> Merges:
    """Record that the hospital joined these numbers, and return what follows from all that is recorded."""
    persons = tables.check(view("patient_demographics", lake), tables.PERSON)
    known_at = NOON + timedelta(days=start)
    messages = [
        f"MSH|^~\\&|ADT|HOSP|HX|HIE|202601051{start}0{number}||ADT^A40|{start}-{number}|P|2.5.1\rEVN|A40|202601051{start}0{number}\r"
        f"PID|1||{new}^^^HOSP^MR||Lovelace^Ada||19600101\rMRG|{old}^^^HOSP^MR\r".encode()
        for number, (old, new) in enumerate(pairs)
    ]
    lake.append("encounter_event", read_adt(messages, received_at=known_at, persons=persons).events)
    merges = Merges.of(lake, persons, known_at=known_at)
    lake.append(PERSON_XREF.name, merges.news)
    return merges


def test_a_merge_is_known_by_the_assigning_authority_of_its_numbers(tmp_path: Path) -> None:
    """The two records differ in birth date by a slip, so that only the namespace says whose numbers these are."""
    site = Site(tmp_path, birth="1960-01-02")
    assert said(site.lake, ("1", "2")).same == ()
    settings = config.parse({"events": {"authorities": {"general": ["HOSP"]}}})
    persons = tables.check(view("patient_demographics", site.lake), tables.PERSON)
    people = identities_of(settings, site.lake, persons)
    message = b"MSH|^~\\&|ADT|HOSP|HX|HIE|20260105||ADT^A40|1|P|2.5.1\rEVN|A40|20260105\rPID|1||2^^^HOSP^MR\rMRG|1^^^HOSP^MR\r"
    adt = AdtSettings(identities=people or Identities())
    events = collect([RawMessage(message, received_at=NOON)], adt).events
    merges = Merges.of(Lake(tmp_path / "none"), persons, known_at=NOON, messages=events, identities=people)
    assert merges.merged == {"old": "new"}


def test_a_merge_of_records_that_contradict_each_other_is_followed_by_nobody(tmp_path: Path) -> None:
    site = Site(tmp_path, first="Eva", last="Lovelace")
    merges = said(site.lake, ("1", "2"))
    assert (merges.merged, merges.doubtful, merges.news.num_rows) == ({}, (("old", "new"),), 0)
    assert merges.same == (("old", "new"),), "what one of them refused is refused for both all the same"


def test_a_merge_turned_round_is_no_circle_and_said_once(site: Site) -> None:
    assert said(site.lake, ("1", "2")).merged == {"old": "new"}
    again = said(site.lake, ("2", "1"), start=1)
    assert (again.merged, again.news.num_rows) == ({"old": "new"}, 0)


def test_a_merge_is_remembered_when_the_record_has_left_the_index_and_as_people_left_it(site: Site) -> None:
    said(site.lake, ("1", "2"))
    nobody = Merges.of(site.lake, tables.PERSON.empty(), known_at=NOON + timedelta(days=1))
    assert (nobody.merged, nobody.same) == ({"old": "new"}, (("old", "new"),))
    undone = {"person_id": "old", "survivor_id": None, "known_from": NOON + timedelta(hours=1), "source": "j.doe"}
    site.lake.append(PERSON_XREF.name, PERSON_XREF.from_rows([undone]))
    parted = said(site.lake, start=2)
    assert (parted.merged, parted.news.num_rows, parted.same) == ({}, 0, (("old", "new"),))


def test_a_nameless_record_bridges_no_two_people(tmp_path: Path) -> None:
    site = Site(tmp_path, first="Eva", last="Lovelace")
    (tmp_path / "more").mkdir()
    blank = site.patient("blank", "3", first="Baby Girl", last="Lovelace", birth="1960-01-01")
    (tmp_path / "more" / "Patient.ndjson").write_text(json.dumps(blank) + "\n")
    site.lake.ingest(tmp_path / "more")
    merges = said(site.lake, ("1", "3"), ("3", "2"))
    assert (merges.merged, merges.doubtful) == ({"blank": "new"}, (("old", "new"),))
