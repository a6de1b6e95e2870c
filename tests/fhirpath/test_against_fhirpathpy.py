"""The evaluator against fhirpathpy (an independent implementation) on random patients and expressions.

Every difference must match one of :data:`EXPLAINED`; each entry says who is right and why.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from fhirpathpy import evaluate as oracle
from fhirpathpy.models import models

from hiexchange.errors import FHIRPathError

PEOPLE = 8
EXPRESSIONS = 120

Answers = list[Any] | str


def anything(ours: Answers, theirs: Answers) -> bool:
    return True


def nothing(ours: Answers, theirs: Answers) -> bool:
    return theirs == []


def other_sign(ours: Answers, theirs: Answers) -> bool:
    return len(ours) == len(theirs) == 1 and ours[0] * theirs[0] <= 0


def refused(ours: Answers, theirs: Answers) -> bool:
    return theirs == "error"


def near(ours: Answers, theirs: Answers) -> bool:
    """Say whether both are one number, and nearly the same one; as text, the same one."""
    try:
        ((mine,), (other,)) = ours, theirs
        return abs(Decimal(str(mine)) - Decimal(str(other))) < Decimal("1e-7")
    except (ValueError, ArithmeticError):
        return False


EXPLAINED: list[tuple[str, Callable[[Answers, Answers], bool], str]] = [
    (r"\(-", refused, "fhirpathpy refuses a sign before the empty collection; FHIRPath propagates empty (6.6.7)"),
    (r" / ", near, "quotients have eight places here, Python's 28 digits there; both are allowed (4.1.4)"),
    (r" mod | div ", other_sign, "fhirpathpy rounds like Python (floor); FHIRPath truncates (6.6.5)"),
    (
        r"\.(combine|intersect|exclude)\(| \| ",
        anything,
        "fhirpathpy combines an empty input to nothing, and compares node wrappers in its set functions (FHIRPath 5.3)",
    ),
    (
        r"( & |\.join\().*\.(replace|trim|indexOf|upper|lower|substring|length)\(",
        nothing,
        "fhirpathpy's functions take an empty string for the empty collection; FHIRPath 5.6 does not",
    ),
]
"""Which expressions may differ, how the answers then stand to each other, and why."""

REAL = [
    # Each fault of fhirpathpy in its smallest form: expression, what FHIRPath says, what fhirpathpy says.
    ("(-name.period.count().where(false))", [], "error"),
    ("(2 / 3)", [Decimal("0.66666667")], [Decimal("0." + "6" * 16)]),
    ("(7 / 1).toString()", ["7"], ["7.0"]),
    ("((0 - 1) mod 4)", [Decimal(-1)], [Decimal(3)]),
    ("name.where(use = 'old').family.combine(name.family)", ["Roe"], []),
    ("name.family.where($this = 'x').join(',').replace('a','b')", [""], []),
]
"""An explanation that no longer holds must go: each is seen here alone."""


def patients(rng: random.Random) -> list[dict[str, Any]]:
    people = []
    for number in range(PEOPLE):
        person: dict[str, Any] = {"resourceType": "Patient", "id": f"-{number}"}
        if rng.random() < 0.8:
            person["active"] = rng.random() < 0.5
        if rng.random() < 0.8:
            person["gender"] = rng.choice(["male", "female"])
        if rng.random() < 0.8:
            person["birthDate"] = rng.choice(["1970", "1970-06", "1970-06-15", "1980-01-01"])
        if rng.random() < 0.3:
            person["deceasedBoolean"] = rng.random() < 0.5
        elif rng.random() < 0.4:
            person["deceasedDateTime"] = rng.choice(["2020", "2020-01-05T10:00:00Z", "2020-01-05T12:00:00+02:00"])
        if rng.random() < 0.4:
            person["multipleBirthInteger"] = rng.randint(1, 4)
        names = [_name(rng) for _ in range(rng.randint(0, 3))]
        if names:
            person["name"] = names
        telecom = [
            {
                "system": rng.choice(["phone", "email"]),
                "value": rng.choice(["1", "22", "a@b"]),
                "rank": rng.randint(1, 3),
            }
            for _ in range(rng.randint(0, 3))
        ]
        if telecom:
            person["telecom"] = telecom
        if rng.random() < 0.5:
            url = rng.choice(["http://a", "http://b"])
            person["extension"] = [{"url": url, "valueDecimal": rng.choice([1.5, 2, -3.25])}]
        people.append(person)
    return people


def _name(rng: random.Random) -> dict[str, Any]:
    name: dict[str, Any] = {"use": rng.choice(["official", "usual", "old"])}
    if rng.random() < 0.8:
        name["family"] = rng.choice(["Ångström", "O'Neil", "smith", "Smith"])
    given = [rng.choice(["Ann", "bob", "Cy"]) for _ in range(rng.randint(0, 3))]
    return {**name, "given": given} if given else name


def joined(texts: str) -> str:
    """Join texts where there are any: of none, fhirpathpy 2.1 makes '' as SQL on FHIR's own tests do, 2.2 nothing."""
    return f"iif({texts}.exists(), {texts}.join(','), '')"


