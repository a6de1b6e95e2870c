"""Who may still have it, and what may be said where."""

from __future__ import annotations

import csv
import json
import logging
from datetime import timedelta

import pytest

from hiexchange._cells import neutral
from hiexchange.delivery import Outbox, Outcome
from hiexchange.errors import ConfigError, DeliveryError


def test_an_opt_out_between_route_and_seal_holds_that_person_only(exchange, open_outbox, now, tmp_path):
    routing = exchange.routing([exchange.event(1), exchange.event(2)], [exchange.subscription("a", "file:in")])
    outbox = open_outbox()
    outbox.enqueue(routing, now=now)
    asked = []

    def opted_out(candidate):
        asked.append((candidate.subscriber_id, candidate.payer_ids))
        return "opted_out" if candidate.person_id == "-1" else None

    assert outbox.run(now, recheck=opted_out).states == {"acked": 1, "held": 1}
    assert ("a", ("payer-a",)) in asked
    (held,) = [row for row in outbox.deliveries().to_pylist() if row["state"] == "held"]
    assert held["reason"] == "opted_out"
    (path,) = (tmp_path / "in").glob("*.csv")
    assert [row["person_id"] for row in csv.DictReader(path.read_text().splitlines())] == ["-2"]


@pytest.mark.parametrize(("form", "decided"), [("hl7v2", None), ("hl7v2", ["birth_date", "zip"]), ("csv", None)])
def test_what_an_agreement_no_longer_allows_is_not_in_what_waited(exchange, open_outbox, now, tmp_path, form, decided):
    def wanted(**agreement):
        return [exchange.subscription("a", "file:in", format=form, cadence="0 6 * * *") | agreement]

    event = exchange.event(1)
    columns = {} if decided is None else {"columns": [*decided, "trigger", "visit_number", "last_name"]}
    outbox = open_outbox()
    decision = exchange.decision(event, "a", **columns)
    outbox.enqueue(exchange.routing([event], wanted(), [decision]), now=now, persons=exchange.persons(1))
    narrow = ["event_key", "event_at", "trigger", "visit_number", "person_id"]
    outbox.configure(exchange.routing([], wanted(columns=narrow)).subscriptions, now=now)
    outbox.run(now + timedelta(days=1))
    (path,) = (file for file in (tmp_path / "in").iterdir() if "manifest" not in file.name)
    text = path.read_text()
    assert "v1" in text
    assert "1950" not in text and "Invented1" not in text


class Down:
    def open(self):
        raise DeliveryError("down", retryable=True)

    def close(self):
        pass


def test_an_opt_out_between_seal_and_send_voids_the_file_and_seals_the_rest_again(exchange, open_outbox, now, tmp_path):
    routing = exchange.routing([exchange.event(1), exchange.event(2)], [exchange.subscription("a", "file:in")])
    outbox = open_outbox()
    outbox.deliver(routing, now=now, destinations={"a": Down()})
    refuse = {"-1": "opted_out"}
    later = now + timedelta(hours=1)
    report = outbox.run(later, recheck=lambda candidate: refuse.get(candidate.person_id))
    assert report.states == {"held": 1, "acked": 1}
    (path,) = (tmp_path / "in").glob("*.csv")
    assert path.name == "a_default_000002.csv"
    assert "Invented1" not in path.read_text()
    (manifest,) = [json.loads(path.read_bytes()) for path in (tmp_path / "in").glob("*.manifest.json")]
    assert manifest["void_sequences"] == [1]
    assert outbox.verify().problems == ()


@pytest.mark.parametrize("there", [True, False])
def test_an_opt_out_while_in_doubt_is_probed_and_never_sent_again(exchange, open_outbox, now, there):
    class Doubtful:
        sends = 0

        def open(self):
            pass

        def send(self, parcel):
            self.sends += 1
            return Outcome("unknown", "lost")

        def probe(self, parcel):
            return there

        def close(self):
            pass

    receiver = Doubtful()
    outbox = open_outbox()
    routing = exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:in")])
    outbox.deliver(routing, now=now, destinations={"a": receiver})
    later = now + timedelta(hours=1)
    report = outbox.run(later, destinations={"a": receiver}, recheck=lambda candidate: "opted_out")
    assert receiver.sends == 1
    assert report.states == {"acked" if there else "held": 1}
    assert outbox.verify().problems == ()


