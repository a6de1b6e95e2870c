"""Find candidate pairs and say, field by field, how far they agree. Levels only: no judgement here.

A level is a small integer: positive agrees (the higher, the closer), 0 says nothing (a side is
missing), negative disagrees. :mod:`.rules` turns levels into decisions, :mod:`.weights` into bits.
"""

from __future__ import annotations

import duckdb

BLOCKS: dict[str, str] = {
    "mbi": "a.mbi = b.mbi",
    "birth date and last name": "a.b = b.b AND a.l = b.l",
    "birth date and first name": "a.b = b.b AND a.f0 = b.f0",
    "birth date and ssn4": "a.b = b.b AND a.s4 = b.s4",
    "birth date and ZIP": "a.b = b.b AND a.z = b.z",
    "birth date and swapped names": "a.b = b.b AND a.f0 = b.l",
    "birth date and swapped names, other way": "a.b = b.b AND a.l = b.f0",
    "ssn4 and last name": "a.s4 = b.s4 AND a.l = b.l",
    "ssn4 and first name": "a.s4 = b.s4 AND a.f0 = b.f0",
    "phone": "a.ph = b.ph",
    "email": "a.em = b.em",
    "address": "a.num = b.num AND a.core = b.core AND a.z = b.z AND NOT a.crowd",
    "house number, ZIP and last name": "a.num = b.num AND a.z = b.z AND a.l = b.l",
    "names and birth year": "a.f0 = b.f0 AND a.l = b.l AND a.by = b.by AND NOT a.throng",
    "names and birthday": "a.f0 = b.f0 AND a.l = b.l AND a.bm = b.bm AND a.bd = b.bd AND NOT a.throng",
    "names and ZIP": "a.f0 = b.f0 AND a.l = b.l AND a.z = b.z AND NOT a.throng",
}
"""Candidates are those that share an id, and the union of these equalities, each selective enough for an index of millions."""

WIDE_BLOCKS: dict[str, str] = {
    "birth date": "b",
    "ZIP": "z",
    "names": "f0, l",
    "street": "core",
    "house number and city": "num, city",
}
"""Keys used besides where they are selective enough: small tables, or values that spread well."""

WIDE_LIMIT = 8
"""Candidates a member that a wide block may add on average."""

GENERATION = 12
"""Years between birth dates from which two people of one name are parent and child, whatever ids say."""

RIVAL = 0.05
"""How common, beside the candidate's, a name must be to rival it as the meaning of a pet form or slip."""

BORNE = 2e-3
"""Share of the people of that sex who must bear the names a name cut short may stand for: twins hardly ever get names so rare."""

ALIKE = "(f >= 3 OR sw) AND d >= 0 OR (f >= 3 OR sw OR d >= 0) AND close"
"""What pairs must be to be worth comparing in full: alike in first name and birth date, or in one of them and close by home or id."""

_CLOSE = """(a.num = b.num OR a.core = b.core OR a.ph = b.ph OR a.em = b.em OR a.s4 = b.s4 OR a.mbi = b.mbi
    OR ids.ln IS NOT NULL) IS TRUE"""

