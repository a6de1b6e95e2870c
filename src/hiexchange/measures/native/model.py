"""What a native measure is, and how one is run: flat tables in DuckDB, one statement, MEASURE_RESULT out."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Protocol

import pyarrow as pa

from hiexchange._duck import quiet_connection
from hiexchange.measures.asked import check_period, check_tables
from hiexchange.measures.native import flat
from hiexchange.measures.result import POPULATIONS, MeasureInfo, MeasureRun
from hiexchange.tables import MEASURE_RESULT

URL = "https://hiexchange.example/fhir/Measure/"
GROUP = "group-1"


class Tables(Protocol):
    """What a lake offers that we need."""

    def table(self, name: str) -> Any:
        """Return a table that has ``schema`` and ``to_arrow(columns=...)``."""


Source = Tables | Mapping[str, pa.Table]


@dataclass(frozen=True)
class NativeMeasure:
    """A measure as a declaration and one SQL statement.

    The statement sees one flat table for each type in ``types`` (see :mod:`.flat`) and the parameters
    ``$period_start``, ``$period_end`` (dates, inclusive) and those of ``parameters``. It returns one row
    a subject, or an episode: ``subject``, ``episode``, any of the population columns as integers, and
    ``evidence`` (list of struct type, id, source) or nothing of it.
    """

    id: str
    """Short name, ``followup-7d``."""
    version: str
    """Changes whenever the statement may give other rows."""
    title: str
    """Name for people."""
    definition: str
    """The whole rule in words, as printed in documents and reports."""
    basis: str
    """boolean, or the resource type an episode is."""
    types: tuple[str, ...]
    """FHIR types it reads."""
    sql: str
    """The statement."""
    improvement: str = "increase"
    """increase or decrease."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Values for the statement's own parameters."""
    corridor: tuple[str, ...] = ()
    """Corridor tables it reads (``encounter_event``, ``delivery``), by their own names and columns."""

    @property
    def info(self) -> MeasureInfo:
        """What a result says about the measure."""
        return MeasureInfo(
            self.id, self.version, self.title, URL + self.id, {GROUP: "proportion"}, {GROUP: self.improvement}
        )


def run(
    measure: NativeMeasure, source: Source, *, period: tuple[date, date], run_id: str, offset: timedelta = timedelta(0)
) -> MeasureRun:
    """Evaluate ``measure``; see :func:`hiexchange.measures.evaluate`."""
    check_period(period, offset)
    check_tables(source)
    with quiet_connection() as con:
        con.execute("set TimeZone = 'UTC'")
        for name in measure.types:
            flat.register(con, name, source, offset)
        for name in measure.corridor:
            con.register(name, flat.corridor(source, name))
        values = {"period_start": period[0], "period_end": period[1], **measure.parameters}
        used = {name: value for name, value in values.items() if f"${name}" in measure.sql}
        rows = con.sql(measure.sql, params=used).to_arrow_table()
    kept = None if isinstance(source, Mapping) else source
    options = {"offset_minutes": str(int(offset.total_seconds() // 60))}
    return MeasureRun(_result(rows, measure, period, run_id), measure.info, period, run_id, (), options, kept)


def _result(rows: pa.Table, measure: NativeMeasure, period: tuple[date, date], run_id: str) -> pa.Table:
    constants: dict[str, Any] = {
        "measure": measure.id,
        "measure_version": measure.version,
        "engine": f"native {engine_version()}",
        "run_id": run_id,
        "period_start": period[0],
        "period_end": period[1],
        "group": GROUP,
        "basis": measure.basis,
        "status": "ok",
    }
    columns = []
    for column in MEASURE_RESULT.schema:
        if column.name in constants:
            columns.append(pa.repeat(pa.scalar(constants[column.name], column.type), len(rows)))
        elif column.name in rows.column_names:
            columns.append(rows[column.name].cast(column.type))
        else:
            columns.append(pa.nulls(len(rows), column.type))
    return pa.table(columns, schema=MEASURE_RESULT.schema)


def engine_version() -> str:
    """Return the library's version, as written into the ``engine`` column."""
    try:
        return importlib.metadata.version("hiexchange")
    except importlib.metadata.PackageNotFoundError:
        return "0"


__all__ = ["GROUP", "POPULATIONS", "NativeMeasure", "Source", "Tables", "engine_version", "run"]
