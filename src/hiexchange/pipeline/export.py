"""One export into a lake, from kick-off to the moved watermark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hiexchange import events as progress
from hiexchange.bulk import ExportJob, ExportRequest, ExportResult, read_status
from hiexchange.events import Reporter
from hiexchange.lake import IngestReport, Lake
from hiexchange.servers import Server

OVER = ("finished", "failed", "cancelled")
"""Phases after which a job folder is only a record."""


@dataclass(frozen=True, slots=True)
class PullResult:
    """One export and what became of it in the lake."""

    export: ExportResult
    ingest: IngestReport


def pull(
    server: Server,
    lake: Lake,
    request: ExportRequest,
    *,
    folder: str | Path,
    max_bad_lines: int | None = None,
    on_event: Reporter = progress.ignore,
) -> PullResult:
    """Export from a server into a lake: start or resume, wait, download, ingest, finish.

    Safe to run twice: a job folder that exists is resumed, and a job is deleted on the server only
    after the lake has committed its rows and the watermark.

    Args:
        server: Where to export from, with its auth.
        lake: Where the rows go.
        request: What to export.
        folder: The job's folder; made on the first call.
        max_bad_lines: Lines that may be quarantined before the load counts as failed; None = any.
        on_event: Receives progress.

    Raises:
        HIExchangeError: As :class:`ExportJob` and :meth:`Lake.ingest` say.
    """
    with ExportJob.start(server, request, folder, on_event=on_event) as job:
        return _finish(job, lake, max_bad_lines, on_event)


def complete(
    server: Server,
    lake: Lake,
    *,
    folder: str | Path,
    max_bad_lines: int | None = None,
    on_event: Reporter = progress.ignore,
) -> PullResult:
    """Bring the job in ``folder`` to its end, whatever it asks for; see :func:`pull`."""
    with ExportJob.resume(folder, server=server, on_event=on_event) as job:
        return _finish(job, lake, max_bad_lines, on_event)


def unfinished(jobs: Path) -> list[Path]:
    """Return the folders under ``jobs`` whose export was stopped on its way, oldest first."""
    folders = sorted(path.parent for path in jobs.glob("*/request.json"))
    return [folder for folder in folders if read_status(folder).phase not in OVER]


def _finish(job: ExportJob, lake: Lake, max_bad_lines: int | None, on_event: Reporter) -> PullResult:
    job.wait()
    result = job.download()
    report = lake.ingest(result, max_bad_lines=max_bad_lines, on_event=on_event)
    job.mark_ingested()
    job.finish()
    return PullResult(result, report)
