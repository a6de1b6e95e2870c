"""Compare the two engines of official measures: a patient at a time (stage 1), and many at once over columns (stage 2).

    python benchmarks/columnar.py --measures DIR --cases DIR [--patients 10000] [--only CMS165,...]
        [--generated 10000] [--folder DIR --copies 10 --year 2020]

Patients are copies of the official cases under new ids, in a lake: every branch of a measure is walked. With
``--generated`` the project's own synthetic population is run too; its patients are in no initial population.
With ``--folder`` (NDJSON, such as synthea-100) each of its patients is copied: patients of hundreds of resources.
Both engines read the lake, and their tables are compared. CPU seconds of this process, reading included.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from hiexchange.lake import Lake
from hiexchange.measures import Measure, evaluate_all
from hiexchange.measures.columnar.plan import plan
from hiexchange.measures.cql.subject import Context, Subject
from hiexchange.measures.measure import new_program, parameters
from hiexchange.measures.sources import decode

FIVE = ("CMS165", "CMS122", "CMS125", "CMS130", "CMS349")
GENERATED = (date(2025, 1, 1), date(2025, 12, 31))
Cases = dict[tuple[date, date], list[dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--measures", type=Path, required=True)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--only", default=",".join(FIVE), help="measures whose name contains one of these")
    parser.add_argument("--patients", type=int, default=10_000, help="copies of cases, in all measures together")
    parser.add_argument("--generated", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--year", type=int, default=2020)
    options = parser.parse_args()
    shares(options)
    with tempfile.TemporaryDirectory() as folder:
        copies(options, Path(folder))
        if options.folder:
            repeated(options, Path(folder))
        if options.generated:
            generated(options, Path(folder))


def files(options: argparse.Namespace) -> list[Path]:
    parts = options.only.split(",")
    return [file for file in sorted(options.measures.glob("*.json.gz")) if any(part in file.name for part in parts)]


def cases_of(options: argparse.Namespace, file: Path) -> Cases:
    path = options.cases / f"{file.name.split('.')[0]}.ndjson.gz"
    found: Cases = {}
    for line in gzip.decompress(path.read_bytes()).split(b"\n") if path.exists() else ():
        if line.strip():
            case = json.loads(line)
            days = (date.fromisoformat(case["period"]["start"][:10]), date.fromisoformat(case["period"]["end"][:10]))
            found.setdefault(days, []).append(case["bundle"])
    return found


# What is covered ------------------------------------------------------------------------------


def shares(options: argparse.Namespace) -> None:
    """Which defines columns can hold, and how much of stage 1's time on the cases is theirs."""
    blockers: Counter[str] = Counter()
    defines = columnar = 0
    spent = covered = 0.0
    for file in sorted(options.measures.glob("*.json.gz")):
        measure = Measure.load(file, accept={"all"})
        program = new_program(timedelta(0))
        measure.compile(program)
        found = plan(program)
        blockers += found.blockers()
        defines += len(found.verdicts)
        columnar += sum(verdict.reason is None for verdict in found.verdicts)
        whole, part = timed(measure, cases_of(options, file))
        spent, covered = spent + whole, covered + part
    print(
        f"defines: {columnar} of {defines} columnar ({columnar / defines:.1%}); blocked by {dict(blockers) or 'nothing'}"
    )
    print(
        f"stage 1's time on the cases: {covered / spent:.1%} of {spent:.2f} s is spent in columnar defines\n",
        flush=True,
    )


class Clock:
    """Adds up the time spent in defines, each without the defines below it."""

    def __init__(self, columnar: set[tuple[str, str]]) -> None:
        self.columnar = columnar
        self.stack: list[Any] = []
        self.at = 0.0
        self.whole = self.part = 0.0

    def _count(self) -> None:
        now = time.perf_counter()
        if self.stack:
            self.whole += now - self.at
            if self.stack[-1] in self.columnar:
                self.part += now - self.at
        self.at = now

    def enter(self, define: Any) -> None:
        """Start a define."""
        self._count()
        self.stack.append((define.unit.library.id, define.name))

    def leave(self) -> None:
        """End it."""
        self._count()
        self.stack.pop()

    def retrieved(self, spec: Any, rows: Any) -> None:
        """Take no notice of retrieves: they are part of their define."""


def timed(measure: Measure, cases: Cases) -> tuple[float, float]:
    from hiexchange.measures import populations

    whole = part = 0.0
    for period, bundles in cases.items():
        program = new_program(timedelta(0))
        compiled = measure.compile(program)
        found = plan(program)
        clock = Clock({(v.library, v.define) for v in found.verdicts if v.reason is None})
        context = Context(program, parameters(period))
        for turn in range(2):  # the first compiles
            clock.whole = clock.part = 0.0
            for bundle in bundles:
                s = Subject(context, decode(json.dumps([entry["resource"] for entry in bundle["entry"]]).encode()))
                s.trace = clock if turn else None
                for criteria in compiled.criteria:
                    try:
                        populations.evaluate(criteria, s)
                    except Exception:  # a case that is in error is in error here too
                        clock.stack.clear()
        whole, part = whole + clock.whole, part + clock.part
    return whole, part


