"""Measure downloads: ours against curl, and smart-fetch where it is installed, in one run.

A loopback server in a process of its own sends NDJSON, plain or gzip packed beforehand, cut into one or four files;
the kernel copies them into the socket, so that the server takes as little as it can of the cores it shares with the
clients. Every client runs as a process of its own, start-up included: MB/s are of decoded bytes on disk, CPU-seconds
and peak memory those of the client and its children. Ours verifies every line, type, count and length, hashes each
file and syncs it to the disk; curl does none of that.

    python benchmarks/download.py --mb 500 --runs 5
    python -m venv /tmp/smart && /tmp/smart/bin/pip install smart-fetch     # then: --smart-fetch /tmp/smart/bin/smart-fetch
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

# A lean server: the kernel copies files into the socket (sendfile), so that the cores the server shares with its
# clients are left to them. One folder holds the files, plain or packed beforehand.
SERVER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
folder, packed = Path(sys.argv[1]), sys.argv[2] == "gzip"
METADATA = {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "status": "active", "kind": "instance",
            "date": "2026-01-01", "format": ["json"], "rest": [{"mode": "server"}]}
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        here = f"http://127.0.0.1:{self.server.server_address[1]}"
        path = self.path.split("?")[0]
        if path.endswith("$export"):
            self.answer(202, b"", ("Content-Location", here + "/status"))
        elif path == "/status":
            files = [{"type": "Observation", "url": f"{here}/files/{file.name}", "count": int(file.stem.split(".")[1])}
                     for file in sorted(folder.glob("*.ndjson"))]
            self.answer(200, json.dumps({"transactionTime": "2026-01-01T00:00:00Z", "request": here, "output": files,
                "requiresAccessToken": False, "deleted": [], "error": []}).encode())
        elif path == "/fhir/metadata":
            self.answer(200, json.dumps(METADATA).encode())
        elif path.startswith("/files/"):
            self.file(folder / path.rsplit("/", 1)[1])
        else:
            self.answer(404, b"{}")
    def do_DELETE(self):
        self.answer(202, b"")
    def answer(self, status, body, *headers):
        self.send_response(status)
        for name, value in (*headers, ("Content-Type", "application/fhir+json"), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
    def file(self, path):
        gzip = packed and "gzip" in self.headers.get("Accept-Encoding", "")
        with open(f"{path}.gz" if gzip else path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.send_response(200)
            self.send_header("Content-Type", "application/fhir+ndjson")
            self.send_header("Content-Length", str(size))
            if gzip:
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.flush()
            sent = 0
            while sent < size:
                sent += os.sendfile(self.connection.fileno(), file.fileno(), sent, size - sent)
    def log_message(self, *args):
        pass
ThreadingHTTPServer.daemon_threads = True
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_address[1]}/fhir", flush=True)
server.serve_forever()
"""
IMPORTS = """
import sys
from hiexchange._http import Policy
from hiexchange.bulk import ExportJob, ExportRequest
from hiexchange.servers import Server
"""
OURS = f"""{IMPORTS}
server = Server(sys.argv[1], policy=Policy(poll_min_s=0.01))
job = ExportJob.start(server, ExportRequest(), sys.argv[2])
job.wait()
job.download(workers=int(sys.argv[3]))
"""


TEMPLATE_MB = 10
# An installed package has its bytecode beside it; a checkout read with PYTHONDONTWRITEBYTECODE would be compiled anew
# by every run, for 0.2 s.
BYTECODE = tempfile.mkdtemp(prefix="hiexchange-bytecode-")
INSTALLED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
    "PYTHONPYCACHEPREFIX": BYTECODE
}


@dataclass
class Run:
    """One client, once."""

    seconds: float
    cpu_s: float
    peak_mb: float


