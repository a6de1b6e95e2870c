"""Steps in threads of their own, and the two proofs that stand for reading every line by itself."""

from __future__ import annotations

import json
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange.bulk.lane import INLINE, Lane
from hiexchange.bulk.lines import PIECE, LineCheck, check_utf8, one_a_line
from hiexchange.bulk.plan import signed_until

PARTS = st.lists(
    st.sampled_from(
        [
            b"{}",
            b'{"a":1}',
            b'{"a":[{},\n{}]}',
            b'{"a":\n{}\n}',
            b"[",
            b"]",
            b"\n",
            b"\n",
            b" ",
            b"\r",
            b'"}\\n{"',
            b",",
        ]
    ),
    max_size=12,
)


@given(PARTS)
def test_one_a_line_is_what_reading_each_line_says(parts: list[bytes]) -> None:
    block = b"".join(parts) + b"\n"
    try:
        values = len(msgspec.json.Decoder(dict).decode_lines(block))
    except msgspec.DecodeError:
        return
    lines = block.split(b"\n")[:-1]
    each = [line for line in lines if line[:1] == b"{" and line[-1:] == b"}" and is_object(line)]
    found = values > 0 and len(each) == len(lines)
    assert one_a_line(block, len(block), values) == one_a_line(bytearray(block + block), len(block), values) == found


def is_object(line: bytes) -> bool:
    """Say whether a line is one JSON object, by the standard library."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


@given(st.binary(max_size=12), st.integers(PIECE - 8, PIECE + 8))
def test_pieces_are_utf8_when_the_whole_is(tail: bytes, padding: int) -> None:
    block = b"x" * padding + tail + b"y" * PIECE
    try:
        block.decode()
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            check_utf8(memoryview(block))
    else:
        check_utf8(memoryview(block))


@given(st.text(min_size=1, max_size=4), st.integers(PIECE - 6, PIECE))
def test_text_across_pieces_is_utf8(text: str, padding: int) -> None:
    check_utf8(memoryview(b"x" * padding + text.encode()))


@given(st.binary(max_size=40), st.integers(1, 9))
def test_any_cut_of_a_body_gives_the_same_counts(data: bytes, step: int) -> None:
    lines = b'{"resourceType":"Patient","id":"\xc3\xa9"}\n' + data + b'\n{"resourceType":"Patient"}'
    whole, cut = LineCheck(), LineCheck()
    together = whole.feed(lines) + whole.finish()
    apart = b"".join(cut.feed(lines[start : start + step]) for start in range(0, len(lines), step)) + cut.finish()
    assert together == apart
    assert (whole.lines, whole.rejected, whole.types) == (cut.lines, cut.rejected, cut.types)


def test_a_lane_keeps_the_order_and_starts_late() -> None:
    got: list[bytes] = []
    threads: set[str] = set()

    def work(block: bytes) -> None:
        got.append(block)
        threads.add(threading.current_thread().name)

    blocks = [bytes([number]) * (INLINE // 4) for number in range(40)]
    with Lane(work) as lane:
        for block in blocks[:4]:
            lane.put(block)
        assert threads == {threading.current_thread().name}, "a short body starts no thread"
        for block in blocks[4:]:
            lane.put(block)
    assert got == blocks and "download-lane" in threads


def test_what_goes_wrong_in_a_lane_is_raised_where_it_is_fed() -> None:
    def work(block: bytes) -> None:
        if block == b"bad":
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"), Lane(work) as lane:
        lane.put(b"x" * INLINE)
        lane.put(b"bad")
        for _ in range(1000):
            lane.put(b"good")
    with pytest.raises(ValueError, match="bad"), Lane(work) as lane:  # the very last block
        lane.put(b"x" * INLINE)
        lane.put(b"bad")
    assert not [thread for thread in threading.enumerate() if thread.name == "download-lane"]


def test_a_lane_that_is_left_by_an_error_drops_what_waits() -> None:
    begun, go_on = threading.Event(), threading.Event()
    done: list[bytes] = []

    def work(block: bytes) -> None:
        begun.set()
        go_on.wait(5)
        done.append(block)

    with pytest.raises(KeyError), Lane(work) as lane:
        go_on.set()
        lane.put(b"x" * INLINE)
        go_on.clear()
        begun.clear()
        lane.put(b"1")
        lane.put(b"2")
        begun.wait(5)
        threading.Timer(0.05, go_on.set).start()
        raise KeyError
    assert done == [b"x" * INLINE, b"1"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("X-Amz-Date=20260801T000000Z&X-Amz-Expires=3600&X-Amz-Signature=x", "2026-08-01T01:00:00+00:00"),
        ("X-Goog-Date=20260801T000000Z&X-Goog-Expires=60", "2026-08-01T00:01:00+00:00"),
        ("Expires=1785542400&Signature=x", "2026-08-01T00:00:00+00:00"),
        ("sv=2024-01-01&se=2026-08-01T00%3A00%3A00Z&sig=x", "2026-08-01T00:00:00+00:00"),
        ("expires=never", None),
        ("se=north", None),
        ("expires=99999999999999999999", None),
        ("X-Amz-Date=yesterday&X-Amz-Expires=60", None),
        ("page=2", None),
        ("", None),
    ],
)
def test_lives_of_signed_links(query: str, expected: str | None) -> None:
    found = signed_until(f"https://store.example/file?{query}")
    assert (found and found.isoformat()) == expected
