"""What payers and hospitals really send: placeholders, ids of the wrong twin, half dates, initials, one name for everybody."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.matching import match

Build = Callable[..., pa.Table]
NOW = datetime(2026, 11, 22, tzinfo=UTC)
HOME = {"address_line": "12 Oak Street", "city": "Conway", "state": "AR", "zip": "72032", "phone": "501-555-0147"}
AWAY = {"address_line": "88 Elm Road", "city": "Searcy", "state": "AR", "zip": "72143", "phone": "501-555-0199"}
ADA = {"first_name": "Ada", "last_name": "Ormerod", "sex": "female"}
MEMBER = ADA | HOME | {"birth_on": date(1980, 2, 7)}
PERSON = ADA | HOME | {"birth_date": "1980-02-07"}


def rows(members: pa.Table, persons: pa.Table) -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = match(members, persons, known_at=NOW).to_pylist()
    order = members["member_key"].to_pylist()
    return sorted(links, key=lambda row: order.index(row["member_key"]))


def test_twins_whose_ids_were_exchanged_are_reviewed(member_table: Build, person_table: Build) -> None:
    born = {"last_name": "Ormerod", "birth_on": date(2015, 3, 9)} | HOME
    known = {"last_name": "Ormerod", "birth_date": "2015-03-09"} | HOME
    members = member_table(
        born | {"first_name": "Jayden", "member_id": "-1"}, born | {"first_name": "Jaydon", "member_id": "-2"}
    )
    persons = person_table(
        known | {"first_name": "Jayden", "member_ids": ["urn:a|-2"]},
        known | {"first_name": "Jaydon", "member_ids": ["urn:a|-1"]},
    )
    assert [(row["band"], row["reason"]) for row in rows(members, persons)] == [("review", "several_people_fit")] * 2


@pytest.mark.parametrize("mbi", ["00000000000", "UNKNOWNNNNN", "11111111111"])
def test_what_is_no_mbi_proves_nothing(member_table: Build, person_table: Build, mbi: str) -> None:
    (row,) = rows(member_table(MEMBER | AWAY | {"mbi": mbi}), person_table(PERSON | {"mbi": mbi}))
    assert row["band"] == "review"
    real = {"mbi": "1S00E00AA00"}
    (row,) = rows(member_table(MEMBER | AWAY | real), person_table(PERSON | {"mbi": "1s00-e00-aa00"}))
    assert (row["band"], row["rule"]) == ("auto", "id_name_birth")


@pytest.mark.parametrize("value", ["999999999", "123456789", "00000", "UNKNOWN", "N/A", "none"])
def test_a_placeholder_is_no_member_id(member_table: Build, person_table: Build, value: str) -> None:
    (row,) = rows(
        member_table(MEMBER | AWAY | {"member_id": value}), person_table(PERSON | {"member_ids": [f"urn:a|{value}"]})
    )
    assert row["band"] == "review"


@pytest.mark.parametrize(
    ("died", "band"), [("2019", "review"), ("2025-12", "review"), ("2026", "auto"), ("2026-01", "auto")]
)
def test_a_death_known_by_year_or_month_counts_at_its_end(
    member_table: Build, person_table: Build, died: str, band: str
) -> None:
    (row,) = rows(member_table(MEMBER), person_table(PERSON | {"deceased_at": died}))
    assert row["band"] == band


@pytest.mark.parametrize(
    ("first", "middles", "band"),
    [
        ("Maria", ("Elena", "Luz"), "review"),
        ("Muhammad", ("Ali", "Hassan"), "review"),
        ("Maria", ("Elena", "E"), "auto"),
        ("Maria", ("Elena", None), "auto"),
        ("Ada", ("Elena", "Luz"), "auto"),
    ],
)
def test_a_first_name_that_sisters_share_needs_the_second(
    member_table: Build, person_table: Build, first: str, middles: tuple[str, str | None], band: str
) -> None:
    (row,) = rows(
        member_table(MEMBER | {"first_name": first, "middle_name": middles[0]}),
        person_table(PERSON | {"first_name": first, "middle_name": middles[1]}),
    )
    assert row["band"] == band


@pytest.mark.parametrize(
    "shared",
    [{"email": email} for email in ("noreply@hospital.org", "patient@email.com", "donotemail@x.org", "not.given@x.org")]
    + [{"address_line": line, "zip": "72032"} for line in ("1 Unknown St", "PO Box 0", "999 UNKNOWN")],
)
def test_a_placeholder_is_no_home(member_table: Build, person_table: Build, shared: dict[str, Any]) -> None:
    (row,) = rows(
        member_table(ADA | shared | {"birth_on": date(1980, 2, 7)}),
        person_table(ADA | shared | {"birth_date": "1980-02-07"}),
    )
    assert row["band"] == "review"


def test_an_initial_on_both_sides_is_an_initial(member_table: Build, person_table: Build) -> None:
    """A. and A. may be Ada and Anna, twins."""
    (row,) = rows(member_table(MEMBER | {"first_name": "A."}), person_table(PERSON | {"first_name": "a"}))
    assert (row["band"], row["reason"]) == ("review", "too_little_evidence")


def test_a_first_name_repeated_as_middle_name_proves_nothing(member_table: Build, person_table: Build) -> None:
    """Michelle, filed with her twin's name as her second, is not Michael Michael."""
    home = {"last_name": "Quill", "address_line": "12 Oak Street", "zip": "72032", "middle_name": "Michael"}
    person = person_table(home | {"first_name": "Michael", "birth_date": "1980-03-09"})
    for first, band in (("Michelle", "review"), ("Michael", "auto")):
        member = member_table(home | {"first_name": first, "birth_on": date(1980, 3, 9)})
        assert [row["band"] for row in rows(member, person)] == [band]


