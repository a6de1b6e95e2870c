"""Measure the measure engine: CPU a patient and measure, load time, memory against population size.

    python benchmarks/measures.py --measures DIR --cases DIR [--synthea DIR] [--patients 10000,100000] [--native 10000]
        [--fqm DIR]

``--patients`` makes populations with planted truth (see ``measures_population.py``), puts each into a lake and runs
five measures over it, ``--workers`` at a time; ``--keep DIR`` keeps them for the next run.

``--native`` runs our own measures over populations of ``hiexchange.testing``, against their planted truth.

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
import threading
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from measures_population import COLUMNS, MEASURES, PERIOD, write

from hiexchange.lake import Lake
from hiexchange.measures import Measure, evaluate, evaluate_all
from hiexchange.measures.evaluate import Engine, Job
from hiexchange.measures.sources import decode
from hiexchange.testing.population import generate
from hiexchange.testing.population.truth import rows as rows_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--measures", type=Path, required=True)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--synthea", type=Path)
    parser.add_argument("--patients", default="", help="sizes of generated populations, comma-separated")
    parser.add_argument("--native", default="", help="sizes of populations for our own measures, comma-separated")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fqm", type=Path)
    parser.add_argument("--only", default="", help="measures whose name contains one of these, comma-separated")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="folder to keep generated populations in, and to find them again")
    parser.add_argument("--skip-cases", action="store_true", help="only the populations")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        population(options)
        return
    if not options.skip_cases:
        on_cases(options)
    if options.synthea:
        on_synthea(options)
    for size in filter(None, options.native.split(",")):
        native(int(size))
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
        rows.append((name, len(cases), times[0], statistics.median(times[1:]), min(times[1:]), theirs))
    print("| measure | cases | first pass ms | warm ms: median | lowest | fqm, case by case ms | fqm, in batches ms |")
    print("|---|---|---|---|---|---|---|")
    for name, count, first, warm, least, theirs in rows:
        print(f"| {name[:40]} | {count} | {first:.2f} | {warm:.2f} | {least:.2f} | {theirs[0]} | {theirs[1]} |")
    total = sum(count for _, count, *_ in rows)
    mean, lowest = (sum(row[1] * row[at] for row in rows) / total for at in (3, 4))
    over, even = (sum(row[at] > 1 for row in rows) for at in (3, 4))
    print(
        f"\nall {total} cases: {mean:.2f} ms CPU a patient and measure, warm (mean of medians; {lowest:.2f} of lowest); "
        f"above 1 ms: {over} of {len(rows)} measures by median, {even} by lowest"
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


def on_synthea(options: argparse.Namespace) -> None:
    """Patients of hundreds of resources, read from a lake."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder, "lake"))
        lake.ingest(options.synthea)
        loaded = five(options)
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


def native(size: int) -> None:
    """Our own measures against what the population planted."""
    print("| measure | patients | CPU s | denominator | numerator | differences from the truth |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        people = generate(folder, patients=size)
        lake = Lake(Path(folder, "lake"))
        lake.ingest(people.fhir)
        year = date(people.year, 1, 1), date(people.year, 12, 31)
        for name in ("followup-7d", "social-need-screening", "data-completeness"):
            started = time.process_time()
            run = evaluate(name, lake, period=year, run_id="benchmark", offset=timedelta(hours=-6))
            cpu, counts = time.process_time() - started, run.summary().counts
            if name == "followup-7d":
                columns = ("episode", "denominator", "denominator_exclusion", "numerator")
                found = ((key.split("/")[-1], *flags) for key, *flags in rows_of(run.table, *columns))
                differences = people.truth.measure(found)
            else:
                differences = people.truth.of_patients(name, rows_of(run.table, "subject", "denominator", "numerator"))
            line = f"| {name} | {size:,} | {cpu:.2f} | {counts['denominator']:,} | {counts['numerator']:,} |"
            print(f"{line} {len(differences)} |", flush=True)
    print()


def generated(options: argparse.Namespace, size: int) -> None:
    """A generated population; generating, ingesting and evaluating each in a process of its own, for its peak memory."""
    folder = (options.keep or Path(tempfile.gettempdir())) / f"measures-{size}"
    try:
        for part in ("write", "ingest", "evaluate"):
            if part == "evaluate" or not (folder / f"{part}.done").exists():
                command = [sys.executable, __file__, "--measures", str(options.measures), "--cases", str(options.cases)]
                command += ["--workers", str(options.workers), "--part", part, "--folder", str(folder)]
                subprocess.run([*command, "--patients", str(size)], check=True)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def population(options: argparse.Namespace) -> None:
    """One part of a generated population, by itself."""
    size, folder = int(options.patients), options.folder
    if options.part == "write":
        truth = write(folder / "fhir", five(options), size)
        (folder / "truth.json").write_text(json.dumps(truth))
    elif options.part == "ingest":
        Lake(folder / "lake").ingest(folder / "fhir")
    else:
        evaluated(options, size, Lake(folder / "lake"), json.loads((folder / "truth.json").read_text()))
        return
    (folder / f"{options.part}.done").touch()


def evaluated(options: argparse.Namespace, size: int, lake: Lake, truth: dict[str, dict[str, int]]) -> None:
    loaded = five(options)
    before, cpu, wall = peak(), time.process_time(), time.perf_counter()
    watch = Watch()
    runs = evaluate_all(loaded, lake, period=PERIOD, workers=options.workers)
    workers = watch.stop()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu += children.ru_utime + children.ru_stime
    wrong = 0
    for planted, run in zip(truth.values(), runs, strict=True):
        counts = run.summary().counts
        wrong += sum(planted[name] != (counts.get(name) or 0) for name in COLUMNS)
    errors = sum(run.summary().first.errors for run in runs)
    initial = sum(planted["initial_population"] for planted in truth.values())
    print(
        "| patients | resources | workers | wall s | CPU s | ms CPU a patient and measure | parent MB before, peak | "
        "worker peak MB | in initial populations | planted counts that differ | errors |"
    )
    print("|" + "---|" * 11)
    print(
        f"| {size:,} | {sum(lake.tables().values()):,} | {options.workers} | {wall:.1f} | {cpu:.1f} | "
        f"{1000 * cpu / size / len(loaded):.2f} | {before:.0f}, {peak():.0f} | {workers:.0f} | {initial:,} | "
        f"{wrong} of {len(COLUMNS) * len(loaded)} | {errors} |\n",
        flush=True,
    )


class Watch:
    """Notes the peak memory of this process's children while they live."""

    def __init__(self) -> None:
        self._most = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._done.wait(0.5):
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            self._most = max([self._most, *(peak(child) for child in children)])

    def stop(self) -> float:
        self._done.set()
        self._thread.join()
        return self._most


def peak(process: str = "self") -> float:
    """Peak resident memory in MB; ``ru_maxrss`` would inherit the parent's over exec."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def five(options: argparse.Namespace) -> list[Measure]:
    return [Measure.load(options.measures / f"{name}.json.gz", accept={"all"}) for name in MEASURES.values()]


if __name__ == "__main__":
    main()
