"""Payers' rosters: any file, by a layout, to MEMBER and ISSUE rows, counted and judged."""

from __future__ import annotations

from hiexchange.roster.crosswalk import read_crosswalk
from hiexchange.roster.gate import RosterCounts
from hiexchange.roster.infer import Proposal, infer_layout
from hiexchange.roster.layout import Layout, load_layout, shipped_layouts
from hiexchange.roster.read import Roster, read_roster
from hiexchange.roster.registry import check_providers

__all__ = [
    "Layout",
    "Proposal",
    "Roster",
    "RosterCounts",
    "check_providers",
    "infer_layout",
    "load_layout",
    "read_crosswalk",
    "read_roster",
    "shipped_layouts",
]
