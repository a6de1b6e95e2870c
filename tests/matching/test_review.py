"""The queue goes out, decisions come back, and they outrank what is computed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from hiexchange.errors import DataError
from hiexchange.matching import DECISION, match, precision_by_band, queue, read_decisions, write_queue

Build = Callable[..., pa.Table]
NOW = datetime(2026, 11, 22, tzinfo=UTC)
LATER = datetime(2026, 11, 23, tzinfo=UTC)
HOME = {"address_line": "12 Oak Street", "city": "Conway", "zip": "72032", "phone": "501-555-0147"}
ADA = {"first_name": "Ada", "last_name": "Ormerod", **HOME}
MEMBER = ADA | {"birth_on": date(1952, 1, 2)}
PERSON = ADA | {"birth_date": "1980-01-02"}


@pytest.mark.parametrize("name", ["queue.csv", "queue.xlsx"])
def test_a_reviewed_queue_comes_back_as_decisions_the_next_run_obeys(
    member_table: Build, person_table: Build, tmp_path: Path, name: str
) -> None:
    members, persons = member_table(MEMBER), person_table(PERSON)
    links = match(members, persons, known_at=NOW)
    lines = queue(links, members, persons)
    assert lines.num_rows == 1 and lines["reason"].to_pylist() == ["birth_date_conflict"]
    assert "birth differ" in lines["evidence"][0].as_py()
    filled = lines.set_column(0, "verdict", pa.array(["same"])).set_column(1, "decided_by", pa.array(["j.doe"]))
    write_queue(filled, tmp_path / name)
    assert (tmp_path / name).stat().st_mode & 0o077 == 0
    decisions = read_decisions(tmp_path / name, decided_at=LATER)
    assert decisions.select(["person_id", "verdict", "decided_by", "band"]).to_pylist() == [
        {"person_id": "p1", "verdict": "same", "decided_by": "j.doe", "band": "review"}
    ]
    (row,) = match(members, persons, known_at=LATER, decisions=decisions).to_pylist()
    assert (row["person_id"], row["band"], row["method"], row["rule"]) == ("p1", "auto", "decision", "same")


def ruling(member_key: str, verdict: str, person_id: str | None, at: datetime = NOW) -> dict[str, object]:
    return {
        "member_key": member_key,
        "verdict": verdict,
        "person_id": person_id,
        "decided_at": at,
        "decided_by": "x",
        "band": "auto",
    }


def test_a_later_score_does_not_overturn_a_refusal(member_table: Build, person_table: Build) -> None:
    members = member_table(ADA | {"birth_on": date(1980, 1, 2)})
    persons = person_table(PERSON)
    key = members["member_key"][0].as_py()
    assert match(members, persons, known_at=NOW).to_pylist()[0]["band"] == "auto"
    for verdict, person in (("different", "p1"), ("nobody", None)):
        decisions = DECISION.from_rows([ruling(key, verdict, person)])
        (row,) = match(members, persons, known_at=LATER, decisions=decisions).to_pylist()
        assert (row["band"], row["person_id"]) == ("none", None)


def test_whom_a_reviewer_gave_a_person_to_keeps_it(member_table: Build, person_table: Build) -> None:
    """The other member fits well by itself: two of one payer are hardly one person."""
    members = member_table(MEMBER, ADA | {"birth_on": date(1980, 1, 2)})
    first, second = members["member_key"].to_pylist()

    def links(**decisions: pa.Table) -> dict[str, tuple[str, str | None]]:
        rows = match(members, person_table(PERSON), known_at=NOW, **decisions).to_pylist()
        return {row["member_key"]: (row["band"], row["reason"]) for row in rows}

    assert links() == {first: ("review", "birth_date_conflict"), second: ("auto", None)}
    decided = DECISION.from_rows([ruling(first, "same", "p1")])
    assert links(decisions=decided) == {first: ("auto", None), second: ("review", "person_claimed_twice")}


def test_the_latest_ruling_counts(member_table: Build, person_table: Build) -> None:
    members = member_table(MEMBER)
    key = members["member_key"][0].as_py()
    decisions = DECISION.from_rows([ruling(key, "same", "p1", LATER), ruling(key, "different", "p1", NOW)])
    (row,) = match(members, person_table(PERSON), known_at=LATER, decisions=decisions).to_pylist()
    assert (row["band"], row["method"]) == ("auto", "decision")


@pytest.mark.parametrize("line", ["maybe,j.doe,k1,p1", "same,,k1,p1", "same,j.doe,k1,"])
def test_an_unclear_line_refuses_the_file(tmp_path: Path, line: str) -> None:
    path = tmp_path / "q.csv"
    path.write_text(f"verdict,decided_by,member_key,person_id\nsame,j.doe,k0,p0\n{line}\n")
    with pytest.raises(DataError) as caught:
        read_decisions(path, decided_at=NOW)
    assert "line 3" in str(caught.value) and "k1" not in str(caught.value)


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="lacks the column"):
        read_decisions(path, decided_at=NOW)


def test_spreadsheet_formulas_are_defused_and_come_back_whole(
    member_table: Build, person_table: Build, tmp_path: Path
) -> None:
    members = member_table(MEMBER | {"city": "=cmd()"})
    persons = person_table(PERSON)
    write_queue(queue(match(members, persons, known_at=NOW), members, persons), tmp_path / "q.csv")
    text = (tmp_path / "q.csv").read_text()
    assert "'=cmd()" in text and ",=cmd()" not in text


def test_precision_by_band_is_counted_from_decisions(member_table: Build, person_table: Build) -> None:
    sure = ADA | {"birth_on": date(1980, 1, 2), "member_id": "-1"}
    members = member_table(sure, MEMBER | {"member_id": "-2", "first_name": "Ada", "birth_on": date(1950, 5, 5)})
    links = match(members, person_table(PERSON), known_at=NOW)
    rows = {row["band"]: row for row in links.to_pylist()}
    decisions = DECISION.from_rows(
        [ruling(rows["auto"]["member_key"], "same", "p1"), ruling(rows["review"]["member_key"], "different", "p1")]
    )
    auto, review = precision_by_band(links, decisions).to_pylist()
    assert (auto["precision"], auto["recall_share"], review["precision"]) == (1.0, 1.0, 0.0)
    assert 0.2 < auto["low"] < 0.21 and auto["high"] == 1.0  # Wilson, 1 of 1: 1 / (1 + 3.8415)
