"""The 96 faults of docs/bulk-export.md, one test each, named by number.

All but those marked local go over real sockets; a number with several forms has a case for each. One
file on purpose: it is read as a list.
"""

from __future__ import annotations

import _thread
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx

from hiexchange._http import NoAnswer, Policy, Session, retry_after
from hiexchange.auth import SmartBackendServices
from hiexchange.bulk import ExportJob, ExportRequest
from hiexchange.bulk.deletions import Deletion, Odd
from hiexchange.bulk.manifest import parse_expires, parse_manifest
from hiexchange.bulk.plan import make_plan
from hiexchange.errors import (
    AttributionUnavailable,
    AuthError,
    FileExhausted,
    IntegrityError,
    JobExpired,
    JobFailed,
    JobInterrupted,
    JobLocked,
    JobMismatch,
    JobTimeout,
    JobVanished,
    KickOffRejected,
    PartialExport,
    PolicyViolation,
    ProtocolViolation,
    ServerUnavailable,
    StorageError,
)
from hiexchange.events import FileDone, FileRetried, Polled, Throttled, TokenRefreshed, Warned
from hiexchange.lake import Lake
from hiexchange.servers import Server, preset

Check = Callable[[Any], None]
LISTED = replace(preset("generic-stu2"), name="listed", adopt="jobs_list")
NAMED = replace(preset("generic-stu2"), name="named", adopt="429_content_location")
AB2D_LIKE = replace(preset("generic-stu2"), integrity=preset("ab2d").integrity)


def warned(wire: Any, text: str) -> bool:
    return any(text in event.message for event in wire.of(Warned))


# Kick-off -------------------------------------------------------------------------------------


def test_f01_no_content_location(wire: Any, complete: Check) -> None:
    bulk = wire.serve(1)
    with pytest.raises(ProtocolViolation):
        wire.start(bulk)
    assert len(bulk.requests("kickoff")) == 1 and not bulk.requests("status")
    listed = wire.serve(1)
    complete(wire.export(listed, preset=LISTED))  # found in the list of jobs instead
    assert len(listed.requests("kickoff")) == 1


def test_f02_content_location_relative_or_http(wire: Any, complete: Check, tmp_path: Path) -> None:
    complete(wire.export(wire.serve(2)))
    assert warned(wire, "relative")
    with respx.mock:
        respx.get("https://fhir.example/r4/metadata").mock(return_value=httpx.Response(404))
        located = {"Content-Location": "http://fhir.example/jobs/1"}
        respx.get("https://fhir.example/r4/Patient/$export").mock(return_value=httpx.Response(202, headers=located))
        job = ExportJob.start(Server("https://fhir.example/r4"), ExportRequest(), tmp_path / "https")
        assert job.journal.refresh().status_url == "https://fhir.example/jobs/1"
        job.close()


def test_f03_content_location_on_another_origin(wire: Any, complete: Check) -> None:
    bulk = wire.serve(3, auth="smart")
    with pytest.raises(PolicyViolation):
        wire.start(bulk)
    assert not bulk.requests("status")
    listed = bulk.origin.replace("127.0.0.1", "localhost")
    complete(wire.export(bulk, token_origins=(listed,)))


@pytest.mark.parametrize("name", ["accepted_with_200", "manifest_at_once"])
def test_f04_kickoff_answers_200(wire: Any, complete: Check, name: str) -> None:
    bulk = wire.serve(name)
    complete(wire.export(bulk))
    assert bool(bulk.requests("status")) == (name == "accepted_with_200")


def test_f05_parameter_refused(wire: Any, complete: Check) -> None:
    bulk = wire.serve(5)
    request = ExportRequest(group="all", type_filters=("Encounter?status=finished",))
    with pytest.raises(KickOffRejected) as caught:
        wire.start(bulk, request)
    assert caught.value.parameter == "_typeFilter"
    result = wire.export(bulk, request, adapt=True)
    complete(result)
    assert result.ignored_parameters == ("_typeFilter",)


def test_f06_get_not_offered(wire: Any, complete: Check) -> None:
    bulk = wire.serve(6)
    complete(wire.export(bulk))
    assert [entry.method for entry in bulk.requests("kickoff")] == ["GET", "POST"]


def test_f07_busy_with_the_same_export(wire: Any, complete: Check) -> None:
    listed = wire.serve(7)
    complete(wire.export(listed, preset=LISTED))
    assert len(listed.requests("kickoff")) == 1
    silent = wire.serve(7)
    complete(wire.export(silent))
    assert len(silent.requests("kickoff")) == 2 and wire.of(Throttled)


def test_f08_busy_with_locations(wire: Any, complete: Check) -> None:
    bulk = wire.serve(8)
    complete(wire.export(bulk, preset=NAMED))
    assert len(bulk.requests("kickoff")) == 2  # the lost one, and the one that named the job


