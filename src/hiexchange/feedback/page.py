"""The page of a payer: one static HTML file, no scripts, no network; counts only, no member."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

from hiexchange.feedback.compute import Feedback

NOT_SHOWN = "–"
WIDTH, BAR, GAP, LABEL = 640, 18, 6, 170


def render(given: Feedback) -> str:
    """Return the page as text."""
    card = given.scorecard.to_pylist()
    totals = {name: _total([row[name] for row in card]) for name in ("notices", "acked", "undeliverable")}
    return str(
        _template().render(
            payer=given.payer_id,
            first=given.period[0],
            last=given.period[1],
            known_at=given.known_at,
            suppressed=given.suppressed,
            withheld=given.withheld,
            counts=given.counts,
            intake=given.intake.to_pylist(),
            refusals=Counter(given.refusals["code"].to_pylist()).most_common() if given.refusals.num_rows else [],
            bands=bars(
                [(name, given.counts[name]) for name in ("matched", "in review", "not found") if name in given.counts]
            ),
            classes=bars(_classes(given)),
            scorecard=card,
            totals=totals,
            measures=given.measures.to_pylist(),
            disputes=Counter(given.disputes["state"].to_pylist()).most_common(),
            oldest=max(given.disputes["age_days"].to_pylist(), default=0),
        )
    )


def bars(values: list[tuple[str, int]]) -> str:
    """Return a bar chart as inline SVG; every bar carries its number, so that colour says nothing alone."""
    if not values:
        return ""
    most = max(max(count for _, count in values), 1)
    height = len(values) * (BAR + GAP)
    parts = [f'<svg role="img" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">']
    for index, (name, count) in enumerate(values):
        top = index * (BAR + GAP)
        width = round((WIDTH - LABEL - 90) * count / most, 1)
        parts.append(f'<text x="{LABEL - 8}" y="{top + 13}" text-anchor="end">{name}</text>')
        parts.append(f'<rect x="{LABEL}" y="{top}" width="{width}" height="{BAR}"/>')
        parts.append(f'<text x="{LABEL + width + 6}" y="{top + 13}">{count:,}</text>')
    return "".join([*parts, "</svg>"])


def _classes(given: Feedback) -> list[tuple[str, int]]:
    names = {"IMP": "inpatient", "EMER": "emergency", "AMB": "ambulatory", "OBSENC": "observation"}
    counted = Counter(names.get(code or "", "other") for code in given.performance["class"].to_pylist())
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hiexchange.feedback"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["share"] = _share
    return environment.get_template("payer.html")


def _number(value: Any) -> str:
    """Return a count with thousands, or the mark of what is not shown."""
    return NOT_SHOWN if value is None else f"{value:,}"


def _total(values: list[int | None]) -> int | None:
    """Return the sum, unless a part of it is not shown: then the sum would be wrong, or give it away."""
    return None if None in values else sum(value or 0 for value in values)


def _share(part: Any, whole: Any) -> str:
    if part is None or whole is None:
        return NOT_SHOWN
    return f"{part / whole:.1%}" if whole else NOT_SHOWN
