"""Turn MEMBER and PERSON tables into two DuckDB tables of one shape, ready to compare.

Both ``m`` (members) and ``p`` (the index) have the same columns, documented in docs/matching.md. Python normalisers
run once per distinct value, DuckDB joins the result back. Values too many people share (a phone of a
shelter, a placeholder ssn4) are nulled, since their agreement says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from hiexchange._duck import quiet_connection
from hiexchange.matching import normalize

MAX_SHARING_PHONE = 20
MAX_SHARING_EMAIL = 8
MAX_SHARING_HOME = 20

MAX_SHARING_NAME = 2000
"""People of one first and last name beyond whom names, with a birth year or ZIP, select no candidates."""

_TEXT = pa.string()

_ID = """ltrim(regexp_replace(upper({0}), '[^A-Z0-9]', '', 'g'), '0')"""
_REAL_ID = """{0} NOT IN ('', '123456789', '1234567890', '987654321', 'UNKNOWN', 'UNK', 'NONE', 'NULL', 'NA', 'TEST', 'PENDING', 'TBD')
    AND (length({0}) < 5 OR replace({0}, {0}[1:1], '') <> '')"""
# Zeros, nines and their like are what systems write where an id is demanded.

_MBI = "[1-9][A-Z][A-Z0-9][0-9][A-Z][A-Z0-9][0-9][A-Z]{2}[0-9]{2}"

_NO_EMAIL = (
    "^(no|none|na|nomail|(no|donot|dont|refused|declined|invalid)[-_.]?(e?mail|reply)|unknown|test|declined|refused|patient|invalid"
    "|not?[-_.]?(given|provided|available|known|applicable)|x+)@"
)

MIN_HOMES = 20
"""Homes with ids of several people that must be seen before ids of a system are taken to be of one person each."""

MAX_ALIKE = 0.1
"""Share of these homes in which people may share one: ids are mistaken at times."""

_FAMILYS = "count(*) > 1 AND (count(DISTINCT (f, b)) > 1 OR count(f) < count(*) AND count(DISTINCT k) > 1)"
# An id that people of several names or birth dates carry is a family's: it proves nobody. Newborns without a name may be twins.

_DIED = """CASE length(died) WHEN 4 THEN try_cast(died || '-12-31' AS DATE) WHEN 7 THEN last_day(try_cast(died || '-01' AS DATE))
    ELSE try_cast(died[1:10] AS DATE) END"""
# FHIR R4 dateTime may be a year or a month: the death is no earlier than its last day.

_ROAD = """CASE WHEN regexp_matches(address_line, '^[0-9]+ ') AND NOT contains(lower(address_line), 'box')
    THEN '0' || regexp_replace(address_line, '^[0-9]+', '') ELSE address_line END"""
# Streets repeat and house numbers do not: the plain ones are taken off, so that each street is read once.

_MEMBER_SOURCE = """
    SELECT member_key AS key, payer_id AS payer, first_name, middle_name, last_name, suffix, birth_on::VARCHAR AS born,
           sex, ssn4, mbi, address_line, city, state, zip, phone, email, deceased_on::VARCHAR AS died, valid_from AS since,
           member_id_system, member_id, row_no, roster_id, as_of_on
    FROM members_in