_FIRST = """CASE
    WHEN a.f IS NULL OR b.f IS NULL THEN 0
    WHEN a.f = b.f THEN CASE WHEN length(a.f) > 1 THEN 5 ELSE 1 END
    WHEN a.f0 = b.f0 AND length(a.f0) > 1 THEN CASE
        WHEN a.fr = b.fr OR (least(length(a.fr), length(b.fr)) = 1 AND a.fr[1:1] = b.fr[1:1]) THEN 5
        WHEN a.fr IS NOT NULL AND b.fr IS NOT NULL THEN 2
        WHEN length(coalesce(a.fr, b.fr)) = 1 OR a.g = b.g OR (least(length(a.g), length(b.g)) = 1 AND a.g[1:1] = b.g[1:1]) THEN 5
        ELSE 4 END
    WHEN nick.a IS NOT NULL THEN 4
    WHEN (length(a.f0) = 1 OR length(b.f0) = 1) AND a.f[1:1] = b.f[1:1] THEN 1
    WHEN length(a.f) > 2 AND length(b.f) > 2 AND (a.f = b.g OR a.g = b.f) THEN 3
    WHEN length(a.f) > 2 AND length(b.f) > 2 AND (starts_with(a.f, b.f) OR starts_with(b.f, a.f)) THEN CASE WHEN {odd} THEN 3 ELSE 2 END
    WHEN jaro_winkler_similarity(a.f, b.f) >= 0.83 THEN
        CASE WHEN {odd} AND (damerau_levenshtein(a.f, b.f) <= 1 OR jaro_winkler_similarity(a.f, b.f) >= 0.92) THEN 3 ELSE 2 END
    WHEN abs(length(a.f) - length(b.f)) <= 1 AND damerau_levenshtein(a.f, b.f) <= 1 THEN CASE WHEN {odd} THEN 3 ELSE 2 END
    ELSE -1 END""".replace("{odd}", "least(a.cf, b.cf) <= 1 + 0.001 * greatest(a.cf, b.cf)")
# A second name that one side left out (Maria for Maria Elena) is a pet form's case: the twin may be Maria Luz.
# Two strings that are both names many people bear are two names (jayden, kayden); a string hardly
# anyone bears, close to a name, is that name mistyped. The index itself is the dictionary.

_EDGE = """CASE WHEN a.f IS NULL AND b.f IS NULL THEN CASE WHEN a.mark IS DISTINCT FROM b.mark THEN 1 ELSE 0 END
    WHEN a.f = b.g OR a.g = b.f THEN 5 WHEN starts_with(a.f, b.f) OR starts_with(b.f, a.f) THEN 3
    WHEN length(a.f) = length(b.f) AND damerau_levenshtein(a.f, b.f) = 1 AND levenshtein(a.f, b.f) = 2 THEN 0
    WHEN a.f[1:1] <> b.f[1:1] THEN 1 WHEN a.f[-1:] <> b.f[-1:] THEN 2 WHEN damerau_levenshtein(a.f, b.f) <= 1 THEN 0 ELSE 4 END"""
# Where two first names part. Twins' names rhyme (1) or end differently (2); 3 is a name cut short, 5 the middle name of the other,
# 4 more than one slip. 0 is one slip inside, or two letters exchanged, which no twins' names ever are. Newborns without a name are
# told apart by a letter (Baby Boy A): 1 if it is not the same.


_LAST = """CASE
    WHEN a.l IS NULL OR b.l IS NULL THEN 0
    WHEN a.l = b.l THEN 5
    WHEN len(a.lp) > 0 AND (list_contains(a.lp, b.l) OR list_has_any(a.lp, b.lp)) THEN 4
    WHEN len(b.lp) > 0 AND list_contains(b.lp, a.l) THEN 4
    WHEN jaro_winkler_similarity(a.l, b.l) >= 0.92 THEN 3
    WHEN jaro_winkler_similarity(a.l, b.l) >= 0.82 THEN CASE WHEN damerau_levenshtein(a.l, b.l) <= 1 THEN 3 ELSE 2 END
    WHEN abs(length(a.l) - length(b.l)) <= 1 AND length(a.l) > 3 AND damerau_levenshtein(a.l, b.l) <= 1 THEN 3
    ELSE -1 END"""

_BIRTH = """CASE
    WHEN a.by IS NULL OR b.by IS NULL THEN 0
    WHEN a.b = b.b THEN 5
    WHEN a.b IS NULL OR b.b IS NULL THEN CASE WHEN a.by = b.by AND coalesce(a.bm = b.bm, true) THEN 3 ELSE -1 END
    WHEN a.by = b.by AND a.bm = b.bd AND a.bd = b.bm THEN 4
    WHEN a.by = b.by AND a.bm = b.bm AND (a.bd = 1 OR b.bd = 1) THEN 4
    WHEN a.bm = b.bm AND a.bd = b.bd AND abs(a.by - b.by) IN (1, 10, 100) THEN 4
    WHEN abs(a.by - b.by) <= 10 AND damerau_levenshtein(a.b::VARCHAR, b.b::VARCHAR) <= 1 THEN 4
    WHEN a.by = b.by AND (a.bm = b.bm OR a.bd = b.bd) THEN 3
    WHEN a.bm = b.bm AND a.bd = b.bd AND abs(a.by - b.by) <= 10 THEN 3
    WHEN a.by = b.by AND ((a.bm = 1 AND a.bd = 1) OR (b.bm = 1 AND b.bd = 1)) THEN 3
    ELSE -1 END"""
