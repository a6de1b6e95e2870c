"""Delimited and fixed-width text to batches of text columns, without any conversion.

Columns are called ``c1``, ``c2`` … in file order, beside ``row_no``. The header is kept apart, so that
duplicate or odd header names never become column names.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from hiexchange.roster.issues import issue, refusal
from hiexchange.roster.layout import FileRule

BLOCK = 1 << 24
HEAD = 1 << 16
DELIMITERS = ",\t|;"


@dataclass
class Raw:
    """A file as text columns."""

    header: list[str]
    """Header texts in file order, empty where there is no header."""
    width: int
    """Number of columns."""
    batches: Iterator[pa.Table]
    """Tables of ``row_no`` and ``c1`` … ``cN``; to be read once."""
    file: str
    declared_rows: int | None = None
    delimiter: str | None = None
    body: pa.Buffer | None = None
    """The records after the header: where byte offsets are looked up."""
    body_start: int = 0
    ragged: list[dict[str, object]] = field(default_factory=list)
    """ISSUE rows of records with a wrong number of fields; filled while batches are read."""
    ragged_rows: int = 0
    facts: dict[str, str] = field(default_factory=dict)
    """What the container itself declares: ``as_of``, ``mode``, ``list_id``, ``payer_id``."""
    issues: list[dict[str, object]] = field(default_factory=list)
    """Further ISSUE rows of the container, complete once the batches are read."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Code and message of what refuses the whole file, complete once the batches are read."""
    offsets: Callable[[list[int]], dict[int, int]] | None = None
    """Finds the byte offsets of rows, where records are not lines."""


def text_table(values: list[str], width: int, done: int) -> pa.Table:
    """Return rows of text, one after another in one list, as a batch of :class:`Raw`.

    A list of lists would be walked by the garbage collector again and again: a quarter of the time of an 834.

    Args:
        values: ``width`` texts a row.
        width: Columns.
        done: Rows that came before.
    """
    columns = [pa.array(values[start::width], pa.string()) for start in range(width)]
    numbers = pa.array(np.arange(done + 1, done + len(columns[0]) + 1))
    return pa.table([numbers, *columns], names=["row_no", *(f"c{index}" for index in range(1, width + 1))])


def delimited(text: pa.Buffer, rule: FileRule, *, file: str) -> Raw:
    """Read delimited text.

    Raises:
        RosterError: No header, no rows, or the same header twice.
    """
    head = text.slice(0, min(HEAD, text.size)).to_pybytes()
    delimiter = sniff(head) if rule.delimiter == "auto" else rule.delimiter
    start = _skip_lines(head, rule.header - 1) if rule.header > 1 else 0
    header: list[str] = []
    first = _first_record(text.slice(start), rule.quote)
    fields = _fields(first, delimiter, rule.quote)
    if rule.header:
        header = [name.strip() for name in fields]
        start += len(first)
    body, declared = _without_trailer(text.slice(start), rule, delimiter)
    if not body.slice(0, min(HEAD, body.size)).to_pybytes().strip():
        raise refusal("no_rows", "the file has a header and no rows", file=file, hint="ask the payer to send it again")
    raw = Raw(header, len(fields), iter(()), file, declared, delimiter, body, start)
    raw.batches = _parse(raw, delimiter, rule.quote)
    return raw


def fixed(text: pa.Buffer, slices: list[tuple[int, int]], rule: FileRule, *, file: str) -> Raw:
    """Read fixed-width text; ``slices`` are 0-based (start, stop) in characters, one a column.

    A line shorter than the last column that must be there is refused, not padded: a cut line would
    otherwise become a member without an end date.
    """
    head = text.slice(0, min(HEAD, text.size)).to_pybytes()
    start = _skip_lines(head, rule.header) if rule.header else 0
    body, declared = _without_trailer(text.slice(start), rule, None)
    if body.size == 0:
        raise refusal("no_rows", "the file has no rows", file=file, hint="ask the payer to send it again")
    raw = Raw([], len(slices), iter(()), file, declared, None, body, start)
    raw.batches = _cut(raw, slices)
    return raw


def sniff(head: bytes) -> str:
    """Return the delimiter that the first line uses most, outside quotes; a comma if none."""
    line = _first_record(pa.py_buffer(head), '"').decode("utf-8", "replace")
    bare = "".join(part for index, part in enumerate(line.split('"')) if index % 2 == 0)
    return max(DELIMITERS, key=lambda mark: (bare.count(mark), -DELIMITERS.index(mark)))


