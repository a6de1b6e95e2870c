"""``attribution show|report``: who is attributed on a day, and what a quarter changed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from hiexchange.cli import render
from hiexchange.cli._lake import opened

LakeFolder = Annotated[Path, typer.Option("--lake", help="Folder of the lake.")]
KnownOption = Annotated[
    datetime | None, typer.Option("--known-at", help="UTC instant of knowledge; default now.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

app = typer.Typer(help="Read the attribution history of a lake.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Add the verb."""
    parent.add_typer(app, name="attribution")


@app.command()
def show(
    lake: LakeFolder = Path("lake"),
    on: Annotated[
        datetime | None, typer.Option("--on", formats=["%Y-%m-%d"], help="The day; default today.", show_default=False)
    ] = None,
    known_at: KnownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the attributions in force on a day, by payer and provider."""
    import pyarrow as pa

    from hiexchange.attribution import active

    known = _known(known_at)
    rows = active(pa.table(opened(lake).table("attribution")), (on or datetime.now(UTC)).date(), known)
    names = ["payer_id", "provider_npi", "provider_tin", "org_id", "status"]
    counted = rows.group_by(names).aggregate([("member_key", "count_distinct")])
    counted = counted.sort_by([("payer_id", "ascending"), ("member_key_count_distinct", "descending")])
    lines = [tuple(row.values()) for row in counted.to_pylist()]
    if as_json:
        render.json_out([dict(zip((*names, "members"), line, strict=True)) for line in lines])
    else:
        render.table(lines, (*names, "members"))


@app.command()
def report(
    quarter: Annotated[str, typer.Option("--quarter", help="As in 2026-Q1.", show_default=False)],
    lake: LakeFolder = Path("lake"),
    known_at: KnownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Report who joined, left and moved in a quarter, list by list."""
    import re

    import pyarrow as pa

    from hiexchange.attribution import reattribution
    from hiexchange.errors import ConfigError

    match = re.fullmatch(r"(\d{4})-?Q([1-4])", quarter)
    if not match:
        raise ConfigError(f"'{quarter}' is no quarter", hint="write 2026-Q1")
    history = pa.table(opened(lake).table("attribution"))
    rows, summary = reattribution(history, int(match[1]), int(match[2]), known_at=_known(known_at))
    if as_json:
        render.json_out({"summary": summary.to_pylist(), "rows": rows.to_pylist()})
    else:
        shown = [row | {"share_changed": _percent(row["share_changed"])} for row in summary.to_pylist()]
        render.table([tuple(row.values()) for row in shown], summary.column_names)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _known(given: datetime | None) -> datetime:
    return given.replace(tzinfo=given.tzinfo or UTC) if given else datetime.now(UTC)
