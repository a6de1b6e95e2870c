"""Columns of CQL values: one slot a row, null where the row has no value.

Truth values, dates and intervals of dates have kernels of their own and are plain integers here; every
other value (codes, concepts, quantities, numbers, text) is one of a short list of distinct Python values,
so that an operator of stage 1 runs once a distinct value, not once a row. A column whose rows are of
several kinds (choice elements, unions of resources) is :class:`Mixed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiexchange.errors import MeasureError
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.values import Interval

Ints = NDArray[np.int64]
Bytes = NDArray[np.int8]
Mask = NDArray[np.bool_]


class Unsupported(MeasureError):
    """An expression that columns cannot hold: its define is evaluated by stage 1 instead."""


class Col:
    """A column of ``n`` slots."""

    __slots__ = ("n",)
    n: int

    def take(self, rows: Ints) -> Col:
        """Return the slots at ``rows``; -1 gives null."""
        raise NotImplementedError

    def known(self) -> Mask:
        """Return which slots are not null."""
        raise NotImplementedError

    @property
    def key(self) -> Any:
        """What columns must share to be laid end to end."""
        return type(self)


def _taken(values: NDArray[Any], rows: Ints, null: Any) -> NDArray[Any]:
    if not len(values):
        return np.full(len(rows), null, dtype=values.dtype)
    found = values[rows]
    found[rows < 0] = null
    return found


class Nulls(Col):
    """Null in every slot."""

    __slots__ = ()

    def __init__(self, n: int) -> None:
        self.n = n

    def take(self, rows: Ints) -> Col:
        """Return as many nulls."""
        return Nulls(len(rows))

    def known(self) -> Mask:
        """Return all false."""
        return np.zeros(self.n, np.bool_)


class Truth(Col):
    """True 1, false 0, null -1."""

    __slots__ = ("values",)

    def __init__(self, values: NDArray[Any]) -> None:
        self.values: Bytes = values.astype(np.int8, copy=False)
        self.n = len(values)

    def take(self, rows: Ints) -> Col:
        """Return the slots at ``rows``."""
        return Truth(_taken(self.values, rows, -1))

    def known(self) -> Mask:
        """Return which are not null."""
        return self.values >= 0


class Times(Col):
    """Dates or instants: components packed into one integer, and the precision (0 for null)."""

    __slots__ = ("cls", "packed", "precision")

    def __init__(self, cls: type[t.Temporal], packed: Ints, precision: NDArray[Any]) -> None:
        self.cls = cls
        self.packed = packed
        self.precision: Bytes = precision.astype(np.int8, copy=False)
        self.n = len(packed)

    def take(self, rows: Ints) -> Col:
        """Return the slots at ``rows``."""
        return Times(self.cls, _taken(self.packed, rows, 0), _taken(self.precision, rows, 0))

    def known(self) -> Mask:
        """Return which are not null."""
        return self.precision > 0

    @property
    def key(self) -> Any:
        """Dates and instants are not laid end to end."""
        return Times, self.cls


class Spans(Col):
    """Intervals of dates or instants."""

    __slots__ = ("high", "high_closed", "low", "low_closed", "there")

    def __init__(self, low: Times, high: Times, low_closed: Mask, high_closed: Mask, there: Mask) -> None:
        self.low, self.high = low, high
        self.low_closed, self.high_closed = low_closed, high_closed
        self.there = there
        self.n = low.n

    def take(self, rows: Ints) -> Col:
        """Return the slots at ``rows``."""
        low, high = self.low.take(rows), self.high.take(rows)
        assert isinstance(low, Times)
        assert isinstance(high, Times)
        closed = (_taken(self.low_closed, rows, False), _taken(self.high_closed, rows, False))
        return Spans(low, high, *closed, _taken(self.there, rows, False))

    def known(self) -> Mask:
        """Return which are not null."""
        return self.there

    @property
    def key(self) -> Any:
        """By the class of the points."""
        return Spans, self.low.cls


class Words(Col):
    """One of a list of distinct values a row, by its place; -1 for null."""

    __slots__ = ("codes", "values")

    def __init__(self, codes: Ints, values: list[Any]) -> None:
        self.codes = codes
        self.values = values
        self.n = len(codes)

    def take(self, rows: Ints) -> Col:
        """Return the slots at ``rows``."""
        return Words(_taken(self.codes, rows, -1), self.values)

    def known(self) -> Mask:
        """Return which are not null."""
        return self.codes >= 0


class Things(Col):
    """FHIR elements or resources: rows of a node of the data; -1 for null."""

    __slots__ = ("node", "rows")

    def __init__(self, node: Any, rows: Ints) -> None:
        self.node = node
        self.rows = rows
        self.n = len(rows)

    def take(self, rows: Ints) -> Col:
        """Return the slots at ``rows``."""
        return Things(self.node, _taken(self.rows, rows, -1))

    def known(self) -> Mask:
        """Return which are not null."""
        return self.rows >= 0

    @property
    def key(self) -> Any:
        """By the place in the data."""
        return Things, id(self.node)


class Lists(Col):
    """Lists: their elements in one column, and the slot each belongs to, ascending."""

    __slots__ = ("child", "owner", "there")

    def __init__(self, owner: Ints, child: Col, there: Mask) -> None:
        self.owner = owner
        self.child = child
        self.there = there
        self.n = len(there)

    def counts(self) -> Ints:
        """Return how many elements each slot has, null ones included."""
        return np.bincount(self.owner, minlength=self.n)

    def having(self, mask: Mask) -> Mask:
        """Return which slots have an element of those in ``mask``."""
        return np.bincount(self.owner[mask], minlength=self.n) > 0

    def starts(self) -> Ints:
        """Return where each slot's elements begin."""
        counts = self.counts()
        found: Ints = np.cumsum(counts) - counts
        return found

    def take(self, rows: Ints) -> Col:
        """Return the slots at ``rows``."""
        if not self.n or not len(self.owner):
            return empty(_taken(self.there, rows, False))
        counts, starts = self.counts(), self.starts()
        wanted = np.where(rows < 0, 0, counts[rows])
        index, owner = spread(np.where(rows < 0, 0, starts[rows]), wanted)
        return Lists(owner, self.child.take(index), _taken(self.there, rows, False))

    def known(self) -> Mask:
        """Return which lists are not null."""
        return self.there


