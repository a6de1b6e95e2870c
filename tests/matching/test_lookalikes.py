"""Relatives who resemble each other: what tells them apart, and when a rule gives way to them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.matching import match

Build = Callable[..., pa.Table]
NOW = datetime(2026, 11, 22, tzinfo=UTC)
HOME = {"address_line": "12 Oak Street", "city": "Conway", "state": "AR", "zip": "72032", "phone": "501-555-0147"}
BORN = {"birth_on": date(2010, 3, 9)}
BIRTH = {"birth_date": "2010-03-09"}


def others(*names: str, times: int = 6) -> list[dict[str, Any]]:
    """Return people elsewhere who make the names known."""
    return [
        {"first_name": name, "last_name": f"Other{number}", "birth_date": f"19{50 + number}-05-05", "sex": sex}
        for number in range(times)
        for name in names
        for sex in ("female", "male")
    ]


def one(members: pa.Table, persons: pa.Table) -> dict[str, Any]:
    row: dict[str, Any] = match(members, persons, known_at=NOW).to_pylist()[0]
    return row


@pytest.mark.parametrize(
    ("written", "twin", "middle"),
    [
        ("Kaylx", "Kayla", "Ruth"),  # twins share an initial more often than a name cut short is a twin's
        ("Ayden", "Kayden", "Ruth"),
        ("Chris", "Christopher", "R"),
        ("Mad", "Madeline", "R"),
    ],
)
def test_a_form_that_could_be_a_twins_is_told_by_middle_name_or_id(
    member_table: Build, person_table: Build, written: str, twin: str, middle: str
) -> None:
    names = ("Kayla", "Kayle", "Kayden", "Jayden", "Christopher", "Christian", "Madison", "Madeline")
    filler = others(*names)
    resembling = {"Kaylx": "Kayle", "Ayden": "Jayden", "Chris": "Christian", "Mad": "Madison"}[written]
    person = HOME | BIRTH | {"first_name": resembling, "last_name": "Quill", "middle_name": "Ruth"}
    member = HOME | BORN | {"first_name": written, "last_name": "Quill"}
    # Someone's twin is away, so twins of similar names are about: the rules that rest on likeness give way.
    absent = HOME | BORN | {"first_name": twin, "last_name": "Quill", "member_id": "-9"}
    rows = match(member_table(member, absent), person_table(person, *filler), known_at=NOW).to_pylist()
    assert [row["band"] for row in rows] != ["auto", "auto"] and all(row["band"] != "auto" for row in rows)
    assert one(member_table(member | {"middle_name": middle}), person_table(person, *filler))["band"] == "auto"
    known = person | {"member_ids": ["urn:a|-7"]}
    assert one(member_table(member | {"member_id": "-7"}), person_table(known, *filler))["band"] == "auto"


def test_a_slip_that_only_one_name_explains_links(member_table: Build, person_table: Build) -> None:
    person = HOME | BIRTH | {"first_name": "Ottoline", "last_name": "Quill"}
    member = HOME | BORN | {"first_name": "Ottiline", "last_name": "Quill"}
    assert one(member_table(member), person_table(person, *others("Ottoline")))["band"] == "auto"


def test_two_second_names_are_two_people(member_table: Build, person_table: Build) -> None:
    person = HOME | BIRTH | {"first_name": "Mary Ann", "last_name": "Quill"}
    member = HOME | BORN | {"first_name": "Mary Alice", "last_name": "Quill"}
    assert one(member_table(member), person_table(person))["band"] != "auto"


@pytest.mark.parametrize(
    ("born", "band"),
    [
        (date(2010, 9, 3), "auto"),  # day and month exchanged
        (date(2010, 3, 8), "auto"),  # one digit
        (date(2010, 3, 1), "auto"),  # a first of the month
        (date(1980, 3, 9), "review"),  # the father, born the same day
        (date(1980, 9, 3), "review"),
    ],
)
def test_one_slip_in_a_birth_date_is_borne_and_a_generation_is_not(
    member_table: Build, person_table: Build, born: date, band: str
) -> None:
    person = HOME | BIRTH | {"first_name": "Robert", "last_name": "Quill"}
    member = HOME | {"birth_on": born, "first_name": "Robert", "last_name": "Quill"}
    assert one(member_table(member), person_table(person))["band"] == band


def test_a_known_other_id_stops_what_is_only_nearly_the_same_birth_date(
    member_table: Build, person_table: Build
) -> None:
    person = HOME | BIRTH | {"first_name": "Robert", "last_name": "Quill", "member_ids": ["urn:a|-7"]}
    member = HOME | {"birth_on": date(2010, 3, 8), "first_name": "Robert", "last_name": "Quill", "member_id": "-8"}
    assert one(member_table(member), person_table(person))["band"] != "auto"


def test_id_and_ssn4_do_not_join_a_father_and_his_son(member_table: Build, person_table: Build) -> None:
    both = HOME | {"first_name": "Robert", "last_name": "Quill", "ssn4": "4821"}
    person = person_table(both | BIRTH | {"member_ids": ["urn:a|-7"]})
    father = member_table(both | {"birth_on": date(1980, 7, 1), "member_id": "-7"})
    assert one(father, person)["reason"] == "birth_date_conflict"


def test_a_nursing_home_is_no_home(member_table: Build, person_table: Build) -> None:
    residents = [
        HOME
        | {"phone": None, "first_name": "Ada", "last_name": f"Resident{chr(97 + n)}", "birth_date": f"19{30 + n}-05-05"}
        for n in range(24)
    ]
    person = HOME | BIRTH | {"phone": None, "first_name": "Robert", "last_name": "Quill"}
    near = HOME | {"phone": None, "birth_on": date(2010, 3, 8), "first_name": "Robert", "last_name": "Quill"}
    assert one(member_table(near), person_table(person))["band"] == "auto"
    assert one(member_table(near), person_table(person, *residents))["band"] != "auto"


def test_an_mbi_two_people_carry_proves_neither(member_table: Build, person_table: Build) -> None:
    mbi = {"mbi": "1SG4TE5MK73", "last_name": "Quill"}
    ada = mbi | {"first_name": "Ada", "birth_date": "1940-01-02"}
    ben = mbi | {"first_name": "Ben", "birth_date": "1941-03-04"}
    member = mbi | {"first_name": "Ada", "birth_on": date(1940, 2, 1)}
    assert one(member_table(member), person_table(ada))["band"] == "auto"
    assert one(member_table(member), person_table(ada, ben))["band"] != "auto"


def test_eastern_order_of_names_is_recognised(member_table: Build, person_table: Build) -> None:
    person = HOME | BIRTH | {"first_name": "Lan", "last_name": "Nguyen", "middle_name": "Thi"}
    member = HOME | BORN | {"first_name": "Nguyen Thi", "last_name": "Lan"}
    assert one(member_table(member), person_table(person))["band"] == "auto"


def test_a_second_name_left_out_counts_only_where_no_twin_could_share_the_first(
    member_table: Build, person_table: Build
) -> None:
    person = HOME | BIRTH | {"first_name": "Maria Elena", "last_name": "Quill"}
    short = HOME | BORN | {"first_name": "Maria", "last_name": "Quill"}
    assert one(member_table(short), person_table(person))["band"] == "auto"
    twin = HOME | BORN | {"first_name": "Maria Luz", "last_name": "Quill", "member_id": "-9"}
    rows = match(member_table(short, twin), person_table(person), known_at=NOW).to_pylist()
    assert [row["band"] for row in rows] == ["review", "review"]
    assert one(member_table(short | {"middle_name": "E"}), person_table(person))["band"] == "auto"


FAMILY = {
    "first_name": "John",
    "last_name": "Quill",
    "address_line": "12 Oak Street",
    "zip": "72032",
    "phone": "501-555-0147",
}


def _neighbours(number: int, ids: Callable[[int, str], str]) -> list[dict[str, Any]]:
    """Two people of one home, with ids of the payer."""
    home = {"last_name": f"Vane{number}", "address_line": f"{number} Elm Road", "zip": "72001"}
    return [
        {
            "person_id": f"{name}{number}",
            "first_name": name,
            "birth_date": f"{1950 + number}-02-03",
            "member_ids": [f"urn:a|{ids(number, name)}"],
            **home,
        }
        for name in ("Ada", "Otto")
    ]


@pytest.mark.parametrize(
    ("ids", "band"),
    [
        (None, "review"),
        (lambda home, _: f"S{home}", "review"),
        (lambda home, name: f"S{home}{name}", "auto"),
    ],
    ids=["nothing shows whose ids they are", "ids are of families", "ids are of one person each"],
)
@pytest.mark.parametrize("unborn", ["member", "person"])
def test_a_son_without_birth_date_is_not_his_father_by_the_familys_id(
    member_table: Build, person_table: Build, ids: Callable[[int, str], str] | None, band: str, unborn: str
) -> None:
    """The father alone is in the index, under the subscriber's id that the son's row bears, too."""
    son = FAMILY | {"member_id": "S555", "birth_on": None if unborn == "member" else date(2000, 3, 9)}
    father = FAMILY | {"member_ids": ["urn:a|S555"], "birth_date": None if unborn == "person" else "1970-03-09"}
    others = [person for home in range(24) for person in _neighbours(home, ids)] if ids else []
    (link,) = match(member_table(son), person_table(father, *others), known_at=NOW).to_pylist()
    assert (link["band"], link["reason"]) == (band, "no_birth_date" if band == "review" else None)
