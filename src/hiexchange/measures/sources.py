"""Patients one by one, with their resources: out of a lake, a folder of Bundles, or Bundles in memory.

A subject is (id, resources as JSON bytes or dictionaries, in file order). Memory holds one block of
patients at a time, whatever the size of the population.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from hiexchange._duck import quiet_connection
from hiexchange.errors import MeasureError
from hiexchange.measures.cql.library import Library, walk

Raw = bytes | Mapping[str, Any]
SubjectRows = tuple[str, list[Raw]]

BLOCK = 500
"""Patients read from the lake at a time: large enough that a scan pays, small enough to stay flat."""
SHARED = ("Medication", "Location", "Organization", "Practitioner", "PractitionerRole", "Device")
"""Types outside the patient compartment, found by reference."""
_REFERENCE = re.compile(rb'"reference":"(?:[^"]*/)?((?:' + b"|".join(kind.encode() for kind in SHARED) + rb')/[^"/]+)"')
_ALWAYS = {
    "resourceType", "id", "meta", "extension", "modifierExtension", "contained", "status", "category", "code", "type",
    "doNotPerform", "encounter", "subject", "patient", "for", "medication", "vaccineCode", "event", "class", "identifier",
}  # fmt: skip

decode = msgspec.json.Decoder(float_hook=Decimal).decode


def subjects(
    source: Any,
    types: frozenset[str],
    elements: frozenset[str] | None,
    only: Any = None,
    *,
    keep: set[str] | None = None,
) -> Iterator[SubjectRows]:
    """Yield the patients of a source.

    Args:
        source: A lake (it has ``files`` and ``tables``), a path, or an iterable of Bundles.
        types: FHIR types needed.
        elements: Top-level elements needed, None for all; choice elements by stem.
        only: Patient ids to restrict the source to, None for all.
        keep: Patients of a lake whose resources are read; others come without any. None for all.

    Raises:
        MeasureError: A path does not exist, or a file holds no Bundle.
    """
    if hasattr(source, "files") and hasattr(source, "tables"):
        return _lake(source, types, elements, only, keep)
    bundles = _folder(Path(source)) if isinstance(source, str | Path) else iter(source)
    return (found for found in map(bundled, bundles) if only is None or found[0] in only)


def elements_of(libraries: Iterable[Library]) -> frozenset[str]:
    """Return the names of elements any expression of the libraries may read at top level."""
    names = set(_ALWAYS)
    for elm in libraries:
        for statement in [*elm.defines.values(), *(item for items in elm.functions.values() for item in items)]:
            for node in walk(statement):
                if node["type"] in ("Property", "ByColumn"):
                    names.add(node["path"].partition(".")[0])
                elif node["type"] == "IdentifierRef":
                    names.add(node["name"])
                elif node["type"] == "Retrieve" and node.get("codeProperty"):
                    names.add(node["codeProperty"])
    return frozenset(names)


def bundled(bundle: Any) -> SubjectRows:
    """Return the patient a Bundle holds.

    Raises:
        MeasureError: It is no Bundle.
    """
    if not isinstance(bundle, Mapping):
        raise MeasureError("a patient must come as a FHIR Bundle")
    rows = [entry["resource"] for entry in bundle.get("entry") or () if isinstance(entry.get("resource"), Mapping)]
    found = next((row.get("id") for row in rows if row.get("resourceType") == "Patient"), None)
    return str(found or bundle.get("id") or ""), rows


def _folder(path: Path) -> Iterator[Any]:
    if not path.exists():
        raise MeasureError("there is no data here", where=str(path), hint="give a lake, a folder of Bundles or a file")
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and file.name.removesuffix(".gz").endswith((".json", ".ndjson")):
            yield from _bundles(file)


def _bundles(file: Path) -> Iterator[Any]:
    data = file.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    try:
        texts = [data] if file.name.removesuffix(".gz").endswith(".json") else data.split(b"\n")
        for text in texts:
            if text.strip():
                yield decode(text)
    except msgspec.DecodeError:
        raise MeasureError("the file is not JSON", where=file.name) from None


# Lake -----------------------------------------------------------------------------------------


def _lake(
    lake: Any, types: frozenset[str], elements: frozenset[str] | None, only: Any, keep: set[str] | None
) -> Iterator[SubjectRows]:
    held = lake.tables()
    if "Patient" not in held:
        return
    with quiet_connection() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute("set threads = 2")
        queries = {
            kind: _query(con, lake.files(kind), elements)
            for kind in sorted(types)
            if held.get(kind) and kind not in SHARED
        }
        shared = _Shared(con, {kind: lake.files(kind) for kind in SHARED if kind in types and held.get(kind)}, elements)
        column = patient_ids(con, lake)
        wanted = (
            (value for value in column.to_pylist()) if only is None else (v for v in column.to_pylist() if v in only)
        )
        while block := list(islice(wanted, BLOCK)):
            read = block if keep is None else [name for name in block if name in keep]
            found = dict(_block(con, queries, shared, read)) if read else {}
            yield from ((name, found.get(name, [])) for name in block)


def _block(
    con: duckdb.DuckDBPyConnection, queries: dict[str, str], shared: _Shared, block: list[str]
) -> Iterator[SubjectRows]:
    rows: dict[str, list[Raw]] = {name: [] for name in block}
    for query in queries.values():
        # Bounds let whole row groups be passed over; the list then decides.
        parameters = {"low": block[0], "high": block[-1]}
        for name, text in con.execute(query, parameters).fetchall():
            if name in rows:
                rows[name].append(text.encode())
    for name in block:
        yield name, shared.with_references(rows[name])


def _query(con: duckdb.DuckDBPyConnection, files: list[Path], elements: frozenset[str] | None) -> str:
    source, columns, patient, order = scan(con, files, elements)
    packed = ", ".join(f'"{name}" := "{name}"' for name in columns)
    return (
        f"select {patient}, to_json(struct_pack({packed})) from {source} "
        f"where {patient} between $low and $high order by {', '.join([patient, *order])}"
    )


def scan(
    con: duckdb.DuckDBPyConnection, files: list[Path], elements: frozenset[str] | None
) -> tuple[str, list[str], str, list[str]]:
    """Return the SQL parts of reading one type: relation, needed columns, patient, and what orders a patient's rows."""
    source = "read_parquet([" + ", ".join(quoted(str(path)) for path in files) + "], union_by_name = true)"
    described = con.execute(f"describe select * from {source}").fetchall()
    columns = [name for name, *_ in described if not name.startswith("__") and _needed(name, elements)]
    # A Task names its patient in ``for``, which the lake's patient column does not follow.
    patient = "__hx_patient"
    if "for" in columns:
        patient = "coalesce(__hx_patient, nullif(regexp_extract(\"for\".reference, '([^/:]+)$', 1), ''))"
    order = [name for name in ("__hx_file", "__hx_line") if name in {row[0] for row in described}]
    return source, columns, patient, order


