"""Splink may train the weights, where it is installed."""

from __future__ import annotations

import pytest

from hiexchange.matching import load_weights, train_splink
from hiexchange.testing.households import households


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_splink_trains_the_levels_it_is_given() -> None:
    pytest.importorskip("splink", reason="the linkage extra is not installed")
    world = households(1500, 3000, seed=2)
    weights = train_splink(world.members, world.persons, random_pairs=200_000, note="test")
    assert weights.bits("first", 5) > 3 > 0 > weights.bits("first", -1)
    assert weights.bits("birth", 5) > 8
    assert weights.m["family"] == load_weights().m["family"]
    assert weights.extra == {"trainer": "splink"}
