"""What may change between two runs, and what it must do to notices that wait and to those that went out."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from hiexchange import config, pipeline
from hiexchange._files import folder_lock
from hiexchange.attribution import DISPUTE, raise_dispute
from hiexchange.cli.run import exit_code
from hiexchange.encounters import joined_people, read_adt
from hiexchange.errors import HIExchangeError, JobLocked, LakeError
from hiexchange.events import Warned
from hiexchange.matching import DECISION
from hiexchange.pipeline import RunResult
from hiexchange.pipeline.inputs import Rules, rules_of
from hiexchange.routing import Policy, load_subscriptions
from hiexchange.tables import MEMBER, PERSON

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def again(site: Any, **more: Any) -> RunResult:
    """Run a week later, when everything that waited is due."""
    site.edit("2026-01-05", "2026-01-12")
    return pipeline.run(config.load(site.configuration), **more)


def person_of(result: RunResult, *states: str) -> str:
    """Return a person about whom there are notices in every one of these states."""
    people = dict(
        zip(
            result.routing.events["event_key"].to_pylist(),
            result.routing.events["person_id"].to_pylist(),
            strict=True,
        )
    )
    found: dict[str, set[str]] = {}
    for row in result.deliveries.to_pylist():
        found.setdefault(people[row["event_key"]], set()).add(row["state"])
    return next(person for person, seen in sorted(found.items()) if set(states) <= seen)


def notices(result: RunResult, person: str) -> dict[str, tuple[str, str | None]]:
    """Return state and reason of each notice about a person."""
    events = result.routing.events
    keys = set(events.filter(pc.equal(events["person_id"], person))["event_key"].to_pylist())
    return {
        row["delivery_id"]: (row["state"], row["reason"])
        for row in result.deliveries.to_pylist()
        if row["event_key"] in keys
    }


def test_a_link_that_a_person_takes_back_stops_what_waits_and_lists_what_went_out(site: Any) -> None:
    first = pipeline.run(config.load(site.configuration))
    people = {person_of(first, "pending"), person_of(first, "acked")}
    before = {key: state for person in people for key, state in notices(first, person).items()}
    wrong = [row for row in first.links.to_pylist() if row["person_id"] in people and row["band"] == "auto"]
    said = {"verdict": "different", "decided_at": NOON, "decided_by": "reviewer"}
    first.lake.append(
        "match_decision",
        DECISION.from_rows({"member_key": row["member_key"], "person_id": row["person_id"], **said} for row in wrong),
    )
    heard: list[Any] = []
    second = again(site, on_event=heard.append)
    after = {key: state for person in people for key, state in notices(second, person).items()}
    out = {key for key, (state, _) in before.items() if state == "acked"}
    assert out and out != set(before)
    assert {after[key] for key in before if key not in out} == {("held", "taken_back")}
    assert set(second.misdirected["delivery_id"].to_pylist()) == out
    assert any(isinstance(event, Warned) and "taken back" in event.message for event in heard)
    assert second.as_dict()["misdirected"] == second.misdirected.num_rows
    assert second.lake.tables()["misdirected_disclosure"] == second.misdirected.num_rows
    page = (second.output / "report.html").read_text()
    assert f"{second.misdirected.num_rows} notices had gone out under a link that this run took back" in page
    third = pipeline.run(config.load(site.configuration))
    assert third.misdirected.num_rows == 0, "listed once"
    assert third.lake.tables() == second.lake.tables()
    assert second.identity_holds and third.identity == second.identity


def test_an_opt_out_stops_what_waits(site: Any) -> None:
    first = pipeline.run(config.load(site.configuration))
    person = person_of(first, "pending")
    folder = Path(site.configuration).parent
    (folder / "consents.csv").write_text(f"person_id,scope,decision\n{person},exchange,deny\n")
    site.edit("[export]", '[routing]\nconsents = "consents.csv"\n\n[export]')
    before, after = notices(first, person), notices(again(site), person)
    assert {after[key] for key, (state, _) in before.items() if state == "pending"} == {("held", "opted_out")}


def test_what_was_held_by_mistake_goes_when_the_mistake_is_mended(site: Any) -> None:
    """A night without one subscription: late, not lost, and once."""
    first = pipeline.run(config.load(site.configuration))
    whole = Path(site.configuration).read_text()
    start = whole.index('[[subscriptions]]\nid = "practice-1"')
    Path(site.configuration).write_text(whole[:start] + whole[whole.index("[[subscriptions]]", start + 1) :])
    without = again(site)
    waiting = {row["delivery_id"] for row in first.deliveries.to_pylist() if row["state"] == "pending"}
    mine = {row["delivery_id"] for row in first.deliveries.to_pylist() if row["subscriber_id"] == "practice-1"}
    states = {row["delivery_id"]: row["state"] for row in without.deliveries.to_pylist()}
    assert {states[key] for key in waiting & mine} == {"held"}
    Path(site.configuration).write_text(whole.replace("2026-01-05", "2026-01-19"))
    mended = pipeline.run(config.load(site.configuration))
    states = {row["delivery_id"]: row["state"] for row in mended.deliveries.to_pylist()}
    assert {states[key] for key in waiting & mine} == {"acked"}
    assert mended.identity_holds and mended.deliveries.num_rows == first.deliveries.num_rows
    assert mended.identity["held"] == first.identity["held"]


def test_an_opt_in_exchange_sends_nothing_without_consent(site: Any) -> None:
    site.edit("[export]", '[routing]\nconsent_default = "deny"\n\n[export]')
    result = pipeline.run(config.load(site.configuration))
    assert result.deliveries.num_rows == 0
    assert result.identity["held"] and result.identity_holds


def test_not_my_patient_stops_what_waits(site: Any) -> None:
    first = pipeline.run(config.load(site.configuration))
    person = person_of(first, "pending")
    members = {row["member_key"] for row in first.links.to_pylist() if row["person_id"] == person}
    rows = first.attribution.filter(pc.is_in(first.attribution["member_key"], value_set=pa.array(sorted(members))))
    disputed = raise_dispute(rows, "not_my_patient", raised_by="clinic", raised_on=NOON.date())
    first.lake.append(
        DISPUTE.name, DISPUTE.from_rows({row["dispute_id"]: row for row in disputed.to_pylist()}.values())
    )
    before, after = notices(first, person), notices(again(site), person)
    assert {after[key][0] for key, (state, _) in before.items() if state == "pending"} == {"held"}


def test_messages_of_an_inbox_become_notices_once(site: Any) -> None:
    first = pipeline.run(config.load(site.configuration))
    inbox = Path(site.configuration).parent / "inbox"
    inbox.mkdir()
    person = next(
        row for row in first.persons.to_pylist() if row["mrn"] and row["person_id"] == person_of(first, "acked")
    )
    mrn = person["mrn"].rpartition("|")[2]
    at = NOON + timedelta(days=6)
    (inbox / "a01.hl7").write_text(
        f"MSH|^~\\&|ADT|HOSP|HX|HX|{at:%Y%m%d%H%M%S}+0000||ADT^A01|C1|P|2.5.1\r"
        f"PID|1||{mrn}^^^HOSP^MR||{person['last_name']}^Y||{(person['birth_date'] or '').replace('-', '')}|F\r"
        f"PV1|1|I|W^1^1^HOSP||||||||||||||||V77|||||||||||||||||||||||||{at:%Y%m%d%H%M%S}+0000\r"
    )
    (inbox / "broken.hl7").write_text("PID|1||\r")
    for file in inbox.iterdir():
        os.utime(file, (NOON.timestamp(), NOON.timestamp()))
    site.edit("[export]", '[events]\nadt = "inbox"\n\n[export]')
    second = again(site)
    fresh = second.routing.events.filter(pc.equal(second.routing.events["source"], "hl7v2"))
    assert fresh["person_id"].to_pylist() == [person["person_id"]]
    assert "encounters" in second.issues["stage"].to_pylist()
    assert second.identity["events"] == first.identity["events"] + 1 and second.identity_holds
    third = pipeline.run(config.load(site.configuration))
    assert third.lake.tables() == second.lake.tables()
    assert third.deliveries.num_rows == second.deliveries.num_rows
    assert third.lake.table("inbox_file").to_arrow()["name"].to_pylist() == ["a01.hl7"], "not parsed again"
    assert "encounters" in third.issues["stage"].to_pylist(), "what is refused is told at every run"


def test_a_restriction_that_comes_later_holds_what_waits(site: Any) -> None:
    first = pipeline.run(config.load(site.configuration))
    person = next(
        row for row in first.persons.to_pylist() if row["mrn"] and row["person_id"] == person_of(first, "pending")
    )
    inbox = site.configuration.parent / "adt"
    inbox.mkdir()
    with site.configuration.open("a") as file:
        file.write('\n[events]\nadt = "adt"\n')

    def send(trigger: str, minute: str, vip: str = "") -> Any:
        (inbox / f"{minute}.hl7").write_text(
            f"MSH|^~\\&|ADT|HOSP|HX|HIE|2026010511{minute}||ADT^{trigger}|{minute}|P|2.5.1\rEVN|{trigger}|2026010511{minute}\r"
            f"PID|1||{person['mrn'].rpartition('|')[2]}^^^HOSP^MR||{person['last_name']}^Y||{person['birth_date'].replace('-', '')}|F\r"
            f"PV1|1|I{'|' * 14}{vip}|||V-1\r"
        )
        return pipeline.run(config.load(site.configuration))

    admitted = send("A01", "00")
    (key,) = (row["event_key"] for row in admitted.routing.events.to_pylist() if row["visit_number"] == "V-1")
    waits = admitted.deliveries.filter(pc.equal(admitted.deliveries["event_key"], key))
    assert set(waits["state"].to_pylist()) == {"pending"}
    restricted = send("A08", "30", vip="Y")
    assert restricted.routing.fates()[key] == "held"
    assert restricted.identity_holds
    assert restricted.identity["swallowed"] == admitted.identity["swallowed"] + 1
    due = again(site)
    assert set(due.deliveries.filter(pc.equal(due.deliveries["event_key"], key))["state"].to_pylist()) == {"held"}


def test_changed_medicare_ids_are_followed_before_attribution(site: Any) -> None:
    folder = Path(site.configuration).parent
    (folder / "mbi.toml").write_text(
        'name = "mbi"\nversion = "1"\n[list]\npayer_id = "medicare"\nmode = "full"\n[columns]\n'
        'member_id = { source = "MBI", required = true }\n'
        'member_id_system = { constant = "http://hl7.org/fhir/sid/us-mbi" }\nmbi = "MBI"\n'
        'birth_on = { source = "DOB", format = "%Y-%m-%d" }\nprovider_npi = "NPI"\n'
    )
    (folder / "mbi.csv").write_text("MBI,DOB,NPI\n1SG4TE5MK73,1950-01-01,1003000126\n")
    (folder / "cclf9.toml").write_text('extends = "cclf9"\nverified = true\n')
    (folder / "cclf9.txt").write_text("M1SG4TE5MK741SG4TE5MK732026-01-01          \n")
    entry = '[[rosters]]\npath = "mbi.csv"\nlayout = "mbi.toml"\nas_of = 2026-01-01\n'
    entry += 'crosswalk = { path = "cclf9.txt", layout = "cclf9.toml" }\n\n'
    site.edit("[export]", entry + "[export]")
    result = pipeline.run(config.load(site.configuration))
    medicare = result.members.filter(pc.equal(result.members["payer_id"], "medicare"))
    assert medicare["mbi"].to_pylist() == medicare["member_id"].to_pylist() == ["1SG4TE5MK74"]
    assert medicare.schema == MEMBER.schema
    assert set(medicare["member_key"].to_pylist()) <= set(result.attribution["member_key"].to_pylist())


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('[routing]\nconsents = "none.csv"', "no consent file none.csv"),
        ('[events]\nadt = "none"', "no inbox none"),
        ('[routing]\nconsents = "rosters"', "no consent file rosters"),
        ('[matching]\nweights = "none.json"', "no weights file none.json"),
        ('[routing]\nconsent_default = "maybe"', "permit or deny"),
        ('[events]\nzone = "Middle/Earth"', "Middle/Earth"),
        ("[routing]\nstale_after_days = -1", "0 or more"),
        ('[[measures]]\nid = "followup-30d"\nperiod = [2025-12-31, 2025-01-01]', "ends before it starts"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_before_anything_is_written(site: Any, section: str, words: str) -> None:
    site.edit("[export]", f"{section}\n\n[export]")
    with pytest.raises(HIExchangeError, match=words):
        pipeline.run(config.load(site.configuration))
    assert not (Path(site.configuration).parent / "out").exists()


def test_a_payer_that_joins_late_sends_no_flood_of_old_visits(site: Any) -> None:
    settings = config.load(site.configuration)
    early = tuple(entry for entry in settings.rosters if "payer-a" in entry.path)
    pipeline.run(msgspec.structs.replace(settings, rosters=early))
    second = again(site)
    third = pipeline.run(config.load(site.configuration))
    for result in (second, third):
        decisions = result.routing.decisions.to_pylist()
        days = {row["event_key"]: row["event_on"] for row in result.routing.events.to_pylist()}
        old = [row for row in decisions if row["reason_code"] == "beyond_back_fill"]
        assert old and result.identity_holds
        assert all((NOON.date() - days[row["event_key"]]).days > 20 for row in old)
        late = [row for row in decisions if row["decision"] == "deliver" and row["payer_ids"] == ["payer-b"]]
        assert all((NOON.date() - days[row["event_key"]]).days < 30 for row in late)
    assert third.deliveries.num_rows == second.deliveries.num_rows


def test_a_consent_file_that_cannot_be_read_is_refused_before_anything_is_written(site: Any) -> None:
    (Path(site.configuration).parent / "consents.csv").write_text("person_id,scope,decision\np1,exchange,perhaps\n")
    site.edit("[export]", '[routing]\nconsents = "consents.csv"\n\n[export]')
    with pytest.raises(HIExchangeError, match="line 2"):
        pipeline.run(config.load(site.configuration))
    assert not (Path(site.configuration).parent / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("2026-01-05T12:00:00Z", "yesterday", "known_at is no instant"),
        ("2026-01-05T12:00:00Z", "2026-01-05T12:00:00", "known_at has no offset"),
        ("2026-01-05T12:00:00Z", "9999-12-31T23:00:00-05:00", "known_at is no instant"),
        ("2026-01-05T12:00:00Z", "0001-01-01T00:00:00+05:00", "known_at is no instant"),
        ("[feedback]\n", '[feedback]\nformat = "doc"\n', "'doc' is no format"),
        (
            "[feedback]\nperiod = [2025-01-01, 2025-12-31]",
            "[feedback]\nperiod = [2025-12-31, 2025-01-01]",
            "ends before",
        ),
    ],
)
def test_what_would_fail_after_the_notices_are_sent_is_refused_first(site: Any, old: str, new: str, words: str) -> None:
    site.edit(old, new)
    with pytest.raises(HIExchangeError, match=words):
        pipeline.run(config.load(site.configuration))
    assert not (Path(site.configuration).parent / "out").exists()


def test_a_clock_with_an_offset_is_the_same_instant(site: Any) -> None:
    site.edit("2026-01-05T12:00:00Z", "2026-01-05T06:00:00-06:00")
    result = pipeline.run(config.load(site.configuration))
    assert result.known_at == NOON
    assert set(result.links["run_id"].to_pylist()) == {"2026-01-05T12:00:00Z"}


@pytest.mark.parametrize("table", ["encounter_event", "routing_decision", "Encounter", "person_link"])
@pytest.mark.parametrize("fault", ["gone", "damaged"])
def test_a_broken_lake_is_named_not_guessed_at(finished_copy: Any, table: str, fault: str) -> None:
    lake = Path(finished_copy.configuration).parent / "out" / "lake"
    file = next((lake / table).glob("*.parquet"))
    if fault == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(LakeError, match=f"a file of the lake is {fault}") as caught:
        pipeline.run(config.load(finished_copy.configuration))
    assert caught.value.where == str(file)


def test_a_channel_that_cannot_be_served_is_told_and_its_notices_wait(site: Any) -> None:
    first = pipeline.run(config.load(site.configuration))
    text = Path(site.configuration).read_text()
    site.edit('url = "inbox/practice-1"\nformat = "csv"', 'url = "sftp://nobody@127.0.0.1:1/in"\nformat = "csv"')
    heard: list[Any] = []
    second = again(site, on_event=heard.append)
    assert list(second.problems) == ["practice-1/main"]
    assert any(isinstance(event, Warned) and event.message.startswith("practice-1/main: ") for event in heard)
    assert exit_code(second) == 8
    Path(site.configuration).write_text(text)
    third = again(site)
    assert not third.problems and third.identity_holds
    assert third.deliveries.num_rows == first.deliveries.num_rows


def test_two_runs_at_once_are_one(site: Any) -> None:
    lake = Path(site.configuration).parent / "out" / "lake"
    with folder_lock(lake / "_hx" / "run"), pytest.raises(JobLocked, match="in use by"):
        pipeline.run(config.load(site.configuration))
    assert pipeline.run(config.load(site.configuration)).identity_holds


def test_an_opt_out_of_a_record_that_was_merged_away_is_one_of_the_other() -> None:
    persons = PERSON.from_rows({"person_id": f"p{n}", "mrn": f"GH|{n}", "member_ids": []} for n in (1, 2))
    merge = b"MSH|^~\\&|A|GH|||20260102||ADT^A40|1|P|2.5.1\rEVN|A40|20260102\rPID|1||2^^^GH^MR\rMRG|1^^^GH^MR\r"
    events = read_adt([merge], received_at=datetime(2026, 1, 3, tzinfo=UTC), persons=persons).events
    consent = pa.Table.from_pylist([{"person_id": "p1", "scope": "exchange", "decision": "deny"}])
    consent = consent.append_column("valid_from", pa.array([date(2026, 1, 1)]))
    consent = consent.append_column("valid_to", pa.array([date(2027, 1, 1)]))
    rules = Rules(load_subscriptions([]), consent, Policy()).after(joined_people(events, persons))
    assert rules.consent is not None and rules.consent["person_id"].to_pylist() == ["p1", "p2"]
    assert (rules.of_nobody(persons), rules.of_nobody(persons.slice(1))) == (0, 1)
    without = Rules(load_subscriptions([]), None, Policy()).after(joined_people(events, persons))
    assert (without.consent, without.of_nobody(persons)) == (None, 0)


@pytest.mark.parametrize(
    ("routing", "events", "zone"),
    [
        ({}, {}, "UTC"),
        ({}, {"zone": "America/Chicago"}, "America/Chicago"),
        ({"zone": "UTC"}, {"zone": "America/Chicago"}, "UTC"),
    ],
)
def test_days_turn_in_the_zone_of_the_program(routing: dict[str, str], events: dict[str, str], zone: str) -> None:
    assert rules_of(config.parse({"routing": routing, "events": events})).policy.zone == zone
