"""From rows back to JSON: the inverse of ``decode``.

Equal means: the same JSON value with member order ignored, array order kept, decimals equal as literal
text, strings equal by code points, integer ``-0`` equal to ``0``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa

from hiexchange.lake.lines import number_hooks
from hiexchange.lake.schema import Node, plan
from hiexchange.lake.shape import Shape

_encode = msgspec.json.encode
_parse = json.JSONDecoder(**number_hooks()).decode


def lines(batch: pa.RecordBatch, resource: str, version: str) -> Iterator[bytes]:
    """Yield one JSON line (without line end) a row of a stored batch."""
    nodes = plan(resource, shape_of(batch.schema), version).nodes
    given = {name: batch.column(index) for index, name in enumerate(batch.schema.names)}
    columns = [(node, given[node.name].to_pylist()) for node in nodes]
    unmapped = given["__unmapped"].to_pylist() if "__unmapped" in given else [None] * batch.num_rows
    for row in range(batch.num_rows):
        value: dict[str, Any] = {"resourceType": resource}
        for node, cells in columns:
            cell = cells[row]
            if cell is not None:
                value[node.name] = _member(cell, node)
        text = unmapped[row]
        if text is not None:
            for pointer, part in _parse(text).items():
                put(value, pointer, part)
        yield _encode(value)


def shape_of(schema: pa.Schema) -> Shape:
    """Return the shape that a stored schema was made from."""
    fields = [field for field in schema if field.name != "resourceType" and not field.name.startswith("__")]
    return _shape(fields)


def _shape(fields: list[pa.Field]) -> Shape:
    shape: Shape = {}
    for field in fields:
        if field.name.startswith("__"):
            continue
        item = field.type.value_type if pa.types.is_list(field.type) else field.type
        shape[field.name] = _shape(list(item)) if pa.types.is_struct(item) else {}
    return shape


def _member(cell: Any, node: Node) -> Any:
    if node.many:
        return [None if item is None else _item(item, node) for item in cell]
    return _item(cell, node)


def _item(cell: Any, node: Node) -> Any:
    if node.kind == "struct":
        return {child.name: _member(cell[child.name], child) for child in node.children if cell[child.name] is not None}
    if node.kind in ("decimal", "json"):
        return msgspec.Raw(cell.encode())
    return cell


def put(root: dict[str, Any], pointer: str, part: Any) -> None:
    """Set the value at a JSON pointer (RFC 6901) whose parent exists."""
    *parents, last = [token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/")]
    place: Any = root
    for token in parents:
        place = place[int(token)] if isinstance(place, list) else place[token]
    if isinstance(place, list):
        place[int(last)] = part
    else:
        place[last] = part


def equal(left: bytes, right: bytes) -> bool:
    """Say whether two JSON texts are equal in the sense above."""
    return bool(_canonical(left) == _canonical(right))


def _canonical(text: bytes) -> Any:
    return _exact.decode(text.decode())


_exact = json.JSONDecoder(
    parse_float=lambda text: ("number", text), parse_int=lambda text: ("number", "0" if text == "-0" else text)
)
