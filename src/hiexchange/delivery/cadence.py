"""When a channel's window closes. Pure: instants in, instants out.

A window is half-open in UTC, ``[sealed_to, tick)``, and starts where the ledger says the last one
ended, not where the clock says: a missed run catches up once, a clock stepped back never re-opens a
window, a 25-hour day is one batch. cronsim rather than croniter: on 2026-11-01 01:30 America/Chicago
croniter 7.0.0 fires twice, cronsim 2.8 once.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from hiexchange.delivery.base import EPOCH
from hiexchange.delivery.channel import ChannelSpec

_DAY = timedelta(days=1)


def windowed(spec: ChannelSpec) -> bool:
    """Say whether the channel collects into windows (cron, every n minutes) rather than sends as rows come."""
    return spec.cadence not in ("immediate", "on discharge")


def last_tick(spec: ChannelSpec, sealed_to: datetime, now: datetime) -> datetime | None:
    """Return the latest tick in ``(sealed_to, now]``, or None when the window is still open."""
    first = next_tick(spec, sealed_to)
    if first is None or first > now:
        return None
    if spec.cadence.startswith("every "):
        return _floor(now, _minutes(spec))
    return max(first, _last(_line(spec), sealed_to, now) or first)


def next_tick(spec: ChannelSpec, after: datetime) -> datetime | None:
    """Return the first tick after an instant; None when the cron line never fires again."""
    if spec.cadence.startswith("every "):
        return _floor(after, _minutes(spec)) + timedelta(minutes=_minutes(spec))
    return _first(_line(spec), after)


def next_window(spec: ChannelSpec, sealed_to: datetime, now: datetime) -> datetime | None:
    """Return when a channel's present window closes, or its quiet hours end; None when nothing is scheduled."""
    return next_tick(spec, max(sealed_to, now)) if windowed(spec) else quiet_until(spec, now)


def quiet_until(spec: ChannelSpec, now: datetime) -> datetime | None:
    """Return when the quiet hours that ``now`` lies in end; None outside them."""
    if spec.quiet_hours is None:
        return None
    zone = ZoneInfo(spec.zone)
    start, end = (time.fromisoformat(text) for text in spec.quiet_hours)
    local = now.astimezone(zone)
    clock = local.time()
    if start == end or not (start <= clock < end if start < end else clock >= start or clock < end):
        return None
    day = local.date() + (_DAY if start > end and clock >= start else timedelta())
    return datetime.combine(day, end, zone).astimezone(UTC)


def _minutes(spec: ChannelSpec) -> int:
    return int(spec.cadence.split()[1])


def _floor(at: datetime, minutes: int) -> datetime:
    step = timedelta(minutes=minutes)
    return EPOCH + (at - EPOCH) // step * step


class _Line(NamedTuple):
    """What decides a channel's cron ticks."""

    cadence: str
    zone: str
    holidays: tuple[date, ...]
    shift: bool


def _line(spec: ChannelSpec) -> _Line:
    holidays = spec.holidays if spec.holiday_rule != "send" else ()
    return _Line(spec.cadence, spec.zone, holidays, spec.holiday_rule == "shift")


@functools.lru_cache(maxsize=8192)
def _first(line: _Line, after: datetime) -> datetime | None:
    # Asked for every channel at every run, mostly with the same answer: a cron line takes 0.1 ms to read.
    return next(_ticks(line, after), None)


@functools.lru_cache(maxsize=8192)
def _last(line: _Line, sealed_to: datetime, now: datetime) -> datetime | None:
    # A channel that slept for long needs its last tick only: look near the end first.
    for start in (max(sealed_to, now - 40 * _DAY), sealed_to):
        found = list(itertools.takewhile(lambda tick: tick <= now, _ticks(line, start)))
        if found:
            return found[-1]
    return None


def _ticks(line: _Line, after: datetime) -> Iterator[datetime]:
    """Yield ticks after an instant in UTC, holidays skipped or shifted to the next day that is none."""
    from cronsim import CronSim

    zone = ZoneInfo(line.zone)
    holidays = set(line.holidays)
    # A tick shifted over a run of holidays started before ``after``.
    start = after - (len(holidays) + 1) * _DAY if line.shift and holidays else after
    seen = after
    for local in CronSim(line.cadence, start.astimezone(zone)):
        if local.date() in holidays:
            if not line.shift:
                continue
            local = datetime.combine(_working_day(local.date(), holidays), local.timetz().replace(tzinfo=None), zone)
        tick = local.astimezone(UTC)
        if tick > seen:
            seen = tick
            yield tick


def _working_day(day: date, holidays: set[date]) -> date:
    while day in holidays:
        day += _DAY
    return day
