"""Weights are a file with a hash; EM finds them without labels; a pair can be explained."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from hiexchange.errors import ConfigError, DataError
from hiexchange.matching import explain, load_weights, match, train
from hiexchange.matching.weights import LEVELS
from hiexchange.testing.households import households, score

Build = Callable[..., pa.Table]
NOW = datetime(2026, 11, 22, tzinfo=UTC)
HOME = {"address_line": "12 Oak Street", "city": "Conway", "zip": "72032", "phone": "501-555-0147"}


def test_the_shipped_weights_survive_a_round_trip(tmp_path: Path) -> None:
    shipped = load_weights()
    (tmp_path / "w.json").write_bytes(shipped.dump())
    assert load_weights(tmp_path / "w.json").sha == shipped.sha
    assert "seed" in shipped.note
    assert shipped.bits("birth", 5) > 10 > 0 > shipped.bits("birth", -1)


def test_a_damaged_weights_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    for text in ("", "{}", '{"fields": {"shoe": {}}}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="cannot be used"):
            load_weights(path)


def test_em_learns_without_labels_what_agreement_is_worth() -> None:
    world = households(1500, 3000, seed=1)
    weights = train(world.members, world.persons, random_pairs=200_000)
    assert abs(weights.m["first"][5] - 0.89) < 0.03  # the generator spoils 11 % of first names
    assert abs(weights.m["birth"][5] - 0.97) < 0.02  # and 3 % of birth dates
    assert abs(weights.u["sex"][1] - 0.5) < 0.05
    assert weights.extra["matches"] == pytest.approx(1350, rel=0.03)
    links = match(world.members, world.persons, known_at=NOW, weights=weights)
    assert score(links, world).wrong == 0
    assert set(links["weights_sha"].to_pylist()) == {weights.sha}


def test_too_little_to_learn_from_is_refused(member_table: Build, person_table: Build) -> None:
    with pytest.raises(DataError, match="too few"):
        train(member_table({"first_name": "Ada"}), person_table({"first_name": "Ada"}))


def test_every_level_of_a_pair_is_explained(member_table: Build, person_table: Build) -> None:
    ada = {"first_name": "Ada", "last_name": "Ormerod", "sex": "female", "ssn4": "4821", **HOME}
    members = member_table(ada | {"birth_on": date(1980, 1, 2)})
    persons = person_table(ada | {"birth_date": "1980-01-02"}, ada | {"birth_date": "1952-05-06", "first_name": "Eve"})
    key = members["member_key"][0].as_py()
    why = explain(members, persons, member_key=key, person_id="p1")
    assert (why.rule, why.guard) == ("ssn4_name_birth", None)
    assert {field for field, _, _ in why.fields} == {"first", "birth", "ssn4", "sex", "family"}
    assert why.bits == pytest.approx(why.prior + sum(bits for _, _, bits in why.fields), abs=0.1)
    link = match(members, persons, known_at=NOW).to_pylist()[0]
    assert link["score"] == pytest.approx(why.bits, abs=0.01) and link["rule"] == why.rule
    mother = explain(members, persons, member_key=key, person_id="p2")
    assert mother.rule is None and mother.guard == "birth_date_conflict" and "guard" in mother.text()
    assert "Ada" not in why.text() and "Ormerod" not in why.text()
    with pytest.raises(DataError):
        explain(members, persons, member_key=key, person_id="p9")


def test_every_level_has_a_name() -> None:
    assert all(len(set(levels.values())) == len(levels) for levels in LEVELS.values())
