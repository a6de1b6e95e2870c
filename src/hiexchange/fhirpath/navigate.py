"""Steps from a parent to its elements, by the FHIR definitions and the Arrow fields that exist.

A FHIR element that the data never holds has no Arrow field, and gives the empty collection. Choice
elements (``value``) are found in their typed fields (``valueQuantity``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.fhirpath.columns import Collection, Ints, Part, explode, merge, struct_child
from hiexchange.fhirpath.frame import Environment
from hiexchange.fhirpath.kinds import kind_of

LINEAGE = "__hx_"
"""Columns of ours that a path may name on a resource: ``__hx_file``, ``__hx_line``."""


def child(parent: Collection, name: str, env: Environment) -> Collection:
    """Return the elements ``name`` of every parent, in order."""
    steps: list[tuple[Part, Part]] = []
    ranks: list[Ints] | None = None
    for at, part in enumerate(parent.parts):
        for found in _elements(part, name, env):
            if len(parent.parts) > 1:
                ranks = ranks or parent.ranks()
                found = _ordered(part, found, ranks[at], parent.n)
            steps.append((part, found))
    if len(steps) > 1 and len(parent.parts) == 1:
        # Several typed fields of one choice element: the parent's place orders them.
        steps = [(part, _by_parent(found, parent.n)) for part, found in steps]
    return merge(parent.n, [_outer_rows(part, found) for part, found in steps])


def _elements(part: Part, name: str, env: Environment) -> list[Part]:
    """Return the children of one part; ``rows`` counts slots of the part itself."""
    values = part.values
    if name in ("extension", "id") and kind_of(part.type) not in (None, "Quantity"):
        # Of a primitive: they live in its _x sibling.
        if part.twin is None:
            return []
        return _field(part.twin, name, "Extension" if name == "extension" else "string", part)
    if part.constant:
        return _of_constant(part, name)
    if part.type == "System.TypeInfo":
        return _field(values, name, "System.String", part)
    if part.type == "System.Quantity":
        return _field(values, name, "System.Decimal" if name == "value" else "System.String", part)
    if name.startswith(LINEAGE) and env.definitions.is_resource(part.type):
        kind = "System.Integer" if name == "__hx_line" else "System.String"
        return _field(values, name, kind, part)
    if name == "contained" and env.contained is not None and env.definitions.is_resource(part.type):
        return _contained(part, env)
    if name == "resourceType":
        return _field(values, name, "code", part)
    definition = env.definitions.get(part.type)
    element = definition.elements.get(name) if definition else None
    if element is None:
        return []
    found = []
    for field, kind in element.json_names().items():
        found += _field(values, field, kind, part)
    return found


def _field(values: pa.Array, name: str, kind: str, part: Part) -> list[Part]:
    array = struct_child(values, name)
    twin = struct_child(values, "_" + name)
    if array is None:
        if twin is None:
            return []
        array = pa.nulls(len(values), pa.list_(pa.string()) if _is_list(twin.type) else pa.string())
    if _is_list(array.type) or (twin is not None and _is_list(twin.type)):
        return [_repeating(array, twin, kind)]
    array = _plain(array, kind)
    if twin is not None and twin.null_count < len(twin):
        if part.rows is None and not (np.asarray(pc.and_(array.is_null(), twin.is_valid())).any()):
            return [Part(array, kind, None, twin)]
        return [Part(array, kind, None, twin).sparse(len(values))]
    return [Part(array, kind)]


def _repeating(array: pa.Array, twin: pa.Array | None, kind: str) -> Part:
    items, rows = explode(array)
    items = _plain(items, kind)
    if twin is not None and twin.null_count < len(twin):
        return _with_twins(array, items, rows, twin, kind)
    if items.null_count:
        keep = np.flatnonzero(np.asarray(items.is_valid()))
        return Part(items.take(pa.array(keep)), kind, rows[keep])
    return Part(items, kind, rows)


def _with_twins(array: pa.Array, items: pa.Array, rows: Ints, twin: pa.Array, kind: str) -> Part:
    """Align ``name`` and ``_name`` lists, which pair up by position and may differ in length."""
    twins, twin_rows = explode(twin)
    n = len(array)
    place = _places(rows, n), _places(twin_rows, n)
    width = max(place[0].max(initial=-1), place[1].max(initial=-1)) + 1
    keys = rows * width + place[0], twin_rows * width + place[1]
    every = np.union1d(*keys)
    value_slots, twin_slots = _slots(every, keys[0]), _slots(every, keys[1])
    part = Part(items.take(value_slots), kind, every // max(width, 1), twins.take(twin_slots))
    there = np.asarray(pc.or_(part.values.is_valid(), part.twin.is_valid()))  # type: ignore[union-attr]
    return part.keep(there)


def _places(rows: Ints, n: int) -> Ints:
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    places: Ints = np.arange(len(rows)) - starts[rows]
    return places


def _slots(every: Ints, keys: Ints) -> pa.Array:
    slots = np.full(len(every), -1, dtype=np.int64)
    slots[np.searchsorted(every, keys)] = np.arange(len(keys))
    return pa.array(slots, mask=slots < 0)


def _plain(array: pa.Array, kind: str) -> pa.Array:
    """Bring foreign Arrow encodings to the lake's: text as string, dates of other tools as text."""
    kind_name = kind_of(kind)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if kind_name in (None, "Quantity", "Boolean", "Integer") or array.type == pa.string():
        return array
    if pa.types.is_timestamp(array.type):
        return pc.strftime(array, format="%Y-%m-%dT%H:%M:%SZ")
    return array.cast(pa.string())


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _outer_rows(part: Part, found: Part) -> Part:
    """Turn slots of the parent part into rows of the frame."""
    if part.rows is None:
        return found
    if found.rows is None:
        found = found.sparse(len(part.values))
    assert found.rows is not None
    return replace(found, rows=part.rows[found.rows])


def _by_parent(found: Part, n: int) -> Part:
    found = found.sparse(n if found.rows is None and found.constant else len(found.values))
    return replace(found, order=found.rows)


def _ordered(part: Part, found: Part, rank: Ints, n: int) -> Part:
    """Give children the place of their parent among the parents of all parts."""
    found = found.sparse(len(part.values) if not part.constant else n)
    if part.rows is None:
        # ``rank`` counts the non-empty slots only.
        full = np.zeros(n, dtype=np.int64)
        full[np.flatnonzero(part.present(n))] = rank
        rank = full
    assert found.rows is not None
    return replace(found, order=rank[found.rows])


def _of_constant(part: Part, name: str) -> list[Part]:
    if kind_of(part.type) != "Quantity" or not part.values.is_valid or name not in ("value", "unit", "code"):
        return []
    kind = "System.Decimal" if name == "value" else "System.String"
    return [Part(part.values[name], kind)]


def _contained(part: Part, env: Environment) -> list[Part]:
    text = struct_child(part.values, "contained")
    if text is None or env.contained is None:
        return []
    return [Part(structs, kind, rows) for kind, structs, rows in env.contained(text)]
