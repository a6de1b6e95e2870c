"""``hiexchange measure``: check a bundle, run measures, explain a subject, list gaps in care."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from hiexchange.cli import render

group = typer.Typer(name="measure", help="Official CQL/ELM measures and our own, over a lake or a folder of Bundles.")

Source = Annotated[Path, typer.Argument(help="A lake, or a folder or file of Bundles, one a patient.")]
Start = Annotated[datetime, typer.Option("--start", formats=["%Y-%m-%d"], help="First day of the period.")]
End = Annotated[datetime, typer.Option("--end", formats=["%Y-%m-%d"], help="Last day of the period, inclusive.")]
Accept = Annotated[list[str] | None, typer.Option("--accept", help="Accept a finding of `measure check`, by code.")]
Offset = Annotated[int, typer.Option("--offset", help="Minutes from UTC in which days are told apart.")]
Measures = Annotated[
    list[str], typer.Option("--measure", "-m", help="Bundle file or folder, or a native measure's id.")
]


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(group)


@group.command("check")
def check(
    bundle: Annotated[Path, typer.Argument(help="Bundle file or folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is wrong with a measure bundle: versions, value sets, unsupported ELM. Exit 7 on errors."""
    from hiexchange.measures import Measure

    rows = Measure.check(bundle).to_pylist()
    if as_json:
        render.json_out(rows)
    else:
        for row in rows:
            render.out(f"{row['severity']:<11} {row['code']:<20} {row['column']}: {row['message']}")
        errors = sum(row["severity"] == "error" for row in rows)
        render.out(f"{errors} errors, {len(rows) - errors} warnings")
    if any(row["severity"] == "error" for row in rows):
        raise typer.Exit(7)


@group.command("list")
def native() -> None:
    """List our own measures."""
    from hiexchange.measures import measures

    render.table([(item.id, item.version, item.title) for item in measures().values()], ("id", "version", "title"))


@group.command("run")
def run(
    source: Source,
    measure: Measures,
    start: Start,
    end: End,
    accept: Accept = None,
    offset: Offset = 0,
    profiles: Annotated[str, typer.Option("--profiles", help="infer, trust or ignore.")] = "infer",
    processes: Annotated[int, typer.Option("--processes", "-p", help="Worker processes.")] = 1,
    engine: Annotated[str, typer.Option("--engine", help="rows, columns (the same results), or auto.")] = "rows",
    by: Annotated[
        str, typer.Option("--by", help="Cut by race, ethnicity, language, sex, payer (comma-separated).")
    ] = "",
    supplemental: Annotated[
        bool, typer.Option("--supplemental", help="Add the measure's supplemental data and risk variables.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for result tables and MeasureReports.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print MeasureReports as JSON.")] = False,
) -> None:
    """Evaluate measures over a population and print counts, rates and 95 % intervals."""
    runs = _evaluate(
        source,
        measure,
        (start.date(), end.date()),
        accept=accept or [],
        offset=offset,
        profiles=profiles,
        processes=processes,
        engine=engine,
    )
    for item, loaded in runs:
        # Our own measures have no supplemental data.
        extra = loaded.supplemental(item, _source(source)) if supplemental and loaded is not None else None
        report = item.to_fhir(supplemental=extra)
        if out is not None:
            _write(item, report, extra, out)
        if as_json:
            render.json_out(report)
            continue
        _print(item)
        if by:
            _print_by(item, by, _source(source))
        if extra is not None:
            _print_supplemental(item, extra)


@group.command("why")
def why(
    source: Source,
    subject: Annotated[str, typer.Argument(help="Patient.id.")],
    bundle: Annotated[Path, typer.Option("--measure", "-m", help="Bundle file or folder.")],
    start: Start,
    end: End,
    accept: Accept = None,
    values: Annotated[bool, typer.Option("--values", help="Show values, not only truth and resource ids.")] = False,
    page: Annotated[Path | None, typer.Option("--html", help="Write a static page instead (mode 600).")] = None,
) -> None:
    """Explain one subject's result: each define with its value and the resources that decided."""
    from hiexchange._files import write_bytes
    from hiexchange.measures import Measure

    loaded = Measure.load(bundle, accept=accept or ())
    found = loaded.why(_source(source), subject, period=(start.date(), end.date()), values=values)
    if page is not None:
        write_bytes(page, found.to_html().encode())
        render.err(f"written to {page}")
    else:
        render.out(str(found))


@group.command("gaps")
def gaps(
    source: Source,
    measure: Measures,
    start: Start,
    end: End,
    accept: Accept = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write CSV here (mode 600) instead of counts.")] = None,
    as_of: Annotated[datetime | None, typer.Option("--as-of", formats=["%Y-%m-%d"], help="Day of asking.")] = None,
    documents: Annotated[
        Path | None, typer.Option("--documents", help="Folder for a gaps-in-care document (DEQM) a patient with a gap.")
    ] = None,
    reporter: Annotated[str, typer.Option("--reporter", help="Reference to who reports.")] = "Organization/reporter",
) -> None:
    """Count gaps in care by reason, or write who has which to a file."""
    tables = []
    for item, _ in _evaluate(source, measure, (start.date(), end.date()), accept=accept or []):
        found = item.gaps(as_of=as_of.date() if as_of else None)
        tables.append(found)
        counts: dict[str, int] = {}
        for reason in found["reason"].to_pylist():
            counts[reason or "-"] = counts.get(reason or "-", 0) + 1
        render.out(f"{item.measure.title}: {found.num_rows:,} gaps")
        render.table(sorted(counts.items()), ("reason", "gaps"))
        if documents is not None:
            _write_documents(item, found, documents, reporter, as_of.date() if as_of else None)
    if out is not None:
        _write_csv(tables, out)


