"""Who receives what, where, how and when: subscriptions, read from TOML and validated.

A subscription is one subscriber's preferences for one span of time; several with the same ``id``
may follow each other. Each has channels: several, chosen by class and trigger, each with its own
format and cadence. Nothing is sent here; ``delivery`` reads these records by attribute.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec

from hiexchange.config import Secret
from hiexchange.errors import ConfigError
from hiexchange.routing import values as rule
from hiexchange.tables import ENCOUNTER_EVENT, OPEN_DATE, PERSON

FORMATS = ("csv", "tsv", "pipe", "xlsx", "parquet", "ndjson", "fhir", "hl7v2")
EMPTIES = ("manifest", "file", "nothing")
ENCRYPTIONS = ("none", "pgp", "zip")
HOLIDAY_RULES = ("send", "shift", "skip")
SPLITS = ("", "provider_npi", "facility_id")
CEILINGS = ("U", "L", "M", "N", "R", "V")
"""HL7 v3 Confidentiality, from unrestricted to very restricted; a ceiling admits itself and all before it."""
CLASSES = ("EMER", "IMP", "ACUTE", "NONAC", "OBSENC", "SS", "AMB", "VR", "HH", "FLD", "PRENC")
TRIGGERS = (
    "admit",
    "register",
    "discharge",
    "transfer",
    "class_change",
    "update",
    "cancel_admit",
    "cancel_transfer",
    "cancel_discharge",
    "merge",
    "preadmit",
)
LATE_POLICIES = ("event_time", "delivery_time", "both")
CREDENTIALS = (
    "username",
    "password",
    "private_key",
    "passphrase",
    "token",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "client_certificate",
    "client_key",
    "signing_key",
    "zip_password",
)
OPTIONS = (
    "known_hosts",
    "ca_file",
    "endpoint",
    "region",
    "sending_application",
    "sending_facility",
    "receiving_application",
    "receiving_facility",
    "endpoint_reference",
    "bom",
    "crlf",
    "delimiter",
)
RECIPIENT_COLUMNS = ("provider_npi", "org_id", "payer_ids", "catch_up", "replay", "notice")
COLUMNS = tuple(
    dict.fromkeys(
        [
            *(column.name for column in ENCOUNTER_EVENT.columns),
            *(column.name for column in PERSON.columns),
            *RECIPIENT_COLUMNS,
        ]
    )
)
"""Every column that a channel may ask for: of the event, of the person, and of the decision."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One way to one subscriber: a destination, a format and a cadence."""

    id: str
    """Unique within the subscription; part of delivery ids, so never reuse it for another place."""
    url: str
    """Folder path, file://, sftp://, https://, mllp(s):// or s3://; never with a password in it."""
    format: str = "csv"
    """One of :data:`FORMATS`."""
    cadence: str = "immediate"
    """``immediate``, ``every N minutes``, ``on discharge``, or a cron line of five fields."""
    zone: str = "UTC"
    """IANA zone of the cron line, quiet hours, holidays, and of times written into files."""
    classes: tuple[str, ...] = ()
    """Encounter classes this channel carries; empty = all that the subscription wants."""
    triggers: tuple[str, ...] = ()
    """Triggers this channel carries; empty = all that the subscription wants."""
    template_major: int = 1
    """Major version of the format; a part of delivery ids."""
    template_from: datetime | None = None
    """Events before this instant keep ``template_major - 1``, so that a re-run does not send them again."""
    columns: tuple[str, ...] = ()
    """Columns in order, of :data:`COLUMNS`; empty = the minimum necessary set."""
    order: tuple[str, ...] = ()
    """Columns by which rows are sorted; empty = event_at, event_key."""
    names: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Column -> heading, where it differs."""
    date_format: str = "iso"
    """``iso`` or a strftime pattern for dates and instants."""
    null_text: str = ""
    """What stands for no value in text formats."""
    split: str = ""
    """One file per value of this column; empty = one file."""
    max_rows: int | None = None
    """Rows in a file at most; more rows make more batches."""
    empties: str = "manifest"
    """What an empty period sends: ``manifest``, ``file`` or ``nothing``."""
    encryption: str = "none"
    """``none``, ``pgp`` (with ``pgp_key``) or ``zip`` (AES-256, with the credential ``zip_password``)."""
    pgp_key: str | None = None
    """Path of the recipient's public key."""
    quiet_hours: tuple[str, str] | None = None
    """Local times ``("22:00", "06:00")`` between which nothing is sent; it waits."""
    holidays: tuple[date, ...] = ()
    """Local dates on which a cron line does not fire."""
    holiday_rule: str = "send"
    """``send``, ``shift`` (next working day) or ``skip`` (with the next window)."""
    ordered: bool = False
    """Keep order per patient: a later event waits until the earlier ones are acknowledged."""
    credentials: Mapping[str, Secret] = field(default_factory=dict, hash=False)
    """Of :data:`CREDENTIALS`, each by reference."""
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Transport and format options of :data:`OPTIONS`."""

    def wants(self, trigger: str, class_: str | None) -> bool:
        """Say whether this channel carries such an event."""
        return (not self.triggers or trigger in self.triggers) and (not self.classes or class_ in self.classes)

    def major_at(self, event_at: datetime) -> int:
        """Return the template's major version for an event of that instant."""
        before = self.template_from is not None and event_at < self.template_from
        return self.template_major - 1 if before else self.template_major


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one subscriber wants, from ``active_from`` up to but not including ``active_to``."""

    id: str
    """The subscriber: a practice, a clinician's inbox, a care manager."""
    channels: tuple[Channel, ...]
    """At least one."""
    npi: tuple[str, ...] = ()
    """Attributed NPIs that are this subscriber's."""
    tin: tuple[str, ...] = ()
    """Attributed tax ids that are this subscriber's."""
    org: tuple[str, ...] = ()
    """Attributed organisations (Organization.id or NPI) that are this subscriber's."""
    contacts: tuple[str, ...] = ()
    """Whom to call; never written into messages."""
    classes: tuple[str, ...] = ()
    """Encounter classes wanted; empty = all."""
    triggers: tuple[str, ...] = ()
    """Triggers wanted; empty = all. A correction of something delivered always goes out."""
    diagnoses: tuple[str, ...] = ()
    """Diagnosis code prefixes wanted; empty = all events."""
    age_min: int | None = None
    """Youngest age in years, at the event; needs persons in ``route``."""
    age_max: int | None = None
    """Oldest age in years, inclusive."""
    columns: tuple[str, ...] = ()
    """Minimum necessary: the most this subscriber may get; empty = the default set."""
    active_from: date = date.min
    """First day. Events before the first day of the subscriber's first subscription are held."""
    active_to: date = OPEN_DATE
    """First day after the last."""
    sensitivity_ceiling: str = "N"
    """Highest confidentiality admitted, of :data:`CEILINGS`."""
    sensitivities: tuple[str, ...] = ()
    """Sensitivity labels (ActCode: ETH, PSY, HIV, ...) the subscriber's agreement admits."""
    told_of_withheld: bool = False
    """Whether the agreement says that the recipient is told that something was withheld."""
    self_visits: bool = False
    """Send a facility its own visits too."""
    after_death: bool = True
    """Send events of people who had died before the event (late corrections, wrong matches)."""
    grace_days: int | None = None
    """Days for which an attribution that has ended still routes a late event; None = no limit."""
    late: str = "event_time"
    """Which attribution a late event takes: at the event's time, at delivery's, or both."""
    npi_shared: bool = False
    """Other subscribers may name the same NPIs, and each is told; otherwise such an NPI is ambiguous."""
    back_fill_days: int = 30
    """How far back a retroactive attribution is back-filled, flagged as catch-up."""
    version: str = ""
    """Hash of the preferences: a batch records the one it was sealed with."""

    @property
    def names(self) -> tuple[str, ...]:
        """What consent decisions may call the subscriber: id, NPIs, tax ids, organisations."""
        return tuple(dict.fromkeys((self.id, *self.npi, *self.tin, *self.org)))

    def active(self, on: date) -> bool:
        """Say whether the subscription is in force on that day."""
        return self.active_from <= on < self.active_to

    def channel(self, channel_id: str) -> Channel:
        """Return a channel by id.

        Raises:
            KeyError: There is none of that id.
        """
        for channel in self.channels:
            if channel.id == channel_id:
                return channel
        raise KeyError(channel_id)


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """Every subscription of one exchange, in the order of the file."""

    items: tuple[Subscription, ...]
    """All spans of all subscribers."""

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def version(self) -> str:
        """A hash of all preferences."""
        return hashlib.sha256("".join(item.version for item in self.items).encode()).hexdigest()

    def active(self, on: date) -> tuple[Subscription, ...]:
        """Return those in force on a day: at most one a subscriber."""
        return tuple(item for item in self.items if item.active(on))

    def get(self, subscriber_id: str, on: date | None = None) -> Subscription | None:
        """Return the subscriber's subscription in force on a day, or its last one when no day is given."""
        spans = [item for item in self.items if item.id == subscriber_id and (on is None or item.active(on))]
        return max(spans, key=lambda item: item.active_from) if spans else None


