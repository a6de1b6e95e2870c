"""Run official measures on their official test cases and compare with the expected MeasureReports.

    python tests/conformance/ecqm.py --measures DIR --cases DIR --report FILE

``DIR`` of measures: one ``<Measure>.json[.gz]`` Bundle a measure. ``DIR`` of cases: one
``<Measure>.ndjson[.gz]`` a measure, a line ``{"case", "name", "period", "bundle", "report"}``. Every
population count, the counts of every stratum and every observation of the expected report is
compared, by group id and population id, then code.

A case passes when all its population counts agree. Strata and observations are counted apart, and
``--strict`` makes them decide too: the published reports hold strata that were never cut (CMS130
repeats the group's counts in both age strata; a stratum ``false`` is the complement of each count,
not the counts of those outside), strata that need a value set the bundles lack (CMS1244), and
observations typed by hand (CMS986). The report file lists each difference. The exit code is 0 when
all cases pass, or fail only as the list of doubtful cases says.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from hiexchange.measures import Measure, evaluate_all
from hiexchange.measures.bundle import OBSERVATIONS, POPULATIONS
from hiexchange.measures.evaluate import Engine, Job
from hiexchange.measures.rows import Gatherer, constants
from hiexchange.measures.sources import bundled, decode

# Public cases that two independent engines fail as well, by the first 8 characters of their id, and why.
DOUBTFUL = {
    "CMS1028": ("763d86f9", "7d4e3d3e", "e0935b52", "ed3ea9d2"),
    "CMS1056": ("03da9890", "15f7e535", "a9545a75", "d735a266", "e80a2dd2"),
    "CMS1244": ("8e43bc64", "9dc75857"),
    "CMS142": ("2dd72971",),
    "CMS143": ("2cca67ad",),
    "CMS22": ("0278fdf0", "9ed1ecf5"),
    "Oncology": ("18a871b4", "bbdccaa6", "fe6ef07d"),
}
DOUBT = {case for cases in DOUBTFUL.values() for case in cases}


@dataclass
class Outcome:
    """One measure's result."""

    measure: str
    passed: int = 0
    doubtful: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    strata: list[int] = field(default_factory=lambda: [0, 0])
    observations: list[int] = field(default_factory=lambda: [0, 0])
    apart: list[tuple[str, str]] = field(default_factory=list)
    note: str = ""
    broken: bool = False
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return self.passed + len(self.doubtful) + len(self.failed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--measures", type=Path, required=True)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--only", default="", help="run measures whose name contains this")
    parser.add_argument("--strict", action="store_true", help="differing strata and observations fail the case too")
    options = parser.parse_args()
    outcomes = []
    files = sorted([*options.measures.glob("*.json"), *options.measures.glob("*.json.gz")])
    for file in files:
        name = file.name.split(".")[0]
        if options.only in name:
            outcome = run_measure(name, file, options.cases, strict=options.strict)
            outcomes.append(outcome)
            print(line(outcome), flush=True)
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(len(outcome.failed) + len(outcome.doubtful) for outcome in outcomes)
    doubtful = sum(len(outcome.doubtful) for outcome in outcomes)
    cut, seen = (
        tuple(map(sum, zip(*(getattr(o, name) for o in outcomes), strict=True))) for name in ("strata", "observations")
    )
    print(f"strata {cut[0]} of {cut[1]}, observations {seen[0]} of {seen[1]} agree (counted apart)")
    print(f"{passed} passed, {failed} failed ({doubtful} of them on the list of doubtful cases)")
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(as_json(outcomes), indent=1) + "\n", encoding="utf-8")
    bad = any(outcome.failed or outcome.broken for outcome in outcomes)
    return 1 if bad else 0


def line(outcome: Outcome) -> str:
    """Return the line printed for a measure."""
    text = f"{outcome.measure:<64} {outcome.passed:>4} of {outcome.total:<4}"
    if outcome.doubtful:
        text += f" doubtful {len(outcome.doubtful)}"
    if outcome.failed:
        text += f" FAILED {len(outcome.failed)}: " + ", ".join(case for case, _ in outcome.failed[:6])
    for name in ("strata", "observations"):
        good, total = getattr(outcome, name)
        if total:
            text += f" {name} {good}/{total}"
    return f"{text} {outcome.note}".rstrip()


