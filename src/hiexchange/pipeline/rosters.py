"""Payers' files into the lake: ROSTER, MEMBER, ATTRIBUTION and ISSUE rows, each file once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange import _files, tables
from hiexchange import events as progress
from hiexchange.attribution import attribute, chase, current_ids
from hiexchange.config import CrosswalkSettings, RosterSettings, Settings
from hiexchange.errors import RosterError
from hiexchange.events import Reporter
from hiexchange.lake import Lake
from hiexchange.pipeline.inputs import stored
from hiexchange.pipeline.result import RunResult
from hiexchange.roster import Layout, Roster, load_layout, read_crosswalk, read_roster


def take_rosters(result: RunResult, settings: Settings, on_event: Reporter) -> None:
    """Accept every roster file that was not accepted before; set the result's members and attribution.

    Raises:
        RosterError: A file was refused as a whole.
    """
    with result.stage("roster") as facts:
        for entry in settings.rosters:
            _accept(result, entry, settings, on_event)
        rosters, result.members = stored(result.lake, tables.ROSTER), stored(result.lake, tables.MEMBER)
        result.attribution, result.issues = stored(result.lake, tables.ATTRIBUTION), stored(result.lake, tables.ISSUE)
        held = pc.sum(pc.equal(rosters["state"], "held")).as_py() or 0
        facts += [
            f"{len(rosters['payer_id'].unique())} payers",
            f"{rosters.num_rows} files" + (f" ({held} held)" if held else ""),
            f"{len(result.members['member_key'].unique()):,} members",
            f"{pc.sum(rosters['rows_refused']).as_py() or 0:,} rows refused",
        ]


def layout_of(entry: RosterSettings | CrosswalkSettings, settings: Settings) -> Layout:
    """Return the layout of a file: the operator's own file, or a shipped one by name."""
    own = settings.path(entry.layout)
    return load_layout(own if own.is_file() else entry.layout)


def _accept(result: RunResult, entry: RosterSettings, settings: Settings, on_event: Reporter) -> None:
    lake, path, layout = result.lake, settings.path(entry.path), layout_of(entry, settings)
    payer = entry.payer or layout.list.payer_id
    known = [
        row
        for row in stored(lake, tables.ROSTER).to_pylist()
        if row["payer_id"] == payer and row["layout"].split()[0] == layout.name and row["state"] == "accepted"
    ]
    if _files.sha256_file(path) in {row["file_sha256"] for row in known}:
        return
    roster = read_roster(
        path,
        layout,
        as_of=entry.as_of,
        received_at=result.known_at,
        payer_id=payer,
        previous=_last_accepted(lake, known),
        release=entry.release,
    )
    on_event(progress.RosterRead(roster.file_name, roster.counts.accepted, roster.counts.refused))
    if roster.state == "refused":
        raise RosterError(
            f"the roster {roster.file_name} was refused as a whole",
            issues=roster.issues,
            said=", ".join(sorted(set(roster.issues["code"].to_pylist()))),
            hint="see the issues of `hiexchange roster check`, and ask the payer for a new file",
        )
    rows: dict[str, pa.Table] = {"roster": tables.ROSTER.from_rows([_roster_row(roster)]), "issue": roster.issues}
    if roster.state == "accepted":
        if entry.crosswalk:
            pairs = read_crosswalk(settings.path(entry.crosswalk.path), layout_of(entry.crosswalk, settings))
            chains, doubts = chase(pairs)
            roster = replace(roster, members=current_ids(roster.members, chains))
            rows["issue"] = pa.concat_tables([roster.issues, doubts])
        # Rosters are compared with what earlier ones said: each sees the history up to now.
        history = stored(lake, tables.ATTRIBUTION, where=pc.field("list_id") == roster.list_id)
        rows |= {"member": roster.members, "attribution": attribute(roster, history, known_at=result.known_at)}
    # In one snapshot: a file that counts as accepted has all its members, whenever the process is killed.
    lake.append_all(rows)


def _roster_row(roster: Roster) -> dict[str, Any]:
    counts = roster.counts
    return {
        "roster_id": roster.roster_id,
        "payer_id": roster.payer_id,
        "list_id": roster.list_id,
        "file_name": roster.file_name,
        "file_sha256": roster.sha256,
        "header_sha": roster.header_sha,
        "layout": f"{roster.layout.name} {roster.layout.version}",
        "mode": roster.mode,
        "as_of_on": roster.as_of,
        "received_at": roster.received_at,
        "state": roster.state,
        "accepted_by": roster.accepted_by,
        "rows_read": counts.read,
        "rows_accepted": counts.accepted,
        "rows_refused": counts.refused,
        "rows_duplicate": counts.duplicates,
    }


def _last_accepted(lake: Lake, known: list[dict[str, Any]]) -> pa.Table | None:
    """Return the members of the newest of the accepted files."""
    if not known:
        return None
    newest = max(known, key=lambda row: (row["as_of_on"], row["received_at"]))
    return stored(lake, tables.MEMBER, where=pc.field("roster_id") == newest["roster_id"])
