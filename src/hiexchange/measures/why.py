"""Explain one subject's result: each define with its value and the resources that decided it.

The tree follows the measure's own structure: the populations' defines, and under each the defines it
refers to. It holds patient data on purpose, for whoever asks about that patient; nothing of it is
logged or kept.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from hiexchange.errors import MeasureError
from hiexchange.measures import populations, sources
from hiexchange.measures.cql.compiler import Define
from hiexchange.measures.cql.library import walk
from hiexchange.measures.cql.model import Element
from hiexchange.measures.cql.subject import Context, Subject
from hiexchange.measures.cql.values import Interval
from hiexchange.measures.measure import Compiled, Measure, new_program, parameters

DEPTH = 6
"""Levels of defines shown under a population."""


@dataclass(frozen=True)
class Reason:
    """One define and its value for the subject."""

    library: str
    define: str
    value: str
    """true, false, null, ``3 Encounter``, an error, or with ``values`` the value itself."""
    resources: tuple[str, ...]
    """Type/id of the resources the value holds, or its own retrieves found."""
    cql: str
    """Source text, where the library carries annotations."""
    children: tuple[Reason, ...]


@dataclass(frozen=True)
class GroupReasons:
    """One group: membership, and the defines behind each population."""

    group: str
    members: tuple[tuple[str, dict[str, bool]], ...]
    """(patient or episode, population to membership)."""
    populations: tuple[tuple[str, Reason | None], ...]


@dataclass(frozen=True)
class Explanation:
    """Why a subject is in or out of each population."""

    measure: str
    title: str
    subject: str
    period: tuple[date, date]
    groups: tuple[GroupReasons, ...]

    def to_html(self) -> str:
        """Return one self-contained page: no script, no network."""
        body = "".join(_group_html(group) for group in self.groups)
        title = html.escape(f"{self.title}: {self.subject}")
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
            f"</head><body><h1>{title}</h1><p>{self.period[0]} to {self.period[1]}</p>{body}</body></html>\n"
        )

    def __str__(self) -> str:
        lines = [f"{self.title}: {self.subject}, {self.period[0]} to {self.period[1]}"]
        for group in self.groups:
            lines.append(group.group)
            for key, flags in group.members:
                lines.append(f"  {key}: " + ", ".join(f"{name} {'yes' if on else 'no'}" for name, on in flags.items()))
            for name, reason in group.populations:
                lines.append(f"  {name}")
                lines += [f"  {line}" for line in _lines(reason, 1)] if reason is not None else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return "".join(_group_html(group) for group in self.groups)


_STYLE = (
    "body{font:14px/1.45 system-ui,sans-serif;margin:2em;max-width:70em}details{margin-left:1.2em}"
    "summary{cursor:pointer}.true{color:#0a6b2d}.false{color:#a11}.null{color:#777}"
    "code{background:#f4f4f4;white-space:pre-wrap;display:block;padding:.4em;margin:.3em 1.2em}"
    "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}"
)


class _Trace:
    """Notes which retrieves each define reached itself."""

    def __init__(self) -> None:
        self.stack: list[Define] = []
        self.found: dict[int, dict[str, None]] = {}

    def enter(self, define: Define) -> None:
        self.stack.append(define)

    def leave(self) -> None:
        self.stack.pop()

    def retrieved(self, spec: Any, rows: list[Element]) -> None:
        if self.stack:
            names = self.found.setdefault(self.stack[-1].index, {})
            names.update(dict.fromkeys(f"{row.type.name}/{row.id}" for row in rows))


def explain(
    measure: Measure,
    source: Any,
    subject: str,
    *,
    period: tuple[date, date],
    offset: timedelta = timedelta(0),
    profiles: str = "infer",
    values: bool = False,
) -> Explanation:
    """Return why a subject is in or out of each population of a measure.

    Args:
        measure: A loaded measure.
        source: Lake, folder of Bundles, or Bundles.
        subject: Patient.id.
        period: First and last day of the measurement period, inclusive.
        offset: Offset from UTC in which days are told apart.
        profiles: Policy on profiles, as in the evaluation.
        values: Show scalar values (dates, numbers), not only truth and resource ids.

    Raises:
        MeasureError: The source has no such patient.
    """
    elements = sources.elements_of(measure.libraries)
    found = next(
        (item for item in sources.subjects(source, measure.types, elements, {subject}) if item[0] == subject), None
    )
    if found is None or not found[1]:
        raise MeasureError("there is no such patient in this source", hint="subjects are named by Patient.id")
    program = new_program(offset)
    compiled = measure.compile(program)
    rows: list[Any] = [sources.decode(item) if isinstance(item, bytes) else item for item in found[1]]
    s = Subject(Context(program, parameters(period, offset), profiles=profiles), rows)
    s.trace = trace = _Trace()
    groups = tuple(_group(compiled, at, s, trace, values) for at in range(len(compiled.criteria)))
    return Explanation(measure.id, measure.info.title, subject, period, groups)


def _group(compiled: Compiled, at: int, s: Subject, trace: _Trace, values: bool) -> GroupReasons:
    criteria = compiled.criteria[at]
    try:
        members = [(member.key, dict(member.flags)) for member in populations.evaluate(criteria, s)]
    except MeasureError as error:
        members = [(f"error: {error.what}", {})]
    reasons = []
    for column, define in criteria.defines.items():
        reasons.append((column, _reason(define, s, trace, values, 0) if define is not None else None))
    return GroupReasons(criteria.group.id, tuple(members), tuple(reasons))


def _reason(define: Define, s: Subject, trace: _Trace, values: bool, depth: int) -> Reason:
    try:
        value = s.evaluate(define)
        shown, resources = _shown(value, values), _resources(value)
    except MeasureError as error:
        shown, resources = f"error: {error.what}", ()
    children = tuple(_reason(child, s, trace, values, depth + 1) for child in _below(define)) if depth < DEPTH else ()
    return Reason(
        define.unit.library.id,
        define.name,
        shown,
        resources or tuple(trace.found.get(define.index, ())),
        _cql(define.node),
        children,
    )


def _below(define: Define) -> Iterator[Define]:
    seen = set()
    for node in walk(define.node.get("expression")):
        if node["type"] != "ExpressionRef" or node["name"] == "Patient":
            continue
        unit = define.unit.includes.get(node.get("libraryName", ""), define.unit)
        key = (unit.library.id, node["name"])
        child = unit.define(node["name"])
        if child is not None and key not in seen:
            seen.add(key)
            yield child


def _shown(value: Any, values: bool) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        kinds = [item.type.name for item in value if isinstance(item, Element)]
        what = kinds[0] if kinds and len(set(kinds)) == 1 else "items"
        return f"{len(value)} {what}" if not values or kinds else ", ".join(_shown(item, values) for item in value)
    if isinstance(value, Element):
        return value.type.name
    if not values:
        return "interval" if isinstance(value, Interval) else "a value"
    return str(value)


def _resources(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    return tuple(f"{item.type.name}/{item.id}" for item in items if isinstance(item, Element) and item.row is not None)


def _cql(node: dict[str, Any]) -> str:
    for annotation in node.get("annotation") or ():
        if isinstance(annotation, dict) and "s" in annotation:
            return "".join(_text(annotation["s"])).strip()
    return ""


def _text(part: Any) -> Iterator[str]:
    for value in part.get("value") or ():
        yield str(value)
    for child in part.get("s") or ():
        yield from _text(child)


def _lines(reason: Reason, depth: int) -> Iterator[str]:
    names = (
        f"  [{', '.join(reason.resources[:4])}{', ...' if len(reason.resources) > 4 else ''}]"
        if reason.resources
        else ""
    )
    yield f"{'  ' * depth}{reason.define}: {reason.value}{names}"
    for child in reason.children:
        yield from _lines(child, depth + 1)


def _group_html(group: GroupReasons) -> str:
    columns = list(dict.fromkeys(name for _, flags in group.members for name in flags))
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in columns)
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td>"
        + "".join(f"<td>{'yes' if flags.get(name) else 'no'}</td>" for name in columns)
        + "</tr>"
        for key, flags in group.members
    )
    trees = "".join(
        f"<h3>{html.escape(name.replace('_', ' '))}</h3>{_reason_html(reason)}"
        for name, reason in group.populations
        if reason is not None
    )
    return f"<h2>{html.escape(group.group)}</h2><table><tr><th></th>{head}</tr>{rows}</table>{trees}"


def _reason_html(reason: Reason) -> str:
    kind = reason.value if reason.value in ("true", "false", "null") else "true" if reason.resources else "null"
    names = f" <small>{html.escape(', '.join(reason.resources))}</small>" if reason.resources else ""
    source = f"<code>{html.escape(reason.cql)}</code>" if reason.cql else ""
    children = "".join(_reason_html(child) for child in reason.children)
    label = f'{html.escape(reason.define)}: <span class="{kind}">{html.escape(reason.value)}</span>{names}'
    return f"<details><summary>{label}</summary>{source}{children}</details>"
