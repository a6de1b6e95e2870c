"""The statement of a Part 2 consent reaches the recipient with the event: routing to rendered file."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

from hiexchange.delivery import Outbox
from hiexchange.routing import Recheck, load_subscriptions

STATEMENT = "Consent of 2026-01-05; ED and inpatient data; this clinic only."


def test_the_statement_is_in_the_file(world: SimpleNamespace, tmp_path: Path) -> None:
    wish = world.subscription(channel=str(tmp_path / "out"), columns=["event_key", "trigger", "notice"])
    permit = {"person_id": "p1", "scope": "part2", "party": "clinic", "decision": "permit", "statement": STATEMENT}
    routing = world.routed([world.event(labels=["42CFRPart2"])], subscriptions=[wish], consent=[permit])
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        outbox.deliver(routing, now=world.KNOWN)
    (path,) = (tmp_path / "out").glob("*.csv")
    with path.open(newline="", encoding="utf-8-sig") as file:
        (row,) = csv.DictReader(file)
    assert (row["notice"], row["trigger"]) == (STATEMENT, "admit")


def test_a_revoked_part2_consent_stops_what_waits(world: SimpleNamespace, tmp_path: Path) -> None:
    wish = world.subscription(channel=str(tmp_path / "out"), format="hl7v2", empties="nothing")
    permit = {"person_id": "p1", "scope": "part2", "party": "clinic", "decision": "permit", "statement": STATEMENT}
    routing = world.routed([world.event(labels=["42CFRPart2"])], subscriptions=[wish], consent=[permit])
    subscriptions = load_subscriptions([wish])
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        outbox.enqueue(routing, now=world.KNOWN)
        for consent in ([], [permit, permit | {"decision": "deny", "statement": None}]):
            outbox.run(world.KNOWN, recheck=Recheck(subscriptions, consent, now=world.KNOWN))
            assert outbox.deliveries()["reason"].to_pylist() == ["part2_no_consent"]
            outbox.retry(now=world.KNOWN)
        outbox.run(world.KNOWN, recheck=Recheck(subscriptions, [permit], now=world.KNOWN))
        assert outbox.deliveries()["state"].to_pylist() == ["acked"]
    (path,) = (tmp_path / "out").glob("*.hl7")
    assert STATEMENT.encode() in path.read_bytes()


def test_an_opt_out_after_routing_stops_what_waits(world: SimpleNamespace, tmp_path: Path) -> None:
    wish = world.subscription(channel=str(tmp_path / "out"), empties="nothing")
    routing = world.routed(subscriptions=[wish])
    recheck = Recheck(
        load_subscriptions([wish]), [{"person_id": "p1", "scope": "exchange", "decision": "deny"}], now=world.KNOWN
    )
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        outbox.enqueue(routing, now=world.KNOWN)
        outbox.run(world.KNOWN, recheck=recheck)
        deliveries = outbox.deliveries()
    assert (deliveries["state"].to_pylist(), deliveries["reason"].to_pylist()) == (["held"], ["opted_out"])
    assert routing.identity(deliveries)["held"] == 1
    assert not list((tmp_path / "out").glob("*.csv"))