def test_f09_answer_lost(wire: Any, complete: Check) -> None:
    listed = wire.serve(9)
    complete(wire.export(listed, preset=LISTED))
    assert len(listed.requests("kickoff")) == 1 and warned(wire, "taken over")
    silent = wire.serve(9)
    result = wire.export(silent)
    complete(result)
    assert len(silent.requests("kickoff")) == 2
    assert any("possible_orphan" in text for text in result.warnings)


def test_f10_no_attribution(wire: Any) -> None:
    with pytest.raises(AttributionUnavailable) as caught:
        wire.start(wire.serve(10))
    assert "runout" in str(caught.value.hint)


def test_f11_unauthorized_kickoff(wire: Any, complete: Check) -> None:
    expired = wire.serve("token_expired_at_kickoff", auth="smart")
    complete(wire.export(expired))
    assert len(expired.requests("token")) == 2
    refused = wire.serve("scope_refused", auth="smart")
    with pytest.raises(AuthError) as caught:
        wire.start(refused)
    assert "granted scope: system/" in str(caught.value.said)


def test_f12_no_active_members(wire: Any) -> None:
    with pytest.raises(KickOffRejected) as caught:
        wire.start(wire.serve(12))
    assert "re-attest" in str(caught.value.hint)


# Token ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "life"),
    [("expires_in_text", 1200), ("expires_in_missing", 300), ("expires_in_zero", 300), ("expires_in_huge", 86_400)],
)
def test_f13_expires_in(wire: Any, complete: Check, name: str, life: float) -> None:
    complete(wire.export(wire.serve(name, auth="smart")))
    assert wire.of(TokenRefreshed)[0].lifetime_s == life


def test_f14_flaky_invalid_client(wire: Any, complete: Check) -> None:
    flaky = wire.serve("flaky_client", "token_ends_midway", auth="smart")
    complete(wire.export(flaky))
    assert len(flaky.requests("token")) == 3
    unknown = wire.serve(auth="smart")
    auth = SmartBackendServices("nobody", unknown.private_key)
    with pytest.raises(AuthError):
        ExportJob.start(Server(unknown.url, auth, policy=wire.server(unknown).policy), ExportRequest(), wire.work / "x")
    assert len(unknown.requests("token")) == 1  # fatal on the first ever


def test_f15_token_endpoint_throttles(wire: Any, complete: Check) -> None:
    bulk = wire.serve(15, auth="basic")
    complete(wire.export(bulk))
    assert len(bulk.requests("token")) == 2  # one refused, one for all threads


def test_f16_clock_skew(wire: Any, complete: Check) -> None:
    bulk = wire.serve(16, auth="smart")
    complete(wire.export(bulk))
    assert len(bulk.requests("token")) == 2 and warned(wire, "clocks differ")


def test_f17_granted_scope_is_narrower(wire: Any) -> None:
    bulk = wire.serve(17, auth="smart")
    result = wire.export(bulk, ExportRequest(group="all", types=("Patient", "Encounter")))
    assert any("less than was asked" in text and "Encounter" in text for text in result.warnings)


def test_f18_token_revoked_for_files(wire: Any) -> None:
    bulk = wire.serve(18, auth="smart")
    with pytest.raises(AuthError) as caught:
        wire.export(bulk, workers_start=1)
    assert caught.value.resumable
    assert len(bulk.requests("file")) < 30


# Polling --------------------------------------------------------------------------------------

NOW = datetime(2026, 8, 1, 12, 0, 0, tzinfo=UTC)
SENT = {"date": "Sat, 01 Aug 2026 12:00:00 GMT"}


@pytest.mark.parametrize(
    "name",
    [
        "retry_after_seconds", "retry_after_date", "retry_after_past", "retry_after_garbage",
        "retry_after_doubled", "retry_after_decimal", "retry_after_five_hours",
    ],
)  # fmt: skip
def test_f19_retry_after(wire: Any, complete: Check, name: str) -> None:
    complete(wire.export(wire.serve(name, polls=2)))
    waits = [event for event in wire.events if isinstance(event, Polled | Throttled)]
    assert waits and all(event.wait_s < 0.05 for event in waits)
    if name == "retry_after_five_hours":
        assert all(event.clamped for event in wire.of(Throttled)) and wire.of(Throttled)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7), ("1.2", 2), ("0", 1), ("-5", 1), ("120, 120", 120), ("soon", None), ("", None),
        ("Sat, 01 Aug 2026 12:00:30 GMT", 30), ("Sat, 01 Aug 2020 12:00:30 GMT", 1),
    ],
)  # fmt: skip
def test_f19_retry_after_values(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text, **SENT}, NOW) == seconds


