"""What the ledger does around a send: claim by lease, recover, record, open and close circuits.

Every function runs inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hiexchange.delivery import audit
from hiexchange.delivery.base import Outcome, Parcel, RetryPolicy, instant, microseconds
from hiexchange.delivery.channel import ChannelSpec
from hiexchange.delivery.ledger import Store
from hiexchange.delivery.sealing import Item, Recheck, Seal, candidate, channel_row, hold, item_of, reseal

WITHHELD = "withheld: a recipient may no longer be told"
LEASE_FLOOR_BYTES_S = 10_000
"""A lease grows with the payload at this rate: half the slowest transfer that any transport waits for."""
_DUE = "state IN ('pending', 'retry', 'unknown') AND due_at <= ?"


@dataclass(frozen=True, slots=True)
class Claimed:
    """A batch under this worker's lease."""

    batch_id: str
    place: tuple[str, str]
    parcel: Parcel
    rows: int
    attempts: int
    doubtful: bool
    """An earlier attempt may have arrived."""
    withheld: Mapping[str, str] = field(default_factory=dict)
    """In doubt, and a re-check has refused these rows since (id: reason): probe, never send."""


def places_due(store: Store, now: datetime) -> set[tuple[str, str]]:
    """Return the channels that have batches to send now."""
    sql = f"SELECT DISTINCT subscriber_id, channel_id FROM batch WHERE {_DUE}"
    return {(subscriber, channel) for subscriber, channel in store.rows(sql, (microseconds(now),))}


def sends_due(store: Store, now: datetime) -> list[tuple[tuple[str, str], datetime]]:
    """Return the channels in force that have batches to send now or later, and when they may be tried.

    A batch whose endpoint's circuit is open waits for the circuit.
    """
    found = store.rows(
        "SELECT subscriber_id, channel_id, min(due_at) FROM batch WHERE state IN ('pending', 'retry', 'unknown') "
        "GROUP BY subscriber_id, channel_id ORDER BY subscriber_id, channel_id"
    )
    due = []
    for subscriber, channel, at in found:
        row = channel_row(store, (subscriber, channel))
        if row is not None and row.spec.active(now.date()):
            due.append(((subscriber, channel), instant(max(at, _endpoint(store, row.spec)[1]))))
    return due


def recover(store: Store, now: datetime) -> int:
    """Take back what dead workers held; return the batches that are in doubt for it."""
    at = microseconds(now)
    doubtful = 0
    with store.transaction():
        sql = "SELECT batch_id, state, owner, lease_until, attempts, doubtful FROM batch WHERE state IN ('claimed', 'sent')"
        held = store.rows(sql + store.skip_locked)
        alive = {owner: store.owner_alive(owner) for owner in {row[2] for row in held}}
        for key, state, owner, lease_until, attempts, doubt in held:
            if alive[owner] and lease_until > at:
                continue
            if state == "claimed":
                # The lease ended before a byte could leave.
                back = "unknown" if doubt else "pending"
                store.run("UPDATE batch SET state = ?, owner = NULL WHERE batch_id = ?", (back, key))
                continue
            doubtful += 1
            store.run(
                "UPDATE batch SET state = 'unknown', doubtful = 1, owner = NULL, attempts = ? WHERE batch_id = ?",
                (attempts + 1, key),
            )
            store.run("INSERT INTO attempt VALUES (?, ?, ?, ?, 'unknown', 'worker lost')", (key, attempts + 1, at, at))
            audit.append(store, at, "unknown", key, code="worker lost", attempt=attempts + 1)
    return doubtful


