"""Break one line at every byte: its neighbours' rows stay what they are, and no row is all null.

A native encoder once gave the next record the list items of a line broken inside a list: one patient's
data in another's record. So the whole block is compared, not only the number of rows.
"""

from __future__ import annotations

import json

import pytest

BEFORE = b'{"resourceType":"Patient","id":"-1","active":true,"name":[{"family":"A","given":["B","C"]}],"meta":{"tag":[{"code":"t"}]}}'
AFTER = b'{"resourceType":"Patient","id":"-3","active":false,"multipleBirthInteger":2}'
LAST = b'{"resourceType":"Patient","id":"-4"}'
VICTIM = (
    b'{"resourceType":"Patient","id":"-2","active":true,"multipleBirthInteger":12,'
    b'"name":[{"family":"D\\"e\\\\","given":["E","\\u00e9"]},{"text":"F"}],'
    b'"extension":[{"url":"u","valueDecimal":1.50},{"url":"v","extension":[{"url":"w","valueBoolean":false}]}],'
    b'"_birthDate":{"extension":[{"url":"x","valueDateTime":"2020-01-01"}]},"contained":[{"resourceType":"Basic"}]}'
)
INSERTED = (b'"', b"{", b"]", b"\\", b"\xff", b",", b"0", b"}")


def breaks(step):
    for place in range(0, len(VICTIM), step):
        head, tail = VICTIM[:place], VICTIM[place + 1 :]
        yield head
        yield head + tail
        yield head + bytes([VICTIM[place] ^ 0x01]) + tail
        yield head + bytes([VICTIM[place] ^ 0x80]) + tail
        yield head + INSERTED[place % len(INSERTED)] + VICTIM[place:]


def alone(line, encoded, restored):
    (text,) = restored(encoded(line + b"\n", "Patient").batch, "Patient")
    return text


@pytest.mark.parametrize("fast", [True, False])
def test_a_line_broken_at_every_byte_changes_no_other_row(fast, encoded, restored):
    neighbours = {line: alone(line, encoded, restored) for line in (BEFORE, AFTER, LAST)}
    shape = encoded(BEFORE + b"\n" + VICTIM + b"\n" + AFTER, "Patient").shape
    accepted = 0
    for broken in breaks(1 if fast else 3):
        if b"\n" in broken:
            continue  # flipping a bit of 0x0b could make one; none of the bytes here can
        text = b"\n".join([BEFORE, broken, AFTER, LAST]) + b"\n"
        result = encoded(text, "Patient", shape=shape, fast=fast)
        rows = dict(zip(result.batch["__hx_line"].to_pylist(), restored(result.batch, "Patient"), strict=True))
        assert rows.pop(1) == neighbours[BEFORE]
        assert rows.pop(3) == neighbours[AFTER]
        assert rows.pop(4) == neighbours[LAST]
        if rows:
            accepted += 1
            assert not result.rejects
            assert json.loads(rows[2]) == json.loads(broken)
            assert len(json.loads(rows[2])) > 1
        else:
            assert broken == b"" or [bad.line for bad in result.rejects] == [2]
    assert accepted > 50  # a flipped letter in a text is a legal line


@pytest.mark.parametrize("place", range(0, len(VICTIM), 7))
def test_a_broken_line_at_the_edge_of_a_block_changes_nothing(place, encoded, restored):
    for text in (VICTIM[:place] + b"\n" + LAST, LAST + b"\n" + VICTIM[:place]):
        result = encoded(text, "Patient")
        assert restored(result.batch, "Patient")[-1 if text.endswith(LAST) else 0] == alone(LAST, encoded, restored)
        assert result.batch.num_rows + len(result.rejects) == result.lines
