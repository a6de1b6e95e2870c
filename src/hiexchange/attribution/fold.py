"""Fold the files of one list, oldest as-of date first, into spells per business key: SQL over Arrow.

A *spell* is a half-open run of days on which one business key is attributed. Folding one file:

- A line without a start of its own (its start is the as-of date) continues the spell that reaches the
  as-of date, or opens one there. A dated line replaces every spell of its key that it overlaps: it
  is the payer's corrected statement.
- A full file ends, at its as-of date, every spell it does not name. A delta leaves them.
- ``dropped`` ends a spell; ``cancelled`` (ATR: was added in error) takes it away.
- A restatement speaks for a window of days only: spells are cut at the window and joined again.
"""

from __future__ import annotations

from typing import Protocol

import duckdb
import numpy as np
import pyarrow as pa

DECIDED = (
    "attribution_id",
    "business_key",
    "valid_from",
    "valid_to",
    "change_type",
    "row_no",
    "asserted_from",
    "asserted_to",
)
"""Columns of ATTRIBUTION that the fold decides."""

_KEY = ("member_key", "contract_id", "plan_id", "provider_npi", "provider_tin", "org_id", "attribution_level")
_PAYLOAD = (
    "line_of_business",
    "location_id",
    "basis",
    "rank",
    "method_text",
    "coverage_from",
    "coverage_to",
    "program_year",
    "sharing_pref",
    "sharing_pref_from",
    "samhsa_pref",
)
_PAST = (
    *_PAYLOAD,
    *("business_key", "attribution_id", "valid_from", "valid_to", "asserted_from", "asserted_to", "known_from"),
    *("known_to", "list_seq", "roster_id", "row_no", "change_type", "payer_change_type"),
)
_PAYLOAD_HASH = f"hash({', '.join(_PAYLOAD)})"
_ID = "left(sha256(key || '|' || strftime(f, '%Y-%m-%d')), 32)"


class EditionLike(Protocol):
    """What a step needs to know of a file; see ``history.Edition``."""

    @property
    def as_of(self) -> object: ...
    @property
    def mode(self) -> str: ...
    @property
    def authority_from(self) -> object: ...
    @property
    def authority_to(self) -> object: ...
    @property
    def restates(self) -> bool: ...


