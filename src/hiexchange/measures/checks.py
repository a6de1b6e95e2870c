"""What is wrong with a measure's content, by name, before any data is read.

Every finding has a short code; those of severity error stop the load unless the caller accepts the
code (``"valueset-truncated"``) or one finding of it (``"valueset-truncated:<url>"``). What was accepted
is written into every result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hiexchange.measures.bundle import SCORINGS, Codes, Content, Group
from hiexchange.measures.cql import operators, query, references, retrieve, structured
from hiexchange.measures.cql.compiler import BUILDERS
from hiexchange.measures.cql.library import Library, walk

# Importing the modules above registers their builders.
_LOADED = (operators, query, references, retrieve, structured)

SPECIFIERS = {
    "NamedTypeSpecifier", "IntervalTypeSpecifier", "ListTypeSpecifier", "ChoiceTypeSpecifier", "TupleTypeSpecifier",
    "FunctionDef", "ExpressionDef", "With", "Without", "ByExpression", "ByDirection", "ByColumn", "CqlToElmInfo",
    "Annotation", "ParameterTypeSpecifier", "ReturnClause", "SortClause", "AliasedQuerySource", "LetClause",
    "CaseItem", "InstanceElement", "TupleElement", "AggregateClause", "IncludeElement", "CodeFilterElement",
    "DateFilterElement", "OtherFilterElement", "TupleElementDefinition", "OperandDef",
}  # fmt: skip
PERIOD = "Measurement Period"
TRANSLATOR = "translator-error"
"""What a translator could not resolve is an error for the subjects who need it; accepted, it is null."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or odd."""

    severity: str
    """error, warning or information."""
    code: str
    """Short machine code."""
    where: str
    """Library, value set, group or define it concerns."""
    message: str
    """What is wrong."""

    @property
    def key(self) -> str:
        """``code:where``, by which one finding is accepted."""
        return f"{self.code}:{self.where}"


def check(content: Content, main: Library | None, reached: Iterable[Library]) -> list[Finding]:
    """Return every finding about a measure, errors first.

    Args:
        content: The measure's content.
        main: Its main library, None when it is not in the bundle.
        reached: The libraries the main one includes, itself first.
    """
    libraries = list(reached)
    findings = [
        *_libraries(content, main),
        *_includes(content, libraries),
        *_elm(libraries),
        *_value_sets(content, libraries),
        *(_groups(content, main) if main is not None else ()),
    ]
    rank = {"error": 0, "warning": 1, "information": 2}
    return sorted(dict.fromkeys(findings), key=lambda finding: rank[finding.severity])


def refused(findings: Iterable[Finding], accept: frozenset[str]) -> list[Finding]:
    """Return the errors the caller has not accepted."""
    return [
        finding
        for finding in findings
        if finding.severity == "error"
        and finding.code not in accept
        and finding.key not in accept
        and "all" not in accept
    ]


def accepted(findings: Iterable[Finding], accept: frozenset[str]) -> tuple[str, ...]:
    """Return the errors that were accepted, as ``code:where``, sorted."""
    findings = list(findings)
    stopped = set(refused(findings, accept))
    taken = {f.key for f in findings if f.severity == "error" and f not in stopped}
    taken |= {f.key for f in findings if f.code == TRANSLATOR and {f.code, f.key, "all"} & accept}
    return tuple(sorted(taken))


def _libraries(content: Content, main: Library | None) -> Iterator[Finding]:
    if main is None:
        names = ", ".join(str(item) for item in content.measure.get("library") or ()) or "none named"
        yield Finding("error", "library-missing", names, "the Measure's main library is not in the bundle")
    for name in content.broken:
        yield Finding("error", "elm-missing", name, "the Library has no readable application/elm+json content")
    for resource, elm in content.libraries:
        version = resource.get("version")
        if version and elm.version and version != elm.version:
            yield Finding(
                "error", "elm-version", elm.id, f"the Library is version {version} but its ELM is {elm.version}"
            )


def _includes(content: Content, libraries: list[Library]) -> Iterator[Finding]:
    shipped = {elm.id: elm for _, elm in content.libraries}
    for elm in libraries:
        for include in elm.includes.values():
            found = shipped.get(include.id)
            if found is None:
                yield Finding(
                    "error", "include-missing", f"{elm.id}/{include.id}", "an included library is not in the bundle"
                )
            elif include.version and found.version and include.version != found.version:
                message = f"version {include.version} is included but {found.version} is in the bundle"
                yield Finding("error", "include-version", f"{elm.id}/{include.id}", message)


