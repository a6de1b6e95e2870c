"""What people were asked and what is known of them: screenings for social needs, and holes in demographics.

Both are planted for the measures ``social-need-screening`` and ``data-completeness``, out of a random stream of
their own, so that they change no person, visit or roster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from random import Random

from hiexchange.testing.population.people import Person
from hiexchange.testing.population.visits import ZONE, Visit, Year

ADULT = 18
SEEN = ("AMB", "VR", "HH")
"""Visit classes that make somebody eligible for a screening."""
PANEL, HOUSING, MOOD = ("93025-5", "PRAPARE"), ("71802-3", "Housing status"), ("44249-1", "PHQ-9")
"""LOINC codes; the last is a screening, and none for social needs."""


@dataclass(frozen=True, slots=True)
class Screening:
    """One Observation about social needs, or one that looks like it."""

    at: datetime
    code: tuple[str, str]
    """LOINC code and display."""
    category: str = "survey"
    status: str = "final"
    spanning: bool = False
    """Dated by ``effectivePeriod`` instead of ``effectiveDateTime``."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What is planted of one person."""

    screening: Screening | None
    screened: bool
    """Whether that screening counts in the year."""
    missing: tuple[str, ...]
    """Of race, ethnicity, language: what the patient's record lacks."""


def plan_answers(person: Person, plan: Year, *, year: int) -> Answers:
    """Return the screening and the demographics of one person; a year of visits is given, and not changed."""
    rng = Random(f"{person.id}/{person.last}/{person.born}/{year}")
    missing = tuple(name for name in ("race", "ethnicity", "language") if rng.random() < 0.06)
    fate = rng.choices(
        (
            "none",
            "panel",
            "category",
            "amended",
            "spanning",
            "last-evening",
            "draft",
            "mistaken",
            "year-before",
            "other",
        ),
        weights=(40, 20, 8, 5, 5, 4, 5, 4, 5, 4),
    )[0]
    # The last evenings are later days in UTC: only the zone's own day decides.
    evening = time(20, 0)
    if fate == "year-before":
        return Answers(Screening(datetime.combine(date(year - 1, 12, 31), evening, ZONE), PANEL), False, missing)
    if fate == "none" or not plan.visits:
        return Answers(None, False, missing)
    if fate == "last-evening" and plan.died is None:
        return Answers(Screening(datetime.combine(date(year, 12, 31), evening, ZONE), PANEL), True, missing)
    at = rng.choice(plan.visits).start + timedelta(minutes=10)
    planted = {
        "category": (Screening(at, ("69730-0", "Instructions"), category="sdoh"), True),
        "amended": (Screening(at, HOUSING, status="amended"), True),
        "spanning": (Screening(at, HOUSING, spanning=True), True),
        "draft": (Screening(at, PANEL, status="preliminary"), False),
        "mistaken": (Screening(at, PANEL, status="entered-in-error"), False),
        "other": (Screening(at, MOOD), False),
    }
    screening, counts = planted.get(fate, (Screening(at, PANEL), True))
    return Answers(screening, counts and at.year == year, missing)


def facts(person: Person, visits: list[Visit], answers: Answers, *, year: int) -> Iterator[tuple[str, bool]]:
    """Yield (measure, numerator) of each measure a person is in the denominator of."""
    inside = [visit for visit in visits if visit.start.year == year]
    age = year - person.born.year - ((person.born.month, person.born.day) > (1, 1))
    if age >= ADULT and any(visit.kind in SEEN for visit in inside):
        yield "social-need-screening", answers.screened
    if inside:
        yield "data-completeness", not answers.missing
