"""Print, per type, how many resources come back equal from a lake; exit 1 when any does not.

    python tests/conformance/roundtrip.py DIR... [--fhir-version R4]

Each DIR is ingested into a lake of its own in a temporary folder. Lines are matched to rows by file and
line number, not by id, and the lake is asked before newest-wins can drop a version (each file alone).
A JSON file counts as one resource. A folder whose name starts with ``stu3`` is read as STU3 unless told otherwise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from hiexchange.lake import Lake, restore
from hiexchange.lake.ingest import NDJSON
from hiexchange.ndjson import open_bytes


def files_of(folder: Path) -> list[Path]:
    found = [path for path in folder.rglob("*") if path.name.endswith((*NDJSON, ".json")) and path.is_file()]
    return sorted(path for path in found if path.suffix != ".json" or b'"resourceType"' in path.read_bytes()[:400])


def on_one_line(path: Path, folder: str) -> Path:
    """Return a copy of a JSON document as one NDJSON line; raw line ends can't stand inside its strings."""
    copy = Path(folder) / f"{path.stem}.ndjson"
    copy.write_bytes(path.read_bytes().translate(bytes.maketrans(b"\r\n", b"  ")))
    return copy


def compare(path: Path, version: str | None, counts: dict[str, Counter[str]]) -> None:
    """Ingest one file and compare every line of it with what comes back."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        if path.suffix == ".json":
            path = on_one_line(path, folder)
        lake.ingest([path], fhir_version=version)
        refused = set(lake.table("_rejects").to_arrow()["line"].to_pylist())
        for table in lake.tables():
            rows = lake.table(table).to_arrow(["__hx_line"])["__hx_line"].to_pylist()
            back = dict(zip(rows, lake.to_ndjson(table), strict=True))
            count = counts.setdefault(table, Counter())
            with open_bytes(path) as stream:
                for number, line in enumerate(stream, 1):
                    if line.strip():
                        count["read"] += 1
                        count[verdict(line, back.get(number), number in refused)] += 1


def verdict(line: bytes, back: bytes | None, refused: bool) -> str:
    if back is None:
        return "quarantined" if refused else "older version"
    return "equal" if restore.equal(line, back) else "unequal"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--fhir-version")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    for folder in options.folders:
        for path in files_of(folder):
            guessed = "STU3" if any(part.startswith("stu3") for part in path.parts) else None
            compare(path, options.fhir_version or guessed, counts)
    columns = ["read", "equal", "unequal", "quarantined", "older version"]
    print("| type | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    total: Counter[str] = Counter()
    for table in sorted(counts):
        total.update(counts[table])
        print(f"| {table} | " + " | ".join(f"{counts[table][name]:,}" for name in columns) + " |")
    print("| all | " + " | ".join(f"{total[name]:,}" for name in columns) + " |")
    return 1 if total["unequal"] or not total["read"] else 0


if __name__ == "__main__":
    sys.exit(main())
