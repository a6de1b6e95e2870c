"""The direct NDJSON reader: what it takes, what it leaves to the encoder, and that both agree."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiexchange.errors import ViewError
from hiexchange.lake.cut import Block
from hiexchange.views import View
from hiexchange.views.lines import LineReader
from hiexchange.views.window import SIZE

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


class Left(Exception):
    """The reader left lines to the encoder."""


def left(block: Block) -> pa.RecordBatch:
    raise Left(block)


def read(text: str | bytes, of: View = VIEW) -> pa.RecordBatch | None:
    data = text if isinstance(text, bytes) else text.encode()
    reader = LineReader("Patient", "4.0.1", of._wanted)
    try:
        return pa.concat_batches(reader.batches(io.BytesIO(data), "Patient.ndjson", left))
    except Left as caught:
        assert caught.args[0].data == data  # nothing is lost on the way
        return None


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
    assert read(b'{"resourceType":"Patient","id":"-1","gender":"\xff"}') is None


def test_digits_and_line_numbers_are_kept() -> None:
    text = '{"resourceType":"Patient","id":"-1","extension":[{"url":"x","valueDecimal":1.50}]}\r\n'
    batch = read(text * 2)
    assert batch is not None
    rows = VIEW.run(batch).to_pylist()
    assert [(row["score"], row["line"]) for row in rows] == [("1.50", 1), ("1.50", 2)]


def test_siblings_matter_only_beside_needed_elements() -> None:
    line = '{"resourceType":"Patient","id":"-1",%s}'
    assert read(line % '"_birthDate":{"id":"x"},"telecom":[{"_value":{"id":"x"},"value":"_"}]') is not None
    assert read(line % '"name":[{"family":"A","_given":[{"id":"x"}]}]') is None
    assert read(line % r'"\u005factive":{"id":"x"}') is None
    only = View.from_json({"resource": "Patient", "select": [{"column": [{"name": "x", "path": "birthDate.id"}]}]})
    assert read(line % '"_birthDate":{"id":"x"}', only) is None


def test_explicit_nulls_and_empty_lists_are_absent(encoded: Callable[..., pa.Table]) -> None:
    lines = [
        '{"resourceType":"Patient","id":"-1","name":null,"extension":null}',
        '{"resourceType":"Patient","id":"-2","name":[],"active":null}',
        '{"resourceType":"Patient","id":"-3","name":[{"given":null,"use":"old"},{"given":[],"family":"A"}]}',
        '{"resourceType":"Patient","id":"-4","extension":[{"url":"x","valueDecimal":null}]}',
    ]
    batch = read("\n".join(lines))
    assert batch is not None
    assert VIEW.run(batch).to_pylist() == [
        {**row, "line": at}
        for line, at in zip(lines, (1, 2, 3, 4), strict=True)
        for row in VIEW.run(encoded(line)).to_pylist()
    ]


def test_lines_longer_than_a_window_and_many_of_them() -> None:
    note = "é" * (SIZE // 4)
    lines = [
        json.dumps({"resourceType": "Patient", "id": f"-{at}", "gender": note if at % 7 == 0 else ""})
        for at in range(60)
    ]
    reader = LineReader("Patient", "4.0.1", VIEW._wanted)
    found = list(reader.batches(io.BytesIO("\n".join(lines).encode()), "f", left))
    rows = [row for batch in found for row in VIEW.run(batch).to_pylist()]
    assert [(row["id"], row["line"]) for row in rows] == [(f"-{at}", at + 1) for at in range(60)]


def test_only_the_window_with_an_odd_line_is_encoded(tmp_path: Path) -> None:
    lines = [json.dumps({"resourceType": "Patient", "id": f"-{at}", "gender": "x" * (SIZE // 8)}) for at in range(80)]
    lines[70] = '{"resourceType":"Patient","id":"-70","_active":{"id":"x"}}'
    path = tmp_path / "Patient.ndjson"
    path.write_text("\n".join(lines))
    rows = VIEW.run(path).to_pylist()
    assert [(row["id"], row["line"]) for row in rows] == [(f"-{at}", at + 1) for at in range(80)]


def test_elements_needed_whole_are_not_read_directly() -> None:
    whole = View.from_json(
        {"resource": "Patient", "select": [{"column": [{"name": "n", "path": "name.distinct().count()"}]}]}
    )
    assert read('{"resourceType":"Patient","id":"-1","name":[{"family":"A"},{"family":"A"}]}', whole) is None


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


CONTAINED = View.from_json(
    {
        "resource": "Patient",
        "select": [{"column": [{"name": "n", "path": "contained.ofType(Organization).name.first()"}]}],
    }
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('[{"resourceType":"Organization","name":"X"}]', "X"),
        ('[1,null,{"resourceType":5},{"name":"X"},{"resourceType":"Organization","name":"Y"}]', "Y"),
        ("[]", None),
        ("null", None),
        ('{"resourceType":"Organization","name":"X"}', None),
    ],
)
def test_contained_of_odd_forms(tmp_path: Path, text: str, name: str | None) -> None:
    path = tmp_path / "Patient.ndjson"
    path.write_text(f'{{"resourceType":"Patient","id":"-1","contained":{text}}}\n')
    assert CONTAINED.run(path).to_pylist() == [{"n": name}]


def test_a_contained_resource_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "Patient.ndjson"
    path.write_text(
        '{"resourceType":"Patient","id":"-1","contained":[{"resourceType":"Group","name":"a","name":"b"}]}\n'
    )
    with pytest.raises(ViewError, match="1 contained Group resources can't be read: duplicate-key"):
        CONTAINED.run(path)
