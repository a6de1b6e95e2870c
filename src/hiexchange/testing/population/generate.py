"""Write the population: FHIR NDJSON, rosters, layouts, subscriptions and the truth, block by block."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from random import Random
from typing import IO, Any

import msgspec

from hiexchange.testing.population import resources
from hiexchange.testing.population.answers import facts, plan_answers
from hiexchange.testing.population.people import Person, Practice, household, namesakes, practices
from hiexchange.testing.population.rosters import (
    CHECK_DAYS,
    HEADERS,
    PAYERS,
    TERMS,
    Membership,
    absentee,
    broken_rows,
    memberships,
    row,
)
from hiexchange.testing.population.settings import write_layouts
from hiexchange.testing.population.truth import Truth, notices
from hiexchange.testing.population.visits import plan_year

BLOCK = 500
STRIDE = 2 * BLOCK
SUBSCRIBING = 5
"""How many practices subscribe; the others show what happens to events nobody subscribed to."""


@dataclass(frozen=True, slots=True)
class Population:
    """What was written, and where."""

    folder: Path
    seed: int
    patients: int
    year: int
    counts: dict[str, int]
    """Resources by type."""
    roster_rows: int
    tins: tuple[str, ...]
    """Tax ids of the subscribing practices, in order."""

    @property
    def fhir(self) -> Path:
        """Folder of NDJSON files, one a type."""
        return self.folder / "fhir"

    @property
    def truth(self) -> Truth:
        """What was planted."""
        return Truth(self.folder / "truth")

    def rosters(self) -> list[tuple[str, date, Path]]:
        """Return payer, as-of date and path of each roster file, oldest first."""
        return [
            (
                payer,
                date(self.year, month, day),
                self.folder / "rosters" / roster_name(payer, date(self.year, month, day)),
            )
            for month, day in TERMS
            for payer in PAYERS
        ]


def roster_name(payer: str, as_of: date) -> str:
    """Return the file name of a roster."""
    return f"{payer}-{as_of:%Y-%m-%d}.{'csv' if payer == 'payer-a' else 'txt'}"


def generate(folder: str | Path, *, patients: int = 500, seed: int = 7, year: int = 2025) -> Population:
    """Write a synthetic population and its truth.

    Args:
        folder: Made anew: ``fhir/`` (one NDJSON file a type), ``rosters/``, ``layouts/``, ``truth/``.
        patients: How many Patient resources; memory does not grow with it.
        seed: Same seed, same bytes.
        year: Calendar year of the visits, rosters and measure.

    Returns:
        Population: Paths and counts.
    """
    target = Path(folder)
    for name in ("fhir", "rosters", "truth"):
        shutil.rmtree(target / name, ignore_errors=True)
        (target / name).mkdir(parents=True)
    with _Writer(target, year) as writer:
        clinics, hospitals = practices(patients)
        for place in (*clinics, *hospitals):
            writer.resource(resources.organization(place))
            for clinician in resources.practitioners(place):
                writer.resource(clinician)
        for block in range(math.ceil(patients / BLOCK)):
            size = min(BLOCK, patients - block * BLOCK)
            _write_block(
                writer, Random(f"{seed}/{block}"), block, size, clinics=clinics, hospitals=hospitals, year=year
            )
        for payer in PAYERS:
            writer.broken(payer, clinics[0])
        writer.groups()
        tins = tuple(clinic.tin for clinic in clinics[:SUBSCRIBING])
        counts, roster_rows = dict(sorted(writer.counts.items())), writer.roster_rows
    write_layouts(target / "layouts")
    return Population(target, seed, patients, year, counts, roster_rows, tins)


def _write_block(
    writer: _Writer,
    rng: Random,
    block: int,
    size: int,
    *,
    clinics: list[Practice],
    hospitals: list[Practice],
    year: int,
) -> None:
    # Two streams: how many practices there are must not change who the people are.
    for person in _people(Random(f"{rng.random()}"), block * STRIDE + 1, size, year):
        members = memberships(rng, person, clinics, year=year)
        if not person.indexed:
            for member in members:
                writer.member(member)
            continue
        extras = {member.payer: member.member_id for member in members if member.id_known}
        known = replace(person, extras=extras)
        clinic = members[0].spans[0].practice if members else rng.choice(clinics)
        plan = plan_year(rng, known, clinic=clinic, hospitals=hospitals, year=year)
        members = [member.known_to_have_died(plan.died) for member in members]
        for member in members:
            writer.member(member)
        payers = {member.payer: member.member_id for member in members}
        answers = plan_answers(known, plan, year=year)
        for resource in resources.of_person(rng, known, plan, answers=answers, payers=payers, calendar=year):
            writer.resource(resource)
        for measure, numerator in facts(known, plan.visits, answers, year=year):
            writer.truth(measure, subject=known.id, numerator=numerator)
        for discharge in plan.discharges:
            writer.truth(
                "discharges",
                encounter=discharge.visit.id,
                denominator=discharge.denominator,
                excluded=discharge.excluded,
                numerator=discharge.numerator,
            )
        for notice in notices(plan.visits, members, subscribing=SUBSCRIBING):
            writer.truth("notices", **notice)


def _people(rng: Random, first: int, size: int, year: int) -> Iterable[Person]:
    """Yield exactly ``size`` indexed people, and beside them some whom the index does not know."""
    indexed = 0
    number = first
    while indexed < size:
        family = household(rng, number, year)
        number += len(family)
        for person in family:
            if person.kind == "junior" and rng.random() < 0.4:
                yield replace(person, indexed=False)
            elif indexed < size:
                indexed += 1
                yield person
        if rng.random() < 0.08:
            yield absentee(rng, family[0], number, year)
            number += 1
        if rng.random() < 0.05 and indexed + 2 <= size:
            yield from namesakes(rng, number, year)
            number += 2
            indexed += 2


class _Writer:
    """The open files of one population."""

    def __init__(self, folder: Path, year: int) -> None:
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.roster_rows = 0
        self._terms = [date(year, month, day) for month, day in TERMS]
        self._check_days = [date(year, month, day) for month, day in CHECK_DAYS]
        self._files: dict[str, IO[bytes]] = {}
        self._stack = ExitStack()
        self._encode = msgspec.json.Encoder().encode

    def __enter__(self) -> _Writer:
        for payer in PAYERS:
            for term in self._terms:
                self._line(f"rosters/{roster_name(payer, term)}", HEADERS[payer].encode())
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def resource(self, resource: dict[str, Any]) -> None:
        kind = resource["resourceType"]
        self.counts[kind] += 1
        self._line(f"fhir/{kind}.ndjson", self._encode(resource))

    def truth(self, name: str, **values: Any) -> None:
        self._line(f"truth/{name}.ndjson", self._encode(values))

    def member(self, member: Membership) -> None:
        self.truth(
            "members",
            payer=member.payer,
            member_id=member.member_id,
            trouble=member.trouble,
            person=member.person.id if member.person.indexed else None,
            expect=member.expect,
        )
        if member.person.indexed:
            self._line(f"truth/{member.payer}.ids", member.person.id.encode())
        for day in self._check_days:
            span = member.at(day)
            if span:
                self.truth("attribution", on=day, payer=member.payer, member_id=member.member_id, npi=span.npi)
        for term in self._terms:
            span = member.at(term)
            if span:
                self._line(f"rosters/{roster_name(member.payer, term)}", row(member, span).encode())
                self.roster_rows += 1

    def broken(self, payer: str, clinic: Practice) -> None:
        for term in self._terms:
            for line in broken_rows(payer, clinic):
                self._line(f"rosters/{roster_name(payer, term)}", line.encode())
                self.roster_rows += 1

    def groups(self) -> None:
        """Write each payer's Group as one line without holding its members in memory."""
        for payer in PAYERS:
            file = self._files.pop(f"truth/{payer}.ids", None)
            path = self.folder / f"truth/{payer}.ids"
            if file is None:
                continue
            file.close()
            ids = path.read_bytes().count(b"\n")
            head, tail = self._encode(resources.group(payer, ["0"])).split(b"Patient/0")
            head = head.replace(b'"quantity":1', b'"quantity":%d' % ids)
            out = self._open("fhir/Group.ndjson")
            out.write(head)
            with path.open("rb") as source:
                for index, line in enumerate(source):
                    out.write((b'"}},{"entity":{"reference":"' if index else b"") + b"Patient/" + line.strip())
            out.write(tail + b"\n")
            path.unlink()
            self.counts["Group"] += 1

    def _line(self, name: str, data: bytes) -> None:
        self._open(name).write(data + b"\n")

    def _open(self, name: str) -> IO[bytes]:
        if name not in self._files:
            self._files[name] = self._stack.enter_context((self.folder / name).open("wb", buffering=1 << 16))
        return self._files[name]
