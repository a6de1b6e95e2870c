"""Small-cell suppression: the form of feedback that may be shared beyond the payer's own desk.

Counts of 1 to 10 are blanked (CMS cell-size policy), the rates made of them too, and where a single cell
of a column is blank the next smallest follows: otherwise the total gives it away. Zero is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from hiexchange.feedback.compute import Feedback

LEAST = 11
"""Smallest count that is shown."""
COUNTS = (
    "members",
    "events",
    "notices",
    "delivered",
    "acked",
    "undeliverable",
    "discharges_7",
    "followed_7",
    "discharges_30",
    "followed_30",
    "readmitted_30",
)
PARTS = {
    "delivered": "notices",
    "acked": "notices",
    "undeliverable": "notices",
    "followed_7": "discharges_7",
    "followed_30": "discharges_30",
    "readmitted_30": "discharges_30",
    "numerator": "denominator",
}
"""Part -> whole: a part is blanked with its whole, and when the rest of the whole is a small cell."""


def shareable(given: Feedback) -> Feedback:
    """Return the feedback without person-level rows and without small cells."""
    card = suppress(given.scorecard, COUNTS)
    small = [value is None for value in card["notices"].to_pylist()]
    latency = [None if hide else value for hide, value in zip(small, card["median_latency_s"].to_pylist(), strict=True)]
    index = card.column_names.index("median_latency_s")
    intake = given.intake
    for name in intake.column_names[intake.column_names.index("rows_accepted") :]:
        # The parts of a file add up to its rows: one small part among them would show.
        intake = intake.set_column(intake.column_names.index(name), name, pa.nulls(intake.num_rows, pa.int64()))
    return replace(
        given,
        intake=intake,
        refusals=given.refusals.slice(0, 0),
        matches=given.matches.slice(0, 0),
        performance=given.performance.slice(0, 0),
        disputes=given.disputes.slice(0, 0),
        scorecard=card.set_column(index, "median_latency_s", pa.array(latency, pa.float64())),
        measures=suppress(given.measures, ("denominator", "numerator")),
        withheld=0 if given.withheld < LEAST else given.withheld,
        suppressed=True,
        counts={name: count for name, count in given.counts.items() if count == 0 or count >= LEAST},
    )


def suppress(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return a table whose small counts are null, together with what would give them away."""
    cells: dict[str, list[int | None]] = {name: table[name].to_pylist() for name in columns}
    shown = {name: [not _small(value) for value in values] for name, values in cells.items()}
    for part, whole in PARTS.items():
        if part in cells and whole in cells:
            for row, (some, all_) in enumerate(zip(cells[part], cells[whole], strict=True)):
                if not shown[whole][row] or _small((all_ or 0) - (some or 0)):
                    shown[part][row] = False
    for name, values in cells.items():
        hidden = [row for row, flag in enumerate(shown[name]) if not flag]
        if len(hidden) == 1:
            rest = [row for row in range(len(values)) if row != hidden[0] and values[row]]
            if rest:
                shown[name][min(rest, key=lambda row: (values[row] or 0, row))] = False
    for part, whole in PARTS.items():
        if part in cells and whole in cells:
            shown[part] = [mine and theirs for mine, theirs in zip(shown[part], shown[whole], strict=True)]
    for name, values in cells.items():
        blanked = [value if flag else None for value, flag in zip(values, shown[name], strict=True)]
        table = table.set_column(table.column_names.index(name), name, pa.array(blanked, pa.int64()))
    return table


def _small(value: int | None) -> bool:
    return value is not None and 0 < value < LEAST
