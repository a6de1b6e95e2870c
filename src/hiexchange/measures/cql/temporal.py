"""Date, DateTime and Time with CQL's precision, and the uncertainty that missing precision leaves.

A value is a tuple of components down to its precision, already shifted to the evaluation's offset:
comparing two of them is comparing tuples. Seconds and milliseconds are one component for comparison
(CQL 1.5, 09-b, section 9: "combined as a single precision using a decimal"), so a value with
seconds carries its zero milliseconds in the tuple.

Source: CQL 1.5, Appendix B, sections 5 and 8 ("Date and Time Operators", "Uncertainty").
"""

from __future__ import annotations

import calendar
import re
from datetime import date
from functools import lru_cache
from typing import Any

YEAR, MONTH, DAY, HOUR, MINUTE, SECOND, MILLISECOND = range(1, 8)
PRECISIONS = {
    "Year": YEAR,
    "Month": MONTH,
    "Week": DAY,
    "Day": DAY,
    "Hour": HOUR,
    "Minute": MINUTE,
    "Second": SECOND,
    "Millisecond": MILLISECOND,
}
NAMES = {YEAR: "year", MONTH: "month", DAY: "day", HOUR: "hour", MINUTE: "minute", SECOND: "second", MILLISECOND: "ms"}
DAY_MS = 86_400_000
UNIT_MS = {DAY: DAY_MS, HOUR: 3_600_000, MINUTE: 60_000, SECOND: 1_000, MILLISECOND: 1}
_LAST = date.max.toordinal()
_LOW = (1, 1, 1, 0, 0, 0, 0)
_HIGH = (9999, 12, 31, 23, 59, 59, 999)


class Temporal:
    """A point in time known to some precision; immutable."""

    __slots__ = ("key", "offset", "precision")

    def __init__(self, key: tuple[int, ...], precision: int, offset: int | None = None) -> None:
        """Keep components down to ``precision`` (1 year ... 7 millisecond); see :func:`make`."""
        self.key = key
        self.precision = precision
        self.offset = offset

    def __repr__(self) -> str:
        return f"{type(self).__name__}({text(self)})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.key == self.key and other.precision == self.precision

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.precision, self.offset)


class Date(Temporal):
    """A calendar date to year, month or day."""

    __slots__ = ()


class DateTime(Temporal):
    """An instant, or a year, month, day, hour ... of it, in the evaluation's offset (minutes)."""

    __slots__ = ()


class Time(Temporal):
    """A time of day; its tuple starts with three zeros so that all three classes compare alike."""

    __slots__ = ()


class Uncertainty:
    """An integer known only to lie in ``low`` to ``high``, both inclusive."""

    __slots__ = ("high", "low")

    def __init__(self, low: int, high: int) -> None:
        """Keep both ends."""
        self.low = low
        self.high = high

    def __repr__(self) -> str:
        return f"Uncertainty({self.low}, {self.high})"


MIN_DATE, MAX_DATE = Date(_LOW[:3], DAY), Date(_HIGH[:3], DAY)
MIN_DATETIME, MAX_DATETIME = DateTime(_LOW, MILLISECOND, 0), DateTime(_HIGH, MILLISECOND, 0)
MIN_TIME, MAX_TIME = Time((0, 0, 0, 0, 0, 0, 0), MILLISECOND), Time((0, 0, 0, 23, 59, 59, 999), MILLISECOND)

_TEXT = re.compile(
    r"^(\d{4})(?:-(\d\d)(?:-(\d\d))?)?"
    r"(?:T(?:(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?)?(Z|[+-]\d\d:?\d\d)?)?$"
)
_TIME_TEXT = re.compile(r"^T?(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?(?:Z|[+-]\d\d:?\d\d)?$")


