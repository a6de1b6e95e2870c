"""Measure the measure engine: CPU a patient and measure, load time, memory against population size.

    python benchmarks/measures.py --measures DIR --cases DIR [--synthea DIR] [--patients 10000,100000] [--fqm DIR]

``--fqm`` names a folder with ``node_modules/fqm-execution`` (``npm install fqm-execution``); it is then run on
the same cases, case by case and in batches, in the same run. JSON parsing and loading are timed apart from evaluation.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from hiexchange.measures import Measure, evaluate_all
from hiexchange.measures.evaluate import Engine, Job
from hiexchange.measures.sources import decode

GENERATED = (date(2025, 1, 1), date(2025, 12, 31))
FIVE = (
    "CMS165FHIRControllingHighBloodPressure",
    "CMS122FHIRDiabetesAssessGreaterThan9Percent",
    "CMS125FHIRBreastCancerScreening",
    "CMS130FHIRColorectalCancerScreening",
    "CMS349FHIRHIVScreening",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--measures", type=Path, required=True)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--synthea", type=Path)
    parser.add_argument("--patients", default="", help="sizes of generated populations, comma-separated")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--fqm", type=Path)
    parser.add_argument("--only", default="", help="measures whose name contains one of these, comma-separated")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--population", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.population:
        population(options)
        return
    on_cases(options)
    if options.synthea:
        on_synthea(options)
    for size in filter(None, options.patients.split(",")):
        generated(options, int(size))


def cases_of(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / f"{name}.ndjson.gz"
    return (
        [decode(line) for line in gzip.decompress(path.read_bytes()).split(b"\n") if line.strip()]
        if path.exists()
        else []
    )


def days(case: dict[str, Any]) -> tuple[date, date]:
    period = case["period"]
    return date.fromisoformat(period["start"][:10]), date.fromisoformat(period["end"][:10])


def on_cases(options: argparse.Namespace) -> None:
    """CPU of evaluation on the official cases, warm, JSON already parsed."""
    rows, loads = [], []
    for file in sorted(options.measures.glob("*.json.gz")):
        name = file.name.split(".")[0]
        if not any(part in name for part in options.only.split(",")):
            continue
        started = time.process_time()
        measure = Measure.load(file, accept={"all"})
        engine_of: dict[Any, Engine] = {}
        loads.append(time.process_time() - started)
        cases = cases_of(options.cases, name)
        if not cases:
            continue
        work = []
        for case in cases:
            period = days(case)
            engine = engine_of.setdefault(period, Engine(Job((measure,), period, timedelta(0), "infer")))
            work.append((engine, ("p", [entry["resource"] for entry in case["bundle"]["entry"]])))
        times = []
        for _ in range(options.repeat + 1):
            started = time.process_time()
            for engine, subject in work:
                engine.evaluate(subject)
            times.append((time.process_time() - started) * 1000 / len(work))
        theirs = fqm(options, file, name, cases)
        rows.append((name, len(cases), times[0], statistics.median(times[1:]), theirs))
    print("| measure | cases | first pass ms | warm ms (median) | fqm, case by case ms | fqm, in batches ms |")
    print("|---|---|---|---|---|---|")
    for name, count, first, warm, theirs in rows:
        print(f"| {name[:40]} | {count} | {first:.2f} | {warm:.2f} | {theirs[0]} | {theirs[1]} |")
    total = sum(count for _, count, *_ in rows)
    mean = sum(count * warm for _, count, _, warm, _ in rows) / total
    over = sum(warm > 1 for *_, warm, _ in rows)
    print(
        f"\nall {total} cases: {mean:.2f} ms CPU a patient and measure, warm (mean); {over} of {len(rows)} measures above 1 ms"
    )
    print(f"load: slowest {max(loads):.2f} s, all {len(loads)} measures {sum(loads):.1f} s CPU\n", flush=True)


FQM = """
const fs = require('fs'), zlib = require('zlib');
const { Calculator } = require(process.argv[2] + '/node_modules/fqm-execution');
const bundle = JSON.parse(zlib.gunzipSync(fs.readFileSync(process.argv[3])));
const cases = JSON.parse(fs.readFileSync(process.argv[4]));
const cpu = () => { const u = process.cpuUsage(); return (u.user + u.system) / 1000; };
(async () => {
  const options = (c) => ({ measurementPeriodStart: c.period.start, measurementPeriodEnd: c.period.end,
    calculateHTML: false, calculateSDEs: false, calculateClauseCoverage: false, trustMetaProfile: true });
  const result = {};
  for (const mode of ['one', 'batch']) {
    const groups = mode === 'one' ? cases.map((c) => [c]) : [cases.filter((c) => c.period.start === cases[0].period.start)];
    try { await Calculator.calculate(bundle, groups[0].map((c) => c.bundle), options(groups[0][0])); } catch (e) {}
    const start = cpu(); let n = 0, failed = 0;
    for (const group of groups) {
      try { await Calculator.calculate(bundle, group.map((c) => c.bundle), options(group[0])); } catch (e) { failed += group.length; }
      n += group.length;
    }
    result[mode] = { ms: (cpu() - start) / n, failed };
  }
  console.log('RESULT ' + JSON.stringify(result));
})();
"""


def fqm(options: argparse.Namespace, file: Path, name: str, cases: list[dict[str, Any]]) -> tuple[str, str]:
    """Run fqm-execution on the same cases; CPU a patient, its own parsing left out."""
    if not options.fqm or shutil.which("node") is None:
        return "-", "-"
    with tempfile.TemporaryDirectory() as folder:
        script, data = Path(folder, "run.js"), Path(folder, "cases.json")
        script.write_text(FQM)
        plain = [{"period": case["period"], "bundle": case["bundle"]} for case in cases[:20]]
        data.write_text(json.dumps(plain, default=float))
        command = ["node", str(script), str(options.fqm.resolve()), str(file.resolve()), str(data)]
        try:
            out = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False).stdout
        except subprocess.TimeoutExpired:
            return "timeout", "timeout"
    line = next((text for text in out.splitlines() if text.startswith("RESULT ")), None)
    if line is None:
        return "failed", "failed"
    result = json.loads(line.removeprefix("RESULT "))
    one, batch = result["one"], result["batch"]
    return tuple(f"{r['ms']:.1f}" + (f" ({r['failed']} failed)" if r["failed"] else "") for r in (one, batch))  # type: ignore[return-value]


def lake_of(folder: Path, target: Path) -> Any:
    from hiexchange.lake import Lake

    lake = Lake(target)
    lake.ingest(folder)
    return lake


def on_synthea(options: argparse.Namespace) -> None:
    """Patients of hundreds of resources, read from a lake."""
    with tempfile.TemporaryDirectory() as folder:
        lake = lake_of(options.synthea, Path(folder, "lake"))
        loaded = [Measure.load(options.measures / f"{name}.json.gz", accept={"all"}) for name in FIVE]
        rows = lake.tables()
        started, wall = time.process_time(), time.perf_counter()
        runs = evaluate_all(loaded, lake, period=(date(2020, 1, 1), date(2020, 12, 31)))
        cpu, wall = time.process_time() - started, time.perf_counter() - wall
    people = rows["Patient"]
    print(
        f"synthea: {people} patients, {sum(rows.values()):,} resources, {len(loaded)} measures from the lake: {cpu:.1f} s CPU, "
    )
    print(
        f"{wall:.1f} s wall, {1000 * cpu / people / len(loaded):.2f} ms CPU a patient and measure, reading included; "
    )
    print("errors " + ", ".join(str(run.summary().first.errors) for run in runs) + "\n", flush=True)


def generated(options: argparse.Namespace, size: int) -> None:
    """A generated population in a process of its own, for its peak memory."""
    command = [sys.executable, __file__, "--measures", str(options.measures), "--cases", str(options.cases)]
    command += ["--processes", str(options.processes), "--population", str(size)]
    subprocess.run(command, check=True, env={**os.environ})


def population(options: argparse.Namespace) -> None:
    from hiexchange.testing.population import generate

    size = int(options.population)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"from hiexchange.testing.population import generate; generate({folder!r} + '/p', patients={size})",
            ],
            check=True,
        )
        assert generate
        command = f"from hiexchange.lake import Lake; Lake({folder!r} + '/lake').ingest({folder!r} + '/p/fhir')"
        subprocess.run([sys.executable, "-c", command], check=True)
        from hiexchange.lake import Lake

        lake = Lake(Path(folder, "lake"))
        loaded = [Measure.load(options.measures / f"{name}.json.gz", accept={"all"}) for name in FIVE]
        before = peak()
        wall = time.perf_counter()
        runs = evaluate_all(loaded, lake, period=GENERATED, processes=options.processes)
        wall = time.perf_counter() - wall
        errors = sum(run.summary().first.errors for run in runs)
        counts = ", ".join(str(run.summary().counts["initial_population"]) for run in runs)
        rows = sum(lake.tables().values())
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    memory = f"{before:.0f} | {peak():.0f} | {children:.0f}"
    print(f"| {size:,} | {rows:,} | {options.processes} | {wall:.1f} | {memory} | {counts} | {errors} |", flush=True)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
