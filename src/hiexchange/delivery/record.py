"""One delivered event as a flat record: the columns a subscriber may choose from.

Columns are those of ENCOUNTER_EVENT, of PERSON, and what the decision says about the recipient.
Values keep their types (instants are aware UTC datetimes, dates are dates); formats turn them to text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import msgspec
import pyarrow as pa

from hiexchange.delivery.base import instant
from hiexchange.delivery.channel import ChannelSpec
from hiexchange.tables import ENCOUNTER_EVENT, PERSON

RECIPIENT_COLUMNS = ("provider_npi", "org_id", "payer_ids", "catch_up", "replay", "notice")
ALWAYS = ("delivery_id",)
"""In every row of every format: by it a receiver recognises a repeat."""
DEFAULT_COLUMNS = (
    "event_key",
    "trigger",
    "event_at",
    "facility_name",
    "facility_npi",
    "visit_number",
    "class",
    "status",
    "period_start_at",
    "period_end_at",
    "discharge_disposition",
    "attending_npi",
    "person_id",
    "last_name",
    "first_name",
    "birth_date",
    "sex",
    "provider_npi",
)
"""What a tabular file holds when neither channel nor subscription names columns: enough to act on a visit."""

_INSTANTS = tuple(column.name for column in ENCOUNTER_EVENT.columns if pa.types.is_timestamp(column.type))
_DAYS = tuple(column.name for column in ENCOUNTER_EVENT.columns if pa.types.is_date(column.type))
_EVENT = tuple(column.name for column in ENCOUNTER_EVENT.columns)
_PERSON = tuple(column.name for column in PERSON.columns)
ALL_COLUMNS = tuple(dict.fromkeys((*ALWAYS, *_EVENT, *_PERSON, *RECIPIENT_COLUMNS)))

_decode = msgspec.json.Decoder().decode


def event_texts(events: pa.Table, people: Sequence[str | None], persons: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the stored JSON of each event, with its person's columns under ``person`` where known.

    ``people`` holds the resolved person of each row: routing's answer, which the event may lack.
    """
    columns = []
    for name in _EVENT:
        array = events[name]
        if name in _INSTANTS:
            array = array.cast(pa.int64())
        elif name in _DAYS:
            array = array.cast(pa.string())
        columns.append(array.to_pylist())
    encode = msgspec.json.Encoder().encode
    texts = []
    for person_id, *values in zip(people, *columns, strict=True):
        row = {name: value for name, value in zip(_EVENT, values, strict=True) if value is not None}
        if person_id is not None:
            row["person_id"] = person_id
            if person_id in persons:
                row["person"] = persons[person_id]
        texts.append(encode(row).decode())
    return texts


def person_rows(persons: pa.Table | None) -> dict[str, dict[str, Any]]:
    """Return PERSON rows by person_id, nulls left out."""
    if persons is None:
        return {}
    names = [name for name in _PERSON if name in persons.column_names]
    columns = [persons[name].to_pylist() for name in names]
    rows = (
        {k: v for k, v in zip(names, values, strict=True) if v is not None} for values in zip(*columns, strict=True)
    )
    return {row["person_id"]: row for row in rows}


def build(delivery_id: str, event_text: str, context: Mapping[str, Any], *, replay: bool) -> dict[str, Any]:
    """Return one record, whole: :func:`within` is what a recipient may get of it."""
    event = _decode(event_text)
    person = event.pop("person", {})
    record = {**person, **event}
    for name in _INSTANTS:
        if name in record:
            record[name] = instant(record[name])
    for name in _DAYS:
        if name in record:
            record[name] = date.fromisoformat(record[name])
    record["provider_npi"] = next(iter(context.get("npi", ())), None)
    record["org_id"] = next(iter(context.get("org", ())), None)
    record["payer_ids"] = list(context.get("payers", ()))
    record["catch_up"] = bool(context.get("catch_up"))
    record["replay"] = replay
    record["notice"] = context.get("notice")
    record["delivery_id"] = delivery_id
    return record


def within(record: dict[str, Any], permitted: Sequence[str] | None) -> dict[str, Any]:
    """Return a record without the columns its recipient may not get, whatever the file's header says; None = all."""
    if permitted is None:
        return record
    kept = {*permitted, *RECIPIENT_COLUMNS, *ALWAYS}
    return {name: value for name, value in record.items() if name in kept}


def columns_of(spec: ChannelSpec) -> list[str]:
    """Return the columns of a channel's files, in order; they do not depend on the rows."""
    chosen = spec.columns or spec.permitted or DEFAULT_COLUMNS
    return [*ALWAYS, *(name for name in chosen if name not in ALWAYS)]


def allowed(spec: ChannelSpec, decided: Sequence[str] | None) -> Sequence[str] | None:
    """Return the columns a recipient may get: those of the decision, within what its agreement allows by now; None = all."""
    now = spec.columns or spec.permitted
    if spec.columns and spec.permitted:
        now = tuple(name for name in spec.columns if name in spec.permitted)
    if not now or decided is None:
        return now or decided
    return [name for name in decided if name in now]


def ordered(records: list[dict[str, Any]], spec: ChannelSpec) -> list[dict[str, Any]]:
    """Sort records by the channel's columns, else by time and key; ties by delivery id, so always alike."""
    by = spec.order or ("event_at", "event_key")
    return sorted(records, key=lambda record: (*(_rank(record.get(name)) for name in by), record["delivery_id"]))


def _rank(value: Any) -> tuple[bool, Any]:
    if isinstance(value, list | dict):
        return (value is None, str(value))
    return (value is None, value if value is not None else 0)