def make(kind: type[Temporal], parts: list[int], offset: int | None = None, *, evaluation: int = 0) -> Any:
    """Return a value of ``kind`` from components given in ``offset`` minutes, or None if out of range.

    A DateTime with at least hours is shifted to the ``evaluation`` offset (minutes).
    """
    precision = len(parts) + 3 if kind is Time else len(parts)
    full = [0, 0, 0, *parts] if kind is Time else list(parts)
    if precision == SECOND:
        full.append(0)
    if not _valid(full, kind):
        return None
    if kind is DateTime and precision >= HOUR and offset is not None and offset != evaluation:
        padded = full + list(_LOW[len(full) :])
        moved = _from_ms(_to_ms(padded) + (evaluation - offset) * 60_000)
        if moved is None:
            return None
        full = list(moved[: len(full)])
    return kind(tuple(full), precision, evaluation if kind is DateTime else None)


def _valid(parts: list[int], kind: type[Temporal]) -> bool:
    if kind is not Time:
        year, month, day = (*parts[:3], *_LOW[len(parts[:3]) : 3])
        if not (1 <= year <= 9999 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]):
            return False
    limits = (24, 60, 60, 1000)
    return all(0 <= part < limit for part, limit in zip(parts[3:], limits, strict=False))


@lru_cache(maxsize=20_000)
def parse_datetime(text: str, evaluation: int = 0) -> DateTime | None:
    """Return the DateTime written in ISO 8601, to its precision; None when it is not one."""
    match = _TEXT.match(text)
    if match is None:
        return None
    offset = _offset(match[8])
    value = make(DateTime, _parts(match.groups()[:7]), evaluation if offset is None else offset, evaluation=evaluation)
    assert value is None or isinstance(value, DateTime)
    return value


@lru_cache(maxsize=20_000)
def parse_date(text: str) -> Date | None:
    """Return the Date written in ISO 8601; a time part is cut off; None when it is not one."""
    match = _TEXT.match(text)
    value = None if match is None else make(Date, _parts(match.groups()[:3]))
    assert value is None or isinstance(value, Date)
    return value


def parse_time(text: str) -> Time | None:
    """Return the Time written in ISO 8601; None when it is not one."""
    match = _TIME_TEXT.match(text)
    value = None if match is None else make(Time, _parts(match.groups()[:4]))
    assert value is None or isinstance(value, Time)
    return value


def _parts(groups: tuple[str | None, ...]) -> list[int]:
    parts: list[int] = []
    for index, group in enumerate(groups):
        if group is None:
            break
        # Fractions of a second come with any number of digits; the third is the last CQL knows.
        fraction = index == len(groups) - 1 and len(groups) in (4, 7)
        parts.append(int(group[:3].ljust(3, "0")) if fraction else int(group))
    return parts


