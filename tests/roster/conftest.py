"""Rosters written by hand for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from hiexchange.roster import Roster, read_roster

RECEIVED = datetime(2026, 2, 2, 8, tzinfo=UTC)
HEADER = "member_id,first_name,last_name,birth_on,sex,provider_npi,provider_tin,valid_from,valid_to"
NPI = "1234567893"
TIN = "710000001"


def line(number: int, **given: str) -> str:
    """One good line of the generic layout, with columns replaced."""
    values = {
        "member_id": f"M{number:04d}",
        "first_name": "Ann",
        "last_name": f"Smith{number}",
        "birth_on": f"19{50 + number % 50}-01-02",
        "sex": "F",
        "provider_npi": NPI,
        "provider_tin": TIN,
        "valid_from": "2026-01-01",
        "valid_to": "",
    }
    return ",".join({**values, **given}.values())


@pytest.fixture
def rows() -> Callable[..., str]:
    """``rows(3)``: three good lines; ``rows(line(...), ...)`` is plain text work."""
    return line


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a roster file: text with the generic header before it, or bytes as they are."""

    def put(content: str | bytes, name: str = "roster.csv", header: str = HEADER) -> Path:
        path = tmp_path / name
        if isinstance(content, str):
            content = f"{header}\n{content}".encode()
        path.write_bytes(content)
        return path

    return put


@pytest.fixture
def read(write: Callable[..., Path]) -> Callable[..., Roster]:
    """Write and read a roster in one go; keyword arguments go to ``read_roster``."""

    def go(content: str | bytes | Path, layout: Any = "csv", *, name: str = "roster.csv", **given: Any) -> Roster:
        path = content if isinstance(content, Path) else write(content, name)
        # 834 and FHIR lists declare their own date.
        day = None if layout in ("x12-834", "atr-ndjson") else date(2026, 2, 1)
        options = {"as_of": day, "received_at": RECEIVED, "payer_id": "payer-a"}
        return read_roster(path, layout, **{**options, **given})

    return go


@pytest.fixture
def codes() -> Callable[[Roster], list[tuple[int | None, str, str | None]]]:
    """The issues of a roster as (row, code, column)."""

    def of(roster: Roster) -> list[tuple[int | None, str, str | None]]:
        return [(row["row_no"], row["code"], row["column"]) for row in roster.issues.to_pylist()]

    return of