def test_f20_no_retry_after(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve(20, polls=3), poll_max_s=1, poll_cap_s=1, jitter=0))
    waits = [event.wait_s for event in wire.of(Polled)]
    assert waits == sorted(waits) and waits[-1] > waits[0]


def test_f21_polls_throttled(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve(21), poll_max_s=0.005, jitter=0))
    throttled, calm = wire.of(Throttled), wire.of(Polled)
    assert len(throttled) == 3 and throttled[-1].wait_s > throttled[0].wait_s
    assert all(event.wait_s >= throttled[-1].wait_s for event in calm)  # the interval stays stretched


def test_f22_failed_job_as_500(wire: Any) -> None:
    bulk = wire.serve(22)
    job = wire.start(bulk)
    with pytest.raises(JobFailed):
        job.wait()
    assert len(bulk.requests("status")) == 3  # one and two confirmations
    with pytest.raises(JobFailed):
        ExportJob.resume(job.folder)
    assert len(bulk.requests("status")) == 3


def test_f23_gateway_html(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve(23)))


def test_f24_transient_codes(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve("transient_codes")))
    bulk = wire.serve("transient_forever")
    with pytest.raises(JobFailed):
        wire.export(bulk, poll_error_budget=4)
    assert len(bulk.requests("status")) == 5


def test_f25_404_right_after_kickoff(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve(25)))
    with pytest.raises(JobVanished):
        wire.export(wire.serve(25), vanish_grace_s=0)


@pytest.mark.parametrize(("name", "kind"), [("job_vanishes", JobVanished), ("job_expires", JobExpired)])
def test_f26_job_gone(wire: Any, name: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        wire.export(wire.serve(name), vanish_grace_s=0)
    assert not caught.value.resumable and "anew" in caught.value.hint  # type: ignore[attr-defined]


def test_f27_200_without_manifest(wire: Any, complete: Check) -> None:
    for name in ("empty_status", "html_status"):
        bulk = wire.serve(name)
        with pytest.raises(ProtocolViolation):
            wire.export(bulk)
        assert len(bulk.requests("status")) == 3
    complete(wire.export(wire.serve("outcome_status")))


def test_f28_odd_progress(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve(28)))
    assert "150%" in {event.progress for event in wire.of(Polled)}
    job = wire.start(wire.serve(polls=1000))
    with pytest.raises(JobTimeout) as caught:
        job.wait(deadline_s=0.1)
    assert caught.value.resumable


def test_f29_separate_export_status(wire: Any, complete: Check) -> None:
    request = ExportRequest(group="all", separate_status=True)
    complete(wire.export(wire.serve("separate_status"), request))
    complete(wire.export(wire.serve("separate_status_forgotten"), request))
    with pytest.raises(JobFailed):
        wire.export(wire.serve("separate_status_failed"), request)


def test_f30_status_redirects_to_manifest(wire: Any, complete: Check) -> None:
    bulk = wire.serve(30, auth="smart")
    complete(wire.export(bulk, allowed_hosts=("localhost",)))
    redirected = [entry for entry in bulk.log if entry.path == "/open/redirected"]
    assert redirected and not any(entry.authorized for entry in redirected)


# Manifest -------------------------------------------------------------------------------------


def test_f31_null_arrays_and_no_token_flag(wire: Any, complete: Check) -> None:
    bulk = wire.serve(31, auth="smart")
    result = wire.export(bulk)
    complete(result)
    assert all(entry.authorized for entry in bulk.requests("file"))
    assert any("requiresAccessToken" in text for text in result.warnings)


@pytest.mark.parametrize(
    "name",
    ["no_transaction_time", "unreadable_transaction_time", "local_transaction_time", "future_transaction_time"],
)
def test_f32_transaction_time(wire: Any, complete: Check, name: str) -> None:
    result = wire.export(wire.serve(name))
    complete(result)
    assert result.watermark is None and "transactionTime" in str(result.held)


@pytest.mark.parametrize("name", ["expires_in_go", "expires_zero", "expires_absent"])
def test_f33_expires(wire: Any, complete: Check, name: str) -> None:
    complete(wire.export(wire.serve(name)))
    assert parse_expires("2026-08-14 00:07:48 +0000 UTC") == datetime(2026, 8, 14, 0, 7, 48, tzinfo=UTC)
    assert parse_expires("0") is None


def test_f34_duplicate_entries(wire: Any, complete: Check) -> None:
    bulk = wire.serve(34)
    result = wire.export(bulk)
    complete(result)
    assert len(bulk.requests("file")) == 4 and any("more than once" in text for text in result.warnings)


