"""Real lines, spoilt at a member, a value or a byte: the fast path says of each what the exact path says.

The counts of the proof could be fooled by two faults that cancel each other out, so lines get several at once.
"""

# ruff: noqa: E501  (lists of odd spellings are whole)

from __future__ import annotations

import random
import re

import pytest

MEMBER = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*')
NUMBERS = b"1 -1 0 -0 0.0 -0.0 1.50 100 1e3 1E+2 1.0E-2 1e400 -1e-400 2147483647 2147483648 -2147483649 9223372036854775808 12345678901234567890123456789012345678901234567890 01 -01 +1 .5 5. 1.e3 1e 0x10 - -- 1-2 1.2.3 NaN -NaN nan Infinity -Infinity inf 1_000 1,5".split()  # fmt: skip
WORDS = b'true false null True None undefined {} [] [[]] [{}] [null] [null,null] {"a":1} {"id":"x"} [1] ["a"] [["a"]] [[{"id":"x"}]] [{"id":"x"},null] ["a",1] "" "a" "1.50" "true" "null" "{}" "[]" "[\\"a\\"]" "\\u0000" "\\ud800" "\\udc00\\ud800" "\\ud83d\\ude00" "\\"" "\\\\" "a\\":1" "x\\":[" "\\\\\\":" \'a\' a "a "a\x00b" "a\tb" "\xff" "\xc3" "\xed\xa0\x80" "\xf4\x90\x80\x80" "\xe2\x80\xa8" "\\x" "\\u12" {"a":1,} [1,] [,] {,} {"id":"x""id":"y"} /**/1 //1 #1'.split()  # fmt: skip
NAMES = b'id value resourceType contained extension _value \x7fue "" text a b.c a/b~c va\\u006cue resource\\u0054ype \\u0069d con\\u0074ained value\\u0000 Value VALUE valueString valueDecimal valueQuantity meta\\\\ \\"'.split()  # fmt: skip
GLUE = [b"", b" ", b"  ", b"\t", b"\r", b"\x0b", b"\x0c", b"\xa0", b"\x00", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b",", b"}", b"]", b"}{", b"{", b"[", b'"', b"\\", b":", b"/**/", b"//", b"#", b"'", b"\x7f", b"\x7fue"]  # fmt: skip


