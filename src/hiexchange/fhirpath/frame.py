"""Where an expression is evaluated: how many rows, what ``$this`` is in each, and what surrounds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa

from hiexchange.definitions import Definitions
from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import tree
from hiexchange.fhirpath.columns import Collection, Ints, Part, dense, empty
from hiexchange.fhirpath.kinds import kind_of


@dataclass(frozen=True, slots=True)
class Environment:
    """What stays the same for a whole evaluation."""

    definitions: Definitions
    walk: Callable[[tree.Node, Frame], Collection]
    """The evaluator itself, so that functions need not import it."""
    variables: Mapping[str, Part] = field(default_factory=dict)
    """Constants by name: parts that hold one scalar."""
    now: datetime | None = None
    """Value of ``now()`` and ``today()``; an expression that asks for it without one is an error."""
    contained: Callable[[pa.Array], list[tuple[str, pa.Array, Ints]]] | None = None
    """Types the JSON text of contained resources: (resource type, structs, index of their text)."""


class Frame:
    """``n`` rows with their context; results of sub-expressions are kept, so a shared path runs once."""

    __slots__ = ("cache", "env", "index", "n", "outer", "row_index", "rows", "this", "total")

    def __init__(
        self,
        this: Collection,
        env: Environment,
        *,
        outer: Frame | None = None,
        rows: Ints | None = None,
        index: Ints | None = None,
    ) -> None:
        """Open a frame of ``this.n`` rows; ``rows`` says which row of ``outer`` each belongs to (None: the same)."""
        self.n = this.n
        self.this = this
        self.env = env
        self.outer = outer
        self.rows = rows
        self.index = index
        self.row_index: Ints | None = None
        self.total: Collection | None = None
        self.cache: dict[tree.Node, Collection] = {}

    def eval(self, node: tree.Node) -> Collection:
        """Return what ``node`` gives in every row."""
        found = self.cache.get(node)
        if found is None:
            found = self.cache[node] = self.env.walk(node, self)
        return found

    def inner(self, part: Part, index: Ints | None) -> Frame:
        """Open a frame in which each value of ``part`` is a row, as ``where`` and ``select`` do."""
        this = Collection(len(part.values), (Part(part.values, part.type, None, part.twin),))
        return Frame(this, self.env, outer=self, rows=part.rows, index=index)

    def root(self) -> tuple[Frame, Ints | None]:
        """Return the outermost frame and the row of it that each row here belongs to."""
        frame, rows = self, None
        while frame.outer is not None:
            if frame.rows is not None:
                rows = frame.rows if rows is None else frame.rows[rows]
            frame = frame.outer
        return frame, rows

    def variable(self, node: tree.Variable) -> Collection:
        """Return an environment variable.

        Raises:
            FHIRPathError: Nothing of that name is defined.
        """
        name = node.name
        if name in self.env.variables:
            return Collection(self.n, (self.env.variables[name],))
        if name == "rowIndex":
            return dense(pa.array(self._row_index(), type=pa.int32()), "System.Integer", self.n)
        if name in ("resource", "rootResource", "context"):
            frame, rows = self.root()
            return frame.this if rows is None else spread(frame.this, rows)
        if name in WELL_KNOWN:
            return dense(pa.scalar(WELL_KNOWN[name]), "System.String", self.n)
        raise FHIRPathError(
            f"%{name} is not defined", position=node.position, hint="declare it as a constant of the view"
        )

    def _row_index(self) -> Ints:
        frame: Frame | None = self
        rows: Ints | None = None
        while frame is not None:
            if frame.row_index is not None:
                return frame.row_index if rows is None else frame.row_index[rows]
            if frame.rows is not None:
                rows = frame.rows if rows is None else frame.rows[rows]
            frame = frame.outer
        return np.zeros(self.n, dtype=np.int64)

    def truth(self, node: tree.Node, what: str) -> pa.Array:
        """Return a criterion as a boolean a row: empty is null; one value that is no Boolean is true."""
        return truth(self.eval(node), what)


WELL_KNOWN = {
    "sct": "http://snomed.info/sct",
    "loinc": "http://loinc.org",
    "ucum": "http://unitsofmeasure.org",
}


def truth(collection: Collection, what: str) -> pa.Array:
    """Read a collection of at most one element a row as three-valued logic."""
    n = collection.n
    result: pa.Array | None = None
    for part in collection.singles(what):
        if kind_of(part.type) == "Boolean":
            values = part.array(n)
        else:
            there = part.present(n)
            values = pa.array(there, mask=~there)
        result = values if result is None else pa.compute.coalesce(result, values)
    return pa.nulls(n, pa.bool_()) if result is None else result


def spread(collection: Collection, rows: Ints) -> Collection:
    """Return a collection of an outer frame, once for each inner row; ``rows`` is ascending."""
    n = len(rows)
    index = pa.array(rows)
    parts: list[Part] = []
    for part in collection.parts:
        if part.constant:
            parts.append(part)
        elif part.rows is None:
            twin = None if part.twin is None else part.twin.take(index)
            parts.append(Part(part.values.take(index), part.type, None, twin, None))
        else:
            parts.append(_spread_sparse(part, rows, collection.n))
    return Collection(n, tuple(parts)) if parts else empty(n)


def _spread_sparse(part: Part, rows: Ints, outer_n: int) -> Part:
    assert part.rows is not None
    counts = np.bincount(part.rows, minlength=outer_n)
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    times = counts[rows]
    new_rows = np.repeat(np.arange(len(rows)), times)
    first = np.concatenate([[0], np.cumsum(times)])[:-1]
    take = starts[rows][new_rows] + np.arange(len(new_rows)) - first[new_rows]
    index = pa.array(take)
    twin = None if part.twin is None else part.twin.take(index)
    order = None if part.order is None else part.order[take]
    return Part(part.values.take(index), part.type, new_rows, twin, order)


def booleans(mask: np.ndarray, n: int) -> Collection:
    """Return one Boolean a row."""
    return dense(pa.array(mask, type=pa.bool_()), "System.Boolean", n)