def as_json(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the report file's content."""
    return {
        "passed": sum(outcome.passed for outcome in outcomes),
        "failed": sum(len(outcome.failed) + len(outcome.doubtful) for outcome in outcomes),
        "measures": [
            {
                "measure": outcome.measure,
                "passed": outcome.passed,
                "failed": [{"case": case, "difference": text} for case, text in outcome.failed],
                "doubtful": [{"case": case, "difference": text} for case, text in outcome.doubtful],
                "strata": outcome.strata,
                "observations": outcome.observations,
                "counted_apart": [{"case": case, "difference": text} for case, text in outcome.apart],
                "note": outcome.note,
                "seconds": round(outcome.seconds, 3),
            }
            for outcome in outcomes
        ],
    }


def run_measure(name: str, file: Path, folder: Path, *, strict: bool = False) -> Outcome:
    """Run one measure on its cases; without cases, on one empty patient, to show that it loads and runs."""
    outcome = Outcome(name)
    started = time.process_time()
    try:
        # Missing and empty value sets of the given bundles are known; they are recorded in each result.
        measure = Measure.load(file, accept={"all"})
    except Exception as error:
        outcome.note, outcome.broken = f"does not load: {error}", True
        return outcome
    if measure.accepted:
        outcome.note = "accepted " + ", ".join(sorted({item.partition(":")[0] for item in measure.accepted}))
    path = next((p for p in (folder / f"{name}.ndjson.gz", folder / f"{name}.ndjson") if p.exists()), None)
    if path is None:
        failure = smoke(measure)
        outcome.broken = failure is not None
        outcome.note = f"no cases; {failure or 'loads and runs'} {outcome.note}".strip()
        return outcome
    by_period: dict[tuple[date, date], list[dict[str, Any]]] = {}
    for case in read_cases(path):
        by_period.setdefault(period_of(case), []).append(case)
    for period, cases in by_period.items():
        # One engine for all cases of a period: the measure is compiled once.
        engine = Engine(Job((measure,), period, timedelta(0), "infer"))
        gatherer = Gatherer(constants(measure.id, measure.version, "elm", "cases", period))
        for case in cases:
            gatherer.add(*engine.evaluate(bundled(case["bundle"])))
            rows = gatherer.batch().to_pylist()
            difference = compare(measure, rows, case["report"])
            apart = compare_apart(measure, rows, case["report"], outcome) if difference is None else None
            if apart is not None:
                outcome.apart.append((case["case"], apart))
                difference = apart if strict else None
            key = case["case"][:8]
            if difference is None:
                outcome.passed += 1
            elif key in DOUBT:
                outcome.doubtful.append((case["case"], difference))
            else:
                outcome.failed.append((case["case"], difference))
    outcome.seconds = time.process_time() - started
    return outcome


def smoke(measure: Measure) -> str | None:
    """Evaluate one patient without data; say what fails, or None when the measure runs."""
    bundle = {
        "resourceType": "Bundle",
        "entry": [{"resource": {"resourceType": "Patient", "id": "-1", "birthDate": "1960-01-01"}}],
    }
    (run,) = evaluate_all([measure], [bundle], period=(date(2026, 1, 1), date(2026, 12, 31)))
    errors = [row["error_define"] for row in run.table.to_pylist() if row["status"] == "error"]
    return f"runs with error in {errors[0]}" if errors else None


def read_cases(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the cases of a file."""
    data = path.read_bytes()
    for text in (gzip.decompress(data) if path.suffix == ".gz" else data).split(b"\n"):
        if text.strip():
            yield decode(text)


def period_of(case: dict[str, Any]) -> tuple[date, date]:
    """Return the measurement period of a case."""
    period = case.get("period") or case["report"]["period"]
    return date.fromisoformat(period["start"][:10]), date.fromisoformat(period["end"][:10])


def compare(measure: Measure, rows: list[dict[str, Any]], report: dict[str, Any]) -> str | None:
    """Return the first differences between rows and the expected report, None when they agree."""
    found: list[str] = []
    errors = [row for row in rows if row["status"] == "error"]
    if errors:
        return f"error in {errors[0]['error_define']}: {errors[0]['messages'][0]}"
    for expected in report.get("group") or ():
        group = group_of(measure, expected.get("id"))
        if group is None:
            found.append(f"group {expected.get('id')} is not in the measure")
            continue
        mine = [row for row in rows if row["group"] == group.id]
        names = {item.id: item.column for item in group.populations}
        found += populations(group.id, mine, expected.get("population") or (), names)
    return "; ".join(found[:5]) or None


def compare_apart(measure: Measure, rows: list[dict[str, Any]], report: dict[str, Any], outcome: Outcome) -> str | None:
    """Return the first differences of strata and observations, and count what agrees."""
    found: list[str] = []
    for expected in report.get("group") or ():
        group = group_of(measure, expected.get("id"))
        mine = [row for row in rows if row["group"] == group.id]
        names = {item.id: item.column for item in group.populations}
        for tally, differences in (
            (outcome.observations, observations(group.id, mine, expected.get("population") or ())),
            (outcome.strata, strata(mine, expected.get("stratifier") or (), names)),
        ):
            for difference in differences:
                tally[1] += 1
                tally[0] += difference is None
                found += [difference] if difference is not None else []
    return "; ".join(found[:5]) or None


def group_of(measure: Measure, name: str | None) -> Any:
    """Return the group of an id; the only one where there is one."""
    match = [group for group in measure.groups if group.id == name]
    return match[0] if match else (measure.groups[0] if len(measure.groups) == 1 else None)


def code_of(item: dict[str, Any]) -> str:
    """Return a population's code."""
    return next((coding["code"] for coding in (item.get("code") or {}).get("coding") or () if "code" in coding), "")


def populations(where: str, rows: list[dict[str, Any]], expected: Any, names: dict[str, str]) -> list[str]:
    """Compare population counts."""
    found = []
    for item in expected:
        code = code_of(item)
        column = names.get(item.get("id", "")) or POPULATIONS.get(code)
        if code in OBSERVATIONS or column is None:
            continue
        count = sum(row[column] or 0 for row in rows)
        if count != item.get("count", 0):
            found.append(f"{where} {column} expected {item.get('count', 0)}, got {count}")
    return found


def observations(where: str, rows: list[dict[str, Any]], expected: Any) -> list[str | None]:
    """Compare observations, None for one that agrees: an expected one carries its value in ``count``, and its place in the id's end."""
    wanted: dict[str, list[float]] = {}
    for item in expected:
        if code_of(item) in OBSERVATIONS:
            wanted.setdefault(item.get("id", ""), []).append(float(item.get("count", 0)))
    if not wanted:
        return []
    got: dict[str, list[float]] = {}
    for row in rows:
        for item in row["observations"] or ():
            got.setdefault(item["id"], []).append(item["value"] if item["value"] is not None else 0.0)
    found: list[str | None] = []
    for name in {base_of(key, got) for key in wanted}:
        want = sorted(value for key, values in wanted.items() if base_of(key, got) == name for value in values)
        have = sorted(got.get(name, []))
        found.append(None if want == have else f"{where} {name} expected {want}, got {have}")
    return found


def base_of(key: str, known: dict[str, list[float]]) -> str:
    """Return the observation an expected id belongs to: MeasureObservation_1_1 is the first of MeasureObservation_1."""
    if key in known:
        return key
    base = key.rpartition("_")[0]
    return base if base in known or base.count("_") else key


def strata(rows: list[dict[str, Any]], expected: Any, names: dict[str, str]) -> list[str | None]:
    """Compare the counts of each stratum that holds (``true`` or a named one), None for one that agrees."""
    found: list[str | None] = []
    for stratifier in expected:
        name = stratifier.get("id")
        for stratum in stratifier.get("stratum") or ():
            text = (stratum.get("value") or {}).get("text") or ""
            if text == "false":
                continue
            inside = [row for row in rows if f"{name} = true" in (row["strata"] or ())]
            found.append(
                "; ".join(populations(f"{name}={text}", inside, stratum.get("population") or (), names)) or None
            )
    return found


if __name__ == "__main__":
    sys.exit(main())
