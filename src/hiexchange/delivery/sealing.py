"""Turn rows that are due into bytes under a sequence number, in the transaction that allocates it.

Sealed bytes are stored and never rendered again: a crash at any later step sends the same bytes
under the same name. A number is never reused; a batch given up is announced as void in the next
manifest of its channel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from hiexchange._files import sha256_text
from hiexchange.delivery import audit, record
from hiexchange.delivery.base import Page, batch_id, instant, microseconds
from hiexchange.delivery.cadence import last_tick, quiet_until, windowed
from hiexchange.delivery.channel import ChannelSpec, from_json
from hiexchange.delivery.formats import format_named
from hiexchange.delivery.ledger import Row, Store
from hiexchange.errors import ConfigError, DeliveryError

MANIFEST_VERSION = 1
LEDGER_CODES = ("HX-610", "HX-611")
"""Errors of the ledger itself: they end the run."""
SEAL_AT_ONCE = 200
"""Batches of one transaction: a crash repeats at most this much rendering, and nothing else."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A delivery asked about again at seal and claim time: may this recipient still have it?"""

    delivery_id: str
    subscriber_id: str
    channel_id: str
    event_key: str
    person_id: str | None
    payer_ids: tuple[str, ...]
    notice: str | None = None
    """Statement of the Part 2 consent it goes out under, where it does."""


Recheck = Callable[[Candidate], str | None]
"""Returns the reason to hold a delivery back, or None to let it go."""


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A channel as the ledger knows it."""

    spec: ChannelSpec
    sealed_to: datetime
    next_sequence: int

    @property
    def place(self) -> tuple[str, str]:
        """Subscriber and channel ids, for SQL."""
        return (self.spec.subscriber_id, self.spec.channel_id)


@dataclass(frozen=True, slots=True)
class Item:
    """One delivery with what is needed to render it."""

    delivery_id: str
    event_key: str
    template_major: int
    person_id: str | None
    context: Mapping[str, Any]
    event_text: str


_CHANNELS = (
    "SELECT v.spec, c.sealed_to, c.next_sequence FROM channel c JOIN config_version v ON v.sha = c.config_sha "
    "WHERE c.active = 1{only} ORDER BY c.subscriber_id, c.channel_id"
)


def channels(store: Store) -> list[ChannelRow]:
    """Return every channel that was not switched off by hand, in a fixed order."""
    found = store.rows(_CHANNELS.format(only=""))
    return [ChannelRow(from_json(spec), instant(to), number) for spec, to, number in found]


def channel_row(store: Store, place: tuple[str, str]) -> ChannelRow | None:
    """Return one channel; None when it is switched off."""
    found = store.rows(_CHANNELS.format(only=" AND c.subscriber_id = ? AND c.channel_id = ?"), place)
    return ChannelRow(from_json(found[0][0]), instant(found[0][1]), found[0][2]) if found else None


@dataclass(frozen=True, slots=True)
class Window:
    """What one run brings to sealing."""

    now: datetime
    """The instant windows are judged by."""
    clock: Callable[[], datetime]
    """For the stamps of ledger rows: ``now`` plus the time the run has taken."""
    recheck: Recheck | None = None
    flush: bool = False
    """Seal whatever waits, whatever the cadence."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Number, period and stamp of one batch."""

    sequence: int
    period: tuple[datetime, datetime]
    at: datetime
    replay: bool = False
    salt: str = ""


def seal_due(store: Store, window: Window) -> tuple[int, dict[str, str]]:
    """Seal what is due in every active channel; return the batches, and the channels that could not be."""
    sealed = 0
    problems: dict[str, str] = {}
    for channel in due_channels(store, window.now, flush=window.flush):
        try:
            sealed += seal_channel(store, channel.place, window)
        except (ConfigError, DeliveryError) as error:
            if error.code in LEDGER_CODES:
                raise
            # One subscriber's expired key or unknown format is not the others' trouble.
            problems[channel.spec.key] = error.what
    return sealed, problems


def due_channels(store: Store, now: datetime, *, flush: bool = False) -> list[ChannelRow]:
    """Return the active channels with rows to seal or a window that has closed."""
    waiting = {
        (subscriber, channel)
        for subscriber, channel in store.rows(
            "SELECT DISTINCT subscriber_id, channel_id FROM delivery "
            "WHERE batch_id IS NULL AND state = 'pending' AND due_at <= ?",
            (microseconds(now),),
        )
    }
    due = []
    for channel in channels(store):
        if not channel.spec.active(now.date()):
            continue
        if windowed(channel.spec):
            ready = last_tick(channel.spec, channel.sealed_to, now) is not None
        else:
            ready = channel.place in waiting and quiet_until(channel.spec, now) is None
        if ready or flush:
            due.append(channel)
    return due


