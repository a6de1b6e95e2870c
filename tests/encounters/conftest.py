"""Builders of ADT messages and Encounter rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from hiexchange import hl7v2
from hiexchange.encounters import Intake, read_adt

RECEIVED = datetime(2026, 3, 10, tzinfo=UTC)
_numbers = count(1)


def adt(
    trigger: str,
    at: str = "20260302100000-0600",
    *,
    visit: str = "V1",
    patient: str = "100",
    control: str | None = None,
    class_: str = "I",
    start: str | None = None,
    end: str | None = None,
    disposition: str | None = None,
    diagnoses: tuple[str, ...] = (),
    sender: str = "GENERAL",
    location: str | None = "3W",
    before: str | None = None,
    processing: str = "P",
    name: tuple[str, str] = ("Zylstra", "Odo"),
    born: str = "19600101",
    old: str | None = None,
    vip: str | None = None,
    extra: tuple[tuple[Any, ...], ...] = (),
) -> bytes:
    """One ADT message of an invented patient."""
    pv1: list[Any] = [None] * 45
    for number, value in {
        1: "1", 2: class_, 3: (location, None, None, sender) if location else None, 6: (before, None, None, sender) if before else None,
        7: ("1999999984", "Fixit", "Ann", *[None] * 10), 16: vip, 19: visit, 36: disposition, 44: start, 45: end,
    }.items():  # fmt: skip
        pv1[number - 1] = value
    segments: list[tuple[Any, ...]] = [
        ("MSH", "APP", sender, "HX", "HIE", at, None, ("ADT", trigger, "ADT_A01"), control or f"M{next(_numbers)}", processing, "2.5.1"),
        ("EVN", trigger, at),
        ("PID", "1", None, [(patient, None, None, "GH", "MR")], None, name, None, born, "M"),
    ]  # fmt: skip
    if old is not None:
        segments.append(("MRG", (old, None, None, "GH", "MR")))
    else:
        segments.append(("PV1", *pv1))
    segments += [("DG1", str(index), "I10", code) for index, code in enumerate(diagnoses, 1)]
    return hl7v2.write([*segments, *extra])


def read(*messages: bytes, **arguments: Any) -> Intake:
    """Read messages received on 2026-03-10."""
    return read_adt(list(messages), **{"received_at": RECEIVED, **arguments})


def story(intake: Intake) -> list[tuple[str, str | None]]:
    """(trigger, why it was swallowed) of each event, in order of time."""
    return list(zip(*(intake.events[name].to_pylist() for name in ("trigger", "swallowed_reason")), strict=True))


def person(person_id: str, mrn: str, birth_date: str = "1960-01-01") -> dict[str, Any]:
    """A PERSON row, as far as resolution reads it."""
    return {"person_id": person_id, "mrn": mrn, "member_ids": [], "birth_date": birth_date}


@pytest.fixture(scope="session", name="adt")
def adt_builder() -> Callable[..., bytes]:
    """The builder of messages, for property tests."""
    return adt


@pytest.fixture
def world() -> SimpleNamespace:
    """The builders above."""
    make: dict[str, Callable[..., Any] | Any] = {
        "adt": adt,
        "read": read,
        "story": story,
        "person": person,
        "RECEIVED": RECEIVED,
        "table": pa.Table.from_pylist,
    }
    return SimpleNamespace(**make)
