"""kill -9 in the middle of a run, again and again: the end is what an undisturbed run leaves."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hiexchange import config, pipeline
from hiexchange.lake import Lake

KILLS = 12


@pytest.mark.kill
def test_a_run_killed_at_random_moments_ends_like_an_undisturbed_one(site: Any, finished: Any) -> None:
    program = str(Path(sys.executable).with_name("hiexchange"))
    rng = Random(5)
    kills, attempts, longest = 0, 0, 8.0
    while kills < KILLS:
        attempts += 1
        assert attempts < 5 * KILLS, f"only {kills} of {attempts} runs could be killed"
        started = time.monotonic()
        process = subprocess.Popen(
            [program, "run", str(site.configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            _, trouble = process.communicate(timeout=rng.uniform(0.1, 1.0) * longest)
            assert process.returncode == 0, trouble.decode()
            longest = time.monotonic() - started
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    result = pipeline.run(config.load(site.configuration))
    calm = finished.first
    assert result.identity == calm.identity
    assert counted(result.lake) == counted(calm.lake)
    sizes = {path.relative_to(result.output): path.stat().st_size for path in files_under(result.output / "inbox")}
    assert sizes == {path.relative_to(calm.output): len(data) for path, data in finished.inbox.items()}


def counted(lake: Lake) -> dict[str, int]:
    return {name: rows for name, rows in lake.tables().items() if name != "person_link"}


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
