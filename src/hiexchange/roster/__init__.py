"""Payers' rosters: any file, by a layout, to MEMBER and ISSUE rows, counted and judged."""

from __future__ import annotations

from hiexchange.roster.gate import RosterCounts
from hiexchange.roster.layout import Layout, load_layout, shipped_layouts
from hiexchange.roster.read import Roster, read_roster

__all__ = ["Layout", "Roster", "RosterCounts", "load_layout", "read_roster", "shipped_layouts"]