class Work:
    """The tables of one fold: ``a`` assertions, ``v`` rows visible now, ``s`` spells.

    ``src`` is a row number: of the history where ``old``, of the members otherwise. ``ord`` is the
    number of the file that last touched a spell, 0 for none of those folded here.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        past: pa.Table,
        members: pa.Table,
        list_id: str,
        order: list[str],
        newest: int,
    ) -> None:
        """Take over the history of one list and the lines of a new file, ``order[newest - 1]``."""
        self.con = con
        self.newest = newest
        con.register("order_of", pa.table({"roster_id": order, "ord": range(1, len(order) + 1)}))
        con.register(
            "members", _numbered(members, (*_KEY, *_PAYLOAD, "valid_from", "valid_to", "payer_change_type", "row_no"))
        )
        con.register("past", _numbered(past, _PAST))
        parts = ", ".join(f"coalesce({name}, '')" for name in _KEY)
        key = f"left(sha256(concat_ws(chr(31), {_quoted(list_id)}, {parts})), 32)"
        con.execute(
            f"""CREATE TEMP TABLE a AS
            SELECT {key} AS key, valid_from AS af, valid_to AS til, {_kind("valid_from", "valid_to")} AS kind,
                src, false AS old, row_no, {_PAYLOAD_HASH} AS ph,
                {newest}::BIGINT AS ord FROM members"""
        )
        if len(order) > 1:
            con.execute(
                f"""INSERT INTO a
                SELECT business_key, asserted_from, asserted_to, {_kind("asserted_from", "asserted_to")}, src, true,
                    row_no, {_PAYLOAD_HASH}, o.ord FROM past JOIN order_of o USING (roster_id)
                WHERE asserted_from IS NOT NULL
                QUALIFY row_number() OVER (PARTITION BY roster_id, row_no ORDER BY list_seq, attribution_id) = 1"""
            )

    def start(self, *, empty: bool) -> None:
        """Make the spells to start from: none, or those in force now."""
        self.con.execute(
            f"""CREATE TEMP TABLE v AS
            SELECT business_key AS key, valid_from AS f, valid_to AS t, src, roster_id, row_no, change_type,
                {_PAYLOAD_HASH} AS ph
            FROM past WHERE known_to > known_from
            QUALIFY row_number() OVER (PARTITION BY attribution_id ORDER BY known_from DESC, list_seq DESC) = 1
                AND valid_from < valid_to"""
        )
        self.con.execute(
            f"""CREATE TEMP TABLE s AS
            SELECT key, f, t, src, true AS old, 0::BIGINT AS ord, false AS absent, change_type AS change, ph,
                NULL::DATE AS af, NULL::DATE AS til, 0::BIGINT AS row_no
            FROM v WHERE {"false" if empty else "true"}"""
        )
        self.con.execute("CREATE TEMP TABLE void AS FROM s LIMIT 0")

    def step(self, number: int, edition: EditionLike) -> None:
        """Fold one file onto ``s``."""
        self.con.execute(f"CREATE OR REPLACE TEMP VIEW r AS FROM a WHERE ord = {number}")
        self._resolve(edition)
        if edition.restates:
            self._cut_window(edition)
        else:
            self._replace(edition)
        self._record(number)

    def _resolve(self, edition: EditionLike) -> None:
        """Table ``n``: what each line says, start resolved; ``rf``/``rt`` is what it replaces."""
        self.con.execute(
            """CREATE OR REPLACE TEMP TABLE n AS
            WITH p AS (SELECT $as_of::DATE AS as_of, $begin::DATE AS begin),
            looked AS (
                SELECT r.src, r.old, min(s.f) AS covering
                FROM r, p, s
                WHERE s.key = r.key AND (r.kind = 'dropped' AND r.af >= r.til OR r.kind = 'active' AND r.af = p.as_of)
                    AND s.f <= (CASE WHEN r.kind = 'active' THEN p.as_of ELSE r.til END)
                    AND s.t >= (CASE WHEN r.kind = 'active' THEN p.as_of ELSE r.til END)
                GROUP BY r.src, r.old),
            edges AS (
                SELECT r.key, max(r.til) AS edge FROM r, p
                WHERE r.kind <> 'cancelled' AND r.af < p.as_of AND r.til <= p.as_of AND r.af < r.til GROUP BY r.key),
            resolved AS (
                SELECT r.*, CASE
                    WHEN r.kind = 'active' AND r.af = p.as_of
                        THEN greatest(coalesce(l.covering, p.as_of), coalesce(e.edge, DATE '0001-01-01'))
                    WHEN r.kind = 'dropped' AND r.af >= r.til THEN coalesce(l.covering, r.til)
                    ELSE r.af END AS f
                FROM p, r LEFT JOIN looked l ON l.src = r.src AND l.old = r.old LEFT JOIN edges e ON e.key = r.key)
            SELECT key, f, CASE WHEN kind = 'cancelled' THEN f ELSE til END AS t, kind, src, old, row_no, ph, af, til,
                CASE WHEN kind = 'cancelled' THEN af ELSE f END AS rf, til AS rt
            FROM resolved""",
            {"as_of": edition.as_of, "begin": edition.authority_from},
        )

    def _replace(self, edition: EditionLike) -> None:
        """Table ``s2``: lines replace the spells they overlap; a full file ends the others."""
        self.con.execute(
            """CREATE OR REPLACE TEMP TABLE gone AS
            SELECT DISTINCT s.key, s.f, s.t, s.src, s.old, s.ph
            FROM s JOIN n ON s.key = n.key AND ((s.f < n.rt AND s.t > n.rf) OR s.f = n.f)"""
        )
        end = (
            "CASE WHEN s.t > $as_of::DATE THEN greatest(s.f, $as_of::DATE) ELSE s.t END"
            if edition.mode == "full"
            else "s.t"
        )
        given = {"as_of": edition.as_of} if edition.mode == "full" else {}
        self.con.execute(
            f"""CREATE OR REPLACE TEMP TABLE rest AS
            SELECT s.* REPLACE ({end} AS t), s.t AS was
            FROM s ANTI JOIN gone USING (key, f)""",
            given,
        )

    def _cut_window(self, edition: EditionLike) -> None:
        """Table ``s2`` for a restatement: cut spells at the window, join lines to what stands beside it."""
        window = {"begin": edition.authority_from, "stop": edition.authority_to}
        self.con.execute(
            f"""CREATE OR REPLACE TEMP TABLE inside AS
            SELECT s.* FROM s WHERE s.f < $stop::DATE AND s.t > $begin::DATE
                {"" if edition.mode == "full" else "AND s.key IN (SELECT key FROM n)"}""",
            window,
        )
        # Pieces of those spells before and after the window.
        self.con.execute(
            """CREATE OR REPLACE TEMP TABLE piece AS
            SELECT * REPLACE (least(t, $begin::DATE) AS t), t AS was FROM inside WHERE f < $begin::DATE
            UNION ALL BY NAME
            SELECT * REPLACE ($stop::DATE AS f), NULL::DATE AS was FROM inside WHERE t > $stop::DATE""",
            window,
        )
        self.con.execute(
            """CREATE OR REPLACE TEMP TABLE n AS
            WITH w AS (SELECT $begin::DATE AS begin, $stop::DATE AS stop),
            clipped AS (
                SELECT n.* REPLACE (greatest(n.f, w.begin) AS f, least(n.t, w.stop) AS t)
                FROM n, w)
            SELECT c.* REPLACE (coalesce(b.f, c.f) AS f, coalesce(e.t, c.t) AS t)
            FROM clipped c JOIN w ON true
            LEFT JOIN piece b ON b.key = c.key AND b.t = c.f AND c.f = w.begin AND c.f < c.t AND b.f < w.begin
            LEFT JOIN piece e ON e.key = c.key AND e.f = c.t AND c.t = w.stop AND c.f < c.t AND e.f >= w.stop""",
            window,
        )
        self.con.execute("CREATE OR REPLACE TEMP TABLE gone AS SELECT DISTINCT key, f, t, src, old, ph FROM inside")
        self.con.execute(
            """CREATE OR REPLACE TEMP TABLE rest AS
            SELECT *, t AS was FROM s ANTI JOIN inside USING (key, f)
            UNION ALL BY NAME
            SELECT p.* FROM piece p WHERE NOT EXISTS (
                SELECT 1 FROM n WHERE n.key = p.key AND n.f < n.t AND n.f <= p.f AND n.t >= p.t)"""
        )

    def _record(self, number: int) -> None:
        """Make the new ``s`` of ``n`` and ``rest``; keep in ``void`` what became true of no day."""
        self.con.execute(
            """CREATE OR REPLACE TEMP TABLE judged AS
            SELECT n.key, n.f, n.t, n.src, n.old, $number::BIGINT AS ord, false AS absent,
                CASE WHEN n.kind <> 'active' THEN n.kind
                    WHEN g.f IS NOT NULL AND g.t = n.t AND g.ph = n.ph THEN 'nochange'
                    WHEN g.f IS NOT NULL OR o.key IS NOT NULL THEN 'changed'
                    ELSE 'new' END AS change,
                n.ph, n.af, n.til, n.row_no
            FROM n LEFT JOIN gone g ON g.key = n.key AND g.f = n.f
            LEFT JOIN (SELECT DISTINCT key FROM gone) o ON o.key = n.key""",
            {"number": number},
        )
        self.con.execute(
            """CREATE OR REPLACE TEMP TABLE s2 AS
            SELECT * FROM judged WHERE f < t
            UNION ALL BY NAME
            SELECT * EXCLUDE (was) REPLACE (
                CASE WHEN was IS DISTINCT FROM t THEN $number::BIGINT ELSE ord END AS ord,
                was IS DISTINCT FROM t OR absent AS absent,
                CASE WHEN was IS NULL THEN 'changed' WHEN was <> t THEN 'dropped' ELSE change END AS change,
                CASE WHEN was IS DISTINCT FROM t THEN NULL ELSE af END AS af,
                CASE WHEN was IS DISTINCT FROM t THEN NULL ELSE til END AS til,
                CASE WHEN was IS DISTINCT FROM t THEN 0 ELSE row_no END AS row_no)
            FROM rest WHERE f < t""",
            {"number": number},
        )
        self.con.execute(
            """INSERT INTO void BY NAME
            SELECT * FROM judged WHERE f >= t
            UNION ALL BY NAME
            SELECT key, f, f AS t, src, old, $number::BIGINT AS ord, true AS absent, 'dropped' AS change, ph,
                NULL::DATE AS af, NULL::DATE AS til, 0::BIGINT AS row_no FROM rest WHERE f >= t
            UNION ALL BY NAME
            SELECT key, f, f AS t, src, old, $number::BIGINT AS ord, true AS absent, 'cancelled' AS change, ph,
                NULL::DATE AS af, NULL::DATE AS til, 0::BIGINT AS row_no
            FROM gone WHERE NOT EXISTS (SELECT 1 FROM judged j WHERE j.key = gone.key AND j.f = gone.f)
                AND NOT EXISTS (SELECT 1 FROM rest WHERE rest.key = gone.key AND rest.f = gone.f)""",
            {"number": number},
        )
        self.con.execute("DROP TABLE s")
        self.con.execute("ALTER TABLE s2 RENAME TO s")
        for name in ("judged", "rest", "gone", "n"):
            self.con.execute(f"DROP TABLE {name}")

    def differences(self, *, late: bool) -> pa.Table:
        """Return the rows to append: where the folded spells differ from those in force.

        Args:
            late: The list was folded anew, so spells of other files may differ too.
        """
        if late:
            return self._differences_anew()
        return self.con.sql(
            f"""WITH ended AS (FROM void QUALIFY row_number() OVER (PARTITION BY key, f ORDER BY absent, row_no) = 1)
            SELECT {_decided("row_no")}, src, old, ord, false AS hidden FROM s WHERE ord > 0
            UNION ALL
            SELECT {_decided("row_no")}, src, old, ord, false AS hidden FROM ended
            WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.key = ended.key AND s.f = ended.f)"""
        ).to_arrow_table()

    def _differences_anew(self) -> pa.Table:
        return self.con.sql(
            f"""WITH changed AS (
                SELECT s.* FROM s JOIN order_of o ON o.ord = s.ord LEFT JOIN v ON v.key = s.key AND v.f = s.f
                WHERE v.key IS NULL OR v.t <> s.t OR v.roster_id <> o.roster_id OR v.row_no <> s.row_no
                    OR v.change_type <> s.change OR v.ph <> s.ph),
            ended AS (
                SELECT v.key, v.f, v.f AS t, v.src, true AS old, {self.newest}::BIGINT AS ord, 'cancelled' AS change,
                    NULL::DATE AS af, NULL::DATE AS til, 0::BIGINT AS row_no
                FROM v WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.key = v.key AND s.f = v.f)),
            -- Lines of the late file that no spell shows: kept for the next fold, never in force.
            said AS (SELECT src FROM changed WHERE NOT old AND NOT absent),
            unseen AS (
                SELECT key, af AS f, CASE WHEN kind = 'cancelled' THEN af ELSE til END AS t, src, old,
                    {self.newest}::BIGINT AS ord, CASE kind WHEN 'active' THEN 'nochange' ELSE kind END AS change, af, til, row_no
                FROM a WHERE NOT old AND src NOT IN (FROM said))
            SELECT {_decided("row_no")}, src, old, ord, false AS hidden FROM changed
            UNION ALL SELECT {_decided("row_no")}, src, old, ord, false FROM ended
            UNION ALL SELECT {_decided("row_no")}, src, old, ord, true FROM unseen"""
        ).to_arrow_table()


def _decided(row_no: str) -> str:
    return (
        f"{_ID} AS attribution_id, key AS business_key, f AS valid_from, greatest(f, t) AS valid_to, "
        f"change AS change_type, {row_no}, af AS asserted_from, til AS asserted_to"
    )


def _kind(begin: str, end: str) -> str:
    return (
        "CASE WHEN payer_change_type = 'cancelled' THEN 'cancelled' "
        f"WHEN payer_change_type = 'dropped' OR {begin} >= {end} THEN 'dropped' ELSE 'active' END"
    )


def _numbered(table: pa.Table, names: tuple[str, ...]) -> pa.Table:
    return table.select(list(names)).append_column("src", pa.array(np.arange(len(table))))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
