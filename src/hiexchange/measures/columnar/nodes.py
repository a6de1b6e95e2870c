"""FHIR data as columns: a table of resources, and below it each element as a node with its children.

A child is read out of the Arrow structure once for all rows of its node, when first asked for. The rules
(choice elements by stem, primitives as System values, absent repeating elements as null) are those of
:mod:`..cql.model`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.fhirpath.columns import explode, struct_child
from hiexchange.measures.columnar import moments
from hiexchange.measures.columnar.cells import (
    Col,
    Ints,
    Lists,
    Mask,
    Nulls,
    Things,
    Truth,
    Unsupported,
    Words,
    from_values,
    merge,
)
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.model import Element, Model, to_decimal

_TEXT_DATES = {"date": t.Date, "dateTime": t.DateTime, "instant": t.DateTime}


class Node:
    """The elements of one FHIR type at one place of the data, ``n`` rows."""

    def __init__(self, model: Model, kind: str, fields: dict[str, pa.Array], n: int) -> None:
        """Keep a type's Arrow fields by JSON name, each of ``n`` rows; rows are never null here."""
        self.model = model
        self.kind = kind
        self.fields = fields
        self.n = n
        self.resource = False
        self.memo: dict[Any, Any] = {}
        definition = model.definitions.get(kind)
        self._elements = definition.elements if definition is not None else {}
        self._members = definition.json_members if definition is not None else {}

    def __repr__(self) -> str:
        return f"Node({self.kind}, {self.n})"

    def child(self, path: str) -> Col:
        """Return a child by its CQL path, a slot a row."""
        found = self.memo.get(path)
        if found is None:
            found = self.memo[path] = self._read(path)
        assert isinstance(found, Col)
        return found

    def _read(self, path: str) -> Col:
        element = self._elements.get(path)
        if element is not None:
            names = element.json_names()
            if len(names) == 1 or element.many:
                ((name, kind),) = names.items()
                return self._member(name, kind, element.many)
            rest: Mask = np.ones(self.n, np.bool_)
            pieces = []
            for name, kind in names.items():
                if name in self.fields:
                    col = self._member(name, kind, False)
                    rows = np.flatnonzero(rest & col.known())
                    rest[rows] = False
                    pieces.append((rows, col.take(rows)))
            return merge(self.n, pieces)
        for name, (_, kind) in self._members.items():
            if name.lower() == path.lower():
                return self._member(name, kind, False)
        return Nulls(self.n)

    def _member(self, name: str, kind: str, many: bool) -> Col:
        array = self.fields.get(name)
        if array is None:
            return Nulls(self.n)
        if pa.types.is_list(array.type) != many:
            raise Unsupported(f"{self.kind}.{name} is stored as text")
        if not many:
            return column(self.model, array, kind)
        values, owner = explode(array)
        known = values.is_valid()
        if values.null_count:
            keep = np.flatnonzero(np.asarray(known))
            values, owner = values.take(pa.array(keep)), owner[keep]
        return Lists(owner, column(self.model, values, kind), np.asarray(array.is_valid()))

    def signatures(self, rows: Ints) -> tuple[Ints, list[Element]]:
        """Return each row's place in a list of elements distinct by content (-1 for a negative row)."""
        codes, distinct = self._signed()
        return np.where(rows < 0, -1, codes[rows] if self.n else -1), distinct

    def _signed(self) -> tuple[Ints, list[Element]]:
        found = self.memo.get("#signed")
        if found is None:
            coded = _signature(list(self.fields.values()), self.n).dictionary_encode()
            codes = np.asarray(coded.indices.to_numpy(zero_copy_only=False), np.int64)
            first = np.unique(codes, return_index=True)[1]
            kind = self.model.type(self.kind)
            found = self.memo["#signed"] = (codes, [Element(kind, data) for data in self.data(first)])
        codes_and_elements: tuple[Ints, list[Element]] = found
        return codes_and_elements

    def data(self, rows: Ints, names: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
        """Return rows as JSON values, as stage 1 reads them."""
        index = pa.array(rows)
        chosen = [name for name in self.fields if not name.startswith("__") and (names is None or name in names)]
        columns = [self.fields[name].take(index).to_pylist() for name in chosen]
        found = [dict(zip(chosen, values, strict=True)) for values in zip(*columns, strict=True)]
        return [_pruned(item) for item in found] or [{} for _ in rows]


class Table(Node):
    """The resources of one type of a batch of subjects, sorted by subject and then as they came."""

    def __init__(self, model: Model, kind: str, data: pa.Table, owner: Ints, subjects: int) -> None:
        """Keep the rows and the subject of each."""
        data = data.combine_chunks()
        fields = {
            name: data.column(name).chunk(0) if data.num_rows else pa.nulls(0, data.schema.field(name).type)
            for name in data.column_names
        }
        super().__init__(model, kind, fields, data.num_rows)
        self.resource = True
        self.owner = owner
        counts = np.bincount(owner, minlength=subjects)
        self.counts = counts
        self.starts = np.cumsum(counts) - counts

    def body(self, row: int, together: Mask) -> dict[str, Any]:
        """Return a row as JSON; the rows of all subjects in ``together`` are read with it."""
        bodies: dict[int, dict[str, Any]] = self.memo.setdefault("#bodies", {})
        if row not in bodies:
            rows = np.flatnonzero(together[self.owner])
            bodies.update(zip(rows.tolist(), self.data(rows), strict=True))
            if row not in bodies:
                bodies[row] = self.data(np.array([row]))[0]
        return bodies[row]

    def ids(self) -> list[Any]:
        """Return the resources' ids."""
        found = self.memo.get("#ids")
        if found is None:
            array = self.fields.get("id")
            found = self.memo["#ids"] = [None] * self.n if array is None else array.to_pylist()
        ids: list[Any] = found
        return ids


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _pruned(v) for k, v in value.items() if v is not None and not k.startswith("__")}
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    return value


