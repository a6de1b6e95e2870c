"""The whole route of one configuration, stage by stage."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import hiexchange
from hiexchange import _files, measures, servers, tables
from hiexchange import events as progress
from hiexchange.attribution import as_known, attribute
from hiexchange.bulk import ExportRequest, watermark_key
from hiexchange.config import FeedbackSettings, MeasureSettings, RosterSettings, Settings
from hiexchange.delivery import Outbox
from hiexchange.encounters import Intake, lookups, read_view
from hiexchange.errors import ConfigError, RosterError, UnknownLayout
from hiexchange.events import Reporter
from hiexchange.feedback import payer_feedback
from hiexchange.feedback import write as write_feedback
from hiexchange.lake import Lake
from hiexchange.matching import match
from hiexchange.pipeline.export import PullResult, complete, pull, unfinished
from hiexchange.pipeline.result import RunResult, Stage
from hiexchange.report import write_run
from hiexchange.roster import Layout, Roster, load_layout, read_roster
from hiexchange.routing import Recheck, Subscriptions, load_subscriptions, route
from hiexchange.servers import Server
from hiexchange.views import view


def run(settings: Settings, *, on_event: Reporter = progress.ignore) -> RunResult:
    """Run the whole route that a configuration describes; safe to repeat.

    Export, lake, rosters and attribution, matching, events, routing, delivery, measures, feedback, report.
    ``settings.known_at`` stands for the clock of rosters, routing and delivery; without it the
    clock does.

    Returns:
        RunResult: Tables and one :class:`Stage` a stage. ``report.html`` and ``run.json`` are
        written into the output folder.

    Raises:
        ConfigError: A setting cannot be used; nothing was sent or written.
        HIExchangeError: A stage could not give a truthful result; what was finished stays, and the
            same call goes on from there.
    """
    known_at = datetime.fromisoformat(settings.known_at) if settings.known_at else datetime.now(UTC)
    if known_at.tzinfo is None:
        raise ConfigError("known_at has no offset", hint='write it as "2026-01-05T06:00:00Z"')
    server = _server(settings)
    subscriptions = load_subscriptions([_anchored(entry, settings) for entry in settings.subscriptions])
    _check(settings)
    output = settings.path(settings.output)
    lake = Lake(settings.path(settings.lake) if settings.lake else output / "lake")
    result = RunResult(output, known_at, lake)
    if server is not None:
        _export(result, server, settings, on_event)
    elif "Patient" not in lake.tables():
        raise ConfigError(
            "there is no server to export from, and the lake holds no patients",
            where=str(lake.path),
            hint="write [servers.NAME], or name a lake that holds data",
        )
    _rosters(result, settings.rosters, settings, on_event)
    _match(result)
    _route(result, subscriptions)
    _deliver(result, on_event)
    for measure in settings.measures:
        _measure(result, measure, settings)
    if settings.feedback:
        _feedback(result, settings.feedback)
    _report(result, settings)
    return result


def _check(settings: Settings) -> None:
    """Refuse at once what would otherwise fail after an hour of export."""
    for entry in settings.rosters:
        if not settings.path(entry.path).is_file():
            raise ConfigError(
                f"there is no roster file {Path(entry.path).name}",
                where=str(settings.path(entry.path)),
                hint="check [[rosters]] path",
            )
        _layout(entry, settings)
    native = measures.measures()
    for measure in settings.measures:
        if measure.id not in native and not settings.path(measure.id).exists():
            raise UnknownLayout(
                f"there is no measure {measure.id!r}",
                hint=f"give the path of a bundle, or one of {', '.join(sorted(native))}",
            )
        _ = measure.offset_delta


def _layout(entry: RosterSettings, settings: Settings) -> Layout:
    own = settings.path(entry.layout)
    return load_layout(own if own.is_file() else entry.layout)


@contextmanager
def _stage(result: RunResult, name: str) -> Iterator[list[str]]:
    """Time a stage; the block appends its facts."""
    facts: list[str] = []
    start = time.perf_counter()
    yield facts
    result.stages.append(Stage(name, time.perf_counter() - start, "  ".join(facts)))


def _server(settings: Settings) -> Server | None:
    if not settings.servers:
        return None
    name = settings.export.server or next(iter(settings.servers))
    if name not in settings.servers or (not settings.export.server and len(settings.servers) > 1):
        known = ", ".join(settings.servers)
        raise ConfigError(f"[export] must name one server; {name!r} is not clear", hint=f"known: {known}")
    return servers.build(settings.servers[name], base=settings.path("."))


def _anchored(subscription: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Make folder channels relative to the output folder, so that a run stays in one place."""
    channels = []
    for channel in subscription.get("channels", ()):
        url = str(channel.get("url", ""))
        local = bool(url) and "://" not in url
        channels.append({**channel, "url": str(settings.path(settings.output) / url)} if local else channel)
    return {**subscription, "channels": channels}