class Grammar:
    """Random expressions by type, down to a depth."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.pick = rng.choice

    def any(self) -> str:
        return self.pick([self.boolean, self.strings, self.string, self.number])(3)

    def boolean(self, depth: int) -> str:
        if depth <= 0:
            return self.pick(["active", "true", "false", "name.exists()", "multipleBirth.exists()"])
        below = depth - 1
        return self.pick(
            [
                lambda: f"({self.boolean(below)} {self.pick(['and', 'or', 'xor', 'implies'])} {self.boolean(below)})",
                lambda: f"{self.boolean(below)}.not()",
                lambda: f"({self.string(below)} {self.pick(['=', '!=', '~', '!~', '<', '>='])} {self.string(below)})",
                lambda: f"({self.number(below)} {self.pick(['=', '!=', '<', '<=', '>', '>='])} {self.number(below)})",
                lambda: f"{self.strings(below)}.{self.pick(['exists()', 'empty()', 'isDistinct()'])}",
                lambda: f"({self.string(below)} in {self.strings(below)})",
                lambda: f"({self.date()} {self.pick(['=', '<', '<=', '>', '>=', '!='])} {self.date()})",
                lambda: (
                    f"{self.string(below)}.{self.pick(['startsWith', 'endsWith', 'contains'])}('{self.pick('aSn')}')"
                ),
                lambda: f"{self.strings(below)}.all($this.length() {self.pick(['>', '<'])} 3)",
                lambda: f"name.exists(use = '{self.pick(['official', 'old'])}')",
            ]
        )()

    def date(self) -> str:
        return self.pick(["birthDate", "@1970-06-15", "@1970", "@1970-06", "deceased.ofType(dateTime)", "@2020-01-05"])

    def strings(self, depth: int) -> str:
        if depth <= 0:
            return self.pick(["name.given", "name.family", "telecom.value", "name.use", "telecom.system"])
        below = depth - 1
        return self.pick(
            [
                lambda: f"name.where(use = '{self.pick(['official', 'old'])}').{self.pick(['given', 'family'])}",
                lambda: f"({self.strings(below)} | {self.strings(below)})",
                lambda: (
                    f"{self.strings(below)}.{self.pick(['distinct()', 'tail()', 'skip(1)', 'take(2)', 'first()', 'last()'])}"
                ),
                lambda: f"{self.strings(below)}.combine({self.strings(below)})",
                lambda: f"{self.strings(below)}.{self.pick(['intersect', 'exclude'])}({self.strings(below)})",
                lambda: f"name.select({self.pick(['given', 'family', 'given.first()'])})",
                lambda: (
                    f"{self.strings(below)}.where($this {self.pick(['=', '!=', '~'])} '{self.pick(['Ann', 'SMITH', '1'])}')"
                ),
                lambda: f"iif({self.boolean(below)}, {self.strings(below)}, {self.strings(below)})",
                lambda: f"{self.strings(below)}.where($index {self.pick(['=', '>', '<'])} 1)",
            ]
        )()

    def string(self, depth: int) -> str:
        if depth <= 0:
            return self.pick(
                ["gender", "id", "'Smith'", "name.family.first()", "name.given.last()", "telecom[0].value"]
            )
        below = depth - 1
        return self.pick(
            [
                lambda: f"{self.strings(below)}.first()",
                lambda: f"{self.strings(below)}[{self.rng.randint(0, 2)}]",
                lambda: (
                    f"{self.string(below)}.{self.pick(['upper()', 'lower()', 'trim()', 'substring(1)', 'substring(0,2)'])}"
                ),
                lambda: f"({self.string(below)} {self.pick(['&', '+'])} {self.string(below)})",
                lambda: f"{self.string(below)}.replace('a','b')",
                lambda: f"{self.number(below)}.toString()",
                lambda: joined(self.strings(below)),
            ]
        )()

    def number(self, depth: int) -> str:
        if depth <= 0:
            return self.pick(["1", "2.5", "0", "multipleBirth.ofType(integer)", "telecom.rank.first()", "name.count()"])
        below = depth - 1
        return self.pick(
            [
                lambda: f"({self.number(below)} {self.pick(['+', '-', '*', '/', 'div', 'mod'])} {self.number(below)})",
                lambda: f"{self.strings(below)}.count()",
                lambda: f"{self.string(below)}.length()",
                lambda: f"{self.number(below)}.{self.pick(['abs()', 'ceiling()', 'floor()', 'truncate()'])}",
                lambda: f"(-{self.number(below)})",
                lambda: f"{self.string(below)}.indexOf('a')",
                lambda: "telecom.rank.aggregate($this + $total, 0)",
                lambda: "extension('http://a').value.first()",
            ]
        )()


def plain(values: list[Any]) -> list[Any]:
    found = []
    for value in values:
        value = getattr(value, "asStr", value)
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            value = Decimal(str(value)).normalize() + 0
        found.append(value)
    return found


@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 9))])
def test_random_expressions_agree_or_are_explained(evaluate: Callable[..., list[list[Any]]], seed: int) -> None:
    rng = random.Random(seed)
    people = patients(rng)
    grammar = Grammar(rng)
    agreed = 0
    explained: Counter[str] = Counter()
    for _ in range(EXPRESSIONS):
        expression = grammar.any()
        for person, mine in zip(people, _ours(evaluate, expression, people), strict=True):
            theirs = _theirs(expression, person)
            if mine == theirs:
                agreed += 1
                continue
            reason = next(
                (why for pattern, holds, why in EXPLAINED if re.search(pattern, expression) and holds(mine, theirs)),
                None,
            )
            assert reason is not None, f"{expression}: ours {mine}, fhirpathpy {theirs} on {json.dumps(person)}"
            explained[reason] += 1
    assert agreed > 0.9 * PEOPLE * EXPRESSIONS


@pytest.mark.parametrize(("expression", "right", "theirs"), REAL)
def test_each_fault_is_seen_alone(
    evaluate: Callable[..., list[list[Any]]], expression: str, right: Answers, theirs: Answers
) -> None:
    person = {"resourceType": "Patient", "id": "-1", "name": [{"family": "Roe"}]}
    assert _one(evaluate, expression, person) == right
    assert _theirs(expression, person) == theirs


@pytest.mark.parametrize(
    "expression",
    ["birthDate.type().name", "active.type().namespace", "name.type().name", "multipleBirth.type().name",
     "telecom.rank.type().name", "extension.value.type().name", "1.type().namespace", "(1.5).type().name",
     "(1 | 'a').type().name", "true.type().name", "name.where(use = 'old').type().name"],
)  # fmt: skip
def test_types_agree(evaluate: Callable[..., list[list[Any]]], expression: str) -> None:
    people = patients(random.Random(7))
    assert _ours(evaluate, expression, people) == [_theirs(expression, person) for person in people]


def _ours(evaluate: Callable[..., list[list[Any]]], expression: str, people: list[dict[str, Any]]) -> list[Any]:
    try:
        return [plain(row) for row in evaluate(expression, *people)]
    except FHIRPathError:
        # An error of one patient must not hide the others.
        return [_one(evaluate, expression, person) for person in people]


def _one(evaluate: Callable[..., list[list[Any]]], expression: str, person: dict[str, Any]) -> Any:
    try:
        return plain(evaluate(expression, person)[0])
    except FHIRPathError:
        return "error"


def _theirs(expression: str, person: dict[str, Any]) -> Any:
    try:
        return plain(oracle(person, expression, {}, models["r4"]))
    except Exception:
        # fhirpathpy raises bare Exceptions for whatever it refuses.
        return "error"
