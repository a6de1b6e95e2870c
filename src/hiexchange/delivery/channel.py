"""One subscriber channel as the ledger keeps it: everything needed to render and send, as plain data.

Built from routing's ``Subscription`` and ``Channel`` by attribute name; an absent attribute takes the
default here. Stored as JSON under its hash (``config_version``), so a batch names the preferences it
was sealed with and a later change affects only the next batch. Secrets stay references.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from hiexchange._files import sha256_text
from hiexchange.delivery.base import SubscriptionLike
from hiexchange.errors import ConfigError
from hiexchange.tables import OPEN_DATE

MESSAGE_SCHEMES = ("http", "https", "mllp", "mllps")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """How one channel wants its events; fields as in routing's ``Channel`` unless said here."""

    subscriber_id: str
    channel_id: str
    url: str
    format: str = "csv"
    cadence: str = "immediate"
    zone: str = "UTC"
    template_major: int = 1
    template_from: datetime | None = None
    columns: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    date_format: str = "iso"
    null_text: str = ""
    split: str = ""
    max_rows: int | None = None
    empties: str = "manifest"
    encryption: str = "none"
    pgp_key: str | None = None
    quiet_hours: tuple[str, str] | None = None
    holidays: tuple[date, ...] = ()
    holiday_rule: str = "send"
    ordered: bool = False
    credentials: dict[str, str] = field(default_factory=dict)
    """Secret references (``env:``, ``file:``) by name: never values."""
    credentials_base: str = ""
    """Folder that relative ``file:`` references start from."""
    options: dict[str, str] = field(default_factory=dict)
    permitted: tuple[str, ...] = ()
    """The subscription's own column limit; empty = the default set."""
    active_from: date = date.min
    active_to: date = OPEN_DATE
    version: str = ""
    """Hash of the subscription's preferences."""

    @property
    def scheme(self) -> str:
        """The transport: folder, sftp, http, https, mllp, mllps or s3."""
        head, mark, _ = self.url.partition(":")
        known = mark and (self.url[len(head) :].startswith("://") or head == "file")
        return head.lower() if known and head.lower() != "file" else "folder"

    @property
    def endpoint(self) -> str:
        """What a circuit breaker guards: transport, host and port; a folder is its own endpoint."""
        if self.scheme == "folder":
            return self.url
        parts = urlsplit(self.url)
        return f"{self.scheme}://{parts.hostname}:{parts.port or ''}{parts.path if self.scheme == 's3' else ''}"

    @property
    def carries_messages(self) -> bool:
        """Whether the transport carries single messages rather than files."""
        return self.scheme in MESSAGE_SCHEMES

    @property
    def key(self) -> str:
        """``subscriber/channel``: how destinations are overridden and reports are grouped."""
        return f"{self.subscriber_id}/{self.channel_id}"

    def active(self, on: date) -> bool:
        """Say whether the subscription is in force on that day."""
        return self.active_from <= on < self.active_to

    def major_at(self, event_at: datetime) -> int:
        """Return the template's major version for an event of that instant: the old one before the cut-over."""
        before = self.template_from is not None and event_at < self.template_from
        return self.template_major - 1 if before else self.template_major

    def to_json(self) -> str:
        """Return the stored form: keys sorted, so equal preferences have equal text."""
        return msgspec.json.encode(self, order="deterministic").decode()

    @property
    def sha(self) -> str:
        """Hash of the stored form: the config version."""
        return sha256_text(self.to_json())


_CHANNEL = {item.name for item in fields(ChannelSpec)} - {
    "subscriber_id",
    "channel_id",
    "credentials",
    "credentials_base",
    "options",
    "names",
    "permitted",
    "active_from",
    "active_to",
    "version",
}


@functools.lru_cache(maxsize=4096)
def from_json(text: str) -> ChannelSpec:
    """Read the stored form back; every run reads every channel, so the same text is decoded once."""
    return msgspec.json.decode(text, type=ChannelSpec)


def current(subscriptions: Iterable[SubscriptionLike], on: date) -> list[ChannelSpec]:
    """Return every channel, of the span in force on that day, else of the subscriber's latest span."""
    spans: dict[str, list[Any]] = {}
    for subscription in subscriptions:
        spans.setdefault(subscription.id, []).append(subscription)
    chosen = [max(several, key=lambda item: _rank(item, on)) for several in spans.values()]
    return [_spec(subscription, channel) for subscription in chosen for channel in subscription.channels]


def _rank(subscription: Any, on: date) -> tuple[bool, date]:
    start: date = getattr(subscription, "active_from", date.min)
    end: date = getattr(subscription, "active_to", OPEN_DATE)
    return (start <= on < end, start)


def _spec(subscription: Any, channel: Any) -> ChannelSpec:
    given: dict[str, Any] = {}
    for name in _CHANNEL:
        value = getattr(channel, name, None)
        if value is not None:
            given[name] = tuple(value) if isinstance(value, list) else value
    secrets: Mapping[str, Any] = getattr(channel, "credentials", None) or {}
    bases = {str(base) for secret in secrets.values() if (base := getattr(secret, "base", None)) is not None}
    spec = ChannelSpec(
        subscriber_id=subscription.id,
        channel_id=channel.id,
        names=dict(getattr(channel, "names", None) or {}),
        credentials={name: _reference(secret) for name, secret in secrets.items()},
        credentials_base=next(iter(sorted(bases)), ""),
        options=dict(getattr(channel, "options", None) or {}),
        permitted=tuple(getattr(subscription, "columns", None) or ()),
        active_from=getattr(subscription, "active_from", date.min),
        active_to=getattr(subscription, "active_to", OPEN_DATE),
        version=getattr(subscription, "version", ""),
        **given,
    )
    for name in (spec.subscriber_id, spec.channel_id):
        # Ids become file names: routing validates them, other callers are held to the same rule.
        if not name or len(name) > 64 or not all(char.isascii() and (char.isalnum() or char in "-_.") for char in name):
            raise ConfigError(
                "a subscriber or channel id may hold letters, digits, '-', '_' and '.', 64 at most",
                hint="ids become file names",
            )
    return spec


def _reference(secret: Any) -> str:
    reference = getattr(secret, "reference", secret)
    if not isinstance(reference, str) or reference.partition(":")[0] not in ("env", "file"):
        raise ConfigError("a credential must be a reference", hint='write "env:NAME" or "file:PATH"', code="HX-202")
    return reference
