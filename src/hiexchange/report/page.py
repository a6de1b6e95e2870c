"""The operator's page of one run: what came in, what went out, and that the sums hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from hiexchange import _files
from hiexchange.report import charts


def render_run(run: Mapping[str, Any]) -> str:
    """Return the HTML page of a run.

    Args:
        run: Plain values as in ``run.json``: ``title``, ``known_at``, ``seconds``, ``stages`` (name,
            seconds, facts), ``identity`` (counts of events by disposition), ``steps`` (label, count),
            ``measures`` (id, title, numerator, denominator, rate, low, high), ``issues`` (stage, code,
            rows), ``misdirected`` (a count) and ``truth`` (check, verdict, ok). Counts only: no patient data.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hiexchange.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    return environment.get_template("run.html.j2").render(
        run=run, funnel=charts.funnel(run["steps"]), interval=charts.interval
    )


def write_run(run: Mapping[str, Any], folder: str | Path) -> Path:
    """Write ``report.html`` and the same numbers as ``run.json``; return the page's path."""
    target = Path(folder)
    _files.write_json(target / "run.json", run)
    page = target / "report.html"
    _files.write_bytes(page, render_run(run).encode())
    return page
