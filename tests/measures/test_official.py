"""Official cases, where they stand beside the checkout: a few measures always, all of them when asked (slow)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "conformance" / "ecqm.py"


def conformance(shared: Path, tmp_path: Path, only: str = "") -> dict:
    folder = shared / "ecqm"
    if not folder.is_dir():
        pytest.skip("the official measures are not beside the checkout: ecqm is absent")
    report = tmp_path / "report.json"
    command = [sys.executable, str(SCRIPT), "--measures", str(folder / "measures"), "--cases", str(folder / "cases")]
    command += ["--report", str(report), "--only", only]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(report.read_text())


@pytest.mark.parametrize(("measure", "cases"), [("CMS165", 35), ("CMS68", 6), ("CMS871", 6), ("CMS349", 13)])
def test_official_cases_pass(shared, tmp_path, measure, cases):
    found = conformance(shared, tmp_path, measure)
    assert (found["passed"], found["failed"]) == (cases, 0)


@pytest.mark.slow
def test_all_official_cases_pass_but_the_doubtful(shared, tmp_path):
    found = conformance(shared, tmp_path)
    assert sum(len(measure["failed"]) for measure in found["measures"]) == 0
    assert found["passed"] >= 975
