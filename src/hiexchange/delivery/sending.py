"""Send sealed batches: claim by lease, connect, mark as sent, send, record. Nothing is rendered here.

The coordinator (one thread) does all ledger work; worker threads only connect and send, one channel
each. Every step that could leave a doubt is committed before it: ``claimed`` says that no byte has
left, ``sent`` says that bytes may have. A worker that dies in ``claimed`` costs nothing; one that
dies in ``sent`` leaves ``unknown``, settled by a probe or by the same bytes under the same key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from hiexchange.delivery import claiming
from hiexchange.delivery.base import Destination, Outcome, Parcel, RetryPolicy
from hiexchange.delivery.channel import ChannelSpec
from hiexchange.delivery.destinations import destination_for
from hiexchange.delivery.ledger import Store
from hiexchange.delivery.sealing import Recheck, channels
from hiexchange.errors import DeliveryError, HIExchangeError
from hiexchange.events import Delivered, DeliveryFailed, Event, Reporter

GROUP = 8
"""Batches of a channel under one claim: what one kill can leave in doubt. A durable commit costs
about 3 ms, so a group of eight keeps the ledger below half of a fast receiver's time."""
GROUP_S = 0.5
"""A group ends after this time, so that a slow receiver's successes are soon on record."""
LEASE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Means:
    """What a run sends with."""

    clock: Callable[[], datetime]
    base: Path
    policy: RetryPolicy
    destinations: Mapping[str, Destination]
    recheck: Recheck | None
    on_event: Reporter
    workers: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One batch after a worker had it."""

    batch: claiming.Claimed
    outcome: Outcome | None
    """None: the worker never began with it."""
    started: datetime
    ended: datetime
    absent: bool = False
    """A probe proved that no earlier attempt had arrived."""


@dataclass(slots=True)
class _Lane:
    """One channel during a run."""

    spec: ChannelSpec
    destination: Destination
    opened: bool = False
    group: list[claiming.Claimed] = field(default_factory=list)
    stopped: bool = False


@dataclass(slots=True)
class Sender:
    """Drive every lane until nothing more is due."""

    store: Store
    means: Means
    counts: Counter[str] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)
    _lanes: list[_Lane] = field(default_factory=list)
    _news: list[Event] = field(default_factory=list)
    _running: dict[Future[list[Attempt] | DeliveryError | None], _Lane] = field(default_factory=dict)

    def run(self) -> None:
        """Send what is due; every failure is a state in the ledger, not an exception."""
        claiming.recover(self.store, self.means.clock())
        today = self.means.clock().date()
        due = claiming.places_due(self.store, self.means.clock())
        specs = [row.spec for row in channels(self.store) if row.place in due and row.spec.active(today)]
        waiting = [lane for lane in map(self._lane, specs) if lane is not None]
        with ThreadPoolExecutor(max_workers=max(1, self.means.workers), thread_name_prefix="deliver") as pool:
            try:
                while waiting or self._running:
                    free = max(1, self.means.workers) - len(self._running)
                    starting, waiting = waiting[:free], waiting[free:]
                    self._step(pool, starting)
            finally:
                # Interrupted: the sends under way end and are recorded, new ones are not begun.
                self._drain()
                for lane in self._lanes:
                    lane.destination.close()

    def _lane(self, spec: ChannelSpec) -> _Lane | None:
        given = self.means.destinations
        for key in (spec.key, spec.subscriber_id):
            if key in given:
                return _Lane(spec, given[key])
        try:
            return _Lane(spec, destination_for(spec, self.means.base))
        except HIExchangeError as error:
            # A missing extra or secret is one channel's trouble: its batches wait, the others go.
            self.problems[spec.key] = error.what
            return None

    def _step(self, pool: ThreadPoolExecutor, starting: list[_Lane]) -> None:
        """Wait for any worker, then settle all that are done and start what follows, in one transaction."""
        done = wait(self._running, return_when=FIRST_COMPLETED).done if self._running and not starting else set()
        next_jobs: list[tuple[_Lane, bool]] = []
        with self.store.transaction():
            for future in done:
                next_jobs += self._settle(self._running.pop(future), future.result())
            for lane in starting:
                self._lanes.append(lane)
                next_jobs += self._claim(lane)
        for lane, send in next_jobs:
            job: Future[list[Attempt] | DeliveryError | None]
            if send:
                job = pool.submit(_send_group, lane.destination, lane.group, self.means)
            else:
                job = pool.submit(_open, lane.destination)
            self._running[job] = lane
        self._tell()

    def _claim(self, lane: _Lane) -> list[tuple[_Lane, bool]]:
        if lane.stopped:
            return []
        lane.group = claiming.claim(
            self.store, lane.spec, self.means.clock(), lease=LEASE, most=GROUP, policy=self.means.policy,
            recheck=self.means.recheck,
        )  # fmt: skip
        if not lane.group:
            return []
        if lane.opened:
            claiming.mark_sent(self.store, lane.group)
            return [(lane, True)]
        return [(lane, False)]

    def _settle(self, lane: _Lane, result: list[Attempt] | DeliveryError | None) -> list[tuple[_Lane, bool]]:
        """Record what a worker brought back; return the lane's next job."""
        if result is None:
            lane.opened = True
            claiming.mark_sent(self.store, lane.group)
            return [(lane, True)]
        if isinstance(result, DeliveryError):
            # Connecting failed: surely nothing was sent, and the rest of the channel would fail alike.
            lane.stopped = True
            self.problems[lane.spec.key] = result.what
            now = self.means.clock()
            refused = Outcome("retry", result.what)
            result = [Attempt(batch, refused, now, now) for batch in lane.group]
            claiming.note_endpoint(self.store, lane.spec, now, refused, self.means.policy)
        else:
            for attempt in result:
                if attempt.outcome is not None:
                    claiming.note_endpoint(self.store, lane.spec, attempt.ended, attempt.outcome, self.means.policy)
            last = next((attempt.outcome for attempt in reversed(result) if attempt.outcome is not None), None)
            if last is not None and last.state == "unknown":
                lane.destination.close()
                lane.opened = False
        for attempt in result:
            self._record(lane.spec, attempt)
        lane.group = []
        return self._claim(lane)

    def _record(self, spec: ChannelSpec, attempt: Attempt) -> None:
        batch, outcome = attempt.batch, attempt.outcome
        if outcome is None:
            claiming.release(self.store, batch)
            return
        state = claiming.record(
            self.store, batch, outcome, started=attempt.started, ended=attempt.ended, absent=attempt.absent,
            policy=self.means.policy,
        )  # fmt: skip
        self.counts[f"batches_{state}"] += 1
        if state == "acked":
            self.counts["rows_acked"] += batch.rows
            self._news.append(Delivered(spec.subscriber_id, batch.parcel.sequence, batch.rows))
        else:
            self._news.append(DeliveryFailed(spec.subscriber_id, batch.parcel.sequence, outcome.code))

    def _tell(self) -> None:
        """Report what is now committed: a reporter that fails cannot undo a record."""
        news, self._news = self._news, []
        for event in news:
            self.means.on_event(event)

    def _drain(self) -> None:
        if not self._running:
            return
        wait(self._running)
        with self.store.transaction():
            for future, lane in self._running.items():
                result = future.result()
                if isinstance(result, list):
                    for attempt in result:
                        self._record(lane.spec, attempt)
                else:
                    for batch in lane.group:
                        claiming.release(self.store, batch)
        self._running.clear()


