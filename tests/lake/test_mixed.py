"""A file with several resource types: every line is in the table of its type or in quarantine."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from hiexchange.lake import Lake, restore
from hiexchange.lake.cut import Block
from hiexchange.lake.ingest import Work, load_file
from hiexchange.lake.mixed import by_type

LINES = [
    b'{"resourceType":"Patient","id":"p1","active":true}',
    b'{"resourceType":"Observation","id":"o1","subject":{"reference":"Patient/p1"},"valueQuantity":{"value":1.50}}',
    b'{"resourceType":"Patient","id":"p2"',
    b"",
    b'{"resourceType":"OperationOutcome","id":"oo","issue":[{"severity":"warning","code":"processing"}]}',
    b'{"resourceType":"Nonsense","id":"n"}',
    b'{"id":"none"}',
    b'{"contained":[{"resourceType":"Practitioner","id":"c"}],"resourceType":"Observation","id":"o2"}',
    b'{"resourceType":"Patient","id":"p3","active":false}',
]


def ingested(tmp_path, lines, **options):
    source = tmp_path / "everything.ndjson"
    source.write_bytes(b"\n".join(lines) + b"\n")
    lake = Lake(tmp_path / "lake")
    return lake, lake.ingest(source, **options)


def test_lines_go_to_the_table_of_their_type_and_none_is_lost(tmp_path):
    lake, report = ingested(tmp_path, LINES)
    assert report.tables == {"Patient": 2, "Observation": 2, "OperationOutcome": 1}
    assert lake.tables() == report.tables
    assert (report.files, report.rows) == (1, 5)
    rejects = lake.table("_rejects").to_arrow(["line", "offset", "reason", "table"]).to_pylist()
    assert [(one["line"], one["reason"]) for one in rejects] == [
        (3, "truncated"), (6, "wrong-resource-type"), (7, "wrong-resource-type")
    ]  # fmt: skip
    assert {one["table"] for one in rejects} == {"Patient"}
    text = b"\n".join(LINES) + b"\n"
    assert all(text[one["offset"] :].startswith(LINES[one["line"] - 1]) for one in rejects)
    rows = lake.table("Observation").to_arrow(["__hx_key", "__hx_line", "__hx_patient"]).to_pylist()
    assert [(row["__hx_key"], row["__hx_line"], row["__hx_patient"]) for row in rows] == [
        ("o1", 2, "p1"),
        ("o2", 8, None),
    ]
    back = list(lake.to_ndjson("Observation", order="source"))
    assert restore.equal(back[0], LINES[1])
    assert restore.equal(back[1], LINES[7])


def test_a_file_that_becomes_mixed_late_is_sorted_from_there(tmp_path, as_lines):
    patients = [{"resourceType": "Patient", "id": f"p{number}", "active": True} for number in range(40)]
    others = [{"resourceType": "Observation", "id": f"o{number}", "status": "final"} for number in range(40)]
    values = [*patients[:30], *(one for pair in zip(patients[30:], others[:10], strict=True) for one in pair), *others[10:]]  # fmt: skip
    source = tmp_path / "in.ndjson"
    source.write_bytes(as_lines(values))
    done = load_file(tmp_path, Work(source, "in", "Patient", "Patient", "4.0.1", "load", block_size=600))
    assert done.rows == 40
    assert [(name, other.rows, other.reasons.total()) for name, other in done.others.items()] == [
        ("Observation", 40, 0)
    ]
    lake = Lake(tmp_path / "lake")
    lake.ingest(iter([source]))  # in another process
    for name, made in (("Patient", patients), ("Observation", others)):
        back = [json.loads(line) for line in lake.to_ndjson(name, order="source")]
        assert back == made


def test_the_type_of_a_file_is_that_of_its_resources_not_of_what_they_contain(tmp_path):
    lake, report = ingested(tmp_path, [b"\xef\xbb\xbf" + LINES[7], b"not json"])
    assert report.tables == {"Observation": 1}
    assert lake.tables() == {"Observation": 1}
    assert [row["table"] for row in lake.table("_rejects").to_arrow().to_pylist()] == ["Observation"]


def test_a_first_line_of_an_unknown_type_costs_only_itself(tmp_path):
    lake, report = ingested(tmp_path, [LINES[5], LINES[0]])
    assert report.tables == {"Patient": 1}
    assert [row["reason"] for row in lake.table("_rejects").to_arrow().to_pylist()] == ["wrong-resource-type"]


def test_mixed_lines_of_another_version_go_to_its_tables(tmp_path):
    _, report = ingested(tmp_path, LINES, fhir_version="STU3")
    assert set(report.tables) == {"Patient_STU3", "Observation_STU3", "OperationOutcome_STU3"}


@pytest.mark.parametrize(
    ("first", "then", "names"),
    [
        ({"fhir_version": "STU3"}, {}, ("Encounter", "Encounter_R4")),
        ({}, {"fhir_version": "STU3"}, ("Encounter", "Encounter_STU3")),
    ],
)
def test_one_table_never_holds_two_versions_however_the_lake_is_opened(first, then, names, tmp_path):
    lines = [
        b'{"resourceType":"Encounter","id":"%d","reason":[{"text":"a"}],"reasonCode":[{"text":"b"}]}' % n
        for n in (1, 2)
    ]
    for options, line in zip((first, then), lines, strict=True):
        (tmp_path / "in.ndjson").write_bytes(line)
        Lake(tmp_path / "lake", **options).ingest(tmp_path / "in.ndjson")
    lake = Lake(tmp_path / "lake")
    assert tuple(lake.tables()) == names
    for name, line in zip(names, lines, strict=True):
        assert restore.equal(next(lake.to_ndjson(name)), line)


def test_tables_that_carry_their_release_keep_it(tmp_path):
    _, report = ingested(tmp_path, LINES[:1], fhir_version="STU3")
    again = Lake(tmp_path / "lake", fhir_version="STU3").ingest(tmp_path / "everything.ndjson")
    assert again.tables == report.tables == {"Patient_STU3": 1}


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_blocks_by_type_have_the_lines_where_they_were(end):
    text = b"\n".join(LINES) + end
    seen = bytearray(b" " * len(text))
    for name, block in by_type(Block(text, 5, 100), "Patient", "4.0.1"):
        assert (block.line, block.offset, len(block.data)) == (5, 100, len(text))
        for place, line in enumerate(block.data.split(b"\n")):
            if line.strip():
                assert line == LINES[place]
                assert name == "Patient" or json.loads(line)["resourceType"] == name
        for place, byte in enumerate(block.data):
            if byte != ord(" "):
                seen[place] = byte
    assert bytes(seen) == text


def test_a_file_that_is_no_ndjson_is_written_to_quarantine_as_it_is_read(tmp_path):
    source = tmp_path / "in.ndjson"
    source.write_bytes(b"".join(b"%d;not json;\n" % number for number in range(300)))
    done = load_file(tmp_path, Work(source, "in", "Patient", "Patient", "4.0.1", "load", block_size=600))
    assert (done.parts, done.reasons) == ([], {"not-json": 300})
    rows = pq.read_table(tmp_path / done.quarantined[0].path).to_pylist()
    assert [(row["line"], row["raw"]) for row in rows] == [(n + 1, b"%d;not json;" % n) for n in range(300)]
