"""Put a routing result into the ledger: rows first, in one transaction, bytes later.

Idempotent: a delivery id that exists is left alone, so re-running any day changes nothing. What
arrives can also settle what waits: a newer version supersedes an unsealed older one, a cancel
removes an unsealed original, a discharge releases the visit's rows of an on-discharge channel.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange._files import sha256_text
from hiexchange.delivery import audit
from hiexchange.delivery.base import RoutingLike, SubscriptionLike, delivery_id, instant, microseconds
from hiexchange.delivery.channel import ChannelSpec, current
from hiexchange.delivery.ledger import Store
from hiexchange.delivery.record import event_texts, person_rows
from hiexchange.errors import DataError
from hiexchange.tables import ENCOUNTER_EVENT, OPEN_INSTANT, ROUTING_DECISION, check

NEVER = microseconds(OPEN_INSTANT)
ON_DISCHARGE = "on discharge"
CANCELS = {"cancel_admit": ("admit", "register"), "cancel_transfer": ("transfer",), "cancel_discharge": ("discharge",)}
_CHUNK = 500


@dataclass(slots=True)
class _Wanted:
    """One delivery to be, merged over every decision that names the same subscriber channel."""

    spec: ChannelSpec
    row: int
    """Row of the event in the events table."""
    person: str | None
    npi: list[str]
    org: list[str]
    payers: set[str]
    columns: list[str] | None
    catch_up: bool
    notice: str | None
    """Statement that travels with it: the scope of a Part 2 consent."""


@dataclass(frozen=True, slots=True)
class _Event:
    """What intake needs of an event besides its stored text."""

    key: str
    material: str
    visit: str
    trigger: str
    version: int
    at: int
    person: str | None


class Preferences:
    """The channels of subscriptions as the ledger wants them; the same subscriptions are read once a day."""

    def __init__(self, base: Path) -> None:
        """Resolve key files against ``base``."""
        self._base = base
        self._given: Iterable[SubscriptionLike] | None = None
        self._on = date.min
        self._specs: dict[str, tuple[ChannelSpec, str]] = {}

    def of(self, subscriptions: Iterable[SubscriptionLike], on: date) -> dict[str, tuple[ChannelSpec, str]]:
        """Return ``subscriber/channel`` -> preferences in force on a day, and their hash."""
        # A list may have changed since; a tuple or a frozen record of subscriptions has not.
        if subscriptions is not self._given or on != self._on or not isinstance(subscriptions, Hashable):
            placed = [_placed(spec, self._base) for spec in current(subscriptions, on)]
            self._specs = {spec.key: (spec, spec.sha) for spec in placed}
            self._given, self._on = subscriptions, on
        return self._specs


def configure(
    store: Store, subscriptions: Iterable[SubscriptionLike], now: datetime, preferences: Preferences
) -> dict[str, ChannelSpec]:
    """Record the present preferences of every channel; a new channel's first window opens ``now``."""
    specs = preferences.of(subscriptions, now.date())
    at = microseconds(now)
    with store.transaction():
        found = store.rows("SELECT subscriber_id, channel_id, config_sha FROM channel")
        recorded = {(subscriber, channel): sha for subscriber, channel, sha in found}
        for spec, sha in specs.values():
            place = (spec.subscriber_id, spec.channel_id)
            if recorded.get(place) == sha:
                continue
            store.run("INSERT INTO config_version VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (sha, spec.to_json(), at))
            store.run(
                "INSERT INTO channel VALUES (?, ?, ?, 1, ?, 1) ON CONFLICT (subscriber_id, channel_id) "
                "DO UPDATE SET config_sha = excluded.config_sha",
                (*place, sha, at),
            )
    return {key: spec for key, (spec, _) in specs.items()}


def _placed(spec: ChannelSpec, base: Path) -> ChannelSpec:
    """Anchor the key file, and the file of a zip password, which sealing reads."""
    if spec.encryption == "zip" and not spec.credentials_base:
        spec = replace(spec, credentials_base=str(base))
    return replace(spec, pgp_key=str(base / spec.pgp_key)) if spec.pgp_key else spec


def enqueue(
    store: Store,
    routing: RoutingLike,
    persons: pa.Table | None,
    *,
    now: datetime,
    preferences: Preferences,
    lift: Collection[str] = (),
) -> int:
    """Commit the deliveries of a routing result; return how many are new.

    What is held for one of the reasons ``lift`` waits again, since it is decided now that it may go.

    Raises:
        SchemaMismatch: A table is not of its corridor schema.
        DataError: A decision names a channel or an event that the routing result does not hold.
    """
    specs = configure(store, routing.subscriptions, now, preferences)
    decisions = check(routing.decisions, ROUTING_DECISION)
    decisions = decisions.filter(pc.equal(decisions["decision"], "deliver"))
    if not decisions.num_rows:
        return 0
    # Most events go to nobody: only those that a decision names are looked at one by one.
    named = pc.is_in(routing.events["event_key"], value_set=pc.unique(decisions["event_key"]))
    events = check(routing.events.filter(named), ENCOUNTER_EVENT)
    wanted = _merge(decisions, events, specs)
    facts = _facts(events)
    ids = {_id(want, facts[want.row]): want for want in wanted}
    at = microseconds(now)
    with store.transaction():
        store.serialise("enqueue")
        present = set(_existing(store, "delivery_id", "delivery", list(ids)))
        new = {key: want for key, want in ids.items() if key not in present}
        # Before the new ones: a version or cancel that comes now settles what waits again, too.
        _lift(store, {key: ids[key] for key in _held(store, lift) if key in ids}, at)
        if new:
            _insert_events(store, events, facts, {want.row: want.person for want in new.values()}, persons)
            _insert_deliveries(store, new, facts, at)
            _settle(store, new, facts, at)
            digest = sha256_text(*sorted(new))
            audit.append(store, at, "enqueued", "", rows=len(new), delivery_ids_sha256=digest)
    return len(new)


def _id(want: _Wanted, event: _Event) -> str:
    return delivery_id(
        want.spec.subscriber_id,
        want.spec.channel_id,
        event_key=event.key,
        material_version=event.material,
        template_major=want.spec.major_at(instant(event.at)),
    )


def _merge(decisions: pa.Table, events: pa.Table, specs: dict[str, ChannelSpec]) -> list[_Wanted]:
    names = (
        *("subscriber_id", "channel_id", "person_id", "provider_npi", "org_id"),
        *("primary", "payer_ids", "columns", "catch_up", "notice"),
    )
    rows = pc.index_in(decisions["event_key"], value_set=events["event_key"].combine_chunks()).to_pylist()
    merged: dict[tuple[str, int], _Wanted] = {}
    for row, subscriber, channel, person, npi, org, primary, payers, columns, catch_up, notice in zip(
        rows, *(decisions[name].to_pylist() for name in names), strict=True
    ):
        spec = specs.get(f"{subscriber}/{channel}")
        if spec is None:
            raise DataError(f"a decision names channel {subscriber}/{channel}, which no subscription has")
        if row is None:
            raise DataError("a decision names an event that is not among the events", where=spec.key)
        want = merged.get((spec.key, row))
        if want is None:
            want = merged[(spec.key, row)] = _Wanted(spec, row, person, [], [], set(), columns, bool(catch_up), notice)
        elif columns is None or want.columns is None:
            want.columns = columns if want.columns is None else want.columns
        else:
            want.columns = [name for name in want.columns if name in columns]
        for given, several in ((npi, want.npi), (org, want.org)):
            if given and given not in several:
                several.insert(0 if primary else len(several), given)
        want.payers.update(payers or ())
        want.catch_up = want.catch_up and bool(catch_up)
    return list(merged.values())


def _facts(events: pa.Table) -> list[_Event]:
    names = ("event_key", "material_hash", "facility_id", "visit_number", "trigger", "version")
    columns = [events[name].to_pylist() for name in names]
    columns += [events["event_at"].cast(pa.int64()).to_pylist(), events["person_id"].to_pylist()]
    return [
        _Event(key, material, f"{facility}\x1f{visit}", trigger, version, at, person)
        for key, material, facility, visit, trigger, version, at, person in zip(*columns, strict=True)
    ]


def _existing(store: Store, column: str, table: str, keys: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(keys), _CHUNK):
        part = keys[start : start + _CHUNK]
        marks = ",".join("?" * len(part))
        yield from (row[0] for row in store.rows(f"SELECT {column} FROM {table} WHERE {column} IN ({marks})", part))


def _insert_events(
    store: Store, events: pa.Table, facts: list[_Event], resolved: dict[int, str | None], persons: pa.Table | None
) -> None:
    stored = _stored_versions(store, [facts[row].key for row in resolved])
    rows = sorted(row for row in resolved if (facts[row].key, facts[row].material) not in stored)
    people = [resolved[row] or facts[row].person for row in rows]
    texts = event_texts(events.take(pa.array(rows, pa.int64())), people, _people(persons, people))
    store.run_many(
        "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (event_key, material_version) DO UPDATE SET data = excluded.data",
        (
            (fact.key, fact.material, fact.visit, fact.trigger, fact.version, fact.at, person, text)
            for fact, person, text in zip((facts[row] for row in rows), people, texts, strict=True)
        ),
    )


def _stored_versions(store: Store, keys: Sequence[str]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for start in range(0, len(keys), _CHUNK):
        part = keys[start : start + _CHUNK]
        marks = ",".join("?" * len(part))
        sql = f"SELECT event_key, material_version FROM event WHERE data <> '' AND event_key IN ({marks})"
        found.update((key, material) for key, material in store.rows(sql, part))
    return found


def _people(persons: pa.Table | None, ids: Iterable[str | None]) -> dict[str, dict[str, Any]]:
    if persons is None:
        return {}
    wanted = pa.array(sorted({key for key in ids if key is not None}), pa.string())
    return person_rows(persons.filter(pc.is_in(persons["person_id"], value_set=wanted)))


def _insert_deliveries(store: Store, new: dict[str, _Wanted], facts: list[_Event], at: int) -> None:
    contexts = _contexts(store, new)
    rows = []
    for key, want in new.items():
        event = facts[want.row]
        waits = want.spec.cadence == ON_DISCHARGE and event.trigger != "discharge"
        rows.append(
            (
                key,
                want.spec.subscriber_id,
                want.spec.channel_id,
                event.key,
                event.material,
                want.spec.major_at(instant(event.at)),
                "pending",
                NEVER if waits else at,
                None,
                None,
                contexts[key],
                at,
            )
        )
    store.run_many("INSERT INTO delivery VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def _contexts(store: Store, wanted: dict[str, _Wanted]) -> dict[str, str]:
    """Return what a delivery's rendering needs beside its event, as JSON; sets of columns are stored once."""
    sets: dict[tuple[str, ...], str] = {}
    found = {}
    for key, want in wanted.items():
        context: dict[str, Any] = {"npi": want.npi, "org": want.org, "payers": sorted(want.payers)}
        if want.catch_up:
            context["catch_up"] = True
        if want.notice is not None:
            context["notice"] = want.notice
        if want.columns is not None:
            names = tuple(want.columns)
            if names not in sets:
                sets[names] = sha256_text(*names)[:16]
            context["columns"] = sets[names]
        found[key] = msgspec.json.encode(context).decode()
    store.run_many(
        "INSERT INTO column_set VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(sha, msgspec.json.encode(names).decode()) for names, sha in sets.items()],
    )
    return found


def _held(store: Store, reasons: Collection[str]) -> list[str]:
    """Return the deliveries that are held for one of these reasons and in no batch."""
    if not reasons:
        return []
    marks = ",".join("?" * len(reasons))
    sql = f"SELECT delivery_id FROM delivery WHERE batch_id IS NULL AND state = 'held' AND reason IN ({marks})"
    return [key for (key,) in store.rows(sql, tuple(sorted(reasons)))]


def _lift(store: Store, wanted: dict[str, _Wanted], at: int) -> None:
    """Let held deliveries wait again, as they are decided now: payers, columns and consent may be others."""
    for key, context in _contexts(store, wanted).items():
        store.run(
            "UPDATE delivery SET state = 'pending', reason = NULL, context = ? WHERE delivery_id = ?", (context, key)
        )
        audit.append(store, at, "released", key)


def _settle(store: Store, new: dict[str, _Wanted], facts: list[_Event], at: int) -> None:
    """Let new rows supersede, cancel or release what waits, in the order of their events."""
    for key, want in sorted(new.items(), key=lambda item: (facts[item[1].row].at, item[0])):
        event = facts[want.row]
        place = (want.spec.subscriber_id, want.spec.channel_id)
        if event.version > 1:
            _retire(store, place, event.visit, (event.trigger,), "superseded", below=event.version)
        if event.trigger in CANCELS:
            _cancel(store, place, key, event)
        if want.spec.cadence == ON_DISCHARGE:
            _release(store, place, event, at)


_OF_VISIT = "SELECT event_key FROM event WHERE visit = ? AND trigger_class IN ({marks}) AND version < ?"


def _retire(
    store: Store, place: tuple[str, str], visit: str, triggers: Sequence[str], state: str, *, below: int = 2**31
) -> int:
    events = _OF_VISIT.format(marks=",".join("?" * len(triggers)))
    reason = "newer_version" if state == "superseded" else "cancelled_before_send"
    return store.run(
        "UPDATE delivery SET state = ?, reason = ? WHERE subscriber_id = ? AND channel_id = ? AND batch_id IS NULL "
        f"AND state IN ('pending', 'held') AND event_key IN ({events})",
        (state, reason, *place, visit, *triggers, below),
    )


def _cancel(store: Store, place: tuple[str, str], key: str, event: _Event) -> None:
    """A cancel of what was never sent leaves nothing to say; of what was sent it is a correction."""
    triggers = CANCELS[event.trigger]
    retired = _retire(store, place, event.visit, triggers, "cancelled")
    events = _OF_VISIT.format(marks=",".join("?" * len(triggers)))
    sent = store.rows(
        "SELECT 1 FROM delivery WHERE subscriber_id = ? AND channel_id = ? AND batch_id IS NOT NULL "
        f"AND event_key IN ({events}) LIMIT 1",
        (*place, event.visit, *triggers, 2**31),
    )
    if retired and not sent:
        store.run("UPDATE delivery SET state = 'cancelled', reason = 'nothing_sent' WHERE delivery_id = ?", (key,))


def _release(store: Store, place: tuple[str, str], event: _Event, at: int) -> None:
    discharged = store.rows(
        "SELECT 1 FROM delivery WHERE subscriber_id = ? AND channel_id = ? AND state <> 'cancelled' AND event_key IN "
        "(SELECT event_key FROM event WHERE visit = ? AND trigger_class = 'discharge') LIMIT 1",
        (*place, event.visit),
    )
    if discharged:
        store.run(
            "UPDATE delivery SET due_at = ? WHERE subscriber_id = ? AND channel_id = ? AND batch_id IS NULL "
            "AND due_at = ? AND event_key IN (SELECT event_key FROM event WHERE visit = ?)",
            (at, *place, NEVER, event.visit),
        )
