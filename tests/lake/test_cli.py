"""The verbs of ``hiexchange lake``, run as a user runs them."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from hiexchange.cli.lake import register
from hiexchange.errors import LakeError


@pytest.fixture
def run(tmp_path):
    app = typer.Typer()
    register(app)
    source = tmp_path / "Patient.ndjson"
    source.write_bytes(
        b'{"resourceType":"Patient","id":"a","gender":"male","foo":1}\n{"resourceType":"Patient","id":"b"}\n{"resource\n'
    )

    def call(*words, code=0):
        result = CliRunner().invoke(app, ["lake", *words, "--lake", str(tmp_path / "lake")])
        assert result.exit_code == code, result.output
        return result

    call("ingest", str(source))
    return call


def test_ingest_says_what_it_did(run, tmp_path):
    result = run("ingest", str(tmp_path / "Patient.ndjson"), "--validate", "sample:5")
    assert "2 resources from 1 files" in result.output
    assert "truncated 1" in result.output
    assert "Patient/foo  1" in result.output
    assert "validated 2 Patient: 1 with faults" in result.output
    assert json.loads(run("ingest", str(tmp_path), "--json").stdout)["tables"] == {"Patient": 2}
    assert run("ingest", str(tmp_path), "--validate", "all", code=2)


def test_too_many_bad_lines_end_in_an_error(run, tmp_path):
    result = run("ingest", str(tmp_path), "--max-bad-lines", "0", code=1)
    assert isinstance(result.exception, LakeError)
    assert result.exception.exit_code == 7


def test_tables_show_and_to_ndjson(run, tmp_path):
    assert json.loads(run("tables", "--json").stdout) == {"Patient": 2}
    assert "Patient" in run("tables").stdout
    assert run("show", "Patient", "--columns", "id,gender").stdout.split() == ["id", "gender", "a", "male", "b"]
    assert "a" in run("show", "select id from Patient where gender = 'male'").stdout
    assert "resourceType" in run("show", "Patient", "--schema").stdout
    lines = run("to-ndjson", "Patient", "--order", "source").stdout.splitlines()
    assert json.loads(lines[0]) == {"resourceType": "Patient", "id": "a", "gender": "male", "foo": 1}
    run("to-ndjson", "Patient", "-o", str(tmp_path / "out.ndjson"))
    assert len((tmp_path / "out.ndjson").read_bytes().splitlines()) == 2


def test_raw_strict_and_hash(run, tmp_path):
    source = tmp_path / "more.ndjson"
    source.write_bytes(b'{ "resourceType" : "Patient", "id":"c"}\n')
    run("ingest", str(source), "--raw", "--sha256", "--strict")
    assert '{ "resourceType" : "Patient", "id":"c"}' in run("to-ndjson", "Patient", "--raw").stdout
    source.write_bytes(b'{"resourceType":"Patient","id":"d","foo":1}\n')
    result = run("ingest", str(source), "--strict", code=1)
    assert isinstance(result.exception, LakeError)
    assert json.loads(run("tables", "--json").stdout) == {"Patient": 3}


def test_compact_and_vacuum(run):
    assert "snapshot 2" in run("compact").stdout
    assert "would remove" in run("vacuum", "--keep", "1", "--days", "0").stdout
    assert "removed 1 files" in run("vacuum", "--keep", "1", "--days", "0", "--remove").stdout
