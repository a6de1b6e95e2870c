"""Rules of subscription values: each takes a value as written and returns it in its field's type, or refuses it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hiexchange.errors import ConfigError

SCHEMES = ("", "file", "sftp", "https", "http", "mllp", "mllps", "s3")


def filled(value: Any) -> str:
    """Return a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError("must be a text that is not empty")
    return value


def any_text(value: Any) -> str:
    """Return any text."""
    if not isinstance(value, str):
        raise ConfigError("must be a text")
    return value


def identifier(value: Any) -> str:
    """Return an id that may become part of file names and MSH fields."""
    text = filled(value)
    # Ids become file names and MSH fields.
    if not all(char.isascii() and (char.isalnum() or char in "-_.") for char in text) or len(text) > 64:
        raise ConfigError("may hold letters, digits, '-', '_' and '.', 64 at most")
    return text


def texts(value: Any) -> tuple[str, ...]:
    """Return a list of texts; one text is a list of one."""
    if isinstance(value, str):
        return (filled(value),)
    if not isinstance(value, list | tuple):
        raise ConfigError("must be a list of texts")
    return tuple(filled(item) for item in value)


def one_of(*allowed: str) -> Callable[[Any], str]:
    """Return a rule that takes one of the allowed words."""

    def rule(value: Any) -> str:
        text = any_text(value)
        if text not in allowed:
            near = difflib.get_close_matches(text, allowed, n=1)
            shown = ", ".join(item or "''" for item in allowed)
            raise ConfigError(
                f"'{text}' is not allowed", hint=f"did you mean '{near[0]}'?" if near else f"one of {shown}"
            )
        return text

    return rule


def some_of(*allowed: str) -> Callable[[Any], tuple[str, ...]]:
    """Return a rule that takes a list of allowed words."""
    one = one_of(*allowed)
    return lambda value: tuple(one(item) for item in texts(value))


def mapping(*allowed: str) -> Callable[[Any], dict[str, str]]:
    """Return a rule that takes a table with allowed keys."""

    def rule(value: Any) -> dict[str, str]:
        if not isinstance(value, Mapping):
            raise ConfigError("must be a table")
        one = one_of(*allowed)
        return {one(key): as_text(item) for key, item in value.items()}

    return rule


def as_text(value: Any) -> str:
    """Return a text; booleans as true or false."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return any_text(value)


def count(least: int) -> Callable[[Any], int]:
    """Return a rule that takes whole numbers from a least one on."""

    def rule(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"must be a whole number of at least {least}")
        return value

    return rule


def flag(value: Any) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise ConfigError("must be true or false")
    return value


def day(value: Any) -> date:
    """Return a date."""
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ConfigError("is not a date", hint="write 2026-01-31") from None
    if isinstance(value, datetime) or not isinstance(value, date):
        raise ConfigError("must be a date", hint="write 2026-01-31")
    return value


def days(value: Any) -> tuple[date, ...]:
    """Return a list of dates."""
    if not isinstance(value, list | tuple):
        raise ConfigError("must be a list of dates")
    return tuple(day(item) for item in value)


def instant(value: Any) -> datetime:
    """Return an instant with an offset, in UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ConfigError("is not an instant", hint="write 2026-01-31T06:00:00Z") from None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ConfigError("must be an instant with an offset", hint="write 2026-01-31T06:00:00Z")
    return value.astimezone(UTC)


def zone(value: Any) -> str:
    """Return the name of an IANA time zone."""
    text = filled(value)
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"'{text}' is no IANA time zone", hint='write for example "America/Chicago"') from None
    return text


def cadence(value: Any) -> str:
    """Return a cadence in its plain form."""
    text = " ".join(filled(value).split())
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


def address(value: Any) -> str:
    """Return a destination without a password in it."""
    text = filled(value)
    parts = urlsplit(text)
    if parts.password:
        raise ConfigError("holds a password", hint='use credentials = { password = "env:NAME" }', code="HX-202")
    if "://" in text and parts.scheme not in SCHEMES:
        raise ConfigError(f"'{parts.scheme}' is no transport", hint="a folder, sftp://, https://, mllp:// or s3://")
    loopback = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if parts.scheme == "http" and not loopback:
        raise ConfigError("http:// would send patient data in the clear", hint="use https://")
    return text


def quiet(value: Any) -> tuple[str, str]:
    """Return two local times."""
    pair = texts(value)
    if len(pair) != 2:
        raise ConfigError('must be two local times, ["22:00", "06:00"]')
    for text in pair:
        try:
            datetime.strptime(text, "%H:%M")
        except ValueError:
            raise ConfigError(f"'{text}' is no time of day", hint="write 22:00") from None
    return (pair[0], pair[1])


def npis(value: Any) -> tuple[str, ...]:
    """Return NPIs, as texts of ten digits."""
    for text in texts(value):
        if len(text) != 10 or not text.isdigit():
            raise ConfigError(f"'{text}' is no NPI", hint="ten digits, as a text")
    return texts(value)


def tins(value: Any) -> tuple[str, ...]:
    """Return tax ids, as nine digits."""
    tins = tuple(text.replace("-", "") for text in texts(value))
    for text in tins:
        if len(text) != 9 or not text.isdigit():
            raise ConfigError("holds something that is no tax id", hint="nine digits, as a text")
    return tins
