"""Train weights with Splink instead of our own EM (extra ``linkage``). Splink never runs at match time.

The same levels are handed to Splink as custom comparison levels over the tables :mod:`.prepare` makes, so what
comes back are m and u of our levels, and either trainer's file can be used.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from hiexchange import tables
from hiexchange.errors import MissingExtra
from hiexchange.matching import prepare
from hiexchange.matching.train import FLOOR, LEAST_M
from hiexchange.matching.weights import LEVELS, Weights, load_weights

_MISSING = "a.{0} IS NULL OR b.{0} IS NULL"
COMPARISONS: dict[str, tuple[str, dict[int, str]]] = {
    "first": (
        _MISSING.format("f"),
        {
            5: "a.f = b.f",
            3: "jaro_winkler_similarity(a.f, b.f) >= 0.92",
            2: "jaro_winkler_similarity(a.f, b.f) >= 0.83",
        },
    ),
    "birth": (
        _MISSING.format("b"),
        {5: "a.b = b.b", 4: "a.by = b.by AND (a.bm = b.bm OR a.bd = b.bd)", 3: "a.by = b.by AND a.bm = b.bd"},
    ),
    "ssn4": (_MISSING.format("s4"), {2: "a.s4 = b.s4", 1: "damerau_levenshtein(a.s4, b.s4) <= 1"}),
    "sex": (_MISSING.format("x"), {1: "a.x = b.x"}),
    "middle": (_MISSING.format("g"), {2: "a.g = b.g", 1: "substr(a.g, 1, 1) = substr(b.g, 1, 1)"}),
}
"""Fields Splink trains: condition of a missing side, and of each level, in order; what is left differs."""


def train_splink(
    members: Any, persons: Any, *, start: Weights | None = None, random_pairs: int = 1_000_000, note: str = ""
) -> Weights:
    """Return weights whose names, birth date, ssn4, sex and middle name were trained by Splink.

    Args:
        members: MEMBER rows.
        persons: PERSON rows.
        start: Weights of the other fields and the thresholds; the shipped ones by default.
        random_pairs: Pairs from which Splink estimates u.
        note: What the tables are, for the file.

    Raises:
        MissingExtra: Splink is not installed.
        SchemaMismatch: A table lacks a column of its corridor schema.
    """
    try:
        import splink.comparison_level_library as levels
        import splink.comparison_library as comparisons
        from splink import DuckDBAPI, Linker, SettingsCreator, block_on
    except ImportError:
        raise MissingExtra("linkage", "training weights with Splink") from None
    begin = start or load_weights()
    con = prepare.connect()
    prepare.prepare_persons(con, tables.check(persons, tables.PERSON))
    prepare.prepare_members(con, tables.check(members, tables.MEMBER))
    columns = 'key AS unique_id, f, f0, l, b, "by", bm, bd, s4, x, g, z'
    frames = [con.sql(f"SELECT {columns} FROM {side}").to_arrow_table() for side in ("m", "p")]
    con.close()
    made = []
    for name, (missing, cells) in COMPARISONS.items():
        steps = [levels.CustomLevel(_sided(missing), label_for_charts="missing").configure(is_null_level=True)]
        steps += [levels.CustomLevel(_sided(sql), label_for_charts=str(code)) for code, sql in cells.items()]
        made.append(
            comparisons.CustomComparison(output_column_name=name, comparison_levels=[*steps, levels.ElseLevel()])
        )
    settings = SettingsCreator(
        link_type="link_only",
        comparisons=made,
        blocking_rules_to_generate_predictions=[block_on("b", "l")],
        probability_two_random_records_match=1 / max(frames[1].num_rows, 2),
    )
    api = DuckDBAPI()
    linker = Linker([api.register(frame) for frame in frames], settings)
    linker.training.estimate_u_using_random_sampling(max_pairs=random_pairs, seed=1)
    linker.training.estimate_parameters_using_expectation_maximisation(block_on("b", "l"))
    linker.training.estimate_parameters_using_expectation_maximisation(block_on("f", "l"))
    return _merged(begin, linker.misc.save_model_to_json(), note)


def _sided(sql: str) -> str:
    return re.sub(r"\b([ab])\.(\w+)", lambda match: f'"{match.group(2)}_{"l" if match.group(1) == "a" else "r"}"', sql)


def _merged(begin: Weights, model: dict[str, Any], note: str) -> Weights:
    m = {name: dict(cells) for name, cells in begin.m.items()}
    u = {name: dict(cells) for name, cells in begin.u.items()}
    for comparison in model["comparisons"]:
        name = comparison["output_column_name"]
        for level in comparison["comparison_levels"]:
            label = level.get("label_for_charts", "")
            code = int(label) if label.isdigit() else -1
            if (
                not level.get("is_null_level")
                and code in LEVELS[name]
                and level.get("m_probability")
                and level.get("u_probability")
            ):
                m[name][code] = max(float(level["m_probability"]), LEAST_M)
                u[name][code] = max(float(level["u_probability"]), FLOOR)
    return replace(begin, m=m, u=u, note=note or begin.note, extra={"trainer": "splink"})
