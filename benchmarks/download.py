"""Measure downloads: ours against curl (and smart-fetch where it is installed), in one run.

A loopback server in a process of its own sends NDJSON, plain or gzip packed beforehand, cut into one
or four files. Every client runs as a process of its own; MB/s are of decoded bytes written to disk,
CPU-seconds and peak memory are the client's alone. Ours verifies every line, count and length.

    python benchmarks/download.py --mb 500 --runs 3
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SERVER = """
import sys, time
from dataclasses import replace
from hiexchange.testing.bulk_server import BulkServer, gzip_bytes
packed = {}
def prepared(exchange, reply):
    if exchange.kind != "file" or "gzip" not in exchange.headers.get("accept-encoding", "") or not pack:
        return reply.change(encoded=True)
    return reply.change(encoded=True, body=packed[exchange.path.rsplit("/", 1)[1]]).with_header("Content-Encoding", "gzip")
pack = sys.argv[3] == "gzip"
server = BulkServer(sys.argv[1], page_size=int(sys.argv[2]), polls=0, faults=[prepared], gzip=False)
# The bodies are kept in memory, and packed before the first request.
from hiexchange.testing.bulk_store import OutputSlice, Selection
bodies = {}
for index, part in enumerate(server.store.select(Selection(), "warm")):
    bodies[part.start] = part.read()
    if pack:
        packed[f"{index}.ndjson"] = gzip_bytes(bodies[part.start])
OutputSlice.read = lambda self: bodies[self.start]
server.start()
print(server.url, flush=True)
time.sleep(3600)
"""
OURS = """
import sys
from hiexchange._http import Policy
from hiexchange.bulk import ExportJob, ExportRequest
from hiexchange.servers import Server
server = Server(sys.argv[1], policy=Policy(poll_min_s=0.01))
job = ExportJob.start(server, ExportRequest(), sys.argv[2])
job.wait()
print(job.download(workers=int(sys.argv[3])).resources)
"""


@dataclass
class Run:
    """One client, once."""

    seconds: float
    cpu_s: float
    peak_mb: float


def measured(command: list[str]) -> Run:
    """Run a command; its children count as its own."""
    started = time.perf_counter()
    pid = os.spawnvp(os.P_NOWAIT, command[0], command)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{command[0]} failed with status {status}")
    return Run(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def make_data(folder: Path, size_mb: int, files: int) -> tuple[int, int]:
    """Write NDJSON of about ``size_mb``; return its bytes and the resources a file."""
    line_size, total = 0, 0
    words = [f"word{number * 7919 % 10007}" for number in range(400)]
    with (folder / "Observation.ndjson").open("w", encoding="utf-8") as file:
        number = 0
        while total < size_mb * 1_000_000:
            text = " ".join(words[(number * 31 + step * 17) % 400] for step in range(60))
            value = {
                "resourceType": "Observation",
                "id": f"-{number}",
                "status": "final",
                "subject": {"reference": f"Patient/-{number % 5000}"},
                "valueQuantity": {"value": number * 1.25, "unit": "mg/dL"},
                "note": [{"text": text}],
                "component": [
                    {"code": {"text": words[(number + step) % 400]}, "valueInteger": step} for step in range(12)
                ],
            }
            line_size = file.write(json.dumps(value) + "\n")
            total += line_size
            number += 1
    return total, -(-number // files)


def curl_command(base: str, work: Path, files: int, packed: bool) -> list[str]:
    """Return curl for every file of the job, in parallel when there are several."""
    urls = file_urls(base)
    parts = [item for index, url in enumerate(urls) for item in ("-o", str(work / f"{index}.ndjson"), url)]
    return [
        "curl",
        "-sS",
        *(["-Z", "--parallel-max", str(files)] if files > 1 else []),
        *(["--compressed"] if packed else []),
        *parts,
    ]


def file_urls(base: str) -> list[str]:
    """Kick an export off and return its file links."""
    import urllib.request

    headers = {"Accept": "application/fhir+json", "Prefer": "respond-async"}
    request = urllib.request.Request(f"{base}/Patient/$export", headers=headers)
    with urllib.request.urlopen(request) as answer:
        status = answer.headers["Content-Location"]
    with urllib.request.urlopen(status) as answer:
        return [entry["url"] for entry in json.load(answer)["output"]]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--smart-fetch", default=shutil.which("smart-fetch") or "", help="path of smart-fetch")
    options = parser.parse_args()
    rows = []
    for packed in (False, True):
        for files in (1, 4):
            rows += scenario(options.mb, files, packed, options.runs, options.smart_fetch)
    print("| body | streams | client | MB/s (median of runs) | CPU-s/GB | peak MB |\n|-|-|-|-|-|-|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def scenario(size_mb: int, files: int, packed: bool, runs: int, smart_fetch: str) -> list[list[str]]:
    """Measure every client on one kind of body, taking turns."""
    kind = "gzip" if packed else "plain"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "data").mkdir()
        size, per_file = make_data(folder / "data", size_mb, files)
        command = [sys.executable, "-c", SERVER, str(folder / "data"), str(per_file), kind]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            base = server.stdout.readline().strip()
            found: dict[str, list[Run]] = {}
            try:
                for number in range(runs):
                    for name, client in clients(base, folder / f"run{number}", files, packed, smart_fetch).items():
                        found.setdefault(name, []).append(measured(client))
                    shutil.rmtree(folder / f"run{number}")
            finally:
                server.kill()
    return [[kind, str(files), name, *figures(taken, size)] for name, taken in found.items()]


def clients(base: str, work: Path, files: int, packed: bool, smart_fetch: str) -> dict[str, list[str]]:
    """Return the commands of every client."""
    for name in ("curl", "smart"):
        (work / name).mkdir(parents=True)
    commands = {
        "curl": curl_command(base, work / "curl", files, packed),
        "hiexchange": [sys.executable, "-c", OURS, base, str(work / "job"), str(files)],
    }
    if smart_fetch:
        commands["smart-fetch"] = [
            smart_fetch, "bulk", "--fhir-url", base, "--type", "Observation", "--no-default-filters",
            *([] if packed else ["--no-compression"]), str(work / "smart"),
        ]  # fmt: skip
    return commands


def figures(taken: list[Run], size: int) -> list[str]:
    """Return speed, CPU and memory as text."""
    speed = statistics.median(size / 1e6 / run.seconds for run in taken)
    all_speeds = "/".join(f"{size / 1e6 / run.seconds:.0f}" for run in taken)
    cpu = statistics.median(run.cpu_s / (size / 1e9) for run in taken)
    return [f"{speed:.0f} ({all_speeds})", f"{cpu:.2f}", f"{max(run.peak_mb for run in taken):.0f}"]


if __name__ == "__main__":
    main()