def test_f35_next_links(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve("next_loops", manifest_pages=2)))
    with pytest.raises(PolicyViolation):
        wire.export(wire.serve("next_foreign"))
    failing = wire.serve("next_fails", manifest_pages=2)
    complete(wire.export(failing))
    assert len(failing.requests("page")) == 3


def test_f36_renewed_links(wire: Any, complete: Check) -> None:
    bulk = wire.serve(36)
    complete(wire.export(bulk, workers_start=1))
    answered = [entry.path.split("?")[0] for entry in bulk.requests("file") if entry.status == 200]
    assert sorted(answered) == sorted(set(answered)), "a committed file was fetched again"


def test_f37_fifty_thousand_entries(wire: Any) -> None:
    bulk = wire.serve(37)
    job = wire.start(bulk, read_timeout_s=30)
    manifest = job.wait()
    assert len(manifest.output) == 50_000 and len(make_plan([manifest]).files) == 50_000
    wire.when(FileDone, 20, job.stop)
    with pytest.raises(JobInterrupted):
        job.download()
    assert 0 < job.status().files_done < 50_000


def test_f38_dangerous_urls(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve("relative_urls")))
    for name in ("file_url", "private_address", "plain_http"):
        with pytest.raises(PolicyViolation):
            wire.export(wire.serve(name))
    climbing = wire.export(wire.serve("climbing_names"))
    assert all(
        (climbing.folder / receipt.file).resolve().is_relative_to(climbing.folder) for receipt in climbing.receipts
    )
    assert climbing.resources == 40


def test_f39_presigned_links_refuse_the_token(wire: Any, complete: Check) -> None:
    bulk = wire.serve(39, auth="smart")
    complete(wire.export(bulk))
    assert warned(wire, "without it")


def test_f40_organized_output(wire: Any) -> None:
    result = wire.export(wire.serve(40))
    assert result.count_by_type() == {"Patient": 2, "Encounter": 2}
    assert sorted(value["id"] for value in result.read("Encounter")) == ["10", "11"]
    assert not result.warnings


# Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["body_short", "chunk_cut", "connection_reset", "body_stalls"])
def test_f41_body_cut(wire: Any, complete: Check, name: str) -> None:
    bulk = wire.serve(name)
    complete(wire.export(bulk, read_timeout_s=0.3 if name == "body_stalls" else 5))
    assert len(bulk.requests("file")) == 5 and len(wire.of(FileRetried)) == 1


def test_f42_gzip(wire: Any, complete: Check) -> None:
    for name in ("gzip_truncated", "gzip_bad_crc"):
        bulk = wire.serve(name)
        complete(wire.export(bulk))
        assert len(bulk.requests("file")) == 5
    complete(wire.export(wire.serve("gzip_members")))
    with pytest.raises(IntegrityError):
        wire.export(wire.serve("gzip_garbage_after"))


@pytest.mark.parametrize("name", ["plain_called_gzip", "gzip_unlabelled", "gzip_twice", "gzip_by_old_name"])
def test_f43_content_encoding_lies(wire: Any, complete: Check, name: str) -> None:
    result = wire.export(wire.serve(name))
    complete(result)
    assert bool(result.warnings) == (name != "gzip_by_old_name")


def test_f44_content_length_of_decoded_size(wire: Any, complete: Check) -> None:
    result = wire.export(wire.serve(44))
    complete(result)
    assert all("transport" not in receipt.verified for receipt in result.receipts)
    assert any("Content-Length" in text for text in result.warnings)


def test_f45_something_else_instead(wire: Any, complete: Check) -> None:
    with pytest.raises(IntegrityError) as caught:
        wire.export(wire.serve("html_instead"))
    assert "not NDJSON" in str(caught.value.said)
    complete(wire.export(wire.serve("outcome_instead")))


def test_f46_empty_body(wire: Any) -> None:
    with pytest.raises(IntegrityError):
        wire.export(wire.serve("empty_with_count"))
    result = wire.export(wire.serve("no_content"))
    assert result.resources == 30 and not result.failed


@pytest.mark.parametrize(
    "name", ["no_last_newline", "crlf_lines", "blank_lines", "byte_order_mark", "nul_padding", "line_separator"]
)
def test_f47_odd_lines_are_set_right(wire: Any, complete: Check, name: str) -> None:
    result = wire.export(wire.serve(name))
    complete(result)
    data = (result.folder / result.receipts[0].file).read_bytes()
    assert data.count(b"\n") == 10 and data.endswith(b"}\n") and b"\r" not in data and b"\0" not in data
    assert all(json.loads(line) for line in data.split(b"\n") if line)


