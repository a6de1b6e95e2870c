"""lowBoundary, highBoundary, precision: the ends of what a value of limited precision can mean.

Worked out on distinct values only. Source: SQL on FHIR v2 (experimental profile) and FHIRPath STU,
section 6.7; without an argument a decimal keeps just the digits its boundary needs, as the official
tests of SQL on FHIR expect.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation, localcontext

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import dates, quantity, tree
from hiexchange.fhirpath.columns import Collection, Part, empty
from hiexchange.fhirpath.frame import Frame
from hiexchange.fhirpath.kinds import kind_of

MAX_DIGITS = 31
_LOW_ZONE, _HIGH_ZONE = "+14:00", "-12:00"
"""Offsets that make an unzoned dateTime earliest and latest."""


def _boundary(high: bool) -> Callable[[tree.Call, Frame], Collection]:
    def run(node: tree.Call, frame: Frame) -> Collection:
        precision = _precision(node, frame)
        parts = frame.eval(node.parent).singles(f"{node.name}()")
        done = tuple(_ends(part, high, precision, frame.n, node) for part in parts)
        return Collection(frame.n, done) if done else empty(frame.n)

    return run


def _precision(node: tree.Call, frame: Frame) -> int | None:
    if not node.arguments:
        return None
    parts = frame.eval(node.arguments[0]).singles(f"{node.name}()")
    if not parts or not parts[0].constant or kind_of(parts[0].type) != "Integer":
        raise FHIRPathError(f"{node.name}() takes a literal Integer", position=node.position)
    return int(parts[0].values.as_py())


def _ends(part: Part, high: bool, precision: int | None, n: int, node: tree.Call) -> Part:
    kind = kind_of(part.type)
    values = part.array(n)
    if kind == "Quantity":
        items = values.to_pylist()
        found = [_of_quantity(item, high, precision) for item in items]
        return Part(pa.array(found, quantity.LITERAL), "System.Quantity")
    function = _BY_KIND.get(kind or "")
    if function is None:
        raise FHIRPathError(f"{node.name}() works on numbers and dates, not on {part.type}", position=node.position)
    encoded = pc.dictionary_encode(values.cast(pa.string()))
    ends = [function(text, high, precision) for text in encoded.dictionary.to_pylist()]
    type = "System.Decimal" if kind == "Integer" else part.type
    return Part(pa.array(ends, pa.string()).take(encoded.indices), type)


def _of_quantity(item: dict[str, str] | None, high: bool, precision: int | None) -> dict[str, str | None] | None:
    if item is None or quantity.number(item) is None:
        return None
    return {"value": decimal_end(item["value"], high, precision), "unit": item.get("unit"), "code": item.get("code")}


def decimal_end(text: str, high: bool, precision: int | None = None) -> str | None:
    """Return the boundary of a decimal's text: half a unit of its last digit away."""
    try:
        with localcontext(Context(prec=80)):
            value = Decimal(text)
            exponent = value.as_tuple().exponent
            if not isinstance(exponent, int) or (precision is not None and not 0 <= precision <= MAX_DIGITS):
                return None
            half = Decimal(5).scaleb(min(exponent, 0) - 1)
            end = value + half if high else value - half
            if precision is not None:
                end = end.quantize(Decimal(1).scaleb(-precision), ROUND_CEILING if high else ROUND_FLOOR)
    except InvalidOperation:
        return None
    return format(end, "f")


def date_end(text: str, high: bool, precision: int | None = None) -> str | None:
    """Return the boundary of a date: precision 4, 6 or 8 (the default) digits."""
    match = dates.DATETIME.match(text)
    if match is None or precision not in (None, 4, 6, 8):
        return None
    year, month, day = match[1], match[2] or ("12" if high else "01"), match[3]
    day = day or (_last_day(year, month) if high else "01")
    return "-".join((year, month, day)[: (precision or 8) // 2 - 1])


def datetime_end(text: str, high: bool, precision: int | None = None) -> str | None:
    """Return the boundary of a dateTime: precision 4, 6, 8, 10, 12, 14 or 17 (the default) digits."""
    match = dates.DATETIME.match(text)
    if match is None or precision not in (None, 4, 6, 8, 10, 12, 14, 17):
        return None
    if precision in (4, 6, 8):
        return date_end(text[:10].rstrip("T"), high, precision)
    day = date_end(text[:10].rstrip("T"), high)
    clock = _clock(match[4], match[5], match[6], match[7], high)
    zone = match[8] or (_HIGH_ZONE if high else _LOW_ZONE)
    kept = {10: 2, 12: 5, 14: 8}.get(precision or 17, 12)
    return f"{day}T{clock[:kept]}{zone}"


def time_end(text: str, high: bool, precision: int | None = None) -> str | None:
    """Return the boundary of a time: precision 2, 4, 6 or 9 (the default) digits."""
    match = dates.TIME.match(text)
    if match is None or precision not in (None, 2, 4, 6, 9):
        return None
    return _clock(match[1], match[2], match[3], match[4], high)[: {2: 2, 4: 5, 6: 8}.get(precision or 9, 12)]


def _clock(hour: str | None, minute: str | None, second: str | None, fraction: str | None, high: bool) -> str:
    hour = hour or ("23" if high else "00")
    minute = minute or ("59" if high else "00")
    second = second or ("59" if high else "00")
    return f"{hour}:{minute}:{second}.{(fraction or '')[:3].ljust(3, '9' if high else '0')}"


def _last_day(year: str, month: str) -> str:
    return f"{calendar.monthrange(int(year), int(month))[1]:02d}" if 1 <= int(month) <= 12 else "31"


_BY_KIND: dict[str, Callable[[str, bool, int | None], str | None]] = {
    "Decimal": decimal_end,
    "Integer": decimal_end,
    "Date": date_end,
    "DateTime": datetime_end,
    "Time": time_end,
}


def _digits(node: tree.Call, frame: Frame) -> Collection:
    """Run precision(): a decimal's digits after the point, a date's or time's digits without its offset."""
    done = []
    for part in frame.eval(node.parent).singles("precision()"):
        kind = kind_of(part.type)
        if kind not in ("Decimal", "Date", "DateTime", "Time"):
            raise FHIRPathError(f"precision() works on decimals and dates, not on {part.type}", position=node.position)
        encoded = pc.dictionary_encode(part.array(frame.n).cast(pa.string()))
        count = _decimal_digits if kind == "Decimal" else _clock_digits
        counts = pa.array([count(text) for text in encoded.dictionary.to_pylist()], pa.int64())
        done.append(Part(counts.take(encoded.indices), "System.Integer"))
    return Collection(frame.n, tuple(done)) if done else empty(frame.n)


def _decimal_digits(text: str) -> int:
    exponent = Decimal(text).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _clock_digits(text: str) -> int:
    day, _, clock = text.partition("T")
    return sum(map(str.isdigit, day + re.split(r"[Z+-]", clock)[0]))


FUNCTIONS = {
    "lowBoundary": (0, 1, _boundary(False)),
    "highBoundary": (0, 1, _boundary(True)),
    "precision": (0, 0, _digits),
}
