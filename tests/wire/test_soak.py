"""A long export under random faults: complete at the end, memory flat on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FILES, PER_FILE = 20_000, 50
MEMORY_MB = 250
CLIENT = """
import json, sys, time
from pathlib import Path
from hiexchange._http import Policy
from hiexchange.bulk import ExportJob, ExportRequest
from hiexchange.events import FileDone, FileRetried
from hiexchange.servers import Server
def peak_mb():
    # Not getrusage: its maximum is inherited over exec from the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
tally = {"done": 0, "retried": 0, "early_mb": 0}
def note(event):
    if isinstance(event, FileRetried):
        tally["retried"] += 1
    if isinstance(event, FileDone):
        tally["done"] += 1
        if tally["done"] == 2000:
            tally["early_mb"] = peak_mb()
policy = Policy(poll_min_s=0.05, backoff_min_s=0.02, backoff_max_s=0.2, wait_cap_s=0.1, fresh_404_window_s=0.5)
started = time.monotonic()
job = ExportJob.start(Server(sys.argv[1], policy=policy), ExportRequest(group="all"), sys.argv[2], on_event=note)
job.wait()
result = job.download()
tally |= {"files": len(result.receipts), "resources": result.resources, "seconds": round(time.monotonic() - started, 1)}
tally["peak_mb"] = peak_mb()
print(json.dumps(tally))
"""


@pytest.mark.soak
def test_twenty_thousand_files_with_one_percent_faults(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with (data / "Observation.ndjson").open("w", encoding="utf-8") as file:
        for number in range(FILES * PER_FILE):
            subject = {"reference": f"Patient/-{number % 1000}"}
            file.write(json.dumps({"resourceType": "Observation", "id": f"-{number}", "subject": subject}) + "\n")
    command = [sys.executable, "-c", "from hiexchange.cli import main; main()", "serve", str(data)]
    options = ["--port", "0", "--page-size", str(PER_FILE), "--fault", "one_percent"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        try:
            output = subprocess.check_output([sys.executable, "-c", CLIENT, url, str(tmp_path / "job")], text=True)
        finally:
            server.kill()
    tally = json.loads(output)
    print(f"\n{tally}")
    assert (tally["files"], tally["resources"]) == (FILES, FILES * PER_FILE)
    assert tally["retried"] > FILES // 200
    assert tally["peak_mb"] < MEMORY_MB and tally["peak_mb"] - tally["early_mb"] < 25
