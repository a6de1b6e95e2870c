"""The policy gate: every rule holds, every doubt holds, and nothing is guessed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from hiexchange.errors import ConfigError, SchemaMismatch
from hiexchange.routing import Policy, Recheck, load_subscriptions, shared_denials
from hiexchange.routing.policy import judge

STATEMENT = "Consent of 2026-01-05 to ED and inpatient data, clinic only."


def reasons(world: SimpleNamespace, **arguments: Any) -> list[str]:
    return [reason for _, reason, _ in world.outcome(world.routed(**arguments))]


def deny(scope: str, party: str | None = None, **changes: Any) -> dict[str, Any]:
    return {"person_id": "p1", "scope": scope, "party": party, "decision": "deny"} | changes


# Consent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("consent", "expected"),
    [
        ([deny("exchange")], "opted_out"),
        ([deny("provider", "clinic")], "opted_out_of_provider"),
        ([deny("provider")], "opted_out_of_provider"),
        ([deny("provider", "1999999984")], "opted_out_of_provider"),
        ([deny("provider", "other-clinic")], "attributed"),
        ([deny("payer", "payer-a")], "opted_out_of_payer"),
        ([deny("payer")], "opted_out_of_payer"),
        ([deny("payer", "payer-b")], "attributed"),
        ([deny("exchange", person_id="p2")], "attributed"),
        ([deny("exchange", valid_from=date(2026, 3, 7))], "attributed"),
        ([deny("exchange", valid_to=date(2026, 3, 6))], "attributed"),
        ([deny("exchange", known_from=datetime(2026, 3, 7, tzinfo=UTC))], "attributed"),
    ],
)
def test_opt_outs(world: SimpleNamespace, consent: list[dict[str, Any]], expected: str) -> None:
    assert reasons(world, consent=consent) == [expected]


@pytest.mark.parametrize(
    ("zone", "days", "expected"),
    [
        # It is 2026-03-06 00:00 in UTC, the evening of the 5th in Chicago, the afternoon of the 6th in Auckland.
        ("America/Chicago", {"valid_to": date(2026, 3, 6)}, "opted_out"),
        ("America/Chicago", {"valid_from": date(2026, 3, 6)}, "attributed"),
        ("UTC", {"valid_from": date(2026, 3, 6)}, "opted_out"),
        ("Pacific/Auckland", {"valid_to": date(2026, 3, 6)}, "attributed"),
    ],
)
def test_days_turn_at_midnight_in_the_exchanges_zone(
    world: SimpleNamespace, zone: str, days: dict[str, date], expected: str
) -> None:
    consent, policy = [deny("exchange", **days)], Policy(zone=zone)
    assert reasons(world, consent=consent, policy=policy) == [expected]
    gate = Recheck(load_subscriptions([world.subscription()]), consent, now=world.KNOWN, policy=policy)
    asked = SimpleNamespace(subscriber_id="clinic", person_id="p1", payer_ids=["payer-a"])
    assert gate(asked) == (None if expected == "attributed" else expected)


def test_a_revocation_at_local_midnight_holds_at_local_midnight(world: SimpleNamespace) -> None:
    """Permitted to the end of the 5th: until 06:00 UTC in Chicago, whose clocks are six hours behind."""
    policy = Policy(consent_default="deny", zone="America/Chicago")
    permit = {"person_id": "p1", "scope": "exchange", "decision": "permit", "valid_to": date(2026, 3, 6)}
    midnight = datetime(2026, 3, 6, 6, tzinfo=UTC)
    asked = {"policy": policy, "consent": [permit]}
    assert reasons(world, **asked, known_at=midnight - timedelta(seconds=1)) == ["attributed"]
    assert reasons(world, **asked, known_at=midnight) == ["no_opt_in"]


def test_a_zone_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"zone of the exchange 'Middle/Earth' is no IANA time zone"):
        Policy(zone="Middle/Earth")


@pytest.mark.parametrize("party", ["clinic", "1999999984", "111111111", "org-1"])
def test_a_recipient_is_refused_by_any_name_it_goes_by(world: SimpleNamespace, party: str) -> None:
    wanted = [world.subscription(tin=["111111111"], org=["org-1"])]
    consent = [deny("provider", party)]
    assert reasons(world, subscriptions=wanted, consent=consent) == ["opted_out_of_provider"]
    gate = Recheck(load_subscriptions(wanted), consent, now=world.KNOWN)
    asked = SimpleNamespace(subscriber_id="clinic", person_id="p1", payer_ids=["payer-a"])
    assert gate(asked) == "opted_out_of_provider"


def test_what_one_record_of_a_person_refused_its_other_records_refuse(world: SimpleNamespace) -> None:
    said = [
        deny("exchange"),
        {"person_id": "p9", "scope": "exchange", "decision": "permit"},
        deny("exchange", person_id="p7"),
    ]
    consent = shared_denials(said, [("p1", "p2"), ("p8", "p9"), ("p2", "p3")])
    assert sorted((row["person_id"], row["decision"]) for row in consent.to_pylist()) == [
        ("p1", "deny"), ("p2", "deny"), ("p3", "deny"), ("p7", "deny"), ("p9", "permit"),
    ]  # fmt: skip
    assert shared_denials(said, []).num_rows == 3
    moved = {"events": [world.event("e1", "p3")], "links": [world.link("m1", "p3")]}
    assert reasons(world, **moved, consent=said) == ["attributed"]
    assert reasons(world, **moved, consent=consent) == ["opted_out"]


def test_an_opt_in_exchange_needs_a_permit(world: SimpleNamespace) -> None:
    policy = Policy(consent_default="deny")
    assert reasons(world, policy=policy) == ["no_opt_in"]
    permit = {"person_id": "p1", "scope": "exchange", "decision": "permit"}
    assert reasons(world, policy=policy, consent=[permit]) == ["attributed"]
    with pytest.raises(ConfigError):
        Policy(consent_default="maybe")


@pytest.mark.parametrize(
    "row", [deny("excange"), deny("exchange", decision="opt-out"), {**deny("exchange"), "why": "x"}]
)
def test_a_consent_that_cannot_be_read_is_not_passed_over(world: SimpleNamespace, row: dict[str, Any]) -> None:
    with pytest.raises(SchemaMismatch):
        world.routed(consent=[row])


def test_consent_tables_may_lack_what_is_optional(world: SimpleNamespace) -> None:
    row = {
        "person_id": "p1",
        "scope": "exchange",
        "decision": "deny",
        "valid_from": date(2026, 1, 1),
        "valid_to": date(2027, 1, 1),
    }
    assert reasons(world, consent=world.table([row])) == ["opted_out"]
    with pytest.raises(SchemaMismatch, match="lacks"):
        world.routed(consent=world.table([{"person_id": "p1"}]))


def test_what_a_payer_reports_stops_that_payer_only(world: SimpleNamespace) -> None:
    out = world.attribution(sharing_pref="opt-out")
    assert reasons(world, attributions=[out]) == ["payer_opt_out"]
    later = world.attribution(sharing_pref="opt-out", sharing_pref_from=date(2026, 4, 1))
    assert reasons(world, attributions=[later]) == ["attributed"]
    routing = world.routed(
        attributions=[out, world.attribution("m2", "payer-b")],
        links=[world.link(), world.link("m2", payer_id="payer-b")],
    )
    assert routing.deliverable.to_pylist()[0]["payer_ids"] == ["payer-b"]


def test_suppressed_rows_are_held_and_disputed_ones_route(world: SimpleNamespace) -> None:
    assert reasons(world, attributions=[world.attribution(status="suppressed")]) == ["suppressed"]
    assert reasons(world, attributions=[world.attribution(status="disputed")]) == ["attributed"]


# Sensitivity ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "agreement", "expected"),
    [
        (["N"], {}, "attributed"),
        (["R"], {}, "above_ceiling"),
        (["R"], {"sensitivity_ceiling": "R"}, "attributed"),
        (["V"], {"sensitivity_ceiling": "R"}, "above_ceiling"),
        (["PSY"], {}, "sensitive"),
        (["PSY"], {"sensitivities": ["PSY"]}, "attributed"),
        (["http://terminology.hl7.org/CodeSystem/v3-ActCode|HIV"], {}, "sensitive"),
        (["VIP"], {}, "vip"),
        (["VIP"], {"sensitivities": ["VIP"]}, "attributed"),
        (["ARV:DEM"], {}, "access_restricted"),
        (["NODSCLCD"], {}, "refrain"),
        (["PROCESSINLINELABEL"], {}, "inline_labels"),
        (["TREAT"], {}, "attributed"),
        (["QUUX"], {}, "unknown_label"),
        (["QUUX", "R", "PSY"], {"sensitivity_ceiling": "V", "sensitivities": ["PSY"]}, "unknown_label"),
        (["unreadable"], {}, "unknown_label"),
    ],
)
def test_labels(world: SimpleNamespace, labels: list[str], agreement: dict[str, Any], expected: str) -> None:
    routing = world.routed([world.event(labels=labels)], subscriptions=[world.subscription(**agreement)])
    assert [reason for _, reason, _ in world.outcome(routing)] == [expected]


def test_what_is_said_of_a_visit_later_holds_what_was_not_sent_yet(world: SimpleNamespace) -> None:
    minute = datetime(2026, 3, 2, 16, tzinfo=UTC)
    admit = world.event("e1", visit_number="v")
    update = world.event(
        "e2", visit_number="v", trigger="update", labels=["VIP"], received_at=minute, event_at=minute,
        material=False, swallowed_reason="unchanged",
    )  # fmt: skip
    other = world.event("e3", visit_number="v", facility_id="elsewhere")
    discharge = world.event("e4", visit_number="v", trigger="discharge", received_at=minute.replace(hour=18))
    found = {
        row["event_key"]: row["reason_code"]
        for row in world.routed([discharge, other, update, admit]).decisions.to_pylist()
    }
    # What comes after it says itself under which labels it stands.
    assert found == {"e1": "vip", "e2": "unchanged", "e3": "attributed", "e4": "attributed"}


def test_the_strictest_label_names_the_reason() -> None:
    assert judge(["R", "VIP", "HIV"], "N", ()).reason == "vip"
    assert judge([], "N", ()).reason is None


def test_only_those_whose_agreement_says_so_are_told_of_withheld_items(world: SimpleNamespace) -> None:
    events = [world.event("e1", labels=["R"]), world.event("e2", labels=["PSY"]), world.event("e3")]
    told, untold = (
        world.subscription("told", told_of_withheld=True, npi_shared=True),
        world.subscription("untold", npi_shared=True),
    )
    routing = world.routed(events, subscriptions=[told, untold])
    assert routing.withheld().to_pylist() == [{"subscriber_id": "told", "events": 2}]


def test_part_2_needs_a_consent_and_its_statement_travels(world: SimpleNamespace) -> None:
    events = [world.event(labels=["42CFRPart2"])]
    carries = world.subscription(columns=["event_key", "event_at", "notice"])
    permit = {"person_id": "p1", "scope": "part2", "party": "clinic", "decision": "permit", "statement": STATEMENT}
    assert reasons(world, events=events, subscriptions=[carries]) == ["part2_no_consent"]
    assert reasons(world, events=events, subscriptions=[carries], consent=[{**permit, "party": "other"}]) == [
        "part2_no_consent"
    ]
    assert reasons(world, events=events, subscriptions=[carries], consent=[{**permit, "statement": None}]) == [
        "part2_no_consent"
    ]
    assert reasons(world, events=events, subscriptions=[carries], consent=[permit, deny("part2")]) == [
        "part2_no_consent"
    ]
    routing = world.routed(events, subscriptions=[carries], consent=[permit])
    assert routing.deliverable["notice"].to_pylist() == [STATEMENT]
    # A channel that has no place for the statement must not carry the event.
    assert reasons(world, events=events, consent=[permit]) == ["part2_no_notice"]


def test_a_payers_report_about_substance_use_data_is_heard(world: SimpleNamespace) -> None:
    events = [world.event(labels=["ETH"])]
    admitted = [world.subscription(sensitivities=["ETH"])]
    assert reasons(world, events=events, subscriptions=admitted) == ["attributed"]
    out = [world.attribution(samhsa_pref="opt-out")]
    assert reasons(world, events=events, subscriptions=admitted, attributions=out) == ["part2_no_consent"]
    assert reasons(world, attributions=out) == ["attributed"]


# Recipients -------------------------------------------------------------------------------------


def test_a_facility_is_not_told_of_its_own_visit_unless_it_asks(world: SimpleNamespace) -> None:
    own = world.subscription(npi=["1999999984"], org=["hospital"])
    assert reasons(world, subscriptions=[own]) == ["self_visit"]
    by_npi = world.subscription(org=["1999999976"])
    assert reasons(world, subscriptions=[by_npi]) == ["self_visit"]
    assert reasons(world, subscriptions=[own | {"self_visits": True}]) == ["attributed"]


def test_an_npi_that_two_organisations_name_is_blocked(world: SimpleNamespace) -> None:
    two = [world.subscription("a", tin=["111111111"]), world.subscription("b", tin=["222222222"])]
    assert world.outcome(world.routed(subscriptions=two)) == [
        ("held", "ambiguous_npi", "a"), ("held", "ambiguous_npi", "b"),
    ]  # fmt: skip
    shared = [item | {"npi_shared": True} for item in two]
    assert reasons(world, subscriptions=shared) == ["attributed", "attributed"]


def test_the_rosters_tin_decides_between_them(world: SimpleNamespace) -> None:
    two = [world.subscription("a", tin=["111111111"]), world.subscription("b", tin=["22-2222222"])]
    routing = world.routed(attributions=[world.attribution(provider_tin="222222222")], subscriptions=two)
    assert world.outcome(routing) == [("deliver", "attributed", "b"), ("held", "other_organisation", "a")]
    elsewhere = world.routed(attributions=[world.attribution(provider_tin="333333333")], subscriptions=two[:1])
    assert world.outcome(elsewhere) == [("held", "other_organisation", "a")]


def test_provider_org_at_the_event_decides_when_the_roster_does_not(world: SimpleNamespace) -> None:
    two = [world.subscription("a", tin=["111111111"]), world.subscription("b", org=["org-b"])]
    place = {
        "npi": world.NPI_A,
        "tin": None,
        "org": "org-b",
        "valid_from": date(2026, 1, 1),
        "valid_to": date(2026, 6, 1),
    }
    routing = world.routed(subscriptions=two, provider_org=[place])
    assert world.outcome(routing) == [("deliver", "attributed", "b"), ("held", "other_organisation", "a")]
    ended = world.routed(subscriptions=two, provider_org=[place | {"valid_to": date(2026, 3, 2)}])
    assert {reason for _, reason, _ in world.outcome(ended)} == {"ambiguous_npi"}
    both = [place, place | {"tin": "111111111", "org": None}]
    assert {reason for _, reason, _ in world.outcome(world.routed(subscriptions=two, provider_org=both))} == {
        "ambiguous_npi"
    }


def test_organisations_and_tins_alone_are_told_too(world: SimpleNamespace) -> None:
    practice = world.attribution(npi=None, org_id="org-b", provider_tin="222222222", attribution_level="practice")
    routing = world.routed(
        attributions=[practice],
        subscriptions=[
            world.subscription("b", npi=None, org=["org-b"]),
            world.subscription("t", npi=None, tin="222222222"),
        ],
    )
    assert [subscriber for _, _, subscriber in world.outcome(routing)] == ["b", "t"]


def test_subscriptions_not_in_force_hold_their_events(world: SimpleNamespace) -> None:
    ended = world.subscription(active_to="2026-03-06")
    assert reasons(world, subscriptions=[ended]) == ["subscription_inactive"]
    renewed = [ended, world.subscription(active_from="2026-03-06")]
    assert reasons(world, subscriptions=renewed) == ["attributed"]


def test_a_new_subscriber_is_not_told_of_what_happened_before(world: SimpleNamespace) -> None:
    """The event is of 2026-03-02; a changed preference is no new subscriber."""
    assert reasons(world, subscriptions=[world.subscription(active_from="2026-03-03")]) == ["before_subscription"]
    assert reasons(world, subscriptions=[world.subscription(active_from="2026-03-02")]) == ["attributed"]
    changed = [
        world.subscription(active_from="2026-01-01", active_to="2026-03-03"),
        world.subscription(active_from="2026-03-03"),
    ]
    assert reasons(world, subscriptions=changed) == ["attributed"]


def test_events_after_death(world: SimpleNamespace) -> None:
    people = world.table([{"person_id": "p1", "birth_date": "1950-05-05", "deceased_at": "2026-02-01"}])
    careful = [world.subscription(after_death=False)]
    assert reasons(world, persons=people) == ["attributed"]
    assert reasons(world, persons=people, subscriptions=careful) == ["deceased"]


# Clock two --------------------------------------------------------------------------------------


def test_grace_after_an_attribution_ended(world: SimpleNamespace) -> None:
    ended = [world.attribution(valid_to=date(2026, 3, 3))]
    assert reasons(world, attributions=ended) == ["attributed"]
    for days, expected in ((2, "attribution_ended"), (3, "attribution_ended"), (4, "attributed")):
        assert reasons(world, attributions=ended, subscriptions=[world.subscription(grace_days=days)]) == [expected]


def test_late_events_take_the_attribution_the_subscriber_chose(world: SimpleNamespace) -> None:
    moved = [
        world.attribution(valid_to=date(2026, 3, 4)),
        world.attribution(npi=world.NPI_B, valid_from=date(2026, 3, 4)),
    ]
    new = world.subscription("new", npi=[world.NPI_B], late="delivery_time")
    old = world.subscription("old", late="delivery_time")
    assert world.outcome(world.routed(attributions=moved, subscriptions=[new, old])) == [
        ("deliver", "attributed", "new"), ("held", "not_attributed_then", "old"),
    ]  # fmt: skip
    both = [world.subscription("new", npi=[world.NPI_B], late="both"), world.subscription("old", late="both")]
    assert world.routed(attributions=moved, subscriptions=both).deliverable.num_rows == 2
    default = [world.subscription("new", npi=[world.NPI_B]), world.subscription("old")]
    assert world.outcome(world.routed(attributions=moved, subscriptions=default)) == [("deliver", "attributed", "old")]


def test_stale_rosters_stop(world: SimpleNamespace) -> None:
    assert reasons(world, policy=Policy(stale_after_days=60)) == ["stale_roster"]
    assert reasons(world, policy=Policy(stale_after_days=90)) == ["attributed"]


def test_retroactive_attributions_are_caught_up_within_a_limit(world: SimpleNamespace) -> None:
    known = [world.attribution(known_from=world.KNOWN)]
    again = [*known, world.attribution(known_from=datetime(2026, 4, 7, tzinfo=UTC), change_type="nochange")]
    for rows, at in ((known, world.KNOWN), (again, datetime(2026, 5, 1, tzinfo=UTC))):
        routing = world.routed(attributions=rows, known_at=at)
        assert routing.deliverable["catch_up"].to_pylist() == [True]
        limited = world.routed(attributions=rows, known_at=at, subscriptions=[world.subscription(back_fill_days=3)])
        assert world.outcome(limited) == [("held", "beyond_back_fill", "clinic")], "as long as anybody asks"
    assert world.routed().deliverable["catch_up"].to_pylist() == [False]


# Preferences ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"classes": ["EMER"]}, "filtered_class"),
        ({"classes": ["IMP"]}, "attributed"),
        ({"triggers": ["discharge"]}, "filtered_trigger"),
        ({"triggers": ["admit"]}, "attributed"),
        ({"diagnoses": ["E11"]}, "filtered_diagnosis"),
        ({"diagnoses": ["I1"]}, "attributed"),
        ({"age_min": 65}, "filtered_age"),
        ({"age_max": 64}, "attributed"),
    ],
)
def test_filters(world: SimpleNamespace, wish: dict[str, Any], expected: str) -> None:
    event = world.event(diagnoses=[{"system": "s", "code": "I10", "display": None}])
    people = world.table([{"person_id": "p1", "birth_date": "1961-03-03", "deceased_at": None}])
    assert reasons(world, events=[event], subscriptions=[world.subscription(**wish)], persons=people) == [expected]


def test_an_age_filter_without_a_birth_date_holds(world: SimpleNamespace) -> None:
    assert reasons(world, subscriptions=[world.subscription(age_min=65)]) == ["age_unknown"]


def test_planned_visits_and_changes_of_diagnosis_alone_only_on_request(world: SimpleNamespace) -> None:
    planned = [world.event(trigger="preadmit")]
    assert reasons(world, events=planned) == ["filtered_trigger"]
    assert reasons(world, events=planned, subscriptions=[world.subscription(triggers=["preadmit"])]) == ["attributed"]
    change = [
        world.event(
            trigger="update", flags=["diagnosis_only"], diagnoses=[{"system": "s", "code": "I10", "display": None}]
        )
    ]
    assert reasons(world, events=change) == ["filtered_diagnosis"]
    assert reasons(world, events=change, subscriptions=[world.subscription(diagnoses=["I"])]) == ["attributed"]


def test_channels_choose_by_class_and_trigger(world: SimpleNamespace) -> None:
    channels = [
        {"id": "now", "url": "now", "classes": ["EMER"]},
        {"id": "daily", "url": "daily", "triggers": ["admit", "discharge"]},
    ]
    two = [world.subscription(channel=None, channels=channels)]
    routing = world.routed(
        [
            world.event(),
            world.event("e2", **{"class": "EMER", "trigger": "update"}),
            world.event("e3", trigger="update"),
        ],
        subscriptions=two,
    )
    told = {(row["event_key"], row["channel_id"], row["reason_code"]) for row in routing.decisions.to_pylist()}
    assert told == {("e1", "daily", "attributed"), ("e2", "now", "attributed"), ("e3", None, "filtered_channel")}


def test_a_cancel_goes_to_whom_the_original_went(world: SimpleNamespace) -> None:
    original = world.event("e1", event_on=date(2026, 2, 1))
    cancel = world.event("e2", trigger="cancel_admit", status="cancelled", corrects="e1", event_on=date(2026, 3, 2))
    ended = [world.attribution(valid_to=date(2026, 3, 1))]
    only_admissions = [world.subscription(triggers=["admit"])]
    routing = world.routed([original, cancel], attributions=ended, subscriptions=only_admissions)
    assert routing.deliverable["event_key"].to_pylist() == ["e1", "e2"]
    alone = world.routed([cancel], attributions=[world.attribution()], subscriptions=only_admissions)
    assert alone.deliverable.num_rows == 1


def test_columns_are_the_channels_within_the_subscribers(world: SimpleNamespace) -> None:
    wish = world.subscription(channel=None, columns=["event_key", "event_at", "notice"], channels=[
        {"id": "a", "url": "a", "columns": ["event_at", "facility_name"]}, {"id": "b", "url": "b"},
    ])  # fmt: skip
    routing = world.routed(subscriptions=[wish])
    assert dict(zip(*(routing.decisions[name].to_pylist() for name in ("channel_id", "columns")), strict=True)) == {
        "a": ["event_at"], "b": ["event_key", "event_at", "notice"],
    }  # fmt: skip


# The check at the moment of sending -------------------------------------------------------------


@pytest.mark.parametrize(
    ("consent", "expected"),
    [
        ([], None),
        ([deny("exchange")], "opted_out"),
        ([deny("exchange", known_from=datetime(2026, 3, 7, tzinfo=UTC))], None),
        ([deny("provider", "clinic")], "opted_out_of_provider"),
        ([deny("payer", "payer-a")], None),
        ([deny("payer", "payer-a"), deny("payer", "payer-b")], "opted_out_of_payer"),
        ([deny("payer")], "opted_out_of_payer"),
    ],
)
def test_an_opt_out_between_route_and_send_stops_it(
    world: SimpleNamespace, consent: list[dict[str, Any]], expected: str | None
) -> None:
    waiting = SimpleNamespace(subscriber_id="clinic", person_id="p1", payer_ids=("payer-a", "payer-b"))
    check = Recheck(load_subscriptions([world.subscription()]), consent, now=world.KNOWN)
    assert check(waiting) == expected


def test_the_recheck_knows_the_exchange_and_the_subscription(world: SimpleNamespace) -> None:
    waiting = SimpleNamespace(subscriber_id="clinic", person_id="p1", payer_ids=())
    ended = load_subscriptions([world.subscription(active_to="2026-03-06")])
    assert Recheck(ended, None, now=world.KNOWN)(waiting) == "subscription_inactive"
    opt_in = Policy(consent_default="deny")
    now = load_subscriptions([world.subscription()])
    assert Recheck(now, None, now=world.KNOWN, policy=opt_in)(waiting) == "no_opt_in"
    permit = [{"person_id": "p1", "scope": "exchange", "decision": "permit"}]
    assert Recheck(now, permit, now=world.KNOWN, policy=opt_in)(waiting) is None
