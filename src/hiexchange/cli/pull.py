"""``hiexchange pull``: export from a server and load the result into a lake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiexchange.cli import _request, _server, render
from hiexchange.cli._progress import reporter


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("pull")(pull)


@_server.options()
def pull(
    given: _server.Given,
    lake: Annotated[Path, typer.Argument(help="The lake's folder; created.")] = Path("lake"),
    folder: Annotated[Path, typer.Option("--job", help="The job's folder; a job there is resumed.")] = Path("job"),
    group: _request.Group = "",
    types: _request.Types = "",
    since: Annotated[str, typer.Option(help="Instant, or 'watermark' for the lake's own.")] = "",
    type_filter: _request.TypeFilter = None,
    level: _request.Level = "",
    max_bad_lines: Annotated[int, typer.Option(help="Lines that may be quarantined.")] = 0,
) -> None:
    """Export into a job folder and load it into a lake. Moves the watermark, then deletes the job; safe to repeat."""
    from hiexchange import pipeline
    from hiexchange.bulk import watermark_key
    from hiexchange.lake import Lake

    chosen = given.chosen()
    place = Lake(lake)
    if since == "watermark":
        plain = _request.request(group=group, types=types, since="", type_filter=type_filter, level=level)
        since = place.watermark(watermark_key(chosen.url, chosen.version, plain)) or ""
    wanted = _request.request(group=group, types=types, since=since, type_filter=type_filter, level=level)
    done = pipeline.pull(chosen, place, wanted, folder=folder, max_bad_lines=max_bad_lines, on_event=reporter())
    render.table(sorted(done.export.count_by_type().items()), ("type", "resources"))
    render.err(f"  lake {lake}; watermark " + (done.export.watermark or ("", done.export.held or "held"))[1])
