"""Decoding and line checks: any split of the bytes gives the same result."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hiexchange.bulk.decode import BodyDecoder, Broken
from hiexchange.bulk.lines import LineCheck

RESOURCE = st.builds(
    lambda name, text: json.dumps({"resourceType": name, "text": text}, ensure_ascii=False).encode(),
    st.sampled_from(["Patient", "Encounter"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
ODD = st.sampled_from(
    [b"", b"\r", b"  ", b"{bad", b"[1]", b"\xff", b'{"resourceType":"Patient"}{"resourceType":"Patient"}', b"\0\0"]
)


def decode(body: bytes, cuts: list[int], coding: str) -> bytes:
    decoder = BodyDecoder(coding)
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    found = [piece for start, end in itertools.pairwise(places) for piece in decoder.feed(body[start:end])]
    return b"".join([*found, *decoder.finish()])


@example(b"", [12], 2)  # the inflater gives the first byte of the inner magic alone
@example(b"", [], 1)
@settings(suppress_health_check=[HealthCheck.too_slow])  # on a machine with other work
@given(st.binary(max_size=300), st.lists(st.integers(0, 400)), st.integers(0, 2))
def test_gzip_in_any_pieces(data: bytes, cuts: list[int], layers: int) -> None:
    body = b"x" + data
    for _ in range(layers):
        body = gzip.compress(body)
    assert decode(body, cuts, "gzip") == b"x" + data


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.lists(st.integers(0, 300)))
def test_members_are_joined(parts: list[bytes], cuts: list[int]) -> None:
    parts[0] = b"x" + parts[0]  # what begins like gzip is taken to be compressed twice
    assert decode(b"".join(gzip.compress(part) for part in parts), cuts, "gzip") == b"".join(parts)


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_cut_gzip_body_is_never_taken_as_whole(data: bytes, pick: st.DataObject) -> None:
    body = gzip.compress(b"x" + data)
    cut = pick.draw(st.integers(2, len(body) - 1))
    with pytest.raises(Broken):
        decode(body[:cut], [], "gzip")


def test_deflate_both_ways_and_unknown_codings() -> None:
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    assert decode(zlib.compress(b"text"), [3], "deflate") == b"text"
    assert decode(raw.compress(b"text" * 50) + raw.flush(), [], "deflate") == b"text" * 50
    with pytest.raises(Broken):
        BodyDecoder("zstd")
    with pytest.raises(Broken):
        decode(gzip.compress(gzip.compress(gzip.compress(b"x" * 9))), [], "gzip")


def check(body: bytes, cuts: list[int]) -> tuple[bytes, LineCheck]:
    lines = LineCheck()
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    out = b"".join(lines.feed(body[start:end]) for start, end in itertools.pairwise(places))
    return out + lines.finish(), lines


@given(st.lists(RESOURCE | ODD, max_size=20), st.lists(st.integers(0, 2000)), st.booleans())
def test_lines_in_any_pieces(parts: list[bytes], cuts: list[int], ended: bool) -> None:
    body = b"\n".join(parts) + (b"\n" if ended else b"")
    whole, once = check(body, [])
    pieces, again = check(body, cuts)
    assert (whole, once.lines, once.types) == (pieces, again.lines, again.types)
    assert [reject.offset for reject in once.rejects] == [reject.offset for reject in again.rejects]
    kept = [line for line in whole.split(b"\n") if line]
    assert len(kept) == once.lines and all(json.loads(line)["resourceType"] in once.types for line in kept)


@given(st.lists(RESOURCE, min_size=1, max_size=20))
def test_clean_lines_pass_unchanged(parts: list[bytes]) -> None:
    body = b"\n".join(parts) + b"\n"
    out, lines = check(body, [])
    assert out == body and lines.lines == len(parts) and not lines.rejected and not lines.notes


def test_rejects_say_where() -> None:
    _, lines = check(b'{"resourceType":"Patient"}\nbad\n{"resourceType":"Patient"}\n', [])
    assert [(reject.line, reject.offset) for reject in lines.rejects] == [(2, 27)]


def test_last_updated_is_kept_when_wanted() -> None:
    lines = LineCheck(dated=True)
    for time in ("2026-02-01", "2026-01-01"):
        lines.feed(json.dumps({"resourceType": "Patient", "meta": {"lastUpdated": time}}).encode() + b"\n")
    lines.feed(b'{"resourceType":"Patient","meta":7}\n')
    lines.finish()
    assert (lines.oldest, lines.newest, lines.lines) == ("2026-01-01", "2026-02-01", 3)


def test_two_values_on_a_line_are_refused_beside_a_blank_line() -> None:
    double = b'{"resourceType":"Patient"}{"resourceType":"Patient"}'
    for body in (b"\n" + double + b"\n", double + b"\n  \n", double + b"\n\n"):
        out, lines = check(body, [])
        assert (out, lines.lines, lines.rejected) == (b"", 0, 1)
