"""The outbox at the size of a state's day: ledger rows, rendering, re-run, verification, immediate path.

Everything is synthetic and made from a seed. Memory is this process's peak.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from hiexchange.delivery import Outbox
from hiexchange.routing import Subscriptions, load_subscriptions
from hiexchange.tables import ENCOUNTER_EVENT, PERSON, ROUTING_DECISION
from hiexchange.testing.sinks import HTTPSink, MLLPSink

NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
FORMATS = ("csv", "csv", "csv", "xlsx", "xlsx", "ndjson", "parquet", "hl7v2", "fhir", "tsv")
"""Mix of subscribers' formats; every one daily, into a folder."""


@dataclass(frozen=True)
class Routing:
    """What the outbox reads of a routing result."""

    decisions: pa.Table
    events: pa.Table
    subscriptions: Subscriptions


def key(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def event(number: int, triggers: tuple[str, ...]) -> dict[str, object]:
    at = NOW - timedelta(seconds=number % 80_000)
    return {
        "event_key": key("event", number),
        "facility_id": f"fac-{number % 116}",
        "facility_name": f"Hospital {number % 116}",
        "facility_npi": "1999999984",
        "visit_number": f"v{number}",
        "trigger": triggers[number % len(triggers)],
        "version": 1,
        "event_at": at,
        "event_on": at.date(),
        "received_at": at,
        "person_id": f"-{number}",
        "patient_id_sent": f"m{number}",
        "class": "IMP",
        "status": "in-progress",
        "period_start_at": at,
        "attending_npi": "1888888886",
        "diagnoses": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I50.9", "display": "Heart failure"}],
        "labels": [],
        "material_hash": key("material", number),
        "material": True,
        "flags": [],
        "source": "hl7v2",
        "message_sha": key("raw", number),
    }


def day(rows: int, subscribers: int, seed: int) -> tuple[Routing, pa.Table]:
    """A day of ``rows`` deliveries, 1.4 an event, spread unevenly over the subscribers."""
    dice = np.random.default_rng(seed)
    count = max(1, int(rows / 1.4))
    events = ENCOUNTER_EVENT.from_rows(event(number, ("admit", "register", "transfer")) for number in range(count))
    weights = dice.pareto(1.5, subscribers) + 0.2
    subscriptions = load_subscriptions(
        {
            "id": f"s{number}",
            "npi": ["1777777778"],
            "channel": f"file:out/s{number}",
            "format": FORMATS[number % len(FORMATS)],
            "cadence": "0 6 * * *",
        }
        for number in range(subscribers)
    )
    chosen = dice.choice(subscribers, size=rows * 2, p=weights / weights.sum())
    pairs = list(dict.fromkeys(zip((index % count for index in range(rows * 2)), chosen.tolist(), strict=True)))[:rows]
    decisions = ROUTING_DECISION.from_rows(
        {
            "event_key": key("event", number),
            "person_id": f"-{number}",
            "decision": "deliver",
            "reason_code": "attributed",
            "subscriber_id": f"s{subscriber}",
            "channel_id": "default",
            "provider_npi": "1777777778",
            "org_id": "org",
            "primary": True,
            "payer_ids": ["payer-a"],
            "known_at": NOW,
        }
        for number, subscriber in pairs
    )
    persons = PERSON.from_rows(
        {
            "person_id": f"-{number}",
            "last_name": f"Invented{number}",
            "first_name": "Ada",
            "birth_date": "1950-02-03",
            "sex": "female",
            "member_ids": [],
        }
        for number in range(count)
    )
    return Routing(decisions, events, subscriptions), persons


def immediate(messages: int, folder: Path) -> list[tuple[str, float, float]]:
    """Enqueue one event at a time and wait until the sink has it; return name, p50 and p95 in seconds."""
    results = []
    with HTTPSink() as http, MLLPSink() as mllp:
        for name, url, form in (
            ("HTTPS", http.url, "fhir"),
            ("MLLP", mllp.url, "hl7v2"),
            ("folder", "file:now", "csv"),
        ):
            subscriptions = load_subscriptions([{"id": name, "npi": ["1777777778"], "channel": url, "format": form}])
            took = []
            with Outbox(folder / f"{name}.sqlite", base=folder) as outbox:
                for number in range(messages):
                    routing, persons = day(1, 1, 7)
                    events = ENCOUNTER_EVENT.from_rows([event(number, ("admit",))])
                    decision = routing.decisions.to_pylist()[0] | {
                        "event_key": key("event", number),
                        "subscriber_id": name,
                    }
                    routing = Routing(ROUTING_DECISION.from_rows([decision]), events, subscriptions)
                    started = time.perf_counter()
                    report = outbox.deliver(routing, now=NOW + timedelta(seconds=number), persons=persons)
                    took.append(time.perf_counter() - started)
                    assert report.batches_acked == 1
            results.append((name, statistics.median(took), sorted(took)[int(0.95 * len(took))]))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--subscribers", type=int, default=763)
    parser.add_argument("--messages", type=int, default=100, help="events of the immediate path, each channel")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    lines: list[tuple[str, str, str]] = []

    def timed(name: str, target: str, work):
        started, cpu = time.perf_counter(), time.process_time()
        result = work()
        lines.append(
            (name, f"{time.perf_counter() - started:.1f} s ({time.process_time() - cpu:.1f} s processor)", target)
        )
        return result

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        routing, persons = day(given.rows, given.subscribers, given.seed)
        rows = f"{routing.decisions.num_rows:,}"
        with Outbox(folder / "outbox.sqlite") as outbox:
            timed(
                f"{rows} ledger rows in one transaction",
                "30 s",
                lambda: outbox.enqueue(routing, now=NOW, persons=persons),
            )
            timed("the same day again (no new row)", "", lambda: outbox.enqueue(routing, now=NOW, persons=persons))
            report = timed(
                f"render, store and deliver to {given.subscribers} folders",
                "120 s",
                lambda: outbox.run(NOW + timedelta(days=1)),
            )
            assert report.states == {"acked": routing.decisions.num_rows}, report
            timed("verify the whole ledger", "", outbox.verify)
            size = sum(path.stat().st_size for path in folder.glob("outbox.sqlite*"))
            lines.append(("batches", f"{report.batches_acked:,}", ""))
            lines.append(("ledger on disk", f"{size / 1e6:,.0f} MB", ""))
        for channel, median, high in immediate(given.messages, folder):
            lines.append(
                (f"immediate path, {channel}: p50 / p95", f"{median * 1e3:.0f} / {high * 1e3:.0f} ms", "p95 2 s")
            )
    lines.append(("peak memory", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB", "3 GB"))
    print("| step | measured | target |\n|---|---|---|")
    for step, measured, target in lines:
        print(f"| {step} | {measured} | {target} |")


if __name__ == "__main__":
    main()
