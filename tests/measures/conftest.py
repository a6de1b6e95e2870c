"""Small patients and encounters in the lake's layout, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

Row = dict[str, Any]


def wide(rows: list[Row]) -> pa.Table:
    """Make a table with the columns of all rows: ``from_pylist`` looks at the first only."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])


@pytest.fixture
def encounter() -> Callable[..., Row]:
    """Build an Encounter row: id, patient, class, start, end, and the rest by keyword."""

    def build(key: str, patient: str, kind: str, start: str | None, end: str | None = None, **more: Any) -> Row:
        row: Row = {
            "resourceType": "Encounter",
            "id": key,
            "status": more.pop("status", "finished"),
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": kind},
            "subject": {"reference": f"Patient/{patient}"},
            "period": {"start": start, "end": end if end is not None or "open" in more else start},
        }
        more.pop("open", None)
        if disposition := more.pop("disposition", None):
            row["hospitalization"] = {"dischargeDisposition": {"coding": [{"code": disposition}]}}
        return row | more

    return build


@pytest.fixture
def tables() -> Callable[..., dict[str, pa.Table]]:
    """Build a source from Encounter rows; every patient they name exists, with the given elements."""

    def build(encounters: list[Row], **patients: Row) -> dict[str, pa.Table]:
        names = sorted({row["subject"]["reference"].removeprefix("Patient/") for row in encounters} | set(patients))
        people = [
            {"resourceType": "Patient", "id": name, "deceasedDateTime": None, **patients.get(name, {})}
            for name in names
        ]
        return {"Encounter": wide(encounters), "Patient": wide(people)}

    return build
