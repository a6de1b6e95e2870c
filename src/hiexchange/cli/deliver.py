"""``hiexchange deliver``: send what is due, watch, retry, replay, and prove the ledger."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiexchange.cli import render
from hiexchange.cli._routing import instant, rules

if TYPE_CHECKING:
    from hiexchange.delivery import Alarm, DeliveryReport, Outbox
    from hiexchange.encounters import Silence
    from hiexchange.routing import Recheck

FAILED = 8

app = typer.Typer(help="Bring what waits in the outbox to providers, once.", no_args_is_help=True)

Place = Annotated[
    str,
    typer.Option(
        "--outbox",
        help="Delivery ledger: an SQLite file, or env:NAME / file:PATH holding a PostgreSQL connection text.",
    ),
]
Base = Annotated[Path | None, typer.Option("--base", help="Folder that relative folder channels start from.")]
Now = Annotated[
    str | None, typer.Option("--now", help="Instant to judge by (ISO 8601 with offset); default: the clock.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Subscribers = Annotated[
    Path | None,
    typer.Option("--subscriptions", help="TOML of subscriptions: ask again, before sending, whether each may go."),
]
Consent = Annotated[Path | None, typer.Option("--consent", help="Consent decisions as they stand now, CSV or NDJSON.")]
Subscriber = Annotated[str | None, typer.Option("--subscriber", help="Only this subscriber.")]

DEFAULT = "outbox.sqlite"


def register(parent: typer.Typer) -> None:
    """Add the group to the command line."""
    parent.add_typer(app, name="deliver")


@app.command()
def run(
    outbox: Place = DEFAULT,
    base: Base = None,
    flush: Annotated[bool, typer.Option("--flush", help="Seal everything that waits, whatever the cadence.")] = False,
    subscriptions: Subscribers = None,
    consent: Consent = None,
    now: Now = None,
    json: Json = False,
) -> None:
    """Seal what is due and send what is sealed. Safe to repeat; exit code 8 when something failed for good."""
    at = instant(now)
    gate = _gate(subscriptions, consent, at)
    with _open(outbox, base) as ledger:
        report = ledger.run(at, flush=flush, on_event=_progress, recheck=gate)
    _show(report, json)
    if report.states.get("dead") or report.problems:
        raise typer.Exit(FAILED)


@app.command()
def watch(
    outbox: Place = DEFAULT,
    base: Base = None,
    most: Annotated[float, typer.Option("--every", help="Look at least every so many seconds.")] = 5.0,
    runs: Annotated[int | None, typer.Option("--runs", help="Stop after so many looks.")] = None,
    subscriptions: Subscribers = None,
    consent: Consent = None,
) -> None:
    """Run whenever something is due, until interrupted. Alarms are told when they begin and when they end."""
    from hiexchange.delivery import AlarmBell, alarms

    bell = AlarmBell(_ring)
    with _open(outbox, base) as ledger:
        looked = 0
        while runs is None or looked < runs:
            looked += 1
            now = datetime.now(UTC)
            pause = most
            if ledger.due(now):
                # Read anew each time: a consent withdrawn a minute ago counts.
                report = ledger.run(now, on_event=_progress, recheck=_gate(subscriptions, consent, now))
                render.err(f"{now:%Y-%m-%d %H:%M:%S} {_line(report)}")
                # What is due but cannot be done (an expired key) must not be tried without a pause.
                pause = 0.0 if report.sealed or report.batches_acked else most
            bell.look(alarms(ledger.health(datetime.now(UTC))))
            ahead = ledger.next_due(datetime.now(UTC))
            left = (ahead - datetime.now(UTC)).total_seconds() if ahead is not None else most
            if runs is None or looked < runs:
                time.sleep(max(min(left, most), pause, 0.2))


@app.command("alarms")
def show_alarms(
    outbox: Place = DEFAULT,
    lake: Annotated[
        Path | None, typer.Option("--lake", help="Lake whose sources and rosters are looked at too.")
    ] = None,
    backlog: Annotated[float, typer.Option("--backlog", help="Hours a delivery may be due.")] = 1.0,
    now: Now = None,
    json: Json = False,
) -> None:
    """Say what somebody should be woken for. Exit code 8 when there is something."""
    from hiexchange.delivery import Limits, alarms

    at = instant(now)
    with _open(outbox, None) as ledger:
        health = ledger.health(at)
    silences, held = _upstream(lake, at) if lake is not None else ((), [])
    found = alarms(health, limits=Limits(backlog_s=backlog * 3600), silences=silences, held_rosters=held)
    if json:
        render.json_out([{"kind": one.kind, "subject": one.subject, "message": one.message} for one in found])
    else:
        render.table(((one.kind, one.subject, one.message) for one in found), ("alarm", "of", "what"))
    if found:
        raise typer.Exit(FAILED)


def _upstream(lake: Path, now: datetime) -> tuple[tuple[Silence, ...], list[str]]:
    """Return the silent sources and the held rosters of a lake."""
    from hiexchange.encounters import silent_sources
    from hiexchange.errors import ConfigError
    from hiexchange.lake import Lake
    from hiexchange.tables import ENCOUNTER_EVENT, check

    if not lake.exists():
        raise ConfigError("the lake does not exist", where=str(lake))
    store = Lake(lake)
    present = store.tables()
    silences: tuple[Silence, ...] = ()
    if "encounter_event" in present:
        silences = silent_sources(check(store.table("encounter_event").to_arrow(), ENCOUNTER_EVENT), now=now)
    rosters = store.table("roster").to_arrow().to_pylist() if "roster" in present else []
    settled = {row["file_sha256"] for row in rosters if row["state"] != "held"}
    return silences, sorted(
        {row["file_name"] for row in rosters if row["state"] == "held" and row["file_sha256"] not in settled}
    )


def _ring(alarm: Alarm) -> None:
    word = "ALARM" if alarm.raised else "over"
    render.err(f"{word} {alarm.kind} {alarm.subject}: {alarm.message}")


@app.command()
def retry(
    outbox: Place = DEFAULT,
    subscriber: Subscriber = None,
    batch: Annotated[str | None, typer.Option("--batch", help="Only this batch id.")] = None,
    now: Now = None,
) -> None:
    """Put dead and held deliveries back into the queue. They keep their ids; `deliver run` sends them."""
    with _open(outbox, None) as ledger:
        count = ledger.retry(now=instant(now), subscriber_id=subscriber, batch_id=batch)
    render.out(f"{count:,} put back")


@app.command()
def replay(
    outbox: Place = DEFAULT,
    delivery: Annotated[str | None, typer.Option("--delivery", help="A delivery id.")] = None,
    event: Annotated[str | None, typer.Option("--event", help="An event key: every recipient of it.")] = None,
    subscriber: Subscriber = None,
    since: Annotated[str | None, typer.Option("--since", help="Acknowledged from this instant on.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Acknowledged before this instant.")] = None,
    now: Now = None,
) -> None:
    """Seal acknowledged deliveries again. They keep their ids and bear replay=true; `deliver run` sends them."""
    period = (instant(since), instant(until)) if since else None
    with _open(outbox, None) as ledger:
        count = ledger.replay(
            now=instant(now), delivery_id=delivery, event_key=event, subscriber_id=subscriber, period=period
        )
    render.out(f"{count:,} deliveries sealed again")


@app.command()
def log(
    outbox: Place = DEFAULT,
    last: Annotated[int, typer.Option("--last", help="Rows to show.")] = 20,
    accounting: Annotated[
        Path | None, typer.Option("--accounting", help="Write the accounting of disclosures (CSV) here.")
    ] = None,
    audit_events: Annotated[
        Path | None, typer.Option("--audit-events", help="Write FHIR AuditEvents (NDJSON) here.")
    ] = None,
    person: Annotated[str | None, typer.Option("--person", help="Accounting of this person only.")] = None,
    exchange: Annotated[str, typer.Option("--exchange", help="Name of the disclosing organisation.")] = "hiexchange",
    address: Annotated[str, typer.Option("--address", help="Its host name.")] = "localhost",
) -> None:
    """Show the last attempts, or export disclosures."""
    from hiexchange._files import atomic_file, write_bytes

    with _open(outbox, None) as ledger:
        if accounting is not None:
            from hiexchange.delivery.disclosures import accounting_csv

            table = ledger.accounting(person_id=person)
            write_bytes(accounting, accounting_csv(table))
            render.out(f"{table.num_rows:,} disclosures in {accounting}")
        if audit_events is not None:
            with atomic_file(audit_events) as file:
                count = 0
                for line in ledger.audit_events(exchange=exchange, address=address):
                    file.write(line)
                    count += 1
            render.out(f"{count:,} AuditEvents in {audit_events}")
        if accounting is None and audit_events is None:
            rows = ledger.receipts().to_pylist()[-last:]
            render.table(
                (
                    (
                        f"{row['ended_at']:%Y-%m-%d %H:%M:%S}",
                        row["name"],
                        row["rows"],
                        row["outcome"],
                        row["transport_code"],
                    )
                    for row in rows
                ),
                ["ended (UTC)", "name", "rows", "outcome", "said"],
            )


@app.command()
def verify(
    outbox: Place = DEFAULT,
    head: Annotated[str | None, typer.Option("--head", help="NUMBER:HASH noted by an earlier run.")] = None,
) -> None:
    """Prove audit chain, stored bytes, ids and numbers. Exit code 8 when something is wrong."""
    from hiexchange.errors import ConfigError

    number, _, digest = (head or "").partition(":")
    if head is not None and not (number.isdigit() and digest):
        raise ConfigError("--head must be NUMBER:HASH", hint="copy it from an earlier `deliver verify`")
    with _open(outbox, None) as ledger:
        found = ledger.verify(head=(int(number), digest) if head else None)
    for problem in found.problems:
        render.err(problem)
    render.out(f"{found.deliveries:,} deliveries, {found.batches:,} batches, {found.audit_rows:,} audit rows")
    render.out(f"head {found.audit_rows}:{found.head}")
    if not found.ok:
        raise typer.Exit(FAILED)


def _gate(subscriptions: Path | None, consent: Path | None, now: datetime) -> Recheck | None:
    from hiexchange.errors import ConfigError

    if subscriptions is None:
        if consent is not None:
            raise ConfigError("--consent needs --subscriptions", hint="give the file that says who the recipients are")
        return None
    return rules(subscriptions, consent).recheck(now)


def _open(outbox: str, base: Path | None) -> Outbox:
    from hiexchange.delivery import Outbox
    from hiexchange.errors import ConfigError

    if outbox.startswith(("env:", "file:")):
        from hiexchange.config import Secret
        from hiexchange.delivery.postgres import PostgresStore

        return Outbox(store=PostgresStore(Secret(outbox).reveal()), base=base)
    if not Path(outbox).is_file():
        raise ConfigError("there is no delivery ledger", where=outbox, hint="give its path with --outbox")
    return Outbox(outbox, base=base)


def _progress(event: object) -> None:
    from hiexchange.events import DeliveryFailed

    if isinstance(event, DeliveryFailed):
        render.err(f"{event.subscriber} #{event.sequence}: {event.reason}")


def _line(report: DeliveryReport) -> str:
    return f"{report.sealed:,} sealed, {report.batches_acked:,} acknowledged, {report.batches_failed:,} failed"


def _show(report: DeliveryReport, json: bool) -> None:
    if json:
        render.json_out(
            {
                "sealed": report.sealed,
                "batches_acked": report.batches_acked,
                "rows_acked": report.rows_acked,
                "batches_failed": report.batches_failed,
                "created": report.created,
                "states": dict(report.states),
                "problems": dict(report.problems),
            }
        )
        return
    render.out(_line(report))
    states = " + ".join(f"{count:,} {state}" for state, count in sorted(report.states.items()))
    render.out(f"{report.created:,} deliveries = {states or '0'}")
    for channel, problem in sorted(report.problems.items()):
        render.err(f"{channel}: {problem}")
