"""Small worlds for routing: events, attributions and links by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.routing import Routing, route
from hiexchange.tables import ATTRIBUTION, ENCOUNTER_EVENT, OPEN_DATE, OPEN_INSTANT, PERSON_LINK

NPI_A, NPI_B = "1999999984", "1999999992"
KNOWN = datetime(2026, 3, 6, tzinfo=UTC)


def event(key: str = "e1", person: str | None = "p1", **changes: Any) -> dict[str, Any]:
    """One ENCOUNTER_EVENT row: an inpatient admission on 2026-03-02, not yet changed."""
    row = {
        "event_key": key,
        "facility_id": "hospital",
        "facility_npi": "1999999976",
        "visit_number": key,
        "trigger": "admit",
        "version": 1,
        "event_at": datetime(2026, 3, 2, 15, tzinfo=UTC),
        "event_on": date(2026, 3, 2),
        "received_at": datetime(2026, 3, 2, 15, 1, tzinfo=UTC),
        "person_id": person,
        "class": "IMP",
        "status": "in-progress",
        "material_hash": key,
        "material": True,
        "labels": [],
        "flags": [],
        "source": "hl7v2",
        "message_sha": key,
    }
    return row | changes


def attribution(member: str = "m1", payer: str = "payer-a", npi: str | None = NPI_A, **changes: Any) -> dict[str, Any]:
    """One ATTRIBUTION row, open-ended from 2026-01-01, known from 2026-01-02."""
    row = {
        "attribution_id": f"{member}/{payer}/{npi}/{changes.get('provider_tin')}",
        "business_key": f"{member}/{payer}/{npi}",
        "payer_id": payer,
        "member_key": member,
        "member_id": member,
        "member_id_system": payer,
        "provider_npi": npi,
        "attribution_level": "clinician",
        "basis": "payer_assigned",
        "valid_from": date(2026, 1, 1),
        "valid_to": OPEN_DATE,
        "known_from": datetime(2026, 1, 2, tzinfo=UTC),
        "known_to": OPEN_INSTANT,
        "as_of_on": date(2026, 1, 1),
        "change_type": "new",
        "roster_id": "r1",
        "row_no": 1,
        "row_sha": "x",
        "status": "active",
    }
    return row | changes


def link(member: str = "m1", person: str | None = "p1", band: str = "auto", **changes: Any) -> dict[str, Any]:
    """One PERSON_LINK row."""
    row = {
        "member_key": member,
        "payer_id": "payer-a",
        "person_id": person,
        "method": "member_id",
        "band": band,
        "candidates": 1,
        "run_id": "run",
        "known_from": datetime(2026, 1, 2, tzinfo=UTC),
        "known_to": OPEN_INSTANT,
    }
    return row | changes


def subscription(id: str = "clinic", **changes: Any) -> dict[str, Any]:
    """One subscription of NPI_A with one folder."""
    row: dict[str, Any] = {"id": id, "npi": [NPI_A], "channel": f"out/{id}"}
    return {key: value for key, value in (row | changes).items() if value is not None}


def routed(
    events: list[dict[str, Any]] | None = None,
    attributions: list[dict[str, Any]] | None = None,
    links: list[dict[str, Any]] | None = None,
    subscriptions: list[dict[str, Any]] | None = None,
    **arguments: Any,
) -> Routing:
    """Route a small world; what is not given is one admission of p1, attributed to NPI_A, subscribed by clinic."""
    return route(
        ENCOUNTER_EVENT.from_rows([event()] if events is None else events),
        ATTRIBUTION.from_rows([attribution()] if attributions is None else attributions),
        PERSON_LINK.from_rows([link()] if links is None else links),
        [subscription()] if subscriptions is None else subscriptions,
        **{"known_at": KNOWN, **arguments},
    )


def outcome(routing: Routing) -> list[tuple[str, str, str | None]]:
    """(decision, reason_code, subscriber_id) of every decision, sorted."""
    names = ("decision", "reason_code", "subscriber_id")
    return sorted(zip(*(routing.decisions[name].to_pylist() for name in names), strict=True), key=str)


@pytest.fixture
def world() -> SimpleNamespace:
    """The builders above."""
    make: dict[str, Callable[..., Any] | Any] = {
        "event": event,
        "attribution": attribution,
        "link": link,
        "subscription": subscription,
        "routed": routed,
        "outcome": outcome,
        "NPI_A": NPI_A,
        "NPI_B": NPI_B,
        "KNOWN": KNOWN,
        "table": pa.Table.from_pylist,
    }
    return SimpleNamespace(**make)


@pytest.fixture(scope="session")
def routed_world() -> SimpleNamespace:
    """The same builders, for property tests."""
    return SimpleNamespace(event=event, attribution=attribution, link=link, routed=routed, NPI_A=NPI_A, NPI_B=NPI_B)
