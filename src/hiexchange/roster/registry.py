"""Compare a roster's NPIs with the national registry (NPPES): wrong kind, deactivated, unknown.

Needs a table made of the NPPES dissemination file; nothing is downloaded here.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from hiexchange._duck import quiet_connection
from hiexchange.roster.issues import STAGE
from hiexchange.tables import ISSUE

REGISTRY_COLUMNS = ("npi", "entity_type", "deactivated_on")
"""entity_type 1 is a person, 2 an organisation; deactivated_on is null or a date."""


def check_providers(members: pa.Table, registry: Any, *, file: str = "") -> pa.Table:
    """Return ISSUE rows (warnings) for NPIs that the registry does not bear out.

    Args:
        members: MEMBER rows.
        registry: Table with :data:`REGISTRY_COLUMNS`.
        file: File name for the issues.
    """
    con = quiet_connection()
    try:
        con.register("m", members.select(["row_no", "member_key", "provider_npi", "attribution_level", "valid_to"]))
        con.register("r", registry if isinstance(registry, pa.Table) else pa.table(registry))
        rows = con.sql(
            """SELECT row_no, member_key, CASE
                WHEN r.npi IS NULL THEN 'npi_unknown'
                WHEN r.deactivated_on IS NOT NULL AND r.deactivated_on < m.valid_to THEN 'npi_deactivated'
                WHEN m.attribution_level = 'clinician' AND r.entity_type::VARCHAR = '2' THEN 'npi_type_2' END AS code
            FROM m LEFT JOIN r ON r.npi = m.provider_npi WHERE m.provider_npi IS NOT NULL ORDER BY row_no"""
        ).to_arrow_table()
    finally:
        con.close()
    messages = {
        "npi_unknown": "the registry does not know the NPI",
        "npi_deactivated": "the NPI is deactivated",
        "npi_type_2": "an organisation's NPI where a clinician is named",
    }
    return ISSUE.from_rows(
        {
            "stage": STAGE,
            "severity": "warning",
            "code": row["code"],
            "message": messages[row["code"]],
            "file": file,
            "row_no": row["row_no"],
            "column": "provider_npi",
            "subject_key": row["member_key"],
        }
        for row in rows.to_pylist()
        if row["code"]
    )
