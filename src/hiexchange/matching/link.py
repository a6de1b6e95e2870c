"""Decide, for every member, which person it is: the one verb of this room, :func:`match`.

Every candidate is compared before any is linked, so a link is made only when no other person of the
index is as good for the member, and no other member of the payer is better for the person. What is left
in doubt goes to review and is never routed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from hiexchange import tables
from hiexchange.matching import audit, compare, prepare, rules
from hiexchange.matching.review import DECISION
from hiexchange.matching.score import Policy, Scoring
from hiexchange.matching.weights import FIELD_SQL, LEVELS, Weights, field_bits_sql, load_weights

BATCH = 250_000
"""Members compared at a time."""

NAMESAKE = "({0}.rule IS NOT NULL AND ({0}.f = 5 OR {0}.sw) AND {0}.d = 5)"
"""Who bears the member's very name and birth date contests any other candidate, ids or not: ids of twins are exchanged at times."""

FLOOR = -10.0
"""Bits under which a pair is neither a candidate nor a rival."""


def match(
    members: Any,
    persons: Any,
    *,
    known_at: datetime,
    run_id: str | None = None,
    decisions: Any = None,
    weights: Weights | None = None,
    policy: Policy | None = None,
) -> pa.Table:
    """Find the person each payer member is, and say how sure that is.

    A wrong link is a disclosure, a missed one is only late: an ambiguous member is put to review.

    Args:
        members: MEMBER rows; several rows of one member (one a provider) count once.
        persons: PERSON rows; several records of one real person are recognised as duplicates.
        known_at: When the links are made; ``known_from`` of every row. Timezone-aware.
        run_id: Name of this run; ``match-`` and the instant by default.
        decisions: Standing decisions of people (:data:`~hiexchange.matching.review.DECISION`), which
            outrank everything computed.
        weights: Fellegi-Sunter weights; the shipped ones by default.
        policy: Gap and thresholds, and whether the people live in households (they do, by default).

    Returns:
        PERSON_LINK rows, one a distinct ``member_key``, sorted by it. The order of the input has no effect.

    Raises:
        SchemaMismatch: A table lacks a column of its corridor schema.

    Source:
        HL7 Identity Matching IG: "Common correlations such as families SHALL be modeled".
    """
    weights = weights or load_weights()
    run_id = run_id or f"match-{known_at:%Y%m%dT%H%M%S}"
    member_rows = tables.check(members, tables.MEMBER)
    person_rows = tables.check(persons, tables.PERSON)
    con = prepare.connect()
    try:
        prepare.prepare_persons(con, person_rows)
        prepare.prepare_members(con, member_rows)
        prepare.finish(con)
        scoring = Scoring.of(con, weights, policy or Policy())
        _score_candidates(con, scoring)
        if scoring.policy.households:
            audit.withdraw_erring_rules(con, scoring)
        _apply_decisions(con, decisions)
        if not scoring.policy.households:
            _assign_greedily(con)
        _resolve(con, scoring)
        return _links(con, known_at=known_at, run_id=run_id, scoring=scoring)
    finally:
        con.close()


def _score_candidates(con: duckdb.DuckDBPyConnection, scoring: Scoring) -> None:
    """Create table ``scored``, a batch of members after the other, so that memory follows the index and not the pairs."""
    members = int(con.execute("SELECT count(*) FROM m").fetchall()[0][0])
    wide = compare.selective_blocks(con, "m", "p")
    for start in range(0, max(members, 1), BATCH):
        compare.candidate_pairs(con, wide=wide, where=f"a.n >= {start} AND a.n < {start + BATCH}")
        compare.compare_pairs(con, everything=not scoring.policy.households)
        con.execute("CREATE TABLE all_levels AS FROM levels" if start == 0 else "INSERT INTO all_levels FROM levels")
    con.execute("DROP TABLE pairs")
    con.execute("DROP TABLE levels")
    audit.forget_unstable_ids(con)
    con.execute(
        f"CREATE TABLE scored AS SELECT * FROM ({scoring.select('all_levels')}) WHERE rule IS NOT NULL OR bits > {FLOOR}"
    )
    con.execute("DROP TABLE all_levels")


