"""Read messages: segments, fields, repetitions, components, subcomponents; escapes and character sets.

The reader is lazy: a message is split into segments, a segment into fields when first asked, a field
into smaller parts only where they are read. Segments may end in CR, LF or CRLF (the standard says CR;
files saved by editors have LF, and libraries that split on CR alone then see one segment).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from hiexchange.errors import DataError

CODE = "HX-440"
NULL = '""'
"""What a sender writes to say "delete this value", apart from not sending one."""
MAX_BYTES = 16 * 1024 * 1024
"""A message larger than this is refused: an ADT message has kilobytes."""

# MSH-18 (table 0211) -> Python codec. Absent: UTF-8, and where that fails Latin-1, which never does.
CHARSETS = {
    "ASCII": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UNICODE": "utf-8",
    "UTF-8": "utf-8",
    "8859/1": "latin-1",
    "8859/15": "iso8859-15",
    "UNICODE UTF-16": "utf-16",
}
HEADERS = ("MSH", "BHS", "FHS")
"""Segments whose first two fields are the delimiters themselves."""
SEGMENT_NAME = re.compile(r"[A-Z][A-Z0-9]{2}\Z")
_ENDS = re.compile(r"\r\n|\r|\n")
_ESCAPABLE = re.compile(r"[\x00-\x1f\x7f]")
_PATH = re.compile(r"([A-Z][A-Z0-9]{2})(?:\[(\d+)\])?-(\d+)(?:\[(\d+)\])?(?:\.(\d+))?(?:\.(\d+))?\Z")


@dataclass(frozen=True, slots=True)
class Delimiters:
    """The characters of MSH-1 and MSH-2."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str = ""
    """Fifth character of MSH-2 since v2.7; empty when the sender names none."""

    @property
    def encoding_characters(self) -> str:
        """MSH-2."""
        return self.component + self.repetition + self.escape + self.subcomponent + self.truncation


STANDARD = Delimiters()


class Segment:
    """One segment; fields are numbered as in the standard (MSH-1 is the field separator)."""

    __slots__ = ("_fields", "_text", "delimiters", "name")

    def __init__(self, text: str, delimiters: Delimiters) -> None:
        self._text = text
        self.delimiters = delimiters
        self.name = text[:3]
        self._fields: list[str] | None = None

    @property
    def fields(self) -> list[str]:
        """The raw fields; index 0 is the name."""
        if self._fields is None:
            parts = self._text.split(self.delimiters.field)
            if self.name in HEADERS:
                parts.insert(1, self.delimiters.field)
            self._fields = parts
        return self._fields

    def raw(self, field: int) -> str:
        """Return a field as it was sent, or empty text."""
        fields = self.fields
        return fields[field] if field < len(fields) else ""

    def repetitions(self, field: int) -> list[str]:
        """Return the raw repetitions of a field; none when it is empty."""
        raw = self.raw(field)
        return raw.split(self.delimiters.repetition) if raw else []

    def value(self, field: int, component: int = 1, subcomponent: int = 1, *, repetition: int = 1) -> str:
        """Return one unescaped text; empty when it is absent or the HL7 null. All numbers start at 1."""
        # The hottest path of intake, forty times a message: what `raw` and `part` do, without calling them.
        fields = self._fields or self.fields
        raw = fields[field] if field < len(fields) else ""
        if not raw:
            return ""
        if field <= 2 and self.name in HEADERS:
            return raw
        marks = self.delimiters
        if repetition > 1 or marks.repetition in raw:
            raw = _nth(raw, marks.repetition, repetition)
        if component > 1 or marks.component in raw:
            raw = _nth(raw, marks.component, component)
        if subcomponent > 1 or marks.subcomponent in raw:
            raw = _nth(raw, marks.subcomponent, subcomponent)
        if marks.escape in raw:
            return unescape(raw, marks)
        return "" if raw == NULL else raw

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<{self.name} segment>"


