"""The verbs, end to end, in real processes: serve, export, doctor, servers; messages and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from hiexchange.cli import main; main()"]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, text=True, capture_output=True, timeout=60)


@pytest.fixture
def served(data_folder: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A server with SMART and one fault, as a process; its URL and client id."""
    options = [
        "--port",
        "0",
        "--auth",
        "smart",
        "--key-file",
        str(tmp_path / "key.jwk"),
        "--fault",
        "41,wrong_error_count",
    ]
    command = [*COMMAND, "serve", str(data_folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout and server.stderr
        url = server.stdout.readline().strip()
        lines = [server.stderr.readline() for _ in range(3)]
        client = next(line.split()[1] for line in lines if "client" in line)
        yield url, client
        server.kill()


def test_export_status_finish(served: tuple[str, str], tmp_path: Path) -> None:
    url, client = served
    who = ["--client-id", client, "--key", "file:key.jwk"]
    done = run("export", "start", "job", "--url", url, *who, "--group", "all", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resources"] == {"Encounter": 20, "Patient": 20}
    again = run("export", "resume", "job", *who, cwd=tmp_path)
    assert again.returncode == 0 and "40" in again.stdout
    assert "downloaded" in run("export", "status", "job", cwd=tmp_path).stdout
    assert run("export", "finish", "job", *who, cwd=tmp_path).stdout == "finished\n"
    assert "ok" in run("doctor", "--url", url, *who, cwd=tmp_path).stdout
    rows = [json.loads(line) for line in (tmp_path / "job" / "log.ndjson").read_text(encoding="utf-8").splitlines()]
    assert {"kickoff", "status_complete", "manifest_complete", "download_complete", "export_complete"} <= {
        row["eventId"] for row in rows
    }
    assert len({row["exportId"] for row in rows}) == 1  # the accepted kick-off has it already


def test_messages_and_exit_codes(tmp_path: Path, data_folder: Path) -> None:
    absent = run("export", "status", "nothing", cwd=tmp_path)
    secret = run(
        "export", "start", "a", "--url", "http://127.0.0.1:9/fhir", "--client-id", "x", "--key", "file:no", cwd=tmp_path
    )
    literal = run(
        "export", "start", "b", "--url", "http://127.0.0.1:9/fhir", "--client-id", "x", "--key", "abc", cwd=tmp_path
    )
    fault = run("serve", str(data_folder), "--fault", "999", cwd=tmp_path)
    assert [done.returncode for done in (absent, secret, literal, fault)] == [3, 3, 3, 3]
    for done in (absent, secret, literal, fault):
        assert done.stderr.startswith("error HX-") and "Traceback" not in done.stderr
    assert "abc" not in literal.stderr
    assert "bcda-sandbox" in run("servers", cwd=tmp_path).stdout


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_saves_says_how_to_go_on_and_exits_130(
    data_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    serve = [*COMMAND, "serve", str(data_folder), "--port", "0", "--fault", "transient_forever"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        start = [*COMMAND, "export", "start", "job", "--url", url, "--group", "all"]
        with subprocess.Popen(start, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as client:
            until = time.monotonic() + 20
            while not (tmp_path / "job" / "log.ndjson").exists() and time.monotonic() < until:
                time.sleep(0.02)
            time.sleep(0.1)
            os.kill(client.pid, number)
            _, trouble = client.communicate(timeout=20)
        os.kill(server.pid, number)
        assert server.wait(20) == 0, "to interrupt a server is to end it"
    assert client.returncode == 130
    assert trouble == "interrupted: what is here is saved, `hiexchange export resume job` goes on\n"
    assert "interrupted" in run("export", "status", "job", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["serve", ".", "--port", "99999"], 2, "65535"),
        (["serve", ".", "--page-size", "0"], 2, "page-size"),
        (["serve", "absent"], 3, "the folder does not exist"),
        (["export", "start", "job"], 3, "which server?"),
        (["export", "start", "job", "--url", "notaurl"], 3, "  where  notaurl"),
        (["export", "start", "job", "--url", "http://example.com/fhir"], 3, "only https URLs"),
        (["export", "start", "job", "--url", "https://exa mple.com"], 3, "no blanks"),
        (["export", "start", "job", "--url", "https://u:p@example.com"], 3, "user name"),
        (["export", "start", "job", "--url", "https://x.example", "--client-id", "a"], 3, "no credential"),
        (["export", "start", "file", "--url", "https://x.example"], 3, "this is a file"),
        (["export", "start", "nowhere", "--url", "https://x.example"], 3, "cannot be made"),
        (["export", "resume", "absent"], 3, "no export job"),
        (["export", "resume", "damaged"], 3, "request.json is damaged"),
        (["export", "status", "damaged"], 3, "request.json is damaged"),
        (["doctor"], 3, "which server?"),
        (["doctor", "--url", "http://127.0.0.1:9/fhir", "--folder", "file"], 3, "a file is where"),
        (["servers", "nobody"], 3, "no server preset"),
    ],
)
def test_wrong_input_is_named_and_leaves_no_job(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone" / "further")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "request.json").write_text("[]")
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr and "HX-100" not in done.stderr
    assert not (tmp_path / "job" / "request.json").exists()


def test_a_number_of_workers_must_make_sense(served: tuple[str, str], tmp_path: Path) -> None:
    """None at all fetched nothing, and called the export complete."""
    who = ["--client-id", served[1], "--key", "file:key.jwk"]
    start = ["export", "start", "job", "--url", served[0], *who, "--group", "all", "--workers"]
    assert run(*start, "-1", cwd=tmp_path).returncode == 2
    many = run(*start, "9999", cwd=tmp_path)
    assert many.returncode == 3 and "workers is 1 to 16" in many.stderr
    assert run(*start, "2", cwd=tmp_path).returncode == 0
    assert run("export", "finish", "job", *who, cwd=tmp_path).returncode == 0
    late = run("export", "cancel", "job", *who, cwd=tmp_path)
    assert late.returncode != 0 and "nothing to cancel" in late.stderr
    assert run("export", "status", "job", cwd=tmp_path).stdout.startswith("finished")


def test_a_server_that_wants_a_credential_is_told_from_one_that_refuses_it(
    served: tuple[str, str], tmp_path: Path
) -> None:
    done = run("export", "start", "job", "--url", served[0], "--group", "all", cwd=tmp_path)
    assert done.returncode == 3 and "the server wants a credential" in done.stderr