def byte_offsets(raw: Raw, rows: list[int], quote: str) -> dict[int, int]:
    """Return where records start in the UTF-8 text, for the (1-based) rows asked for.

    Only called when something was refused: it walks the whole text once, at about 500 MB/s.
    """
    if not rows:
        return {}
    if raw.offsets is not None:
        return raw.offsets(rows)
    if raw.body is None:
        return {}
    wanted = np.unique(np.asarray(rows, dtype=np.int64))
    found: dict[int, int] = {}
    record, parity, begin, blank = 0, 0, 0, True
    for start in range(0, raw.body.size, BLOCK):
        size = min(BLOCK, raw.body.size - start)
        block = np.frombuffer(raw.body, dtype=np.uint8, count=size, offset=start)
        ends = np.flatnonzero((block == 10) | (block == 13))
        if quote:
            marks = np.cumsum(block == ord(quote), dtype=np.int64)
            ends = ends[(marks[ends] + parity) % 2 == 0]
            parity = (parity + int(marks[-1])) % 2
        starts = np.concatenate(([begin], ends[:-1] + start + 1)) if len(ends) else np.empty(0, dtype=np.int64)
        # A record is what stands between two line ends that are not neighbours: blank lines do not count.
        full = (ends + start) > starts
        numbers = record + np.cumsum(full)
        hit = np.isin(numbers, wanted) & full
        found.update(zip(numbers[hit].tolist(), (starts[hit] + raw.body_start).tolist(), strict=True))
        if len(ends):
            record = int(numbers[-1])
            begin = int(ends[-1]) + start + 1
        blank = begin >= raw.body.size
    if not blank and record + 1 in wanted:
        found[record + 1] = begin + raw.body_start
    return found


