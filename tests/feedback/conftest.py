"""A small world of two payers, and what routing and delivery made of it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from hiexchange.feedback import Feedback, payer_feedback
from hiexchange.routing import Routing, route
from hiexchange.tables import (
    ATTRIBUTION,
    DELIVERY,
    ENCOUNTER_EVENT,
    OPEN_DATE,
    OPEN_INSTANT,
    PERSON_LINK,
    RECEIPT,
)

NPI = "1999999984"
KNOWN = datetime(2026, 6, 1, tzinfo=UTC)
PERIOD = (date(2026, 3, 1), date(2026, 3, 31))


def attribution(member: str, payer: str = "payer-a", npi: str = NPI, **changes: Any) -> dict[str, Any]:
    row = {
        "attribution_id": f"{member}/{payer}/{npi}", "business_key": f"{member}/{npi}", "payer_id": payer, "member_key": member,
        "member_id": f"id-{member}", "member_id_system": payer, "provider_npi": npi, "attribution_level": "clinician",
        "basis": "payer_assigned", "valid_from": date(2026, 1, 1), "valid_to": OPEN_DATE,
        "known_from": datetime(2026, 1, 2, tzinfo=UTC), "known_to": OPEN_INSTANT, "as_of_on": date(2026, 1, 1),
        "change_type": "new", "roster_id": f"roster-{payer}", "row_no": 1, "row_sha": "x", "status": "active",
    }  # fmt: skip
    return row | changes


def link(member: str, person: str | None, payer: str = "payer-a", band: str = "auto", **changes: Any) -> dict[str, Any]:
    row = {
        "member_key": member, "payer_id": payer, "person_id": person, "method": "member_id", "band": band, "candidates": 1,
        "run_id": "run", "known_from": datetime(2026, 1, 2, tzinfo=UTC), "known_to": OPEN_INSTANT,
    }  # fmt: skip
    return row | changes


def event(
    key: str, person: str, on: date, trigger: str = "admit", class_: str = "IMP", **changes: Any
) -> dict[str, Any]:
    at = datetime(on.year, on.month, on.day, 15, tzinfo=UTC)
    row = {
        "event_key": key, "facility_id": "h", "facility_name": "General", "visit_number": key, "trigger": trigger, "version": 1,
        "event_at": at, "event_on": on, "received_at": at + timedelta(minutes=1), "person_id": person, "class": class_,
        "status": "finished", "material_hash": key, "material": True, "labels": [], "flags": [], "source": "hl7v2",
        "message_sha": key,
    }  # fmt: skip
    return row | changes


def delivery(key: str, state: str = "acked", subscriber: str = "clinic", **changes: Any) -> dict[str, Any]:
    at = datetime(2026, 4, 1, tzinfo=UTC)
    row = {
        "delivery_id": f"d-{key}-{subscriber}", "subscriber_id": subscriber, "channel_id": "default", "event_key": key,
        "material_version": key, "template_major": 1, "state": state, "attempts": 1, "due_at": at, "batch_id": "b1",
        "created_at": at, "acked_at": at if state == "acked" else None,
    }  # fmt: skip
    return row | changes


def receipt() -> dict[str, Any]:
    at = datetime(2026, 3, 31, tzinfo=UTC)
    return {
        "batch_id": "b1", "attempt_no": 1, "subscriber_id": "clinic", "channel_id": "default", "sequence": 1, "name": "x",
        "started_at": at, "ended_at": at, "outcome": "acked", "rows": 1, "size_bytes": 1, "payload_sha256": "x",
    }  # fmt: skip


_answers: dict[str, Feedback] = {}


class World:
    """Tables of one small exchange; change them, then ask."""

    def __init__(self) -> None:
        self.attributions = [
            attribution("m1"),
            attribution("m2"),
            attribution("m3", "payer-b"),
            attribution("m1b", "payer-b"),
        ]
        self.links = [link("m1", "p1"), link("m2", "p2"), link("m3", "p3", "payer-b"), link("m1b", "p1", "payer-b")]
        self.events = [
            event("a", "p1", date(2026, 3, 2)),
            event("b", "p1", date(2026, 3, 5), "discharge", visit_number="a"),
            event("c", "p1", date(2026, 3, 9), "discharge", "AMB"),
            event("d", "p2", date(2026, 3, 7), "discharge", "EMER"),
            event("x", "p3", date(2026, 3, 7), "discharge", "EMER"),
        ]
        self.subscriptions: list[dict[str, Any]] = [
            {"id": "clinic", "npi": [NPI], "channel": "sftp://clinic.example/in"}
        ]
        self.deliveries = [delivery("a"), delivery("b"), delivery("c"), delivery("d", "dead"), delivery("x")]
        self.consent: list[dict[str, Any]] = []

    def routing(self) -> Routing:
        return route(
            ENCOUNTER_EVENT.from_rows(self.events), ATTRIBUTION.from_rows(self.attributions),
            PERSON_LINK.from_rows(self.links), self.subscriptions, known_at=KNOWN, consent=self.consent,
        )  # fmt: skip

    def tables(self) -> dict[str, Any]:
        return {
            "attribution": ATTRIBUTION.from_rows(self.attributions),
            "links": PERSON_LINK.from_rows(self.links),
            "events": ENCOUNTER_EVENT.from_rows(self.events),
            "routing": self.routing(),
            "deliveries": DELIVERY.from_rows(self.deliveries),
        }

    def feedback(self, payer: str = "payer-a", **more: Any) -> Any:
        # Many tests ask the same of an unchanged world.
        key = repr((payer, sorted(self.__dict__.items()))) if not more else None
        if key is None or key not in _answers:
            answer = payer_feedback(payer, PERIOD, receipts=RECEIPT.from_rows([receipt()]), **self.tables(), **more)
            if key is None:
                return answer
            _answers[key] = answer
        return _answers[key]


@pytest.fixture
def world() -> World:
    """A fresh small exchange."""
    return World()


@pytest.fixture
def rows() -> SimpleNamespace:
    """The row builders."""
    return SimpleNamespace(attribution=attribution, link=link, event=event, delivery=delivery, KNOWN=KNOWN)
