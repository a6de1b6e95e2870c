"""Static pages: one self-contained HTML file, no script, no network, inline SVG, no patient data."""

from __future__ import annotations

from hiexchange.report.page import render_run, write_run

__all__ = ["render_run", "write_run"]