def test_one_name_borne_by_all_neither_blocks_nor_overflows(member_table: Build, person_table: Build) -> None:
    days = [date(1930, 1, 1) + timedelta(days=7 * n % 30_000) for n in range(6000)]
    maria = {"first_name": "Maria", "last_name": "Garcia", "zip": "72032", "city": "Conway"}
    homes = [maria | {"address_line": f"{n} Oak Street", "phone": f"501-{100 + n % 800}-{n:04d}"} for n in range(6000)]
    members = member_table(*(home | {"birth_on": day} for home, day in zip(homes, days, strict=True)))
    persons = person_table(*(home | {"birth_date": str(day)} for home, day in zip(homes, days, strict=True)))
    start = time.process_time()
    links = match(members, persons, known_at=NOW)
    assert set(links["band"].to_pylist()) == {"auto"}
    assert time.process_time() - start < 20  # 36 million pairs take minutes


@pytest.mark.parametrize(
    ("member", "index"),
    [
        ("BABY BOY", ["Baby Boy A", "Baby Boy B"]),
        ("BABY BOY", ["Baby Boy", "Baby Boy"]),
        ("Baby Boy B", ["Baby Boy A"]),
        ("Baby Boy 2", ["BABYBOY"]),
        ("ANNA BABY", ["ANNA BABY", "ANNA BABY"]),
    ],
)
def test_newborn_twins_without_a_name_are_reviewed_whatever_id_they_share(
    member_table: Build, person_table: Build, member: str, index: list[str]
) -> None:
    born = {"last_name": "Ormerod", "sex": "male"} | HOME
    (row,) = rows(
        member_table(born | {"first_name": member, "birth_on": date(2026, 3, 9), "member_id": "-1"}),
        person_table(
            *(born | {"first_name": n, "birth_date": "2026-03-09", "member_ids": ["urn:a|-1"]} for n in index)
        ),
    )
    assert row["band"] == "review"


def test_a_newborn_without_a_name_is_found_by_id_and_letter(member_table: Build, person_table: Build) -> None:
    born = {"last_name": "Ormerod", "sex": "male"} | HOME
    (row,) = rows(
        member_table(born | {"first_name": "Baby Boy A", "birth_on": date(2026, 3, 9), "member_id": "-1"}),
        person_table(born | {"first_name": "BABYBOY 1", "birth_date": "2026-03-09", "member_ids": ["urn:a|-1"]}),
    )
    assert (row["band"], row["rule"]) == ("auto", "id_birth_unnamed")


@pytest.mark.parametrize(
    "junior", [{"last_name": "ORMERODJR"}, {"suffix": "The Second"}, {"suffix": "Jr MD"}, {"last_name": "Jr Ormerod"}]
)
def test_a_generation_is_read_however_it_is_written(
    member_table: Build, person_table: Build, junior: dict[str, Any]
) -> None:
    (row,) = rows(member_table(MEMBER | junior), person_table(PERSON | {"suffix": "Sr"}))
    assert (row["band"], row["reason"]) == ("review", "suffix_conflict")
