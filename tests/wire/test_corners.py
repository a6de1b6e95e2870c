"""Odd corners over real sockets: long bodies, ranges, proxies, client certificates, lives of links, second interrupts."""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from hiexchange._http import NoAnswer, Tls, _never_found
from hiexchange.bulk import ExportJob, ExportRequest, dpc
from hiexchange.bulk.doctor import examine
from hiexchange.errors import IntegrityError, JobInterrupted, KickOffRejected, RequestRefused, StorageError
from hiexchange.events import FileStarted
from hiexchange.servers import Server, preset
from hiexchange.testing.bulk_server import gzip_bytes

COMMAND = [sys.executable, "-c", "from hiexchange.cli import main; main()"]
LINES = 6000
RANGED = replace(preset("generic-stu2"), range="safe", integrity=preset("ab2d").integrity)


@pytest.fixture(scope="session")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file of 10 MB: read past the HTTP parser, stored in a thread, proved in a second process."""
    folder = tmp_path_factory.mktemp("long")
    with (folder / "Patient.ndjson").open("w", encoding="utf-8") as file:
        for number in range(LINES):
            name = [{"family": f"Ümläut-{number}", "text": "x" * 1600}]
            file.write(json.dumps({"resourceType": "Patient", "id": f"-{number}", "name": name}, ensure_ascii=False))
            file.write("\n")
    return folder


def early(change: Any, times: int = 1) -> Any:
    """Make a hook that changes the first answers with a file."""

    def hook(exchange: Any, reply: Any) -> Any:
        return change(reply) if exchange.kind == "file" and exchange.times <= times else reply

    return hook


# Long bodies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_a_long_body_arrives_as_it_was_sent(wire: Any, long_file: Path, packed: bool) -> None:
    def framed(reply: Any) -> Any:
        if not packed:
            return reply.change(encoded=True)
        return reply.change(encoded=True, body=gzip_bytes(reply.body)).with_header("Content-Encoding", "gzip")

    result = wire.export(wire.serve(early(framed, 9), data=long_file, page_size=LINES))
    (receipt,) = result.receipts
    assert (result.folder / receipt.file).read_bytes() == (long_file / "Patient.ndjson").read_bytes()
    assert receipt.resources == LINES and {"transport", "parse", "count"} <= set(receipt.verified)


def test_a_long_body_over_tls(wire: Any, long_file: Path, certificate: tuple[str, str], tmp_path: Path) -> None:
    bulk = wire.serve(data=long_file, page_size=LINES, gzip=False, tls=certificate)
    server = Server(bulk.url, policy=wire.server(bulk).policy, tls=Tls(ca_file=certificate[0]))
    with ExportJob.start(server, ExportRequest(group="all"), tmp_path / "job") as job:
        (receipt,) = job.download().receipts
    assert receipt.resources == LINES and receipt.wire_bytes == receipt.plain_bytes


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("cut", {"cut_after": 2_500_000}),
        ("reset", {"cut_after": 2_500_000, "reset": True}),
        ("chunked", {"cut_after": 2_500_000, "framing": "chunked"}),
        ("stall", {"drip": (2_500_000, 0.8)}),
    ],
)
def test_a_long_body_that_breaks_is_fetched_again(
    wire: Any, long_file: Path, name: str, change: dict[str, Any]
) -> None:
    bulk = wire.serve(
        early(lambda reply: reply.change(encoded=True, **change)), data=long_file, page_size=LINES, gzip=False
    )
    result = wire.export(bulk, read_timeout_s=0.3 if name == "stall" else 5)
    assert result.count_by_type() == {"Patient": LINES} and len(bulk.requests("file")) == 2
    assert not list(result.folder.rglob("*.part"))


@pytest.mark.parametrize("number", [4000, 5800])
def test_one_bad_line_deep_in_a_long_body_is_found(wire: Any, long_file: Path, number: int) -> None:
    """The first is found in this process, the second in the other."""

    def spoil(reply: Any) -> Any:
        middle = reply.body.index(b'"-%d"' % number)
        return reply.change(body=reply.body[:middle] + b"\xff" + reply.body[middle + 1 :], encoded=True)

    with pytest.raises(IntegrityError):
        wire.export(wire.serve(early(spoil, 9), data=long_file, page_size=LINES))
    result = wire.export(wire.serve(early(spoil, 9), data=long_file, page_size=LINES), max_rejected=1)
    assert result.receipts[0].rejected_lines == 1
    (row,) = (json.loads(line) for line in (result.folder / "rejected.ndjson").read_text("utf-8").splitlines())
    assert (row["line"], row["reason"]) == (number + 1, "invalid UTF-8")


def test_a_long_body_is_proved_in_a_second_process(wire: Any, long_file: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    result = wire.export(wire.serve(data=long_file, page_size=LINES))
    assert result.count_by_type() == {"Patient": LINES}
    if (os.cpu_count() or 1) > 1:
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > before, "it was, and is gone"


def test_a_client_killed_within_a_long_body_leaves_no_process_and_goes_on(
    wire: Any, long_file: Path, tmp_path: Path
) -> None:
    def slow(reply: Any) -> Any:
        return reply.change(encoded=True, drip=(500_000, 0.05)) if len(reply.body) > 1 << 20 else reply

    bulk = wire.serve(early(slow, 1), data=long_file, page_size=LINES, gzip=False)
    start = [*COMMAND, "export", "start", "job", "--url", bulk.url, "--group", "all"]
    part = tmp_path / "job" / "output" / "Patient.00001.ndjson.part"
    with subprocess.Popen(start, cwd=tmp_path, stderr=subprocess.PIPE) as client:
        until = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size > 9 << 20) and time.monotonic() < until:
            time.sleep(0.01)
        helpers = children(client.pid)
        client.kill()
    if (os.cpu_count() or 1) > 1 and Path(f"/proc/self/task/{threading.get_native_id()}/children").exists():
        assert helpers, "it was killed with its helper at work"
    until = time.monotonic() + 20
    while any(map(alive, helpers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(alive, helpers))
    result = ExportJob.resume(tmp_path / "job", policy=wire.server(bulk).policy).download()
    assert result.count_by_type() == {"Patient": LINES} and not list(result.folder.rglob("*.part"))


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, where the system tells."""
    try:
        tasks = [task / "children" for task in Path(f"/proc/{pid}/task").iterdir()]
        return [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []


def alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be collected does not."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_full_disk_is_noticed_by_the_thread_that_stores(wire: Any, long_file: Path) -> None:
    job = wire.start(wire.serve(data=long_file, page_size=LINES, gzip=False))
    job.wait()
    (job.folder / "output").mkdir()
    part = job.folder / "output" / "Patient.00001.ndjson.part"
    part.symlink_to("/dev/full")
    with pytest.raises(StorageError):
        job.download(workers=1)
    assert not [thread for thread in threading.enumerate() if thread.name == "download-lane"]
    assert ExportJob.resume(job.folder, policy=job.server.policy).download().resources == LINES


def test_a_long_body_can_be_stopped(wire: Any, long_file: Path) -> None:
    bulk = wire.serve(
        early(lambda reply: reply.change(encoded=True, drip=(100_000, 0.05))), data=long_file, page_size=LINES
    )
    job = wire.start(bulk)
    job.wait()
    threading.Timer(0.4, job.stop).start()
    with pytest.raises(JobInterrupted):
        job.download(workers=1)
    assert not [thread for thread in threading.enumerate() if thread.name == "download-lane"]
    assert ExportJob.resume(job.folder, policy=job.server.policy).download().resources == LINES


# Ranges (fault 59) ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        ("range_kept", 2),
        ("range_false_total", 2),
        ("range_ignored", 2),
        ("range_elsewhere", 3),
        ("range_refused", 3),
        ("range_lies", 3),
    ],
)
def test_f59_a_cut_body_is_continued_only_where_that_is_proved(
    wire: Any, long_file: Path, fault: str, requests: int
) -> None:
    bulk = wire.serve(fault, data=long_file, page_size=LINES)
    result = wire.export(bulk, preset=RANGED)
    (receipt,) = result.receipts
    assert (result.folder / receipt.file).read_bytes() == (long_file / "Patient.ndjson").read_bytes()
    assert "sha256" in receipt.verified and not list(result.folder.rglob("*.part"))
    asked = bulk.requests("file")
    assert len(asked) == requests
    start = int(asked[1].headers["range"].removeprefix("bytes=").removesuffix("-"))
    assert start > 200_000 and asked[1].headers["if-range"] == '"one"'
    if requests == 3:
        assert "range" not in asked[2].headers


