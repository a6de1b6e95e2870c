"""Decide, for every event, who gets it and why the others do not. Table in, table out; no clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.routing import inputs, join
from hiexchange.routing.policy import (
    PROVIDER_ORG,
    Policy,
    carries_notice,
    consent_table,
    judge,
    minimum_necessary,
    visit_labels,
)
from hiexchange.routing.reasons import REASONS
from hiexchange.routing.subscriptions import Channel, Subscription, Subscriptions, load_subscriptions
from hiexchange.tables import (
    ATTRIBUTION_BASES,
    ATTRIBUTION_LEVELS,
    ENCOUNTER_EVENT,
    ROUTING_DECISION,
    SENSITIVE_REASONS,
    check,
)


@dataclass(frozen=True)
class Routing:
    """The decisions of one run, and what they were made of."""

    decisions: pa.Table
    """ROUTING_DECISION rows; every event has at least one."""
    events: pa.Table
    """ENCOUNTER_EVENT rows, as given."""
    subscriptions: Subscriptions
    """Those that decided."""
    known_at: datetime
    """Knowledge time of the decisions."""

    @cached_property
    def deliverable(self) -> pa.Table:
        """The decisions that say deliver."""
        return self.decisions.filter(pc.equal(self.decisions["decision"], "deliver"))

    def identity(self, deliveries: Any = None) -> dict[str, int]:
        """Count each event once, by its best outcome.

        Args:
            deliveries: DELIVERY rows; with them ``deliver`` splits into what became of it.

        Returns:
            ``events`` and its parts: swallowed, unmatched, unattributed, held and either deliver, or
            delivered, pending and dead. The parts sum to ``events``.
        """
        ends = ["deliver"] if deliveries is None else ["delivered", "pending", "dead"]
        parts = ["swallowed", "unmatched", "unattributed", "held", *ends]
        counts = {row["values"]: row["counts"] for row in pc.value_counts(self._best(deliveries)["fate"]).to_pylist()}
        return {"events": self.events.num_rows, **{part: counts.get(part, 0) for part in parts}}

    def fates(self, deliveries: Any = None) -> dict[str, str]:
        """Return the one outcome of each event by key: delivered, then pending, held, dead, swallowed."""
        best = self._best(deliveries)
        return dict(zip(best["event_key"].to_pylist(), best["fate"].to_pylist(), strict=True))

    def _best(self, deliveries: Any) -> pa.Table:
        """Return each event's best outcome: event_key, fate."""
        given = pa.table({"event_key": self.decisions["event_key"], "fate": self.decisions["decision"]})
        if deliveries is not None:
            waits = pc.equal(given["fate"], "deliver")
            decided = pc.unique(given["event_key"].filter(waits))
            ledger = _ledger(deliveries)
            ledger = ledger.filter(pc.is_in(ledger["event_key"], value_set=decided))
            # Decided but not yet in the ledger: it waits to be put there.
            new = decided.filter(pc.invert(pc.is_in(decided, value_set=pc.unique(ledger["event_key"]))))
            fresh = pa.table({"event_key": new, "fate": pa.repeat(pa.scalar("pending"), len(new))})
            given = pa.concat_tables([given.filter(pc.invert(waits)), ledger, fresh])
        ranks = pc.index_in(given["fate"], value_set=pa.array(_BEST))
        best = pa.table({"event_key": given["event_key"], "rank": ranks}).group_by("event_key")
        found = best.aggregate([("rank", "min")])
        return pa.table({"event_key": found["event_key"], "fate": pa.array(_BEST).take(found["rank_min"])})

    def reasons(self) -> dict[tuple[str, str], int]:
        """Count decisions by (decision, reason_code)."""
        grouped = self.decisions.group_by(["decision", "reason_code"]).aggregate([([], "count_all")])
        rows = sorted((row["decision"], row["reason_code"], row["count_all"]) for row in grouped.to_pylist())
        return {(decision, reason): count for decision, reason, count in rows}

    def withheld(self) -> pa.Table:
        """Return what subscribers are told of items withheld from them: subscriber_id, events.

        Only subscribers whose agreement says so (``told_of_withheld``), and only the number.
        """
        told = [item.id for item in self.subscriptions if item.told_of_withheld]
        rows = self.decisions.filter(
            pc.and_(
                pc.is_in(self.decisions["subscriber_id"], value_set=pa.array(told, pa.string())),
                pc.is_in(self.decisions["reason_code"], value_set=pa.array(SENSITIVE_REASONS, pa.string())),
            )
        )
        counted = rows.group_by("subscriber_id").aggregate([("event_key", "count_distinct")])
        return counted.rename_columns(["subscriber_id", "events"]).sort_by("subscriber_id")

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><td>{part}</td><td>{count:,}</td></tr>" for part, count in self.identity().items())
        return f"<table>{cells}</table>"


_BEST = ("delivered", "pending", "deliver", "held", "dead", "swallowed", "unattributed", "unmatched")


_FATES = {"acked": "delivered", "held": "held", "dead": "dead", "cancelled": "swallowed", "superseded": "swallowed"}
_FATES |= dict.fromkeys(("claimed", "sent", "retry", "unknown", "pending"), "pending")