def _export(result: RunResult, server: Server, settings: Settings, on_event: Reporter) -> None:
    """Finish what was stopped, then export what is new since the lake's watermark."""
    wanted, jobs = settings.export, result.output / "jobs"
    with _stage(result, "export") as facts:
        done = [
            complete(server, result.lake, folder=folder, max_bad_lines=wanted.max_bad_lines, on_event=on_event)
            for folder in unfinished(jobs)
        ]
        request = ExportRequest(
            group=wanted.group, level=wanted.level, types=wanted.types, type_filters=wanted.type_filters
        )
        since = wanted.since or result.lake.watermark(watermark_key(server.url, server.version, request))
        folder = jobs / f"{len(list(jobs.glob('*/request.json'))) + 1:04d}"
        done.append(
            pull(
                server,
                result.lake,
                replace(request, since=since),
                folder=folder,
                max_bad_lines=wanted.max_bad_lines,
                on_event=on_event,
            )
        )
        facts += _export_facts(done, since)
    with _stage(result, "lake") as facts:
        rows = {name: count for name, count in result.lake.tables().items() if name not in tables.TABLES}
        facts += [
            f"{len(rows)} tables",
            f"{sum(rows.values()):,} rows",
            f"{sum(one.ingest.rejected for one in done):,} lines refused",
        ]


def _export_facts(done: list[PullResult], since: str | None) -> list[str]:
    exports = [one.export for one in done]
    receipts = [receipt for export in exports for receipt in export.receipts if receipt.kind == "output"]
    again = sum(receipt.attempts > 1 for receipt in receipts)
    return [
        f"{len({name for export in exports for name in export.count_by_type()})} types",
        f"{len(receipts)} files" + (f" ({again} fetched again)" if again else ""),
        f"{sum(export.resources for export in exports):,} resources",
        f"{sum(export.size_bytes for export in exports) / 1e6:.1f} MB",
        *([f"since {since}"] if since else []),
    ]


def _rosters(result: RunResult, wanted: tuple[RosterSettings, ...], settings: Settings, on_event: Reporter) -> None:
    with _stage(result, "roster") as facts:
        for entry in wanted:
            _accept(result, entry, settings, on_event)
        rosters, members = _rows(result.lake, tables.ROSTER), _rows(result.lake, tables.MEMBER)
        result.members, result.attribution = members, _rows(result.lake, tables.ATTRIBUTION)
        result.issues = _rows(result.lake, tables.ISSUE)
        held = pc.sum(pc.equal(rosters["state"], "held")).as_py() or 0
        facts += [
            f"{len(rosters['payer_id'].unique())} payers",
            f"{rosters.num_rows} files" + (f" ({held} held)" if held else ""),
            f"{len(members['member_key'].unique()):,} members",
            f"{pc.sum(rosters['rows_refused']).as_py() or 0:,} rows refused",
        ]


