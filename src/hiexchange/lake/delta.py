"""Keep a Delta Lake table in step with a table of the lake (extra ``delta``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import ConfigError, MissingExtra
from hiexchange.lake.columns import cast_wide


@dataclass(frozen=True)
class DeltaWritten:
    """What an upsert did."""

    inserted: int
    updated: int
    version: int


def write_delta(table: Any, path: str | Path, *, key: str = "__hx_key") -> DeltaWritten:
    """Upsert rows into a Delta table by key; rows that do not come in again are left as they are.

    The table is widened first, by an empty append, and merged then: ``merge(merge_schema=True)`` where a
    nested struct widens nulls the nested columns of rows the merge does not touch (deltalake 1.6.6).

    Args:
        table: A ``LakeTable``, a ``pyarrow.Table`` or anything with ``__arrow_c_stream__``; unique by ``key``.
        path: Folder or URL of the Delta table; made when it is not there.
        key: Column that identifies a row.

    Raises:
        MissingExtra: deltalake is not installed.
        ConfigError: The rows have no such key, or two of them the same.
    """
    try:
        from deltalake import DeltaTable, write_deltalake
    except ImportError:
        raise MissingExtra("delta", "writing Delta Lake tables") from None
    rows = _microseconds(table if isinstance(table, pa.Table) else pa.table(table))
    if key not in rows.column_names or pc.count_distinct(rows[key], mode="all").as_py() < rows.num_rows:
        raise ConfigError(f"the rows to merge must have a column {key!r} that names each once")
    if not DeltaTable.is_deltatable(str(path)):
        write_deltalake(str(path), rows)
        return DeltaWritten(rows.num_rows, 0, 0)
    write_deltalake(str(path), rows.slice(0, 0), mode="append", schema_mode="merge")
    stored = DeltaTable(str(path))
    deeper = _deepened(rows, pa.schema(stored.schema()))
    metrics = (
        stored.merge(deeper, predicate=f"kept.{key} = come.{key}", source_alias="come", target_alias="kept")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )
    return DeltaWritten(
        int(metrics["num_target_rows_inserted"]), int(metrics["num_target_rows_updated"]), int(stored.version())
    )


def _deepened(rows: pa.Table, stored: pa.Schema) -> pa.Table:
    """Return the rows with the nested members the stored table has beyond theirs: a merge finds no common type."""
    columns = [
        pa.chunked_array(
            [cast_wide(chunk, stored.field(name).type) for chunk in rows[name].chunks], stored.field(name).type
        )
        for name in rows.column_names
    ]
    return pa.table(columns, names=rows.column_names)


def _microseconds(table: pa.Table) -> pa.Table:
    """Return the table with timestamps as Delta has them and every column nullable."""
    fields = [pa.field(field.name, _type(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


def _type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz=kind.tz)
    if pa.types.is_list(kind):
        return pa.list_(_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _type(field.type)) for field in kind])
    return kind
