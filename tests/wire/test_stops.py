"""A process is stopped before each single call that changes the disk; the next one must end the same export.

What a SIGKILL at a random moment meets once in a thousand runs, this meets on purpose: the driver forks a process
that counts its calls of ``os.open``, ``write``, ``fsync``, ``replace`` and the like, and ends at the N-th, for every
N; writes are left half done. Then the export is run again, and must be complete with one kick-off.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hiexchange.testing.bulk_faults import Exchange, Reply, always_file

DRIVER = """
import json, os, sys, threading, urllib.request
from dataclasses import replace
from pathlib import Path
from hiexchange import ndjson
from hiexchange._http import Policy
from hiexchange.bulk import ExportJob, ExportRequest, SqliteWatermarks, read_status
from hiexchange.servers import Server, preset
url, work, mode, last = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
CALLS = ("open", "write", "fsync", "replace", "unlink", "mkdir", "ftruncate")
STOPPED = 9

def arm(stop_at):
    count, lock = 0, threading.Lock()
    def counted(name):
        real = getattr(os, name)
        def call(*arguments, **named):
            nonlocal count
            with lock:
                count += 1
                if count == stop_at:
                    if name == "write":
                        real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                    print(f"{stop_at} {name}", file=sys.stderr)
                    os._exit(STOPPED)
            return real(*arguments, **named)
        return call
    for name in CALLS:
        setattr(os, name, counted(name))

def life(place, instant):
    policy = Policy(poll_min_s=0.002, backoff_min_s=0.002, max_rejected=5)
    server = Server(url, preset=replace(preset("generic-stu2"), adopt="jobs_list"), policy=policy)
    request = ExportRequest(group="all", since=instant)
    if mode == "adopt":
        job = ExportJob.adopt(server, running(instant), place, request=request)
    else:
        job = ExportJob.start(server, request, place)
    with job:
        job.wait()
        job.download(workers=1)
        job.fetch_attachments()
        job.mark_ingested(SqliteWatermarks(place.with_suffix(".sqlite")))
        job.finish()

def running(instant):
    # The job started elsewhere: kicked off once, its status URL kept.
    known = work / f"{instant}.url"
    if not known.exists():
        headers = {"Accept": "application/fhir+json", "Prefer": "respond-async"}
        asked = urllib.request.Request(f"{url}/Group/all/$export?_since={instant}", headers=headers)
        known.write_text(urllib.request.urlopen(asked).headers["Content-Location"])
    return known.read_text()

def in_child(place, instant, stop_at):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if stop_at:
                arm(stop_at)
            life(place, instant)
            code = 0
        except BaseException as error:
            print(f"{stop_at}: {type(error).__name__} {error}", file=sys.stderr)
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

found = []
for number in range(1, last + 1):
    place, instant = work / f"job{number}", f"2020-01-01T00:00:00.{number:03}Z"
    if mode == "adopt":
        running(instant)
    first = in_child(place, instant, number)
    second = in_child(place, instant, None)
    lines = Path(place).glob("output/*.ndjson")
    ids = sorted(value["resourceType"] + value["id"] for path in lines for value in ndjson.reader(path))
    strays = [str(path.relative_to(place)) for path in place.rglob("*") if path.name.endswith(".part")]
    found.append({"instant": instant, "first": first, "second": second, "ids": len(set(ids)), "lines": len(ids),
                  "rejected": (place / "rejected.ndjson").read_bytes().count(b"\\n"),
                  "phase": read_status(place).phase, "strays": strays,
                  "mark": SqliteWatermarks(place.with_suffix(".sqlite")).path.stat().st_size > 0})
    if first != STOPPED:
        break
print(json.dumps(found))
"""


def in_one_file(exchange: Exchange, reply: Reply) -> Reply:
    """Add a document to the first file, so that attachments are fetched too, and a line to quarantine."""
    if not always_file(exchange) and exchange.path != "/extra/1.ndjson":
        return reply
    report = {"resourceType": "DocumentReference", "id": "-1", "content": [{"attachment": {"url": "/extra/photo"}}]}
    return reply.change(body=reply.body + json.dumps(report).encode() + b"\n{bad\n")


@pytest.mark.kill
@pytest.mark.parametrize("mode", ["start", "organized", "adopt"])
def test_stopped_before_every_call(wire: Any, tmp_path: Path, mode: str) -> None:
    bulk = wire.serve(*([40] if mode == "organized" else []), in_one_file, page_size=20)
    bulk.extra["photo"] = b"\x89PNG"
    # An adopted job differs only until it is accepted.
    last = 24 if mode == "adopt" else 400
    command = [sys.executable, "-c", DRIVER, bulk.url, str(tmp_path), mode, str(last)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)
    whole = runs[-1]["ids"], runs[-1]["lines"]
    assert whole[0] == whole[1] >= (3 if mode == "organized" else 41), runs[-1]
    for run in runs:
        assert (run["second"], run["phase"], run["strays"]) == (0, "finished", []), (run, done.stderr)
        assert (run["ids"], run["lines"], run["rejected"]) == (*whole, 1), (run, done.stderr)
    kicked = Counter(entry.path for entry in bulk.requests("kickoff"))
    assert len(kicked) == len(runs) and set(kicked.values()) == {1}, "more than one kick-off"
    assert len(runs) == last if mode == "adopt" else len(runs) < last
    print(f"\n{mode}: stopped at {len(runs) - (mode != 'adopt')} calls")
