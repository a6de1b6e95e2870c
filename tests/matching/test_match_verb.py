"""``hiexchange match``: run, review, decide, quality, explain and train on a real lake."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from hiexchange import ndjson
from hiexchange.cli import match as verb
from hiexchange.errors import ConfigError
from hiexchange.lake import Lake

Build = Callable[..., pa.Table]


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    verb.register(app)
    return app


@pytest.fixture
def lake(tmp_path: Path, member_table: Build) -> Path:
    patients = [
        {
            "resourceType": "Patient",
            "id": f"-{number}",
            "name": [{"use": "official", "family": "Ormerod", "given": [given]}],
            "birthDate": born,
            "gender": "female",
            "address": [
                {"use": "home", "line": ["12 Oak Street"], "city": "Conway", "state": "AR", "postalCode": "72032"}
            ],
        }
        for number, (given, born) in enumerate([("Ada", "1980-01-02"), ("Eve", "1952-05-06")], 1)
    ]
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "Patient.ndjson").write_bytes(ndjson.dumps(patients))
    store = Lake(tmp_path / "lake")
    store.ingest(folder)
    home = {"last_name": "Ormerod", "address_line": "12 Oak St", "city": "Conway", "zip": "72032"}
    store.append(
        "member",
        member_table(
            home | {"first_name": "Ada", "birth_on": date(1980, 1, 2), "member_key": "k1"},
            home | {"first_name": "Eve", "birth_on": date(1990, 5, 7), "member_key": "k2"},
        ),
    )
    return tmp_path / "lake"


def run(app: typer.Typer, *arguments: object) -> str:
    result = CliRunner().invoke(app, ["match", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_doubtful_member_is_reviewed_decided_and_then_linked(app: typer.Typer, lake: Path, tmp_path: Path) -> None:
    assert "2 links new or changed" in run(app, "run", "--lake", lake)
    assert "0 links new or changed" in run(app, "run", "--lake", lake)
    assert "1 pairs" in run(app, "review", tmp_path / "q.csv", "--lake", lake)
    text = (tmp_path / "q.csv").read_text().splitlines()
    (tmp_path / "q.csv").write_text("\n".join([text[0], "same,j.doe" + text[1][1:]]))
    assert "1 decisions taken, 1 in the lake" in run(app, "decide", tmp_path / "q.csv", "--lake", lake)
    assert "0 decisions taken, 1 in the lake" in run(app, "decide", tmp_path / "q.csv", "--lake", lake)
    assert "1 links new or changed" in run(app, "run", "--lake", lake)
    assert "0 links new or changed" in run(app, "run", "--lake", lake)
    links = Lake(lake).table("person_link").to_arrow().to_pylist()
    assert [row["person_id"] for row in links if row["method"] == "decision"] == ["-2"]
    assert "auto" in run(app, "quality", "--lake", lake)
    why = run(app, "explain", "--lake", lake, "--", "k2", "-2")
    assert "guard: birth_date_conflict" in why and "Ormerod" not in why


def test_a_lake_without_members_is_one_clear_error(app: typer.Typer, tmp_path: Path) -> None:
    Lake(tmp_path / "lake")
    with pytest.raises(ConfigError):
        run(app, "run", "--lake", tmp_path / "lake")
