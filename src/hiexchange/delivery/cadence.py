"""When a channel's window closes. Pure: instants in, instants out.

A window is half-open in UTC, ``[sealed_to, tick)``, and starts where the ledger says the last one
ended, not where the clock says: a missed run catches up once, a clock stepped back never re-opens a
window, a 25-hour day is one batch. cronsim rather than croniter: on 2026-11-01 01:30 America/Chicago
croniter 7.0.0 fires twice, cronsim 2.8 once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hiexchange.delivery.base import EPOCH
from hiexchange.delivery.channel import ChannelSpec

_DAY = timedelta(days=1)


def windowed(spec: ChannelSpec) -> bool:
    """Say whether the channel collects into windows (cron, every n minutes) rather than sends as rows come."""
    return spec.cadence not in ("immediate", "on discharge")


def last_tick(spec: ChannelSpec, sealed_to: datetime, now: datetime) -> datetime | None:
    """Return the latest tick in ``(sealed_to, now]``, or None when the window is still open."""
    if now <= sealed_to:
        return None
    if spec.cadence.startswith("every "):
        tick = _floor(now, _minutes(spec))
        return tick if tick > sealed_to else None
    latest = None
    # A channel that slept for long needs its last tick only: look near the end first.
    for start in (max(sealed_to, now - 40 * _DAY), sealed_to):
        for tick in _cron(spec, start):
            if tick > now:
                break
            latest = tick if tick > sealed_to else latest
        if latest is not None or start == sealed_to:
            break
    return latest


def next_tick(spec: ChannelSpec, after: datetime) -> datetime | None:
    """Return the first tick after an instant; None when the cron line never fires again."""
    if spec.cadence.startswith("every "):
        return _floor(after, _minutes(spec)) + timedelta(minutes=_minutes(spec))
    return next(_cron(spec, after), None)


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


def _cron(spec: ChannelSpec, after: datetime) -> Iterator[datetime]:
    """Yield ticks after an instant in UTC, holidays skipped or shifted to the next day that is none."""
    from cronsim import CronSim

    zone = ZoneInfo(spec.zone)
    holidays = set(spec.holidays) if spec.holiday_rule != "send" else set()
    # A tick shifted over a run of holidays started before ``after``.
    start = after - (len(holidays) + 1) * _DAY if spec.holiday_rule == "shift" and holidays else after
    seen = after
    for local in CronSim(spec.cadence, start.astimezone(zone)):
        if local.date() in holidays:
            if spec.holiday_rule == "skip":
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
