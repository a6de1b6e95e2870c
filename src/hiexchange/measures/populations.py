"""From defines to populations: membership, strata and observations of one subject in one group.

Source: Quality Measure IG (hl7.fhir.us.cqfmeasures), "Measure Conformance" and "Measure Population
Criteria"; counts are membership, so the denominator's still holds the excluded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hiexchange.measures.bundle import Group, Observation
from hiexchange.measures.cql import compare
from hiexchange.measures.cql.compiler import Define, Function
from hiexchange.measures.cql.model import Element
from hiexchange.measures.cql.subject import Subject
from hiexchange.measures.cql.values import Code, Concept, EvaluationError, Quantity

PATIENT = "patient"
"""Key of the only member under boolean basis."""


@dataclass(slots=True)
class Member:
    """One member of a group's populations: the patient, or an episode."""

    key: str
    """Type/id of the episode, or PATIENT."""
    value: Any
    """The episode, as the criteria returned it."""
    flags: dict[str, bool] = field(default_factory=dict)
    """Population column to membership; only populations the group has."""
    observations: list[tuple[str, Any]] = field(default_factory=list)
    """(observation id, value)."""
    strata: dict[str, Any] = field(default_factory=dict)
    """Stratifier id to True, False, or the value of the stratum."""
    initials: list[str] | None = None
    """Ids of the initial populations it is in, where the group has several."""


@dataclass(frozen=True)
class Criteria:
    """A group with its expressions compiled."""

    group: Group
    defines: dict[str, Define | None]
    """Population column to define; None for a criterion that names none."""
    initials: tuple[tuple[str, Define | None], ...]
    """(population id, define) of the initial populations, where a ratio has several; else empty."""
    linked: dict[str, str]
    """Population column to the id of the initial population it draws from, where there are several."""
    observations: tuple[tuple[Observation, Function | Define | None, str], ...]
    """(observation, what to call, column of the population observed)."""
    stratifiers: tuple[tuple[str, Define | None], ...]


def evaluate(criteria: Criteria, s: Subject) -> list[Member]:
    """Return the members of a group's populations for one subject.

    Under boolean basis exactly one member; under a resource basis one for each episode of the
    initial population, in the order its define gives them, duplicates dropped.
    """
    boolean = criteria.group.basis == "boolean"
    if criteria.initials:
        members = _linked(criteria, s, boolean=boolean)
    else:
        members = _boolean(criteria, s) if boolean else _episodes(criteria, s)
    settle = _settle_ratio if criteria.group.scoring == "ratio" else _settle
    for member in members:
        settle(member.flags)
    _stratify(criteria, s, members, boolean=boolean)
    _observe(criteria, s, members)
    return members


def _boolean(criteria: Criteria, s: Subject) -> list[Member]:
    member = Member(PATIENT, s.patient)
    for column, define in criteria.defines.items():
        if column != "initial_population" and not member.flags.get("initial_population", True):
            member.flags[column] = False  # outside the initial population nothing else is asked
        else:
            member.flags[column] = define is not None and _truth(define, s) is True
    return [member]


def _truth(define: Define, s: Subject) -> bool | None:
    value = s.evaluate(define)
    if value is not None and not isinstance(value, bool):
        raise _mistyped(define, "a truth value under boolean basis")
    return value


def _mistyped(define: Define, wanted: str) -> EvaluationError:
    # Taken for "not met", a measure that forgot its basis would report zeros for everybody.
    message = f"a criterion must give {wanted}"
    return EvaluationError(message, library=define.unit.library.name, locator=define.name)


def _episodes(criteria: Criteria, s: Subject) -> list[Member]:
    members: dict[Any, Member] = {}
    first = criteria.defines.get("initial_population")
    for value in _listed(first, s):
        token = compare.token(value)
        if token not in members:
            members[token] = Member(episode_key(value, len(members)), value)
    if not members:
        return []
    for column, define in criteria.defines.items():
        tokens = {compare.token(value) for value in _listed(define, s)}
        for token, member in members.items():
            member.flags[column] = token in tokens
    return list(members.values())


def _linked(criteria: Criteria, s: Subject, *, boolean: bool) -> list[Member]:
    """Return the members of several initial populations; each other population draws from the one it is linked to."""
    members: dict[Any, Member] = {}
    for name, define in criteria.initials:
        for token, value in _values(define, s, boolean).items():
            if token not in members:
                key = PATIENT if boolean else episode_key(value, len(members))
                members[token] = Member(key, value, {"initial_population": True}, initials=[])
            found = members[token].initials
            assert found is not None
            found.append(name)
    if boolean and not members:
        members[PATIENT] = Member(PATIENT, s.patient, {"initial_population": False}, initials=[])
    for column, define in criteria.defines.items():
        if column != "initial_population":
            inside = _values(define, s, boolean) if any(member.initials for member in members.values()) else {}
            source = criteria.linked.get(column)
            for token, member in members.items():
                drawn = bool(member.initials) if source is None else source in (member.initials or ())
                member.flags[column] = drawn and token in inside
    return list(members.values())