def _apply_decisions(con: duckdb.DuckDBPyConnection, decisions: Any) -> None:
    """Drop pairs people have ruled out, and create table ``decided`` of the links they made."""
    given = tables.check(decisions, DECISION) if decisions is not None else DECISION.empty()
    con.register("decisions_in", given)
    con.execute(
        """CREATE TABLE ruling AS SELECT * FROM decisions_in
           QUALIFY row_number() OVER (PARTITION BY member_key, person_id ORDER BY decided_at DESC, verdict) = 1"""
    )
    con.unregister("decisions_in")
    con.execute(
        """DELETE FROM scored USING (
               SELECT m.n AS ln, p.k AS rk, r.verdict FROM ruling r JOIN m ON m.key = r.member_key LEFT JOIN p ON p.key = r.person_id) r
           WHERE scored.ln = r.ln AND (r.verdict = 'nobody' OR (r.verdict = 'different' AND r.rk = scored.rk))"""
    )
    con.execute(
        """CREATE TABLE decided AS SELECT member_key AS key, verdict, person_id FROM ruling WHERE verdict IN ('same', 'nobody')
           QUALIFY row_number() OVER (PARTITION BY member_key ORDER BY decided_at DESC, verdict, person_id) = 1"""
    )


def _assign_greedily(con: duckdb.DuckDBPyConnection) -> None:
    """Leave each unrelated record one partner at most: the highest scores first, ties by key."""
    pairs = con.execute("SELECT ln, rk FROM scored WHERE rule IS NOT NULL ORDER BY closeness DESC, ln, rk").fetchall()
    taken: dict[int, int] = {}
    people: set[int] = set()
    for member, person in pairs:
        if member not in taken and person not in people:
            taken[member] = person
            people.add(person)
    con.register("taken_in", pa.table({"ln": list(taken), "rk": list(taken.values())}))
    con.execute(
        "DELETE FROM scored WHERE rk IN (SELECT rk FROM taken_in) AND (ln, rk) NOT IN (SELECT (ln, rk) FROM taken_in)"
    )
    con.unregister("taken_in")


def _resolve(con: duckdb.DuckDBPyConnection, scoring: Scoring) -> None:
    """Create table ``chosen``: the best candidate of each member, its runner-up and the claims on its person."""
    con.execute(
        """CREATE TABLE ranked AS SELECT *, row_number() OVER (PARTITION BY ln ORDER BY rule IS NULL, closeness DESC, rule, rk) AS place,
               count(DISTINCT rk) OVER (PARTITION BY ln) AS candidates
           FROM scored
           QUALIFY row_number() OVER (PARTITION BY ln, rk ORDER BY rule IS NULL, closeness DESC, rule, rn) = 1"""
    )
    con.execute(
        f"""CREATE TABLE rivals AS SELECT x.ln, x.rn AS best, x.closeness AS best_closeness, y.rn, y.bits, y.closeness,
               NOT {NAMESAKE.format("x")} AND {NAMESAKE.format("y")} AS namesake
           FROM (SELECT * FROM ranked WHERE place = 1) x JOIN (SELECT * FROM ranked WHERE place > 1) y ON x.ln = y.ln"""
    )
    _find_duplicates(con, scoring)
    # Whom a reviewer has found the person of is no other member's of the payer without another look.
    con.execute(
        """CREATE TABLE outruled AS SELECT DISTINCT r.ln FROM ranked r JOIN m ON m.n = r.ln
           JOIN (SELECT o.payer, o.n, p.k FROM decided d JOIN m o ON o.key = d.key JOIN p ON p.key = d.person_id
                 WHERE d.verdict = 'same') taken ON taken.payer = m.payer AND taken.k = r.rk AND taken.n <> r.ln
           WHERE r.place = 1"""
    )
    con.execute(
        f"""
        CREATE TABLE chosen AS
        WITH runner AS (
            SELECT r.ln, max(r.bits) FILTER (d.ln IS NULL) AS second, bool_or(d.ln IS NOT NULL) AS duplicated,
                   bool_or(d.ln IS NULL AND (r.namesake OR r.closeness > r.best_closeness - {scoring.policy.min_gap})) AS contested
            FROM rivals r LEFT JOIN duplicates d ON d.ln = r.best AND d.rn = r.rn GROUP BY r.ln),
        claims AS (
            SELECT ln, closeness, row_number() OVER w AS claim, lead(closeness) OVER w AS next_closeness
            FROM ranked JOIN m ON m.n = ranked.ln WHERE place = 1 AND rule IS NOT NULL
            WINDOW w AS (PARTITION BY payer, rk ORDER BY closeness DESC, ln))
        SELECT k.*, k.bits - runner.second AS gap, coalesce(duplicated, false) AS duplicated,
            CASE WHEN k.ln IN (SELECT n FROM m JOIN torn USING (key)) THEN 'member_names_several_people'
                 WHEN k.rule IS NULL AND k.guard IS NOT NULL THEN k.guard
                 WHEN k.rule IS NULL AND k.withdrawn THEN 'rule_errs_here'
                 WHEN k.rule IS NULL THEN 'too_little_evidence'
                 WHEN contested THEN 'several_people_fit'
                 WHEN k.ln IN (SELECT ln FROM outruled) THEN 'person_claimed_twice'
                 WHEN claim > 1 OR (claim = 1 AND claims.closeness - claims.next_closeness < {scoring.policy.min_gap})
                     THEN 'person_claimed_twice' END AS reason
        FROM ranked k LEFT JOIN runner USING (ln) LEFT JOIN claims ON claims.ln = k.ln
        WHERE k.place = 1
        """
    )


