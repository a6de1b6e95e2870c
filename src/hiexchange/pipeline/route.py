"""The whole route of one configuration, stage by stage."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from hiexchange import __version__, measures, servers, tables
from hiexchange import events as progress
from hiexchange._files import folder_lock
from hiexchange.bulk import ExportRequest, watermark_key
from hiexchange.config import FeedbackSettings, MeasureSettings, Settings
from hiexchange.encounters.people import names_of
from hiexchange.errors import ConfigError, UnknownLayout
from hiexchange.events import Reporter
from hiexchange.feedback import FORMATS, payer_feedback
from hiexchange.feedback import write as write_feedback
from hiexchange.lake import Lake
from hiexchange.pipeline.export import PullResult, complete, pull, unfinished
from hiexchange.pipeline.inputs import rules_of, stored, zones_of
from hiexchange.pipeline.notices import deliver, find_people, route_events, take_events
from hiexchange.pipeline.result import RunResult
from hiexchange.pipeline.rosters import layout_of, take_rosters
from hiexchange.pipeline.whole import whole
from hiexchange.report import write_run
from hiexchange.routing import Subscriptions, load_subscriptions
from hiexchange.servers import Server


def run(settings: Settings, *, on_event: Reporter = progress.ignore) -> RunResult:
    """Run the whole route that a configuration describes; safe to repeat.

    Export, lake, rosters and attribution, events, matching, routing, delivery, measures, feedback, report.
    ``settings.known_at`` stands for the clock of rosters, routing and delivery; without it the
    clock does.

    Returns:
        RunResult: Tables and one :class:`Stage` a stage. ``report.html`` and ``run.json`` are
        written into the output folder.

    Raises:
        ConfigError: A setting cannot be used; nothing was sent or written.
        JobLocked: Another run works on the same lake.
        HIExchangeError: A stage could not give a truthful result; what was finished stays, and the
            same call goes on from there.
    """
    known_at = _known_at(settings)
    server = _server(settings)
    subscriptions = load_subscriptions([_anchored(entry, settings) for entry in settings.subscriptions])
    _check(settings, subscriptions)
    output = settings.path(settings.output)
    lake = Lake(settings.path(settings.lake) if settings.lake else output / "lake")
    result = RunResult(output, known_at, lake)
    if server is None and "Patient" not in lake.tables():
        raise ConfigError(
            "there is no server to export from, and the lake holds no patients",
            where=str(lake.path),
            hint="write [servers.NAME], or name a lake that holds data",
        )
    # Two runs at once would both make the first version of the same event: the second one is refused.
    with folder_lock(lake.path / "_hx" / "run", what="lake"), whole(lake):
        _stages(result, server, subscriptions, settings, on_event)
    write_report(result, f"hiexchange run of {settings.path('.').resolve().name}")
    return result


def _stages(
    result: RunResult, server: Server | None, subscriptions: Subscriptions, settings: Settings, on_event: Reporter
) -> None:
    if server is not None:
        _export(result, server, settings, on_event)
    take_rosters(result, settings, on_event)
    events = take_events(result, settings)
    find_people(result, settings, on_event)
    # Not before: the export may have taken hours, and a consent withdrawn meanwhile counts.
    rules = rules_of(settings, subscriptions=subscriptions).after(result.merges.same)
    if strangers := rules.of_nobody(result.persons):
        on_event(progress.Warned(f"{strangers:,} refusals of the consent file name nobody of the patient index"))
    routing = route_events(result, events, rules)
    deliver(result, routing, rules, on_event)
    for measure in settings.measures:
        _measure(result, measure, settings)
    if settings.feedback:
        _feedback(result, settings.feedback)


def _known_at(settings: Settings) -> datetime:
    """Return what stands for now, in UTC."""
    if not settings.known_at:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(settings.known_at)
    except ValueError:
        found = None
    # Days and weeks are added to it and taken from it, so the ends of the calendar are no clock.
    if found is None or found.tzinfo is None or not 1900 < found.year < 9000:
        fault = "has no offset" if found is not None and found.tzinfo is None else "is no instant"
        raise ConfigError(f"known_at {fault}", hint='write it as "2026-01-05T06:00:00Z"')
    return found.astimezone(UTC)


def _check(settings: Settings, subscriptions: Subscriptions) -> None:
    """Refuse at once what would otherwise fail after an hour of export."""
    for entry in settings.rosters:
        _present(settings, entry.path, "roster file", "[[rosters]] path")
        if entry.crosswalk:
            _present(settings, entry.crosswalk.path, "crosswalk", "[[rosters]] crosswalk")
        layout_of(entry, settings)
    _present(settings, settings.matching.weights, "weights file", "[matching] weights")
    _present(settings, settings.events.adt, "inbox", "[events] adt", folder=True)
    _present(settings, settings.routing.consents, "consent file", "[routing] consents")
    zones_of(settings)
    names_of(settings.events.authorities)
    rules_of(settings, subscriptions=subscriptions)
    native = measures.measures()
    for measure in settings.measures:
        if measure.id not in native and not settings.path(measure.id).exists():
            raise UnknownLayout(
                f"there is no measure {measure.id!r}",
                hint=f"give the path of a bundle, or one of {', '.join(sorted(native))}",
            )
        _ = measure.offset_delta
        _ordered(measure.period, "the measurement period")
    if settings.feedback:
        _ordered(settings.feedback.period, "the period of [feedback]")
        if settings.feedback.format not in FORMATS:
            hint = f"one of {', '.join(FORMATS)}"
            raise UnknownLayout(f"'{settings.feedback.format}' is no format of feedback", hint=hint)


def _ordered(period: tuple[date, date], what: str) -> None:
    if period[1] < period[0]:
        raise ConfigError(f"{what} ends before it starts", hint="give [first day, last day]")


def _present(settings: Settings, path: str | None, what: str, setting: str, *, folder: bool = False) -> None:
    if path and not (settings.path(path).is_file() or (folder and settings.path(path).is_dir())):
        raise ConfigError(
            f"there is no {what} {Path(path).name}", where=str(settings.path(path)), hint=f"check {setting}"
        )


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
    with result.stage("export") as facts:
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
    with result.stage("lake") as facts:
        rows = result.lake_rows()
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


def _measure(result: RunResult, wanted: MeasureSettings, settings: Settings) -> None:
    with result.stage("measure") as facts:
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
    with result.stage("feedback") as facts:
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
                rosters=stored(result.lake, tables.ROSTER),
                issues=result.issues,
            )
            files += len(write_feedback(given, result.output / "feedback", format=wanted.format))
        facts += [f"{len(payers)} payers", f"{files} files"]


def write_report(result: RunResult, title: str) -> Path:
    """Write ``report.html`` and ``run.json`` into the output folder; return the page's path."""
    return write_run({"title": title, "version": __version__, **result.as_dict()}, result.output)
