"""Bad and odd values, one row at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from hiexchange.roster import Roster
from hiexchange.tables import OPEN_DATE

Read = Callable[..., Roster]
Codes = Callable[[Roster], list[tuple[int | None, str, str | None]]]
Line = Callable[..., str]


@pytest.mark.parametrize(
    ("given", "code", "column"),
    [
        ({"member_id": ""}, "missing_member_id", "member_id"),
        ({"member_id": "  NULL "}, "missing_member_id", "member_id"),
        ({"member_id": "1.23457E+11"}, "scientific_notation", "member_id"),
        ({"member_id": "123.0"}, "decimal_id", "member_id"),
        ({"member_id": "'00123"}, "spreadsheet_mark", "member_id"),
        ({"member_id": '="00123"'}, "spreadsheet_mark", "member_id"),
        ({"member_id": "M1\u200b"}, "invisible_character", "member_id"),
        ({"member_id": "M\u00a01"}, "invisible_character", "member_id"),
        ({"provider_npi": "", "provider_tin": ""}, "missing_provider", "provider_npi"),
        ({"provider_npi": "1234567890"}, "bad_npi", "provider_npi"),
        ({"provider_npi": "3234567893"}, "bad_npi", "provider_npi"),
        ({"provider_npi": "1112223334.0"}, "bad_npi", "provider_npi"),
        ({"provider_tin": "71000001"}, "bad_tin", "provider_tin"),
        ({"birth_on": "2025-02-29"}, "bad_date", "birth_on"),
        ({"birth_on": "19600231"}, "bad_date", "birth_on"),
        ({"birth_on": "1/2/60"}, "bad_date", "birth_on"),
        ({"birth_on": "0060-01-02"}, "bad_date", "birth_on"),
        ({"birth_on": "1900-02-29"}, "bad_date", "birth_on"),
        ({"birth_on": "13/01/1960"}, "bad_date", "birth_on"),
        ({"valid_from": "2026-13-01"}, "bad_date", "valid_from"),
        ({"valid_to": "soon"}, "bad_date", "valid_to"),
        ({"birth_on": "2026-02-02"}, "birth_in_future", "birth_on"),
        ({"valid_from": "2026-02-01", "valid_to": "2026-01-01"}, "inverted_period", "valid_to"),
        ({"valid_from": "2026-01-01", "valid_to": "2026-01-01"}, "empty_period", "valid_to"),
        ({"last_name": "Sm\x00ith"}, "control_character", "member_id"),
    ],
)
def test_a_bad_value_refuses_its_row_and_says_where(
    read: Read, codes: Codes, rows: Line, given: dict[str, str], code: str, column: str
) -> None:
    roster = read("\n".join([rows(1), rows(2, **given), rows(3)]))
    assert codes(roster) == [(2, code, column)]
    assert roster.members["row_no"].to_pylist() == [1, 3]
    assert (roster.counts.read, roster.counts.accepted, roster.counts.refused) == (3, 2, 1)


def test_the_issue_holds_no_value_and_finds_the_byte(read: Read, rows: Line) -> None:
    text = "\n".join([rows(1), rows(2, provider_npi="1234567890"), rows(3)])
    row = read(text).issues.to_pylist()[0]
    assert "1234567890" not in row["message"]
    header = len("member_id,first_name,last_name,birth_on,sex,provider_npi,provider_tin,valid_from,valid_to\n")
    assert row["byte_offset"] == header + len(rows(1)) + 1


def test_byte_offset_counts_records_not_lines(read: Read, rows: Line) -> None:
    text = "\n".join([rows(1, last_name='"Two\nlines"'), "", rows(2, provider_npi="1")])
    row = read(text).issues.to_pylist()[0]
    assert row["row_no"] == 2
    content = read(text, name="again.csv").file_name and text
    header = len("member_id,first_name,last_name,birth_on,sex,provider_npi,provider_tin,valid_from,valid_to\n")
    assert content[row["byte_offset"] - header :].startswith("M0002")


@pytest.mark.parametrize(
    "text", ["9999-12-31", "99991231", "12/31/9999", "0000-00-00", "00000000", "0", "0001-01-01", ""]
)
def test_open_ends_are_open(read: Read, rows: Line, text: str) -> None:
    assert read(rows(1, valid_to=text)).members["valid_to"].to_pylist() == [OPEN_DATE]


@pytest.mark.parametrize(
    "text",
    [
        *("2024-02-29", "20240229", "02/29/2024", "2/29/2024", "2024-02-29T00:00:00", "2024-02-29T00:00:00Z"),
        *("2024-02-29 00:00:00", "2024-02-29 00:00:00.000", "2/29/2024 0:00", "2/29/2024 12:00:00 AM"),
    ],
)
def test_leap_day_in_any_usual_form(read: Read, rows: Line, text: str) -> None:
    assert read(rows(1, birth_on=text)).members["birth_on"].to_pylist() == [date(2024, 2, 29)]


def test_two_digit_years_turn_at_the_pivot(read: Read, rows: Line) -> None:
    layout = {"extends": "csv", "columns": {"birth_on": {"source": "birth_on", "format": "%m/%d/%y", "pivot": 25}}}
    roster = read("\n".join([rows(1, birth_on="01/02/25"), rows(2, birth_on="01/02/26")]), layout)
    assert roster.members["birth_on"].to_pylist() == [date(2025, 1, 2), date(1926, 1, 2)]


def test_a_payers_end_date_is_the_last_day_ours_the_day_after(read: Read, rows: Line) -> None:
    ours = read(rows(1, valid_to="2026-06-30"))
    assert ours.members["valid_to"].to_pylist() == [date(2026, 6, 30)]
    layout = {"extends": "csv", "columns": {"valid_to": {"source": "valid_to", "inclusive": True}}}
    theirs = read(rows(1, valid_to="2026-06-30"), layout)
    assert theirs.members["valid_to"].to_pylist() == [date(2026, 7, 1)]


def test_a_tax_id_with_dash_is_read(read: Read, rows: Line) -> None:
    assert read(rows(1, provider_tin="71-0000001")).members["provider_tin"].to_pylist() == ["710000001"]


def test_a_last_name_null_is_not_lost_by_case(read: Read, rows: Line) -> None:
    # Nobody can tell the name Null from the word; the layout may say that the word means nothing.
    assert read(rows(1, last_name="Nulle")).members["last_name"].to_pylist() == ["Nulle"]


def test_unicode_space_around_values_is_trimmed(read: Read, rows: Line) -> None:
    assert read(rows(1, last_name="\u00a0Peña\t")).members["last_name"].to_pylist() == ["Peña"]


def test_synthetic_npis_pass_unchecked_only_on_request(read: Read, rows: Line, codes: Codes) -> None:
    text = rows(1, provider_npi="9999999679")
    assert (1, "bad_npi", "provider_npi") in codes(read(text))
    assert read(text, {"extends": "csv", "list": {"npi": "unchecked"}}).counts.accepted == 1
    short = rows(1, provider_npi="999999967")
    assert (1, "bad_npi", "provider_npi") in codes(read(short, {"extends": "csv", "list": {"npi": "unchecked"}}))


MBI_HEADER = "mbi,first_name,last_name,birth_on,org_id"


@pytest.mark.parametrize(
    ("mbi", "code"),
    [
        ("1EG4TE5MK73", None),
        ("1EG4-TE5-MK73", "mbi_dashes"),
        ("1SG4TE5MK73", None),
        ("1LG4TE5MK73", "bad_mbi"),
        ("0EG4TE5MK73", "bad_mbi"),
        ("1EG4TE5MK7", "bad_mbi"),
        ("1EGATE5MK73", "bad_mbi"),
        ("123456789A", "hicn"),
        ("WA123456789", "hicn"),
    ],
)
def test_mbi_form(write: Any, read: Read, codes: Codes, mbi: str, code: str | None) -> None:
    path = write(f"{mbi},Ann,Smith,1950-01-02,aco-1\n", header=MBI_HEADER)
    roster = read(path, "csv")
    assert [found for row, found, _ in codes(roster) if row] == ([code] if code else [])
    if code in (None, "mbi_dashes"):
        assert roster.members["mbi"].to_pylist() == [mbi.replace("-", "")]


def test_synthetic_people_are_flagged_and_kept_out_of_production(write: Any, read: Read, codes: Codes) -> None:
    path = write("1SG4TE5MK73,Ann,Smith,1950-01-02,aco-1\n1EG4TE5MK73,Bo,Hill,1951-01-02,aco-1\n", header=MBI_HEADER)
    assert read(path).members["synthetic"].to_pylist() == [True, False]
    roster = read(path, {"extends": "csv", "list": {"production": True}})
    assert codes(roster) == [(1, "synthetic", "mbi")]


def test_an_unknown_sharing_preference_is_refused_because_it_may_be_an_opt_out(
    write: Any, read: Read, codes: Codes
) -> None:
    path = write("M1,1234567893,Y\nM2,1234567893,N\nM3,1234567893,maybe\n", header="member_id,npi,consent")
    roster = read(path)
    assert roster.members["sharing_pref"].to_pylist() == ["opt-in", "opt-out"]
    assert codes(roster) == [(3, "unknown_code", "sharing_pref")]


def test_codes_of_the_layout_outrank_the_usual_ones(write: Any, read: Read) -> None:
    path = write("M1,1234567893,1\nM2,1234567893,2\n", header="member_id,npi,sex")
    layout = {"extends": "csv", "columns": {"sex": {"source": "sex", "codes": {"1": "female", "2": "male"}}}}
    assert read(path, layout).members["sex"].to_pylist() == ["female", "male"]


def test_deceased_before_the_attribution_warns_and_keeps(write: Any, read: Read, codes: Codes) -> None:
    path = write("M1,1234567893,2026-01-01,2025-06-01\n", header="member_id,npi,start date,date of death")
    roster = read(path)
    assert codes(roster) == [(1, "deceased", "deceased_on")]
    assert roster.counts.accepted == 1


def test_lost_leading_zeros_come_back_where_the_layout_knows_the_length(write: Any, read: Read) -> None:
    path = write("M1,1234567893,2138\n", header="member_id,npi,zip")
    layout = {"extends": "csv", "columns": {"zip": {"source": "zip", "pad": 5}}}
    assert read(path, layout).members["zip"].to_pylist() == ["02138"]


def test_full_names_are_split(write: Any, read: Read) -> None:
    path = write('M1,1234567893,"Smith, Ann B"\n', header="member_id,npi,patient name")
    member = read(path).members.to_pylist()[0]
    assert (member["last_name"], member["first_name"]) == ("Smith", "Ann")


def test_of_an_ssn_only_the_last_four_digits_are_kept(write: Any, read: Read) -> None:
    path = write("M1,1234567893,000-12-3456\nM2,1234567893,12\n", header="member_id,npi,ssn")
    roster = read(path)
    assert roster.members["ssn4"].to_pylist() == ["3456", None]
    assert "3456" not in str(roster.issues.to_pylist())


def test_ids_with_leading_zeros_and_letters_stay_as_they_are(read: Read, rows: Line) -> None:
    given = ["000123", "00E12", "1E5", "0012-01"]
    roster = read("\n".join(rows(number, member_id=text) for number, text in enumerate(given)))
    assert roster.members["member_id"].to_pylist() == given
