"""The world profile of the households: names of many languages, and troubles no rule was tuned on.

For judging only: look at a seed once, and plan no rule by its figures.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hiexchange.testing import _hard, _names
from hiexchange.testing import _world_names as names
from hiexchange.testing._troubles import NO_DATE, Columns, Plan, _change_dates, each, shift_year, swap_day_month
from hiexchange.testing.households import Town

LOOKALIKES: dict[str, float] = {
    "twins": 0.008,
    "twins_similar": 0.006,
    "triplets_rhyming": 0.001,
    "jr_sr_suffix": 0.003,
    "jr_sr_half_suffix": 0.003,
    "jr_sr_no_suffix": 0.006,
    "jr_sr_same_day": 0.001,
    "cousin_same_name_same_home": 0.001,
    "cousin_same_name": 0.002,
    "sibling_similar_name": 0.003,
    "namesake_same_birth": 0.0002,
    "namesake_deceased": 0.0005,
}


class WorldTown(Town):
    """A town of many peoples; names go with household and sex."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng, pool=int(rng.integers(2)), hard=False)
        self.forms = {name.lower(): list(forms) for name, forms in names.PET_FORMS.items()}
        self.twins = [(pair[0], pair[1]) for pair in names.TWINS]
        self.shares = np.cumsum([people.share for people in names.PEOPLES])
        self.shares /= self.shares[-1]
        self.odds = {size: _names.zipf(size, 0.75) for size in self._sizes()}

    def _sizes(self) -> set[int]:
        return {len(pool) for people in names.PEOPLES for pool in (people.female, people.male, people.family)}

    def _draw(self, pool: tuple[str, ...], size: int) -> np.ndarray:
        return np.asarray(np.array(pool, dtype=object)[_names.draw(self.rng, self.odds[len(pool)], size)])

    def first_names(self, size: int, common: int | None = None) -> np.ndarray:
        """Draw given names of any sex and people."""
        return self._by_people(self._peoples(size), self.rng.random(size) < 0.5)

    def surnames(self, size: int) -> np.ndarray:
        """Draw family names of any people."""
        return self._families(self._peoples(size))

    def _peoples(self, size: int) -> np.ndarray:
        return _names.draw(self.rng, self.shares, size)

    def _families(self, peoples: np.ndarray) -> np.ndarray:
        result = np.empty(len(peoples), dtype=object)
        for kind, people in enumerate(names.PEOPLES):
            at = np.flatnonzero(peoples == kind)
            result[at] = self._draw(people.family, len(at))
        return result

    def _by_people(self, peoples: np.ndarray, female: np.ndarray) -> np.ndarray:
        result = np.empty(len(peoples), dtype=object)
        for kind, people in enumerate(names.PEOPLES):
            for pool, of_sex in ((people.female, True), (people.male, False)):
                at = np.flatnonzero((peoples == kind) & (female == of_sex))
                result[at] = self._draw(pool, len(at))
        return result

    def people(self, count: int) -> Columns:
        """Draw people; a hundredth lives in one of a few nursing homes and shelters."""
        people = super().people(count)
        home = people["home"]
        of_home = self._peoples(int(home[-1]) + 1)
        people["first"] = self._by_people(of_home[home], people["sex"] == "female")
        family = self._families(of_home)[home]
        people["last"] = np.where(self.rng.random(count) < 0.75, family, self._families(of_home[home]))
        both = (of_home[home] == 2) & (self.rng.random(count) < 0.4)
        second = self._draw(names.HISPANIC.family, count)
        people["last"] = np.where(both, people["last"] + " " + second, people["last"])
        self._crowd(people, np.flatnonzero(self.rng.random(count) < 0.01))
        return people

    def _crowd(self, people: Columns, at: np.ndarray) -> None:
        homes = self.homes(max(1, len(at) // 150))
        which = self.rng.integers(len(homes["line"]), size=len(at))
        for column in ("line", "zip", "city", "phone"):
            people[column][at] = homes[column][which]


def plan_world(rng: np.random.Generator, town: WorldTown, people: Columns, roster: int) -> Plan:
    """Spoil both sides as the hard profile does, with other people and other troubles."""
    plan = _hard.plan_hard(rng, town, people, roster, lookalikes=LOOKALIKES, double=_double, troubles=TROUBLES)
    family_mail = plan.pick(0.03, len(plan.persons["home"]))
    plan.persons["email"][family_mail] = [f"family{n}@mail.example" for n in plan.persons["home"][family_mail].tolist()]
    return plan


def _double(
    name: str, rng: np.random.Generator, town: Any, people: Columns, rows: Columns, at: np.ndarray, anchors: np.ndarray
) -> None:
    """Make the second person of a pair; what the hard profile does not know is made here."""
    size = len(at)
    if name == "triplets_rhyming":
        _hard._make_double("twins_similar", rng, town, people, rows, at, anchors)
    elif name == "jr_sr_same_day":
        rows["sex"][at] = people["sex"][anchors]
        _change_dates(rows, at, lambda day: shift_year(day, -int(rng.integers(18, 40))))
    elif name == "cousin_same_name_same_home":
        rows["sex"][at] = people["sex"][anchors]
        rows["born"][at] = town.birth_days(size)
    elif name == "namesake_deceased":
        _hard._make_double("namesake_same_birth", rng, town, people, rows, at, anchors)
        rows["born"][at] += rng.integers(-400, 400, size=size)
    else:
        _hard._make_double(name, rng, town, people, rows, at, anchors)


# Troubles ---------------------------------------------------------------------------------------


def _spelled(plan: Plan, text: str) -> str:
    forms = names.SPELLINGS.get(text) or names.PET_FORMS.get(text)
    return forms[int(plan.rng.integers(len(forms)))] if forms else text


def _one_surname(plan: Plan, text: str) -> str:
    parts = text.split()
    return parts[int(plan.rng.random() < 0.3)] if len(parts) > 1 else text


def _ordered_east(plan: Plan, at: np.ndarray) -> None:
    """Nguyen Thi Lan: the family name goes first, and the given name last."""
    rows = plan.members
    for row in at.tolist():
        first, last, middle = rows["first"][row], rows["last"][row], rows["middle"][row]
        if first and last:
            rows["first"][row] = f"{last} {middle}" if middle and plan.rng.random() < 0.3 else last
            rows["last"][row] = first


def _surname_as_middle(plan: Plan, at: np.ndarray) -> None:
    """Maria Lopez Garcia: the first surname is taken for a middle name."""
    rows = plan.members
    for row in at.tolist():
        parts = (rows["last"][row] or "").split()
        if len(parts) == 2:
            rows["middle"][row], rows["last"][row] = parts


def _adopted(plan: Plan, at: np.ndarray) -> None:
    here = _hard._records(plan, at)
    plan.persons["last"][here] = plan.town.surnames(len(here))
    plan.persons["middle"][here] = None


def _fostered(plan: Plan, at: np.ndarray) -> None:
    _hard._moved(plan, at)
    _hard._phone_changed(plan, at)
    plan.members["email"][at] = None


def _baby(plan: Plan, at: np.ndarray) -> None:
    sexes = plan.members["sex"][at]
    plan.members["first"][at] = np.where(sexes == "male", "BABY BOY", "Baby Girl A")
    plan.members["ssn4"][at] = None


def _shelter(plan: Plan, at: np.ndarray) -> None:
    plan.members["line"][at], plan.members["zip"][at], plan.members["city"][at] = (
        "900 Mission Street",
        "71600",
        "Harbor",
    )
    plan.members["phone"][at] = "501-555-0100"


def _shared_phone(plan: Plan, at: np.ndarray) -> None:
    plan.members["phone"][at] = np.array(
        [f"501-222-{n:04d}" for n in plan.rng.integers(40, size=len(at)).tolist()], dtype=object
    )


def _id_transposed(plan: Plan, at: np.ndarray) -> None:
    here = _hard._records(plan, at)
    each(plan.persons["id"], here, lambda text: text[:-3] + text[-2] + text[-3] + text[-1])


def _id_reused(plan: Plan, at: np.ndarray) -> None:
    """The id was another subscriber's before."""
    there = plan.rng.integers(len(plan.persons["id"]), size=len(at))
    plan.persons["id"][there] = plan.members["id"][at]


def _digits(plan: Plan, at: np.ndarray) -> None:
    each(plan.members["line"], at, lambda text: text[1] + text[0] + text[2:] if text[:2].isdigit() else text)


def _january(day: Any) -> Any:
    return day.replace(month=1, day=1)


def _other_digit(plan: Plan, day: Any) -> Any:
    return day.replace(day=min(28, max(1, day.day + int(plan.rng.choice([-1, 1, 10, -10])))))


def _capitals(text: str) -> str:
    return text.upper().replace("-", " ")


def _text(column: str, change: Any) -> Any:
    return _hard._text(column, change)


TROUBLES: dict[str, tuple[float, Any]] = {
    "first_slip": (4, _hard._typo("first")),
    "last_slip": (4, _hard._typo("last")),
    "index_first_slip": (1.5, _hard._index_typo("first")),
    "index_last_slip": (1.5, _hard._index_typo("last")),
    "other_spelling": (4, _text("first", _spelled)),
    "pet_form": (3, _text("first", _spelled)),
    "truncated_ten": (
        1,
        _hard._all(_text("first", lambda plan, text: text[:6]), _text("last", lambda plan, text: text[:7])),
    ),
    "initial_only": (0.5, _text("first", lambda plan, text: text[:1] + ".")),
    "one_of_two_surnames": (3, _text("last", _one_surname)),
    "surnames_hyphenated": (2, _text("last", lambda plan, text: text.replace(" ", "-"))),
    "surnames_run_together": (1, _text("last", lambda plan, text: text.replace(" ", ""))),
    "surnames_turned": (1, _text("last", lambda plan, text: " ".join(reversed(text.split())))),
    "surname_as_middle": (1, _surname_as_middle),
    "second_given_lost": (2, _text("first", lambda plan, text: text.split()[0])),
    "given_run_together": (1, _text("first", lambda plan, text: text.replace(" ", ""))),
    "eastern_order": (1.5, _ordered_east),
    "hyphenated_partner": (1.5, _hard._hyphenated),
    "married": (3, _hard._married),
    "adopted": (0.7, _adopted),
    "upper_no_marks": (
        2,
        _hard._all(
            _text("first", lambda plan, text: text.upper()),
            _text("last", lambda plan, text: _capitals(text)),
        ),
    ),
    "apostrophe": (0.5, _text("last", lambda plan, text: "O'" + text)),
    "suffix_in_first": (0.5, _text("first", lambda plan, text: f"{text} Jr.")),
    "title_in_last": (0.3, _text("last", lambda plan, text: f"{text} MD")),
    "baby_in_roster": (0.7, _baby),
    "newborn_in_index": (0.5, _hard._newborn),
    "unknown_first": (0.2, _hard._set("FNU", "first")),
    "birth_day_month": (1.5, _hard._day(lambda plan: swap_day_month)),
    "birth_january_first": (0.8, _hard._day(lambda plan: _january)),
    "birth_digit": (
        2,
        _hard._day(lambda plan: lambda day: _other_digit(plan, day)),
    ),
    "birth_year_off": (
        0.7,
        _hard._day(lambda plan: lambda day: shift_year(day, int(plan.rng.choice([-1, 1, -10, 10])))),
    ),
    "birth_month_off": (
        0.5,
        _hard._day(lambda plan: lambda day: day.replace(day=min(day.day, 28), month=1 + int(plan.rng.integers(12)))),
    ),
    "birth_missing": (0.5, _hard._no_birth),
    "birth_1900": (0.3, _hard._birth_1900),
    "index_birth_missing": (0.3, lambda plan, at: plan.persons["born"].__setitem__(_hard._records(plan, at), NO_DATE)),
    "sex_wrong": (0.7, _hard._sex_wrong),
    "sex_missing": (1, _hard._set(None, "sex")),
    "moved": (6, _hard._moved),
    "moved_phone_too": (3, _hard._all(_hard._moved, _hard._phone_changed)),
    "fostered": (0.5, _fostered),
    "shelter": (0.5, _shelter),
    "undomiciled": (0.3, _hard._set("Undomiciled", "line")),
    "box": (1, _text("line", lambda plan, text: f"PO BOX {int(plan.rng.integers(1, 2000))}")),
    "street_slip": (4, _hard._typo("line")),
    "street_short": (3, _text("line", _hard._short_street)),
    "house_number_turned": (1, _digits),
    "zip_plus_four": (2, _text("zip", lambda plan, text: f"{text}-{int(plan.rng.integers(1000, 9999))}")),
    "zip_other": (1, _text("zip", lambda plan, text: f"{int(plan.rng.integers(71600, 72500))}")),
    "phone_new": (5, _hard._phone_changed),
    "phone_of_office": (1, _shared_phone),
    "phone_nines": (0.5, _hard._set("999-999-9999", "phone")),
    "ssn4_wrong": (0.7, _hard._ssn_wrong),
    "ssn4_of_relative": (0.5, _hard._ssn_of_relative),
    "ssn4_zero": (0.5, _hard._set("0000", "ssn4")),
    "id_unknown": (4, _hard._id_unknown),
    "id_new": (0.7, _hard._id_changed),
    "id_transposed": (1, _id_transposed),
    "id_reused": (0.5, _id_reused),
    "id_of_spouse": (0.7, _hard._id_of_relative),
    "id_of_family": (1.5, _hard._id_of_family),
    "record_twice": (1.5, _hard._duplicate(_hard._same)),
    "record_twice_slip": (0.7, _hard._duplicate(_hard._copy_mistyped)),
    "record_twice_moved": (0.7, _hard._duplicate(_hard._copy_moved)),
    "little_known": (
        0.4,
        _hard._all(_hard._moved, _hard._set(None, "phone", "ssn4", "middle", "email"), _hard._id_unknown),
    ),
}
"""Trouble: its weight among the troubled rows, and what it does."""
