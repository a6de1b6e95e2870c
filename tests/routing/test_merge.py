"""Merges: told to those who ask for them, whatever classes of visits they want."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({}, ("held", "filtered_trigger", "clinic")),
        ({"triggers": ["admit"]}, ("held", "filtered_trigger", "clinic")),
        ({"triggers": ["admit", "merge"], "classes": ["IMP"]}, ("deliver", "attributed", "clinic")),
    ],
)
def test_a_merge_goes_to_who_asks_for_it(
    world: SimpleNamespace, wishes: dict[str, list[str]], expected: tuple[str, str, str]
) -> None:
    merge = world.event(trigger="merge", visit_number="old-mrn", status="finished", **{"class": None})
    assert world.outcome(world.routed([merge], subscriptions=[world.subscription(**wishes)])) == [expected]
