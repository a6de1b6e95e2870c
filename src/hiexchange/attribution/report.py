"""The re-attribution report: who joined, left and moved in a quarter, list by list.

Colorado Regulation 4-2-96, section 7 (HB22-1325) asks carriers for lists at least quarterly, "easy to
interpret and analyze", with the method, so every line carries method, basis, as-of date, file and row.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pyarrow as pa

from hiexchange._duck import quiet_connection
from hiexchange.attribution.knowledge import as_known
from hiexchange.errors import ConfigError
from hiexchange.tables import DAY, INT, NUMBER, TEXT, Column, Table, check

REATTRIBUTION = Table(
    "reattribution",
    "One member whose providers differ between the first day of a quarter and the first day after it.",
    ("payer_id", "list_id", "member_key", "quarter"),
    (
        Column("quarter", TEXT, "2026-Q1", True),
        Column("payer_id", TEXT, "payer", True),
        Column("list_id", TEXT, "list of the payer"),
        Column("member_key", TEXT, "member", True),
        Column("member_id", TEXT, "the payer's id", True),
        Column("change", TEXT, "joined, left, moved, provider_added or provider_removed", True),
        Column("from_providers", pa.list_(TEXT), "NPI, tax id or organisation before, sorted", True),
        Column("to_providers", pa.list_(TEXT), "after, sorted", True),
        Column("changed_on", DAY, "first day of the new state, as the payer says", True),
        Column("basis", TEXT, "basis of the deciding row"),
        Column("method_text", TEXT, "method as published"),
        Column("as_of_on", DAY, "as-of date of the deciding file"),
        Column("roster_id", TEXT, "deciding file"),
        Column("row_no", INT, "its row; 0 when the member was absent from it"),
    ),
)

SUMMARY = Table(
    "reattribution_summary",
    "Counts of one list in one quarter: start + joined - left = end.",
    ("payer_id", "list_id", "quarter"),
    (
        Column("quarter", TEXT, "2026-Q1", True),
        Column("payer_id", TEXT, "payer", True),
        Column("list_id", TEXT, "list"),
        Column("members_start", INT, "attributed on its first day", True),
        Column("members_end", INT, "attributed on the first day after it", True),
        Column("joined", INT, "not attributed at the start, attributed at the end", True),
        Column("left", INT, "the reverse", True),
        Column("moved", INT, "other providers altogether", True),
        Column("provider_added", INT, "kept all and got more", True),
        Column("provider_removed", INT, "kept some", True),
        Column("share_changed", NUMBER, "(left + moved + added + removed) / members_start; null without members"),
    ),
)


def reattribution(history: Any, year: int, quarter: int, *, known_at: datetime) -> tuple[pa.Table, pa.Table]:
    """Return the re-attributions of a quarter, and their counts.

    Args:
        history: ATTRIBUTION rows as stored.
        year: Calendar year.
        quarter: 1 to 4.
        known_at: Knowledge time.

    Returns:
        ``(rows, summary)``: REATTRIBUTION and the summary; a past ``known_at`` gives the same report
        again.

    Raises:
        ConfigError: No such quarter.
    """
    if quarter not in (1, 2, 3, 4):
        raise ConfigError("a quarter is 1, 2, 3 or 4")
    begin = date(year, 3 * quarter - 2, 1)
    end = date(year + quarter // 4, (3 * quarter) % 12 + 1, 1)
    con = quiet_connection()
    try:
        con.register("k", as_known(history, known_at))
        given = {"begin": begin, "stop": end, "quarter": f"{year}-Q{quarter}"}
        con.execute(f"CREATE TEMP TABLE changed AS {_CHANGES}", given)
        rows = con.sql(
            "SELECT * EXCLUDE (state) FROM changed WHERE change <> 'stayed' ORDER BY payer_id, list_id, member_id"
        ).to_arrow_table()
        summary = con.sql(_SUMMARY).to_arrow_table()
    finally:
        con.close()
    return check(rows, REATTRIBUTION), check(summary, SUMMARY)


_CHANGES = """
WITH spells AS (
    SELECT *, coalesce(provider_npi, provider_tin, org_id) || CASE WHEN provider_npi IS NOT NULL AND provider_tin IS NOT NULL
        THEN '@' || provider_tin ELSE '' END AS provider FROM k),
before AS (
    SELECT payer_id, list_id, member_key, any_value(member_id) AS member_id, list_sort(list_distinct(list(provider))) AS names
    FROM spells WHERE valid_from <= $begin AND $begin < valid_to GROUP BY ALL),
after AS (
    SELECT payer_id, list_id, member_key, any_value(member_id) AS member_id, list_sort(list_distinct(list(provider))) AS names
    FROM spells WHERE valid_from <= $stop AND $stop < valid_to GROUP BY ALL),
both_sides AS (
    SELECT coalesce(b.payer_id, a.payer_id) AS payer_id, coalesce(b.list_id, a.list_id) AS list_id,
        coalesce(b.member_key, a.member_key) AS member_key, coalesce(b.member_id, a.member_id) AS member_id,
        coalesce(b.names, []) AS from_providers, coalesce(a.names, []) AS to_providers
    FROM before b FULL JOIN after a
    ON a.payer_id = b.payer_id AND a.list_id IS NOT DISTINCT FROM b.list_id AND a.member_key = b.member_key),
judged AS (
    SELECT *, CASE WHEN len(from_providers) = 0 THEN 'joined' WHEN len(to_providers) = 0 THEN 'left'
        WHEN from_providers = to_providers THEN 'stayed'
        WHEN len(list_intersect(from_providers, to_providers)) = 0 THEN 'moved'
        WHEN len(list_intersect(from_providers, to_providers)) = len(from_providers) THEN 'provider_added'
        ELSE 'provider_removed' END AS change FROM both_sides),
-- The latest start or end within the quarter decides the line's date and provenance.
moves AS (
    SELECT payer_id, list_id, member_key, day, basis, method_text, as_of_on, roster_id, row_no FROM (
        SELECT *, CASE WHEN valid_to > $begin AND valid_to <= $stop THEN valid_to
            WHEN valid_from > $begin AND valid_from <= $stop THEN valid_from END AS day FROM spells)
    WHERE day IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY payer_id, list_id, member_key ORDER BY day DESC, valid_from DESC, attribution_id) = 1)
SELECT $quarter AS quarter, j.payer_id, j.list_id, j.member_key, j.member_id, j.change, j.from_providers, j.to_providers,
    coalesce(m.day, $begin::DATE) AS changed_on, m.basis, m.method_text, m.as_of_on, m.roster_id, m.row_no, true AS state
FROM judged j LEFT JOIN moves m
ON m.payer_id = j.payer_id AND m.list_id IS NOT DISTINCT FROM j.list_id AND m.member_key = j.member_key
"""

_SUMMARY = """
SELECT quarter, payer_id, list_id, count(*) FILTER (len(from_providers) > 0) AS members_start,
    count(*) FILTER (len(to_providers) > 0) AS members_end, count(*) FILTER (change = 'joined') AS joined,
    count(*) FILTER (change = 'left') AS "left", count(*) FILTER (change = 'moved') AS moved,
    count(*) FILTER (change = 'provider_added') AS provider_added,
    count(*) FILTER (change = 'provider_removed') AS provider_removed,
    count(*) FILTER (change NOT IN ('joined', 'stayed')) / nullif(count(*) FILTER (len(from_providers) > 0), 0)
        AS share_changed
FROM changed GROUP BY ALL ORDER BY payer_id, list_id
"""
