"""Columns in and out of Arrow's JSON reader: quoted decimals, proofs, annotations, widening.

The reader can't keep the text of a number, so numbers under decimal names are quoted before it and
marked with a tag; afterwards every decimal must have a tag and no other text may.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from hiexchange.lake import annotate
from hiexchange.lake.schema import Node, Plan

TAG = "\ue000"
"""Marks a quoted number: a private-use code point; lines that hold it go the exact way."""
TAG_BYTES = TAG.encode()
_OPEN = b'"' + TAG_BYTES
_NUMBER = rb"(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"


class NotFast(Exception):
    """The fast path can't vouch for these lines."""


def read_json(text: bytes, schema: pa.Schema | None) -> pa.Table:
    """Read NDJSON in one piece; with a schema, members outside it are an error."""
    # A block_size below the longest line fails with "straddling object straddles two block boundaries".
    options = pj.ReadOptions(use_threads=False, block_size=len(text) + 1)
    behaviour = "error" if schema is not None else "infer"
    parsing = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior=behaviour)
    return pj.read_json(pa.BufferReader(text), read_options=options, parse_options=parsing)


def read_columns(text: bytes, current: Plan, count: int) -> list[pa.Array]:
    """Read NDJSON of ``count`` lines into the columns of the parse schema, decimals as literal text.

    Raises:
        NotFast: A line is not exactly one resource of this type whose members all fit their columns.
    """
    try:
        table = read_json(quote(text, current), current.parse_schema)
    except pa.ArrowInvalid:
        raise NotFast from None
    types = table["resourceType"]
    if table.num_rows != count or types.null_count or not pc.all(pc.equal(types, current.resource)).as_py():
        raise NotFast
    columns = [
        column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks) for column in table.columns
    ]
    names = current.decimal_names
    return [columns[0], *(untag(array, node, names) for array, node in zip(columns[1:], current.nodes, strict=True))]


def quote(text: bytes, current: Plan) -> bytes:
    """Put quotes and the tag round every number under a decimal name.

    By name, not by the look of the number: ``100`` is a decimal too. Inside a JSON string the quote
    before the colon is escaped, so nothing there can match.
    """
    names = current.decimal_names
    if not names:
        return text
    # Slices and one join: re.sub expands its template in Python before 3.12, half as fast.
    view, last = memoryview(text), 0
    pieces: list[bytes | memoryview] = []
    for match in _quoting(names).finditer(text):
        start, end = match.span(1)
        pieces += (view[last:start], _OPEN, view[start:end], b'"')
        last = end
    pieces.append(view[last:])
    return b"".join(pieces)


@lru_cache(maxsize=256)
def _quoting(names: frozenset[str]) -> re.Pattern[bytes]:
    one = sorted(names)
    choice = one[0] if len(one) == 1 else "(?:" + "|".join(one) + ")"
    return re.compile(b'"' + choice.encode() + rb'"[ \t]*:[ \t]*' + _NUMBER)


def untag(array: pa.Array, node: Node, names: frozenset[str]) -> pa.Array:
    """Strip the tags of decimals and prove that each has one, and that no other text has.

    A number under a decimal's name but in a text column (Identifier.value) was quoted too: its tag
    gives it away. Empty objects and lists, which no column can hold, are found here as well.

    Raises:
        NotFast: The block must go the exact way.
    """
    if node.many:
        if len(array) and pc.any(pc.equal(pc.list_value_length(array), 0)).as_py():
            raise NotFast
        values = array.values
        if values.null_count:
            raise NotFast
        changed = _untag_item(values, node, names)
        if changed is values:
            return array
        return pa.ListArray.from_arrays(array.offsets, changed, mask=_null_mask(array))
    return _untag_item(array, node, names)


def _untag_item(array: pa.Array, node: Node, names: frozenset[str]) -> pa.Array:
    if node.kind == "struct":
        given = [array.field(index) for index in range(array.type.num_fields)]
        changed = [untag(child, below, names) for child, below in zip(given, node.children, strict=True)]
        _refuse_empty(array, given)
        if all(new is old for new, old in zip(changed, given, strict=True)):
            return array
        fields = [pa.field(child.name, value.type) for child, value in zip(node.children, changed, strict=True)]
        return pa.StructArray.from_arrays(changed, fields=fields, mask=_null_mask(array))
    if node.kind == "decimal":
        if not pc.all(pc.starts_with(array, TAG)).as_py() and array.null_count < len(array):
            raise NotFast
        return pc.binary_replace_slice(array.cast(pa.binary()), 0, len(TAG_BYTES), b"").cast(pa.string())
    if node.name in names and pa.types.is_string(array.type) and pc.any(pc.starts_with(array, TAG)).as_py():
        raise NotFast
    return array


def _refuse_empty(array: pa.StructArray, children: list[pa.Array]) -> None:
    """Refuse objects without members: they have no place in a struct column."""
    if any(child.null_count == array.null_count for child in children):
        return  # one child is there whenever the object is
    present = np.zeros(len(array), bool)
    for child in children:
        present |= child.is_valid().to_numpy(zero_copy_only=False)
    if int(present.sum()) != len(array) - array.null_count:
        raise NotFast


def _null_mask(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def annotated(array: pa.Array, node: Node) -> list[pa.Array]:
    """Return the stored array of a member, then its annotations."""
    stored = array
    if node.annotated and node.kind == "struct":
        if node.many:
            values = _annotated_struct(array.values, node)
            stored = pa.ListArray.from_arrays(array.offsets, values, mask=_null_mask(array))
        else:
            stored = _annotated_struct(array, node)
    if node.kind == "decimal" and not node.many:
        return [stored, annotate.numeric(array)]
    if node.dated:
        return [stored, *annotate.interval(array)]
    return [stored]


def _annotated_struct(array: pa.StructArray, node: Node) -> pa.StructArray:
    arrays: list[pa.Array] = []
    fields: list[pa.Field] = []
    for index, child in enumerate(node.children):
        for value, spec in zip(annotated(array.field(index), child), child.stored_fields, strict=True):
            arrays.append(value)
            fields.append(pa.field(spec.name, value.type))
    return pa.StructArray.from_arrays(arrays, fields=fields, mask=_null_mask(array))


def widen(batch: pa.RecordBatch, current: Plan) -> list[pa.Array]:
    """Return the columns of ``batch`` in the wider parse schema of ``current``."""
    if batch.schema.equals(current.parse_schema):
        return list(batch.columns)
    by_name = dict(zip(batch.schema.names, batch.columns, strict=True))
    return [
        cast_wide(by_name[field.name], field.type) if field.name in by_name else pa.nulls(batch.num_rows, field.type)
        for field in current.parse_schema
    ]


def cast_wide(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return an array with null members added where ``kind`` has more than it."""
    if array.type.equals(kind):
        return array
    if pa.types.is_list(kind):
        values = cast_wide(array.values, kind.value_type)
        return pa.ListArray.from_arrays(array.offsets, values, mask=_null_mask(array))
    if pa.types.is_struct(kind):
        by_name = {array.type.field(index).name: array.field(index) for index in range(array.type.num_fields)}
        arrays = [
            cast_wide(by_name[field.name], field.type) if field.name in by_name else pa.nulls(len(array), field.type)
            for field in kind
        ]
        return pa.StructArray.from_arrays(arrays, fields=list(kind), mask=_null_mask(array))
    return array.cast(kind)
