"""kill -9 at any moment leaves the old snapshot or the new one, with its watermark."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from hiexchange.lake import Lake

WRITER = """
import sys
from datetime import UTC, datetime, timedelta
from hiexchange.lake import Lake
lake = Lake(sys.argv[1])
start = lake.snapshots()[-1] if lake.snapshots() else 0
print("ready", flush=True)
for number in range(start, start + 1000):
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
    lake.ingest(sys.argv[2], transaction_time=at, watermark_key="k")
    print("stored", flush=True)
    if number % 3 == 2:
        lake.compact(rows_a_file=100)
"""


def write(path, round_number):
    lines = [
        msgspec.json.encode(
            {
                "resourceType": "Patient",
                "id": str(number),
                "name": [{"family": f"{round_number}"}],
                "active": number % 2 == 0,
            }
        )
        for number in range(400)
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")


@pytest.mark.kill
def test_a_killed_writer_leaves_a_whole_snapshot(tmp_path):
    chance = random.Random(4)
    folder, source = tmp_path / "lake", tmp_path / "Patient.ndjson"
    write(source, 0)
    seen = -1
    for round_number in range(25):
        write(source, round_number)
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(source)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            if round_number % 3 == 0:
                writer.stdout.readline()  # however slow the machine, some rounds get past a commit
            time.sleep(chance.random() * 0.4)
            writer.send_signal(signal.SIGKILL)
        lake = Lake(folder)
        number = lake.snapshots()[-1] if lake.snapshots() else 0
        assert number >= seen
        seen = number
        if not number:
            continue
        rows = lake.table("Patient").to_arrow(["__hx_key", "__hx_transaction_time"])
        assert sorted(rows["__hx_key"].to_pylist(), key=int) == [str(key) for key in range(400)]
        assert len(list(lake.to_ndjson("Patient"))) == 400
        newest = max(rows["__hx_transaction_time"].to_pylist())
        assert lake.watermark("k") == newest.isoformat().replace("+00:00", "Z")
    lake.vacuum(keep_snapshots=1, keep_days=0, dry_run=False)
    assert sorted((folder / "Patient").iterdir()) == sorted(lake.files("Patient"))
    assert seen > 3
