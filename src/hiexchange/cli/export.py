"""``hiexchange export``: start, look at, resume and cancel an export job in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiexchange.cli import _request, _server, render
from hiexchange.cli._progress import reporter

if TYPE_CHECKING:
    from hiexchange.bulk import ExportJob, ExportResult
    from hiexchange.servers import Server

Folder = Annotated[Path, typer.Argument(help="The job's folder.")]
Partial = Annotated[bool, typer.Option("--accept-partial", help="Take what could be had; exit 0.")]
Workers = Annotated[int, typer.Option(help="Download threads; 0 lets the governor decide.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

export = typer.Typer(help="Export from a Bulk FHIR server into a folder of proven files.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.add_typer(export, name="export")


@export.command()
def start(
    folder: Folder,
    group: _request.Group = "",
    types: _request.Types = "",
    since: _request.Since = "",
    until: _request.Until = "",
    type_filter: _request.TypeFilter = None,
    elements: _request.Elements = "",
    level: _request.Level = "",
    method: _request.Method = "auto",
    config: _server.Config = _server.DEFAULT_CONFIG,
    server: _server.Name = "",
    url: _server.Url = "",
    preset: _server.PresetName = "",
    client_id: _server.ClientId = "",
    client_secret: _server.ClientSecret = "",
    key: _server.Key = "",
    accept_partial: Partial = False,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Kick off an export and fetch it; in a folder with a job of the same request, go on with that."""
    from hiexchange.bulk import ExportJob

    chosen = _server.chosen(
        config, server, url=url, preset=preset, client_id=client_id, client_secret=client_secret, key=key
    )
    wanted = _request.request(
        group=group, types=types, since=since, until=until, type_filter=type_filter,
        elements=elements, level=level, method=method,
    )  # fmt: skip
    _run(ExportJob.start(chosen, wanted, folder, on_event=reporter()), accept_partial, workers, as_json)


@export.command()
def resume(
    folder: Folder,
    config: _server.Config = _server.DEFAULT_CONFIG,
    server: _server.Name = "",
    client_id: _server.ClientId = "",
    client_secret: _server.ClientSecret = "",
    key: _server.Key = "",
    accept_partial: Partial = False,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Go on with the job in a folder; finished files are not fetched again."""
    from hiexchange.bulk import ExportJob

    job = ExportJob.resume(
        folder, server=_known(folder, config, server, client_id, client_secret, key), on_event=reporter()
    )
    _run(job, accept_partial, workers, as_json)


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
def finish(
    folder: Folder,
    config: _server.Config = _server.DEFAULT_CONFIG,
    server: _server.Name = "",
    client_id: _server.ClientId = "",
    client_secret: _server.ClientSecret = "",
    key: _server.Key = "",
) -> None:
    """Say that the data were taken over, and delete the job at the server."""
    from hiexchange.bulk import ExportJob

    job = ExportJob.resume(
        folder, server=_known(folder, config, server, client_id, client_secret, key), on_event=reporter()
    )
    job.mark_ingested()
    job.finish()
    render.out("finished")


@export.command()
def cancel(
    folder: Folder,
    config: _server.Config = _server.DEFAULT_CONFIG,
    server: _server.Name = "",
    client_id: _server.ClientId = "",
    client_secret: _server.ClientSecret = "",
    key: _server.Key = "",
) -> None:
    """Delete the job at the server now; files that are here stay."""
    from hiexchange.bulk import ExportJob

    job = ExportJob.resume(
        folder, server=_known(folder, config, server, client_id, client_secret, key), on_event=reporter()
    )
    job.cancel()
    render.out("cancelled")


def _known(folder: Path, config: Path, name: str, client_id: str, client_secret: str, key: str) -> Server:
    """Return the server of the job's folder with the credential from the options or the configuration."""
    from hiexchange._files import read_json
    from hiexchange.errors import ConfigError

    try:
        stored = read_json(folder / "request.json")["server"]
    except (OSError, ValueError, KeyError):
        raise ConfigError("there is no export job in the folder", where=str(folder)) from None
    if name or config.exists():
        return _server.chosen(config, name, client_id=client_id, client_secret=client_secret, key=key)
    return _server.chosen(
        config, "", url=stored["url"], preset=stored["preset"], version=stored.get("version"),
        client_id=client_id, client_secret=client_secret, key=key,
    )  # fmt: skip


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
