"""The verbs route, feedback and listen on a lake and an inbox."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from hiexchange import ndjson
from hiexchange.attribution import raise_dispute
from hiexchange.cli import feedback, listen, route
from hiexchange.cli.feedback import parse_period
from hiexchange.errors import ConfigError
from hiexchange.lake import Lake
from hiexchange.tables import ATTRIBUTION, PERSON_LINK, ROSTER

PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "birthDate": "1960-01-01",
    "name": [{"family": "Zylstra", "given": ["Odo"]}],
}
ENCOUNTER = {
    "resourceType": "Encounter", "id": "e1", "status": "finished", "class": {"code": "IMP"}, "subject": {"reference": "Patient/p1"},
    "period": {"start": "2026-03-02T10:00:00-06:00", "end": "2026-03-04T10:00:00-06:00"},
    "serviceProvider": {"reference": "Organization/h1"},
}  # fmt: skip
A_ROSTER = {
    "roster_id": "r", "payer_id": "payer-a", "list_id": "l", "file_name": "f", "file_sha256": "s", "layout": "l 1",
    "mode": "full", "as_of_on": date(2026, 1, 1), "received_at": datetime(2026, 1, 1, tzinfo=UTC), "state": "accepted",
    "rows_read": 1, "rows_accepted": 1, "rows_refused": 0, "rows_duplicate": 0,
}  # fmt: skip
Run = Callable[..., Result]


@pytest.fixture
def run(world: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in a folder with a lake and subscriptions."""
    (tmp_path / "fhir").mkdir()
    for resource in (PATIENT, ENCOUNTER):
        (tmp_path / "fhir" / f"{resource['resourceType']}.ndjson").write_bytes(ndjson.dumps([resource]))
    lake = Lake(tmp_path / "lake")
    lake.ingest(tmp_path / "fhir")
    lake.append("attribution", ATTRIBUTION.from_rows([world.attribution()]))
    lake.append("person_link", PERSON_LINK.from_rows([world.link()]))
    (tmp_path / "subscriptions.toml").write_text(
        f'[[subscriptions]]\nid = "clinic"\nnpi = ["{world.NPI_A}"]\nchannel = "out/clinic"\n'
    )
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    for verb in (route, feedback, listen):
        verb.register(app)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


KNOWN = ("--known-at", "2026-03-06T00:00:00Z")


def test_route_prints_the_identity_and_writes_the_decisions(run: Run) -> None:
    result = run("route", "run", *KNOWN, "--out", "decisions.parquet", "--dry-run", "scratch")
    assert "2 events = 0 swallowed + 0 unmatched + 0 unattributed + 0 held + 2 deliver" in result.output
    assert "2 new, 0 in the ledger already" in result.output
    assert pq.read_table("decisions.parquet").num_rows == 2
    assert len(list(Path("scratch/clinic/default").glob("*.csv"))) == 1
    assert not Path("out").exists()


def test_route_as_json(run: Run) -> None:
    found = json.loads(run("route", "run", *KNOWN, "--json").output)
    assert found["identity"]["deliver"] == 2 and found["reasons"][0]["reason"] == "attributed"


def test_disputes_in_the_lake_are_heeded(run: Run, world: SimpleNamespace) -> None:
    rows = ATTRIBUTION.from_rows([world.attribution()])
    disputed = raise_dispute(rows, "not_my_patient", raised_by="clinic", raised_on=date(2026, 3, 5))
    Lake("lake").append("dispute", disputed)
    found = json.loads(run("route", "run", *KNOWN, "--json").output)
    assert found["identity"]["deliver"] == 0


def test_consent_files_are_read(run: Run) -> None:
    Path("consent.csv").write_text(
        "person_id,scope,party,decision,valid_from,valid_to,known_from,statement\np1,exchange,,deny,2026-01-01,9999-12-31,,\n"
    )
    assert "opted_out" in run("route", "run", *KNOWN, "--consent", "consent.csv").output
    Path("consent.ndjson").write_text('{"person_id": "p1", "scope": "exchange", "decision": "deny"}\n')
    assert "opted_out" in run("route", "run", *KNOWN, "--consent", "consent.ndjson").output


def test_explain_says_why(run: Run) -> None:
    run("route", "run", *KNOWN, "--out", "decisions.parquet")
    key = pq.read_table("decisions.parquet")["event_key"][0].as_py()
    output = run("route", "explain", key[:12], *KNOWN).output
    assert "clinic/default: deliver (attributed)" in output and "row 1" in output and "payer-a" in output
    assert "Zylstra" not in output


def test_feedback_writes_files_and_a_page(run: Run) -> None:
    output = run("feedback", "payer-a", "--period", "2026-03", *KNOWN).output
    assert "members" in output and "2 events =" in output
    assert Path("feedback/payer-a_20260301-20260331.html").exists()
    assert Path("feedback/shareable/payer-a_20260301-20260331.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("route", "run", "--lake", "absent"), "the lake does not exist"),
        (("route", "run", "--subscriptions", "absent.toml"), "subscriptions file does not exist"),
        (("route", "run", "--adt", "absent"), "inbox does not exist"),
        (("route", "run", "--consent", "absent.csv"), "consent file does not exist"),
        (("route", "run", "--known-at", "soon"), "is no instant"),
        (("feedback", "payer-a", "--period", "March"), "is no period"),
        (("listen", "--host", "0.0.0.0", "--port", "0"), "in the clear"),
    ],
)
def test_mistakes_are_one_clear_message(run: Run, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(*words)


def test_periods() -> None:
    assert [day.isoformat() for day in parse_period("2026-02")] == ["2026-02-01", "2026-02-28"]
    assert [day.isoformat() for day in parse_period("2026-01-01/2026-03-31")] == ["2026-01-01", "2026-03-31"]
    for text in ("2026-13", "2026", "2026-03-31/2026-01-01"):
        with pytest.raises(ConfigError):
            parse_period(text)


def test_a_ledger_or_payer_that_is_not_there_is_said_not_passed_over(run: Run, tmp_path: Path) -> None:
    for words in (
        ("feedback", "payer-a", "--period", "2026-03"),
        ("route", "explain", "x"),
        ("route", "run", "--dry-run", "dry"),
    ):
        with pytest.raises(ConfigError, match="delivery ledger does not exist"):
            run(*words, *KNOWN, "--outbox", "none.sqlite")
    Lake(tmp_path / "lake").append("roster", ROSTER.from_rows([A_ROSTER]))
    with pytest.raises(ConfigError, match="known: payer-a"):
        run("feedback", "payer-z", "--period", "2026-03", *KNOWN)