def patient_ids(con: duckdb.DuckDBPyConnection, lake: Any) -> Any:
    """Return a lake's patients as an Arrow column, sorted."""
    names = [str(path) for path in lake.files("Patient")]
    ids = con.sql(
        "select distinct __hx_patient as p from read_parquet($files) where p is not null order by p",
        params={"files": names},
    )
    return ids.to_arrow_table()["p"]


def _needed(name: str, elements: frozenset[str] | None) -> bool:
    if elements is None or name in elements:
        return True
    plain = name.removeprefix("_")
    # A choice is asked for by its stem: onset for onsetDateTime, also misspelt as onsetDatetime.
    return any(plain.startswith(stem) and plain[len(stem) :][:1].isupper() for stem in elements) or plain in elements


def quoted(text: str) -> str:
    """Return ``text`` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


class _Shared:
    """Resources outside the patient compartment, by reference; all of them are kept while the run lasts."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, files: Mapping[str, list[Path]], elements: frozenset[str] | None
    ) -> None:
        self._rows: dict[bytes, bytes] = {}
        for kind, paths in files.items():
            query = _query(con, paths, elements).partition(" where ")[0].replace("__hx_patient", "__hx_key", 1)
            for key, text in con.execute(query).fetchall():
                self._rows[f"{kind}/{key}".encode()] = text.encode()

    def with_references(self, rows: list[Raw]) -> list[Raw]:
        """Return the rows, and after them what they refer to."""
        if not self._rows:
            return rows
        seen: dict[bytes, None] = {}
        for row in rows:
            if isinstance(row, bytes):
                seen.update(dict.fromkeys(_REFERENCE.findall(row)))
        return rows + [self._rows[key] for key in seen if key in self._rows]