class Spoiler:
    """Spoils lines; the same seed spoils them the same way."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def line(self, line: bytes, others: list[bytes]) -> bytes:
        for _ in range(self.random.choice((0, 1, 1, 1, 2, 2, 3, 5))):
            act = self.random.choice((self.value, self.value, self.number, self.name, self.twice, self.moved, self.glued, self.byte, self.cut, self.blanks))  # fmt: skip
            line = act(line, others)
        return line.replace(b"\n", b" ")

    def member(self, line: bytes) -> tuple[int, int, int] | None:
        """Return where a name starts, where its value starts and ends."""
        found = list(MEMBER.finditer(line))
        if not found:
            return None
        match = self.random.choice(found)
        return match.start(), match.end(), value_end(line, match.end())

    def value(self, line: bytes, others: list[bytes]) -> bytes:
        place = self.member(line)
        new = self.random.choice(WORDS + NUMBERS)
        return line[: place[1]] + new + line[place[2] :] if place else line

    def number(self, line: bytes, others: list[bytes]) -> bytes:
        numbers = list(re.finditer(rb'(?<=":)-?[0-9][0-9.eE+-]*', line))
        if not numbers:
            return line
        match = self.random.choice(numbers)
        return line[: match.start()] + self.random.choice(NUMBERS) + line[match.end() :]

    def name(self, line: bytes, others: list[bytes]) -> bytes:
        place = self.member(line)
        new = self.random.choice(NAMES)
        return line[: place[0]] + b'"' + new + b'":' + line[place[1] :] if place else line

    def twice(self, line: bytes, others: list[bytes]) -> bytes:
        place = self.member(line)
        if place is None:
            return line
        copy = line[place[0] : place[2]] if self.random.random() < 0.7 else line[place[0] : place[1]] + b"5"
        return line[: place[0]] + copy + b"," + line[place[0] :]

    def moved(self, line: bytes, others: list[bytes]) -> bytes:
        """Put a member of this line or another into some object."""
        source = self.random.choice([line, *others])
        place, target = self.member(source), self.member(line)
        if place is None or target is None:
            return line
        return line[: target[0]] + source[place[0] : place[2]] + b"," + line[target[0] :]

    def glued(self, line: bytes, others: list[bytes]) -> bytes:
        place = self.random.choice((0, len(line), *(match.start() for match in re.finditer(rb'[{}\[\],:"]', line))))
        return line[:place] + self.random.choice(GLUE) + line[place:]

    def byte(self, line: bytes, others: list[bytes]) -> bytes:
        if not line:
            return line
        place = self.random.randrange(len(line))
        new = self.random.choice((b"", bytes([line[place] ^ 1 << self.random.randrange(8)]), b'"', b"\\", b","))
        return line[:place] + new + line[place + 1 :]

    def cut(self, line: bytes, others: list[bytes]) -> bytes:
        act = self.random.randrange(4)
        if act == 0:
            return line[: self.random.randrange(len(line) + 1)]
        if act == 1:
            return line + self.random.choice(others)
        if act == 2:
            deep = self.random.choice((5, 40, 1200))
            return line[:-1] + b',"extension":[' * deep + b"]" * deep + b"}"
        place = self.member(line)
        return line[: place[0]] + line[place[2] :].removeprefix(b",") if place else line

    def blanks(self, line: bytes, others: list[bytes]) -> bytes:
        blank = self.random.choice((b" ", b"  ", b"\t", b"\r", b" \t"))
        return re.sub(
            rb'(?<=["\]}el0-9])[,:](?=["\[{0-9tfn-])',
            lambda match: blank + match[0] + blank if self.random.random() < 0.3 else match[0],
            line,
        )


def value_end(line: bytes, start: int) -> int:
    """Return where the JSON value ends that starts here."""
    depth, text, place = 0, False, start
    while place < len(line):
        code = line[place : place + 1]
        if text:
            place += code == b"\\"
            text = code != b'"'
        elif code == b'"':
            text = True
        elif code in b"{[":
            depth += 1
        elif code in b"}],":
            if depth == 0:
                return place
            depth -= code != b","
        place += 1
    return len(line)


def differences(fast, slow) -> str:
    """Say in what two encodings differ; empty when in nothing."""
    if not fast.batch.schema.equals(slow.batch.schema, check_metadata=True):
        return "schema"
    if not fast.batch.equals(slow.batch):
        return "rows"
    if fast.shape != slow.shape or fast.unmapped != slow.unmapped:
        return "shape or unmapped"
    left, right = ([(bad.line, bad.offset, bad.length, bad.reason) for bad in one.rejects] for one in (fast, slow))
    return "" if left == right else f"rejects {left} {right}"


def block(seed: int, lines: list[bytes]) -> bytes:
    """Return a few lines, most of them spoilt."""
    spoiler = Spoiler(seed)
    chosen = [spoiler.random.choice(lines) for _ in range(6)]
    spoilt = [line if index in (0, 3) else spoiler.line(line, lines[:20]) for index, line in enumerate(chosen)]
    return spoiler.random.choice((b"\n", b"\n", b"\n", b"\r\n", b"\n\n")).join(spoilt) + spoiler.random.choice((b"\n", b""))  # fmt: skip


CANCELLING = [
    # A blank before the colon hides a name; a number that becomes a text and a lost member make up for it.
    b'{"resourceType":"Patient","id" :5,"foo":true}',
    b'{"resourceType":"Patient","id"\t:{"a":1}}',
    b'{"resourceType":"Patient","id"\r\t :5,"foo":[]}',
    b'{"resourceType":"Patient","id" : 5,"id":true}',
    b'{"resourceType":"Patient","gender":7,"id":"x","a":"b"}',
    b'{"resourceType":"Patient","gender":7,"id":":x","foo":true}',
    b'{"resourceType":"Patient","gender":7,"id":":[","foo":[]}',
    b'{"resourceType":"Patient","gender":["b"],"id":"x","name":{"given":["a"]}}',
    b'{"resourceType":"Patient","gender":["b"],"name":[{"given":":["}],"id":"x"}',
    b'{"resourceType":"Patient","name":[{"given":[5,"a"]}],"id":"x","foo":"y"}',
    b'{"resourceType":"Patient","name":[{"given":[{}]}],"id":"\\":","foo":1}',
    b'{"resourceType":"Patient","multipleBirthInteger":"5","id":7}',
    b'{"resourceType":"Patient","id":"x","birthDate":"a" "b"}',
    b'{"resourceType":"Patient","id":"x",}',
    b'{"resourceType":"Patient","id":"x" , }',
    b'{"resourceType":"Patient","name":[{"given":["a", ]}],"id":"x"}',
    b'{"resourceType":"Patient","name":[{"given":["a"],"text":",}"}],"id":", ]"}',
    b'{"resourceType":"Patient","id":"x"}{"resourceType":"Patient","id":"y"}',
    # DuckDB cuts such a line in its message, here in the middle of a character.
    b'{"resourceType":"Patient","id":"' + "é".encode() * 40 + b'\x01"}',
    b'{"resourceType":"Patient","id":"a' + "é".encode() * 40 + b'\x01"}',
]


@pytest.mark.parametrize("line", CANCELLING)
def test_faults_that_cancel_each_other_out_are_seen(line, encoded):
    plain = (
        b'{"resourceType":"Patient","id":"1","active":true,"gender":"a","birthDate":"1970","multipleBirthInteger":2,'
        b'"name":[{"text":"n","given":["g","h"]}]}'
    )
    shape = encoded(plain, "Patient").shape
    text = b"\n".join([plain, line, plain, line])
    fast, slow = encoded(text, "Patient", shape=shape), encoded(text, "Patient", shape=shape, fast=False)
    assert not differences(fast, slow)
    assert fast.slow_lines <= 2


@pytest.mark.parametrize("name", ["Patient", "Observation", "ExplanationOfBenefit", "Questionnaire", "Parameters"])
def test_paths_agree_on_spoilt_lines(name, maker, as_lines, encoded):
    lines = as_lines([maker(seed).resource(name) for seed in range(30)]).split(b"\n")[:-1]
    shape = encoded(b"\n".join(lines), name).shape
    for seed in range(6):
        text = block(seed, lines)
        given = shape if seed % 2 else {}
        fast, slow = encoded(text, name, shape=given), encoded(text, name, shape=given, fast=False)
        assert not differences(fast, slow), seed
        fast.batch.validate(full=True)
