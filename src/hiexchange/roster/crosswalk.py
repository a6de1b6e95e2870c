"""Read a crosswalk of changed member ids (CCLF9): previous and current, text in, two columns out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import ConfigError
from hiexchange.roster.columns import place_of
from hiexchange.roster.issues import refusal
from hiexchange.roster.layout import Layout, load_layout
from hiexchange.roster.opening import open_file
from hiexchange.roster.shapes import raw_rows


def read_crosswalk(path: str | Path, layout: str | Path | Layout | dict[str, Any] = "cclf9") -> pa.Table:
    """Return ``previous`` and ``current``, one row a changed id, as ``attribution.chase`` takes them.

    Args:
        path: The file.
        layout: ``columns.member_id`` is the previous id, ``columns.mbi`` the current one.

    Raises:
        RosterError: The file or its layout cannot be used.
        ConfigError: The layout maps no previous or no current id.
    """
    rules = load_layout(layout)
    opened = open_file(path, member=rules.file.member, max_bytes=rules.file.max_bytes)
    if not rules.verified:
        raise refusal(
            "unverified_layout",
            f"nobody has confirmed the column map of layout {rules.name}",
            file=opened.name,
            hint="compare it with the file guide, then set verified = true in a copy",
            number="HX-505",
        )
    raw = raw_rows(opened, rules)
    places = {name: place_of(rules, name, raw.header, raw.width) for name in ("member_id", "mbi")}
    missing = [name for name, place in places.items() if place is None]
    if missing:
        raise ConfigError(f"the layout does not map {', '.join(missing)}", where=rules.name)
    batch = pa.concat_tables(list(raw.batches))
    columns = [_plain(batch[f"c{places[name]}"]) for name in ("member_id", "mbi")]
    table = pa.table(columns, names=["previous", "current"])
    return table.filter(pc.and_(pc.not_equal(columns[0], ""), pc.not_equal(columns[1], "")))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_upper(pc.replace_substring(pc.utf8_trim_whitespace(column), "-", ""))
