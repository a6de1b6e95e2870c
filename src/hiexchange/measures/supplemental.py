"""Supplemental data and risk adjustment: what a measure's owner wants known of everybody in an initial population.

Evaluated on demand, apart from the populations: an expression that fails here is a row that says so, and spoils no count.

Source: Quality Measure IG (hl7.fhir.us.cqfmeasures), "Supplemental Data Elements" and "Risk Adjustment"; DEQM, MeasureReport.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import ConfigError, MeasureError
from hiexchange.measures import sources
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.model import Element, code, concept
from hiexchange.measures.cql.subject import Context, Subject
from hiexchange.measures.cql.values import Code, Concept, Interval, Quantity
from hiexchange.measures.measure import Measure, new_program, parameters
from hiexchange.measures.result import MeasureRun

_NAMES = ("subject", "id", "usage", "part", "system", "code", "text", "value", "unit", "error")
SCHEMA = pa.schema([(name, pa.float64() if name == "value" else pa.string()) for name in _NAMES])
"""One row a value: ``part`` is the element of a tuple it stands in, ``error`` the define that failed."""

Leaf = tuple[str | None, str | None, str | None, str | None, float | None, str | None]


def supplemental(measure: Measure, run: MeasureRun, source: Any = None) -> pa.Table:
    """Return the supplemental data of a run's initial population; see :meth:`Measure.supplemental`."""
    given = run.source if source is None else source
    if given is None:
        raise ConfigError("the run's patients cannot be read again", hint="pass source=")
    wanted = run.table.filter(pc.greater(run.table["initial_population"], 0))
    only = set(wanted["subject"].to_pylist())
    program = new_program(timedelta(minutes=int(run.options.get("offset_minutes", "0"))))
    context = Context(program, parameters(run.period), profiles=run.options.get("profiles", "infer"))
    compiled = measure.compile(program)
    usages = {name: usage for name, _, usage in measure.content.supplemental}
    elements = sources.elements_of(measure.libraries)
    columns: dict[str, list[Any]] = {name: [] for name in _NAMES}
    for subject, raw in sources.subjects(given, measure.types, elements, only):
        resources: list[Any] = [sources.decode(item) if isinstance(item, bytes) else item for item in raw]
        s = Subject(context, resources)
        for name, define in compiled.supplemental:
            try:
                found: list[tuple[Any, ...]] = [(*leaf, None) for leaf in _leaves(s.evaluate(define), None)]
            except MeasureError as error:
                found = [(None, None, None, None, None, None, error.locator or define.name)]
            for row in found:
                for column, value in zip(_NAMES, (subject, name, usages[name], *row), strict=True):
                    columns[column].append(value)
    return pa.table(columns, schema=SCHEMA)


def _leaves(value: Any, part: str | None) -> Iterator[Leaf]:
    """Yield the codes, numbers and texts a value holds: (part, system, code, text, value, unit)."""
    if value is None:
        return
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item, part)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, name if part is None else f"{part}.{name}")
    elif isinstance(value, Concept):
        for item in value.codes:
            yield part, item.system, item.code, item.display or value.display, None, None
    elif isinstance(value, Code):
        yield part, value.system, value.code, value.display, None, None
    elif isinstance(value, Quantity):
        yield part, None, None, None, None if value.value is None else float(value.value), value.unit
    elif isinstance(value, bool | str):
        yield part, None, None, str(value).lower() if isinstance(value, bool) else value, None, None
    elif isinstance(value, int | Decimal):
        yield part, None, None, None, float(value), None
    elif isinstance(value, t.Temporal):
        yield part, None, None, t.text(value), None, None
    elif isinstance(value, Interval):
        ends = [
            "" if end is None or not isinstance(end, t.Temporal) else t.text(end) for end in (value.low, value.high)
        ]
        yield part, None, None, "/".join(ends), None, None
    elif isinstance(value, Element):
        yield from _element(value, part)


def _element(value: Element, part: str | None) -> Iterator[Leaf]:
    if value.type.name == "CodeableConcept":
        yield from _leaves(concept(value), part)
    elif value.type.name == "Coding":
        yield from _leaves(code(value), part)
    elif value.row is not None:
        yield part, None, None, f"{value.type.name}/{value.id}", None, None
