"""Jobs: resume, adopt, cancel, partial manifests, watermarks, groups; over real sockets."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hiexchange.bulk import (
    ExportJob,
    ExportRequest,
    SqliteWatermarks,
    assemble,
    open_export,
    read_status,
    watermark_key,
)
from hiexchange.bulk.plan import make_plan
from hiexchange.errors import ConfigError, ExportError, JobFailed, JobMismatch, PolicyViolation
from hiexchange.events import FileStarted


def test_resume_repeats_nothing(wire: Any, complete: Any) -> None:
    bulk = wire.serve(auth="smart")
    job = wire.start(bulk)
    complete(job.download())
    seen = len(bulk.log)
    again = ExportJob.resume(job.folder, auth=job.server.auth, policy=job.server.policy)
    complete(again.download())
    assert len(bulk.log) == seen, "a downloaded job needs no network"
    complete(ExportJob.start(job.server, job.request, job.folder).download())
    assert len(bulk.log) == seen


@pytest.mark.parametrize("full", [False, True])
def test_a_lost_or_changed_file_is_fetched_again(wire: Any, complete: Any, full: bool) -> None:
    bulk = wire.serve()
    job = wire.start(bulk, verify_committed="full" if full else "size")
    result = job.download()
    first, second = (job.folder / receipt.file for receipt in result.receipts[:2])
    first.unlink()
    if full:
        second.write_bytes(second.read_bytes().replace(b"finished", b"FINISHED"))
    before = len(bulk.requests("file"))
    complete(ExportJob.resume(job.folder, policy=job.server.policy).download())
    assert len(bulk.requests("file")) - before == 1 + full


def test_finish_waits_for_the_sink(wire: Any, tmp_path: Path) -> None:
    bulk = wire.serve()
    job = wire.start(bulk)
    job.download()
    with pytest.raises(ExportError):
        job.finish()
    assert not bulk.requests("delete")
    store = SqliteWatermarks(tmp_path / "marks.sqlite")
    job.mark_ingested(store)
    job.finish()
    job.finish()
    assert len(bulk.requests("delete")) == 1
    key = watermark_key(bulk.url, None, job.request)
    assert str(store.get(key))[:19] == bulk.transaction_time[:19]
    assert read_status(job.folder).phase == "finished"


def test_a_job_started_elsewhere_is_adopted(wire: Any, complete: Any, tmp_path: Path) -> None:
    bulk = wire.serve()
    status = wire.start(bulk).journal.refresh().status_url
    job = ExportJob.adopt(wire.server(bulk), status, tmp_path / "found", request=ExportRequest(group="all"))
    complete(job.download())
    complete(ExportJob.adopt(wire.server(bulk), status, tmp_path / "found").download())
    assert len(bulk.requests("kickoff")) == 1
    with pytest.raises(JobMismatch):
        ExportJob.adopt(wire.server(bulk), f"{status}0", tmp_path / "found")
    with pytest.raises(PolicyViolation):
        ExportJob.adopt(wire.server(bulk), "https://elsewhere.example/jobs/1", tmp_path / "other")


def test_cancel_deletes_at_the_server_and_is_final(wire: Any) -> None:
    bulk = wire.serve(polls=1000)
    job = wire.start(bulk)
    job.cancel()
    assert len(bulk.requests("delete")) == 1
    with pytest.raises(JobFailed):
        ExportJob.resume(job.folder)


def test_folders_of_others_are_left_alone(wire: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x", encoding="utf-8")
    bulk = wire.serve()
    with pytest.raises(JobMismatch):
        ExportJob.start(wire.server(bulk), ExportRequest(), tmp_path / "mine")
    with pytest.raises(ConfigError):
        ExportJob.resume(tmp_path / "mine")
    job = wire.start(bulk)
    other = wire.serve()
    with pytest.raises(JobMismatch):
        ExportJob.start(wire.server(other), job.request, job.folder)
    assert not other.requests("kickoff")


def test_a_folder_left_by_a_process_killed_before_its_first_commit_is_used(wire: Any, tmp_path: Path) -> None:
    place = tmp_path / "job"
    place.mkdir()
    (place / "lock").write_text("4711", encoding="utf-8")
    (place / ".request.json.b9d82369.part").write_text('{"format"', encoding="utf-8")
    bulk = wire.serve()
    ExportJob.start(wire.server(bulk), ExportRequest(), place).download()
    assert read_status(place).phase == "downloaded"
    assert not list(place.rglob("*.part")) and not list(place.glob(".*"))


def test_linked_pages_and_many_polls(wire: Any, complete: Any) -> None:
    bulk = wire.serve(manifest_pages=3, polls=3)
    job = wire.start(bulk)
    complete(job.download())
    assert len(list(job.folder.glob("manifest-*.json"))) == 1 + len(bulk.requests("page"))


def test_a_since_export_gets_only_what_is_newer(wire: Any) -> None:
    assert wire.export(wire.serve(), ExportRequest(group="all", since="2026-06-01T00:00:00Z")).resources == 0
    result = wire.export(wire.serve(), ExportRequest(group="all", since="2025-06-01T00:00:00Z"))
    assert result.resources == 40 and not result.ignored_parameters


def test_patients_go_by_post_and_are_not_on_disk(wire: Any) -> None:
    bulk = wire.serve()
    job = wire.start(bulk, ExportRequest(patients=("-1", "-2")))
    assert job.download().count_by_type() == {"Patient": 2, "Encounter": 2}
    assert [entry.method for entry in bulk.requests("kickoff")] == ["POST"]
    stored = (job.folder / "request.json").read_text(encoding="utf-8")
    assert json.loads(stored)["request"]["patients"]["count"] == 2 and '"-1"' not in stored


def test_no_secret_and_no_token_is_in_the_folder(wire: Any) -> None:
    bulk = wire.serve(auth="basic")
    job = wire.start(bulk)
    job.download()
    texts = [path.read_text(encoding="utf-8") for path in job.folder.rglob("*") if path.is_file()]
    assert not any(secret in text for text in texts for secret in (bulk.client_secret, *bulk.tokens))


def test_our_own_folder_is_read_as_any_other(wire: Any) -> None:
    result = wire.export(wire.serve())
    found = open_export(result.folder)
    assert (found.tool, found.complete, len(found.files)) == ("hiexchange", True, 4)
    assert found.watermark == result.watermark


def test_one_worker_goes_in_order(wire: Any, complete: Any) -> None:
    job = wire.start(wire.serve())
    complete(job.download(workers=1))
    files = [event.file for event in wire.of(FileStarted)]
    assert files == sorted(files)


def test_what_was_not_fetched_is_missing(wire: Any) -> None:
    """Whatever the reason: a file without a receipt is never passed over."""
    job = wire.start(wire.serve())
    job.wait()
    state = job.journal.refresh()
    plan = make_plan(assemble.read_pages(job.folder, state, {}))
    found = assemble.result(job.folder, state, plan, job.server, job.request, now=datetime.now(UTC))
    assert found.partial and set(found.failed) == {file.file for file in plan.files}
    assert found.watermark is None and "missing" in str(found.held)
    for number in (0, -1, 17):
        with pytest.raises(ConfigError):
            job.download(workers=number)
    assert not job.download(workers=16).partial
