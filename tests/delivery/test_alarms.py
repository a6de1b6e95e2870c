"""Alarms: each condition once when it begins and once when it ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from hiexchange.delivery import Alarm, AlarmBell, Health, Limits, RetryPolicy, alarms

QUIET = Health(0.0, 0, 0, (), ())


def kinds(found: tuple[Alarm, ...]) -> list[tuple[str, str]]:
    return [(alarm.kind, alarm.subject) for alarm in found]


def test_every_condition_has_its_alarm_and_calm_has_none() -> None:
    silence = SimpleNamespace(source="GENERAL", last_at=datetime(2026, 3, 2, 8, tzinfo=UTC), missing=12.0)
    bad = Health(7200.0, 2, 1, ("sftp://host:22",), ("clinic/daily",))
    assert kinds(alarms(bad, silences=[silence], held_rosters=["payer-a.csv"])) == [
        ("backlog", ""),
        ("dead", ""),
        ("in_doubt", ""),
        ("circuit_open", "sftp://host:22"),
        ("missed_cadence", "clinic/daily"),
        ("silent_source", "GENERAL"),
        ("roster_held", "payer-a.csv"),
    ]
    assert alarms(QUIET) == ()
    assert kinds(alarms(bad, limits=Limits(backlog_s=9000, dead=2, in_doubt=1))) == [
        ("circuit_open", "sftp://host:22"),
        ("missed_cadence", "clinic/daily"),
    ]


def test_a_condition_that_lasts_rings_once_and_its_end_is_told() -> None:
    heard: list[tuple[str, bool]] = []
    bell = AlarmBell(lambda alarm: heard.append((alarm.kind, alarm.raised)))
    dead = alarms(Health(0.0, 1, 0, (), ()))
    for present in (dead, dead, alarms(Health(0.0, 5, 0, (), ())), (), (), dead):
        bell.look(present)
    assert heard == [("dead", True), ("dead", False), ("dead", True)]
    assert kinds(bell.ringing) == [("dead", "")]


def test_a_callback_that_fails_is_called_again() -> None:
    calls: list[Alarm] = []

    def page(alarm: Alarm) -> None:
        calls.append(alarm)
        if len(calls) == 1:
            raise OSError("the pager is off")

    bell = AlarmBell(page)
    present = alarms(Health(0.0, 1, 0, (), ()))
    with pytest.raises(OSError, match="pager"):
        bell.look(present)
    bell.look(present)
    bell.look(present)
    assert len(calls) == 2


def test_a_real_ledger_rings_when_its_endpoint_is_cut_off_and_when_it_is_back(exchange, open_outbox, now, tmp_path):
    (tmp_path / "in").write_text("a file where the folder should be")
    outbox = open_outbox(retry=RetryPolicy(first_s=1, breaker_failures=2, breaker_s=60))
    outbox.enqueue(exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:in")]), now=now)
    heard: list[tuple[str, bool]] = []
    bell = AlarmBell(lambda alarm: heard.append((alarm.kind, alarm.raised)))
    at = now
    for _ in range(4):
        outbox.run(at)
        bell.look(alarms(outbox.health(at), limits=Limits(backlog_s=5)))
        at += timedelta(seconds=10)
    assert {("circuit_open", True), ("backlog", True)} <= set(heard)
    (tmp_path / "in").unlink()
    at += timedelta(hours=3)
    outbox.run(at)
    bell.look(alarms(outbox.health(at)))
    assert bell.ringing == () and ("circuit_open", False) in heard and ("backlog", False) in heard
