"""The command line: help, exit codes, errors without tracebacks, interruption that saves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hiexchange.cli import render
from hiexchange.errors import BadLine, MissingExtra, RequestRefused

PROGRAM = str(Path(sys.executable).with_name("hiexchange"))


def hiexchange(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def test_help_lists_every_verb_file() -> None:
    text = hiexchange("--help").stdout
    folder = Path(render.__file__).parent
    verbs = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")} - {"app", "render"}
    assert {verb for verb in verbs if f" {verb} " not in text} == set()


def test_usage_errors_exit_2() -> None:
    assert hiexchange("no-such-verb").returncode == 2
    assert hiexchange("run", "--no-such-option").returncode == 2


def test_an_error_says_what_where_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    render.failure(
        RequestRefused(
            'Group "A9994" was not found (404)', where="GET https://x.example", said="not-found", hint="ask for all"
        )
    )
    assert capsys.readouterr().err.splitlines() == [
        'error HX-301 Group "A9994" was not found (404)',
        "  where  GET https://x.example",
        "  said   not-found",
        "  do     ask for all",
    ]
    render.failure(BadLine("cut", file="a.ndjson", line=40_118, offset=38_221_077))
    assert "a.ndjson line 40,118 (byte 38,221,077)" in capsys.readouterr().err
    render.failure(MissingExtra("sftp", "delivery over SFTP"))
    assert "pip install 'hiexchange[sftp]'" in capsys.readouterr().err


def test_configuration_errors_exit_3_without_a_traceback(tmp_path: Path) -> None:
    done = hiexchange("run", tmp_path / "none.toml")
    assert done.returncode == 3
    assert done.stderr.startswith("error HX-101 there is no such configuration file")
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = hiexchange("--debug", "run", tmp_path / "none.toml")
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_exits_130_and_the_same_command_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    # A background shell leaves SIGINT ignored, and what it starts inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen([PROGRAM, "demo", "--patients", "60"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    while not (tmp_path / "hiexchange-demo" / "out" / "lake").exists():
        assert process.poll() is None, "the demo ended before it could be interrupted"
        time.sleep(0.02)
    process.send_signal(number)
    _, trouble = process.communicate(timeout=60)
    assert process.returncode == 130, trouble
    assert trouble.endswith("interrupted: what was finished is kept, run the same command again for the rest\n")
    assert "Traceback" not in trouble and trouble.count("interrupted") == 1
    assert hiexchange("demo", "--patients", "60", cwd=tmp_path).returncode == 0


def test_demo_exits_7_when_a_stage_differs_from_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The truth line must be able to fail: plant one fact that no stage can find."""
    script = (
        "import sys\n"
        "from hiexchange.testing.population import truth\n"
        "facts = truth.Truth.facts\n"
        "def one_more(self, name):\n"
        "    yield from facts(self, name)\n"
        "    if name == 'notices':\n"
        "        yield {'encounter': 'x', 'trigger': 'admit', 'subscriber': 'practice-1', 'expect': 'must'}\n"
        "truth.Truth.facts = one_more\n"
        "from hiexchange.cli import main\n"
        "sys.argv = ['hiexchange', 'demo', '--patients', '40']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "routing DIFFERS in 1 (missing x/admit/practice-1)" in done.stdout
    page = (tmp_path / "hiexchange-demo" / "out" / "report.html").read_text()
    assert '<td class="differs">DIFFERS in 1 (missing x/admit/practice-1)</td>' in page


def test_synth_writes_what_it_says(tmp_path: Path) -> None:
    done = hiexchange("synth", tmp_path / "people", "--patients", "30")
    assert done.returncode == 0
    lines = (tmp_path / "people" / "fhir" / "Patient.ndjson").read_text().count("\n")
    assert lines == 30 and "Patient" in done.stdout