def measured(command: list[str]) -> Run:
    """Run a command; its children count as its own, but for memory."""
    started = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    environment = INSTALLED if command[0] == sys.executable else os.environ
    pid = os.posix_spawnp(command[0], command, environment, file_actions=quiet)
    peak: list[float] = [0.0]
    # Not ru_maxrss, which a child inherits over exec; the high-water mark is asked for until the child is gone.
    watcher = threading.Thread(target=watch_memory, args=(pid, peak))
    watcher.start()
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - started
    watcher.join()
    if status:
        raise SystemExit(f"{command[0]} failed with status {status}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, peak[0])


def watch_memory(pid: int, peak: list[float]) -> None:
    """Keep the sum of the largest resident sizes of a process and its children, in MB, until it ends."""
    marks: dict[int, float] = {}
    while mark := high_water(pid):
        marks[pid] = mark
        for child in children(pid):
            marks[child] = high_water(child) or marks.get(child, 0.0)
        peak[0] = sum(marks.values())
        time.sleep(0.05)


def high_water(pid: int) -> float:
    """Return the largest resident size of a process in MB, or 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if "VmHWM" in line), 0.0)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def make_template() -> tuple[bytes, int]:
    """Return some megabytes of Observations that gzip packs about tenfold, and their number."""
    chance = random.Random(7)
    words = ["".join(chance.choices("abcdefghiklmnoprstuvw", k=chance.randint(3, 9))) for _ in range(3000)]
    lines, size = [], 0
    while size < TEMPLATE_MB * 1_000_000:
        coded = {"system": "http://loinc.org", "code": f"{chance.randint(1000, 1400)}-{chance.randint(0, 9)}"}
        value = {
            "resourceType": "Observation",
            "id": f"-{chance.getrandbits(40):x}",
            "meta": {"lastUpdated": f"2026-01-{chance.randint(10, 30)}T10:{chance.randint(10, 59)}:00.000Z"},
            "status": "final",
            "code": {"coding": [coded], "text": chance.choice(words)},
            "subject": {"reference": f"Patient/-{chance.randint(1, 5000)}"},
            "valueQuantity": {
                "value": chance.randint(1, 4000) / 8,
                "unit": "mg/dL",
                "system": "http://unitsofmeasure.org",
            },
            "note": [{"text": " ".join(chance.choices(words, k=24))}],
            "component": [
                {
                    "code": {
                        "coding": [{"system": "http://loinc.org", "code": f"{step}-{step % 7}"}],
                        "text": "component",
                    },
                    "valueQuantity": {"value": step * 1.5, "unit": "mg/dL", "system": "http://unitsofmeasure.org"},
                }
                for step in range(4)
            ],
        }
        lines.append(json.dumps(value) + "\n")
        size += len(lines[-1])
    return "".join(lines).encode(), len(lines)


def make_data(folder: Path, size_mb: int, files: int) -> int:
    """Write NDJSON of about ``size_mb``, plain and packed, named ``NUMBER.COUNT.ndjson``; return the plain bytes.

    The template is packed once: a packed file repeats its blocks, each ended by a full flush, which is one gzip
    member to every decoder.
    """
    template, count = make_template()
    repeats = max(1, round(size_mb * 1_000_000 / len(template) / files))
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    packed = packer.compress(template) + packer.flush(zlib.Z_FULL_FLUSH)
    end = packer.flush()
    checksum = 0
    for _ in range(repeats):
        checksum = zlib.crc32(template, checksum)
    for number in range(files):
        path = folder / f"{number}.{count * repeats}.ndjson"
        with path.open("wb") as plain, Path(f"{path}.gz").open("wb") as gzip:
            gzip.write(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
            for _ in range(repeats):
                plain.write(template)
                gzip.write(packed)
            gzip.write(end + struct.pack("<LL", checksum, len(template) * repeats & 0xFFFFFFFF))
    return len(template) * repeats * files


def curl_command(base: str, work: Path, files: int, packed: bool) -> list[str]:
    """Return curl for every file of the job, in parallel when there are several."""
    with urllib.request.urlopen(base.replace("/fhir", "/status")) as answer:
        urls = [entry["url"] for entry in json.load(answer)["output"]]
    return [
        "curl",
        "-sS",
        "--no-progress-meter",
        *(["-Z", "--parallel-max", str(files)] if files > 1 else []),
        *(["--compressed"] if packed else []),
        *(item for index, url in enumerate(urls) for item in ("-o", str(work / f"{index}.ndjson"), url)),
    ]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--smart-fetch", default=shutil.which("smart-fetch") or "", help="path of smart-fetch")
    options = parser.parse_args()
    rows = []
    try:
        measured([sys.executable, "-c", IMPORTS])
        for files in (1, 4):
            rows += scenario(options.mb, files, options.runs, options.smart_fetch)
        started = min(measured([sys.executable, "-c", IMPORTS]).seconds for _ in range(options.runs))
    finally:
        shutil.rmtree(BYTECODE)
    print("| body | streams | client | MB/s, best (all) | of curl | CPU-s/GB | peak MB |\n|-|-|-|-|-|-|-|")
    for row in sorted(rows, reverse=True):
        print("| " + " | ".join(row[1:]) + " |")
    print(f"\nOf each run of hiexchange, {started:.2f} s are for starting Python and importing the client.")


def scenario(size_mb: int, files: int, runs: int, smart_fetch: str) -> list[list[str]]:
    """Measure every client on plain and packed bodies, taking turns."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "data").mkdir()
        size = make_data(folder / "data", size_mb, files)
        for kind in ("plain", "gzip"):
            found: dict[str, list[Run]] = {}
            command = [sys.executable, "-c", SERVER, str(folder / "data"), kind]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
                assert server.stdout is not None
                base = server.stdout.readline().strip()
                try:
                    for number in range(runs):
                        work = folder / f"run{number}"
                        for name, client in clients(base, work, files, kind == "gzip", smart_fetch).items():
                            found.setdefault(name, []).append(measured(client))
                            # The next client starts on a disk with nothing left to write.
                            os.sync()
                        shutil.rmtree(work)
                finally:
                    server.kill()
            fastest = size / 1e6 / min(run.seconds for run in found["curl"])
            for order, (name, taken) in enumerate(found.items()):
                rows.append([f"{kind}{9 - files}{9 - order}", kind, str(files), name, *figures(taken, size, fastest)])
    return rows


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
            "--no-compression", str(work / "smart"),
        ]  # fmt: skip
    return commands


def figures(taken: list[Run], size: int, curl_mb_s: float) -> list[str]:
    """Return speed, CPU and memory as text."""
    speeds = [size / 1e6 / run.seconds for run in taken]
    cpu = statistics.median(run.cpu_s / (size / 1e9) for run in taken)
    return [
        f"{max(speeds):.0f} ({'/'.join(f'{speed:.0f}' for speed in speeds)})",
        f"{max(speeds) / curl_mb_s:.2f}",
        f"{cpu:.2f}",
        f"{max(run.peak_mb for run in taken):.0f}",
    ]


if __name__ == "__main__":
    main()
