"""What a run did and left behind, and the same as plain counts for the page and for JSON."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from hiexchange import tables
from hiexchange.encounters import Identities
from hiexchange.lake import Lake
from hiexchange.matching import DISCLOSURE
from hiexchange.measures import MeasureRun
from hiexchange.pipeline.merges import Merges
from hiexchange.routing import Routing


@dataclass(frozen=True, slots=True)
class Stage:
    """One line of the run's summary."""

    name: str
    seconds: float
    facts: str
    """Counts in words; no patient data."""


@dataclass(slots=True)
class RunResult:
    """What a run did, stage by stage, and the tables it left."""

    output: Path
    known_at: datetime
    lake: Lake
    stages: list[Stage] = field(default_factory=list)
    members: pa.Table = field(default_factory=tables.MEMBER.empty)
    attribution: pa.Table = field(default_factory=tables.ATTRIBUTION.empty)
    persons: pa.Table = field(default_factory=tables.PERSON.empty)
    links: pa.Table = field(default_factory=tables.PERSON_LINK.empty)
    identities: Identities | None = None
    """Whom the numbers of messages mean; None where no assigning authorities are configured."""
    merges: Merges = field(default_factory=Merges)
    """Records of the index that live on in others."""
    issues: pa.Table = field(default_factory=tables.ISSUE.empty)
    swallowed: int = 0
    """Events on record that were no news; routing sees only the others."""
    routing: Routing | None = None
    deliveries: pa.Table = field(default_factory=tables.DELIVERY.empty)
    receipts: pa.Table = field(default_factory=tables.RECEIPT.empty)
    problems: dict[str, str] = field(default_factory=dict)
    """Channels (``subscriber/channel``) that could not be sealed or reached at all, and why; their notices wait."""
    misdirected: pa.Table = field(default_factory=DISCLOSURE.empty)
    """What went out under a link that this run took back: disclosures to report."""
    measures: list[MeasureRun] = field(default_factory=list)
    identity: dict[str, int] = field(default_factory=dict)
    """Events by disposition: ``events`` and the parts that sum to it."""
    truth: list[tuple[str, str, bool]] = field(default_factory=list)
    """Where the truth is known: check, verdict in words, whether it is right."""

    @contextmanager
    def stage(self, name: str) -> Iterator[list[str]]:
        """Time a stage; the block appends its facts."""
        facts: list[str] = []
        start = time.perf_counter()
        yield facts
        self.stages.append(Stage(name, time.perf_counter() - start, "  ".join(facts)))

    @property
    def identity_holds(self) -> bool:
        """Whether every event has exactly one disposition."""
        return self.identity.get("events", 0) == sum(value for key, value in self.identity.items() if key != "events")

    @property
    def seconds(self) -> float:
        """Time of all stages together."""
        return sum(stage.seconds for stage in self.stages)

    def accounted(self, counts: dict[str, int]) -> dict[str, int]:
        """Return a routing's counts with the events that were no news."""
        more = self.swallowed
        return {name: count + (more if name in ("events", "swallowed") else 0) for name, count in counts.items()}

    def lake_rows(self) -> dict[str, int]:
        """Return the rows of each FHIR type in the lake."""
        return {name: count for name, count in self.lake.tables().items() if name[0].isupper()}

    def as_dict(self) -> dict[str, Any]:
        """Return the counts of the run as plain values: what ``run.json`` and the page show."""
        bands = Counter(self.links["band"].to_pylist())
        sent = Counter(self.deliveries["state"].to_pylist())
        rows = sum(self.lake_rows().values())
        attributed = self.identity.get("events", 0) - sum(
            self.identity.get(name, 0) for name in ("swallowed", "unmatched", "unattributed")
        )
        return {
            "known_at": self.known_at.isoformat(),
            "seconds": round(self.seconds, 3),
            "strip": [
                ("rows in the lake", rows),
                ("members matched", bands["auto"]),
                ("events", self.identity.get("events", 0)),
                ("notices acknowledged", sent["acked"]),
                ("rows refused", self.issues.num_rows),
            ],
            "stages": [{"name": stage.name, "seconds": stage.seconds, "facts": stage.facts} for stage in self.stages],
            "identity": self.identity,
            "identity_holds": self.identity_holds,
            "steps": [
                ("events", self.identity.get("events", 0)),
                ("material", self.identity.get("events", 0) - self.identity.get("swallowed", 0)),
                ("attributed", attributed),
                ("permitted", attributed - self.identity.get("held", 0)),
                ("delivered", self.identity.get("delivered", 0)),
            ],
            "misdirected": self.misdirected.num_rows,
            "problems": self.problems,
            "deliveries": _delivery_rows(self.deliveries, self.receipts),
            "measures": [_measure_row(done) for done in self.measures],
            "issues": _issue_rows(self.issues),
            "truth": [{"check": check, "verdict": verdict, "ok": right} for check, verdict, right in self.truth],
        }


def _delivery_rows(deliveries: pa.Table, receipts: pa.Table) -> list[dict[str, Any]]:
    states: dict[tuple[str, str], Counter[str]] = {}
    for row in deliveries.select(["subscriber_id", "channel_id", "state"]).to_pylist():
        states.setdefault((row["subscriber_id"], row["channel_id"]), Counter())[row["state"]] += 1
    batches = Counter(
        (row["subscriber_id"], row["channel_id"])
        for row in receipts.select(["subscriber_id", "channel_id", "outcome"]).to_pylist()
        if row["outcome"] == "acked"
    )
    return [
        {
            "subscriber": subscriber,
            "channel": channel,
            "events": sum(counts.values()),
            "batches": batches[(subscriber, channel)],
            "states": ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items())),
        }
        for (subscriber, channel), counts in sorted(states.items())
    ]


def _measure_row(done: MeasureRun) -> dict[str, Any]:
    summary = done.summary()
    low, high = summary.interval or (None, None)
    return {
        "id": summary.measure.id,
        "title": summary.measure.title,
        "period": " to ".join(day.isoformat() for day in summary.period),
        "numerator": summary.first.hits,
        "denominator": summary.first.eligible,
        "excluded": summary.counts.get("denominator_exclusion", 0),
        "errors": summary.first.errors,
        "rate": summary.rate,
        "low": low,
        "high": high,
    }


def _issue_rows(issues: pa.Table) -> list[dict[str, Any]]:
    counts = Counter(zip(*(issues[name].to_pylist() for name in ("stage", "code", "severity")), strict=True))
    return [
        {"stage": stage, "code": code, "severity": severity, "rows": rows}
        for (stage, code, severity), rows in sorted(counts.items())
    ]
