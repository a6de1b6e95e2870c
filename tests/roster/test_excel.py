"""Workbooks: what a spreadsheet does to ids and dates, undone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiexchange.errors import RosterError
from hiexchange.roster import Roster

xlsxwriter = pytest.importorskip("xlsxwriter")
pytest.importorskip("python_calamine")

Read = Callable[..., Roster]
Codes = Callable[[Roster], list[tuple[int | None, str, str | None]]]
HEADER = ["Member ID", "Last Name", "DOB", "NPI", "Zip", "Eff Date"]


@pytest.fixture
def book(tmp_path: Path) -> Callable[..., Path]:
    """Write a workbook; ``hidden`` adds a hidden sheet before it."""

    def make(rows: list[list[Any]], *, hidden: bool = False, more: bool = False, **options: Any) -> Path:
        path = tmp_path / "roster.xlsx"
        with xlsxwriter.Workbook(path, options) as workbook:
            day = workbook.add_format({"num_format": "mm/dd/yyyy"})
            if hidden:
                secret = workbook.add_worksheet("old")
                secret.write_row(0, 0, ["x"])
            sheet = workbook.add_worksheet("roster")
            sheet.activate()
            if hidden:
                sheet.set_first_sheet()
                secret.hide()
            for number, row in enumerate([HEADER, *rows]):
                for place, value in enumerate(row):
                    if isinstance(value, dt.date):
                        sheet.write_datetime(number, place, dt.datetime.combine(value, dt.time()), day)
                    elif value is not None:
                        sheet.write(number, place, value)
            if more:
                workbook.add_worksheet("notes").write(0, 0, "hello")
        return path

    return make


def test_floats_become_ids_and_serials_become_dates(book: Any, read: Read, codes: Codes) -> None:
    rows = [
        [100200300, "Peña", dt.date(1960, 1, 2), 1234567893.0, 2138, dt.date(2026, 1, 1)],
        ["0012", "Hill", "01/03/1961", "1234567893", "72032", 46023],
    ]
    roster = read(book(rows), "xlsx")
    assert codes(roster) == []
    first, second = roster.members.to_pylist()
    assert (first["member_id"], first["provider_npi"], first["zip"]) == ("100200300", "1234567893", "02138")
    assert (first["birth_on"], first["valid_from"]) == (dt.date(1960, 1, 2), dt.date(2026, 1, 1))
    assert (second["member_id"], second["birth_on"], second["valid_from"]) == (
        "0012",
        dt.date(1961, 1, 3),
        dt.date(2026, 1, 1),
    )


def test_both_date_systems(book: Any, read: Read) -> None:
    # 2026-01-01 is day 46023 of the 1900 system and day 44561 of the 1904 system.
    for options, serial in (({}, 46023), ({"date_1904": True}, 44561)):
        roster = read(book([["M1", "Hill", dt.date(1960, 1, 2), "1234567893", "72032", serial]], **options), "xlsx")
        assert roster.members["valid_from"].to_pylist() == [dt.date(2026, 1, 1)], options
        assert roster.members["birth_on"].to_pylist() == [dt.date(1960, 1, 2)], options


def test_digits_a_spreadsheet_lost_refuse_the_row(book: Any, read: Read, codes: Codes) -> None:
    rows = [
        [12345678901234567890, "Hill", None, "1234567893", None, None],
        ["1.23E+19", "Poe", None, "1234567893", None, None],
    ]
    roster = read(book(rows), "xlsx")
    assert [(row, code) for row, code, _ in codes(roster) if row] == [(1, "lost_digits"), (2, "scientific_notation")]


def test_hidden_and_further_sheets_are_reported(book: Any, read: Read, codes: Codes) -> None:
    row = ["M1", "Hill", None, "1234567893", None, None]
    assert codes(read(book([row], hidden=True), "xlsx")) == [(None, "hidden_sheet", None)]
    path = book([row], more=True)
    assert codes(read(path, "xlsx")) == [(None, "several_sheets", None)]
    assert codes(read(path, {"extends": "xlsx", "file": {"sheet": "roster"}})) == []
    with pytest.raises(RosterError):
        read(path, {"extends": "xlsx", "file": {"sheet": "absent"}})


def test_formulas_give_their_stored_value(book: Any, read: Read, tmp_path: Path) -> None:
    path = tmp_path / "formula.xlsx"
    with xlsxwriter.Workbook(path) as workbook:
        sheet = workbook.add_worksheet()
        sheet.write_row(0, 0, ["Member ID", "NPI"])
        sheet.write_formula(1, 0, '="M"&1', None, "M1")
        sheet.write(1, 1, "1234567893")
    assert read(path, "xlsx").members["member_id"].to_pylist() == ["M1"]


def test_blank_rows_keep_the_numbers(book: Any, read: Read) -> None:
    row = ["M1", "Hill", None, "1234567893", None, None]
    roster = read(book([row, [None], ["M2", *row[1:]]]), "xlsx")
    assert roster.members["row_no"].to_pylist() == [1, 3]


def test_an_empty_sheet_and_a_broken_workbook(book: Any, read: Read, tmp_path: Path) -> None:
    with pytest.raises(RosterError) as caught:
        read(book([]), "xlsx")
    assert caught.value.issues["code"].to_pylist() == ["no_rows"]
    broken = tmp_path / "broken.xlsx"
    broken.write_bytes(b"\xd0\xcf\x11\xe0 not a workbook")
    with pytest.raises(RosterError) as caught:
        read(broken, "xlsx")
    assert caught.value.issues["code"].to_pylist() == ["truncated"]
