"""Run the official SQL on FHIR v2 tests and write the official report.

    python tests/conformance/sql_on_fhir.py DIR --report test_report.json

DIR holds the suite's ``*.json`` (FHIR/sql-on-fhir-v2, ``tests/``). A test passes only if it does for
every FHIR version that its file names and we ship. Stricter than the suite asks: columns in order, rows
in order within a resource, JSON types, decimals digit by digit; an expected error must be our ViewError.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from hiexchange.definitions import VERSIONS
from hiexchange.errors import ViewError
from hiexchange.lake.cut import Block
from hiexchange.lake.decode import Source, encode
from hiexchange.views import View


class _Suite(msgspec.Struct):
    resources: list[msgspec.Raw]
    tests: list[msgspec.Raw]
    title: str = ""
    fhirVersion: list[str] = []


class _Type(msgspec.Struct):
    resourceType: str


def tables(resources: list[msgspec.Raw], version: str) -> dict[str, pa.Table]:
    """Encode the raw text of resources, as a lake would store them: one table a type."""
    lines: dict[str, list[bytes]] = {}
    for raw in resources:
        kind = msgspec.json.decode(raw, type=_Type).resourceType
        # Line ends are only outside of strings, where JSON allows them.
        lines.setdefault(kind, []).append(bytes(raw).replace(b"\r", b" ").replace(b"\n", b" "))
    found = {}
    for kind, items in lines.items():
        encoded = encode(Block(b"\n".join(items), 1, 0), {}, Source(kind, "test", "test", version))
        if encoded.rejects:
            raise AssertionError(f"{kind}: {[reject.reason for reject in encoded.rejects]}")
        found[kind] = pa.Table.from_batches([encoded.batch])
    return found


def run_test(test: dict[str, Any], data: dict[str, pa.Table], version: str) -> str | None:
    """Return why a test fails, or None."""
    try:
        view = View.from_json(test["view"], fhir_version=version)
        source = data.get(view.definition.resource)
        result = view.run(source) if source is not None else view.schema().empty_table()
    except ViewError as error:
        return None if test.get("expectError") else f"unexpected error: {error}"
    except Exception as error:
        # Any other exception is our fault, also where the suite expects an error.
        return f"crashed: {type(error).__name__}: {error}"
    if test.get("expectError"):
        return "an error was expected"
    return _difference(test, result)


def _difference(test: dict[str, Any], result: pa.Table) -> str | None:
    if "expectCount" in test and result.num_rows != test["expectCount"]:
        return f"{result.num_rows} rows, expected {test['expectCount']}"
    if "expectColumns" in test and result.column_names != test["expectColumns"]:
        return f"columns {result.column_names}, expected {test['expectColumns']}"
    if "expect" not in test:
        return None
    expected = test["expect"]
    if expected and set(result.column_names) != set(expected[0]):
        return f"columns {result.column_names}, expected {list(expected[0])}"
    decimals = {field.name for field in result.schema if (field.metadata or {}).get(b"fhir") == b"decimal"}
    given = [_key(row, decimals) for row in result.to_pylist()]
    wanted = [_key(row, decimals) for row in expected]
    if Counter(given) != Counter(wanted):
        return f"rows {given}, expected {wanted}"
    return _misplaced(result, given, wanted)


def _misplaced(result: pa.Table, given: list[str], wanted: list[str]) -> str | None:
    """Within one resource the standard fixes the order, unless two levels are crossed."""
    if "id" not in result.column_names or given == wanted:
        return None
    ids = [json.loads(row)["id"] for row in given]
    for key in set(ids):
        mine = [row for row in given if json.loads(row)["id"] == key]
        theirs = [row for row in wanted if json.loads(row)["id"] == key]
        if mine != theirs:
            return f"order {mine}, expected {theirs}"
    return None


def _key(row: dict[str, Any], decimals: set[str]) -> str:
    """Return a row as canonical text that keeps JSON types apart; decimals as their digits."""
    plain = {
        name: {"decimal": str(value)} if name in decimals and value is not None else value
        for name, value in row.items()
    }
    return json.dumps(plain, sort_keys=True, default=str)


def run_file(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the title of each test of a file and why it fails."""
    suite = msgspec.json.decode(path.read_bytes(), type=_Suite)
    versions = [version for version in suite.fhirVersion or ["4.0.1"] if version in VERSIONS]
    data = {version: tables(suite.resources, version) for version in versions}
    for raw in suite.tests:
        test = json.loads(bytes(raw), parse_float=str)
        reasons = [
            f"FHIR {version}: {reason}" for version in versions if (reason := run_test(test, data[version], version))
        ]
        yield test["title"], "; ".join(reasons) or None


def run(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the official report, and a line for each failure."""
    report: dict[str, Any] = {}
    failures = []
    for path in sorted(folder.glob("*.json")):
        entries = []
        for title, reason in run_file(path):
            result: dict[str, Any] = {"passed": reason is None}
            if reason is not None:
                result["error"] = reason
                failures.append(f"{path.name}: {title}: {reason}")
            entries.append({"name": title, "result": result})
        report[path.name] = {"tests": entries}
    return report, failures


def main() -> int:
    """Run the suite from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the suite's JSON files")
    parser.add_argument("--report", type=Path, help="where to write test_report.json")
    options = parser.parse_args()
    report, failures = run(options.folder)
    if options.report:
        options.report.write_text(json.dumps(report, indent=2) + "\n")
    for line in failures:
        print(line)
    total = sum(len(entry["tests"]) for entry in report.values())
    print(f"{total - len(failures)} passed, {len(failures)} failed")
    return 1 if failures or not total else 0


if __name__ == "__main__":
    sys.exit(main())
