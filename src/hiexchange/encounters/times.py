"""Times as senders write them: FHIR dateTime and HL7 DTM, with or without an offset.

A time without an offset takes the facility's zone and says so in a flag; times that do not exist
(spring) or exist twice (autumn) are resolved the same way always, and flagged. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hiexchange.errors import ConfigError

ANY = "*"
"""Key of the zone map that holds the zone of facilities not named."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One time of one message."""

    at: datetime
    """UTC."""
    text: str
    """As sent."""
    on: date
    """Local date at the facility: the day that attribution is looked up."""
    flags: tuple[str, ...] = ()
    """``naive_time``, ``date_only``, ``dst_gap``, ``dst_overlap``."""


class Zones:
    """Which IANA zone a facility is in."""

    def __init__(self, zones: Mapping[str, str] | None = None) -> None:
        """Check the zones; the key ``*`` stands for every facility not named.

        Raises:
            ConfigError: A zone is not in the IANA database.
        """
        self._zones = {facility: _zone(name) for facility, name in (zones or {}).items()}
        self._default = self._zones.get(ANY)

    def of(self, facility_id: str | None) -> ZoneInfo | None:
        """Return the facility's zone, or None when nothing is known about it."""
        return self._zones.get(facility_id or "", self._default)


def parse_fhir(text: str | None, zone: ZoneInfo | None) -> Moment | None:
    """Return the moment of a FHIR date or dateTime, or None when it is absent or not one.

    A partial date (``2026``, ``2026-03``) is not a moment.
    """
    if not text or len(text) < 10:
        return None
    if len(text) == 10:
        try:
            return _local(datetime.fromisoformat(text), text, zone, ("date_only",))
        except ValueError:
            return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return _moment(parsed, text, zone)


@lru_cache(maxsize=65536)
def parse_dtm(text: str, zone: ZoneInfo | None) -> Moment | None:
    """Return the moment of an HL7 DTM (``YYYYMMDD[HHMM[SS[.S…]]][+/-ZZZZ]``), or None when it is not one.

    Source: HL7 v2.8.2 chapter 2A, DTM. A precision of a month or a year is not a moment.
    """
    body, offset = _split_offset(text.strip())
    digits, _, fraction = body.partition(".")
    if not digits.isascii() or not digits.isdigit() or len(digits) not in (8, 10, 12, 14):
        return None
    if fraction and not (fraction.isascii() and fraction.isdigit()):
        return None
    try:
        parsed = datetime(
            int(digits[:4]),
            int(digits[4:6]),
            int(digits[6:8]),
            int(digits[8:10] or 0),
            int(digits[10:12] or 0),
            int(digits[12:14] or 0),
            int((fraction + "000000")[:6]),
            tzinfo=_offset(offset) if offset else None,
        )
    except ValueError:
        return None
    if len(digits) == 8:
        return _local(parsed.replace(tzinfo=None), text, zone, ("date_only",))
    return _moment(parsed, text, zone)


def _moment(parsed: datetime, text: str, zone: ZoneInfo | None) -> Moment | None:
    if parsed.tzinfo is None:
        return _local(parsed, text, zone, ("naive_time",))
    try:
        at = parsed.astimezone(UTC)
        # An event stamped in UTC belongs to the day the facility's wall calendar showed.
        on = at.astimezone(zone).date() if zone else parsed.date()
    except OverflowError:
        return None
    return Moment(at, text, on)


def _local(parsed: datetime, text: str, zone: ZoneInfo | None, flags: tuple[str, ...]) -> Moment | None:
    if zone is None:
        return Moment(parsed.replace(tzinfo=UTC), text, parsed.date(), flags)
    aware = parsed.replace(tzinfo=zone)
    try:
        at = aware.astimezone(UTC)
        if flags != ("date_only",):
            if at.astimezone(zone).replace(tzinfo=None) != parsed:
                flags = (*flags, "dst_gap")
            elif aware.utcoffset() != aware.replace(fold=1).utcoffset():
                flags = (*flags, "dst_overlap")
    except OverflowError:
        return None
    return Moment(at, text, parsed.date(), flags)


def _split_offset(text: str) -> tuple[str, str]:
    for index in range(8, len(text)):
        if text[index] in "+-":
            return text[:index], text[index:]
    return text, ""


def _offset(text: str) -> timezone:
    if len(text) != 5 or not text[1:].isdigit() or int(text[3:5]) > 59:
        raise ValueError("no offset")
    size = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    return timezone(size if text[0] == "+" else -size)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"'{name}' is no IANA time zone", hint='write for example "America/Chicago"') from None
