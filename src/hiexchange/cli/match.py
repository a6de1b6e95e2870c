"""``hiexchange match``: link members to people, review the doubtful ones, explain a pair."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiexchange.cli import render

if TYPE_CHECKING:
    import pyarrow as pa

    from hiexchange.lake import Lake

LakePath = Annotated[Path, typer.Option("--lake", help="Lake folder with member and Patient tables.")]
WeightsFile = Annotated[Path | None, typer.Option("--weights", help="Weights file; the shipped one by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Find members in the patient index, review what is doubtful.", no_args_is_help=True)
    app.add_typer(group, name="match")
    group.command("run")(_run)
    group.command("review")(_review)
    group.command("decide")(_decide)
    group.command("quality")(_quality)
    # Ids may begin with a hyphen: those of synthetic people do.
    group.command("explain", context_settings={"ignore_unknown_options": True})(_explain)
    group.command("train")(_train)


def _run(
    lake: LakePath = Path("lake"),
    weights: WeightsFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only; append nothing to the lake.")] = False,
    as_json: AsJson = False,
) -> None:
    """Match the lake's members to its patients. Obeys the lake's decisions and appends the links that changed."""
    from collections import Counter

    from hiexchange.matching import PERSON_XREF, follow, load_weights, match, relink
    from hiexchange.pipeline.merges import Merges

    store, members, persons = _tables(lake)
    now = datetime.now(UTC)
    merges = Merges.of(store, persons, known_at=now)
    chosen = load_weights(weights) if weights else None
    decisions = follow(_standing(store), merges.merged)
    links = match(members, follow(persons, merges.merged), known_at=now, decisions=decisions, weights=chosen)
    news = relink(_history(store), links, known_at=now)
    if not dry_run:
        fresh = {"person_link": news, PERSON_XREF.name: merges.news}
        store.append_all({name: rows for name, rows in fresh.items() if rows.num_rows})
    counts = Counter(zip(links["band"].to_pylist(), links["reason"].to_pylist(), strict=True))
    rows = [(band, reason or "", count) for (band, reason), count in sorted(counts.items(), key=str)]
    if as_json:
        listed = [{"band": band, "reason": reason, "members": count} for band, reason, count in rows]
        render.json_out({"members": links.num_rows, "changed": news.num_rows, "bands": listed})
        return
    render.table(rows, ("band", "reason", "members"))
    render.out(
        f"{links.num_rows:,} members, {news.num_rows:,} links new or changed" + (" (dry run)" if dry_run else "")
    )


def _review(
    out: Annotated[Path, typer.Argument(help="Where to write the queue: .csv or .xlsx (readable by you alone).")],
    lake: LakePath = Path("lake"),
    band: Annotated[list[str] | None, typer.Option("--band", help="review (default), auto; repeatable.")] = None,
    sample: Annotated[int | None, typer.Option("--sample", help="At most so many of each band.")] = None,
) -> None:
    """Write the review queue for a person to fill in."""
    from hiexchange.matching import current, queue, write_queue

    store, members, persons = _tables(lake)
    links = current(_history(store), known_at=datetime.now(UTC))
    lines = queue(links, members, persons, bands=tuple(band or ["review"]), sample=sample)
    write_queue(lines, out)
    render.out(f"{lines.num_rows:,} pairs in {out.name}: fill verdict (same, different, nobody) and decided_by")


def _decide(
    file: Annotated[Path, typer.Argument(help="The queue, filled in: .csv or .xlsx.")],
    lake: LakePath = Path("lake"),
) -> None:
    """Take decisions from a reviewed queue into the lake. Every later run obeys them."""
    from hiexchange.lake import Lake
    from hiexchange.matching import DECISION, new_decisions, read_decisions

    store = Lake(_existing(lake))
    standing = _standing(store)
    fresh = new_decisions(standing, read_decisions(_existing(file), decided_at=datetime.now(UTC)))
    store.append(DECISION.name, fresh)
    render.out(f"{fresh.num_rows:,} decisions taken, {standing.num_rows + fresh.num_rows:,} in the lake")


def _quality(
    lake: LakePath = Path("lake"),
    as_json: AsJson = False,
) -> None:
    """Show how right each band was, by people's decisions."""
    from hiexchange.matching import precision_by_band

    store, _, _ = _tables(lake)
    table = precision_by_band(_history(store), _standing(store))
    if as_json:
        render.json_out(table.to_pylist())
        return
    rows = [[round(v, 5) if isinstance(v, float) else v for v in row.values()] for row in table.to_pylist()]
    render.table(rows, table.column_names)


def _explain(
    member_key: Annotated[str, typer.Argument(help="member_key of the member.")],
    person_id: Annotated[str, typer.Argument(help="Patient.id of the person.")],
    lake: LakePath = Path("lake"),
    weights: WeightsFile = None,
) -> None:
    """Show field by field what speaks for and against a pair."""
    from hiexchange.matching import explain, load_weights

    _, members, persons = _tables(lake)
    chosen = load_weights(weights) if weights else None
    render.out(explain(members, persons, member_key=member_key, person_id=person_id, weights=chosen).text())


def _train(
    out: Annotated[Path, typer.Argument(help="Weights file to write.")],
    lake: LakePath = Path("lake"),
    note: Annotated[str, typer.Option("--note", help="What the tables are, kept in the file.")] = "",
    trainer: Annotated[str, typer.Option("--trainer", help="em, or splink (needs the linkage extra).")] = "em",
) -> None:
    """Learn weights from the lake's members and patients. No labels are needed."""
    from hiexchange._files import write_bytes
    from hiexchange.errors import ConfigError
    from hiexchange.matching import train, train_splink

    if trainer not in ("em", "splink"):
        raise ConfigError("the trainer is em or splink", hint="--trainer em")
    _, members, persons = _tables(lake)
    weights = (train if trainer == "em" else train_splink)(members, persons, note=note or f"trained by {trainer}")
    write_bytes(out, weights.dump())
    render.out(f"weights {weights.sha[:12]} in {out.name}")


def _tables(path: Path) -> tuple[Lake, pa.Table, pa.Table]:
    from hiexchange.errors import ConfigError
    from hiexchange.lake import Lake
    from hiexchange.tables import MEMBER, PERSON, check
    from hiexchange.views import view

    store = Lake(_existing(path))
    missing = [name for name in ("member", "Patient") if name not in store.tables()]
    if missing:
        raise ConfigError(
            f"the lake holds no {' and no '.join(missing)} table",
            where=str(path),
            hint="accept a roster and ingest Patient resources first",
        )
    members = check(store.table("member").to_arrow(), MEMBER)
    return store, members, check(view("patient_demographics", store), PERSON)


def _history(store: Lake) -> pa.Table:
    from hiexchange.pipeline.inputs import stored
    from hiexchange.tables import PERSON_LINK

    return stored(store, PERSON_LINK)


def _standing(store: Lake) -> pa.Table:
    from hiexchange.matching import DECISION
    from hiexchange.pipeline.inputs import stored

    return stored(store, DECISION)


def _existing(path: Path) -> Path:
    from hiexchange.errors import ConfigError

    if not path.exists():
        raise ConfigError("the file or folder does not exist", where=str(path), hint="check the path")
    return path
