"""Route events as they arrive: the decisions of ``route`` for a handful of events, without planning SQL for each.

The set-based join (:mod:`hiexchange.routing.join`) costs the same for one event as for a thousand: a fifth of
a second of planning. Here the same rules are plain Python over the few rows that an index by person gives. A
property test holds the two to the same decisions, row for row; a rule changed there is changed here.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from hiexchange.routing.index import RoutingIndex
from hiexchange.routing.inputs import columns
from hiexchange.routing.policy import (
    DENY,
    PERMIT,
    PROVIDER_ORG,
    Consents,
    Policy,
    Verdict,
    concerns,
    consent_reason,
    judge,
    visit_labels,
)
from hiexchange.routing.reasons import REASONS
from hiexchange.routing.route import Routing, Wish, wishes
from hiexchange.routing.subscriptions import Subscriptions, load_subscriptions
from hiexchange.tables import ATTRIBUTION_BASES, ATTRIBUTION_LEVELS, ENCOUNTER_EVENT, ROUTING_DECISION, check

Row = Mapping[str, Any]
_EVENT = (
    "event_key",
    "person_id",
    "event_on",
    "received_at",
    "trigger",
    "class",
    "facility_id",
    "facility_npi",
    "material",
    "swallowed_reason",
    "corrects",
    "flags",
    "labels",
    "diagnoses",
)
_CANCELS = {
    "cancel_admit": ("admit", "register"),
    "cancel_transfer": ("transfer",),
    "cancel_discharge": ("discharge",),
}


@dataclass(frozen=True, slots=True)
class _Clock:
    """The instants a decision is made by."""

    known_at: datetime
    on: date


@dataclass(frozen=True, slots=True)
class _Told:
    """An event that is news about a known person."""

    row: Row
    lookup_on: date
    """The day attribution is looked up: of the event, or of what a cancel takes back."""
    triggers: tuple[str, ...]
    consents: list[dict[str, Any]]


@dataclass(slots=True)
class _Candidate:
    """One attribution of the event's person that held at the event, or holds now."""

    row: Row
    at_event: bool
    at_delivery: bool
    catch_up: bool
    reason: str | None = None
    """Why this row may not route, set for one subscriber at a time."""


