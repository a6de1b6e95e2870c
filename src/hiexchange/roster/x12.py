"""Read X12 834 (005010X220A1) as a stream: one row a member, health coverage and primary care provider.

Delimiters come from ISA, control counts of SE, GE and IEA are checked, and memory is bounded by a
batch. The reader knows the loops an attribution needs (2000 INS, 2100A, 2300 HD, 2310) and passes over
everything else. It is no validator of the implementation guide.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from hiexchange.roster.delimited import Raw, text_table
from hiexchange.roster.issues import refusal

BLOCK = 1 << 22
ROWS = 1 << 16
ISA_LENGTH = 106
HEADER = [
    *("subscriber_id", "member_number", "member_id_qualifier", "ssn", "is_subscriber", "relationship", "maintenance"),
    *("last_name", "first_name", "middle_name", "suffix", "birth_date", "sex", "phone", "email"),
    *("address_line", "city", "state", "zip", "group_number", "insurance_line", "plan", "begin", "end"),
    *("provider_npi", "provider_tin", "provider_since", "death_date"),
]
(
    SUBSCRIBER_ID,
    MEMBER_NUMBER,
    MEMBER_ID_QUALIFIER,
    SSN,
    IS_SUBSCRIBER,
    RELATIONSHIP,
    MAINTENANCE,
    LAST_NAME,
    FIRST_NAME,
    MIDDLE_NAME,
    SUFFIX,
    BIRTH_DATE,
    SEX,
    PHONE,
    EMAIL,
    ADDRESS_LINE,
    CITY,
    STATE,
    ZIP,
    GROUP_NUMBER,
    INSURANCE_LINE,
    PLAN,
    BEGIN,
    END,
    PROVIDER_NPI,
    PROVIDER_TIN,
    PROVIDER_SINCE,
    DEATH_DATE,
) = range(len(HEADER))
REFERENCES = {"0F": SUBSCRIBER_ID, "1L": GROUP_NUMBER, "SY": SSN, "17": MEMBER_NUMBER, "23": MEMBER_NUMBER}
DTP_PLACE = {"348": 3, "349": 4}
PAD = [""] * 16
CONTROL = {"SE", "GE", "IE", "GS", "ST", "IS", "BG"}
MODES = {"2": "delta", "4": "full", "RX": "full"}
"""BGN08: change, verify (audit), replace."""


def x12_834(text: pa.Buffer, *, file: str) -> Raw:
    """Return an 834 file as text columns named :data:`HEADER`.

    ``facts`` hold what the file declares of itself before its first member: ``mode`` from BGN08,
    ``as_of`` from BGN03, ``payer_id`` from N1*IN. ``faults`` are complete once the batches are read.

    Raises:
        RosterError: No ISA segment, or the transaction is not an 834.
    """
    head = text.slice(0, min(ISA_LENGTH + 2, text.size)).to_pybytes().decode("utf-8", "replace")
    if len(head) < ISA_LENGTH or not head.startswith("ISA") or head[3].isalnum():
        raise refusal("no_isa", "the file does not start with an ISA segment", file=file, hint="is it X12 at all?")
    raw = Raw(list(HEADER), len(HEADER), iter(()), file)
    reader = _Reader(raw, text, head[3], head[ISA_LENGTH - 1])
    segments = reader.segments()
    for position, segment in segments:
        reader.envelope(segment)
        if segment.startswith(f"INS{head[3]}"):
            raw.batches = reader.batches((position, segment), segments)
            return raw
    raise refusal("no_rows", "the 834 holds no member", file=file, hint="ask the payer to send it again")


class _Reader:
    """The position in one file."""

    def __init__(self, raw: Raw, text: pa.Buffer, separator: str, terminator: str) -> None:
        self.raw = raw
        self.text = text
        self.separator = separator
        self.terminator = terminator
        self.count = 0
        self.opened: dict[str, str] = {}
        self.groups = 0
        self.transactions = 0
        self.members = 0
        self.ended = False

    def segments(self) -> Iterator[tuple[int, str]]:
        """Yield the byte where each segment starts and its text without the terminator."""
        rest = b""
        mark = self.terminator.encode()
        position = 0
        for start in range(0, self.text.size, BLOCK):
            block = rest + self.text.slice(start, min(BLOCK, self.text.size - start)).to_pybytes()
            cut = block.rfind(mark) + 1
            rest = block[cut:]
            text = block[:cut].decode("utf-8", "replace")
            plain = text.isascii() and "\n" not in text and "\r" not in text
            for segment in text.split(self.terminator):
                if plain:
                    if segment:
                        yield position, segment
                    position += len(segment) + 1
                    continue
                if segment.strip():
                    yield position, segment.strip("\r\n")
                position += (len(segment) if segment.isascii() else len(segment.encode())) + 1
            position -= 1
        if rest.strip():
            yield position, rest.decode("utf-8", "replace").strip("\r\n")

    def batches(self, first: tuple[int, str], segments: Iterator[tuple[int, str]]) -> Iterator[pa.Table]:
        """Yield rows as they become complete, ``row_no`` counting on."""
        separator = self.separator
        opening, rows, offsets = "INS" + separator, list[list[str]](), list[int]()
        begin, member = first[0], [first[1].split(separator)]
        self.members, done = 1, 0
        for position, segment in segments:
            if segment.startswith(opening):
                fresh = _member_rows(member)
                rows += fresh
                offsets += [begin] * len(fresh)
                begin, member = position, [segment.split(separator)]
                self.members += 1
                self.count += 1
                if len(rows) >= ROWS:
                    yield text_table(rows, done)
                    done += len(rows)
                    rows = []
            elif segment[:2] in CONTROL:
                self.envelope(segment)
            else:
                self.count += 1
                member.append(segment.split(separator))
        fresh = _member_rows(member)
        rows += fresh
        offsets += [begin] * len(fresh)
        yield text_table(rows, done)
        self.raw.offsets = np.asarray(offsets, dtype=np.int64)
        self.close()

    def close(self) -> None:
        """Check what only the end of the file can tell."""
        if not self.ended:
            self.fault("truncated", "the file ends before its IEA segment")
        declared = self.raw.facts.get("members")
        if declared is not None and declared != str(self.members):
            self.fault("count_mismatch", f"the header declares {declared} members, the file holds {self.members:,}")

    def envelope(self, segment: str) -> None:
        """Check control segments, and note what the header declares."""
        parts = [*segment.split(self.separator), *PAD]
        name = parts[0]
        if name == "ST":
            self.count, self.transactions = 0, self.transactions + 1
            self.opened["ST"] = parts[2]
            if parts[1] != "834":
                raise refusal(
                    "wrong_transaction",
                    "the transaction set is not an 834",
                    file=self.raw.file,
                    hint="check the layout",
                )
        self.count += 1
        if name == "ISA":
            self.groups, self.ended = 0, False
            self.opened["ISA"] = parts[13]
        elif name == "GS":
            self.groups, self.transactions = self.groups + 1, 0
            self.opened["GS"] = parts[6]
        elif name == "SE":
            self.closing("SE", "ST", parts, self.count)
        elif name == "GE":
            self.closing("GE", "GS", parts, self.transactions)
        elif name == "IEA":
            self.closing("IEA", "ISA", parts, self.groups)
            self.ended = True
        else:
            self.declared(name, parts)

    def declared(self, name: str, parts: list[str]) -> None:
        """Note what the header says of the file."""
        facts = self.raw.facts
        if name == "BGN":
            facts["mode"] = MODES.get(parts[8], "full")
            day = parts[3]
            if len(day) == 8 and day.isdigit():
                facts["as_of"] = f"{day[:4]}-{day[4:6]}-{day[6:]}"
        elif name == "N1" and parts[1] == "IN" and parts[4]:
            facts["payer_id"] = parts[4]
        elif name == "QTY" and parts[1] == "TO" and self.members == 0:
            facts["members"] = parts[2]

    def closing(self, name: str, opening: str, parts: list[str], counted: int) -> None:
        """Compare a closing segment with what was counted and opened."""
        if parts[1] != str(counted):
            self.fault("control_count", f"{name}01 does not count what the file holds")
        if parts[2].strip() != self.opened.get(opening, "").strip():
            self.fault("control_number", f"{name}02 is not the control number of its {opening}")

    def fault(self, code: str, message: str) -> None:
        """Note what refuses the file."""
        self.raw.faults.append((code, message))


def _member_rows(segments: list[list[str]]) -> list[list[str]]:
    """Return the rows of loop 2000: one a coverage with a provider, one without if there is none."""
    try:
        return _rows_of(segments)
    except IndexError:  # an element at the end of a segment was left out
        return _rows_of([[*parts, *PAD] for parts in segments])


def _rows_of(segments: list[list[str]]) -> list[list[str]]:
    # One flat loop, no call a field: a state's 834 holds twenty million segments.
    ins = segments[0]
    base = [""] * len(HEADER)
    base[IS_SUBSCRIBER], base[RELATIONSHIP], base[MAINTENANCE] = ins[1], ins[2], ins[3]
    if len(ins) > 12:
        base[DEATH_DATE] = ins[12]
    dates: dict[str, str] = {}
    coverages: list[list[str]] = []
    providers: list[list[str]] = []
    person = ""
    for parts in segments:
        name = parts[0]
        if name == "REF":
            target = REFERENCES.get(parts[1])
            if target is not None and not coverages and not base[target]:
                base[target] = parts[2]
        elif name == "DTP":
            if coverages:
                coverages[-1][DTP_PLACE.get(parts[1], 5)] = parts[3]
            else:
                dates[parts[1]] = parts[3]
        elif name == "NM1":
            person = parts[1]
            if person in ("IL", "74"):
                _name(base, parts)
                person = "IL"
            elif person == "P3":
                providers.append([*_provider(parts), "", str(len(coverages))])
        elif name == "HD":
            coverages.append([parts[1], parts[3], parts[4], "", "", ""])
            person = ""
        elif name == "PLA":
            if person == "P3":
                providers[-1][2] = parts[3]
        elif person == "IL":
            _detail(base, name, parts)
    return _joined(base, dates, coverages, providers)


def _name(base: list[str], parts: list[str]) -> None:
    base[LAST_NAME], base[FIRST_NAME], base[MIDDLE_NAME], base[SUFFIX] = parts[3], parts[4], parts[5], parts[7]
    if parts[8] == "34":
        base[SSN] = parts[9]
    elif parts[9]:
        base[MEMBER_NUMBER], base[MEMBER_ID_QUALIFIER] = parts[9], parts[8]


def _provider(parts: list[str]) -> tuple[str, str]:
    """Return NPI and tax id of NM1*P3."""
    if parts[8] in ("XX", ""):
        return parts[9], ""
    return "", parts[9] if parts[8] in ("FI", "24") else ""


def _detail(base: list[str], name: str, parts: list[str]) -> None:
    """Note a segment of loop 2100A."""
    if name == "DMG":
        base[BIRTH_DATE], base[SEX] = parts[2], parts[3]
    elif name == "N3":
        base[ADDRESS_LINE] = parts[1]
    elif name == "N4":
        base[CITY], base[STATE], base[ZIP] = parts[1], parts[2], parts[3]
    elif name == "PER":
        for number in range(3, len(parts) - 1, 2):
            if parts[number] in ("TE", "HP", "CP"):
                base[PHONE] = base[PHONE] or parts[number + 1]
            elif parts[number] == "EM":
                base[EMAIL] = parts[number + 1]


def _joined(
    base: list[str], dates: dict[str, str], coverages: list[list[str]], providers: list[list[str]]
) -> list[list[str]]:
    if not base[MEMBER_NUMBER]:
        base[MEMBER_NUMBER] = _made_up_number(base)
    rows = []
    for npi, tin, since, number in providers or [["", "", "", str(len(coverages))]]:
        row = base.copy()
        coverage = coverages[int(number) - 1] if number != "0" else ["", "", "", "", "", ""]
        row[MAINTENANCE] = coverage[0] or row[MAINTENANCE]
        row[INSURANCE_LINE], row[PLAN] = coverage[1], coverage[2]
        row[BEGIN] = coverage[3] or dates.get("356", "")
        row[END] = coverage[4] or dates.get("357", "")
        row[PROVIDER_NPI], row[PROVIDER_TIN], row[PROVIDER_SINCE] = npi, tin, since
        rows.append(row)
    return rows


def _made_up_number(base: list[str]) -> str:
    """Return an id of the person where the payer sends only the subscriber's.

    Dependants share the subscriber's id, so relationship, birth date and first name are added.
    """
    if not base[SUBSCRIBER_ID] or base[IS_SUBSCRIBER] == "Y":
        return base[SUBSCRIBER_ID]
    return "-".join((base[SUBSCRIBER_ID], base[RELATIONSHIP], base[BIRTH_DATE], base[FIRST_NAME].upper()))
