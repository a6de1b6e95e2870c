"""Supplemental data and risk adjustment: what a measure's owner wants known of everybody in an initial population.

Evaluated on demand, apart from the populations: an expression that fails here is a row that says so, and spoils no count.

Source: Quality Measure IG (hl7.fhir.us.cqfmeasures), "Supplemental Data Elements" and "Risk Adjustment"; DEQM, MeasureReport.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import ConfigError, MeasureError
from hiexchange.measures import sources
from hiexchange.measures.by import MIN_CELL
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.model import Element, code, concept
from hiexchange.measures.cql.subject import Context, Subject
from hiexchange.measures.cql.values import Code, Concept, Interval, Quantity
from hiexchange.measures.measure import Measure, new_program, parameters
from hiexchange.measures.reports import counted
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
    only = set(_initial(run).to_pylist())
    offset = timedelta(minutes=int(run.options.get("offset_minutes", "0")))
    program = new_program(offset)
    context = Context(program, parameters(run.period, offset), profiles=run.options.get("profiles", "infer"))
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


def _initial(run: MeasureRun) -> pa.Array:
    inside = run.table.filter(pc.greater(run.table["initial_population"], 0))
    return pc.unique(inside["subject"])


def shares(run: MeasureRun, table: pa.Table, *, min_cell: int = MIN_CELL) -> pa.Table:
    """Return how many patients of a run's initial population have each coded value, and how many have none.

    Args:
        run: The run.
        table: Its supplemental data, as :meth:`Measure.supplemental` gives them.
        min_cell: Counts above zero and under it are hidden, and the next smallest of the same element where one
            alone would be hidden: the total would give it away.

    Returns:
        id, code, text, patients (null where hidden), suppressed; one row a value, and one without code for those
        who have none.
    """
    people = len(_initial(run))
    coded = table.filter(pc.and_(pc.is_null(table["error"]), pc.is_valid(table["code"])))
    having = coded.group_by("id").aggregate([("subject", "count_distinct")])
    cells: dict[str, list[tuple[str | None, str | None, int]]] = defaultdict(list)
    for row, count in counted(table):
        cells[row["id"]].append((row["code"], row["text"], count))
    for name, count in zip(having["id"].to_pylist(), having["subject_count_distinct"].to_pylist(), strict=True):
        if count < people:
            cells[name].append((None, None, people - count))
    found = []
    for name, values in cells.items():
        hidden = {at for at, value in enumerate(values) if value[2] < min_cell}
        if len(hidden) == 1 and len(values) > 1:
            hidden.add(min((at for at in range(len(values)) if at not in hidden), key=lambda at: values[at][2]))
        found += [(name, code, text, None if at in hidden else n) for at, (code, text, n) in enumerate(values)]
    names = ("id", "code", "text", "patients")
    result = pa.table(
        [[row[at] for row in found] for at in range(4)],
        schema=pa.schema([(name, pa.int64() if name == "patients" else pa.string()) for name in names]),
    )
    return result.append_column("suppressed", pc.is_null(result["patients"]))


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
