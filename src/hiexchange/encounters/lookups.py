"""Names, NPIs, codes and labels that Encounter rows only point to: taken from the same lake by SQL."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

_IDENTIFIER = '[{"system":"VARCHAR","value":"VARCHAR"}]'
_CODE = '{"coding":[{"system":"VARCHAR","code":"VARCHAR","display":"VARCHAR"}]}'
_META = '{"security":[{"code":"VARCHAR"}]}'
_NPI = f"list_filter({{identifier as {_IDENTIFIER}}}, lambda x: x.system = 'http://hl7.org/fhir/sid/us-npi')[1].value"
_QUERIES = {
    "organizations": ("Organization", {"organization_id": "id", "npi": _NPI, "name": "{name}"}),
    "practitioners": ("Practitioner", {"practitioner_id": "id", "npi": _NPI}),
    "conditions": (
        "Condition",
        {
            "condition_id": "id",
            **{part: f"{{code as {_CODE}}}.coding[1].{part}" for part in ("system", "code", "display")},
            # A label without a code is still a label: the gate holds what it does not know.
            "labels": f"list_transform({{meta as {_META}}}.security, lambda x: coalesce(x.code, 'unreadable'))",
        },
    ),
}
"""Name -> FHIR type, and column -> SQL, with ``{column as shape}`` for nested ones."""


class LakeLike(Protocol):
    """What is read of a lake."""

    def tables(self) -> dict[str, int]:
        """Tables and their rows."""

    def sql(self, query: str) -> pa.Table:
        """Answer a query over the tables."""


def lookups(lake: LakeLike) -> dict[str, pa.Table]:
    """Return the tables that ``read_view`` takes beside the encounters, of those the lake has.

    Diagnoses are part of what makes an event material: leave them out, and every event of the lake
    gets another material hash, hence another delivery id.
    """
    present = lake.tables()
    return {name: _read(lake, kind, cells) for name, (kind, cells) in _QUERIES.items() if kind in present}


def identifiers(lake: LakeLike) -> pa.Table:
    """Return every identifier of the lake's patients, of any type: person_id, system, value."""
    cells = {"person_id": "id", "one": f"unnest({{identifier as {_IDENTIFIER}}})"}
    found = _read(lake, "Patient", cells)
    return pa.table(
        {"person_id": found["person_id"], **{name: pc.struct_field(found["one"], name) for name in ("system", "value")}}
    )


def _read(lake: LakeLike, kind: str, cells: dict[str, str]) -> pa.Table:
    columns = lake.sql(f"SELECT * FROM {kind} LIMIT 0").schema.names
    shown = ", ".join(f"{_sql(cell, columns)} AS {name}" for name, cell in cells.items())
    return lake.sql(f"SELECT {shown} FROM {kind}")


def _sql(cell: str, columns: list[str]) -> str:
    """Return a cell's SQL: a lake has columns, and fields in them, only of what has come."""
    begin, end = cell.find("{"), cell.rfind("}")
    if begin < 0:
        return cell
    column, _, shape = cell[begin + 1 : end].partition(" as ")
    if not shape:
        return column if column in columns else "CAST(NULL AS VARCHAR)"
    given = f"to_json({column})" if column in columns else "'null'"
    return f"{cell[:begin]}from_json({given}, '{shape}'){cell[end + 1 :]}"
