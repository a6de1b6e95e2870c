"""What goes wrong between a payer's roster and an index, class by class. Each class is one small function.

A *plan* is a set of people (the index records) and a set of members (their roster rows, or those of people
the index does not hold), as columns of numpy arrays. A trouble changes the rows ``at`` of either side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np

from hiexchange.testing import _names

if TYPE_CHECKING:
    from hiexchange.testing.households import Town

Columns = dict[str, np.ndarray]
NO_DATE = np.iinfo(np.int64).min
EPOCH = date(1970, 1, 1)
ACCENTS = str.maketrans("aeioun", "áéíóúñ")


@dataclass
class Plan:
    """The two sides being spoilt."""

    rng: np.random.Generator
    town: Town
    persons: Columns
    members: Columns

    def pick(self, share: float, size: int) -> np.ndarray:
        """Return the positions of a random share."""
        return np.flatnonzero(self.rng.random(size) < share)


def take(rows: Columns, at: np.ndarray) -> Columns:
    """Return copies of some rows."""
    return {name: values[at].copy() for name, values in rows.items()}


def concat(*parts: Columns) -> Columns:
    """Stack rows."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def each(values: np.ndarray, at: np.ndarray, change: Callable[[str], str | None]) -> None:
    """Apply ``change`` to the non-null texts at some positions."""
    for row in at.tolist():
        if values[row] is not None:
            values[row] = change(values[row])


def with_ids(rows: Columns, label: str) -> Columns:
    """Give each row a unique member id, its own subscriber id and a class."""
    count = len(rows["human"])
    rows["id"] = np.array([f"{label}{n:08d}" for n in range(count)], dtype=object)
    rows["subscriber"] = np.array([f"S{n}" for n in rows["home"].tolist()], dtype=object)
    rows["class"] = np.full(count, "clean", dtype=object)
    return rows


# Baseline: the published profile -------------------------------------------------------------


def plan_baseline(rng: np.random.Generator, town: Town, people: Columns, roster: int) -> Plan:
    """Spoil a roster as the reference's section 9.2 does."""
    count = len(people["human"])
    twins = np.flatnonzero((rng.random(count) < 0.015) & (np.arange(count) > 0))
    for name in ("last", "line", "zip", "city", "phone", "born", "home"):
        people[name][twins] = people[name][twins - 1]
    with_ids(people, "M")
    chosen = rng.permutation(count)[:roster]
    away = roster // 10
    members = take(people, chosen)
    members["class"] = np.where(np.isin(chosen, np.concatenate([twins, twins - 1])), "twins", members["class"])
    gone = np.arange(roster) < away
    plan = Plan(rng, town, people, members)
    _spoil_baseline(plan, np.flatnonzero(~gone))
    _absent_relatives(plan, np.flatnonzero(gone), count)
    return plan


def _absent_relatives(plan: Plan, at: np.ndarray, first_human: int) -> None:
    """Turn members into relatives of a real household whom the index does not hold."""
    rows, rng, town = plan.members, plan.rng, plan.town
    father = rows["first"][at].copy()
    rows["first"][at] = town.first_names(len(at), common=300)
    rows["born"][at] = town.birth_days(len(at))
    rows["sex"][at] = np.where(rng.random(len(at)) < 0.5, "female", "male")
    rows["ssn4"][at] = None
    rows["human"][at] = first_human + np.arange(len(at))
    rows["class"][at] = np.where(rows["first"][at] == father, "jr_sr", "absent_relative")
    rows["id"][at] = [f"X{n}" for n in range(len(at))]


def _spoil_baseline(plan: Plan, at: np.ndarray) -> None:
    rows, rng, town = plan.members, plan.rng, plan.town

    def some(share: float) -> np.ndarray:
        return at[rng.random(len(at)) < share]

    odds = rng.random(len(at))
    each(rows["first"], at[odds < 0.06], lambda text: _names.mistyped(rng, text))
    each(rows["first"], at[(odds >= 0.06) & (odds < 0.11)], lambda text: text[:3])
    odds = rng.random(len(at))
    each(rows["last"], at[odds < 0.05], lambda text: _names.mistyped(rng, text))
    married = at[(odds >= 0.05) & (odds < 0.08)]
    rows["last"][married] = town.surnames(len(married))
    odds = rng.random(len(at))
    _change_dates(rows, at[odds < 0.01], swap_day_month)
    _change_dates(rows, at[(odds >= 0.01) & (odds < 0.02)], lambda day: day.replace(day=1))
    _change_dates(rows, at[(odds >= 0.02) & (odds < 0.03)], lambda day: shift_year(day, int(rng.choice([-1, 1, 10]))))
    _move(plan, some(0.15))
    each(rows["line"], some(0.10), lambda text: _names.mistyped(rng, text))
    changed = some(0.25)
    rows["phone"][changed] = town.phones(len(changed))
    swapped = some(0.005)
    rows["first"][swapped], rows["last"][swapped] = rows["last"][swapped].copy(), rows["first"][swapped].copy()
    for name, share in (("ssn4", 0.6), ("phone", 0.2), ("line", 0.03), ("sex", 0.01)):
        rows[name][some(share)] = None
    _forget_ids(plan, some(0.3))


def _forget_ids(plan: Plan, at: np.ndarray) -> None:
    """The index does not know these members' ids (the roster always has one)."""
    plan.members["id"][at] = [f"N{human}" for human in plan.members["human"][at].tolist()]
    plan.persons["id"][plan.members["human"][at]] = None


def _move(plan: Plan, at: np.ndarray) -> None:
    for name, values in plan.town.homes(len(at)).items():
        if name != "phone":
            plan.members[name][at] = values


def _change_dates(rows: Columns, at: np.ndarray, change: Callable[[date], date]) -> None:
    for row in at.tolist():
        rows["born"][row] = (change(EPOCH + timedelta(days=int(rows["born"][row]))) - EPOCH).days


def swap_day_month(day: date) -> date:
    """Return the date with day and month exchanged, or the first of its month where that is no date."""
    return day.replace(month=day.day, day=day.month) if day.day <= 12 else day.replace(day=1)


def shift_year(day: date, years: int) -> date:
    """Return the date some years off; 29 February becomes the 28th."""
    return day.replace(year=day.year + years, day=min(day.day, 28) if day.month == 2 else day.day)
