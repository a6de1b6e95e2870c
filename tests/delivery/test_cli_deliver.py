"""The verbs of ``hiexchange deliver``, as a user types them."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from hiexchange.cli.deliver import app
from hiexchange.delivery import Outcome
from hiexchange.errors import ConfigError
from hiexchange.lake import Lake
from hiexchange.tables import ENCOUNTER_EVENT, ROSTER


@pytest.fixture
def run(tmp_path):
    """Run a verb on the test's ledger; return exit code and output."""

    def call(*args: str):
        result = CliRunner().invoke(app, [args[0], "--outbox", str(tmp_path / "outbox.sqlite"), *args[1:]])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return call


@pytest.fixture
def waiting(exchange, open_outbox, now):
    """A ledger with two rows enqueued, closed."""
    outbox = open_outbox()
    routing = exchange.routing([exchange.event(1), exchange.event(2)], [exchange.subscription("a", "file:in")])
    outbox.enqueue(routing, now=now)
    outbox.close()
    return outbox


AT = "2026-11-10T12:30:00Z"


def test_run_sends_and_says_what_became_of_every_row(waiting, run, tmp_path):
    assert run("run", "--now", AT) == (0, "1 sealed, 1 acknowledged, 0 failed\n2 deliveries = 2 acked\n")
    code, output = run("run", "--now", AT, "--json")
    assert (code, json.loads(output)["states"]) == (0, {"acked": 2})
    assert len(list((tmp_path / "in").glob("*.csv"))) == 1


def test_a_dead_batch_is_exit_code_8_until_it_is_retried(exchange, open_outbox, now, run):
    class Refuses:
        def open(self): ...

        def send(self, parcel):
            return Outcome("dead", "HTTP 400")

        def close(self): ...

    outbox = open_outbox()
    routing = exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:in")])
    outbox.deliver(routing, now=now, destinations={"a": Refuses()})
    outbox.close()
    assert run("run", "--now", AT)[0] == 8
    assert "HTTP 400" in run("log")[1]
    assert run("retry", "--subscriber", "a", "--now", AT) == (0, "1 put back\n")
    assert run("run", "--now", AT)[0] == 0


def test_watch_looks_as_often_as_asked(waiting, run):
    code, output = run("watch", "--runs", "2", "--every", "0.2")
    assert code == 0
    assert "1 sealed, 1 acknowledged" in output


def test_replay_seals_again(waiting, run, tmp_path):
    run("run", "--now", AT)
    code, output = run(
        "replay", "--subscriber", "a", "--since", "2026-11-10T00:00:00Z", "--until", "2026-11-11T00:00:00Z"
    )
    assert (code, output) == (0, "2 deliveries sealed again\n")
    run("run")
    assert len(list((tmp_path / "in").glob("*.csv"))) == 2


def test_verify_proves_and_notes_the_head(waiting, run):
    run("run", "--now", AT)
    code, output = run("verify")
    head = output.splitlines()[-1].removeprefix("head ")
    assert code == 0
    assert run("verify", "--head", head)[0] == 0
    number, _, digest = head.partition(":")
    assert run("verify", "--head", f"{int(number) + 1}:{digest}")[0] == 8
    with pytest.raises(ConfigError):
        run("verify", "--head", "x")


def test_log_exports_disclosures(waiting, run, tmp_path):
    run("run", "--now", AT)
    accounting, events = tmp_path / "accounting.csv", tmp_path / "audit.ndjson"
    code, output = run("log", "--accounting", str(accounting), "--audit-events", str(events))
    assert code == 0
    assert output.startswith("2 disclosures in")
    assert len(accounting.read_text().splitlines()) == 3
    assert len(events.read_text().splitlines()) == 2


def test_a_ledger_that_is_not_there_is_not_made(run, tmp_path):
    with pytest.raises(ConfigError, match="no delivery ledger"):
        run("run")
    assert not (tmp_path / "outbox.sqlite").exists()


def test_an_instant_needs_an_offset(waiting, run):
    with pytest.raises(ConfigError, match="offset"):
        run("run", "--now", "2026-11-10T12:00:00")


def test_alarms_are_listed_and_are_exit_code_8(waiting, run, tmp_path):
    assert run("alarms", "--now", AT)[0] == 0
    code, output = run("alarms", "--now", "2026-11-10T18:00:00Z", "--json")
    assert (code, [alarm["kind"] for alarm in json.loads(output)]) == (8, ["backlog"])
    with pytest.raises(ConfigError, match="lake does not exist"):
        run("alarms", "--lake", str(tmp_path / "none"))


def test_alarms_look_at_the_lake_s_sources_and_rosters(waiting, run, tmp_path, exchange, now):
    lake = Lake(tmp_path / "lake")
    hours = [now - timedelta(hours=hour) for hour in range(30, 24 * 21)]
    rows = [
        exchange.event(number, received_at=at, sending_facility="GENERAL", event_key=str(number))
        for number, at in enumerate(hours)
    ]
    lake.append("encounter_event", ENCOUNTER_EVENT.from_rows(rows))
    roster = {
        "roster_id": "r1",
        "payer_id": "payer-a",
        "list_id": "l",
        "file_name": "payer-a.csv",
        "file_sha256": "s",
        "header_sha": "h",
        "layout": "hx 1",
        "mode": "full",
        "as_of_on": now.date(),
        "received_at": now,
        "state": "held",
        "rows_read": 1,
        "rows_accepted": 1,
        "rows_refused": 0,
        "rows_duplicate": 0,
    }
    lake.append("roster", ROSTER.from_rows([roster]))
    code, output = run("alarms", "--now", "2026-11-10T12:10:00Z", "--lake", str(lake.path), "--json")
    found = {alarm["kind"]: alarm["subject"] for alarm in json.loads(output)}
    assert (code, found) == (8, {"silent_source": "GENERAL", "roster_held": "payer-a.csv"})
    lake.append("roster", ROSTER.from_rows([roster | {"state": "accepted", "accepted_by": "ann"}]))
    _, output = run("alarms", "--now", "2026-11-10T12:10:00Z", "--lake", str(lake.path), "--json")
    assert [alarm["kind"] for alarm in json.loads(output)] == ["silent_source"]


def test_run_asks_for_subscriptions_and_consent_again(waiting, run, tmp_path, exchange):
    (tmp_path / "subs.toml").write_text('[[subscriptions]]\nid = "a"\nnpi = ["1777777778"]\nchannel = "in"\n')
    (tmp_path / "consents.csv").write_text("person_id,scope,decision\n-1,exchange,deny\n")
    with pytest.raises(ConfigError, match="needs --subscriptions"):
        run("run", "--consent", str(tmp_path / "consents.csv"))
    files = ("--subscriptions", str(tmp_path / "subs.toml"), "--consent", str(tmp_path / "consents.csv"))
    code, output = run("run", "--now", AT, *files, "--json")
    assert (code, json.loads(output)["states"]) == (0, {"acked": 1, "held": 1})


def test_a_configuration_brings_its_own_consents_and_policy(waiting, run, tmp_path):
    (tmp_path / "hiexchange.toml").write_text(
        'output = "out"\n[routing]\nconsents = "c.csv"\nconsent_default = "deny"\n'
        '[[subscriptions]]\nid = "a"\nnpi = ["1777777778"]\nchannel = "in"\n'
    )
    (tmp_path / "c.csv").write_text("person_id,scope,decision\n-2,exchange,permit\n")
    code, output = run("run", "--now", AT, "--subscriptions", str(tmp_path / "hiexchange.toml"), "--json")
    assert (code, json.loads(output)["states"]) == (0, {"acked": 1, "held": 1})
