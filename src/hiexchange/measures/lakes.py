"""Patients one by one out of a lake, whatever the order of its files, in memory that does not grow with it.

A server's export has no order by patient. Each type is read once, in chunks; a chunk is sorted by patient and put
into a temporary file, and the files are merged while patients are handed out. Reading twice as many patients takes
twice as long, and memory holds one chunk, one small batch of each file, and one block of patients.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from heapq import merge
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute

from hiexchange._duck import quiet_connection

Raw = bytes | Mapping[str, Any]
SubjectRows = tuple[str, list[Raw]]
Row = tuple[str, str, bytes]
"""Patient, place in the source, JSON."""

OWNER, PLACE = "__hx_owner", "__hx_place"
"""Columns that the files are sorted by: the patient, and where in the source a row stood."""
SORTED = [(OWNER, "ascending"), (PLACE, "ascending")]
BLOCK = 500
"""Patients handed out at a time."""
CHUNK = 20_000
"""Rows sorted at a time."""
BATCH = 100
"""Rows of each sorted file in memory at a time."""
SHARED = ("Medication", "Location", "Organization", "Practitioner", "PractitionerRole", "Device")
"""Types outside the patient compartment, found by reference."""
_REFERENCE = re.compile(rb'"reference":"(?:[^"]*/)?((?:' + b"|".join(kind.encode() for kind in SHARED) + rb')/[^/"]+)"')
_LOCAL = r"regexp_extract({}, '([A-Za-z]+/[^/:]+)(/_history/[^/]+)?$', 1)"


def subjects_of(
    lake: Any,
    types: frozenset[str],
    elements: frozenset[str] | None,
    *,
    only: Any = None,
    keep: pa.Array | None = None,
    chunk: int = CHUNK,
) -> Iterator[SubjectRows]:
    """Yield a lake's patients in the order of their ids; see :func:`.sources.subjects`. ``chunk`` is in rows."""
    held = lake.tables()
    if "Patient" not in held:
        return
    with reading() as (con, folder):
        names = patient_ids(con, lake)
        if only is not None:
            names = names.filter(pa.compute.is_in(names, pa.array(sorted(only), pa.string())))
        read = names if keep is None else keep if only is None else keep.filter(pa.compute.is_in(keep, names))
        restricted = keep is not None or only is not None
        if restricted:
            con.register("hx_wanted", pa.table({OWNER: read}))
        focus = focus_patients(con, lake)
        kinds = [name for name in sorted(types) if held.get(name) and name not in SHARED]
        wanted = f"in (select {OWNER} from hx_wanted)" if restricted else "is not null"
        sorted_types = []
        for kind in kinds:
            query = f"{owned(con, lake.files(kind), elements, focus=focus, packed=True)} where {OWNER} {wanted}"
            _, paths = sorted_runs(con, query, folder / kind, chunk=chunk, piece=BATCH)
            sorted_types.append(_Sorted(paths))
        shared = Shared(con, {kind: lake.files(kind) for kind in SHARED if kind in types and held.get(kind)}, elements)
        for at in range(0, len(names), BLOCK):
            block = names.slice(at, BLOCK).to_pylist()
            rows: dict[str, list[Raw]] = {name: [] for name in block}
            for some in sorted_types:
                for name, _, body in some.upto(block[-1]):
                    if name in rows:
                        rows[name].append(body)
            yield from ((name, shared.with_references(rows[name])) for name in block)


@contextmanager
def reading() -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Give a connection to read a lake with, and a folder for sorted files while that lasts."""
    with quiet_connection() as con, tempfile.TemporaryDirectory(prefix="hiexchange-") as folder:
        con.execute("set TimeZone = 'UTC'")
        # A second thread reads no faster here (the rows leave through one Arrow stream) and holds a row group more.
        con.execute("set threads = 1")
        yield con, Path(folder)


def owned(
    con: duckdb.DuckDBPyConnection, files: list[Path], elements: frozenset[str] | None, *, focus: bool, packed: bool
) -> str:
    """Return the query of one type's rows: patient, place in the source, and the elements, as they are or as JSON."""
    source, columns, patient, order = scan(con, files, elements, focus=focus)
    place = f"concat({order[0]}, '#', lpad({order[1]}::varchar, 12, '0'))" if order else "''"
    body = f"{_packed(columns)} as body" if packed else ", ".join(f'"{name}"' for name in columns)
    return f"from (select {patient} as {OWNER}, {place} as {PLACE}, {body} from {source})"


def _packed(columns: list[str]) -> str:
    return "to_json(struct_pack(" + ", ".join(f'"{name}" := "{name}"' for name in columns) + "))"


