"""The journal: what was written is read back; a torn tail is cut, damage elsewhere is refused."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiexchange.bulk.journal import Entry, Journal, encode_entry, read_entries
from hiexchange.bulk.result import FileReceipt
from hiexchange.errors import JournalCorrupt

VALUES = st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=20), max_size=3)
RECEIPT = FileReceipt(
    "output/Patient.00001.ndjson", "output", "Patient", "0" * 64, wire_bytes=9, plain_bytes=9, stored_bytes=9, lines=3,
    resources=3, sha256="1" * 64, verified=("parse", "count"), types={"Patient": 3},
)  # fmt: skip
PAGE = {"page": 1, "url": "https://fhir.example/1", "next": []}


def decode_entries(data: bytes) -> tuple[list[Entry], int]:
    """Return all entries of a journal, and how many bytes they fill."""
    found = list(read_entries(io.BytesIO(data)))
    return [entry for entry, _ in found], found[-1][1] if found else 0


def written(path: Path) -> bytes:
    """Return the bytes of a short job's journal."""
    journal = Journal(path)
    journal.write("intent", method="GET", attempt=1)
    journal.write("accepted", status_url="https://fhir.example/jobs/1", separate_status=False)
    journal.write("page", **PAGE)
    journal.write("complete")
    journal.write("verified", **RECEIPT.to_data())
    journal.close()
    return path.read_bytes()


def test_a_torn_tail_is_cut_at_every_byte(tmp_path: Path) -> None:
    data = written(tmp_path / "journal.ndjson")
    whole = [len(b"".join(data.splitlines(keepends=True)[:count])) for count in range(6)]
    for cut in range(len(data) + 1):
        path = tmp_path / "torn.ndjson"
        path.write_bytes(data[:cut])
        journal = Journal(path)
        complete = max(end for end in whole if end <= cut)
        journal.write("warned", message="after the tear")
        journal.close()
        entries, good = decode_entries(path.read_bytes())
        assert good == path.stat().st_size
        assert len(entries) == whole.index(complete) + 1 and entries[-1].event == "warned"


def test_a_flipped_bit_before_the_last_line_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "journal.ndjson")
    last = data.rstrip(b"\n").rfind(b"\n") + 1
    for place in range(0, last, 7):
        broken = bytearray(data)
        broken[place] ^= 1
        with pytest.raises(JournalCorrupt):
            decode_entries(bytes(broken))


def test_a_missing_line_is_refused(tmp_path: Path) -> None:
    lines = written(tmp_path / "journal.ndjson").splitlines(keepends=True)
    with pytest.raises(JournalCorrupt):
        decode_entries(b"".join([*lines[:1], *lines[2:]]))


@given(st.lists(st.tuples(st.text(min_size=1, max_size=10), VALUES), max_size=12), st.data())
def test_replay_of_any_prefix(events: list[tuple[str, dict[str, object]]], data: st.DataObject) -> None:
    entries = [
        Entry(number, "2026-01-01T00:00:00+00:00", event, value) for number, (event, value) in enumerate(events, 1)
    ]
    lines = [encode_entry(entry) for entry in entries]
    joined = b"".join(lines)
    cut = data.draw(st.integers(0, len(joined)))
    found, good = decode_entries(joined[:cut])
    assert found == entries[: len(found)]
    assert good == sum(len(line) for line in lines[: len(found)]) <= cut


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_are_a_journal_or_corrupt(tmp_path: Path, data: bytes) -> None:
    try:
        entries, good = decode_entries(data)
    except JournalCorrupt:
        return
    assert entries == [] and good == 0


def test_state_adds_up(tmp_path: Path) -> None:
    written(tmp_path / "journal.ndjson")
    state = Journal(tmp_path / "journal.ndjson").state
    assert (state.phase, state.status_url) == ("complete", "https://fhir.example/jobs/1")
    assert list(state.files) == ["output/Patient.00001.ndjson"] and state.pages == {1: "https://fhir.example/1"}
    assert not state.interrupted
    assert state.files[RECEIPT.file] == RECEIPT
