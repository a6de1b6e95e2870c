"""Who may receive: recipients with reasons, primary flag, blocks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.attribution import Policy, resolve
from hiexchange.tables import OPEN_DATE, OPEN_INSTANT, PERSON_LINK

Build = Callable[..., Any]
JAN, FEB = date(2026, 1, 1), date(2026, 2, 1)
LATER = datetime(2031, 1, 1, tzinfo=UTC)


@pytest.fixture
def links() -> Callable[..., pa.Table]:
    def make(*pairs: tuple[str, str], band: str = "auto") -> pa.Table:
        start = datetime(2030, 1, 1, tzinfo=UTC)
        return PERSON_LINK.from_rows(
            {
                "member_key": key,
                "payer_id": key.split("|")[0],
                "person_id": person,
                "method": "member_id",
                "band": band,
                "candidates": 1,
                "run_id": "r",
                "known_from": start,
                "known_to": OPEN_INSTANT,
            }
            for key, person in pairs
        )

    return make


def seen(table: pa.Table) -> list[tuple[Any, ...]]:
    names = ("person_id", "provider_npi", "provider_tin", "org_id", "decision", "reason", "primary")
    return [tuple(row[name] for name in names) for row in table.to_pylist()]


def test_a_provider_named_by_two_payers_is_one_recipient(build: Build, line: Build, fold: Build, links: Build) -> None:
    history = fold(
        [build("a", JAN, [line("m1")]), build("b", JAN, [line("m9")], payer_id="payer-b", list_id="payer-b")]
    )
    found = resolve(history, links(("payer-a|m1", "P1"), ("payer-b|m9", "P1")), FEB, known_at=LATER)
    assert seen(found) == [("P1", "1", None, None, "deliver", "attributed", True)]
    assert found["payer_ids"].to_pylist() == [["payer-a", "payer-b"]]
    assert len(found["attribution_ids"].to_pylist()[0]) == 2


def test_the_primary_follows_basis_then_start_then_level(build: Build, line: Build, fold: Build, links: Build) -> None:
    rows = [
        line("m1", "1", date(2025, 1, 1), basis="claims_plurality"),
        line("m1", "2", date(2024, 1, 1), basis="patient_choice"),
        line("m1", "3", date(2025, 6, 1), basis="claims_plurality"),
        line("m1", None, date(2025, 6, 1), basis="claims_plurality", provider_tin="710000001"),
    ]
    found = resolve(fold([build("a", JAN, rows)]), links(("payer-a|m1", "P1")), FEB, known_at=LATER)
    assert [(row["provider_npi"] or row["provider_tin"], row["primary"]) for row in found.to_pylist()] == [
        ("2", True),
        ("3", False),
        ("710000001", False),
        ("1", False),
    ]


def test_payer_precedence_breaks_ties(build: Build, line: Build, fold: Build, links: Build) -> None:
    history = fold(
        [
            build("a", JAN, [line("m1", "1")]),
            build("b", JAN, [line("m9", "2")], payer_id="medicare", list_id="medicare"),
        ]
    )
    linked = links(("payer-a|m1", "P1"), ("medicare|m9", "P1"))
    found = resolve(history, linked, FEB, known_at=LATER, policy=Policy(payer_order=("medicare",)))
    assert [row["provider_npi"] for row in found.to_pylist() if row["primary"]] == ["2"]


def test_unmatched_members_are_reported_never_delivered(build: Build, line: Build, fold: Build, links: Build) -> None:
    history = fold([build("a", JAN, [line("m1"), line("m2")])])
    found = resolve(history, links(("payer-a|m1", "P1"), band="review"), FEB, known_at=LATER)
    assert {row[4] for row in seen(found)} == {"unmatched"}
    assert len(found) == 2


PLACES = pa.table(
    {
        "npi": ["1", "1", "2", "3"],
        "tin": ["710000001", "710000002", "710000003", "710000004"],
        "org": ["o1", "o2", "o3", "o4"],
        "valid_from": [date(2020, 1, 1)] * 4,
        "valid_to": [OPEN_DATE, OPEN_DATE, OPEN_DATE, date(2026, 1, 15)],
    }
)


def test_an_npi_in_two_practices_is_blocked_unless_the_roster_says_which(
    build: Build, line: Build, fold: Build, links: Build
) -> None:
    rows = [line("m1", "1"), line("m2", "2"), line("m3", "1", provider_tin="710000002")]
    linked = links(("payer-a|m1", "P1"), ("payer-a|m2", "P2"), ("payer-a|m3", "P3"))
    history = fold([build("a", JAN, rows)])
    assert seen(resolve(history, linked, FEB, known_at=LATER, provider_org=PLACES)) == [
        ("P1", "1", None, None, "blocked", "ambiguous_npi", False),
        ("P2", "2", "710000003", "o3", "deliver", "attributed", True),
        ("P3", "1", "710000002", None, "deliver", "attributed", True),
    ]
    overridden = resolve(history, linked, FEB, known_at=LATER, provider_org=PLACES, policy=Policy(allow_ambiguous=True))
    assert seen(overridden)[0][4] == "deliver"


def test_a_clinician_who_left_is_reached_through_the_organisation(
    build: Build, line: Build, fold: Build, links: Build
) -> None:
    history = fold([build("a", JAN, [line("m1", "3")])])
    linked = links(("payer-a|m1", "P1"))
    before = resolve(history, linked, date(2026, 1, 10), known_at=LATER, provider_org=PLACES)
    after = resolve(history, linked, FEB, known_at=LATER, provider_org=PLACES)
    assert seen(before) == [("P1", "3", "710000004", "o4", "deliver", "attributed", True)]
    assert seen(after) == [("P1", None, "710000004", "o4", "deliver", "rerouted", True)]


def test_opt_outs_and_stale_lists_do_not_deliver(build: Build, line: Build, fold: Build, links: Build) -> None:
    history = fold([build("a", JAN, [line("m1", sharing_pref="opt-out"), line("m2")])])
    linked = links(("payer-a|m1", "P1"), ("payer-a|m2", "P2"))
    assert [row[4:6] for row in seen(resolve(history, linked, FEB, known_at=LATER))] == [
        ("suppressed", "opt_out"),
        ("deliver", "attributed"),
    ]
    old = resolve(history, linked, date(2026, 4, 2), known_at=LATER)
    assert [row[4:6] for row in seen(old)] == [("suppressed", "opt_out"), ("stale", "stale_list")]
    forever = resolve(history, linked, date(2026, 4, 2), known_at=LATER, policy=Policy(stale_after_days=None))
    assert seen(forever)[1][4] == "deliver"
