"""US households with planted truth, to measure matching: an index of people and a payer's roster.

Two profiles. ``baseline`` is the published one (reference, section 9.2): typos, moves, marriages, missing
ids, twins, and absent relatives whose first name may be their father's. ``hard`` plants some fifty
classes of trouble by name: similar-named twins and fathers and sons with one of the two absent, namesakes
born the same day, ids that are wrong or a whole family's, newborns, placeholders, duplicate records.

Seeds below 1000 and from 1000 draw their names from disjoint pools: tune on the ones, report on the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange import tables
from hiexchange._files import sha256_text
from hiexchange.testing import _hard, _names, _troubles

Columns = dict[str, np.ndarray]

PAYER = "payer-a"
SYSTEM = "urn:example:payer-a:member"
ABSENT = "absent"
SIZES = np.array([1, 2, 3, 4, 5, 6])
SIZE_SHARES = np.array([0.28, 0.29, 0.19, 0.14, 0.07, 0.03])
TEXT_COLUMNS = "first middle last suffix born sex ssn4 line city state zip phone email".split()


@dataclass(frozen=True)
class Households:
    """A roster, an index and who is who."""

    members: pa.Table
    """MEMBER rows, one a member."""
    persons: pa.Table
    """PERSON rows; several may be one human being."""
    truth: pa.Table
    """One row a member: member_key, human (int64), class (what was planted), present (in the index)."""
    humans: pa.Table
    """One row a person record: person_id, human."""


@dataclass(frozen=True)
class Score:
    """How links compare with the truth."""

    links: int
    """Members linked unseen (band auto)."""
    right: int
    """Links to a record of the right human being."""
    present: int
    """Members who are in the index."""
    wrong_by_class: dict[str, int] = field(default_factory=dict)
    """Wrong links by planted class, classes with none left out."""
    recall_by_class: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Right links and present members by planted class."""

    @property
    def precision(self) -> float:
        """Right links of all links."""
        return self.right / self.links if self.links else 1.0

    @property
    def recall(self) -> float:
        """Right links of all members present in the index."""
        return self.right / self.present if self.present else 1.0

    @property
    def wrong(self) -> int:
        """Links to another human being, or of a member who is not in the index."""
        return self.links - self.right


def score(links: pa.Table, world: Households) -> Score:
    """Compare PERSON_LINK rows (band auto) with the planted truth."""
    auto = links.filter(pc.equal(links["band"], "auto")).select(["member_key", "person_id"])
    joined = world.truth.join(auto, "member_key").join(
        world.humans.rename_columns(["person_id", "is_human"]), "person_id"
    )
    linked = joined["person_id"].is_valid().to_numpy()
    present = joined["present"].to_numpy()
    right = linked & present & (joined["human"].to_numpy() == pc.fill_null(joined["is_human"], -1).to_numpy())
    classes = np.array(joined["class"].to_pylist(), dtype=object)
    wrong: dict[str, int] = {}
    recall: dict[str, tuple[int, int]] = {}
    for name in sorted(set(classes)):
        here = classes == name
        if bad := int((here & linked & ~right).sum()):
            wrong[name] = bad
        recall[name] = (int((here & right).sum()), int((here & present).sum()))
    return Score(int(linked.sum()), int(right.sum()), int(present.sum()), wrong, recall)


def households(roster: int, index: int, *, seed: int, profile: str = "baseline") -> Households:
    """Generate a roster of ``roster`` members against an index of about ``index`` people.

    Args:
        roster: Members, a tenth of them absent from the index.
        index: Human beings in the index; at least 1.2 times ``roster``.
        seed: Same seed, same bytes. Seeds from 1000 use other names than those below.
        profile: ``baseline`` or ``hard``.

    Returns:
        Tables in the corridor's schemas and the truth. 1M x 2M takes under a minute and about 3 GB.
    """
    rng = np.random.default_rng(seed)
    if profile == "world":
        from hiexchange.testing._world import WorldTown, plan_world  # builds on Town

        world = WorldTown(rng)
        return _tables(plan_world(rng, world, world.people(index), roster))
    town = Town(rng, pool=int(seed >= 1000), hard=profile == "hard")
    people = town.people(index)
    plan = (
        _hard.plan_hard(rng, town, people, roster)
        if profile == "hard"
        else _troubles.plan_baseline(rng, town, people, roster)
    )
    return _tables(plan)


