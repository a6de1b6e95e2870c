"""Arrow types of output columns: by FHIR type, or as the tag ``ansi/type`` says."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import ViewError
from hiexchange.fhirpath import dates
from hiexchange.fhirpath.kinds import kind_of

INSTANT = pa.timestamp("us", tz="UTC")

_ARROW = {
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "positiveInt": pa.int32(),
    "unsignedInt": pa.int32(),
    "integer64": pa.int64(),
    "instant": INSTANT,
    "System.Boolean": pa.bool_(),
    "System.Integer": pa.int32(),
}
_ANSI = re.compile(
    r"([A-Za-z][A-Za-z ]*?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?\s*((?:WITH|WITHOUT)\s+TIME\s+ZONE)?\Z", re.I
)
_ANSI_PLAIN = {
    "BOOLEAN": pa.bool_(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "INT": pa.int32(),
    "BIGINT": pa.int64(),
    "REAL": pa.float32(),
    "FLOAT": pa.float64(),
    "DOUBLE": pa.float64(),
    "DOUBLE PRECISION": pa.float64(),
    "DATE": pa.date32(),
    "TEXT": pa.string(),
    "CHARACTER": pa.string(),
    "CHAR": pa.string(),
    "CHARACTER VARYING": pa.string(),
    "VARCHAR": pa.string(),
}


def arrow_type(type: str, ansi: str | None = None) -> pa.DataType:
    """Return the Arrow type of one value: decimals, dates and dateTimes are text, instants timestamps.

    Raises:
        ViewError: The ``ansi/type`` is not one we know.
    """
    if ansi is None:
        return _ARROW.get(type, pa.string())
    match = _ANSI.match(ansi.strip())
    name = " ".join(match[1].upper().split()) if match else ""
    if match and name in ("DECIMAL", "NUMERIC"):
        precision, scale = int(match[2] or 38), int(match[3] or 0)
        if not 0 <= scale <= precision <= 76 or not precision:
            raise ViewError(f"the ansi/type {ansi!r} is not possible", hint="1 to 76 digits, not fewer than places")
        return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    if match and name == "TIMESTAMP":
        with_zone = (match[4] or "").upper().startswith("WITH ")
        return INSTANT if with_zone else pa.timestamp("us")
    if match and name in _ANSI_PLAIN:
        return _ANSI_PLAIN[name]
    raise ViewError(
        f"the ansi/type {ansi!r} is not known", hint=f"one of {', '.join(sorted(_ANSI_PLAIN))}, DECIMAL(p,s), TIMESTAMP"
    )


def cast(values: pa.Array, type: str, wanted: pa.DataType, name: str) -> pa.Array:
    """Bring one column's values of FHIR type ``type`` to its Arrow type.

    A partial date has no DATE and becomes null; a moment becomes the start of its interval.

    Raises:
        ViewError: A value does not fit: text that is no number, a decimal with more places.
    """
    if values.type == wanted:
        return values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = kind_of(type)
    if pa.types.is_timestamp(wanted) and pa.types.is_string(values.type):
        return _moments(values).cast(wanted)
    if pa.types.is_date(wanted) and pa.types.is_string(values.type):
        found = dates.moments(values)
        whole = found.valid & (found.precision >= dates.DAY)
        # The day as it was where it was written: 23:00-05:00 is not the next day.
        days = pc.if_else(pa.array(whole), pc.utf8_slice_codeunits(values, 0, 10), pa.scalar(None, pa.string()))
        return days.cast(wanted)
    if pa.types.is_string(wanted) and kind == "Boolean":
        return pc.if_else(values, "true", "false")
    if pa.types.is_struct(values.type):
        raise ViewError(f"the column {name} is a {type}, not a single value", hint="name one of its elements")
    try:
        return pc.cast(values, wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ViewError(f"the column {name} holds {type} values that do not fit {wanted}") from None


def _moments(values: pa.Array) -> pa.Array:
    result: pa.Array = dates.moment_array(values)
    return result
