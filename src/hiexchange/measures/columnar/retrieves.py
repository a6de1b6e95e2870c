"""Retrieve on columns: the rows of a type that fit a profile and hold one of the codes, for all subjects at once.

Both tests are stage 1's own functions, asked once for each distinct concept, and once for each distinct
combination of what a profile is inferred from.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from hiexchange.measures.columnar.cells import Col, Ints, Lists, Mixed, Things, Unsupported, Words, empty, spread
from hiexchange.measures.columnar.evaluate import Evaluator, step
from hiexchange.measures.columnar.nodes import Node as Data
from hiexchange.measures.columnar.nodes import Table
from hiexchange.measures.columnar.state import Ctx, Selection, State
from hiexchange.measures.cql import types
from hiexchange.measures.cql.compiler import Frame, Scope, Unit
from hiexchange.measures.cql.library import Node
from hiexchange.measures.cql.model import Element
from hiexchange.measures.cql.retrieve import PRIMARY, UNKNOWN_FILTERS, Spec, codes_at, given_codes, resolved, spec_index

_JUDGED = ("meta", "status", "doNotPerform", "category", "code", "encounter")
"""What profiles are inferred from."""


@step("Retrieve")
def _retrieve(ev: Evaluator, node: Node, unit: Unit, ctx: Ctx) -> Col:
    kind = types.split_name(node["dataType"])[1]
    template = (node.get("templateId") or "").rpartition("/")[2].partition("|")[0]
    if node.get("dateRange") is not None or any(node.get(name) for name in UNKNOWN_FILTERS):
        raise Unsupported("Retrieve by date")
    codes, path = None, None
    if node.get("codes") is not None:
        if not ev.names.of(node["codes"])[1]:
            raise Unsupported("Retrieve by codes that are computed")
        path = node.get("codeProperty") or PRIMARY.get(kind, "code")
        codes = _codes(ev, node["codes"], unit)
    state = ev.state
    index = spec_index(ev.program, kind, template, path, codes)
    found = state.selections.get(index)
    if found is None:
        found = state.selections[index] = _select(state, ev.program.retrieve_specs[index])
    found.reached[ctx.owner] = True
    doubtful = np.flatnonzero(found.doubtful[ctx.owner])
    if len(doubtful):
        state.fail(ctx, doubtful)
    every = np.ones(ctx.n, np.bool_)
    if found.table is None:
        return empty(every)
    places, owner = spread(found.starts[ctx.owner], found.counts[ctx.owner])
    return Lists(owner, Things(found.table, found.rows[places]), every)


def _codes(ev: Evaluator, node: Node, unit: Unit) -> Any:
    return given_codes(unit.compiler.expression(node, Scope(Frame(), {}))(ev.state, []))


def _select(state: State, spec: Spec) -> Selection:
    n = state.n
    table = state.batch.tables.get(spec.kind)
    nothing = np.zeros(0, np.int64)
    if spec.kind in state.batch.elsewhere:
        # Found by reference, outside a patient's own rows: whoever asks for them is left to stage 1.
        return Selection(None, nothing, nothing, np.ones(n, np.bool_), n)
    if table is None or not table.n:
        return Selection(None, nothing, nothing, np.zeros(n, np.bool_), n)
    accepted, inferred = _fitting(state, table, spec)
    doubtful = np.zeros(n, np.bool_)
    if spec.codes is not None and spec.path is not None:
        held, unsure = _coded(state, table, spec)
        doubtful[table.owner[accepted & unsure]] = True
        accepted = accepted & held
    return Selection(table, np.flatnonzero(accepted), np.flatnonzero(inferred), doubtful, n)


def _fitting(state: State, table: Table, spec: Spec) -> tuple[Any, Any]:
    """Return which rows a profile takes, and which it judges by their structure."""
    every = np.ones(table.n, np.bool_)
    if spec.profile is None or state.context.profiles == "ignore":
        return every, ~every
    key = ("#fitting", spec.template)
    if key not in table.memo:
        places, elements = _judged(state, table)
        taken, judged = [], []
        for element in elements:
            stub = SimpleNamespace(context=state.context, inferred=0)
            element.cache.pop("#inferred", None)
            taken.append(bool(spec.profile(stub, [element])))
            judged.append(stub.inferred > 0)
        table.memo[key] = np.array(taken, np.bool_)[places], np.array(judged, np.bool_)[places]
    fitting: tuple[Any, Any] = table.memo[key]
    return fitting


def _judged(state: State, table: Table) -> tuple[Ints, list[Element]]:
    found = table.memo.get("#judged")
    if found is None:
        fields: dict[str, Any] = {}
        for name in _JUDGED:
            array = table.fields.get(name)
            if array is None:
                continue
            if name == "encounter":  # all that matters is that there is one
                array = pa.StructArray.from_arrays([pa.repeat("x", table.n)], names=["display"], mask=array.is_null())
            elif name == "meta":
                if array.type.get_field_index("profile") < 0:
                    continue
                profile = pa.compute.struct_field(array, "profile")
                array = pa.StructArray.from_arrays([profile], names=["profile"])
            fields[name] = array
        node = Data(state.batch.model, table.kind, fields, table.n)
        found = table.memo["#judged"] = node.signatures(np.arange(table.n))
    judged: tuple[Ints, list[Element]] = found
    return judged


def _coded(state: State, table: Table, spec: Spec) -> tuple[Any, Any]:
    """Return which rows hold a code, and for which it cannot be told here."""
    assert spec.path is not None
    held, unsure = np.zeros(table.n, np.bool_), np.zeros(table.n, np.bool_)
    _hold(state, spec, table, table.child(spec.path), (np.arange(table.n), held, unsure))
    return held, unsure


def _hold(state: State, spec: Spec, table: Table, col: Col, found: tuple[Ints, Any, Any]) -> None:
    rows, held, unsure = found
    if isinstance(col, Mixed):
        for some, part in col.split():
            _hold(state, spec, table, part, (rows[some], held, unsure))
    elif isinstance(col, Lists):
        _hold(state, spec, table, col.child, (rows[col.owner], held, unsure))
    elif isinstance(col, Things):
        if col.node.kind == "Reference":
            _refer(state, spec, table, col, found)
            return
        codes, elements = col.node.signatures(col.rows)
        held[rows[_holding(spec, col.node, elements)[codes]]] = True
    elif isinstance(col, Words):
        raise Unsupported("Retrieve by a plain code")


def _refer(state: State, spec: Spec, table: Table, col: Things, found: tuple[Ints, Any, Any]) -> None:
    """The code of a medication that is referred to stands in the Medication."""
    rows, held, unsure = found
    targets = state.batch.tables.get("Medication")
    known = np.flatnonzero(col.known())
    texts = _texts(col, known)
    if "Medication" in state.batch.elsewhere:
        unsure[rows[known]] = True
        return
    by_id = _medications(state, targets) if targets is not None else {}
    for row, text in zip(rows[known].tolist(), texts, strict=True):
        if text.startswith("#"):
            unsure[row] = True
            continue
        place = by_id.get((int(table.owner[row]), text.rpartition("/")[2].rpartition(":")[2]))
        held[row] = place is not None and targets is not None and bool(_target(state, spec, targets)[place])


def _medications(state: State, targets: Table) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] | None = targets.memo.get("#by id")
    if found is None:
        found = targets.memo["#by id"] = {}
        for row, name in enumerate(targets.ids()):
            found.setdefault((int(targets.owner[row]), name), row)
    return found


def _target(state: State, spec: Spec, targets: Table) -> Any:
    """Return which Medications hold one of the codes."""
    key = ("#held", spec.index)
    if key not in targets.memo:
        held = np.zeros(targets.n, np.bool_)
        _hold(state, spec, targets, targets.child("code"), (np.arange(targets.n), held, np.zeros(targets.n, np.bool_)))
        targets.memo[key] = held
    return targets.memo[key]


def _texts(col: Things, rows: Ints) -> list[str]:
    """Return the texts of references at some rows, empty where there is none."""
    texts = col.node.child("reference").take(col.rows[rows])
    if not isinstance(texts, Words):
        return [""] * len(rows)
    return ["" if code < 0 else texts.values[code] for code in texts.codes.tolist()]


def _holding(spec: Spec, node: Data, elements: list[Element]) -> Any:
    """Return which of a node's distinct concepts hold one of the codes, and after them false for null."""
    if "#codes" not in node.memo:
        index: dict[Any, list[int]] = {}
        for at, element in enumerate(elements):
            # A row of nothing but this one concept, as the matching of stage 1 wants it.
            row = Element(element.type, {})
            row.cache["x"] = element
            for found in codes_at(None, row, "x"):
                for code in found:
                    index.setdefault(code, []).append(at)
        node.memo["#codes"] = index
    index = node.memo["#codes"]
    pairs, url = (resolved(spec.codes), spec.codes.id) if hasattr(spec.codes, "pairs") else (spec.codes, None)
    passed = np.zeros(len(elements) + 1, np.bool_)
    for code in index.keys() & pairs:
        passed[index[code]] = True
    passed[index.get(url, [])] = True
    return passed
