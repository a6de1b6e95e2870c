"""Conversions between CQL types, and string operators. What cannot be converted is null.

Source: CQL 1.5, Appendix B, sections 1 ("Type Operators") and 12 ("String Operators").
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql import ucum
from hiexchange.measures.cql.arithmetic import checked
from hiexchange.measures.cql.model import Element
from hiexchange.measures.cql.values import (
    MAX_INTEGER,
    MAX_LONG,
    MIN_INTEGER,
    MIN_LONG,
    Code,
    Concept,
    Quantity,
    Ratio,
)

_TRUE = {"true", "t", "yes", "y", "1"}
_FALSE = {"false", "f", "no", "n", "0"}
_DIGITS = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_QUANTITY = re.compile(r"^\s*([+-]?\d+(?:\.\d+)?)\s*(?:'([^']*)'|([a-z]+))?\s*$")


def to_boolean(value: Any) -> Any:
    """Return true or false of a Boolean, of 1 or 0, or of a word for it."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else None
    return True if value == 1 else False if value == 0 else None


def to_integer(value: Any) -> Any:
    """Return an Integer of a Boolean, a Long within range, or digits."""
    found = to_long(value)
    return found if found is not None and MIN_INTEGER <= found <= MAX_INTEGER else None


def to_long(value: Any) -> Any:
    """Return a Long of a Boolean, an Integer, or digits."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        value = int(value) if _DIGITS.fullmatch(value) else None
    return value if isinstance(value, int) and MIN_LONG <= value <= MAX_LONG else None


def to_decimal(value: Any) -> Any:
    """Return a Decimal of an Integer, a Boolean, or a number in text."""
    if isinstance(value, bool):
        return Decimal(int(value))
    if isinstance(value, int | Decimal):
        return checked(Decimal(value))
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return checked(Decimal(value))
    return None


def to_string(value: Any) -> Any:
    """Return the value as CQL writes it."""
    if value is None or type(value) is str:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, t.Temporal):
        return t.text(value)
    if isinstance(value, Quantity):
        number = to_string(value.value)
        return f"{number} {value.unit}" if ucum.calendar_word(value.unit) else f"{number} '{value.unit}'"
    if isinstance(value, Ratio):
        return f"{to_string(value.numerator)}:{to_string(value.denominator)}"
    return None


def to_datetime(value: Any, offset: int = 0) -> Any:
    """Return a DateTime of a Date (no time is invented) or of ISO 8601 text."""
    if isinstance(value, str):
        return t.parse_datetime(value, offset)
    return t.as_datetime(value) if isinstance(value, t.Date | t.DateTime) else None


def to_date(value: Any) -> Any:
    """Return a Date of a DateTime or of ISO 8601 text."""
    if isinstance(value, str):
        return t.parse_date(value)
    return t.as_date(value) if isinstance(value, t.Date | t.DateTime) else None


def to_time(value: Any) -> Any:
    """Return a Time of text, or the time of a DateTime."""
    if isinstance(value, str):
        return t.parse_time(value)
    if isinstance(value, t.DateTime):
        return t.Time((0, 0, 0, *value.key[3:]), value.precision) if value.precision > t.DAY else None
    return value if isinstance(value, t.Time) else None


def to_quantity(value: Any) -> Any:
    """Return a Quantity of a number (unit 1), of text such as ``1.5 'mg'``, or of a FHIR Quantity."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, Quantity):
        return value
    if isinstance(value, int | Decimal):
        return Quantity(Decimal(value), "1")
    if isinstance(value, Ratio):
        from hiexchange.measures.cql.arithmetic import divide

        return divide(value.numerator, value.denominator)
    if isinstance(value, str):
        match = _QUANTITY.match(value)
        if match is None or (match[3] and not ucum.calendar_word(match[3])):
            return None
        return Quantity(Decimal(match[1]), match[2] or match[3] or "1")
    return None


def to_ratio(value: Any) -> Any:
    """Return a Ratio of text ``1 'mg':2 'mL'``."""
    if isinstance(value, Ratio) or not isinstance(value, str):
        return value if isinstance(value, Ratio) else None
    parts = [to_quantity(part) for part in value.split(":")]
    return Ratio(*parts) if len(parts) == 2 and None not in parts else None


def to_concept(value: Any) -> Any:
    """Return a Concept of a Code or a list of codes."""
    if isinstance(value, Code):
        return Concept([value])
    if isinstance(value, list):
        return Concept([item for item in value if isinstance(item, Code)])
    if isinstance(value, Concept):
        return value
    if isinstance(value, Element):
        from hiexchange.measures.cql.model import concept

        return concept(value)
    return None


