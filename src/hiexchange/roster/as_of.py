"""The day a roster speaks of: given, or declared by the file's header, a column or its name."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from hiexchange.errors import RosterError
from hiexchange.roster.delimited import Raw
from hiexchange.roster.issues import issue, refusal
from hiexchange.roster.layout import Layout
from hiexchange.roster.opening import Opened
from hiexchange.roster.synonyms import folded


def declared_day(opened: Opened, layout: Layout, raw: Raw, given: date | None) -> tuple[date, list[dict[str, Any]]]:
    """Return the as-of date, and an ISSUE row where the date given is not what the file itself says.

    Raises:
        RosterError: No day is given, and nothing declares one or what declares it is none.
    """
    try:
        declared = _declared(opened, layout, raw)
    except RosterError as error:
        if given is None:
            raise
        return given, [{**error.issues.to_pylist()[0], "severity": "warning"}]
    if given and declared and given != declared:
        return given, [
            issue(
                "as_of_differs",
                "the as-of date given differs from the one the file declares",
                file=opened.name,
                severity="warning",
            )
        ]
    if given or declared:
        return given or declared, []  # type: ignore[return-value]  # one of the two is set
    raise refusal(
        "no_as_of",
        "nothing declares the day the roster speaks of",
        file=opened.name,
        hint="give as_of, or list.as_of in the layout; the file's modification time is never used",
        number="HX-504",
    )


def _declared(opened: Opened, layout: Layout, raw: Raw) -> date | None:
    if "as_of" in raw.facts:
        return _day(raw.facts["as_of"], "%Y-%m-%d", "the header", opened.name)
    if layout.list.as_of.column:
        return _of_column(layout, raw)
    pattern = layout.list.as_of.file_name
    for name in (opened.inner, opened.name) if pattern else ():
        match = re.search(pattern or "", name)
        if match:
            return _day(match.group(1), layout.list.as_of.format, "the file name", opened.name)
    return None


def _of_column(layout: Layout, raw: Raw) -> date:
    """Return the date of the as-of column, and watch that every row holds the same."""
    wanted = folded(layout.list.as_of.column or "")
    places = [number for number, name in enumerate(raw.header, 1) if folded(name) == wanted]
    if not places:
        raise refusal(
            "missing_column", "the file lacks its as-of column", file=raw.file, hint="give as_of", number="HX-504"
        )
    name = f"c{places[0]}"
    first = next(raw.batches, None)
    if first is None:
        raise refusal("no_rows", "the file holds no rows", file=raw.file, hint="ask for it again")
    raw.batches = itertools.chain([first], raw.batches)
    texts = first[name].unique().to_pylist()
    day = _day(texts[0], layout.list.as_of.format, "the as-of column", raw.file)

    def watched(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for batch in batches:
            if batch[name].unique().to_pylist() != texts[:1] and not raw.faults:
                raw.faults.append(("several_as_of", "the rows name different as-of dates"))
            yield batch

    raw.batches = watched(raw.batches)
    return day


def _day(text: str, form: str, place: str, file: str) -> date:
    try:
        return datetime.strptime(text.strip(), form).date()
    except ValueError:
        raise refusal(
            "bad_as_of",
            f"{place} holds no date where its date should be",
            file=file,
            hint="give as_of",
            number="HX-504",
        ) from None
