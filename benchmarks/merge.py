"""Nightly deltas into a large table: seconds, bytes rewritten, peak memory.

    python benchmarks/merge.py --rows 10000000 --deltas 10 --share 0.01

Observations are made small and of one shape, with ids spread at random, which is the worst case for
copy-on-write: every night touches every file. The lake is compacted once before the first night.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path

from hiexchange.lake import Lake

LINE = (
    '{"resourceType":"Observation","id":"-%d","meta":{"lastUpdated":"2026-%02d-%02dT00:00:00Z"},"status":"final",'
    '"code":{"coding":[{"system":"http://loinc.org","code":"%s"}]},"subject":{"reference":"Patient/-%d"},'
    '"effectiveDateTime":"2025-%02d-%02dT08:00:00Z","valueQuantity":{"value":%d.%02d,"unit":"mg/dL"}}\n'
)
CODES = ("4548-4", "2093-3", "8480-6", "8462-4", "39156-5", "2339-0")


def write(path: Path, ids: list[int] | range, night: int, chance: random.Random) -> None:
    with path.open("w", encoding="utf-8") as file:
        for ident in ids:
            month, day = 1 + ident % 12, 1 + ident % 28
            value = (ident, 1 + night // 28, 1 + night % 28, CODES[ident % 6], ident // 100, month, day)
            file.write(LINE % (*value, chance.randrange(50, 300), chance.randrange(100)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--deltas", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--work", type=Path, default=None)
    options = parser.parse_args()
    chance = random.Random(1)
    with tempfile.TemporaryDirectory(dir=options.work) as base:
        lake, source = Lake(Path(base) / "lake"), Path(base) / "Observation.ndjson"
        write(source, range(options.rows), 0, chance)
        size = source.stat().st_size
        report = lake.ingest(source, processes=options.processes)
        started = time.perf_counter()
        lake.compact()
        files = lake.files("Observation")
        print(f"{options.rows:,} Observations, {size / 1e6:,.0f} MB NDJSON: loaded in {report.seconds:.1f} s, "
              f"compacted in {time.perf_counter() - started:.1f} s to {len(files)} files, "
              f"{sum(path.stat().st_size for path in files) / 1e6:,.0f} MB")  # fmt: skip
        print(
            "| night | changed | s | CPU-s | files rewritten | MB rewritten | files after |\n|---:|---:|---:|---:|---:|---:|---:|"
        )
        for night in range(1, options.deltas + 1):
            write(source, chance.sample(range(options.rows), int(options.rows * options.share)), night, chance)
            before = set(lake.files("Observation"))
            cpu = time.process_time()
            report = lake.ingest(source)
            cpu = time.process_time() - cpu
            after = set(lake.files("Observation"))
            written = sum(path.stat().st_size for path in after - before) / 1e6
            print(
                f"| {night} | {report.rows:,} | {report.seconds:.1f} | {cpu:.1f} | {len(before - after)} | {written:,.0f} | {len(after)} |",
                flush=True,
            )
        assert lake.tables() == {"Observation": options.rows}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"\nPeak memory of the merging process {peak:,.0f} MB.")


if __name__ == "__main__":
    main()
