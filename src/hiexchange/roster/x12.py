"""Read X12 834 (005010X220A1) as a stream: one row a member, health coverage and primary care provider.

Delimiters come from ISA, control segments are checked for order, counts and numbers, and memory is
bounded by a batch. The reader knows the loops an attribution needs (``x12_member``) and passes over
everything else. It is no validator of the implementation guide.
"""

from __future__ import annotations

import itertools
import re
from array import array
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from hiexchange.roster.delimited import Raw, text_table
from hiexchange.roster.issues import refusal
from hiexchange.roster.x12_member import HEADER, member_rows

BLOCK = 1 << 20
ROWS = 1 << 13
"""Rows of a batch: few enough to stay in the processor's cache until they are columns."""
ISA_LENGTH, ISA_ELEMENTS = 106, 16
PAD = [""] * 17
MODES = {"2": "delta", "4": "full", "RX": "full"}
"""BGN08: change, verify (audit), replace."""
INSIDE = {"GE": "ST", "IEA": "GS"}
"""What must be closed before a closing segment."""
BLANK = " \t\r\n\x00\x1a"


def x12_834(text: pa.Buffer, *, file: str) -> Raw:
    """Return an 834 file as text columns named :data:`~hiexchange.roster.x12_member.HEADER`.

    ``facts`` hold what the file declares of itself before its first member: ``mode`` from BGN08
    (``unknown`` for other codes), ``as_of`` from BGN03, ``payer_id`` from N1*IN. ``faults`` are complete
    once the batches are read, and so is ``other_payer``, which a later transaction set names.

    Raises:
        RosterError: No ISA segment, or the transaction is not an 834.
    """
    separator, terminator = _delimiters(text, file)
    raw = Raw(list(HEADER), len(HEADER), iter(()), file)
    reader = _Reader(raw, text, separator, terminator)
    members = reader.members()
    first = next(members, None)
    if first is None:
        raise refusal("no_rows", "the 834 holds no member", file=file, hint="ask the payer to send it again")
    raw.batches = reader.batches(itertools.chain([first], members))
    raw.offsets = reader.offsets
    return raw


def _delimiters(text: pa.Buffer, file: str) -> tuple[str, str]:
    """Return the separator of elements and the terminator of segments, which ISA shows by its fixed length."""
    head = text.slice(0, min(ISA_LENGTH + 2, text.size)).to_pybytes().decode("utf-8", "replace")
    if len(head) < ISA_LENGTH or not head.startswith("ISA") or head[3].isalnum():
        raise refusal("no_isa", "the file does not start with an ISA segment", file=file, hint="is it X12 at all?")
    separator, terminator = head[3], head[ISA_LENGTH - 1]
    elements = head[: ISA_LENGTH - 1].split(separator)
    if (
        len(elements) != ISA_ELEMENTS + 1
        or len(elements[ISA_ELEMENTS]) != 1
        or terminator.isalnum()
        or terminator == separator
    ):
        raise refusal(
            "bad_isa",
            "the ISA segment is not 16 elements in 106 characters, so the delimiters are not known",
            file=file,
            hint="ask the payer to pad its elements to their fixed lengths",
        )
    return separator, terminator