# A father and son of one name may share the day and month, but not with ten years or less between them. Level 4 is what one
# slip explains (exchanged day and month, one digit, a first of the month); 3 is as likely a relative's own date.

_ADDRESS = """CASE
    WHEN (a.core IS NULL AND a.z IS NULL) OR (b.core IS NULL AND b.z IS NULL) THEN 0
    WHEN a.num = b.num AND a.core = b.core
         AND (a.z = b.z OR a.city = b.city OR (a.z IS NULL AND a.city IS NULL) OR (b.z IS NULL AND b.city IS NULL))
         THEN CASE WHEN (a.crowd OR b.crowd) AND (a.unit = b.unit) IS NOT TRUE THEN 1 ELSE 3 END
    WHEN a.core IS NULL OR b.core IS NULL THEN CASE WHEN a.z = b.z THEN 1 WHEN a.z <> b.z THEN -1 ELSE 0 END
    WHEN (a.z = b.z OR a.city = b.city) AND a.num = b.num AND jaro_winkler_similarity(a.core, b.core) >= 0.85 THEN 2
    WHEN (a.z = b.z OR a.city = b.city) AND a.core = b.core
         AND abs(length(a.num) - length(b.num)) <= 1 AND damerau_levenshtein(a.num, b.num) <= 1 THEN 2
    WHEN a.num = b.num AND a.core = b.core THEN 2
    WHEN a.z = b.z THEN 1
    ELSE -1 END"""


LEADS = (
    "maria", "jose", "juan", "ana", "anna", "mary", "marie", "jean", "john", "luis", "jesus", "joao",
    "muhammad", "mohammad", "mohammed", "mohamed", "mohamad", "muhammed", "md", "abdul", "abd", "syed", "noor", "nur", "sri",
)  # fmt: skip
"""First names that brothers and sisters share: Maria Elena and Maria Luz, Muhammad Ali and Muhammad Hassan. The second tells them apart."""

_LEADS = ", ".join(f"'{name}'" for name in LEADS)

_OF_SEX = "CASE coalesce(a.x, b.x) WHEN 'm' THEN {0}.males WHEN 'f' THEN {0}.females ELSE {0}.males + {0}.females END"


def candidate_pairs(
    con: duckdb.DuckDBPyConnection,
    *,
    left: str = "m",
    right: str = "p",
    where: str = "true",
    wide: list[str] | None = None,
) -> None:
    """Create table ``pairs(ln, rn)``: the union of all blocks, each pair once; and ``same_ids``."""
    id_pairs(con, left=left, right=right, where=where)
    parts = ["SELECT ln, rn FROM same_ids"]
    parts += [
        f"SELECT a.n AS ln, b.n AS rn FROM {left} a JOIN {right} b USING ({keys}) WHERE {where}"
        for keys in (selective_blocks(con, left, right) if wide is None else wide)
    ]
    parts += [
        f"SELECT a.n AS ln, b.n AS rn FROM {left} a JOIN {right} b ON {keys} WHERE {where}" for keys in BLOCKS.values()
    ]
    con.execute("CREATE OR REPLACE TABLE pairs AS " + " UNION ".join(parts))


