"""Servers that mean no good, and folders that say more than they hold, over real sockets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hiexchange.auth import StaticToken
from hiexchange.bulk import ExportJob, ExportRequest, read_status
from hiexchange.errors import ConfigError, IntegrityError, JournalCorrupt, PolicyViolation, ProtocolViolation
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