def column(model: Model, array: pa.Array, kind: str) -> Col:
    """Return an Arrow array of one FHIR type as a column."""
    if pa.types.is_struct(array.type):
        node_rows = np.flatnonzero(np.asarray(array.is_valid()))
        rows = np.full(len(array), -1, np.int64)
        rows[node_rows] = np.arange(len(node_rows))
        held = array if len(node_rows) == len(array) else array.take(pa.array(node_rows))
        fields = {field.name: _child(held, field.name) for field in held.type}
        return Things(Node(model, kind, fields, len(node_rows)), rows)
    if pa.types.is_boolean(array.type):
        return Truth(np.asarray(array.cast(pa.int8()).fill_null(-1)))
    if kind in _TEXT_DATES:
        return moments.parse(array, _TEXT_DATES[kind], model.offset)
    definition = model.definitions.get(kind)
    if definition is None or definition.kind != "primitive":
        raise Unsupported(f"{kind} is stored as text")
    coded = array.dictionary_encode()
    codes = np.asarray(coded.indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)
    values = coded.dictionary.to_pylist()
    convert: Callable[[Any], Any] | None = {"decimal": to_decimal, "time": t.parse_time}.get(kind)
    if convert is None:
        return Words(codes, values)
    return from_values([convert(value) for value in values]).take(codes)


def _child(array: pa.Array, name: str) -> pa.Array:
    found = struct_child(array, name)
    assert found is not None
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


_NONE, _FIELD, _ITEM = "\x00", "\x1f", "\x1e"


def _signature(arrays: list[pa.Array], n: int) -> pa.Array:
    """Return a text a row that is the same for rows of the same content, and only for them."""
    texts = [_text(array) for array in arrays]
    if not texts:
        return pa.repeat("", n)
    return pc.binary_join_element_wise(*texts, _FIELD)


def _text(array: pa.Array) -> pa.Array:
    kind = array.type
    if pa.types.is_struct(kind):
        inner = [_text(_child(array, field.name)) for field in kind if not field.name.startswith("__")]
        joined = pc.binary_join_element_wise("{", *inner, "}", _FIELD) if inner else pa.repeat("{}", len(array))
        return pc.if_else(array.is_valid(), joined, _NONE)
    if pa.types.is_list(kind):
        values, owner = explode(array)
        texts = _text(values)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(array)))])
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), texts.cast(pa.string()))
        joined = pc.binary_join(lists, _ITEM)
        return pc.if_else(array.is_valid(), pc.binary_join_element_wise("[", joined, "]", _FIELD), _NONE)
    return array.cast(pa.string()).fill_null(_NONE)
