"""Propose a layout for a file nobody has described: by header names, then by the shape of values.

A proposal is marked unverified, so it reads nothing until a person has compared it with the payer's
guide and set ``verified = true``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from hiexchange.roster.convert import DATE_FORMATS, DATES, MBI_PATTERN, connect
from hiexchange.roster.delimited import delimited, sniff
from hiexchange.roster.excel import workbook
from hiexchange.roster.issues import refusal
from hiexchange.roster.layout import FileRule
from hiexchange.roster.opening import as_text, open_file
from hiexchange.roster.synonyms import SYNONYMS, folded

SAMPLE = 1000
FORMATS = (*DATE_FORMATS, "%m/%d/%y", "%m-%d-%Y", "%d-%b-%Y", "%Y/%m/%d")
SHAPES = {
    "provider_npi": ("hx_npi(c)", "ten digits with an NPI check digit"),
    "mbi": (f"regexp_full_match(upper(replace(c, '-', '')), '{MBI_PATTERN}')", "CMS's MBI form"),
    "provider_tin": ("regexp_full_match(c, '[0-9]{2}-?[0-9]{7}')", "nine digits"),
    "sex": ("lower(c) IN ('m', 'f', 'male', 'female', 'u')", "sex codes"),
    "zip": ("regexp_full_match(c, '[0-9]{5}(-?[0-9]{4})?')", "ZIP form"),
}
"""Shapes of values that speak for a column, strongest first."""


@dataclass(frozen=True)
class Guess:
    """One proposed mapping."""

    column: str
    """MEMBER column."""
    source: str
    """Header, or number of the file's column."""
    confidence: float
    """0 to 1: name and shape agree .95, name alone .8, shape alone .5, name against shape .3."""
    why: str
    format: str | None = None
    """Date format that fits every sampled value."""


@dataclass(frozen=True)
class Proposal:
    """A layout to be looked at by a person."""

    name: str
    kind: str
    extends: str | None
    """Shipped layout that reads such a file as it is."""
    delimiter: str | None
    guesses: tuple[Guess, ...]
    unused: tuple[str, ...]
    """Headers that nothing was proposed for."""

    def to_toml(self) -> str:
        """Return the layout as TOML, unverified, each guess with its confidence as a comment."""
        lines = [
            f'name = "{self.name}"',
            'version = "1"',
            "verified = false # set true once compared with the payer's guide",
        ]
        if self.extends:
            return "\n".join([f'extends = "{self.extends}"', *lines, ""])
        lines += ["", "[file]", f'kind = "{self.kind}"']
        if self.delimiter:
            lines.append(f'delimiter = "{self.delimiter}"'.replace("\t", "\\t"))
        lines += ["", "[columns]"]
        for guess in self.guesses:
            parts = [f'source = "{guess.source}"'.replace("\\", "\\\\")]
            parts += [f'format = "{guess.format}"'] if guess.format else []
            parts += ["required = true"] if guess.column == "member_id" else []
            lines.append(f"{guess.column} = {{ {', '.join(parts)} }} # {guess.confidence:.0%}: {guess.why}")
        lines += [f"# not used: {name}" for name in self.unused]
        return "\n".join([*lines, ""])


def infer_layout(path: str | Path) -> Proposal:
    """Return a proposal for a file.

    Raises:
        RosterError: The file cannot be read at all.
        ConfigError: There is no such file.
    """
    opened = open_file(path, together=True)
    name = Path(opened.name).name.split(".")[0] or "roster"
    head = opened.data.slice(0, min(opened.data.size, 1 << 16)).to_pybytes()
    if head.startswith(b"ISA"):
        return Proposal(name, "x12-834", "x12-834", None, (), ())
    if head.lstrip().startswith(b"{"):
        return Proposal(name, "atr", "atr-ndjson", None, (), ())
    if head.startswith(b"PK"):
        raw, _ = workbook(opened.data, FileRule(kind="xlsx"), file=opened.name)
        return _from_rows(name, "xlsx", None, raw.header, next(raw.batches))
    text = as_text(opened)
    mark = sniff(text.data.slice(0, min(text.data.size, 1 << 16)).to_pybytes())
    raw = delimited(text.data, FileRule(delimiter=mark), file=opened.name)
    batch = next(raw.batches, None)
    if batch is None or raw.width == 1:
        raise refusal("unreadable", "no delimiter splits the file", file=opened.name, hint="is it fixed width?")
    return _from_rows(name, "delimited", mark, raw.header, batch)


def _from_rows(name: str, kind: str, mark: str | None, header: list[str], batch: pa.Table) -> Proposal:
    sample = batch.slice(0, SAMPLE)
    best: dict[str, Guess] = {}
    used: set[str] = set()
    for number, title in enumerate(header, 1):
        column = sample[f"c{number}"]
        named = SYNONYMS.get(folded(title))
        guess = _guess(named, title or str(number), column)
        if guess and (guess.column not in best or best[guess.column].confidence < guess.confidence):
            best[guess.column] = guess
    if "member_id" not in best and "mbi" in best:
        best["member_id"] = Guess("member_id", best["mbi"].source, 0.5, "the MBI, for want of another id")
    used = {guess.source for guess in best.values()}
    unused = tuple(title for title in header if title not in used)
    return Proposal(name, kind, None, mark, tuple(sorted(best.values(), key=lambda guess: guess.column)), unused)


def _guess(named: str | None, source: str, column: pa.ChunkedArray) -> Guess | None:
    values = [text.strip() for text in column.to_pylist() if text and text.strip()]
    if named in DATES:
        form = _date_format(values)
        if form:
            return Guess(named, source, 0.95, f"header and {form}", form)
        return Guess(named, source, 0.3 if values else 0.8, "header; no date format fits" if values else "header")
    shaped = _shape(values)
    if named is None:
        return Guess(shaped[0], source, 0.5, f"values: {shaped[1]}") if shaped else None
    if named in SHAPES and values:
        if shaped and shaped[0] == named:
            return Guess(named, source, 0.95, f"header and {shaped[1]}")
        return Guess(named, source, 0.3, "header; the values have another form")
    return Guess(named, source, 0.8, "header")


def _shape(values: list[str]) -> tuple[str, str] | None:
    if not values:
        return None
    con = connect()
    try:
        con.register("v", pa.table({"c": values}))
        for column, (sql, why) in SHAPES.items():
            share = con.execute(f"SELECT avg(({sql})::INT) FROM v").fetchall()[0][0]
            if share >= 0.95:
                return column, why
    finally:
        con.close()
    return None


def _date_format(values: list[str]) -> str | None:
    """Return the first format that nineteen of twenty values fit; open ends (9999, 0000) do not vote."""
    known = [text for text in values if not text.startswith(("9999", "0000")) and not text.endswith("9999")]
    return next(
        (form for form in FORMATS if known and sum(_fits(text, form) for text in known) >= 0.95 * len(known)), None
    )


def _fits(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True
