"""Payers' rosters three times a year, with the trouble real ones have, and what each row truly means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from random import Random

from hiexchange.testing.population.people import CITIES, NICKNAMES, STREETS, Person, Practice

PAYERS = ("payer-a", "payer-b")
TERMS = ((1, 1), (5, 1), (9, 1))
"""Month and day of each roster's as-of date."""
CHECK_DAYS = ((3, 15), (7, 15), (11, 15))
"""Month and day on which attribution is compared with the truth."""


@dataclass(frozen=True, slots=True)
class Span:
    """One attribution as the payer means it, half-open."""

    practice: Practice
    npi: str
    valid_from: date
    valid_to: date | None


@dataclass(frozen=True, slots=True)
class Membership:
    """One person on one payer's rosters."""

    payer: str
    member_id: str
    person: Person
    """The true person."""
    shown: Person
    """The person as the payer's file spells it."""
    trouble: str
    """Class of trouble planted in the row."""
    expect: str
    """``link``: must be linked to the person; ``may``: that person or review; ``never``: no automatic link."""
    id_known: bool
    """The patient index holds the payer's member id."""
    opted_out: bool
    spans: tuple[Span, ...]

    def at(self, day: date) -> Span | None:
        """Return the attribution that holds on ``day``."""
        return next(
            (span for span in self.spans if span.valid_from <= day and (span.valid_to is None or day < span.valid_to)),
            None,
        )

    def known_to_have_died(self, died: date | None) -> Membership:
        """Return the membership as it must be judged: one that begins after the person's death is doubtful."""
        late = died is not None and any(span.valid_from > died for span in self.spans)
        return (
            replace(self, trouble=f"{self.trouble}-after-death", expect="may")
            if late and self.expect == "link"
            else self
        )


def memberships(rng: Random, person: Person, clinics: list[Practice], *, year: int) -> list[Membership]:
    """Return the payers of one person: none, one or both, each with its own spelling of the person."""
    which = rng.choices(((), PAYERS[:1], PAYERS[1:], PAYERS), weights=(12, 46, 34, 8))[0]
    if person.kind in ("namesake", "junior") or not person.indexed:
        which = which or PAYERS[:1]
    if person.kind == "namesake-elsewhere":
        which = ()  # on no roster: nothing a payer says can tell the two apart
    clinic = rng.choice(clinics)
    result = []
    for payer in which:
        shown, trouble, expect, id_known = _spelling(rng, person)
        spans = _spans(rng, clinic if rng.random() < 0.7 else rng.choice(clinics), clinics, year)
        member_id = f"{'A' if payer == 'payer-a' else 'B'}{person.number * 37 + 100_000_000:09d}"
        opted_out = len(which) == 1 and expect == "link" and rng.random() < 0.02
        result.append(Membership(payer, member_id, person, shown, trouble, expect, id_known, opted_out, spans))
    return result


def _spelling(rng: Random, person: Person) -> tuple[Person, str, str, bool]:
    if not person.indexed:
        return person, "junior-absent" if person.kind == "junior" else "absent", "never", False
    if person.kind == "namesake":
        if rng.random() < 0.5:
            return replace(person, line="", city="", zip="", phone=""), "namesake-bare", "never", False
        return person, "namesake-id", "link", True
    trouble = rng.choices(("clean", "nickname", "married", "no-id", "moved", "typo"), weights=(58, 7, 4, 19, 8, 4))[0]
    if person.kind != "plain" and trouble in ("nickname", "married", "typo", "moved"):
        trouble = "no-id"
    label = trouble if person.kind == "plain" else f"{person.kind}-{trouble}"
    if trouble == "nickname":
        return replace(person, first=NICKNAMES.get(person.first, person.first[:4])), label, "link", True
    if trouble == "married":
        return replace(person, last=rng.choice(STREETS) + "well"), label, "link", True
    if trouble == "moved":
        city, zip_code = rng.choice(CITIES)
        return (
            replace(person, line=f"{rng.randint(100, 9899)} Harbor Way", city=city, zip=zip_code),
            label,
            "link",
            False,
        )
    if trouble == "typo":
        place = rng.randrange(1, len(person.first))
        return replace(person, first=person.first[:place] + "x" + person.first[place + 1 :]), label, "may", False
    return person, label, "link", trouble == "clean"