def test_an_opt_out_stops_a_replay_and_leaves_the_first_delivery_as_it_was(exchange, open_outbox, now, tmp_path):
    outbox = open_outbox()
    outbox.deliver(exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:in")]), now=now)
    (row,) = outbox.deliveries().to_pylist()
    outbox.replay(now=now, delivery_id=row["delivery_id"])
    later = now + timedelta(hours=1)
    assert outbox.run(later, recheck=lambda candidate: "opted_out").states == {"acked": 1}
    assert len(list((tmp_path / "in").glob("*.csv"))) == 1
    assert outbox.verify().problems == ()


def test_a_cancel_before_send_leaves_nothing_to_say(exchange, open_outbox, now):
    subscription = exchange.subscription("a", "file:in", cadence="every 15 minutes")
    outbox = open_outbox()
    outbox.enqueue(exchange.routing([exchange.event(1)], [subscription]), now=now)
    cancel = exchange.event(1, trigger="cancel_admit", trigger_code="A11", status="cancelled", event_at=now)
    outbox.enqueue(exchange.routing([cancel], [subscription]), now=now + timedelta(minutes=1))
    report = outbox.run(now + timedelta(minutes=20))
    assert report.states == {"cancelled": 2}


def test_a_cancel_after_send_is_a_correction_to_the_same_recipient(exchange, open_outbox, now):
    subscription = exchange.subscription("a", "file:in")
    outbox = open_outbox()
    outbox.deliver(exchange.routing([exchange.event(1)], [subscription]), now=now)
    cancel = exchange.event(1, trigger="cancel_admit", trigger_code="A11", status="cancelled", event_at=now)
    assert outbox.deliver(exchange.routing([cancel], [subscription]), now=now).states == {"acked": 2}


def test_a_newer_version_supersedes_what_still_waits(exchange, open_outbox, now):
    subscription = exchange.subscription("a", "file:in", cadence="every 15 minutes")
    outbox = open_outbox()
    first = exchange.event(1, trigger="update")
    second = exchange.event(1, trigger="update", version=2, event_at=now)
    outbox.enqueue(exchange.routing([first, second], [subscription]), now=now)
    assert outbox.run(now + timedelta(minutes=20)).states == {"superseded": 1, "acked": 1}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
@pytest.mark.parametrize("form", ["csv", "tsv", "pipe", "xlsx"])
def test_no_cell_is_taken_for_a_formula(exchange, open_outbox, now, tmp_path, form, start):
    event = exchange.event(1, facility_name=f"{start}cmd|calc")
    subscription = exchange.subscription("a", "file:in", format=form, columns=["facility_name"])
    open_outbox().deliver(exchange.routing([event], [subscription]), now=now)
    (path,) = (item for item in (tmp_path / "in").iterdir() if not item.name.endswith(".json"))
    if form == "xlsx":
        import python_calamine

        cell = python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()[1][1]
    else:
        separator = {"csv": ",", "tsv": "\t", "pipe": "|"}[form]
        text = path.read_bytes().decode()
        cell = list(csv.reader(text.splitlines(keepends=True), delimiter=separator))[1][1]
    assert cell.replace("\r", "").startswith("'")
    assert neutral(f"{start}x") == f"'{start}x"


def test_leading_zeros_stay(exchange, open_outbox, now, tmp_path):
    import python_calamine

    event = exchange.event(1, visit_number="000123")
    subscription = exchange.subscription("a", "file:in", format="xlsx", columns=["visit_number"])
    open_outbox().deliver(exchange.routing([event], [subscription]), now=now)
    (path,) = (tmp_path / "in").glob("*.xlsx")
    assert python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()[1][1] == "000123"


def test_an_id_that_could_hold_a_name_never_becomes_a_file_name(exchange, open_outbox, now):
    from dataclasses import replace

    routing = exchange.routing([], [exchange.subscription("a", "file:in")])
    (subscription,) = routing.subscriptions
    for bad in ("Ada Lovelace", "../etc", "a/b", "", "x" * 65):
        with pytest.raises(ConfigError, match="file names"):
            open_outbox().configure([replace(subscription, id=bad)], now=now)


PLANTED = ("Invented1", "1950-02-03", "19500203", "mrn1", "1 Example Street", "v1")


def test_no_planted_value_reaches_log_error_name_or_audit_trail(exchange, open_outbox, now, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    outbox = open_outbox()
    shown: list[str] = []
    subscribers = [
        exchange.subscription("a", "file:in"),
        exchange.subscription("b", "http://127.0.0.1:9/in", format="fhir"),
        exchange.subscription("c", "mllp://127.0.0.1:9", format="hl7v2"),
        exchange.subscription("d", "file:d", format="fhir", columns=["last_name"]),
    ]
    routing = exchange.routing([exchange.event(1, **{"class": "I M P"})], subscribers)
    report = outbox.deliver(
        routing, now=now, persons=exchange.persons(1), on_event=lambda event: shown.append(repr(event))
    )
    shown += [repr(report), str(report.problems), repr(outbox)]
    shown += [json.dumps(row, default=str) for row in outbox.log().to_pylist()]
    shown += [json.dumps(row, default=str) for row in outbox.receipts().to_pylist()]
    shown += [str(row["reason"]) for row in outbox.deliveries().to_pylist()]
    shown += [path.name for path in tmp_path.rglob("*")]
    shown += [record.getMessage() for record in caplog.records]
    text = "\n".join(shown)
    assert [value for value in PLANTED if value in text.replace('"v1"', "")] == []


def test_the_ledger_is_readable_by_its_owner_only(open_outbox, tmp_path):
    open_outbox()
    assert (tmp_path / "outbox.sqlite").stat().st_mode & 0o077 == 0


def test_a_ledger_is_a_path_or_a_store_not_both():
    with pytest.raises(TypeError):
        Outbox()


def test_what_was_held_goes_when_it_is_decided_again_that_it_may(exchange, open_outbox, now, tmp_path):
    routing = exchange.routing([exchange.event(1), exchange.event(2)], [exchange.subscription("a", "file:in")])
    outbox = open_outbox()
    outbox.enqueue(routing, now=now)
    assert outbox.run(now, recheck=lambda candidate: "opted_out").states == {"held": 2}
    assert outbox.enqueue(routing, now=now, lift=("taken_back",)) == 0
    assert outbox.run(now).states == {"held": 2}, "not for this reason"
    permitted = exchange.routing(
        [exchange.event(1), exchange.event(2)],
        [exchange.subscription("a", "file:in")],
        [exchange.decision(exchange.event(1), "a", payer_ids=["payer-b"], notice="scope of the new consent")],
    )
    assert outbox.enqueue(permitted, now=now, lift=("opted_out",)) == 0
    asked = []
    report = outbox.run(now, recheck=lambda candidate: asked.append((candidate.payer_ids, candidate.notice)))
    assert report.states == {"acked": 1, "held": 1}, "asked once more, with what is decided now"
    assert asked[0] == (("payer-b",), "scope of the new consent")
    assert outbox.verify().problems == ()


def test_a_newer_version_or_a_cancel_settles_what_is_held(exchange, open_outbox, now):
    subscriptions = [exchange.subscription("a", "file:in")]
    outbox = open_outbox()
    outbox.enqueue(exchange.routing([exchange.event(1), exchange.event(2)], subscriptions), now=now)
    assert outbox.run(now, recheck=lambda candidate: "opted_out").states == {"held": 2}
    later = [exchange.event(1, version=2), exchange.event(2, trigger="cancel_admit")]
    every = [exchange.event(1), exchange.event(2), *later]
    outbox.enqueue(exchange.routing(every, subscriptions), now=now, lift=("opted_out",))
    assert outbox.run(now).states == {"acked": 1, "cancelled": 2, "superseded": 1}


def test_what_an_operator_gave_up_stays_held(exchange, open_outbox, now):
    routing = exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:in")])
    outbox = open_outbox()
    outbox.deliver(routing, now=now, destinations={"a": Down()})
    batch = outbox.deliveries()["batch_id"].to_pylist()[0]
    outbox.void(batch, now=now, reason="sent by fax")
    outbox.enqueue(routing, now=now, lift=("opted_out",))
    assert outbox.run(now).states == {"held": 1}
