"""Learn Fellegi-Sunter weights from unlabelled tables by expectation maximisation.

u, the chance agreement, is counted over the cross product where every agreeing pair is a candidate, and elsewhere
over random pairs of two people of the index, who are hardly ever one. m comes from EM over the candidate pairs,
which have their own chance agreement (they were
selected for agreeing on something): it is fitted beside m and thrown away. Pairs are reduced to patterns of
levels first, so an iteration costs thousands of rows, not millions.

Source: Winkler, Using the EM algorithm for weight computation in the Fellegi-Sunter model (1988).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from hiexchange import tables
from hiexchange.errors import DataError
from hiexchange.matching import compare, prepare
from hiexchange.matching.weights import FIELD_SQL, LEVELS, Weights, load_weights

Array = np.ndarray[Any, np.dtype[Any]]

FLOOR = 1e-9
LEAST_M = 5e-4
"""Least probability of any level among true pairs."""

SURE_BLOCKED = {
    "id": (2, 1),
    "mbi": (2,),
    "family": tuple(code for code in LEVELS["family"] if code % 10 >= 3 and code >= 0),
}
"""Levels that make nearly every agreeing pair a candidate, so that their chance can be counted."""


def train(
    members: Any,
    persons: Any,
    *,
    start: Weights | None = None,
    rounds: int = 200,
    random_pairs: int = 1_000_000,
    note: str = "",
) -> Weights:
    """Return weights fitted to two tables; thresholds are those of ``start``.

    Args:
        members: MEMBER rows.
        persons: PERSON rows.
        start: Where EM begins, and what fields keep that the tables do not hold; the shipped weights by default.
        rounds: At most so many iterations; it stops when no m moves by 1e-5.
        random_pairs: Pairs drawn to estimate u. Drawn by hash, so the same tables give the same weights.
        note: What the tables are, for the file.

    Raises:
        SchemaMismatch: A table lacks a column of its corridor schema.
        DataError: There are too few candidate pairs to learn from (fewer than 100).
    """
    begin = start or load_weights()
    con = prepare.connect()
    try:
        prepare.prepare_persons(con, tables.check(persons, tables.PERSON))
        prepare.prepare_members(con, tables.check(members, tables.MEMBER))
        prepare.finish(con)
        sizes = con.execute("SELECT (SELECT count(*) FROM m), (SELECT count(*) FROM p)").fetchall()[0]
        cross = float(sizes[0]) * float(sizes[1])
        compare.candidate_pairs(con)
        candidates = _patterns(con)
        con.execute(
            f"""CREATE OR REPLACE TABLE pairs AS SELECT DISTINCT (hash(i) % {max(sizes[1], 1)})::INTEGER AS ln,
                (hash(i + 1000003) % {max(sizes[1], 1)})::INTEGER AS rn FROM range({random_pairs}) r(i) WHERE ln <> rn"""
        )
        compare.id_pairs(con, left="p", right="p", where="false")
        chance = _patterns(con, left="p")
    finally:
        con.close()
    if candidates.num_rows == 0 or sum(candidates["pairs"].to_pylist()) < 100:
        raise DataError(
            "there are too few candidate pairs to learn weights from", code="HX-523", hint="use the shipped weights"
        )
    return _fit(candidates, chance, cross, begin, rounds=rounds, note=note)


def _patterns(con: duckdb.DuckDBPyConnection, *, left: str = "m") -> pa.Table:
    compare.compare_pairs(con, left=left, everything=True)
    columns = ", ".join(f"{sql} AS {name}_level" for name, sql in FIELD_SQL.items())
    return con.sql(f"SELECT {columns}, count(*) AS pairs FROM levels GROUP BY ALL ORDER BY ALL").to_arrow_table()


def _fit(candidates: pa.Table, chance: pa.Table, cross: float, begin: Weights, *, rounds: int, note: str) -> Weights:
    count = candidates["pairs"].to_numpy().astype(np.float64)
    levels = {name: candidates[f"{name}_level"].to_numpy() for name in LEVELS}
    codes = {name: [code for code in LEVELS[name] if (levels[name] == code).any()] for name in LEVELS}
    m = {name: {code: max(begin.m.get(name, {}).get(code, 0.01), FLOOR) for code in codes[name]} for name in LEVELS}
    # Random pairs anchor what not matching looks like: where nearly every candidate is a match, EM alone would split
    # the matches into clean and mistyped ones.
    anchors = chance["pairs"].to_numpy().astype(np.float64)
    anchors *= count.sum() / max(anchors.sum(), 1.0)
    drawn = {name: chance[f"{name}_level"].to_numpy() for name in LEVELS}
    share, done = 0.5, 0
    among = {
        name: _shares(np.concatenate([levels[name], drawn[name]]), codes[name], np.concatenate([0.3 * count, anchors]))
        for name in LEVELS
    }
    odds = np.zeros(len(count))
    for done in range(1, rounds + 1):  # noqa: B007 - the number of rounds goes into the file
        odds = np.full(len(count), np.log(share / (1 - share)))
        for name in LEVELS:
            for code in codes[name]:
                odds[levels[name] == code] += np.log(m[name][code] / among[name][code])
        match = 1 / (1 + np.exp(-np.clip(odds, -700, 700)))
        share = float(np.clip((match * count).sum() / count.sum(), 1e-6, 1 - 1e-6))
        fitted = {name: _shares(levels[name], codes[name], match * count) for name in LEVELS}
        among = {
            name: _shares(
                np.concatenate([levels[name], drawn[name]]), codes[name], np.concatenate([(1 - match) * count, anchors])
            )
            for name in LEVELS
        }
        moved = max(abs(fitted[name][code] - m[name][code]) for name in LEVELS for code in codes[name])
        m = fitted
        if moved < 1e-5:
            break
    miss = (1 - match) * count
    u = {name: _chance(name, codes[name], chance, levels[name], miss, cross) for name in LEVELS}
    # Real files are dirtier than any sample: no disagreement is ever worth more than its floor.
    m = {name: {code: max(value, LEAST_M) for code, value in cells.items()} for name, cells in m.items()}
    kept = {name: begin.m[name] for name in LEVELS if len(codes[name]) < 2 and name in begin.m}
    kept_u = {name: begin.u[name] for name in kept}
    return replace(
        begin,
        m={name: {**begin.m.get(name, {}), **m[name]} for name in LEVELS} | kept,
        u={name: {**begin.u.get(name, {}), **u[name]} for name in LEVELS} | kept_u,
        note=note or begin.note,
        extra={
            "trainer": "em",
            "candidate_pairs": int(count.sum()),
            "patterns": len(count),
            "rounds": done,
            "matches": round(share * float(count.sum())),
        },
    )


def _shares(level: Array, codes: list[int], weight: Array) -> dict[int, float]:
    known = sum(float(weight[level == code].sum()) for code in codes) or 1.0
    return {code: max(float(weight[level == code].sum()) / known, FLOOR) for code in codes}


def _chance(name: str, codes: list[int], chance: pa.Table, level: Array, miss: Array, cross: float) -> dict[int, float]:
    weight = chance["pairs"].to_numpy().astype(np.float64)
    drawn = chance[f"{name}_level"].to_numpy()
    known = float(weight[np.isin(drawn, codes)].sum())
    total = float(weight.sum())
    result = {}
    for code in codes:
        seen = float(weight[drawn == code].sum())
        counted = (float(miss[level == code].sum()) + 0.5) / max(cross * (known / total if total else 1.0), 1.0)
        sure = code in SURE_BLOCKED.get(name, ())
        result[code] = max(counted if sure else (seen + 0.5) / max(known, 1.0), FLOOR)
    return result


def blend(several: list[Weights], *, note: str) -> Weights:
    """Return the geometric mean of weights trained on several tables, so that no one table's quirks rule."""
    first = several[0]

    def mean(tables_: list[dict[str, dict[int, float]]]) -> dict[str, dict[int, float]]:
        return {
            name: {
                code: float(np.exp(np.mean([np.log(table[name][code]) for table in tables_ if code in table[name]])))
                for code in tables_[0][name]
            }
            for name in tables_[0]
        }

    return replace(
        first,
        m=mean([weights.m for weights in several]),
        u=mean([weights.u for weights in several]),
        note=note,
        extra={"trainer": "em, geometric mean", "trainings": [weights.extra for weights in several]},
    )
