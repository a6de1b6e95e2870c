"""What an operator does to the ledger by hand: requeue, replay, give up, switch off. All audited."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from hiexchange._files import sha256_text
from hiexchange.delivery import audit, claiming, sealing
from hiexchange.delivery.base import batch_id, microseconds
from hiexchange.delivery.ledger import Store
from hiexchange.delivery.sealing import Item, Seal, SealedBatch
from hiexchange.errors import DeliveryError

VOIDED = "requeued under a new number"
_ITEM = (
    "SELECT d.delivery_id, d.event_key, d.template_major, e.person_id, d.context, e.data FROM delivery d "
    "JOIN event e ON e.event_key = d.event_key AND e.material_version = d.material_version "
)


def requeue(store: Store, now: datetime, *, subscriber_id: str | None = None, batch: str | None = None) -> int:
    """Make dead batches pending again, and held or dead single rows too; return how many.

    A dead batch keeps its bytes, name and number, unless a manifest has already announced the
    number as void: then its rows are sealed again under the next one. Ids never change.
    """
    at = microseconds(now)
    changed = 0
    with store.transaction():
        where, args = _chosen("b.", subscriber_id, batch)
        sql = f"SELECT b.batch_id, b.announced_in FROM batch b WHERE b.state = 'dead'{where} ORDER BY b.sequence"
        for key, announced in store.rows(sql, args):
            changed += 1
            if announced is not None:
                claiming.give_up(store, key, now, reason=VOIDED, held={})
            else:
                store.run("UPDATE batch SET state = 'pending', due_at = ? WHERE batch_id = ?", (at, key))
            audit.append(store, at, "requeued", key)
        if batch is None:
            where, args = _chosen("", subscriber_id, None)
            rows = store.run(
                "UPDATE delivery SET state = 'pending', reason = NULL, due_at = ? "
                f"WHERE batch_id IS NULL AND state IN ('dead', 'held'){where}",
                (at, *args),
            )
            if rows:
                audit.append(store, at, "requeued", subscriber_id or "", rows=rows)
            changed += rows
    return changed


def _chosen(prefix: str, subscriber_id: str | None, batch: str | None) -> tuple[str, tuple[str, ...]]:
    clauses = [(f"{prefix}subscriber_id", subscriber_id), (f"{prefix}batch_id", batch)]
    given = [(column, value) for column, value in clauses if value is not None]
    return "".join(f" AND {column} = ?" for column, _ in given), tuple(value for _, value in given)


def replay(
    store: Store,
    now: datetime,
    *,
    delivery_id: str | None = None,
    event_key: str | None = None,
    subscriber_id: str | None = None,
    period: tuple[datetime, datetime] | None = None,
) -> int:
    """Seal acknowledged deliveries once more, with their ids and ``replay=true``; return how many rows.

    Choose by delivery, by event, or by subscriber and half-open period of first acknowledgement.

    Raises:
        DeliveryError: Nothing is chosen: a whole ledger is never replayed by an empty request.
    """
    clauses: list[tuple[str, Sequence[object]]] = []
    if delivery_id is not None:
        clauses.append(("d.delivery_id = ?", (delivery_id,)))
    if event_key is not None:
        clauses.append(("d.event_key = ?", (event_key,)))
    if subscriber_id is not None:
        clauses.append(("d.subscriber_id = ?", (subscriber_id,)))
    if period is not None:
        clauses.append(("b.acked_at >= ? AND b.acked_at < ?", tuple(microseconds(end) for end in period)))
    if not clauses or (delivery_id is None and event_key is None and (subscriber_id is None or period is None)):
        raise DeliveryError(
            "a replay needs a delivery, an event, or a subscriber and a period", hint="deliver replay --help"
        )
    where = " AND ".join(clause for clause, _ in clauses)
    args = [value for _, values in clauses for value in values]
    with store.transaction():
        found = store.rows(
            f"{_ITEM} JOIN batch b ON b.batch_id = d.batch_id WHERE b.state = 'acked' AND {where} "
            "ORDER BY e.event_at, d.event_key, d.delivery_id",
            args,
        )
        items = [sealing.item_of(row) for row in found]
        if any(not item.event_text for item in items):
            raise DeliveryError("what is to be replayed has been forgotten", hint="choose later deliveries")
        places = _places(store, [item.delivery_id for item in items])
        for place in sorted(set(places.values())):
            _replay_channel(store, place, [item for item in items if places[item.delivery_id] == place], now)
    return len(items)


def _places(store: Store, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    sql = "SELECT subscriber_id, channel_id FROM delivery WHERE delivery_id = ?"
    return {key: (row[0], row[1]) for key in ids for row in store.rows(sql, (key,))}


def _replay_channel(store: Store, place: tuple[str, str], items: list[Item], now: datetime) -> None:
    store.serialise(f"channel {'/'.join(place)}")
    channel = sealing.channel_row(store, place)
    if channel is None:
        raise DeliveryError(f"the channel {'/'.join(place)} is switched off", hint="switch it on, then replay")
    spec, sequence = channel.spec, channel.next_sequence
    for part in sealing.parts(items, spec):
        seal = Seal(sequence, (now, now), now, replay=True, salt=f"replay {spec.key} {sequence}")
        payload, kept = sealing.render(store, spec, part, seal)
        identity = batch_id((item.delivery_id for item in kept), salt=seal.salt)
        sealing.write_batch(store, spec, SealedBatch(identity, kept, payload), seal)
        store.run_many("INSERT INTO replay_item VALUES (?, ?)", [(identity, item.delivery_id) for item in kept])
        digest = sha256_text(*sorted(item.delivery_id for item in kept))
        audit.append(store, microseconds(now), "replayed", identity, rows=len(kept), delivery_ids_sha256=digest)
        sequence += 1
    store.run("UPDATE channel SET next_sequence = ? WHERE subscriber_id = ? AND channel_id = ?", (sequence, *place))


def void(store: Store, batch: str, now: datetime, *, reason: str) -> None:
    """Give a batch up for good: its rows are held, its number is announced as void in the next manifest.

    Raises:
        DeliveryError: There is no such batch, it was acknowledged, or a worker holds it.
    """
    with store.transaction():
        found = store.rows("SELECT state FROM batch WHERE batch_id = ?", (batch,))
        if not found or found[0][0] in ("acked", "claimed", "sent", "void"):
            state = found[0][0] if found else "unknown to the ledger"
            raise DeliveryError(f"the batch cannot be given up: it is {state}", where=batch[:16])
        held = {item.delivery_id: reason for item in claiming.items_of(store, batch)}
        claiming.give_up(store, batch, now, reason=reason, held=held)


def switch(store: Store, now: datetime, *, subscriber_id: str, on: bool) -> int:
    """Switch a subscriber's channels off (their backlog is held, not lost) or on again; return the channels."""
    with store.transaction():
        changed = store.run(
            "UPDATE channel SET active = ? WHERE subscriber_id = ? AND active <> ?", (int(on), subscriber_id, int(on))
        )
        if changed:
            audit.append(store, microseconds(now), "activated" if on else "deactivated", subscriber_id)
    return changed