def _offset(text: str | None) -> int | None:
    if text is None:
        return None
    if text == "Z":
        return 0
    digits = text[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return -minutes if text[0] == "-" else minutes


def text(value: Temporal) -> str:
    """Return the value in ISO 8601, to its precision."""
    key = value.key
    day = "-".join(f"{part:0{4 if index == 0 else 2}d}" for index, part in enumerate(key[:3]))
    clock = key[3 : value.precision if value.precision != MILLISECOND else SECOND]
    time = ":".join(f"{part:02d}" for part in clock)
    if value.precision == MILLISECOND:
        time += f".{key[6]:03d}"
    if isinstance(value, Time):
        return time
    if isinstance(value, Date):
        return day
    if not time:
        return day
    minutes = value.offset or 0
    sign = "-" if minutes < 0 else "+"
    return f"{day}T{time}" + ("Z" if minutes == 0 else f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}")


def as_datetime(value: Temporal) -> DateTime:
    """Promote a Date to a DateTime of the same precision: no time is invented."""
    return value if isinstance(value, DateTime) else DateTime(value.key, value.precision, 0)


def as_date(value: Temporal) -> Date:
    """Return the date part, in the evaluation's offset."""
    return value if isinstance(value, Date) else Date(value.key[:3], min(value.precision, DAY))


def truncate(value: Temporal, precision: int) -> Temporal:
    """Cut the value to a precision no finer than its own."""
    if value.precision <= precision:
        return value
    key = value.key[:precision] if precision != SECOND else (*value.key[:SECOND], 0)
    return type(value)(key, precision, value.offset)


def compare(a: Temporal, b: Temporal) -> int | None:
    """Return -1, 0 or 1; None when the shorter one leaves it open."""
    x, y = a.key, b.key
    if len(x) == len(y):
        return (x > y) - (x < y)
    n = min(len(x), len(y))
    p, q = x[:n], y[:n]
    if p == q:
        return None
    return 1 if p > q else -1


def compare_to(a: Temporal, b: Temporal, precision: int) -> int | None:
    """Return -1, 0 or 1 looking no further than ``precision``; None when a side lacks it."""
    x, y = a.key[:precision], b.key[:precision]
    n = min(len(x), len(y))
    if n < precision:
        p, q = x[:n], y[:n]
        return None if p == q else (1 if p > q else -1)
    return (x > y) - (x < y)


def low(value: Temporal) -> Temporal:
    """Return the earliest instant the value may be."""
    if len(value.key) == _length(value):
        return value
    return type(value)(value.key + _LOW[len(value.key) : _length(value)], _finest(value), value.offset)


def high(value: Temporal) -> Temporal:
    """Return the latest instant the value may be."""
    if len(value.key) == _length(value):
        return value
    key = list(value.key + _HIGH[len(value.key) : _length(value)])
    if value.precision < DAY and not isinstance(value, Time):
        key[2] = calendar.monthrange(key[0], key[1])[1]
    return type(value)(tuple(key), _finest(value), value.offset)


def _length(value: Temporal) -> int:
    return 3 if isinstance(value, Date) else 7


def _finest(value: Temporal) -> int:
    return DAY if isinstance(value, Date) else MILLISECOND


def _to_ms(key: tuple[int, ...] | list[int]) -> int:
    year, month, day, hour, minute, second, ms = tuple(key) + _LOW[len(key) :]
    days = date(year, month, day).toordinal() if year else 0
    return ((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + ms


def _from_ms(ms: int) -> tuple[int, ...] | None:
    days, rest = divmod(ms, DAY_MS)
    if not 1 <= days <= _LAST:
        return None
    day = date.fromordinal(days)
    seconds, milliseconds = divmod(rest, 1000)
    return (day.year, day.month, day.day, seconds // 3600, seconds // 60 % 60, seconds % 60, milliseconds)


# How many of the coarser unit one of the finer makes up when a quantity is cut to a coarse operand.
_PER = {(MONTH, YEAR): 12, (DAY, MONTH): 30, (DAY, YEAR): 365}


def add(value: Temporal, amount: int, unit: int, *, weeks: bool = False) -> Any:
    """Return ``value`` plus ``amount`` units, or None beyond the years 1 to 9999.

    Years and months clamp to the last day of the month. A unit finer than the value's precision is
    turned into whole units of that precision first (CQL: "converted and truncated").
    """
    if weeks:
        amount *= 7
    if isinstance(value, Time):
        return _add_time(value, amount, unit)
    if unit > value.precision:
        amount, unit = _coarser(amount, unit, value.precision)
    key = list(value.key)
    if unit == YEAR:
        key[0] += amount
    elif unit == MONTH:
        months = key[0] * 12 + key[1] - 1 + amount
        key[0], key[1] = months // 12, months % 12 + 1
    elif unit == DAY:
        ordinal = date(*key[:3]).toordinal() + amount
        if not 1 <= ordinal <= _LAST:
            return None
        day = date.fromordinal(ordinal)
        return type(value)((day.year, day.month, day.day, *key[3:]), value.precision, value.offset)
    else:
        ms = _to_ms(key) + amount * UNIT_MS[unit]
        moved = _from_ms(ms)
        return None if moved is None else type(value)(moved[: len(key)], value.precision, value.offset)
    if not 1 <= key[0] <= 9999:
        return None
    if len(key) > 2:
        key[2] = min(key[2], calendar.monthrange(key[0], key[1])[1])
    return type(value)(tuple(key), value.precision, value.offset)


def _coarser(amount: int, unit: int, precision: int) -> tuple[int, int]:
    size = abs(amount)
    if unit > DAY:
        size = size * UNIT_MS[unit] // UNIT_MS[max(precision, DAY)]
        unit = max(precision, DAY)
    if unit > precision:
        size //= _PER[unit, precision]
    return (size if amount >= 0 else -size), precision


def _add_time(value: Time, amount: int, unit: int) -> Any:
    if unit < HOUR:
        return None
    if unit > value.precision:
        size = abs(amount) * UNIT_MS[unit] // UNIT_MS[value.precision]
        amount, unit = (size if amount >= 0 else -size), value.precision
    # A clock goes round: 23:20 plus two hours is 01:20 (as the reference engine has it).
    ms = (_to_ms(value.key) + amount * UNIT_MS[unit]) % DAY_MS
    seconds, milliseconds = divmod(ms, 1000)
    full = (0, 0, 0, seconds // 3600, seconds // 60 % 60, seconds % 60, milliseconds)
    return Time(full[: len(value.key)], value.precision)


def successor(value: Temporal) -> Any:
    """Return the next value of the same precision; None after the last."""
    key = value.key
    if value.precision == MILLISECOND and key[6] < 999:
        return type(value)((*key[:6], key[6] + 1), MILLISECOND, value.offset)
    moved = add(value, 1, value.precision)
    # A clock goes round when hours are added, but nothing comes after its last point.
    return None if isinstance(value, Time) and moved.key < key else moved


def predecessor(value: Temporal) -> Any:
    """Return the value before, of the same precision; None before the first."""
    key = value.key
    if value.precision == MILLISECOND and key[6] > 0:
        return type(value)((*key[:6], key[6] - 1), MILLISECOND, value.offset)
    moved = add(value, -1, value.precision)
    return None if isinstance(value, Time) and moved.key > key else moved


def duration(a: Temporal, b: Temporal, unit: int, *, weeks: bool = False) -> int | Uncertainty:
    """Return the whole units from ``a`` to ``b``; an Uncertainty when the components missing from one decide.

    Whether the last year is whole hangs on the month, day and time, so they count as unknown where they are missing.
    """
    return _spread(a, b, MILLISECOND, lambda x, y: _whole(x, y, unit, weeks))


def difference(a: Temporal, b: Temporal, unit: int, *, weeks: bool = False) -> int | Uncertainty:
    """Return the unit boundaries between ``a`` and ``b``; an Uncertainty when one lacks the unit's precision."""
    return _spread(a, b, unit, lambda x, y: _boundaries(x, y, unit, weeks))


def _spread(a: Temporal, b: Temporal, needed: int, measure: Any) -> int | Uncertainty:
    first_low, first_high = (low(a), high(a)) if a.precision < needed else (low(a), low(a))
    second_low, second_high = (low(b), high(b)) if b.precision < needed else (low(b), low(b))
    least, most = measure(first_high.key, second_low.key), measure(first_low.key, second_high.key)
    return int(least) if least == most else Uncertainty(least, most)


def _whole(a: tuple[int, ...], b: tuple[int, ...], unit: int, weeks: bool) -> int:
    if unit <= MONTH:
        months = (b[0] - a[0]) * 12 + b[1] - a[1]
        # The last month counts only once its day and time are reached again.
        if months > 0 and b[2:] < a[2:]:
            months -= 1
        elif months < 0 and b[2:] > a[2:]:
            months += 1
        return int(months / 12) if unit == YEAR else months
    size = UNIT_MS[unit] * (7 if weeks else 1)
    ms = _to_ms(b) - _to_ms(a)
    return ms // size if ms >= 0 else -(-ms // size)


def _boundaries(a: tuple[int, ...], b: tuple[int, ...], unit: int, weeks: bool) -> int:
    if unit == YEAR:
        return b[0] - a[0]
    if unit == MONTH:
        return (b[0] - a[0]) * 12 + b[1] - a[1]
    # Weeks start on Sunday, whose ordinals are the multiples of seven.
    size = UNIT_MS[unit] * (7 if weeks else 1)
    return _to_ms(b) // size - _to_ms(a) // size
