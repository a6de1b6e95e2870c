"""The point-in-time join: who, as known when."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiexchange.errors import SchemaMismatch
from hiexchange.lake import Lake
from hiexchange.routing import route
from hiexchange.tables import ATTRIBUTION, ENCOUNTER_EVENT, PERSON_LINK


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


def test_a_lazy_attribution_is_read_as_a_stream(world: SimpleNamespace, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.append("attribution", ATTRIBUTION.from_rows([world.attribution(), world.attribution("m2", npi=world.NPI_B)]))
    lake.append("person_link", PERSON_LINK.from_rows([world.link()]))
    routing = route(
        ENCOUNTER_EVENT.from_rows([world.event()]),
        lake.table("attribution"),
        lake.table("person_link"),
        [world.subscription()],
        known_at=world.KNOWN,
    )
    assert world.outcome(routing) == [("deliver", "attributed", "clinic")]
    by_files = route(
        routing.events,
        lake.files("attribution"),
        [str(path) for path in lake.files("person_link")],
        [world.subscription()],
        known_at=world.KNOWN,
    )
    assert by_files.decisions == routing.decisions
    with pytest.raises(SchemaMismatch, match="lack"):
        route(routing.events, lake.files("person_link"), lake.files("attribution"), [], known_at=world.KNOWN)


def test_row_order_has_no_effect(world: SimpleNamespace) -> None:
    attributions = [world.attribution(f"m{n}", f"payer-{n % 3}") for n in range(6)]
    links = [world.link(f"m{n}", f"p{n % 2}") for n in range(6)]
    events = [world.event(f"e{n}", f"p{n % 2}") for n in range(4)]
    once = world.routed(events, attributions, links)
    again = world.routed(events[::-1], attributions[::-1], links[::-1])
    assert once.decisions == again.decisions


def test_the_primary_recipient_follows_basis_then_recency_then_level(world: SimpleNamespace) -> None:
    claims = world.attribution(npi=world.NPI_B, basis="claims_plurality", valid_from=date(2026, 2, 1))
    chosen = world.attribution(basis="patient_choice")
    two = [world.subscription("a"), world.subscription("b", npi=[world.NPI_B])]
    routing = world.routed(attributions=[claims, chosen], subscriptions=two)
    assert dict(zip(*(routing.decisions[name].to_pylist() for name in ("subscriber_id", "primary")), strict=True)) == {
        "a": True, "b": False,
    }  # fmt: skip


def test_a_member_linked_elsewhere_later_is_no_longer_this_person(world: SimpleNamespace) -> None:
    moved = world.link(person="p2", known_from=datetime(2026, 3, 5, tzinfo=UTC))
    assert world.outcome(world.routed(links=[world.link(), moved])) == [("unmatched", "no_member", None)]
    retracted = world.link(known_to=datetime(2026, 3, 5, tzinfo=UTC))
    assert world.outcome(world.routed(links=[retracted])) == [("unmatched", "no_member", None)]


def test_cancelled_attributions_never_held(world: SimpleNamespace) -> None:
    voided = world.attribution(change_type="cancelled", known_from=datetime(2026, 2, 1, tzinfo=UTC))
    assert world.outcome(world.routed(attributions=[world.attribution(), voided])) == [
        ("unattributed", "no_attribution", None)
    ]


def test_the_identity_follows_the_deliveries(world: SimpleNamespace) -> None:
    events = [world.event(f"e{n}") for n in range(7)]
    routing = world.routed(events)
    states = ["acked", "sent", "dead", "held", "cancelled", "retry"]
    rows = [{"event_key": f"e{n}", "state": state} for n, state in enumerate(states)]
    counts = routing.identity(world.table(rows))
    assert counts == {
        "events": 7, "swallowed": 1, "unmatched": 0, "unattributed": 0, "held": 1, "delivered": 1, "pending": 3, "dead": 1,
    }  # fmt: skip
    assert routing.reasons() == {("deliver", "attributed"): 7}
    assert "<table>" in routing._repr_html_()


def test_an_event_with_several_recipients_counts_once_by_its_best_state(world: SimpleNamespace) -> None:
    routing = world.routed()
    rows = world.table([{"event_key": "e1", "state": state} for state in ("dead", "held", "acked")])
    assert routing.identity(rows)["delivered"] == 1
    rows = world.table([{"event_key": "e1", "state": state} for state in ("dead", "held")])
    assert routing.identity(rows)["held"] == 1


def test_a_clock_without_zone_is_refused(world: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="time zone"):
        world.routed(known_at=datetime(2026, 3, 6))


def test_tables_of_another_shape_are_refused(world: SimpleNamespace) -> None:
    with pytest.raises(SchemaMismatch, match="lacks"):
        world.routed(provider_org=world.table([{"npi": "1"}]))


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_every_event_has_exactly_one_fate(routed_world: SimpleNamespace, data: st.DataObject) -> None:
    world = routed_world
    pick = data.draw
    events = [
        world.event(
            f"e{n}",
            pick(st.sampled_from(["p1", "p2", None])),
            material=pick(st.booleans()),
            labels=pick(st.sampled_from([[], ["R"], ["???"]])),
            event_on=pick(st.sampled_from([date(2025, 6, 1), date(2026, 3, 1)])),
        )
        for n in range(pick(st.integers(1, 5)))
    ]
    links = [
        world.link(f"m{n}", pick(st.sampled_from(["p1", "p2"])), pick(st.sampled_from(["auto", "review"])))
        for n in range(3)
    ]
    attributions = [
        world.attribution(
            f"m{n}",
            npi=pick(st.sampled_from([world.NPI_A, world.NPI_B])),
            sharing_pref=pick(st.sampled_from([None, "opt-out"])),
        )
        for n in range(3)
    ]
    counts = world.routed(events, attributions, links).identity()
    assert counts["events"] == len(events) == sum(count for part, count in counts.items() if part != "events")


@pytest.mark.parametrize("turned", [False, True])
def test_what_became_known_at_one_instant_is_read_alike_in_any_order(world: SimpleNamespace, turned: bool) -> None:
    def told(kind: str, *rows: dict[str, Any]) -> list[str]:
        given = {kind: list(reversed(rows)) if turned else list(rows)}
        return [reason for _, reason, _ in world.outcome(world.routed(**given))]

    assert told("links", world.link(), world.link(band="review")) == ["match_in_review"]
    assert told("attributions", world.attribution(), world.attribution(change_type="cancelled")) == ["no_attribution"]
    # A file that came late speaks of an earlier day and is read last in the same run.
    early = world.attribution(list_seq=1, as_of_on=date(2026, 2, 1), change_type="cancelled")
    late = world.attribution(list_seq=2, as_of_on=date(2026, 1, 1))
    assert told("attributions", early, late) == ["attributed"]


def test_two_records_of_one_person_are_one_recipient_decision(world: SimpleNamespace) -> None:
    births = [{"person_id": "p1", "birth_date": born, "deceased_at": None} for born in ("1980-01-01", "1980-01-02")]
    found = world.routed(persons=pa.Table.from_pylist(births, pa.schema([(n, pa.string()) for n in births[0]])))
    assert world.outcome(found) == [("deliver", "attributed", "clinic")]
