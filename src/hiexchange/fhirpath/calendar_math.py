"""Dates plus and minus quantities of time, keeping the text's precision and offset."""

from __future__ import annotations

import calendar
from datetime import date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import quantity
from hiexchange.fhirpath.columns import Part
from hiexchange.fhirpath.kinds import kind_of

_MONTHS = {"year": 12, "month": 1, "a": 12, "mo": 1}
_SECONDS: dict[str, Decimal | int] = {
    "week": 604800,
    "day": 86400,
    "hour": 3600,
    "minute": 60,
    "second": 1,
    "millisecond": Decimal("0.001"),
    "wk": 604800,
    "d": 86400,
    "h": 3600,
    "min": 60,
    "s": 1,
    "ms": Decimal("0.001"),
}
_FRACTIONAL = ("second", "millisecond", "s", "ms")
_DAY_S = 86400
_WHOLE = len("2020-01-01T00:00:00")
_STEP_S = {13: 3600, 16: 60}
"""Seconds that a dateTime of so many characters moves by: its hours or minutes."""


def shift(moment: Part, amount: Part, n: int, sign: int) -> tuple[pa.Array, str]:
    """Add (``sign`` 1) or subtract (-1) quantities of time; return text and the type of ``moment``.

    Raises:
        FHIRPathError: A unit is none of time.
    """
    time = kind_of(moment.type) == "Time"
    known: dict[tuple[str, str, str], str | None] = {}
    result: list[str | None] = []
    for text, item in zip(moment.array(n).to_pylist(), amount.array(n).to_pylist(), strict=True):
        if text is None or quantity.number(item) is None:
            result.append(None)
            continue
        key = (text, item["value"], quantity.unit_of(item))
        if key not in known:
            known[key] = _shift(text, sign * Decimal(key[1]), key[2], time)
        result.append(known[key])
    kind = kind_of(moment.type)
    return pa.array(result, pa.string()), f"System.{kind}"


def _shift(text: str, amount: Decimal, unit: str, time: bool) -> str | None:
    if unit not in _MONTHS and unit not in _SECONDS:
        raise FHIRPathError(f"{unit!r} is no unit of time")
    if unit not in _FRACTIONAL:
        amount = Decimal(int(amount))  # N1, 6.7: above seconds, the decimal portion is ignored
    try:
        if time:
            return _shift_time(text, amount, unit)
        return _shift_datetime(text, amount, unit) if "T" in text else _shift_date(text, amount, unit)
    except (ValueError, OverflowError):
        return None


def _shift_date(text: str, amount: Decimal, unit: str) -> str:
    year, month, day = (int(text[0:4]), int(text[5:7] or 1), int(text[8:10] or 1))
    if unit in _MONTHS:
        months = int(amount) * _MONTHS[unit]
        # A partial date moves by its own precision: 2020 + 13 months is 2021.
        moved = _add_months(date(year, month, day), int(Decimal(months) / 12) * 12 if len(text) == 4 else months)
    else:
        days = int(amount * _SECONDS[unit] / _DAY_S)
        if len(text) == 4:
            moved = _add_months(date(year, 1, 1), int(Decimal(days) / 365) * 12)
        elif len(text) == 7:
            moved = _add_months(date(year, month, 1), int(Decimal(days) / 30))
        else:
            moved = date(year, month, day) + timedelta(days=days)
    return moved.isoformat()[: len(text)]


def _shift_datetime(text: str, amount: Decimal, unit: str) -> str:
    body, zone = text, ""
    if text.endswith("Z"):
        body, zone = text[:-1], "Z"
    elif len(text) > 6 and text[-6] in "+-" and text[-3] == ":":
        body, zone = text[:-6], text[-6:]
    seconds, _, fraction = body.partition(".")
    fields = (seconds + "0000-01-01T00:00:00"[len(seconds) :])[:19]
    moment = datetime.fromisoformat(fields) + timedelta(microseconds=int((fraction or "0")[:6].ljust(6, "0")))
    if unit in _MONTHS:
        day = _add_months(moment.date(), int(amount) * _MONTHS[unit])
        moment = datetime.combine(day, moment.time())
    elif step := _STEP_S.get(len(seconds)):
        moment += timedelta(seconds=int(amount * _SECONDS[unit] / step) * step)
    else:
        moment += timedelta(microseconds=int(amount * _SECONDS[unit] * 1_000_000))
    if len(seconds) < _WHOLE:
        return moment.isoformat()[: len(seconds)] + zone
    # Seconds and milliseconds are one precision: digits that the sum needs are added.
    digits = max(len(fraction[:6]), len(f"{moment.microsecond:06}".rstrip("0")))
    return moment.isoformat(timespec="microseconds")[: _WHOLE + (digits and 1 + digits)] + zone


def _shift_time(text: str, amount: Decimal, unit: str) -> str | None:
    if unit in _MONTHS:
        return None
    stamp = _shift_datetime("2000-01-03T" + text, amount, unit)
    return stamp[11:]


def _add_months(day: date, months: int) -> date:
    index = day.year * 12 + day.month - 1 + months
    year, month = divmod(index, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))
