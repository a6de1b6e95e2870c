"""Columns derived from others: decimals as numbers, dates as intervals, keys.

All vectorised over Arrow, and total: a text that is no number or date gives null, never an error.
"""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation, localcontext

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.lake.schema import INSTANT_MS, INSTANT_US, NUMERIC

DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# The separators and offsets are those Arrow's cast takes too, so that neither path is stricter.
_DATE = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:[T ](?P<hour>\d\d)(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?)?"
    r"(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?)?)?)?"
)
_YEAR_1, _YEAR_10000 = -62_135_596_800_000_000, 253_402_300_800_000_000
"""Their first microseconds: Python reads no time before or after."""
_PATIENT = r"^(?:.*/)?Patient/(?P<id>[A-Za-z0-9.\-]{1,64})(?:/_history/.*)?$|^urn:(?:uuid|oid):(?P<urn>.+)$"

_REFERENCES = ("patient", "subject", "beneficiary", "for", "individual", "candidate", "actor")
"""Members that may name the patient a resource is about, in the order they are asked: ``for`` of Task,
``individual`` of ResearchSubject, ``candidate`` of EnrollmentRequest, ``actor`` of AppointmentResponse.
``tests/lake/test_annotate.py`` holds them against the definitions."""


def numeric(text: pa.Array) -> pa.Array:
    """Return decimal128(32, 6); null where the text is not exactly representable, never rounded."""
    # Arrow (26) makes 0 of a number with 44 and more digits after the point, 1e-45 among them: short and plain ones only.
    short = pc.less_equal(pc.binary_length(text), NUMERIC.precision)
    if pc.all(short).as_py() is not False and not any(pc.any(pc.match_substring(text, e)).as_py() for e in "eE"):
        with contextlib.suppress(pa.ArrowInvalid):
            return pc.cast(text, NUMERIC)
    # Longer fractions are common (Synthea: 15 digits) and never exact; only the rest needs Python.
    coded = pc.dictionary_encode(text)
    plain = pc.match_substring_regex(coded.dictionary, r"^-?[0-9]{1,26}(?:\.[0-9]{1,6}0{0,6})?$")
    values = pc.cast(pc.if_else(plain, coded.dictionary, None), NUMERIC)
    rare = pc.and_(pc.invert(plain), pc.match_substring_regex(coded.dictionary, "[eE]|0$"))
    if pc.any(rare).as_py():
        exact = [
            _exact(text) if odd.as_py() else None for text, odd in zip(coded.dictionary.to_pylist(), rare, strict=True)
        ]
        values = pc.if_else(rare, pa.array(exact, NUMERIC), values)
    return pc.take(values, coded.indices)


def _exact(text: str) -> Decimal | None:
    try:
        with localcontext() as context:
            context.prec = 60
            value = Decimal(text)
            scaled = value.quantize(Decimal("0.000001"))
    except InvalidOperation:
        return None
    return scaled if scaled == value and abs(scaled) < Decimal(10) ** 26 else None


