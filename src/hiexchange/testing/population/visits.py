"""A year of visits for one person, with the follow-up of each discharge planted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from random import Random
from zoneinfo import ZoneInfo

from hiexchange.testing.population.people import Person, Practice

ZONE = ZoneInfo("America/Chicago")

# ICD-10-CM is public domain in the United States.
AMBULATORY_REASONS = (
    ("I10", "Essential (primary) hypertension"),
    ("E11.9", "Type 2 diabetes mellitus without complications"),
    ("J06.9", "Acute upper respiratory infection, unspecified"),
    ("M54.50", "Low back pain, unspecified"),
    ("Z00.00", "Encounter for general adult medical examination"),
)
HOSPITAL_REASONS = (
    ("J18.9", "Pneumonia, unspecified organism"),
    ("I50.9", "Heart failure, unspecified"),
    ("N39.0", "Urinary tract infection, site not specified"),
    ("S72.001A", "Fracture of unspecified part of neck of right femur"),
    ("F32.9", "Major depressive disorder, single episode, unspecified"),
)
QUIET_BEFORE, QUIET_AFTER = timedelta(days=3), timedelta(days=16)
"""Around a planted discharge no other visit may fall: the plan alone decides the measure."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One encounter; ``number`` is unique within the person."""

    number: int
    person: Person
    kind: str
    """v3 ActCode: AMB, EMER or IMP."""
    start: datetime
    end: datetime
    place: Practice
    npi: str
    reason: tuple[str, str]
    disposition: str = ""
    """Code of http://terminology.hl7.org/CodeSystem/discharge-disposition, for hospital visits."""

    @property
    def id(self) -> str:
        """Encounter.id."""
        return f"{self.person.id}-e{self.number}"


@dataclass(frozen=True, slots=True)
class Discharge:
    """The planted truth of one inpatient stay for follow-up within 7 days."""

    visit: Visit
    denominator: bool
    """False: too late in the year, or to hospice."""
    excluded: bool
    """Readmitted or died within 7 days."""
    numerator: bool


@dataclass(frozen=True, slots=True)
class Year:
    """All visits of one person in the year, in order, and what was planted."""

    visits: list[Visit]
    discharges: list[Discharge]
    died: date | None = None


def plan_year(rng: Random, person: Person, *, clinic: Practice, hospitals: list[Practice], year: int) -> Year:
    """Return the visits of ``person``: clinic visits, emergencies, and at most one planned hospital course."""
    course = _hospital_course(rng, person, clinic=clinic, hospitals=hospitals, year=year) if rng.random() < 0.16 else []
    busy = [
        (visit.start.date() - QUIET_BEFORE, visit.end.date() + QUIET_AFTER)
        for visit, _ in course
        if visit.kind == "IMP"
    ]
    plan: list[tuple[Visit, Discharge | None]] = list(course)
    for _ in range(rng.randint(1, 7)):
        day = date(year, 1, 2) + timedelta(days=rng.randint(0, 362))
        if not any(low <= day <= high for low, high in busy) and not any(
            visit.start.date() == day for visit, _ in plan
        ):
            plan.append((_clinic_visit(rng, person, clinic, day), None))
    if rng.random() < 0.25:
        day = date(year, 1, 2) + timedelta(days=rng.randint(0, 362))
        if not any(low <= day <= high for low, high in busy):
            plan.append((_emergency(rng, person, rng.choice(hospitals), day), None))
    died = next(
        (visit.end.date() + timedelta(days=4) for visit, truth in course if visit.disposition == "planted-death"), None
    )
    plan = [(visit, truth) for visit, truth in plan if died is None or visit.start.date() <= died]
    return _numbered(plan, died)


