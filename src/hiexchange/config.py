"""Settings and secrets: the only module that reads the environment.

One TOML file; flag > ``HIEXCHANGE_*`` > project file > user file > default. Constructors elsewhere
take everything as arguments; :func:`load` gives frozen :class:`Settings` from which ``pipeline``
builds objects. Secrets are references (``env:NAME`` or ``file:PATH``); a literal secret is refused.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from hiexchange.errors import ConfigError

USER_FILE = Path("~/.config/hiexchange/config.toml")


class Secret:
    """A secret by reference: ``env:NAME`` or ``file:PATH``. Never shows its value."""

    __slots__ = ("base", "reference")

    def __init__(self, reference: str, *, base: Path | None = None) -> None:
        """Keep the reference; ``base`` is the folder that a relative ``file:`` path starts from.

        Raises:
            ConfigError: The text is not a reference: it may be the secret itself, so it is not shown.
        """
        kind, _, rest = reference.partition(":")
        if kind not in ("env", "file") or not rest:
            raise ConfigError(
                "a secret must be given by reference, not by value",
                hint='write "env:NAME" or "file:PATH" and keep the value out of the configuration',
                code="HX-202",
            )
        self.reference = reference
        self.base = base

    def reveal(self) -> str:
        """Return the secret's text, without a trailing line end.

        Raises:
            ConfigError: The variable is not set, or the file cannot be read.
        """
        kind, _, rest = self.reference.partition(":")
        if kind == "env":
            value = os.environ.get(rest)
            if not value:
                raise ConfigError(f"the secret {self.reference} is not set", hint=f"export {rest}=…", code="HX-202")
            return value
        path = (self.base or Path()) / Path(rest).expanduser()
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the secret {self.reference} cannot be read: {type(error).__name__}",
                where=str(path),
                hint="check the path and its permissions",
                code="HX-202",
            ) from None

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"


class ExportSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[export]``: what to pull."""

    server: str = ""
    """Name of a ``[servers.NAME]``; empty where there is only one."""
    group: str | None = None
    """Id of the Group to export; absent = no group."""
    level: str | None = None
    """``system`` or ``Patient`` where there is no group; Patient where absent."""
    types: tuple[str, ...] = ()
    """Resource types; empty = all the server has."""
    since: str | None = None
    """FHIR instant; absent = the lake's watermark."""
    type_filters: tuple[str, ...] = ()
    """FHIR searches that narrow a type, such as ``Encounter?status=finished``."""
    max_bad_lines: int = 0
    """Lines that may be quarantined before the run fails with exit code 7; the others are stored."""


class CrosswalkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``crosswalk = { path = ..., layout = ... }``: previous and current ids, such as CCLF9."""

    path: str
    """The file as received."""
    layout: str = "cclf9"
    """Name of a shipped layout or path of a TOML file."""


class RosterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[[rosters]]``: a payer's file."""

    path: str
    """The file as received."""
    layout: str
    """Name of a shipped layout or path of a TOML file."""
    payer: str | None = None
    """The payer's id; outranks the layout's."""
    as_of: date | None = None
    """The day the file speaks of; absent = as the file declares it."""
    release: str | None = None
    """Name of the person who releases a file that the acceptance gate held."""
    crosswalk: CrosswalkSettings | None = None
    """Changed MBIs: the roster is brought to current ids before it is attributed."""


class MatchingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[matching]``: how members are found. People's decisions are taken from the lake."""

    weights: str | None = None
    """Weights file of ``hiexchange match train``; absent = the shipped ones."""


class EventSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[events]``: what happens to patients, beside the encounters of the lake."""

    adt: str | None = None
    """Folder or file of HL7 v2 ADT messages, such as the inbox of ``hiexchange listen``; absent = none."""
    zone: str | None = None
    """IANA zone of times that carry no offset; absent = they are taken as UTC, and flagged."""
    authorities: dict[str, tuple[str, ...]] = {}
    """Assigning authority -> the names its patient numbers go by: ``Identifier.system``, OID, PID-3.4; absent = each name is its own."""


class RoutingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[routing]``: the exchange's own rules, beside each subscriber's."""

    consents: str | None = None
    """CSV or NDJSON file of consent decisions, read again at every run; absent = none recorded."""
    consent_default: str = "permit"
    """What holds for a person without a decision: permit (opt-out exchange) or deny (opt-in exchange)."""
    stale_after_days: int | None = None
    """Hold what a roster older than this says; absent = rosters do not age."""
    zone: str | None = None
    """IANA zone at whose midnight consents, subscriptions and rosters begin and end; absent = that of ``[events]``, else UTC."""


class MeasureSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[[measures]]``."""

    id: str
    """Name of a native measure, or path of a bundle."""
    period: tuple[date, date]
    """First and last day, inclusive."""
    offset: str = "+00:00"
    """Offset from UTC in which calendar days are told apart, such as ``-06:00``."""

    @property
    def offset_delta(self) -> timedelta:
        """The offset as a timedelta.

        Raises:
            ConfigError: It is not written as ``+HH:MM``.
        """
        try:
            offset = datetime.fromisoformat(f"2000-01-01T00:00{self.offset}").utcoffset()
        except ValueError:
            offset = None
        if offset is None:
            raise ConfigError(f"measures: {self.offset!r} is no offset", hint='write it as "-06:00"')
        return offset


class FeedbackSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[feedback]``: what each payer gets back."""

    period: tuple[date, date]
    """First and last local day of events, inclusive."""
    format: str = "csv"
    """csv, tsv, ndjson or parquet."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration, frozen."""

    output: str = "out"
    """Folder of everything that is written: ``jobs/``, ``lake/``, ``outbox.sqlite``, ``inbox/``, ``report.html``."""
    lake: str | None = None
    """Folder of the lake; ``<output>/lake`` where absent."""
    known_at: str | None = None
    """FHIR instant that stands for now in rosters and routing; absent = the clock."""
    servers: dict[str, dict[str, Any]] = {}
    """Each ``[servers.NAME]``; its keys are checked by ``servers.build``."""
    export: ExportSettings = msgspec.field(default_factory=ExportSettings)
    """What to pull."""
    rosters: tuple[RosterSettings, ...] = ()
    """Payers' files, oldest first."""
    matching: MatchingSettings = msgspec.field(default_factory=MatchingSettings)
    """How members are found."""
    events: EventSettings = msgspec.field(default_factory=EventSettings)
    """What happens to patients, beside the encounters of the lake."""
    routing: RoutingSettings = msgspec.field(default_factory=RoutingSettings)
    """The exchange's own rules."""
    subscriptions: tuple[dict[str, Any], ...] = ()
    """Checked by ``routing.load_subscriptions``."""
    measures: tuple[MeasureSettings, ...] = ()
    """What to measure."""
    feedback: FeedbackSettings | None = None
    """What payers get back; absent = nothing."""
    base: str = "."
    """Folder that relative paths start from: that of the file."""

    def path(self, text: str) -> Path:
        """Return a path of the configuration, relative ones taken from :attr:`base`."""
        return Path(self.base) / Path(text).expanduser()


SECRET_KEYS = ("client_secret", "key", "token")


def load(path: str | Path, *, environ: Mapping[str, str] | None = None, user_file: Path | None = None) -> Settings:
    """Read a configuration file and what outranks it.

    Precedence: ``HIEXCHANGE_*`` (``__`` between levels, as in ``HIEXCHANGE_EXPORT__GROUP``), then the
    file, then the user's file ``~/.config/hiexchange/config.toml``, then defaults.

    Raises:
        ConfigError: The file is absent or no TOML, a key does not exist, a value has the wrong type,
            or a secret stands there literally.
    """
    file = Path(path)
    user = (user_file or USER_FILE).expanduser()
    merged: dict[str, Any] = _read(user) if user.is_file() else {}
    merged = _merge(merged, _read(file))
    merged = _merge(merged, _from_environment(os.environ if environ is None else environ))
    merged["base"] = str(file.resolve().parent)
    settings = parse(merged, name=file.name)
    _refuse_literal_secrets(settings, file.name)
    return settings


def parse(values: Mapping[str, Any], *, name: str = "configuration") -> Settings:
    """Return checked Settings from plain values.

    Raises:
        ConfigError: A key does not exist or a value has the wrong type; says where.
    """
    try:
        return msgspec.convert(dict(values), Settings)
    except msgspec.ValidationError as error:
        raise _explained(error, name) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "there is no such configuration file", where=str(path), hint="see examples/ in the documentation"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration cannot be read: {type(error).__name__}", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", where=str(path)) from None


def _merge(lower: dict[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(lower)
    for key, value in upper.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merge(result[key], value) if both else value
    return result


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    known = {field.name for field in msgspec.structs.fields(Settings)}
    for name, text in environ.items():
        keys = name.removeprefix("HIEXCHANGE_").lower().split("__")
        if not name.startswith("HIEXCHANGE_") or keys[0] not in known:
            continue
        place = values
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = tuple(text.split(",")) if keys[-1] in ("types", "type_filters") else text
    return values


def _explained(error: msgspec.ValidationError, name: str) -> ConfigError:
    text = str(error)
    unknown = re.search(r"unknown field `([^`]*)`(?: - at `\$\.?(.*)`)?", text)
    if not unknown:
        tables = re.search(r"^Expected `array`, got `object` - at `\$\.(\w+)`", text)
        hint = f"write [[{tables.group(1)}]], once for each" if tables else None
        return ConfigError(f"a setting has the wrong form: {text.replace('`$', '`')}", where=name, hint=hint)
    key, place = unknown.group(1), (unknown.group(2) or "").removesuffix("[...]")
    close = difflib.get_close_matches(key, _keys_at(place), n=1, cutoff=0.5)
    table = f" in [{place}]" if place else ""
    hint = f"did you mean `{close[0]}`?" if close else f"known keys: {', '.join(sorted(_keys_at(place)))}"
    return ConfigError(f"there is no setting `{key}`{table}", where=name, hint=hint)


def _keys_at(place: str) -> list[str]:
    sections: dict[str, type[msgspec.Struct]] = {
        "export": ExportSettings,
        "rosters": RosterSettings,
        "matching": MatchingSettings,
        "events": EventSettings,
        "routing": RoutingSettings,
        "measures": MeasureSettings,
        "feedback": FeedbackSettings,
    }
    section = sections.get(re.split(r"[.\[]", place)[0], Settings)
    return [field.name for field in msgspec.structs.fields(section)]


def _refuse_literal_secrets(settings: Settings, name: str) -> None:
    for server, values in settings.servers.items():
        for key in set(SECRET_KEYS) & set(values):
            try:
                Secret(str(values[key]))
            except ConfigError as error:
                error.where = f"{name} [servers.{server}] {key}"
                raise