def empty(there: Mask) -> Lists:
    """Return lists without elements, null where they are not ``there``."""
    return Lists(np.zeros(0, np.int64), Nulls(0), there)


class Records(Col):
    """Tuples: a column a field."""

    __slots__ = ("fields", "there")

    def __init__(self, fields: dict[str, Col], there: Mask) -> None:
        self.fields = fields
        self.there = there
        self.n = len(there)

    def take(self, rows: Ints) -> Col:
        """Return the slots at ``rows``."""
        fields = {name: col.take(rows) for name, col in self.fields.items()}
        return Records(fields, _taken(self.there, rows, False))

    def known(self) -> Mask:
        """Return which are not null."""
        return self.there

    @property
    def key(self) -> Any:
        """By the names of the fields."""
        return Records, tuple(self.fields)


class Mixed(Col):
    """Rows of several kinds: the part each is in (-1 for null) and its place there."""

    __slots__ = ("parts", "place", "tag")

    def __init__(self, tag: Ints, place: Ints, parts: tuple[Col, ...]) -> None:
        self.tag = tag
        self.place = place
        self.parts = parts
        self.n = len(tag)

    def take(self, rows: Ints) -> Col:
        """Return the slots at ``rows``."""
        return Mixed(_taken(self.tag, rows, -1), _taken(self.place, rows, -1), self.parts)

    def known(self) -> Mask:
        """Return which are not null."""
        return self.tag >= 0

    def split(self) -> Iterable[tuple[Ints, Col]]:
        """Yield the rows of each kind and their values."""
        for tag, part in enumerate(self.parts):
            rows = np.flatnonzero(self.tag == tag)
            if len(rows):
                yield rows, part.take(self.place[rows])