def selective_blocks(con: duckdb.DuckDBPyConnection, left: str, right: str) -> list[str]:
    """Return the wide blocks whose pairs, counted beforehand, are few enough."""
    chosen = []
    for keys in WIDE_BLOCKS.values():
        pairs, members = con.execute(
            f"""SELECT (SELECT coalesce(sum(x.c * y.c), 0) FROM (SELECT {keys}, count(*)::DOUBLE AS c FROM {left} GROUP BY ALL) x
                        JOIN (SELECT {keys}, count(*)::DOUBLE AS c FROM {right} GROUP BY ALL) y USING ({keys})),
                       (SELECT count(*) FROM {left})"""
        ).fetchall()[0]
        if pairs <= WIDE_LIMIT * members:
            chosen.append(keys)
    return chosen


def id_pairs(con: duckdb.DuckDBPyConnection, *, left: str = "m", right: str = "p", where: str = "true") -> None:
    """Create table ``same_ids(ln, rn, shared, sole)``: pairs with a member id in common; a family's, or known to be one person's."""
    con.execute(
        f"""CREATE OR REPLACE TABLE same_ids AS
            SELECT x.n AS ln, y.n AS rn, bool_and(y.shared) AS shared, bool_or(NOT y.shared AND o.system IS NOT NULL) AS sole
            FROM {left}_ids x JOIN {right}_ids y USING (id) JOIN {left} a ON a.n = x.n
            LEFT JOIN personal o ON o.system = y.system WHERE {where} GROUP BY ALL"""
    )


