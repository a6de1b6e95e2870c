"""Replay, proof, disclosures: what an operator and an auditor ask of the ledger."""

from __future__ import annotations

import csv
import json
import sqlite3
from datetime import timedelta

import pytest
from fhir.resources.R4B.auditevent import AuditEvent

from hiexchange.delivery.disclosures import accounting_csv, public_address
from hiexchange.errors import DeliveryError


@pytest.fixture
def delivered(exchange, open_outbox, now):
    """Two days, two subscribers, all acknowledged."""
    outbox = open_outbox()
    subscribers = [exchange.subscription("a", "file:a"), exchange.subscription("b", "file:b", format="ndjson")]
    for day in (0, 1):
        events = [exchange.event(10 * day + number) for number in (1, 2)]
        outbox.deliver(exchange.routing(events, subscribers), now=now + timedelta(days=day))
    return outbox


def _manifests(folder):
    return [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.manifest.json"))]


def test_a_replay_keeps_the_ids_and_says_so(delivered, now, tmp_path):
    row = delivered.deliveries().to_pylist()[0]
    later = now + timedelta(days=5)
    assert delivered.replay(now=later, delivery_id=row["delivery_id"]) == 1
    report = delivered.run(later)
    assert report.states == {"acked": 8}
    assert report.created == 8
    last = _manifests(tmp_path / row["subscriber_id"])[-1]
    assert (last["sequence"], last["replay"], last["rows"]) == (3, True, 1)
    assert row["delivery_id"] in (tmp_path / row["subscriber_id"] / last["file"]).read_text()
    assert delivered.verify().problems == ()


def test_a_replay_by_event_reaches_every_recipient_and_by_period_one(delivered, now):
    row = delivered.deliveries().to_pylist()[0]
    later = now + timedelta(days=5)
    assert delivered.replay(now=later, event_key=row["event_key"]) == 2
    period = (now + timedelta(hours=12), now + timedelta(days=2))
    assert delivered.replay(now=later, subscriber_id="a", period=period) == 2
    assert delivered.run(later).batches_acked == 3
    # The same batch may be replayed again: it is a new batch under a new number.
    assert delivered.replay(now=later, event_key=row["event_key"]) == 2
    assert delivered.run(later).batches_acked == 2


@pytest.mark.parametrize("chosen", [{}, {"subscriber_id": "a"}])
def test_an_empty_request_replays_nothing(delivered, now, chosen):
    with pytest.raises(DeliveryError, match="needs"):
        delivered.replay(now=now, **chosen)


def test_only_what_was_acknowledged_is_replayed(exchange, open_outbox, now):
    outbox = open_outbox()
    outbox.enqueue(exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:a")]), now=now)
    (row,) = outbox.deliveries().to_pylist()
    assert outbox.replay(now=now, delivery_id=row["delivery_id"]) == 0


def test_the_ledger_proves_itself(delivered):
    proof = delivered.verify()
    assert proof.ok
    assert (proof.batches, proof.deliveries) == (4, 8)
    assert proof.audit_rows == delivered.log().num_rows


def test_forgetting_drops_content_and_keeps_the_proof(delivered, now, tmp_path):
    first = delivered.deliveries().to_pylist()[0]
    assert delivered.forget(before=now + timedelta(hours=12), now=now + timedelta(days=90)) == 2
    assert delivered.forget(before=now + timedelta(hours=12), now=now + timedelta(days=90)) == 0
    assert delivered.verify().problems == ()
    assert delivered.accounting().num_rows == 8
    with pytest.raises(DeliveryError, match="forgotten"):
        delivered.replay(now=now, delivery_id=first["delivery_id"])
    last = delivered.deliveries().to_pylist()[-1]
    assert delivered.replay(now=now, delivery_id=last["delivery_id"]) == 1
    other = sqlite3.connect(tmp_path / "outbox.sqlite")
    kept = [row[0] for row in other.execute("SELECT data FROM event")]
    # A deletion that nobody asked for is told from one that the audit trail knows.
    other.execute("DELETE FROM payload")
    other.commit()
    other.close()
    assert sorted(map(bool, kept)) == [False, False, True, True]
    assert "stored bytes" in "; ".join(delivered.verify().problems)


def test_a_new_recipient_of_a_forgotten_event_still_gets_it(exchange, open_outbox, now, tmp_path):
    outbox = open_outbox()
    outbox.deliver(exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:a")]), now=now)
    later = now + timedelta(days=90)
    outbox.forget(before=later, now=later)
    outbox.deliver(exchange.routing([exchange.event(1)], [exchange.subscription("b", "file:b")]), now=later)
    (path,) = (tmp_path / "b").glob("*.csv")
    assert "General Hospital" in path.read_text()
    assert len(list((tmp_path / "a").glob("*.csv"))) == 1


def test_health_says_what_to_wake_for(exchange, open_outbox, now):
    from hiexchange.delivery import Outcome, RetryPolicy

    class Mixed:
        def open(self): ...

        def send(self, parcel):
            return Outcome(("dead", "unknown", "retry")[parcel.sequence % 3], "no")

        def close(self): ...

    outbox = open_outbox(retry=RetryPolicy(breaker_failures=1))
    assert outbox.health(now).ok
    subscribers = [
        exchange.subscription("a", "file:a", max_rows=1),
        exchange.subscription("b", "file:b", cadence="every 15 minutes"),
    ]
    routing = exchange.routing([exchange.event(number) for number in range(3)], subscribers)
    outbox.deliver(routing, now=now, destinations={"a": Mixed()})
    found = outbox.health(now + timedelta(hours=1))
    assert (found.ok, found.overdue, found.dead + found.in_doubt > 0) == (False, ("b/default",), True)
    assert 3599 < found.oldest_waiting_s <= 3600
    assert outbox.health(now + timedelta(minutes=1)).open_circuits == ("file:a",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE audit SET at = at + 1 WHERE n = 3", "audit row 3 was changed"),
        ("UPDATE audit SET data = '{}' WHERE n = 2", "audit row 2 was changed"),
        ("DELETE FROM audit WHERE n = 2", "audit row 2 is missing"),
        ("UPDATE payload SET payload = x'00'", "stored bytes"),
        ("UPDATE batch SET sequence = 9 WHERE sequence = 2", "numbers are not"),
        ("DELETE FROM batch WHERE sequence = 1", "numbers are not"),
        ("UPDATE delivery SET event_key = 'x'", "do not have the id of their parts"),
        ("UPDATE delivery SET batch_id = NULL", "not that of its deliveries"),
        ("DELETE FROM audit WHERE kind = 'acked'", "audit trail does not say so"),
    ],
)
def test_a_change_behind_the_ledgers_back_shows(delivered, tmp_path, change, said):
    other = sqlite3.connect(tmp_path / "outbox.sqlite")
    other.execute(change)
    other.commit()
    other.close()
    assert said in "; ".join(delivered.verify().problems)


def test_a_tail_cut_off_shows_against_a_noted_head(delivered, tmp_path):
    proof = delivered.verify()
    other = sqlite3.connect(tmp_path / "outbox.sqlite")
    other.execute("DELETE FROM audit WHERE n = (SELECT max(n) FROM audit)")
    other.commit()
    other.close()
    assert "ends at row" in "; ".join(delivered.verify(head=(proof.audit_rows, proof.head)).problems)


def test_every_disclosure_is_an_audit_event_of_the_balp_profile(delivered, now):
    row = delivered.deliveries().to_pylist()[0]
    delivered.replay(now=now, delivery_id=row["delivery_id"])
    delivered.run(now)
    lines = list(delivered.audit_events(exchange="Example HIE", address="hie.example.org"))
    assert len(lines) == 9
    for line in lines:
        event = AuditEvent.model_validate_json(line)
        assert event.meta.profile[0].endswith("IHE.BasicAudit.PrivacyDisclosure.Source")
        assert (event.type.code, event.action, event.outcome) == ("110106", "R", "0")
        assert event.subtype[0].code == "disclose"
        source, recipient = event.agent
        # val-audit-source: the audit source is the source agent too.
        assert source.who.display == event.source.observer.display == "Example HIE"
        assert (recipient.type.coding[0].code, recipient.network.type) == ("110152", "5")
        patient, data = event.entity
        assert patient.what.reference.startswith("Patient/-")
        assert data.what.identifier.value
    assert len({json.loads(line)["id"] for line in lines}) == 9


def test_the_accounting_answers_one_person(delivered):
    table = delivered.accounting(person_id="-1")
    assert sorted(table.column("recipient").to_pylist()) == ["a", "b"]
    assert set(table["purpose"].to_pylist()) == {"TREAT"}
    rows = list(csv.DictReader(accounting_csv(table).decode().splitlines()))
    assert {row["recipient"]: row["recipient_address"] for row in rows} == {"a": "file:a", "b": "file:b"}
    assert rows[0]["disclosed_at"].startswith("2026-11-10T12:00:0")
    assert delivered.accounting(person_id="-99").num_rows == 0


def test_the_accounting_is_half_open_in_time(delivered, now):
    table = delivered.accounting(since=now + timedelta(hours=12), until=now + timedelta(days=2))
    assert table.num_rows == 4


def test_an_address_on_record_has_no_user_and_no_query():
    assert public_address("sftp://user@host.example:2222/in") == "sftp://host.example:2222/in"
    assert public_address("https://host.example/$process-message?key=1") == "https://host.example/$process-message"
    assert public_address("in/box") == "in/box"


def test_tables_are_of_the_corridor(delivered):
    from hiexchange.tables import DELIVERY, RECEIPT, check

    assert check(delivered.deliveries(), DELIVERY).num_rows == 8
    assert check(delivered.receipts(), RECEIPT).num_rows == 4


def test_an_empty_ledger_has_tables_too(open_outbox):
    outbox = open_outbox()
    assert outbox.deliveries().num_rows == outbox.receipts().num_rows == outbox.log().num_rows == 0
    assert outbox.accounting().num_rows == 0
    assert outbox.verify().ok
