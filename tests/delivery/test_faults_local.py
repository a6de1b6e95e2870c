"""What this computer does to us: crashes at every commit, second workers, clocks, full and locked ledgers."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from datetime import timedelta

import pytest

from hiexchange.delivery import Outbox, Outcome
from hiexchange.delivery.sqlite import SQLiteStore
from hiexchange.errors import DeliveryError, StorageError
from hiexchange.testing.sinks import Answer, HTTPSink


class Crash(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing is cleaned up after it."""


class CrashingStore(SQLiteStore):
    """A ledger whose process dies just before or just after its n-th commit."""

    def __init__(self, path, at: int, *, after: bool) -> None:
        self.left, self.after = -1, after
        super().__init__(path)
        self.left = at

    def transaction(self):
        return _Commit(self, super().transaction())

    def die(self):
        # The operating system frees the locks of a killed process.
        self._connection.close()
        if self._owner_file is not None:
            self._owner_file.close()


class _Commit:
    def __init__(self, store, inner):
        self.store, self.inner = store, inner

    def __enter__(self):
        self.inner.__enter__()

    def __exit__(self, kind, error, trace):
        self.store.left -= 1
        if self.store.left == 0 and not self.store.after and kind is None:
            self.inner.__exit__(Crash, Crash(), None)
            raise Crash
        self.inner.__exit__(kind, error, trace)
        if self.store.left == 0 and kind is None:
            raise Crash


class Recorder:
    """A receiver that remembers every parcel, and can be asked for it."""

    def __init__(self):
        self.taken: list[tuple[str, str, bytes]] = []

    def open(self):
        pass

    def send(self, parcel):
        self.taken.append((parcel.key, parcel.name, parcel.payload))
        return Outcome("acked", "taken")

    def probe(self, parcel):
        return any(key == parcel.key for key, _, _ in self.taken)

    def close(self):
        pass


@pytest.mark.parametrize("after", [False, True], ids=["before commit", "after commit"])
def test_a_crash_at_any_commit_loses_nothing_and_sends_nothing_twice(exchange, now, tmp_path, after):
    subscribers = [
        exchange.subscription("a", "file:a", max_rows=1),
        exchange.subscription("b", "file:b", format="fhir", cadence="every 15 minutes"),
    ]
    routing = exchange.routing([exchange.event(number) for number in range(4)], subscribers)
    later = now + timedelta(minutes=20)
    for step in range(1, 60):
        folder = tmp_path / f"{after}{step}"
        folder.mkdir()
        receiver = Recorder()
        store = CrashingStore(folder / "outbox.sqlite", step, after=after)
        crashed = True
        try:
            outbox = Outbox(store=store, base=folder, workers=2)
            outbox.enqueue(routing, now=now)
            outbox.run(later, destinations={"a": receiver, "b": receiver})
            crashed = False
        except Crash:
            pass
        store.die()
        with Outbox(folder / "outbox.sqlite") as again:
            again.enqueue(routing, now=now)
            report = again.run(later, destinations={"a": receiver, "b": receiver})
            assert report.states == {"acked": 8}, step
            assert again.verify().problems == (), step
        assert max(Counter(key for key, _, _ in receiver.taken).values()) == 1, step
        assert sorted(name for _, name, _ in receiver.taken) == [
            *(f"a_default_{number:06d}.csv" for number in (1, 2, 3, 4)),
            "b_default_000001.fhir.ndjson",
        ], step
        if not crashed:
            break
    else:
        pytest.fail("sixty commits for nine deliveries")
    assert step > 8


