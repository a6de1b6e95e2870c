"""``hiexchange lake``: load NDJSON, list and show tables, give the JSON back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiexchange.cli import render
from hiexchange.cli._lake import opened

if TYPE_CHECKING:
    from hiexchange.lake import IngestReport

app = typer.Typer(help="Keep FHIR resources as lossless Parquet.", no_args_is_help=True)

NESTED = 60
"""Characters shown of a struct or list."""

LakeFolder = Annotated[Path, typer.Option("--lake", help="Folder of the lake.")]
FhirVersion = Annotated[str | None, typer.Option("--fhir-version", help="STU3, R4, R4B or R5; default R4.")]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(parent: typer.Typer) -> None:
    """Add the group to the command line."""
    parent.add_typer(app, name="lake")


@app.command()
def ingest(
    sources: Annotated[list[Path], typer.Argument(help="A folder of NDJSON files, or files.")],
    lake: LakeFolder = Path("lake"),
    fhir_version: FhirVersion = None,
    workers: Annotated[int, typer.Option(help="Encode so many files at once.")] = 1,
    max_bad_lines: Annotated[
        int | None, typer.Option(help="More lines in quarantine than this end in exit code 7.")
    ] = None,
    repair: Annotated[list[str] | None, typer.Option(help="A set of vendor repairs: bcda.")] = None,
    validate: Annotated[
        str | None, typer.Option(help="sample:N checks N resources a type with fhir.resources.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Store nothing when a member has no column.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Keep each line as it came, for byte-identical return.")] = False,
    sha256: Annotated[bool, typer.Option("--sha256", help="Add a hash of each resource's content.")] = False,
    json: Json = False,
) -> None:
    """Load NDJSON, gzipped or not, into typed tables. Bad lines go to quarantine, the table `_rejects`."""
    import msgspec

    from hiexchange.errors import ConfigError
    from hiexchange.lake import Lake

    for source in _sources(sources):
        report = Lake(lake).ingest(
            source,
            fhir_version=fhir_version,
            workers=workers,
            max_bad_lines=max_bad_lines,
            repairs=repair or (),
            validate=_sample(validate),
            strict=strict,
            raw=raw,
            sha256=sha256,
        )
        if not (report.files or report.skipped) and not (
            isinstance(source, Path) and (source / "receipt.json").exists()
        ):
            raise ConfigError("the folder holds no NDJSON file", where=str(source))
        if json:
            render.json_out(msgspec.to_builtins(report))
        elif report.skipped:
            render.out("this load is in the lake already; nothing done")
        else:
            _print_report(report)


def _sample(text: str | None) -> int:
    if text is None:
        return 0
    kind, _, count = text.partition(":")
    if kind != "sample" or not count.isdigit():
        raise typer.BadParameter("use sample:N, such as sample:500")
    return int(count)


def _print_report(report: IngestReport) -> None:
    render.table(report.tables.items(), ["table", "rows"])
    counted = f"{report.rows:,} resources from {report.files:,} files in {report.seconds:.1f} s"
    deleted = f", {report.deleted:,} deletions" if report.deleted else ""
    render.out(f"{counted}{deleted}, snapshot {report.snapshot}")
    if report.rejected:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.reasons.items())
        render.err(f"{report.rejected:,} lines in quarantine: {reasons}")
    if report.unmapped:
        render.err(f"{sum(report.unmapped.values()):,} members without a column, kept as text:")
        for pointer, count in list(report.unmapped.items())[:10]:
            render.err(f"  {pointer}  {count:,}")
    for name, count in report.repaired.items():
        render.err(f"repaired {name}  {count:,}")
    for name, found in report.validation.items():
        render.err(f"validated {found.checked:,} {name}: {found.failed:,} with faults")
        for fault, count in list(found.faults.items())[:5]:
            render.err(f"  {fault}  {count:,}")


def _sources(given: list[Path]) -> list[Path | list[Path]]:
    files: list[Path] = [path for path in given if not path.is_dir()]
    folders: list[Path | list[Path]] = [path for path in given if path.is_dir()]
    return [*folders, files] if files else folders


@app.command()
def tables(lake: LakeFolder = Path("lake"), json: Json = False) -> None:
    """List the tables of the current snapshot with their rows."""
    found = opened(lake).tables()
    if json:
        render.json_out(found)
    else:
        render.table(found.items(), ["table", "rows"])


@app.command()
def show(
    table: Annotated[str, typer.Argument(help="Name of a table, or a SELECT.")],
    lake: LakeFolder = Path("lake"),
    limit: Annotated[int, typer.Option(help="Rows at most.")] = 10,
    columns: Annotated[
        str | None, typer.Option(help="Columns, comma-separated; period.start reaches into structs.")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print columns and types instead of rows.")] = False,
) -> None:
    """Print some rows of a table, or of a query over the tables. Nested values are cut short."""
    store = opened(lake)
    if " " in table.strip():
        found = store.sql(table).slice(0, limit)
    else:
        lazy = store.table(table, columns=columns.split(",") if columns else None)
        if schema:
            render.table([(field.name, str(field.type)) for field in lazy.schema], ["column", "type"])
            return
        found = lazy.head(limit)
    render.table([[_short(value) for value in row.values()] for row in found.to_pylist()], found.column_names)


def _short(value: object) -> object:
    """Return a nested value's beginning: of a resource as a table, most cells would fill the screen."""
    if not isinstance(value, dict | list):
        return value
    text = str(value)
    return text if len(text) <= NESTED else f"{text[: NESTED - 1]}…"