@group.command("completeness")
def completeness(
    source: Source,
    measure: Annotated[list[str], typer.Option("--measure", "-m", help="Bundle file or folder.")],
    start: Start,
    end: End,
    accept: Accept = None,
    offset: Offset = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare what claims alone, clinical data alone, and both together can tell of a measure."""
    from hiexchange.measures import Measure
    from hiexchange.measures import completeness as compare

    loaded = [Measure.load(name, accept=accept or ()) for name in measure]
    found = compare(
        loaded, _source(source), period=(start.date(), end.date()), offset=timedelta(minutes=offset)
    ).to_pylist()
    if as_json:
        render.json_out(found)
        return
    names = ("measure", "group", "data", "denominator", "numerator", "rate", "not_found", "value_missing", "errors")
    shares = ("denominator_share", "numerator_share")
    rows = [(*(_number(row[name]) for name in names), *(_number(row[name]) for name in shares)) for row in found]
    render.table(rows, (*(name.replace("_", " ") for name in names), "of both: denominator", "numerator"))


def _source(path: Path) -> Any:
    if (path / "_hx").is_dir():
        from hiexchange.lake import Lake

        return Lake(path)
    return path


def _evaluate(path: Path, names: list[str], period: tuple[date, date], **options: Any) -> list[tuple[Any, Any]]:
    """Return the run of each measure, and the measure where it is an official one."""
    from hiexchange.measures import Measure, evaluate, evaluate_all, measures

    source, known = _source(path), measures()
    accept, offset = options.pop("accept"), timedelta(minutes=options.pop("offset", 0))
    loaded = [Measure.load(name, accept=accept) for name in names if name not in known]
    found = evaluate_all(loaded, source, period=period, offset=offset, **options) if loaded else []
    run_id = f"{period[0]}..{period[1]}"
    own = (evaluate(n, source, period=period, run_id=run_id, offset=offset) for n in names if n in known)
    return [*zip(found, loaded, strict=True), *((item, None) for item in own)]


def _print(run: Any) -> None:
    summary = run.summary()
    render.out(f"{summary.measure.title} {summary.measure.version}   {run.period[0]} to {run.period[1]}")
    for item in run.accepted:
        render.out(f"  accepted {item}")
    rows = []
    for group_summary in summary.groups:
        interval = "" if group_summary.low is None else f"{100 * group_summary.low:.1f}-{100 * group_summary.high:.1f}"
        rate = "" if group_summary.rate is None else f"{100 * group_summary.rate:.1f} %"
        rows.append((group_summary.group, *group_summary.counts.values(), group_summary.errors, rate, interval))
    names = [name.replace("_", " ") for name in summary.groups[0].counts] if summary.groups else []
    render.table(rows, ("group", *names, "errors", "rate", "95 %"))


def _print_by(run: Any, by: str, source: Any) -> None:
    keys = [key.strip() for key in by.split(",")]
    table = run.by(*keys, source=source)
    rows = [
        tuple("*" if row["suppressed"] and name in _COUNTS else _number(row[name]) for name in table.column_names[:-1])
        for row in table.to_pylist()
    ]
    render.table(rows, table.column_names[:-1])
    if any(table["suppressed"].to_pylist()):
        render.out(_SUPPRESSED)


def _print_supplemental(run: Any, table: Any) -> None:
    from hiexchange.measures.supplemental import shares

    rows = shares(run, table).to_pylist()
    render.table(
        [
            (row["id"], row["code"] or "-", row["text"] or "", "*" if row["suppressed"] else f"{row['patients']:,}")
            for row in rows
        ],
        ("supplemental data", "code", "text", "patients"),
    )
    if any(row["suppressed"] for row in rows):
        render.out(_SUPPRESSED)
    failed = table.num_rows - table["error"].null_count
    if failed:
        render.out(f"  {failed:,} values could not be computed")


_SUPPRESSED = "  * suppressed: fewer than 11, or one that would give such a count away"
_COUNTS = {"subjects", "eligible", "hits", "rate", "low", "high"}


def _number(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _write(run: Any, report: dict[str, Any], supplemental: Any, folder: Path) -> None:
    import pyarrow.parquet as pq

    from hiexchange._files import atomic_file, write_json

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{run.measure.id}.summary.json", report)
    for name, table in (("", run.table), (".supplemental", supplemental)):
        if table is not None:
            with atomic_file(folder / f"{run.measure.id}{name}.parquet") as file:
                pq.write_table(table, file)


def _write_documents(run: Any, found: Any, folder: Path, reporter: str, as_of: date | None) -> None:
    from hiexchange._files import write_json

    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    for subject in sorted(set(found["subject"].to_pylist())):
        document = run.gaps_document(subject, reporter=reporter, generated_at=now, as_of=as_of)
        # The name tells of no patient: it is the report's id, a hash.
        write_json(folder / f"{document['entry'][1]['resource']['id']}.json", document)
    render.err(f"documents in {folder}")


def _write_csv(tables: list[Any], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv

    from hiexchange._files import atomic_file

    with atomic_file(path) as file:
        pyarrow.csv.write_csv(pa.concat_tables(tables), file)
    render.err(f"written to {path}")