def test_a_crash_between_send_and_record_is_settled_without_a_second_send(exchange, open_outbox, now, tmp_path):
    class DiesAfterSending(Recorder):
        def send(self, parcel):
            super().send(parcel)
            raise Crash

    receiver = DiesAfterSending()
    store = SQLiteStore(tmp_path / "outbox.sqlite")
    outbox = Outbox(store=store, base=tmp_path)
    outbox.enqueue(exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:a")]), now=now)
    with pytest.raises(Crash):
        outbox.run(now, destinations={"a": receiver})
    store._connection.close()
    store._owner_file.close()
    receiver.__class__ = Recorder
    again = open_outbox()
    assert again.run(now, destinations={"a": receiver}).states == {"acked": 1}
    assert len(receiver.taken) == 1
    assert [row["outcome"] for row in again.receipts().to_pylist()] == ["unknown", "acked"]


def test_a_live_workers_lease_is_respected_and_a_lapsed_one_is_not(exchange, now, tmp_path):
    first = Outbox(tmp_path / "outbox.sqlite")
    second = Outbox(tmp_path / "outbox.sqlite")

    class Stuck(Recorder):
        def send(self, parcel):
            during.append(second.run(now).batches_acked)
            during.append(second.run(now + timedelta(hours=1)).batches_acked)
            return super().send(parcel)

    during: list[int] = []
    routing = exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:a")])
    first.enqueue(routing, now=now)
    receiver = Stuck()
    first.run(now, destinations={"a": receiver})
    # Within the lease nobody touches it; after it the same bytes go again under the same name.
    assert during == [0, 1]
    assert [name for _, name, _ in receiver.taken] == ["a_default_000001.csv"]
    assert second.verify().problems == ()
    first.close()
    second.close()


def test_a_locked_ledger_says_so_and_can_be_tried_again(exchange, now, tmp_path):
    store = SQLiteStore(tmp_path / "outbox.sqlite", busy_s=0.05)
    outbox = Outbox(store=store, base=tmp_path)
    other = sqlite3.connect(tmp_path / "outbox.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    routing = exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:a")])
    with pytest.raises(DeliveryError, match="HX-611") as caught:
        outbox.enqueue(routing, now=now)
    assert caught.value.resumable
    other.execute("ROLLBACK")
    other.close()
    assert outbox.deliver(routing, now=now).states == {"acked": 1}
    outbox.close()


def test_a_full_disk_leaves_no_half_of_a_day(exchange, now, tmp_path):
    store = SQLiteStore(tmp_path / "outbox.sqlite")
    outbox = Outbox(store=store, base=tmp_path)
    store.run("PRAGMA max_page_count = 60")
    routing = exchange.routing(
        [exchange.event(number) for number in range(400)], [exchange.subscription("a", "file:a")]
    )
    with pytest.raises(StorageError, match="full"):
        outbox.enqueue(routing, now=now)
    assert outbox.deliveries().num_rows == 0
    store.run("PRAGMA max_page_count = 100000")
    assert outbox.deliver(routing, now=now).states == {"acked": 400}
    outbox.close()


