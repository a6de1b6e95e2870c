"""HL7 v2 as text: segments, escapes, MLLP framing, ACK. No I/O, no dictionary of segments.

Errors say which segment and field, never what is in it. Source: HL7 v2.8.2 chapter 2 (2.5 delimiters,
2.7 escapes), HL7 MLLP release 1.
"""

from __future__ import annotations

from hiexchange.hl7v2.mllp import END, START, Frames, frame
from hiexchange.hl7v2.reader import (
    CODE,
    MAX_BYTES,
    NULL,
    STANDARD,
    Delimiters,
    Message,
    Segment,
    decode,
    escape,
    parse,
    part,
    split,
    unescape,
)
from hiexchange.hl7v2.writer import Ack, Components, Subcomponents, Value, ack, dtm, read_ack, write

__all__ = [
    "CODE",
    "END",
    "MAX_BYTES",
    "NULL",
    "STANDARD",
    "START",
    "Ack",
    "Components",
    "Delimiters",
    "Frames",
    "Message",
    "Segment",
    "Subcomponents",
    "Value",
    "ack",
    "decode",
    "dtm",
    "escape",
    "frame",
    "parse",
    "part",
    "read_ack",
    "split",
    "unescape",
    "write",
]