class Message:
    """One message: its delimiters and its segments in order."""

    __slots__ = ("delimiters", "segments")

    def __init__(self, segments: list[Segment], delimiters: Delimiters) -> None:
        self.segments = segments
        self.delimiters = delimiters

    def first(self, name: str) -> Segment | None:
        """Return the first segment of that name, or None."""
        for segment in self.segments:
            if segment.name == name:
                return segment
        return None

    def all(self, name: str) -> list[Segment]:
        """Return every segment of that name, in order."""
        return [segment for segment in self.segments if segment.name == name]

    def value(self, path: str) -> str:
        """Return the text at a path such as ``PID-5.1``, ``PID-3[2].4.1`` or ``DG1[2]-3.1``.

        Raises:
            ValueError: The path is not one.
        """
        found = _PATH.match(path)
        if not found:
            raise ValueError(f"not a path into a message: {path}")
        name, nth, field, repetition, component, subcomponent = found.groups()
        segments = self.all(name)
        index = int(nth or 1) - 1
        if index >= len(segments):
            return ""
        return segments[index].value(
            int(field), int(component or 1), int(subcomponent or 1), repetition=int(repetition or 1)
        )

    @property
    def control_id(self) -> str:
        """MSH-10."""
        return self.segments[0].value(10)

    @property
    def trigger_code(self) -> str:
        """The trigger event: MSH-9.2, else EVN-1 (senders before v2.3.1 leave the former out)."""
        evn = self.first("EVN")
        return self.segments[0].value(9, 2) or (evn.value(1) if evn else "")

    def __bytes__(self) -> bytes:
        return "".join(f"{segment}\r" for segment in self.segments).encode()

    def __repr__(self) -> str:
        return f"<HL7 v2 message of {len(self.segments)} segments>"