def test_a_folder_that_cannot_be_written_is_retried(exchange, open_outbox, now, tmp_path):
    (tmp_path / "in").write_text("a file where the folder should be")
    outbox = open_outbox()
    report = outbox.deliver(exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:in")]), now=now)
    assert report.states == {"retry": 1}
    (tmp_path / "in").unlink()
    assert outbox.run(now + timedelta(hours=1)).states == {"acked": 1}


def test_a_clock_stepped_back_neither_loses_nor_repeats(exchange, open_outbox, now):
    subscription = exchange.subscription("a", "file:in", cadence="every 15 minutes")
    outbox = open_outbox()
    outbox.enqueue(exchange.routing([exchange.event(1)], [subscription]), now=now)
    outbox.run(now + timedelta(minutes=20))
    back = now - timedelta(hours=2)
    outbox.enqueue(exchange.routing([exchange.event(2)], [subscription]), now=back)
    assert outbox.run(back + timedelta(minutes=20)).sealed == 0
    report = outbox.run(now + timedelta(minutes=40))
    assert report.states == {"acked": 2}
    assert outbox.receipts()["sequence"].to_pylist() == [1, 2]


def test_a_deactivated_subscribers_backlog_is_held_not_lost(exchange, open_outbox, now):
    outbox = open_outbox()
    ended = exchange.subscription("a", "file:in") | {"active_to": now.date()}
    routing = exchange.routing([exchange.event(1)], [ended])
    report = outbox.deliver(routing, now=now)
    assert report.states == {"held": 1}
    assert outbox.deliveries(now=now).to_pylist()[0]["reason"] == "subscriber_inactive"
    outbox.configure(exchange.routing([], [exchange.subscription("a", "file:in")]).subscriptions, now=now)
    assert outbox.run(now).states == {"acked": 1}


def test_a_subscriber_switched_off_by_hand_waits(exchange, open_outbox, now):
    outbox = open_outbox()
    outbox.enqueue(exchange.routing([exchange.event(1)], [exchange.subscription("a", "file:in")]), now=now)
    assert outbox.switch("a", on=False, now=now) == 1
    assert outbox.run(now).states == {"held": 1}
    assert outbox.next_due(now) is None
    outbox.switch("a", on=True, now=now)
    assert outbox.run(now).states == {"acked": 1}


def test_max_rows_splits_into_numbered_files(exchange, open_outbox, now, tmp_path):
    routing = exchange.routing(
        [exchange.event(number) for number in range(7)], [exchange.subscription("a", "file:in", max_rows=3)]
    )
    open_outbox().deliver(routing, now=now)
    manifests = [json.loads(path.read_bytes()) for path in sorted((tmp_path / "in").glob("*.manifest.json"))]
    assert [(item["sequence"], item["previous_sequence"], item["rows"]) for item in manifests] == [
        (1, None, 3),
        (2, 1, 3),
        (3, 2, 1),
    ]


def test_one_file_for_each_value_of_the_split_column(exchange, open_outbox, now, tmp_path):
    events = [exchange.event(1), exchange.event(2, facility_id="fac-2"), exchange.event(3)]
    routing = exchange.routing(events, [exchange.subscription("a", "file:in", split="facility_id")])
    open_outbox().deliver(routing, now=now)
    rows = [len(path.read_text().splitlines()) - 1 for path in sorted((tmp_path / "in").glob("*.csv"))]
    assert rows == [2, 1]


def test_a_template_cut_over_does_not_send_old_events_again(exchange, open_outbox, now):
    old, new = exchange.event(1), exchange.event(2, event_at=now)
    outbox = open_outbox()
    outbox.deliver(exchange.routing([old], [exchange.subscription("a", "file:in")]), now=now)
    bumped = exchange.subscription(
        "a", "file:in", template_major=2, template_from=(now - timedelta(minutes=1)).isoformat()
    )
    outbox.deliver(exchange.routing([old, new], [bumped]), now=now)
    assert sorted(outbox.deliveries()["template_major"].to_pylist()) == [1, 2]


def test_a_row_that_cannot_be_rendered_is_dead_alone(exchange, open_outbox, now):
    events = [exchange.event(1), exchange.event(2, visit_number=""), exchange.event(3)]
    outbox = open_outbox()
    report = outbox.deliver(exchange.routing(events, [exchange.subscription("a", "file:in", format="hl7v2")]), now=now)
    assert report.states == {"acked": 2, "dead": 1}
    (dead,) = [row for row in outbox.deliveries().to_pylist() if row["state"] == "dead"]
    assert "no PID-18" in dead["reason"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_an_interrupt_or_a_failing_reporter_leaves_nothing_undone(exchange, open_outbox, now, stop):
    receiver = Recorder()

    def report(event):
        raise stop

    outbox = open_outbox()
    subscribers = [exchange.subscription(f"s{number}", f"file:s{number}", max_rows=1) for number in range(4)]
    outbox.enqueue(exchange.routing([exchange.event(number) for number in range(9)], subscribers), now=now)
    everyone = {f"s{number}": receiver for number in range(4)}
    with pytest.raises(stop):
        outbox.run(now, destinations=everyone, on_event=report)
    # What was under way is on record; the same process goes on at once, without waiting for a lease.
    assert outbox.run(now, destinations=everyone).states == {"acked": 36}
    assert len(receiver.taken) == len({key for key, _, _ in receiver.taken}) == 36


def test_a_ledger_of_another_layout_is_refused(open_outbox, tmp_path):
    open_outbox().close()
    other = sqlite3.connect(tmp_path / "outbox.sqlite")
    other.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    other.commit()
    other.close()
    with pytest.raises(DeliveryError, match="layout 99"):
        open_outbox()


def test_another_programs_database_is_refused(open_outbox, tmp_path):
    other = sqlite3.connect(tmp_path / "outbox.sqlite")
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    with pytest.raises(DeliveryError, match="no delivery ledger"):
        open_outbox()


def test_order_per_patient_waits_for_the_earlier_event(exchange, open_outbox, now):
    with HTTPSink([Answer(503)]) as sink:
        discharge = exchange.event(1, trigger="discharge", status="finished", event_at=now)
        routing = exchange.routing(
            [exchange.event(1), discharge, exchange.event(2)],
            [exchange.subscription("a", sink.url, format="fhir", ordered=True)],
        )
        outbox = open_outbox()
        # The first patient's admission was refused: their discharge waits, the other patient's event goes.
        assert outbox.deliver(routing, now=now).states == {"retry": 1, "pending": 1, "acked": 1}
        outbox.run(now + timedelta(hours=1))
        assert outbox.run(now + timedelta(hours=1)).states == {"acked": 3}
        codes = [json.loads(item.body)["entry"][0]["resource"]["eventCoding"]["code"] for item in sink.arrived]
        assert codes == ["notification-admit", "notification-admit", "notification-discharge"]


def test_a_dead_number_is_announced_as_void_and_never_used_again(exchange, open_outbox, now, tmp_path):
    class Refuses(Recorder):
        def send(self, parcel):
            return Outcome("dead", "no")

    subscription = exchange.subscription("a", "file:in")
    outbox = open_outbox()
    outbox.deliver(exchange.routing([exchange.event(1)], [subscription]), now=now, destinations={"a": Refuses()})
    outbox.deliver(exchange.routing([exchange.event(2)], [subscription]), now=now)
    (manifest,) = [json.loads(path.read_bytes()) for path in (tmp_path / "in").glob("*.manifest.json")]
    assert (manifest["sequence"], manifest["void_sequences"]) == (2, [1])
    assert outbox.retry(now=now) == 1
    report = outbox.run(now)
    assert report.states == {"acked": 2}
    assert sorted(path.name for path in (tmp_path / "in").glob("*.csv")) == [
        "a_default_000002.csv",
        "a_default_000003.csv",
    ]
    assert outbox.verify().problems == ()


def test_a_batch_given_up_by_hand_is_held_and_announced(exchange, open_outbox, now, tmp_path):
    subscription = exchange.subscription("a", "file:in")
    outbox = open_outbox()

    class Down(Recorder):
        def open(self):
            raise DeliveryError("down", retryable=True)

    outbox.deliver(exchange.routing([exchange.event(1)], [subscription]), now=now, destinations={"a": Down()})
    (row,) = outbox.deliveries().to_pylist()
    outbox.void(row["batch_id"], now=now, reason="recipient has left")
    with pytest.raises(DeliveryError):
        outbox.void(row["batch_id"], now=now, reason="twice")
    report = outbox.deliver(exchange.routing([exchange.event(2)], [subscription]), now=now)
    assert report.states == {"held": 1, "acked": 1}
    (manifest,) = [json.loads(path.read_bytes()) for path in (tmp_path / "in").glob("*.manifest.json")]
    assert manifest["void_sequences"] == [1]


def test_a_channel_without_its_transport_waits_and_the_others_go(exchange, open_outbox, now):
    subscribers = [
        exchange.subscription("a", "mllp://127.0.0.1:9", format="csv"),
        exchange.subscription("b", "file:in"),
    ]
    report = open_outbox().deliver(exchange.routing([exchange.event(1)], subscribers), now=now)
    assert report.states == {"pending": 1, "acked": 1}
    assert list(report.problems) == ["a/default"]


def test_the_report_balances_in_every_state(exchange, open_outbox, now):
    class Mixed(Recorder):
        def send(self, parcel):
            return (
                Outcome("acked", "1"),
                Outcome("retry", "2"),
                Outcome("unknown", "3"),
                Outcome("dead", "4"),
            )[parcel.sequence % 4]

    routing = exchange.routing(
        [exchange.event(number) for number in range(8)], [exchange.subscription("a", "file:in", max_rows=1)]
    )
    report = open_outbox().deliver(routing, now=now, destinations={"a": Mixed()})
    assert report.balanced
    assert report.states == {"acked": 2, "retry": 2, "unknown": 2, "dead": 2}
