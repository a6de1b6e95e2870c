"""The outbox: what is owed to whom, what was sent, and the proof. Start here.

``enqueue`` commits what is owed, ``run`` seals and sends what is due, ``deliver`` does both. All
three may be repeated at any time, after any crash: nothing is sent twice, nothing is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from hiexchange.delivery import claiming, disclosures, intake, operating, retention, sealing, tables_out, verify
from hiexchange.delivery.base import (
    DeliveryReport,
    Destination,
    Due,
    Health,
    RetryPolicy,
    RoutingLike,
    SubscriptionLike,
)
from hiexchange.delivery.cadence import last_tick, next_window, windowed
from hiexchange.delivery.ledger import Store
from hiexchange.delivery.sending import Means, Sender
from hiexchange.delivery.sqlite import SQLiteStore
from hiexchange.events import Reporter, ignore


class Outbox:
    """A delivery ledger and the way out of it. One thread at a time; several processes may share it."""

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        base: str | Path | None = None,
        retry: RetryPolicy | None = None,
        workers: int = 8,
        store: Store | None = None,
    ) -> None:
        """Open or create a ledger.

        Args:
            path: SQLite file on a local disk, never a network share; one WAL file an outbox.
            base: Folder that relative folder channels and key files start from; the ledger's own
                folder when not given.
            retry: When to try again and when to give up.
            workers: Channels sent to at the same time.
            store: Another ledger instead of SQLite (see :mod:`hiexchange.delivery.postgres`).

        Raises:
            DeliveryError: The ledger is damaged, or no ledger (HX-610).
            StorageError: The disk is full or the folder cannot be written.
        """
        if (path is None) == (store is None):
            raise TypeError("give either a path or a store")
        self._store: Store = store if store is not None else SQLiteStore(path or "")
        self._base = Path(base if base is not None else Path(path).parent if path is not None else "").absolute()
        self._preferences = intake.Preferences(self._base)
        self._retry = retry or RetryPolicy()
        self._workers = workers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the ledger."""
        self._store.close()

    def configure(self, subscriptions: Iterable[SubscriptionLike], *, now: datetime) -> None:
        """Record the present preferences of every channel; ``enqueue`` does it too.

        A new channel's first window opens ``now``; a change affects only batches sealed after it.
        """
        intake.configure(self._store, subscriptions, now, self._preferences)

    def enqueue(
        self, routing: RoutingLike, *, now: datetime, persons: pa.Table | None = None, lift: Collection[str] = ()
    ) -> int:
        """Commit the deliveries of a routing result, all or none; return how many are new.

        Args:
            routing: Decisions, events and subscriptions; only decisions ``deliver`` make rows.
            now: Aware UTC instant.
            persons: PERSON rows for the name, birth date ... of messages and files. They are
                read here and stored with the event.
            lift: Reasons for which a delivery may be held only as long as they hold: one of this routing that
                is held for such a reason waits again. What an operator gave up is not among them.

        Raises:
            SchemaMismatch: A table is not of its corridor schema.
            DataError: A decision names a channel or event that ``routing`` does not hold.
        """
        return intake.enqueue(self._store, routing, persons, now=now, preferences=self._preferences, lift=lift)

    def run(
        self,
        now: datetime,
        *,
        destinations: Mapping[str, Destination] | None = None,
        on_event: Reporter = ignore,
        flush: bool = False,
        recheck: sealing.Recheck | None = None,
    ) -> DeliveryReport:
        """Seal what is due, send what is sealed; failures become states, not exceptions.

        A channel that cannot be sealed (unknown format, expired key, missing extra) is named in the
        report's ``problems``, its rows wait, and the other channels go on.

        Args:
            now: Aware UTC instant by which cadence, leases and retries are judged.
            destinations: In place of the channel's own, by ``subscriber/channel`` or ``subscriber``.
            on_event: Told of each batch.
            flush: Seal everything that waits, whatever the cadence.
            recheck: Asked for every delivery before it is sealed and before it is sent: an opt-out
                between route and send stops it.

        Raises:
            DeliveryError: The ledger is damaged or locked.
        """
        clock = _running_clock(now)
        means = Means(clock, self._base, self._retry, destinations or {}, recheck, on_event, self._workers)
        sealed, problems = sealing.seal_due(self._store, sealing.Window(now, clock, recheck, flush))
        sender = Sender(self._store, means)
        sender.run()
        states = tables_out.states(self._store, clock())
        return DeliveryReport(
            sealed=sealed,
            batches_acked=sender.counts["batches_acked"],
            rows_acked=sender.counts["rows_acked"],
            batches_failed=sum(sender.counts[f"batches_{state}"] for state in ("retry", "unknown", "dead")),
            states=states,
            problems=problems | sender.problems,
            created=int(self._store.rows("SELECT count(*) FROM delivery")[0][0]),
        )

    def deliver(
        self,
        routing: RoutingLike,
        *,
        now: datetime,
        persons: pa.Table | None = None,
        destinations: Mapping[str, Destination] | None = None,
        on_event: Reporter = ignore,
        flush: bool = False,
        recheck: sealing.Recheck | None = None,
    ) -> DeliveryReport:
        """Enqueue, then run: safe to repeat with the same routing at any time. Arguments as of the two."""
        self.enqueue(routing, now=now, persons=persons)
        return self.run(now, destinations=destinations, on_event=on_event, flush=flush, recheck=recheck)

    def due(self, now: datetime) -> tuple[Due, ...]:
        """Return what :meth:`run` would work on now, for schedulers; empty = nothing to do."""
        found = []
        for row in sealing.due_channels(self._store, now):
            spec = row.spec
            tick = last_tick(spec, row.sealed_to, now) if windowed(spec) else now
            found.append(Due(*row.place, tick or now, "window" if windowed(spec) else "pending"))
        found += [Due(*place, at, "send") for place, at in claiming.sends_due(self._store, now) if at <= now]
        return tuple(found)

    def next_due(self, now: datetime) -> datetime | None:
        """Return when :meth:`run` will next have something to do; ``now`` when it has already; None when never."""
        if self.due(now):
            return now
        instants = [at for _, at in claiming.sends_due(self._store, now)]
        for row in sealing.channels(self._store):
            if row.spec.active(now.date()):
                instants += [at for at in (next_window(row.spec, row.sealed_to, now),) if at is not None]
        return min(instants, default=None)

    def health(self, now: datetime) -> Health:
        """Return what to alert on: backlog age, dead letters, doubts, open circuits, missed windows."""
        return tables_out.health(self._store, now)

    def retry(self, *, now: datetime, subscriber_id: str | None = None, batch_id: str | None = None) -> int:
        """Put what is dead or held back into the queue, with the same ids; return how many batches and rows."""
        return operating.requeue(self._store, now, subscriber_id=subscriber_id, batch=batch_id)

    def replay(
        self,
        *,
        now: datetime,
        delivery_id: str | None = None,
        event_key: str | None = None,
        subscriber_id: str | None = None,
        period: tuple[datetime, datetime] | None = None,
    ) -> int:
        """Seal acknowledged deliveries again, with their ids and ``replay=true``; return the rows.

        Raises:
            DeliveryError: Neither a delivery, nor an event, nor a subscriber with a period is given.
        """
        return operating.replay(
            self._store, now, delivery_id=delivery_id, event_key=event_key, subscriber_id=subscriber_id, period=period
        )

    def void(self, batch_id: str, *, now: datetime, reason: str) -> None:
        """Give a batch up: rows held, number announced as void in the channel's next manifest.

        Raises:
            DeliveryError: It does not exist, was acknowledged, or is being sent.
        """
        operating.void(self._store, batch_id, now, reason=reason)

    def switch(self, subscriber_id: str, *, on: bool, now: datetime) -> int:
        """Hold a subscriber's backlog, or let it go again; return how many channels changed."""
        return operating.switch(self._store, now, subscriber_id=subscriber_id, on=on)

    def forget(self, *, before: datetime, now: datetime) -> int:
        """Drop file bytes and event content of what was acknowledged before an instant; return the batches.

        Ids, hashes, numbers, times and the audit trail stay; a forgotten delivery cannot be replayed.
        """
        return retention.forget(self._store, now, before)

    def verify(self, *, head: tuple[int, str] | None = None) -> verify.Verified:
        """Check audit chain, stored bytes, ids and numbers; ``head`` = number and hash noted earlier."""
        return verify.verify(self._store, head=head)

    def deliveries(self, *, now: datetime | None = None) -> pa.Table:
        """Return DELIVERY rows, one an event and subscriber channel, by creation and id.

        ``now`` decides which subscriptions are in force: the backlog of the others reads ``held``.
        """
        return tables_out.deliveries(self._store, now)

    def receipts(self) -> pa.Table:
        """Return RECEIPT rows, one an attempt, by time."""
        return tables_out.receipts(self._store)

    def log(self, *, last: int | None = None) -> pa.Table:
        """Return the audit trail, oldest first: n, at, kind, subject, data (JSON), hash."""
        return tables_out.log(self._store, last)

    def accounting(
        self, *, person_id: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> pa.Table:
        """Return the accounting of disclosures (45 CFR 164.528), by time."""
        return disclosures.accounting(self._store, person_id=person_id, since=since, until=until)

    def audit_events(
        self, *, exchange: str, address: str, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[bytes]:
        """Yield FHIR AuditEvents (IHE BALP PrivacyDisclosure.Source), one a disclosure, as NDJSON lines."""
        return disclosures.audit_events(self._store, exchange=exchange, address=address, since=since, until=until)


def _running_clock(now: datetime) -> Callable[[], datetime]:
    """Return a clock that starts at ``now`` and cannot step: the run's own time, whatever the computer's."""
    started = time.monotonic()
    return lambda: now + timedelta(seconds=time.monotonic() - started)