def _accept(result: RunResult, entry: RosterSettings, settings: Settings, on_event: Reporter) -> None:
    """Read one roster file into ROSTER, MEMBER, ATTRIBUTION and ISSUE, unless it was accepted before."""
    lake, path, layout = result.lake, settings.path(entry.path), _layout(entry, settings)
    payer = entry.payer or layout.list.payer_id
    known = [
        row
        for row in _rows(lake, tables.ROSTER).to_pylist()
        if row["payer_id"] == payer and row["layout"].split()[0] == layout.name and row["state"] == "accepted"
    ]
    if _files.sha256_file(path) in {row["file_sha256"] for row in known}:
        return
    roster = read_roster(
        path,
        layout,
        as_of=entry.as_of,
        received_at=result.known_at,
        payer_id=payer,
        previous=_last_accepted(lake, known),
        release=entry.release,
    )
    on_event(progress.RosterRead(roster.file_name, roster.counts.accepted, roster.counts.refused))
    if roster.state == "refused":
        raise RosterError(
            f"the roster {roster.file_name} was refused as a whole",
            issues=roster.issues,
            said=", ".join(sorted(set(roster.issues["code"].to_pylist()))),
            hint="see the issues of `hiexchange roster check`, and ask the payer for a new file",
        )
    rows = {"roster": tables.ROSTER.from_rows([_roster_row(roster)]), "issue": roster.issues}
    if roster.state == "accepted":
        # Rosters are compared with what earlier ones said: each sees the history up to now.
        history = _rows(lake, tables.ATTRIBUTION)
        rows |= {"member": roster.members, "attribution": attribute(roster, history, known_at=result.known_at)}
    # In one snapshot: a file that counts as accepted has all its members, whenever the process is killed.
    lake.append_all(rows)


def _roster_row(roster: Roster) -> dict[str, Any]:
    counts = roster.counts
    return {
        "roster_id": roster.roster_id,
        "payer_id": roster.payer_id,
        "list_id": roster.list_id,
        "file_name": roster.file_name,
        "file_sha256": roster.sha256,
        "header_sha": roster.header_sha,
        "layout": f"{roster.layout.name} {roster.layout.version}",
        "mode": roster.mode,
        "as_of_on": roster.as_of,
        "received_at": roster.received_at,
        "state": roster.state,
        "accepted_by": roster.accepted_by,
        "rows_read": counts.read,
        "rows_accepted": counts.accepted,
        "rows_refused": counts.refused,
        "rows_duplicate": counts.duplicates,
    }


def _last_accepted(lake: Lake, known: list[dict[str, Any]]) -> pa.Table | None:
    """Return the members of the newest of the accepted files."""
    if not known:
        return None
    newest = max(known, key=lambda row: (row["as_of_on"], row["received_at"]))
    members = _rows(lake, tables.MEMBER)
    return members.filter(pc.equal(members["roster_id"], newest["roster_id"]))


def _rows(lake: Lake, table: tables.Table) -> pa.Table:
    """Return all rows of a corridor table, none where it does not exist yet."""
    return tables.check(lake.table(table.name), table) if table.name in lake.tables() else table.empty()


def _match(result: RunResult) -> None:
    with _stage(result, "match") as facts:
        if "Patient" in result.lake.tables():
            result.persons = tables.check(view("patient_demographics", result.lake), tables.PERSON)
        run_id = f"{result.known_at:%Y-%m-%dT%H:%M:%SZ}"
        result.links = match(result.members, result.persons, known_at=result.known_at, run_id=run_id)
        result.lake.append("person_link", _changed(result.links, _rows(result.lake, tables.PERSON_LINK)))
        bands = Counter(result.links["band"].to_pylist())
        facts += [
            f"{result.links.num_rows:,} members",
            f"{bands['auto']:,} matched",
            f"{bands['review']:,} to review",
            f"{bands['none']:,} unmatched",
        ]


def _changed(links: pa.Table, known: pa.Table) -> pa.Table:
    """Return the links that say something else than the last one kept of the same member."""
    said = ("member_key", "person_id", "band", "method", "rule")
    last = {row["member_key"]: tuple(row.values()) for row in known.select(said).to_pylist()}
    fresh = [last.get(row["member_key"]) != tuple(row.values()) for row in links.select(said).to_pylist()]
    return links.filter(pa.array(fresh, pa.bool_()))


