"""Find out which members a block has, at the speed of Arrow's JSON reader.

Only names and kinds (object, list, text, number, boolean) are taken from the data; the FHIR type of a
member comes from the definitions.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.json as pj

from hiexchange.definitions import Definitions
from hiexchange.lake.schema import MAX_DEPTH, scalar_kind
from hiexchange.lake.shape import Shape


def infer(text: bytes, resource: str, version: str) -> tuple[Shape, frozenset[str]] | None:
    """Return the shape of NDJSON lines, and names that some line uses in a way no column can hold.

    Returns:
        None when the text can't be read as a whole or mixes JSON types under one name.
    """
    options = pj.ReadOptions(use_threads=False, block_size=len(text) + 1)
    try:
        schema = pj.read_json(pa.BufferReader(text), read_options=options).schema
    except pa.ArrowInvalid:
        return None
    strange: set[str] = set()
    shape = _shape(Definitions.load(version), resource, list(schema), 0, strange)
    return shape, frozenset(strange)


def _shape(definitions: Definitions, type_name: str, fields: list[pa.Field], depth: int, strange: set[str]) -> Shape:
    members = definitions.type(type_name).json_members
    shape: Shape = {}
    for given in fields:
        name = given.name
        if depth == 0 and name == "resourceType":
            continue
        if depth == 0 and name == "contained" and pa.types.is_string(given.type):
            continue  # emptied before; the caller adds it
        found = members.get(name)
        kind, many = (found[1], found[0].many) if found else ("", False)
        if not found and name.startswith("_") and name[1:] in members:
            element, base = members[name[1:]]
            if scalar_kind(definitions, base) not in ("struct", "json"):
                kind, many = "Element", element.many
        if not kind or depth >= MAX_DEPTH or many != pa.types.is_list(given.type):
            strange.add(name)
            continue
        item = given.type.value_type if many else given.type
        scalar = "struct" if kind == "Element" else scalar_kind(definitions, kind)
        if scalar == "struct" and pa.types.is_struct(item) and item.num_fields:
            shape[name] = _shape(definitions, kind, list(item), depth + 1, strange)
        elif scalar in _FITS and _FITS[scalar](item):
            shape[name] = {}
        else:
            strange.add(name)
    return shape


def _is_text(kind: pa.DataType) -> bool:
    # Arrow infers timestamps from text that looks like one.
    return bool(pa.types.is_string(kind) or pa.types.is_timestamp(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


_FITS = {
    "string": _is_text,
    "date": _is_text,
    "bool": pa.types.is_boolean,
    "int32": pa.types.is_integer,
    "int64": pa.types.is_integer,
    "decimal": _is_number,
}