class Router:
    """Decides for events as they arrive. One thread at a time; build a new one when rosters or rules change."""

    def __init__(
        self,
        index: RoutingIndex,
        subscriptions: Subscriptions | Iterable[Mapping[str, Any]],
        *,
        consent: Any = None,
        provider_org: Any = None,
        policy: Policy | None = None,
    ) -> None:
        """Keep what does not change between events.

        Args:
            index: Links, attribution and persons by person.
            subscriptions: Who wants what.
            consent: As of :func:`hiexchange.routing.route`.
            provider_org: As of :func:`hiexchange.routing.route`.
            policy: The exchange's rules; by default an opt-out exchange.

        Raises:
            SchemaMismatch: A table is not what it should be.
            ConfigError: A subscription is not one.
        """
        self._index = index
        self._wanted = subscriptions if isinstance(subscriptions, Subscriptions) else load_subscriptions(subscriptions)
        self._consents = Consents(consent)
        self._policy = policy or Policy()
        self._places: dict[str, list[dict[str, Any]]] = {}
        for row in columns(provider_org, PROVIDER_ORG).to_pylist():
            self._places.setdefault(row["npi"], []).append(row)
        self._verdicts: dict[Any, Verdict] = {}
        self._on: date | None = None
        self._wishes: list[Wish] = []
        self._keys: dict[tuple[str, str], list[Wish]] = {}

    def route(self, events: Any, *, known_at: datetime) -> Routing:
        """Return who gets each event, as :func:`hiexchange.routing.route` does.

        Args:
            events: ENCOUNTER_EVENT rows; what a cancel takes back should be among them, and so should what was said of
                their visits since.
            known_at: Knowledge time (aware).

        Raises:
            SchemaMismatch: The table is not of its schema.
            ValueError: ``known_at`` has no time zone.
        """
        if known_at.tzinfo is None:
            raise ValueError("known_at must be aware: give it a time zone")
        known_at = known_at.astimezone(UTC)
        clock = _Clock(known_at, self._policy.day(known_at))
        self._turn_to(clock.on)
        table = check(events, ENCOUNTER_EVENT)
        rows = table.select(_EVENT).to_pylist()
        found = self._index.of({row["person_id"] for row in rows if row["material"] and row["person_id"] is not None})
        for number, labels in visit_labels(table).items():
            rows[number]["labels"] = labels
        by_key = {row["event_key"]: row for row in rows}
        decisions = [decision for row in rows for decision in self._decide(row, by_key, found, clock)]
        return Routing(_decision_table(decisions, known_at), table, self._wanted, known_at)

    def _turn_to(self, on: date) -> None:
        """Take the subscriptions that are in force on another day."""
        if on == self._on:
            return
        self._on, self._wishes, self._keys = on, wishes(self._wanted, on), {}
        for wish in self._wishes:
            for kind in ("npi", "tin", "org"):
                for value in dict.fromkeys(getattr(wish.item, kind)):
                    self._keys.setdefault((kind, value), []).append(wish)

    def _decide(
        self, event: Row, by_key: Mapping[str, Row], found: Mapping[str, Any], clock: _Clock
    ) -> Iterator[dict[str, Any]]:
        person = found.get(event["person_id"])
        links = person.linked_at(clock.known_at) if person is not None else {}
        linked = {member for member, band in links.items() if band == "auto"}
        candidates: list[_Candidate] = []
        decided: list[dict[str, Any]] = []
        if event["material"] and event["person_id"] is not None:
            told = _told(event, by_key, self._consents.of(event["person_id"], clock.known_at, clock.on))
            rows = person.attributed_at(clock.known_at, linked) if person is not None else []
            candidates = list(_candidates(told, rows, clock))
            for wish, offered in self._offers(told, candidates, clock):
                decided += self._for(told, wish, offered, person.person if person is not None else None)
        if decided:
            first = min((row["held"], row["first"]) for row in decided)
            for row in decided:
                yield row | {"primary": not row["held"] and (row["held"], row["first"]) == first}
            return
        decision, reason = _end(event, bool(links), bool(linked), candidates)
        yield {"event_key": event["event_key"], "person_id": event["person_id"]} | {
            "decision": decision,
            "reason_code": reason,
        }

    def _offers(
        self, told: _Told, candidates: list[_Candidate], clock: _Clock
    ) -> Iterator[tuple[Wish, list[_Candidate]]]:
        """Yield each subscriber that an attribution names, with those attributions and what keeps each from it."""
        offered: dict[int, tuple[Wish, list[_Candidate]]] = {}
        for candidate in candidates:
            for wish, place in self._placed(told, candidate.row):
                if wish.item.late == "event_time" and not candidate.at_event:
                    continue
                reason = self._row_reason(told, candidate, wish, place, clock)
                mine = _Candidate(candidate.row, candidate.at_event, candidate.at_delivery, candidate.catch_up, reason)
                offered.setdefault(wish.number, (wish, []))[1].append(mine)
        yield from offered.values()

    def _placed(self, told: _Told, row: Row) -> Iterator[tuple[Wish, str | None]]:
        """Yield the subscribers that a row names, with the reason why it may mean another organisation."""
        hits: dict[int, tuple[Wish, set[str]]] = {}
        for kind, value in (("npi", row["provider_npi"]), ("tin", row["provider_tin"]), ("org", row["org_id"])):
            for wish in self._keys.get((kind, value), ()):
                hits.setdefault(wish.number, (wish, set()))[1].add(kind)
        judged = []
        for wish, kinds in hits.values():
            strong = bool(kinds & {"tin", "org"})
            elsewhere = not strong and bool(
                (row["provider_tin"] and wish.item.tin) or (row["org_id"] and wish.item.org)
            )
            judged.append((wish, strong, elsewhere))
        weak = [wish for wish, strong, _ in judged if not strong]
        confirmed = {wish.number for wish in weak if self._works_for(told, row["provider_npi"], wish)}
        rivals = sum(not strong and not elsewhere and not wish.item.npi_shared for wish, strong, elsewhere in judged)
        for wish, strong, elsewhere in judged:
            if strong or (wish.item.npi_shared and not elsewhere):
                yield wish, None
            elif elsewhere:
                yield wish, "other_organisation"
            elif rivals <= 1:
                yield wish, None
            elif len(confirmed) == 1:
                yield wish, None if wish.number in confirmed else "other_organisation"
            else:
                yield wish, "ambiguous_npi"

    def _works_for(self, told: _Told, npi: str | None, wish: Wish) -> bool:
        return any(
            place["valid_from"] <= told.lookup_on < place["valid_to"]
            and (place["tin"] in wish.item.tin or place["org"] in wish.item.org)
            for place in self._places.get(npi or "", ())
        )

    def _row_reason(
        self, told: _Told, candidate: _Candidate, wish: Wish, place: str | None, clock: _Clock
    ) -> str | None:
        """Return why an attribution may not route to a subscriber: clock two, per row."""
        row, item = candidate.row, wish.item
        if row["sharing_pref"] == "opt-out" and (row["sharing_pref_from"] or date.min) <= clock.on:
            return "payer_opt_out"
        if row["status"] == "suppressed":
            return "suppressed"
        if (item.late == "event_time" and not candidate.at_event) or (
            item.late == "delivery_time" and not candidate.at_delivery
        ):
            return "not_attributed_then"
        if place is not None:
            return place
        payer = (row["payer_id"],)
        if any(one["scope"] == "payer" and one["decision"] == DENY and concerns(one, payer) for one in told.consents):
            return "opted_out_of_payer"
        if item.grace_days is not None and row["valid_to"] <= clock.on - timedelta(days=item.grace_days):
            return "attribution_ended"
        stale = self._policy.stale_after_days
        if stale is not None and row["as_of_on"] is not None and row["as_of_on"] < clock.on - timedelta(days=stale):
            return "stale_roster"
        if candidate.catch_up and (row["first_known"].date() - told.row["event_on"]).days > item.back_fill_days:
            return "beyond_back_fill"
        return None

    def _for(self, told: _Told, wish: Wish, offered: list[_Candidate], person: Row | None) -> Iterator[dict[str, Any]]:
        """Yield the decisions of one event for one subscriber: one a channel and provider."""
        verdict = self._verdict(told.row["labels"] or (), wish)
        part2 = [one for one in told.consents if one["scope"] == "part2" and concerns(one, wish.names)]
        permits = [one["statement"] for one in part2 if one["decision"] == PERMIT and one["statement"] is not None]
        statement = max(permits, default=None)
        denied = any(one["decision"] == DENY for one in part2)
        samhsa = any(one.row["samhsa_pref"] == "opt-out" for one in offered)
        gate = None if wish.in_force else "subscription_inactive"
        gate = gate or ("before_subscription" if told.lookup_on < wish.since else None)
        gate = gate or consent_reason(told.consents, wish.names, self._policy) or verdict.reason
        if gate is None and ((verdict.part2 and (denied or statement is None)) or (verdict.substance_use and samhsa)):
            gate = "part2_no_consent"
        gate = gate or _preference(told, wish, person)
        groups: dict[tuple[str | None, str | None], list[_Candidate]] = {}
        for one in offered:
            groups.setdefault((one.row["provider_npi"], one.row["org_id"]), []).append(one)
        for (npi, org), several in groups.items():
            allowed = [one for one in several if one.reason is None]
            reason = gate or (None if allowed else min(one.reason for one in several if one.reason is not None))
            named = sorted(
                (one.row["payer_id"], one.row["member_key"], one.row["attribution_id"]) for one in allowed or several
            )
            shared = {
                "event_key": told.row["event_key"],
                "person_id": told.row["person_id"],
                "subscriber_id": wish.item.id,
                "provider_npi": npi,
                "org_id": org,
                "payer_ids": [payer for payer, _, _ in named],
                "member_keys": [member for _, member, _ in named],
                "attribution_ids": [key for _, _, key in named],
                "catch_up": bool(allowed) and all(one.catch_up for one in allowed),
                "notice": statement if verdict.part2 else None,
                "first": min(_rank(one.row) for one in several),
            }
            for channel_id, names, held in _channels(told, wish, reason, part2=verdict.part2):
                decision = {"decision": "held" if held else "deliver", "reason_code": held or "attributed"}
                yield shared | decision | {"channel_id": channel_id, "columns": names, "held": held is not None}

    def _verdict(self, labels: Iterable[str], wish: Wish) -> Verdict:
        key = (tuple(labels), wish.item.sensitivity_ceiling, wish.item.sensitivities)
        if key not in self._verdicts:
            if len(self._verdicts) > 10_000:
                self._verdicts.clear()
            self._verdicts[key] = judge(*key)
        return self._verdicts[key]


