"""Names, NPIs and codes that Encounter rows only point to: taken from the same lake by SQL."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

_NPI = "list_filter(identifier, lambda x: x.system = 'http://hl7.org/fhir/sid/us-npi')[1].value"
_QUERIES = {
    "organizations": ("Organization", f"SELECT id AS organization_id, {_NPI} AS npi, name FROM Organization"),
    "practitioners": ("Practitioner", f"SELECT id AS practitioner_id, {_NPI} AS npi FROM Practitioner"),
    "conditions": (
        "Condition",
        """SELECT id AS condition_id, code.coding[1].system AS system, code.coding[1].code AS code,
                  code.coding[1].display AS display FROM Condition""",
    ),
}


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
    return {name: lake.sql(query) for name, (kind, query) in _QUERIES.items() if kind in present}