def _find_duplicates(con: duckdb.DuckDBPyConnection, scoring: Scoring) -> None:
    """Create table ``duplicates(ln, rn)``: pairs of index records that compete for a member and are one person."""
    con.execute(
        f"""CREATE TABLE twofold AS SELECT DISTINCT best AS ln, rn FROM rivals
            WHERE namesake OR closeness > best_closeness - {scoring.policy.min_gap}"""
    )
    compare.id_pairs(con, left="p", right="p", where="a.n IN (SELECT ln FROM twofold)")
    compare.compare_pairs(con, left="p", right="p", pairs="twofold", out="twofold_levels")
    firm = ", ".join(str(index) for index, rule in enumerate(rules.RULES) if rule.risk is None)
    con.execute(
        f"CREATE TABLE duplicates AS SELECT ln, rn FROM ({scoring.select('twofold_levels')}) WHERE rule IN ({firm})"
    )


def _links(con: duckdb.DuckDBPyConnection, *, known_at: datetime, run_id: str, scoring: Scoring) -> pa.Table:
    steps = ", ".join(
        f"{{'field': '{name}', 'level': {_level_name_sql(name)}, "
        f"'bits': round({field_bits_sql(scoring.weights, name, scoring.people)}, 2)}}"
        for name in LEVELS
    )
    fellegi_sunter = len(rules.RULES) - 1
    links = con.sql(
        f"""
        SELECT m.key AS member_key, m.payer AS payer_id,
            CASE WHEN d.verdict = 'same' THEN d.person_id WHEN d.verdict = 'nobody' THEN NULL
                 WHEN band <> 'none' THEN c.person_id END AS person_id,
            CASE WHEN d.key IS NOT NULL THEN 'decision' WHEN band = 'none' OR band IS NULL THEN 'none'
                 WHEN rule = {fellegi_sunter} OR rule IS NULL THEN 'probabilistic'
                 WHEN c.i = 2 OR c.mb = 2 THEN 'member_id' ELSE 'deterministic' END AS method,
            CASE WHEN d.key IS NOT NULL THEN d.verdict WHEN band <> 'none' THEN rule_name END AS rule,
            bits AS score, gap, CASE WHEN band <> 'none' AND d.key IS NULL THEN grade END AS grade,
            CASE WHEN d.verdict = 'same' THEN 'auto' WHEN d.verdict = 'nobody' THEN 'none' ELSE coalesce(band, 'none') END AS band,
            coalesce(candidates, 0) AS candidates,
            CASE WHEN band <> 'none' THEN evidence END AS evidence,
            CASE WHEN d.key IS NOT NULL THEN NULL WHEN band IS NULL THEN 'no_candidate'
                 WHEN reason IS NULL AND duplicated THEN 'index_duplicate' ELSE reason END AS reason,
            $run_id AS run_id, $sha AS weights_sha, $known_at::TIMESTAMPTZ AS known_from, '9999-12-31 00:00:00+00'::TIMESTAMPTZ AS known_to
        FROM m LEFT JOIN (SELECT chosen.*, p.key AS person_id, {rules.GRADES} AS grade, {rules.rule_name_sql("rule")} AS rule_name,
            list_filter([{steps}], lambda e: e.level IS NOT NULL) AS evidence,
            CASE WHEN reason IS NULL THEN 'auto' WHEN rule IS NOT NULL OR bits >= {scoring.weights.review_bits} THEN 'review'
                 ELSE 'none' END AS band
            FROM chosen JOIN (SELECT n, key FROM p) p ON p.n = chosen.rn) c ON c.ln = m.n
        LEFT JOIN decided d ON d.key = m.key
        ORDER BY member_key
        """,
        params={"run_id": run_id, "sha": scoring.weights.sha, "known_at": known_at},
    ).to_arrow_table()
    return tables.check(links, tables.PERSON_LINK)


def _level_name_sql(name: str) -> str:
    arms = " ".join(f"WHEN {code} THEN '{label}'" for code, label in LEVELS[name].items())
    return f"(CASE {FIELD_SQL[name]} {arms} END)"
