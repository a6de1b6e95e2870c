"""``hiexchange view``: flat tables out of resources (SQL on FHIR v2)."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiexchange.cli import render
from hiexchange.cli._lake import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(help="Make flat tables of resources: SQL on FHIR v2.", no_args_is_help=True)

FhirVersion = Annotated[str, typer.Option("--fhir-version", help="STU3, R4, R4B or R5.")]
Name = Annotated[str, typer.Argument(metavar="VIEW", help="Name of a shipped view, or a .json or .sql file.")]


def register(parent: typer.Typer) -> None:
    """Add the group to the command line."""
    parent.add_typer(app, name="view")


@app.command("run")
def run_view(
    name: Name,
    lake: Annotated[Path | None, typer.Option("--lake", help="Folder of a lake.")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="NDJSON instead of a lake: a file or a folder.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="out.parquet, .csv, .ndjson or .arrow; default: print CSV.")
    ] = None,
    parameters: Annotated[list[str] | None, typer.Option("--set", help="Parameter of a query: name=value.")] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many rows.")] = None,
    fhir_version: FhirVersion = "4.0.1",
) -> None:
    """Run a view and write its rows, or print them as CSV."""
    from hiexchange.views import load_view, write_rows
    from hiexchange.views.output import write_text

    found: Any = load_view(_file_or_name(name), fhir_version=fhir_version)
    batches: Iterator[Any]
    if parameters:
        batches = iter(found.run(_source(lake, source), _parameters(parameters)).to_batches())
    else:
        batches = found.stream(_source(lake, source))
    if limit is not None:
        batches = _limited(batches, limit)
    schema = found.schema()
    # What cannot be read is said before the first byte of output.
    batches = _started(batches)
    if out is None:
        write_text(batches, schema, sys.stdout.buffer, "csv")
        return
    rows = write_rows(batches, schema, out)
    render.out(f"{rows:,} rows, {len(schema.names)} columns: {out}")


@app.command()
def check(
    name: Name,
    profile: Annotated[str | None, typer.Option(help="shareable or tabular.")] = None,
    fhir_version: FhirVersion = "4.0.1",
) -> None:
    """Check a view without data and print its columns. Paths, types, profile; exit code 7 if it fails."""
    from hiexchange.views import check_view, load_view

    target = _file_or_name(name)
    findings = check_view(target, profile=profile, fhir_version=fhir_version)
    found: Any = load_view(target, fhir_version=fhir_version)
    rows = []
    for field in found.schema():
        metadata = field.metadata or {}
        rows.append(
            (field.name, metadata.get(b"fhir", b"").decode(), str(field.type), metadata.get(b"doc", b"").decode())
        )
    render.table(rows, ["column", "FHIR type", "Arrow type", "meaning"])
    for finding in findings:
        render.err(f"{finding.severity}: {finding.message}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(7)


@app.command("list")
def list_views() -> None:
    """List the shipped views and queries."""
    from hiexchange.views import SQLQuery, load_view, view_names

    rows = []
    for name in view_names():
        found = load_view(name)
        if isinstance(found, SQLQuery):
            needs = sorted(need.view for need in found.needs)
            rows.append((name, ", ".join(needs) if len(needs) < 3 else f"{len(needs)} views", found.title))
        else:
            rows.append((name, found.definition.resource, found.definition.title))
    render.table(rows, ["view", "reads", "title"])


def _file_or_name(name: str) -> str | Path:
    path = Path(name)
    return path if path.suffix in (".json", ".sql") else name


def _source(lake: Path | None, source: Path | None) -> Any:
    if (lake is None) == (source is None):
        raise typer.BadParameter("give either --lake or --from")
    if lake is None:
        return source
    return opened(lake)


def _parameters(given: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in given]
    for name, equals, _ in pairs:
        if not equals:
            raise typer.BadParameter(f"--set takes name=value, not {name!r}")
    return {name: value for name, _, value in pairs}


def _started(batches: Iterator[Any]) -> Iterator[Any]:
    first = next(batches, None)
    return batches if first is None else itertools.chain([first], batches)


def _limited(batches: Iterator[Any], limit: int) -> Iterator[Any]:
    for batch in batches:
        if limit <= 0:
            return
        yield batch.slice(0, limit)
        limit -= batch.num_rows
