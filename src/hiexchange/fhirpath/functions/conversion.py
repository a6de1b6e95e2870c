"""Conversions: toString, toInteger, toDecimal, toDate ... and their convertsTo twins."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from hiexchange.fhirpath import dates, quantity, tree
from hiexchange.fhirpath.columns import Collection, Part
from hiexchange.fhirpath.frame import Frame, booleans
from hiexchange.fhirpath.kinds import kind_of

_TRUE = {"true", "t", "yes", "y", "1", "1.0"}
_FALSE = {"false", "f", "no", "n", "0", "0.0"}
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?\Z", re.ASCII)
_INTEGER = re.compile(r"[+-]?0{0,99}\d{1,10}\Z", re.ASCII)
_QUANTITY = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*(?:'([^']+)'|([a-z]+?)s?)?\Z")
_INT32 = 2**31


def _string(value: Any, kind: str | None) -> str | None:
    if kind == "Boolean":
        return "true" if value else "false"
    if kind == "Quantity":
        if quantity.number(value) is None:
            return None
        unit = quantity.unit_of(value)
        return f"{value['value']} {unit}" if unit in dates_units() else f"{value['value']} '{unit}'"
    return None if kind is None else str(value)


def dates_units() -> set[str]:
    """Return the calendar words, which a quantity's text shows without quotes."""
    return {"year", "month", "week", "day", "hour", "minute", "second", "millisecond"}


def _boolean(value: Any, kind: str | None) -> bool | None:
    if kind == "Boolean":
        return bool(value)
    if kind in ("Integer", "Decimal"):
        return {Decimal(1): True, Decimal(0): False}.get(Decimal(str(value)))
    text = str(value).lower() if kind == "String" else ""
    return True if text in _TRUE else False if text in _FALSE else None


def _integer(value: Any, kind: str | None) -> int | None:
    if kind in ("Integer", "Boolean"):
        return int(value)
    if kind == "String" and _INTEGER.match(value):
        number = int(value)
        return number if -_INT32 <= number < _INT32 else None
    return None


def _decimal(value: Any, kind: str | None) -> str | None:
    if kind in ("Integer", "Decimal"):
        return str(value)
    if kind == "Boolean":
        return "1.0" if value else "0.0"
    return value.removeprefix("+") if kind == "String" and _NUMBER.match(value) else None


def _date(value: Any, kind: str | None) -> str | None:
    if kind not in ("Date", "DateTime", "String"):
        return None
    return value.split("T")[0] if dates.parse(value) else None


def _datetime(value: Any, kind: str | None) -> str | None:
    return value.removesuffix("T") if kind in ("Date", "DateTime", "String") and dates.parse(value) else None


def _time(value: Any, kind: str | None) -> str | None:
    return value.removeprefix("T") if kind in ("Time", "String") and dates.parse(value, time=True) else None


def _quantity(value: Any, kind: str | None) -> dict[str, str] | None:
    if kind == "Quantity":
        definite = quantity.number(value) is not None
        return {key: value.get(key) for key in ("value", "unit", "code")} if definite else None
    if kind == "Boolean":
        return {"value": "1.0" if value else "0.0", "unit": "1", "code": "1"}
    if kind in ("Integer", "Decimal"):
        return {"value": str(value), "unit": "1", "code": "1"}
    match = _QUANTITY.match(value) if kind == "String" else None
    if match is None or (match[3] and match[3] not in dates_units()):
        return None
    unit = match[2] or match[3] or "1"
    return {"value": match[1].removeprefix("+"), "unit": unit, "code": unit}


_CONVERT: dict[str, tuple[Callable[[Any, str | None], Any], pa.DataType]] = {
    "String": (_string, pa.string()),
    "Boolean": (_boolean, pa.bool_()),
    "Integer": (_integer, pa.int64()),
    "Decimal": (_decimal, pa.string()),
    "Date": (_date, pa.string()),
    "DateTime": (_datetime, pa.string()),
    "Time": (_time, pa.string()),
    "Quantity": (_quantity, quantity.LITERAL),
}


def _converted(part: Part, target: str, n: int) -> pa.Array:
    kind = kind_of(part.type)
    values = part.array(n)
    if target == "String" and values.type == pa.string():
        return values
    convert, arrow = _CONVERT[target]
    return pa.array([None if item is None else convert(item, kind) for item in values.to_pylist()], arrow)


def _to(target: str) -> Callable[[tree.Call, Frame], Collection]:
    def run(node: tree.Call, frame: Frame) -> Collection:
        parts = frame.eval(node.parent).singles(f"{node.name}()")
        done = tuple(Part(_converted(part, target, frame.n), f"System.{target}") for part in parts)
        return Collection(frame.n, tuple(part.sparse(frame.n) for part in done) if len(done) > 1 else done)

    return run


def _converts(target: str) -> Callable[[tree.Call, Frame], Collection]:
    def run(node: tree.Call, frame: Frame) -> Collection:
        parent = frame.eval(node.parent)
        fine = np.zeros(frame.n, dtype=np.bool_)
        for part in parent.singles(f"{node.name}()"):
            fine |= np.asarray(_converted(part, target, frame.n).is_valid())
        result = booleans(fine, frame.n).parts[0]
        return Collection(frame.n, (result.sparse(frame.n).keep(parent.counts() > 0),))

    return run


FUNCTIONS = {
    **{f"to{target}": (0, 0, _to(target)) for target in _CONVERT},
    **{f"convertsTo{target}": (0, 0, _converts(target)) for target in _CONVERT},
}
