"""The whole route, as a user runs it: truth, repetition, and one clear message for each thing that can be wrong."""

from __future__ import annotations

import json
import re
import resource
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hiexchange import config, pipeline
from hiexchange.cli.demo import compare
from hiexchange.errors import ConfigError, RosterError
from hiexchange.lake import Lake


def test_every_stage_agrees_with_the_planted_truth(finished: Any) -> None:
    assert [
        (name, verdict) for name, verdict, right in compare(finished.site.population, finished.later) if not right
    ] == []
    assert set(finished.later.deliveries["state"].to_pylist()) == {"acked"}


def test_a_second_run_sends_nothing_twice(finished: Any) -> None:
    assert finished.inbox
    assert finished.inbox_again == finished.inbox
    assert finished.again.deliveries.num_rows == finished.first.deliveries.num_rows
    assert finished.again.lake.tables() == finished.first.lake.tables()
    assert finished.first.identity == finished.again.identity


def test_the_identity_is_recounted_from_the_tables(finished: Any) -> None:
    """Sum it again from decisions and ledger, without the library's own counting."""
    result = finished.first
    with closing(sqlite3.connect(result.output / "outbox.sqlite")) as ledger:
        sent = {key for (key,) in ledger.execute("SELECT DISTINCT event_key FROM delivery")}
    fates: dict[str, set[str]] = {}
    for row in result.routing.decisions.select(["event_key", "decision"]).to_pylist():
        fates.setdefault(row["event_key"], set()).add(row["decision"])
    assert set(fates) == set(result.routing.events["event_key"].to_pylist())
    assert {key for key, decisions in fates.items() if "deliver" in decisions} == sent
    others = {key: decisions for key, decisions in fates.items() if key not in sent}
    assert result.identity["events"] == len(sent) + len(others)
    assert result.identity["held"] == sum("held" in decisions for decisions in others.values())
    assert result.identity_holds


def test_the_page_shows_the_numbers_of_run_json_and_no_patient(finished: Any) -> None:
    result = finished.later
    page = (result.output / "report.html").read_text()
    run = json.loads((result.output / "run.json").read_text())
    assert f"{run['identity']['events']:,} events" in page
    assert "<script" not in page and "http://" not in page and "https://" not in page
    for person in result.persons.to_pylist():
        assert person["person_id"] not in page
        assert person["last_name"] not in page


def test_the_command_line_runs_the_same(site: Any, hiexchange: Any) -> None:
    done = hiexchange("run", site.configuration, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["identity_holds"] is True


def refused(done: Any, exit_code: int, *words: str) -> None:
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error HX-"), done.stderr
    assert "\n  do " in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def nothing_written(site: Any) -> None:
    assert not list((site.population.folder / "out").rglob("*.html"))
    assert not list((site.population.folder / "out").rglob("*.part"))


def test_a_key_that_does_not_exist(site: Any, hiexchange: Any) -> None:
    site.edit("known_at", "knwon_at")
    refused(hiexchange("run", site.configuration), 3, "`knwon_at`", "did you mean `known_at`?")
    assert not (site.population.folder / "out").exists()


def test_a_key_of_a_server_or_subscription_that_does_not_exist(site: Any, hiexchange: Any) -> None:
    site.edit("client_id", "client_idd")
    refused(hiexchange("run", site.configuration), 3, "client_idd")
    site.edit("client_idd", "client_id")
    site.edit("cadence", "cadense")
    refused(hiexchange("run", site.configuration), 3, "cadense")
    assert not (site.population.folder / "out").exists()


def test_a_missing_secret(site: Any, hiexchange: Any) -> None:
    site.edit("file:demo.jwk", "env:HX_NO_SUCH_SECRET")
    refused(hiexchange("run", site.configuration), 3, "env:HX_NO_SUCH_SECRET")
    nothing_written(site)


def test_an_unreachable_server(site: Any, hiexchange: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    site.edit(f":{site.server.url.split(':')[2].split('/')[0]}/", f":{port}/")
    refused(hiexchange("run", site.configuration), 5, f"127.0.0.1:{port}")
    nothing_written(site)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"a,b\n1,2\n"])
def test_an_unreadable_roster(site: Any, content: bytes) -> None:
    path = site.population.folder / "rosters" / "payer-a-2025-01-01.csv"
    path.write_bytes(content)
    settings = config.load(site.configuration)
    Lake(site.population.folder / "out" / "lake").ingest(site.population.fhir)
    with pytest.raises(RosterError, match=re.escape(path.name)) as caught:
        pipeline.run(msgspec.structs.replace(settings, servers={}))
    assert caught.value.exit_code == 7 and caught.value.hint
    nothing_written(site)


def test_a_roster_that_is_not_there(site: Any, hiexchange: Any) -> None:
    (site.population.folder / "rosters" / "payer-b-2025-05-01.txt").unlink()
    refused(hiexchange("run", site.configuration), 3, "payer-b-2025-05-01.txt")
    nothing_written(site)


@pytest.mark.parametrize("limit", [2_000, 120_000])
def test_a_full_disk_at_several_moments_then_room_again(site: Any, hiexchange: Any, limit: int) -> None:
    """The kernel refuses to let any file grow beyond the limit, wherever the run is by then."""
    done = hiexchange(
        "run", site.configuration, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    refused(done, 3, "full")
    nothing_written(site)
    after = hiexchange("run", site.configuration)
    assert after.returncode == 0, after.stderr


def test_a_folder_that_cannot_be_written(site: Any, hiexchange: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    site.edit('output = "out"', f'output = "{tmp_path / "file"}/out"')
    done = hiexchange("run", site.configuration)
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr


def test_what_cannot_work_is_refused_before_anything_is_written(site: Any) -> None:
    settings = config.load(site.configuration)
    wrong = {
        "no measure 'nothing'": {
            "measures": (config.MeasureSettings(id="nothing", period=settings.measures[0].period),)
        },
        "no server to export from": {"servers": {}},
        "is no offset": {"measures": (msgspec.structs.replace(settings.measures[0], offset="six"),)},
        "no offset": {"known_at": "2026-01-05T12:00:00"},
        "nowhere": {"export": config.ExportSettings(server="nowhere")},
        "no-such-layout": {"rosters": (msgspec.structs.replace(settings.rosters[0], layout="no-such-layout"),)},
    }
    for words, change in wrong.items():
        with pytest.raises(ConfigError, match=words):
            pipeline.run(msgspec.structs.replace(settings, **change))
    nothing_written(site)
    assert not list((site.population.folder / "out").rglob("*.parquet"))