@pytest.mark.parametrize("name", ["invalid_utf8", "lone_surrogate", "invalid_line"])
def test_f47_bad_lines_are_quarantined(wire: Any, name: str) -> None:
    with pytest.raises(IntegrityError):
        wire.export(wire.serve(name))
    result = wire.export(wire.serve(name), max_rejected=1)
    assert result.resources == 39 and sum(receipt.rejected_lines for receipt in result.receipts) == 1
    row = json.loads((result.folder / "rejected.ndjson").read_text(encoding="utf-8"))
    assert (row["line"], row["offset"]) == (1, 0)


def test_f48_half_a_line_at_the_end(wire: Any) -> None:
    bulk = wire.serve(48)
    with pytest.raises(IntegrityError):
        wire.export(bulk)
    assert len(bulk.requests("file")) == 6  # three tries at the broken one


def test_f49_one_long_line(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve(49)))
    with pytest.raises(IntegrityError) as caught:
        wire.export(wire.serve(49), max_line_bytes=1 << 20)
    assert "longer than the limit" in str(caught.value.said)


def test_f50_wrong_type(wire: Any) -> None:
    result = wire.export(wire.serve(50))
    assert result.count_by_type()["Device"] == 1 and any("Device" in text for text in result.warnings)
    with pytest.raises(IntegrityError):
        wire.export(wire.serve(50), strict=True)


def test_f51_count(wire: Any, complete: Check) -> None:
    bulk = wire.serve("one_missing")
    with pytest.raises(IntegrityError) as caught:
        wire.export(bulk)
    assert "9 of 10 resources" in str(caught.value.said) and len(bulk.requests("file")) == 6
    result = wire.export(wire.serve("count_too_low"))
    complete(result)
    assert any("9 were announced" in text for text in result.warnings)


def test_f52_checksum(wire: Any, complete: Check) -> None:
    right = wire.export(wire.serve("checksum_right"), preset=AB2D_LIKE)
    complete(right)
    assert all("sha256" in receipt.verified for receipt in right.receipts)
    with pytest.raises(IntegrityError):
        wire.export(wire.serve("checksum_wrong"), preset=AB2D_LIKE)
    for name in ("checksum_empty", "checksum_unknown"):
        result = wire.export(wire.serve(name), preset=AB2D_LIKE)
        complete(result)
        assert all("sha256" not in receipt.verified for receipt in result.receipts)
        assert any("checksum" in text for text in result.warnings)


def test_f53_length_differs_checksum_agrees(wire: Any, complete: Check) -> None:
    result = wire.export(wire.serve(53), preset=AB2D_LIKE)
    complete(result)
    assert any("length says" in text for text in result.warnings)


def test_f54_404(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve("fresh_404"), fresh_404_window_s=0.05))
    result = wire.export(
        wire.serve("error_file_absent"), preset=replace(LISTED, error_entries_may_404=True), fresh_404_window_s=0.02
    )
    complete(result)
    assert any("could not be fetched" in text for text in result.warnings)


def test_f55_expired_links(wire: Any, complete: Check) -> None:
    bulk = wire.serve("links_expire")
    complete(wire.export(bulk))
    assert len(bulk.requests("kickoff")) == 1
    with pytest.raises(PartialExport) as caught:
        wire.export(wire.serve("links_stay_expired"))
    assert "expired" in str(caught.value.said) and len(caught.value.result.receipts) == 3


def test_f56_download_quota(wire: Any) -> None:
    bulk = wire.serve(56)
    with pytest.raises(FileExhausted):
        wire.export(bulk)
    assert len(bulk.requests("file")) == 4
    counted = wire.serve("one_missing")
    job = wire.start(counted, preset=replace(LISTED, download_quota=2))
    with pytest.raises(FileExhausted):
        job.download()
    assert len(counted.requests("file")) == 5  # the broken one twice, as often as the server allows


def test_f57_token_ends_midway(wire: Any, complete: Check) -> None:
    bulk = wire.serve(57, auth="smart")
    complete(wire.export(bulk))
    assert len(bulk.requests("token")) == 2


def test_f58_one_file_forbidden(wire: Any) -> None:
    with pytest.raises(PartialExport) as caught:
        wire.export(wire.serve(58))
    result = caught.value.result
    assert len(result.receipts) == 3 and list(result.failed.values()) == ["HTTP 403"]
    assert result.watermark is None and result.held


def test_f59_partial_content_unasked(wire: Any, complete: Check) -> None:
    bulk = wire.serve(59)
    complete(wire.export(bulk))
    assert not any("range" in entry.headers for entry in bulk.requests("file"))


def test_f60_redirect_to_storage(wire: Any, complete: Check) -> None:
    bulk = wire.serve(60, auth="smart")
    complete(wire.export(bulk, allowed_hosts=("localhost",)))
    assert not any(entry.authorized for entry in bulk.log if entry.path.startswith("/open/"))
    with pytest.raises(PolicyViolation):
        wire.export(wire.serve(60, auth="smart"))


