"""Flat tables for SQL: the few elements our measures need, out of FHIR rows in the lake's layout.

The lake prunes its schema to the elements it has seen, so each path is looked up in the schema first
and becomes NULL where it is absent. Dates are read from their literal text, never from annotations:
any Arrow table with FHIR's own nesting will do. ``*_at`` are timestamps and ``*_on`` dates in the
evaluation's offset; a partial date (``2026``, ``2026-03``) gives NULL, since it names no day.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from hiexchange import tables
from hiexchange.errors import LakeError

if TYPE_CHECKING:
    from hiexchange.measures.native.model import Source

PATIENT_REFERENCES = {"Coverage": "beneficiary", "ExplanationOfBenefit": "patient", "Claim": "patient"}

NOTHING = pa.table({"id": pa.array([], pa.string())})

# column: (kind, path). Kinds: text, day, instant, codes (of one CodeableConcept), many (of a list of them),
# extension (is there one whose URL ends so), filled (is the list there and not empty).
COLUMNS: dict[str, dict[str, tuple[str, str]]] = {
    "Patient": {
        "birth_on": ("day", "birthDate"),
        "deceased_on": ("day", "deceasedDateTime"),
        "gender": ("text", "gender"),
        "has_race": ("extension", "us-core-race"),
        "has_ethnicity": ("extension", "us-core-ethnicity"),
        "has_language": ("filled", "communication"),
        "has_address": ("filled", "address"),
    },
    "Encounter": {
        "status": ("text", "status"),
        "class": ("text", "class.code"),
        "start_at": ("instant", "period.start"),
        "end_at": ("instant", "period.end"),
        "start_on": ("day", "period.start"),
        "end_on": ("day", "period.end"),
        "disposition": ("codes", "hospitalization.dischargeDisposition"),
        "type": ("many", "type"),
        "reason": ("many", "reasonCode"),
    },
    "Observation": {
        "status": ("text", "status"),
        "code": ("codes", "code"),
        "category": ("many", "category"),
        "on_day": ("day", "effectiveDateTime"),
        "from_day": ("day", "effectivePeriod.start"),
    },
}


def register(con: duckdb.DuckDBPyConnection, name: str, source: Source, offset: timedelta) -> None:
    """Make the flat table of one FHIR type visible to ``con`` under its lower-case name.

    A type the source does not hold becomes an empty table: no encounters is an answer, not an error.
    """
    first = {"extension" if kind == "extension" else path.split(".")[0] for kind, path in COLUMNS[name].values()}
    wanted = sorted(first | {"id", _patient_element(name)})
    table = _read(source, name, wanted)
    con.register(f"raw_{name.lower()}", table)
    shift = f"INTERVAL ({int(offset.total_seconds())}) SECOND"
    parts = [f"{_sql(table.schema, 'id')} AS id", f"{_patient(table.schema, name)} AS patient"]
    parts += [f'{_expression(table.schema, *rule, shift)} AS "{column}"' for column, rule in COLUMNS[name].items()]
    con.execute(f"CREATE TABLE {name.lower()} AS SELECT {', '.join(parts)} FROM raw_{name.lower()}")
    con.unregister(f"raw_{name.lower()}")


def corridor(source: Source, name: str) -> pa.Table:
    """Return a corridor table of the source, empty where it holds none.

    Raises:
        SchemaMismatch: The table lacks a column.
    """
    schema = tables.TABLES[name]
    held = _read(source, name, schema.schema.names)
    return schema.empty() if held is NOTHING else tables.check(held, schema)


def _read(source: Source, name: str, wanted: list[str]) -> pa.Table:
    if isinstance(source, Mapping):
        table = source.get(name)
        return NOTHING if table is None else table.select([c for c in wanted if c in table.column_names])
    try:
        handle: Any = source.table(name)
    except (KeyError, LakeError):
        return NOTHING
    table = handle.to_arrow(columns=[column for column in wanted if column in handle.schema.names])
    assert isinstance(table, pa.Table)
    return table


def _patient_element(name: str) -> str:
    return "id" if name == "Patient" else PATIENT_REFERENCES.get(name, "subject")


def _patient(schema: pa.Schema, name: str) -> str:
    if name == "Patient":
        return _sql(schema, "id")
    # Relative, absolute and urn:uuid references all end in the id.
    reference = _sql(schema, f"{_patient_element(name)}.reference")
    return f"nullif(regexp_extract({reference}, '([^/:]+)$', 1), '')"


def _expression(schema: pa.Schema, kind: str, path: str, shift: str) -> str:
    if kind == "extension":
        held = _field(schema, "extension")
        if held is None or not pa.types.is_list(held) or held.value_type.get_field_index("url") < 0:
            return "false"
        return f"coalesce(len(list_filter(extension, lambda x: x.url LIKE '%/{path}')) > 0, false)"
    value = _sql(schema, path)
    if kind == "filled":
        return f"coalesce(len({value}) > 0, false)" if _field(schema, path) is not None else "false"
    if kind == "text":
        return value
    if kind in ("day", "instant"):
        # A TIMESTAMP cast drops the offset; by way of TIMESTAMPTZ (session zone UTC) it is applied.
        local = f"CAST(TRY_CAST({value} AS TIMESTAMPTZ) AS TIMESTAMP) + {shift}"
        # A date without time is a calendar day already; shifting it would move it to another one.
        plain = f"TRY_CAST({value} AS TIMESTAMP)"
        chosen = f"CASE WHEN length({value}) > 10 THEN {local} WHEN length({value}) = 10 THEN {plain} END"
        return f"CAST({chosen} AS DATE)" if kind == "day" else chosen
    if kind == "codes":
        return _codes(schema, path)
    lists = _field(schema, path)
    if lists is None or not pa.types.is_list(lists) or not _has_codes(lists.value_type):
        return "CAST([] AS VARCHAR[])"
    inner = f"list_transform({value}, lambda c: list_transform(c.coding, lambda d: d.code))"
    return f"coalesce(flatten({inner}), [])"


def _codes(schema: pa.Schema, path: str) -> str:
    found = _field(schema, path)
    if found is None or not _has_codes(found):
        return "CAST([] AS VARCHAR[])"
    return f"coalesce(list_transform({_sql(schema, path)}.coding, lambda d: d.code), [])"


def _has_codes(concept: pa.DataType) -> bool:
    if not pa.types.is_struct(concept) or concept.get_field_index("coding") < 0:
        return False
    codings = concept.field("coding").type
    return bool(pa.types.is_list(codings) and codings.value_type.get_field_index("code") >= 0)


def _field(schema: pa.Schema, path: str) -> pa.DataType | None:
    first, *rest = path.split(".")
    if first not in schema.names:
        return None
    found = schema.field(first).type
    for part in rest:
        if not pa.types.is_struct(found) or found.get_field_index(part) < 0:
            return None
        found = found.field(part).type
    return found


def _sql(schema: pa.Schema, path: str) -> str:
    if _field(schema, path) is None:
        return "CAST(NULL AS VARCHAR)"
    return ".".join(f'"{part}"' for part in path.split("."))
