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
from itertools import groupby, islice
from typing import IO, Any, Literal, cast

import msgspec
import numpy as np
import pyarrow as pa

from hiexchange.definitions import Definitions
from hiexchange.fhirpath.kinds import kind_of
from hiexchange.fhirpath.needs import Wanted
from hiexchange.lake.cut import Block, blocks
from hiexchange.views import gather, window
from hiexchange.views.gather import Convert
from hiexchange.views.window import Window, windows

BATCH = 16
"""Windows that become one batch: each batch has costs of its own, and only the needed elements of the text stay."""

Tree = dict[str, "Tree"]

_INTEGERS = {"integer64": pa.int64()}
_NUMBER, _ARRAY = b"-0123456789", b"["
"""How the JSON texts of these start."""
_ABSENT = msgspec.Raw(b"")
_OURS = {"resourceType", "__hx_key", "__hx_file", "__hx_line"}
"""Columns that are known without decoding."""
_NEVER = Literal["\x00"]
"""Type of a member that must not be there."""


class _Whole(Exception):
    """An element is needed with all it holds."""


class LineReader:
    """Reads blocks of NDJSON of one resource type."""

    def __init__(self, resource: str, version: str, wanted: Wanted) -> None:
        """Prepare a decoder for the needed elements."""
        self._definitions = Definitions.load(version)
        self._resource = resource
        named = {path[0] for path in wanted.whole | wanted.part if path}
        self._constant = sorted(name for name in named if name == "resourceType" or name.startswith("__hx_"))
        self._decode: Callable[[memoryview], list[Any]] | None = None
        tree: Tree = {"id": {}}
        for path in sorted(wanted.whole | wanted.part):
            if path and path[0] in self._constant:
                continue
            node = tree
            for name in path:
                node = node.setdefault(name, {})
        try:
            kind, self._convert = self._struct(resource, tree, wanted, (), resource=True)
        except _Whole:
            return
        if () not in wanted.whole and set(self._constant) <= _OURS:
            self._decode = msgspec.json.Decoder(kind).decode_lines
            self._buffer = bytearray(window.SIZE)

    def batches(
        self, stream: IO[bytes], file: str, encoded: Callable[[Block], pa.RecordBatch]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the needed elements of a file's resources.

        Args:
            stream: The file, decompressed.
            file: Its name, for ``__hx_file``.
            encoded: Reads the blocks that cannot be read here, whole.
        """
        if self._decode is None:
            yield from map(encoded, blocks(stream))
            return
        for kind, group in groupby(self._each(stream, file), _kind):
            while some := list(islice(group, BATCH)):
                yield pa.concat_batches(some) if kind == "batch" else encoded(_joined(some))

    def _each(self, stream: IO[bytes], file: str) -> Iterator[pa.RecordBatch | Block]:
        """Yield the elements of one window after the other, or its lines where the encoder must read them."""
        for given in windows(cast("io.BufferedIOBase", stream), self._buffer):
            structs = None if given.too_long else self.read(given)
            yield given.block() if structs is None else self._with_lineage(structs, given.line, file)

    def read(self, given: Window) -> pa.StructArray | None:
        """Return the needed elements of resources, or None where the encoder must read them."""
        assert self._decode is not None
        try:
            with _no_collection():
                given.check()
                found = self._decode(given.data)
                structs = self._convert(found)
                del found
        except (msgspec.DecodeError, pa.ArrowInvalid, OverflowError, RecursionError):
            return None
        # msgspec would take blank lines, and a resource over several lines.
        if len(structs) != given.lines or structs.field("id").null_count:
            return None
        return structs

    def _with_lineage(self, structs: pa.StructArray, first: int, file: str) -> pa.RecordBatch:
        count = len(structs)
        made = {
            "resourceType": lambda: pa.repeat(pa.scalar(self._resource), count),
            "__hx_key": lambda: structs.field("id"),
            "__hx_file": lambda: pa.repeat(pa.scalar(file), count),
            "__hx_line": lambda: pa.array(np.arange(first, first + count)),
        }
        arrays = {field.name: structs.field(at) for at, field in enumerate(structs.type)}
        arrays.update({name: made[name]() for name in self._constant})
        return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))

    def _struct(
        self, type: str, tree: Tree, wanted: Wanted, path: tuple[str, ...], *, resource: bool = False
    ) -> tuple[Any, Convert]:
        """Return the msgspec type of an object and what turns many of them into Arrow."""
        definition = self._definitions.get(type)
        if definition is None or (not tree and path not in wanted.part):
            raise _Whole
        members = definition.json_members
        place = {name: at for at, name in enumerate(members)}
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        converts: dict[str, Convert] = {}
        guards: set[str] = set()
        # An element that need only exist is known by any object; its id keeps the struct from being empty. In the order
        # of the definition, which senders keep, the decoder finds each member at once.
        for name, below in sorted((tree or {"id": {}}).items(), key=lambda item: place.get(item[0], -1)):
            plain = name.removeprefix("_")
            if plain in members and self._definitions.is_primitive(members[plain][1]):
                # The sibling _x may stand for x: only the encoder joins them.
                guards.add("_" + plain)
            if name not in members:
                continue
            element, kind = members[name]
            item, convert = self._member(kind, below, wanted, (*path, name))
            optional = item if item is msgspec.Raw else item | None
            field = f"f{len(converts)}"
            if element.many and (*path, name) != ("contained",):
                fields.append((field, list[optional] | None, ()))  # type: ignore[valid-type]
                converts[name] = gather.lists(convert)
            else:
                fields.append((field, optional, _ABSENT if item is msgspec.Raw else None))
                converts[name] = convert
        rename = {f"f{at}": name for at, name in enumerate(converts)}
        rename |= {f"guard{at}": name for at, name in enumerate(sorted(guards))}
        fields += [(f"guard{at}", _NEVER, "") for at in range(len(guards))]
        if resource:
            # Required, and this type's name: anything else is for the encoder to judge.
            fields.insert(0, ("resourceType", Literal[type]))
        made = msgspec.defstruct(type.replace(".", "_"), fields, gc=False, rename=rename)
        return made, gather.structs(made, converts)

    def _member(self, kind: str, below: Tree, wanted: Wanted, path: tuple[str, ...]) -> tuple[Any, Convert]:
        if path == ("contained",):
            return msgspec.Raw, gather.texts(_ARRAY)
        if not self._definitions.is_primitive(kind):
            return self._struct(kind, below, wanted, path)
        system = kind_of(kind)
        if system == "Decimal":
            return msgspec.Raw, gather.texts(_NUMBER)
        if system == "Boolean":
            return bool, gather.leaves(pa.bool_())
        if system == "Integer":
            return int, gather.leaves(_INTEGERS.get(kind, pa.int32()))
        return str, gather.leaves(pa.string())


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


def _kind(given: pa.RecordBatch | Block) -> str:
    """Tell apart what cannot be put together."""
    if isinstance(given, Block):
        return "too long" if given.too_long else "block"
    return "batch"


def _joined(given: Sequence[Block]) -> Block:
    return given[0] if len(given) == 1 else Block(b"".join(item.data for item in given), given[0].line, given[0].offset)