def test_f59_no_range_without_a_checksum_or_a_preset(wire: Any, long_file: Path) -> None:
    for known in (replace(RANGED, integrity={}), replace(RANGED, range="never")):
        bulk = wire.serve("range_kept", data=long_file, page_size=LINES)
        assert wire.export(bulk, preset=known).resources == LINES
        assert not any("range" in entry.headers for entry in bulk.requests("file"))


# Proxies and client certificates (fault 70) ---------------------------------------------------


@contextmanager
def refusing_proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that wants credentials; gives its URL and the request lines it saw."""
    seen: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            seen.append(self.rfile.readline())
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_f70_a_proxy_that_wants_credentials(
    wire: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    policy = replace(wire.server(wire.serve()).policy, allow_http=True)
    with refusing_proxy() as (url, seen):
        monkeypatch.setenv(f"{scheme}_proxy", url)
        with pytest.raises(NoAnswer) as caught:
            ExportJob.start(Server(f"{scheme}://fhir.example/r4", policy=policy), ExportRequest(), tmp_path / "job")
    assert caught.value.what == "the proxy refused" and caught.value.resumable
    assert "407" in str(caught.value.said)
    # A proxy comes back: the kick-off, which was never sent, was tried as often as without a connection.
    assert len([line for line in seen if b"export" in line or b"CONNECT" in line]) >= policy.connect_attempts


def test_f70_a_server_that_wants_a_client_certificate(
    wire: Any, complete: Any, certificate: tuple[str, str], tmp_path: Path
) -> None:
    bulk = wire.serve(tls=certificate, client_ca=certificate[0])
    policy = wire.server(bulk).policy
    without = Server(bulk.url, policy=policy, tls=Tls(ca_file=certificate[0]))
    with pytest.raises(NoAnswer) as caught:
        ExportJob.start(without, ExportRequest(group="all"), tmp_path / "without")
    assert not bulk.requests("kickoff")
    # The server's alert may be lost when it closes at once; where it arrives, it is no trouble that passes.
    if "ALERT" in str(caught.value.said):
        assert caught.value.what == "the certificate was not accepted" and not caught.value.resumable
    mine = Tls(ca_file=certificate[0], client_cert=certificate[0], client_key=certificate[1])
    with ExportJob.start(
        Server(bulk.url, policy=policy, tls=mine), ExportRequest(group="all"), tmp_path / "with"
    ) as job:
        complete(job.download())


# What the server says of itself, and how long its links live ------------------------------------


def test_the_log_names_the_servers_software(wire: Any) -> None:
    def kickoff(folder: Path) -> dict[str, Any]:
        rows = map(json.loads, (folder / "log.ndjson").read_text("utf-8").splitlines())
        return next(row["eventDetail"] for row in rows if row["eventId"] == "kickoff")

    told = kickoff(wire.export(wire.serve()).folder)
    assert (told["softwareName"], told["softwareVersion"]) == ("hiexchange loopback", "1")
    assert (told["softwareReleaseDate"], told["fhirVersion"]) == ("2026-01-01", "4.0.1")

    def silent(exchange: Any, reply: Any) -> Any:
        return reply.change(status=500, body=b"") if exchange.kind == "metadata" else reply

    nothing = kickoff(wire.export(wire.serve(silent)).folder)
    assert nothing["softwareName"] is None and nothing["fhirVersion"] is None


def test_f33_links_that_end_sooner_are_fetched_first(wire: Any, complete: Any) -> None:
    now = datetime.now(UTC)

    def lives(exchange: Any, reply: Any) -> Any:
        if exchange.kind == "page":  # the second page: links of five minutes
            return reply.with_header("Expires", format_datetime(now + timedelta(minutes=5), usegmt=True))
        if exchange.kind == "status" and reply.status == 200:
            manifest = json.loads(reply.body)
            manifest["output"][1]["url"] += f"?Expires={int(now.timestamp()) + 60}&Signature=x"
            return reply.change(body=json.dumps(manifest).encode())
        return reply

    complete(wire.start(wire.serve(lives, manifest_pages=2)).download(workers=1))
    first, *rest = [event.file for event in wire.of(FileStarted)]
    assert first == "output/Encounter.00002.ndjson"  # signed for a minute
    assert rest == ["output/Patient.00001.ndjson", "output/Patient.00002.ndjson", "output/Encounter.00001.ndjson"]


# DPC (fault 12) -------------------------------------------------------------------------------


def dpc_group(exchange: Any, reply: Any) -> Any:
    """Answer 406 to the kick-off, and the Group with one lapsed, one inactive and one good member."""
    if exchange.kind == "kickoff":
        return reply.change(status=406, body=b'{"resourceType": "OperationOutcome", "issue": [{"code": "processing"}]}')
    if exchange.path == "/fhir/Group/roster":
        ends = {"-1": "2020-01-01T00:00:00Z", "-2": "2999-01-01T00:00:00Z", "-3": "2999-01-01T00:00:00Z"}
        members = [
            {"entity": {"reference": f"Patient/{name}"}, "period": {"end": end}, "inactive": name == "-3"}
            for name, end in ends.items()
        ]
        return reply.change(status=200, body=json.dumps({"resourceType": "Group", "member": members}).encode())
    return reply


def test_f12_lapsed_members_are_listed(wire: Any, tmp_path: Path) -> None:
    bulk = wire.serve(dpc_group)
    with pytest.raises(KickOffRejected) as caught:
        ExportJob.start(wire.server(bulk), ExportRequest(group="roster"), tmp_path / "job")
    assert "2 members are listed in lapsed-members.json" in str(caught.value.hint)
    listed = json.loads((tmp_path / "job" / "lapsed-members.json").read_text("utf-8"))
    assert [(row["patient"], row["active"]) for row in listed] == [("-1", True), ("-3", False)]
    assert "-1" not in str(caught.value)
    with pytest.raises(KickOffRejected) as unread:
        ExportJob.start(wire.server(bulk), ExportRequest(group="other"), tmp_path / "other")
    assert str(unread.value.hint).startswith("re-attest the roster: its attributions have lapsed; ")


def test_a_dpc_roster_is_read_and_changed(wire: Any) -> None:
    seen: list[tuple[str, str]] = []

    def roster(exchange: Any, reply: Any) -> Any:
        if exchange.method == "POST" and exchange.path.startswith("/fhir/Group/"):
            seen.append((exchange.path, exchange.headers.get("x-provenance", "")))
            ok = b'{"resourceType": "Group"}'
            return reply.change(status=404 if "/gone/" in exchange.path else 200, body=ok)
        return dpc_group(exchange, reply)

    server = wire.server(wire.serve(roster))
    found = dpc.members(server, "roster")
    assert [item.patient_id for item in dpc.lapsing(found, before=datetime(2026, 1, 1, tzinfo=UTC))] == ["-1", "-3"]
    attestation = dpc.provenance("-10", "-20", now=datetime(2026, 1, 1, tzinfo=UTC))
    dpc.add_members(server, "roster", ["-1"], attestation)
    dpc.remove_members(server, "roster", ["-3"])
    assert [path.rsplit("/", 1)[1] for path, _ in seen] == ["$add", "$remove"]
    assert json.loads(seen[0][1])["agent"][0]["whoReference"]["reference"] == "Organization/-10" and not seen[1][1]
    with pytest.raises(RequestRefused):
        dpc.remove_members(server, "gone", ["-3"])


# A server that says nothing of itself -----------------------------------------------------------


@pytest.mark.parametrize("drips", [False, True])
def test_metadata_that_never_come_delay_an_export_by_little(wire: Any, tmp_path: Path, drips: bool) -> None:
    let_go = threading.Event()

    def late(exchange: Any, reply: Any) -> Any:
        if exchange.kind != "metadata":
            return reply
        if drips:
            return reply.change(encoded=True, drip=(1, 0.1))
        let_go.wait(20)
        return reply

    bulk = wire.serve(late, auth="smart")
    begun = time.monotonic()
    result = wire.export(bulk, read_timeout_s=30, metadata_timeout_s=0.2)
    assert result.resources and time.monotonic() - begun < 10
    server = wire.server(bulk, read_timeout_s=30, metadata_timeout_s=0.2)
    found = {finding.name: finding.state for finding in examine(server, tmp_path)}
    assert found["network"] == "fail" and found["token"] == "ok", "what else can be looked at is"
    let_go.set()


def test_what_is_kept_from_httpx_can_be_imported_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with _never_found("wave"), pytest.raises(ImportError):
        importlib.import_module("wave")
    assert importlib.import_module("wave").__name__ == "wave"


# Interrupts (fault 67) ------------------------------------------------------------------------


def test_f67_a_second_interrupt_ends_at_once_and_loses_nothing(long_file: Path, tmp_path: Path) -> None:
    """The first waits for bodies under way, up to five seconds; the second does not."""
    serve = [*COMMAND, "serve", str(long_file), "--port", "0", "--page-size", "100", "--fault", "silent_midway"]
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    # A background shell leaves SIGINT ignored, and what it starts inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert server.stdout is not None
        start = [*COMMAND, "export", "start", "job", "--url", server.stdout.readline().strip(), "--group", "all"]
        client = subprocess.Popen(start, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 30
        while len(list(tmp_path.glob("job/output/*.ndjson"))) < 20 and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(client.pid, signal.SIGINT)
        time.sleep(0.5)
        assert client.poll() is None, "the first interrupt gives bodies under way a moment"
        again = time.monotonic()
        os.kill(client.pid, signal.SIGINT)
        _, trouble = client.communicate(timeout=20)
        assert time.monotonic() - again < 4.0
    finally:
        signal.signal(signal.SIGINT, before)
        server.kill()
        server.communicate()
    assert client.returncode == 130 and "Traceback" not in trouble and "interrupted" in trouble
    entries = (tmp_path / "job" / "journal.ndjson").read_text("utf-8").splitlines()
    assert json.loads(entries[-1])["event"] == "interrupted"
