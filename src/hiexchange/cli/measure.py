"""``hiexchange measure``: check a bundle, run measures, explain a subject, list gaps in care."""

from __future__ import annotations

import difflib
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from hiexchange.cli import render

group = typer.Typer(name="measure", help="Compute official CQL/ELM measures, and our own.")

Source = Annotated[Path, typer.Argument(help="A lake, or a folder or file of Bundles, one a patient.")]
Start = Annotated[datetime, typer.Option("--start", formats=["%Y-%m-%d"], help="First day of the period.")]
End = Annotated[datetime, typer.Option("--end", formats=["%Y-%m-%d"], help="Last day of the period, inclusive.")]
Accept = Annotated[list[str] | None, typer.Option("--accept", help="Accept a finding of `measure check`, by code.")]
Offset = Annotated[str, typer.Option("--offset", help="Offset from UTC in which days are told apart, such as -06:00.")]
UTC_OFFSET = "+00:00"
Measures = Annotated[
    list[str], typer.Option("--measure", "-m", help="Bundle file or folder, or a native measure's id.")
]


Official = Annotated[str, typer.Option("--measure", "-m", help="Bundle file or folder.")]
Officials = Annotated[list[str], typer.Option("--measure", "-m", help="Bundle file or folder.")]


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(group)


@group.command("check")
def check(
    bundle: Annotated[Path, typer.Argument(help="Bundle file or folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is wrong with a measure bundle. Versions, value sets, unsupported ELM; exit code 7 on errors."""
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
    offset: Offset = UTC_OFFSET,
    profiles: Annotated[str, typer.Option("--profiles", help="infer, trust or ignore.")] = "infer",
    workers: Annotated[int, typer.Option(min=1, help="Processes that evaluate.")] = 1,
    engine: Annotated[str, typer.Option("--engine", help="rows, columns (the same results), or auto.")] = "rows",
    by: Annotated[
        str, typer.Option("--by", help="Cut by race, ethnicity, language, sex, payer (comma-separated).")
    ] = "",
    supplemental: Annotated[
        bool, typer.Option("--supplemental", help="Add the measure's supplemental data and risk variables.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for result tables and MeasureReports.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print MeasureReports as JSON.")] = False,
) -> None:
    """Evaluate measures and print counts, rates, 95 % intervals."""
    from hiexchange.measures.by import check_keys

    if by:
        check_keys(key.strip() for key in by.split(","))
    runs = _evaluate(
        source,
        measure,
        (start.date(), end.date()),
        accept=accept or [],
        offset=offset,
        profiles=profiles,
        workers=workers,
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


# Ids may begin with a hyphen: those of synthetic people do.
@group.command("why", context_settings={"ignore_unknown_options": True})
def why(
    source: Source,
    subject: Annotated[str, typer.Argument(help="Patient.id.")],
    bundle: Official,
    start: Start,
    end: End,
    accept: Accept = None,
    offset: Offset = UTC_OFFSET,
    values: Annotated[bool, typer.Option("--values", help="Show values, not only truth and resource ids.")] = False,
    page: Annotated[Path | None, typer.Option("--html", help="Write a static page instead (mode 600).")] = None,
) -> None:
    """Explain a subject's result. Each define with its value and the resources that decided."""
    from hiexchange._files import write_bytes
    from hiexchange.measures import Measure

    loaded = Measure.load(_official(bundle), accept=accept or ())
    days = (start.date(), end.date())
    found = loaded.why(_source(source), subject, period=days, offset=_offset(offset), values=values)
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
    offset: Offset = UTC_OFFSET,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write CSV here (mode 600) instead of counts.")
    ] = None,
    as_of: Annotated[datetime | None, typer.Option("--as-of", formats=["%Y-%m-%d"], help="Day of asking.")] = None,
    documents: Annotated[
        Path | None, typer.Option("--documents", help="Folder for a gaps-in-care document (DEQM) a patient with a gap.")
    ] = None,
    reporter: Annotated[str, typer.Option("--reporter", help="Reference to who reports.")] = "Organization/reporter",
) -> None:
    """Count gaps in care by reason. Or write to a file who has which."""
    tables = []
    for item, _ in _evaluate(source, measure, (start.date(), end.date()), accept=accept or [], offset=offset):
        found = item.gaps(as_of=as_of.date() if as_of else None)
        tables.append(found)
        counts = Counter(reason for reason in found["reason"].to_pylist() if reason)  # of official measures
        render.out(f"{item.measure.title}: {found.num_rows:,} gaps")
        if counts:
            render.table(sorted(counts.items()), ("reason", "gaps"))
        if documents is not None:
            _write_documents(item, found, documents, reporter, as_of.date() if as_of else None)
    if out is not None:
        _write_csv(tables, out)


@group.command("completeness")
def completeness(
    source: Source,
    measure: Officials,
    start: Start,
    end: End,
    accept: Accept = None,
    offset: Offset = UTC_OFFSET,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare what claims and clinical data can tell of a measure. Each alone, and both together."""
    from hiexchange.measures import Measure
    from hiexchange.measures import completeness as compare

    loaded = [Measure.load(_official(name), accept=accept or ()) for name in measure]
    days = (start.date(), end.date())
    found = compare(loaded, _source(source), period=days, offset=_offset(offset)).to_pylist()
    if as_json:
        render.json_out(found)
        return
    names = ("measure", "group", "data", "denominator", "numerator", "rate", "not_found", "value_missing", "errors")
    shares = ("denominator_share", "numerator_share")
    rows = [(*(_number(row[name]) for name in names), *(_number(row[name]) for name in shares)) for row in found]
    render.table(rows, (*(name.replace("_", " ") for name in names), "of both: denominator", "numerator"))


def _offset(text: str) -> timedelta:
    """Return an offset written as in a configuration."""
    from hiexchange.config import MeasureSettings

    return MeasureSettings(id="", period=(date.min, date.min), offset=text).offset_delta


def _official(name: str) -> str:
    """Refuse one of our own measures where only a bundle's defines can answer."""
    from hiexchange.errors import ConfigError
    from hiexchange.measures import measures

    if name in measures() and not Path(name).exists():
        raise ConfigError(
            f"'{name}' is one of our own measures, which has no defines to look into",
            hint="give the bundle of an official measure; `measure run --out` writes the evidence of ours",
        )
    return name


def _source(path: Path) -> Any:
    """Return the lake in a folder, else the path, which the measures check."""
    if (path / "_hx").is_dir():
        from hiexchange.lake import Lake

        return Lake(path)
    return path


def _evaluate(path: Path, names: list[str], period: tuple[date, date], **options: Any) -> list[tuple[Any, Any]]:
    """Return the run of each measure, and the measure where it is an official one."""
    from hiexchange.errors import UnknownLayout
    from hiexchange.measures import Measure, evaluate, evaluate_all, measures

    source, known = _source(path), measures()
    accept, offset = options.pop("accept"), _offset(options.pop("offset"))
    for name in names:
        if name not in known and not Path(name).exists():
            near = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"give the path of a bundle, or one of {', '.join(sorted(known))}"
            )
            raise UnknownLayout(f"there is no measure '{name}'", hint=hint)
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
