"""Read a payer's roster: file and layout in, MEMBER rows and ISSUE rows out, counted both ways.

Bad rows are refused one by one and kept as issues; a RosterError means that the file as a whole
cannot become a truthful table. Whether an accepted table may change anything is the gate's decision,
in ``state``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hiexchange import _files
from hiexchange.errors import ConfigError
from hiexchange.roster import convert, duplicates, projection
from hiexchange.roster.as_of import declared_day
from hiexchange.roster.columns import sources
from hiexchange.roster.delimited import Raw, byte_offsets
from hiexchange.roster.gate import RosterCounts, judge
from hiexchange.roster.issues import issue, refusal, table
from hiexchange.roster.layout import Layout, load_layout
from hiexchange.roster.opening import Opened, open_file
from hiexchange.roster.shapes import raw_rows
from hiexchange.roster.synonyms import folded
from hiexchange.tables import MEMBER, OPEN_DATE


@dataclass(frozen=True)
class Roster:
    """One roster file, read."""

    roster_id: str
    """Half a sha256 of payer, list and bytes: the same file is the same roster."""
    payer_id: str
    list_id: str
    """Which of the payer's lists: only files of one list replace each other."""
    mode: str
    """``full``: absent = dropped. ``delta``: absent = unchanged."""
    as_of: date
    """The day the file speaks of, as declared."""
    received_at: datetime
    members: pa.Table
    """MEMBER rows, in file order."""
    issues: pa.Table
    """ISSUE rows; ``severity`` error = a refused row, or the file when ``row_no`` is null."""
    counts: RosterCounts
    state: str
    """accepted, held (a person may release it) or refused. Only accepted rosters change attribution."""
    layout: Layout
    file_name: str
    sha256: str
    """Of the bytes as received."""
    header_sha: str
    """Of the header, folded: tells when a payer changes the columns."""
    accepted_by: str | None = None
    """Who released a held file."""
    authority_from: date | None = None
    """First day the file speaks for; the as-of date unless it is a restatement."""
    authority_to: date = OPEN_DATE
    """First day after it."""

    def __repr__(self) -> str:
        return (
            f"<Roster {self.file_name} of {self.payer_id} as of {self.as_of}: {self.state}, "
            f"{self.counts.accepted:,} accepted, {self.counts.refused:,} refused>"
        )

    def _repr_html_(self) -> str:
        facts = {
            "file": self.file_name,
            "payer": self.payer_id,
            "as of": self.as_of,
            "mode": self.mode,
            "state": self.state,
            "read": self.counts.read,
            "accepted": self.counts.accepted,
            "refused": self.counts.refused,
            "duplicates": self.counts.duplicates,
        }
        return (
            "<table>"
            + "".join(f"<tr><th>{k}</th><td>{escape(str(v))}</td></tr>" for k, v in facts.items())
            + "</table>"
        )


def read_roster(
    path: str | Path,
    layout: str | Path | Layout | dict[str, Any],
    *,
    as_of: date | None = None,
    received_at: datetime,
    payer_id: str | None = None,
    previous: Roster | pa.Table | None = None,
    release: str | None = None,
) -> Roster:
    """Read one roster file.

    Args:
        path: The file as received; gzip and zip are opened.
        layout: Name of a shipped layout, path of a TOML file, dictionary or Layout.
        as_of: The day the file speaks of; outranks what the file declares. One of both must say it,
            and never the file's modification time.
        received_at: When the file came (timezone-aware).
        payer_id: The payer; outranks the layout's.
        previous: The list as last accepted (a Roster, MEMBER or active ATTRIBUTION rows), for the
            shrink guard; None for a first file.
        release: Name of the person who releases the file if the gate holds it.

    Returns:
        The Roster; ``counts.read = accepted + refused + duplicates``.

    Raises:
        RosterError: The file cannot be read as the layout says; ``issues`` tells why.
        ConfigError: The layout is not valid, the payer is unknown, or the file is absent.
        UnknownLayout: No such layout.
        MissingExtra: An XLSX file without the ``excel`` extra.
    """
    rules = load_layout(layout)
    if not isinstance(received_at, datetime) or received_at.tzinfo is None:
        raise ConfigError("received_at must be a timezone-aware datetime", hint="datetime.now(UTC)")
    if as_of is not None and (not isinstance(as_of, date) or isinstance(as_of, datetime)):
        raise ConfigError("as_of must be a date", hint="date(2026, 1, 1)")
    together = rules.file.kind in ("atr", "dpc")
    opened = open_file(path, member=rules.file.member, max_bytes=rules.file.max_bytes, together=together)
    if not rules.verified:
        raise refusal(
            "unverified_layout",
            f"nobody has confirmed the column map of layout {rules.name}",
            file=opened.name,
            hint="compare it with the payer's file guide, then set verified = true in a copy",
            number="HX-505",
        )
    raw = raw_rows(opened, rules)
    payer = payer_id or rules.list.payer_id or raw.facts.get("payer_id")
    if not payer:
        raise ConfigError(
            "the roster's payer is not known", where=opened.name, hint="give payer_id, or list.payer_id in the layout"
        )
    intake = _Intake(opened, rules, raw, payer, as_of)
    return intake.finish(received_at=received_at, previous=previous, release=release)


