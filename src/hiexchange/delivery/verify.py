"""Prove the ledger: the audit chain, the stored bytes, the numbers, the ids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from hiexchange.delivery import audit
from hiexchange.delivery.base import batch_id, delivery_id
from hiexchange.delivery.ledger import Store


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found; empty ``problems`` means that the ledger holds."""

    audit_rows: int
    head: str
    """Hash of the last audit row: kept elsewhere, it also shows a tail cut off."""
    batches: int
    deliveries: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(store: Store, *, head: tuple[int, str] | None = None) -> Verified:
    """Check the whole ledger.

    Args:
        store: The ledger.
        head: Number and hash of an audit row noted earlier; it must still be there.
    """
    problems: list[str] = []
    count, last, sealed = _chain(store, head, problems)
    batches = _batches(store, sealed, problems)
    _sequences(store, problems)
    return Verified(count, last, batches, _deliveries(store, problems), tuple(problems))


def _chain(store: Store, noted: tuple[int, str] | None, problems: list[str]) -> tuple[int, str, dict[str, str]]:
    previous, expected, sealed = audit.GENESIS, 1, dict[str, str]()
    for number, at, kind, subject, data, before, found in store.rows(
        "SELECT n, at, kind, subject, data, previous, hash FROM audit ORDER BY n"
    ):
        if number != expected:
            problems.append(f"audit row {expected} is missing")
        if before != previous or audit.link(number, at, kind, subject, data, before) != found:
            problems.append(f"audit row {number} was changed")
        if noted is not None and number == noted[0] and found != noted[1]:
            problems.append(f"audit row {number} is not the one noted")
        if kind == "sealed":
            sealed[subject] = data
        previous, expected = found, number + 1
    if noted is not None and noted[0] >= expected:
        problems.append(f"the audit trail ends at row {expected - 1}, before the noted row {noted[0]}")
    return expected - 1, previous, sealed


def _batches(store: Store, sealed: dict[str, str], problems: list[str]) -> int:
    members: dict[str, list[str]] = {}
    for key, member in store.rows("SELECT batch_id, delivery_id FROM delivery WHERE batch_id IS NOT NULL"):
        members.setdefault(key, []).append(member)
    forgotten = _forgotten_before(store)
    acked = {row[0] for row in store.rows("SELECT subject FROM audit WHERE kind = 'acked'")}
    found = store.rows("SELECT batch_id, sha256, state, replay, row_count, sequence, acked_at FROM batch")
    for key, sha, state, replay, rows, sequence, acked_at in found:
        short = key[:12]
        payload = store.rows("SELECT payload FROM payload WHERE batch_id = ?", (key,))
        dropped = not payload and state == "acked" and acked_at < forgotten
        if not dropped and (not payload or hashlib.sha256(bytes(payload[0][0] or b"")).hexdigest() != sha):
            problems.append(f"batch {short}: the stored bytes are not those that were sealed")
        if key not in sealed or f'"{sha}"' not in sealed[key]:
            problems.append(f"batch {short}: the audit trail does not know these bytes")
        if state == "acked" and key not in acked:
            problems.append(f"batch {short} is acked, but the audit trail does not say so")
        if rows and state != "void" and not replay and not _is_of(key, members.get(key, []), rows, sequence):
            problems.append(f"batch {short}: its id is not that of its deliveries")
    return len(found)


def _forgotten_before(store: Store) -> int:
    """Return the instant before which content was dropped on purpose, as the audit trail has it."""
    found = store.rows("SELECT data FROM audit WHERE kind = 'forgotten'")
    return max((int(msgspec.json.decode(data)["before"]) for (data,) in found), default=0)


def _is_of(key: str, members: list[str], rows: int, sequence: int) -> bool:
    return len(members) == rows and key in (batch_id(members), batch_id(members, salt=f"again {sequence}"))


def _sequences(store: Store, problems: list[str]) -> None:
    found = store.rows(
        "SELECT c.subscriber_id, c.channel_id, c.next_sequence, count(b.sequence), min(b.sequence), max(b.sequence) "
        "FROM channel c LEFT JOIN batch b ON b.subscriber_id = c.subscriber_id AND b.channel_id = c.channel_id "
        "GROUP BY c.subscriber_id, c.channel_id, c.next_sequence"
    )
    for subscriber, channel, following, count, low, high in found:
        if (count and (low != 1 or high != count)) or following != count + 1:
            problems.append(f"channel {subscriber}/{channel}: its numbers are not 1 to {following - 1}")


def _deliveries(store: Store, problems: list[str]) -> int:
    found = store.rows(
        "SELECT delivery_id, subscriber_id, channel_id, event_key, material_version, template_major FROM delivery"
    )
    wrong = sum(
        delivery_id(subscriber, channel, event_key=event, material_version=version, template_major=major) != key
        for key, subscriber, channel, event, version, major in found
    )
    if wrong:
        problems.append(f"{wrong} deliveries do not have the id of their parts")
    return len(found)
