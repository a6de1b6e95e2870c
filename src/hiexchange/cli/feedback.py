"""``hiexchange feedback``: what a payer gets back for a period."""

from __future__ import annotations

import calendar
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiexchange.cli import render
from hiexchange.cli._routing import existing, routed
from hiexchange.cli.route import Consent, Inbox, KnownAt, LakePath, Ledger, Subscribers, Zone

if TYPE_CHECKING:
    from hiexchange.lake import Lake


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("feedback")
    def feedback(
        payer: Annotated[str, typer.Argument(help="Payer id.")],
        period: Annotated[str, typer.Option("--period", help="2026-03, or 2026-01-01/2026-03-31.")],
        lake: LakePath = Path("lake"),
        subscriptions: Subscribers = Path("subscriptions.toml"),
        adt: Inbox = None,
        consent: Consent = None,
        zone: Zone = None,
        known_at: KnownAt = None,
        outbox: Ledger = None,
        out: Annotated[Path, typer.Option("--out", help="Folder for the files.")] = Path("feedback"),
        format: Annotated[str, typer.Option("--format", help="csv, tsv, ndjson or parquet.")] = "csv",
    ) -> None:
        """Write what a payer gets back for a period. Receipt, matches, performance, scorecard and page; a shareable form beside them."""
        from hiexchange.delivery import Outbox
        from hiexchange.feedback import payer_feedback, write
        from hiexchange.tables import ATTRIBUTION, DELIVERY, RECEIPT

        days = parse_period(period)
        if outbox is not None:
            existing(outbox, "delivery ledger")
        found = routed(lake, subscriptions, adt=adt, consent=consent, zone=zone, known_at=known_at)
        tables = found.lake.tables()
        _known(payer, found.lake)
        deliveries, receipts = DELIVERY.empty(), RECEIPT.empty()
        if outbox is not None:
            with Outbox(outbox) as ledger:
                deliveries, receipts = ledger.deliveries(), ledger.receipts()
        result = payer_feedback(
            payer,
            days,
            attribution=found.lake.table("attribution") if "attribution" in tables else ATTRIBUTION.empty(),
            links=found.links,
            events=found.routing.events,
            routing=found.routing,
            deliveries=deliveries,
            receipts=receipts,
            results=found.lake.table("measure_result") if "measure_result" in tables else None,
            rosters=found.lake.table("roster") if "roster" in tables else None,
            issues=found.lake.table("issue") if "issue" in tables else None,
        )
        paths = write(result, out, format=format)
        for name, count in result.counts.items():
            render.out(f"{name:<22} {count:>10,}")
        identity = found.routing.identity(deliveries)
        parts = " + ".join(f"{count:,} {name}" for name, count in identity.items() if name != "events")
        render.out(f"all payers: {identity['events']:,} events = {parts}")
        render.out(f"{len(paths)} files in {out}")


def _known(payer: str, lake: Lake) -> None:
    """Refuse a payer of whom there is no roster: a slip of the pen must not look like a month without events."""
    from hiexchange.errors import ConfigError
    from hiexchange.pipeline.inputs import stored
    from hiexchange.tables import ROSTER

    known = sorted(set(stored(lake, ROSTER)["payer_id"].to_pylist()))
    if known and payer not in known:
        raise ConfigError(f"no roster came from a payer '{payer}'", hint=f"known: {', '.join(known)}")


def parse_period(text: str) -> tuple[date, date]:
    """Return first and last day of ``2026-03`` or ``2026-01-01/2026-03-31``."""
    from hiexchange.errors import ConfigError

    try:
        if "/" in text:
            first, last = (date.fromisoformat(part) for part in text.split("/"))
        else:
            year, month = (int(part) for part in text.split("-"))
            first, last = date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])
    except (ValueError, calendar.IllegalMonthError):
        raise ConfigError(f"'{text}' is no period", hint="write 2026-03 or 2026-01-01/2026-03-31") from None
    if last < first:
        raise ConfigError("the period ends before it begins", hint="write first/last")
    return first, last
