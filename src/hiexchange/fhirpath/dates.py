"""Dates, dateTimes and times as intervals, so that partial ones compare by precision.

A text becomes (start, end, precision) in microseconds; ``2020-03`` is the whole month. Work is done on
distinct texts only. Text without an offset is taken as UTC, as the lake does.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hiexchange.fhirpath.columns import Ints

YEAR, MONTH, DAY, HOUR, MINUTE, SECOND = range(1, 7)
"""Precisions. Seconds and milliseconds are one precision, as FHIRPath 6.2 says."""

DATETIME = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(?:(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?)?(Z|[+-]\d\d:\d\d)?)?)?)?T?\Z",
    re.ASCII,
)
TIME = re.compile(r"T?(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?\Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STEP = {DAY: 86_400_000_000, HOUR: 3_600_000_000, MINUTE: 60_000_000}


@dataclass(frozen=True, slots=True)
class Moments:
    """Intervals of many texts; ``valid`` is false where there is none or it is not a date."""

    start: Ints
    end: Ints
    """Exclusive."""
    precision: Ints
    valid: NDArray[np.bool_]


def moments(values: pa.Array, *, time: bool = False) -> Moments:
    """Return the interval of each text (``time``: times of day)."""
    encoded = pc.dictionary_encode(values)
    parsed = [_time(text) if time else _datetime(text) for text in encoded.dictionary.to_pylist()]
    known = np.array([found or (0, 0, 0) for found in parsed], dtype=np.int64).reshape(-1, 3)
    fine = np.array([found is not None for found in parsed], dtype=np.bool_)
    codes = encoded.indices
    valid = np.asarray(codes.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    index = np.asarray(codes.fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64)
    if len(known) == 0:
        known, fine = np.zeros((1, 3), np.int64), np.zeros(1, np.bool_)
    start, end, precision = known[index].T
    return Moments(start, end, precision, valid & fine[index])


def compare(operator: str, left: Moments, right: Moments) -> pa.Array:
    """Compare by precision: null where the precisions differ and the common part does not decide."""
    before, after = left.end <= right.start, right.end <= left.start
    same = left.precision == right.precision
    # With equal precision the starts decide; seconds may differ in their fractions, so ends do not.
    less, more = left.start < right.start, left.start > right.start
    known = left.valid & right.valid & (same | before | after)
    less, more = np.where(same, less, before), np.where(same, more, after)
    result = {"=": ~less & ~more, "!=": less | more, "<": less, "<=": ~more, ">": more, ">=": ~less}[operator]
    return pa.array(result, mask=~known)


def parse(text: str, *, time: bool = False) -> tuple[int, int, int] | None:
    """Return (start, end, precision) of one text, or None if it is no date."""
    return _time(text) if time else _datetime(text)


def _datetime(text: str | None) -> tuple[int, int, int] | None:
    match = DATETIME.match(text or "")
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    precision = sum(group is not None for group in (year, month, day, hour, minute, second))
    try:
        moment = datetime(
            int(year),
            int(month or 1),
            int(day or 1),
            int(hour or 0),
            int(minute or 0),
            min(int(second or 0), 59),
            tzinfo=UTC,
        )
    except ValueError:
        return None
    if hour == "24":
        return None
    start = (moment - _EPOCH) // _MICROSECOND - _offset(zone) + _fraction(fraction)
    return start, start + _width(moment, precision, fraction), precision


def _width(moment: datetime, precision: int, fraction: str | None) -> int:
    if precision == YEAR:
        return (366 if calendar.isleap(moment.year) else 365) * _STEP[DAY]
    if precision == MONTH:
        return calendar.monthrange(moment.year, moment.month)[1] * _STEP[DAY]
    return _STEP.get(precision, 1)


def _time(text: str | None) -> tuple[int, int, int] | None:
    match = TIME.match(text or "")
    if match is None:
        return None
    hour, minute, second, fraction = match.groups()
    if int(hour) > 23 or int(minute or 0) > 59 or int(second or 0) > 59:
        return None
    precision = 3 + sum(group is not None for group in (hour, minute, second))
    start = (int(hour) * 3600 + int(minute or 0) * 60 + int(second or 0)) * 1_000_000 + _fraction(fraction)
    return start, start + _STEP.get(precision, 1), precision


def _offset(zone: str | None) -> int:
    if zone in (None, "Z"):
        return 0
    assert zone is not None
    minutes = int(zone[1:3]) * 60 + int(zone[4:6])
    return (minutes if zone[0] == "+" else -minutes) * 60_000_000


def _fraction(digits: str | None) -> int:
    return int(digits[:6].ljust(6, "0")) if digits else 0


def moment_array(values: pa.Array) -> Any:
    """Return the start of each text as a UTC timestamp (microseconds), null where it is no date."""
    found = moments(values)
    return pa.array(found.start, mask=~found.valid).cast(pa.timestamp("us", tz="UTC"))