def _numbered(plan: list[tuple[Visit, Discharge | None]], died: date | None) -> Year:
    visits: list[Visit] = []
    discharges: list[Discharge] = []
    for number, (visit, truth) in enumerate(sorted(plan, key=lambda pair: pair[0].start), 1):
        disposition = "home" if visit.disposition == "planted-death" else visit.disposition
        numbered = Visit(
            number, visit.person, visit.kind, visit.start, visit.end, visit.place, visit.npi, visit.reason, disposition
        )
        visits.append(numbered)
        if truth is not None:
            discharges.append(Discharge(numbered, truth.denominator, truth.excluded, truth.numerator))
    return Year(visits, discharges, died)


def _hospital_course(
    rng: Random, person: Person, *, clinic: Practice, hospitals: list[Practice], year: int
) -> list[tuple[Visit, Discharge | None]]:
    fate = rng.choices(
        ("followed", "followed-last-day", "late", "same-day", "none", "readmitted", "died", "hospice", "year-end"),
        weights=(38, 6, 8, 5, 20, 9, 3, 4, 7),
    )[0]
    admitted = date(year, 1, 5) + timedelta(days=rng.randint(0, 310))
    if fate == "year-end":
        admitted = date(year, 12, 26) - timedelta(days=rng.randint(0, 2))
    hospital = rng.choice(hospitals)
    disposition = {"hospice": "hosp", "died": "planted-death"}.get(fate, "home")
    stay = _stay(rng, person, hospital, admitted, disposition=disposition)
    home = stay.end.date()
    counted = fate not in ("hospice", "year-end")

    def truth(*, excluded: bool = False, numerator: bool = False) -> Discharge:
        return Discharge(stay, counted, excluded, numerator)

    if fate == "followed":
        visit = _clinic_visit(rng, person, clinic, home + timedelta(days=rng.randint(1, 6)))
        return [(stay, truth(numerator=True)), (visit, None)]
    if fate == "followed-last-day":
        return [(stay, truth(numerator=True)), (_clinic_visit(rng, person, clinic, home + timedelta(days=7)), None)]
    if fate == "late":
        return [(stay, truth()), (_clinic_visit(rng, person, clinic, home + timedelta(days=rng.randint(8, 14))), None)]
    if fate == "same-day":
        return [(stay, truth()), (_clinic_visit(rng, person, clinic, home, hour=20), None)]
    if fate == "readmitted":
        again = _stay(rng, person, hospital, home + timedelta(days=rng.randint(3, 6)), disposition="home")
        return [(stay, truth(excluded=True)), (again, Discharge(again, True, False, False))]
    if fate == "died":
        return [(stay, truth(excluded=True))]
    return [(stay, truth())]


def _stay(rng: Random, person: Person, hospital: Practice, admitted: date, *, disposition: str) -> Visit:
    start = _at(admitted, rng.randint(0, 23), rng.randint(0, 59))
    end = _at(admitted + timedelta(days=rng.randint(1, 3)), rng.randint(9, 18), rng.randint(0, 59))
    return Visit(
        0, person, "IMP", start, end, hospital, rng.choice(hospital.npis), rng.choice(HOSPITAL_REASONS), disposition
    )


def _clinic_visit(rng: Random, person: Person, clinic: Practice, day: date, hour: int | None = None) -> Visit:
    start = _at(day, rng.randint(8, 16) if hour is None else hour, rng.choice((0, 15, 30, 45)))
    return Visit(
        0,
        person,
        "AMB",
        start,
        start + timedelta(minutes=30),
        clinic,
        rng.choice(clinic.npis),
        rng.choice(AMBULATORY_REASONS),
    )


def _emergency(rng: Random, person: Person, hospital: Practice, day: date) -> Visit:
    start = _at(day, rng.randint(0, 20), rng.randint(0, 59))
    end = start + timedelta(minutes=rng.randint(60, 360))
    return Visit(
        0, person, "EMER", start, end, hospital, rng.choice(hospital.npis), rng.choice(HOSPITAL_REASONS), "home"
    )


def _at(day: date, hour: int, minute: int) -> datetime:
    return datetime.combine(day, time(hour, minute), tzinfo=ZONE)
