"""The traps: everything in one household agrees but the person."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from hiexchange.matching import match

Build = Callable[..., pa.Table]
NOW = datetime(2026, 11, 22, tzinfo=UTC)
HOME = {"address_line": "12 Oak Street", "city": "Conway", "state": "AR", "zip": "72032", "phone": "501-555-0147"}
AWAY = {"address_line": "88 Elm Road", "city": "Searcy", "state": "AR", "zip": "72143", "phone": "501-555-0199"}
ROBERT = {"first_name": "Robert", "last_name": "Quillfeather", "sex": "male"}
BORN = date(1980, 3, 9)
BIRTH = {"birth_date": "1980-03-09"}

Case = tuple[str, dict[str, Any], dict[str, Any], str]

CASES: list[Case] = [
    ("nickname", {"first_name": "Bob"}, {}, "auto"),
    ("accent and case", {"last_name": "QUILLFEÁTHER"}, {}, "auto"),
    ("hyphenated", {"last_name": "Quillfeather-Vane"}, {}, "auto"),
    ("first name mistyped", {"first_name": "Robbert"}, {}, "auto"),
    ("names swapped", {"first_name": "Quillfeather", "last_name": "Robert"}, {}, "auto"),
    ("married", {"last_name": "Thistlewood"}, {}, "auto"),
    ("day and month swapped", {"birth_on": date(1980, 9, 3)}, {}, "auto"),
    ("moved, same phone", AWAY | {"phone": "(501) 555-0147"}, {}, "auto"),
    ("moved, same id", AWAY | {"member_id": "-7"}, {"member_ids": ["urn:a|-7"]}, "auto"),
    (
        "id and birth date, other first name",
        {"first_name": "Kenneth", "member_id": "-7"},
        {"member_ids": ["urn:a|-7"]},
        "review",
    ),
    (
        "id and name, other birth date",
        {"birth_on": date(1952, 7, 1), "member_id": "-7"},
        {"member_ids": ["urn:a|-7"]},
        "review",
    ),
    ("ssn4 contradicts in another home", AWAY | {"ssn4": "1234"}, {"ssn4": "8765"}, "review"),
    ("sex contradicts in another home", AWAY | {"sex": "female"}, {}, "review"),
    ("father: same name and home, a generation older", {"birth_on": date(1952, 3, 9)}, {}, "review"),
    ("father: no birth date", {"birth_on": None}, {}, "review"),
    ("birth date 1900-01-01 is none", {"birth_on": date(1900, 1, 1)}, {}, "review"),
    ("suffixes contradict", {"suffix": "Jr"}, {"suffix": "Sr"}, "review"),
    ("newborn without a name", {"first_name": "Baby Boy"}, {}, "review"),
    ("newborn with the id", {"first_name": "Baby Boy", "member_id": "-7"}, {"member_ids": ["urn:a|-7"]}, "auto"),
    ("died before the attribution", {}, {"deceased_at": "2020-05-05"}, "review"),
    ("died since", {}, {"deceased_at": "2026-05-05"}, "auto"),
]


def test_traps(member_table: Build, person_table: Build) -> None:
    members, persons = [], []
    for number, (_, member, person, _) in enumerate(CASES):
        letters = f"{chr(97 + number // 5)}{chr(97 + number % 5)}"
        own = {"address_line": f"{100 + number} Oak Street", "phone": f"501-555-{3000 + number}"}
        born = BORN.replace(year=1940 + number)
        base = ROBERT | HOME | own | {"last_name": f"Quill{letters}feather"}
        changed = _localised(member, number, letters)
        members.append(base | {"birth_on": born, "member_id": f"-{1000 + number}"} | changed)
        persons.append(
            base | {"birth_date": born.isoformat(), "person_id": f"p{number}"} | _localised(person, number, letters)
        )
    rows = match(member_table(*members), person_table(*persons), known_at=NOW).to_pylist()
    band = {row["person_id"]: (row["band"], row["reason"]) for row in rows}
    got = {name: band.get(f"p{number}", ("none", None)) for number, (name, _, _, _) in enumerate(CASES)}
    wrong = {name: got[name] for name, _, _, expected in CASES if (got[name][0] == "auto") != (expected == "auto")}
    assert wrong == {}


def _localised(changes: dict[str, Any], number: int, letters: str) -> dict[str, Any]:
    """Move a case's values into its own household, year and id range."""
    result = dict(changes)
    for key, value in changes.items():
        if key in ("member_id", "member_ids"):
            result[key] = f"-{7000 + number}" if key == "member_id" else [f"urn:a|-{7000 + number}"]
        elif key == "birth_on" and value and value.year != 1900:
            year = 1940 + number - (BORN.year - value.year)
            result[key] = value.replace(year=year)
        elif key == "phone":
            result[key] = f"(501) 555-{3000 + number}" if "0147" in value else f"501-666-{3000 + number}"
        elif key in ("last_name", "first_name") and "uillfe" in value.lower():
            result[key] = value.replace("Quillfeather", f"Quill{letters}feather").replace(
                "QUILLFEÁTHER", f"QUILL{letters.upper()}FEÁTHER"
            )
    return result


def test_dependants_of_one_subscriber_are_told_apart(member_table: Build, person_table: Build) -> None:
    family = {"last_name": "Ormerod", "member_ids": ["urn:a|-50"], **HOME}
    persons = person_table(
        family | {"first_name": "Ada", "birth_date": "1980-01-02"},
        family | {"first_name": "Ben", "birth_date": "2010-05-06"},
        family | {"first_name": "Cid", "birth_date": "2012-07-08"},
    )
    child = {"first_name": "Ben", "last_name": "Ormerod", "birth_on": date(2010, 5, 6), "member_id": "-50", **HOME}
    (row,) = match(member_table(child), persons, known_at=NOW).to_pylist()
    assert (row["person_id"], row["band"]) == ("p2", "auto")
    (row,) = match(
        member_table(child | {"first_name": "Dora", "birth_on": date(2015, 1, 9)}), persons, known_at=NOW
    ).to_pylist()
    assert row["band"] != "auto"


def test_rows_of_one_member_that_name_two_people_go_to_review(member_table: Build, person_table: Build) -> None:
    ada = {"first_name": "Ada", "last_name": "Ormerod", "birth_on": date(1980, 1, 2), "member_id": "-50", **HOME}
    persons = person_table({"first_name": "Ada", "last_name": "Ormerod", "birth_date": "1980-01-02", **HOME})
    (row,) = match(
        member_table(ada, ada | {"first_name": "Ben", "birth_on": date(2010, 5, 6)}), persons, known_at=NOW
    ).to_pylist()
    assert row["band"] != "auto"
