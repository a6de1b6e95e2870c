"""The verbs ``roster`` and ``attribution``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from hiexchange.cli import attribution, roster

OPTIONS = ["--payer", "payer-a", "--as-of", "2026-01-01"]


def run(*arguments: str) -> Any:
    app = typer.Typer()
    roster.register(app)
    attribution.register(app)
    return CliRunner().invoke(app, list(arguments))


def test_check_shows_counts_and_issues(write: Callable[..., Path], rows: Callable[..., str]) -> None:
    path = write("\n".join([rows(1), rows(2, provider_npi="1")]))
    result = run("roster", "check", str(path), *OPTIONS)
    assert result.exit_code == 0
    assert "accepted   1" in result.stdout
    assert "bad_npi" in result.output
    found = json.loads(run("roster", "check", str(path), *OPTIONS, "--json").stdout)
    assert (found["read"], found["refused"], found["state"]) == (2, 1, "accepted")


def test_check_ends_with_seven_when_the_file_would_not_be_accepted(
    write: Callable[..., Path], rows: Callable[..., str]
) -> None:
    before = write("\n".join(rows(n) for n in range(100)), name="before.csv")
    after = write("\n".join(rows(n) for n in range(40)), name="after.csv")
    held = run("roster", "check", str(after), *OPTIONS, "--json")
    assert held.exit_code == 0
    layout = before.parent / "dated.toml"
    layout.write_text('extends = "csv"\n[list.as_of]\nfile_name = "before-(.*).csv"\n')
    dated = before.rename(before.parent / "before-2026-01-01.csv")
    held = run("roster", "check", str(after), *OPTIONS, "--layout", str(layout), "--previous", str(dated))
    assert held.exit_code == 7
    released = run(
        *("roster", "check", str(after), *OPTIONS, "--layout", str(layout), "--previous", str(dated)),
        *("--release", "Jo Hill"),
    )
    assert released.exit_code == 0
    assert "released by Jo Hill" in released.stdout


def test_diff_counts_changes(write: Callable[..., Path], rows: Callable[..., str]) -> None:
    old = write("\n".join([rows(1), rows(2)]), name="old.csv")
    new = write("\n".join([rows(2), rows(3)]), name="new.csv")
    days = ["--old-as-of", "2026-01-01", "--new-as-of", "2026-02-01"]
    found = json.loads(run("roster", "diff", str(old), str(new), "--payer", "p", *days, "--json").stdout)
    assert (found["new"], found["nochange"], found["dropped"]) == (1, 1, 1)
    assert "dropped" in run("roster", "diff", str(old), str(new), "--payer", "p", *days).stdout


def test_infer_and_layouts(write: Callable[..., Path], rows: Callable[..., str]) -> None:
    path = write(rows(1))
    assert "verified = false" in run("roster", "infer", str(path)).stdout
    names = {row["name"] for row in json.loads(run("roster", "layouts", "--json").stdout)}
    assert {"csv", "x12-834", "atr-ndjson"} <= names
    assert "cclf8" in run("roster", "layouts").stdout


def test_attribution_of_a_lake(tmp_path: Path, read: Callable[..., Any], rows: Callable[..., str]) -> None:
    from hiexchange.attribution import attribute
    from hiexchange.lake import Lake

    sheet = read("\n".join([rows(1), rows(2)]))
    lake = Lake(tmp_path / "lake")
    lake.append("attribution", attribute(sheet, None, known_at=sheet.received_at))
    shown = json.loads(
        run("attribution", "show", "--lake", str(tmp_path / "lake"), "--on", "2026-02-01", "--json").stdout
    )
    assert [row["members"] for row in shown] == [2]
    summary = json.loads(
        run("attribution", "report", "--lake", str(tmp_path / "lake"), "--quarter", "2026-Q1", "--json").stdout
    )
    assert summary["summary"][0]["members_end"] == 2
    assert (
        "members_end" in run("attribution", "report", "--lake", str(tmp_path / "lake"), "--quarter", "2026-Q1").stdout
    )
    assert run("attribution", "report", "--lake", str(tmp_path / "lake"), "--quarter", "spring").exit_code != 0
