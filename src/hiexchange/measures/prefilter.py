"""Drop patients who cannot be in any initial population, before their resources are read.

What an initial population needs is drawn from its ELM: the retrieves under ``exists`` and And, each a
type and a set of codes. Only what is proven counts: an expression that is not understood needs
nothing, a code path that a reference or a negation may satisfy needs nothing. A patient dropped gets
the same row as one evaluated outside the initial population. Look-back data are untouched: no dates
are used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hiexchange._duck import quiet_connection
from hiexchange.measures.bundle import Group
from hiexchange.measures.cql.compiler import Unit
from hiexchange.measures.cql.library import Node
from hiexchange.measures.cql.retrieve import PRIMARY
from hiexchange.measures.lakes import focus_patients, patient_ids, scan
from hiexchange.measures.measure import Compiled

Need = tuple[str, Any]
"""("codes", (type, path, pairs)) | ("all", needs) | ("any", needs)."""
Mask = NDArray[np.bool_]
"""One place a patient of the lake, in the order of their ids."""
DEPTH = 12


def candidates(lake: Any, compiled: Iterable[Compiled]) -> pa.Array | None:
    """Return the ids of the patients who may be in some initial population, None when nothing could be proven."""
    needs = [need for item in compiled for group in item.measure.groups for need in [_group(item.unit, group)]]
    if not needs or any(need is None for need in needs):
        return None
    with quiet_connection() as con:
        reader = _Reader(con, lake)
        found = reader.patients(("any", needs))
        return None if found is None else reader.ids.filter(pa.array(found))


def _group(unit: Unit, group: Group) -> Need | None:
    parts = [
        _true(define.node.get("expression"), unit, group.basis != "boolean", 0)
        for item in group.populations
        if item.column == "initial_population"
        for define in [unit.define(item.expression)]
        if define is not None
    ]
    return _any(parts) if parts else None


def _all(parts: list[Need | None]) -> Need | None:
    known = [part for part in parts if part is not None]
    return ("all", known) if known else None


def _any(parts: list[Need | None]) -> Need | None:
    return None if not parts or any(part is None for part in parts) else ("any", parts)


def _operands(node: Node) -> list[Node]:
    given = node.get("operand") or []
    return given if isinstance(given, list) else [given]


def _owner(node: Node, unit: Unit) -> Unit:
    return unit.includes.get(node.get("libraryName", ""), unit)


def _true(node: Node | None, unit: Unit, listed: bool, depth: int) -> Need | None:
    """Return what must be there for a Boolean to be true (or, ``listed``, for a list not to be empty)."""
    if node is None or depth > DEPTH:
        return None
    if listed:
        return _filled(node, unit, depth)
    kind = node.get("type")
    if kind == "ExpressionRef":
        define = _owner(node, unit).define(node["name"])
        return None if define is None else _true(define.node.get("expression"), define.unit, False, depth + 1)
    if kind == "And":
        return _all([_true(item, unit, False, depth + 1) for item in _operands(node)])
    if kind == "Or":
        return _any([_true(item, unit, False, depth + 1) for item in _operands(node)])
    if kind == "Exists":
        return _filled(_operands(node)[0], unit, depth + 1)
    return None


def _filled(node: Node | None, unit: Unit, depth: int) -> Need | None:
    """Return what must be there for a list not to be empty."""
    if node is None or depth > DEPTH:
        return None
    kind = node.get("type")
    if kind == "Retrieve":
        return _retrieve(node, unit)
    if kind == "ExpressionRef":
        define = _owner(node, unit).define(node["name"])
        return None if define is None else _filled(define.node.get("expression"), define.unit, depth + 1)
    if kind == "Query" and not node.get("aggregate"):
        sources = [item["expression"] for item in [*node["source"], *_with(node)]]
        return _all([_filled(item, unit, depth + 1) for item in sources])
    if kind == "Union":
        return _any([_filled(item, unit, depth + 1) for item in _operands(node)])
    if kind == "Intersect":
        return _all([_filled(item, unit, depth + 1) for item in _operands(node)])
    if kind in ("Except", "Distinct", "Flatten", "As", "ToList"):
        return _filled(_operands(node)[0], unit, depth + 1)
    if kind == "FunctionRef":
        return _function(node, unit, depth)
    return None


def _with(node: Node) -> list[Node]:
    return [item for item in node.get("relationship") or [] if item.get("type") == "With"]


def _function(node: Node, unit: Unit, depth: int) -> Need | None:
    """A fluent filter such as ``isEncounterPerformed`` gives nothing when its list is empty."""
    found = [f for f in _owner(node, unit).functions.get(node["name"], []) if f.arity == len(node.get("operand", []))]
    if len(found) != 1 or not found[0].arity:
        return None
    body, name = found[0].node.get("expression") or {}, found[0].node["operand"][0]["name"]
    if body.get("type") != "Query" or len(body["source"]) != 1 or body.get("aggregate"):
        return None
    source = body["source"][0]["expression"]
    if source.get("type") != "OperandRef" or source["name"] != name:
        return None
    return _filled(node["operand"][0], unit, depth + 1)


def _retrieve(node: Node, unit: Unit) -> Need | None:
    kind = node["dataType"].rpartition("}")[2]
    codes = node.get("codes") or {}
    if codes.get("type") != "ValueSetRef" or kind == "Patient":
        return None
    value_set = _owner(codes, unit).value_sets.get(codes["name"])
    if value_set is None or value_set.pairs is None:
        return None
    return ("codes", (kind, node.get("codeProperty") or PRIMARY.get(kind, "code"), value_set.pairs))


# Against the lake -----------------------------------------------------------------------------


class _Reader:
    """Finds the patients who have what is needed; the same need of several measures is looked up once."""

    def __init__(self, con: duckdb.DuckDBPyConnection, lake: Any) -> None:
        self._con = con
        self._lake = lake
        self._held = lake.tables()
        self._focus = focus_patients(con, lake)
        self._known: dict[Any, Mask | None] = {}
        self.ids = patient_ids(con, lake) if self._held.get("Patient") else pa.array([], pa.string())

    def patients(self, need: Need | None) -> Mask | None:
        """Return which patients meet a need, None when that cannot be told."""
        if need is None:
            return None
        kind, body = need
        if kind == "codes":
            if body not in self._known:
                nobody = np.zeros(len(self.ids), np.bool_)
                self._known[body] = self._with_codes(*body) if self._held.get(body[0]) else nobody
            return self._known[body]
        found = [self.patients(part) for part in body]
        known = [some for some in found if some is not None]
        if not known or (kind == "any" and len(known) < len(found)):
            return None
        both: Mask = np.logical_or.reduce(known) if kind == "any" else np.logical_and.reduce(known)
        return both

    def _with_codes(self, name: str, path: str, pairs: frozenset[Any]) -> Mask | None:
        source, _, patient, _ = scan(self._con, self._lake.files(name), frozenset(), focus=self._focus)
        described = self._con.execute(f"describe select * from {source}").fetchall()
        types = {column: str(kind) for column, kind, *_ in described}
        if any(column.startswith(path) and column != path for column in types):
            return None  # a choice (medicationReference): the code may stand elsewhere
        kind = types.get(path)
        if kind is None:
            return np.zeros(len(self.ids), np.bool_)
        if not kind.startswith("STRUCT(") or "coding STRUCT(" not in kind.replace('"', "") or "extension" in kind:
            return None  # a value-set-level negation may match without any code
        concepts = f'"{path}"' if kind.endswith("[]") else f'["{path}"]'
        joined = "lambda d: coalesce(d.system, '') || '|' || coalesce(d.code, '')"
        codes = f"flatten(list_transform({concepts}, lambda c: coalesce(list_transform(c.coding, {joined}), [])))"
        wanted = [f"{system or ''}|{code or ''}" for system, code in pairs] or ["-"]
        query = f"select distinct {patient} as p from {source} where list_has_any({codes}, $wanted)"
        names = self._con.sql(query, params={"wanted": wanted}).to_arrow_table()["p"]
        found: Mask = np.asarray(pc.is_in(self.ids, names.combine_chunks()))
        return found
