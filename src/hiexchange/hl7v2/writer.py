"""Write messages and acknowledgements; read acknowledgements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from hiexchange.errors import DataError
from hiexchange.hl7v2.reader import CODE, NULL, SEGMENT_NAME, STANDARD, Delimiters, Message, escape, parse, part

Subcomponents = tuple[str | None, ...]
Components = tuple[str | Subcomponents | None, ...]
Value = str | Components | list[str | Components] | None
"""What the writer takes for a field: text, a tuple of components (each text or a tuple of
subcomponents), or a list of repetitions."""


def write(segments: Iterable[Sequence[Value]], delimiters: Delimiters = STANDARD) -> bytes:
    """Return a message as bytes, each segment ended by CR.

    Args:
        segments: Each a name and its field values from field 1 on; for MSH from field 3 on, since MSH-1
            and MSH-2 are the delimiters. Trailing empty fields are not written. Text is escaped.

    Raises:
        ValueError: The first segment is not MSH, or a name is no segment name.
    """
    lines = []
    for name, *values in segments:
        if not isinstance(name, str) or not SEGMENT_NAME.match(name):
            raise ValueError("a segment starts with its name")
        fields = [_field(value, delimiters) for value in values]
        while fields and not fields[-1]:
            fields.pop()
        if name == "MSH":
            fields.insert(0, delimiters.encoding_characters)
        lines.append(delimiters.field.join((name, *fields)))
    if not lines or not lines[0].startswith("MSH"):
        raise ValueError("a message starts with MSH")
    return ("\r".join(lines) + "\r").encode()


def dtm(instant: datetime) -> str:
    """Return an aware instant as HL7 DTM with seconds and offset: ``20260302150000+0000``.

    Raises:
        ValueError: The instant has no offset: a receiver would have to guess.
    """
    if instant.utcoffset() is None:
        raise ValueError("an instant without offset cannot be written")
    return instant.strftime("%Y%m%d%H%M%S%z")[:19]


@dataclass(frozen=True, slots=True)
class Ack:
    """An acknowledgement: MSA-1, MSA-2, and ERR-3 or MSA-3 as a short code."""

    code: str
    """AA, AE, AR (or CA, CE, CR in enhanced mode)."""
    control_id: str
    """MSH-10 of the message it answers: a late ACK is told from the right one by this alone."""
    error_code: str = ""
    """ERR-3.1 (table 0357), where given."""

    @property
    def accepted(self) -> bool:
        """Whether the message was taken."""
        return self.code in ("AA", "CA")


def ack(
    message: Message | None, code: str, *, now: datetime, control_id: str, error_code: str = "", text: str = ""
) -> bytes:
    """Return the ACK for a message: sender and receiver swapped, MSA-2 = its MSH-10.

    Args:
        message: What is answered; None when it could not be read at all.
        code: AA, AE or AR.
        now: Time of the answer (aware).
        control_id: MSH-10 of the ACK itself.
        error_code: HL7 table 0357, e.g. ``101`` required field missing.
        text: A short reason for MSA-3; never patient data.
    """
    marks = message.delimiters if message else STANDARD
    header = message.segments[0] if message else None

    def same(field: int) -> Value:
        return tuple(part(header.raw(field), n, delimiters=marks) for n in (1, 2, 3)) if header else None

    trigger = header.value(9, 2) if header else ""
    segments: list[Sequence[Value]] = [
        (
            "MSH",
            same(5),
            same(6),
            same(3),
            same(4),
            dtm(now),
            None,
            ("ACK", trigger or None, "ACK"),
            control_id,
            header.value(11) or "P" if header else "P",
            header.value(12) or "2.5.1" if header else "2.5.1",
        ),
        ("MSA", code, message.control_id if message else "", text),
    ]
    if error_code:
        segments.append(("ERR", None, None, (error_code, None, "HL70357"), "E"))
    return write(segments, marks)


def read_ack(data: bytes) -> Ack:
    """Return what an acknowledgement says.

    Raises:
        DataError: It is no acknowledgement.
    """
    message = parse(data)
    msa = message.first("MSA")
    if msa is None or not msa.value(1):
        raise DataError("the answer is no HL7 v2 acknowledgement: it has no MSA-1", code=CODE)
    return Ack(msa.value(1).upper(), msa.value(2), message.value("ERR-3.1"))


def _field(value: Value, delimiters: Delimiters) -> str:
    if isinstance(value, list):
        return delimiters.repetition.join(_field(item, delimiters) for item in value)
    if isinstance(value, tuple):
        return delimiters.component.join(_component(item, delimiters) for item in value).rstrip(delimiters.component)
    return _text(value, delimiters)


def _component(value: str | tuple[str | None, ...] | None, delimiters: Delimiters) -> str:
    if isinstance(value, tuple):
        inner = delimiters.subcomponent.join(_text(item, delimiters) for item in value)
        return inner.rstrip(delimiters.subcomponent)
    return _text(value, delimiters)


def _text(value: str | None, delimiters: Delimiters) -> str:
    if value == NULL:  # as data, not as the instruction to delete
        return f'{delimiters.escape}X22{delimiters.escape}"'
    return escape(value, delimiters) if value else ""