def seal_channel(store: Store, place: tuple[str, str], window: Window) -> int:
    """Seal one channel's window, in transactions of :data:`SEAL_AT_ONCE` batches; return the batches."""
    sealed = 0
    while True:
        with store.transaction():
            store.serialise(f"channel {'/'.join(place)}")
            channel = channel_row(store, place)
            until = _window_end(channel, window) if channel is not None else None
            if channel is None or until is None:
                return sealed
            done, more = _seal_some(store, channel, until, window)
            sealed += done
            if not more:
                return sealed


def _window_end(channel: ChannelRow, window: Window) -> datetime | None:
    if window.flush or not windowed(channel.spec):
        return window.now
    return last_tick(channel.spec, channel.sealed_to, window.now)


def _seal_some(store: Store, channel: ChannelRow, until: datetime, window: Window) -> tuple[int, bool]:
    """Seal up to :data:`SEAL_AT_ONCE` batches; say whether more of the window is left."""
    spec, at = channel.spec, window.clock()
    collects = windowed(spec)
    form = format_named(spec.format)
    single = form.message and spec.carries_messages
    # One message a batch: take no more rows than are sealed now, or a long queue is read again each time.
    limit = SEAL_AT_ONCE if single else None
    found = _waiting(store, channel, until, before=collects and not window.flush, limit=limit)
    items = _held_back(store, spec, found, at, window.recheck)
    parcels = list(parts(items, spec))
    sealed = 0
    for part in parcels[:SEAL_AT_ONCE]:
        period = (channel.sealed_to, until) if collects else (until, until)
        sealed += _seal(store, spec, part, Seal(channel.next_sequence + sealed, period, at))
    more = len(found) == limit or len(parcels) > SEAL_AT_ONCE
    if collects and not more and not (window.flush and not found):
        if not found:
            sealed += _seal_empty(store, spec, Seal(channel.next_sequence, (channel.sealed_to, until), at))
        store.run(
            "UPDATE channel SET sealed_to = ? WHERE subscriber_id = ? AND channel_id = ?",
            (microseconds(until), *channel.place),
        )
    if sealed:
        store.run(
            "UPDATE channel SET next_sequence = ? WHERE subscriber_id = ? AND channel_id = ?",
            (channel.next_sequence + sealed, *channel.place),
        )
    return sealed, more


def _waiting(store: Store, channel: ChannelRow, until: datetime, *, before: bool, limit: int | None) -> list[Item]:
    """Return unsealed rows; ``before`` = strictly before the tick, since a window is half-open."""
    found = store.rows(
        "SELECT d.delivery_id, d.event_key, d.template_major, e.person_id, d.context, e.data FROM delivery d "
        "JOIN event e ON e.event_key = d.event_key AND e.material_version = d.material_version "
        "WHERE d.subscriber_id = ? AND d.channel_id = ? AND d.batch_id IS NULL AND d.state = 'pending' "
        f"AND d.due_at {'<' if before else '<='} ? ORDER BY e.event_at, d.event_key, d.delivery_id LIMIT ?",
        (*channel.place, microseconds(until), limit or 2**31),
    )
    return [item_of(row) for row in found]


def item_of(row: Row) -> Item:
    """Return a delivery with its event from a row of id, key, major, person, context, data."""
    key, event, major, person, context, data = row
    return Item(key, event, major, person, msgspec.json.decode(context), data)


def _held_back(store: Store, spec: ChannelSpec, items: list[Item], at: datetime, recheck: Recheck | None) -> list[Item]:
    if recheck is None:
        return items
    passed = []
    for item in items:
        reason = recheck(candidate(spec, item))
        if reason is None:
            passed.append(item)
        else:
            hold(store, item.delivery_id, reason, at)
    return passed


def candidate(spec: ChannelSpec, item: Item) -> Candidate:
    """Return what the re-check is asked about."""
    payers = tuple(item.context.get("payers", ()))
    return Candidate(
        item.delivery_id,
        spec.subscriber_id,
        spec.channel_id,
        item.event_key,
        item.person_id,
        payers,
        item.context.get("notice"),
    )


