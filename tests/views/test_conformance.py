"""The official SQL on FHIR v2 suite: all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_all_official_tests_pass(shared: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "conformance/sql_on_fhir.py"
    suite = shared / "conformance/sql-on-fhir/tests"
    report = tmp_path / "test_report.json"
    done = subprocess.run(
        [sys.executable, str(script), str(suite), "--report", str(report)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "134 passed, 0 failed", done.stdout
    assert done.returncode == 0
    written = json.loads(report.read_text())
    assert len(written) == 22
    for entry in written.values():
        assert set(entry) == {"tests"}
        for test in entry["tests"]:
            assert test["result"] == {"passed": True} and set(test) == {"name", "result"}
