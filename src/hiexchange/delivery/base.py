"""What delivery takes, hands to destinations and formats, and gives back. No I/O here.

Routing's dataclasses are met through protocols: delivery never imports routing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

import pyarrow as pa

from hiexchange._files import sha256_text

State = Literal["acked", "retry", "unknown", "dead"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class SubscriptionLike(Protocol):
    """A subscriber: what this room reads of ``routing.Subscription``."""

    @property
    def id(self) -> str:
        """Stable id of the subscriber; part of every delivery id."""

    @property
    def channels(self) -> Sequence[Any]:
        """Its channels; see :class:`hiexchange.delivery.channel.ChannelSpec` for the attributes read."""


class RoutingLike(Protocol):
    """A routing result: what this room reads of ``routing.Routing``."""

    @property
    def decisions(self) -> pa.Table:
        """ROUTING_DECISION rows."""

    @property
    def events(self) -> pa.Table:
        """ENCOUNTER_EVENT rows, at least those the decisions name."""

    @property
    def subscriptions(self) -> Iterable[SubscriptionLike]:
        """Every subscription the decisions were made for."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One sealed batch on its way: the same bytes under the same name at every attempt."""

    key: str
    """Idempotency key: the delivery id of a one-message batch, else the batch id."""
    name: str
    """File or message name; subscriber, channel and sequence only, never patient data."""
    payload: bytes
    sha256: str
    content_type: str
    sequence: int
    manifest: bytes
    """JSON that tells the receiver sequence, predecessor, hash and rows."""
    payload_expected: bool = True
    """False for an empty period announced by its manifest alone."""

    @property
    def manifest_name(self) -> str:
        """Name of the manifest beside the file."""
        return f"{self.name}.manifest.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended, in the ledger's words."""

    state: State
    """acked: contract met. retry: surely not taken. unknown: perhaps taken. dead: will never be taken."""
    code: str
    """What the transport said: a short code, never content."""
    retry_after_s: float | None = None
    """The least wait the other side asked for, in seconds."""


class Destination(Protocol):
    """A place parcels go. One instance serves one channel, in one thread at a time.

    ``open`` proves that the place can be reached before any byte of a parcel leaves: a failure
    there is a retry, never a doubt. Entry point group ``hiexchange.destinations``.
    """

    def open(self) -> None:
        """Connect, authenticate, verify host keys.

        Raises:
            DeliveryError: The place cannot be used now; nothing was sent.
        """

    def send(self, parcel: Parcel) -> Outcome:
        """Send bytes, then manifest; return how it ended. An exception counts as ``unknown``."""

    def probe(self, parcel: Parcel) -> bool | None:
        """Say whether the parcel is whole at the other side; None when it cannot be told."""

    def close(self) -> None:
        """Release connections; never raises."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a format turns into bytes: the rows of one batch and how its receiver wants them."""

    records: Sequence[Mapping[str, Any]]
    """One mapping an event, columns of :mod:`hiexchange.delivery.record`, in final order."""
    columns: Sequence[str]
    """Columns of tabular formats, in order; minimum necessary already applied."""
    spec: Any
    """The :class:`~hiexchange.delivery.channel.ChannelSpec` it is rendered for."""
    sequence: int
    replay: bool = False


class Format(Protocol):
    """A renderer: same page, same bytes, on any day. Entry point group ``hiexchange.formats``."""

    extension: str
    content_type: str
    message: bool
    """True when one batch is one message of one event (HL7 v2, FHIR) on message channels."""
    row_limit: int | None
    """Rows one file can hold; None = any number."""

    def render(self, page: Page) -> bytes:
        """Return the payload.

        Raises:
            DeliveryError: A record cannot be said in this format; ``delivery_id`` is in ``where``.
        """


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again, when to give up, when to leave an endpoint alone."""

    first_s: float = 30.0
    """Wait after the first failure; doubles each time."""
    cap_s: float = 7200.0
    """Longest wait."""
    jitter: float = 0.25
    """Part of the wait that is spread, by a hash of batch and attempt, so that it can be tested."""
    max_attempts: int = 30
    """Attempts before a batch is dead; about two days with the defaults."""
    breaker_failures: int = 5
    """Failures in a row at one endpoint that open its circuit."""
    breaker_s: float = 300.0
    """How long an open circuit is left alone before one parcel probes it."""

    def wait_s(self, batch_id: str, attempt: int, retry_after_s: float | None) -> float:
        """Return the seconds to wait after ``attempt`` (1 = first)."""
        if retry_after_s is not None:
            return max(0.0, min(retry_after_s, 24 * 3600.0))
        base = min(self.cap_s, self.first_s * 2.0 ** min(attempt - 1, 30))
        spread = int(hashlib.sha256(f"{batch_id}{attempt}".encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
        return base * (1 - self.jitter + 2 * self.jitter * spread)


@dataclass(frozen=True, slots=True)
class Due:
    """A channel with something to do."""

    subscriber_id: str
    channel_id: str
    at: datetime
    """Since when (UTC)."""
    reason: str
    """window (a cadence tick has passed), pending (rows to seal) or send (sealed batches to send)."""


@dataclass(frozen=True, slots=True)
class Health:
    """What an operator should be woken for; all counts, no names of people."""

    oldest_waiting_s: float
    """Age of the oldest delivery that is due and not acknowledged; 0 when there is none."""
    dead: int
    """Batches and rows given up and not yet requeued."""
    in_doubt: int
    """Batches whose arrival is not known."""
    open_circuits: tuple[str, ...]
    """Endpoints left alone after failures in a row."""
    overdue: tuple[str, ...]
    """Channels (``subscriber/channel``) whose window closed and was not sealed."""

    @property
    def ok(self) -> bool:
        """Whether nothing is dead, in doubt, cut off or overdue."""
        return not (self.dead or self.in_doubt or self.open_circuits or self.overdue)


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What one run did, and how the whole ledger stands after it."""

    sealed: int = 0
    """Batches sealed in this run."""
    batches_acked: int = 0
    rows_acked: int = 0
    batches_failed: int = 0
    """Attempts of this run that ended in retry, unknown or dead."""
    states: Mapping[str, int] = field(default_factory=dict)
    """Deliveries of the whole ledger by state; their sum is ``created``."""
    created: int = 0
    """Deliveries of the whole ledger."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Channels (``subscriber/channel``) that could not be sealed or reached at all, and why."""

    @property
    def balanced(self) -> bool:
        """Whether every delivery row is in exactly one state."""
        return sum(self.states.values()) == self.created

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><td>{state}</td><td>{count:,}</td></tr>" for state, count in sorted(self.states.items()))
        return f"<table><tr><th>state</th><th>deliveries</th></tr>{cells}</table>"


def delivery_id(
    subscriber_id: str, channel_id: str, *, event_key: str, material_version: str, template_major: int
) -> str:
    """Return the id of one event for one subscriber channel: the same input gives the same id, for ever."""
    return sha256_text(subscriber_id, channel_id, event_key, material_version, str(template_major))


def batch_id(delivery_ids: Iterable[str], *, salt: str = "") -> str:
    """Return the hash of the sorted delivery ids; ``salt`` sets apart empty periods and replays."""
    return sha256_text(*sorted(delivery_ids), salt)


def microseconds(instant: datetime) -> int:
    """Return whole microseconds since 1970 of an aware instant: how the ledger keeps time."""
    return (instant - EPOCH) // MICROSECOND


def instant(value: int) -> datetime:
    """Return the UTC instant of the ledger's microseconds."""
    return EPOCH + timedelta(microseconds=value)
