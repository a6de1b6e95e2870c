"""Inline SVG drawn by hand: a funnel of counts and an interval on a scale. No library, no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH = 640
ROW = 30
LABEL = 190
BAR = WIDTH - LABEL - 90


def funnel(steps: Sequence[tuple[str, int]]) -> str:
    """Return bars for steps that each keep a part of the one before; the first is the full width."""
    whole = max((count for _, count in steps), default=0) or 1
    height = ROW * len(steps)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="funnel of counts">']
    for index, (label, count) in enumerate(steps):
        top = index * ROW
        width = BAR * count / whole
        parts.append(f'<text x="{LABEL - 8}" y="{top + 20}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'<rect x="{LABEL}" y="{top + 5}" width="{width:.1f}" height="20" class="bar"/>')
        parts.append(f'<text x="{LABEL + width + 8:.1f}" y="{top + 20}">{count:,}</text>')
    return "".join((*parts, "</svg>"))


def interval(rate: float, low: float, high: float) -> str:
    """Return a rate between 0 and 1 with its interval on a scale of percent."""

    def place(value: float) -> float:
        return LABEL + BAR * value

    ticks = "".join(
        f'<line x1="{place(tick / 4):.1f}" x2="{place(tick / 4):.1f}" y1="6" y2="30" class="tick"/>'
        f'<text x="{place(tick / 4):.1f}" y="46" text-anchor="middle">{tick * 25} %</text>'
        for tick in range(5)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} 52" role="img" aria-label="rate {rate:.1%}, interval {low:.1%} to {high:.1%}">{ticks}'
        f'<line x1="{place(low):.1f}" x2="{place(high):.1f}" y1="18" y2="18" class="interval"/>'
        f'<circle cx="{place(rate):.1f}" cy="18" r="6" class="point"/></svg>'
    )