def _told(event: Row, by_key: Mapping[str, Row], consents: list[dict[str, Any]]) -> _Told:
    original = by_key.get(event["corrects"] or "")
    triggers: tuple[str, ...] = _CANCELS.get(event["trigger"], (event["trigger"],))
    if original is not None and event["trigger"].startswith("cancel"):
        triggers = (original["trigger"],)
    return _Told(event, original["event_on"] if original is not None else event["event_on"], triggers, consents)


def _candidates(told: _Told, rows: Iterable[Row], clock: _Clock) -> Iterator[_Candidate]:
    for row in rows:
        at_event = row["valid_from"] <= told.lookup_on < row["valid_to"]
        at_delivery = row["valid_from"] <= clock.on < row["valid_to"]
        if at_event or at_delivery:
            yield _Candidate(row, at_event, at_delivery, catch_up=row["first_known"] > told.row["received_at"])


def _preference(told: _Told, wish: Wish, person: Row | None) -> str | None:
    """Return which of the subscriber's own wishes keeps the event from it."""
    item, event = wish.item, told.row
    facility = {event["facility_id"], event["facility_npi"]}
    if not item.self_visits and (facility & set(item.org) or event["facility_npi"] in item.npi):
        return "self_visit"
    if not item.after_death and person is not None:
        died = _day((person["deceased_at"] or "")[:10])
        if died is not None and died < told.lookup_on:
            return "deceased"
    if item.classes and event["trigger"] != "merge" and event["class"] not in item.classes:
        return "filtered_class"
    if item.triggers and not any(trigger in item.triggers for trigger in told.triggers):
        return "filtered_trigger"
    if not item.triggers and event["trigger"] in ("preadmit", "merge"):
        return "filtered_trigger"
    codes = [one["code"] for one in event["diagnoses"] or () if one["code"] is not None]
    if item.diagnoses and not any(code.startswith(item.diagnoses) for code in codes):
        return "filtered_diagnosis"
    if not item.diagnoses and "diagnosis_only" in (event["flags"] or ()):
        return "filtered_diagnosis"
    if item.age_min is not None or item.age_max is not None:
        born = _day(person["birth_date"] or "") if person is not None else None
        if born is None:
            return "age_unknown"
        oldest = 999 if item.age_max is None else item.age_max
        if not (item.age_min or 0) <= _age(born, told.lookup_on) <= oldest:
            return "filtered_age"
    return None