def _ledger(deliveries: Any) -> pa.Table:
    """Return what became of each delivery: event_key, fate."""
    table = deliveries if isinstance(deliveries, pa.Table) else pa.table(deliveries)
    states = pa.array(list(_FATES))
    fates = pa.array(list(_FATES.values())).take(pc.index_in(table["state"], value_set=states))
    return pa.table({"event_key": table["event_key"], "fate": fates})


def route(  # every argument is a table or a clock of its own: bundling them would only move the list
    events: Any,
    attribution: Any,
    links: Any,
    subscriptions: Subscriptions | Iterable[Mapping[str, Any]],
    *,
    known_at: datetime,
    consent: Any = None,
    provider_org: Any = None,
    persons: Any = None,
    policy: Policy | None = None,
) -> Routing:
    """Return who gets each event, as known at one instant, and why the others do not.

    Who: attribution valid on the event's local day, as known at ``known_at``. May they still: the
    policy gate, with the clock ``known_at``. An event that was received before its attribution was first
    known is a catch-up, limited by the subscriber's ``back_fill_days`` between the event and that knowledge;
    the answer is the same at every later run. The row order of no argument has an effect.

    Args:
        events: ENCOUNTER_EVENT rows. Those that are no news are swallowed, but the labels they bear hold what was said of
            the same visit before.
        attribution: ATTRIBUTION rows, the whole history (when a row was first known counts): a table,
            a lake table, or paths of Parquet files (``lake.files("attribution")``: fastest for a state).
        links: PERSON_LINK rows, likewise; only band ``auto`` routes.
        subscriptions: Who wants what.
        known_at: Knowledge time (aware): later assertions are not seen.
        consent: CONSENT rows (:data:`hiexchange.routing.policy.CONSENT`) or dictionaries.
        provider_org: Where clinicians work (:data:`hiexchange.routing.policy.PROVIDER_ORG`).
        persons: PERSON rows, for filters by age and the rule about the deceased.
        policy: The exchange's rules; by default an opt-out exchange.

    Raises:
        SchemaMismatch: A table is not what it should be.
        ValueError: ``known_at`` has no time zone.
    """
    if known_at.tzinfo is None:
        raise ValueError("known_at must be aware: give it a time zone")
    known_at = known_at.astimezone(UTC)
    policy = policy or Policy()
    wanted = subscriptions if isinstance(subscriptions, Subscriptions) else load_subscriptions(subscriptions)
    event_table = check(events, ENCOUNTER_EVENT)
    parameters = {
        "known_at": known_at,
        "known_on": policy.day(known_at),
        "stale_days": policy.stale_after_days,
        "opt_in": policy.consent_default == "deny",
        "bases": list(ATTRIBUTION_BASES),
        "levels": list(ATTRIBUTION_LEVELS),
    }
    with inputs.connect() as connection:
        labels = _register_events(connection, event_table)
        _register_subscriptions(connection, wishes(wanted, policy.day(known_at)), labels)
        for name in ("link_first", "link_again"):
            inputs.register(connection, name, links, "link")
        inputs.register(connection, "attribution_in", attribution, "attribution")
        connection.register("consent", consent_table(consent))
        connection.register("provider_org_in", inputs.columns(provider_org, PROVIDER_ORG))
        inputs.register(connection, "person_in", persons, "person")
        for step in _STEPS:
            _run(connection, step, parameters)
        decisions = connection.sql(join.RESULT, params={"known_at": known_at}).to_arrow_table()
    return Routing(check(_worded(decisions), ROUTING_DECISION), event_table, wanted, known_at)


def _worded(decisions: pa.Table) -> pa.Table:
    """Say every reason code in words."""
    codes = decisions["reason_code"].combine_chunks().dictionary_encode()
    words = pa.array([REASONS.get(code, code) for code in codes.dictionary.to_pylist()], pa.string())
    index = decisions.column_names.index("reason")
    return decisions.set_column(index, "reason", words.take(codes.indices))


_STEPS = (
    join.CONSENT_NOW,
    join.CONCERNED,
    join.LINKS,
    join.ATTRIBUTION,
    join.LOOKUP,
    join.CANDIDATES,
    join.HITS,
    join.PLACES,
    join.ROWS,
    join.GATE,
    join.DECISIONS,
    join.REST,
)


def _run(connection: duckdb.DuckDBPyConnection, step: str, parameters: Mapping[str, Any]) -> None:
    connection.execute(step, {name: value for name, value in parameters.items() if f"${name}" in step})


def _register_events(connection: duckdb.DuckDBPyConnection, events: pa.Table) -> list[tuple[str, ...]]:
    """Register the events; return the distinct sets of labels, which the gate judges once each."""
    numbers: dict[tuple[str, ...], int] = {(): 0}
    numbered = [0] * events.num_rows
    for row, labels in visit_labels(events).items():
        numbered[row] = numbers.setdefault(labels, len(numbers))
    connection.register("event_in", events.append_column("labels_no", pa.array(numbered, pa.int64())))
    connection.execute(
        """
        CREATE TEMP TABLE event AS
        SELECT event_key, person_id, event_on, received_at, trigger, class, facility_id, facility_npi, material,
               swallowed_reason, corrects, coalesce(flags, []) AS flags, labels_no,
               list_transform(coalesce(diagnoses, []), lambda x: x.code) AS codes
        FROM event_in
        """
    )
    return list(numbers)


