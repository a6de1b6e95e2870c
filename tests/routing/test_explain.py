"""Why each candidate did or did not get it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hiexchange.errors import DataError
from hiexchange.routing import explain
from hiexchange.tables import ATTRIBUTION, PERSON_LINK


def test_the_chain_from_roster_row_to_delivery_state(world: SimpleNamespace) -> None:
    attributions = [
        world.attribution(roster_id="roster-7", row_no=42),
        world.attribution("m2", "payer-b", sharing_pref="opt-out"),
    ]
    links = [world.link(score=21.5, rule="member_id_dob"), world.link("m2", payer_id="payer-b")]
    routing = world.routed(attributions=attributions, links=links)
    states = world.table([{"event_key": "e1", "subscriber_id": "clinic", "channel_id": "default", "state": "sent"}])
    (line,) = explain(
        routing,
        "e",
        attribution=ATTRIBUTION.from_rows(attributions),
        links=PERSON_LINK.from_rows(links),
        deliveries=states,
    )
    (evidence,) = line.evidence
    assert (evidence.payer_id, evidence.roster_id, evidence.row_no) == ("payer-a", "roster-7", 42)
    assert (evidence.method, evidence.rule, evidence.score) == ("member_id", "member_id_dob", 21.5)
    assert (line.decision, line.delivery_state, line.known_at) == ("deliver", "sent", world.KNOWN)


def test_held_candidates_show_what_spoke_for_them(world: SimpleNamespace) -> None:
    routing = world.routed(attributions=[world.attribution(sharing_pref="opt-out")])
    (line,) = explain(routing, "e1")
    assert (line.reason_code, line.evidence[0].payer_id) == ("payer_opt_out", "payer-a")
    assert "opted out" in line.reason


def test_events_that_reached_nobody_are_explained_too(world: SimpleNamespace) -> None:
    (line,) = explain(world.routed([world.event(person=None)]), "e1")
    assert (line.decision, line.reason_code, line.evidence) == ("unmatched", "no_person", ())


def test_unknown_and_ambiguous_keys_are_refused(world: SimpleNamespace) -> None:
    routing = world.routed([world.event("e1"), world.event("e2")])
    for key in ("e", "x"):
        with pytest.raises(DataError, match="begins so"):
            explain(routing, key)
