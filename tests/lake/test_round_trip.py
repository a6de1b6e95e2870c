"""The round-trip script on the shared data, as CI runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "conformance" / "roundtrip.py"


def run(*folders):
    return subprocess.run([sys.executable, SCRIPT, *folders], capture_output=True, text=True, check=False)


def test_cms_claims_and_attribution_lists_come_back_equal(shared):
    done = run(shared / "data" / "cms-claims", shared / "data" / "davinci-atr")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 64 | 64 | 0 | 0 | 0 |" in done.stdout


@pytest.mark.slow
def test_synthea_comes_back_equal(shared):
    done = run(shared / "data" / "synthea-100")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 38,483 | 38,483 | 0 | 0 | 0 |" in done.stdout


def test_nothing_read_is_a_failure(tmp_path):
    assert run(tmp_path).returncode == 1
