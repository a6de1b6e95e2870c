"""A slot of a column as a plain value, and whether it is the value stage 1 gives."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np

from hiexchange.measures.columnar.cells import (
    Col,
    Lists,
    Mixed,
    Nulls,
    Records,
    Spans,
    Things,
    Times,
    Truth,
    Words,
    temporal,
)
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.model import Element
from hiexchange.measures.cql.subject import Subject
from hiexchange.measures.cql.values import Code, Concept, Interval, Quantity, Ratio, ValueSet


def shown(col: Col, row: int) -> Any:
    """Return one slot in a form that :func:`plain` gives of the same value of stage 1."""
    if isinstance(col, Nulls) or not col.known()[row]:
        return None
    if isinstance(col, Truth):
        return bool(col.values[row])
    if isinstance(col, Times):
        return plain(temporal(col.cls, int(col.packed[row]), int(col.precision[row])))
    if isinstance(col, Words):
        return plain(col.values[col.codes[row]])
    if isinstance(col, Mixed):
        return shown(col.parts[col.tag[row]], int(col.place[row]))
    if isinstance(col, Spans):
        return _span(shown(col.low, row), shown(col.high, row), col.low_closed[row], col.high_closed[row])
    if isinstance(col, Lists):
        begin = int(col.starts()[row])
        return [shown(col.child, at) for at in range(begin, begin + int(col.counts()[row]))]
    if isinstance(col, Records):
        return {name: shown(field, row) for name, field in col.fields.items()}
    assert isinstance(col, Things)
    node, at = col.node, int(col.rows[row])
    if node.resource:
        return ("resource", node.kind, at - int(node.starts[node.owner[at]]))
    return ("element", node.kind, _data(node.data(np.array([at]))[0]))


def plain(value: Any, subject: Subject | None = None) -> Any:
    """Return a value of stage 1 in a form that compares by content, resources by their place among their type."""
    if isinstance(value, Element):
        if value.row is not None and subject is not None:
            rows = subject.rows[value.type.name]
            return ("resource", value.type.name, next(at for at, row in enumerate(rows) if row is value))
        return ("element", value.type.name, _data(value.data))
    if isinstance(value, t.Temporal):
        return (type(value).__name__, value.key, value.precision)
    if isinstance(value, t.Uncertainty):
        return ("uncertainty", value.low, value.high)
    if isinstance(value, Quantity):
        return ("quantity", value.value, value.unit)
    if isinstance(value, Interval):
        return _span(plain(value.low), plain(value.high), value.low_closed, value.high_closed)
    if isinstance(value, Code):
        return ("code", value.system, value.code, value.version, value.display)
    if isinstance(value, Concept):
        return ("concept", value.display, [plain(code) for code in value.codes])
    if isinstance(value, Ratio):
        return ("ratio", plain(value.numerator), plain(value.denominator))
    if isinstance(value, ValueSet):
        return ("valueset", value.id)
    if isinstance(value, list):
        return [plain(item, subject) for item in value]
    if isinstance(value, dict):
        return {name: plain(item, subject) for name, item in value.items()}
    if isinstance(value, str):
        return str(value)
    return value


def _span(low: Any, high: Any, low_closed: Any, high_closed: Any) -> Any:
    return ("interval", low, high, bool(low_closed), bool(high_closed))


def _data(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _data(item) for name, item in value.items() if item is not None and not name.startswith("__")}
    if isinstance(value, list):
        return [_data(item) for item in value]
    return str(value) if isinstance(value, (Decimal, int, float)) and not isinstance(value, bool) else value


def same(value: Any, col: Col, row: int, subject: Subject) -> bool:
    """Tell whether a slot holds what stage 1 gave for a subject."""
    return bool(plain(value, subject) == shown(col, row))
