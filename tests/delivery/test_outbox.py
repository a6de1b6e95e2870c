"""The outbox as its users see it: once, gapless, whole."""

from __future__ import annotations

import csv
import hashlib
import json
import time
from datetime import timedelta

import pytest

from hiexchange.delivery import delivery_id
from hiexchange.errors import DataError, DeliveryError


def test_a_file_and_its_manifest_reach_the_folder(exchange, open_outbox, now, tmp_path):
    routing = exchange.routing(
        [exchange.event(number) for number in (1, 2)], [exchange.subscription("clinic-7", "file:in")]
    )
    report = open_outbox().deliver(routing, now=now, persons=exchange.persons(1, 2))
    assert report.states == {"acked": 2}
    assert report.balanced
    names = sorted(path.name for path in (tmp_path / "in").iterdir())
    assert names == ["clinic-7_default_000001.csv", "clinic-7_default_000001.csv.manifest.json"]
    rows = list(csv.DictReader((tmp_path / "in" / names[0]).read_text().splitlines()))
    assert [row["last_name"] for row in rows] == ["Invented1", "Invented2"]
    assert [row["event_at"] for row in rows] == ["2026-11-10T10:00:01Z", "2026-11-10T10:00:02Z"]
    manifest = json.loads((tmp_path / "in" / names[1]).read_bytes())
    assert manifest["sha256"] == hashlib.sha256((tmp_path / "in" / names[0]).read_bytes()).hexdigest()
    assert (manifest["sequence"], manifest["previous_sequence"], manifest["rows"]) == (1, None, 2)


def test_running_twice_sends_nothing_twice(exchange, open_outbox, now, tmp_path):
    routing = exchange.routing([exchange.event(1)], [exchange.subscription("clinic-7", "file:in", format="ndjson")])
    open_outbox().deliver(routing, now=now)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "in").iterdir()}
    again = open_outbox().deliver(routing, now=now + timedelta(days=1))
    assert (again.sealed, again.batches_acked) == (0, 0)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "in").iterdir()} == before


def test_sequences_are_gapless_for_each_channel(exchange, open_outbox, now):
    outbox = open_outbox()
    subscribers = [exchange.subscription("a", "file:a"), exchange.subscription("b", "file:b", max_rows=1)]
    for day in range(3):
        events = [exchange.event(10 * day + number) for number in (1, 2)]
        outbox.deliver(exchange.routing(events, subscribers), now=now + timedelta(days=day))
    receipts = outbox.receipts().to_pylist()
    assert [row["sequence"] for row in receipts if row["subscriber_id"] == "a"] == [1, 2, 3]
    assert [row["sequence"] for row in receipts if row["subscriber_id"] == "b"] == [1, 2, 3, 4, 5, 6]


def test_one_delivery_for_a_provider_named_by_two_payers(exchange, open_outbox, now):
    event = exchange.event(1)
    decisions = [
        exchange.decision(event, "clinic-7", payer_ids=["payer-b"], org_id="org-2", primary=False),
        exchange.decision(event, "clinic-7", payer_ids=["payer-a"]),
    ]
    outbox = open_outbox()
    outbox.deliver(exchange.routing([event], [exchange.subscription("clinic-7", "file:in")], decisions), now=now)
    assert outbox.deliveries().num_rows == 1


def test_only_decisions_to_deliver_make_rows(exchange, open_outbox, now):
    event = exchange.event(1)
    decisions = [exchange.decision(event, "clinic-7", decision="held", reason_code="opt_out")]
    outbox = open_outbox()
    routing = exchange.routing([event], [exchange.subscription("clinic-7", "file:in")], decisions)
    assert outbox.enqueue(routing, now=now) == 0
    assert outbox.deliveries().num_rows == 0


def test_a_decision_without_its_event_is_refused_and_leaves_no_row(exchange, open_outbox, now):
    good, stray = exchange.event(1), exchange.event(2)
    routing = exchange.routing(
        [good],
        [exchange.subscription("clinic-7", "file:in")],
        [exchange.decision(good, "clinic-7"), exchange.decision(stray, "clinic-7")],
    )
    outbox = open_outbox()
    with pytest.raises(DataError):
        outbox.enqueue(routing, now=now)
    assert outbox.deliveries().num_rows == 0


def test_delivery_ids_are_a_fixed_function_of_their_parts():
    given = delivery_id("clinic-7", "default", event_key="e", material_version="m", template_major=1)
    expected = hashlib.sha256(b"8:clinic-77:default1:e1:m1:1").hexdigest()
    assert given == expected


def test_columns_beyond_the_minimum_necessary_stay_empty(exchange, open_outbox, now, tmp_path):
    event = exchange.event(1)
    decisions = [exchange.decision(event, "clinic-7", columns=["event_at", "trigger"])]
    subscription = exchange.subscription("clinic-7", "file:in", columns=["trigger", "last_name", "event_at"])
    open_outbox().deliver(exchange.routing([event], [subscription], decisions), now=now, persons=exchange.persons(1))
    (row,) = csv.DictReader((tmp_path / "in" / "clinic-7_default_000001.csv").read_text().splitlines())
    assert (row["trigger"], row["last_name"], row["event_at"]) == ("admit", "", "2026-11-10T10:00:01Z")


def test_a_damaged_ledger_sends_nothing(exchange, open_outbox, now, tmp_path):
    outbox = open_outbox()
    outbox.enqueue(exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:in")]), now=now)
    outbox.close()
    path = tmp_path / "outbox.sqlite"
    data = bytearray(path.read_bytes())
    data[4096:20480] = b"\xff" * (20480 - 4096)
    path.write_bytes(bytes(data))
    with pytest.raises(DeliveryError, match="HX-610"):
        open_outbox()


def test_a_file_that_is_no_ledger_is_refused(open_outbox, tmp_path):
    (tmp_path / "outbox.sqlite").write_bytes(b"name,birth date\n" * 400)
    with pytest.raises(DeliveryError, match="HX-610"):
        open_outbox()


def test_two_thousand_deliveries_take_about_a_second(exchange, open_outbox, now):
    subscribers = [exchange.subscription(f"s{number}", f"file:s{number}") for number in range(4)]
    routing = exchange.routing([exchange.event(number) for number in range(500)], subscribers)
    outbox = open_outbox()
    started = time.process_time()
    report = outbox.deliver(routing, now=now)
    assert report.states == {"acked": 2000}
    assert time.process_time() - started < 3  # processor time on a shared machine; about 0.5 s when idle