def _spans(rng: Random, first: Practice, clinics: list[Practice], year: int) -> tuple[Span, ...]:
    may, september = (date(year, month, day) for month, day in TERMS[1:])
    npi = rng.choice(first.npis)
    since = date(year - 1, rng.randint(1, 12), 1)
    fate = rng.choices(("stay", "switch", "leave", "join", "clinician"), weights=(74, 8, 5, 8, 5))[0]
    if fate == "switch":
        second = rng.choice([clinic for clinic in clinics if clinic is not first])
        return (Span(first, npi, since, may), Span(second, rng.choice(second.npis), may, None))
    if fate == "leave":
        return (Span(first, npi, since, september),)
    if fate == "join":
        return (Span(first, npi, may, None),)
    if fate == "clinician":
        other = rng.choice([number for number in first.npis if number != npi])
        return (Span(first, npi, since, september), Span(first, other, september, None))
    return (Span(first, npi, since, None),)


def absentee(rng: Random, relative: Person, number: int, year: int) -> Person:
    """Return somebody of the same household whom the patient index does not know."""
    born = date(year - rng.randint(20, 80), 1, 1) + timedelta(days=rng.randint(0, 364))
    return replace(
        relative, number=number, first=f"{relative.first[:2]}dora", born=born, suffix="", kind="plain", indexed=False
    )


HEADERS = {
    "payer-a": (
        "MEMBER_ID,FIRST_NAME,LAST_NAME,SUFFIX,DOB,SEX,ADDRESS,CITY,STATE,ZIP,PHONE,PCP_NPI,PRACTICE_TIN,EFF_DATE,TERM_DATE,SHARE"
    ),
    "payer-b": "subscriber|given|family|birth|gender|street|town|postal|tel|npi|group_tin|from|to|consent",
}


def row(member: Membership, span: Span) -> str:
    """Return the line of the payer's file for one attribution."""
    person = member.shown
    phone = f"({person.phone[:3]}) {person.phone[3:6]}-{person.phone[6:]}" if person.phone else ""
    tail = (person.line, person.city)
    share = "N" if member.opted_out else "Y"
    if member.payer == "payer-a":
        return ",".join(
            (
                *(member.member_id, person.first.upper(), person.last.upper(), person.suffix, person.born.isoformat()),
                *(person.sex[0].upper(), *tail, "AR" if person.city else "", person.zip, phone),
                *(span.npi, span.practice.tin, span.valid_from.isoformat(), "", share),
            )
        )
    sex = "2" if person.sex == "female" else "1"
    return "|".join(
        (
            *(
                member.member_id,
                person.first,
                person.last,
                f"{person.born:%m/%d/%Y}",
                sex,
                *tail,
                person.zip,
                person.phone,
            ),
            *(span.npi, span.practice.tin, f"{span.valid_from:%m/%d/%Y}", "12/31/9999", share),
        )
    )


def broken_rows(payer: str, clinic: Practice) -> list[str]:
    """Return three lines that must be refused: a wrong NPI check digit, 30 February, a missing member id."""
    wrong = clinic.npis[0][:-1] + str((int(clinic.npis[0][-1]) + 1) % 10)
    if payer == "payer-a":
        return [
            f"A900000001,ROW,BROKEN,,1960-01-01,F,1 Elm Road,Conway,AR,72032,,{wrong},{clinic.tin},2024-01-01,,Y",
            f"A900000002,ROW,BROKEN,,1960-02-30,F,1 Elm Road,Conway,AR,72032,,{clinic.npis[0]},{clinic.tin},2024-01-01,,Y",
            f",ROW,BROKEN,,1960-01-01,F,1 Elm Road,Conway,AR,72032,,{clinic.npis[0]},{clinic.tin},2024-01-01,,Y",
        ]
    return [
        f"B900000001|Row|Broken|01/01/1960|2|1 Elm Road|Conway|72032||{wrong}|{clinic.tin}|01/01/2024|12/31/9999|Y",
        f"B900000002|Row|Broken|02/30/1960|2|1 Elm Road|Conway|72032||{clinic.npis[0]}|{clinic.tin}|01/01/2024|12/31/9999|Y",
        f"|Row|Broken|01/01/1960|2|1 Elm Road|Conway|72032||{clinic.npis[0]}|{clinic.tin}|01/01/2024|12/31/9999|Y",
    ]
