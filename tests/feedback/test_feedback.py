"""What a payer gets back, and what it must not."""

from __future__ import annotations

import csv
import re
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hiexchange import ndjson
from hiexchange.errors import UnknownLayout
from hiexchange.feedback import Feedback, misdirected, render, shareable, write
from hiexchange.feedback.suppress import COUNTS, suppress
from hiexchange.tables import ISSUE, MEASURE_RESULT, ROSTER


def told(given: Feedback) -> dict[str, str]:
    """event_key -> outcome."""
    return dict(zip(given.performance["event_key"].to_pylist(), given.performance["outcome"].to_pylist(), strict=True))


def test_a_payer_sees_its_members_events_and_what_became_of_them(world: Any) -> None:
    given = world.feedback()
    assert told(given) == {"a": "acked", "b": "acked", "c": "acked", "d": "dead"}
    first = given.performance.to_pylist()[0]
    assert (first["member_id"], first["provider_npi"], first["channel_kinds"]) == ("id-m1", "1999999984", ["sftp"])
    assert first["delivered_at"] == datetime(2026, 3, 31, tzinfo=UTC)
    assert (
        first["latency_s"]
        == (datetime(2026, 4, 1, tzinfo=UTC) - datetime(2026, 3, 2, 15, 1, tzinfo=UTC)).total_seconds()
    )


def test_nothing_of_another_payer_enters(world: Any) -> None:
    for payer, other in (("payer-a", "payer-b"), ("payer-b", "payer-a")):
        given = world.feedback(payer)
        everything = str([table.to_pylist() for table in given.tables().values()]) + render(given)
        assert other not in everything
    assert set(told(world.feedback("payer-b"))) == {"a", "b", "c", "x"}


def test_asking_for_another_payers_member_is_asking_for_nobody(world: Any) -> None:
    given = world.feedback()
    theirs, nobody = given.member("id-m3"), given.member("no-such-id")
    for rows, audit in (theirs, nobody):
        assert rows.num_rows == 0 and audit["code"].to_pylist() == ["not_a_member"]
    assert theirs[1] == nobody[1]
    rows, audit = given.member("id-m1")
    assert (rows.num_rows, audit.num_rows) == (3, 0)


def test_only_inside_coverage_and_attribution_and_period(world: Any, rows: SimpleNamespace) -> None:
    world.attributions[0] = rows.attribution("m1", coverage_from=date(2026, 3, 4), coverage_to=date(2026, 3, 9))
    assert set(told(world.feedback())) == {"b", "d"}
    world.attributions[0] = rows.attribution("m1", valid_to=date(2026, 3, 5))
    assert set(told(world.feedback())) == {"a", "d"}
    world.events.append(rows.event("late", "p2", date(2026, 4, 1)))
    assert "late" not in told(world.feedback())


@pytest.mark.parametrize("label", ["PSY", "42CFRPart2", "R", "something-new", "VIP"])
def test_labelled_events_are_withheld_even_when_a_provider_got_them(world: Any, label: str) -> None:
    world.events[3]["labels"] = [label]
    given = world.feedback()
    assert "d" not in told(given) and given.withheld == 1


@pytest.mark.parametrize(
    ("consent", "hidden"),
    [
        ({"scope": "exchange", "decision": "deny"}, True),
        ({"scope": "payer", "party": "payer-a", "decision": "deny"}, True),
        ({"scope": "payer", "party": "payer-b", "decision": "deny"}, False),
        ({"scope": "provider", "party": "clinic", "decision": "deny"}, False),
    ],
)
def test_opt_outs_are_honoured_towards_the_payer(world: Any, consent: dict[str, Any], hidden: bool) -> None:
    world.consent = [{"person_id": "p2", **consent}]
    assert ("d" not in told(world.feedback())) is hidden


def test_events_nobody_subscribed_to_are_performance_too(world: Any) -> None:
    world.subscriptions[0]["npi"] = ["1999999992"]
    assert set(told(world.feedback()).values()) == {"not_sent"}


def test_links_in_review_show_their_conflicts_and_no_events(world: Any, rows: SimpleNamespace) -> None:
    evidence = [{"field": "birth", "level": "equal", "bits": 9.0}, {"field": "sex", "level": "differs", "bits": -4.0}]
    world.links[1] = rows.link("m2", "p2", band="review", candidates=2, evidence=evidence, reason="gap")
    given = world.feedback()
    match = {row["member_id"]: row for row in given.matches.to_pylist()}["id-m2"]
    assert (match["band"], match["candidates"], match["conflicts"]) == ("review", 2, ["sex"])
    assert "d" not in told(given)
    assert (given.counts["matched"], given.counts["in review"]) == (1, 1)


