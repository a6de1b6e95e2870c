"""Builders of member and person rows for the matching tests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pyarrow as pa
import pytest

from hiexchange import tables
from hiexchange._files import sha256_text


@pytest.fixture
def member_table() -> Callable[..., pa.Table]:
    """Build MEMBER rows from dictionaries of what matters to the test."""

    def build(*rows: dict[str, Any]) -> pa.Table:
        full = []
        for number, row in enumerate(rows, 1):
            payer, member_id = row.get("payer_id", "payer-a"), row.get("member_id", f"-{number}")
            full.append(
                {
                    "roster_id": "r1",
                    "row_no": number,
                    "row_sha": str(number),
                    "payer_id": payer,
                    "member_id": member_id,
                    "member_id_system": "urn:a",
                    "member_key": sha256_text(payer, "urn:a", member_id),
                    "attribution_level": "clinician",
                    "basis": "payer_assigned",
                    "valid_from": date(2026, 1, 1),
                    "valid_to": tables.OPEN_DATE,
                    "synthetic": True,
                }
                | row
            )
        return tables.MEMBER.from_rows(full)

    return build


@pytest.fixture
def person_table() -> Callable[..., pa.Table]:
    """Build PERSON rows from dictionaries of what matters to the test."""

    def build(*rows: dict[str, Any]) -> pa.Table:
        return tables.PERSON.from_rows([{"person_id": f"p{number}"} | row for number, row in enumerate(rows, 1)])

    return build
