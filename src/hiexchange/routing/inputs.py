"""What routing is given, as tables of a DuckDB connection: the needed columns, and no copy where none is needed.

A state's rosters are millions of rows, of which a day's events need a few. They come as Parquet files
(fastest: DuckDB reads what the join needs), as a lake table (read as a stream), or as a table in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from hiexchange._duck import quiet_connection
from hiexchange.errors import SchemaMismatch
from hiexchange.tables import ATTRIBUTION, PERSON, PERSON_LINK, Table

NEEDED = {
    "link": (PERSON_LINK, ("member_key", "payer_id", "person_id", "band", "known_from", "known_to")),
    "attribution": (
        ATTRIBUTION,
        (
            "attribution_id",
            "payer_id",
            "member_key",
            "provider_npi",
            "provider_tin",
            "org_id",
            "attribution_level",
            "basis",
            "rank",
            "valid_from",
            "valid_to",
            "known_from",
            "known_to",
            "as_of_on",
            "list_seq",
            "change_type",
            "sharing_pref",
            "sharing_pref_from",
            "samhsa_pref",
            "status",
        ),
    ),
    "person": (PERSON, ("person_id", "birth_date", "deceased_at")),
}
"""Kind of input -> its table and the columns that routing reads."""


def connect() -> duckdb.DuckDBPyConnection:
    """Return an in-memory connection that reckons in UTC and prints nothing."""
    connection = quiet_connection()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def register(connection: duckdb.DuckDBPyConnection, name: str, data: Any, kind: str) -> None:
    """Make an input known under a name.

    Args:
        connection: Where.
        name: Under which name.
        data: A table, a lake table, anything with ``__arrow_c_stream__``, paths of Parquet files, or None.
        kind: Key of :data:`NEEDED`.

    Raises:
        SchemaMismatch: A needed column is missing.
    """
    table, names = NEEDED[kind]
    wanted = pa.schema([table.schema.field(column) for column in names])
    if isinstance(data, list | tuple) and data and isinstance(data[0], str | Path):
        files = connection.read_parquet([str(path) for path in data], union_by_name=True)
        _complete(files.columns, table, names)
        files.project(", ".join(names)).create_view(name)
    elif hasattr(data, "to_batches") and not isinstance(data, pa.Table):
        connection.register(name, _stream(data, wanted))
    else:
        connection.register(name, columns(data, wanted))


def columns(data: Any, schema: pa.Schema) -> pa.Table:
    """Return exactly the columns of a schema, from a table, from dictionaries, or no rows from None.

    Raises:
        SchemaMismatch: A column is missing.
    """
    if data is None:
        return schema.empty_table()
    if isinstance(data, list | tuple):
        return pa.Table.from_pylist(list(data), schema=schema)
    table = data if isinstance(data, pa.Table) else pa.table(data)
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise SchemaMismatch(f"a table given to route lacks {', '.join(missing)}")
    return table.select(schema.names).cast(schema)


def _stream(data: Any, schema: pa.Schema) -> pa.RecordBatchReader:
    """Return a reader that is read once, batch by batch."""
    tables = (columns(pa.Table.from_batches([batch]), schema) for batch in data.to_batches(columns=schema.names))
    return pa.RecordBatchReader.from_batches(schema, (batch for table in tables for batch in table.to_batches()))


def _complete(given: list[str], table: Table, names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in given]
    if missing:
        raise SchemaMismatch(f"the Parquet files of {table.name} lack {', '.join(missing)}")
