"""``hiexchange export``: start, look at, resume and cancel an export job in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiexchange.cli import _request, _server, render
from hiexchange.cli._progress import reporter, resume_hint

if TYPE_CHECKING:
    from hiexchange.bulk import ExportJob, ExportResult

Folder = Annotated[Path, typer.Argument(help="The job's folder.")]
Partial = Annotated[bool, typer.Option("--accept-partial", help="Take what could be had; exit 0.")]
Workers = Annotated[int, typer.Option(min=0, help="Download threads; 0 lets the governor decide.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

export = typer.Typer(help="Export from a Bulk FHIR server into a folder of proven files.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.add_typer(export, name="export")


@export.command()
@_server.options()
def start(
    folder: Folder,
    given: _server.Given,
    group: _request.Group = "",
    types: _request.Types = "",
    since: _request.Since = "",
    until: _request.Until = "",
    type_filter: _request.TypeFilter = None,
    elements: _request.Elements = "",
    level: _request.Level = "",
    method: _request.Method = "auto",
    accept_partial: Partial = False,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Kick off an export and fetch it. In a folder with a job of the same request, go on with that."""
    from hiexchange.bulk import ExportJob

    wanted = _request.request(
        group=group, types=types, since=since, until=until, type_filter=type_filter,
        elements=elements, level=level, method=method,
    )  # fmt: skip
    with resume_hint(folder):
        job = ExportJob.start(given.chosen(), wanted, folder, on_event=reporter())
        _run(job, accept_partial, workers, as_json)


@export.command()
@_server.options(address=False)
def resume(
    folder: Folder,
    given: _server.Given,
    accept_partial: Partial = False,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Go on with the job in a folder. Finished files are not fetched again."""
    with resume_hint(folder):
        _run(_resumed(folder, given), accept_partial, workers, as_json)


@export.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Say where a job stands; no network."""
    from hiexchange.bulk import read_status

    found = read_status(folder)
    total = "?" if found.files_total is None else f"{found.files_total:,}"
    if as_json:
        render.json_out(
            {
                "phase": found.phase,
                "interrupted": found.interrupted,
                "files_total": found.files_total,
                "files_done": found.files_done,
                "resources": found.resources,
                "failed": dict(found.failed),
                "transaction_time": found.transaction_time,
                "status_url": found.status_url,
            }
        )
        return
    render.out(f"{found.phase}{' (interrupted)' if found.interrupted else ''}")
    render.out(f"  files      {found.files_done:,} of {total}, {found.resources:,} resources")
    render.out(f"  status     {found.status_url or 'none'}")
    for name, reason in list(found.failed.items())[:20]:
        render.out(f"  missing    {name}: {reason}")


@export.command()
@_server.options(address=False)
def finish(folder: Folder, given: _server.Given) -> None:
    """Say that the data were taken over. The job is deleted at the server."""
    with _resumed(folder, given) as job:
        job.mark_ingested()
        job.finish()
    render.out("finished")


@export.command()
@_server.options(address=False)
def cancel(folder: Folder, given: _server.Given) -> None:
    """Delete the job at the server now; files that are here stay."""
    with _resumed(folder, given) as job:
        job.cancel()
    render.out("cancelled")


def _resumed(folder: Path, given: _server.Given) -> ExportJob:
    from hiexchange.bulk import ExportJob

    return ExportJob.resume(folder, server=given.of_job(folder), on_event=reporter())


def _run(job: ExportJob, accept_partial: bool, workers: int, as_json: bool) -> None:
    with job:
        job.wait()
        result = job.download(workers=workers or None, accept_partial=accept_partial or None)
    show(result, as_json)


def show(result: ExportResult, as_json: bool) -> None:
    """Print what came, by type, and what is odd."""
    counts = sorted(result.count_by_type().items())
    if as_json:
        render.json_out(
            {
                "folder": str(result.folder),
                "resources": dict(counts),
                "files": len(result.receipts),
                "failed": dict(result.failed),
                "outcomes": dict(result.outcomes),
                "transaction_time": result.manifest.transaction_time,
                "held": result.held,
                "warnings": list(result.warnings),
            }
        )
        return
    render.table([*counts, ("total", result.resources)], ("type", "resources"))
    for text in result.warnings[:20]:
        render.err(f"  warning  {text}")
    for name, count in result.outcomes.items():
        render.err(f"  server   {count:,} x {name}")
    if result.held:
        render.err(f"  watermark stays: {result.held}")
    render.err(f"  in {result.folder}: ingest it, then `hiexchange export finish {result.folder}`")
