"""What is linked, what is reviewed, and what never is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.matching import match
from hiexchange.tables import PERSON_LINK

Build = Callable[..., pa.Table]
NOW = datetime(2026, 11, 22, tzinfo=UTC)
HOME = {"address_line": "12 Oak Street", "city": "Conway", "state": "AR", "zip": "72032", "phone": "501-555-0147"}
JAYDEN = {"first_name": "Jayden", "last_name": "Quillfeather", "sex": "male", **HOME}
BORN = date(2015, 3, 9)


def link(members: pa.Table, persons: pa.Table, **options: Any) -> list[dict[str, Any]]:
    table = match(members, persons, known_at=NOW, run_id="test", **options)
    assert table.schema.equals(PERSON_LINK.schema)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def one(member_table: Build, person_table: Build, member: dict[str, Any], *persons: dict[str, Any]) -> dict[str, Any]:
    (row,) = link(member_table(member), person_table(*persons))
    return row


def test_member_id_and_demographics_link(member_table: Build, person_table: Build) -> None:
    row = one(
        member_table,
        person_table,
        JAYDEN | {"birth_on": BORN, "member_id": "-77"},
        JAYDEN | {"birth_date": "2015-03-09", "member_ids": ["urn:a|-77"]},
    )
    assert (row["person_id"], row["band"], row["method"], row["rule"], row["grade"]) == (
        "p1",
        "auto",
        "member_id",
        "id_name_birth",
        0.99,
    )


def test_member_id_alone_never_links(member_table: Build, person_table: Build) -> None:
    row = one(
        member_table,
        person_table,
        {"first_name": "Ottoline", "last_name": "Vane", "birth_on": date(1980, 2, 3), "member_id": "-77"},
        JAYDEN | {"birth_date": "2015-03-09", "member_ids": ["urn:a|-77"]},
    )
    assert row["band"] != "auto"


def test_name_birth_and_address_link(member_table: Build, person_table: Build) -> None:
    row = one(
        member_table,
        person_table,
        JAYDEN | {"birth_on": BORN, "address_line": "12 OAK ST"},
        JAYDEN | {"birth_date": "2015-03-09"},
    )
    assert (row["person_id"], row["band"], row["method"]) == ("p1", "auto", "deterministic")
    assert {step["field"] for step in row["evidence"]} >= {"first", "birth", "family"}


@pytest.mark.parametrize("twin", ["Kayden", "Brooke", "Jaydon"])
def test_absent_twin_is_never_linked_to_the_other(member_table: Build, person_table: Build, twin: str) -> None:
    others = [
        {"first_name": name, "last_name": f"Other{n}", "birth_date": f"19{50 + n}-05-05"}
        for n in range(6)
        for name in ("Jayden", "Kayden", "Jaydon")
    ]
    row = one(
        member_table,
        person_table,
        JAYDEN | {"first_name": twin, "birth_on": BORN},
        JAYDEN | {"birth_date": "2015-03-09"},
        *others,
    )
    assert row["band"] != "auto"


def test_father_is_never_linked_to_his_son(member_table: Build, person_table: Build) -> None:
    row = one(
        member_table, person_table, JAYDEN | {"birth_on": date(1980, 3, 9)}, JAYDEN | {"birth_date": "2015-03-09"}
    )
    assert row["band"] != "auto"


def test_suffix_conflict_goes_to_review(member_table: Build, person_table: Build) -> None:
    row = one(
        member_table,
        person_table,
        JAYDEN | {"birth_on": BORN, "suffix": "Sr"},
        JAYDEN | {"birth_date": "2015-03-09", "last_name": "Quillfeather Jr."},
    )
    assert (row["band"], row["reason"]) == ("review", "suffix_conflict")


def test_two_people_who_fit_equally_go_to_review(member_table: Build, person_table: Build) -> None:
    row = one(
        member_table,
        person_table,
        {"first_name": "Ada", "last_name": "Thorne", "birth_on": BORN, "zip": "72032"},
        {"first_name": "Ada", "last_name": "Thorne", "birth_date": "2015-03-09", "zip": "72032", "ssn4": "1111"},
        {"first_name": "Ada", "last_name": "Thorne", "birth_date": "2015-03-09", "zip": "72032", "ssn4": "2892"},
    )
    assert row["band"] == "review"


def test_duplicate_records_of_one_person_do_not_block_the_link(member_table: Build, person_table: Build) -> None:
    ssn = {"ssn4": "4821"}
    row = one(
        member_table,
        person_table,
        JAYDEN | ssn | {"birth_on": BORN},
        JAYDEN | ssn | {"birth_date": "2015-03-09"},
        JAYDEN | ssn | {"birth_date": "2015-03-09"},
    )
    assert (row["band"], row["reason"]) == ("auto", "index_duplicate")


def test_each_member_gets_one_row_whatever_its_providers(member_table: Build, person_table: Build) -> None:
    member = JAYDEN | {"birth_on": BORN, "member_id": "-5"}
    assert (
        len(
            link(member_table(member, member, {"member_id": "-6"}), person_table(JAYDEN | {"birth_date": "2015-03-09"}))
        )
        == 2
    )


def test_one_letter_is_no_middle_name(member_table: Build, person_table: Build) -> None:
    """Rhyming twins with one initial: found on a fresh seed, where equal letters counted as equal names."""
    absent = JAYDEN | {"first_name": "Siedriell", "middle_name": "A", "birth_on": BORN}
    row = one(
        member_table,
        person_table,
        absent,
        JAYDEN | {"first_name": "Piedriell", "middle_name": "A", "birth_date": "2015-03-09"},
        JAYDEN | {"first_name": "Ada", "last_name": "Other", "birth_date": "1980-01-01"},
    )
    assert row["rule"] != "like_first_birth_home_middle"


@pytest.mark.parametrize("newest", ["a-roster", "z-roster"])
def test_the_newest_file_says_who_a_member_is(member_table: Build, person_table: Build, newest: str) -> None:
    older = "m-roster"
    moved = JAYDEN | {"member_id": "-5", "birth_on": BORN, "roster_id": newest, "as_of_on": date(2026, 6, 1)}
    before = moved | {"last_name": "Ashdown", "address_line": "9 Elm Road", "zip": "72201", "phone": "501-555-0199"}
    before |= {"roster_id": older, "as_of_on": date(2026, 5, 1)}
    (row,) = link(member_table(before, moved), person_table(JAYDEN | {"birth_date": "2015-03-09"}))
    assert row["band"] == "auto"
    (row,) = link(member_table(before), person_table(JAYDEN | {"birth_date": "2015-03-09"}))
    assert row["band"] != "auto"


@pytest.mark.parametrize(
    ("names", "band"),
    [
        (("Jayden", "Jaydon"), "review"),  # twins on one id, each with a provider
        (("Jayden", "JAYDEN "), "auto"),
        (("Jayden", "Jayd"), "auto"),
        (("Jayden", None), "auto"),
    ],
)
def test_an_id_that_names_two_children_in_one_file_is_reviewed(
    member_table: Build, person_table: Build, names: tuple[str, str | None], band: str
) -> None:
    rows = [JAYDEN | {"birth_on": BORN, "member_id": "-1", "first_name": name} for name in reversed(names)]
    (row,) = link(member_table(*rows), person_table(JAYDEN | {"birth_date": "2015-03-09"}))
    assert (row["band"], row["reason"]) == (band, "member_names_several_people" if band == "review" else None)


def test_empty_tables_match_to_nothing(member_table: Build, person_table: Build) -> None:
    assert link(member_table(), person_table()) == []
    (row,) = link(member_table(JAYDEN | {"birth_on": BORN}), person_table())
    assert (row["band"], row["person_id"], row["reason"]) == ("none", None, "no_candidate")