def claim(
    store: Store,
    spec: ChannelSpec,
    now: datetime,
    *,
    lease: timedelta,
    most: int,
    policy: RetryPolicy,
    recheck: Recheck | None,
) -> list[Claimed]:
    """Lease the next batches of a channel, in sequence; none while its endpoint's circuit is open."""
    at = microseconds(now)
    failures, open_until = _endpoint(store, spec)
    if open_until > at:
        return []
    if failures >= policy.breaker_failures:
        most = 1  # half open: one parcel probes the endpoint
    found = store.rows(
        "SELECT batch_id, parcel_key, name, sha256, content_type, sequence, row_count, attempts, doubtful, size_bytes "
        f"FROM batch WHERE subscriber_id = ? AND channel_id = ? AND {_DUE} ORDER BY sequence LIMIT ?"
        + store.skip_locked,
        (spec.subscriber_id, spec.channel_id, at, most),
    )
    if spec.ordered:
        free = _unblocked(store, spec, [(row[0], row[5]) for row in found])
        found = [row for row in found if row[0] in free]
    claimed: list[Claimed] = []
    given_up = False
    for key, parcel_key, name, sha, content_type, sequence, rows, attempts, doubtful, size in found:
        refused = _recheck(store, spec, key, recheck, now)
        if refused and not doubtful:
            give_up(store, key, now, reason=WITHHELD, held=refused)
            given_up = True
            continue
        payload, manifest = store.rows("SELECT payload, manifest FROM payload WHERE batch_id = ?", (key,))[0]
        parcel = Parcel(
            key=parcel_key,
            name=name,
            payload=bytes(payload or b""),
            sha256=sha,
            content_type=content_type,
            sequence=sequence,
            manifest=bytes(manifest),
            payload_expected=payload is not None,
        )
        store.run(
            "UPDATE batch SET state = 'claimed', owner = ?, lease_until = ? WHERE batch_id = ?",
            (store.owner(), microseconds(now + lease + timedelta(seconds=size / LEASE_FLOOR_BYTES_S)), key),
        )
        place = (spec.subscriber_id, spec.channel_id)
        claimed.append(Claimed(key, place, parcel, rows, attempts, bool(doubtful), refused))
    if given_up and not claimed:
        # What was left of them is sealed anew and due now.
        return claim(store, spec, now, lease=lease, most=most, policy=policy, recheck=recheck)
    return claimed


def _unblocked(store: Store, spec: ChannelSpec, batches: list[tuple[str, int]]) -> set[str]:
    """Return the batches of an ordered channel that no earlier unsettled batch of the same person precedes."""
    found = store.rows(
        "SELECT b.batch_id, b.sequence, e.person_id FROM batch b JOIN delivery d ON d.batch_id = b.batch_id "
        "JOIN event e ON e.event_key = d.event_key AND e.material_version = d.material_version "
        "WHERE b.subscriber_id = ? AND b.channel_id = ? AND b.state IN ('pending', 'retry', 'unknown', 'claimed', 'sent')",
        (spec.subscriber_id, spec.channel_id),
    )
    first: dict[str, int] = {}
    for _, sequence, person in found:
        first[person] = min(sequence, first.get(person, sequence))
    people: dict[str, set[str]] = {}
    for key, _, person in found:
        people.setdefault(key, set()).add(person)
    return {key for key, sequence in batches if all(first[person] >= sequence for person in people.get(key, ()))}


def _recheck(store: Store, spec: ChannelSpec, key: str, recheck: Recheck | None, now: datetime) -> dict[str, str]:
    """Return the deliveries of a batch that may no longer go, with the reason."""
    if recheck is None:
        return {}
    asked = ((item.delivery_id, recheck(candidate(spec, item))) for item in items_of(store, key))
    return {delivery: reason for delivery, reason in asked if reason is not None}


def items_of(store: Store, batch: str) -> list[Item]:
    """Return the deliveries of a batch with their events, replayed ones included."""
    found = store.rows(
        "SELECT d.delivery_id, d.event_key, d.template_major, e.person_id, d.context, e.data FROM delivery d "
        "JOIN event e ON e.event_key = d.event_key AND e.material_version = d.material_version "
        "WHERE d.batch_id = ? OR d.delivery_id IN (SELECT delivery_id FROM replay_item WHERE batch_id = ?) "
        "ORDER BY e.event_at, d.event_key, d.delivery_id",
        (batch, batch),
    )
    return [item_of(row) for row in found]


def mark_sent(store: Store, group: Iterable[Claimed]) -> None:
    """Say, before the first byte, that bytes of these batches may leave."""
    owner = store.owner()
    store.run_many(
        "UPDATE batch SET state = 'sent' WHERE batch_id = ? AND owner = ?", [(batch.batch_id, owner) for batch in group]
    )


def release(store: Store, batch: Claimed) -> None:
    """Give back a batch that this worker did not begin."""
    back = "unknown" if batch.doubtful else "pending"
    store.run(
        "UPDATE batch SET state = ?, owner = NULL WHERE batch_id = ? AND owner = ?",
        (back, batch.batch_id, store.owner()),
    )


