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

from hiexchange._duck import quiet_connection

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
    *("business_key", "valid_from", "valid_to", "asserted_from", "asserted_to", "known_from"),
    *("known_to", "list_seq", "roster_id", "row_no", "row_sha", "change_type", "payer_change_type"),
)
_PAYLOAD_HASH = f"hash({', '.join(_PAYLOAD)})"

CHANGES = ("new", "changed", "nochange", "dropped", "cancelled")
"""ATR change types; the tables below hold their place in this tuple."""
_NEW, _CHANGED, _NOCHANGE, _DROPPED, _CANCELLED = range(len(CHANGES))
_ACTIVE = 0
"""Kind of a line that says somebody is attributed; the other kinds are _DROPPED and _CANCELLED."""


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


def business_keys(members: pa.Table, list_id: str) -> pa.ChunkedArray:
    """Return the business key of each roster line: list, member, contract, plan, provider, level."""
    parts = ", ".join(f"coalesce({name}, '')" for name in _KEY)
    con = quiet_connection()
    try:
        con.register("members", members.select(list(_KEY)))
        return con.sql(
            f"SELECT left(sha256(concat_ws(chr(31), {_quoted(list_id)}, {parts})), 32) AS key FROM members"
        ).to_arrow_table()["key"]
    finally:
        con.close()


def attribution_ids(
    keys: pa.ChunkedArray, starts: pa.ChunkedArray, hidden: pa.ChunkedArray, sequence: int
) -> pa.ChunkedArray:
    """Return the id of each spell: business key and first day, so that a reload gives the same.

    Lines that were never in force get ids of their own, so that they replace nothing.
    """
    con = quiet_connection()
    try:
        con.register("spells", pa.table({"key": keys, "f": starts, "hidden": hidden}))
        return con.sql(
            "SELECT left(sha256(key || '|' || strftime(f, '%Y-%m-%d') || CASE WHEN hidden THEN $late ELSE '' END), 32) "
            "AS id FROM spells",
            params={"late": f"|late {sequence}"},
        ).to_arrow_table()["id"]
    finally:
        con.close()


