"""When windows close: DST, holidays, quiet hours, missed runs, clocks that step."""

from __future__ import annotations

import csv
import json
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange.delivery.cadence import last_tick, next_tick, quiet_until, windowed
from hiexchange.delivery.channel import ChannelSpec


def spec(cadence: str, zone: str = "America/Chicago", **given) -> ChannelSpec:
    return ChannelSpec(subscriber_id="a", channel_id="b", url="in", cadence=cadence, zone=zone, **given)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ticks(channel: ChannelSpec, after: datetime, count: int) -> list[datetime]:
    found = []
    for _ in range(count):
        after = next_tick(channel, after)
        found.append(after)
    return found


def test_the_hour_that_comes_twice_fires_once():
    # 01:30 is 06:30 UTC (CDT) and again 07:30 UTC (CST) on 2026-11-01; only one of them is a tick.
    found = ticks(spec("30 1 * * *"), at("2026-10-31T12:00"), 2)
    assert found[0] in (at("2026-11-01T06:30"), at("2026-11-01T07:30"))
    assert found[1] == at("2026-11-02T07:30")


def test_the_hour_that_is_left_out_fires_at_its_end():
    # 02:30 does not exist on 2026-03-08; the window closes at 03:00 CDT.
    assert next_tick(spec("30 2 * * *"), at("2026-03-08T06:00")) == at("2026-03-08T08:00")


def test_a_day_of_25_hours_is_one_window():
    channel = spec("0 6 * * *")
    first = next_tick(channel, at("2026-10-31T00:00"))
    second = next_tick(channel, first)
    third = next_tick(channel, second)
    assert (second - first, third - second) == (timedelta(hours=25), timedelta(hours=24))


def test_every_n_minutes_counts_in_utc_whatever_the_zone():
    channel = spec("every 15 minutes", zone="Asia/Kathmandu")
    assert next_tick(channel, at("2026-11-10T12:00")) == at("2026-11-10T12:15")
    assert last_tick(channel, at("2026-11-10T12:00"), at("2026-11-10T12:14")) is None
    assert last_tick(channel, at("2026-11-10T12:00"), at("2026-11-10T12:47")) == at("2026-11-10T12:45")


def test_a_missed_week_catches_up_with_one_tick():
    channel = spec("0 6 * * *")
    assert last_tick(channel, at("2026-11-01T13:00"), at("2026-11-09T13:00")) == at("2026-11-09T12:00")


def test_a_channel_that_slept_for_a_year_still_finds_its_tick():
    channel = spec("0 6 1 1 *")
    assert last_tick(channel, at("2025-06-01T00:00"), at("2026-06-01T00:00")) == at("2026-01-01T12:00")
    assert last_tick(channel, at("2026-01-02T00:00"), at("2026-06-01T00:00")) is None


def test_a_clock_stepped_back_does_not_open_a_sealed_window():
    assert last_tick(spec("0 6 * * *"), at("2026-11-10T12:00"), at("2026-11-10T11:00")) is None


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("send", ["2026-11-25T12:00", "2026-11-26T12:00", "2026-11-27T12:00"]),
        ("skip", ["2026-11-25T12:00", "2026-11-28T12:00", "2026-11-29T12:00"]),
        ("shift", ["2026-11-25T12:00", "2026-11-28T12:00", "2026-11-29T12:00"]),
    ],
)
def test_holidays_are_skipped_or_shifted(rule, expected):
    days = (date(2026, 11, 26), date(2026, 11, 27))
    channel = spec("0 6 * * *", holidays=days, holiday_rule=rule)
    assert ticks(channel, at("2026-11-25T00:00"), 3) == [at(text) for text in expected]


