"""One subject of a batch, as populations, gaps and result rows want one: its values come out of the columns.

Only what the columns hold already is given; :class:`..columnar.run.Columns` computes it beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hiexchange.measures.columnar.cells import (
    Col,
    Lists,
    Mask,
    Mixed,
    Nulls,
    Things,
    Times,
    Truth,
    Unsupported,
    Words,
    temporal,
)
from hiexchange.measures.columnar.nodes import Table
from hiexchange.measures.columnar.scalar import factor
from hiexchange.measures.columnar.state import Selection, State
from hiexchange.measures.cql.compiler import Define
from hiexchange.measures.cql.model import Element


class Resource(Element):
    """A row of a table as a resource; its JSON is read when something looks into it."""

    __slots__ = ("_place", "_subject", "_table")

    def __init__(self, subject: Row, table: Table, place: int, identity: int) -> None:
        """Keep the place; ``identity`` is the resource's among the subject's."""
        self.type = table.model.type(table.kind)
        self.row = identity
        self.cache = {}
        self._subject = subject
        self._table = table
        self._place = place

    def get(self, path: str) -> Any:
        """Return a child by element name, out of the column of its values."""
        if path not in self.cache:
            try:
                self.cache[path] = _slot(self._table, self._table.child(path), self._place)
            except Unsupported:
                return super().get(path)
        return self.cache[path]

    @property
    def data(self) -> dict[str, Any]:  # type: ignore[override]
        """The resource as JSON."""
        return self._table.body(self._place, self._subject.together)

    @property
    def id(self) -> str | None:
        """The resource's id."""
        found: str | None = self._table.ids()[self._place]
        return found


def _slot(table: Table, col: Col, place: int) -> Any:
    """Return one slot of a table's child; dates one by one, since few of them are looked into."""
    if isinstance(col, Mixed):
        tag = col.tag[place]
        return None if tag < 0 else _slot(table, col.parts[tag], int(col.place[place]))
    if isinstance(col, Times):
        precision = int(col.precision[place])
        return temporal(col.cls, int(col.packed[place]), precision) if precision else None
    key = ("#values", id(col))
    if key not in table.memo:
        table.memo[key] = factor(col)
    codes, values = table.memo[key]
    return None if codes[place] < 0 else values[codes[place]]


class Retrieved:
    """The rows each retrieve found for a subject, by the retrieve's place; only for those that were asked for."""

    def __init__(self, subject: Row, reached: Mask) -> None:
        self.subject = subject
        self.reached = reached

    def _rows(self, found: Selection) -> list[Resource]:
        begin, count = int(found.starts[self.subject.at]), int(found.counts[self.subject.at])
        return [self.subject.resource(found.table, row) for row in found.rows[begin : begin + count].tolist()]

    def get(self, index: int, default: Any = ()) -> Any:
        """Return the rows of one retrieve."""
        found = self.subject.state.selections.get(index)
        return default if found is None or not found.reached[self.subject.at] else self._rows(found)

    def items(self) -> Iterator[tuple[int, list[Resource]]]:
        """Yield each retrieve that found rows, and the rows."""
        selections = list(self.subject.state.selections.items())
        for at in np.flatnonzero(self.reached).tolist():
            index, found = selections[at]
            yield index, self._rows(found)


class Results(Mapping[int, Any]):
    """A subject's values by define."""

    def __init__(self, subject: Row) -> None:
        self.subject = subject

    def __getitem__(self, index: int) -> Any:
        value = self.subject.state.values[index]
        place = int(value.place[self.subject.at])
        if place < 0:
            raise KeyError(index)
        return self.subject.value(value.col, place)

    def __contains__(self, index: object) -> bool:
        value = self.subject.state.values.get(index)  # type: ignore[call-overload]
        return value is not None and value.place[self.subject.at] >= 0

    def __iter__(self) -> Iterator[int]:
        return (index for index in self.subject.state.values if index in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Rows:
    """A subject's resources by type."""

    def __init__(self, subject: Row) -> None:
        self.subject = subject

    def get(self, kind: str, default: Any = ()) -> Any:
        """Return the resources of a type, in order.

        Raises:
            Unsupported: They are not among the tables.
        """
        batch, at = self.subject.state.batch, self.subject.at
        if kind in batch.elsewhere:
            raise Unsupported(f"{kind} is found by reference")
        table = batch.tables.get(kind)
        if table is None or not table.counts[at]:
            return default
        begin = int(table.starts[at])
        return [self.subject.resource(table, row) for row in range(begin, begin + int(table.counts[at]))]


class Row:
    """A subject; it has what :class:`..cql.subject.Subject` has for those who only read."""

    def __init__(self, state: State, at: int, inferred: int, *, reached: Mask, together: Mask) -> None:
        """Take a subject of the batch.

        Args:
            state: The batch, all that is asked for computed.
            at: The subject's place.
            inferred: Its rows judged by structure so far.
            reached: Which selections of the state, in their order, found rows for it.
            together: Subjects whose JSON is read together, once one of them is looked into.
        """
        self.state = state
        self.at = at
        self.inferred = inferred
        self.together = together
        self.context = state.context
        self.parameters = state.context.parameters
        self.messages: list[str] = []
        self.patient: Element | None = None
        self.results = Results(self)
        self.rows = Rows(self)
        self.retrieved = Retrieved(self, reached)
        self._elements: dict[tuple[int, int], Resource] = {}

    def resource(self, table: Table, row: int) -> Resource:
        """Return a row of a table, the same object each time."""
        key = (id(table), row)
        found = self._elements.get(key)
        if found is None:
            found = self._elements[key] = Resource(self, table, row, len(self._elements))
        return found

    def evaluate(self, define: Define) -> Any:
        """Return the value of a define that was computed for the batch."""
        return self.results[define.index]

    def value(self, col: Col, place: int) -> Any:
        """Return one slot: truth, text and codes, resources and lists of them.

        Raises:
            Unsupported: It is of another kind, or a resource without id: its place among the subject's is not
                known here.
        """
        if isinstance(col, Truth):
            truth = col.values[place]
            return None if truth < 0 else bool(truth)
        if isinstance(col, Nulls):
            return None
        if isinstance(col, Words):
            code = col.codes[place]
            return None if code < 0 else col.values[code]
        if isinstance(col, Mixed):
            tag = col.tag[place]
            return None if tag < 0 else self.value(col.parts[tag], int(col.place[place]))
        if isinstance(col, Lists):
            begin, end = np.searchsorted(col.owner, [place, place + 1]).tolist()
            return [self._item(col.child, at) for at in range(begin, end)] if col.there[place] else None
        if isinstance(col, Things) and col.node.resource:
            if col.rows[place] < 0:
                return None
            found = self.resource(col.node, int(col.rows[place]))
            if found.id is None:
                raise Unsupported("a resource without id")
            return found
        raise Unsupported("a value no result asks for")

    def _item(self, col: Col, place: int) -> Any:
        """Return an element of a list; of another kind than results ask for, some object that is like no other."""
        if isinstance(col, Mixed) and col.tag[place] >= 0:
            return self._item(col.parts[col.tag[place]], int(col.place[place]))
        known = isinstance(col, (Truth, Words, Nulls)) or (isinstance(col, Things) and col.node.resource)
        return self.value(col, place) if known else (object() if col.known()[place] else None)
