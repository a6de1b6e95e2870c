"""Functions about types, values and keys: ofType, is, as, type, hasValue, getValue, getResourceKey, getReferenceKey."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import tree
from hiexchange.fhirpath.columns import Collection, Part, merge
from hiexchange.fhirpath.frame import Environment, Frame, booleans
from hiexchange.fhirpath.kinds import TYPE_INFO, conforms, kind_of, resolve
from hiexchange.fhirpath.navigate import child

_REFERENCE = r"(?:^|/)(?P<type>[A-Z][A-Za-z]*)/(?P<id>[A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?$"
_FIRST_KIND = re.compile(r"([A-Z][A-Za-z]*)/")
_URN = re.compile(r"^urn:(?:uuid|oid):")
_LONGEST_ID = 64


def of_type(collection: Collection, name: str, env: Environment, position: int) -> Collection:
    """Keep the elements of a type or its subtypes."""
    wanted = _named(name, env, position)
    kept = tuple(part for part in collection.parts if conforms(part.type, wanted, env.definitions))
    return Collection(collection.n, kept)


def as_type(collection: Collection, name: str, env: Environment, position: int) -> Collection:
    """Return singletons that are of a type; empty where they are not."""
    result = of_type(collection, name, env, position)
    return Collection(collection.n, result.singles("operator as"))


def is_type(collection: Collection, name: str, env: Environment, position: int) -> Collection:
    """Say of singletons whether they are of a type; empty stays empty."""
    wanted = _named(name, env, position)
    there = np.zeros(collection.n, dtype=np.bool_)
    match = np.zeros(collection.n, dtype=np.bool_)
    for part in collection.singles("operator is"):
        present = part.present(collection.n)
        there |= present
        if conforms(part.type, wanted, env.definitions):
            match |= present
    return Collection(collection.n, (Part(pa.array(match, mask=~there), "System.Boolean"),))


def _named(name: str, env: Environment, position: int) -> str:
    found = resolve(name, env.definitions)
    if found is None:
        raise FHIRPathError(f"{name!r} is no FHIR {env.definitions.version} type", position=position)
    return found


def _type_argument(node: tree.Call) -> str:
    name = tree.type_name(node.arguments[0])
    if name is None:
        raise FHIRPathError(f"{node.name}() takes the name of a type", position=node.position)
    return name


def _of_type(node: tree.Call, frame: Frame) -> Collection:
    return of_type(frame.eval(node.parent), _type_argument(node), frame.env, node.position)


def _as(node: tree.Call, frame: Frame) -> Collection:
    return as_type(frame.eval(node.parent), _type_argument(node), frame.env, node.position)


def _is(node: tree.Call, frame: Frame) -> Collection:
    return is_type(frame.eval(node.parent), _type_argument(node), frame.env, node.position)


def _has_value(node: tree.Call, frame: Frame) -> Collection:
    parent = frame.eval(node.parent)
    mask = np.zeros(frame.n, dtype=np.bool_)
    for part in parent.sparse():
        mask[part.rows[np.asarray(part.values.is_valid())]] = True  # type: ignore[index]
    return booleans(mask & (parent.counts() == 1), frame.n)


def _get_value(node: tree.Call, frame: Frame) -> Collection:
    """Return a single primitive without what FHIR adds to it, as a value of its System type."""
    parent = frame.eval(node.parent)
    single = parent.counts() == 1
    parts = []
    for part in parent.sparse():
        kind = kind_of(part.type)
        if kind is not None and kind != "Quantity":
            there = single[part.rows] & np.asarray(part.values.is_valid())
            parts.append(replace(part.keep(there), type=f"System.{kind}", twin=None))
    return merge(frame.n, parts)


def _type(node: tree.Call, frame: Frame) -> Collection:
    """Return namespace and name of each element's type (N1, 6.3 reflection)."""
    parent = frame.eval(node.parent)
    parts = []
    for part in parent.parts:
        named = pa.scalar(_type_info(part.type, frame.env), TYPE_INFO)
        if part.rows is not None:
            values = pa.repeat(named, len(part.values))
        else:
            values = pc.if_else(pa.array(part.present(frame.n)), named, pa.scalar(None, TYPE_INFO))
        parts.append(replace(part, values=values, type="System.TypeInfo", twin=None))
    return Collection(frame.n, tuple(parts))