def _elm(libraries: list[Library]) -> Iterator[Finding]:
    for elm in libraries:
        for locator, message in elm.errors:
            yield Finding("warning", TRANSLATOR, f"{elm.id} {locator}".strip(), message[:200])
        unknown = {
            kind
            for statement in [*elm.defines.values(), *(item for items in elm.functions.values() for item in items)]
            for kind in {node["type"] for node in walk(statement)}
            if kind not in BUILDERS and kind not in SPECIFIERS
        }
        for kind in sorted(unknown):
            yield Finding("error", "node-unsupported", f"{elm.id} {kind}", f"the ELM node type {kind} is not supported")


def used_value_sets(elm: Library) -> dict[str, str]:
    """Return {name: URL without version} of the value sets a library refers to."""
    used = {
        node["name"] for statement in _statements(elm) for node in walk(statement) if node["type"] == "ValueSetRef"
    } | {
        node["valueset"]["name"]
        for statement in _statements(elm)
        for node in walk(statement)
        if isinstance(node.get("valueset"), dict) and "name" in node["valueset"]
    }
    return {name: item["id"].partition("|")[0] for name, item in elm.value_sets.items() if name in used}


def _statements(elm: Library) -> Iterator[dict[str, object]]:
    yield from elm.defines.values()
    for items in elm.functions.values():
        yield from items


def _value_sets(content: Content, libraries: list[Library]) -> Iterator[Finding]:
    for elm in libraries:
        for name, url in used_value_sets(elm).items():
            codes = resolve(content, url)
            if codes is None:
                yield Finding("error", "valueset-missing", url, f"the value set {name!r} is not in the bundle")
            elif codes.pairs is None:
                message = f"the value set {name!r} has neither an expansion nor a plain list of codes"
                yield Finding("error", "valueset-unexpanded", url, message)
            elif not codes.pairs:
                yield Finding("error", "valueset-empty", url, f"the value set {name!r} holds no codes")
            elif codes.total is not None and codes.total > codes.count:
                message = f"the value set {name!r} holds {codes.count:,} of {codes.total:,} codes"
                yield Finding("error", "valueset-truncated", url, message)


def resolve(content: Content, url: str) -> Codes | None:
    """Return a value set by canonical URL, OID or last path segment."""
    found = content.value_sets.get(url)
    if found is None and url.startswith("urn:oid:"):
        last = url.removeprefix("urn:oid:")
        found = next((codes for key, codes in content.value_sets.items() if key.rpartition("/")[2] == last), None)
    return found


def _groups(content: Content, main: Library) -> Iterator[Finding]:
    if not content.groups:
        yield Finding("error", "group-missing", str(content.measure.get("id")), "the Measure has no group")
    for group in content.groups:
        yield from _group(group, main)
    if PERIOD not in main.parameters:
        yield Finding("information", "parameter-missing", main.id, f"the main library has no parameter {PERIOD!r}")


def _group(group: Group, main: Library) -> Iterator[Finding]:
    if group.scoring not in SCORINGS:
        yield Finding("error", "scoring", group.id, f"the scoring {group.scoring!r} is not known")
    if not any(item.column == "initial_population" for item in group.populations):
        yield Finding("error", "population-missing", group.id, "the group has no initial population")
    for item in group.populations:
        if item.expression not in main.defines:
            # A dangling exclusion or exception is taken as never met, as every engine does; others decide.
            soft = item.column in ("numerator_exclusion", "denominator_exclusion", "denominator_exception")
            where = f"{group.id}/{item.id}"
            message = f"the criterion {item.expression!r} is not a define of {main.id}"
            yield Finding("warning" if soft else "error", "criteria-missing", where, message)
    names = {item.id for item in group.populations} | {item.column.replace("_", "-") for item in group.populations}
    for observation in group.observations:
        where = f"{group.id}/{observation.id}"
        if observation.expression not in main.functions and observation.expression not in main.defines:
            yield Finding(
                "error", "criteria-missing", where, f"the function {observation.expression!r} is not in {main.id}"
            )
        reference = (observation.reference or "").partition("|")[0]
        if reference and reference not in names:
            yield Finding("warning", "criteria-reference", where, f"the population {reference!r} is not in the group")
    for stratifier in group.stratifiers:
        if stratifier.expression not in main.defines:
            where = f"{group.id}/{stratifier.id}"
            yield Finding(
                "warning", "criteria-missing", where, f"the stratifier {stratifier.expression!r} is not a define"
            )
