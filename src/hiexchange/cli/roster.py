"""``roster check|diff|infer|layouts``: look at a payer's file before anything believes it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiexchange.cli import render

if TYPE_CHECKING:
    from hiexchange.roster import Roster

SHOWN = 20
DATA_REJECTED = 7

File = Annotated[Path, typer.Argument(help="Roster file, or a folder of FHIR NDJSON.", show_default=False)]
LayoutOption = Annotated[str, typer.Option("--layout", "-l", help="Shipped layout or path of a TOML file.")]
PayerOption = Annotated[str | None, typer.Option("--payer", help="Payer id; outranks the layout's.")]
DateOption = Annotated[datetime | None, typer.Option("--as-of", formats=["%Y-%m-%d"], help="The day it speaks of.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

app = typer.Typer(help="Check, compare and describe payers' rosters.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Add the verb."""
    parent.add_typer(app, name="roster")


@app.command()
def check(
    file: File,
    layout: LayoutOption = "csv",
    payer: PayerOption = None,
    as_of: DateOption = None,
    previous: Annotated[Path | None, typer.Option("--previous", help="Last accepted file of the list.")] = None,
    release: Annotated[str | None, typer.Option("--release", help="Name of the person who releases it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Read a roster as intake would, and change nothing. Counts, issues, and whether it would be accepted."""
    before = _read(previous, layout, payer, None) if previous else None
    roster = _read(file, layout, payer, as_of, previous=before, release=release)
    if as_json:
        render.json_out({**_facts(roster), "issues": roster.issues.to_pylist()})
    else:
        for name, value in _facts(roster).items():
            render.out(f"{name:<11}{value:,}" if isinstance(value, int) else f"{name:<11}{value}")
        _show_issues(roster)
    if roster.state != "accepted":
        raise typer.Exit(DATA_REJECTED)


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="Earlier file.", show_default=False)],
    new: Annotated[Path, typer.Argument(help="Later file.", show_default=False)],
    layout: LayoutOption = "csv",
    payer: PayerOption = None,
    old_as_of: Annotated[
        datetime | None, typer.Option("--old-as-of", formats=["%Y-%m-%d"], help="The day OLD speaks of.")
    ] = None,
    new_as_of: Annotated[
        datetime | None, typer.Option("--new-as-of", formats=["%Y-%m-%d"], help="The day NEW speaks of.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a later file of a list changes. New, changed, unchanged, dropped, cancelled."""
    from hiexchange.attribution import attribute

    first, second = _read(old, layout, payer, old_as_of), _read(new, layout, payer, new_as_of)
    now = datetime.now(UTC)
    history = attribute(first, None, known_at=now)
    fresh = attribute(second, history, known_at=now)
    counts = dict.fromkeys(("new", "changed", "nochange", "dropped", "cancelled"), 0)
    for pair in fresh["change_type"].value_counts().to_pylist():
        counts[pair["values"]] = pair["counts"]
    if as_json:
        render.json_out({"old": first.counts.accepted, "state": second.state, **counts})
        return
    render.out(f"{first.counts.accepted:,} rows as of {first.as_of} -> {second.counts.accepted:,} as of {second.as_of}")
    render.table(counts.items(), ("change", "attributions"))
    if second.state != "accepted":
        render.err(f"the later file is {second.state}: it would change nothing")


@app.command()
def infer(file: File) -> None:
    """Propose a layout for a file. TOML for a person to compare with the payer's guide."""
    from hiexchange.roster import infer_layout

    render.out(infer_layout(file).to_toml())


@app.command()
def layouts(as_json: JsonOption = False) -> None:
    """List the shipped layouts, and which of them nobody has confirmed."""
    from hiexchange.roster import shipped_layouts

    rows = [
        (layout.name, layout.file.kind, "yes" if layout.verified else "no", layout.description)
        for layout in shipped_layouts()
    ]
    if as_json:
        render.json_out([dict(zip(("name", "kind", "verified", "description"), row, strict=True)) for row in rows])
    else:
        render.table(rows, ("name", "kind", "verified", "reads"))


def _read(file: Path, layout: str, payer: str | None, as_of: datetime | None, **more: Any) -> Roster:
    from hiexchange.roster import read_roster

    day = as_of.date() if as_of else None
    return read_roster(file, layout, as_of=day, received_at=datetime.now(UTC), payer_id=payer, **more)


def _facts(roster: Roster) -> dict[str, Any]:
    counts = roster.counts
    return {
        "file": roster.file_name,
        "payer": roster.payer_id,
        "list": roster.list_id,
        "as of": str(roster.as_of),
        "mode": roster.mode,
        "read": counts.read,
        "accepted": counts.accepted,
        "refused": counts.refused,
        "duplicates": counts.duplicates,
        "state": roster.state + (f" (released by {roster.accepted_by})" if roster.accepted_by else ""),
    }


def _show_issues(roster: Roster) -> None:
    rows = roster.issues.to_pylist()
    for row in rows[:SHOWN]:
        place = f"row {row['row_no']:,}" if row["row_no"] else "file"
        column = f" {row['column']}" if row["column"] else ""
        render.err(f"{row['severity']:<12}{place}{column}: {row['message']} [{row['code']}]")
    if len(rows) > SHOWN:
        render.err(f"... and {len(rows) - SHOWN:,} more; --json shows all")
