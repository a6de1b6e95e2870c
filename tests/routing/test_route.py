"""The point-in-time join: who, as known when."""

from __future__ import annotations

from datetime import UTC, date, datetime
from types import SimpleNamespace

import pytest


def test_an_attributed_provider_is_told(world: SimpleNamespace) -> None:
    routing = world.routed()
    assert world.outcome(routing) == [("deliver", "attributed", "clinic")]
    assert routing.identity() == {
        "events": 1, "swallowed": 0, "unmatched": 0, "unattributed": 0, "held": 0, "deliver": 1,
    }  # fmt: skip


def test_a_provider_named_by_two_payers_gets_one_delivery_that_lists_both(world: SimpleNamespace) -> None:
    routing = world.routed(
        attributions=[world.attribution("m2", "payer-b"), world.attribution("m1", "payer-a")],
        links=[world.link("m1"), world.link("m2", payer_id="payer-b")],
    )
    (decision,) = routing.decisions.to_pylist()
    assert decision["payer_ids"] == ["payer-a", "payer-b"]
    assert decision["member_keys"] == ["m1", "m2"]
    assert decision["primary"]


def test_a_link_in_review_never_routes(world: SimpleNamespace) -> None:
    routing = world.routed(links=[world.link(band="review")])
    assert world.outcome(routing) == [("unmatched", "match_in_review", None)]


def test_events_that_reach_nobody_say_where_they_ended(world: SimpleNamespace) -> None:
    events = [
        world.event("no-person", None),
        world.event("no-member", "p9"),
        world.event("before", event_on=date(2025, 12, 31)),
        world.event("noise", material=False, swallowed_reason="unchanged"),
        world.event("other", "p2"),
    ]
    routing = world.routed(
        events,
        attributions=[world.attribution(), world.attribution("m2", npi=world.NPI_B)],
        links=[world.link(), world.link("m2", "p2")],
    )
    reasons = dict(zip(*(routing.decisions[name].to_pylist() for name in ("event_key", "reason_code")), strict=True))
    assert reasons == {
        "no-person": "no_person",
        "no-member": "no_member",
        "before": "no_attribution",
        "noise": "unchanged",
        "other": "no_subscription",
    }
    assert routing.identity() == {
        "events": 5, "swallowed": 1, "unmatched": 2, "unattributed": 1, "held": 1, "deliver": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("day", "told"), [(date(2026, 1, 1), True), (date(2026, 2, 28), True), (date(2026, 3, 1), False)]
)
def test_attribution_holds_on_half_open_days(world: SimpleNamespace, day: date, told: bool) -> None:
    routing = world.routed([world.event(event_on=day)], [world.attribution(valid_to=date(2026, 3, 1))])
    assert routing.deliverable.num_rows == told


def test_what_became_known_later_is_not_seen(world: SimpleNamespace) -> None:
    first = world.attribution(known_from=datetime(2026, 1, 2, tzinfo=UTC))
    dropped = world.attribution(
        known_from=datetime(2026, 3, 5, tzinfo=UTC), valid_to=date(2026, 2, 1), change_type="dropped"
    )
    before, after = (
        world.routed(attributions=[dropped, first], known_at=known)
        for known in (datetime(2026, 3, 4, tzinfo=UTC), datetime(2026, 3, 6, tzinfo=UTC))
    )
    assert before.identity()["deliver"] == 1
    assert after.identity()["unattributed"] == 1
