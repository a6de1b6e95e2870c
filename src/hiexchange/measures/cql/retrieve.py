"""Builders of Retrieve and of membership in value sets and code systems.

A retrieve selects rows by type, profile and codes; equal retrieves of all measures in a program are
done once a subject. System and code decide a match; version and display do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hiexchange.errors import MeasureError
from hiexchange.measures.cql import lists, profiles, types
from hiexchange.measures.cql.compiler import SUBJECT, Compiler, Fn, Scope, builds
from hiexchange.measures.cql.fhirhelpers import to_value
from hiexchange.measures.cql.library import Node
from hiexchange.measures.cql.model import Element, concept
from hiexchange.measures.cql.values import Code, CodeSystem, Concept, EvaluationError, ValueSet

# QI-Core's primary code path per type, where a Retrieve names none.
PRIMARY = {
    "Encounter": "type",
    "Coverage": "type",
    "Communication": "category",
    "Immunization": "vaccineCode",
    "MedicationRequest": "medication",
    "MedicationAdministration": "medication",
    "MedicationDispense": "medication",
    "MedicationStatement": "medication",
    "AdverseEvent": "event",
    "Claim": "type",
    "Location": "type",
}
NOT_DONE = ("qicore-notDoneValueSet", "cqf-notDoneValueSet")


def resolved(value_set: ValueSet) -> frozenset[tuple[str | None, str | None]]:
    """Return a value set's codes.

    Raises:
        EvaluationError: They are not known: membership cannot be told.
    """
    if value_set.pairs is None:
        raise EvaluationError(f"the value set {value_set.id} has no codes here: {value_set.problem}")
    return value_set.pairs


class Spec:
    """What one retrieve selects; equal keys are one retrieve."""

    __slots__ = ("codes", "index", "kind", "path", "profile", "template")

    def __init__(self, kind: str, template: str, path: str | None, codes: Any, index: int) -> None:
        self.kind = kind
        self.template = template
        self.path = path
        self.codes = codes
        self.index = index
        self.profile = profiles.test_for(kind, template)

    def select(self, s: Any) -> list[Element]:
        """Return the subject's rows that match, in file order."""
        rows = s.rows.get(self.kind)
        if not rows:
            return []
        if self.profile is not None and s.context.profiles != "ignore":
            rows = self.profile(s, rows)
        if self.codes is None or self.path is None:
            return list(rows)
        codes, path = self.codes, self.path
        if isinstance(codes, ValueSet):
            pairs, url = resolved(codes), codes.id
        else:
            pairs, url = codes, None
        return [row for row in rows if matches(s, row, path, pairs, url)]


def matches(s: Any, row: Element, path: str, pairs: frozenset[Any], url: str | None) -> bool:
    """Tell whether any coding at a path is among the codes, or a negation names the value set itself."""
    key = "#codes " + path
    found = row.cache.get(key)
    if found is None:
        found = row.cache[key] = codes_at(s, row, path)
    codes, sets = found
    return not pairs.isdisjoint(codes) or (url is not None and url in sets)


def codes_at(s: Any, row: Element, path: str) -> tuple[frozenset[Any], frozenset[str]]:
    """Return the (system, code) pairs at a path, and the value sets a negation there names."""
    value = row.get(path)
    codes: set[Any] = set()
    sets: set[str] = set()
    for item in value if isinstance(value, list) else (value,):
        if item is None:
            continue
        if isinstance(item, str):
            codes.add((None, item))
            continue
        if item.type.name == "Reference":
            item = _medication_code(s, row, item)
            if item is None:
                continue
        found = concept(item)
        if found is not None:
            codes |= found.pairs
        for extension in item.data.get("extension") or ():
            if str(extension.get("url", "")).rpartition("/")[2] in NOT_DONE:
                sets.update(str(extension[name]) for name in ("valueCanonical", "valueUri") if name in extension)
    return frozenset(codes), frozenset(text.partition("|")[0] for text in sets)


def _medication_code(s: Any, row: Element, reference: Element) -> Any:
    target = reference.data.get("reference") or ""
    if target.startswith("#"):
        for contained in row.data.get("contained") or ():
            if contained.get("id") == target[1:]:
                return s.context.program.model.resource(contained, -1).get("code")
        return None
    key = target.rpartition("/")[2].rpartition(":")[2]
    return next((item.get("code") for item in s.rows.get("Medication", ()) if item.id == key), None)


@builds("Retrieve")
def _retrieve(c: Compiler, n: Node, sc: Scope) -> Fn:
    kind = types.split_name(n["dataType"])[1]
    template = (n.get("templateId") or "").rpartition("/")[2].partition("|")[0]
    path = n.get("codeProperty") or (PRIMARY.get(kind, "code") if n.get("codes") is not None else None)
    c.note(SUBJECT)
    filters = [name for name in UNKNOWN_FILTERS if n.get(name)]
    if filters:
        raise MeasureError(f"a Retrieve by {filters[0]} is not supported", library=c.unit.library.name)
    if n.get("codes") is None:
        return _during(c, n, sc, _fixed(c, spec_index(c.program, kind, template, None, None)))
    codes = c.expression(n["codes"], sc)
    if codes in c.constants:
        index = spec_index(c.program, kind, template, path, given_codes(c.constants[codes]))
        return _during(c, n, sc, _fixed(c, index))

    def dynamic(s: Any, e: list[Any]) -> Any:
        return Spec(kind, template, path, given_codes(codes(s, e)), -1).select(s)

    return _during(c, n, sc, dynamic)


