"""The hard profile: who looks like whom, and some fifty ways in which rows go wrong, each with its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hiexchange.testing import _names
from hiexchange.testing._troubles import (
    ACCENTS,
    NO_DATE,
    Columns,
    Plan,
    _change_dates,
    concat,
    each,
    shift_year,
    swap_day_month,
    take,
    with_ids,
)

if TYPE_CHECKING:
    from hiexchange.testing.households import Town

Trouble = Callable[[Plan, np.ndarray], None]
Double = Callable[[str, np.random.Generator, Any, Columns, Columns, np.ndarray, np.ndarray], None]

LOOKALIKES: dict[str, float] = {
    "twins": 0.010,
    "twins_similar": 0.005,
    "twins_mutated": 0.002,
    "twins_same_initial": 0.002,
    "jr_sr_suffix": 0.004,
    "jr_sr_half_suffix": 0.004,
    "jr_sr_no_suffix": 0.006,
    "namesake_same_birth": 0.004,
    "namesake_same_birth_same_zip": 0.0005,
    "sibling_similar_name": 0.003,
    "cousin_same_name": 0.003,
}
"""Share of the roster that is the second person of such a pair; in half of the pairs the index lacks them."""


def _kept(mask: Any, values: Any) -> Any:
    """Return values where the mask holds, None elsewhere."""
    return np.where(mask, values, np.array(None, dtype=object))


def plan_hard(
    rng: np.random.Generator,
    town: Town,
    people: Columns,
    roster: int,
    *,
    lookalikes: dict[str, float] | None = None,
    double: Double | None = None,
    troubles: dict[str, tuple[float, Trouble]] | None = None,
) -> Plan:
    """Spoil both sides with every class of trouble; the classes of this profile, or those given."""
    count = len(people["human"])
    people["middle"] = _kept(rng.random(count) < 0.7, town.first_names(count))
    each(people["first"], np.flatnonzero(rng.random(count) < 0.004), lambda text: f"{text} {town.first_names(1)[0]}")
    people["email"] = np.array(
        [f"{n:x}@mail.example" for n in rng.integers(1 << 40, size=count).tolist()], dtype=object
    )
    with_ids(people, "M")
    doubles, anchors = _lookalikes(rng, town, people, roster, lookalikes or LOOKALIKES, double or _make_double)
    absent = rng.random(len(doubles["human"])) < 0.5
    extra = take(doubles, np.flatnonzero(~absent))
    index = concat(people, extra)
    strangers = _strangers(rng, town, int(0.03 * roster), int(doubles["human"].max()) + 1)
    relatives = _relatives(rng, town, people, int(0.05 * roster), int(strangers["human"].max()) + 1)
    sides = anchors[rng.random(len(anchors)) < 0.5]
    rest = np.setdiff1d(rng.permutation(count), anchors, assume_unique=True)
    rng.shuffle(rest)
    fill = roster - len(doubles["human"]) - len(strangers["human"]) - len(relatives["human"]) - len(sides)
    own = take(people, np.concatenate([sides, rest[:fill]]))
    anchor_class = np.full(count, "clean", dtype=object)
    anchor_class[anchors] = doubles["class"]
    own["class"] = anchor_class[own["human"]]
    plan = Plan(rng, town, index, concat(own, doubles, strangers, relatives))
    _background(plan)
    _apply_troubles(plan, troubles or TROUBLES)
    return plan


def _lookalikes(
    rng: np.random.Generator, town: Town, people: Columns, roster: int, shares: dict[str, float], make: Double
) -> tuple[Columns, np.ndarray]:
    """Return the second people of every pair of lookalikes, and the positions of the first ones."""
    count = len(people["human"])
    sizes = {name: max(4, int(share * roster)) for name, share in shares.items()}
    total = sum(sizes.values())
    anchors = rng.permutation(count)[:total]
    doubles = take(people, anchors)
    doubles["human"] = count + np.arange(total)
    doubles["ssn4"] = town.ssn4(total)
    doubles["middle"] = _kept(rng.random(total) < 0.7, town.first_names(total))
    doubles["email"] = _kept(rng.random(total) < 0.2, doubles["email"])
    doubles["id"] = np.array([f"D{n:08d}" for n in range(total)], dtype=object)
    start = 0
    for name, size in sizes.items():
        at = np.arange(start, start + size)
        doubles["class"][at] = name
        make(name, rng, town, people, doubles, at, anchors[at])
        start += size
    return doubles, anchors


def _make_double(
    name: str, rng: np.random.Generator, town: Town, people: Columns, rows: Columns, at: np.ndarray, anchors: np.ndarray
) -> None:
    size = len(at)
    if name.startswith("twins"):
        rows["sex"][at] = np.where(
            rng.random(size) < 0.7, rows["sex"][at], np.where(rng.random(size) < 0.5, "female", "male")
        )
        rows["first"][at] = town.first_names(size)
        same = at[rows["first"][at] == people["first"][anchors]]
        rows["first"][same] = [_rhyme(rng, text) for text in rows["first"][same]]
    if name == "twins_similar":
        pairs = [town.twins[n] for n in rng.integers(len(town.twins), size=size)]
        turn = rng.random(size) < 0.5
        people["first"][anchors] = [pair[int(flip)].title() for pair, flip in zip(pairs, turn, strict=True)]
        rows["first"][at] = [pair[1 - int(flip)].title() for pair, flip in zip(pairs, turn, strict=True)]
    elif name == "twins_mutated":
        rows["first"][at] = [_rhyme(rng, text) for text in people["first"][anchors]]
    elif name == "twins_same_initial":
        rows["first"][at] = [_same_start(rng, town, text) for text in people["first"][anchors]]
    elif name.startswith("jr_sr"):
        rows["sex"][at] = people["sex"][anchors]
        _change_dates(rows, at, lambda day: shift_year(day, -int(rng.integers(18, 40))))
        rows["born"][at] += rng.integers(-180, 180, size=size)
        if name != "jr_sr_no_suffix":
            rows["suffix"][at] = "Sr"
        if name == "jr_sr_suffix" or (name == "jr_sr_half_suffix" and rng.random() < 0.0):
            people["suffix"][anchors] = "Jr"
    elif name.startswith("namesake"):
        for column, values in town.homes(size).items():
            rows[column][at] = values
        rows["home"][at] = -1 - rows["human"][at]
        rows["email"][at] = None
        rows["sex"][at] = np.where(rng.random(size) < 0.8, rows["sex"][at], "female")
        if name.endswith("zip"):
            rows["zip"][at], rows["city"][at] = people["zip"][anchors], people["city"][anchors]
    elif name == "sibling_similar_name":
        rows["first"][at] = [_rhyme(rng, text) for text in people["first"][anchors]]
        rows["born"][at] += rng.integers(330, 2000, size=size)
    elif name == "cousin_same_name":
        for column, values in town.homes(size).items():
            rows[column][at] = values
        rows["born"][at] = town.birth_days(size)


def _rhyme(rng: np.random.Generator, text: str) -> str:
    for _ in range(20):
        other = (
            "BCDJKLMRST"[rng.integers(10)] + text[1:].lower()
            if rng.random() < 0.6
            else text[:-1] + "aeiny"[rng.integers(5)]
        )
        if other != text:
            return other
    return text + "a"


def _same_start(rng: np.random.Generator, town: Town, text: str) -> str:
    for name in town.first_names(60):
        if name[0] == text[0] and name != text:
            return str(name)
    return str(town.first_names(1)[0])


def _strangers(rng: np.random.Generator, town: Town, size: int, first_human: int) -> Columns:
    rows = town.people(size)
    rows["human"] = first_human + np.arange(size)
    rows["home"] = -1 - rows["human"]
    rows["email"] = np.full(size, None, dtype=object)
    with_ids(rows, "T")
    rows["class"][:] = "absent_stranger"
    return rows


def _relatives(rng: np.random.Generator, town: Town, people: Columns, size: int, first_human: int) -> Columns:
    rows = take(people, rng.permutation(len(people["human"]))[:size])
    father = rows["first"].copy()
    rows["first"] = town.first_names(size, common=300)
    rows["born"], rows["ssn4"], rows["human"] = town.birth_days(size), town.ssn4(size), first_human + np.arange(size)
    rows["sex"] = np.where(rng.random(size) < 0.5, "female", "male").astype(object)
    rows["middle"] = np.full(size, None, dtype=object)
    rows["email"] = _kept(rng.random(size) < 0.3, rows["email"])
    rows["id"] = np.array([f"R{n:08d}" for n in range(size)], dtype=object)
    rows["class"] = np.where(rows["first"] == father, "jr_sr_by_chance", "absent_relative").astype(object)
    return rows


def _background(plan: Plan) -> None:
    """Leave out on each side what real files leave out."""
    for rows, shares in (
        (plan.members, {"ssn4": 0.6, "phone": 0.2, "line": 0.02, "sex": 0.01, "email": 0.75, "middle": 0.5}),
        (plan.persons, {"ssn4": 0.4, "phone": 0.1, "line": 0.02, "sex": 0.01, "email": 0.6, "middle": 0.4, "id": 0.3}),
    ):
        for name, share in shares.items():
            rows[name][plan.pick(share, len(rows[name]))] = None
        each(rows["middle"], plan.pick(0.5, len(rows["middle"])), lambda text: text[:1])


def _apply_troubles(plan: Plan, troubles: dict[str, tuple[float, Trouble]]) -> None:
    rng, rows = plan.rng, plan.members
    names = list(troubles)
    weights = np.array([troubles[name][0] for name in names])
    weights /= weights.sum()
    for share in (0.55, 0.08):
        hit = rng.random(len(rows["human"])) < np.where(rows["class"] == "clean", share, share / 2)
        kinds = np.where(hit, rng.choice(len(names), p=weights, size=len(hit)), -1)
        for kind, name in enumerate(names):
            at = np.flatnonzero(kinds == kind)
            if len(at):
                troubles[name][1](plan, at)
                rows["class"][at] = np.where(rows["class"][at] == "clean", name, rows["class"][at])


# Troubles: member side --------------------------------------------------------------------------


def _text(column: str, change: Callable[[Plan, str], str | None]) -> Trouble:
    def trouble(plan: Plan, at: np.ndarray) -> None:
        each(plan.members[column], at, lambda text: change(plan, text))

    return trouble


def _set(value: str | None, *columns: str) -> Trouble:
    def trouble(plan: Plan, at: np.ndarray) -> None:
        for column in columns:
            plan.members[column][at] = value

    return trouble


def _day(change: Callable[[Plan], Callable[..., object]]) -> Trouble:
    def trouble(plan: Plan, at: np.ndarray) -> None:
        _change_dates(plan.members, at[plan.members["born"][at] != NO_DATE], change(plan))  # type: ignore[arg-type]

    return trouble


def _all(*troubles: Trouble) -> Trouble:
    def trouble(plan: Plan, at: np.ndarray) -> None:
        for one in troubles:
            one(plan, at)

    return trouble


def _typo(column: str) -> Trouble:
    return _text(column, lambda plan, text: _names.mistyped(plan.rng, text))


def _moved(plan: Plan, at: np.ndarray) -> None:
    for name, values in plan.town.homes(len(at)).items():
        if name != "phone":
            plan.members[name][at] = values


def _phone_changed(plan: Plan, at: np.ndarray) -> None:
    plan.members["phone"][at] = plan.town.phones(len(at))


def _married(plan: Plan, at: np.ndarray) -> None:
    plan.members["last"][at] = plan.town.surnames(len(at))


def _hyphenated(plan: Plan, at: np.ndarray) -> None:
    for row, other in zip(at.tolist(), plan.town.surnames(len(at)), strict=True):
        joint = "- "[int(plan.rng.integers(2))]
        plan.members["last"][row] = f"{plan.members['last'][row]}{joint}{other}"


def _nickname(plan: Plan, at: np.ndarray) -> None:
    def short(text: str) -> str:
        forms = plan.town.forms.get(text.lower())
        return forms[int(plan.rng.integers(len(forms)))].title() if forms else text[:3]

    each(plan.members["first"], at, short)


def _swapped(plan: Plan, at: np.ndarray) -> None:
    rows = plan.members
    rows["first"][at], rows["last"][at] = rows["last"][at].copy(), rows["first"][at].copy()


def _middle_as_first(plan: Plan, at: np.ndarray) -> None:
    rows = plan.members
    at = np.array(
        [
            row
            for row in at.tolist()
            if rows["middle"][row] and len(rows["middle"][row]) > 2 and rows["class"][row] == "clean"
        ],
        dtype=np.int64,
    )
    if len(at):
        rows["first"][at], rows["middle"][at] = rows["middle"][at].copy(), None


def _no_birth(plan: Plan, at: np.ndarray) -> None:
    plan.members["born"][at] = NO_DATE


def _birth_1900(plan: Plan, at: np.ndarray) -> None:
    plan.members["born"][at] = -25567


def _ssn_wrong(plan: Plan, at: np.ndarray) -> None:
    plan.members["ssn4"][at] = plan.town.ssn4(len(at))


def _sex_wrong(plan: Plan, at: np.ndarray) -> None:
    plan.members["sex"][at] = np.where(plan.members["sex"][at] == "male", "female", "male")


# Troubles: index side ---------------------------------------------------------------------------


def _records(plan: Plan, at: np.ndarray) -> np.ndarray:
    """Return the index rows of the humans at some member rows, those that are there."""
    human = plan.persons["human"]
    order = np.argsort(human, kind="stable")
    place = np.searchsorted(human[order], plan.members["human"][at])
    found = order[np.minimum(place, len(order) - 1)]
    return np.asarray(found[human[found] == plan.members["human"][at]])


def _id_unknown(plan: Plan, at: np.ndarray) -> None:
    plan.persons["id"][_records(plan, at)] = None


def _id_changed(plan: Plan, at: np.ndarray) -> None:
    here = _records(plan, at)
    plan.persons["id"][here] = [f"O{row}" for row in here.tolist()]


def _id_of_stranger(plan: Plan, at: np.ndarray) -> None:
    here = _records(plan, at)
    there = plan.rng.integers(len(plan.persons["id"]), size=len(here))
    plan.persons["id"][there] = plan.persons["id"][here]
    plan.persons["id"][here] = None


def _neighbours(plan: Plan, here: np.ndarray) -> np.ndarray:
    home = plan.persons["home"]
    there = np.minimum(here + 1, len(home) - 1)
    there = np.where(home[there] == home[here], there, np.maximum(here - 1, 0))
    return np.where(home[there] == home[here], there, here)


def _id_of_relative(plan: Plan, at: np.ndarray) -> None:
    for row in at.tolist():
        here = _records(plan, np.array([row]))
        if len(here):
            there = _neighbours(plan, here)
            plan.persons["id"][here] = None
            plan.persons["id"][there] = plan.members["id"][row]


def _id_of_family(plan: Plan, at: np.ndarray) -> None:
    here = _records(plan, at)
    plan.persons["id"][_neighbours(plan, here)] = plan.persons["id"][here]


def _ssn_of_relative(plan: Plan, at: np.ndarray) -> None:
    here = _records(plan, at)
    keep = np.isin(plan.members["human"][at], plan.persons["human"][here])
    plan.members["ssn4"][at[keep]] = plan.persons["ssn4"][_neighbours(plan, here)]


def _newborn(plan: Plan, at: np.ndarray) -> None:
    here = _records(plan, at)
    plan.persons["first"][here] = np.where(plan.persons["sex"][here] == "male", "Baby Boy", "BabyGirl")
    plan.persons["ssn4"][here] = None


def _duplicate(change: Callable[[Plan, Columns], None]) -> Trouble:
    def trouble(plan: Plan, at: np.ndarray) -> None:
        copies = take(plan.persons, _records(plan, at))
        change(plan, copies)
        plan.persons = concat(plan.persons, copies)

    return trouble


def _same(plan: Plan, copies: Columns) -> None:
    copies["id"][:] = None


def _copy_mistyped(plan: Plan, copies: Columns) -> None:
    each(copies["first"], np.arange(len(copies["first"])), lambda text: _names.mistyped(plan.rng, text))


def _copy_moved(plan: Plan, copies: Columns) -> None:
    for name, values in plan.town.homes(len(copies["human"])).items():
        copies[name] = values


def _in_index(column: str, value: str | None) -> Trouble:
    def trouble(plan: Plan, at: np.ndarray) -> None:
        plan.persons[column][_records(plan, at)] = value

    return trouble


def _index_typo(column: str) -> Trouble:
    def trouble(plan: Plan, at: np.ndarray) -> None:
        each(plan.persons[column], _records(plan, at), lambda text: _names.mistyped(plan.rng, text))

    return trouble


def _short_street(plan: Plan, text: str) -> str:
    for word, short in (("Street", "ST"), ("Avenue", "AVE."), ("Road", "Rd"), ("Drive", "DR")):
        text = text.replace(word, short)
    return f"{text} Apt {int(plan.rng.integers(1, 40))}"


TROUBLES: dict[str, tuple[float, Trouble]] = {
    "first_typo": (4, _typo("first")),
    "last_typo": (4, _typo("last")),
    "both_typo": (0.7, _all(_typo("first"), _typo("last"))),
    "index_first_typo": (1, _index_typo("first")),
    "index_last_typo": (1, _index_typo("last")),
    "nickname": (4, _nickname),
    "first_cut": (0.7, _text("first", lambda plan, text: text[:4])),
    "first_initial": (0.5, _text("first", lambda plan, text: text[:1])),
    "first_accented": (1, _text("first", lambda plan, text: text.translate(ACCENTS))),
    "last_accented": (1, _text("last", lambda plan, text: text.translate(ACCENTS))),
    "upper_case": (
        1,
        _all(_text("first", lambda plan, text: text.upper()), _text("last", lambda plan, text: text.upper())),
    ),
    "title": (0.5, _text("first", lambda plan, text: f"Mrs. {text}")),
    "middle_in_first": (1, _text("first", lambda plan, text: f"{text} {'ABCDEFGH'[plan.rng.integers(8)]}")),
    "middle_as_first": (0.5, _middle_as_first),
    "names_swapped": (0.7, _swapped),
    "suffix_in_last": (0.5, _text("last", lambda plan, text: f"{text} Jr")),
    "married": (3, _married),
    "married_moved": (0.7, _all(_married, _moved)),
    "hyphenated": (2, _hyphenated),
    "last_particle": (0.5, _text("last", lambda plan, text: f"De La {text}")),
    "birth_swapped": (1.5, _day(lambda plan: swap_day_month)),
    "birth_day_first": (0.7, _day(lambda plan: lambda day: day.replace(day=1))),
    "birth_january_first": (0.5, _day(lambda plan: lambda day: day.replace(month=1, day=1))),
    "birth_year_off": (1, _day(lambda plan: lambda day: shift_year(day, int(plan.rng.choice([-1, 1]))))),
    "birth_decade_off": (0.5, _day(lambda plan: lambda day: shift_year(day, int(plan.rng.choice([-10, 10]))))),
    "birth_day_off": (1, _day(lambda plan: lambda day: day.replace(day=1 + int(plan.rng.integers(28))))),
    "birth_missing": (0.7, _no_birth),
    "birth_1900": (0.5, _birth_1900),
    "sex_missing": (1, _set(None, "sex")),
    "sex_wrong": (0.7, _sex_wrong),
    "moved": (8, _moved),
    "moved_phone_changed": (4, _all(_moved, _phone_changed)),
    "moved_typo": (0.7, _all(_moved, _typo("first"))),
    "moved_nickname": (0.5, _all(_moved, _nickname)),
    "street_typo": (4, _typo("line")),
    "street_format": (3, _text("line", _short_street)),
    "post_box": (1, _text("line", lambda plan, text: f"P.O. Box {int(plan.rng.integers(1, 999))}")),
    "homeless": (0.5, _set("HOMELESS", "line")),
    "no_address": (1, _set(None, "line", "city", "zip")),
    "zip_wrong": (1, _text("zip", lambda plan, text: f"{int(plan.rng.integers(71600, 72500))}")),
    "phone_changed": (6, _phone_changed),
    "phone_placeholder": (1, _set("000-000-0000", "phone")),
    "phone_format": (1, _text("phone", lambda plan, text: f"+1 ({text[:3]}) {text[4:7]}{text[8:]}")),
    "ssn4_wrong": (1, _ssn_wrong),
    "ssn4_of_relative": (0.5, _ssn_of_relative),
    "ssn4_placeholder": (0.5, _set("9999", "ssn4")),
    "id_unknown": (4, _id_unknown),
    "id_changed": (1, _id_changed),
    "id_of_stranger": (0.7, _id_of_stranger),
    "id_of_relative": (0.7, _id_of_relative),
    "id_of_family": (1.5, _id_of_family),
    "newborn": (0.7, _newborn),
    "placeholder_first": (0.3, _set("Unknown", "first")),
    "index_no_birth": (0.3, lambda plan, at: plan.persons["born"].__setitem__(_records(plan, at), NO_DATE)),
    "index_no_address": (1, _in_index("line", None)),
    "index_duplicate": (1.5, _duplicate(_same)),
    "index_duplicate_typo": (0.7, _duplicate(_copy_mistyped)),
    "index_duplicate_moved": (0.7, _duplicate(_copy_moved)),
    "only_name_and_birth": (0.5, _all(_moved, _set(None, "phone", "ssn4", "middle", "email"), _id_unknown)),
}
"""Trouble: its weight among the troubled rows, and what it does."""
