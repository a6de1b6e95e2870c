"""Let the data object to a rule. Some rules rest on how people usually are: that a mistyped first name in the
same home is not a twin's, that a name and birth date rarely repeat. Where ssn4 or member id is known on both
sides, they show whether the rule picks the right person here, so a rule they contradict is withdrawn for
the run and its pairs are reviewed. Nobody needs to label anything.
"""

from __future__ import annotations

import duckdb

from hiexchange.matching import rules
from hiexchange.matching.score import Scoring

CONFUSION = 1.2e-5
"""Share of links that may be expected to be wrong because of relatives: members who would have been taken for a
twin had their own record been absent."""

LOOKALIKES = 1e-6
"""Share of links that one rule may be expected to get wrong because of absent members who resemble a relative."""

PART_BIRTH = 1.5e-3
"""Chance that two birth dates of one family agree in part: the year and the month or day, or the day and a near year."""

UNSTABLE = 0.1
"""Share of conflicting member ids among certain pairs above which a conflict of ids means nothing."""


def forget_unstable_ids(con: duckdb.DuckDBPyConnection) -> None:
    """Treat differing member ids as unknown where certain pairs differ too: the payer has renumbered."""
    same, differ = con.execute(
        """SELECT count(*) FILTER (i = 2), count(*) FILTER (i = -1) FROM all_levels
           WHERE f = 5 AND l = 5 AND d = 5 AND a = 3 AND ph >= 0 AND s >= 0 AND i <> 0"""
    ).fetchall()[0]
    if differ > UNSTABLE * (same + differ):
        con.execute("UPDATE all_levels SET i = 0 WHERE i = -1")


def withdraw_erring_rules(con: duckdb.DuckDBPyConnection, scoring: Scoring) -> None:
    """Create table ``audit`` and take back the audited rules the identifiers contradict.

    Each rule is applied without looking at ssn4 and ids; then they are looked at. The share contradicted among
    pairs that agree on everything else is what wrong ssn4s and ids cause by themselves, and is allowed for.
    """
    blind = """(SELECT * EXCLUDE (s, i, mb, expected, expected_first, bits, closeness, rule, guard, withdrawn),
                      s AS s0, i AS i0, mb AS mb0, 0::TINYINT AS s, 0::TINYINT AS i, 0::TINYINT AS mb
               FROM scored WHERE (f >= 3 OR sw) AND (d >= 3 OR (d = 0 AND i = 2)))"""
    con.execute(
        f"""CREATE TABLE blind AS
            SELECT ln, rule, a >= 2 AND ph = 1 AND f = 5 AND l = 5 AND d = 5 AS certain,
                s0 = -1 AND i0 = -1 AS doubly, s0 NOT IN (0, 1) AND i0 <> 0 AS doubly_known,
                s0 = 2 OR i0 = 2 OR mb0 = 2 AS agrees,
                (s0 = -1 OR i0 = -1 OR mb0 = -1) AND NOT (s0 = 2 OR i0 = 2 OR mb0 = 2) AS contradicts,
                row_number() OVER (PARTITION BY ln ORDER BY closeness DESC, rn) = 1 AS best,
                bool_or(s0 = 2 OR i0 = 2 OR mb0 = 2) OVER (PARTITION BY ln) AS proven
            FROM (SELECT * FROM ({scoring.select(blind)}) WHERE rule IS NOT NULL)"""
    )
    # Whoever is known by id, and would have been taken for a relative had the own record been missing.
    con.execute(
        "CREATE TABLE confused AS SELECT rule, count(*) AS confused FROM blind WHERE NOT best AND proven AND contradicts GROUP BY rule"
    )
    members, linked, known, proven = con.execute(
        """SELECT (SELECT count(*) FROM m), (SELECT count(DISTINCT ln) FROM scored WHERE rule IS NOT NULL),
                  (SELECT count(DISTINCT ln) FROM blind), (SELECT count(DISTINCT ln) FROM blind WHERE proven)"""
    ).fetchall()[0]
    absent = (members - linked) / max(linked, 1) * known / max(proven, 1)
    con.execute("DELETE FROM blind WHERE NOT best")
    wrong, right = con.execute(
        "SELECT count(*) FILTER (contradicts), count(*) FILTER (agrees) FROM blind WHERE certain"
    ).fetchall()[0]
    noise = wrong / (wrong + right) if wrong + right else 0.0
    audited = ", ".join(str(index) for index, rule in enumerate(rules.RULES) if rule.audited)
    tolerances = [rule.tolerance for rule in rules.RULES]
    con.execute(
        f"""CREATE TABLE audit AS
            SELECT rule, {tolerances}[rule + 1] AS tolerance, known, contradicted, doubly, doubly_known,
                coalesce(applied, 0) AS applied, {noise} AS noise,
                greatest(contradicted - {noise} * known, 0) / (known + 10) * coalesce(applied, 0) AS expected_wrong,
                coalesce(confused, 0) * {absent} AS expected_confused,
                doubly / (doubly_known + 5) * coalesce(applied, 0) AS expected_wrong_doubly
            FROM (SELECT rule, count(*) FILTER (agrees OR contradicts) AS known, count(*) FILTER (contradicts) AS contradicted,
                         count(*) FILTER (doubly) AS doubly, count(*) FILTER (doubly_known) AS doubly_known FROM blind GROUP BY rule)
            LEFT JOIN (SELECT rule, count(DISTINCT ln) AS applied FROM scored WHERE rule IS NOT NULL GROUP BY rule) USING (rule)
            LEFT JOIN confused USING (rule)
            WHERE rule IN ({audited})"""
    )
    _count_lookalikes(con)
    con.execute(
        f"""UPDATE scored SET rule = NULL, withdrawn = true WHERE rule IN (
                SELECT rule FROM audit WHERE greatest(expected_wrong, expected_wrong_doubly) > tolerance * {linked}
                AND (contradicted - {noise} * known > 0.7 * sqrt({noise} * known) OR doubly > 0)
                   OR (expected_lookalikes > {LOOKALIKES * linked})
                   OR (expected_confused > {CONFUSION * linked} AND tolerance <= {rules.RELATIVES}))"""
    )


