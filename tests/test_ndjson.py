"""NDJSON: split on line feeds only, exact, with errors that say where."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import ndjson as peer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange import ndjson
from hiexchange.errors import BadLine

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=6))
def test_what_is_dumped_is_loaded_again(values: list[object]) -> None:
    assert ndjson.loads(ndjson.dumps(values)) == values


@given(st.lists(st.dictionaries(st.text(alphabet="abcé"), st.integers() | st.text(alphabet="xyz ")), max_size=5))
def test_agrees_with_the_ndjson_package_on_plain_data(values: list[object]) -> None:
    assert ndjson.loads(peer.dumps(values) if values else "") == values


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\x0b", "\x1c"])
def test_keeps_line_marks_inside_strings_that_the_ndjson_package_turns_into_commas(mark: str) -> None:
    line = json.dumps({"note": f"a{mark}b"}, ensure_ascii=False)
    if mark >= "\x20":
        assert ndjson.loads(line) == [{"note": f"a{mark}b"}]
        with_comma = peer.loads(line)
        assert with_comma != [{"note": f"a{mark}b"}], "the oracle's corruption has gone: drop this test"
    else:
        assert ndjson.loads(line) == [{"note": f"a{mark}b"}]


def test_blank_lines_bom_crlf_and_missing_last_newline_are_accepted() -> None:
    assert ndjson.loads(b'\xef\xbb\xbf{"a":1}\r\n\r\n\n{"a":2}') == [{"a": 1}, {"a": 2}]


def test_error_names_file_line_and_byte_offset_but_not_the_content() -> None:
    with pytest.raises(BadLine) as caught:
        ndjson.loads(b'{"a":1}\n{"name":"Secretsson"\n', name="3.Patient.ndjson")
    assert (caught.value.line, caught.value.offset) == (2, 8)
    assert "3.Patient.ndjson line 2 (byte 8)" in str(caught.value)
    assert "Secretsson" not in str(caught.value)


def test_invalid_utf8_is_an_error_without_the_bytes() -> None:
    with pytest.raises(BadLine) as caught:
        ndjson.loads(b'{"a":"\xff\xfe"}\n')
    assert caught.value.line == 1


def test_gzip_is_known_by_its_magic(tmp_path: Path) -> None:
    path = tmp_path / "Patient.ndjson"
    path.write_bytes(gzip.compress(b'{"a":1.50}\n'))
    assert ndjson.load(path, decimals=str) == [{"a": "1.50"}]


def test_dump_counts_lines() -> None:
    file = io.BytesIO()
    assert ndjson.dump([{"a": 1}, {"a": 2}], file) == 2
    assert file.getvalue() == b'{"a":1}\n{"a":2}\n'
