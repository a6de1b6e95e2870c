"""``hiexchange route``: who gets which event, and why the others do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiexchange.cli import render
from hiexchange.cli._routing import Routed, existing, routed

if TYPE_CHECKING:
    from hiexchange.routing import Explanation

LakePath = Annotated[Path, typer.Option("--lake", help="Lake folder.")]
Subscribers = Annotated[Path, typer.Option("--subscriptions", help="TOML file of [[subscriptions]].")]
Inbox = Annotated[Path | None, typer.Option("--adt", help="Folder or file of HL7 v2 ADT messages.")]
Consent = Annotated[Path | None, typer.Option("--consent", help="Consent decisions, CSV or NDJSON.")]
Zone = Annotated[str | None, typer.Option("--zone", help="IANA zone of times without offset.")]
KnownAt = Annotated[str | None, typer.Option("--known-at", help="Knowledge time; now by default.")]
Ledger = Annotated[Path | None, typer.Option("--outbox", help="Delivery ledger.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Decide who gets which event; explain why.", no_args_is_help=True)
    app.add_typer(group, name="route")

    @group.command("run")
    def run(
        lake: LakePath = Path("lake"),
        subscriptions: Subscribers = Path("subscriptions.toml"),
        adt: Inbox = None,
        consent: Consent = None,
        zone: Zone = None,
        known_at: KnownAt = None,
        out: Annotated[Path | None, typer.Option("--out", help="Write the decisions to this Parquet file.")] = None,
        dry_run: Annotated[
            Path | None, typer.Option("--dry-run", help="Render what would be sent into this scratch folder.")
        ] = None,
        outbox: Ledger = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
    ) -> None:
        """Route and print the sum of all events and the reasons. Nothing is sent."""
        found = routed(lake, subscriptions, adt=adt, consent=consent, zone=zone, known_at=known_at)
        counts = found.routing.identity()
        reasons = found.routing.reasons()
        if out is not None:
            _write(found, out)
        difference = _rehearse(found, dry_run, outbox) if dry_run is not None else {}
        if as_json:
            listed = [{"decision": one, "reason": two, "decisions": count} for (one, two), count in reasons.items()]
            value = {"identity": counts, "refused": found.refused, "reasons": listed, "dry_run": difference}
            render.json_out(value)
            return
        parts = " + ".join(f"{count:,} {name}" for name, count in counts.items() if name != "events")
        render.out(f"{counts['events']:,} events = {parts}")
        render.table(((*key, count) for key, count in reasons.items()), ("decision", "reason", "decisions"))
        if dry_run is not None:
            render.out(
                f"dry run in {dry_run}: {difference['new']:,} new, {difference['known']:,} in the ledger already"
            )

    @group.command("explain")
    def explain(
        event: Annotated[str, typer.Argument(help="Event key, or its beginning.")],
        lake: LakePath = Path("lake"),
        subscriptions: Subscribers = Path("subscriptions.toml"),
        adt: Inbox = None,
        consent: Consent = None,
        zone: Zone = None,
        known_at: KnownAt = None,
        outbox: Ledger = None,
    ) -> None:
        """Say why each possible recipient did or did not get an event."""
        from hiexchange.routing import explain as explained

        found = routed(lake, subscriptions, adt=adt, consent=consent, zone=zone, known_at=known_at)
        attribution = found.lake.table("attribution").to_arrow() if "attribution" in found.lake.tables() else None
        deliveries = _deliveries(outbox)
        for line in explained(found.routing, event, attribution=attribution, links=found.links, deliveries=deliveries):
            _show(line)


def _show(line: Explanation) -> None:
    who = f"{line.subscriber_id}/{line.channel_id or '-'}" if line.subscriber_id else "nobody"
    state = f", delivery {line.delivery_state}" if line.delivery_state else ""
    render.out(f"{who}: {line.decision} ({line.reason_code}{state})")
    render.out(f"  why    {line.reason}")
    render.out(f"  when   attribution on {line.event_on}, as known at {line.known_at.isoformat()}")
    for item in line.evidence:
        roster = (
            f"roster {item.roster_id[:12]} row {item.row_no}" if item.roster_id else f"row {item.attribution_id[:12]}"
        )
        score = f" {item.score:.1f} bits" if item.score is not None else ""
        render.out(
            f"  from   {item.payer_id}, {roster}, {item.basis or 'basis unknown'}, {item.valid_from} to {item.valid_to}; "
            f"matched by {item.rule or item.method or 'unknown'}{score}"
        )


def _write(found: Routed, out: Path) -> None:
    import pyarrow.parquet as pq

    from hiexchange._files import atomic_file

    with atomic_file(out) as file:
        pq.write_table(found.routing.decisions, file)


def _deliveries(outbox: Path | None) -> Any:
    from hiexchange.delivery import Outbox

    if outbox is None:
        return None
    with Outbox(existing(outbox, "delivery ledger")) as ledger:
        return ledger.deliveries()


def _rehearse(found: Routed, folder: Path, outbox: Path | None) -> dict[str, int]:
    """Render everything into a scratch folder by a ledger of its own; compare its ids with the real ledger's."""
    from hiexchange.delivery import Outbox
    from hiexchange.routing import Subscriptions

    routing = found.routing
    scratch = tuple(
        replace(
            item, channels=tuple(replace(one, url=str(folder.absolute() / item.id / one.id)) for one in item.channels)
        )
        for item in routing.subscriptions
    )
    (folder / "outbox.sqlite").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with Outbox(folder / "outbox.sqlite") as rehearsal:
        rehearsal.enqueue(
            replace(routing, subscriptions=Subscriptions(scratch)), now=routing.known_at, persons=found.persons
        )
        rehearsal.run(routing.known_at, flush=True)
        ours = set(rehearsal.deliveries()["delivery_id"].to_pylist())
    real = _deliveries(outbox)
    known = set(real["delivery_id"].to_pylist()) if real is not None else set()
    return {"new": len(ours - known), "known": len(ours & known)}
