"""Let the data object to a rule. Some rules rest on how people usually are: that a mistyped first name in the
same home is not a twin's, that a name and birth date rarely repeat. Where ssn4 or member id is known on both
sides, they show whether the rule picks the right person here; and members known by id show whether it would have
taken them for a relative. The rules that would make too many wrong links are withdrawn for the run and their pairs
are reviewed. Nobody needs to label anything.
"""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from hiexchange.matching import compare, rules
from hiexchange.matching.score import Scoring

UNSTABLE = 0.1
"""Share of conflicting member ids among certain pairs above which a conflict of ids means nothing."""

SUPPOSED = (0.001, 10.0)
"""Wrong pairs, and pairs in all, a rule is supposed to have made before anything is seen."""

NEAR_YEARS = 6e-3
"""Chance that two birth dates less than a generation apart agree in part: the year and the month or day, or the day and a near year."""

LEAST = 0.1
"""Wrong links that rules may be expected to make in tables however small."""

Tally = dict[tuple[int, int], int]
"""Pairs by what (member id, ssn4) say of them: 1 they agree, -1 they differ, 0 nothing."""


def forget_unstable_ids(con: duckdb.DuckDBPyConnection) -> None:
    """Treat differing member ids as unknown where certain pairs differ too: the payer has renumbered."""
    same, differ = con.execute(
        """SELECT count(*) FILTER (i = 2), count(*) FILTER (i = -1) FROM all_levels
           WHERE f = 5 AND l = 5 AND d = 5 AND a = 3 AND ph >= 0 AND s >= 0 AND i <> 0"""
    ).fetchall()[0]
    if differ > UNSTABLE * (same + differ):
        con.execute("UPDATE all_levels SET i = 0 WHERE i = -1")


def withdraw_erring_rules(con: duckdb.DuckDBPyConnection, scoring: Scoring) -> None:
    """Create table ``audit``, an audited rule a row, and take the rules back that the data contradict.

    Wrong links are expected of a rule in three ways: the share of its pairs that ids contradict (``contradicted``), members
    known by id whom it would have taken for a relative had their own record been absent (``confused``), and absent relatives
    it has no way to tell apart (``lookalikes``). Each kind of rule may make so many in all; the surest rules are kept.
    """
    _judge_blindly(con, scoring)
    tallies = _tallies(con, "SELECT rule, ids, ssn, count(*) FROM blind WHERE best GROUP BY ALL")
    noise = _tallies(con, "SELECT 0, ids, ssn, count(*) FROM blind WHERE best AND certain GROUP BY ALL").get(0, {})
    confused = dict(
        con.execute("SELECT rule, count(*) FROM blind WHERE NOT best AND relative GROUP BY rule").fetchall()
    )
    members, linked, known, proven = con.execute(
        """SELECT (SELECT count(*) FROM m), (SELECT count(DISTINCT ln) FROM scored WHERE rule IS NOT NULL),
                  (SELECT count(DISTINCT ln) FROM blind), (SELECT count(DISTINCT ln) FROM blind WHERE proven)"""
    ).fetchall()[0]
    absent = (members - linked) / max(linked, 1) * known / max(proven, 1)
    applied = dict(
        con.execute("SELECT rule, count(DISTINCT ln) FROM scored WHERE rule IS NOT NULL GROUP BY rule").fetchall()
    )
    lookalikes = _lookalikes(con)
    rows = [
        (
            index,
            applied[index],
            wrong_share(tallies.get(index, {}), noise) * applied[index],
            confused.get(index, 0) * absent,
            lookalikes.get(rule.lookalike or "", 0.0) * (1 if rule.lookalike == "parent" else applied[index]),
        )
        for index, rule in enumerate(rules.RULES)
        if rule.risk and index in applied
    ]
    con.execute(
        "CREATE TABLE audit(rule INTEGER, applied BIGINT, contradicted DOUBLE, confused DOUBLE, lookalikes DOUBLE)"
    )
    if rows:
        con.executemany("INSERT INTO audit VALUES (?, ?, ?, ?, ?)", rows)
    risks = {risk: [row for row in rows if rules.RULES[row[0]].risk == risk] for risk in rules.BUDGETS}
    withdrawn = beyond(
        ((wrong, use, index) for index, use, wrong, *_ in risks["stranger"]), rules.BUDGETS["stranger"] * linked + LEAST
    )
    withdrawn += beyond(
        ((wrong, use, index) for index, use, wrong, *_ in risks["relative"]), rules.BUDGETS["relative"] * linked + LEAST
    )
    withdrawn += beyond(
        ((mistaken, use, index) for index, use, _, mistaken, _ in risks["relative"]), rules.CONFUSIONS * linked + LEAST
    )
    withdrawn += beyond(((alike, use, index) for index, use, *_, alike in risks["relative"]), rules.LOOKALIKES * linked)
    if withdrawn:
        con.execute(
            f"UPDATE scored SET rule = NULL, withdrawn = true WHERE rule IN ({', '.join(str(index) for index in withdrawn)})"
        )


def wrong_share(tally: Tally, noise: Tally) -> float:
    """Return the share of a rule's pairs that are wrong, as far as ids can tell: the one that explains the tally best.

    Ids and ssn4s are wrong at times, of the right person too: ``noise`` says how often they contradict pairs that agree in
    everything else. Expectation maximisation over what contradicts: ids alone, ssn4 alone, or both, which hardly ever errs.
    """
    kinds = ((-1, 0), (0, -1), (-1, -1))
    errs = {}
    for kind in kinds:
        alike = sum(count for key, count in noise.items() if (key[0] != 0, key[1] != 0) == (kind[0] != 0, kind[1] != 0))
        errs[kind] = max(noise.get(kind, 0) / alike if alike else 0.0, 1e-6)
    known = sum(count for key, count in tally.items() if key != (0, 0))
    supposed, weight = SUPPOSED
    share = supposed
    for _ in range(100):
        wrong = sum(tally.get(kind, 0) * share / (share + (1 - share) * errs[kind]) for kind in kinds)
        share = (wrong + supposed) / (known + weight)
    return share