def load_subscriptions(source: str | Path | Iterable[Mapping[str, Any]]) -> Subscriptions:
    """Return validated subscriptions from a TOML file or from dictionaries.

    A file holds ``[[subscriptions]]`` tables and may hold ``[defaults]``, the keys of which apply to
    every channel that does not set them: one cadence and format for all. A subscription with one
    channel may write its keys beside its own (``channel = "sftp://…"``, ``format``, ``cadence``).

    Raises:
        ConfigError: A key is unknown (with the nearest known one), a value is not allowed, a secret
            is given by value, two channels share an id, or two spans of a subscriber overlap.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"the subscriptions cannot be read: {error.strerror}", where=str(path)) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"the subscriptions are not TOML: {error}", where=str(path)) from None
        reject_unknown(raw, ("subscriptions", "defaults"), where=str(path))
        return _subscriptions(raw.get("subscriptions", []), raw.get("defaults", {}), path.name, path.parent)
    return _subscriptions(list(source), {}, "subscriptions", None)


def reject_unknown(given: Iterable[str], known: Iterable[str], *, where: str) -> None:
    """Raise a ConfigError that names the first unknown key and the nearest known one."""
    known = list(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(sorted(known))}"
            raise ConfigError(f"unknown key '{key}'", where=where, hint=hint)


def _subscriptions(entries: Any, defaults: Mapping[str, Any], name: str, base: Path | None) -> Subscriptions:
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError("subscriptions must be a list of tables", where=name, hint="write [[subscriptions]]")
    reject_unknown(defaults, _CHANNEL_FIELDS, where=f"{name} [defaults]")
    items = tuple(_subscription(entry, defaults, f"{name} #{index}", base) for index, entry in enumerate(entries, 1))
    spans: dict[str, list[Subscription]] = {}
    for item in items:
        spans.setdefault(item.id, []).append(item)
    for subscriber, several in spans.items():
        ordered = sorted(several, key=lambda item: item.active_from)
        for before, after in itertools.pairwise(ordered):
            if after.active_from < before.active_to:
                raise ConfigError(
                    f"two subscriptions of '{subscriber}' are in force on {after.active_from}",
                    where=name,
                    hint="end the first with active_to, or give them different ids",
                )
    return Subscriptions(items)


def _subscription(entry: Mapping[str, Any], defaults: Mapping[str, Any], where: str, base: Path | None) -> Subscription:
    where = f"{where} ({entry['id']})" if isinstance(entry.get("id"), str) else where
    shorthand = "channel" in entry
    both = {"classes", "triggers", "columns", "id"}
    inline = _CHANNEL_FIELDS - both - {"url"} if shorthand else set()
    reject_unknown(entry, [*(_SUBSCRIPTION_FIELDS - {"version"}), *(inline | {"channel"})], where=where)
    if shorthand and "channels" in entry:
        raise ConfigError("both 'channel' and 'channels' are given", where=where, hint="keep one of them")
    if shorthand:
        channels: Any = [{"id": "default", "url": entry["channel"], **{k: v for k, v in entry.items() if k in inline}}]
    else:
        channels = entry.get("channels", [])
    if not isinstance(channels, list | tuple) or not channels:
        raise ConfigError(
            "a subscription needs at least one channel", where=where, hint="add [[subscriptions.channels]]"
        )
    built = tuple(_channel(channel, defaults, where, base) for channel in channels)
    twice = [key for key, count in Counter(channel.id for channel in built).items() if count > 1]
    if twice:
        raise ConfigError(f"two channels have the id '{twice[0]}'", where=where)
    own = {key: value for key, value in entry.items() if key in _SUBSCRIPTION_FIELDS and key != "channels"}
    values = {key: _value(key, value, _SUBSCRIPTION_RULES, where) for key, value in own.items()}
    _required(values, ("id",), where)
    result = Subscription(channels=built, version=_version(own, built), **values)
    if not (result.npi or result.tin or result.org):
        raise ConfigError("the subscription names no one", where=where, hint="give npi, tin or org")
    if result.active_from >= result.active_to:
        raise ConfigError("active_from is not before active_to", where=where)
    return result


def _channel(given: Any, defaults: Mapping[str, Any], where: str, base: Path | None) -> Channel:
    if not isinstance(given, Mapping):
        raise ConfigError("a channel must be a table", where=where)
    where = f"{where} channel {given.get('id', '?')}"
    reject_unknown(given, _CHANNEL_FIELDS, where=where)
    merged = {**defaults, **given}
    values = {key: _value(key, value, _CHANNEL_RULES, where) for key, value in merged.items()}
    values["credentials"] = {
        key: Secret(reference, base=base) for key, reference in values.get("credentials", {}).items()
    }
    _required(values, ("id", "url"), where)
    channel = Channel(**values)
    if channel.encryption == "pgp" and not channel.pgp_key:
        raise ConfigError("encryption is pgp but pgp_key is not given", where=where, hint="give the public key's path")
    if channel.encryption == "zip" and "zip_password" not in channel.credentials:
        raise ConfigError(
            "encryption is zip but no password is given",
            where=where,
            hint='give credentials = { zip_password = "env:NAME" }',
        )
    if channel.holiday_rule == "send" and channel.holidays:
        raise ConfigError("holidays are given but holiday_rule is 'send'", where=where, hint="choose shift or skip")
    return channel


def _version(own: Mapping[str, Any], channels: tuple[Channel, ...]) -> str:
    shown = [
        {
            item.name: str(value) if isinstance(value, Mapping) else value
            for item in fields(Channel)
            for value in [getattr(channel, item.name)]
        }
        for channel in channels
    ]
    text = msgspec.json.encode([{key: own[key] for key in sorted(own)}, shown], enc_hook=str)
    return hashlib.sha256(text).hexdigest()


def _required(values: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    for key in keys:
        if not values.get(key):
            raise ConfigError(f"'{key}' is missing", where=where)


def _value(key: str, value: Any, rules: Mapping[str, Callable[[Any], Any]], where: str) -> Any:
    try:
        return rules[key](value)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error.what}", where=where, hint=error.hint, code=error.code) from None


_CHANNEL_RULES: dict[str, Callable[[Any], Any]] = {
    "id": rule.identifier,
    "url": rule.address,
    "format": rule.one_of(*FORMATS),
    "cadence": rule.cadence,
    "zone": rule.zone,
    "classes": rule.some_of(*CLASSES),
    "triggers": rule.some_of(*TRIGGERS),
    "template_major": rule.count(1),
    "template_from": rule.instant,
    "columns": rule.some_of(*COLUMNS),
    "order": rule.some_of(*COLUMNS),
    "names": rule.mapping(*COLUMNS),
    "date_format": rule.filled,
    "null_text": rule.any_text,
    "split": rule.one_of(*SPLITS),
    "max_rows": rule.count(1),
    "empties": rule.one_of(*EMPTIES),
    "encryption": rule.one_of(*ENCRYPTIONS),
    "pgp_key": rule.filled,
    "quiet_hours": rule.quiet,
    "holidays": rule.days,
    "holiday_rule": rule.one_of(*HOLIDAY_RULES),
    "ordered": rule.flag,
    "credentials": rule.mapping(*CREDENTIALS),
    "options": rule.mapping(*OPTIONS),
}
_SUBSCRIPTION_RULES: dict[str, Callable[[Any], Any]] = {
    "id": rule.identifier,
    "npi": rule.npis,
    "tin": rule.tins,
    "org": rule.texts,
    "contacts": rule.texts,
    "classes": rule.some_of(*CLASSES),
    "triggers": rule.some_of(*TRIGGERS),
    "diagnoses": rule.texts,
    "age_min": rule.count(0),
    "age_max": rule.count(0),
    "columns": rule.some_of(*COLUMNS),
    "active_from": rule.day,
    "active_to": rule.day,
    "sensitivity_ceiling": rule.one_of(*CEILINGS),
    "sensitivities": rule.texts,
    "told_of_withheld": rule.flag,
    "self_visits": rule.flag,
    "after_death": rule.flag,
    "grace_days": rule.count(0),
    "late": rule.one_of(*LATE_POLICIES),
    "npi_shared": rule.flag,
    "back_fill_days": rule.count(0),
}
_CHANNEL_FIELDS = {item.name for item in fields(Channel)}
_SUBSCRIPTION_FIELDS = {item.name for item in fields(Subscription)}