class Town:
    """Pools of names and streets, and the people who live there."""

    def __init__(self, rng: np.random.Generator, *, pool: int, hard: bool) -> None:
        self.rng = rng
        self.pool = pool
        self.forms = _names.given_with_forms(pool)
        self.twins = _names.similar_twins(pool)
        names = _names.invented(rng, 2000, pool=pool, syllables=2)
        if hard:
            real = sorted(self.forms)
            names = [name for pair in zip(real, names, strict=False) for name in pair] + names[len(real) :]
            names[60:60] = [name for pair in self.twins for name in pair]
            names = list(dict.fromkeys(names))
        self.firsts = np.array([name.title() for name in names], dtype=object)
        self.lasts = np.array(
            [name.title() for name in _names.invented(rng, 30_000, pool=pool, syllables=2)], dtype=object
        )
        streets = _names.invented(rng, 1500, pool=pool, syllables=2)
        kinds = ("Street", "Avenue", "Road", "Drive")
        self.streets = np.array([f"{name.title()} {kind}" for name in streets for kind in kinds], dtype=object)
        self.cities = np.array(
            [name.title() for name in _names.invented(rng, 900, pool=pool, syllables=2)], dtype=object
        )
        self.zips = np.array([f"{71600 + n:05d}" for n in range(900)], dtype=object)
        self.first_odds = _names.zipf(len(self.firsts), 0.9)
        self.last_odds = _names.zipf(len(self.lasts), 0.85)
        self.zip_odds = _names.zipf(900, 0.6)
        self.numbers = np.array([f"{n:04d}" for n in range(10_000)], dtype=object)

    def first_names(self, size: int, common: int | None = None) -> np.ndarray:
        """Draw given names; with ``common``, only among the commonest."""
        return np.asarray(
            self.firsts[
                _names.draw(self.rng, self.first_odds, size) if common is None else self.rng.integers(common, size=size)
            ]
        )

    def surnames(self, size: int) -> np.ndarray:
        """Draw family names."""
        return np.asarray(self.lasts[_names.draw(self.rng, self.last_odds, size)])

    def birth_days(self, size: int) -> np.ndarray:
        """Draw birth dates, days since 1970, over 95 years from 1930."""
        start = (date(1930, 1, 1) - date(1970, 1, 1)).days
        return np.asarray(self.rng.integers(start, start + 95 * 365 + 23, size=size))

    def homes(self, size: int) -> Columns:
        """Draw addresses with their phone."""
        area = _names.draw(self.rng, self.zip_odds, size)
        street = self.streets[self.rng.integers(len(self.streets), size=size)]
        number = self.rng.integers(1, 9999, size=size)
        line = np.array([f"{n} {s}" for n, s in zip(number.tolist(), street, strict=True)], dtype=object)
        return {"line": line, "zip": self.zips[area], "city": self.cities[area], "phone": self.phones(size)}

    def phones(self, size: int) -> np.ndarray:
        """Draw telephone numbers."""
        draws = self.rng.integers(2_000_000, 9_999_999, size=size).tolist()
        areas = self.rng.integers(201, 989, size=size).tolist()
        return np.array(
            [f"{a}-{n // 10_000}-{n % 10_000:04d}" for a, n in zip(areas, draws, strict=True)], dtype=object
        )

    def ssn4(self, size: int) -> np.ndarray:
        """Draw the last four digits of social security numbers."""
        return np.asarray(self.numbers[self.rng.integers(1, 9999, size=size)])

    def people(self, count: int) -> Columns:
        """Draw ``count`` people in households of 2.5 on average; 75 % bear the household's surname."""
        rng = self.rng
        sizes = rng.choice(SIZES, p=SIZE_SHARES, size=count)
        home = np.repeat(np.arange(count), sizes)[:count]
        homes = self.homes(int(home[-1]) + 1)
        surname = self.surnames(int(home[-1]) + 1)
        own = rng.random(count) >= 0.75
        last = np.where(own, self.surnames(count), surname[home])
        people: Columns = {name: values[home] for name, values in homes.items()}
        sex = np.where(rng.random(count) < 0.5, "female", "male").astype(object)
        blank = np.full(count, None, dtype=object)
        people |= {
            "human": np.arange(count),
            "home": home,
            "first": self.first_names(count),
            "middle": blank.copy(),
            "last": last,
            "suffix": blank.copy(),
            "born": self.birth_days(count),
            "sex": sex,
            "ssn4": self.ssn4(count),
            "state": np.full(count, "AR", dtype=object),
            "email": blank.copy(),
        }
        return people


