"""Export requests: what is sent, what is stored, what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange.bulk.members import compare_members, members_request, requests_for
from hiexchange.bulk.request import ExportRequest, kick_off, without_parameter
from hiexchange.errors import ConfigError

BASE = "https://fhir.example/r4"


def test_get_joins_lists_with_commas() -> None:
    request = ExportRequest(
        group="share",
        types=("Patient", "Encounter"),
        since="2026-08-01T02:00:00+02:00",
        type_filters=("Encounter?status=finished,arrived", "Patient?active=true"),
    )
    sent = kick_off(request, BASE)
    query = parse_qs(urlsplit(sent.url).query)
    assert sent.method == "GET" and sent.url.startswith(f"{BASE}/Group/share/$export?")
    assert query["_type"] == ["Patient,Encounter"] and query["_since"] == ["2026-08-01T00:00:00.000Z"]
    assert query["_typeFilter"] == ["Encounter?status=finished%2Carrived,Patient?active=true"]
    assert sent.headers == {"Accept": "application/fhir+json", "Prefer": "respond-async"}


def test_post_repeats_entries_and_carries_patients() -> None:
    sent = kick_off(ExportRequest(types=("Patient", "Coverage"), patients=("-1", "Patient/-2")), BASE)
    entries = json.loads(sent.content or b"")["parameter"]
    assert sent.method == "POST" and [entry["name"] for entry in entries].count("_type") == 2
    references = [entry["valueReference"]["reference"] for entry in entries if entry["name"] == "patient"]
    assert references == ["Patient/-1", "Patient/-2"]


def test_a_long_url_becomes_a_post() -> None:
    filters = tuple(f"Observation?code={number:06}" for number in range(400))
    assert kick_off(ExportRequest(type_filters=filters), BASE).method == "POST"


def test_levels() -> None:
    paths = [
        kick_off(request, BASE).url
        for request in (ExportRequest(), ExportRequest(level="system"), ExportRequest(group="g"))
    ]
    assert paths == [f"{BASE}/Patient/$export", f"{BASE}/$export", f"{BASE}/Group/g/$export"]


@pytest.mark.parametrize(
    "values",
    [
        {"types": "Patient"}, {"types": ("Patient", "Patient")}, {"types": ("patient",)}, {"since": "2026-08-01"},
        {"since": datetime(2026, 8, 1)}, {"type_filters": ("Encounter?_count=5",)}, {"type_filters": ("status=x",)},
        {"patients": ("1",), "level": "system"}, {"patients": ("1",), "method": "GET"}, {"group": "a/b"},
        {"level": "Group"}, {"group": "g", "level": "system"}, {"method": "PUT"}, {"patients": ("a b",)},
    ],
)  # fmt: skip
def test_what_no_server_may_accept_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ExportRequest(**values)  # type: ignore[arg-type]


REQUESTS = st.builds(
    ExportRequest,
    group=st.none() | st.sampled_from(["share", "all"]),
    types=st.lists(st.sampled_from(["Patient", "Encounter", "Coverage"]), unique=True).map(tuple),
    since=st.none() | st.datetimes(timezones=st.just(UTC)),
    elements=st.lists(st.sampled_from(["id", "status"]), unique=True).map(tuple),
    allow_partial=st.booleans(),
    extra=st.dictionaries(st.sampled_from(["_x", "_y"]), st.text(min_size=1, max_size=5)),
)


@given(REQUESTS)
def test_a_stored_request_is_read_back(request: ExportRequest) -> None:
    stored = json.loads(json.dumps(request.canonical()))
    assert ExportRequest.from_canonical(stored) == request and request.differences(stored) == []


def test_patients_are_stored_as_a_hash_and_compared_by_it() -> None:
    request = ExportRequest(patients=("-1", "-2"))
    stored = json.loads(json.dumps(request.canonical()))
    assert "-1" not in json.dumps(stored)
    assert ExportRequest(patients=("-2", "-1")).differences(stored) == []
    assert ExportRequest(patients=("-3",)).differences(stored) == ["patients"]
    assert request.differences(json.loads(json.dumps(request.canonical(patients=True)))) == []


def test_a_parameter_can_be_left_out_but_not_the_type() -> None:
    request = ExportRequest(group="g", types=("Patient",), since="2026-01-01T00:00:00Z", extra={"_x": "1"})
    assert (smaller := without_parameter(request, "_since")) and smaller.since is None and smaller.group == "g"
    assert (plain := without_parameter(request, "_x")) and plain.extra == {}
    assert without_parameter(request, "_type") is None


def test_new_members_get_their_whole_history() -> None:
    request = ExportRequest(group="g", types=("Encounter",), since="2026-01-01T00:00:00Z")
    change = compare_members(["1", "2"], ["2", "3", "4"])
    assert (change.joined, change.left) == (("3", "4"), ("1",))
    first, last = requests_for(request, change)
    assert first.patients == ("3", "4") and first.since is None and first.method == "POST" and last == request
    listing = members_request(request)
    assert (listing.types, listing.elements, listing.since) == (("Patient",), ("id",), None)
