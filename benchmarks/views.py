"""Views from Parquet and from NDJSON: hiexchange, hand-written DuckDB SQL and sqlonfhir, cell by cell.

    python benchmarks/views.py FOLDER [--resources 20000] [--rounds 5] [--sqlonfhir 200]

FOLDER holds Patient, Encounter and ExplanationOfBenefit NDJSON (gzipped or not). The resources are
repeated under new ids up to the number asked for, so readers that like repetition are flattered; all
engines read the same files. One thread each, engines interleaved, median of the rounds.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from hiexchange.lake import Lake
from hiexchange.views import View

CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"
Row = tuple[Any, ...]


def column(name: str, path: str, type: str = "string") -> dict[str, str]:
    """Return a column of a ViewDefinition."""
    return {"name": name, "path": path, "type": type}


VIEWS: dict[str, dict[str, Any]] = {
    "Patient": {
        "resource": "Patient",
        "select": [
            {
                "column": [
                    column("id", "getResourceKey()"),
                    column("gender", "gender", "code"),
                    column("birth_date", "birthDate", "date"),
                    column("family", "name.where(use = 'official').family.first()"),
                    column("given", "name.where(use = 'official').given.first()"),
                    column("mrn", "identifier.where(type.coding.where(code = 'MR').exists()).value.first()"),
                    column("city", "address.city.first()"),
                    column("postal_code", "address.postalCode.first()"),
                ]
            }
        ],
    },
    "Encounter": {
        "resource": "Encounter",
        "where": [{"path": "status = 'finished'"}],
        "select": [
            {
                "column": [
                    column("id", "getResourceKey()"),
                    column("patient", "subject.getReferenceKey(Patient)"),
                    column("class", "class.code", "code"),
                    column("started", "period.start", "dateTime"),
                ]
            },
            {"forEach": "type.coding", "column": [column("code", "code", "code"), column("display", "display")]},
            {"forEach": "participant", "column": [column("practitioner", "individual.getReferenceKey(Practitioner)")]},
        ],
    },
    "EOB item x adjudication": {
        "resource": "ExplanationOfBenefit",
        "select": [
            {"column": [column("id", "getResourceKey()"), column("patient", "patient.getReferenceKey(Patient)")]},
            {
                "forEach": "item",
                "column": [column("line", "sequence", "positiveInt")],
                "select": [
                    {
                        "forEach": "adjudication",
                        "column": [
                            column("category", "category.coding.code.first()", "code"),
                            column("amount", "amount.value", "decimal"),
                            column("currency", "amount.currency", "code"),
                        ],
                    }
                ],
            },
        ],
    },
}

# What a careful analyst writes; `key` mirrors getReferenceKey(Type). Decimals as text need VARCHAR in the
# NDJSON schema, or DuckDB would read doubles.
KEY = "nullif(regexp_extract({0}.reference, '(?:^|/){1}/([A-Za-z0-9.-]+)$', 1), '')"
SQL: dict[str, str] = {
    "Patient": """
        SELECT id, gender, birthDate,
            list_filter(name, lambda x: x.use = 'official')[1].family,
            list_filter(name, lambda x: x.use = 'official')[1].given[1],
            list_filter(identifier,
                lambda x: len(list_filter(x.type.coding, lambda c: c.code = 'MR')) > 0)[1].value,
            address[1].city, address[1].postalCode
        FROM source""",
    "Encounter": f"""
        WITH codes AS (
            SELECT id, subject, class, period, participant, unnest(type) AS kind FROM source WHERE status = 'finished'
        ), codings AS (
            SELECT id, subject, class, period, participant, unnest(kind.coding) AS coding FROM codes
        ), parts AS (
            SELECT id, subject, class, period, coding, unnest(participant) AS part FROM codings
        )
        SELECT id, {KEY.format("subject", "Patient")}, class.code, period.start, coding.code, coding.display,
            {KEY.format("part.individual", "Practitioner")}
        FROM parts""",
    "EOB item x adjudication": f"""
        WITH lines AS (SELECT id, patient, unnest(item) AS line FROM source),
        entries AS (SELECT id, patient, line.sequence AS line, unnest(line.adjudication) AS entry FROM lines)
        SELECT id, {KEY.format("patient", "Patient")}, line, entry.category.coding[1].code,
            entry.amount.value, entry.amount.currency
        FROM entries""",
}
REF = "STRUCT(reference VARCHAR)"
CODING = "STRUCT(code VARCHAR, display VARCHAR)"
COLUMNS: dict[str, dict[str, str]] = {
    "Patient": {
        "id": "VARCHAR",
        "gender": "VARCHAR",
        "birthDate": "VARCHAR",
        "name": "STRUCT(use VARCHAR, family VARCHAR, given VARCHAR[])[]",
        "identifier": f"STRUCT(type STRUCT(coding {CODING}[]), value VARCHAR)[]",
        "address": "STRUCT(city VARCHAR, postalCode VARCHAR)[]",
    },
    "Encounter": {
        "id": "VARCHAR",
        "status": "VARCHAR",
        "subject": REF,
        "class": "STRUCT(code VARCHAR)",
        "period": 'STRUCT("start" VARCHAR)',
        "type": f"STRUCT(coding {CODING}[])[]",
        "participant": f"STRUCT(individual {REF})[]",
    },
    "EOB item x adjudication": {
        "id": "VARCHAR",
        "patient": REF,
        "item": f"STRUCT(sequence INTEGER, adjudication STRUCT(category STRUCT(coding {CODING}[]), "
        "amount STRUCT(value VARCHAR, currency VARCHAR))[])[]",
    },
}


def amplified(source: Path, target: Path, wanted: int) -> int:
    """Repeat a file's resources under new ids; return the number of distinct ones."""
    data = source.read_bytes()
    text = gzip.decompress(data) if source.suffix == ".gz" else data
    lines = [line for line in text.split(b"\n") if line.strip()]
    identify = msgspec.json.Decoder(msgspec.defstruct("Id", [("id", str)])).decode
    with target.open("wb") as out:
        for number in range(wanted):
            line = lines[number % len(lines)]
            key = identify(line).id.encode()
            fresh = b'"id":"%b-%d"' % (key[:40], number // len(lines))
            out.write(line.replace(b'"id":"' + key + b'"', fresh, 1) + b"\n")
    return min(len(lines), wanted)


def ours(view: View, source: Any) -> pa.Table:
    """Run our view."""
    return view.run(source)


def by_sql(name: str, source: str) -> pa.Table:
    """Run the hand-written SQL on one thread."""
    with duckdb.connect() as con:
        con.execute("SET threads = 1")
        return con.sql(SQL[name].replace("FROM source", f"FROM {source}")).to_arrow_table()


def by_sqlonfhir(name: str, lines: list[str]) -> list[dict[str, Any]]:
    """Run sqlonfhir over resources parsed from text, as its users do."""
    import sqlonfhir

    return list(sqlonfhir.evaluate([json.loads(line) for line in lines], VIEWS[name]))


def cells(table: pa.Table) -> list[Row]:
    """Return rows as sorted tuples."""
    columns = [item.to_pylist() for item in table.columns]
    return sorted(zip(*columns, strict=True), key=str)


def compare(name: str, given: pa.Table, other: pa.Table | list[dict[str, Any]], how: str) -> str:
    """Return what two results have in common, cell by cell."""
    left = cells(given)
    if isinstance(other, pa.Table):
        right = cells(other)
    else:
        # sqlonfhir's columns come in its own order, and its decimals as floats.
        names = given.column_names
        right = sorted((tuple(row.get(item) for item in names) for row in other), key=str)
        left, right = [_floats(row) for row in left], [_floats(row) for row in right]
        left, right = sorted(left, key=str), sorted(right, key=str)
    if left == right:
        return f"{name}, {how}: {len(left):,} rows equal"
    wrong = sum(1 for a, b in zip(left, right, strict=False) if a != b) + abs(len(left) - len(right))
    return f"{name}, {how}: {wrong:,} of {len(left):,} rows differ"


def _floats(row: Row) -> Row:
    return tuple(str(float(item)) if _number(item) else item for item in row)


def _number(item: Any) -> bool:
    try:
        float(item)
    except (TypeError, ValueError):
        return False
    return not isinstance(item, bool)


def timed(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Run the engines in turn, round after round; return the seconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begun = time.process_time()
            run()
            taken[name].append(time.process_time() - begun)
    return taken


def measure(name: str, folder: Path, work: Path, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Yield the table rows of one view; print the comparisons."""
    resource = VIEWS[name]["resource"]
    (given,) = folder.glob(f"{resource}.ndjson*")
    text = work / f"{resource}.ndjson"
    distinct = amplified(given, text, options.resources)
    lake = Lake(work / f"lake-{resource}")
    lake.ingest([text])
    view = View.from_json(VIEWS[name])
    parquet = "read_parquet([" + ", ".join(f"'{path}'" for path in lake.files(resource)) + "], union_by_name=true)"
    schema = ", ".join(f"'{key}': '{kind}'" for key, kind in COLUMNS[name].items())
    ndjson = f"read_json('{text}', format='newline_delimited', columns={{{schema}}}, maximum_object_size=268435456)"
    # Evenly spaced ones: the first few hundred claims have a quarter fewer lines than all have.
    step = max(1, options.resources // options.sqlonfhir)
    lines = list(itertools.islice(text.open(), 0, step * options.sqlonfhir, step))

    result = ours(view, lake)
    print(compare(name, result, by_sql(name, parquet), "Parquet, SQL"))
    print(compare(name, result, ours(view, text), "our NDJSON against our Parquet"))
    print(compare(name, result, by_sql(name, ndjson), "NDJSON, SQL"))
    few = work / "few" / f"{resource}.ndjson"
    few.parent.mkdir(exist_ok=True)
    few.write_text("".join(lines))
    print(compare(name, ours(view, few), by_sqlonfhir(name, lines), "sqlonfhir"))

    runs: dict[str, Callable[[], Any]] = {
        "hiexchange, Parquet": lambda: ours(view, lake),
        "DuckDB SQL, Parquet": lambda: by_sql(name, parquet),
        "hiexchange, NDJSON": lambda: ours(view, text),
        "DuckDB SQL, NDJSON": lambda: by_sql(name, ndjson),
        "sqlonfhir, NDJSON": lambda: by_sqlonfhir(name, lines),
    }
    # In turn with the others: a machine's speed drifts by half within minutes.
    taken = timed(runs, options.rounds)
    speed = {key: options.resources / statistics.median(times) for key, times in taken.items()}
    speed["sqlonfhir, NDJSON"] = len(lines) / statistics.median(taken["sqlonfhir, NDJSON"])
    low = {key: options.resources / max(times) for key, times in taken.items()}
    high = {key: options.resources / min(times) for key, times in taken.items()}
    size = text.stat().st_size / 1e6
    for kind in ("Parquet", "NDJSON"):
        mine, sql = speed[f"hiexchange, {kind}"], speed[f"DuckDB SQL, {kind}"]
        spread = f"{low[f'hiexchange, {kind}']:,.0f}-{high[f'hiexchange, {kind}']:,.0f}"
        yield (
            name,
            kind,
            f"{options.resources:,} ({distinct:,} distinct, {size:,.0f} MB)",
            f"{result.num_rows:,}",
            f"{mine:,.0f} ({spread})",
            f"{sql:,.0f}",
            f"{speed['sqlonfhir, NDJSON']:,.0f}",
            f"{mine / sql:.2f}",
            f"{mine / speed['sqlonfhir, NDJSON']:,.0f}",
        )


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of NDJSON files")
    parser.add_argument("--resources", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sqlonfhir", type=int, default=200, help="resources given to sqlonfhir")
    options = parser.parse_args()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as work:
        for name in VIEWS:
            rows += measure(name, options.folder, Path(work), options)
    heads = (
        "view",
        "from",
        "resources",
        "rows",
        "hiexchange /s (range)",
        "DuckDB SQL /s",
        "sqlonfhir /s",
        "x SQL",
        "x sqlonfhir",
    )
    print()
    for row in (heads, tuple("---" for _ in heads), *rows):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