class Work:
    """The tables of one fold: ``a`` assertions, ``v`` rows in force now, ``s`` spells.

    ``k`` is the business key as a 128-bit number. ``src`` is a row number: of the history where
    ``old``, of the members otherwise. ``ord`` is the number of the file that last touched a spell, 0
    for none of those folded here. Rows are kept narrow: a list has millions.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        past: pa.Table,
        members: pa.Table,
        keys: pa.ChunkedArray,
        order: list[str],
        newest: int,
    ) -> None:
        """Take over the history of one list and the lines of a new file, ``order[newest - 1]``."""
        self.con = con
        self.newest = newest
        self.late = len(order) > 1
        con.register("order_of", pa.table({"roster_id": order, "ord": range(1, len(order) + 1)}))
        lines = members.select([*_PAYLOAD, "valid_from", "valid_to", "payer_change_type", "row_sha"]).append_column(
            "key", keys
        )
        con.register("members", _numbered(lines))
        con.register("past", _numbered(past.select(list(_PAST))))
        con.execute(
            f"""CREATE TEMP TABLE a AS
            SELECT md5_number(key) AS k, valid_from AS af, valid_to AS til, {_kind("valid_from", "valid_to")} AS kind,
                src, false AS old, {_PAYLOAD_HASH} AS ph, {newest}::SMALLINT AS ord FROM members"""
        )
        if len(order) > 1:
            con.execute(
                f"""INSERT INTO a
                SELECT md5_number(business_key), asserted_from, asserted_to, {_kind("asserted_from", "asserted_to")},
                    src, true, {_PAYLOAD_HASH}, o.ord FROM past JOIN order_of o USING (roster_id)
                WHERE asserted_from IS NOT NULL
                QUALIFY row_number() OVER (PARTITION BY roster_id, row_no ORDER BY list_seq, business_key, valid_from) = 1"""
            )

    def start(self) -> None:
        """Make the spells to start from: those in force now, or none where the list is folded anew.

        Of a business key and first day the last assertion counts. It is found by aggregation, since a
        window over all columns takes half a gigabyte more for a million and a half rows.
        """
        changes = " ".join(f"WHEN '{name}' THEN {number}" for number, name in enumerate(CHANGES))
        self.con.execute(
            f"""CREATE TEMP TABLE v AS
            SELECT md5_number(business_key) AS k, valid_from AS f, valid_to AS t, src,
                (CASE change_type {changes} END)::UTINYINT AS change, {_PAYLOAD_HASH} AS ph
            FROM past SEMI JOIN (
                SELECT arg_max(src, list_seq) AS src FROM past WHERE known_to > known_from
                GROUP BY md5_number(business_key), valid_from) USING (src)
            WHERE valid_from < valid_to"""
        )
        self.con.execute(
            f"""CREATE TEMP TABLE s AS
            SELECT k, f, t, src, true AS old, 0::SMALLINT AS ord, false AS absent, change, ph
            FROM v WHERE {"false" if self.late else "true"}"""
        )
        self.con.execute("CREATE TEMP TABLE void AS FROM s LIMIT 0")
        if not self.late:
            self.con.execute("DROP TABLE v")

    def step(self, number: int, edition: EditionLike) -> None:
        """Fold one file onto ``s``."""
        self.con.execute(f"CREATE OR REPLACE TEMP VIEW r AS FROM a WHERE ord = {number}")
        self._resolve(edition)
        if not self.late:
            self.con.execute("DROP VIEW r")
            self.con.execute("DROP TABLE a")
        if edition.restates:
            self._cut_window(edition)
        else:
            self._replace(edition)
        self._record(number)

    def _resolve(self, edition: EditionLike) -> None:
        """Table ``n``: what each line says, start resolved; ``rf``/``rt`` is what it replaces."""
        self.con.execute(
            f"""CREATE OR REPLACE TEMP TABLE n AS
            WITH p AS (SELECT $as_of::DATE AS as_of),
            asking AS (
                SELECT r.k, r.src, r.old, CASE WHEN r.kind = {_ACTIVE} THEN p.as_of ELSE r.til END AS day FROM r, p
                WHERE r.kind = {_DROPPED} AND r.af >= r.til OR r.kind = {_ACTIVE} AND r.af = p.as_of),
            looked AS (
                SELECT q.src, q.old, min(s.f) AS covering
                FROM asking q JOIN s ON s.k = q.k AND s.f <= q.day AND s.t >= q.day GROUP BY q.src, q.old),
            edges AS (
                SELECT r.k, max(r.til) AS edge FROM r, p
                WHERE r.kind <> {_CANCELLED} AND r.af < p.as_of AND r.til <= p.as_of AND r.af < r.til GROUP BY r.k),
            resolved AS (
                SELECT r.*, CASE
                    WHEN r.kind = {_ACTIVE} AND r.af = p.as_of
                        THEN greatest(coalesce(l.covering, p.as_of), coalesce(e.edge, DATE '0001-01-01'))
                    WHEN r.kind = {_DROPPED} AND r.af >= r.til THEN coalesce(l.covering, r.til)
                    ELSE r.af END AS f
                FROM p, r LEFT JOIN looked l ON l.src = r.src AND l.old = r.old LEFT JOIN edges e ON e.k = r.k)
            SELECT k, f, CASE WHEN kind = {_CANCELLED} THEN f ELSE til END AS t, kind, src, old, ph,
                CASE WHEN kind = {_CANCELLED} THEN af ELSE f END AS rf, til AS rt
            FROM resolved""",
            {"as_of": edition.as_of},
        )

    def _replace(self, edition: EditionLike) -> None:
        """Tables ``gone`` and ``rest``: lines replace the spells they overlap; a full file ends the others."""
        self.con.execute(
            """CREATE OR REPLACE TEMP TABLE gone AS
            SELECT k, f, t, src, old, ph FROM s SEMI JOIN n ON s.k = n.k AND ((s.f < n.rt AND s.t > n.rf) OR s.f = n.f)"""
        )
        full = edition.mode == "full"
        end = "CASE WHEN s.t > $as_of::DATE THEN greatest(s.f, $as_of::DATE) ELSE s.t END" if full else "s.t"
        self.con.execute(
            f"""CREATE OR REPLACE TEMP TABLE rest AS
            SELECT s.* REPLACE ({end} AS t), s.t AS was FROM s ANTI JOIN gone USING (k, f)""",
            {"as_of": edition.as_of} if full else {},
        )

    def _cut_window(self, edition: EditionLike) -> None:
        """Tables ``n``, ``gone``, ``rest`` of a restatement: cut at the window, join to what stands beside it."""
        window = {"begin": edition.authority_from, "stop": edition.authority_to}
        named = "" if edition.mode == "full" else "AND s.k IN (SELECT k FROM n)"
        self.con.execute(
            f"""CREATE OR REPLACE TEMP TABLE inside AS
            SELECT s.* FROM s WHERE s.f < $stop::DATE AND s.t > $begin::DATE {named}""",
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
            clipped AS (SELECT n.* REPLACE (greatest(n.f, w.begin) AS f, least(n.t, w.stop) AS t) FROM n, w)
            SELECT c.* REPLACE (coalesce(b.f, c.f) AS f, coalesce(e.t, c.t) AS t)
            FROM clipped c JOIN w ON true
            LEFT JOIN piece b ON b.k = c.k AND b.t = c.f AND c.f = w.begin AND c.f < c.t AND b.f < w.begin
            LEFT JOIN piece e ON e.k = c.k AND e.f = c.t AND c.t = w.stop AND c.f < c.t AND e.f >= w.stop""",
            window,
        )
        self.con.execute("CREATE OR REPLACE TEMP TABLE gone AS SELECT DISTINCT k, f, t, src, old, ph FROM inside")
        self.con.execute(
            """CREATE OR REPLACE TEMP TABLE rest AS
            SELECT *, t AS was FROM s ANTI JOIN inside USING (k, f)
            UNION ALL BY NAME
            SELECT p.* FROM piece p WHERE NOT EXISTS (
                SELECT 1 FROM n WHERE n.k = p.k AND n.f < n.t AND n.f <= p.f AND n.t >= p.t)"""
        )

    def _record(self, number: int) -> None:
        """Make the new ``s`` of ``n`` and ``rest``; keep in ``void`` what became true of no day."""
        touched = "was IS DISTINCT FROM t"
        self.con.execute("DROP TABLE s")
        self.con.execute(
            f"""CREATE TEMP TABLE s AS
            SELECT n.k, n.f, n.t, n.src, n.old, {number}::SMALLINT AS ord, false AS absent,
                (CASE WHEN n.kind <> {_ACTIVE} THEN n.kind
                    WHEN g.f IS NOT NULL AND g.t = n.t AND g.ph = n.ph THEN {_NOCHANGE}
                    WHEN g.f IS NOT NULL OR n.k IN (SELECT k FROM gone) THEN {_CHANGED}
                    ELSE {_NEW} END)::UTINYINT AS change, n.ph
            FROM n LEFT JOIN gone g ON g.k = n.k AND g.f = n.f"""
        )
        nowhere = f"{number}::SMALLINT AS ord, true AS absent"
        self.con.execute(
            f"""INSERT INTO void BY NAME
            SELECT * FROM s WHERE f >= t
            UNION ALL BY NAME
            SELECT k, f, f AS t, src, old, {nowhere}, {_DROPPED}::UTINYINT AS change, ph FROM rest WHERE f >= t
            UNION ALL BY NAME
            SELECT k, f, f AS t, src, old, {nowhere}, {_CANCELLED}::UTINYINT AS change, ph FROM gone
            WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.k = gone.k AND s.f = gone.f)
                AND NOT EXISTS (SELECT 1 FROM rest WHERE rest.k = gone.k AND rest.f = gone.f)"""
        )
        self.con.execute("DELETE FROM s WHERE f >= t")
        self.con.execute(
            f"""INSERT INTO s BY NAME
            SELECT k, f, t, src, old, CASE WHEN {touched} THEN {number} ELSE ord END AS ord,
                {touched} OR absent AS absent,
                CASE WHEN was IS NULL THEN {_CHANGED} WHEN was <> t THEN {_DROPPED} ELSE change END AS change, ph
            FROM rest WHERE f < t"""
        )
        for name in ("rest", "gone", "n"):
            self.con.execute(f"DROP TABLE {name}")

    def differences(self) -> pa.Table:
        """Return the rows to append: where the folded spells differ from those in force.

        Where the list was folded anew, spells of other files may differ too.

        Returns:
            ``src``, ``old``, ``ord``, ``f``, ``t``, ``change``, ``absent`` (the row follows from a
            member's absence), ``hidden`` (kept for later folds, never in force); lines of the new file
            first, in its order.
        """
        if self.late:
            return self._differences_anew()
        return self.con.sql(
            """WITH ended AS (FROM void QUALIFY row_number() OVER (PARTITION BY k, f ORDER BY absent, src) = 1)
            SELECT src, old, ord, f, t, change, absent, false AS hidden FROM s WHERE ord > 0
            UNION ALL
            SELECT src, old, ord, f, t, change, absent, false FROM ended
            WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.k = ended.k AND s.f = ended.f)
            ORDER BY old, src, f"""
        ).to_arrow_table()

    def _differences_anew(self) -> pa.Table:
        return self.con.sql(
            f"""WITH shown AS (SELECT v.*, p.roster_id, p.row_no, p.row_sha FROM v JOIN past p USING (src)),
            lines AS (
                SELECT s.*, o.roster_id, CASE WHEN s.absent THEN 0 WHEN s.old THEN p.row_no END AS row_no,
                    CASE WHEN s.old THEN p.row_sha ELSE m.row_sha END AS row_sha
                FROM s JOIN order_of o USING (ord) LEFT JOIN past p ON s.old AND p.src = s.src
                LEFT JOIN members m ON NOT s.old AND m.src = s.src),
            changed AS (
                SELECT l.* FROM lines l LEFT JOIN shown v ON v.k = l.k AND v.f = l.f
                WHERE v.k IS NULL OR v.t <> l.t OR v.roster_id <> l.roster_id OR v.row_no <> l.row_no
                    OR v.change <> l.change OR v.row_sha <> l.row_sha),
            ended AS (
                SELECT v.* FROM v WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.k = v.k AND s.f = v.f)),
            -- Lines of the late file that no spell shows: kept for the next fold, never in force.
            unseen AS (
                SELECT * FROM a WHERE NOT old AND src NOT IN (SELECT src FROM changed WHERE NOT old AND NOT absent))
            SELECT src, old, ord, f, t, change, absent, false AS hidden FROM changed
            UNION ALL
            SELECT src, true, {self.newest}, f, f, {_CANCELLED}, true, false FROM ended
            UNION ALL
            SELECT src, old, ord, af, CASE WHEN kind = {_CANCELLED} THEN af ELSE greatest(af, til) END,
                CASE kind WHEN {_ACTIVE} THEN {_NOCHANGE} ELSE kind END, false, true FROM unseen
            ORDER BY old, src, f, hidden"""
        ).to_arrow_table()


def _kind(begin: str, end: str) -> str:
    return (
        f"(CASE WHEN payer_change_type = 'cancelled' THEN {_CANCELLED} "
        f"WHEN payer_change_type = 'dropped' OR {begin} >= {end} THEN {_DROPPED} ELSE {_ACTIVE} END)::UTINYINT"
    )


def _numbered(table: pa.Table) -> pa.Table:
    return table.append_column("src", pa.array(np.arange(len(table), dtype=np.int32)))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
