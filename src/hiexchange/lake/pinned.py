"""One snapshot as readers see it: its tables, their JSON, queries over them. Nothing here writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hiexchange._duck import quiet_connection
from hiexchange.errors import ConfigError, LakeError
from hiexchange.lake import restore
from hiexchange.lake.job import TOMBSTONES
from hiexchange.lake.lineage import RAW, stored_schema
from hiexchange.lake.quarantine import REJECTS
from hiexchange.lake.read import LakeTable, answer, readable
from hiexchange.lake.store import DataFile, Snapshot, TableState
from hiexchange.tables import TABLES

HOUSE = {"_rejects": REJECTS, "_tombstones": TOMBSTONES}
"""Tables of the lake's own."""

_ROWS = 1000
"""Rows that are made JSON together: as Python's objects they take ten times the memory."""


class Pinned:
    """The tables of one snapshot; later loads do not change it."""

    def __init__(self, root: Path, snapshot: Snapshot) -> None:
        self.root = root
        self.snapshot = snapshot

    def described(self, name: str) -> tuple[pa.Schema, tuple[DataFile, ...]]:
        """Return schema and files of a table; a corridor table that is not there yet has no files.

        Raises:
            LakeError: There is no such table.
        """
        if name in HOUSE:
            return HOUSE[name], self.snapshot.rejects if name == "_rejects" else self.snapshot.tombstones
        state = self.snapshot.tables.get(name)
        if state is not None and state.kind == "fhir":
            return stored_schema(state), state.files
        if name in TABLES:
            return TABLES[name].schema, state.files if state else ()
        if state is not None:
            return pq.read_schema(self.root / state.files[0].path), state.files
        raise self.unknown(name)

    def fhir(self, name: str) -> TableState:
        """Return the state of a table of FHIR resources.

        Raises:
            LakeError: There is no such table.
        """
        state = self.snapshot.tables.get(name)
        if state is None or state.kind != "fhir":
            raise self.unknown(name)
        return state

    def unknown(self, name: str) -> LakeError:
        """Return the error that names what the lake does hold."""
        names = ", ".join(sorted(self.snapshot.tables)) or "nothing yet"
        return LakeError(f"the lake has no table {name!r}", where=str(self.root), hint=f"it holds {names}")

    def table(self, name: str) -> LakeTable:
        """Return a lazy table; see ``Lake.table``."""
        schema, files = self.described(name)
        return LakeTable(name, [self.root / file.path for file in files], schema, sum(file.rows for file in files))

    def lines(self, name: str, order: str, *, raw: bool) -> Iterator[bytes]:
        """Yield JSON lines; see ``Lake.to_ndjson``."""
        state = self.fhir(name)
        if order not in ("stored", "source"):
            raise ConfigError(f"order {order!r} is not known", hint="use 'stored' or 'source'")
        table = self.table(name)
        batches = table.to_batches()
        if order == "source":
            sorted_rows = table.to_arrow().sort_by([("__hx_file", "ascending"), ("__hx_line", "ascending")])
            batches = iter(sorted_rows.combine_chunks().to_batches(max_chunksize=10_000))
        for batch in batches:
            for start in range(0, batch.num_rows, _ROWS):
                rows = batch.slice(start, _ROWS)
                came = rows[RAW].to_pylist() if raw and RAW in rows.schema.names else [None] * rows.num_rows
                for line, text in zip(restore.lines(rows, state.resource, state.version), came, strict=True):
                    yield (line if text is None else text.encode()) + b"\n"

    def spread(self, name: str, count: int) -> Iterator[bytes]:
        """Yield so many resources as JSON lines, from all over the table; the others are not taken apart."""
        state = self.fhir(name)
        step = max(1, state.rows // count)
        start = 0
        for batch in self.table(name).to_batches():
            chosen = np.arange(-start % step, batch.num_rows, step)[:count]
            start += batch.num_rows
            count -= len(chosen)
            yield from restore.lines(batch.take(pa.array(chosen)), state.resource, state.version)

    def sql(self, query: str, params: Any) -> pa.Table:
        """Run a DuckDB query; see ``Lake.sql``."""
        names = self._named_in(query)
        needed = [self.root / file.path for name in names for file in self.described(name)[1]]
        with quiet_connection() as con:
            con.execute("set timezone = 'UTC'")
            with readable(needed):
                for name in names:
                    self._create_view(con, name)
            return answer(con, query, params, needed)

    def _named_in(self, query: str) -> list[str]:
        """Return the tables a query may be about; of two that differ in case only the one that it spells."""
        words = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", query))
        asked = {word.lower() for word in words}
        known = [name for name in dict.fromkeys([*TABLES, *HOUSE, *self.snapshot.tables]) if name.lower() in asked]
        # DuckDB makes no difference between FHIR's Person and the corridor's person.
        return list({name.lower(): name for name in sorted(known, key=words.__contains__)}.values())

    def _create_view(self, con: duckdb.DuckDBPyConnection, name: str) -> None:
        schema, files = self.described(name)
        if files:
            listed = ", ".join("'" + str(self.root / file.path).replace("'", "''") + "'" for file in files)
            con.execute(f'create view "{name}" as from read_parquet([{listed}], union_by_name = true)')
        else:
            con.register(name, schema.empty_table())
