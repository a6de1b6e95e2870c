"""``hiexchange synth``: write the seeded synthetic population."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiexchange.cli import render


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("synth")
    def synth(
        folder: Annotated[Path, typer.Argument(help="Folder to write; its fhir/, rosters/ and truth/ are made anew.")],
        patients: Annotated[int, typer.Option(min=1, help="How many patients.")] = 500,
        seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 7,
        year: Annotated[int, typer.Option(help="Calendar year of visits and rosters.")] = 2025,
        as_json: Annotated[bool, typer.Option("--json", help="Print counts as JSON.")] = False,
    ) -> None:
        """Write a synthetic population. FHIR NDJSON, two payers' rosters, and the planted truth."""
        from hiexchange.testing.population import generate

        population = generate(folder, patients=patients, seed=seed, year=year)
        if as_json:
            render.json_out(
                {"folder": str(folder), "resources": population.counts, "roster_rows": population.roster_rows}
            )
            return
        render.table(sorted(population.counts.items()), ("type", "resources"))
        render.out(f"{population.roster_rows:,} roster rows of 2 payers, 3 files each, in {folder / 'rosters'}")