def beyond(costs: Iterable[tuple[float, int, int]], budget: float) -> list[int]:
    """Return the rules the budget of wrong links does not reach to, of (wrong links, links, rule), the surest first."""
    spent, beyond = 0.0, []
    for cost, _, rule in sorted(costs, key=lambda row: (row[0] / row[1], row[2])):
        if spent + cost > budget:
            beyond.append(rule)
        else:
            spent += cost
    return beyond


def _judge_blindly(con: duckdb.DuckDBPyConnection, scoring: Scoring) -> None:
    """Create table ``blind``: what each rule would link if nobody knew an id or ssn4, and then what these say of it.

    A member competes for a person with the payer's other members, as in earnest: most namesakes and twins who are on the
    roster have lost their claim to whom the record belongs.
    """
    hidden = """(SELECT * EXCLUDE (s, i, mb, expected, expected_first, bits, closeness, rule, guard, withdrawn),
                      s AS s0, i AS i0, mb AS mb0, 0::TINYINT AS s, 0::TINYINT AS i, 0::TINYINT AS mb
               FROM scored WHERE (f >= 3 OR sw) AND (d >= 3 OR (d = 0 AND i = 2)))"""
    con.execute(
        f"""CREATE TABLE blind AS
            SELECT ln, rule, certain, ids, ssn, best AND first AS best, proven,
                first AND proven AND (ids = -1 OR ssn = -1) AND ids < 1 AND ssn < 1 AS relative
            FROM (SELECT *, row_number() OVER (PARTITION BY ln ORDER BY closeness DESC, rn) = 1 AS best,
                      row_number() OVER (PARTITION BY m.payer, rk ORDER BY closeness DESC, ln) = 1 AS first,
                      bool_or(ids = 1 OR ssn = 1) OVER (PARTITION BY ln) AS proven
                  FROM (SELECT ln, rn, rk, rule, closeness, a >= 2 AND ph = 1 AND f = 5 AND l = 5 AND d = 5 AS certain,
                            CASE WHEN i0 = 2 OR mb0 = 2 THEN 1 WHEN i0 = -1 OR mb0 = -1 THEN -1 ELSE 0 END AS ids,
                            CASE s0 WHEN 2 THEN 1 WHEN -1 THEN -1 ELSE 0 END AS ssn
                        FROM ({scoring.select(hidden)}) WHERE rule IS NOT NULL) JOIN (SELECT n, payer FROM m) m ON m.n = ln)"""
    )


def _tallies(con: duckdb.DuckDBPyConnection, query: str) -> dict[int, Tally]:
    """Return, rule by rule, the counts of a query for (rule, ids, ssn, count)."""
    tallies: dict[int, Tally] = {}
    for rule, ids, ssn, count in con.execute(query).fetchall():
        tallies.setdefault(rule, {})[(ids, ssn)] = count
    return tallies


def _lookalikes(con: duckdb.DuckDBPyConnection) -> dict[str, float]:
    """Return wrong links to expect, from absent members who resemble a relative, of the rules that rest on there being few.

    An absent twin is seen where a member nobody fits shares home, surname and birth date with a person of another, similar
    name; an absent parent or child where only the birth date differs. How many of the twins are written in a pet form
    or cut short is what the rule does to everyone else, so twins count per link; a name cut short is taken for a twin's
    who shares its start, and whose own name is too rare to make it :func:`vague <compare.compare_pairs>`. A birth date
    agrees in part by chance, but never with a parent's.
    """
    alike = f"f = 2 AND d = 5 AND l >= 3 AND {rules.HOME}"
    same, other = "(s = 2 OR i = 2 OR mb = 2)", "(s = -1 OR i = -1 OR mb = -1)"
    cut = f"starts AND own < {compare.BORNE} * (SELECT count(*) / 2 FROM p)"
    twins, cuts, parents, others, selves, firm = con.execute(
        f"""SELECT count(DISTINCT ln) FILTER ({alike} AND {rules.PLAIN}),
                count(DISTINCT ln) FILTER ({alike} AND {rules.PLAIN} AND {cut}),
                count(DISTINCT ln) FILTER (f >= 4 AND l >= 3 AND d = -1 AND NOT elder AND {rules.HOME} AND {rules.PLAIN}),
                count(DISTINCT ln) FILTER ({alike} AND {other} AND NOT {same}),
                (SELECT count(DISTINCT ln) FROM scored WHERE {alike} AND {same}),
                (SELECT count(DISTINCT ln) FROM scored WHERE {rules.rule_name_sql("rule")} = 'name_birth_home')
            FROM (SELECT scored.*, m.cf AS own, m.f[1:3] = p.f[1:3] AS starts
                  FROM scored ANTI JOIN (SELECT ln FROM scored WHERE rule IS NOT NULL) USING (ln)
                  JOIN (SELECT n, f, cf FROM m) m ON m.n = ln JOIN (SELECT n, f FROM p) p ON p.n = rn)"""
    ).fetchall()[0]
    # Some are the person after all, whose mistyped name is another's: those known by id tell how many.
    absent = (others + 1) / (others + selves + 1) / (firm + 10)
    return {"twin": twins * absent, "cut": cuts * absent, "parent": parents * NEAR_YEARS}