def scan(
    con: duckdb.DuckDBPyConnection, files: list[Path], elements: frozenset[str] | None, *, focus: bool = False
) -> tuple[str, list[str], str, list[str]]:
    """Return the SQL parts of reading one type: relation, needed columns, patient, and what orders a patient's rows.

    ``focus`` tells that :func:`focus_patients` found patients of what has no reference to one.
    """
    source = "read_parquet([" + ", ".join(quoted(str(path)) for path in files) + "], union_by_name = true)"
    described = [row[0] for row in con.execute(f"describe select * from {source}").fetchall()]
    columns = [name for name in described if not name.startswith("__") and _needed(name, elements)]
    # A Task names its patient in ``for``, which the lake's patient column does not follow, or not at all.
    owners = ["__hx_patient"]
    if "for" in described:
        owners.append("nullif(regexp_extract(\"for\".reference, '([^/:]+)$', 1), '')")
    if focus and "focus" in described:
        owners.append(f"(select any_value(patient) from hx_focus where target = {_LOCAL.format('focus.reference')})")
    patient = owners[0] if len(owners) == 1 else f"coalesce({', '.join(owners)})"
    order = [name for name in ("__hx_file", "__hx_line") if name in described]
    return source, columns, patient, order if len(order) == 2 else []


def focus_patients(con: duckdb.DuckDBPyConnection, lake: Any) -> bool:
    """Lay the patients of what Tasks focus on into a table ``hx_focus``; tell whether there is one.

    A Task that says why an order was refused often has a ``focus`` and no ``for``: it is its order's patient's.
    """
    held = lake.tables()
    if not held.get("Task"):
        return False
    source, _, patient, _ = scan(con, lake.files("Task"), frozenset())
    if "focus" not in [row[0] for row in con.execute(f"describe select * from {source}").fetchall()]:
        return False
    target = _LOCAL.format("focus.reference")
    query = f"select distinct {target} from {source} where {patient} is null and {target} <> ''"
    wanted = [row[0] for row in con.execute(query).fetchall()]
    con.execute("create temp table hx_focus (target varchar, patient varchar)")
    for kind in sorted({name.partition("/")[0] for name in wanted}):
        if held.get(kind) and kind != "Task":
            source, _, patient, _ = scan(con, lake.files(kind), frozenset())
            name = f"{quoted(kind + '/')} || __hx_key"
            con.execute(
                f"insert into hx_focus select {name}, {patient} from {source} where list_contains($wanted, {name})",
                {"wanted": wanted},
            )
    return True


def patient_ids(con: duckdb.DuckDBPyConnection, lake: Any) -> pa.Array:
    """Return a lake's patients, sorted."""
    names = [str(path) for path in lake.files("Patient")]
    ids = con.sql(
        "select distinct __hx_patient as p from read_parquet($files) where p is not null order by p",
        params={"files": names},
    )
    return ids.to_arrow_table()["p"].combine_chunks()


def _needed(name: str, elements: frozenset[str] | None) -> bool:
    if elements is None or name in elements:
        return True
    plain = name.removeprefix("_")
    # A choice is asked for by its stem: onset for onsetDateTime, also misspelt as onsetDatetime.
    return any(plain.startswith(stem) and plain[len(stem) :][:1].isupper() for stem in elements) or plain in elements


def quoted(text: str) -> str:
    """Return ``text`` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


# Sorted files ---------------------------------------------------------------------------------


class _Sorted:
    """The rows of one type by patient and place: sorted files, merged."""

    def __init__(self, paths: list[Path]) -> None:
        self._merged = merge(*(_rows(path) for path in paths))
        self._next = next(self._merged, None)

    def upto(self, last: str) -> Iterator[Row]:
        """Yield the rows of patients not beyond ``last``."""
        row = self._next
        while row is not None and row[0] <= last:
            yield row
            row = next(self._merged, None)
        self._next = row


def _rows(path: Path) -> Iterator[Row]:
    for batch in pieces(path):
        body = batch.column(2).cast(pa.binary())
        yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), body.to_pylist(), strict=True)


def pieces(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a sorted file."""
    at, batches = 0, 1
    while at < batches:
        # Opened for each batch: a large population makes more files than a process may hold open.
        with pa.OSFile(str(path)) as file:
            reader = pa.ipc.open_file(file)
            batch, batches = reader.get_batch(at), reader.num_record_batches
        at += 1
        yield batch


def sorted_runs(
    con: duckdb.DuckDBPyConnection, query: str, stem: Path, *, chunk: int, piece: int
) -> tuple[pa.Schema, list[Path]]:
    """Read a query's rows in chunks and sort each by patient and place into a file of its own, in batches of ``piece``."""
    options, paths = pa.ipc.IpcWriteOptions(compression="lz4"), []
    with closing(con.sql(query).to_arrow_reader(chunk)) as reader:
        for at, rows in enumerate(batch for batch in reader if batch.num_rows):
            order = pa.compute.sort_indices(rows, sort_keys=SORTED)
            paths.append(stem.with_suffix(f".{at}"))
            with pa.ipc.new_file(str(paths[-1]), rows.schema, options=options) as writer:
                for start in range(0, rows.num_rows, piece):
                    writer.write_batch(rows.take(order.slice(start, piece)))
        return reader.schema, paths


class Shared:
    """Resources outside the patient compartment, by reference; all of them are kept while the run lasts."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, files: Mapping[str, list[Path]], elements: frozenset[str] | None
    ) -> None:
        self._rows: dict[bytes, bytes] = {}
        for kind, paths in files.items():
            source, columns, _, _ = scan(con, paths, elements)
            for key, text in con.execute(f"select __hx_key, {_packed(columns)} from {source}").fetchall():
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
