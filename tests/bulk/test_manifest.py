"""The manifest parser: every version, odd fields, and no crash on any JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange.bulk.manifest import Manifest, join_pages, parse_expires, parse_instant, parse_manifest
from hiexchange.bulk.plan import make_plan
from hiexchange.errors import ProtocolViolation

URL = "https://fhir.example/jobs/1"
ENTRY = {"type": "Patient", "url": "https://fhir.example/files/1", "count": 3}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("transactionTime", "requiresAccessToken", "output", "deleted", "error", "outcome", "link", "extension")
ITEM = st.fixed_dictionaries({}, optional=dict.fromkeys(("url", "type", "count", "extension", "fileSize"), JSON))


@given(st.dictionaries(st.sampled_from(FIELDS), JSON | st.lists(ITEM | st.just(ENTRY), max_size=4)))
def test_any_object_is_a_manifest_or_a_violation(body: dict[str, object]) -> None:
    try:
        manifest = parse_manifest(body, url=URL)
    except ProtocolViolation:
        assert "output" not in body and "transactionTime" not in body
        return
    assert isinstance(manifest, Manifest)
    planned = make_plan([manifest]).files
    names = [file.file for file in planned]
    assert len(names) == len(set(names)) and not any(".." in name for name in names)


@given(JSON)
def test_any_json_never_crashes(body: object) -> None:
    try:
        parse_manifest(body, url=URL)
    except ProtocolViolation:
        return


@given(st.lists(st.sampled_from(["Patient", "Encounter", None, "../x", "A" * 65]), max_size=30))
def test_names_depend_on_order_and_type_only(types: list[str | None]) -> None:
    output = [{"type": name, "url": f"https://fhir.example/{number}"} for number, name in enumerate(types)]
    pages = [parse_manifest({"output": output}, url=URL)]
    again = [parse_manifest({"output": [{**entry, "count": 9} for entry in output]}, url=URL)]
    assert [file.file for file in make_plan(pages).files] == [file.file for file in make_plan(again).files]


def test_all_versions_read_alike() -> None:
    stu1 = {"transactionTime": "2026-01-01T00:00:00Z", "requiresAccessToken": True, "output": [ENTRY], "error": [ENTRY]}
    stu4 = {**stu1, "outcome": [{"url": ENTRY["url"]}], "extension": [{"url": "x", "valueString": "y"}]}
    del stu4["error"]
    first, fourth = parse_manifest(stu1, url=URL), parse_manifest(stu4, url=URL)
    assert first.output == fourth.output and len(first.outcome) == len(fourth.outcome) == 1
    assert (first.version_hint, fourth.version_hint) == ("2.0.0", "4.0.0")


def test_an_outcome_or_an_empty_object_is_never_zero_files() -> None:
    for body in ({}, {"resourceType": "OperationOutcome", "output": []}, [], None, "text"):
        with pytest.raises(ProtocolViolation):
            parse_manifest(body, url=URL)


def test_checksums_by_a_servers_extension() -> None:
    digest = "ab" * 32
    entry = {**ENTRY, "extension": [{"url": "c", "valueString": f"sha256:{digest}"}, {"url": "l", "valueDecimal": 17}]}
    item = parse_manifest({"output": [entry]}, url=URL, integrity={"checksum": "c", "length": "l"}).output[0]
    assert (item.checksum, item.length, item.checksum_note) == (digest, 17, None)


def test_pages_join() -> None:
    pages = [parse_manifest({"output": [{**ENTRY, "url": f"https://fhir.example/{n}"}]}, url=URL) for n in range(3)]
    assert len(join_pages(pages).output) == 3
    with pytest.raises(ValueError, match="no manifest"):
        join_pages([])


def test_times() -> None:
    assert parse_expires("2026-08-14 00:07:48.123 +0000 UTC") == datetime(2026, 8, 14, 0, 7, 48, tzinfo=UTC)
    assert parse_expires("Fri, 14 Aug 2026 00:07:48 GMT") == datetime(2026, 8, 14, 0, 7, 48, tzinfo=UTC)
    assert parse_instant("2026-08-01T00:00:00") is None
    assert parse_instant("2026-08-01T02:00:00+02:00") == datetime(2026, 8, 1, tzinfo=UTC)


@given(st.text(max_size=40))
def test_odd_times_never_crash(text: str) -> None:
    parse_expires(text)
    parse_instant(text)


def test_json_numbers_survive() -> None:
    body = json.loads('{"output": [{"url": "https://a.example/1", "count": 3.0, "fileSize": "12"}]}')
    item = parse_manifest(body, url=URL).output[0]
    assert (item.count, item.size) == (3, 12)
