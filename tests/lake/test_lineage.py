"""Optional columns (the raw line, the content hash), strict loads, and how they live beside loads without them."""

from __future__ import annotations

import hashlib
import json

import pytest

from hiexchange.errors import ConfigError, LakeError
from hiexchange.lake import Lake
from hiexchange.lake.lineage import canonical_hash, check_extras

ODD = b'  { "resourceType":"Patient" ,"id":"a", "active" : true,"extension":[{"url":"u","valueDecimal":1.50}]}\r'
PLAIN = '{"resourceType":"Patient","id":"b","name":[{"family":"Ramón\\u00e9"}]}'.encode()


@pytest.fixture
def put(tmp_path):
    lake = Lake(tmp_path / "lake")

    def run(*lines, name="Patient.ndjson", **options):
        (tmp_path / name).write_bytes(b"\n".join(lines) + b"\n")
        return lake, lake.ingest(tmp_path / name, **options)

    return run


def test_raw_lines_come_back_byte_for_byte(put):
    bad = b'{"resourceType":"Patient","id":'
    lake, _ = put(ODD, bad, b"", PLAIN, raw=True)
    assert list(lake.to_ndjson("Patient", order="source", raw=True)) == [ODD + b"\n", PLAIN + b"\n"]
    assert b" " not in next(lake.to_ndjson("Patient", order="source"))


def test_a_load_without_raw_beside_one_with_it_reads_and_compacts(put):
    put(PLAIN)
    lake, _ = put(ODD, raw=True, sha256=True)
    assert lake.table("Patient").schema.names[-2:] == ["__hx_raw", "__hx_sha256"]
    for _ in range(2):
        rows = {row["id"]: row["__hx_raw"] for row in lake.sql("select id, __hx_raw from Patient").to_pylist()}
        assert rows == {"a": ODD.decode(), "b": None}
        assert sorted(lake.to_ndjson("Patient", raw=True))[0] == ODD + b"\n"
        lake.compact()
    put(PLAIN)
    assert "__hx_raw" in lake.table("Patient").schema.names


def test_the_hash_is_of_the_content_not_of_its_spelling(put):
    same = [
        b'{"resourceType":"Patient","id":"a","extension":[{"url":"u","valueDecimal":1.50}]}',
        b'{ "id":"a","extension":[{"valueDecimal":1.50,"url":"u"}],"resourceType":"Patient"}',
        b'{"resourceType":"Patient","id":"\\u0061","extension":[{"url":"u","valueDecimal":1.50}]}',
    ]
    other = b'{"resourceType":"Patient","id":"a","extension":[{"url":"u","valueDecimal":1.5}]}'
    by_hand = b'{"extension":[{"url":"u","valueDecimal":1.50}],"id":"a","resourceType":"Patient"}'
    assert {canonical_hash(line) for line in same} == {hashlib.sha256(by_hand).hexdigest()}
    assert canonical_hash(other) != canonical_hash(same[0])
    lake, _ = put(same[1], sha256=True)
    assert lake.table("Patient").to_arrow(["__hx_sha256"]).to_pylist() == [
        {"__hx_sha256": hashlib.sha256(by_hand).hexdigest()}
    ]


def test_what_changed_between_two_loads_is_found_by_the_hash(put):
    lake, first = put(ODD, PLAIN, sha256=True)
    put(b" " + ODD, PLAIN.replace(b"Ram", b"Tam"), sha256=True)
    old = lake.table("Patient", columns=["id", "__hx_sha256"], snapshot=first.snapshot).to_arrow().to_pylist()
    new = lake.table("Patient", columns=["id", "__hx_sha256"]).to_arrow().to_pylist()
    hashes = {row["id"]: row["__hx_sha256"] for row in old}
    assert [row["id"] for row in new if hashes[row["id"]] != row["__hx_sha256"]] == ["b"]


def test_columns_are_about_what_came_not_about_repairs(put):
    line = b'{"resourceType":"ExplanationOfBenefit","id":"f","total":[{"amount":{"value":2.00}}]}'
    lake, report = put(line, name="ExplanationOfBenefit.ndjson", repairs=["bcda"], raw=True, sha256=True)
    assert report.repaired
    assert list(lake.to_ndjson("ExplanationOfBenefit", raw=True)) == [line + b"\n"]
    (row,) = lake.table("ExplanationOfBenefit").to_arrow(["__hx_sha256"]).to_pylist()
    assert row["__hx_sha256"] == canonical_hash(line)


def test_strict_stores_nothing_when_a_member_has_no_column(put, tmp_path):
    lake, first = put(PLAIN, strict=True)
    with pytest.raises(LakeError) as caught:
        put(ODD, b'{"resourceType":"Patient","id":"c","foo":"SECRET","name":[{"bar":1}],"active":"yes"}', strict=True)
    assert "Patient/foo 1" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert caught.value.exit_code == 7
    assert lake.snapshots() == [first.snapshot]
    assert lake.tables() == {"Patient": 1}
    assert lake.files("Patient") == list((tmp_path / "lake" / "Patient").iterdir())


def test_an_unknown_optional_column_is_refused():
    assert check_extras(["__hx_sha256", "__hx_raw"]) == ("__hx_raw", "__hx_sha256")
    with pytest.raises(ConfigError):
        check_extras(["__hx_other"])


def test_numbers_and_deep_members_hash_like_their_text():
    line = b'{"resourceType":"Observation","id":"x","valueQuantity":{"value":1e3,"code":"-0"},"n":-0,"a":[1,[null]]}'
    canonical = (
        b'{"a":[1,[null]],"id":"x","n":-0,"resourceType":"Observation","valueQuantity":{"code":"-0","value":1e3}}'
    )
    assert json.loads(line) == json.loads(canonical)
    assert canonical_hash(line) == hashlib.sha256(canonical).hexdigest()