def test_f61_other_content_on_second_try(wire: Any, complete: Check) -> None:
    result = wire.export(wire.serve(61))
    complete(result)
    genders = {value.get("gender") for value in result.read("Patient") if int(value["id"]) > -11}
    assert len(genders) == 1, "two versions were mixed"


def test_f62_files_throttled(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve(62), file_attempts=1))  # a 429 costs no attempt
    assert wire.of(Throttled)


def test_f63_trickle(wire: Any, complete: Check) -> None:
    bulk = wire.serve(63)
    complete(wire.export(bulk, stall_window_s=0.1, stall_floor_bytes_s=500))
    assert any("stall" in event.reason for event in wire.of(FileRetried))


def test_f64_gzip_bomb(wire: Any) -> None:
    with pytest.raises(IntegrityError):
        wire.export(wire.serve(64), max_ratio=100)
    with pytest.raises(IntegrityError):
        wire.export(wire.serve(64), max_file_bytes=1 << 20)


# Local ----------------------------------------------------------------------------------------


def test_f65_full_disk(wire: Any, complete: Check) -> None:
    job = wire.start(wire.serve())
    job.wait()
    (job.folder / "output").mkdir()
    # Writes to /dev/full fail with ENOSPC in the kernel, as on a full disk.
    (job.folder / "output" / "Patient.00001.ndjson.part").symlink_to("/dev/full")
    with pytest.raises(StorageError) as caught:
        job.download(workers=1)
    assert caught.value.resumable and not list(job.folder.rglob("*.part"))
    complete(ExportJob.resume(job.folder, policy=job.server.policy).download())


def test_f66_torn_journal(wire: Any, complete: Check) -> None:
    bulk = wire.serve()
    job = wire.start(bulk)
    complete(job.download())
    journal = (job.folder / "journal.ndjson").read_bytes()
    lines = journal.splitlines(keepends=True)
    place = next(number for number, line in enumerate(lines) if b'"verified"' in line)
    (job.folder / "journal.ndjson").write_bytes(b"".join(lines[:place]) + lines[place][:40])
    before = len(bulk.requests("file"))
    complete(ExportJob.resume(job.folder, policy=job.server.policy).download())
    assert len(bulk.requests("kickoff")) == 1 and len(bulk.requests("file")) - before <= 4


