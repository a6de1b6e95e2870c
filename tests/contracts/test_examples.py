"""Every example runs as it stands, in an empty folder, and stays short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("[0-9]*.py")), ids=lambda path: path.name)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    assert example.read_text().count("\n") < 60
    done = subprocess.run(
        [sys.executable, example], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_synthea_example_runs_the_whole_route_on_real_data(shared: Path, tmp_path: Path) -> None:
    """The three commands at the head of examples/synthea/hiexchange.toml."""
    program = Path(sys.executable).with_name("hiexchange")
    source = shared / "data" / "synthea-100"
    configuration = (EXAMPLES / "synthea" / "hiexchange.toml").read_text()
    serve = [str(program), "serve", str(source), "--port", "0", "--auth", "none"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            url = next(word for line in server.stdout for word in line.split() if word.startswith("http://127.0.0.1:"))
            make = [sys.executable, EXAMPLES / "synthea" / "make_rosters.py", source, tmp_path / "rosters"]
            subprocess.run(make, check=True, timeout=60)
            (tmp_path / "layout.toml").write_text((EXAMPLES / "synthea" / "layout.toml").read_text())
            (tmp_path / "hiexchange.toml").write_text(configuration.replace("http://127.0.0.1:8765/fhir", url))
            run = [str(program), "run", "hiexchange.toml"]
            done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        finally:
            server.terminate()
    assert done.returncode == 0, done.stderr
    assert "38,483 resources" in done.stdout
    assert "19 tables  38,483 rows  0 lines refused" in done.stdout
    assert "DOES NOT HOLD" not in done.stdout
    assert (tmp_path / "out" / "report.html").stat().st_size > 2000
    assert len(list((tmp_path / "out" / "inbox").glob("practice-*"))) == 6
