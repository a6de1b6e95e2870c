"""What somebody should be woken for, told once by callback, and once more when it is over. Pure.

Mirth's alert storm (nextgen issue 962) is what to avoid: a condition that lasts is one alarm, however often it is
looked at. Alarms name channels, endpoints, sources and rosters, never people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from hiexchange.delivery.base import Health
from hiexchange.events import Event


class SilenceLike(Protocol):
    """A source that has fallen silent: what is read of ``encounters.completeness.Silence``."""

    @property
    def source(self) -> str:
        """Its name."""

    @property
    def last_at(self) -> datetime:
        """Its last message."""

    @property
    def missing(self) -> float:
        """Messages that usually come in the time since."""


class Alarm(Event, frozen=True):
    """A condition that began, or ended."""

    kind: str
    """backlog, dead, in_doubt, circuit_open, missed_cadence, silent_source or roster_held."""
    subject: str
    """Channel, endpoint, source or roster; empty for what concerns the whole ledger."""
    message: str
    """In words, with the figure."""
    raised: bool = True
    """False when the condition is over."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on a figure is an alarm."""

    backlog_s: float = 3600.0
    """Age of the oldest delivery that is due and not acknowledged."""
    dead: int = 0
    """Batches and rows given up; more than these are an alarm."""
    in_doubt: int = 0
    """Batches whose arrival is not known."""


def alarms(
    health: Health,
    *,
    limits: Limits | None = None,
    silences: Iterable[SilenceLike] = (),
    held_rosters: Iterable[str] = (),
) -> tuple[Alarm, ...]:
    """Return the conditions that hold now.

    Args:
        health: Of the ledger, from ``Outbox.health(now)``.
        limits: From when on a figure is an alarm.
        silences: Sources that have fallen silent (``encounters.silent_sources``).
        held_rosters: Roster files that the acceptance gate holds.
    """
    bounds = limits or Limits()
    found = []
    if health.oldest_waiting_s > bounds.backlog_s:
        found.append(Alarm("backlog", "", f"a delivery has been due for {health.oldest_waiting_s / 3600:.1f} h"))
    if health.dead > bounds.dead:
        found.append(Alarm("dead", "", f"{health.dead:,} batches or rows were given up"))
    if health.in_doubt > bounds.in_doubt:
        found.append(Alarm("in_doubt", "", f"of {health.in_doubt:,} batches it is not known whether they arrived"))
    found += [Alarm("circuit_open", name, "left alone after failures in a row") for name in health.open_circuits]
    found += [Alarm("missed_cadence", name, "its window has closed and was not sealed") for name in health.overdue]
    found += [
        Alarm("silent_source", one.source, f"silent since {one.last_at:%Y-%m-%d %H:%M} UTC; {one.missing:g} missing")
        for one in silences
    ]
    found += [Alarm("roster_held", name, "waits for a person to release or refuse it") for name in held_rosters]
    return tuple(found)


class AlarmBell:
    """Calls back when a condition begins and when it ends, not while it lasts. One thread at a time."""

    def __init__(self, callback: Callable[[Alarm], None]) -> None:
        """Remember whom to call. A callback that fails is called again at the next look."""
        self._callback = callback
        self._ringing: dict[tuple[str, str], Alarm] = {}

    @property
    def ringing(self) -> tuple[Alarm, ...]:
        """What was told and still holds."""
        return tuple(self._ringing.values())

    def look(self, present: Iterable[Alarm]) -> None:
        """Compare what holds now with what was told."""
        now = {(alarm.kind, alarm.subject): alarm for alarm in present}
        for key, alarm in now.items():
            if key not in self._ringing:
                self._callback(alarm)
                self._ringing[key] = alarm
        for key in [key for key in self._ringing if key not in now]:
            over = self._ringing[key]
            self._callback(Alarm(over.kind, over.subject, "over", raised=False))
            del self._ringing[key]
