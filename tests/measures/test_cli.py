"""The verb ``hiexchange measure``: check, list, run, why, gaps, completeness."""

from __future__ import annotations

import json

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from hiexchange.cli import measure
from hiexchange.errors import MeasureError

PERIOD = ("--start", "2026-01-01", "--end", "2026-12-31")


@pytest.fixture
def files(tmp_path, small_bundle, people):
    (tmp_path / "bundle.json").write_text(json.dumps(small_bundle))
    (tmp_path / "people").mkdir()
    for number, person in enumerate(people):
        (tmp_path / "people" / f"{number}.json").write_text(json.dumps(person))
    return tmp_path


@pytest.fixture
def run(files):
    app = typer.Typer()
    measure.register(app)

    def call(*words, code=0):
        given = [str(files / word[1:]) if word.startswith("@") else word for word in words]
        found = CliRunner().invoke(app, ["measure", *given], catch_exceptions=False)
        assert found.exit_code == code, found.output
        return found.output

    return call


def test_check_names_what_is_wrong_and_says_so_in_the_exit_code(run, files, small_bundle):
    assert "0 errors" in run("check", "@bundle.json")
    small_bundle["entry"] = [e for e in small_bundle["entry"] if e["resource"]["resourceType"] != "ValueSet"]
    (files / "broken.json").write_text(json.dumps(small_bundle))
    assert "valueset-missing" in run("check", "@broken.json", code=7)
    assert {row["code"] for row in json.loads(run("check", "@broken.json", "--json", code=7))} == {"valueset-missing"}
    with pytest.raises(MeasureError, match="cannot be trusted"):
        run("run", "@people", "-m", "@broken.json", *PERIOD)
    accepted = run("run", "@people", "-m", "@broken.json", *PERIOD, "--accept", "valueset-missing")
    assert "accepted valueset-missing" in accepted


def test_list_names_our_own_measures(run):
    out = run("list")
    assert all(name in out for name in ("followup-7d", "ed-return-72h", "notice-24h"))


def test_run_prints_counts_and_writes_results(run, files):
    out = run("run", "@people", "-m", "@bundle.json", *PERIOD, "--by", "sex", "--out", "@out")
    assert "25.0 %" in out
    assert "suppressed" in out
    assert pq.read_table(files / "out" / "SmallMeasure.parquet").num_rows == 6
    report = json.loads((files / "out" / "SmallMeasure.summary.json").read_text())
    assert report["type"] == "summary"
    assert json.loads(run("run", "@people", "-m", "@bundle.json", *PERIOD, "--json")) == report


def test_run_adds_supplemental_data_where_it_is_asked_for(run, files, supplemental_bundle):
    (files / "asking.json").write_text(json.dumps(supplemental_bundle))
    words = ("run", "@people", "-m", "@asking.json", *PERIOD)
    assert "contained" not in json.loads(run(*words, "--json"))
    out = run(*words, "--supplemental", "--out", "@out")
    (line,) = (line.split() for line in out.splitlines() if line.startswith("sde-coded"))
    assert line[1:] == ["x", "*"], "four patients are too few to be shown"
    assert "4 values could not be computed" in out
    table = pq.read_table(files / "out" / "SmallMeasure.supplemental.parquet")
    assert set(table["id"].to_pylist()) == {"sde-female", "sde-coded", "risk-visits", "risk-broken"}
    report = json.loads((files / "out" / "SmallMeasure.summary.json").read_text())
    assert [item["valueInteger"] for item in report["contained"]] == [4]
    assert json.loads(run(*words, "--supplemental", "--json")) == report


def test_why_explains_in_text_and_on_a_page(run, files):
    assert "Controlled Pressures" in run("why", "@people", "a-hit", "-m", "@bundle.json", *PERIOD)
    run("why", "@people", "a-hit", "-m", "@bundle.json", *PERIOD, "--html", "@why.html")
    assert (files / "why.html").stat().st_mode & 0o777 == 0o600
    assert "<script" not in (files / "why.html").read_text()


def test_gaps_are_counted_by_reason_and_written_with_their_documents(run, files):
    out = run("gaps", "@people", "-m", "@bundle.json", *PERIOD, "--out", "@gaps.csv", "--documents", "@documents")
    assert "3 gaps" in out
    assert "out-of-period" in out
    rows = pyarrow.csv.read_csv(files / "gaps.csv").to_pylist()
    assert {row["subject"] for row in rows} == {"b-high", "c-none", "d-old-value"}
    documents = [json.loads(path.read_text()) for path in (files / "documents").iterdir()]
    assert len(documents) == 3
    assert {document["type"] for document in documents} == {"document"}
    assert not any("b-high" in path.name for path in (files / "documents").iterdir())


def test_completeness_compares_three_kinds_of_data(run):
    rows = json.loads(run("completeness", "@people", "-m", "@bundle.json", *PERIOD, "--json"))
    assert [row["data"] for row in rows] == ["claims", "clinical", "both"]
    assert "clinical" in run("completeness", "@people", "-m", "@bundle.json", *PERIOD)
