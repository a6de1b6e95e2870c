"""What was planted, and the comparison with what the stages found.

Nothing here calls the stages: the expectations come from the plan of the population, by plain loops.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from hiexchange import ndjson
from hiexchange.testing.population.rosters import Membership
from hiexchange.testing.population.visits import Visit

NOTIFIED = {"IMP": ("admit", "discharge"), "EMER": ("register", "discharge")}
"""Visit classes that the demo's practices subscribe to, with the triggers of their start and end."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where a stage and the truth disagree; keys are synthetic."""

    kind: str
    """``missing``: planted, not found; ``unexpected``: found, not planted; ``wrong``: found otherwise."""
    key: str


def notices(visits: list[Visit], members: list[Membership], *, subscribing: int) -> Iterator[dict[str, Any]]:
    """Yield the notices each practice must (or may) get for the visits of one person."""
    for visit in visits:
        for trigger, moment in zip(NOTIFIED.get(visit.kind, ()), (visit.start, visit.end), strict=False):
            best: dict[str, str] = {}
            for member in members:
                span = member.at(moment.date())
                usable = span and span.practice.number <= subscribing and not member.opted_out
                if usable and span and member.expect != "never":
                    subscriber = span.practice.subscriber
                    best[subscriber] = "must" if "must" in (best.get(subscriber), _duty(member)) else "may"
            for subscriber, expect in sorted(best.items()):
                yield {"encounter": visit.id, "trigger": trigger, "subscriber": subscriber, "expect": expect}


def _duty(member: Membership) -> str:
    return "must" if member.expect == "link" else "may"


@dataclass(frozen=True, slots=True)
class Truth:
    """The folder of planted facts, and the comparisons."""

    folder: Path

    def attribution(self, active: Iterable[tuple[date, str, str, str]]) -> list[Difference]:
        """Compare (day, payer, member_id, npi) of the active attributions on the check days."""
        planted = {(fact["on"], fact["payer"], fact["member_id"], fact["npi"]) for fact in self.facts("attribution")}
        found = {(day.isoformat(), payer, member, npi) for day, payer, member, npi in active}
        return _compare(planted, planted, found)

    def check_days(self) -> list[date]:
        """Return the days on which attribution is compared."""
        return sorted({date.fromisoformat(fact["on"]) for fact in self.facts("attribution")})

    def matching(self, links: Iterable[tuple[str, str, str, str | None]]) -> dict[str, list[Difference]]:
        """Compare (payer, member_id, band, person_id); return the differences of each class of trouble."""
        found = {(payer, member): (band, person) for payer, member, band, person in links}
        result: dict[str, list[Difference]] = {}
        for fact in self.facts("members"):
            differences = result.setdefault(fact["trouble"], [])
            key = (fact["payer"], fact["member_id"])
            band, person = found.pop(key, ("absent", None))
            if fact["expect"] == "link" and band != "auto":
                differences.append(Difference("missing", "/".join(key)))
            elif band == "auto" and (fact["expect"] == "never" or person != fact["person"]):
                differences.append(Difference("wrong", "/".join(key)))
        result["not planted"] = [Difference("unexpected", "/".join(key)) for key in found]
        return {trouble: result[trouble] for trouble in sorted(result)}

    def routing(self, delivered: Iterable[tuple[str, str, str]]) -> list[Difference]:
        """Compare (encounter, trigger, subscriber) of all deliveries."""
        must: set[tuple[str, ...]] = set()
        may: set[tuple[str, ...]] = set()
        for fact in self.facts("notices"):
            key = (fact["encounter"], fact["trigger"], fact["subscriber"])
            (must if fact["expect"] == "must" else may).add(key)
        return _compare(must, must | may, set(delivered))

    def measure(self, episodes: Iterable[tuple[str, int, int, int]]) -> list[Difference]:
        """Compare (encounter, denominator, excluded, numerator) of follow-up within 7 days."""
        planted = {
            (fact["encounter"], int(fact["excluded"]), int(fact["numerator"]))
            for fact in self.facts("discharges")
            if fact["denominator"]
        }
        found = {
            (episode, excluded, numerator) for episode, denominator, excluded, numerator in episodes if denominator
        }
        return _compare(planted, planted, found)

    def of_patients(self, measure: str, subjects: Iterable[tuple[str, int, int]]) -> list[Difference]:
        """Compare (subject, denominator, numerator) of ``social-need-screening`` or ``data-completeness``."""
        planted = {(fact["subject"], int(fact["numerator"])) for fact in self.facts(measure)}
        found = {(subject, numerator) for subject, denominator, numerator in subjects if denominator}
        return _compare(planted, planted, found)

    def followup(self) -> tuple[int, int]:
        """Return planted numerator and denominator without exclusions."""
        counted = [fact for fact in self.facts("discharges") if fact["denominator"] and not fact["excluded"]]
        return sum(fact["numerator"] for fact in counted), len(counted)

    def facts(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the planted facts of one kind."""
        path = self.folder / f"{name}.ndjson"
        if path.exists():
            yield from ndjson.reader(path)


def _compare(must: set[Any], allowed: set[Any], found: set[Any]) -> list[Difference]:
    missing = [Difference("missing", _key(key)) for key in sorted(must - found, key=str)]
    return missing + [Difference("unexpected", _key(key)) for key in sorted(found - allowed, key=str)]


def _key(parts: tuple[Any, ...]) -> str:
    return "/".join(str(part) for part in parts)


def rows(table: pa.Table, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield the named columns of a table, row by row."""
    yield from zip(*(table[column].to_pylist() for column in columns), strict=True)
