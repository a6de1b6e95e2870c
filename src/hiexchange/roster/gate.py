"""The acceptance gate: whole-list checks that decide whether a file may change anything.

``refused`` files are wrong beyond argument (a declared count that does not add up, an as-of date in the
future). ``held`` files are suspicious: they change nothing until a named person releases them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.roster.issues import issue
from hiexchange.roster.layout import ListRule


@dataclass(frozen=True)
class RosterCounts:
    """Rows of one file; ``read = accepted + refused + duplicates`` always."""

    read: int
    accepted: int
    refused: int
    duplicates: int
    """Exact repetitions of an accepted row, collapsed."""
    declared: int | None = None
    """What the file itself says it holds."""


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and why."""

    state: str
    """accepted, held or refused."""
    issues: tuple[dict[str, Any], ...]


def judge(
    counts: RosterCounts,
    members: pa.Table,
    rule: ListRule,
    *,
    file: str,
    mode: str,
    as_of: date,
    received_at: datetime,
    previous: pa.Table | None,
    faults: Sequence[tuple[str, str]] = (),
) -> Verdict:
    """Decide over a file whose rows are read.

    Args:
        counts: Its counts.
        members: Its accepted rows.
        rule: Thresholds.
        file: File name, for the issues.
        mode: ``full`` or ``delta``: only full files can shrink a list.
        as_of: The day the file speaks of.
        received_at: When it came.
        previous: Rows of the list as last accepted, with ``member_key``; None for a first file.
        faults: Code and message of what the container itself found wrong (control counts).
    """
    refused: list[dict[str, Any]] = []
    held: list[dict[str, Any]] = []
    wrong = _adder(refused, file)
    odd = _adder(held, file)
    for code, message in faults:
        wrong(code, message)
    if counts.declared is not None and counts.declared != counts.read:
        said = "no readable count" if counts.declared < 0 else f"{counts.declared:,} rows"
        wrong("count_mismatch", f"the file declares {said} and holds {counts.read:,}")
    # A day of grace: a payer's Tuesday may be our Monday.
    if as_of > received_at.date() + timedelta(days=1):
        wrong("future_as_of", "the file's as-of date lies after the day it was received")
    if counts.accepted == 0:
        wrong("nothing_accepted", "not one row of the file could be accepted")
    elif counts.refused > rule.max_refused_share * counts.read and counts.read >= rule.min_members_for_guard:
        odd("refused_share", f"{counts.refused:,} of {counts.read:,} rows were refused")
    if mode == "full" and previous is not None and counts.accepted:
        _guard_shrink(members, previous, rule, odd)
    if refused:
        return Verdict("refused", tuple(refused + held))
    return Verdict("held" if held else "accepted", tuple(held))


def _guard_shrink(members: pa.Table, previous: pa.Table, rule: ListRule, odd: Callable[[str, str], None]) -> None:
    before = pc.unique(previous["member_key"])
    if len(before) < rule.min_members_for_guard:
        return
    now = pc.unique(members["member_key"])
    dropped = len(before) - int(np.count_nonzero(np.asarray(pc.is_in(before, value_set=now))))
    if dropped > rule.max_drop_share * len(before):
        odd("shrink", f"{dropped:,} of {len(before):,} members would be dropped")
    change = abs(len(members) - len(previous))
    if change > rule.max_row_change * len(previous):
        odd("row_change", f"the list goes from {len(previous):,} to {len(members):,} rows")


def _adder(into: list[dict[str, Any]], file: str) -> Callable[[str, str], None]:
    def add(code: str, message: str) -> None:
        into.append(issue(code, message, file=file))

    return add
