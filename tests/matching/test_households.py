"""Measured on planted truth: precision first, order never matters."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from hiexchange.matching import match
from hiexchange.testing.households import Households, households, score

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture(scope="module")
def hard() -> Households:
    return households(4000, 8000, seed=1042, profile="hard")


def test_the_baseline_profile_is_linked_without_error() -> None:
    result = score(match((world := households(4000, 8000, seed=1041)).members, world.persons, known_at=NOW), world)
    assert result.wrong == 0
    assert result.recall >= 0.985


def test_the_hard_profile_plants_over_fifty_classes_and_twins_are_never_mixed_up(hard: Households) -> None:
    result = score(match(hard.members, hard.persons, known_at=NOW), hard)
    assert len(result.recall_by_class) > 50
    assert not [name for name in result.wrong_by_class if name.startswith(("twins", "jr_sr"))]
    assert result.precision >= 0.999
    assert result.recall >= 0.95


def test_names_of_many_languages_are_linked_without_mixing_up_relatives() -> None:
    world = households(4000, 8000, seed=2042, profile="world")
    result = score(match(world.members, world.persons, known_at=NOW), world)
    assert len(result.recall_by_class) > 60
    assert not [name for name in result.wrong_by_class if name.startswith(("twins", "triplets", "jr_sr", "cousin"))]
    assert result.precision >= 0.999
    assert result.recall >= 0.96


def test_the_order_of_rows_has_no_effect(hard: Households) -> None:
    rng = np.random.default_rng(5)
    links = match(hard.members, hard.persons, known_at=NOW, run_id="r")
    members = hard.members.take(rng.permutation(hard.members.num_rows))
    persons = hard.persons.take(rng.permutation(hard.persons.num_rows))
    assert match(members, persons, known_at=NOW, run_id="r").equals(links)


def test_the_same_seed_gives_the_same_people_and_pools_do_not_mix() -> None:
    one, other = households(300, 600, seed=3), households(300, 600, seed=3)
    assert one.members.equals(other.members) and one.persons.equals(other.persons) and one.truth.equals(other.truth)
    names = set(households(300, 600, seed=1003).persons["last_name"].to_pylist())
    assert not names & set(one.persons["last_name"].to_pylist())