def _open(destination: Destination) -> DeliveryError | None:
    try:
        destination.open()
    except DeliveryError as error:
        return error
    except HIExchangeError as error:
        return DeliveryError(error.what, retryable=True)
    except Exception as error:  # any other failure to connect is one too: nothing was sent yet
        return DeliveryError(f"cannot connect: {type(error).__name__}", retryable=True)
    return None


def _send_group(destination: Destination, group: Sequence[claiming.Claimed], means: Means) -> list[Attempt]:
    """Send one after the other; stop at a doubt, at a Retry-After, or after several refusals in a row."""
    attempts: list[Attempt] = []
    refused = 0
    until = means.clock() + timedelta(seconds=GROUP_S)
    for batch in group:
        now = means.clock()
        if refused >= means.policy.breaker_failures or (attempts and now > until):
            attempts.append(Attempt(batch, None, now, now))
            continue
        outcome, absent = _deliver(destination, batch)
        attempts.append(Attempt(batch, outcome, now, means.clock(), absent))
        refused = refused + 1 if outcome.state == "retry" else 0
        if outcome.state == "unknown" or outcome.retry_after_s is not None:
            refused = means.policy.breaker_failures
    return attempts


def _deliver(destination: Destination, batch: claiming.Claimed) -> tuple[Outcome, bool]:
    """Probe a batch in doubt, send it unless it is there; an exception is a doubt, not a crash."""
    parcel: Parcel = batch.parcel
    absent = False
    try:
        if batch.doubtful:
            there = destination.probe(parcel)
            if there:
                return Outcome("acked", "probe: already there"), False
            absent = there is False
            if batch.withheld:
                # Someone in it may no longer be told of: what is not there is not sent again.
                return Outcome("dead", claiming.WITHHELD), absent
        return destination.send(parcel), absent
    except DeliveryError as error:
        return Outcome("retry" if error.retryable else "dead", error.what), absent
    except Exception as error:  # a broken connection, whatever its type, leaves the batch in doubt
        return Outcome("unknown", type(error).__name__), absent