def test_a_weekly_tick_on_a_holiday_shifts_to_the_next_day():
    channel = spec("0 6 * * 4", holidays=(date(2026, 11, 26),), holiday_rule="shift")
    assert ticks(channel, at("2026-11-25T00:00"), 2) == [at("2026-11-27T12:00"), at("2026-12-03T12:00")]


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-10T03:59", None),
        ("2026-11-10T04:00", "2026-11-10T12:00"),
        ("2026-11-10T11:59", "2026-11-10T12:00"),
        ("2026-11-10T12:00", None),
    ],
)
def test_quiet_hours_over_midnight_end_in_the_channels_zone(now, expected):
    channel = spec("immediate", quiet_hours=("22:00", "06:00"))
    assert quiet_until(channel, at(now)) == (at(expected) if expected else None)


def test_quiet_hours_within_a_day():
    channel = spec("immediate", zone="UTC", quiet_hours=("12:00", "13:00"))
    assert quiet_until(channel, at("2026-11-10T12:30")) == at("2026-11-10T13:00")
    assert quiet_until(channel, at("2026-11-10T13:00")) is None


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)), st.integers(0, 60 * 24 * 30))
def test_the_last_tick_lies_in_the_window_and_nothing_lies_after_it(start, minutes):
    channel = spec("30 1 * * *")
    sealed, now = start.replace(tzinfo=UTC), start.replace(tzinfo=UTC) + timedelta(minutes=minutes)
    tick = last_tick(channel, sealed, now)
    if tick is None:
        assert next_tick(channel, sealed) > now
    else:
        assert sealed < tick <= now
        assert next_tick(channel, tick) > now


def test_only_cron_and_every_have_windows():
    assert [windowed(spec(text)) for text in ("immediate", "on discharge", "0 6 * * *", "every 5 minutes")] == [
        False,
        False,
        True,
        True,
    ]


# The same through the outbox ------------------------------------------------------------------------


