"""Whole-list checks: as-of dates, versions, duplicates, the shrink guard and its release."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from typing import Any

import pytest

from hiexchange.errors import ConfigError, RosterError
from hiexchange.roster import Roster

Read = Callable[..., Roster]
Codes = Callable[[Roster], list[tuple[int | None, str, str | None]]]
Line = Callable[..., str]


def many(rows: Line, numbers: range) -> str:
    return "\n".join(rows(number) for number in numbers)


def test_counts_add_up(read: Read, rows: Line) -> None:
    text = "\n".join([rows(1), rows(1), rows(2), rows(3, provider_npi="1"), "ragged", rows(4), rows(4), rows(4)])
    counts = read(text).counts
    assert (counts.read, counts.accepted, counts.refused, counts.duplicates) == (8, 3, 2, 3)


def test_exact_duplicates_collapse_to_the_first(read: Read, rows: Line, codes: Codes) -> None:
    roster = read("\n".join([rows(1), rows(2), rows(1)]))
    assert roster.members["row_no"].to_pylist() == [1, 2]
    assert codes(roster) == [(3, "duplicate", "row_sha")]


def test_contradicting_rows_are_all_refused_unless_the_layout_takes_the_last(
    read: Read, rows: Line, codes: Codes
) -> None:
    text = "\n".join([rows(1, valid_to="2026-12-31"), rows(2), rows(1)])
    assert codes(read(text)) == [(1, "conflict", "valid_from"), (3, "conflict", "valid_from")]
    last = read(text, {"extends": "csv", "list": {"duplicates": "last"}})
    assert last.members["row_no"].to_pylist() == [2, 3]


def test_periods_that_only_touch_do_not_contradict(read: Read, rows: Line) -> None:
    text = "\n".join([rows(1, valid_from="2025-01-01", valid_to="2025-06-01"), rows(1, valid_from="2025-06-01")])
    assert read(text).counts.accepted == 2


def test_two_providers_of_one_member_are_no_contradiction(read: Read, rows: Line) -> None:
    assert read("\n".join([rows(1), rows(1, provider_npi="1999999984")])).counts.accepted == 2


def test_dependants_on_one_id_are_refused_all(read: Read, rows: Line, codes: Codes) -> None:
    child = rows(1, first_name="Kim", birth_on="2015-05-05", provider_npi="1999999984")
    roster = read("\n".join([rows(1), rows(2), child]))
    assert codes(roster) == [(1, "shared_member_id", "member_id"), (3, "shared_member_id", "member_id")]


def test_a_composite_id_tells_dependants_apart(write: Any, read: Read) -> None:
    path = write("S1,01,1234567893,1960-01-01\nS1,02,1234567893,2015-05-05\n", header="sub,dep,npi,dob")
    layout = {
        "extends": "csv",
        "columns": {"member_id": {"join": ["sub", "dep"], "required": True}, "subscriber_id": "sub"},
    }
    roster = read(path, layout)
    assert roster.members["member_id"].to_pylist() == ["S1-01", "S1-02"]
    assert roster.members["subscriber_id"].to_pylist() == ["S1", "S1"]


def test_a_list_that_loses_a_tenth_is_held_until_released_by_name(read: Read, rows: Line, codes: Codes) -> None:
    before = read(many(rows, range(100)))
    fine = read(many(rows, range(10, 100)), name="b.csv", previous=before)
    assert fine.state == "accepted"
    held = read(many(rows, range(11, 100)), name="c.csv", previous=before)
    assert held.state == "held"
    assert (None, "shrink", None) in codes(held)
    released = read(many(rows, range(11, 100)), name="c.csv", previous=before, release="Jo Hill")
    assert (released.state, released.accepted_by) == ("accepted", "Jo Hill")
    assert released.roster_id == held.roster_id


def test_a_sixty_percent_shrink_and_a_doubling_are_held(read: Read, rows: Line, codes: Codes) -> None:
    before = read(many(rows, range(100)))
    assert read(many(rows, range(40)), name="b.csv", previous=before).state == "held"
    grown = read(many(rows, range(200)), name="c.csv", previous=before)
    assert [code for _, code, _ in codes(grown)] == ["row_change"]


def test_the_guard_also_takes_the_history_as_previous(read: Read, rows: Line) -> None:
    before = read(many(rows, range(100)))
    assert read(many(rows, range(40)), name="b.csv", previous=before.members).state == "held"


def test_a_delta_cannot_shrink_a_list(read: Read, rows: Line) -> None:
    before = read(many(rows, range(100)))
    assert (
        read(rows(1), {"extends": "csv", "list": {"mode": "delta"}}, name="d.csv", previous=before).state == "accepted"
    )


def test_many_refused_rows_hold_the_file(read: Read, rows: Line, codes: Codes) -> None:
    text = "\n".join(rows(n, provider_npi="1" if n % 3 == 0 else "1234567893") for n in range(60))
    roster = read(text)
    assert roster.state == "held"
    assert codes(roster)[0] == (None, "refused_share", None)


def test_nothing_accepted_refuses_the_file(read: Read, rows: Line) -> None:
    assert read(rows(1, provider_npi="1")).state == "refused"
    assert read(rows(1, provider_npi="1"), release="Jo Hill").state == "refused"


def test_resent_and_renamed_and_changed_files_are_told_apart(read: Read, rows: Line, codes: Codes) -> None:
    first = read(rows(1))
    again = read(rows(1), name="other-name.csv", previous=first)
    assert again.roster_id == first.roster_id
    assert codes(again) == [(None, "resent", None)]
    other = read(rows(2), previous=first)
    assert other.roster_id != first.roster_id
    assert codes(other) == [(None, "new_version", None)]


def test_an_older_as_of_after_a_newer_is_reported(read: Read, rows: Line, codes: Codes) -> None:
    newer = read(rows(1))
    late = read(rows(2), name="late.csv", as_of=date(2026, 1, 1), previous=newer)
    assert codes(late) == [(None, "late_file", None)]
    assert late.state == "accepted"


def test_a_future_as_of_is_refused(read: Read, rows: Line, codes: Codes) -> None:
    roster = read(rows(1), as_of=date(2026, 3, 1))
    assert (roster.state, codes(roster)) == ("refused", [(None, "future_as_of", None)])


def test_the_as_of_date_comes_only_from_declared_places(write: Any, read: Read, rows: Line) -> None:
    with pytest.raises(RosterError) as caught:
        read(rows(1), as_of=None)
    assert caught.value.code == "HX-504"
    named = {"extends": "csv", "list": {"as_of": {"file_name": r"a-(\d{8})", "format": "%Y%m%d"}}}
    assert read(rows(1), named, name="a-20260115.csv", as_of=None).as_of == date(2026, 1, 15)
    with pytest.raises(RosterError):
        read(rows(1), named, name="a-20261315.csv", as_of=None)


def test_an_as_of_column_must_hold_one_date(write: Any, read: Read, codes: Codes) -> None:
    layout = {"extends": "csv", "list": {"as_of": {"column": "run date", "format": "%m/%d/%Y"}}}
    good = write("M1,1234567893,01/15/2026\nM2,1234567893,01/15/2026\n", header="member_id,npi,run_date")
    assert read(good, layout, as_of=None).as_of == date(2026, 1, 15)
    mixed = write("M1,1234567893,01/15/2026\nM2,1234567893,02/15/2026\n", header="member_id,npi,run_date")
    roster = read(mixed, layout, as_of=None)
    assert (roster.state, codes(roster)[0][1]) == ("refused", "several_as_of")


def test_an_argument_outranks_the_declared_date_and_says_so(read: Read, rows: Line, codes: Codes) -> None:
    named = {"extends": "csv", "list": {"as_of": {"file_name": r"a-(\d{8})", "format": "%Y%m%d"}}}
    roster = read(rows(1), named, name="a-20260115.csv", as_of=date(2026, 1, 20))
    assert roster.as_of == date(2026, 1, 20)
    assert codes(roster) == [(None, "as_of_differs", None)]


def test_the_modification_time_never_matters(write: Any, read: Read, rows: Line) -> None:
    path = write(rows(1))
    first = read(path)
    os.utime(path, (0, 0))
    assert replace(read(path), members=first.members, issues=first.issues) == first


def test_payer_and_clock_must_be_known(read: Read, rows: Line) -> None:
    with pytest.raises(ConfigError):
        read(rows(1), payer_id=None)
    with pytest.raises(ConfigError):
        read(rows(1), received_at=datetime(2026, 2, 2))


def test_a_delta_sent_as_full_is_held_before_it_drops_everybody(read: Read, rows: Line, codes: Codes) -> None:
    before = read(many(rows, range(100)))
    changes = read(many(rows, range(3)), name="changes.csv", previous=before)
    assert changes.state == "held"
    assert [code for _, code, _ in codes(changes)] == ["row_change", "shrink"]
