"""Patients out of a lake whose files are in no order by patient."""

from __future__ import annotations

import json
import random
from datetime import date

import pyarrow as pa
import pytest

from hiexchange.lake import Lake
from hiexchange.measures import Measure, evaluate_all
from hiexchange.measures import rows as gathered
from hiexchange.measures.lakes import subjects_of
from hiexchange.measures.sources import decode

YEAR = (date(2026, 1, 1), date(2026, 12, 31))
TYPES = frozenset({"Patient", "Observation", "Task", "ServiceRequest", "Medication", "MedicationRequest"})


@pytest.fixture
def lake_of(tmp_path):
    def build(resources, *, seed=5):
        """Ingest resources as a server hands them out: one file a type, in any order."""
        folder = tmp_path / "in"
        folder.mkdir()
        shuffled = list(resources)
        random.Random(seed).shuffle(shuffled)
        for resource in shuffled:
            with (folder / f"{resource['resourceType']}.ndjson").open("a") as file:
                file.write(json.dumps(resource) + "\n")
        lake = Lake(tmp_path / "lake")
        lake.ingest(folder)
        return lake, shuffled

    return build


def patient(at):
    return {"resourceType": "Patient", "id": f"p{at:03d}"}


def observation(at, number):
    about = {"subject": {"reference": f"Patient/p{at:03d}"}}
    return {"resourceType": "Observation", "id": f"o{at:03d}-{number}", "status": "final", **about}


def ids(rows):
    return [decode(row)["id"] for row in rows]


@pytest.mark.parametrize("chunk", [1, 7, 50_000])
def test_each_patient_comes_once_with_all_rows_in_the_order_of_the_file(lake_of, chunk):
    resources = [patient(at) for at in range(30)] + [observation(at, n) for at in range(30) for n in range(at % 5)]
    resources.append({"resourceType": "Observation", "id": "nobody", "status": "final"})
    resources.append(observation(999, 0))  # of a patient the lake does not hold
    lake, shuffled = lake_of(resources)
    found = list(subjects_of(lake, TYPES, None, chunk=chunk))
    assert [name for name, _ in found] == [f"p{at:03d}" for at in range(30)]
    for name, rows in found:
        own = [item["id"] for item in shuffled if item.get("subject", {}).get("reference") == f"Patient/{name}"]
        assert [item for item in ids(rows) if item != name] == own
        assert sorted(ids(rows)) == sorted([name, *own])


def test_patients_left_out_come_without_rows_and_unwanted_ones_not_at_all(lake_of):
    lake, _ = lake_of([patient(at) for at in range(4)] + [observation(at, 0) for at in range(4)])
    found = dict(subjects_of(lake, TYPES, None, only={"p001", "p002"}, keep=pa.array(["p002", "p003"])))
    assert set(found) == {"p001", "p002"}
    assert found["p001"] == []
    assert sorted(ids(found["p002"])) == ["o002-0", "p002"]


def test_a_task_without_patient_belongs_to_the_patient_of_what_it_focuses_on(lake_of):
    order = {"resourceType": "ServiceRequest", "id": "s1", "status": "active", "intent": "order"}
    named = {"for": {"reference": "Patient/p000"}}
    lake, _ = lake_of(
        [
            patient(0),
            patient(1),
            {**order, "subject": {"reference": "Patient/p001"}},
            {"resourceType": "Task", "id": "t1", "status": "rejected", "focus": {"reference": "ServiceRequest/s1"}},
            {
                "resourceType": "Task",
                "id": "t2",
                "status": "rejected",
                "focus": {"reference": "http://x.org/fhir/ServiceRequest/s1/_history/3"},
            },
            {"resourceType": "Task", "id": "t3", "status": "rejected", **named},
            {"resourceType": "Task", "id": "t4", "status": "rejected", "focus": {"reference": "ServiceRequest/none"}},
            {"resourceType": "Task", "id": "t5", "status": "rejected"},
        ]
    )
    found = {name: sorted(ids(rows)) for name, rows in subjects_of(lake, TYPES, None)}
    assert found == {"p000": ["p000", "t3"], "p001": ["p001", "s1", "t1", "t2"]}


def test_what_a_patient_refers_to_comes_along(lake_of):
    request = {"resourceType": "MedicationRequest", "id": "r1", "status": "active", "intent": "order"}
    request |= {"subject": {"reference": "Patient/p000"}, "medicationReference": {"reference": "Medication/m1"}}
    lake, _ = lake_of([patient(0), request, *({"resourceType": "Medication", "id": name} for name in ("m1", "m2"))])
    ((_, rows),) = subjects_of(lake, TYPES, None)
    assert ids(rows)[-1] == "m1"
    assert sorted(ids(rows)) == ["m1", "p000", "r1"]


def test_a_run_does_not_depend_on_prefilter_or_order(lake_of, small_bundle, people):
    lake, _ = lake_of([entry["resource"] for person in people for entry in person["entry"]])
    measure = Measure.load(small_bundle)
    (expected,) = evaluate_all([measure], people, period=YEAR)

    def flags(run):
        columns = ["subject", "initial_population", "denominator", "numerator", "strata", "status"]
        return sorted(run.table.select(columns).to_pylist(), key=lambda row: row["subject"])

    for options in ({}, {"prefilter": False}):
        (run,) = evaluate_all([measure], lake, period=YEAR, **options)
        assert flags(run) == flags(expected)


def test_rows_beyond_memory_are_read_back_from_a_file(lake_of, small_bundle, people, monkeypatch):
    resources = [entry["resource"] for person in people for entry in person["entry"]]
    lake, _ = lake_of(resources)
    measure = Measure.load(small_bundle)
    whole = measure.evaluate(lake, period=YEAR).table
    monkeypatch.setattr(gathered, "BATCH", 2)
    for spill in (2, 9):  # of six rows four go to a file, or none
        monkeypatch.setattr(gathered, "SPILL", spill)
        run = measure.evaluate(lake, period=YEAR)
        assert run.table.equals(whole)
        assert run.summary() == measure.evaluate(people, period=YEAR).summary()