class _Intake:
    """One file on its way to a Roster."""

    def __init__(self, opened: Opened, layout: Layout, raw: Raw, payer_id: str, as_of: date | None) -> None:
        self.opened = opened
        self.layout = layout
        self.raw = raw
        self.payer_id = payer_id
        self.as_of, self.as_of_issues = declared_day(opened, layout, raw, as_of)
        part = layout.list.list_id or raw.facts.get("list_id")
        self.list_id = f"{payer_id}/{part}" if part else payer_id
        self.roster_id = _files.sha256_text(payer_id, self.list_id, opened.sha256)[:32]
        self.issues: list[dict[str, Any]] = []
        self.refused: set[int] = set()

    def finish(self, *, received_at: datetime, previous: Roster | pa.Table | None, release: str | None) -> Roster:
        members, read, repeated = self.rows()
        self.issues += self.raw.ragged + self.raw.issues + self.as_of_issues
        counts = RosterCounts(read, len(members), read - len(members) - repeated, repeated, self.raw.declared_rows)
        mode = self.mode()
        verdict = judge(
            counts,
            members,
            self.layout.list,
            file=self.opened.name,
            mode=mode,
            as_of=self.as_of,
            received_at=received_at,
            previous=previous.members if isinstance(previous, Roster) else previous,
            faults=[*self.raw.faults, *self.other_payer()],
        )
        state, accepted_by = verdict.state, None
        gate_issues = list(verdict.issues)
        if state == "held" and release:
            state, accepted_by = "accepted", release
            gate_issues = [{**row, "severity": "warning"} for row in gate_issues]
        header_sha = _header_sha(self.raw.header)
        self.issues += gate_issues + self.compared(previous, header_sha)
        begin, end = self.authority()
        return Roster(
            roster_id=self.roster_id,
            payer_id=self.payer_id,
            list_id=self.list_id,
            mode=mode,
            as_of=self.as_of,
            received_at=received_at,
            members=members,
            issues=table(self._with_offsets()),
            counts=counts,
            state=state,
            layout=self.layout,
            file_name=self.opened.name,
            sha256=self.opened.sha256,
            header_sha=header_sha,
            accepted_by=accepted_by,
            authority_from=begin,
            authority_to=end,
        )

    def rows(self) -> tuple[pa.Table, int, int]:
        """Return accepted rows, the number read, and the number of exact repetitions."""
        found = sources(self.layout, self.raw.header, self.raw.width, file=self.opened.name)
        plan = convert.plan(
            self.layout,
            found,
            self.raw.header,
            payer_id=self.payer_id,
            as_of=self.as_of,
            begin=self.authority()[0],
            width=self.raw.width,
        )
        errors = plan.errors_mask()
        parts: list[pa.Table] = []
        read = 0
        for staged in projection.project(plan, self.batches(), self.raw.width):
            read += len(staged)
            flags = staged["flags"].to_numpy()
            if flags.any():
                self.flagged(staged, flags, plan.checks)
                staged = staged.filter(pa.array((flags & errors) == 0))
            parts.append(staged.drop_columns(["flags"]))
        read += self.raw.ragged_rows
        if not parts:
            raise refusal("no_rows", "the file holds no rows", file=self.opened.name, hint="ask for it again")
        staged = pa.concat_tables(parts)
        staged, repeated = self.without_duplicates(staged)
        return self.shaped(staged, plan), read, repeated

    def batches(self) -> Iterator[pa.Table]:
        """Yield the text, and give back the memory of the file as it is read."""
        for batch in self.raw.batches:
            yield batch
            self.opened.forget()

    def flagged(self, staged: pa.Table, flags: np.ndarray, checks: list[convert.Check]) -> None:
        hit = np.flatnonzero(flags)
        rows = staged["row_no"].to_numpy()[hit]
        for bit, check in enumerate(checks):
            for row in rows[(flags[hit] >> bit) & 1 == 1].tolist():
                self.add(check.code, check.message, row=row, column=check.column, severity=check.severity)

    def without_duplicates(self, staged: pa.Table) -> tuple[pa.Table, int]:
        hashes = duplicates.Hashes(*(staged[name].to_numpy() for name in ("h_row", "h_key", "h_member")))
        staged = staged.drop_columns(["h_row", "h_key", "h_member"])
        repeated = duplicates.exact(staged, hashes)
        keep = ~repeated
        shared = duplicates.shared_ids(staged, hashes, keep)
        keep &= ~shared
        wrong = duplicates.conflicting(staged, hashes, keep, policy=self.layout.list.duplicates)
        keep &= ~wrong
        numbers = staged["row_no"].to_numpy()
        for row in numbers[repeated].tolist():
            self.add("duplicate", "the row repeats an earlier one", row=row, column="row_sha", severity="information")
        for row in numbers[shared].tolist():
            self.add(
                "shared_member_id",
                "the member id stands for people born on different days",
                row=row,
                column="member_id",
            )
        for row in numbers[wrong].tolist():
            self.add(
                "conflict", "the row contradicts another of the same member and provider", row=row, column="valid_from"
            )
        return (staged if keep.all() else staged.filter(pa.array(keep))), int(repeated.sum())

    def shaped(self, staged: pa.Table, plan: convert.Plan) -> pa.Table:
        """Return staged rows as a MEMBER table; columns of one value share memory between chunks."""
        lengths = [len(chunk) for chunk in staged["row_no"].chunks]
        constants = {**plan.constants, "roster_id": self.roster_id, "as_of_on": self.as_of}
        columns = []
        for column in MEMBER.columns:
            if column.name in constants:
                columns.append(projection.constant_chunks(constants[column.name], column.type, lengths))
            else:
                array = staged[column.name]
                columns.append(array if array.type == column.type else array.cast(column.type))
        return pa.table(columns, schema=MEMBER.schema)

    def mode(self) -> str:
        declared = self.raw.facts.get("mode")
        if self.layout.list.mode == "auto":
            if declared == "unknown":
                raise refusal(
                    "mode_unknown",
                    "the file does not say whether it is a full list or changes",
                    file=self.opened.name,
                    hint="ask the payer, and set list.mode in the layout",
                    number="HX-506",
                )
            return declared or "full"
        if declared not in (None, "unknown", self.layout.list.mode):
            raise refusal(
                "mode_mismatch",
                f"the file declares itself {declared}, the layout says {self.layout.list.mode}",
                file=self.opened.name,
                hint="a full list read as a delta keeps departed members, a delta read as full drops everyone",
                number="HX-506",
            )
        return self.layout.list.mode

    def other_payer(self) -> list[tuple[str, str]]:
        """Return a fault where rows of another payer would be taken for this payer's."""
        facts = self.raw.facts
        if "other_payer" in facts and self.payer_id == facts["payer_id"]:
            return [("several_payers", "the file names several payers: give payer_id if it is one payer's")]
        return []

    def authority(self) -> tuple[date, date]:
        rule = self.layout.list
        begin = date(self.as_of.year, 1, 1) if rule.restates_year else rule.restated_from
        return (begin or self.as_of, rule.restated_to or OPEN_DATE)

    def compared(self, previous: Roster | pa.Table | None, header_sha: str) -> list[dict[str, Any]]:
        """Return what differs from the last file of the list, as information."""
        if not isinstance(previous, Roster):
            return []
        rows = []
        if previous.roster_id == self.roster_id:
            rows.append(
                issue("resent", "the same bytes were received before", file=self.opened.name, severity="information")
            )
        elif previous.file_name == self.opened.name:
            rows.append(
                issue(
                    "new_version",
                    "a file of this name was received with other bytes",
                    file=self.opened.name,
                    severity="warning",
                )
            )
        if previous.header_sha != header_sha:
            rows.append(
                issue(
                    "header_changed",
                    "the header differs from the last file's",
                    file=self.opened.name,
                    severity="warning",
                )
            )
        if self.as_of < previous.as_of:
            rows.append(
                issue(
                    "late_file",
                    "the file speaks of an earlier day than the last accepted one",
                    file=self.opened.name,
                    severity="information",
                )
            )
        return rows

    def add(self, code: str, message: str, *, row: int, column: str, severity: str = "error") -> None:
        self.issues.append(issue(code, message, file=self.opened.name, row_no=row, column=column, severity=severity))

    def _with_offsets(self) -> Iterable[dict[str, Any]]:
        wanted = sorted({row["row_no"] for row in self.issues if row["row_no"] is not None})
        offsets = byte_offsets(self.raw, wanted, self.layout.file.quote)
        return [{**row, "byte_offset": offsets.get(row["row_no"])} for row in self.issues]


def _header_sha(header: list[str]) -> str:
    return _files.sha256_text(*(folded(name) for name in header))