"""


def connect() -> duckdb.DuckDBPyConnection:
    """Open a private in-memory database for one matching run."""
    con = quiet_connection()
    con.execute("SET preserve_insertion_order = false")
    # Patients' data never touches a disk that nobody asked for: DuckDB would spill into the working folder.
    con.execute("SET temp_directory = ''")
    pairs = sorted(normalize.same_name_pairs())
    con.register("nick_in", pa.table({"a": [a for a, _ in pairs], "b": [b for _, b in pairs]}))
    con.execute("CREATE TABLE nick AS FROM nick_in")
    con.unregister("nick_in")
    con.register("given_in", pa.table({"a": sorted(normalize.full_names())}))
    con.execute("CREATE TABLE given_names AS FROM given_in")
    con.unregister("given_in")
    return con


def prepare_persons(con: duckdb.DuckDBPyConnection, persons: pa.Table) -> None:
    """Create table ``p`` and ``p_ids`` from PERSON rows; rows of one person_id are its aliases."""
    con.register("persons_in", persons)
    con.execute(
        """CREATE TEMP TABLE source AS
           SELECT (row_number() OVER (ORDER BY person_id, first_name, last_name, birth_date, address_line, phone) - 1)::INTEGER AS n,
                  (dense_rank() OVER (ORDER BY person_id))::INTEGER AS k, person_id AS key, NULL::VARCHAR AS payer,
                  first_name, middle_name, last_name, suffix, birth_date AS born, sex, ssn4, mbi, address_line, city, state, zip, phone,
                  email, deceased_at AS died, NULL::DATE AS since
           FROM persons_in"""
    )
    _normalise(con, "p")
    con.execute(
        f"""CREATE TEMP TABLE ids AS SELECT DISTINCT n, system, system || '|' || value AS id FROM (
               SELECT n, CASE WHEN contains(i, '|') THEN split_part(i, '|', 1) ELSE '' END AS system,
                      {_ID.format("substr(i, strpos(i, '|') + 1)")} AS value
               FROM (SELECT p.n, unnest(member_ids) AS i FROM persons_in JOIN p ON p.key = person_id WHERE len(member_ids) > 0))
           WHERE {_REAL_ID.format("value")}"""
    )
    con.execute(
        f"""CREATE TABLE p_ids AS SELECT ids.*, coalesce(shared, false) AS shared FROM ids LEFT JOIN (
               SELECT id, true AS shared FROM ids JOIN p USING (n) GROUP BY id HAVING {_FAMILYS}) USING (id)"""
    )
    con.execute("DROP TABLE ids")
    con.execute("DROP TABLE source")
    con.unregister("persons_in")


def prepare_members(con: duckdb.DuckDBPyConnection, members: pa.Table) -> None:
    """Create table ``m``, ``m_ids`` and ``torn`` from MEMBER rows, one row a distinct member_key.

    The member's line in the newest file gives its demographics. Members whose rows name different people
    (another first name, or a birth year a generation off, under one member id) are listed in ``torn``: they go to review. Over
    the years a name is written in several ways; within one file two names are two children.
    """
    con.register("members_in", members)
    con.execute(
        f"""CREATE TEMP TABLE source AS
            SELECT (row_number() OVER (ORDER BY key) - 1)::INTEGER AS n, 0 AS k, * EXCLUDE (row_no, roster_id, as_of_on)
            FROM ({_MEMBER_SOURCE} QUALIFY row_number() OVER (
                  PARTITION BY member_key ORDER BY as_of_on DESC NULLS LAST, since DESC, roster_id DESC, row_no DESC) = 1)"""
    )
    con.execute(
        """CREATE TABLE torn AS SELECT member_key AS key FROM members_in GROUP BY member_key
           HAVING count(*) > 1 AND (count(DISTINCT lower(first_name[1:3])) > 1 OR max(year(birth_on)) - min(year(birth_on)) > 10)
           UNION SELECT member_key FROM (
               SELECT member_key, roster_id, regexp_replace(strip_accents(lower(first_name)), '[^a-z]', '', 'g') AS name
               FROM members_in WHERE first_name IS NOT NULL)
           GROUP BY member_key, roster_id HAVING count(DISTINCT name) > 1 AND NOT starts_with(max(name), min(name))"""
    )
    con.execute(
        f"""CREATE TABLE m_ids AS SELECT DISTINCT n, system, system || '|' || id AS id FROM (
               SELECT n, unnest([member_id_system, payer, '']) AS system, {_ID.format("member_id")} AS id FROM source)
           WHERE system IS NOT NULL AND {_REAL_ID.format("id")}"""
    )
    _normalise(con, "m")
    con.unregister("members_in")
    con.execute("DROP TABLE source")


def _lookup(
    con: duckdb.DuckDBPyConnection, name: str, column: str, function: Callable[[str], Any], fields: Sequence[str]
) -> None:
    """Create table ``name(raw, fields...)`` from the distinct values of a source column."""
    raw = (
        con.sql(f"SELECT DISTINCT {column} AS raw FROM source WHERE {column} IS NOT NULL")
        .to_arrow_table()["raw"]
        .to_pylist()
    )
    values = [function(text) for text in raw]
    columns: dict[str, pa.Array] = {"raw": pa.array(raw, _TEXT)}
    for field in fields:
        cells = [getattr(value, field) for value in values] if fields != ["code"] else values
        kind = pa.list_(_TEXT) if field == "parts" else _TEXT
        columns[field] = pa.array([list(cell) if isinstance(cell, tuple) else cell for cell in cells], kind)
    con.register("lookup_in", pa.table(columns))
    con.execute(f"CREATE TEMP TABLE {name} AS FROM lookup_in")
    con.unregister("lookup_in")


def _normalise(con: duckdb.DuckDBPyConnection, name: str) -> None:
    _lookup(con, "given", "first_name", normalize.given_name, ["whole", "lead", "rest", "suffix", "sex", "mark"])
    _lookup(con, "middle", "middle_name", normalize.given_name, ["whole"])
    _lookup(con, "family", "last_name", normalize.family_name, ["whole", "parts", "suffix"])
    _lookup(con, "generation", "suffix", normalize.suffix_code, ["code"])
    con.execute(f"ALTER TABLE source ADD COLUMN road VARCHAR; UPDATE source SET road = {_ROAD}")
    _lookup(con, "street", "road", normalize.street_address, ["number", "street", "core", "unit"])
    con.execute(
        f"""
        CREATE TABLE {name} AS
        SELECT s.n, s.k, s.key, s.payer,
            CASE WHEN anonymous THEN NULL ELSE f.whole END AS f, CASE WHEN anonymous THEN NULL ELSE f.lead END AS f0,
            CASE WHEN anonymous THEN NULL ELSE f.rest END AS fr, f.mark,
            CASE WHEN anonymous THEN NULL ELSE l.whole END AS l, CASE WHEN anonymous THEN [] ELSE l.parts END AS lp,
            coalesce(g.code, l.suffix, f.suffix) AS su,
            CASE WHEN plausible THEN b END AS b,
            CASE WHEN plausible THEN born[1:4]::SMALLINT END AS by,
            CASE WHEN plausible AND length(born) >= 7 THEN try_cast(born[6:7] AS TINYINT) END AS bm,
            CASE WHEN plausible AND b IS NOT NULL THEN day(b)::TINYINT END AS bd,
            CASE WHEN lower(s.sex[1:1]) IN ('m', 'f') THEN lower(s.sex[1:1]) ELSE f.sex END AS x,
            CASE WHEN regexp_full_match(s.ssn4, '[0-9]{{4}}') AND s.ssn4 NOT IN ('0000', '9999') THEN s.ssn4 END AS s4,
            coalesce(mi.whole, f.rest) AS g,
            CASE WHEN road[1:2] = '0 ' THEN regexp_extract(s.address_line, '^[0-9]+') ELSE a.number END AS num,
            a.street AS st, a.core, a.unit,
            CASE WHEN regexp_matches(s.zip, '^[0-9]{{5}}') AND s.zip[1:5] NOT IN ('00000', '99999') THEN s.zip[1:5]
                 ELSE nullif(upper(trim(s.zip)), '') END AS z,
            nullif(regexp_replace(lower(strip_accents(s.city)), '[^a-z]', '', 'g'), '') AS city,
            nullif(upper(trim(s.state)), '') AS state,
            CASE WHEN length(ph) = 10 AND replace(ph, ph[1:1], '') <> '' AND ph NOT IN ('1234567890', '0123456789')
                 AND NOT regexp_full_match(ph, '([0-9]{{3}})(0000000|1111111|9999999|5555555)') THEN ph END AS ph,
            CASE WHEN em LIKE '%_@_%' AND NOT regexp_matches(em, '{_NO_EMAIL}') THEN em END AS em,
            CASE WHEN regexp_full_match(mbi_plain, '{_MBI}') THEN mbi_plain END AS mbi,
            s.since,
            {_DIED} AS dead
        FROM (SELECT *, try_cast(born AS DATE) AS b,
                     regexp_matches(born, '^(19|20)[0-9]{{2}}') AND born <> '1900'
                         AND coalesce(born[1:10] NOT IN ('1900-01-01', '1901-01-01', '1900-01-02'), true) AS plausible,
                     regexp_extract(regexp_replace(phone, '[^0-9]', '', 'g'), '^1?([0-9]{{10}})', 1) AS ph,
                     lower(trim(email)) AS em, regexp_replace(upper(mbi), '[^A-Z0-9]', '', 'g') AS mbi_plain
              FROM (SELECT * REPLACE (regexp_replace(phone, '^(tel:)?\\+1', '') AS phone) FROM source)) s
        LEFT JOIN given f ON f.raw = s.first_name
        LEFT JOIN middle mi ON mi.raw = s.middle_name
        LEFT JOIN family l ON l.raw = s.last_name
        LEFT JOIN generation g ON g.raw = s.suffix
        LEFT JOIN street a ON a.raw = s.road
        """.replace("anonymous", "coalesce(l.whole = 'doe' AND f.whole IN ('john', 'jane', 'jon', 'baby'), false)")
    )
    for table in ("given", "middle", "family", "generation", "street"):
        con.execute(f"DROP TABLE {table}")


def finish(con: duckdb.DuckDBPyConnection) -> None:
    """Null the values too many people of the index share, and attach name counts to both tables."""
    people = con.execute("SELECT count(*) FROM p").fetchall()[0][0]
    for column, limit in (("ph", MAX_SHARING_PHONE), ("em", MAX_SHARING_EMAIL), ("s4", 20 + people // 2000)):
        con.execute(
            f"CREATE TEMP TABLE crowded AS SELECT {column} AS v FROM p WHERE {column} IS NOT NULL GROUP BY 1 HAVING count(*) > {limit}"
        )
        if con.execute("SELECT count(*) FROM crowded").fetchall()[0][0]:
            for side in ("m", "p"):
                con.execute(f"UPDATE {side} SET {column} = NULL WHERE {column} IN (SELECT v FROM crowded)")
        con.execute("DROP TABLE crowded")
    _mark_crowds(con)
    _find_personal_systems(con)
    # 1 January is what a system writes that knows the year at most, where far more people bear it than other days.
    con.execute(
        """CREATE TABLE placeholder_days AS SELECT b FROM p WHERE month(b) = 1 AND day(b) = 1 GROUP BY b
           HAVING count(*) > 20 + 10 * (SELECT count(b) / greatest(count(DISTINCT b), 1) FROM p)"""
    )
    for side in ("m", "p"):
        con.execute(f"UPDATE {side} SET b = NULL, bm = NULL, bd = NULL WHERE b IN (SELECT b FROM placeholder_days)")
    con.execute("CREATE TABLE first_counts AS SELECT f, count(*)::INTEGER AS c FROM p WHERE f IS NOT NULL GROUP BY f")
    con.execute("CREATE TABLE last_counts AS SELECT l, count(*)::INTEGER AS c FROM p WHERE l IS NOT NULL GROUP BY l")
    for side in ("m", "p"):
        con.execute(
            f"""CREATE TABLE {side}_done AS SELECT {side}.*, coalesce(a.c, 0) AS cf, coalesce(b.c, 0) AS cl,
                       coalesce(i.systems, []) AS systems
                FROM {side} LEFT JOIN first_counts a USING (f) LEFT JOIN last_counts b USING (l)
                LEFT JOIN (SELECT n, list(DISTINCT system) AS systems FROM {side}_ids WHERE system <> '' GROUP BY n) i USING (n)"""
        )
        con.execute(f"DROP TABLE {side}")
        con.execute(f"ALTER TABLE {side}_done RENAME TO {side}")
    _find_meanings(con, people)


def _mark_crowds(con: duckdb.DuckDBPyConnection) -> None:
    """Add to both tables ``crowd``, a home too many people share (a nursing home, a shelter), ``throng``, a name, and ``mbi_shared``."""
    con.execute(
        f"""CREATE TEMP TABLE crowds AS SELECT num, core, z, true AS crowd FROM p WHERE core IS NOT NULL AND z IS NOT NULL
            GROUP BY num, core, z HAVING count(DISTINCT k) > {MAX_SHARING_HOME} OR count(DISTINCT l) > {MAX_SHARING_HOME // 2}"""
    )
    con.execute(
        f"""CREATE TEMP TABLE shared_mbis AS SELECT mbi, true AS mbi_shared FROM p WHERE mbi IS NOT NULL
           GROUP BY mbi HAVING {_FAMILYS}"""
    )
    con.execute(
        f"""CREATE TEMP TABLE throngs AS SELECT f0, l, true AS throng FROM p WHERE f0 IS NOT NULL AND l IS NOT NULL
            GROUP BY f0, l HAVING count(*) > {MAX_SHARING_NAME}"""
    )
    for side in ("m", "p"):
        con.execute(
            f"""CREATE OR REPLACE TABLE {side} AS
                SELECT {side}.*, coalesce(crowd, false) AS crowd, coalesce(throng, false) AS throng,
                       coalesce(mbi_shared, false) AS mbi_shared
                FROM {side} LEFT JOIN crowds USING (num, core, z) LEFT JOIN throngs USING (f0, l) LEFT JOIN shared_mbis USING (mbi)"""
        )
    con.execute("DROP TABLE crowds; DROP TABLE throngs; DROP TABLE shared_mbis")