@pytest.mark.usefixtures("interruptible")
def test_f67_interrupt(wire: Any, complete: Check) -> None:
    def stalls_long_enough(exchange: Any, reply: Any) -> Any:
        first = exchange.kind == "file" and exchange.count == 1
        return reply.change(encoded=True, drip=(len(reply.body) // 2, 3.0)) if first else reply

    bulk = wire.serve(stalls_long_enough)
    job = wire.start(bulk, read_timeout_s=10)
    job.wait()
    threading.Timer(0.15, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        job.download(workers=1)
    assert job.status().interrupted and not bulk.requests("delete")
    complete(ExportJob.resume(job.folder, policy=job.server.policy).download())


def test_f68_two_processes_one_folder(wire: Any) -> None:
    job = wire.start(wire.serve(polls=1000))

    def wait() -> None:
        with pytest.raises(JobInterrupted):
            job.wait()

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.05)
    with pytest.raises(JobLocked):
        ExportJob.resume(job.folder, policy=job.server.policy)
    job.stop()
    waiting.join()


def test_f69_request_changed(wire: Any) -> None:
    bulk = wire.serve()
    job = wire.start(bulk)
    with pytest.raises(JobMismatch) as caught:
        ExportJob.start(wire.server(bulk), ExportRequest(group="all", types=("Patient",)), job.folder)
    assert "types" in str(caught.value.said)
    assert len(bulk.requests("kickoff")) == 1


def test_f70_network(wire: Any, complete: Check, certificate: tuple[str, str]) -> None:
    policy = wire.server(wire.serve()).policy
    with pytest.raises(ServerUnavailable) as unknown:
        ExportJob.start(Server("https://nowhere.invalid/fhir", policy=policy), ExportRequest(), wire.work / "dns")
    assert unknown.value.resumable
    bulk = wire.serve(tls=certificate)
    with pytest.raises(NoAnswer) as untrusted:
        ExportJob.start(Server(bulk.url, policy=policy), ExportRequest(group="all"), wire.work / "tls")
    assert "certificate" in untrusted.value.what and not untrusted.value.resumable
    from hiexchange._http import Tls

    trusted = Server(bulk.url, policy=policy, tls=Tls(ca_file=certificate[0]))
    with ExportJob.start(trusted, ExportRequest(group="all"), wire.work / "ca") as job:
        complete(job.download())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        session = Session(url, policy=replace(policy, read_timeout_s=0.05))
        with pytest.raises(NoAnswer):
            session.send("GET", url, token=False)
        session.close()


# Semantics ------------------------------------------------------------------------------------


def test_f71_parameters_ignored(wire: Any) -> None:
    request = ExportRequest(group="all", types=("Patient",), since="2026-06-01T00:00:00Z")
    result = wire.export(wire.serve(71), request)
    assert set(result.ignored_parameters) == {"_type", "_since"}
    assert result.watermark is None and "_since" in str(result.held)


def test_f72_empty_or_collapsed(wire: Any) -> None:
    assert wire.export(wire.serve(72)).held == "the export is empty"
    collapsed = wire.export(wire.serve(), expected_resources=1000, collapse_floor=0.5)
    assert "collapsed" in str(collapsed.held) and collapsed.watermark is None


def test_f73_same_resource_twice(wire: Any, tmp_path: Path) -> None:
    result = wire.export(wire.serve(73))
    assert result.resources == 50  # raw files are left as they are
    lake = Lake(tmp_path / "lake")
    lake.ingest(result)
    assert lake.tables()["Patient"] == 20 or lake.tables()["Encounter"] == 20
    assert sum(lake.tables()[name] for name in ("Patient", "Encounter")) == 40


def test_f74_deletions(wire: Any) -> None:
    result = wire.export(wire.serve(74))
    found = list(result.deletions())
    assert [item for item in found if isinstance(item, Deletion)] == [
        Deletion("Patient", "1"), Deletion("Patient", "2"), Deletion("Encounter", "4")
    ]  # fmt: skip
    assert len([item for item in found if isinstance(item, Odd)]) == 2


def test_f75_subsetted_is_another_export(wire: Any) -> None:
    full = wire.export(wire.serve())
    short = wire.export(wire.serve(75), ExportRequest(group="all", elements=("id",)))
    assert full.watermark and short.watermark
    assert full.watermark[0].split("|")[-1] != short.watermark[0].split("|")[-1]
    assert all(value["meta"]["tag"][0]["code"] == "SUBSETTED" for value in short.read("Patient"))


def test_f76_error_outcomes(wire: Any) -> None:
    with pytest.raises(PartialExport) as caught:
        wire.export(wire.serve(76))
    result = caught.value.result
    assert result.outcomes == {"error/exception": 1} and result.partial and result.held
    assert wire.export(wire.serve(76), accept_partial=True).watermark


def test_f77_attachments(wire: Any, tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    urls = ["Binary/good", "Binary/wrapped", "Binary/mistyped", "Binary/absent", "Binary/huge", "https://10.0.0.1/x"]
    attachments = [{"attachment": {"url": url, "contentType": "text/plain"}} for url in urls]
    document = {"resourceType": "DocumentReference", "id": "-1", "content": attachments}
    (folder / "DocumentReference.ndjson").write_text(json.dumps(document) + "\n", encoding="utf-8")
    bulk = wire.serve(77, data=folder)
    job = wire.start(bulk, max_attachment_bytes=1000)
    job.download()
    receipts = job.fetch_attachments()
    contents = [item.file and (job.folder / item.file).read_text(encoding="utf-8") for item in receipts]
    assert contents == ["a document", "wrapped", "%PDF", None, None, None]
    assert "application/pdf" in receipts[2].notes[0]
    assert [item.problem for item in receipts[3:]] == [
        "HTTP 404", "larger than the limit", "the server points to a host that is not agreed"
    ]  # fmt: skip


@pytest.mark.parametrize(("status", "fine"), [(200, True), (204, True), (404, True), (405, False), (500, False)])
def test_f78_delete(wire: Any, status: int, fine: bool) -> None:
    bulk = wire.serve(f"delete_{status}")
    job = wire.start(bulk)
    job.download()
    job.mark_ingested()
    job.finish()
    assert job.status().phase == "finished"
    assert warned(wire, "could not be deleted") != fine


# Servers' habits ------------------------------------------------------------------------------


def test_f79_retry_after_as_epoch(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve(79, polls=2)))
    assert retry_after({"retry-after": str(int(NOW.timestamp()) + 30), **SENT}, NOW) == 30
    assert retry_after({"retry-after": str(int(NOW.timestamp() * 1000) + 30_000), **SENT}, NOW) == 30


def test_f80_route_blocked_for_a_while(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve(80), file_attempts=1, body_attempts=1))


def test_f81_unauthorized_whatever_the_token(wire: Any) -> None:
    bulk = wire.serve(81, auth="smart")
    with pytest.raises(AuthError):
        wire.export(bulk)
    assert len(bulk.requests("token")) == 2 and len(bulk.requests("status")) == 2


def test_f82_error_count_is_wrong(wire: Any, complete: Check) -> None:
    result = wire.export(wire.serve(82))
    complete(result)
    assert result.outcomes == {"warning/exception": 1}


def test_f83_poll_ends_413(wire: Any) -> None:
    with pytest.raises(JobFailed) as caught:
        wire.export(wire.serve(83))
    assert "413" in str(caught.value.said)


def test_f84_kickoff_500(wire: Any, complete: Check) -> None:
    bulk = wire.serve("kickoff_500")
    complete(wire.export(bulk))
    assert len(bulk.requests("kickoff")) == 3
    with pytest.raises(ServerUnavailable):
        wire.export(wire.serve("kickoff_500_forever"))


def test_f85_status_under_another_base(wire: Any, complete: Check) -> None:
    bulk = wire.serve(85)
    complete(wire.export(bulk))
    assert all(entry.path.startswith("/elsewhere/") for entry in bulk.requests("status"))


def test_f86_continues_in_a_bare_name(wire: Any) -> None:
    result = wire.export(wire.serve(86))
    assert not [text for text in result.warnings if "goes on" in text]
    page = {"output": [{"url": "https://x.example/1.ndjson", "continuesInFile": "9.ndjson"}], "transactionTime": "x"}
    warnings = make_plan([parse_manifest(page, url="https://x.example/")]).warnings
    assert list(warnings) == ["a block goes on in a file that is not listed: 9.ndjson"]


def test_f87_invalid_scope(wire: Any) -> None:
    with pytest.raises(AuthError) as caught:
        wire.start(wire.serve(87, auth="smart"), ExportRequest(group="all", types=("Patient",)))
    assert "system/Patient.rs" in str(caught.value.said)


def test_f88_early_manifest_bodies(wire: Any, complete: Check) -> None:
    complete(wire.export(wire.serve(88, polls=3)))
    complete(wire.export(wire.serve(88, polls=3), ExportRequest(group="all", allow_partial=True)))


def test_f89_fails_after_pages(wire: Any) -> None:
    job = wire.start(wire.serve(89), ExportRequest(group="all", allow_partial=True))
    with pytest.raises(JobFailed):
        job.wait()
    assert job.status().phase == "failed" and job.status().files_total == 4


def test_f90_repeated_line(wire: Any, tmp_path: Path) -> None:
    result = wire.export(wire.serve(90))
    assert result.resources == 41 and any("11 resources arrived" in text for text in result.warnings)
    lake = Lake(tmp_path / "lake")
    lake.ingest(result)
    assert sum(lake.tables()[name] for name in ("Patient", "Encounter")) == 40


def test_f91_coding_not_offered(wire: Any, complete: Check) -> None:
    bulk = wire.serve("brotli_unasked")
    complete(wire.export(bulk))
    assert {entry.headers["accept-encoding"] for entry in bulk.requests("file")} == {"gzip", "identity"}
    complete(wire.export(wire.serve("deflate_unasked")))


def test_f92_status_by_post(wire: Any, complete: Check) -> None:
    with pytest.raises(ProtocolViolation):
        wire.export(wire.serve(92))
    complete(wire.export(wire.serve(92), preset=replace(LISTED, poll_method="POST")))


def test_f93_token_endpoint_fails(wire: Any, complete: Check) -> None:
    bulk = wire.serve("token_503", auth="smart")
    complete(wire.export(bulk))
    assert len(bulk.requests("token")) == 3
    with pytest.raises(ProtocolViolation):
        wire.start(wire.serve("token_html", auth="smart"))


def test_f94_storage_wants_a_token(wire: Any) -> None:
    bulk = wire.serve(94, auth="smart")
    with pytest.raises(AuthError):
        wire.export(bulk, allowed_hosts=("localhost",))
    assert not any(entry.authorized for entry in bulk.log if entry.path.startswith("/open/"))


def test_f95_one_file_gone(wire: Any) -> None:
    bulk = wire.serve(95)
    with pytest.raises(PartialExport) as caught:
        wire.export(bulk)
    assert len(caught.value.result.receipts) == 3
    assert len(bulk.requests("status")) == 3  # the manifest was asked for once more


def test_f96_close_delimited_cut(wire: Any, complete: Check) -> None:
    result = wire.export(wire.serve(96, gzip=False))
    complete(result)
    assert all("transport" not in receipt.verified for receipt in result.receipts)


def test_every_number_has_a_test() -> None:
    names = {name[6:8] for name in globals() if name.startswith("test_f") and name[6:8].isdigit()}
    assert names == {f"{number:02}" for number in range(1, 97)}


def test_default_policy_is_patient() -> None:
    assert (Policy().read_timeout_s, Policy().file_attempts, Policy().poll_cap_s) == (120, 8, 3600)
