"""Columns in and out of DuckDB's JSON reader: reading, annotations, widening.

The reader is asked for every member of a plan, decimals under the names ``quoting.py`` gave them, integers and
booleans as JSON, so that their spelling can be judged. What it returns is believed only as far as
``proof.py`` vouches for it.
"""

from __future__ import annotations

import atexit
from functools import lru_cache
from threading import Lock, get_ident
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange._duck import quiet_connection
from hiexchange.lake import annotate
from hiexchange.lake.proof import proven
from hiexchange.lake.quoting import quote_numbers
from hiexchange.lake.scan import Codes, Flags, Indices, Survey
from hiexchange.lake.schema import Node, Plan

# DuckDB cuts the line it complains of in the middle of a character, and then can't make the message.
_REFUSED = (duckdb.Error, UnicodeDecodeError)


_OPENING = Lock()


@lru_cache(maxsize=1)
def _database() -> duckdb.DuckDBPyConnection:
    """Return this process's connection for reading JSON; every reader has a cursor of its own."""
    connection = quiet_connection()
    connection.execute("SET threads = 1")
    atexit.register(_close)
    return connection


def _close() -> None:
    """Close all before the interpreter ends, or DuckDB complains on the terminal of what is left open."""
    _reader.cache_clear()
    _database().close()


class _Lines:
    """What the view ``lines`` of a reader holds."""

    def __init__(self) -> None:
        self.table = pa.table({"line": pa.array([], pa.string())})

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


class _Reader:
    """An expression over lines, prepared once: binding it anew for each block takes as long as reading a megabyte."""

    def __init__(self, expression: str) -> None:
        self._lines = _Lines()
        with _OPENING:
            self._cursor = _database().cursor()
        self._cursor.register("lines", self._lines)
        self._cursor.execute(f"PREPARE reading AS SELECT {expression} FROM lines")

    def __call__(self, lines: pa.Array) -> list[pa.Array]:
        nothing = self._lines.table
        self._lines.table = pa.table({"line": lines})
        try:
            found = self._cursor.sql("EXECUTE reading").to_arrow_table()
        finally:
            self._lines.table = nothing
        return [
            column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks) for column in found.columns
        ]


@lru_cache(maxsize=64)
def _reader(expression: str, thread: int) -> _Reader:
    """Return this thread's reader of an expression."""
    return _Reader(expression)


def read_columns(codes: Codes, starts: Indices, current: Plan) -> tuple[list[pa.Array], Flags]:
    """Read lines into the columns of the parse schema, decimals as literal text.

    Args:
        codes: Lines in UTF-8, writable when the plan has decimals: numbers are quoted in place.
        starts: Where each line starts; blank lines belong to the line before.
        current: The members to read.

    Returns:
        The columns of the lines that became their row exactly, and which lines those are.
    """
    survey = Survey.of(codes)
    quoted = quote_numbers(codes, survey.loose, current.marked_names)
    lines = _lines(codes, starts)
    read = _reader(f"unnest(from_json(line, '{current.structure}'))", get_ident())
    good = np.ones(len(starts), bool)
    try:
        columns = read(lines)
    except _REFUSED:
        # One malformed line is an error of them all.
        good = _reader("json_valid(line)", get_ident())(lines)[0].to_numpy(zero_copy_only=False)
        chosen = lines.filter(pa.array(good))
        if good.all() or not len(chosen):
            return [], np.zeros(len(starts), bool)
        try:
            columns = read(chosen)
        except _REFUSED:
            return [], np.zeros(len(starts), bool)
        codes, starts = np.frombuffer(chosen.buffers()[2], np.uint8), _starts(chosen)
        survey, quoted = Survey.of(codes), 0
    exact = proven(columns, current, survey, quoted, codes, starts)
    if not exact.all():
        columns = [column.filter(pa.array(exact)) for column in columns]
    good[good] = exact
    return [columns[0], *(_typed(array, node) for array, node in zip(columns[1:], current.nodes, strict=True))], good


def _lines(codes: Codes, starts: Indices) -> pa.Array:
    offsets = np.append(starts, len(codes)).astype(np.int32)
    return pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets), pa.py_buffer(codes))


def _starts(lines: pa.Array) -> Indices:
    return np.frombuffer(lines.buffers()[1], np.int32)[: len(lines)].astype(np.int64)


def _typed(array: pa.Array, node: Node) -> pa.Array:
    """Return a proven column in the type of the parse schema."""
    if node.many:
        return _relisted(array, _typed_item(array.values, node))
    return _typed_item(array, node)


def _typed_item(array: pa.Array, node: Node) -> pa.Array:
    if node.kind == "struct":
        children = [_typed(array.field(place), child) for place, child in enumerate(node.children)]
        return _restructed(array, children, [child.name for child in node.children])
    if node.kind == "bool":
        return pc.equal(array, "true")
    if node.kind in ("int32", "int64"):
        return pc.cast(array, pa.int32() if node.kind == "int32" else pa.int64())
    return array


def _relisted(array: pa.Array, values: pa.Array) -> pa.ListArray:
    """Return a list array with other values; its own parts are not copied."""
    if array.offset:
        return pa.ListArray.from_arrays(array.offsets, values, mask=_null_mask(array))
    return pa.Array.from_buffers(
        pa.list_(values.type), len(array), array.buffers()[:2], array.null_count, children=[values]
    )


def _restructed(array: pa.Array, children: list[pa.Array], names: list[str]) -> pa.StructArray:
    """Return a struct array with other members; what says which are null is not copied."""
    fields = [pa.field(name, child.type) for name, child in zip(names, children, strict=True)]
    if array.offset:
        return pa.StructArray.from_arrays(children, fields=fields, mask=_null_mask(array))
    return pa.Array.from_buffers(
        pa.struct(fields), len(array), array.buffers()[:1], array.null_count, children=children
    )


def _null_mask(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def annotated(array: pa.Array, node: Node) -> list[pa.Array]:
    """Return the stored array of a member, then its annotations."""
    stored = array
    if node.annotated and node.kind == "struct":
        if node.many:
            stored = _relisted(array, _annotated_struct(array.values, node))
        else:
            stored = _annotated_struct(array, node)
    if node.kind == "decimal" and not node.many:
        return [stored, annotate.numeric(array)]
    if node.dated:
        return [stored, *annotate.interval(array)]
    return [stored]


def _annotated_struct(array: pa.StructArray, node: Node) -> pa.StructArray:
    arrays: list[pa.Array] = []
    for index, child in enumerate(node.children):
        arrays += annotated(array.field(index), child)
    return _restructed(array, arrays, [field.name for child in node.children for field in child.stored_fields])


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
        return _relisted(array, cast_wide(array.values, kind.value_type))
    if pa.types.is_struct(kind):
        by_name = {array.type.field(index).name: array.field(index) for index in range(array.type.num_fields)}
        arrays = [
            cast_wide(by_name[field.name], field.type) if field.name in by_name else pa.nulls(len(array), field.type)
            for field in kind
        ]
        return _restructed(array, arrays, [field.name for field in kind])
    return array.cast(kind)
