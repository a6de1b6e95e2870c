"""Prove that every line became exactly its row.

DuckDB's reader is lenient: it leaves unknown members out, takes the first of two, makes text of a number, an
array or an object, and a structure of nulls of what is no object. The counts of ``scan.py`` know none of
that. Each member in the table comes from a member of its line, so equal counts mean that none was lost or
repeated; with as many arrays in both, no array became a text; and then as many strings mean that every text
was one. What no count can show (empty arrays and objects, nulls among items, arrays in arrays, numbers that
are no integers) is looked for by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.lake.scan import Codes, Counts, Flags, Indices, Survey, counts_of_rows
from hiexchange.lake.schema import Node, Plan

_INTEGER = r"^(?:[0-9]{1,18}|-[0-9]{1,17})$"
_RANGE = {"int32": 2**31, "int64": 2**63}


def proven(
    columns: Sequence[pa.Array], current: Plan, survey: Survey, quoted: int, codes: Codes, starts: Indices
) -> Flags:
    """Say of each row whether it holds its line, the whole line, and nothing but its line.

    Args:
        columns: ``resourceType`` and the plan's members as DuckDB gave them, integers and booleans as JSON.
        current: The plan they were read by.
        survey: What the lines held before numbers were quoted.
        quoted: How many numbers were quoted.
        codes: The lines as they were read.
        starts: Where each line starts.
    """
    if not len(survey.doubtful):
        # No row holds more than its line: where the sums are equal, so are the rows.
        whole = _Census(None, 1)
        whole.rows(columns, current)
        if _same(whole.counts(), survey.counts(quoted)).all():
            return np.ones(len(starts), bool)
    each = _Census(np.arange(len(starts)), len(starts))
    each.rows(columns, current)
    exact = _same(each.counts(), counts_of_rows(codes, starts))
    exact[np.searchsorted(starts, survey.doubtful, "right") - 1] = False
    return exact


def _same(table: Counts, text: Counts) -> Flags:
    same: Flags = (table.members == text.members) & (table.lists == text.lists)
    same &= (table.texts == text.texts) & ~table.odd & ~text.odd
    return same


class _Census:
    """Counts what columns hold, in total or a row."""

    def __init__(self, index: Indices | None, size: int) -> None:
        self._index = index
        """Row of each value at the top; None for totals."""
        self._members, self._lists, self._texts = (np.zeros(size, np.int64) for _ in range(3))
        self._odd = np.zeros(size, bool)

    def counts(self) -> Counts:
        return Counts(self._members, self._lists, self._texts, self._odd)

    def rows(self, columns: Sequence[pa.Array], current: Plan) -> None:
        types = columns[0]
        self._add(self._members, types, self._index)
        self._add(self._texts, types, self._index)
        self._suspect(pc.fill_null(pc.not_equal(types, current.resource), True), self._index)
        for array, node in zip(columns[1:], current.nodes, strict=True):
            if node.kind == "json" and node.name == "contained":
                self._add(self._members, array, self._index)  # emptied before
                self._add(self._texts, array, self._index)
                self._suspect(pc.fill_null(pc.not_equal(array, ""), False), self._index)
            else:
                self._member(array, node, self._index)

    def _add(self, sums: Indices, array: pa.Array, index: Indices | None) -> None:
        """Count the values that are not null."""
        if index is None:
            sums[0] += len(array) - array.null_count
        else:
            sums += np.bincount(index[_numpy(array.is_valid())], minlength=len(sums))

    def _suspect(self, flags: pa.Array | Flags, index: Indices | None) -> None:
        """Mark the rows of flagged values."""
        given = _numpy(flags) if isinstance(flags, pa.Array) else flags
        if index is None:
            self._odd[0] |= bool(given.any())
        else:
            self._odd[index[given]] = True

    def _member(self, array: pa.Array, node: Node, index: Indices | None) -> None:
        self._add(self._members, array, index)
        if not node.many:
            self._item(array, node, index)
            return
        self._add(self._lists, array, index)
        self._suspect(pc.fill_null(pc.equal(pc.list_value_length(array), 0), False), index)
        values = array.values
        below = None if index is None else index[_numpy(pc.list_parent_indices(array))]
        if values.null_count:
            self._suspect(values.is_null(), below)
        if node.kind != "struct" and node.kind not in ("bool", *_RANGE):
            self._suspect(pc.fill_null(pc.starts_with(values, "["), False), below)
        self._item(values, node, below)

    def _item(self, array: pa.Array, node: Node, index: Indices | None) -> None:
        if node.kind == "struct":
            children = [array.field(place) for place in range(array.type.num_fields)]
            for child, below in zip(children, node.children, strict=True):
                self._member(child, below, index)
            if not any(child.null_count == array.null_count for child in children):
                there = _numpy(children[0].is_valid())
                for child in children[1:]:
                    there = there | _numpy(child.is_valid())
                self._suspect(_numpy(array.is_valid()) & ~there, index)
        elif node.kind == "bool":
            spelled = pc.or_(pc.equal(array, "true"), pc.equal(array, "false"))
            self._suspect(pc.invert(pc.fill_null(spelled, True)), index)
        elif node.kind in _RANGE:
            self._suspect(_no_integers(array, node.kind), index)
        elif node.kind == "json":
            self._suspect(array.is_valid(), index)  # its text is not kept by this reader
        else:
            self._add(self._texts, array, index)


def _no_integers(array: pa.Array, kind: str) -> pa.Array:
    spelled = pc.fill_null(pc.match_substring_regex(array, _INTEGER), True)
    values = pc.cast(pc.if_else(spelled, array, None), pa.int64())
    limit = _RANGE[kind]
    inside = pc.and_(pc.greater_equal(values, -limit), pc.less_equal(values, limit - 1))
    return pc.invert(pc.and_(spelled, pc.fill_null(inside, True)))


def _numpy(flags: pa.Array) -> Flags:
    found: Flags = flags.to_numpy(zero_copy_only=False)
    return found