def _find_personal_systems(con: duckdb.DuckDBPyConnection) -> None:
    """Create table ``personal(system)``: systems whose ids are seen to be of one person each, not of a family.

    Where two people of one home and surname have ids of a system, they differ. A subscriber's id, which his family bears, is
    known by that; with few such homes nobody knows, and the id stands for the family.
    """
    con.execute(
        f"""CREATE TABLE personal AS SELECT system FROM (
                SELECT i.system, count(DISTINCT i.id) >= count(DISTINCT p.f0) AS apart FROM p_ids i JOIN p USING (n)
                WHERE p.core IS NOT NULL AND p.f0 IS NOT NULL AND NOT p.crowd
                GROUP BY i.system, p.num, p.core, p.z, p.l HAVING count(DISTINCT p.f0) > 1)
            GROUP BY system HAVING count(*) >= {MIN_HOMES} AND count(*) FILTER (NOT apart) <= {MAX_ALIKE} * count(*)"""
    )


def _find_meanings(con: duckdb.DuckDBPyConnection, people: int) -> None:
    """Create table ``meanings``: for each pet form, cut or mistyped first name, the names of the index it may stand for.

    The index is the dictionary: a name several people bear is a name. Mistyped means one letter deleted, inserted,
    substituted or exchanged; such strings share a form with at most one letter left out.
    """
    con.execute(
        f"""CREATE TABLE given_counts AS SELECT f, count(*) FILTER (x IS DISTINCT FROM 'f') AS males,
                count(*) FILTER (x IS DISTINCT FROM 'm') AS females, count(*) >= {3 + people // 50_000} AS borne
            FROM p WHERE f IS NOT NULL GROUP BY f"""
    )
    con.execute(
        """CREATE TEMP TABLE forms AS SELECT f AS form FROM (SELECT DISTINCT f FROM m UNION SELECT f FROM given_counts)
           WHERE length(f) > 1 AND f NOT IN (SELECT f FROM given_counts WHERE borne)"""
    )
    drop = "SELECT {0} AS text, {0}[1:i] || {0}[i + 2:] AS trace FROM {1}, range(0, length({0})) t(i) UNION ALL SELECT {0}, {0} FROM {1}"
    con.execute(
        f"""CREATE TABLE meanings AS SELECT form, name, males, females FROM (
                SELECT x.text AS form, y.text AS name FROM ({drop.format("form", "forms")}) x
                JOIN ({drop.format("f", "(SELECT f FROM given_counts WHERE borne)")}) y USING (trace)
                WHERE damerau_levenshtein(x.text, y.text) <= 1
                UNION SELECT x.f, y.f FROM (SELECT form AS f FROM forms UNION SELECT b FROM nick) x
                JOIN given_counts y ON x.f[1:3] = y.f[1:3] AND starts_with(y.f, x.f) WHERE length(x.f) > 2 AND y.borne
                UNION SELECT nick.b, nick.a FROM nick JOIN given_counts ON f = nick.a WHERE borne AND nick.a IN (SELECT a FROM given_names)
                UNION SELECT x.b, y.b FROM nick x JOIN nick y ON x.a = y.a AND x.b[1:3] = y.b[1:3] AND length(x.b) < length(y.b)
                JOIN given_counts ON f = y.b WHERE borne)
            JOIN given_counts ON f = name"""
    )
    con.execute("DROP TABLE forms")