def to_list(value: Any) -> Any:
    """Return a list of one; of null an empty list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def convert_quantity(quantity: Any, unit: Any) -> Any:
    """Return the quantity in another unit, or null."""
    if not isinstance(quantity, Quantity) or quantity.value is None or not isinstance(unit, str):
        return None
    # An explicit conversion may treat a calendar year as UCUM's: it asks for a number, not for equality.
    value = ucum.convert(quantity.value, quantity.unit, unit, equivalence=True)
    return None if value is None else Quantity(value, unit)


CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "ToBoolean": to_boolean,
    "ToInteger": to_integer,
    "ToLong": to_long,
    "ToDecimal": to_decimal,
    "ToString": to_string,
    "ToDate": to_date,
    "ToTime": to_time,
    "ToQuantity": to_quantity,
    "ToRatio": to_ratio,
    "ToConcept": to_concept,
    "ToChars": lambda value: None if value is None else list(value),
}
"""ELM conversion operators of one operand; ToDateTime needs the evaluation's offset."""

CONVERTS = {
    "ConvertsToBoolean": to_boolean,
    "ConvertsToInteger": to_integer,
    "ConvertsToLong": to_long,
    "ConvertsToDecimal": to_decimal,
    "ConvertsToString": to_string,
    "ConvertsToDate": to_date,
    "ConvertsToDateTime": to_datetime,
    "ConvertsToTime": to_time,
    "ConvertsToQuantity": to_quantity,
    "ConvertsToRatio": to_ratio,
}

TARGETS: dict[str, Callable[[Any], Any]] = {
    "Boolean": to_boolean,
    "Integer": to_integer,
    "Long": to_long,
    "Decimal": to_decimal,
    "String": to_string,
    "Date": to_date,
    "DateTime": to_datetime,
    "Time": to_time,
    "Quantity": to_quantity,
    "Ratio": to_ratio,
    "Concept": to_concept,
}
"""Target types of ELM Convert."""


# Strings --------------------------------------------------------------------------------------


def concatenate(*parts: Any) -> Any:
    """Join strings; a null makes the whole null."""
    return None if any(part is None for part in parts) else "".join(parts)


def combine(values: Any, separator: Any) -> Any:
    """Join a list of strings, nulls left out; null of nothing."""
    known = [value for value in values or [] if value is not None]
    return (separator or "").join(known) if known else None


def split(text: Any, separator: Any) -> Any:
    """Cut at a separator; a null separator leaves the text whole."""
    if text is None:
        return None
    return text.split(separator) if separator else [text]


def split_on_matches(text: Any, pattern: Any) -> Any:
    """Cut where a regular expression matches."""
    if text is None:
        return None
    return re.split(pattern, text) if pattern else [text]


def position(pattern: Any, text: Any) -> int:
    """Return where ``pattern`` first occurs, -1 for nowhere."""
    return int(text.find(pattern))


def last_position(pattern: Any, text: Any) -> int:
    """Return where ``pattern`` last occurs, -1 for nowhere."""
    return int(text.rfind(pattern))


def substring(text: Any, start: Any, length: Any = None) -> Any:
    """Return the text from a zero-based index; null outside, but an empty text starts at 0."""
    if text is None or start is None or not 0 <= start < max(len(text), 1):
        return None
    return text[start:] if length is None else text[start : start + max(length, 0)]


def matches(text: Any, pattern: Any) -> bool:
    """Tell whether the whole text matches a regular expression."""
    return re.fullmatch(pattern, text, re.DOTALL) is not None


def replace_matches(text: Any, pattern: Any, replacement: Any) -> str:
    """Replace what a regular expression matches; ``$1`` refers to a group."""
    python = re.sub(r"\$(\d+)", r"\\g<\1>", replacement.replace("\\$", "\0"))
    return re.sub(pattern, python.replace("\0", "$"), text)


def parse_literal(kind: str, text: str) -> Any:
    """Return the value of an ELM Literal.

    Raises:
        ValueError: The text does not fit the type.
    """
    if kind == "String":
        return text
    if kind == "Boolean":
        return text == "true"
    if kind in ("Integer", "Long"):
        return int(text.rstrip("L"))
    if kind == "Decimal":
        try:
            return Decimal(text)
        except InvalidOperation:
            raise ValueError(text) from None
    value = TARGETS[kind](text) if kind in TARGETS else None
    if value is None:
        raise ValueError(kind)
    return value


# FHIRHelpers ----------------------------------------------------------------------------------


def calendar_unit(unit: Any) -> Any:
    """Turn a UCUM time code into CQL's calendar word, as FHIRHelpers.ToCalendarUnit does."""
    return ucum.CALENDAR_WORDS.get(unit, unit)
