"""Blocks whose lines are of several resource types: one block a type, of the same length.

Some exporters write one file for everything, others put an OperationOutcome between the resources. The
lines of other types are blanked, so that line numbers and offsets stay what they are in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import msgspec

from hiexchange.definitions import Definitions
from hiexchange.lake.cut import Block
from hiexchange.lake.decode import Reject


class _Typed(msgspec.Struct):
    resourceType: str = ""


_typed = msgspec.json.Decoder(_Typed).decode


def type_of(line: bytes) -> str:
    """Return what root member ``resourceType`` says; empty when the line is no JSON object or has none."""
    try:
        return _typed(line).resourceType
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ""


def has_others(rejects: Iterable[Reject], version: str) -> bool:
    """Say whether some line was refused only because it belongs to another table."""
    known = Definitions.load(version)
    return any(bad.reason == "wrong-resource-type" and known.is_resource(type_of(bad.raw)) for bad in rejects)


def by_type(block: Block, main: str, version: str) -> Iterator[tuple[str, Block]]:
    """Yield (resource type, block with the lines of other types blanked), ``main`` first.

    Lines that are no resource of this FHIR version stay with ``main``, whose encoder says what is wrong with them.
    """
    known = Definitions.load(version)
    lines = block.data.split(b"\n")
    types = [kind if known.is_resource(kind := type_of(line)) else main for line in lines]
    for name in dict.fromkeys([main, *types]):
        kept = [line if kind == name else b" " * len(line) for line, kind in zip(lines, types, strict=True)]
        yield name, replace(block, data=b"\n".join(kept))