class _Reader:
    """The position in one file."""

    def __init__(self, raw: Raw, text: pa.Buffer, separator: str, terminator: str) -> None:
        self.raw = raw
        self.text = text
        self.separator = separator
        self.terminator = terminator
        self.untidy = re.compile(f"{re.escape(terminator)}[ \t{re.escape(terminator)}]+")
        self.count = 0
        self.opened: dict[str, str] = {}
        self.groups = 0
        self.transactions = 0
        self.members_before = 0
        self.declared_members: str | None = None
        self.rows_of = array("I")
        """Rows of each member so far."""
        self.ended = False

    def blocks(self) -> Iterator[str]:
        """Yield the text in pieces of whole segments, a terminator before each and nothing else between."""
        rest = b""
        mark = self.terminator.encode()
        for start in range(0, self.text.size, BLOCK):
            block = rest + self.text.slice(start, min(BLOCK, self.text.size - start)).to_pybytes()
            cut = max(block.rfind(mark), 0)
            rest = block[cut:]
            yield self.tidy(block[:cut])
        yield self.tidy(rest.rstrip(BLANK.encode()))

    def tidy(self, block: bytes) -> str:
        """Take out line ends, which are no data in X12 wherever they stand, and empty segments."""
        text = block.decode("utf-8", "replace")
        for line_end in "\r\n":
            if line_end != self.terminator and line_end in text:
                text = text.replace(line_end, "")
        return self.untidy.sub(lambda _: self.terminator, text) if self.untidy.search(text) else text

    def members(self) -> Iterator[str]:
        """Yield each loop 2000 from behind its ``INS*``; what stands before the first goes to the envelope."""
        opening = f"{self.terminator}INS{self.separator}"
        pending: list[str] = []
        opened = False
        for block in self.blocks():
            head, *found = block.split(opening)
            if not opened:
                for segment in filter(None, head.split(self.terminator)):
                    self.envelope(segment)
            else:
                pending.append(head)
            if found:
                if opened:
                    yield "".join(pending)
                yield from found[:-1]
                pending, opened = [found[-1]], True
        if opened:
            yield "".join(pending).rstrip(self.terminator)

    def batches(self, members: Iterator[str]) -> Iterator[pa.Table]:
        """Yield rows as they become complete, ``row_no`` counting on."""
        values: list[str] = []
        read, done = 0, 0
        for text in members:
            fresh, count, behind = member_rows(text, self.terminator, self.separator)
            for row in fresh:
                values += row
            read += len(fresh)
            self.rows_of.append(len(fresh))
            self.count += count
            for segment in behind:
                self.envelope(segment)
            if read - done >= ROWS:
                yield text_table(values, self.raw.width, done)
                values, done = [], read
        if values:
            yield text_table(values, self.raw.width, done)
        if not self.ended:
            self.fault("truncated", "the file ends before its IEA segment")

    def offsets(self, rows: list[int]) -> dict[int, int]:
        """Return the bytes where the members of rows start. Walks the text: only called for refused rows."""
        mark, bar = (re.escape(text.encode()) for text in (self.terminator, self.separator))
        wrap = rb"[\r\n]*"
        pattern = mark + rb"[\s" + mark + rb"]*(I" + wrap + b"N" + wrap + b"S" + wrap + bar + b")"
        starts = np.fromiter((found.start(1) for found in re.finditer(pattern, memoryview(self.text))), np.int64)
        last_rows = np.cumsum(np.asarray(self.rows_of, dtype=np.int64))
        members = np.searchsorted(last_rows, np.asarray(rows, dtype=np.int64))
        return {row: int(starts[member]) for row, member in zip(rows, members.tolist(), strict=True)}

    def envelope(self, segment: str) -> None:
        """Check control segments, and note what the header declares."""
        parts = [*segment.split(self.separator), *PAD]
        name = parts[0]
        if self.ended and name != "ISA" and name.strip(BLANK):
            self.fault("trailing_data", "something other than an ISA segment follows the IEA segment")
        self.count += 1
        if name == "ISA":
            self.groups, self.ended = 0, False
            self.opening("ISA", parts[13])
        elif name == "GS":
            self.groups, self.transactions = self.groups + 1, 0
            self.opening("GS", parts[6])
        elif name == "ST":
            self.start(parts)
        elif name == "SE":
            self.closing("SE", "ST", parts, self.count)
            self.total()
        elif name == "GE":
            self.closing("GE", "GS", parts, self.transactions)
        elif name == "IEA":
            self.closing("IEA", "ISA", parts, self.groups)
            self.ended = True
        else:
            self.declared(name, parts)

    def start(self, parts: list[str]) -> None:
        """Begin a transaction set."""
        if parts[1] != "834":
            raise refusal(
                "wrong_transaction",
                "the transaction set is not an 834",
                file=self.raw.file,
                hint="check the layout",
            )
        self.count, self.transactions = 1, self.transactions + 1
        self.members_before, self.declared_members = len(self.rows_of), None
        self.opening("ST", parts[2])

    def declared(self, name: str, parts: list[str]) -> None:
        """Note what the header says of the file; every transaction set must say the same."""
        if name == "BGN":
            self.fact("mode", MODES.get(parts[8], "unknown"))
            day = parts[3]
            if len(day) == 8 and day.isdigit():
                self.fact("as_of", f"{day[:4]}-{day[4:6]}-{day[6:]}")
        elif name == "N1" and parts[1] == "IN" and parts[4]:
            self.fact("payer_id", parts[4])
        elif name == "QTY" and parts[1] == "TO":
            self.declared_members = parts[2]

    def fact(self, name: str, value: str) -> None:
        """Note a fact; another value of a later transaction set refuses the file."""
        if self.raw.facts.setdefault(name, value) == value:
            return
        if name == "payer_id":
            self.raw.facts["other_payer"] = value
        else:
            self.fault("several_headers", f"the transaction sets differ in {name}")

    def total(self) -> None:
        """Compare the members of a transaction set with the total its header declares."""
        held = len(self.rows_of) - self.members_before
        said = self.declared_members
        if said is not None and not (said.isdigit() and int(said) == held):
            self.fault("count_mismatch", f"the header's total is not the {held:,} members that follow")

    def opening(self, name: str, number: str) -> None:
        """Note the control number of an opening segment."""
        if name in self.opened:
            self.fault("control_order", f"{name} opens while the one before is not closed")
        self.opened[name] = number

    def closing(self, name: str, opening: str, parts: list[str], counted: int) -> None:
        """Compare a closing segment with what was counted and opened."""
        if INSIDE.get(name) in self.opened or opening not in self.opened:
            self.fault("control_order", f"{name} stands where nothing is to be closed, or not yet")
        if not (parts[1].strip().isdigit() and int(parts[1]) == counted):
            self.fault("control_count", f"{name}01 does not count what the file holds")
        if parts[2].strip() != self.opened.pop(opening, "").strip():
            self.fault("control_number", f"{name}02 is not the control number of its {opening}")

    def fault(self, code: str, message: str) -> None:
        """Note what refuses the file, once."""
        if (code, message) not in self.raw.faults:
            self.raw.faults.append((code, message))
