"""The router for events as they arrive: the decisions of the set-based join, row for row."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.errors import SchemaMismatch
from hiexchange.routing import Policy, Router, RoutingIndex, load_subscriptions, route
from hiexchange.routing.reasons import REASONS
from hiexchange.tables import ATTRIBUTION, ENCOUNTER_EVENT, OPEN_DATE, PERSON, PERSON_LINK

KNOWN = datetime(2026, 3, 6, tzinfo=UTC)
NPIS = ["1999999984", "1999999992", "1999999976"]
TINS = ["111111111", "222222222"]
ORGS = ["org-1", "org-2", "hospital"]
PEOPLE = [f"p{number}" for number in range(12)]
PAYERS = ["payer-a", "payer-b", "payer-c"]


class World:
    """A small world in which every rule has a chance to decide."""

    def __init__(self, seed: int, make: SimpleNamespace) -> None:
        self.dice = random.Random(seed)
        self.strict = seed % 2 == 0
        self.make = make
        self.events = self._events()
        self.links = self._links()
        self.attribution = self._attribution()
        self.subscriptions = load_subscriptions(self._subscriptions())
        self.consent = self._consent()
        self.places = [self._place() for _ in range(6)]
        self.persons = [self._person(person) for person in PEOPLE[:9]]

    def some(self, *values: Any, of: float = 0.5) -> Any:
        """One of the values with a probability, else None."""
        return self.dice.choice(values) if self.dice.random() < of else None

    def picky(self, *values: Any, of: float) -> Any:
        """As :meth:`some`; in every other world subscribers ask for little, so that later rules decide too."""
        return self.some(*values, of=of if self.strict else of / 8)

    def day(self, around: date = date(2026, 3, 1), spread: int = 90) -> date:
        """A day near another."""
        return around + timedelta(days=self.dice.randint(-spread, spread))

    def _events(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for number in range(40):
            on = self.day(spread=5)
            material = self.dice.random() < 0.9
            row = self.make.event(
                f"e{number:02}",
                self.some(*PEOPLE, "stranger", of=0.95),
                visit_number=f"v{number - 1 if number % 8 == 7 else number}",
                event_on=on,
                event_at=datetime(on.year, on.month, on.day, 15, tzinfo=UTC),
                received_at=KNOWN - timedelta(days=self.dice.randint(0, 9)),
                trigger=self.dice.choice(
                    ["admit", "admit", "discharge", "preadmit", "update", "cancel_admit", "cancel_discharge", "merge"]
                ),
                facility_id=self.dice.choice(["hospital", "org-2", "elsewhere"]),
                facility_npi=self.some(*NPIS),
                material=material,
                swallowed_reason=None if material else self.some("unchanged", "bed_move"),
                labels=self.dice.choice(
                    [[]] * 7
                    + [
                        ["42CFRPart2"],
                        ["42CFRPart2"],
                        ["ETH"],
                        ["R"],
                        ["VIP"],
                        ["ARV:X"],
                        ["HOMEMADE"],
                        ["NOAUTH"],
                        ["N", "PSY"],
                    ]
                    + [["PROCESSINLINELABEL", "42CFRPart2"], ["42CFRPart2", "SUD"]]
                    + [["42CFRPart2"]] * 4
                ),
                flags=self.dice.choice([[], [], ["diagnosis_only"], ["naive_time"]]),
                diagnoses=self.dice.choice(
                    [None, [], [{"system": "s", "code": "I10", "display": None}], [{"code": None}, {"code": "R07.9"}]]
                ),
                **{"class": self.some("IMP", "EMER", "AMB", of=0.9)},
            )
            if row["trigger"].startswith("cancel") and rows:
                row["corrects"] = self.some(self.dice.choice(rows)["event_key"], "unknown")
            rows.append(row)
        return rows

    def _links(self) -> list[dict[str, Any]]:
        rows = []
        for number in range(30):
            for version in range(self.dice.choice([1, 1, 1, 2])):
                known_from = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(days=version * 40 + self.dice.randint(0, 30))
                gone = self.dice.random() < 0.05
                rows.append(
                    self.make.link(
                        f"m{number}",
                        self.some(*PEOPLE, of=0.95),
                        self.dice.choice(["auto", "auto", "auto", "review", "none"]),
                        payer_id=PAYERS[number % 3],
                        known_from=known_from,
                        **({"known_to": known_from + timedelta(days=5)} if gone else {}),
                    )
                )
        return rows

    def _attribution(self) -> list[dict[str, Any]]:
        rows = []
        for number in range(90):
            member = self.dice.randrange(32)
            begin = self.day(date(2026, 1, 1), 70)
            known_from = self.dice.choice(
                [KNOWN - timedelta(days=1)] * 3 + [KNOWN - timedelta(days=64 - number % 50)] * 5
            )
            for version in range(self.dice.choice([1, 1, 2])):
                rows.append(
                    self.make.attribution(
                        f"m{member}",
                        PAYERS[member % 3],
                        self.some(*NPIS, of=0.9),
                        attribution_id=f"a{number:02}",
                        provider_tin=self.some(*TINS, of=0.2),
                        org_id=self.some(*ORGS, of=0.2),
                        valid_from=begin,
                        valid_to=self.some(self.day(), self.day(date(2026, 3, 3), 3), begin, of=0.5) or OPEN_DATE,
                        known_from=known_from + timedelta(days=version * 31),
                        as_of_on=self.day(date(2026, 2, 1), 40),
                        change_type=self.dice.choice(["new"] * 8 + ["changed", "cancelled"]),
                        sharing_pref=self.some("opt-out", "opt-in", of=0.1),
                        sharing_pref_from=self.some(self.day()),
                        samhsa_pref=self.some("opt-out", "opt-in", of=0.3),
                        status=self.dice.choice(["active"] * 9 + ["suppressed"]),
                        basis=self.dice.choice(["payer_assigned", "patient_choice", "claims_other", "moonlight"]),
                        attribution_level=self.dice.choice(["clinician", "practice", "org"]),
                    )
                )
        return rows

    def _subscriptions(self) -> list[dict[str, Any]]:
        rows = []
        for number in range(9):
            channels = [
                {
                    "id": f"c{index}",
                    "url": f"out/{number}/{index}",
                    "format": self.dice.choice(["csv", "csv", "tsv", "fhir", "hl7v2"]),
                    "classes": self.picky(["IMP"], ["IMP", "AMB"], of=0.3),
                    "triggers": self.picky(["admit", "discharge", "register"], of=0.3),
                    "columns": self.some(["event_key", "notice"], ["event_key", "trigger"]),
                }
                for index in range(self.dice.choice([1, 1, 2]))
            ]
            row = {
                "id": f"s{number}",
                "channels": [{key: value for key, value in one.items() if value is not None} for one in channels],
                "npi": self.some([self.dice.choice(NPIS)], NPIS[:2], of=0.9),
                "tin": self.some([TINS[0]], [TINS[1]], of=0.3),
                "org": self.some([self.dice.choice(ORGS)], of=0.3),
                "classes": self.picky(["IMP", "EMER"], of=0.2),
                "triggers": self.picky(["admit", "cancel_admit", "preadmit"], of=0.2),
                "diagnoses": self.picky(["I1"], ["R07", "E11"], of=0.2),
                "age_min": self.picky(18, 65, of=0.15),
                "age_max": self.picky(64, of=0.15),
                "columns": self.some(["event_key", "notice", "class"], of=0.3),
                "active_from": date(2026, 2, 27) if number == 7 else None,
                "active_to": self.picky(date(2026, 3, 1), of=0.15),
                "sensitivity_ceiling": self.some("R", of=0.3),
                "sensitivities": self.some(["ETH"], ["ETH", "SUD", "PSY"], of=0.4),
                "self_visits": self.some(True, of=0.3),
                "after_death": self.some(False, of=0.4),
                "grace_days": self.some(0, 0, 10, of=0.5),
                "late": self.some("delivery_time", "both", of=0.4),
                "npi_shared": self.some(True, of=0.4),
                "back_fill_days": self.some(0, 2, of=0.8),
            }
            if not (row["npi"] or row["tin"] or row["org"]):
                row["npi"] = [NPIS[0]]
            rows.append({key: value for key, value in row.items() if value is not None})
        rows.append({"id": "s0", "npi": [NPIS[0]], "channel": "out/again", "active_from": date(2030, 1, 1)})
        if "active_to" not in rows[0]:
            rows[0]["active_to"] = date(2030, 1, 1)
        return rows

    def _consent(self) -> list[dict[str, Any]]:
        rows = []
        for _ in range(24):
            scope = self.dice.choice(["exchange", "payer", "provider", *["part2"] * 4])
            party = {"payer": PAYERS, "exchange": [None]}.get(scope, ["s1", "s2", *NPIS, "org-1"])
            decision = self.dice.choice(["permit"] * 4 + ["deny"]) if scope != "payer" else "deny"
            rows.append(
                {
                    "person_id": self.dice.choice(PEOPLE),
                    "scope": scope,
                    "party": self.some(*party, of=0.5),
                    "decision": decision,
                    "valid_from": self.day(),
                    "known_from": self.some(KNOWN - timedelta(days=1), KNOWN + timedelta(days=1), of=0.3),
                    "statement": self.some("scope one", "scope two", of=0.8) if decision == "permit" else None,
                }
            )
        return rows

    def _place(self) -> dict[str, Any]:
        return {
            "npi": self.dice.choice(NPIS),
            "tin": self.some(*TINS),
            "org": self.some(*ORGS),
            "valid_from": self.day(date(2025, 12, 1)),
            "valid_to": self.some(self.day(), of=0.3) or OPEN_DATE,
        }

    def _person(self, person: str) -> dict[str, Any]:
        born = self.some("1960-03-02", "2008-02-29", "1961", "2026-02-28", "2026-06-01", of=0.9)
        return {
            "person_id": person,
            "birth_date": born,
            "deceased_at": self.some("2026-02-28T10:00:00Z", "2026", of=0.3),
        }


def both(world: World, path: Path, **rules: Any) -> tuple[pa.Table, pa.Table]:
    """Decisions of the join over whole tables, and of the router over the index."""
    attribution, links = ATTRIBUTION.from_rows(world.attribution), PERSON_LINK.from_rows(world.links)
    events, persons = ENCOUNTER_EVENT.from_rows(world.events), PERSON.from_rows(world.persons)
    policy = Policy(**rules)
    with RoutingIndex(path, attribution=attribution, links=links, known_at=KNOWN, persons=persons) as index:
        router = Router(index, world.subscriptions, consent=world.consent, provider_org=world.places, policy=policy)
        one = router.route(events, known_at=KNOWN)
        joined = route(
            events, attribution, links, world.subscriptions, known_at=KNOWN, consent=world.consent, persons=persons,
            policy=policy, provider_org=world.places,
        )  # fmt: skip
    return joined.decisions, one.decisions


RULES: list[dict[str, Any]] = [
    {},
    {"consent_default": "deny"},
    {"stale_after_days": 30, "zone": "America/Chicago"},
]


def test_the_router_decides_as_the_join_does(world: SimpleNamespace, tmp_path: Path) -> None:
    seen: set[str] = set()
    for seed in range(16):
        joined, routed = both(World(seed, world), tmp_path / "index.duckdb", **RULES[seed % 3])
        assert routed.to_pylist() == joined.to_pylist(), f"world {seed}"
        assert routed.schema == joined.schema
        seen |= set(joined["reason_code"].to_pylist())
    # Every rule of the gate has decided somewhere; the others are reasons of intake, before routing.
    intake = {"duplicate", "test_patient", "cancelled_before_send", "superseded", "merge"}
    assert set(REASONS) - seen <= intake


def test_one_event_at_a_time_is_decided_as_in_one_set(world: SimpleNamespace, tmp_path: Path) -> None:
    events = [world.event(f"e{n}", f"p{n}") for n in range(4)]
    links = PERSON_LINK.from_rows([world.link(f"m{n}", f"p{n}") for n in range(3)])
    attribution = ATTRIBUTION.from_rows([world.attribution(f"m{n}") for n in range(2)])
    wanted = load_subscriptions([world.subscription()])
    with RoutingIndex(tmp_path / "index", attribution=attribution, links=links, known_at=world.KNOWN) as index:
        router = Router(index, wanted)
        parts = [router.route(ENCOUNTER_EVENT.from_rows([event]), known_at=world.KNOWN).decisions for event in events]
    whole = world.routed(events, attribution.to_pylist(), links.to_pylist()).decisions
    assert pa.concat_tables(parts) == whole


def test_subscriptions_change_with_the_day(world: SimpleNamespace, tmp_path: Path) -> None:
    attribution, links = ATTRIBUTION.from_rows([world.attribution()]), PERSON_LINK.from_rows([world.link()])
    spans = [
        world.subscription(active_to=date(2026, 3, 7)),
        world.subscription(active_from=date(2026, 3, 9), channel="out/new"),
    ]
    events = ENCOUNTER_EVENT.from_rows([world.event()])
    with RoutingIndex(tmp_path / "index", attribution=attribution, links=links, known_at=world.KNOWN) as index:
        router = Router(index, spans)
        reasons = [
            router.route(events, known_at=world.KNOWN + timedelta(days=days)).decisions["reason_code"].to_pylist()
            for days in (0, 2, 4)
        ]
    assert reasons == [["attributed"], ["subscription_inactive"], ["attributed"]]


def test_what_is_not_usable_is_refused(world: SimpleNamespace, tmp_path: Path) -> None:
    with RoutingIndex(tmp_path / "index", attribution=None, links=None, known_at=world.KNOWN) as index:
        with pytest.raises(SchemaMismatch):
            Router(index, [world.subscription()], consent=[{"person_id": "p", "scope": "all", "decision": "deny"}])
        router = Router(index, [world.subscription()])
        with pytest.raises(ValueError, match="aware"):
            router.route(ENCOUNTER_EVENT.empty(), known_at=datetime(2026, 3, 6))
        (row,) = router.route(ENCOUNTER_EVENT.from_rows([world.event()]), known_at=world.KNOWN).decisions.to_pylist()
    assert (row["decision"], row["reason_code"]) == ("unmatched", "no_member")
