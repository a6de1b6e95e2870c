"""Files of rows, and the ``view`` verbs on the command line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hiexchange.errors import ViewError
from hiexchange.views import write_rows

TABLE = pa.table(
    {
        "text": ["a,b", None, 'say "x"'],
        "flag": [True, None, False],
        "amount": pa.array([Decimal("1.50"), None, Decimal("-2.00")], pa.decimal128(9, 2)),
        "at": pa.array([datetime(2020, 1, 2, 3, 4, tzinfo=UTC), None, None], pa.timestamp("us", tz="UTC")),
        "codes": pa.array([["x", "y"], None, []], pa.list_(pa.string())),
    }
)


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "ndjson"])
def test_every_format_holds_the_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    assert write_rows(TABLE.to_batches(max_chunksize=2), TABLE.schema, path) == 3
    if suffix == "parquet":
        assert pq.read_table(path) == TABLE
    elif suffix == "arrow":
        with pa.ipc.open_file(path) as file:
            assert file.read_all() == TABLE
    elif suffix == "ndjson":
        lines = [json.loads(line, parse_float=Decimal) for line in path.read_text().splitlines()]
        assert lines[0] == {
            "text": "a,b",
            "flag": True,
            "amount": Decimal("1.50"),
            "at": "2020-01-02T03:04:00Z",
            "codes": ["x", "y"],
        }
        assert lines[1] == dict.fromkeys(TABLE.column_names)
    else:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows == [
            ["text", "flag", "amount", "at", "codes"],
            ["a,b", "true", "1.50", "2020-01-02T03:04:00+00:00", '["x","y"]'],
            ["", "", "", "", ""],
            ['say "x"', "false", "-2.00", "", "[]"],
        ]


def test_a_failed_run_leaves_no_file(tmp_path: Path) -> None:
    def rows():  # type: ignore[no-untyped-def]
        yield TABLE.to_batches()[0]
        raise ViewError("stop")

    with pytest.raises(ViewError, match="stop"):
        write_rows(rows(), TABLE.schema, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ViewError, match="xlsx"):
        write_rows([], TABLE.schema, tmp_path / "out.xlsx")


def hiexchange(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from hiexchange.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_view_list_and_check(tmp_path: Path) -> None:
    listed = hiexchange("view", "list", cwd=tmp_path)
    assert listed.returncode == 0
    assert "patient_demographics" in listed.stdout and "Tuva input layer: eligibility" in listed.stdout
    checked = hiexchange("view", "check", "encounter", "--profile", "shareable", cwd=tmp_path)
    assert checked.returncode == 0
    assert "attending_practitioner_id" in checked.stdout
    (tmp_path / "bad.json").write_text('{"resource":"Patient","select":[{"column":[{"name":"x","path":"name."}]}]}')
    bad = hiexchange("view", "check", "bad.json", cwd=tmp_path)
    assert bad.returncode == 7
    assert "HX-431" in bad.stderr and "Traceback" not in bad.stderr
    tabular = hiexchange("view", "check", "patient_demographics", "--profile", "tabular", cwd=tmp_path)
    assert tabular.returncode == 7 and "collection" in tabular.stderr


def test_view_run_prints_csv_or_writes_a_file(tmp_path: Path) -> None:
    (tmp_path / "Patient.ndjson").write_text(
        '{"resourceType":"Patient","id":"-1","gender":"female"}\n{"resourceType":"Patient","id":"-2"}\n'
    )
    printed = hiexchange(
        "view", "run", "patient_demographics", "--from", "Patient.ndjson", "--limit", "1", cwd=tmp_path
    )
    rows = list(csv.DictReader(printed.stdout.splitlines()))
    assert [(row["person_id"], row["sex"]) for row in rows] == [("-1", "female")]
    written = hiexchange("view", "run", "patient_demographics", "--from", ".", "-o", "out.parquet", cwd=tmp_path)
    assert written.stdout.startswith("2 rows")
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("view", "run", "encountr", "--from", "."), 7, "did you mean encounter?"),
        (("view", "run", "encounter"), 2, "--lake or --from"),
        (("view", "run", "encounter", "--from", "."), 3, "no NDJSON file of Encounter"),
        (("view", "run", "tuva_eligibility", "--from", ".", "--set", "x"), 2, "name=value"),
        (("view", "run", "absent.json", "--from", "."), 3, "cannot be read"),
    ],
)
def test_view_errors_are_one_message(tmp_path: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = hiexchange(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""
