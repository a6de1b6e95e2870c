"""Blocks of NDJSON to Arrow: ``encode(block, shape, source)``, pure and picklable.

The fast path quotes decimals at byte level, has DuckDB read the lines (``columns.py``) and proves of each that
it became its row (``proof.py``). Lines without that proof, and those it can't be trusted with, go the exact
way (``lines.py``). Both paths give the same rows (``tests/lake/test_paths.py``). No I/O here.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.lake.annotate import patient_of, subsetted, updated
from hiexchange.lake.columns import annotated, read_columns, widen
from hiexchange.lake.cut import Block
from hiexchange.lake.lines import BLANKS, Line, Refused, contained_span, first_contained, read
from hiexchange.lake.quoting import MARK
from hiexchange.lake.repairs import repaired
from hiexchange.lake.scan import Codes, Flags, Indices, counts_of_rows
from hiexchange.lake.schema import OURS, Plan, plan
from hiexchange.lake.shape import Shape, absorb, merge

_SAMPLE = 32
"""Lines looked at to find out which members there are."""
_SHARE = 8
"""Part of a first block among which lines of unlike sizes are looked for."""
_ROUNDS = 8
"""Times that lines with new members are read again before they go the exact way."""


@dataclass(frozen=True)
class Source:
    """Where a block comes from, and how to read it."""

    resource: str
    file: str
    load: str
    version: str = "4.0.1"
    transaction_time: datetime | None = None
    fast: bool = True
    """False forces the exact path (tests, comparisons)."""
    repairs: tuple[str, ...] = ()
    """Sets of vendor repairs to apply, see ``repairs.RULES``."""


@dataclass(frozen=True)
class Reject:
    """One quarantined line."""

    line: int
    offset: int
    length: int
    reason: str
    raw: bytes


@dataclass
class Encoded:
    """What a block became."""

    batch: pa.RecordBatch
    shape: Shape
    """The shape of ``batch``: the one given, widened by what the block holds."""
    rejects: list[Reject] = field(default_factory=list)
    unmapped: Counter[str] = field(default_factory=Counter)
    """Members without a column, by JSON pointer with ``*`` for indices."""
    repaired: Counter[str] = field(default_factory=Counter)
    """Vendor repairs made, by rule."""
    slow_lines: int = 0
    lines: int = 0
    """Lines that are not blank."""


def encode(block: Block, shape: Shape, source: Source) -> Encoded:
    """Turn whole lines into a record batch in the stored schema.

    Args:
        block: Whole lines; the last one may lack its line end.
        shape: Members known so far; the result's shape covers it.
        source: Type, version and lineage.

    Returns:
        Rows in the order of the lines. A bad line never costs its neighbours: it is a reject.
    """
    if block.too_long:
        reject = Reject(block.line, block.offset, block.length, "too-long", block.data)
        return Encoded(_no_rows(source, shape), shape, [reject], lines=1)
    return _Encoding(block, shape, source).run()


def _no_rows(source: Source, shape: Shape) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=plan(source.resource, shape, source.version).stored_schema)


class _Encoding:
    """The state of one call of :func:`encode`."""

    def __init__(self, block: Block, shape: Shape, source: Source) -> None:
        self.block = block
        self.data = block.data
        self.source = source
        self.result = Encoded(pa.RecordBatch.from_pylist([], schema=OURS), shape)
        self.newlines = block.line_ends
        self.starts, self.ends = _line_bounds(self.data, self.newlines)
        self.result.lines = len(self.starts)
        self.mended: dict[int, bytes] = {}
        """{line index: the line after vendor repairs}"""
        for index in range(len(self.starts)) if source.repairs else ():
            self._mend(index)
        self.contained: dict[int, tuple[int, int]] | None = None
        """{line index: where in it the value of ``contained`` starts and ends}; None until asked for"""

    def _mend(self, index: int) -> None:
        found = repaired(self._line(index), self.source.resource, self.source.repairs)
        if found is not None:
            self.mended[index] = found[0]
            self.result.repaired.update(found[1])

    def run(self) -> Encoded:
        """Encode all lines: fast where possible, the rest exactly, merged in line order."""
        slow = self._suspects() if self.source.fast else np.ones(len(self.starts), bool)
        parts = self._fast(np.flatnonzero(~slow))
        texts: list[str | None] = [None] * sum(len(lines) for _, lines in parts)
        left = np.ones(len(self.starts), bool)
        for _, lines in parts:
            left[lines] = False
        exact = self._exact(np.flatnonzero(left))
        if exact is not None:
            parts.append(exact[:2])
            texts += exact[2]
        current = plan(self.source.resource, self.result.shape, self.source.version)
        if not parts:
            self.result.batch = _no_rows(self.source, self.result.shape)
            return self.result
        wide = [pa.RecordBatch.from_arrays(widen(rows, current), schema=current.parse_schema) for rows, _ in parts]
        order = np.concatenate([lines for _, lines in parts])
        batch, unmapped = wide[0], pa.array(texts, pa.string())
        if len(wide) > 1:
            sorting = pa.array(np.argsort(order))
            batch = pa.concat_batches(wide).take(sorting)
            unmapped, order = unmapped.take(sorting), np.sort(order)
        self.result.batch = self._finish(batch, current, order, unmapped)
        return self.result

    # The fast path ------------------------------------------------------------------------

    def _suspects(self) -> Flags:
        """Mark the lines that must go the exact way, by cheap looks at the bytes."""
        data = self.data
        slow = np.zeros(len(self.starts), bool)
        if not _is_utf8(data):
            for index in range(len(self.starts)):
                slow[index] = not _is_utf8(data[self.starts[index] : self.ends[index]])
        if MARK in data:
            slow[self._lines_with(MARK)] = True
        return slow

    def _lines_with(self, text: bytes) -> list[int]:
        """Return the indices of the lines that hold ``text``."""
        found: list[int] = []
        place = self.data.find(text)
        starts, ends = (self.starts.tolist(), self.ends.tolist()) if place >= 0 else ([], [])
        while place >= 0:
            found.append(bisect_right(starts, place) - 1)
            place = self.data.find(text, ends[found[-1]])
        return found

    def _line(self, index: int) -> bytes:
        return self.mended.get(index) or self.data[self.starts[index] : self.ends[index]]

    def _fast(self, lines: Indices) -> list[tuple[pa.RecordBatch, Indices]]:
        """Read lines with DuckDB; returns rows and the lines they are of, others are left over.

        Lines with members the shape lacks are read again with what a few of them have.
        """
        found: list[tuple[pa.RecordBatch, Indices]] = []
        if not self.result.shape:
            self.result.shape = self._seen(self._unlike(lines))
        for _ in range(_ROUNDS):
            current = plan(self.source.resource, self.result.shape, self.source.version)
            if "contained" in self.result.shape and self.contained is None:
                lines = self._cut_contained(lines)
            if current.nodes and len(lines):
                rows, good = self._read(lines, current)
                if rows is not None:
                    found.append((rows, lines[good]))
                    lines = lines[~good]
            if not len(lines) or (found and len(lines) <= _SAMPLE):
                break
            wider = merge(self.result.shape, self._seen(lines[:: 1 + len(lines) // _SAMPLE]))
            if wider == self.result.shape:
                break
            self.result.shape = wider
        return found

    def _unlike(self, lines: Indices) -> Indices:
        """Choose a few lines: some from everywhere, and some with each number of members, where rare members are."""
        if len(lines) <= _SAMPLE:
            return lines
        some = lines[::_SHARE]
        codes, starts = self._text(some, writable=False)
        first = np.unique(counts_of_rows(codes, starts).members, return_index=True)[1]
        half = _SAMPLE // 2
        picked = [lines[:: len(lines) // half + 1], some[first[:: len(first) // half + 1]]]
        return np.unique(np.concatenate(picked))

    def _cut_contained(self, lines: Indices) -> Indices:
        """Find where ``contained`` is in each line; returns the lines that can be read without it."""
        kept = np.ones(len(self.starts), bool)
        self.contained = {}
        for index in self._lines_with(b'"contained"'):
            start, end = int(self.starts[index]), int(self.ends[index])
            # What is found may not be a root member: then the row is not what was expected, and not believed.
            span = None if self.mended else first_contained(self.data, start, end)
            span = span or contained_span(self._line(index))
            if span is None:
                kept[index] = False
            else:
                self.contained[index] = span
        return lines[kept[lines]]

    def _seen(self, lines: Indices) -> Shape:
        """Return the shape of a few lines; those that will be refused have none."""
        shape: Shape = {}
        for index in lines.tolist():
            below: Shape = {}
            try:
                self._read_exactly(index, below)
            except (Refused, RecursionError):
                continue
            absorb(shape, below)
        return shape

    def _read(self, lines: Indices, current: Plan) -> tuple[pa.RecordBatch | None, Flags]:
        """Read with a plan; returns the rows of the lines that are proven to be theirs, and which those are."""
        codes, starts = self._text(lines, writable=bool(current.marked_names))
        arrays, good = read_columns(codes, starts, current)
        if not good.any():
            return None, good
        schema = current.parse_schema
        if "contained" in current.shape:
            place = schema.get_field_index("contained")
            texts = pa.array([self._contained_text(index) for index in lines[good].tolist()], pa.string())
            emptied = pc.equal(texts.is_null(), arrays[place].is_null())
            arrays[place] = texts
            if not pc.all(emptied).as_py():  # a name spelled with escapes
                arrays = [array.filter(emptied) for array in arrays]
                good[good] = emptied.to_numpy(zero_copy_only=False)
        return pa.RecordBatch.from_arrays(arrays, schema=schema), good

    def _contained_text(self, index: int) -> str | None:
        span = self.contained.get(index) if self.contained else None
        if span is None:
            return None
        line, start = (self.mended[index], 0) if index in self.mended else (self.data, int(self.starts[index]))
        return line[start + span[0] : start + span[1]].decode()

    def _text(self, lines: Indices, *, writable: bool) -> tuple[Codes, Indices]:
        """Return lines, without what is in ``contained``, and where each starts."""
        if len(lines) == len(self.starts) and not self.mended:
            if self.contained:
                return self._without_contained(self.contained)
            return np.frombuffer(bytearray(self.data) if writable else self.data, np.uint8), self.starts
        texts = []
        for index in lines.tolist():
            line, span = self._line(index), self.contained.get(index) if self.contained else None
            texts.append(line[: span[0]] + b'""' + line[span[1] :] if span else line)
        starts = np.cumsum([0, *(len(text) + 1 for text in texts[:-1])], dtype=np.int64)
        return np.frombuffer(bytearray(b"\n").join([*texts, b""]), np.uint8), starts

    def _without_contained(self, spans: dict[int, tuple[int, int]]) -> tuple[Codes, Indices]:
        """Return all lines, with an empty text in place of what is contained, and where each starts."""
        pieces, end = [], 0
        shorter = np.zeros(len(self.starts) + 1, np.int64)
        for index, (first, last) in sorted(spans.items()):
            start = int(self.starts[index])
            pieces.append(self.data[end : start + first])
            end = start + last
            shorter[index + 1] = last - first - 2
        pieces.append(self.data[end:])
        return np.frombuffer(bytearray(b'""').join(pieces), np.uint8), self.starts - np.cumsum(shorter)[:-1]

    # The exact path -----------------------------------------------------------------------

    def _exact(self, lines: Indices) -> tuple[pa.RecordBatch, Indices, list[str | None]] | None:
        rows, kept, unmapped = [], [], []
        seen: Shape = {}
        for index in lines.tolist():
            below: Shape = {}
            try:
                found = self._read_exactly(index, below)
                text = found.unmapped_text()
            except (Refused, RecursionError) as refused:
                self._reject(index, refused.reason if isinstance(refused, Refused) else "too-deep")
                continue
            absorb(seen, below)
            rows.append(found.row)
            kept.append(index)
            unmapped.append(text)
            self.result.unmapped.update(_INDEX.sub("/*", pointer) for pointer in found.unmapped)
        self.result.slow_lines = len(lines)
        if not rows:
            return None
        self.result.shape = merge(self.result.shape, seen)
        schema = plan(self.source.resource, self.result.shape, self.source.version).parse_schema
        batch = pa.RecordBatch.from_struct_array(pa.array(rows, pa.struct(list(schema))))
        return batch, np.array(kept, np.int64), unmapped

    def _read_exactly(self, index: int, seen: Shape) -> Line:
        return read(self._line(index), self.source.resource, self.source.version, seen)

    def _reject(self, index: int, reason: str) -> None:
        start, end = int(self.starts[index]), int(self.ends[index])
        line = self.block.line + int(np.searchsorted(self.newlines, start, "left"))
        self.result.rejects.append(Reject(line, self.block.offset + start, end - start, reason, self.data[start:end]))

    # Both paths ---------------------------------------------------------------------------

    def _finish(self, batch: pa.RecordBatch, current: Plan, lines: Indices, texts: pa.Array) -> pa.RecordBatch:
        """Add annotations, keys and lineage."""
        arrays: list[pa.Array] = [batch.column(0)]
        for node, array in zip(current.nodes, batch.columns[1:], strict=True):
            arrays += annotated(array, node)
        count = batch.num_rows
        source = self.source
        numbers = self.block.line + np.searchsorted(self.newlines, self.starts[lines], "left")
        ours = [
            texts,
            self._keys(batch, lines),
            patient_of(batch, source.resource),
            updated(batch),
            subsetted(batch),
            _constant(source.file, count),
            pa.array(numbers, pa.int64()),
            pa.repeat(pa.scalar(source.transaction_time, OURS.field("__hx_transaction_time").type), count),
            _constant(source.load, count),
        ]
        return pa.RecordBatch.from_arrays(arrays + ours, schema=current.stored_schema)

    def _keys(self, batch: pa.RecordBatch, lines: Indices) -> pa.Array:
        index = batch.schema.get_field_index("id")
        ids = batch.column(index) if index >= 0 else pa.nulls(batch.num_rows, pa.string())
        if not ids.null_count and not pc.any(pc.equal(ids, "")).as_py():
            return ids
        # CMS v3 test claims have no id: their content is their key, so that a repeated load is one row.
        keys = [
            given or "sha256:" + hashlib.sha256(self._line(line)).hexdigest()
            for given, line in zip(ids.to_pylist(), lines.tolist(), strict=True)
        ]
        return pa.array(keys, pa.string())


_INDEX = re.compile(r"/\d+(?=/|$)")


def _line_bounds(data: bytes, newlines: Indices) -> tuple[Indices, Indices]:
    """Return start and end of every line that is not blank, line ends and a final CR left out."""
    codes = np.frombuffer(data, np.uint8)
    starts = np.concatenate([np.zeros(1, np.int64), newlines + 1])
    ends = np.concatenate([newlines, np.array([len(data)], np.int64)])
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    if len(starts) and b"\r" in data:
        ends = ends - (codes[ends - 1] == 13)
        filled = ends > starts
        starts, ends = starts[filled], ends[filled]
    if len(starts):
        spaced = np.flatnonzero(codes[starts] <= 32)
        blank = [index for index in spaced.tolist() if not data[starts[index] : ends[index]].strip(BLANKS)]
        starts, ends = np.delete(starts, blank), np.delete(ends, blank)
    return starts, ends


def _is_utf8(text: bytes) -> bool:
    """Say whether bytes are UTF-8; Arrow's check makes no copy, as ``bytes.decode`` would."""
    if text.isascii():
        return True
    ends = np.array([0, len(text)], np.int32)
    try:
        pa.StringArray.from_buffers(1, pa.py_buffer(ends), pa.py_buffer(text)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _constant(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), count)
