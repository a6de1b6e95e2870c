"""``hiexchange run``: the whole route of one configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiexchange.cli import render
from hiexchange.cli._progress import reporter

if TYPE_CHECKING:
    from hiexchange.pipeline import RunResult

DATA_REJECTED, DELIVERY_FAILED = 7, 8


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("run")
    def run(
        configuration: Annotated[Path, typer.Argument(help="The TOML file.")] = Path("hiexchange.toml"),
        as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
    ) -> None:
        """Run the whole route of a configuration. Export, lake, rosters, matching, routing, delivery, measures, feedback, report."""
        from hiexchange import config, pipeline

        result = pipeline.run(config.load(configuration), on_event=reporter())
        if as_json:
            render.json_out(result.as_dict())
        else:
            summary(result)
        verdict = exit_code(result)
        if verdict:
            raise typer.Exit(verdict)


def summary(result: RunResult) -> None:
    """Print a line a stage, the accounting identity and where the page is."""
    for stage in result.stages:
        # Files are loaded while the next is fetched: that time is the export's, and the lake's own is none.
        took = f"  {stage.seconds:.1f} s" if stage.seconds >= 0.05 else ""
        render.out(f" {stage.name:<8}  {stage.facts}{took}")
    parts = " + ".join(f"{count:,} {name}" for name, count in result.identity.items() if name != "events")
    holds = "" if result.identity_holds else "  DOES NOT HOLD"
    render.out(f" {'identity':<8}  {result.identity.get('events', 0):,} events = {parts}{holds}")
    render.out(f" {'report':<8}  {result.output / 'report.html'}")


def exit_code(result: RunResult) -> int:
    """Return 0, or the documented code of the first thing that is not as it should be."""
    if not result.identity_holds:
        return DATA_REJECTED
    return DELIVERY_FAILED if result.problems or "dead" in result.deliveries["state"].to_pylist() else 0