UNKNOWN_FILTERS = ("id", "dateLowProperty", "dateHighProperty", "codeFilter", "dateFilter", "otherFilter")
"""Members of a Retrieve that select and are not known here: what they would leave out must not be counted."""


def _during(c: Compiler, n: Node, sc: Scope, retrieve: Fn) -> Fn:
    """Return a retrieve's rows within its date range, where a translator moved ``during`` from the query into it."""
    if n.get("dateRange") is None:
        return retrieve
    if n.get("dateProperty") is None:
        raise MeasureError("a Retrieve by date names no element", library=c.unit.library.name)
    span, path = c.expression(n["dateRange"], sc), n["dateProperty"]

    def during(s: Any, e: list[Any]) -> Any:
        given = span(s, e)
        return [row for row in retrieve(s, e) if lists.included_in(to_value(row.get(path)), given) is True]

    return during


def given_codes(value: Any) -> Any:
    """Return the codes a retrieve is given: a value set, or the (system, code) pairs of codes and concepts."""
    return value if isinstance(value, ValueSet) else frozenset(_pairs(value))


def _pairs(value: Any) -> Iterable[tuple[str | None, str | None]]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, Code):
            yield item.system, item.code
        elif isinstance(item, Concept):
            yield from item.pairs


def spec_index(program: Any, kind: str, template: str, path: str | None, codes: Any) -> int:
    """Return the place of a retrieve among the program's; equal ones have one place."""
    identity = ("valueset", codes.id, codes.pairs) if isinstance(codes, ValueSet) else codes
    key = (kind, template, path, identity)
    index: int | None = program.retrieves.get(key)
    if index is None:
        index = program.retrieves[key] = len(program.retrieve_specs)
        program.retrieve_specs.append(Spec(kind, template, path, codes, index))
    return index


def _fixed(c: Compiler, place: int) -> Fn:
    spec: Spec = c.program.retrieve_specs[place]

    def retrieve(s: Any, e: list[Any]) -> Any:
        found = s.retrieved
        if place in found:
            rows = found[place]
        else:
            rows = found[place] = spec.select(s)
        if s.trace is not None:
            s.trace.retrieved(spec, rows)
        return rows

    return retrieve


# Membership -----------------------------------------------------------------------------------


def _value_set(c: Compiler, n: Node, sc: Scope) -> Fn:
    node = n.get("valuesetExpression") or n.get("valueset")
    return c.expression(node, sc)


@builds("InValueSet")
def _in_value_set(c: Compiler, n: Node, sc: Scope) -> Fn:
    code, sets = c.expression(n["code"], sc), _value_set(c, n, sc)
    return lambda s, e: in_value_set(code(s, e), sets(s, e))


@builds("AnyInValueSet")
def _any_in_value_set(c: Compiler, n: Node, sc: Scope) -> Fn:
    codes, sets = c.expression(n["codes"], sc), _value_set(c, n, sc)

    def any_in(s: Any, e: list[Any]) -> bool:
        values, target = codes(s, e), sets(s, e)
        return any(in_value_set(value, target) for value in values or [])

    return any_in


def in_value_set(value: Any, value_set: Any) -> bool:
    """Tell whether a code, a concept or a bare string is in a value set; a null is in none."""
    if value is None or value_set is None:
        return False
    pairs = resolved(value_set)
    if isinstance(value, Concept):
        return not pairs.isdisjoint(value.pairs)
    if isinstance(value, Code):
        return (value.system, value.code) in pairs
    if isinstance(value, str):
        return value in value_set.bare
    if isinstance(value, list):
        return any(in_value_set(item, value_set) for item in value)
    found = concept(value)
    return found is not None and not pairs.isdisjoint(found.pairs)


@builds("InCodeSystem", "AnyInCodeSystem")
def _in_code_system(c: Compiler, n: Node, sc: Scope) -> Fn:
    code = c.expression(n.get("code") or n.get("codes"), sc)
    node = n.get("codesystemExpression") or {"type": "CodeSystemRef", **(n.get("codesystem") or {})}
    system = c.expression(node, sc)

    def member(s: Any, e: list[Any]) -> bool:
        values, target = code(s, e), system(s, e)
        return any(_of_system(value, target) for value in (values if isinstance(values, list) else [values]))

    return member


def _of_system(value: Any, system: CodeSystem) -> bool:
    if isinstance(value, Code):
        return value.system == system.id
    return isinstance(value, Concept) and any(code.system == system.id for code in value.codes)
