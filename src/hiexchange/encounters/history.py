"""Events already on record: only those that new messages concern are ever made into rows.

An exchange keeps years of events, a night brings a few. What lies in Parquet files is searched there by DuckDB, which
reads the columns it compares and makes rows of what it finds: a microsecond an event on record, and no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from hiexchange._duck import quiet_connection
from hiexchange.encounters.rows import Row
from hiexchange.tables import ENCOUNTER_EVENT

# Of the same visit (its state), from the same sender under the same control id or of the same bytes (said before),
# and of a patient whose identifier ends (somebody may know it). Merges hold for ever.
_CONCERNED = """
SELECT * FROM known WHERE trigger = 'merge'
  OR (facility_id, visit_number) IN (SELECT facility_id, visit_number FROM fresh)
  OR message_sha IN (SELECT message_sha FROM fresh)
  OR (coalesce(sending_facility, ''), message_control_id) IN
     (SELECT coalesce(sending_facility, ''), message_control_id FROM fresh WHERE message_control_id IS NOT NULL)
  OR (coalesce(patient_id_system, ''), patient_id_sent) IN
     (SELECT coalesce(patient_id_system, ''), old_id FROM fresh WHERE old_id <> '')
ORDER BY ordinal
"""
_FRESH = pa.schema(
    [
        (name, pa.string())
        for name in (
            *("facility_id", "visit_number", "message_sha", "sending_facility", "message_control_id"),
            *("patient_id_system", "old_id"),
        )
    ]
)
_SAID = """
SELECT facility_id, visit_number, trigger, version, material_hash, event_key, labels, material FROM known
WHERE visit_number IN (SELECT visit_number FROM visit) ORDER BY version
"""


def concerned(history: Any, candidates: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return the events on record that candidate rows concern, in the order they were recorded.

    Args:
        history: ENCOUNTER_EVENT rows: a table, a lake table, paths of Parquet files, or None.
        candidates: Rows of messages, before the state machine.
    """
    if _none(history):
        return []
    fresh = pa.Table.from_pylist([{name: row.get(name) for name in _FRESH.names} for row in candidates], schema=_FRESH)
    if not fresh.num_rows:
        return []
    with quiet_connection() as connection:
        _register(connection, history)
        connection.register("fresh", fresh)
        found: pa.Table = connection.sql(_CONCERNED).to_arrow_table().select(ENCOUNTER_EVENT.schema.names)
    rows: list[Row] = found.cast(ENCOUNTER_EVENT.schema).to_pylist()
    return rows


def said_of(history: Any, visits: Iterable[str | None]) -> list[Row]:
    """Return what is on record of some visits, oldest version first: key, hash, trigger, facility, number, version, labels, material."""
    if _none(history):
        return []
    with quiet_connection() as connection:
        _register(connection, history)
        connection.register("visit", pa.table({"visit_number": pa.array(visits, pa.string())}))
        said: list[Row] = connection.sql(_SAID).to_arrow_table().to_pylist()
    return said


def _none(history: Any) -> bool:
    return history is None or (isinstance(history, list | tuple) and not history)


def _register(connection: duckdb.DuckDBPyConnection, history: Any) -> None:
    """Make the history known as ``known``, each row with its ordinal."""
    connection.execute("SET TimeZone = 'UTC'")
    if isinstance(history, list | tuple) and isinstance(history[0], str | Path):
        files = [str(path) for path in history]
        found = connection.read_parquet(files, union_by_name=True, filename=True, file_row_number=True)
        connection.register("place_of", pa.table({"filename": files, "nth": list(range(len(files)))}))
        shown = ", ".join(f'h."{name}"' for name in found.columns if name not in ("filename", "file_row_number"))
        found.create_view("stored")
        connection.execute(
            f"CREATE VIEW known AS SELECT {shown}, (p.nth, h.file_row_number) AS ordinal "
            "FROM stored h JOIN place_of p USING (filename)"
        )
        return
    table = history if isinstance(history, pa.Table) else pa.table(history)
    connection.register("known", table.append_column("ordinal", pa.array(range(table.num_rows), pa.int64())))
