"""MEASURE_RESULT rows out of evaluated members, gathered in blocks that spill to disk when they grow.

A run over a large population keeps its rows in an Arrow file that is mapped, not read, so that memory
does not grow with the number of patients.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from hiexchange.measures.cql.subject import Subject
from hiexchange.measures.gaps import has_gap
from hiexchange.measures.populations import PATIENT, Criteria, Member, number
from hiexchange.measures.result import POPULATIONS
from hiexchange.tables import MEASURE_RESULT

BATCH = 2_000
"""Rows kept as Python objects before they become Arrow."""
SPILL = 5
"""Batches kept in memory before they go to a temporary file, as one: who then reads a column touches few of its pages."""
CLAIMS = {"Claim", "ExplanationOfBenefit", "Coverage"}
VARYING = (
    "subject", "group", "basis", "episode", *POPULATIONS, "observations", "strata", "evidence", "status", "error_code",
    "error_define", "messages", "initial_populations", "profiles_inferred",
)  # fmt: skip

_VARYING = pa.schema([MEASURE_RESULT.schema.field(name) for name in VARYING])

Row = tuple[Any, ...]


def rows_of(
    name: str, criteria: Criteria, s: Subject, members: list[Member], retrieves: frozenset[int], gaps: list[str]
) -> list[Row]:
    """Return one row a member, in the order of VARYING."""
    group = criteria.group
    rows = []
    for member in members:
        flags = member.flags
        inside = bool(flags.get("initial_population"))
        rows.append(
            (
                name,
                group.id,
                group.basis,
                None if member.key == PATIENT else member.key,
                *[int(flags[column]) if column in flags else None for column in POPULATIONS],
                [_observation(item, value) for item, value in member.observations] or None,
                [f"{item} = {_text(value)}" for item, value in member.strata.items()] or None,
                evidence(s, retrieves) if inside else None,
                "ok",
                None,
                None,
                [*s.messages, *(gaps if has_gap(flags, group.improvement) else ())] or None,
                member.initials,
                s.inferred,
            )
        )
    return rows


def outside(name: str, criteria: Sequence[Criteria]) -> list[Row]:
    """Return the rows of a patient who was proven to be in no population without being evaluated."""
    rows = []
    for item in criteria:
        if item.group.basis == "boolean":
            flags = [0 if column in item.defines else None for column in POPULATIONS]
            strata = [f"{stratifier} = false" for stratifier, _ in item.stratifiers] or None
            initials: list[str] | None = [] if item.initials else None
            rows.append(
                (name, item.group.id, "boolean", None, *flags, None, strata, None, "ok", None, None, None, initials, 0)
            )
    return rows


def error_row(name: str, criteria: Criteria, error: Any) -> Row:
    """Return the row of a subject whose group could not be evaluated: counts null, never false."""
    define = " ".join(text for text in (getattr(error, "library", None), getattr(error, "locator", None)) if text)
    blank = [None] * (len(POPULATIONS) + 3)
    code = getattr(error, "code", "HX-702")
    message = getattr(error, "what", f"unexpected {type(error).__name__}")
    return (
        name,
        criteria.group.id,
        criteria.group.basis,
        None,
        *blank,
        "error",
        code,
        define or None,
        [message],
        None,
        None,
    )


def _observation(name: str, value: Any) -> dict[str, Any]:
    found, unit = number(value)
    return {"id": name, "value": found, "unit": unit}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def evidence(s: Subject, retrieves: frozenset[int]) -> list[dict[str, Any]]:
    """Return the resources the measure's retrieves found, once each, by type and id.

    Not in file order: a lake and a Bundle hold the same patient in different orders.
    """
    rows = {row.row: row for index, found in s.retrieved.items() if index in retrieves for row in found}
    return [
        {"type": kind, "id": name, "source": "claims" if kind in CLAIMS else "clinical"}
        for kind, name in sorted((row.type.name, row.id or "") for row in rows.values())
    ]


class Gatherer:
    """Collects the rows of one measure and gives them as one table."""

    def __init__(self, constants: dict[str, Any]) -> None:
        """Keep what is the same in every row: measure, version, engine, run, period."""
        self.constants = constants
        self.rows: list[Row] = []
        self.batches: list[pa.RecordBatch] = []
        self.writer: Any = None
        self.path: str | None = None

    def add(self, rows: Sequence[Row]) -> None:
        """Take rows; write them out when there are many."""
        self.rows += rows
        if len(self.rows) >= BATCH:
            self.batches.append(self.batch())
            if len(self.batches) >= SPILL:
                self._flush()

    def batch(self) -> pa.RecordBatch:
        """Return the rows gathered since the last call as a batch, without what is the same in each."""
        rows, self.rows = self.rows, []
        columns = zip(*rows, strict=True) if rows else ((),) * len(VARYING)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, _VARYING, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=_VARYING)

    def _flush(self) -> None:
        if self.writer is None:
            handle, self.path = tempfile.mkstemp(prefix="hiexchange-", suffix=".arrow")
            os.close(handle)
            self.writer = pa.ipc.new_file(self.path, _VARYING)
        self.writer.write_table(pa.Table.from_batches(self.batches).combine_chunks())
        self.batches.clear()

    def table(self) -> pa.Table:
        """Return all rows; from a mapped file when they were many."""
        self.batches.append(self.batch())
        if self.path is None:
            return self._whole(pa.Table.from_batches(self.batches))
        self._flush()
        self.writer.close()
        table = pa.ipc.open_file(pa.memory_map(self.path)).read_all()
        # The mapping keeps the content alive; Windows keeps the file until the process ends.
        with contextlib.suppress(OSError):
            Path(self.path).unlink()
        return self._whole(table)

    def _whole(self, table: pa.Table) -> pa.Table:
        """Return the rows with what is the same in each: one piece of it, however many rows there are."""
        sizes = [len(chunk) for chunk in table.column(0).chunks]
        columns = []
        for field in MEASURE_RESULT.schema:
            if field.name in self.constants:
                piece = pa.repeat(pa.scalar(self.constants[field.name], field.type), max(sizes, default=0))
                columns.append(pa.chunked_array([piece.slice(0, size) for size in sizes], field.type))
            else:
                columns.append(table[field.name])
        return pa.Table.from_arrays(columns, schema=MEASURE_RESULT.schema)


def constants(measure: str, version: str, engine: str, run_id: str, period: tuple[date, date]) -> dict[str, Any]:
    """Return the columns that are the same in every row of a run."""
    return {
        "measure": measure,
        "measure_version": version,
        "engine": engine,
        "run_id": run_id,
        "period_start": period[0],
        "period_end": period[1],
    }
