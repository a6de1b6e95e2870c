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
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from hiexchange.config import Secret
from hiexchange.errors import ConfigError
from hiexchange.tables import ENCOUNTER_EVENT, OPEN_DATE, PERSON

SCHEMES = ("", "file", "sftp", "https", "http", "mllp", "mllps", "s3")
FORMATS = ("csv", "tsv", "pipe", "xlsx", "parquet", "ndjson", "fhir", "hl7v2")
EMPTIES = ("manifest", "file", "nothing")
ENCRYPTIONS = ("none", "pgp")
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
    """``none`` or ``pgp``."""
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
    """First day."""
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


# Rules: one value -> the same value in the type of the field, or a ConfigError --------------------


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError("must be a text that is not empty")
    return value


def _any_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError("must be a text")
    return value


def _name(value: Any) -> str:
    text = _text(value)
    # Ids become file names and MSH fields.
    if not all(char.isascii() and (char.isalnum() or char in "-_.") for char in text) or len(text) > 64:
        raise ConfigError("may hold letters, digits, '-', '_' and '.', 64 at most")
    return text


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_text(value),)
    if not isinstance(value, list | tuple):
        raise ConfigError("must be a list of texts")
    return tuple(_text(item) for item in value)


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def rule(value: Any) -> str:
        text = _any_text(value)
        if text not in allowed:
            near = difflib.get_close_matches(text, allowed, n=1)
            shown = ", ".join(item or "''" for item in allowed)
            raise ConfigError(
                f"'{text}' is not allowed", hint=f"did you mean '{near[0]}'?" if near else f"one of {shown}"
            )
        return text

    return rule


def _some_of(*allowed: str) -> Callable[[Any], tuple[str, ...]]:
    one = _one_of(*allowed)
    return lambda value: tuple(one(item) for item in _texts(value))


def _mapping(*allowed: str) -> Callable[[Any], dict[str, str]]:
    def rule(value: Any) -> dict[str, str]:
        if not isinstance(value, Mapping):
            raise ConfigError("must be a table")
        one = _one_of(*allowed)
        return {one(key): _as_text(item) for key, item in value.items()}

    return rule


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _any_text(value)


def _count(least: int) -> Callable[[Any], int]:
    def rule(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"must be a whole number of at least {least}")
        return value

    return rule


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError("must be true or false")
    return value


def _day(value: Any) -> date:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ConfigError("is not a date", hint="write 2026-01-31") from None
    if isinstance(value, datetime) or not isinstance(value, date):
        raise ConfigError("must be a date", hint="write 2026-01-31")
    return value


def _days(value: Any) -> tuple[date, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError("must be a list of dates")
    return tuple(_day(item) for item in value)


def _instant(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ConfigError("is not an instant", hint="write 2026-01-31T06:00:00Z") from None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ConfigError("must be an instant with an offset", hint="write 2026-01-31T06:00:00Z")
    return value.astimezone(UTC)


def _zone(value: Any) -> str:
    text = _text(value)
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"'{text}' is no IANA time zone", hint='write for example "America/Chicago"') from None
    return text


def _cadence(value: Any) -> str:
    text = " ".join(_text(value).split())
    words = text.lower().split()
    if text.lower() in ("immediate", "on discharge"):
        return text.lower()
    if words[0] == "every":
        good = len(words) == 3 and words[1].isdigit() and int(words[1]) > 0 and words[2] in ("minute", "minutes")
        if not good:
            raise ConfigError(f"'{text}' is no cadence", hint='write "every 15 minutes"')
        return f"every {int(words[1])} minutes"
    from cronsim import CronSim, CronSimError

    try:
        CronSim(text, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError:
        raise ConfigError(
            f"'{text}' is no cadence", hint='"immediate", "every N minutes", "on discharge" or cron "0 6 * * *"'
        ) from None
    return text


def _url(value: Any) -> str:
    text = _text(value)
    parts = urlsplit(text)
    if parts.password:
        raise ConfigError("holds a password", hint='use credentials = { password = "env:NAME" }', code="HX-202")
    if "://" in text and parts.scheme not in SCHEMES:
        raise ConfigError(f"'{parts.scheme}' is no transport", hint="a folder, sftp://, https://, mllp:// or s3://")
    loopback = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if parts.scheme == "http" and not loopback:
        raise ConfigError("http:// would send patient data in the clear", hint="use https://")
    return text


def _quiet(value: Any) -> tuple[str, str]:
    pair = _texts(value)
    if len(pair) != 2:
        raise ConfigError('must be two local times, ["22:00", "06:00"]')
    for text in pair:
        try:
            datetime.strptime(text, "%H:%M")
        except ValueError:
            raise ConfigError(f"'{text}' is no time of day", hint="write 22:00") from None
    return (pair[0], pair[1])


def _npis(value: Any) -> tuple[str, ...]:
    for text in _texts(value):
        if len(text) != 10 or not text.isdigit():
            raise ConfigError(f"'{text}' is no NPI", hint="ten digits, as a text")
    return _texts(value)


def _tins(value: Any) -> tuple[str, ...]:
    tins = tuple(text.replace("-", "") for text in _texts(value))
    for text in tins:
        if len(text) != 9 or not text.isdigit():
            raise ConfigError("holds something that is no tax id", hint="nine digits, as a text")
    return tins


_CHANNEL_RULES: dict[str, Callable[[Any], Any]] = {
    "id": _name,
    "url": _url,
    "format": _one_of(*FORMATS),
    "cadence": _cadence,
    "zone": _zone,
    "classes": _some_of(*CLASSES),
    "triggers": _some_of(*TRIGGERS),
    "template_major": _count(1),
    "template_from": _instant,
    "columns": _some_of(*COLUMNS),
    "order": _some_of(*COLUMNS),
    "names": _mapping(*COLUMNS),
    "date_format": _text,
    "null_text": _any_text,
    "split": _one_of(*SPLITS),
    "max_rows": _count(1),
    "empties": _one_of(*EMPTIES),
    "encryption": _one_of(*ENCRYPTIONS),
    "pgp_key": _text,
    "quiet_hours": _quiet,
    "holidays": _days,
    "holiday_rule": _one_of(*HOLIDAY_RULES),
    "ordered": _flag,
    "credentials": _mapping(*CREDENTIALS),
    "options": _mapping(*OPTIONS),
}
_SUBSCRIPTION_RULES: dict[str, Callable[[Any], Any]] = {
    "id": _name,
    "npi": _npis,
    "tin": _tins,
    "org": _texts,
    "contacts": _texts,
    "classes": _some_of(*CLASSES),
    "triggers": _some_of(*TRIGGERS),
    "diagnoses": _texts,
    "age_min": _count(0),
    "age_max": _count(0),
    "columns": _some_of(*COLUMNS),
    "active_from": _day,
    "active_to": _day,
    "sensitivity_ceiling": _one_of(*CEILINGS),
    "sensitivities": _texts,
    "told_of_withheld": _flag,
    "self_visits": _flag,
    "after_death": _flag,
    "grace_days": _count(0),
    "late": _one_of(*LATE_POLICIES),
    "npi_shared": _flag,
    "back_fill_days": _count(0),
}
_CHANNEL_FIELDS = {item.name for item in fields(Channel)}
_SUBSCRIPTION_FIELDS = {item.name for item in fields(Subscription)}