def spread(starts: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Return the indices ``starts[i] ... starts[i] + counts[i] - 1`` of all i, and the i of each."""
    owner = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts)
    within = np.arange(len(owner)) - np.repeat(ends - counts, counts)
    return np.repeat(starts, counts) + within, owner


def merge(n: int, pieces: Iterable[tuple[Ints, Col]]) -> Col:
    """Return the column of ``n`` slots that has each piece's values at its rows; the rest is null."""
    flat: list[tuple[Ints, Col]] = []
    for rows, col in pieces:
        if isinstance(col, Mixed):
            flat += [(rows[some], part) for some, part in col.split()]
        elif not isinstance(col, Nulls) and len(rows):
            known = col.known()
            if known.all():
                flat.append((rows, col))
            elif known.any():
                some = np.flatnonzero(known)
                flat.append((rows[some], col.take(some)))
    groups: dict[Any, list[tuple[Ints, Col]]] = {}
    for rows, col in flat:
        groups.setdefault(col.key, []).append((rows, col))
    parts, tags = [], np.full(n, -1, np.int64)
    place = np.full(n, -1, np.int64)
    for tag, group in enumerate(groups.values()):
        rows = np.concatenate([rows for rows, _ in group])
        tags[rows] = tag
        place[rows] = np.arange(len(rows))
        parts.append(_joined([col for _, col in group]))
    if not parts:
        return Nulls(n)
    return parts[0].take(place) if len(parts) == 1 else Mixed(tags, place, tuple(parts))


def concat(cols: Sequence[Col]) -> Col:
    """Lay columns end to end."""
    if len(cols) == 1:
        return cols[0]
    ends = np.cumsum([col.n for col in cols])
    pieces = [(np.arange(end - col.n, end), col) for end, col in zip(ends, cols, strict=True)]
    return merge(int(ends[-1]), pieces)


def _joined(cols: list[Col]) -> Col:
    """Lay columns of one key, without Mixed ones, end to end."""
    first = cols[0]
    if len(cols) == 1:
        return first
    some: list[Any] = cols
    if isinstance(first, Truth):
        return Truth(np.concatenate([col.values for col in some]))
    if isinstance(first, Times):
        return _times(some)
    if isinstance(first, Spans):
        low, high = _times([col.low for col in some]), _times([col.high for col in some])
        masks = (
            np.concatenate([getattr(col, name) for col in some]) for name in ("low_closed", "high_closed", "there")
        )
        return Spans(low, high, *masks)
    if isinstance(first, Words):
        return _words(some)
    if isinstance(first, Things):
        return Things(first.node, np.concatenate([col.rows for col in some]))
    if isinstance(first, Lists):
        offsets = np.cumsum([0, *[col.n for col in some]])
        owner = np.concatenate([col.owner + offset for col, offset in zip(some, offsets, strict=False)])
        return Lists(owner, concat([col.child for col in some]), np.concatenate([col.there for col in some]))
    assert isinstance(first, Records)
    fields = {name: concat([col.fields[name] for col in some]) for name in first.fields}
    return Records(fields, np.concatenate([col.there for col in some]))


def _times(cols: list[Times]) -> Times:
    packed = np.concatenate([col.packed for col in cols])
    return Times(cols[0].cls, packed, np.concatenate([col.precision for col in cols]))


def _words(cols: list[Words]) -> Words:
    values: list[Any] = []
    offsets: dict[int, int] = {}
    codes = []
    for col in cols:
        offset = offsets.get(id(col.values))
        if offset is None:
            offset = offsets[id(col.values)] = len(values)
            values += col.values
        codes.append(np.where(col.codes < 0, -1, col.codes + offset))
    return Words(np.concatenate(codes), values)


# From and to Python values --------------------------------------------------------------------

# Bits below each component of a packed time, by the number of components kept.
SHIFT = np.array([50, 36, 32, 27, 22, 16, 10, 0], np.int64)


def pack(key: tuple[int, ...]) -> int:
    """Return the components of a time as one integer that orders as they do."""
    year, month, day, hour, minute, second, ms = (*key, 0, 0, 0, 0, 0, 0)[:7]
    return (((((year << 4 | month) << 5 | day) << 5 | hour) << 6 | minute) << 6 | second) << 10 | ms


def unpack(packed: int, precision: int) -> tuple[int, ...]:
    """Return the components of :func:`pack`, as long as a value of that precision has."""
    parts = (
        packed >> 36, packed >> 32 & 15, packed >> 27 & 31, packed >> 22 & 31, packed >> 16 & 63, packed >> 10 & 63,
        packed & 1023,
    )  # fmt: skip
    return tuple(int(part) for part in parts[: 7 if precision >= t.SECOND else precision])


def temporal(cls: type[t.Temporal], packed: int, precision: int, offset: int = 0) -> t.Temporal:
    """Return a stage 1 value of a packed one."""
    return cls(unpack(packed, precision), precision, offset if cls is t.DateTime else None)


def from_values(values: Sequence[Any]) -> Col:
    """Return a column of Python values, null where None.

    Raises:
        Unsupported: Some value has no column.
    """
    groups: dict[Any, list[int]] = {}
    for row, value in enumerate(values):
        if value is not None:
            groups.setdefault(_group(value), []).append(row)
    pieces = []
    for kind, at in groups.items():
        rows = np.array(at, np.int64)
        pieces.append((rows, _build(kind, [values[row] for row in at])))
    return merge(len(values), pieces)


def _group(value: Any) -> Any:
    kind = type(value)
    if kind is bool:
        return bool
    if kind in (t.Date, t.DateTime):
        return kind
    if kind is Interval:
        return (Interval, value.kind) if value.kind in (t.Date, t.DateTime) else "words"
    if kind is list:
        return list
    if kind is dict:
        return dict, tuple(value)
    return "words"


def _build(kind: Any, values: list[Any]) -> Col:
    n = len(values)
    if kind is bool:
        return Truth(np.array(values, np.int8))
    if kind in (t.Date, t.DateTime):
        return _times_of(kind, values)
    if kind == "words":
        return Words(np.arange(n), values)
    if kind is list:
        counts = np.array([len(value) for value in values], np.int64)
        child = from_values([item for value in values for item in value])
        return Lists(np.repeat(np.arange(n), counts), child, np.ones(n, np.bool_))
    if isinstance(kind, tuple) and kind[0] is dict:
        fields = {name: from_values([value[name] for value in values]) for name in kind[1]}
        return Records(fields, np.ones(n, np.bool_))
    if isinstance(kind, tuple):
        low, high = (_times_of(kind[1], [getattr(value, end) for value in values]) for end in ("low", "high"))
    first, last = (
        np.array([getattr(value, end) for value in values], np.bool_) for end in ("low_closed", "high_closed")
    )
    return Spans(low, high, first, last, np.ones(n, np.bool_))


def no_times(cls: type[t.Temporal], n: int) -> Times:
    """Return dates or instants that are null."""
    return Times(cls, np.zeros(n, np.int64), np.zeros(n, np.int8))


def _times_of(cls: type[t.Temporal], values: list[Any]) -> Times:
    packed = np.array([0 if value is None else pack(value.key) for value in values], np.int64)
    return Times(cls, packed, np.array([0 if value is None else value.precision for value in values], np.int8))


def constant(value: Any, n: int) -> Col:
    """Return the same value in every slot."""
    return from_values([value]).take(np.zeros(n, np.int64))
