"""What one more file does to the history."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.attribution import active, as_known, attribute, versions
from hiexchange.errors import ConfigError
from hiexchange.tables import ATTRIBUTION, check

Build = Callable[..., Any]
JAN, FEB, MAR, APR = (date(2026, month, 1) for month in (1, 2, 3, 4))
LATER = datetime(2031, 1, 1, tzinfo=UTC)
OPEN = "9999-12-31"


def changes(table: pa.Table) -> dict[tuple[str, str | None], str]:
    return {(row["member_id"], row["provider_npi"]): row["change_type"] for row in table.to_pylist()}


def test_first_file_is_new_and_conforms(build: Build, line: Build, fold: Build, spells: Build) -> None:
    history = fold([build("r1", JAN, [line("m1"), line("m2", start=date(2025, 6, 1))])])
    assert check(history, ATTRIBUTION).num_rows == 2
    assert changes(history) == {("m1", "1"): "new", ("m2", "1"): "new"}
    assert spells(as_known(history, LATER)) == [("m1", "1", "2026-01-01", OPEN), ("m2", "1", "2025-06-01", OPEN)]


def test_atr_change_types_are_computed(build: Build, line: Build, fold: Build) -> None:
    first = build("r1", JAN, [line("same"), line("other"), line("gone"), line("error"), line("told")])
    second = build(
        "r2",
        FEB,
        [
            line("same"),
            line("other", rank=2),
            line("fresh"),
            line("error", start=JAN, payer_change_type="cancelled"),
            line("told", start=JAN, end=date(2026, 1, 15), payer_change_type="dropped"),
        ],
    )
    history = fold([first, second])
    fresh = history.filter(pa.compute.equal(history["roster_id"], "r2"))
    assert {member: change for (member, _), change in changes(fresh).items()} == {
        "same": "nochange",
        "other": "changed",
        "fresh": "new",
        "gone": "dropped",
        "error": "cancelled",
        "told": "dropped",
    }
    assert "error" not in as_known(history, LATER)["member_id"].to_pylist()


def test_a_full_file_drops_the_absent_at_its_as_of_date(build: Build, line: Build, fold: Build, spells: Build) -> None:
    history = fold([build("r1", JAN, [line("m1"), line("m2")]), build("r2", FEB, [line("m1")])])
    assert spells(as_known(history, LATER)) == [
        ("m1", "1", "2026-01-01", OPEN),
        ("m2", "1", "2026-01-01", "2026-02-01"),
    ]
    dropped = history.filter(pa.compute.equal(history["change_type"], "dropped")).to_pylist()[0]
    assert (dropped["roster_id"], dropped["row_no"], dropped["status"]) == ("r2", 0, "active")


def test_a_delta_leaves_the_absent(build: Build, line: Build, fold: Build, spells: Build) -> None:
    history = fold([build("r1", JAN, [line("m1"), line("m2")]), build("r2", FEB, [line("m3")], mode="delta")])
    assert [member for member, *_ in spells(as_known(history, LATER))] == ["m1", "m2", "m3"]


def test_dropped_then_readded_leaves_the_gap(build: Build, line: Build, fold: Build, spells: Build) -> None:
    history = fold(
        [
            build("r1", JAN, [line("m1"), line("m2")]),
            build("r2", FEB, [line("m2")]),
            build("r3", MAR, [line("m1"), line("m2")]),
        ]
    )
    assert [s for s in spells(as_known(history, LATER)) if s[0] == "m1"] == [
        ("m1", "1", "2026-01-01", "2026-02-01"),
        ("m1", "1", "2026-03-01", OPEN),
    ]


def test_a_dated_line_corrects_the_spell_it_overlaps(build: Build, line: Build, fold: Build, spells: Build) -> None:
    history = fold(
        [build("r1", JAN, [line("m1", start=date(2025, 6, 1))]), build("r2", FEB, [line("m1", start=date(2025, 7, 1))])]
    )
    assert spells(as_known(history, LATER)) == [("m1", "1", "2025-07-01", OPEN)]
    assert changes(as_known(history, LATER)) == {("m1", "1"): "changed"}


def test_a_retroactive_term_closes_the_past_and_the_past_answer_stays(
    build: Build, line: Build, fold: Build, spells: Build
) -> None:
    history = fold(
        [build("r1", JAN, [line("m1", start=JAN)]), build("r2", APR, [line("m1", start=JAN, end=date(2026, 2, 15))])]
    )
    before, after = datetime(2030, 1, 1, 12, tzinfo=UTC), LATER
    assert spells(active(history, MAR, before)) == [("m1", "1", "2026-01-01", OPEN)]
    assert spells(active(history, MAR, after)) == []
    assert spells(active(history, FEB, after)) == [("m1", "1", "2026-01-01", "2026-02-15")]


def test_two_providers_of_one_member_live_side_by_side(build: Build, line: Build, fold: Build, spells: Build) -> None:
    history = fold([build("r1", JAN, [line("m1", "1"), line("m1", "2")]), build("r2", FEB, [line("m1", "2")])])
    assert spells(active(history, FEB, LATER)) == [("m1", "2", "2026-01-01", OPEN)]
    assert spells(active(history, date(2026, 1, 31), LATER)) == [
        ("m1", "1", "2026-01-01", "2026-02-01"),
        ("m1", "2", "2026-01-01", OPEN),
    ]


def test_lists_and_payers_never_touch_each_other(build: Build, line: Build, fold: Build, spells: Build) -> None:
    history = fold(
        [
            build("r1", JAN, [line("m1")]),
            build("r2", FEB, [line("m2")], list_id="payer-a/behavioural"),
            build("r3", FEB, [line("m1")], payer_id="payer-b", list_id="payer-b"),
        ]
    )
    assert len(active(history, MAR, LATER)) == 3


def test_redelivery_adds_no_row(build: Build, line: Build, fold: Build) -> None:
    one, two = build("r1", JAN, [line("m1")]), build("r2", FEB, [line("m1"), line("m2")])
    history = fold([one, two])
    for again in (one, two):
        assert attribute(again, history, known_at=LATER).num_rows == 0


@pytest.mark.parametrize("state", ["held", "refused"])
def test_files_that_are_not_accepted_change_nothing(build: Build, line: Build, fold: Build, state: str) -> None:
    history = fold([build("r1", JAN, [line("m1")])])
    assert attribute(build("r2", FEB, [line("m2")], state=state), history, known_at=LATER).num_rows == 0


def test_an_older_file_that_comes_late_fills_history_only(
    build: Build, line: Build, fold: Build, spells: Build
) -> None:
    a, c = build("a", JAN, [line("m1"), line("m2")]), build("c", MAR, [line("m1")])
    b = build("b", FEB, [line("m1"), line("m3")])
    history = fold([a, c, b])
    assert spells(as_known(history, LATER)) == [
        ("m1", "1", "2026-01-01", OPEN),
        ("m2", "1", "2026-01-01", "2026-02-01"),
        ("m3", "1", "2026-02-01", "2026-03-01"),
    ]
    known_before = datetime(2030, 1, 2, 12, tzinfo=UTC)
    assert spells(as_known(history, known_before)) == [
        ("m1", "1", "2026-01-01", OPEN),
        ("m2", "1", "2026-01-01", "2026-03-01"),
    ]


def test_knowledge_is_not_back_dated(build: Build, line: Build) -> None:
    history = attribute(build("r1", FEB, [line("m1")]), None, known_at=LATER)
    fresh = attribute(build("r2", JAN, [line("m2")]), history, known_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert set(fresh["known_from"].to_pylist()) == {LATER}


def test_files_of_one_instant_are_told_apart_by_sequence(build: Build, line: Build, spells: Build) -> None:
    history = ATTRIBUTION.empty()
    for given in (build("b", FEB, [line("m1")]), build("a", JAN, [line("m1"), line("m2")])):
        history = pa.concat_tables([history, attribute(given, history, known_at=LATER)])
    assert spells(as_known(history, LATER)) == [
        ("m1", "1", "2026-01-01", OPEN),
        ("m2", "1", "2026-01-01", "2026-02-01"),
    ]


def test_a_restatement_speaks_for_its_window_only(build: Build, line: Build, fold: Build, spells: Build) -> None:
    first = build("r1", JAN, [line("m1", start=date(2025, 1, 1)), line("m2", start=date(2025, 1, 1))])
    restated = build("r2", APR, [line("m1")], authority_from=FEB, authority_to=MAR)
    history = fold([first, restated])
    assert spells(as_known(history, LATER)) == [
        ("m1", "1", "2025-01-01", OPEN),
        ("m2", "1", "2025-01-01", "2026-02-01"),
        ("m2", "1", "2026-03-01", OPEN),
    ]


def test_a_yearly_restatement_rewrites_the_year(build: Build, line: Build, fold: Build, spells: Build) -> None:
    first = build("q1", date(2026, 3, 31), [line("m1"), line("m2")], authority_from=JAN)
    second = build("q2", date(2026, 6, 30), [line("m2"), line("m3")], authority_from=JAN)
    history = fold([first, second])
    assert spells(as_known(history, LATER)) == [("m2", "1", "2026-01-01", OPEN), ("m3", "1", "2026-01-01", OPEN)]
    assert spells(active(history, FEB, datetime(2030, 1, 1, 12, tzinfo=UTC))) == [
        ("m1", "1", "2026-01-01", OPEN),
        ("m2", "1", "2026-01-01", OPEN),
    ]


def test_a_yearly_restatement_may_name_whom_it_excludes(build: Build, line: Build, fold: Build, spells: Build) -> None:
    # MSSP table 1-1 of a prospective list: EXCLUDED = 1, assigned until the day the report speaks of.
    first = build("q1", date(2026, 3, 31), [line("m1"), line("m2")], authority_from=JAN)
    out = line("m2", start=JAN, end=date(2026, 6, 30), payer_change_type="dropped")
    history = fold([first, build("q2", date(2026, 6, 30), [line("m1"), out], authority_from=JAN)])
    assert spells(active(history, date(2026, 6, 29), LATER)) == [
        ("m1", "1", "2026-01-01", OPEN),
        ("m2", "1", "2026-01-01", "2026-06-30"),
    ]
    assert spells(active(history, date(2026, 6, 30), LATER)) == [("m1", "1", "2026-01-01", OPEN)]


def test_a_payers_opt_out_suppresses_and_comes_back(build: Build, line: Build, fold: Build) -> None:
    history = fold(
        [
            build("r1", JAN, [line("m1", sharing_pref="opt-out")]),
            build("r2", FEB, [line("m1", sharing_pref="opt-in")]),
        ]
    )
    at_first = as_known(history, datetime(2030, 1, 1, 12, tzinfo=UTC)).to_pylist()[0]
    assert (at_first["status"], at_first["reason_code"]) == ("suppressed", "opt_out")
    assert as_known(history, LATER)["status"].to_pylist() == ["active"]


def test_versions_derive_known_to_for_the_join_on_both_axes(build: Build, line: Build, fold: Build) -> None:
    history = fold([build("r1", JAN, [line("m1")]), build("r2", FEB, [line("m2")])])
    rows = [r for r in versions(history).to_pylist() if r["member_id"] == "m1"]
    assert [r["valid_to"].isoformat() for r in rows] == [OPEN, "2026-02-01"]
    assert rows[0]["known_to"] == rows[1]["known_from"] == datetime(2030, 1, 2, tzinfo=UTC)


def test_clocks_must_have_a_zone(build: Build, line: Build) -> None:
    with pytest.raises(ConfigError):
        attribute(build("r1", JAN, [line("m1")]), None, known_at=datetime(2026, 1, 1))
    with pytest.raises(ConfigError):
        as_known(ATTRIBUTION.empty(), datetime(2026, 1, 1))


def test_an_empty_history_answers(spells: Build) -> None:
    assert as_known(ATTRIBUTION.empty(), LATER).num_rows == 0
    assert versions(ATTRIBUTION.empty()).num_rows == 0