# Both engines on lakes -------------------------------------------------------------------------


def copies(options: argparse.Namespace, folder: Path) -> None:
    """Copies of the cases, each measure on its own lake and then all on one."""
    chosen = files(options)
    print(
        "| measure | patients | in the initial population | stage 1 CPU s | with prefilter | stage 2 CPU s | times faster |"
    )
    print("|---|---|---|---|---|---|---|")
    together: list[dict[str, Any]] = []
    loaded = []
    period = None
    for at, file in enumerate(chosen):
        days, bundles = next(iter(sorted(cases_of(options, file).items(), key=lambda item: -len(item[1]))), (None, []))
        if days is None:
            continue
        measure = Measure.load(file, accept={"all"})
        lake = lake_of(bundles, options.patients // len(chosen), folder / f"one{at}")
        race(measure.id[:30], [measure], lake, days)
        if period in (None, days):
            period, together = days, together + bundles
            loaded.append(measure)
    if len(loaded) > 1 and period is not None:
        race(f"all {len(loaded)}, one pass", loaded, lake_of(together, options.patients, folder / "all"), period)


def lake_of(bundles: list[dict[str, Any]], size: int, folder: Path) -> Lake:
    folder.mkdir()
    writers: dict[str, Any] = {}
    for number, bundle in zip(range(size), itertools.cycle(bundles), strict=False):
        for resource in renamed(bundle, number):
            kind = resource["resourceType"]
            if kind not in writers:
                writers[kind] = (folder / f"{kind}.ndjson").open("w")
            writers[kind].write(json.dumps(resource) + "\n")
    for writer in writers.values():
        writer.close()
    lake = Lake(folder / "lake")
    lake.ingest(folder)
    return lake


def renamed(bundle: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    resources = [entry["resource"] for entry in bundle["entry"]]
    names = {f"{resource['resourceType']}/{resource.get('id')}" for resource in resources}

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: f"{item}-{number}" if key == "reference" and item in names else moved(item)
                for key, item in value.items()
            }
        return [moved(item) for item in value] if isinstance(value, list) else value

    for resource in resources:
        yield {**moved(resource), "id": f"{resource.get('id')}-{number}"}


def race(name: str, measures: list[Measure], lake: Lake, period: tuple[date, date]) -> None:
    rows, plain = run(measures, lake, period, prefilter=False)
    filtered = run(measures, lake, period)[1]
    columns, fast = run(measures, lake, period, engine="columns")
    inside = [found.summary().first.counts.get("initial_population", 0) for found in rows]
    equal = all(one.table.equals(other.table) for one, other in zip(rows, columns, strict=True))
    people = lake.tables()["Patient"]
    print(
        f"| {name} | {people:,} | {round(statistics.mean(inside)):,} | {plain:.2f} | {filtered:.2f} | {fast:.2f} "
        f"| {min(plain, filtered) / fast:.1f}{'' if equal else ' (TABLES DIFFER)'} |",
        flush=True,
    )


def run(measures: list[Measure], lake: Lake, period: tuple[date, date], **options: Any) -> tuple[Any, float]:
    started = time.process_time()
    found = evaluate_all(measures, lake, period=period, **options)
    return found, time.process_time() - started


def generated(options: argparse.Namespace, folder: Path) -> None:
    from hiexchange.testing.population import generate

    generate(folder / "people", patients=options.generated)
    lake = Lake(folder / "generated")
    lake.ingest(folder / "people" / "fhir")
    measures = [Measure.load(file, accept={"all"}) for file in files(options)]
    race(f"generated, {len(measures)} measures, one pass", measures, lake, GENERATED)


def repeated(options: argparse.Namespace, folder: Path) -> None:
    """A folder of NDJSON, every patient several times: ids and references get a suffix."""
    (folder / "repeated").mkdir()
    for file in sorted(options.folder.glob("*.ndjson*")):
        data = file.read_bytes()
        text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        with (folder / "repeated" / file.name.removesuffix(".gz")).open("wb") as out:
            for number in range(options.copies):
                out.write(_REFERENCE.sub(rb'\g<1>-%d"' % number, text))
    lake = Lake(folder / "repeated" / "lake")
    lake.ingest(folder / "repeated")
    measures = [Measure.load(file, accept={"all"}) for file in files(options)]
    period = (date(options.year, 1, 1), date(options.year, 12, 31))
    race(f"{options.folder.name} x {options.copies}, {len(measures)} measures", measures, lake, period)


_REFERENCE = re.compile(rb'("id":"[^"]+|"reference":"[A-Z][A-Za-z]+/[^"]+)"')


if __name__ == "__main__":
    main()