def hold(store: Store, delivery_id: str, reason: str, at: datetime) -> None:
    """Hold one unsealed delivery back, with an audit row."""
    store.run(
        "UPDATE delivery SET state = 'held', reason = ?, batch_id = NULL WHERE delivery_id = ?", (reason, delivery_id)
    )
    audit.append(store, microseconds(at), "held", delivery_id, reason=reason)


def parts(items: Sequence[Item], spec: ChannelSpec) -> Iterator[list[Item]]:
    """Split rows into batches: by template major, by the split column, by the row limit."""
    form = format_named(spec.format)
    most = spec.max_rows or len(items)
    size = 1 if form.message and spec.carries_messages else min(most, form.row_limit or most)
    groups: dict[tuple[int, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.template_major, _split_value(item, spec)), []).append(item)
    # In order of the first event, so that sequence numbers follow time as far as files allow.
    for group in groups.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _split_value(item: Item, spec: ChannelSpec) -> str:
    if not spec.split:
        return ""
    if spec.split == "provider_npi":
        return str(next(iter(item.context.get("npi", ())), ""))
    return str(msgspec.json.decode(item.event_text).get(spec.split, ""))


def _seal(store: Store, spec: ChannelSpec, part: list[Item], seal: Seal) -> int:
    """Seal one batch; return 1, or 0 when no row of it could be rendered."""
    payload, items = render(store, spec, part, seal)
    if not items:
        return 0
    identity = batch_id((item.delivery_id for item in items), salt=seal.salt)
    write_batch(store, spec, SealedBatch(identity, items, payload), seal)
    store.run_many(
        "UPDATE delivery SET batch_id = ? WHERE delivery_id = ?", [(identity, item.delivery_id) for item in items]
    )
    return 1


def reseal(store: Store, place: tuple[str, str], items: list[Item], seal: Seal) -> int:
    """Seal what is left of a batch given up, at once and under the channel's next number; 1 or 0."""
    store.serialise(f"channel {'/'.join(place)}")
    channel = channel_row(store, place)
    if channel is None:
        return 0
    number = channel.next_sequence
    # The same rows may come again as a whole: the salt keeps the new batch apart from the void one.
    sealed = _seal(store, channel.spec, items, replace(seal, sequence=number, salt=f"again {number}"))
    store.run(
        "UPDATE channel SET next_sequence = ? WHERE subscriber_id = ? AND channel_id = ?",
        (channel.next_sequence + sealed, *place),
    )
    return sealed


def render(store: Store, spec: ChannelSpec, part: list[Item], seal: Seal) -> tuple[bytes, list[Item]]:
    """Render a batch; a row that cannot be said in the format is dead by itself and the others go on."""
    form = format_named(spec.format)
    sets = column_sets(store, part)
    items = list(part)
    while items:
        page = Page(_records(items, spec, sets, seal), record.columns_of(spec), spec, seal.sequence, seal.replay)
        try:
            return form.render(page), items
        except DeliveryError as error:
            poisoned = [item for item in items if item.delivery_id == error.where]
            if not poisoned:
                raise
            reason = f"cannot be rendered: {error.what}"
            key = poisoned[0].delivery_id
            store.run("UPDATE delivery SET state = 'dead', reason = ? WHERE delivery_id = ?", (reason, key))
            audit.append(store, microseconds(seal.at), "dead", key, reason=reason)
            items.remove(poisoned[0])
    return b"", []


def _records(items: list[Item], spec: ChannelSpec, sets: Mapping[str, list[str]], seal: Seal) -> list[dict[str, Any]]:
    records = [record.build(item.delivery_id, item.event_text, item.context, replay=seal.replay) for item in items]
    decided = {item.delivery_id: sets.get(item.context.get("columns", "")) for item in items}
    # Sorted while they are whole: a file without the column of times is in order of time, too.
    return [
        record.within(one, record.allowed(spec, decided[one["delivery_id"]])) for one in record.ordered(records, spec)
    ]


def column_sets(store: Store, items: Iterable[Item]) -> dict[str, list[str]]:
    """Return the minimum-necessary column sets that these deliveries name."""
    wanted = {str(item.context["columns"]) for item in items if "columns" in item.context}
    if not wanted:
        return {}
    return {sha: msgspec.json.decode(names) for sha, names in store.rows("SELECT sha, names FROM column_set")}


