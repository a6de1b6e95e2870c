"""Bad files: encodings, headers, ragged rows, archives, declared counts."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from hiexchange.errors import ConfigError, RosterError
from hiexchange.roster import Roster

Read = Callable[..., Roster]
Codes = Callable[[Roster], list[tuple[int | None, str, str | None]]]
Line = Callable[..., str]
HEADER = "member_id,first_name,last_name,birth_on,sex,provider_npi,provider_tin,valid_from,valid_to"


def refused(read: Read, *args: Any, **given: Any) -> str:
    with pytest.raises(RosterError) as caught:
        read(*args, **given)
    rows = caught.value.issues.to_pylist()
    assert caught.value.hint
    assert len(rows) == 1
    return str(rows[0]["code"])


def test_an_absent_file_is_a_configuration_error(read: Read, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read(tmp_path / "no.csv")


def test_empty_file(read: Read) -> None:
    assert refused(read, b"") == "empty_file"


@pytest.mark.parametrize("tail", ["", "\n", "\n\n  \n"])
def test_header_only(read: Read, tail: str) -> None:
    assert refused(read, (HEADER + tail).encode()) == "no_rows"


def test_wrong_headers(read: Read) -> None:
    assert refused(read, b"a,b,c\n1,2,3\n") == "missing_column"


def test_no_provider_column(read: Read) -> None:
    assert refused(read, b"member_id,first_name\nM1,Ann\n") == "missing_column"


def test_the_same_header_twice(read: Read, rows: Line) -> None:
    text = HEADER.replace("last_name", "First Name") + "\n" + rows(1)
    assert refused(read, text.encode()) == "duplicate_header"


def test_reordered_and_respelled_headers_are_found_and_reported(
    write: Any, read: Read, rows: Line, codes: Codes
) -> None:
    before = read(rows(1))
    path = write("1234567893,Smith,M1\n", name="next.csv", header="NPI,Last Name,Member #")
    layout = {"extends": "csv", "columns": {"member_id": {"source": ["Member Id", "Member #"], "required": True}}}
    roster = read(path, layout, previous=before)
    assert roster.members["member_id"].to_pylist() == ["M1"]
    assert (None, "header_changed", None) in codes(roster)


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b"\xef\xbb\xbf"),
        ("utf-16-le", b"\xff\xfe"),
        ("utf-16-be", b"\xfe\xff"),
        ("utf-32-le", b"\xff\xfe\x00\x00"),
    ],
)
def test_marked_encodings(read: Read, rows: Line, codes: Codes, encoding: str, mark: bytes) -> None:
    text = f"{HEADER}\n{rows(1, last_name='Peña')}\n"
    roster = read(mark + text.encode(encoding))
    assert roster.members["last_name"].to_pylist() == ["Peña"]
    assert codes(roster) == []


def test_cp1252_is_read_with_a_warning(read: Read, rows: Line, codes: Codes) -> None:
    roster = read(f"{HEADER}\n{rows(1, last_name='Peña')}\n".encode("cp1252"))
    assert roster.members["last_name"].to_pylist() == ["Peña"]
    assert codes(roster) == [(None, "encoding_guessed", None)]


def test_a_stated_encoding_is_not_guessed(read: Read, rows: Line) -> None:
    data = f"{HEADER}\n{rows(1, last_name='Łuk')}\n".encode("iso-8859-2")
    layout = {"extends": "csv", "file": {"encoding": "iso-8859-2"}}
    assert read(data, layout).members["last_name"].to_pylist() == ["Łuk"]
    assert refused(read, b"\xff" + data, {"extends": "csv", "file": {"encoding": "utf-8"}}) == "encoding"


def test_mixed_line_ends_and_blank_lines(read: Read, rows: Line, codes: Codes) -> None:
    data = f"{HEADER}\r\n{rows(1)}\n{rows(2)}\r\n\r\n{rows(3)}\r{rows(4)}".encode()
    roster = read(data)
    assert roster.members["row_no"].to_pylist() == [1, 2, 3, 4]
    assert codes(roster) == []


def test_embedded_line_ends_stay_in_their_value(read: Read, rows: Line) -> None:
    roster = read("\n".join([rows(1, last_name='"Smith\r\nJones"'), rows(2)]))
    assert roster.members["last_name"].to_pylist() == ["Smith\r\nJones", "Smith2"]


def test_ragged_rows_are_refused_and_numbers_count_on(read: Read, rows: Line, codes: Codes) -> None:
    many = [rows(n) if n % 3 else "M,too,short" for n in range(1, 31)]
    roster = read("\n".join(many))
    assert [row for row, code, _ in codes(roster) if code == "ragged"] == list(range(3, 31, 3))
    assert roster.members["row_no"].to_pylist() == [n for n in range(1, 31) if n % 3]
    assert roster.members["member_id"].to_pylist() == [f"M{n:04d}" for n in range(1, 31) if n % 3]
    assert roster.counts.read == 30


def test_long_rows_are_ragged_too(read: Read, rows: Line, codes: Codes) -> None:
    assert codes(read("\n".join([rows(1), rows(2) + ",more"])))[0][:2] == (2, "ragged")


@pytest.mark.parametrize("mark", ["\t", "|", ";"])
def test_the_delimiter_is_found(read: Read, rows: Line, mark: str) -> None:
    text = f"{HEADER}\n{rows(1)}\n".replace(",", mark)
    assert read(text.encode()).counts.accepted == 1


@pytest.mark.parametrize(("layout", "mark"), [("tsv", "\t"), ("pipe", "|")])
def test_shipped_delimited_layouts(read: Read, rows: Line, layout: str, mark: str) -> None:
    assert read(f"{HEADER}\n{rows(1)}\n".replace(",", mark).encode(), layout).counts.accepted == 1


TRAILER = {"extends": "csv", "file": {"trailer": "TRL", "count_field": 2}}


@pytest.mark.parametrize(
    ("declared", "state"), [("2", "accepted"), ("1", "refused"), ("3", "refused"), ("x", "refused")]
)
def test_declared_and_counted_rows_must_agree_both_ways(
    read: Read, rows: Line, codes: Codes, declared: str, state: str
) -> None:
    roster = read(f"{rows(1)}\n{rows(2)}\nTRL,{declared}\n", TRAILER)
    assert roster.state == state
    assert (roster.counts.read, roster.counts.accepted) == (2, 2)
    assert [code for _, code, _ in codes(roster)] == ([] if state == "accepted" else ["count_mismatch"])


def test_a_missing_trailer_is_a_cut_file(read: Read, rows: Line) -> None:
    assert read(f"{rows(1)}\n{rows(2)}\n", TRAILER).state == "refused"


def test_header_after_a_preamble(read: Read, rows: Line) -> None:
    data = f"Attribution list of Payer A\ncreated 2026-02-01\n{HEADER}\n{rows(1)}\n".encode()
    assert read(data, {"extends": "csv", "file": {"header": 3}}).counts.accepted == 1


def test_no_header_columns_by_number(read: Read) -> None:
    layout = {
        "name": "numbered",
        "file": {"header": 0},
        "columns": {"member_id": {"source": "1", "required": True}, "provider_npi": "3"},
    }
    assert read(b"M1,Ann,1234567893\nM2,Bo,1234567893\n", layout).members["member_id"].to_pylist() == ["M1", "M2"]


def test_gzip(read: Read, rows: Line) -> None:
    data = gzip.compress(f"{HEADER}\n{rows(1)}\n".encode())
    assert read(data, name="roster.csv.gz").counts.accepted == 1
    assert refused(read, data[:-12], name="cut.csv.gz") == "truncated"


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_zip(read: Read, rows: Line, tmp_path: Path) -> None:
    good = f"{HEADER}\n{rows(1)}\n".encode()
    assert read(zipped(tmp_path / "one.zip", {"roster.csv": good})).counts.accepted == 1
    two = zipped(tmp_path / "two.zip", {"roster.csv": good, "readme.txt": b"hello"})
    assert refused(read, two) == "archive_member"
    assert read(two, {"extends": "csv", "file": {"member": "*.csv"}}).counts.accepted == 1


def test_a_truncated_zip(read: Read, rows: Line, tmp_path: Path) -> None:
    path = zipped(tmp_path / "one.zip", {"roster.csv": f"{HEADER}\n{rows(1)}\n".encode() * 50})
    path.write_bytes(path.read_bytes()[:-30])
    assert refused(read, path) == "truncated"


@pytest.mark.parametrize("name", ["../roster.csv", "/etc/roster.csv", "..\\roster.csv", "C:\\roster.csv"])
def test_a_path_that_leaves_the_archive(read: Read, rows: Line, tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "evil.zip", {name: f"{HEADER}\n{rows(1)}\n".encode()})
    assert refused(read, path) == "unsafe_path"


def test_a_zip_bomb(read: Read, tmp_path: Path) -> None:
    path = zipped(tmp_path / "bomb.zip", {"roster.csv": b"0" * (65 << 20)})
    assert refused(read, path) == "expansion"
    packed = tmp_path / "bomb.csv.gz"
    packed.write_bytes(gzip.compress(b"0" * (65 << 20), 1))
    assert refused(read, packed) == "expansion"


def test_a_zip_with_password(read: Read, rows: Line, tmp_path: Path) -> None:
    path = zipped(tmp_path / "secret.zip", {"roster.csv": f"{HEADER}\n{rows(1)}\n".encode()})
    data = bytearray(path.read_bytes())
    # Set the encryption flag in the local and the central header.
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))
    assert refused(read, path) == "encrypted"


def test_fixed_width(read: Read, codes: Codes) -> None:
    layout = {
        "extends": "fixed",
        "columns": {
            "member_id": {"start": 1, "width": 6, "required": True},
            "last_name": {"start": 7, "width": 10},
            "provider_npi": {"start": 17, "width": 10},
        },
    }
    data = "M00001Peña      1234567893\nM00002Short\nM00003Smith     1234567893\n".encode()
    roster = read(data, layout)
    assert roster.members["last_name"].to_pylist() == ["Peña", "Smith"]
    assert roster.members["row_no"].to_pylist() == [1, 3]
    assert codes(roster) == [(2, "ragged", None)]


def test_unverified_layouts_are_refused_until_a_person_confirms(read: Read) -> None:
    data = b"member_id|last_name\nM1|Hill\n"
    layout = {"extends": "hinfonet", "columns": {"org_id": {"constant": "site-1"}}}
    assert refused(read, data, layout) == "unverified_layout"
    assert read(data, {**layout, "verified": True}).members["org_id"].to_pylist() == ["site-1"]


def test_a_restated_year_begins_on_its_first_day(read: Read) -> None:
    layout = {"extends": "alr-1-1", "columns": {"org_id": {"constant": "aco-1"}}}
    roster = read(b"BENE_MBI_ID,BENE_1ST_NAME\n1SG4TE5MK73,Ann\n", layout)
    member = roster.members.to_pylist()[0]
    assert (member["org_id"], member["attribution_level"], member["mbi"]) == ("aco-1", "aco", "1SG4TE5MK73")
    assert (roster.authority_from, member["valid_from"]) == (date(2026, 1, 1), date(2026, 1, 1))


def test_a_quote_that_swallows_lines_refuses_the_file(read: Read, rows: Line, codes: Codes) -> None:
    # Never closed: what follows would be one ragged row, and its members dropped.
    for text in (
        [rows(1), rows(2, last_name='"Smith'), rows(3), rows(4)],
        [rows(1), rows(2, valid_to='"'), rows(3), rows(4)],
        [rows(1), rows(2, last_name='"Smith'), rows(3), rows(4, last_name='Jones"'), rows(5)],
        [rows(1), rows(2, valid_to='"'), rows(3), rows(4, valid_to='"'), rows(5)],
    ):
        roster = read("\n".join(text))
        assert roster.state == "refused"
        assert "swallowed_lines" in [code for _, code, _ in codes(roster)]


def test_quotes_that_swallow_nothing_are_no_fault(read: Read, rows: Line, codes: Codes) -> None:
    address = '"12 Elm St\nApt 4, rear, left"'
    roster = read(
        "\n".join([rows(1, last_name='O"Brien'), rows(2, last_name=address), rows(3, last_name='"Al ""Bo"" X"')])
    )
    assert codes(roster) == []
    assert roster.members["last_name"].to_pylist() == ['O"Brien', "12 Elm St\nApt 4, rear, left", 'Al "Bo" X']


def test_rows_that_all_have_a_field_too_many_are_refused_for_that(read: Read, rows: Line) -> None:
    assert refused(read, f"{rows(1)},\n{rows(2)},\n") == "ragged"


@pytest.mark.parametrize("tail", ["\x1a", "\r\n\x1a", "\x00\x00", "\n \x1a\n"])
def test_what_old_systems_put_at_the_end_is_no_row(read: Read, rows: Line, codes: Codes, tail: str) -> None:
    roster = read(f"{rows(1)}\n{rows(2)}\n{tail}")
    assert (roster.counts.read, codes(roster)) == (2, [])
    assert read(f"{rows(1)}\n{rows(2)}\nTRL,2\n{tail}", TRAILER).state == "accepted"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_its_mark_is_named(read: Read, rows: Line, encoding: str) -> None:
    data = f"{HEADER}\n{rows(1)}\n".encode(encoding)
    assert refused(read, data) == "encoding"
    assert read(data, {"extends": "csv", "file": {"encoding": encoding}}).counts.accepted == 1