def _route(result: RunResult, subscriptions: Subscriptions) -> None:
    with _stage(result, "events") as facts:
        known = _rows(result.lake, tables.ENCOUNTER_EVENT)
        intake = _intake(result, known)
        result.lake.append("encounter_event", intake.events)
        result.issues = pa.concat_tables([result.issues, intake.issues])
        events = pa.concat_tables([known, intake.events])
        material = pc.sum(events["material"]).as_py() or 0
        facts += [
            f"{events.num_rows:,} in",
            f"{material:,} material",
            f"{events.num_rows - material:,} swallowed",
            f"{intake.quarantined:,} refused",
        ]
    with _stage(result, "route") as facts:
        result.routing = route(
            events,
            as_known(result.attribution, result.known_at),
            result.links,
            subscriptions,
            known_at=result.known_at,
            persons=result.persons,
        )
        counts = result.routing.identity()
        facts.append(f"{counts.pop('events'):,} events = " + " + ".join(f"{n:,} {name}" for name, n in counts.items()))


def _intake(result: RunResult, known: pa.Table) -> Intake:
    """Return the events that the lake's encounters add to those known."""
    if "Encounter" not in result.lake.tables():
        return Intake(tables.ENCOUNTER_EVENT.empty(), tables.ISSUE.empty(), read=0, quarantined=0, duplicates=0)
    return read_view(
        view("encounter", result.lake),
        **lookups(result.lake),
        received_at=result.known_at,
        history=known,
    )


def _deliver(result: RunResult, on_event: Reporter) -> None:
    if result.routing is None:
        return
    with _stage(result, "deliver") as facts, Outbox(result.output / "outbox.sqlite") as outbox:
        may_still = Recheck(result.routing.subscriptions, None, now=result.known_at)
        outbox.deliver(
            result.routing, now=result.known_at, persons=result.persons, on_event=on_event, recheck=may_still
        )
        result.deliveries, result.receipts = outbox.deliveries(), outbox.receipts()
        result.identity = result.routing.identity(result.deliveries)
        states = Counter(result.deliveries["state"].to_pylist())
        practices = len(result.deliveries["subscriber_id"].unique())
        facts.append(f"{result.deliveries.num_rows:,} notices to {practices} subscribers")
        facts += [f"{count:,} {state}" for state, count in sorted(states.items())]


def _measure(result: RunResult, wanted: MeasureSettings, settings: Settings) -> None:
    with _stage(result, "measure") as facts:
        run_id = f"{result.known_at:%Y-%m-%dT%H:%M:%SZ}"
        bundle = settings.path(wanted.id)
        period, offset = wanted.period, wanted.offset_delta
        done = (
            measures.Measure.load(bundle).evaluate(result.lake, period=period, offset=offset, run_id=run_id)
            if bundle.exists()
            else measures.evaluate(wanted.id, result.lake, period=period, offset=offset, run_id=run_id)
        )
        result.measures.append(done)
        summary = done.summary()
        facts.append(f"{summary.measure.title}  {summary.first.hits:,}/{summary.first.eligible:,}")
        if summary.rate is not None and summary.interval is not None:
            low, high = summary.interval
            facts.append(f"= {summary.rate:.1%} ({low:.1%}-{high:.1%})")


def _feedback(result: RunResult, wanted: FeedbackSettings) -> None:
    """Write each payer's file set and page into ``<output>/feedback``."""
    if result.routing is None:
        return
    with _stage(result, "feedback") as facts:
        results = pa.concat_tables([done.table for done in result.measures]) if result.measures else None
        payers = sorted(set(result.members["payer_id"].to_pylist()))
        files = 0
        for payer in payers:
            given = payer_feedback(
                payer,
                wanted.period,
                attribution=result.attribution,
                links=result.links,
                events=result.routing.events,
                routing=result.routing,
                deliveries=result.deliveries,
                receipts=result.receipts,
                results=results,
                rosters=_rows(result.lake, tables.ROSTER),
                issues=result.issues,
            )
            files += len(write_feedback(given, result.output / "feedback", format=wanted.format))
        facts += [f"{len(payers)} payers", f"{files} files"]


def _report(result: RunResult, settings: Settings) -> None:
    title = f"hiexchange run of {settings.path('.').resolve().name}"
    write_run({"title": title, "version": hiexchange.__version__, **result.as_dict()}, result.output)
