"""Nightly deltas into a large table: seconds, files and bytes rewritten, peak memory.

    python benchmarks/merge.py --rows 10000000 --deltas 10 --share 0.01

Observations are small and of one shape; the ids that change are drawn at random, which is the worst case for
copy-on-write: every night touches every file. ``--spread`` below 1 draws them from that share of the patients
only, as when a delta is of one clinic. The lake is compacted once before the first night and once after the last.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from hiexchange.lake import Lake

LINE = (
    '{"resourceType":"Observation","id":"-%d","meta":{"lastUpdated":"2026-%02d-%02dT00:00:00Z"},"status":"final",'
    '"code":{"coding":[{"system":"http://loinc.org","code":"%s"}]},"subject":{"reference":"Patient/-%d"},'
    '"effectiveDateTime":"2025-%02d-%02dT08:00:00Z","valueQuantity":{"value":%d.%02d,"unit":"mg/dL"}}\n'
)
CODES = ("4548-4", "2093-3", "8480-6", "8462-4", "39156-5", "2339-0")


def write(path: Path, ids: Iterable[int], night: int, chance: random.Random) -> None:
    with path.open("w", encoding="utf-8") as file:
        for ident in ids:
            month, day = 1 + ident % 12, 1 + ident % 28
            value = (ident, 1 + night // 28, 1 + night % 28, CODES[ident % 6], ident // 100, month, day)
            file.write(LINE % (*value, chance.randrange(50, 300), chance.randrange(100)))


def peak_mb() -> float:
    """Peak memory of this process since the last call; ru_maxrss would be inherited over exec."""
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return peak / 1024


def step(lake: Lake, name: str, changed: int, work: Callable[[], object]) -> None:
    """Do one thing to the lake and print a row about it."""
    before = {path: path.stat().st_size for path in _files(lake)}
    peak_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu, peak = time.perf_counter() - wall, time.process_time() - cpu, peak_mb()
    after = {path: path.stat().st_size for path in _files(lake)}
    written = sum(size for path, size in after.items() if path not in before) / 1e6
    rewritten = len(before.keys() - after.keys())
    print(f"| {name} | {changed:,} | {wall:.1f} | {cpu:.1f} | {len(before)} | {rewritten} | {written:,.0f} | {len(after)} "
          f"| {peak:,.0f} |", flush=True)  # fmt: skip


def _files(lake: Lake) -> list[Path]:
    return lake.files("Observation") if "Observation" in lake.tables() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--deltas", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.01, help="of the rows change a night")
    parser.add_argument("--spread", type=float, default=1.0, help="of the rows from which those are drawn")
    parser.add_argument("--workers", type=int, default=2, help="for the first load")
    parser.add_argument("--work", type=Path, default=None, help="folder for the lake; default the system's")
    options = parser.parse_args()
    chance = random.Random(1)
    with tempfile.TemporaryDirectory(dir=options.work) as base:
        lake, source = Lake(Path(base) / "lake"), Path(base) / "Observation.ndjson"
        write(source, range(options.rows), 0, chance)
        print(f"{options.rows:,} Observations, {source.stat().st_size / 1e6:,.0f} MB NDJSON\n")
        print("| step | rows in | s | CPU-s | files before | rewritten | MB written | files after | peak MB |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
        step(lake, "load", options.rows, lambda: lake.ingest(source, workers=options.workers))
        step(lake, "compact", 0, lake.compact)
        changed: set[int] = set()
        for night in range(1, options.deltas + 1):
            ids = chance.sample(range(int(options.rows * options.spread)), int(options.rows * options.share))
            write(source, ids, night, chance)
            changed.update(ids)
            step(lake, f"night {night}", len(ids), lambda: lake.ingest(source))
        step(lake, "compact", 0, lake.compact)
        counted = lake.sql("select count(*), count(distinct id), count(*) filter (meta.lastUpdated > '2026-01-01T00:00:00Z') from Observation")  # fmt: skip  # noqa: E501
        assert list(counted.to_pylist()[0].values()) == [options.rows, options.rows, len(changed)]
        print("\nEvery id is there once, in the version of its last night.")


if __name__ == "__main__":
    main()