def _values(define: Define | None, s: Subject, boolean: bool) -> dict[Any, Any]:
    if boolean:
        return {PATIENT: s.patient} if define is not None and _truth(define, s) is True else {}
    return {compare.token(item): item for item in _listed(define, s)}


def _listed(define: Define | None, s: Subject) -> list[Any]:
    value = s.evaluate(define) if define is not None else None
    if value is None or define is None:
        return []
    if isinstance(value, bool):
        raise _mistyped(define, "episodes under a resource basis")
    return [item for item in value if item is not None] if isinstance(value, list) else [value]


def episode_key(value: Any, at: int) -> str:
    """Return Type/id of an episode that is a resource, else its place."""
    if isinstance(value, Element) and value.row is not None:
        return f"{value.type.name}/{value.id}" if value.id is not None else f"{value.type.name}#{value.row}"
    return f"#{at}"


def _settle(flags: dict[str, bool]) -> None:
    """Make the populations of a proportion, cohort or continuous variable lie within each other."""
    if not flags.get("initial_population", True):
        for column in flags:
            flags[column] = False
        return
    if not flags.get("denominator", True) or not flags.get("measure_population", True):
        for column in ("denominator_exclusion", "denominator_exception", "numerator", "numerator_exclusion"):
            _clear(flags, column)
        _clear(flags, "measure_population_exclusion")
    if flags.get("denominator_exclusion"):
        for column in ("numerator", "numerator_exclusion", "denominator_exception"):
            _clear(flags, column)
    if flags.get("numerator"):
        _clear(flags, "denominator_exception")
    elif "numerator" in flags:
        _clear(flags, "numerator_exclusion")


def _settle_ratio(flags: dict[str, bool]) -> None:
    """In a ratio the numerator need not lie within the denominator."""
    if not flags.get("initial_population", True):
        for column in flags:
            flags[column] = False
        return
    if not flags.get("denominator", True):
        _clear(flags, "denominator_exclusion")
        _clear(flags, "denominator_exception")
    if not flags.get("numerator", True):
        _clear(flags, "numerator_exclusion")


def _clear(flags: dict[str, bool], column: str) -> None:
    if column in flags:
        flags[column] = False


def _stratify(criteria: Criteria, s: Subject, members: list[Member], *, boolean: bool) -> None:
    if not members or not any(any(member.flags.values()) for member in members):
        # A subject outside every population is in no stratum; its counts are zero all the same.
        for member in members:
            member.strata = {name: False for name, _ in criteria.stratifiers}
        return
    for name, define in criteria.stratifiers:
        value = s.evaluate(define) if define is not None else None
        if isinstance(value, list) and not boolean:
            tokens = {compare.token(item) for item in value}
            for member in members:
                member.strata[name] = compare.token(member.value) in tokens
        else:
            for member in members:
                member.strata[name] = stratum(value)


def stratum(value: Any) -> Any:
    """Return a stratifier's value as True, False (also for null) or text."""
    if value is None or isinstance(value, bool):
        return value is True
    if isinstance(value, Code):
        return value.code
    if isinstance(value, Concept):
        return value.codes[0].code if value.codes else value.display
    if isinstance(value, list):
        return bool(value)
    return str(value)


_EXCLUDES = {
    "denominator": ("denominator_exclusion",),
    "numerator": ("numerator_exclusion",),
    "measure_population": ("measure_population_exclusion",),
}


def _observe(criteria: Criteria, s: Subject, members: list[Member]) -> None:
    for observation, call, column in criteria.observations:
        if call is None:
            continue
        for member in members:
            if not member.flags.get(column) or any(member.flags.get(name) for name in _EXCLUDES.get(column, ())):
                continue
            member.observations.append((observation.id, _call(call, s, member.value)))


def _call(call: Function | Define, s: Subject, value: Any) -> Any:
    if isinstance(call, Define):
        return s.evaluate(call)
    return call.call(s, [value] if call.arity else [])


def number(value: Any) -> tuple[float | None, str | None]:
    """Return an observation as (number, unit) for the result table."""
    if isinstance(value, Quantity):
        return (None if value.value is None else float(value.value)), value.unit
    if isinstance(value, bool):
        return float(value), None
    if isinstance(value, int | Decimal):
        return float(value), None
    return None, None