def record(
    store: Store,
    batch: Claimed,
    outcome: Outcome,
    *,
    started: datetime,
    ended: datetime,
    absent: bool,
    policy: RetryPolicy,
) -> str:
    """Write an attempt and the state it leads to; return that state."""
    at = microseconds(ended)
    sql = "SELECT state, owner, attempts FROM batch WHERE batch_id = ?"
    was, owner, attempts = store.rows(sql, (batch.batch_id,))[0]
    number = attempts + 1
    if owner != store.owner() and (was == "acked" or outcome.state != "acked"):
        # Our lease lapsed and another worker has taken the batch: our attempt is a fact, the state is theirs.
        _write_attempt(store, batch, number, outcome.state, outcome.code, started, ended)
        store.run("UPDATE batch SET attempts = ? WHERE batch_id = ?", (number, batch.batch_id))
        return outcome.state
    if batch.withheld and outcome.code == WITHHELD:
        give_up(store, batch.batch_id, ended, reason=WITHHELD, held=dict(batch.withheld))
        return "void"
    state, reason = outcome.state, outcome.code
    if state in ("retry", "unknown") and number >= policy.max_attempts:
        state, reason = "dead", f"given up after {number} attempts: {outcome.code}"
    doubtful = state == "unknown" or (batch.doubtful and not absent and state != "acked")
    if state == "retry" and doubtful:
        # This attempt surely failed, but an earlier one may have arrived and could not be looked up.
        state = "unknown"
    wait_s = policy.wait_s(batch.batch_id, number, outcome.retry_after_s)
    _write_attempt(store, batch, number, state, outcome.code, started, ended)
    store.run(
        "UPDATE batch SET state = ?, attempts = ?, owner = NULL, due_at = ?, acked_at = ?, reason = ?, doubtful = ? "
        "WHERE batch_id = ?",
        (
            *(state, number, microseconds(ended + timedelta(seconds=wait_s))),
            *(at if state == "acked" else None, None if state == "acked" else reason, int(doubtful), batch.batch_id),
        ),
    )
    return state


def _write_attempt(
    store: Store, batch: Claimed, number: int, state: str, code: str, started: datetime, ended: datetime
) -> None:
    at = microseconds(ended)
    row = (batch.batch_id, number, microseconds(started), at, state, code)
    store.run("INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?)", row)
    audit.append(store, at, state, batch.batch_id, code=code, attempt=number, sha256=batch.parcel.sha256)


def give_up(store: Store, key: str, now: datetime, *, reason: str, held: dict[str, str]) -> None:
    """Void a batch, hold the refused rows, and seal the others again under the next number.

    Of a replay only the number is given up: its rows were acknowledged once and stay so.
    """
    subscriber, channel, start, end, replay = store.rows(
        "SELECT subscriber_id, channel_id, period_from, period_to, replay FROM batch WHERE batch_id = ?", (key,)
    )[0]
    items = [] if replay else items_of(store, key)
    store.run("UPDATE batch SET state = 'void', reason = ?, owner = NULL WHERE batch_id = ?", (reason, key))
    audit.append(store, microseconds(now), "void", key, reason=reason)
    store.run("UPDATE delivery SET batch_id = NULL WHERE batch_id = ?", (key,))
    for item in items:
        if item.delivery_id in held:
            hold(store, item.delivery_id, held[item.delivery_id], now)
    rest = [item for item in items if item.delivery_id not in held]
    if rest:
        reseal(store, (subscriber, channel), rest, Seal(0, (instant(start), instant(end)), now))


def _endpoint(store: Store, spec: ChannelSpec) -> tuple[int, int]:
    found = store.rows("SELECT failures, open_until FROM endpoint WHERE name = ?", (spec.endpoint,))
    return (found[0][0], found[0][1]) if found else (0, 0)


def note_endpoint(store: Store, spec: ChannelSpec, now: datetime, outcome: Outcome, policy: RetryPolicy) -> None:
    """Count failures in a row; open the circuit at the limit, or as long as the endpoint itself asked."""
    if outcome.state in ("acked", "dead"):
        # A refusal of one parcel (dead) is an answer: the endpoint works.
        store.run("UPDATE endpoint SET failures = 0, open_until = 0 WHERE name = ? AND failures > 0", (spec.endpoint,))
        return
    failures = _endpoint(store, spec)[0] + 1
    open_until = 0
    if failures >= policy.breaker_failures:
        open_until = microseconds(now + timedelta(seconds=policy.breaker_s))
    if outcome.retry_after_s is not None:
        open_until = max(open_until, microseconds(now + timedelta(seconds=outcome.retry_after_s)))
    store.run(
        "INSERT INTO endpoint VALUES (?, ?, ?) ON CONFLICT (name) "
        "DO UPDATE SET failures = excluded.failures, open_until = excluded.open_until",
        (spec.endpoint, failures, open_until),
    )
