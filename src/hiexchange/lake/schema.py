"""From definitions and a shape to the Arrow schema: Parquet on FHIR, pruned to what was seen.

Deviations from the specification (github.com/aehrc/parquet-on-fhir) are listed in docs/lake.md. Member
order follows the definitions, never the data, so one shape always gives one schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import pyarrow as pa

from hiexchange.definitions import Definitions
from hiexchange.lake.quoting import marked_names
from hiexchange.lake.shape import Shape, dumps, loads

LAYOUT = "1"
MAX_DEPTH = 32
"""Deeper members go to ``__unmapped``."""

NUMERIC = pa.decimal128(32, 6)
INSTANT_MS = pa.timestamp("ms", tz="UTC")
INSTANT_US = pa.timestamp("us", tz="UTC")

_INTEGERS = {"integer": pa.int32(), "positiveInt": pa.int32(), "unsignedInt": pa.int32(), "integer64": pa.int64()}
_DATES = ("date", "dateTime", "instant")

OURS = pa.schema(
    [
        pa.field("__unmapped", pa.string()),
        pa.field("__hx_key", pa.string()),
        pa.field("__hx_patient", pa.string()),
        pa.field("__hx_updated", INSTANT_US),
        pa.field("__hx_subsetted", pa.bool_()),
        pa.field("__hx_file", pa.string()),
        pa.field("__hx_line", pa.int64()),
        pa.field("__hx_transaction_time", INSTANT_US),
        pa.field("__hx_ingest", pa.string()),
    ]
)
"""Columns every FHIR table has beside the elements; ``lineage`` adds optional ones."""


@dataclass(frozen=True)
class Node:
    """One member of the pruned tree."""

    name: str
    fhir: str
    """FHIR type of the member; ``Element`` for the ``_x`` sibling of a primitive."""
    kind: str
    """``bool``, ``int32``, ``int64``, ``string``, ``decimal``, ``date``, ``json`` or ``struct``."""
    many: bool
    children: tuple[Node, ...] = ()
    dated: bool = False
    """Whether the interval of this date is stored beside it."""

    @cached_property
    def annotated(self) -> bool:
        """Whether this member or one below it has an annotation."""
        return self.kind == "decimal" or self.dated or any(child.annotated for child in self.children)

    @cached_property
    def parse_type(self) -> pa.DataType:
        """The Arrow type as read from JSON, before annotations."""
        if self.kind == "struct":
            item = pa.struct([pa.field(child.name, child.parse_type) for child in self.children])
        else:
            item = _SCALARS[self.kind]
        return pa.list_(item) if self.many else item

    @cached_property
    def stored_fields(self) -> tuple[pa.Field, ...]:
        """The stored field, followed by its annotations."""
        if self.kind == "struct":
            item = pa.struct([field for child in self.children for field in child.stored_fields])
        else:
            item = _SCALARS[self.kind]
        own = pa.field(self.name, pa.list_(item) if self.many else item, metadata={"fhir": self.fhir})
        return (own, *(pa.field(name, kind) for name, kind in self.annotations))

    @cached_property
    def annotations(self) -> tuple[tuple[str, pa.DataType], ...]:
        """Names and types of the columns derived from this one."""
        if self.kind == "decimal" and not self.many:
            return ((f"__{self.name}_numeric", NUMERIC),)
        if self.dated:
            return ((f"__{self.name}_start", INSTANT_MS), (f"__{self.name}_end", INSTANT_MS))
        return ()


_SCALARS = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "string": pa.string(),
    "decimal": pa.string(),
    "date": pa.string(),
    "json": pa.string(),
}


@dataclass(frozen=True)
class Plan:
    """All that encoding into one schema needs, made once for a shape."""

    resource: str
    version: str
    shape: Shape
    nodes: tuple[Node, ...]

    @cached_property
    def parse_schema(self) -> pa.Schema:
        """Schema for the JSON reader: elements only, decimals as text."""
        fields = [pa.field("resourceType", pa.string())]
        return pa.schema(fields + [pa.field(node.name, node.parse_type) for node in self.nodes])

    @cached_property
    def stored_schema(self) -> pa.Schema:
        """Schema of the table: elements with annotations, then our columns."""
        fields = [pa.field("resourceType", pa.string(), nullable=False)]
        fields += [field for node in self.nodes for field in node.stored_fields]
        metadata = {
            "hx.layout": LAYOUT,
            "fhir.version": self.version,
            "fhir.resource": self.resource,
            "hx.zone": "UTC",
            "hx.numeric": str(NUMERIC),
        }
        return pa.schema(fields + list(OURS), metadata=metadata)

    @cached_property
    def decimal_names(self) -> frozenset[str]:
        """JSON names that are decimal somewhere in this schema."""
        return frozenset(node.name for node in walk(self.nodes) if node.kind == "decimal" and not node.many)

    @cached_property
    def marked_names(self) -> dict[str, str]:
        """{decimal name: the name it has once its number is quoted}."""
        return marked_names(self.decimal_names)

    @cached_property
    def structure(self) -> str:
        """What DuckDB's ``from_json`` is asked for: all as text, decimals under their marked names."""
        members = {"resourceType": "VARCHAR", **_structure(self.nodes, self.marked_names)}
        return json.dumps(members)


def _structure(nodes: tuple[Node, ...], marked: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in nodes:
        item: Any = "JSON" if node.kind in ("bool", "int32", "int64") else "VARCHAR"
        if node.kind == "struct":
            item = _structure(node.children, marked)
        is_number = node.kind == "decimal" and not node.many
        found[marked.get(node.name, node.name) if is_number else node.name] = [item] if node.many else item
    return found


def walk(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """Yield every node of the tree, parents first."""
    for node in nodes:
        yield node
        yield from walk(node.children)


def plan(resource: str, shape: Shape, version: str) -> Plan:
    """Return the plan for a shape; plans are cached."""
    return _plan(resource, dumps(shape), version)


@lru_cache(maxsize=512)
def _plan(resource: str, text: str, version: str) -> Plan:
    shape = loads(text)
    definitions = Definitions.load(version)
    return Plan(resource, version, shape, _nodes(definitions, resource, shape, top=True))


def _nodes(definitions: Definitions, type_name: str, shape: Shape, *, top: bool) -> tuple[Node, ...]:
    members = definitions.type(type_name).json_members
    found: list[Node] = []
    for name, (element, kind) in members.items():
        if name in shape:
            below = shape[name]
            children = _nodes(definitions, kind, below, top=False) if below else ()
            own = "struct" if children else scalar_kind(definitions, kind)
            if own != "struct" or children:
                dated = own == "date" and not element.many and (top or type_name == "Period")
                many = element.many and own != "json"  # the text of the whole array is one value
                found.append(Node(name, kind, own, many, children, dated))
        if "_" + name in shape:
            children = _nodes(definitions, "Element", shape["_" + name], top=False)
            if children:
                found.append(Node("_" + name, "Element", "struct", element.many, children))
    return tuple(found)


def scalar_kind(definitions: Definitions, type_name: str) -> str:
    """Return the node kind of a FHIR type; ``struct`` when it is not stored as a scalar."""
    if type_name in _INTEGERS:
        return str(_INTEGERS[type_name])
    if type_name == "boolean":
        return "bool"
    if type_name == "decimal":
        return "decimal"
    if type_name in _DATES:
        return "date"
    if definitions.is_primitive(type_name):
        return "string"
    if definitions.is_resource(type_name):
        return "json"
    return "struct"