@dataclass(frozen=True, slots=True)
class Port:
    """A channel as the gate sees it."""

    channel: Channel
    columns: list[str] | None
    """Minimum necessary; None = delivery's default set."""
    carries_notice: bool
    """Whether the statement of a Part 2 consent can travel with what goes through it."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A subscription as the gate sees it on one day."""

    number: int
    item: Subscription
    in_force: bool
    since: date
    """First day of its first subscription: what happened before is not its affair."""
    names: tuple[str, ...]
    """What consent decisions may call the subscriber."""
    ports: tuple[Port, ...]


def wishes(wanted: Iterable[Subscription], on: date) -> list[Wish]:
    """Return one wish a subscriber: of the subscription in force on a day, else of its last (events are then held)."""
    chosen: dict[str, Subscription] = {}
    since: dict[str, date] = {}
    for item in wanted:
        since[item.id] = min(item.active_from, since.get(item.id, item.active_from))
        held = chosen.get(item.id)
        if held is None or (item.active(on), item.active_from) > (held.active(on), held.active_from):
            chosen[item.id] = item
    return [
        Wish(
            number,
            item,
            item.active(on),
            since[item.id],
            item.names,
            tuple(
                Port(channel, columns, carries_notice(channel.format, columns))
                for channel in item.channels
                for columns in [minimum_necessary(item, channel.columns)]
            ),
        )
        for number, item in enumerate(chosen.values())
    ]


def _register_subscriptions(
    connection: duckdb.DuckDBPyConnection, chosen: list[Wish], labels: list[tuple[str, ...]]
) -> None:
    profiles: dict[tuple[str, tuple[str, ...]], int] = {}
    subs, keys, parties, channels = [], [], [], []
    for wish in chosen:
        item, sub = wish.item, wish.number
        profile = profiles.setdefault((item.sensitivity_ceiling, tuple(sorted(item.sensitivities))), len(profiles))
        given = {name: getattr(item, name) for name in _SUB.names if hasattr(item, name)}
        own = {"subscriber_id": item.id, "in_force": wish.in_force, "since": wish.since}
        subs.append(given | own | {"sub": sub, "profile": profile})
        keys += [
            {"sub": sub, "kind": kind, "value": value}
            for kind in ("npi", "tin", "org")
            for value in dict.fromkeys(getattr(item, kind))
        ]
        parties += [{"sub": sub, "kind": "party", "value": name} for name in wish.names]
        channels += [
            {
                "sub": sub,
                "channel_id": port.channel.id,
                "classes": port.channel.classes,
                "triggers": port.channel.triggers,
                "columns": port.columns,
                "carries_notice": port.carries_notice,
            }
            for port in wish.ports
        ]
    verdicts = []
    for (ceiling, admitted), profile in profiles.items():
        for number, names in enumerate(labels):
            verdict = judge(names, ceiling, admitted)
            row = {"profile": profile, "labels_no": number, "reason": verdict.reason}
            verdicts.append({**row, "part2": verdict.part2, "substance_use": verdict.substance_use})
    for name, rows, schema in (
        ("sub", subs, _SUB),
        ("key", keys, _KEY),
        ("party", parties, _KEY),
        ("channel", channels, _CHANNEL),
        ("verdict", verdicts, _VERDICT),
    ):
        connection.register(name, pa.Table.from_pylist(rows, schema=schema))


_TEXTS = pa.list_(pa.string())
_SUB = pa.schema(
    {
        "sub": pa.int64(),
        "subscriber_id": pa.string(),
        "in_force": pa.bool_(),
        "since": pa.date32(),
        "profile": pa.int64(),
        "npi": _TEXTS,
        "tin": _TEXTS,
        "org": _TEXTS,
        "npi_shared": pa.bool_(),
        "classes": _TEXTS,
        "triggers": _TEXTS,
        "diagnoses": _TEXTS,
        "age_min": pa.int64(),
        "age_max": pa.int64(),
        "self_visits": pa.bool_(),
        "after_death": pa.bool_(),
        "grace_days": pa.int32(),
        "late": pa.string(),
        "back_fill_days": pa.int64(),
    }
)
_KEY = pa.schema({"sub": pa.int64(), "kind": pa.string(), "value": pa.string()})
_CHANNEL = pa.schema(
    {
        "sub": pa.int64(),
        "channel_id": pa.string(),
        "classes": _TEXTS,
        "triggers": _TEXTS,
        "columns": _TEXTS,
        "carries_notice": pa.bool_(),
    }
)
_VERDICT = pa.schema(
    {
        "profile": pa.int64(),
        "labels_no": pa.int64(),
        "reason": pa.string(),
        "part2": pa.bool_(),
        "substance_use": pa.bool_(),
    }
)