def parse(data: bytes | str) -> Message:
    """Return the message in ``data``; a byte-order mark and MLLP framing are passed over.

    Raises:
        DataError: It does not begin with MSH, its delimiters are not usable, a line is no segment, or
            it is larger than :data:`MAX_BYTES`. The text says where, never what.
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"an HL7 v2 message has {len(data):,} bytes, more than {MAX_BYTES:,}", code=CODE)
    text = data if isinstance(data, str) else decode(data)
    text = text.lstrip("\ufeff\x0b\r\n \t").rstrip("\x1c\r\n \t")
    delimiters = _delimiters(text)
    separator = delimiters.field
    segments = []
    lines = text.split("\r") if "\n" not in text else _ENDS.split(text)
    for number, line in enumerate(lines, 1):
        if not line or line.isspace():
            continue
        name = line[:3]
        if not SEGMENT_NAME.match(name) or (len(line) > 3 and line[3] != separator):
            raise DataError(
                f"line {number:,} of an HL7 v2 message is no segment",
                hint="a line break inside a field must be sent as \\.br\\ or \\X0D\\",
                code=CODE,
            )
        segments.append(Segment(line, delimiters))
    return Message(segments, delimiters)


def split(data: bytes) -> Iterator[bytes]:
    """Yield the messages of a file: one, several after each other, MLLP-framed, or in FHS/BHS envelopes."""
    body = data.removeprefix(b"\xef\xbb\xbf").replace(b"\x0b", b"").replace(b"\x1c", b"")
    starts = [found.start(1) for found in re.finditer(rb"(?:^|[\r\n])(MSH)", body)]
    if not starts:
        if body.strip():
            yield body  # parse says what is wrong with it
        return
    for begin, end in zip(starts, [*starts[1:], len(body)], strict=True):
        message = body[begin:end]
        tail = re.search(rb"[\r\n](?:BHS|BTS|FTS|FHS)", message)
        yield message[: tail.start()] if tail else message


def decode(data: bytes) -> str:
    """Return the text of a message in the character set it names in MSH-18."""
    head = data[:2000].lstrip(b"\xef\xbb\xbf\x0b\r\n \t")
    named = ""
    if head[:3] == b"MSH" and len(head) > 4:
        fields = re.split(rb"[\r\n]", head, maxsplit=1)[0].split(head[3:4])
        if len(fields) > 17:
            named = fields[17].split(b"~")[0].decode("ascii", "replace").strip().upper()
    try:
        return data.decode(CHARSETS.get(named, "utf-8"))
    except UnicodeDecodeError:
        return data.decode("latin-1")


def part(text: str, component: int = 1, subcomponent: int = 1, *, delimiters: Delimiters = STANDARD) -> str:
    """Return one component of a raw repetition, unescaped; empty for the HL7 null."""
    if component > 1 or delimiters.component in text:
        text = _nth(text, delimiters.component, component)
    if subcomponent > 1 or delimiters.subcomponent in text:
        text = _nth(text, delimiters.subcomponent, subcomponent)
    if text == NULL:
        return ""
    return unescape(text, delimiters)


def escape(text: str, delimiters: Delimiters = STANDARD) -> str:
    r"""Return text in which no delimiter and no control character is left (``\F\``, ``\X0D\`` ...)."""
    mark = delimiters.escape
    if mark in text:
        text = text.replace(mark, f"{mark}E{mark}")
    for letter, char in _letters(delimiters):
        if char in text:
            text = text.replace(char, f"{mark}{letter}{mark}")
    return _ESCAPABLE.sub(lambda found: f"{mark}X{ord(found.group()):02X}{mark}", text)


def unescape(text: str, delimiters: Delimiters = STANDARD) -> str:
    r"""Return text with its escape sequences resolved.

    ``\.br\`` becomes a line feed, highlighting (``\H\``, ``\N\``) goes, ``\Xhh..\`` is read as UTF-8 or,
    where it is none, Latin-1. What is no known sequence stays as it was sent.
    """
    mark = delimiters.escape
    if mark not in text:
        return text
    pieces = text.split(mark)
    letters = {**dict(_letters(delimiters)), "E": mark}
    out = [pieces[0]]
    index = 1
    while index < len(pieces):
        if index + 1 < len(pieces):
            resolved = _sequence(pieces[index], letters)
            if resolved is not None:
                out += (resolved, pieces[index + 1])
                index += 2
                continue
        out += (mark, pieces[index])
        index += 1
    return "".join(out)


def _delimiters(text: str) -> Delimiters:
    if not text.startswith("MSH") or len(text) < 8:
        raise DataError("an HL7 v2 message must begin with MSH", code=CODE)
    separator = text[3]
    end = text.find(separator, 4)
    return _marks(separator, text[4:end] if end > 0 else text[4:8])


@functools.lru_cache(maxsize=64)
def _marks(separator: str, encoding: str) -> Delimiters:
    if not 1 <= len(encoding) <= 5:
        raise DataError("MSH-2 of an HL7 v2 message is not four delimiters", code=CODE)
    # v2 before 2.3 and small senders give fewer: the standard characters stand in, if still free.
    marks = [*encoding, *"^~\\&"[len(encoding) :]]
    chars = [separator, *marks]
    if len(set(chars)) != len(chars) or any(char.isalnum() or char in '\r\n "' for char in chars):
        raise DataError("the delimiters of an HL7 v2 message are not distinct", code=CODE)
    return Delimiters(separator, marks[0], marks[1], marks[2], marks[3], marks[4] if len(marks) > 4 else "")


def _letters(delimiters: Delimiters) -> list[tuple[str, str]]:
    pairs = [
        ("F", delimiters.field),
        ("S", delimiters.component),
        ("T", delimiters.subcomponent),
        ("R", delimiters.repetition),
    ]
    return [*pairs, ("P", delimiters.truncation)] if delimiters.truncation else pairs


def _sequence(body: str, letters: dict[str, str]) -> str | None:
    if body in letters:
        return letters[body]
    if body in ("H", "N"):
        return ""
    if body in (".br", ".sp", ".ce"):
        return "\n"
    if body[:1] in ("X", "x") and len(body) > 1:
        try:
            raw = bytes.fromhex(body[1:])
        except ValueError:
            return None
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw.decode("latin-1")
    return None


def _nth(text: str, mark: str, number: int) -> str:
    parts = text.split(mark, number)
    return parts[number - 1] if number <= len(parts) else ""
