"""Read NDJSON for one view: only the elements it needs, straight into Arrow.

msgspec checks every line and makes objects of the needed members alone, so this is faster than encoding
whole resources. What it cannot vouch for (elements needed whole, ``_x`` siblings of needed elements, values of
another JSON type, resources without id) is left to the lake's encoder. Of a repeated member the last one
counts, as msgspec has it; a lake quarantines such lines. An empty object, which FHIR forbids, exists here and is
no element in a lake.
"""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from operator import attrgetter, is_
from typing import IO, Any, Literal, cast

import msgspec
import numpy as np
import pyarrow as pa

from hiexchange.definitions import Definitions
from hiexchange.fhirpath.kinds import kind_of
from hiexchange.fhirpath.needs import Wanted
from hiexchange.lake.cut import BLOCK_SIZE, Block, blocks
from hiexchange.lake.scan import number_of, places_of

READ = 128 << 10
"""Bytes read at once: memory of this size is used again and again, while larger pieces come fresh from the system."""
RUN = 4 << 20
"""Bytes that become one batch: more would leave the cache, fewer would repeat what each batch costs."""

Tree = dict[str, "Tree"]
Convert = Callable[[list[Any]], pa.Array]

_INTEGERS = {"integer64": pa.int64()}
_NEWLINE = ord("\n")
_NUMBER, _ARRAY = b"-0123456789", b"["
"""How the JSON texts of these start."""
_NULL = ord("n")
_ABSENT = msgspec.Raw(b"")
_NEVER = Literal["\x00"]
"""Type of a member that must not be there."""


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

    def batches(
        self, stream: IO[bytes], file: str, encoded: Callable[[Block], pa.RecordBatch]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the needed elements of a file's resources.

        Args:
            stream: The file, decompressed.
            file: Its name, for ``__hx_file``.
            encoded: Reads the blocks that cannot be read here, whole.
        """
        for run in _runs(blocks(cast("IO[bytes]", _Growing(stream)), size=READ)):
            structs = self.read(run)
            yield encoded(_joined(run)) if structs is None else self._with_lineage(structs, run[0].line, file)

    def read(self, run: Sequence[Block]) -> pa.StructArray | None:
        """Return the needed elements of blocks that follow each other, or None where the encoder must read them."""
        if self._decode is None or run[0].too_long:
            return None
        found: list[Any] = []
        try:
            with _no_collection():
                for block in run:
                    if not block.data.isascii():
                        block.data.decode()
                    found += self._decode(block.data)
                structs = self._convert(found)
                del found
        except (msgspec.DecodeError, UnicodeDecodeError, pa.ArrowInvalid, OverflowError, RecursionError):
            return None
        # msgspec would take blank lines, and a resource over several lines.
        last = run[-1]
        lines = number_of(np.frombuffer(last.data, np.uint8), _NEWLINE) + (not last.data.endswith(b"\n"))
        if len(structs) != last.line - run[0].line + lines or structs.field("id").null_count:
            return None
        return structs

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
        converts: dict[str, Convert] = {}
        guards: set[str] = set()
        # An element that need only exist is known by any object; its id keeps the struct from being empty.
        for name, below in sorted((tree or {"id": {}}).items()):
            plain = name.removeprefix("_")
            if plain in members and self._definitions.is_primitive(members[plain][1]):
                # The sibling _x may stand for x: only the encoder joins them.
                guards.add("_" + plain)
            if name not in members:
                continue
            element, kind = members[name]
            item, convert = self._member(kind, below, wanted, (*path, name))
            optional = item if item is msgspec.Raw else item | None
            if element.many and (*path, name) != ("contained",):
                fields.append((name, list[optional] | None, ()))  # type: ignore[valid-type]
                converts[name] = partial(_lists, convert=convert)
            else:
                fields.append((name, optional, _ABSENT if item is msgspec.Raw else None))
                converts[name] = convert
        fields += [(f"guard{at}", _NEVER, "") for at in range(len(guards))]
        if resource:
            # Required, and this type's name: anything else is for the encoder to judge.
            fields.insert(0, ("resourceType", Literal[type]))
        rename = {f"guard{at}": name for at, name in enumerate(sorted(guards))}
        made = msgspec.defstruct(type.replace(".", "_"), fields, gc=False, rename=rename)
        return made, partial(_structs, kind=made, members=converts)

    def _member(self, kind: str, below: Tree, wanted: Wanted, path: tuple[str, ...]) -> tuple[Any, Convert]:
        if path == ("contained",):
            return msgspec.Raw, partial(_texts, starts=_ARRAY)
        if not self._definitions.is_primitive(kind):
            return self._struct(kind, below, wanted, path)
        system = kind_of(kind)
        if system == "Decimal":
            return msgspec.Raw, partial(_texts, starts=_NUMBER)
        if system == "Boolean":
            return bool, partial(_leaves, type=pa.bool_())
        if system == "Integer":
            return int, partial(_leaves, type=_INTEGERS.get(kind, pa.int32()))
        return str, partial(_leaves, type=pa.string())


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


def _runs(given: Iterator[Block]) -> Iterator[list[Block]]:
    """Put blocks together; one that is too long stays alone."""
    run: list[Block] = []
    size = 0
    for block in given:
        if run and (block.too_long or run[0].too_long or size >= RUN):
            yield run
            run, size = [], 0
        run.append(block)
        size += len(block.data)
    if run:
        yield run


def _joined(run: Sequence[Block]) -> Block:
    return run[0] if len(run) == 1 else Block(b"".join(block.data for block in run), run[0].line, run[0].offset)


class _Growing(io.RawIOBase):
    """Reads more at a time within a long line, which would be copied for each small piece."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._least = 0

    def read(self, size: int = -1) -> bytes:
        text = self._stream.read(max(size, self._least))
        self._least = 0 if b"\n" in text else min(2 * len(text), BLOCK_SIZE)
        return text


def _leaves(values: list[Any], type: pa.DataType) -> pa.Array:
    """Return values of a primitive."""
    return pa.array(values, type)


def _texts(values: list[Any], *, starts: bytes) -> pa.Array:
    """Return literal JSON texts; an absent one is empty, that and an explicit null are null."""
    codes = np.frombuffer(b"\n".join([*values, b""]), np.uint8)
    ends = places_of(codes, _NEWLINE)
    if len(ends) != len(values):
        raise pa.ArrowInvalid("a value over several lines")
    sizes = np.diff(ends, prepend=-1)
    first = codes[ends - sizes + 1]
    filled = (sizes > 1) & (first != _NULL)
    if not np.isin(first[filled], list(starts)).all():
        raise pa.ArrowInvalid("a value of another JSON type")
    kept = np.repeat(filled, sizes)
    kept[ends] = False
    offsets = np.cumsum(np.append(0, np.where(filled, sizes - 1, 0)), dtype=np.int32)
    buffers = (np.packbits(filled, bitorder="little"), offsets, codes[kept])
    return pa.Array.from_buffers(pa.string(), len(values), [pa.py_buffer(buffer) for buffer in buffers])


def _lists(values: list[Any], convert: Convert) -> pa.Array:
    """Return values of an element that repeats; one that is absent counts as empty."""
    try:
        lengths = np.fromiter(map(len, values), np.int32, len(values))
    except TypeError:  # explicit nulls
        values = [value or () for value in values]
        lengths = np.fromiter(map(len, values), np.int32, len(values))
    offsets = np.cumsum(np.append(np.int32(0), lengths), dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), convert(list(chain.from_iterable(values))))


def _structs(values: list[Any], kind: Any, members: dict[str, Convert]) -> pa.Array:
    """Return values of an element with members; absent ones are looked for only when one was stumbled over."""
    mask = None
    try:
        found = [list(map(attrgetter(name), values)) for name in members]
    except AttributeError:
        mask = pa.array(np.fromiter(map(is_, values, repeat(None)), np.bool_, len(values)))
        empty = kind()
        values = [value or empty for value in values]
        found = [list(map(attrgetter(name), values)) for name in members]
    arrays = [convert(of_one) for convert, of_one in zip(members.values(), found, strict=True)]
    return pa.StructArray.from_arrays(arrays, list(members), mask=mask)
