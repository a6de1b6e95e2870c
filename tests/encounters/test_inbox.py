"""An inbox is parsed once, and of years of events only what messages concern is read."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hiexchange.encounters import INBOX_FILE, Inbox, Intake, read_adt
from hiexchange.encounters.history import concerned

NIGHT = datetime(2026, 3, 10, tzinfo=UTC)


def old(path: Path, seconds: int = 60) -> None:
    """Let a file look as if it had lain there for a while."""
    at = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(at, at))


def night(folder: Path, done: pa.Table, **more: Any) -> tuple[Intake, pa.Table]:
    inbox = Inbox(folder, done)
    intake = read_adt(inbox.messages(NIGHT), **{"received_at": NIGHT, **more})
    return intake, inbox.taken(intake.issues, read_at=NIGHT)


def test_a_file_is_parsed_once_while_it_stays_as_it_is(world: SimpleNamespace, tmp_path: Path) -> None:
    day = tmp_path / "2026-03-02"
    day.mkdir()
    (day / "a.hl7").write_bytes(world.adt("A01"))
    old(day / "a.hl7")
    first, taken = night(tmp_path, INBOX_FILE.empty())
    assert [(row["name"], row["messages"]) for row in taken.to_pylist()] == [("2026-03-02/a.hl7", 1)]
    again, more = night(tmp_path, taken, history=first.events)
    assert (again.read, more.num_rows) == (0, 0)
    (day / "a.hl7").write_bytes(world.adt("A01", visit="V2"))
    changed, _ = night(tmp_path, taken, history=first.events)
    assert changed.events["visit_number"].to_pylist() == ["V2"]


def test_a_file_written_to_a_moment_ago_is_read_once_more(world: SimpleNamespace, tmp_path: Path) -> None:
    file = tmp_path / "a.hl7"
    file.write_bytes(world.adt("A01"))
    first, taken = night(file, INBOX_FILE.empty())
    assert first.events.num_rows == 1 and taken.num_rows == 0
    old(file)
    second, taken = night(file, taken, history=first.events)
    assert second.duplicates == 1 and taken["name"].to_pylist() == ["a.hl7"]


def test_a_file_with_a_refused_message_is_read_again_until_it_is_none(world: SimpleNamespace, tmp_path: Path) -> None:
    file = tmp_path / "early.hl7"
    file.write_bytes(world.adt("A01", "20260311120000+0000", start="20260311120000+0000") + world.adt("A03"))
    old(file)
    first, taken = night(tmp_path, INBOX_FILE.empty())
    assert (first.events.num_rows, first.quarantined, taken.num_rows) == (1, 1, 0)
    inbox = Inbox(tmp_path, taken)
    later = NIGHT + timedelta(days=2)
    second = read_adt(inbox.messages(later), received_at=later, history=first.events)
    assert second.events["trigger"].to_pylist() == ["admit"], "its time has come"
    assert inbox.taken(second.issues, read_at=later).num_rows == 1


@pytest.mark.parametrize("form", ["table", "files", "stream"])
def test_history_gives_the_same_in_every_form(world: SimpleNamespace, tmp_path: Path, form: str) -> None:
    messages = [world.adt("A01", visit=f"V{number}", patient=str(number)) for number in range(40)]
    messages.append(world.adt("A40", patient="7", old="8"))
    parts = [world.read(*messages[:20]).events]
    parts.append(world.read(*messages[20:], history=parts[0]).events)
    for number, part in enumerate(parts):
        pq.write_table(part, tmp_path / f"{number}.parquet")
    history = {
        "table": pa.concat_tables(parts),
        "files": [tmp_path / "0.parquet", tmp_path / "1.parquet"],
        "stream": pa.concat_tables(parts).to_reader(),
    }[form]
    found = world.read(messages[3], world.adt("A03", visit="V5", patient="8"), history=history)
    assert found.duplicates == 1
    (row,) = found.events.to_pylist()
    assert (row["trigger"], row["patient_id_sent"]) == ("discharge", "7"), "the merge on record holds"


def test_of_a_history_only_what_is_concerned_becomes_rows(world: SimpleNamespace) -> None:
    history = world.read(*(world.adt("A01", visit=f"V{number}", control=f"C{number}") for number in range(30))).events
    fresh = {"facility_id": "GENERAL", "visit_number": "V7", "sending_facility": "GENERAL", "message_control_id": "C9"}
    rows = concerned(history, [fresh])
    assert [row["visit_number"] for row in rows] == [
        visit for visit in history["visit_number"].to_pylist() if visit in ("V7", "V9")
    ]
    assert concerned(history, []) == concerned(None, [fresh]) == concerned([], [fresh]) == []


def test_a_merge_holds_after_its_message_has_left_the_inbox(world: SimpleNamespace) -> None:
    merge = world.adt("A40", patient="100", old="200")
    first = world.read(merge)
    second = world.read(world.adt("A01", patient="200"), history=first.events)
    assert second.events["patient_id_sent"].to_pylist() == ["100"]