def _type_info(type: str, env: Environment) -> dict[str, str]:
    if type.startswith("System."):
        return {"namespace": "System", "name": type.removeprefix("System.")}
    definition = env.definitions.get(type)
    # A backbone element has no type name of its own: Patient.contact is a BackboneElement.
    name = definition.base if definition is not None and definition.kind == "backbone" else type
    return {"namespace": "FHIR", "name": name}


def _resource_key(node: tree.Call, frame: Frame) -> Collection:
    parent = frame.eval(node.parent)
    found = child(parent, "id", frame.env)
    if (found.counts() == parent.counts()).all():
        return found
    # A resource without an id (payers' samples) has the key that the lake made of its content.
    ours = child(parent, "__hx_key", frame.env)
    return Collection(frame.n, tuple(found.singles("getResourceKey()"))) if not ours.parts else ours


def _reference_key(node: tree.Call, frame: Frame) -> Collection:
    wanted = _named(_type_argument(node), frame.env, node.position) if node.arguments else None
    parent = frame.eval(node.parent)
    references = of_type(parent, "Reference", frame.env, node.position)
    found = child(references, "reference", frame.env)
    return merge(frame.n, [_keys(part, wanted, frame.n) for part in found.parts])


def _keys(part: Part, wanted: str | None, n: int) -> Part:
    """Turn ``Type/id``, a URL that ends so, ``#id`` or ``urn:uuid:...`` into the id alone."""
    # Many resources refer to the same few: each reference is read once.
    encoded = pc.dictionary_encode(part.values)
    key = _keys_of(encoded.dictionary, wanted).take(encoded.indices)
    done = Part(key, "System.String", part.rows, None, part.order)
    return done if part.rows is None else done.keep(np.asarray(key.is_valid()))


def _keys_of(text: pa.Array, wanted: str | None) -> pa.Array:
    kind = wanted or _kind_of_first(text)
    # Nearly all are plain Type/id of one type: cutting that off takes a quarter of the time.
    plain = pc.match_substring_regex(text, rf"^{kind}/[A-Za-z0-9\-.]+$")
    plain = pc.and_(plain, pc.less_equal(pc.binary_length(text), len(kind) + 1 + _LONGEST_ID))
    key = pc.utf8_slice_codeunits(text, len(kind) + 1)
    others = pc.invert(pc.fill_null(plain, True))
    if pc.any(others).as_py():
        key = pc.replace_with_mask(key, others, _keys_of_any(text.filter(others), wanted))
    return key


def _kind_of_first(text: pa.Array) -> str:
    first = _FIRST_KIND.match(str(text[0])) if len(text) else None
    return first[1] if first else ""


def _keys_of_any(text: pa.Array, wanted: str | None) -> pa.Array:
    split = pc.extract_regex(text, pattern=_REFERENCE)
    key = pc.if_else(split.is_valid(), pc.struct_field(split, "id"), pa.scalar(None, pa.string()))
    if wanted is not None:
        return pc.if_else(pc.equal(pc.struct_field(split, "type"), wanted), key, pa.scalar(None, pa.string()))
    # A bundle's own links carry no type; the id after the prefix is all there is.
    urn = pc.match_substring_regex(text, _URN.pattern)
    return pc.if_else(urn, pc.replace_substring_regex(text, _URN.pattern, ""), key)


FUNCTIONS = {
    "ofType": (1, 1, _of_type),
    "as": (1, 1, _as),
    "is": (1, 1, _is),
    "type": (0, 0, _type),
    "hasValue": (0, 0, _has_value),
    "getValue": (0, 0, _get_value),
    "getResourceKey": (0, 0, _resource_key),
    "getReferenceKey": (0, 1, _reference_key),
}