def compare_pairs(
    con: duckdb.DuckDBPyConnection,
    *,
    left: str = "m",
    right: str = "p",
    pairs: str = "pairs",
    out: str = "levels",
    everything: bool = False,
) -> None:
    """Create table ``out``: one row a pair with the level of each field and the counts of its names in the index.

    Unless ``everything`` is asked for, pairs that can neither be linked nor stand in the way are left out, most of any
    household among them: names and birth dates are compared first, the rest for those that are :data:`ALIKE`.
    """
    sides = f"JOIN {left} a ON a.n = q.ln JOIN {right} b ON b.n = q.rn LEFT JOIN same_ids ids ON ids.ln = q.ln AND ids.rn = q.rn"
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE near AS SELECT * EXCLUDE close FROM (SELECT q.ln, q.rn,
            (b.l IN (a.f, a.f0) AND a.l IN (b.f, b.f0) AND a.f0 <> a.l) IS TRUE AS sw, ({_FIRST})::TINYINT AS f,
            ({_BIRTH})::TINYINT AS d, {_CLOSE} AS close
            FROM {pairs} q {sides} LEFT JOIN nick ON nick.a = a.f0 AND nick.b = b.f0)
        WHERE {"true" if everything else ALIKE}
        """
    )
    con.execute(
        f"""
        CREATE OR REPLACE TABLE {out} AS
        SELECT q.ln, q.rn, b.k AS rk, q.sw, q.f, ({_LAST})::TINYINT AS l, q.d,
            (CASE WHEN a.s4 IS NULL OR b.s4 IS NULL THEN 0 WHEN a.s4 = b.s4 THEN 2
                 WHEN damerau_levenshtein(a.s4, b.s4) <= 1 THEN 1 ELSE -1 END)::TINYINT AS s,
            (CASE WHEN ids.shared THEN 1 WHEN NOT ids.shared THEN 2
                 WHEN list_has_any(a.systems, b.systems) THEN -1 ELSE 0 END)::TINYINT AS i,
            (CASE WHEN a.mbi IS NULL OR b.mbi IS NULL OR b.mbi_shared THEN 0 WHEN a.mbi = b.mbi THEN 2 ELSE -1 END)::TINYINT AS mb,
            ({_ADDRESS})::TINYINT AS a, {_same("ph")} AS ph, {_same("em")} AS em, {_same("x")} AS x,
            (CASE WHEN a.g IS NULL OR b.g IS NULL OR (a.g = a.fr AND b.g = b.fr) THEN 0
                 WHEN a.g = b.g AND a.g IN (a.f, b.f) THEN 0
                 WHEN a.g = b.g AND length(a.g) > 1 THEN 2
                 WHEN a.g[1:1] = b.g[1:1] AND (length(a.g) = 1 OR length(b.g) = 1 OR jaro_winkler_similarity(a.g, b.g) >= 0.85) THEN 1
                 ELSE -1 END)::TINYINT AS g,
            {_same("su")} AS su,
            coalesce(a.f0 IN ({_LEADS}) AND length(a.g) > 1 AND length(b.g) > 1, false) AS lead,
            coalesce(ids.sole, false) AS sole,
            ({_EDGE})::TINYINT AS edge, coalesce(abs(a.by - b.by) >= {GENERATION}, false) AS elder, false AS vague,
            coalesce(b.dead < a.since, false) AS dead, a.core IS NULL OR b.core IS NULL AS streetless,
            greatest(a.cf, b.cf, 1) AS cf, greatest(a.cl, b.cl, 1) AS cl
        FROM near q {sides}
        """
    )
    con.execute("DROP TABLE near")
    _mark_vague(con, left=left, right=right, out=out)


def _mark_vague(con: duckdb.DuckDBPyConnection, *, left: str, right: str, out: str) -> None:
    """Set ``vague`` where a pet form or a slip may as well stand for other names people here bear: a twin's.

    ``Kay`` stands for Kayla and for Kaylee, ``ayden`` for Jayden and for Kayden. Names that are one person's anyhow
    (Katherine, Kathryn) do not rival each other, nor do names hardly borne beside the candidate's. A name cut short has so
    many readings that only names many people bear count.
    """
    total = con.execute("SELECT coalesce(sum(males), 0), coalesce(sum(females), 0) FROM given_counts").fetchall()[0]
    rivals = f"""
        SELECT ln, rn FROM (
            SELECT DISTINCT q.ln, q.rn, q.f = 3 AND q.edge = 3 AS cut, t.name, coalesce(a.x, b.x) AS x,
                {_OF_SEX.format("t")} AS rival, {_OF_SEX.format("o")} AS own
            FROM {out} q JOIN {left} a ON a.n = q.ln JOIN {right} b ON b.n = q.rn
            JOIN meanings t ON t.form = {{form}} AND t.name <> {{other}}
            LEFT JOIN given_counts o ON o.f = {{other}}
            LEFT JOIN nick same ON same.a = t.name AND same.b = {{other}}
            WHERE q.f IN (3, 4) AND NOT q.sw AND {{if_form}} AND same.a IS NULL AND t.name <> t.form)
        WHERE rival > 0 AND rival >= {RIVAL} * coalesce(own, 0)
        GROUP BY ln, rn, cut, x
        HAVING NOT cut OR sum(rival) >= {BORNE} * CASE x WHEN 'm' THEN {total[0]} WHEN 'f' THEN {total[1]} ELSE {sum(total)} END"""
    borne = "SELECT f FROM given_counts WHERE borne"
    sides = [
        rivals.format(form="a.f", other="b.f", if_form="(q.f = 4 OR a.cf <= b.cf)"),
        rivals.format(form="b.f", other="a.f", if_form="(q.f = 4 OR b.cf <= a.cf)"),
        f"""SELECT q.ln, q.rn FROM {out} q JOIN {left} a ON a.n = q.ln JOIN {right} b ON b.n = q.rn
            WHERE q.f = 4 AND (a.f0 = b.f0 OR a.f IN ({borne}) AND b.f IN ({borne}))""",
        # Two strings of which neither is known as a name may be two names.
        f"""SELECT q.ln, q.rn FROM {out} q JOIN {left} a ON a.n = q.ln JOIN {right} b ON b.n = q.rn WHERE q.f = 3
            AND a.f NOT IN ({borne}) AND b.f NOT IN ({borne})""",
    ]
    con.execute(
        f"""UPDATE {out} SET vague = true FROM ({" UNION ".join(sides)}) v WHERE v.ln = {out}.ln AND v.rn = {out}.rn"""
    )


def _same(column: str) -> str:
    return f"(CASE WHEN a.{column} IS NULL OR b.{column} IS NULL THEN 0 WHEN a.{column} = b.{column} THEN 1 ELSE -1 END)::TINYINT"
