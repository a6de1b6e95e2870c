"""Windows of whole lines: nothing lost, nothing twice, counted as the lake counts."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange.lake.cut import blocks
from hiexchange.views import window
from hiexchange.views.window import windows


class Trickle(io.BytesIO):
    """Gives a few bytes at a time, as a compressed stream may."""

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return super().readinto(buffer[:3])


@given(st.text("ab\n\ufeff", max_size=60).map(str.encode), st.integers(1, 20), st.sampled_from([io.BytesIO, Trickle]))
def test_windows_are_the_lines_of_the_file(data: bytes, size: int, stream: type[io.BytesIO]) -> None:
    found = [(bytes(item.data), item.line, item.offset, item.lines) for item in windows(stream(data), bytearray(size))]
    mark = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    assert b"".join(text for text, *_ in found) == data[mark:]
    offset, line = mark, 1
    for text, *place, lines in found:
        assert place == [line, offset]
        assert lines == len(text.split(b"\n")) - text.endswith(b"\n")
        line, offset = line + lines, offset + len(text)
    assert all(text.endswith(b"\n") for text, *_ in found[:-1])
    assert sum(len(item.data) for item in blocks(io.BytesIO(data))) == offset - mark


def test_a_line_above_the_limit_is_the_last_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "MAX_LINE", 50)
    given = windows(io.BytesIO(b"a\n" + b"b" * 200 + b"\nc\n"), bytearray(8))
    first = next(given)
    assert (bytes(first.data), first.too_long) == (b"a\n", False)
    (last,) = given
    assert (last.line, last.offset, last.too_long, last.block().too_long) == (2, 2, True, True)


@pytest.mark.parametrize("text", [b"\xff", b"\xed\xa0\x80", b"\xc3", b"\xc0\x80"])
def test_what_is_no_utf8_is_refused(text: bytes) -> None:
    (found,) = windows(io.BytesIO("{}é\n".encode() + text), bytearray(99))
    with pytest.raises(pa.ArrowInvalid):
        found.check()
