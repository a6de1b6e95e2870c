"""The fast path and the exact path give identical results, and both give the JSON back."""

from __future__ import annotations

import gzip
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiexchange.definitions import Definitions
from hiexchange.lake import restore

R4 = Definitions.load("4.0.1").resources
SEEDS = st.integers(0, 2**63)
QUICK = settings(max_examples=1, deadline=None, suppress_health_check=list(HealthCheck))


def same(fast, slow):
    assert fast.batch.schema.equals(slow.batch.schema, check_metadata=True)
    assert fast.batch.equals(slow.batch)
    assert fast.shape == slow.shape
    assert fast.unmapped == slow.unmapped
    assert [(bad.line, bad.offset, bad.reason) for bad in fast.rejects] == [
        (bad.line, bad.offset, bad.reason) for bad in slow.rejects
    ]
    fast.batch.validate(full=True)


@pytest.mark.parametrize("name", R4)
def test_paths_agree_and_round_trip_on_every_r4_type(name, maker, as_lines, encoded, restored):
    @QUICK
    @given(SEEDS)
    def run(seed):
        values = [maker(seed + number).resource(name) for number in range(4)]
        text = as_lines(values)
        fast, slow = encoded(text, name), encoded(text, name, fast=False)
        same(fast, slow)
        assert not fast.rejects
        for line, back in zip(text.splitlines(), restored(fast.batch, name), strict=False):
            assert restore.equal(line, back)

    run()


@pytest.mark.slow
def test_many_resources_of_every_r4_type(maker, as_lines, encoded, restored):
    for name in R4:
        values = [maker(seed, odd=0.03 if seed % 5 == 0 else 0).resource(name) for seed in range(25)]
        for value in values:
            value["resourceType"] = name
        text = as_lines(values)
        fast, slow = encoded(text, name), encoded(text, name, fast=False)
        same(fast, slow)
        for line, back in zip(text.split(b"\n")[:-1], restored(fast.batch, name), strict=True):
            assert restore.equal(line, back)


@pytest.mark.parametrize(
    "name", ["Patient", "Observation", "ExplanationOfBenefit", "Questionnaire", "Bundle", "Parameters"]
)
def test_paths_agree_and_round_trip_on_odd_members(name, maker, as_lines, encoded, restored):
    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
    @given(SEEDS)
    def run(seed):
        values = [maker(seed + number, odd=0.05 if number % 3 == 0 else 0).resource(name) for number in range(6)]
        for value in values:
            value["resourceType"] = name
        text = as_lines(values)
        fast, slow = encoded(text, name), encoded(text, name, fast=False)
        same(fast, slow)
        assert not fast.rejects
        lines = text.split(b"\n")[:-1]
        assert len(lines) == fast.batch.num_rows
        for line, back in zip(lines, restored(fast.batch, name), strict=True):
            assert restore.equal(line, back)

    run()


@pytest.mark.parametrize("version", ["3.0.2", "4.3.0", "5.0.0"])
def test_other_fhir_versions_round_trip(version, maker, as_lines, encoded, restored):
    for seed, name in enumerate(Definitions.load(version).resources[::8]):
        text = as_lines([maker(seed * 10 + number, version=version).resource(name) for number in range(3)])
        fast, slow = encoded(text, name, version=version), encoded(text, name, version=version, fast=False)
        same(fast, slow)
        assert not fast.rejects
        for line, back in zip(text.split(b"\n")[:-1], restored(fast.batch, name, version), strict=True):
            assert restore.equal(line, back)


@pytest.mark.parametrize("name", ["Patient", "Observation", "ExplanationOfBenefit", "Encounter", "Claim", "Group"])
def test_paths_agree_on_synthea(name, shared, encoded):
    packed = (shared / "data" / "synthea-100" / f"{name}.ndjson.gz").read_bytes()
    text = b"".join(gzip.decompress(packed).splitlines(keepends=True)[:300])
    fast, slow = encoded(text, name), encoded(text, name, fast=False)
    assert fast.slow_lines <= 32  # as few with a rare member are not worth another look of the fast path
    assert slow.slow_lines == slow.lines
    same(fast, slow)


def test_block_size_changes_neither_rows_nor_schema(maker, as_lines, encoded):
    values = [maker(seed, odd=0.02).resource("Observation") for seed in range(21)]
    for value in values:
        value["resourceType"] = "Observation"
    whole = encoded(as_lines(values), "Observation")
    shape, rows, unmapped = {}, [], Counter()
    for start in range(0, 21, 7):
        part = encoded(as_lines(values[start : start + 7]), "Observation", shape=shape)
        shape = part.shape
        rows += [key.as_py() for key in part.batch["__hx_key"]]
        unmapped += part.unmapped
    assert shape == whole.shape
    assert rows == whole.batch["__hx_key"].to_pylist()
    assert unmapped == whole.unmapped


def test_a_known_shape_and_an_empty_one_give_the_same_rows(maker, as_lines, encoded):
    text = as_lines([maker(seed).resource("Patient") for seed in range(30)])
    first = encoded(text, "Patient")
    again = encoded(text, "Patient", shape=first.shape)
    assert first.batch.equals(again.batch)
    assert again.slow_lines < 30


def test_one_bad_line_in_a_block_costs_only_itself_the_fast_way(maker, as_lines, encoded):
    values = [{"resourceType": "Patient", "id": str(number), "active": True} for number in range(1000)]
    lines = as_lines(values).split(b"\n")[:-1]
    lines[500] = b'{"resourceType":"Patient","id":"x","id":"y"}'
    lines[600] = b'{"resourceType":"Patient","id":"x","foo":1}'
    lines[700] = b'{"resourceType":"Patient"'
    lines[800] = b'{"resourceType":"Group","id":"x"}'
    result = encoded(b"\n".join(lines), "Patient")
    assert [(bad.line, bad.reason) for bad in result.rejects] == [
        (501, "duplicate-key"), (701, "truncated"), (801, "wrong-resource-type")
    ]  # fmt: skip
    assert result.slow_lines == 4
    assert result.batch["__hx_line"].to_pylist() == [line for line in range(1, 1001) if line not in (501, 701, 801)]