def _count_lookalikes(con: duckdb.DuckDBPyConnection) -> None:
    """Add ``expected_lookalikes`` to ``audit``: wrong links to expect from absent members who resemble a relative.

    An absent twin is seen where a member nobody fits shares home, surname and birth date with a person of another, similar
    name; an absent parent or child where only the birth date differs. How many of the twins are written in a pet form
    or with a slip is what the rule does to everyone else.
    """
    alike = f"f = 2 AND d = 5 AND l >= 3 AND {rules.HOME}"
    twin = f"{alike} AND {rules.PLAIN}"
    parent = f"f >= 4 AND l >= 3 AND d = -1 AND {rules.HOME} AND {rules.PLAIN}"
    same, other = "(s = 2 OR i = 2 OR mb = 2)", "(s = -1 OR i = -1 OR mb = -1)"
    twins, parents, others, selves, firm = con.execute(
        f"""WITH lost AS (SELECT * FROM scored ANTI JOIN (SELECT ln FROM scored WHERE rule IS NOT NULL) USING (ln))
            SELECT (SELECT count(DISTINCT ln) FROM lost WHERE {twin}), (SELECT count(DISTINCT ln) FROM lost WHERE {parent}),
                   (SELECT count(DISTINCT ln) FROM lost WHERE {alike} AND {other} AND NOT {same}),
                   (SELECT count(DISTINCT ln) FROM scored WHERE {alike} AND {same}),
                   (SELECT count(DISTINCT ln) FROM scored WHERE {rules.rule_name_sql("rule")} = 'name_birth_home')"""
    ).fetchall()[0]
    # Some are the person after all, whose mistyped name is another's: those known by id tell how many.
    twins *= (others + 1) / (others + selves + 1)
    kinds = [rule.lookalike or "" for rule in rules.RULES]
    con.execute(
        f"""CREATE OR REPLACE TABLE audit AS SELECT *, CASE {kinds}[rule + 1] WHEN 'twin' THEN applied * {twins / (firm + 10)}
            WHEN 'parent' THEN {parents * PART_BIRTH} ELSE 0 END AS expected_lookalikes FROM audit"""
    )