def _tables(plan: _troubles.Plan) -> Households:
    members, persons = _shuffled(plan, plan.members), _shuffled(plan, plan.persons)
    count = len(members["human"])
    keys = [sha256_text(PAYER, SYSTEM, text) for text in members["id"].tolist()]
    fixed: dict[str, Any] = {
        "roster_id": "households", "row_sha": "-", "payer_id": PAYER, "member_id_system": SYSTEM, "attribution_level": "clinician",
        "basis": "payer_assigned", "valid_from": date(2026, 1, 1), "valid_to": tables.OPEN_DATE, "synthetic": True,
    }  # fmt: skip
    types = tables.MEMBER.schema
    cells: dict[str, Any] = {
        name: pa.repeat(pa.scalar(value, types.field(name).type), count) for name, value in fixed.items()
    }
    cells |= _person_columns(members) | {
        "birth_on": _dates(members["born"]),
        "member_key": keys,
        "member_id": members["id"],
    }
    cells |= {"row_no": np.arange(1, count + 1), "subscriber_id": members["subscriber"]}
    person_ids = pa.array([f"-{n}" for n in range(1, len(persons["human"]) + 1)])
    known = [None if text is None else [f"{SYSTEM}|{text}"] for text in persons["id"].tolist()]
    index = _person_columns(persons) | {
        "person_id": person_ids,
        "member_ids": known,
        "birth_date": _dates(persons["born"]).cast(pa.string()),
    }
    present = np.isin(members["human"], persons["human"])
    truth = {
        "member_key": keys,
        "human": members["human"],
        "class": pa.array(members["class"], pa.string()),
        "present": present,
    }
    humans = pa.table({"person_id": person_ids, "human": persons["human"]})
    return Households(
        _filled(cells, tables.MEMBER, count), _filled(index, tables.PERSON, len(person_ids)), pa.table(truth), humans
    )


def _shuffled(plan: _troubles.Plan, rows: Columns) -> Columns:
    order = plan.rng.permutation(len(rows["human"]))
    return {name: values[order] for name, values in rows.items()}


def _filled(cells: dict[str, Any], kind: tables.Table, count: int) -> pa.Table:
    """Return a corridor table of the columns given; the others are null."""
    arrays = []
    for column in kind.columns:
        values = cells.get(column.name)
        if values is None:
            values = pa.nulls(count, column.type)
        arrays.append(values if isinstance(values, pa.Array) else pa.array(values, column.type))
    return pa.table(arrays, schema=kind.schema)


def _person_columns(rows: Columns) -> dict[str, Any]:
    names = {"first": "first_name", "middle": "middle_name", "last": "last_name", "line": "address_line"}
    return {names.get(name, name): rows[name] for name in TEXT_COLUMNS if name != "born"}


def _dates(days: np.ndarray) -> pa.Array:
    missing = days == _troubles.NO_DATE
    return pa.array(np.where(missing, 0, days).astype(np.int32), mask=missing).cast(pa.date32())
