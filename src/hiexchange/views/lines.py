"""Read NDJSON for one view: only the elements it needs, straight into Arrow.

msgspec checks every line and makes objects of the needed members alone, so this is faster than encoding
whole resources. What it cannot vouch for (elements needed whole, ``_x`` siblings, values of another JSON
type, resources without id) is left to the lake's encoder. Of a repeated member the last one counts, as
msgspec has it; a lake quarantines such lines.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from itertools import chain
from operator import attrgetter
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.definitions import Definitions
from hiexchange.fhirpath.kinds import kind_of
from hiexchange.fhirpath.needs import Wanted
from hiexchange.lake.cut import Block
from hiexchange.lake.scan import number_of, places_of_pair

Tree = dict[str, "Tree"]
Convert = Callable[[list[Any]], pa.Array]

_INTEGERS = {"integer64": pa.int64()}
_NUMERIC = {bytes([byte]) for byte in b"-0123456789"}
_NEWLINE = ord("\n")
_ABSENT = pa.array(["", "null"])


class _Whole(Exception):
    """An element is needed with all it holds."""


class LineReader:
    """Reads blocks of NDJSON of one resource type."""

    def __init__(self, resource: str, version: str, wanted: Wanted) -> None:
        """Prepare a decoder for the needed elements."""
        self._definitions = Definitions.load(version)
        self._lineage = sorted(path[0] for path in wanted.whole if path[:1] and path[0].startswith("__hx_"))
        self._decode: Callable[[bytes], list[Any]] | None = None
        tree: Tree = {"id": {}}
        for path in sorted(wanted.whole | wanted.part):
            if path and path[0] in ("resourceType", *self._lineage):
                continue
            node = tree
            for name in path:
                node = node.setdefault(name, {})
        try:
            kind, self._convert = self._struct(resource, tree, wanted, (), resource=True)
        except _Whole:
            return
        if () not in wanted.whole and set(self._lineage) <= {"__hx_key", "__hx_file", "__hx_line"}:
            self._decode = msgspec.json.Decoder(kind).decode_lines

    def read(self, block: Block, file: str) -> pa.RecordBatch | None:
        """Return the needed elements of a block, or None where the encoder must read it."""
        if self._decode is None or block.too_long:
            return None
        codes = np.frombuffer(block.data, np.uint8)
        # A sibling such as _birthDate may stand for its element. Looked for by numpy: bytes.find is
        # as slow as the whole decoding when the text is full of quotes.
        if len(places_of_pair(codes, b'"_')):
            return None
        try:
            if not block.data.isascii():
                block.data.decode()
            with _no_collection():
                found = self._decode(block.data)
                structs = self._convert(found)
        except (msgspec.DecodeError, UnicodeDecodeError, pa.ArrowInvalid, OverflowError, RecursionError):
            return None
        lines = number_of(codes, _NEWLINE) + (not block.data.endswith(b"\n"))
        if len(found) != lines or structs.field("id").null_count:
            return None
        return self._with_lineage(structs, block.line, file)

    def _with_lineage(self, structs: pa.StructArray, first: int, file: str) -> pa.RecordBatch:
        count = len(structs)
        lineage = {
            "__hx_key": lambda: structs.field("id"),
            "__hx_file": lambda: pa.repeat(pa.scalar(file), count),
            "__hx_line": lambda: pa.array(np.arange(first, first + count)),
        }
        arrays = {field.name: structs.field(at) for at, field in enumerate(structs.type)}
        arrays.update({name: lineage[name]() for name in self._lineage})
        return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))

    def _struct(
        self, type: str, tree: Tree, wanted: Wanted, path: tuple[str, ...], *, resource: bool = False
    ) -> tuple[Any, Convert]:
        """Return the msgspec type of an object and what turns many of them into Arrow."""
        definition = self._definitions.get(type)
        if definition is None or (not tree and path not in wanted.part):
            raise _Whole
        members = definition.json_members
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        converts: list[tuple[str, Convert]] = []
        # An element that need only exist is known by any object; its id keeps the struct from being empty.
        for name, below in sorted((tree or {"id": {}}).items()):
            if name not in members:
                continue
            element, kind = members[name]
            item, convert = self._member(kind, below, wanted, (*path, name))
            if element.many and (*path, name) != ("contained",):
                item, convert = _listed(item, convert)
            fields.append((name, item | None if item is not msgspec.Raw else item, _default(item)))
            converts.append((name, convert))
        if resource:
            # Required, and this type's name: anything else is for the encoder to judge.
            fields.insert(0, ("resourceType", Literal[type]))
        made = msgspec.defstruct(type.replace(".", "_"), fields, gc=False)
        return made, _structs(converts)

    def _member(self, kind: str, below: Tree, wanted: Wanted, path: tuple[str, ...]) -> tuple[Any, Convert]:
        if path == ("contained",):
            return msgspec.Raw, _raw_text
        if not self._definitions.is_primitive(kind):
            return self._struct(kind, below, wanted, path)
        system = kind_of(kind)
        if system == "Decimal":
            return msgspec.Raw, _decimals
        if system == "Boolean":
            return bool, lambda values: pa.array(values, pa.bool_())
        if system == "Integer":
            arrow = _INTEGERS.get(kind, pa.int32())
            return int, lambda values: pa.array(values, arrow)
        return str, lambda values: pa.array(values, pa.string())


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the cycle collector while many small objects live that cannot be cyclic: a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _default(item: Any) -> Any:
    return msgspec.Raw(b"") if item is msgspec.Raw else None


def _listed(item: Any, convert: Convert) -> tuple[Any, Convert]:
    inner = item if item is msgspec.Raw else item | None

    def lists(values: list[Any]) -> pa.Array:
        filled = [value or () for value in values] if None in values else values
        lengths = np.fromiter(map(len, filled), np.int32, len(filled))
        offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
        flat = list(chain.from_iterable(filled))
        return pa.ListArray.from_arrays(pa.array(offsets), convert(flat))

    return list[inner], lists  # type: ignore[valid-type]


def _structs(converts: list[tuple[str, Convert]]) -> Convert:
    getters = [(name, attrgetter(name), convert) for name, convert in converts]

    def structs(values: list[Any]) -> pa.Array:
        there = [value for value in values if value is not None] if None in values else values
        arrays = [convert(list(map(get, there))) for _, get, convert in getters]
        made = pa.StructArray.from_arrays(arrays, [name for name, _, _ in getters])
        if len(there) == len(values):
            return made
        valid = np.fromiter((value is not None for value in values), np.bool_, len(values))
        slots = np.cumsum(valid) - 1
        return made.take(pa.array(slots, mask=~valid))

    return structs


def _decimals(values: list[Any]) -> pa.Array:
    """Return the literal text of numbers; an absent one is an empty Raw, an explicit null is null."""
    array = _raw_text(values)
    first = pc.unique(pc.binary_slice(array.cast(pa.binary()), 0, 1)).drop_null()
    if not set(first.to_pylist()) <= _NUMERIC:
        raise pa.ArrowInvalid("not a number")
    return array


def _raw_text(values: list[Any]) -> pa.Array:
    array = pa.array(list(map(bytes, values)), pa.binary()).cast(pa.string())
    return pc.if_else(pc.is_in(array, _ABSENT), pa.scalar(None, pa.string()), array)
