"""NDJSON to Parquet: MB per CPU-second, wall speed and memory, ours beside other engines.

    python benchmarks/ingest.py --data ../shared/data --sizes 25,400 --types Observation,Encounter --rounds 5

Inputs are amplified from real sample files: every copy has its own ids (the same in every file, so
references hold). Each run is a fresh process; imports and schema preparation are not counted, opening DuckDB
is (by each engine that uses it). Engines are interleaved round-robin; medians and ranges are printed. Memory is
the peak of the process. Only ``hiexchange`` keeps the text of decimals, unknown members and bad lines; the peers' schema-explicit
runs get our schema with decimals as doubles.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

UUID = re.compile(rb"[0-9a-f]{8}(?=-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")
MIX = ("Encounter", "Observation", "Condition", "Procedure", "MedicationRequest", "Claim", "ExplanationOfBenefit")
ENGINES = (
    "hiexchange", "hiexchange-2w", "duckdb-explicit", "duckdb-auto", "polars", "pyarrow-inferred", "floor-msgspec", "floor-orjson",
)  # fmt: skip


def amplify(data: Path, kind: str, size: int, target: Path) -> list[Path]:
    """Write files of about ``size`` bytes; copy k XORs the first 32 bits of every id with k."""
    kinds = MIX if kind == "mix" else (kind,)
    paths = []
    for name in kinds:
        text = gzip.decompress((data / "synthea-100" / f"{name}.ndjson.gz").read_bytes())
        path = target / f"{name}.ndjson"
        paths.append(path)
        written, copy = 0, 0
        with path.open("wb") as file:
            while written < size // len(kinds):
                changed = UUID.sub(lambda match, key=copy: b"%08x" % (int(match[0], 16) ^ key), text) if copy else text
                cut = changed[: size // len(kinds) - written]
                written += file.write(cut[: cut.rfind(b"\n") + 1] if len(cut) < len(changed) else cut)
                copy += 1
                if len(cut) < len(changed):
                    break
    return paths


def schemas(paths: list[Path]) -> dict[str, Any]:
    """Return our shapes of the files, from a look at all of them: not counted."""
    from hiexchange.lake.ingest import Work, load_file

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            head = Path(folder) / path.name
            with path.open("rb") as file:
                head.write_bytes(file.read(60_000_000))
            done = load_file(Path(folder), Work(head, path.name, path.stem, path.stem, "4.0.1", "x"))
            found[path.stem] = done.shape
    return found


def prepare(data: Path, kind: str, size: int, folder: Path, shapes_file: Path) -> None:
    """Write the input files, and their shapes for the engines that want a schema."""
    shapes_file.write_text(json.dumps(schemas(amplify(data, kind, size, folder))))


def duckdb_type(node: Any) -> str:
    scalars = {"bool": "BOOLEAN", "int32": "INTEGER", "int64": "BIGINT", "decimal": "DOUBLE", "json": "JSON"}
    if node.kind == "struct":
        inner = "STRUCT(" + ", ".join(f'"{child.name}" {duckdb_type(child)}' for child in node.children) + ")"
    else:
        inner = scalars.get(node.kind, "VARCHAR")
    return inner + "[]" if node.many else inner


def run_engine(engine: str, folder: Path, out: Path, shapes: dict[str, Any]) -> Callable[[], None]:
    """Return the work to measure; whatever it imports is imported here."""
    files = sorted(folder.glob("*.ndjson"))
    if engine.startswith("hiexchange"):
        import pyarrow

        from hiexchange.lake import Lake

        pyarrow.array([0])  # imports pandas, where that is installed: pyarrow does so at its first array
        workers = 2 if engine.endswith("-2w") else 1
        return lambda: _checked(Lake(out / "lake").ingest(folder, workers=workers))
    if engine.startswith("duckdb"):
        return _duckdb(engine, files, out, shapes)
    if engine == "polars":
        import polars

        def run_polars() -> None:
            for file in files:
                # By its default of 100 rows it takes Quantity.value for an integer, and fails on 9.9463.
                polars.read_ndjson(file, infer_schema_length=None).write_parquet(
                    out / f"{file.stem}.parquet", compression="zstd", compression_level=1
                )

        return run_polars
    if engine == "pyarrow-inferred":
        import pyarrow.json as pj
        import pyarrow.parquet as pq

        def run_pyarrow() -> None:
            for file in files:
                table = pj.read_json(file, read_options=pj.ReadOptions(use_threads=False, block_size=16 << 20))
                pq.write_table(table, out / f"{file.stem}.parquet", compression="zstd", compression_level=1)

        return run_pyarrow
    import msgspec
    import orjson

    parse = msgspec.json.Decoder().decode if engine == "floor-msgspec" else orjson.loads

    def run_floor() -> None:
        for line in _lines(files):
            parse(line)

    return run_floor


def _lines(files: list[Path]) -> Iterator[bytes]:
    for path in files:
        with path.open("rb") as file:
            yield from file


def _checked(report: Any) -> None:
    assert report.rows and not report.rejected and not report.unmapped, report


def _duckdb(engine: str, files: list[Path], out: Path, shapes: dict[str, Any]) -> Callable[[], None]:
    import duckdb

    from hiexchange.lake.schema import plan

    queries = []
    for file in files:
        options = "format = 'newline_delimited', maximum_object_size = 100000000"
        if engine == "duckdb-explicit":
            nodes = plan(file.stem, shapes[file.stem], "4.0.1").nodes
            columns = ", ".join(f"\"{node.name}\": '{duckdb_type(node)}'" for node in nodes)
            options += f", columns = {{resourceType: 'VARCHAR', {columns}}}"
        target = out / f"{file.stem}.parquet"
        queries.append(f"copy (from read_json('{file}', {options})) to '{target}' (format parquet, compression zstd)")

    def run() -> None:
        con = duckdb.connect()
        con.execute("set threads = 1")
        for query in queries:
            con.execute(query)

    return run


def child(engine: str, folder: Path, shapes_file: Path) -> None:
    """Run one engine once and print CPU seconds, wall seconds, peak memory."""
    shapes = json.loads(shapes_file.read_text())
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        work = run_engine(engine, folder, Path(out), shapes)
        before, started = time.process_time(), time.perf_counter()
        work()
        wall, cpu = time.perf_counter() - started, time.process_time() - before
        size = sum(path.stat().st_size for path in Path(out).rglob("*.parquet"))
    print(json.dumps({"cpu": cpu, "wall": wall, "peak": _peak(), "size": size}))


def _peak() -> int:
    """Return the peak resident bytes of this process; ru_maxrss would start at what its parent had."""
    found = re.search(r"^VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def measure(engine: str, folder: Path, shapes_file: Path) -> dict[str, float]:
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--child", engine, str(folder), str(shapes_file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return {}
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def report(kind: str, folder: Path, size: int, runs: dict[str, list[dict[str, float]]]) -> None:
    total = sum(path.stat().st_size for path in folder.glob("*.ndjson"))
    print(f"\n### {kind}, {total / 1e6:,.0f} MB\n")
    print("| engine | MB/CPU-s, median (range) | of DuckDB explicit | MB/s wall | peak MB | Parquet MB |")
    print("|---|---:|---:|---:|---:|---:|")

    def speed(result: dict[str, float]) -> float:
        return total / 1e6 / result["cpu"]

    base = statistics.median([speed(run) for run in runs.get("duckdb-explicit", [])] or [float("nan")])
    for engine, results in runs.items():
        if not results:
            print(f"| {engine} | failed | | | | |")
            continue
        speeds = [speed(result) for result in results]
        middle = statistics.median(speeds)
        wall = statistics.median(total / 1e6 / result["wall"] for result in results)
        print(
            f"| {engine} | {middle:.0f} ({min(speeds):.0f}-{max(speeds):.0f}) | {middle / base:.2f} | {wall:.0f} "
            f"| {max(result['peak'] for result in results) / 1e6:,.0f} | {results[0]['size'] / 1e6:.1f} |",
            flush=True,
        )
    if runs.get("hiexchange") and runs.get("hiexchange-2w"):
        one, two = (statistics.median(run["wall"] for run in runs[name]) for name in ("hiexchange", "hiexchange-2w"))
        print(f"\nTwo workers take {one / two:.2f} x the speed of one by the clock.", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--sizes", default="25", help="MB, comma-separated")
    parser.add_argument("--types", default="Observation,Encounter,ExplanationOfBenefit,mix")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=None, help="folder for inputs and outputs")
    parser.add_argument("--child", nargs=3, metavar=("ENGINE", "FOLDER", "SHAPES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]), Path(options.child[2]))
        return
    for size in options.sizes.split(","):
        for kind in options.types.split(","):
            with tempfile.TemporaryDirectory(dir=options.work) as base:
                folder = Path(base) / "in"
                folder.mkdir()
                shapes_file = Path(base) / "shapes.json"
                # In another process: a child's peak memory counts from what its parent had when it was made.
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    pool.submit(prepare, options.data, kind, int(size) * 1_000_000, folder, shapes_file).result()
                runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in options.engines.split(",")}
                for _ in range(options.rounds):
                    for engine, results in runs.items():
                        result = measure(engine, folder, shapes_file)
                        if result:
                            results.append(result)
                report(kind, folder, int(size), runs)


if __name__ == "__main__":
    main()