def _parse(raw: Raw, delimiter: str, quote: str) -> Iterator[pa.Table]:
    names = [f"c{index}" for index in range(1, raw.width + 1)]
    skipped: list[int] = []

    def refuse_ragged(row: pyarrow.csv.InvalidRow) -> str:
        skipped.append(row.number)
        if quote and row.text and len(row.text.splitlines()) > 1:
            _swallowed(raw)
        message = f"the row has {row.actual_columns} fields instead of {row.expected_columns}"
        raw.ragged.append(issue("ragged", message, file=raw.file, row_no=row.number))
        return "skip"

    try:
        stream = pyarrow.csv.open_csv(
            pa.BufferReader(raw.body),
            read_options=pyarrow.csv.ReadOptions(column_names=names, block_size=BLOCK, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter,
                quote_char=quote or False,
                newlines_in_values=bool(quote),
                invalid_row_handler=refuse_ragged,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
        )
        kept, taken, found = 0, 0, 0
        for batch in stream:
            found += batch.num_rows
            if quote and raw.width > 1 and not raw.faults:
                _watch_quotes(raw, batch, delimiter)
            # Physical numbers of the kept rows: count on, leaving out the refused ones.
            numbers, kept, taken = _numbers(kept, batch.num_rows, skipped, taken)
            yield pa.table([pa.array(numbers), *batch.columns], names=["row_no", *names])
    except pa.ArrowInvalid:
        raise refusal(
            "unreadable", "the text cannot be split into rows", file=raw.file, hint="check delimiter and quotes"
        ) from None
    raw.ragged_rows = len(skipped)
    if skipped and not found and not raw.faults:
        raise refusal(
            "ragged",
            f"no row has as many fields as the header: {raw.ragged[0]['message']}",
            file=raw.file,
            hint="compare the header with the rows; is the delimiter right?",
        )


def _watch_quotes(raw: Raw, batch: pa.RecordBatch, delimiter: str) -> None:
    """Fault a file where a quoted value holds whole rows: line ends, and after one as many delimiters as a row."""
    for column in batch.columns:
        mask = pc.match_substring(column, "\n")
        if not pc.any(mask).as_py():
            continue
        for text in column.filter(mask).to_pylist():
            if any(line.count(delimiter) >= raw.width - 1 for line in text.splitlines()[1:]):
                _swallowed(raw)
                return


def _swallowed(raw: Raw) -> None:
    fault = ("swallowed_lines", "a quote that is not closed swallows the lines after it")
    if fault not in raw.faults:
        raw.faults.append(fault)


def _numbers(last: int, count: int, skipped: list[int], taken: int) -> tuple[np.ndarray, int, int]:
    if taken == len(skipped) or skipped[taken] > last + count + (len(skipped) - taken):
        return np.arange(last + 1, last + count + 1, dtype=np.int64), last + count, taken
    numbers = np.empty(count, dtype=np.int64)
    filled = 0
    while filled < count:
        while taken < len(skipped) and skipped[taken] == last + 1:
            last, taken = last + 1, taken + 1
        stop = skipped[taken] if taken < len(skipped) else last + 1 + count
        run = min(count - filled, stop - last - 1)
        numbers[filled : filled + run] = np.arange(last + 1, last + run + 1)
        filled, last = filled + run, last + run
    return numbers, last, taken


def _cut(raw: Raw, slices: list[tuple[int, int]]) -> Iterator[pa.Table]:
    names = ["row_no", *(f"c{index}" for index in range(1, len(slices) + 1))]
    last = 0
    shortest = max(start for start, _ in slices) + 1
    stream = pyarrow.csv.open_csv(
        pa.BufferReader(raw.body),
        read_options=pyarrow.csv.ReadOptions(column_names=["line"], block_size=BLOCK, use_threads=False),
        # A unit separator stands in no line, so every line is one field.
        parse_options=pyarrow.csv.ParseOptions(delimiter="\x1f", quote_char=False, double_quote=False),
        convert_options=pyarrow.csv.ConvertOptions(column_types={"line": pa.string()}, strings_can_be_null=False),
    )
    for batch in stream:
        lines = batch.column(0)
        numbers = np.arange(last + 1, last + len(lines) + 1, dtype=np.int64)
        last += len(lines)
        short = pc.less(pc.utf8_length(lines), shortest)
        if pc.any(short).as_py():
            for row in numbers[np.asarray(short)].tolist():
                raw.ragged.append(issue("ragged", "the line ends before its last column", file=raw.file, row_no=row))
                raw.ragged_rows += 1
            keep = pc.invert(short)
            lines, numbers = lines.filter(keep), numbers[np.asarray(keep)]
        columns = [pc.utf8_slice_codeunits(lines, start, stop) for start, stop in slices]
        yield pa.table([pa.array(numbers), *columns], names=names)


def _first_record(text: pa.Buffer, quote: str) -> bytes:
    head: bytes = text.slice(0, min(HEAD, text.size)).to_pybytes()
    inside, mark = False, ord(quote) if quote else -1
    for index, byte in enumerate(head):
        if byte == mark:
            inside = not inside
        elif byte in (10, 13) and not inside:
            end = index + 1
            if byte == 13 and head[end : end + 1] == b"\n":
                end += 1
            if head[:index].strip():
                return head[:end]
    return head


def _fields(record: bytes, delimiter: str, quote: str) -> list[str]:
    text = record.decode("utf-8", "replace").strip("\r\n")
    if not quote:
        return text.split(delimiter)
    return next(csv.reader(io.StringIO(text), delimiter=delimiter, quotechar=quote), [])


def _skip_lines(head: bytes, count: int) -> int:
    return sum(len(line) for line in head.splitlines(keepends=True)[:count])


def _without_trailer(body: pa.Buffer, rule: FileRule, delimiter: str | None) -> tuple[pa.Buffer, int | None]:
    size = min(HEAD, body.size)
    tail = body.slice(body.size - size).to_pybytes()
    # DOS ended texts with 1A, tapes with NUL.
    stripped = tail.rstrip(b" \t\r\n\x00\x1a")
    if rule.trailer is None:
        marked = {0x00, 0x1A} & set(tail[len(stripped) :])
        return (body.slice(0, body.size - size + len(stripped)) if marked else body), None
    begin = max(stripped.rfind(b"\n"), stripped.rfind(b"\r")) + 1
    line = stripped[begin:].decode("utf-8", "replace")
    if not line.startswith(rule.trailer):
        return body, -1 if rule.count_field else None
    fields = line.split(delimiter) if delimiter else line.split()
    declared = None
    if rule.count_field:
        text = fields[rule.count_field - 1].strip().strip('"') if rule.count_field <= len(fields) else ""
        declared = int(text) if text.isdigit() else -1
    return body.slice(0, body.size - size + begin), declared
