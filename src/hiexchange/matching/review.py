"""The review queue: what people are asked, and their answers, which outrank everything computed.

:func:`queue` lists the members in the review band, :func:`write_queue` hands them out as CSV or XLSX, the reviewer
fills three columns (verdict, decided_by, reason) and :func:`read_decisions` turns the file back into
DECISION rows, which :func:`~hiexchange.matching.match` takes. The file holds names and birth dates: it is for
the reviewer only, so it is written readable by its owner alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange import tables
from hiexchange._cells import FORMULA
from hiexchange._files import atomic_file
from hiexchange.errors import DataError, MissingExtra
from hiexchange.tables import INSTANT, NUMBER, TEXT, Column, Table

VERDICTS = ("same", "different", "nobody")

DECISION = Table(
    "match_decision",
    "One person's ruling on one pair. Append-only; the latest ruling on a pair counts.",
    ("member_key", "person_id", "decided_at"),
    (
        Column("member_key", TEXT, "see MEMBER", True),
        Column("person_id", TEXT, "the candidate ruled on; null when verdict is nobody"),
        Column("verdict", TEXT, "same, different, or nobody (the member is not in the index)", True),
        Column("decided_at", INSTANT, "when", True),
        Column("decided_by", TEXT, "who", True),
        Column("reason", TEXT, "why"),
        Column("band", TEXT, "band of the link when it was ruled on"),
        Column("score", NUMBER, "bits of the link when it was ruled on"),
    ),
)

MEMBER_COLUMNS = (
    "first_name",
    "middle_name",
    "last_name",
    "suffix",
    "birth_on",
    "sex",
    "ssn4",
    "member_id",
    "address_line",
    "city",
    "zip",
    "phone",
)
PERSON_COLUMNS = (
    "first_name",
    "middle_name",
    "last_name",
    "suffix",
    "birth_date",
    "sex",
    "ssn4",
    "mrn",
    "address_line",
    "city",
    "zip",
    "phone",
)
LINK_COLUMNS = ("member_key", "person_id", "band", "reason", "score", "gap", "evidence")
ANSWER_COLUMNS = ("verdict", "decided_by", "reason_for_verdict")
QUEUE_COLUMNS = (
    *ANSWER_COLUMNS,
    *LINK_COLUMNS,
    *(f"member_{name}" for name in MEMBER_COLUMNS),
    *(f"index_{name}" for name in PERSON_COLUMNS),
)


def queue(
    links: Any, members: Any, persons: Any, *, bands: Sequence[str] = ("review",), sample: int | None = None
) -> pa.Table:
    """Return what a reviewer needs to rule on links: both sides of each pair and the evidence per field.

    Args:
        links: PERSON_LINK rows.
        members: MEMBER rows of the same run.
        persons: PERSON rows of the same run.
        bands: Bands to list; ``auto`` too when their precision is to be checked.
        sample: At most so many of each band, evenly spread over the keys (which are hashes, so it is random).

    Returns:
        Text columns :data:`QUEUE_COLUMNS`, the most likely pairs first; the answer columns are empty.
    """
    rows = tables.check(links, tables.PERSON_LINK)
    wanted: list[dict[str, Any]] = []
    for band in bands:
        of_band = (
            rows.filter(pc.and_(pc.equal(rows["band"], band), pc.is_valid(rows["person_id"])))
            .sort_by("member_key")
            .to_pylist()
        )
        step = max(1, -(-len(of_band) // sample)) if sample else 1
        wanted += of_band[::step]
    wanted.sort(key=lambda row: (-(row["score"] or 0.0), row["member_key"]))
    left = _by_key(members, tables.MEMBER, "member_key", {row["member_key"] for row in wanted})
    right = _by_key(persons, tables.PERSON, "person_id", {row["person_id"] for row in wanted})
    lines = []
    for row in wanted:
        line: dict[str, Any] = dict.fromkeys(ANSWER_COLUMNS, "")
        line |= {name: row[name] for name in LINK_COLUMNS}
        line["evidence"] = "; ".join(
            f"{step['field']} {step['level']} {step['bits']:+.1f}" for step in row["evidence"] or []
        )
        line |= {f"member_{name}": left.get(row["member_key"], {}).get(name) for name in MEMBER_COLUMNS}
        line |= {f"index_{name}": right.get(row["person_id"], {}).get(name) for name in PERSON_COLUMNS}
        lines.append({name: "" if line[name] is None else str(line[name]) for name in QUEUE_COLUMNS})
    return pa.Table.from_pylist(lines, schema=pa.schema([(name, pa.string()) for name in QUEUE_COLUMNS]))


def _by_key(data: Any, kind: Table, key: str, keys: set[str]) -> dict[str, dict[str, Any]]:
    table = tables.check(data, kind)
    chosen = table.filter(pc.is_in(table[key], pa.array(sorted(keys), pa.string())))
    return {row[key]: row for row in chosen.to_pylist()}


def write_queue(lines: pa.Table, path: str | Path) -> None:
    """Write a queue as CSV, or as XLSX if the name says so (needs the ``excel`` extra); mode 600.

    Raises:
        MissingExtra: XLSX without xlsxwriter.
        StorageError: The disk is full or the folder cannot be written.
    """
    rows = [lines.column_names, *([cell or "" for cell in row.values()] for row in lines.to_pylist())]
    with atomic_file(path) as file:
        if Path(path).suffix.lower() == ".xlsx":
            _write_xlsx(file, rows)
        else:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([_defused(cell) for cell in row] for row in rows)
            file.write(text.getvalue().encode())


def _defused(cell: str) -> str:
    # A spreadsheet runs a cell that starts like a formula; the apostrophe is taken off when read back.
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def _write_xlsx(file: Any, rows: Iterable[Sequence[str]]) -> None:
    try:
        import xlsxwriter
    except ImportError:
        raise MissingExtra("excel", "writing XLSX") from None
    book = xlsxwriter.Workbook(
        file, {"in_memory": True, "strings_to_numbers": False, "strings_to_formulas": False, "strings_to_urls": False}
    )
    sheet = book.add_worksheet("review")
    for number, row in enumerate(rows):
        sheet.write_row(number, 0, row)
    sheet.data_validation(1, 0, 1_048_575, 0, {"validate": "list", "source": list(VERDICTS)})
    sheet.freeze_panes(1, len(ANSWER_COLUMNS))
    book.close()


def read_decisions(path: str | Path, *, decided_at: datetime) -> pa.Table:
    """Read a reviewed queue back: one DECISION row a line that has a verdict.

    Args:
        path: CSV or XLSX as :func:`write_queue` made it; further columns and another order do no harm.
        decided_at: When the decisions take effect.

    Raises:
        DataError: A column is missing, a verdict is none of :data:`VERDICTS`, or nobody signed it. The message
            gives line numbers and no content; nothing is accepted in part.
    """
    name = Path(path).name
    rows = list(_read_rows(Path(path)))
    header = [cell.strip() for cell in rows[0]] if rows else []
    missing = {"verdict", "decided_by", "member_key", "person_id"} - set(header)
    if missing:
        raise DataError(
            f"the review file lacks the column {', '.join(sorted(missing))}",
            where=name,
            code="HX-520",
            hint="export the queue again",
        )
    decided, bad = [], []
    for number, cells in enumerate(rows[1:], 2):
        line = {key: cell.removeprefix("'").strip() for key, cell in zip(header, cells, strict=False)}
        verdict = line.get("verdict", "").lower()
        if not verdict:
            continue
        if (
            verdict not in VERDICTS
            or not line.get("decided_by")
            or not line.get("member_key")
            or (verdict != "nobody" and not line.get("person_id"))
        ):
            bad.append(number)
            continue
        decided.append(
            {
                "member_key": line["member_key"],
                "person_id": None if verdict == "nobody" else line["person_id"],
                "verdict": verdict,
                "decided_at": decided_at,
                "decided_by": line["decided_by"],
                "reason": line.get("reason_for_verdict") or None,
                "band": line.get("band") or None,
                "score": float(line["score"]) if line.get("score") else None,
            }
        )
    if bad:
        raise DataError(
            f"{len(bad):,} lines of the review file have an unknown verdict or no signature",
            where=f"{name} line {', '.join(map(str, bad[:10]))}",
            code="HX-521",
            hint=f"verdict is one of {', '.join(VERDICTS)}; decided_by names the reviewer",
        )
    return DECISION.from_rows(decided)


def _read_rows(path: Path) -> Iterable[list[str]]:
    if path.suffix.lower() == ".xlsx":
        try:
            from python_calamine import CalamineWorkbook
        except ImportError:
            raise MissingExtra("excel", "reading XLSX") from None
        return [
            [str(cell) for cell in row]
            for row in CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0).to_python()
        ]
    try:
        return list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"))))
    except UnicodeDecodeError:
        raise DataError(
            "the review file is not UTF-8", where=path.name, hint="save it as CSV UTF-8, or as .xlsx"
        ) from None


def new_decisions(standing: Any, taken: Any) -> pa.Table:
    """Return the decisions of ``taken`` that say something new, so that a file read twice is taken once.

    Args:
        standing: DECISION rows so far.
        taken: DECISION rows of a queue.
    """
    said = ("member_key", "person_id", "verdict", "decided_by", "reason")
    latest: dict[tuple[str, str | None], dict[str, Any]] = {}
    for row in sorted(tables.check(standing, DECISION).to_pylist(), key=lambda row: row["decided_at"]):
        latest[row["member_key"], row["person_id"]] = row
    rows = tables.check(taken, DECISION).to_pylist()
    known = (latest.get((row["member_key"], row["person_id"]), {}) for row in rows)
    return DECISION.from_rows(
        row for row, before in zip(rows, known, strict=True) if any(row[name] != before.get(name) for name in said)
    )


def precision_by_band(links: Any, decisions: Any) -> pa.Table:
    """Measure, from people's decisions, how right each band was.

    Args:
        links: PERSON_LINK rows as they stood before the decisions.
        decisions: DECISION rows on them.

    Returns:
        One row a band: ``links`` (all of the band), ``decided``, ``same``, ``precision`` with a 95 % Wilson interval
        (``low``, ``high``), and ``recall_share``: the part of all estimated true links that the band holds. For
        ``auto`` that is recall among the members for whom a candidate was found.
    """
    rows = tables.check(links, tables.PERSON_LINK).select(["member_key", "person_id", "band"]).to_pylist()
    ruled: dict[tuple[str, str | None], str] = {}
    for ruling in sorted(tables.check(decisions, DECISION).to_pylist(), key=lambda row: row["decided_at"]):
        ruled[ruling["member_key"], ruling["person_id"]] = ruling["verdict"]
    result: list[dict[str, Any]] = []
    for band in ("auto", "review"):
        pairs = [(row["member_key"], row["person_id"]) for row in rows if row["band"] == band]
        verdicts = [ruled.get(pair) or ruled.get((pair[0], None)) for pair in pairs]
        decided, same = sum(v is not None for v in verdicts), verdicts.count("same")
        low, high = wilson(same, decided)
        share = same / decided if decided else None
        result.append(
            {
                "band": band,
                "links": len(pairs),
                "decided": decided,
                "same": same,
                "precision": share,
                "low": low,
                "high": high,
            }
        )
    expected = [row["links"] * (row["precision"] or 0.0) for row in result]
    for row, right in zip(result, expected, strict=True):
        row["recall_share"] = (
            right / sum(expected) if all(r["decided"] or not r["links"] for r in result) and sum(expected) else None
        )
    kinds = [
        ("band", TEXT),
        ("links", pa.int64()),
        ("decided", pa.int64()),
        ("same", pa.int64()),
        ("precision", NUMBER),
        ("low", NUMBER),
        ("high", NUMBER),
        ("recall_share", NUMBER),
    ]
    return pa.Table.from_pylist(result, schema=pa.schema(kinds))


def wilson(hits: int, tries: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval of a share; (0, 1) without a try. Source: Wilson, JASA 22 (1927)."""
    if not tries:
        return 0.0, 1.0
    share, spread = hits / tries, z * z / tries
    middle = share + spread / 2
    half = z * ((share * (1 - share) + spread / 4) / tries) ** 0.5
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))