@app.command("to-ndjson")
def to_ndjson(
    table: Annotated[str, typer.Argument(help="Resource type.")],
    lake: LakeFolder = Path("lake"),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File; default standard output.")] = None,
    order: Annotated[str, typer.Option(help="stored, or source for the order of the files that came in.")] = "stored",
    raw: Annotated[bool, typer.Option("--raw", help="The very bytes, where ingested with --raw.")] = False,
) -> None:
    """Write the resources of a type as NDJSON, equal to what came in."""
    from hiexchange._files import atomic_file

    lines = opened(lake).to_ndjson(table, order=order, raw=raw)
    if out is None:
        for line in lines:
            render.out(line.decode().rstrip("\n"))
        return
    with atomic_file(out) as file:
        file.writelines(lines)


@app.command()
def compact(
    tables: Annotated[list[str] | None, typer.Argument(help="Tables; default every FHIR table.")] = None,
    lake: LakeFolder = Path("lake"),
) -> None:
    """Rewrite tables to one schema, sorted by patient."""
    render.out(f"snapshot {opened(lake).compact(*(tables or []))}")


@app.command()
def copy(
    url: Annotated[str, typer.Argument(help="s3://bucket/prefix, gs://, az:// or file:///folder.")],
    lake: LakeFolder = Path("lake"),
    option: Annotated[list[str] | None, typer.Option(help="Of the store, name=value: region=us-east-1.")] = None,
) -> None:
    """Copy the current snapshot to an object store. Only files that are not there are sent."""
    pairs = [text.partition("=") for text in option or ()]
    done = opened(lake).copy_to(url, options={name: value for name, _, value in pairs})
    render.out(
        f"snapshot {done.snapshot}: {done.files:,} files sent ({done.size_bytes:,} bytes), {done.present:,} were there"
    )


@app.command()
def vacuum(
    lake: LakeFolder = Path("lake"),
    keep: Annotated[int, typer.Option(help="Snapshots to keep.")] = 10,
    days: Annotated[float, typer.Option(help="Keep snapshots younger than this.")] = 7.0,
    remove: Annotated[bool, typer.Option("--remove", help="Really remove; without it only say what would go.")] = False,
) -> None:
    """Remove files that no kept snapshot needs. A dry run without --remove."""
    done = opened(lake).vacuum(keep_snapshots=keep, keep_days=days, dry_run=not remove)
    verb = "removed" if remove else "would remove"
    render.out(f"{verb} {len(done.files):,} files ({done.size_bytes:,} bytes) and {len(done.snapshots):,} snapshots")
