"""From members and encounters to notices in inboxes: events, match, route, deliver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange import tables
from hiexchange._duck import quiet_connection
from hiexchange.attribution import DISPUTE, overlay
from hiexchange.config import Settings
from hiexchange.delivery import Outbox
from hiexchange.encounters import INBOX_FILE, Inbox, Intake, lookups, read_adt, read_view
from hiexchange.events import Reporter, Warned
from hiexchange.matching import (
    DECISION,
    DISCLOSURE,
    PERSON_XREF,
    all_records,
    current,
    follow,
    load_weights,
    match,
    misdirected,
    relink,
)
from hiexchange.pipeline.inputs import Rules, identities_of, stored, zones_of
from hiexchange.pipeline.merges import Merges
from hiexchange.pipeline.result import RunResult
from hiexchange.routing import Recheck, Routing, route
from hiexchange.routing.reasons import REASONS
from hiexchange.views import view

AT_HOME = ("pending", "held", "cancelled", "superseded")
"""States of a notice that nobody outside has seen."""
TAKEN_BACK = "taken_back"
"""Reason of a notice that waited when what it rested on (link, attribution, agreement) ceased to hold."""


def find_people(result: RunResult, settings: Settings, on_event: Reporter) -> None:
    """Match every member, obeying people's decisions and merges in the lake; keep the links that changed.

    A member of a record that was merged away is one of the survivor from this very run on. What went out under a link that
    is now taken back can't be recalled: it is listed in ``result.misdirected`` and in the lake, for the breach report.
    """
    wanted = settings.matching
    with result.stage("match") as facts:
        merges = result.merges = Merges.of(
            result.lake, result.persons, known_at=result.known_at, identities=result.identities
        )
        result.links = match(
            result.members,
            follow(result.persons, merges.merged),
            known_at=result.known_at,
            run_id=f"{result.known_at:%Y-%m-%dT%H:%M:%SZ}",
            decisions=follow(stored(result.lake, DECISION), merges.merged),
            weights=load_weights(settings.path(wanted.weights)) if wanted.weights else None,
        )
        history = stored(result.lake, tables.PERSON_LINK)
        news = relink(history, result.links, known_at=result.known_at)
        if news.num_rows:
            result.misdirected = _disclosed(result, current(history, known_at=result.known_at))
        # In one snapshot: links and the merges they rest on are never apart.
        fresh = {"person_link": news, DISCLOSURE.name: result.misdirected, PERSON_XREF.name: merges.news}
        result.lake.append_all({name: rows for name, rows in fresh.items() if rows.num_rows})
        bands = Counter(result.links["band"].to_pylist())
        facts += [
            f"{result.links.num_rows:,} members",
            f"{bands['auto']:,} matched",
            f"{bands['review']:,} to review",
            f"{bands['none']:,} unmatched",
        ]
        if merges.doubtful:
            on_event(
                Warned(
                    f"{len(merges.doubtful):,} merges join records of the index that contradict each other: no link follows them"
                )
            )
        if result.misdirected.num_rows:
            facts.append(f"{result.misdirected.num_rows:,} notices had gone out under a link now taken back")
            on_event(Warned("notices had gone out under links now taken back: see misdirected_disclosure in the lake"))


def _disclosed(result: RunResult, before: pa.Table) -> pa.Table:
    """Return the notices that left the house under a link of ``before`` that no longer holds."""
    if not _outbox(result).exists():
        return DISCLOSURE.empty()
    with Outbox(_outbox(result)) as outbox:
        deliveries = outbox.deliveries()
    gone = deliveries.filter(pc.invert(pc.is_in(deliveries["state"], value_set=pa.array(AT_HOME))))
    merged = result.merges.merged
    before, after = all_records(before, merged), all_records(result.links, merged)
    return misdirected(before, after, stored(result.lake, tables.ROUTING_DECISION), gone)


def take_events(result: RunResult, settings: Settings) -> pa.Table:
    """Add the events that the lake's encounters and the inbox bring; return all ENCOUNTER_EVENT rows that are news.

    Before the members are matched, since a merge among them says whose members some are. Those that are none but bear
    labels come too: they hold what was said of the same visit before. Sets ``result.swallowed``: how many more are on
    record that nobody is told of.
    """
    with result.stage("events") as facts:
        if "Patient" in result.lake.tables():
            result.persons = tables.check(view("patient_demographics", result.lake), tables.PERSON)
            result.identities = identities_of(settings, result.lake, result.persons)
        # Files, not rows: of years of events, what came tonight concerns a few.
        known = result.lake.files("encounter_event")
        fresh: dict[str, list[pa.Table]] = {"encounter_event": [], INBOX_FILE.name: []}
        refused = 0
        for intake, read in _intakes(result, known, settings):
            fresh["encounter_event"].append(intake.events)
            fresh[INBOX_FILE.name].append(read)
            result.issues = pa.concat_tables([result.issues, intake.issues])
            refused += intake.quarantined
        # In one snapshot: a file that counts as read has all its events, whenever the process is killed.
        result.lake.append_all({name: pa.concat_tables(found) for name, found in fresh.items() if found})
        labelled = pc.greater(pc.list_value_length(pc.field("labels")), 0)
        events = stored(result.lake, tables.ENCOUNTER_EVENT, where=pc.field("material") | labelled)
        result.swallowed = result.lake.tables().get("encounter_event", 0) - events.num_rows
        news = pc.sum(events["material"]).as_py() or 0
        total = events.num_rows + result.swallowed
        facts += [
            f"{total:,} in",
            f"{news:,} material",
            f"{total - news:,} swallowed",
            f"{refused:,} refused",
        ]
    return events


def _intakes(result: RunResult, known: list[Path], settings: Settings) -> Iterator[tuple[Intake, pa.Table]]:
    """Yield what each source brings, with the INBOX_FILE rows of what need not be read again."""
    zones = zones_of(settings)
    if "Encounter" in result.lake.tables():
        encounters = view("encounter", result.lake)
        more = lookups(result.lake)
        intake = read_view(encounters, **more, received_at=result.known_at, zones=zones, history=known)
        yield intake, INBOX_FILE.empty()
    if settings.events.adt:
        inbox = Inbox(settings.path(settings.events.adt), stored(result.lake, INBOX_FILE))
        intake = read_adt(
            inbox.messages(result.known_at),
            received_at=result.known_at,
            persons=result.persons,
            zones=zones,
            history=known,
            identities=result.identities,
        )
        yield intake, inbox.taken(intake.issues, read_at=result.known_at)


def route_events(result: RunResult, events: pa.Table, rules: Rules) -> Routing:
    """Decide who gets which event, as known now; keep the decisions that let something out."""
    with result.stage("route") as facts:
        disputes = stored(result.lake, DISPUTE)
        routing = route(
            follow(events, result.merges.merged),
            overlay(result.attribution, disputes) if disputes.num_rows else result.attribution,
            result.links,
            rules.subscriptions,
            known_at=result.known_at,
            consent=rules.consent,
            persons=result.persons,
            policy=rules.policy,
        )
        result.lake.append("routing_decision", _new_decisions(result, _as_recorded(routing.deliverable, events)))
        counts = result.accounted(routing.identity())
        facts.append(f"{counts.pop('events'):,} events = " + " + ".join(f"{n:,} {name}" for name, n in counts.items()))
    result.routing = routing
    return routing


_NEW = """
SELECT ordinal FROM decided ANTI JOIN known USING (event_key, subscriber_id, channel_id, person_id, member_keys)
ORDER BY ordinal
"""


def _as_recorded(decisions: pa.Table, events: pa.Table) -> pa.Table:
    """Return decisions about the record each event bears: a merge may be taken back, what went out by it is found by that."""
    rows = pc.index_in(decisions["event_key"], value_set=events["event_key"].combine_chunks())
    place = decisions.schema.get_field_index("person_id")
    return decisions.set_column(place, decisions.schema.field(place), events["person_id"].take(rows.combine_chunks()))


def _new_decisions(result: RunResult, decided: pa.Table) -> pa.Table:
    """Return the decisions to deliver that the lake does not hold yet: what a later correction is traced by."""
    known = result.lake.files("routing_decision")
    if not known:
        return decided
    with quiet_connection() as connection:
        connection.read_parquet([str(path) for path in known]).create_view("known")
        ordinals = pa.array(range(decided.num_rows), pa.int64())
        connection.register("decided", decided.append_column("ordinal", ordinals))
        return decided.take(connection.sql(_NEW).to_arrow_table()["ordinal"])


def deliver(result: RunResult, routing: Routing, rules: Rules, on_event: Reporter) -> None:
    """Put what was decided into the ledger and send what is due, unless it may not go out any more."""
    with result.stage("deliver") as facts, Outbox(_outbox(result)) as outbox:
        outbox.enqueue(routing, now=result.known_at, persons=result.persons, lift=(*REASONS, TAKEN_BACK))
        standing = Standing(routing, rules.recheck(result.known_at), result.merges.merged)
        report = outbox.run(result.known_at, on_event=on_event, recheck=standing)
        result.deliveries, result.receipts = outbox.deliveries(), outbox.receipts()
        result.identity = result.accounted(routing.identity(result.deliveries))
        states = Counter(result.deliveries["state"].to_pylist())
        subscribers = len(result.deliveries["subscriber_id"].unique())
        facts.append(f"{result.deliveries.num_rows:,} notices to {subscribers} subscribers")
        facts += [f"{count:,} {state}" for state, count in sorted(states.items())]
        result.problems = dict(report.problems)
        for channel, problem in sorted(result.problems.items()):
            on_event(Warned(f"{channel}: {problem}"))
        if result.problems:
            facts.append(f"{len(result.problems):,} channels could not be served")


class Standing:
    """Does a notice that waits still rest on something? Asked before it is sealed and before it is sent.

    A link that a reviewer took back, or an attribution that the payer did, stops what was decided by it.
    """

    def __init__(self, routing: Routing, gate: Recheck, merged: Mapping[str, str]) -> None:
        """Index what is decided now.

        Args:
            routing: The decisions.
            gate: Asked about consent and agreements.
            merged: Record that ended -> the one it lives on in; a notice of before bears the first.
        """
        rows = routing.deliverable
        names = ("subscriber_id", "channel_id", "event_key", "person_id")
        self._decided = set(zip(*(rows[name].to_pylist() for name in names), strict=True))
        self._gate = gate
        self._merged = merged

    def __call__(self, candidate: Any) -> str | None:
        """Return the reason why it may not go out, or None."""
        person = self._merged.get(candidate.person_id, candidate.person_id)
        mark = (candidate.subscriber_id, candidate.channel_id, candidate.event_key, person)
        return self._gate(candidate) or (None if mark in self._decided else TAKEN_BACK)


def _outbox(result: RunResult) -> Path:
    return result.output / "outbox.sqlite"
