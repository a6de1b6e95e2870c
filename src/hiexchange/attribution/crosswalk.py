"""Changed member ids: chains of an MBI crosswalk chased to the current id, cycles refused.

A Medicare beneficiary may get a new MBI; CCLF9 lists previous and current ones. A roster is brought to
current ids before it is attributed, so that a change of id is no change of attribution. Never applied
backwards: a current id stays as it is in a file that was written before the change.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from hiexchange._duck import quiet_connection
from hiexchange.tables import ISSUE, MEMBER, TEXT, check

MBI_SYSTEM = "http://hl7.org/fhir/sid/us-mbi"
CROSSWALK = pa.schema([pa.field("previous", TEXT, nullable=False), pa.field("current", TEXT, nullable=False)])
"""One row a changed id."""


def chase(pairs: Any) -> tuple[pa.Table, pa.Table]:
    """Return each previous id with the last id of its chain, and ISSUE rows of what is refused.

    Args:
        pairs: CROSSWALK rows in any order; anything with ``__arrow_c_stream__``.

    Returns:
        ``(crosswalk, issues)``. Ids in a cycle, and ids with two different successors, are left out:
        whose they are is not known. Issues name no id.
    """
    table = pairs if isinstance(pairs, pa.Table) else pa.table(pairs)
    nexts: dict[str, set[str]] = {}
    for previous, current in zip(table["previous"].to_pylist(), table["current"].to_pylist(), strict=True):
        if previous != current:
            nexts.setdefault(previous, set()).add(current)
    forks = {previous for previous, found in nexts.items() if len(found) > 1}
    chains, cycles, forked = dict[str, str](), 0, 0
    for start in sorted(nexts):
        last, seen = start, {start}
        while last in nexts and last not in forks:
            (last,) = nexts[last]
            if last in seen:
                break
            seen.add(last)
        if last in forks:
            forked += 1
        elif last in nexts:
            cycles += 1
        else:
            chains[start] = last
    issues = [
        {"stage": "attribution", "severity": "error", "code": code, "message": f"{count:,} ids {text}"}
        for code, count, text in (
            ("crosswalk_cycle", cycles, "lead into a circle and are not replaced"),
            ("crosswalk_fork", forked, "have two successors and are not replaced"),
        )
        if count
    ]
    found = pa.table({"previous": list(chains), "current": list(chains.values())}, schema=CROSSWALK)
    return found, ISSUE.from_rows(issues)


def current_ids(members: Any, crosswalk: pa.Table) -> pa.Table:
    """Return MEMBER rows with previous MBIs replaced, in ``mbi`` and where the MBI is the member id.

    Args:
        members: MEMBER rows.
        crosswalk: What :func:`chase` returned.
    """
    table = check(members, MEMBER)
    if not len(crosswalk) or not len(table):
        return table
    con = quiet_connection()
    try:
        con.register("m", table)
        con.register("x", crosswalk)
        # sha256_text of payer, system and id, as the intake makes member_key.
        part = "(strlen({0})::VARCHAR || ':' || {0})"
        key = " || ".join(part.format(name) for name in ("payer_id", "member_id_system", "id"))
        found = con.sql(
            f"""SELECT * EXCLUDE (id, now) REPLACE (
                    coalesce(now, mbi) AS mbi, id AS member_id,
                    CASE WHEN id = member_id THEN member_key ELSE sha256({key}) END AS member_key)
            FROM (SELECT m.*, b.current AS now,
                    CASE WHEN m.member_id_system = '{MBI_SYSTEM}' THEN coalesce(i.current, m.member_id)
                        ELSE m.member_id END AS id
                FROM m LEFT JOIN x b ON b.previous = m.mbi LEFT JOIN x i ON i.previous = m.member_id)
            ORDER BY roster_id, row_no"""
        ).to_arrow_table()
    finally:
        con.close()
    return check(found, MEMBER)