def _seal_empty(store: Store, spec: ChannelSpec, seal: Seal) -> int:
    """Seal the announcement of an empty window, so that "nothing" and "late" differ; 0 when none is wanted."""
    form = format_named(spec.format)
    if spec.empties == "nothing" or (form.message and spec.carries_messages):
        return 0
    payload = form.render(Page([], record.columns_of(spec), spec, seal.sequence)) if spec.empties == "file" else None
    write_batch(store, spec, SealedBatch(batch_id([], salt=f"{spec.key} {seal.sequence}"), [], payload), seal)
    return 1


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """Rows and bytes of one batch, on the way into the ledger."""

    batch_id: str
    items: list[Item]
    payload: bytes | None
    """None for an empty window announced by its manifest alone."""


def write_batch(store: Store, spec: ChannelSpec, batch: SealedBatch, seal: Seal) -> None:
    """Insert batch, payload and manifest, and announce the void numbers before it."""
    form = format_named(spec.format)
    payload, suffix, content_type = batch.payload, form.extension, form.content_type
    if payload is not None and spec.encryption == "pgp":
        from hiexchange.delivery.pgp import encrypt

        # Ciphertext is random: encrypted once, here, and the stored bytes are what every attempt sends.
        payload, suffix, content_type = encrypt(payload, spec, seal.at), f"{suffix}.pgp", "application/pgp-encrypted"
    name = f"{spec.subscriber_id}_{spec.channel_id}_{seal.sequence:06d}.{suffix}"
    if payload is not None and spec.encryption == "zip":
        from hiexchange.delivery import zipped

        payload, name, content_type = zipped.encrypt(payload, spec, name), f"{name}.zip", "application/zip"
    digest = hashlib.sha256(payload or b"").hexdigest()
    single = form.message and spec.carries_messages and batch.items
    stamp = microseconds(seal.at)
    store.run(
        "INSERT INTO batch (batch_id, subscriber_id, channel_id, sequence, state, attempts, due_at, lease_until, owner, "
        "parcel_key, name, content_type, sha256, size_bytes, row_count, replay, config_sha, period_from, period_to, "
        "sealed_at) VALUES (?, ?, ?, ?, 'pending', 0, ?, 0, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(batch.batch_id, spec.subscriber_id, spec.channel_id, seal.sequence, microseconds(seal.period[1])),
            *(batch.items[0].delivery_id if single else batch.batch_id, name, content_type),
            *(digest, len(payload or b""), len(batch.items), int(seal.replay), spec.sha),
            *(microseconds(seal.period[0]), microseconds(seal.period[1]), stamp),
        ),
    )
    manifest = _manifest(spec, batch, seal, _void_numbers(store, spec, seal.sequence))
    manifest |= {"file": name, "sha256": digest, "size_bytes": len(payload)} if payload is not None else {"file": None}
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    store.run("INSERT INTO payload VALUES (?, ?, ?)", (batch.batch_id, payload, text))
    facts = {"sequence": seal.sequence, "sha256": digest, "rows": len(batch.items), "config_version": spec.sha}
    audit.append(store, stamp, "sealed", batch.batch_id, channel=spec.key, replay=seal.replay, **facts)


def _manifest(spec: ChannelSpec, batch: SealedBatch, seal: Seal, void: list[int]) -> dict[str, Any]:
    ids = sorted(item.delivery_id for item in batch.items)
    return {
        "manifest": MANIFEST_VERSION,
        "subscriber": spec.subscriber_id,
        "channel": spec.channel_id,
        "sequence": seal.sequence,
        "previous_sequence": seal.sequence - 1 or None,
        "void_sequences": void,
        "batch_id": batch.batch_id,
        "rows": len(ids),
        "period_from": _iso(seal.period[0]),
        "period_to": _iso(seal.period[1]),
        "format": spec.format,
        "template_major": batch.items[0].template_major if batch.items else spec.template_major,
        "config_version": spec.sha,
        "replay": seal.replay,
        "delivery_ids_sha256": sha256_text(*ids),
    }


def _void_numbers(store: Store, spec: ChannelSpec, sequence: int) -> list[int]:
    """Return the numbers given up since the last manifest, and mark them as announced by this one."""
    place = (spec.subscriber_id, spec.channel_id)
    where = "subscriber_id = ? AND channel_id = ? AND state IN ('dead', 'void') AND announced_in IS NULL"
    numbers = [row[0] for row in store.rows(f"SELECT sequence FROM batch WHERE {where} ORDER BY sequence", place)]
    if numbers:
        store.run(f"UPDATE batch SET announced_in = ? WHERE {where}", (sequence, *place))
    return numbers


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds" if at.microsecond else "seconds").replace("+00:00", "Z")
