"""What ids say of a rule, in numbers worked out by hand; and which rules are given up for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from hiexchange.matching import match
from hiexchange.matching.audit import beyond, wrong_share

Build = Callable[..., pa.Table]
NOISE = {(1, 0): 975, (-1, 0): 25, (0, 1): 970, (0, -1): 30, (1, 1): 9997, (-1, -1): 3}
HOME = {"address_line": "12 Oak Street", "city": "Conway", "state": "AR", "zip": "72032", "phone": "501-555-0147"}


def test_contradictions_as_frequent_as_wrong_ids_are_no_contradiction() -> None:
    assert wrong_share({(1, 0): 975, (-1, 0): 25}, NOISE) < 1e-3


def test_both_ids_contradicting_is_hardly_ever_an_error_of_both() -> None:
    assert wrong_share({(1, 1): 95, (-1, -1): 5}, NOISE) == pytest.approx(5 / 110, rel=0.05)


def test_ids_that_contradict_more_often_than_they_err_count_for_the_rest() -> None:
    # 125 of 1,000 contradict, 2.5 % of the right ones by error: share + (1 - share) * 0.025 = 0.125
    assert wrong_share({(1, 0): 875, (-1, 0): 125}, NOISE) == pytest.approx(0.1026, abs=0.002)


def test_a_rule_nothing_is_known_of_is_supposed_to_err_once_in_ten_thousand() -> None:
    assert wrong_share({(0, 0): 400}, {}) == pytest.approx(1e-4)


def test_the_surest_rules_are_kept_within_the_budget() -> None:
    assert beyond([(2.0, 100, 7), (0.1, 100, 8), (0.5, 10, 9)], 1.0) == [7]
    assert beyond([(0.6, 10, 1), (0.6, 100, 2)], 1.0) == [1]
    assert beyond([], 1.0) == []


def test_two_letters_exchanged_are_a_slip_even_at_the_start(member_table: Build, person_table: Build) -> None:
    """Rboert is nobody's twin; Dobert, Obert and Robery may be, even where nothing else says so."""
    others = [{"first_name": "Robert", "last_name": f"Other{n}", "birth_date": f"19{50 + n}-05-05"} for n in range(8)]
    person = {"first_name": "Robert", "last_name": "Quill", "birth_date": "1980-03-09"} | HOME
    for written, rule in (
        ("Rboert", "typo_inside_first_birth_home"),
        ("Dobert", None),
        ("Obert", None),
        ("Robery", None),
        ("Rob", "nickname_birth_home"),
    ):
        member = {"first_name": written, "last_name": "Quill", "birth_on": date(1980, 3, 9)} | HOME
        links = match(member_table(member), person_table(person, *others), known_at=datetime(2026, 11, 22, tzinfo=UTC))
        assert links.select(["band", "rule"]).to_pylist() == [{"band": "auto" if rule else "review", "rule": rule}]


def test_a_wrong_ssn4_does_not_part_name_birth_date_and_street(member_table: Build, person_table: Build) -> None:
    ada = {"first_name": "Ada", "last_name": "Ormerod"} | HOME
    person = person_table(ada | {"birth_date": "1980-02-07", "ssn4": "4821"})
    now = datetime(2026, 11, 22, tzinfo=UTC)
    for changes, band in (
        ({"phone": None}, "auto"),
        ({"phone": None, "address_line": "88 Elm Road"}, "review"),
        ({"phone": None, "first_name": "Adda"}, "review"),
    ):
        member = member_table(ada | {"birth_on": date(1980, 2, 7), "ssn4": "9350"} | changes)
        assert match(member, person, known_at=now)["band"].to_pylist() == [band]


def test_an_id_outweighs_another_middle_name_where_the_birth_date_slipped(
    member_table: Build, person_table: Build
) -> None:
    ada = {"first_name": "Ada", "last_name": "Ormerod"} | HOME
    member = member_table(ada | {"middle_name": "May", "birth_on": date(1980, 7, 2), "member_id": "-9"})
    now = datetime(2026, 11, 22, tzinfo=UTC)
    for ids, band in ((["urn:a|-9"], "auto"), (None, "review")):
        person = person_table(ada | {"middle_name": "Rose", "birth_date": "1980-02-07", "member_ids": ids})
        assert match(member, person, known_at=now)["band"].to_pylist() == [band]


def test_a_common_name_mistyped_in_a_second_record_does_not_rival_the_exact_one(
    member_table: Build, person_table: Build
) -> None:
    ada = {"first_name": "Maria", "last_name": "Ormerod"} | HOME
    marias = [
        {"first_name": "Maria", "last_name": f"Other{n}", "birth_date": f"19{50 + n % 40}-05-05"} for n in range(99)
    ]
    persons = person_table(
        ada | {"birth_date": "1980-02-07"}, ada | {"birth_date": "1980-02-07", "first_name": "Mraia"}, *marias
    )
    links = match(
        member_table(ada | {"birth_on": date(1980, 2, 7)}), persons, known_at=datetime(2026, 11, 22, tzinfo=UTC)
    )
    assert links.select(["person_id", "band"]).to_pylist() == [{"person_id": "p1", "band": "auto"}]
