"""What servers may send in place of what they should: every reader says so in its own way, none falls over."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hiexchange import ndjson
from hiexchange._http import NoAnswer, parse_http_date, retry_after, transport_errors
from hiexchange._urls import check_url, host_of, origin
from hiexchange.bulk import ExportRequest, OutputFile, open_export
from hiexchange.bulk.assemble import count_outcomes, ignored_parameters
from hiexchange.bulk.attachments import pointers
from hiexchange.bulk.deletions import Deletion, read_deletions
from hiexchange.bulk.dpc import Attribution, _attribution
from hiexchange.bulk.lines import LineCheck
from hiexchange.bulk.manifest import parse_expires, parse_instant, parse_manifest
from hiexchange.bulk.members import GroupChange, members_request
from hiexchange.bulk.orphans import same_export, split_locations
from hiexchange.bulk.plan import make_plan, renewed_urls, shortest_life_first
from hiexchange.bulk.protocol import Answer
from hiexchange.bulk.request import joined_parameters
from hiexchange.bulk.result import FileReceipt
from hiexchange.bulk.watermark import watermark_key, watermark_value
from hiexchange.errors import BadLine, ConfigError, PolicyViolation

DEEP = b"[" * 50_000


@pytest.mark.parametrize("count", [float("inf"), float("nan"), "²", "9" * 5000, 10**400, -1, True, [], {}])
def test_a_count_that_is_none_is_not_compared(count: Any) -> None:
    page = {"output": [{"type": "Patient", "url": "https://a.example/1", "count": count, "fileSize": count}]}
    (item,) = parse_manifest(page, url="https://a.example/s").output
    assert item.count is None and item.size is None


@pytest.mark.parametrize("url", ["https://[", "//[", "https://a.example:99999/x", "https://a.example:x/y"])
def test_urls_that_cannot_be_read_are_planned_and_refused(url: str) -> None:
    page = {"output": [{"type": "Patient", "url": url}], "link": [{"relation": "next", "url": url}]}
    manifest = parse_manifest(page, url="https://a.example/s")
    (file,) = shortest_life_first(make_plan([manifest]).files)
    assert renewed_urls([file], [manifest]) == {file.file: file.item}
    with pytest.raises(PolicyViolation):
        check_url(file.item.url)
    assert origin(file.item.url) == "" or host_of(file.item.url) == ""
    assert not same_export(url, "https://a.example/$export") and split_locations(url, "https://a.example/") != []


@pytest.mark.parametrize(
    "text",
    [
        "2026-13-14 00:07:48 +0000 UTC", "0001-01-01 00:00:00 +0500 UTC", "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    ],
)  # fmt: skip
def test_times_outside_the_calendar_are_none(text: str) -> None:
    assert parse_expires(text) is None and parse_instant(text) is None and parse_http_date(text) is None
    assert retry_after({"retry-after": "7", "date": text}, datetime.now(UTC)) == 7


def test_nesting_without_end_is_no_answer() -> None:
    assert Answer(500, {}, DEEP).json() is None and Answer(500, {}, DEEP).codes() == ()
    assert ndjson.value(b'{"a":"\\ud800"}') is None
    for issue in (5, [None, 5], [{"expression": 5, "details": 5}]):
        answer = Answer(400, {}, json.dumps({"resourceType": "OperationOutcome", "issue": issue}).encode())
        assert isinstance(answer.diagnostics(), str) and len(answer.codes()) <= 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"resourceType":"Patient","a":' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
        (b'{"resourceType":"../../etc/cron.d/x"}', "not a FHIR resource"),
        (b'{"resourceType":"Jane Doe"}', "not a FHIR resource"),
        (b'{"resourceType":""}', "not a FHIR resource"),
    ],
)
def test_a_line_that_could_do_harm_is_rejected_alone(line: bytes, reason: str) -> None:
    check = LineCheck()
    good = b'{"resourceType":"Patient"}\n'
    assert check.feed(good + line + b"\n" + good) + check.finish() == good + good
    assert [(item.line, item.reason) for item in check.rejects] == [(2, reason)] and check.types == {"Patient": 2}


def test_odd_outcomes_and_deletions_are_passed_over(tmp_path: Path) -> None:
    for folder in ("outcome", "deleted"):
        (tmp_path / folder).mkdir()
    issues = [None, 5, {"severity": "error", "code": "Jane Doe, 1950"}, {"severity": "error", "code": "exception"}]
    rows = [{"resourceType": "OperationOutcome", "issue": issues}, {"resourceType": "OperationOutcome", "issue": 7}]
    (tmp_path / "outcome/o.ndjson").write_bytes(ndjson.dumps(rows))
    receipt = FileReceipt("outcome/o.ndjson", "outcome", None, "", 0, 0, 0, 2, 2, "", ())
    assert count_outcomes(tmp_path, [receipt]) == {"error/unknown": 1, "error/exception": 1}
    entries = [None, 5, *({"request": {"method": "DELETE", "url": url}} for url in ("https://[", "Patient/9"))]
    (tmp_path / "deleted/d.ndjson").write_bytes(ndjson.dumps([{"entry": entries}, {"entry": 7}]))
    assert list(read_deletions(tmp_path))[1:] == [Deletion("Patient", "9")]
    assert not list(pointers({"resourceType": "DocumentReference", "content": 5, "presentedForm": 7}))
    media = {"resourceType": "Media", "content": {"url": "Binary/1", "contentType": "text/plain\r\nX-Evil: 1"}}
    assert [item.content_type for item in pointers(media)] == [None]


def test_odd_members_and_logs_of_others_are_passed_over(tmp_path: Path) -> None:
    odd: list[Any] = [None, {"entity": 5, "period": 3}, {"entity": {"reference": 7}, "period": {"end": 5}}]
    day = {"entity": {"reference": "Patient/1"}, "period": {"end": "2026-01-01"}}
    found = [_attribution(member) for member in ndjson.objects([*odd, day])]
    assert [item.ends_at for item in found] == [None, None, datetime(2026, 1, 1, tzinfo=UTC)]
    (tmp_path / "Patient.ndjson").write_bytes(b'{"resourceType":"Patient"}\n')
    (tmp_path / "log.ndjson").write_bytes(b'{"exportId":{"a":1},"eventId":"x"}\n' + DEEP + b"\n")
    assert not open_export(tmp_path).complete
    with pytest.raises(BadLine, match="nested too deeply"):
        ndjson.loads(DEEP)


def test_what_cannot_be_sent_is_not_shown() -> None:
    import httpx

    with pytest.raises(NoAnswer) as caught, transport_errors("https://a.example/"):
        raise httpx.LocalProtocolError("Illegal header value b'Bearer secret'")
    assert "secret" not in str(caught.value)


# Requests and watermarks ------------------------------------------------------------------------


def test_no_text_of_a_value_names_patients() -> None:
    values = (
        ExportRequest(group="g", patients=("id-of-jane",)),
        Deletion("Patient", "id-of-jane"),
        Attribution("id-of-jane", None, True),
        GroupChange(("id-of-jane",), ("id-of-jane",)),
    )
    assert "id-of-jane" not in repr(values)


@pytest.mark.parametrize(
    "values",
    [
        {"since": "2026-13-01T00:00:00Z"}, {"since": "2026-12-31T23:59:60Z"}, {"since": "0001-01-01T00:00:00+05:00"},
        {"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, {"group": "abc\n"}, {"types": ("Patient\n",)},
    ],
)  # fmt: skip
def test_more_that_no_server_may_accept(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ExportRequest(**values)


def test_parameters_as_a_get_has_them() -> None:
    request = ExportRequest(types=("Patient", "Encounter"), extra={"a&b": "c#d"})
    assert joined_parameters(request) == {"_type": "Patient,Encounter", "a&b": "c#d"}
    assert members_request(ExportRequest(group="g", until="2026-01-01T00:00:00Z")).until is None


def test_a_watermark_never_passes_the_end_of_the_export() -> None:
    assert watermark_value("2026-08-01T00:00:00Z", until="2026-03-01T00:00:00Z") == "2026-03-01T00:00:00.000Z"
    assert watermark_value("2026-08-01T00:00:00Z", until="2027-01-01T00:00:00Z") == "2026-08-01T00:00:00.000Z"
    assert watermark_value("0001-01-01T00:00:00Z", overlap_s=60) is None
    plain = ExportRequest(group="g")
    assert watermark_key("u", 1, plain) != watermark_key("u", 1, ExportRequest(group="g", extra={"_tag": "x"}))


@pytest.mark.parametrize(
    ("level", "oldest", "newest", "ignored"),
    [
        ("Patient", "2026-05-31T22:30:00-05:00", "2026-05-31T22:30:00-05:00", False),  # 03:30 in UTC
        ("Patient", "2020-01-01T00:00:00Z", "2026-06-02T00:00:00Z", False),  # what the news refer to
        ("system", "2020-01-01T00:00:00Z", "2026-06-02T00:00:00Z", True),
        ("Patient", "2020-01-01T00:00:00Z", "2026-05-31T00:00:00Z", True),
    ],
)
def test_since_was_ignored_only_where_the_standard_leaves_no_other_reason(
    level: str, oldest: str, newest: str, ignored: bool
) -> None:
    request = ExportRequest(level=level, since="2026-06-01T02:00:00Z")
    receipt = FileReceipt("output/a", "output", "A", "", 0, 0, 0, 1, 1, "", (), oldest=oldest, newest=newest)
    assert ignored_parameters(request, [receipt]) == (["_since"] if ignored else [])


def test_a_file_key_survives_a_url_that_cannot_be_read() -> None:
    assert OutputFile("output", "Patient", "https://[").key == "https://["