def _channels(
    told: _Told, wish: Wish, reason: str | None, *, part2: bool
) -> Iterator[tuple[str | None, list[str] | None, str | None]]:
    """Yield (channel, its columns, why held) of the channels that carry such an event."""
    if reason is not None:
        yield None, None, reason
        return
    carrying = [
        port
        for port in wish.ports
        if (not port.channel.classes or told.row["trigger"] == "merge" or told.row["class"] in port.channel.classes)
        and (not port.channel.triggers or any(trigger in port.channel.triggers for trigger in told.triggers))
    ]
    for port in carrying:
        yield port.channel.id, port.columns, "part2_no_notice" if part2 and not port.carries_notice else None
    if not carrying:
        yield None, None, "filtered_channel"


def _end(event: Row, known: bool, linked: bool, candidates: list[_Candidate]) -> tuple[str, str]:
    """Return where an event ended that reached nobody."""
    if not event["material"]:
        return "swallowed", event["swallowed_reason"] or "unchanged"
    if event["person_id"] is None:
        return "unmatched", "no_person"
    if not known:
        return "unmatched", "no_member"
    if not linked:
        return "unmatched", "match_in_review"
    if not any(candidate.at_event for candidate in candidates):
        return "unattributed", "no_attribution"
    return "held", "no_subscription"


def _rank(row: Row) -> tuple[int, int, int, str]:
    """Order in which providers are named: basis, then the newest, then the closest level, then the id."""
    basis, level = row["basis"], row["attribution_level"]
    return (
        ATTRIBUTION_BASES.index(basis) if basis in ATTRIBUTION_BASES else 99,
        -row["valid_from"].toordinal(),
        ATTRIBUTION_LEVELS.index(level) if level in ATTRIBUTION_LEVELS else 99,
        row["attribution_id"],
    )


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _age(born: date, on: date) -> int:
    """Return whole years; who was born on the 29th of February grows older on the 28th in common years."""
    if on < born:
        return -_age(on, born)
    last = on.day == calendar.monthrange(on.year, on.month)[1]
    day = min(born.day, on.day) if last else born.day
    return on.year - born.year - ((on.month, on.day) < (born.month, day))


def _decision_table(decisions: list[dict[str, Any]], known_at: datetime) -> pa.Table:
    order = (
        "event_key",
        "person_id",
        "decision",
        "reason_code",
        "subscriber_id",
        "channel_id",
        "provider_npi",
        "org_id",
    )
    decisions.sort(key=lambda row: [(row.get(name) is None, row.get(name) or "") for name in order])
    for row in decisions:
        row["reason"] = REASONS.get(row["reason_code"], row["reason_code"])
        row |= {"known_at": known_at, "replay": False}
        row.setdefault("catch_up", False)
    return pa.Table.from_pylist(decisions, schema=ROUTING_DECISION.schema)
