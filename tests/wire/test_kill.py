"""A real process is killed again and again; nothing is lost, nothing is fetched twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from hiexchange import ndjson
from hiexchange._files import sha256_text
from hiexchange.bulk.journal import Journal
from hiexchange.testing.bulk_faults import Exchange, Reply
from hiexchange.testing.bulk_server import BulkServer

KILLS = 100
FILES, PER_FILE = 200, 5
CLIENT = """
import sys
from dataclasses import replace
from hiexchange._http import Policy
from hiexchange.bulk import ExportJob, ExportRequest
from hiexchange.servers import Server, preset
listed = replace(preset("generic-stu2"), adopt="jobs_list")
server = Server(sys.argv[1], preset=listed, policy=Policy(poll_min_s=0.02, backoff_min_s=0.01))
job = ExportJob.start(server, ExportRequest(group="all"), sys.argv[2])
job.wait()
job.download(workers=2)
"""


def slow(exchange: Exchange, reply: Reply) -> Reply:
    """Take a little time over every file, so that kills fall into the middle of bodies."""
    return reply.change(encoded=True, drip=(200, 0.004)) if exchange.kind == "file" else reply


def fetched(server: BulkServer) -> Counter[str]:
    """Count requests for files by the hash that receipts keep of their links."""
    host = server.origin.removeprefix("http://")
    return Counter(sha256_text(host + entry.path) for entry in server.requests("file"))


@pytest.mark.kill
def test_killed_a_hundred_times(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    ids = [f"-{number}" for number in range(FILES * PER_FILE)]
    (data / "Patient.ndjson").write_bytes(ndjson.dumps({"resourceType": "Patient", "id": name} for name in ids))
    moments = random.Random(20261122)
    kills = rounds = 0
    with BulkServer(data, page_size=PER_FILE, faults=[slow]) as server:
        while kills < KILLS:
            rounds += 1
            folder = tmp_path / f"job{rounds}"
            before = len(server.requests("kickoff"))
            kills += export_under_fire(server, folder, moments, KILLS - kills)
            assert len(server.requests("kickoff")) == before + 1, "more than one kick-off"
            found = [value["id"] for path in sorted(folder.glob("output/*.ndjson")) for value in ndjson.reader(path)]
            assert sorted(found) == sorted(ids)
            assert not list(folder.rglob("*.part"))
    print(
        f"\n{kills} kills over {rounds} exports of {FILES} files: {len(found):,} resources each, nothing lost or repeated"
    )


def export_under_fire(server: BulkServer, folder: Path, moments: random.Random, left: int) -> int:
    """Run the client, killing it until it gets through; return how often it was killed."""
    killed = 0
    committed: dict[str, int] = {}
    while True:
        child = subprocess.Popen([sys.executable, "-c", CLIENT, server.url, str(folder)])
        if killed < left:
            time.sleep(moments.uniform(0.3, 1.2))
            child.kill()
        if child.wait() == 0:
            break
        killed += 1
        assert killed <= left, "the client failed by itself"
        counts = fetched(server)
        state = Journal(folder / "journal.ndjson").state if (folder / "journal.ndjson").exists() else None
        for receipt in state.files.values() if state else ():
            committed.setdefault(receipt.url_sha256, counts[receipt.url_sha256])
    final = fetched(server)
    assert all(final[name] == count for name, count in committed.items()), "a committed file was fetched again"
    return killed