def _manifests(folder):
    return [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.manifest.json"))]


def test_a_daily_file_holds_what_came_before_its_tick(exchange, open_outbox, now, tmp_path):
    subscription = exchange.subscription("a", "file:in", cadence="0 6 * * *", zone="America/Chicago")
    outbox = open_outbox()
    # now is 12:00 UTC = 06:00 in Chicago: the tick itself. What is enqueued now belongs to tomorrow.
    assert outbox.deliver(exchange.routing([exchange.event(1)], [subscription]), now=now).sealed == 0
    assert outbox.next_due(now) == now + timedelta(days=1)
    assert outbox.due(now + timedelta(hours=23)) == ()
    (due,) = outbox.due(now + timedelta(days=1, hours=3))
    assert (due.reason, due.at) == ("window", now + timedelta(days=1))
    report = outbox.run(now + timedelta(days=1, hours=3))
    assert report.states == {"acked": 1}
    (manifest,) = _manifests(tmp_path / "in")
    assert (manifest["period_from"], manifest["period_to"]) == ("2026-11-10T12:00:00Z", "2026-11-11T12:00:00Z")


def test_an_empty_day_is_announced_and_numbered(exchange, open_outbox, now, tmp_path):
    subscription = exchange.subscription("a", "file:in", cadence="0 6 * * *", zone="America/Chicago")
    outbox = open_outbox()
    outbox.configure(exchange.routing([], [subscription]).subscriptions, now=now)
    for day in (1, 2):
        outbox.run(now + timedelta(days=day))
    assert [(item["sequence"], item["rows"], item["file"]) for item in _manifests(tmp_path / "in")] == [
        (1, 0, None),
        (2, 0, None),
    ]
    assert not list((tmp_path / "in").glob("*.csv"))
    assert outbox.run(now + timedelta(days=2, hours=1)).sealed == 0


@pytest.mark.parametrize(("empties", "files"), [("file", 2), ("nothing", 0)])
def test_an_empty_day_can_send_an_empty_file_or_nothing(exchange, open_outbox, now, tmp_path, empties, files):
    subscription = exchange.subscription("a", "file:in", cadence="0 6 * * *", empties=empties)
    outbox = open_outbox()
    outbox.configure(exchange.routing([], [subscription]).subscriptions, now=now)
    outbox.run(now + timedelta(days=1))
    found = sorted((tmp_path / "in").glob("*"))
    assert len(found) == files
    if files:
        assert found[0].read_text().startswith("delivery_id,")
        assert len(found[0].read_text().splitlines()) == 1


def test_a_missed_run_seals_one_file_for_the_whole_time(exchange, open_outbox, now, tmp_path):
    subscription = exchange.subscription("a", "file:in", cadence="every 15 minutes")
    outbox = open_outbox()
    outbox.enqueue(exchange.routing([exchange.event(1)], [subscription]), now=now)
    outbox.run(now + timedelta(hours=5, minutes=7))
    (manifest,) = _manifests(tmp_path / "in")
    assert (manifest["rows"], manifest["period_to"]) == (1, "2026-11-10T17:00:00Z")


def test_quiet_hours_hold_an_immediate_channel_until_they_end(exchange, open_outbox, now):
    subscription = exchange.subscription("a", "file:in", quiet_hours=["11:00", "14:00"])
    outbox = open_outbox()
    assert outbox.deliver(exchange.routing([exchange.event(1)], [subscription]), now=now).states == {"pending": 1}
    assert outbox.next_due(now) == now + timedelta(hours=2)
    assert outbox.run(now + timedelta(hours=2)).states == {"acked": 1}


def test_on_discharge_waits_for_the_discharge_and_takes_the_visit_with_it(exchange, open_outbox, now, tmp_path):
    subscription = exchange.subscription("a", "file:in", cadence="on discharge")
    outbox = open_outbox()
    admits = [exchange.event(number) for number in (1, 2)]
    assert outbox.deliver(exchange.routing(admits, [subscription]), now=now).states == {"pending": 2}
    later = now + timedelta(hours=3)
    discharge = exchange.event(1, trigger="discharge", status="finished", event_at=now, period_end_at=now)
    outbox.deliver(exchange.routing([discharge], [subscription]), now=later)
    (path,) = (tmp_path / "in").glob("*.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["visit_number"], row["trigger"]) for row in rows] == [("v1", "admit"), ("v1", "discharge")]
    # What comes after the discharge of that visit goes at once; the other visit still waits.
    late = exchange.event(1, trigger="update", event_at=later)
    report = outbox.deliver(exchange.routing([late], [subscription]), now=later)
    assert report.states == {"acked": 3, "pending": 1}


def test_flush_seals_an_open_window(exchange, open_outbox, now):
    subscription = exchange.subscription("a", "file:in", cadence="0 6 * * *")
    outbox = open_outbox()
    outbox.enqueue(exchange.routing([exchange.event(1)], [subscription]), now=now)
    assert outbox.run(now, flush=True).states == {"acked": 1}
    assert outbox.run(now, flush=True).sealed == 0


def test_a_change_of_preferences_affects_the_next_batch_only(exchange, open_outbox, now, tmp_path):
    outbox = open_outbox()
    before = exchange.subscription("a", "file:in", columns=["trigger"])
    after = exchange.subscription("a", "file:in", columns=["status"])
    broken = {"a": _Down()}
    outbox.deliver(exchange.routing([exchange.event(1)], [before]), now=now, destinations=broken)
    outbox.enqueue(exchange.routing([exchange.event(2)], [after]), now=now)
    outbox.run(now + timedelta(hours=1))
    heads = [path.read_text().splitlines()[0] for path in sorted((tmp_path / "in").glob("*.csv"))]
    assert heads == ["delivery_id,trigger", "delivery_id,status"]
    versions = [item["config_version"] for item in _manifests(tmp_path / "in")]
    assert versions[0] != versions[1]


class _Down:
    def open(self):
        from hiexchange.errors import DeliveryError

        raise DeliveryError("down", retryable=True)

    def close(self):
        pass