def interval(text: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return first and last millisecond of a date, dateTime or instant; without offset it counts as UTC."""
    exact = _full_instants(text)
    if exact is None:
        return _bounds_by_value(text)
    microseconds = exact.cast(pa.int64())
    before_1970 = pc.less(microseconds, 0)  # where a division, which cuts off, would round up
    start = pc.divide(pc.subtract(microseconds, pc.if_else(before_1970, 999, 0)), 1000)
    # Seconds are the coarsest unit here; a fraction names one millisecond.
    whole = pc.not_equal(_byte(text, 19), b".")
    return start.cast(INSTANT_MS), pc.add(start, pc.multiply(whole.cast(pa.int64()), 999)).cast(INSTANT_MS)


def instant(text: pa.Array) -> pa.Array:
    """Return the instant of dateTimes in microseconds; a partial one counts as its start."""
    exact = _full_instants(text)
    if exact is not None:
        return exact
    coded = pc.dictionary_encode(text)
    starts = pa.array([_start(_DATE.fullmatch(value)) for value in coded.dictionary.to_pylist()], INSTANT_US)
    return pc.take(starts, coded.indices)


def _byte(text: pa.Array, place: int) -> pa.Array:
    # Six times as fast as a slice of characters, and dates are ASCII.
    return pc.binary_slice(text.cast(pa.binary()), place, place + 1)


def _full_instants(text: pa.Array) -> pa.Array | None:
    """Cast to microseconds when every value has date, time with seconds, and offset; else None."""
    if pc.all(pc.equal(_byte(text, 16), b":")).as_py() is False:
        return None
    try:
        found = pc.cast(text, INSTANT_US)
    except pa.ArrowInvalid:
        return None
    bounds = pc.min_max(found.cast(pa.int64())).as_py()
    return found if bounds["min"] is None or _YEAR_1 <= bounds["min"] <= bounds["max"] < _YEAR_10000 else None


def _bounds_by_value(text: pa.Array) -> tuple[pa.Array, pa.Array]:
    coded = pc.dictionary_encode(text)
    bounds = [bounds_of(value) for value in coded.dictionary.to_pylist()]
    starts = pa.array([pair[0] for pair in bounds], INSTANT_MS)
    ends = pa.array([pair[1] for pair in bounds], INSTANT_MS)
    return pc.take(starts, coded.indices), pc.take(ends, coded.indices)


def bounds_of(text: str) -> tuple[datetime | None, datetime | None]:
    """Return first and last millisecond that a FHIR date text includes, or (None, None)."""
    match = _DATE.fullmatch(text)
    start = _start(match)
    if match is None or start is None:
        return None, None
    start = start.replace(microsecond=start.microsecond // 1000 * 1000)
    try:
        return start, _end(start, match)
    except OverflowError:
        return None, None


def _start(match: re.Match[str] | None) -> datetime | None:
    """Return the first microsecond of a date; None where there is no such date."""
    if match is None:
        return None
    zone = match["zone"]
    try:
        return datetime(
            int(match["year"]),
            int(match["month"] or 1),
            int(match["day"] or 1),
            int(match["hour"] or 0),
            int(match["minute"] or 0),
            int(match["second"] or 0),
            int((match["fraction"] or "0")[:6].ljust(6, "0")),
            tzinfo=UTC if zone in (None, "Z") else datetime.strptime(zone.ljust(5, "0"), "%z").tzinfo,
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _end(start: datetime, match: re.Match[str]) -> datetime:
    if match["fraction"]:
        return start
    if match["second"]:
        return start + timedelta(milliseconds=999)
    if match["minute"]:
        return start + timedelta(milliseconds=59_999)
    if match["hour"]:
        return start + timedelta(milliseconds=3_599_999)
    if match["day"]:
        return start + timedelta(milliseconds=86_399_999)
    year, month = (start.year, start.month + 1) if match["month"] else (start.year + 1, 1)
    if month > 12:
        year, month = year + 1, 1
    if year > 9999:
        return datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    return datetime(year, month, 1, tzinfo=UTC) - timedelta(milliseconds=1)


def patient_key(reference: pa.Array) -> pa.Array:
    """Return the Patient id in reference texts; null where it refers to something else."""
    coded = pc.dictionary_encode(reference)
    found = pc.extract_regex(coded.dictionary.cast(pa.string()), _PATIENT)
    ident, urn = pc.struct_field(found, "id"), pc.struct_field(found, "urn")
    key = pc.if_else(pc.equal(ident, ""), urn, ident)
    return pc.take(key, coded.indices)


def patient_of(batch: pa.RecordBatch, resource: str) -> pa.Array:
    """Return the id of the patient a row belongs to: the compartment reference, or the id of a Patient."""
    names = batch.schema.names
    if resource == "Patient":
        return batch.column(names.index("id")) if "id" in names else pa.nulls(batch.num_rows, pa.string())
    found = pa.nulls(batch.num_rows, pa.string())
    for name in _REFERENCES:
        column = batch.column(names.index(name)) if name in names else None
        if column is None or not pa.types.is_struct(column.type) or column.type.get_field_index("reference") < 0:
            continue
        found = pc.coalesce(found, patient_key(pc.struct_field(column, "reference")))
    return found


def _meta(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    index = batch.schema.get_field_index("meta")
    if index < 0 or batch.column(index).type.get_field_index(name) < 0:
        return None
    return pc.struct_field(batch.column(index), name)


def updated(batch: pa.RecordBatch) -> pa.Array:
    """Return ``meta.lastUpdated`` as an instant."""
    text = _meta(batch, "lastUpdated")
    return pa.nulls(batch.num_rows, INSTANT_US) if text is None else instant(text)


def subsetted(batch: pa.RecordBatch) -> pa.Array:
    """Say of each row whether ``meta.tag`` has SUBSETTED: such a row never replaces a whole one."""
    tags = _meta(batch, "tag")
    flags = np.zeros(batch.num_rows, bool)
    if tags is not None and tags.type.value_type.get_field_index("code") >= 0:
        values = pc.list_flatten(tags)
        marked = pc.fill_null(pc.equal(pc.struct_field(values, "code"), "SUBSETTED"), False)
        flags[pc.list_parent_indices(tags).filter(marked).to_numpy(zero_copy_only=False)] = True
    return pa.array(flags)
