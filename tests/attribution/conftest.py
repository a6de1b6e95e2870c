"""Rosters and histories made in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.attribution import attribute
from hiexchange.tables import ATTRIBUTION, MEMBER, OPEN_DATE


@dataclass(frozen=True)
class Sheet:
    """What ``attribute`` needs of a roster."""

    roster_id: str
    as_of: date
    members: pa.Table
    received_at: datetime
    mode: str = "full"
    payer_id: str = "payer-a"
    list_id: str = "payer-a"
    state: str = "accepted"
    authority_from: date | None = None
    authority_to: date = OPEN_DATE


def row(
    member: str, npi: str | None = "1", start: date | None = None, end: date | None = None, **more: Any
) -> dict[str, Any]:
    """One roster line; without start it speaks of the file's as-of date."""
    return {"member": member, "npi": npi, "start": start, "end": end, **more}


def sheet(roster_id: str, as_of: date, rows: Iterable[dict[str, Any]], **more: Any) -> Sheet:
    """One roster file."""
    begin = more.get("authority_from") or as_of
    payer = more.get("payer_id", "payer-a")
    lines = []
    for number, given in enumerate(rows, 1):
        values = dict(given)
        member, npi = values.pop("member"), values.pop("npi")
        start, end = values.pop("start"), values.pop("end")
        if start is None:
            start = end if end is not None and end < begin else begin
        lines.append(
            {
                "roster_id": roster_id,
                "row_no": number,
                "row_sha": f"{roster_id}-{number}",
                "payer_id": payer,
                "member_key": f"{payer}|{member}",
                "member_id": member,
                "member_id_system": payer,
                "provider_npi": npi,
                "attribution_level": "clinician" if npi else "practice",
                "basis": "payer_assigned",
                "valid_from": start,
                "valid_to": end or OPEN_DATE,
                "synthetic": True,
                **values,
            }
        )
    received = more.pop("received_at", datetime.combine(as_of, time(8), UTC))
    return Sheet(roster_id, as_of, MEMBER.from_rows(lines), received, **more)


def together(sheets: Iterable[Sheet], *, first: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> pa.Table:
    """Attribute sheets one after another, each known a day later."""
    history = ATTRIBUTION.empty()
    for number, given in enumerate(sheets):
        fresh = attribute(given, history, known_at=first.replace(day=1 + number))
        history = pa.concat_tables([history, fresh])
    return history


@pytest.fixture
def build() -> Callable[..., Sheet]:
    """``build("r1", as_of, [line("m1"), ...], mode="delta")``."""
    return sheet


@pytest.fixture
def line() -> Callable[..., dict[str, Any]]:
    """``line("m1", npi, start, end, payer_change_type="dropped")``."""
    return row


@pytest.fixture
def fold() -> Callable[..., pa.Table]:
    """``fold([sheets])``: the history after these files, in this order of arrival."""
    return together


@pytest.fixture
def spells() -> Callable[..., list[tuple[str, str | None, str, str]]]:
    """(member, npi, valid_from, valid_to) of a table, sorted."""

    def of(table: pa.Table) -> list[tuple[str, str | None, str, str]]:
        return sorted(
            (r["member_id"], r["provider_npi"], r["valid_from"].isoformat(), r["valid_to"].isoformat())
            for r in table.to_pylist()
        )

    return of
