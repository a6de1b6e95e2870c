"""The direct NDJSON reader: what it takes, what it leaves to the encoder, and that both agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiexchange.lake.cut import Block
from hiexchange.views import View
from hiexchange.views.lines import LineReader

SELECT = [
    {
        "column": [
            {"name": "id", "path": "getResourceKey()"},
            {"name": "active", "path": "active"},
            {"name": "births", "path": "multipleBirth.ofType(integer)"},
            {"name": "score", "path": "extension.where(url = 'x').value.ofType(decimal).first()"},
            {"name": "line", "path": "__hx_line"},
        ]
    },
    {
        "forEachOrNull": "name",
        "column": [
            {"name": "family", "path": "family"},
            {"name": "given", "path": "given", "collection": True},
            {"name": "ended", "path": "period.exists()"},
        ],
    },
]
VIEW = View.from_json({"resource": "Patient", "select": SELECT})


def read(text: str) -> pa.RecordBatch | None:
    return LineReader("Patient", "4.0.1", VIEW._wanted).read(Block(text.encode(), 1, 0), "Patient.ndjson")


@pytest.mark.parametrize(
    "line",
    [
        '{"resourceType":"Patient"}',
        '{"resourceType":"Patient","id":"-1","active":"yes"}',
        '{"resourceType":"Patient","id":"-1","multipleBirthInteger":3000000000}',
        '{"resourceType":"Patient","id":"-1","name":{"family":"A"}}',
        '{"resourceType":"Patient","id":"-1","name":["A"]}',
        '{"resourceType":"Patient","id":"-1","_active":{"id":"x"}}',
        '{"resourceType":"Patient","id":"-1","extension":[{"url":"x","valueDecimal":"1.5"}]}',
        '{"resourceType":"Observation","id":"-1"}',
        '{"resourceType":"Patient","id":"-1"',
        '{"resourceType":"Patient","id":"-1"} {"resourceType":"Patient","id":"-2"}',
        '\n{"resourceType":"Patient","id":"-1"}',
        '{"id":"-1"}',
        "[]",
    ],
)
def test_what_it_cannot_vouch_for_is_left_to_the_encoder(line: str) -> None:
    assert read(line) is None


def test_bad_utf8_is_left_to_the_encoder() -> None:
    data = b'{"resourceType":"Patient","id":"-1","gender":"\xff"}'
    assert LineReader("Patient", "4.0.1", VIEW._wanted).read(Block(data, 1, 0), "f") is None


def test_digits_and_line_numbers_are_kept() -> None:
    text = '{"resourceType":"Patient","id":"-1","extension":[{"url":"x","valueDecimal":1.50}]}\r\n'
    batch = LineReader("Patient", "4.0.1", VIEW._wanted).read(Block(text.encode() * 2, 7, 0), "f.ndjson")
    assert batch is not None
    rows = VIEW.run(batch).to_pylist()
    assert [(row["score"], row["line"]) for row in rows] == [("1.50", 7), ("1.50", 8)]


def test_elements_needed_whole_are_not_read_directly() -> None:
    whole = View.from_json(
        {"resource": "Patient", "select": [{"column": [{"name": "n", "path": "name.distinct().count()"}]}]}
    )
    text = '{"resourceType":"Patient","id":"-1","name":[{"family":"A"},{"family":"A"}]}'
    assert LineReader("Patient", "4.0.1", whole._wanted).read(Block(text.encode(), 1, 0), "f") is None


NAMES = st.fixed_dictionaries(
    {"use": st.sampled_from(["official", "old"])},
    optional={
        "family": st.text(max_size=5),
        "given": st.lists(st.one_of(st.none(), st.text(max_size=4)), max_size=3),
        "period": st.fixed_dictionaries({"start": st.just("2020")}),
    },
)
PATIENTS = st.fixed_dictionaries(
    {"resourceType": st.just("Patient"), "id": st.uuids().map(str)},
    optional={
        "active": st.one_of(st.none(), st.booleans()),
        "multipleBirthInteger": st.integers(-(2**31), 2**31 - 1),
        "name": st.lists(NAMES, min_size=1, max_size=3),
        "extension": st.lists(
            st.fixed_dictionaries({"url": st.just("x"), "valueDecimal": st.integers(-99, 99)}), max_size=2
        ),
        "gender": st.text(max_size=3),
        "telecom": st.just([{"value": "1"}]),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PATIENTS, min_size=1, max_size=4))
def test_it_agrees_with_the_encoder(encoded: Callable[..., pa.Table], patients: list[dict[str, Any]]) -> None:
    batch = read("\n".join(json.dumps(patient) for patient in patients))
    if batch is None:
        return
    assert VIEW.run(batch).to_pylist() == VIEW.run(encoded(*patients)).to_pylist()
