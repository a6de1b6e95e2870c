"""What a user writes, read by mypy --strict and never run: the public types are part of the promise."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa

import hiexchange as hx
from hiexchange.events import Event, FileDone
from hiexchange.measures import MeasureRun


def report(event: Event) -> None:
    if isinstance(event, FileDone):
        resources: int = event.resources
        assert resources >= 0


def pull() -> None:
    auth = hx.SmartBackendServices("share-hie", hx.Secret("file:share.jwk"))
    server: hx.Server = hx.Server("https://fhir.hospital.example/r4", auth)
    lake = hx.Lake("lake")
    request = hx.ExportRequest(group="share", types=("Patient", "Encounter"))
    job: hx.ExportJob = hx.ExportJob.start(server, request, folder="jobs/hospital", on_event=report)
    job.wait()
    result: hx.ExportResult = job.download()
    rows: int = lake.ingest(result).rows
    assert rows >= 0
    hx.pull(hx.bcda(client_id="…", client_secret=hx.Secret("env:BCDA_SECRET")), lake, request, folder="jobs/bcda")


def route(lake: hx.Lake) -> None:
    now = datetime(2026, 11, 15, tzinfo=UTC)
    roster = hx.read_roster("payer-a.csv", "layouts/payer-a.toml", received_at=now)
    members: pa.Table = roster.members
    links: pa.Table = hx.match(members, hx.view("patient_demographics", lake), known_at=now, run_id="a")
    attribution: pa.Table = hx.attribute(roster, lake.table("attribution"), known_at=now)
    events: pa.Table = hx.from_view(hx.view("encounter", lake), received_at=now)
    routing = hx.route(events, attribution, links, hx.load_subscriptions("subs.toml"), known_at=now)
    counts: dict[str, int] = routing.identity()
    with hx.Outbox("outbox.sqlite") as outbox:
        outbox.deliver(routing, now=now)
    assert counts


def measure(lake: hx.Lake) -> MeasureRun:
    return hx.evaluate("followup-7d", lake, period=(date(2026, 1, 1), date(2026, 12, 31)), run_id="a")