def test_the_scorecard_adds_up(world: Any) -> None:
    (card,) = world.feedback().scorecard.to_pylist()
    assert (card["members"], card["events"], card["notices"], card["acked"], card["undeliverable"]) == (2, 4, 4, 3, 1)
    assert (card["discharges_7"], card["followed_7"], card["readmitted_30"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("on", "class_", "trigger", "seven", "thirty", "back"),
    [
        (date(2026, 3, 5), "AMB", "discharge", 0, 0, 0),
        (date(2026, 3, 6), "AMB", "discharge", 1, 1, 0),
        (date(2026, 3, 12), "HH", "discharge", 1, 1, 0),
        (date(2026, 3, 13), "VR", "discharge", 0, 1, 0),
        (date(2026, 4, 4), "AMB", "discharge", 0, 1, 0),
        (date(2026, 4, 5), "AMB", "discharge", 0, 0, 0),
        (date(2026, 3, 20), "IMP", "admit", 0, 0, 1),
        (date(2026, 4, 5), "IMP", "admit", 0, 0, 0),
    ],
)
def test_follow_up_and_readmission_windows(
    world: Any, rows: SimpleNamespace, on: date, class_: str, trigger: str, seven: int, thirty: int, back: int
) -> None:
    world.events[2] = rows.event("c", "p1", on, trigger, class_)
    (card,) = world.feedback().scorecard.to_pylist()
    assert (card["followed_7"], card["followed_30"], card["readmitted_30"]) == (seven, thirty, back)


def test_deaths_and_hospice_are_no_episodes(world: Any) -> None:
    world.events[1]["discharge_disposition"] = "exp"
    (card,) = world.feedback().scorecard.to_pylist()
    assert card["discharges_30"] == 0


def test_measures_are_given_by_provider(world: Any) -> None:
    result = {
        "measure": "fuh", "measure_version": "1", "engine": "native", "run_id": "r", "period_start": date(2026, 1, 1),
        "period_end": date(2026, 12, 31), "group": "g", "basis": "boolean", "status": "ok",
    }  # fmt: skip
    results = [
        result | {"subject": "p1", "denominator": 1, "numerator": 1},
        result | {"subject": "p2", "denominator": 1, "denominator_exclusion": 1, "numerator": 1},
        result | {"subject": "p3", "denominator": 1, "numerator": 1},
    ]
    (row,) = world.feedback(results=MEASURE_RESULT.from_rows(results)).measures.to_pylist()
    assert (row["denominator"], row["numerator"]) == (1, 1)


def test_the_intake_receipt_counts_files_and_changes(world: Any) -> None:
    roster = {
        "roster_id": "roster-payer-a", "payer_id": "payer-a", "list_id": "l", "file_name": "a.csv", "file_sha256": "x",
        "layout": "csv 1", "mode": "full", "as_of_on": date(2026, 1, 1), "received_at": datetime(2026, 1, 2, tzinfo=UTC),
        "state": "accepted", "rows_read": 4, "rows_accepted": 2, "rows_refused": 1, "rows_duplicate": 1,
    }  # fmt: skip
    rosters = ROSTER.from_rows(
        [roster, roster | {"payer_id": "payer-b", "roster_id": "roster-payer-b", "file_name": "b.csv"}]
    )
    issue = {"stage": "roster", "severity": "error", "code": "npi_check_digit", "message": "x", "row_no": 3}
    issues = ISSUE.from_rows([issue | {"file": "a.csv"}, issue | {"file": "b.csv"}])
    given = world.feedback(rosters=rosters, issues=issues)
    (row,) = given.intake.to_pylist()
    assert (row["file_name"], row["state"], row["rows_read"], row["new"]) == ("a.csv", "accepted", 4, 2)
    assert given.refusals["file"].to_pylist() == ["a.csv"]
    assert "npi_check_digit 1" in render(given)
    assert world.feedback().intake["new"].to_pylist() == [2]


def test_disputes_age(world: Any) -> None:
    opened = datetime(2026, 5, 1, tzinfo=UTC)
    table = pa.Table.from_pylist(
        [
            {"payer_id": "payer-a", "state": "open", "opened_at": opened, "decided_at": None},
            {
                "payer_id": "payer-a",
                "state": "accepted",
                "opened_at": opened,
                "decided_at": datetime(2026, 5, 8, tzinfo=UTC),
            },
            {"payer_id": "payer-b", "state": "open", "opened_at": opened, "decided_at": None},
        ]
    )
    given = world.feedback(disputes=table)
    assert given.disputes["age_days"].to_pylist() == [31, 7]
    assert "the oldest is 31 days" in render(given)


# The shareable form -----------------------------------------------------------------------------


def card(*columns: tuple[str, list[int]]) -> pa.Table:
    size = len(columns[0][1])
    return pa.table({name: pa.array(dict(columns).get(name, [0] * size), pa.int64()) for name in COUNTS})


def test_small_cells_are_blank_and_cannot_be_reckoned_back() -> None:
    members = suppress(card(("members", [5, 100, 40, 0])), COUNTS)["members"].to_pylist()
    assert members == [None, 100, None, 0]
    two = suppress(card(("members", [5, 7, 40])), COUNTS)["members"].to_pylist()
    assert two == [None, None, 40]


def test_a_part_is_blank_with_its_whole_and_when_the_rest_is_small() -> None:
    table = suppress(card(("notices", [100, 100, 9, 8]), ("acked", [95, 50, 9, 0])), COUNTS)
    assert table["notices"].to_pylist() == [100, 100, None, None]
    assert table["acked"].to_pylist() == [None, 50, None, None]


def test_the_shareable_form_holds_no_person_and_no_small_count(world: Any) -> None:
    form = shareable(world.feedback())
    assert form.performance.num_rows == form.matches.num_rows == 0
    page = render(form)
    assert "counts under 11" in page and "id-m1" not in page
    assert not re.search(r"<td>([1-9]|10)</td>", page)


# Pages and files --------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects what a page loads or runs."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_is_static_and_names_no_member(world: Any) -> None:
    text = render(world.feedback())
    page = Page()
    page.feed(text)
    assert not page.loads and "script" not in page.tags and "svg" in page.tags
    assert "id-m1" not in text and "payer-a" in text


def test_the_page_escapes_what_it_shows(world: Any) -> None:
    world.attributions[0]["org_id"] = "<script>x</script>"
    assert "<script>" not in render(world.feedback())


@pytest.mark.parametrize("format", ["csv", "tsv", "ndjson", "parquet"])
def test_the_file_set_is_the_same_for_every_payer(world: Any, tmp_path: Path, format: str) -> None:
    names = []
    for payer in ("payer-a", "payer-b"):
        paths = write(world.feedback(payer), tmp_path / payer, format=format)
        assert all(path.exists() for path in paths)
        names.append([path.name.replace(payer, "") for path in paths])
    assert names[0] == names[1]
    path = next((tmp_path / "payer-a").glob(f"*performance.{format}"))
    if format == "parquet":
        count = pq.read_table(path).num_rows
    elif format == "ndjson":
        count = len(ndjson.load(path))
    else:
        with path.open(newline="") as file:
            count = len(list(csv.DictReader(file, delimiter="," if format == "csv" else "\t")))
    assert count == 4
    assert not list((tmp_path / "payer-a/shareable").glob("*performance*"))


def test_cells_a_spreadsheet_would_run_are_made_harmless(world: Any, tmp_path: Path) -> None:
    world.events[0]["facility_name"] = "=HYPERLINK(1)"
    write(world.feedback(), tmp_path)
    text = next(tmp_path.glob("*performance.csv")).read_text()
    assert "'=HYPERLINK(1)" in text


def test_an_unknown_format_is_named(world: Any, tmp_path: Path) -> None:
    with pytest.raises(UnknownLayout, match="docx"):
        write(world.feedback(), tmp_path, format="docx")


# What went out and no longer stands -------------------------------------------------------------


def wrong(world: Any, rows: SimpleNamespace, **changes: Any) -> list[tuple[str, str]]:
    tables = world.tables() | changes
    found = misdirected(known_at=datetime(2026, 7, 1, tzinfo=UTC), **tables)
    return list(zip(found["event_key"].to_pylist(), found["why"].to_pylist(), strict=True))


def test_nothing_is_misdirected_while_everything_stands(world: Any, rows: SimpleNamespace) -> None:
    assert wrong(world, rows) == []


def test_an_unmerge_lists_what_went_out_under_the_wrong_person(world: Any, rows: SimpleNamespace) -> None:
    tables = world.tables()
    world.links.append(rows.link("m1", "p9", known_from=datetime(2026, 6, 5, tzinfo=UTC)))
    found = wrong(world, rows, routing=tables["routing"])
    assert found == [("a", "person_changed"), ("b", "person_changed"), ("c", "person_changed")]


def test_a_retroactive_drop_lists_what_went_out_under_it(world: Any, rows: SimpleNamespace) -> None:
    tables = world.tables()
    dropped = rows.attribution(
        "m3", "payer-b", valid_to=date(2026, 2, 1), change_type="dropped", known_from=datetime(2026, 6, 5, tzinfo=UTC)
    )
    world.attributions.append(dropped)
    assert wrong(world, rows, routing=tables["routing"]) == [("x", "attribution_withdrawn")]
