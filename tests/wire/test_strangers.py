"""Servers that mean no good, and folders that say more than they hold, over real sockets."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx

from hiexchange import ndjson
from hiexchange._files import storage_errors
from hiexchange._http import Policy
from hiexchange.auth import SmartBackendServices, StaticToken
from hiexchange.bulk import ExportJob, ExportRequest, read_status, transfer
from hiexchange.bulk.manifest import parse_manifest
from hiexchange.bulk.plan import make_plan
from hiexchange.bulk.polling import poll_rules
from hiexchange.errors import (
    AuthError,
    ConfigError,
    IntegrityError,
    JobFailed,
    JobTimeout,
    JournalCorrupt,
    KickOffRejected,
    PartialExport,
    PolicyViolation,
    ProtocolViolation,
    StorageError,
)
from hiexchange.events import FileProgress, FileRetried, Polled, Warned
from hiexchange.servers import Server, preset
from hiexchange.testing.bulk_faults import edit_manifest

MINE = replace(preset("generic-stu2"), name="my-own")


def every(kind: str, change: Any, times: int = 1000) -> Any:
    """Make a hook that changes the first answers of a kind."""

    def hook(exchange: Any, reply: Any) -> Any:
        return change(reply) if exchange.kind == kind and exchange.count <= times else reply

    return hook


def test_a_resource_type_that_climbs_out_of_the_folder(wire: Any, tmp_path: Path) -> None:
    def organized(exchange: Any, manifest: Any) -> None:
        manifest["output"] = [{"url": manifest["output"][0]["url"]}]

    line = json.dumps({"resourceType": f"..{tmp_path}/evil", "id": "1"}).encode() + b"\n"
    bulk = wire.serve(edit_manifest(organized), every("file", lambda reply: reply.change(body=line)))
    with pytest.raises(IntegrityError, match=r"line 1 .*not a FHIR resource"):
        wire.export(bulk)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("location", ["http://[x", "http://127.0.0.1:abc/x"])
def test_a_content_location_that_cannot_be_read_is_none(wire: Any, location: str) -> None:
    bulk = wire.serve(every("kickoff", lambda reply: reply.with_header("Content-Location", location)))
    with pytest.raises(ProtocolViolation):
        wire.start(bulk)


def test_a_job_whose_status_lies_elsewhere_is_gone_on_with_once_that_is_agreed(wire: Any, tmp_path: Path) -> None:
    bulk = wire.serve(3, auth="smart")
    with pytest.raises(PolicyViolation, match="token_origins"):
        wire.start(bulk)
    assert read_status(wire.work / "job1").phase == "polling"


def test_redirects_and_files_that_cannot_be_read(wire: Any) -> None:
    def redirect(reply: Any) -> Any:
        return reply.change(status=302, body=b"").with_header("Location", "http://[x")

    with pytest.raises(PolicyViolation):
        wire.start(wire.serve(every("kickoff", redirect)))
    with pytest.raises(PolicyViolation):
        wire.export(wire.serve(edit_manifest(lambda _, manifest: manifest["output"][0].update(url="https://["))))
    with pytest.raises(PolicyViolation):
        wire.export(
            wire.serve(edit_manifest(lambda x, manifest: manifest["output"][0].update(url=x.base + "/" + "x" * 70_000)))
        )


def test_a_token_with_a_line_end_is_used_without_it_and_never_shown(wire: Any, tmp_path: Path) -> None:
    bulk = wire.serve(auth="smart")
    bulk.tokens.add("tok-secret")
    policy = wire.server(bulk).policy
    server = Server(bulk.url, StaticToken("tok-secret\n"), policy=policy)
    with ExportJob.start(server, ExportRequest(group="all"), tmp_path / "job") as job:
        assert job.download().resources
    with pytest.raises(ConfigError) as caught:
        ExportJob.start(
            Server(bulk.url, StaticToken("tok-secret\nX: y"), policy=policy), ExportRequest(), tmp_path / "2"
        )
    assert "tok-secret" not in str(caught.value)


# Requests that are not all that was asked -----------------------------------------------------


def test_an_export_of_some_patients_never_becomes_one_of_all(wire: Any) -> None:
    bulk = wire.serve(every("kickoff", lambda reply: reply.change(drop=True), times=2))
    request = ExportRequest(group="all", patients=("-1", "-2"), types=("Patient",))
    with pytest.raises(Exception, match="resumes"):
        wire.start(bulk, request)
    with pytest.raises(ConfigError, match="give the request again"):
        ExportJob.resume(wire.work / "job1", policy=wire.server(bulk).policy)
    with ExportJob.resume(wire.work / "job1", policy=wire.server(bulk).policy, request=request) as job:
        result = job.download()
    assert result.count_by_type() == {"Patient": 2}
    assert result.watermark is None and result.held == "only some patients were asked for"
    with ExportJob.resume(wire.work / "job1", policy=wire.server(bulk).policy) as job:
        assert job.download().watermark is None


def test_an_adopted_job_of_unknown_request_moves_no_watermark(wire: Any, tmp_path: Path) -> None:
    bulk = wire.serve()
    first = wire.start(bulk)
    url = str(first.journal.state.status_url)
    with ExportJob.adopt(wire.server(bulk), url, tmp_path / "found") as job:
        assert job.download().held == "what the adopted job was asked for is not known"
    with ExportJob.adopt(wire.server(bulk), url, tmp_path / "known", request=ExportRequest(group="all")) as job:
        assert job.download().watermark is not None


def test_a_full_export_without_a_patient_holds_the_watermark(wire: Any) -> None:
    def without(exchange: Any, manifest: Any) -> None:
        manifest["output"] = [item for item in manifest["output"] if item["type"] != "Patient"]

    request = ExportRequest(group="all", types=("Patient", "Encounter"))
    assert "no Patient" in str(wire.export(wire.serve(edit_manifest(without)), request).held)


def test_a_folder_is_read_whatever_the_preset_and_says_which_page_is_gone(wire: Any) -> None:
    result = wire.export(wire.serve(), preset=MINE)
    assert read_status(result.folder).files_done == 4
    (result.folder / "manifest-001.json").unlink()
    with pytest.raises(JournalCorrupt, match=r"manifest-001\.json"):
        read_status(result.folder)


# What a user is told ----------------------------------------------------------------------------


def refusal(status: int, code: str, text: str) -> Any:
    body = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code, "diagnostics": text}]}
    return lambda reply: reply.change(status=status, body=json.dumps(body).encode())


def test_what_a_server_says_is_kept_but_not_shown(wire: Any) -> None:
    words = "_typeFilter: no search parameter 'foo', asked for Jane Doe"
    bulk = wire.serve(every("kickoff", refusal(400, "invalid", words)))
    with pytest.raises(KickOffRejected, match="refused _typeFilter") as caught:
        wire.start(bulk, ExportRequest(group="all", type_filters=("Encounter?foo=1",)))
    kept = wire.work / "job1" / "server-answer.txt"
    assert "Jane Doe" in kept.read_text(encoding="utf-8") and kept.stat().st_mode & 0o777 == 0o600
    assert kept.name in str(caught.value.hint) and "Jane" not in str(caught.value)
    with pytest.raises(JobFailed, match=r"server-answer\.txt"):
        wire.export(wire.serve(every("status", refusal(500, "exception", "Service encountered numerous errors"))))
    assert "numerous" in (wire.work / "job2" / "server-answer.txt").read_text(encoding="utf-8")


def test_the_log_has_every_parameter_and_every_failure(wire: Any) -> None:
    bulk = wire.serve(first_always(403))
    with pytest.raises(PartialExport) as caught:
        wire.export(bulk, ExportRequest(group="all", types=("Patient", "Encounter")))
    rows = ndjson.load(caught.value.result.folder / "log.ndjson")
    details = {row["eventId"]: row["eventDetail"] for row in rows}
    assert {row["exportId"] for row in rows} == {f"{bulk.origin}/jobs/{next(iter(bulk.jobs))}"}
    assert details["kickoff"]["requestParameters"] == {"_type": "Patient,Encounter"}
    assert details["download_error"]["code"] == 403 and details["download_error"]["responseHeaders"]["date"]


def test_the_log_holds_no_credential_a_server_sends_back(wire: Any) -> None:
    def chatty(reply: Any) -> Any:
        reply = reply.with_header("X-Auth-Token", "secret-1").with_header("Set-Cookie", "secret-2")
        return reply.with_header("Link", "<https://s3.example/x?sig=secret-3>; rel=next").with_header(
            "X-Request-Id", "9"
        )

    result = wire.export(wire.serve(every("kickoff", chatty)))
    text = (result.folder / "log.ndjson").read_text(encoding="utf-8")
    assert "secret" not in text and "https://s3.example/x?…" in text and "x-request-id" in text


def test_a_finished_export_says_that_it_is_not_made_again(wire: Any) -> None:
    bulk = wire.serve()
    result = wire.export(bulk)
    with ExportJob.resume(result.folder, policy=wire.server(bulk).policy) as job:
        job.mark_ingested()
        job.finish()
    for file in result.folder.glob("output/*"):
        file.unlink()  # the data are in the lake now
    with ExportJob.start(wire.server(bulk), ExportRequest(group="all"), result.folder, on_event=wire.note) as job:
        assert job.download().resources == 40
    assert [event.message for event in wire.of(Warned)] == [
        "this export was finished before and is not made again: use another folder"
    ]


def test_advice_fits_the_credential_and_epic_gets_the_client_id(wire: Any) -> None:
    bulk = wire.serve(
        every("token", lambda reply: reply.change(status=401, body=b'{"errorCode":"invalid_client"}'), 1), auth="basic"
    )
    with pytest.raises(AuthError, match=r"invalid_client.*its secret") as caught:
        wire.start(bulk)
    assert "key" not in str(caught.value.hint)
    epic = wire.serve(60, auth="smart")  # files lie on another origin
    wire.export(epic, preset="epic", allowed_hosts=("localhost",))
    for seen in epic.log:
        assert ("epic-client-id" in seen.headers) == seen.authorized


# Patience -----------------------------------------------------------------------------------------


def first_always(status: int) -> Any:
    def hook(exchange: Any, reply: Any) -> Any:
        is_first = exchange.kind == "file" and exchange.path.endswith("/0.ndjson")
        return reply.change(status=status, body=b"") if is_first else reply

    return hook


def test_a_file_that_is_always_later_is_given_up_and_keeps_nobody_waiting(wire: Any) -> None:
    with pytest.raises(PartialExport) as caught:
        wire.export(wire.serve(first_always(503)), poll_error_budget=4, file_attempts=2)
    assert len(caught.value.result.receipts) == 3 and "HTTP 503" in str(caught.value)


def test_a_gateway_that_lost_the_answer_starts_no_second_job(wire: Any, complete: Any) -> None:
    bulk = wire.serve(every("kickoff", lambda reply: reply.change(status=504), times=1))
    complete(wire.export(bulk, preset=replace(preset("generic-stu2"), adopt="jobs_list")))
    assert len(bulk.requests("kickoff")) == 1 and len(bulk.jobs) == 1


def test_the_callers_deadline_goes_before_the_presets(wire: Any) -> None:
    bulk = wire.serve(polls=1000)
    job = wire.start(bulk, preset="epic", deadline_s=0.05)
    with pytest.raises(JobTimeout) as caught:
        job.wait()
    assert caught.value.resumable and not bulk.requests("delete")
    with pytest.raises(JobTimeout) as caught:
        wire.start(bulk, deadline_s=0.05, cancel_on_deadline=True).wait()
    assert not caught.value.resumable and len(bulk.requests("delete")) == 1


def test_files_refused_as_a_preset_says_a_bad_token_is(wire: Any) -> None:
    ab2d = replace(preset("generic-stu2"), refused_codes=(401, 403))
    with pytest.raises(AuthError) as caught:
        wire.export(wire.serve(every("file", lambda reply: reply.change(status=403)), auth="smart"), preset=ab2d)
    assert caught.value.resumable


def test_a_status_answer_that_trickles_is_asked_for_again(wire: Any, complete: Any) -> None:
    bulk = wire.serve(every("status", lambda reply: reply.change(drip=(1, 0.04)), times=2))
    complete(wire.export(bulk, stall_window_s=0.2))
    assert [event.progress for event in wire.of(Polled)][-1] == "the answer is too slow"


def test_polls_are_never_faster_than_the_floor() -> None:
    rules = poll_rules(Policy(poll_min_s=120), preset("bcda"), separate_status=False, allow_partial=False)
    assert rules.min_s == rules.max_s == 120
    usual = poll_rules(Policy(), preset("bcda"), separate_status=False, allow_partial=False)
    assert (usual.min_s, usual.max_s) == (10, 60)


def test_a_token_endpoint_in_a_private_network_is_not_visited(wire: Any) -> None:
    key = wire.serve(auth="smart").private_key
    with respx.mock:
        found = httpx.Response(200, json={"token_endpoint": "https://10.0.0.1/token"})
        respx.get("https://fhir.example/r4/.well-known/smart-configuration").mock(return_value=found)
        session = Server("https://fhir.example/r4", SmartBackendServices("me", key)).connect()
        with pytest.raises(PolicyViolation, match="private network"):
            session.auth.token()


def test_a_disk_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="disk reports an error"), storage_errors(tmp_path):
        raise OSError(errno.EIO, "Input/output error")


def test_links_that_are_capabilities_are_in_no_text(wire: Any) -> None:
    page = {"output": [{"type": "Patient", "url": "https://s3.example/1.ndjson?X-Amz-Signature=secret"}]}
    page["link"] = [{"relation": "next", "url": "https://s3.example/2?sig=secret"}]  # type: ignore[assignment]
    manifest = parse_manifest(page, url="https://a.example/s")
    assert "secret" not in repr(manifest) and "1.ndjson" in repr(manifest)
    assert "secret" not in repr(make_plan([manifest]))


def test_files_that_will_not_fit_are_not_begun(wire: Any) -> None:
    def vast(exchange: Any, manifest: Any) -> None:
        manifest["output"][0]["fileSize"] = 10**17

    bulk = wire.serve(edit_manifest(vast))
    with pytest.raises(StorageError, match="bytes are announced"):
        wire.export(bulk)
    assert not bulk.requests("file")


def test_faults_can_be_combined_also_over_pages(wire: Any) -> None:
    bulk = wire.serve("repeated_resources", "range_refused", manifest_pages=2)
    assert wire.export(bulk, preset=replace(preset("generic-stu2"), integrity=preset("ab2d").integrity)).resources == 50
    assert {event.reason for event in wire.of(FileRetried)} == {"the connection broke"}  # what it is there for


def test_a_long_download_is_told_of(wire: Any, complete: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TELL_S", 0.05)
    complete(wire.export(wire.serve(every("file", lambda reply: reply.change(drip=(20, 0.03)), times=1), gzip=True)))
    told = [event.size_bytes for event in wire.of(FileProgress)]
    assert told and told == sorted(told)
