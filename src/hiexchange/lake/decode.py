"""Blocks of NDJSON to Arrow: ``encode(block, shape, source)``, pure and picklable.

The fast path quotes decimals at byte level and gives the block to ``pyarrow.json`` with an explicit
schema; lines it can't be trusted with are diverted to the exact path (``lines.py``), and whatever it
refuses goes there whole. Both paths give the same rows (``tests/lake/test_paths.py``). No I/O here.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hiexchange.lake.annotate import patient_of, subsetted, updated
from hiexchange.lake.columns import TAG_BYTES, NotFast, annotated, read_columns, widen
from hiexchange.lake.cut import Block
from hiexchange.lake.infer import infer
from hiexchange.lake.lines import BLANKS, Refused, cut_contained, has_contained, is_document, read
from hiexchange.lake.repairs import repaired
from hiexchange.lake.schema import OURS, Plan, plan
from hiexchange.lake.shape import Shape, merge

_SAMPLE = 1 << 18
"""Bytes looked at to find a first shape."""
_PATIENCE = 24
"""Failed attempts to read a block fast before the rest of it goes the exact way."""

Indices = npt.NDArray[np.int64]


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
    require_id: bool = False
    """Quarantine resources without ``id`` instead of keying them by their content."""
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
        empty = plan(source.resource, shape, source.version).stored_schema.empty_table().to_batches()
        reject = Reject(block.line, block.offset, block.length, "too-long", block.data)
        return Encoded(empty[0] if empty else _no_rows(source, shape), shape, [reject], lines=1)
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
        self.newlines = np.flatnonzero(np.frombuffer(self.data, np.uint8) == 10)
        self.starts, self.ends = _line_bounds(self.data, self.newlines)
        self.result.lines = len(self.starts)
        self.mended: dict[int, bytes] = {}
        """{line index: the line after vendor repairs}"""
        for index in range(len(self.starts)) if source.repairs else ():
            self._mend(index)
        self.contained: dict[int, bytes] = {}
        """{line index: text of its ``contained``, cut out}"""
        self.bodies: dict[int, bytes] = {}

    def _mend(self, index: int) -> None:
        found = repaired(self._line(index), self.source.resource, self.source.repairs)
        if found is not None:
            self.mended[index] = found[0]
            self.result.repaired.update(found[1])

    def run(self) -> Encoded:
        """Encode all lines: fast where possible, the rest exactly, merged in line order."""
        slow = self._suspects() if self.source.fast else np.ones(len(self.starts), bool)
        fast_rows, fast_lines = None, np.flatnonzero(~slow)
        if len(fast_lines):
            try:
                fast_rows, fast_lines = self._fast(fast_lines)
            except NotFast:
                fast_rows, fast_lines = None, np.array([], np.int64)
        taken = np.zeros(len(self.starts), bool)
        taken[fast_lines] = True
        slow_rows, slow_lines, unmapped = self._exact(np.flatnonzero(~taken))
        current = plan(self.source.resource, self.result.shape, self.source.version)
        parts = [pa.RecordBatch.from_arrays(widen(part, current), schema=current.parse_schema)
                 for part in (fast_rows, slow_rows) if part is not None and part.num_rows]  # fmt: skip
        order = np.concatenate([fast_lines, slow_lines]) if slow_rows is not None else fast_lines
        if not parts:
            self.result.batch = _no_rows(self.source, self.result.shape)
            return self.result
        batch = parts[0]
        texts = pa.array([None] * (len(order) - len(unmapped)) + unmapped, pa.string())
        if len(parts) > 1:
            batch = pa.Table.from_batches(parts).combine_chunks().to_batches()[0]
        if len(slow_lines) and len(fast_lines):
            sorting = pa.array(np.argsort(order, kind="stable"))
            batch, texts, order = batch.take(sorting), texts.take(sorting), np.sort(order)
        self.result.batch = self._finish(batch, current, order, texts)
        return self.result

    # The fast path ------------------------------------------------------------------------

    def _suspects(self) -> npt.NDArray[np.bool_]:
        """Mark the lines that must go the exact way, by cheap looks at the bytes."""
        data, codes = self.data, np.frombuffer(self.data, np.uint8)
        regular = (codes[self.starts] == ord("{")) & (codes[self.ends - 1] == ord("}"))
        slow: npt.NDArray[np.bool_] = ~regular
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                for index in range(len(self.starts)):
                    slow[index] |= not _is_utf8(data[self.starts[index] : self.ends[index]])
            self._mark(slow, TAG_BYTES)
        if b'"contained"' in data and has_contained(self.source.resource, self.source.version):
            self._cut_contained(slow)
            for index in self._lines_with(b"null"):
                slow[index] |= index not in self.contained or b"null" in self.bodies[index]
        else:
            self._mark(slow, b"null")
        return slow

    def _mark(self, slow: npt.NDArray[np.bool_], text: bytes) -> None:
        for index in self._lines_with(text):
            slow[index] = True

    def _lines_with(self, text: bytes) -> list[int]:
        """Return the indices of the lines that hold ``text``."""
        found: list[int] = []
        place = self.data.find(text)
        while place >= 0:
            index = int(np.searchsorted(self.starts, place, "right")) - 1
            found.append(index)
            place = self.data.find(text, int(self.ends[index]))
        return found

    def _cut_contained(self, slow: npt.NDArray[np.bool_]) -> None:
        for index in range(len(self.starts)):
            line = self._line(index)
            if b'"contained"' in line:
                cut = cut_contained(line)
                if cut is None:
                    slow[index] = True
                else:
                    self.bodies[index], self.contained[index] = cut

    def _line(self, index: int) -> bytes:
        return self.mended.get(index) or self.data[self.starts[index] : self.ends[index]]

    def _text(self, lines: Indices) -> bytes:
        """Return the lines as one text for the JSON reader, ``contained`` emptied."""
        if not self.contained and not self.mended:
            if len(lines) == len(self.starts):
                return self.data
            return b"\n".join([self._line(index) for index in lines]) + b"\n"
        return b"\n".join([self._body(index) for index in lines.tolist()]) + b"\n"

    def _body(self, index: int) -> bytes:
        """Return a line as the JSON reader gets it."""
        return self.bodies.get(index) or self._line(index)

    def _fast(self, lines: Indices) -> tuple[pa.RecordBatch, Indices]:
        """Read lines with pyarrow; returns the rows and the lines they are of, others are left over."""
        shape = self.result.shape or self._sampled(lines)
        current = plan(self.source.resource, shape, self.source.version)
        if current.nodes:
            try:
                batch = self._read(lines, current)
                self.result.shape = shape
                return batch, lines
            except NotFast:
                pass
        # Only documents of this type go on: a line nested a hundred thousand deep would overflow the
        # stack of Arrow's type inference (pyarrow 26: SIGSEGV).
        whole = [index for index in lines.tolist() if is_document(self._body(index), self.source.resource)]
        lines = np.array(whole, np.int64)
        lines, seen = self._inferred(lines, [_PATIENCE])
        self.result.shape = merge(self.result.shape, seen)
        current = plan(self.source.resource, self.result.shape, self.source.version)
        parts = list(self._read_pieces(lines, current, [_PATIENCE])) if len(lines) else []
        if not parts:
            raise NotFast
        batch = pa.Table.from_batches([rows for rows, _ in parts]).combine_chunks().to_batches()[0]
        return batch, np.concatenate([of for _, of in parts])

    def _sampled(self, lines: Indices) -> Shape:
        """Return the shape of some lines spread over the block: enough to read all of most files."""
        few = lines[:: max(1, len(self.data) // _SAMPLE)]
        if not all(is_document(self._body(index), self.source.resource) for index in few.tolist()):
            return {}
        found = infer(self._text(few), self.source.resource, self.source.version) if len(few) else None
        if found is None or found[1]:
            return {}
        return merge(found[0], {"contained": {}}) if self._any_contained(few) else found[0]

    def _inferred(self, lines: Indices, patience: list[int]) -> tuple[Indices, Shape]:
        """Return the lines whose members all have a column, and their shape; the others drop out.

        Lines that can't be read together (a repeated key, two JSON types under one name) are halved.
        """
        if not len(lines):
            return lines, {}
        found = infer(self._text(lines), self.source.resource, self.source.version)
        if found is None:
            patience[0] -= 1
            if len(lines) == 1 or patience[0] <= 0:
                return lines[:0], {}
            middle = len(lines) // 2
            left, seen = self._inferred(lines[:middle], patience)
            right, more = self._inferred(lines[middle:], patience)
            return np.concatenate([left, right]), merge(seen, more)
        seen, strange = found
        if not strange:
            return lines, merge(seen, {"contained": {}}) if self._any_contained(lines) else seen
        odd = {index for name in strange for index in self._lines_with(b'"' + name.encode() + b'"')}
        usual = np.array([index for index in lines.tolist() if index not in odd], np.int64)
        return (lines[:0], {}) if len(usual) == len(lines) else self._inferred(usual, patience)

    def _any_contained(self, lines: Indices) -> bool:
        return bool(self.contained) and any(index in self.contained for index in lines.tolist())

    def _read_pieces(
        self, lines: Indices, current: Plan, patience: list[int]
    ) -> Iterator[tuple[pa.RecordBatch, Indices]]:
        """Read lines, halving what can't be read, until too many attempts have failed."""
        try:
            yield self._read(lines, current), lines
        except NotFast:
            patience[0] -= 1
            if len(lines) > 1 and patience[0] > 0:
                middle = len(lines) // 2
                yield from self._read_pieces(lines[:middle], current, patience)
                yield from self._read_pieces(lines[middle:], current, patience)

    def _read(self, lines: Indices, current: Plan) -> pa.RecordBatch:
        """Read with an explicit schema and prove that every line became its row."""
        contained = self._any_contained(lines)
        if contained and "contained" not in current.shape:
            raise NotFast
        arrays = read_columns(self._text(lines), current, len(lines))
        schema = current.parse_schema
        if self.source.require_id and ("id" not in current.shape or arrays[schema.get_field_index("id")].null_count):
            raise NotFast
        if contained:
            texts = [self.contained.get(index) for index in lines.tolist()]
            arrays[schema.get_field_index("contained")] = pa.array(
                [None if text is None else text.decode() for text in texts], pa.string()
            )
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    # The exact path -----------------------------------------------------------------------

    def _exact(self, lines: Indices) -> tuple[pa.RecordBatch | None, Indices, list[str | None]]:
        rows, kept, unmapped = [], [], []
        seen: Shape = {}
        for index in lines.tolist():
            line = self._line(index)
            try:
                found = read(line, self.source.resource, self.source.version, seen)
                text = found.unmapped_text()
                if self.source.require_id and not isinstance(found.row.get("id"), str):
                    raise Refused("no-id")
            except (Refused, RecursionError) as refused:
                self._reject(index, refused.reason if isinstance(refused, Refused) else "too-deep")
                continue
            rows.append(found.row)
            kept.append(index)
            unmapped.append(text)
            self.result.unmapped.update(_INDEX.sub("/*", pointer) for pointer in found.unmapped)
        self.result.slow_lines = len(lines)
        if not rows:
            return None, np.array([], np.int64), []
        self.result.shape = merge(self.result.shape, seen)
        schema = plan(self.source.resource, self.result.shape, self.source.version).parse_schema
        batch = pa.RecordBatch.from_struct_array(pa.array(rows, pa.struct(list(schema))))
        return batch, np.array(kept, np.int64), unmapped

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
        if not ids.null_count:
            return ids
        # CMS v3 test claims have no id: their content is their key, so that a repeated load is one row.
        keys = [
            given if given is not None else "sha256:" + hashlib.sha256(self._line(line)).hexdigest()
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


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _constant(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), count)
