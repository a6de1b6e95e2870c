"""A population that exercises five official measures, with the truth planted: codes come from the measures' own value sets.

The project ships no value set, and the synthetic population of ``hiexchange.testing`` knows no code of one: its
patients are in no initial population. Here each patient gets some thirty resources, most of them noise, and those
the measures look for by chance: a visit inside the period or outside it, finished or cancelled; a diagnosis that
starts in time or too late, or is refuted; a test that counts, one too old, one without a value. What each measure must
find is worked out beside it, from the rules and not from ELM.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec

from hiexchange.measures import Measure

PERIOD = (date(2026, 1, 1), date(2026, 12, 31))
MEASURES = {
    "CMS165": "CMS165FHIRControllingHighBloodPressure",
    "CMS122": "CMS122FHIRDiabetesAssessGreaterThan9Percent",
    "CMS125": "CMS125FHIRBreastCancerScreening",
    "CMS130": "CMS130FHIRColorectalCancerScreening",
    "CMS349": "CMS349FHIRHIVScreening",
}
COLUMNS = ("initial_population", "denominator_exclusion", "denominator_exception", "numerator")
NOISE = 22
"""Resources of each patient that no measure asks for."""
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"

Codes = Mapping[str, list[tuple[str | None, str | None]]]
Resource = dict[str, Any]


def value_sets(measures: list[Measure]) -> dict[str, list[tuple[str | None, str | None]]]:
    """Return the codes of every value set of the measures, by the name their libraries give it.

    Codes that other sets hold too are left out where that leaves any: a kidney disease of diabetes that is planted
    as diabetes would be an exclusion nobody planted.
    """
    found: dict[str, frozenset[Any]] = {}
    for measure in measures:
        for library in measure.libraries:
            for name, item in library.value_sets.items():
                codes = measure.content.value_sets.get(item["id"].partition("|")[0])
                if codes is not None and codes.pairs:
                    found[name] = codes.pairs
    held = Counter(pair for pairs in set(found.values()) for pair in pairs)
    own = {name: [pair for pair in pairs if held[pair] == 1] for name, pairs in found.items()}
    return {name: sorted(own[name] or pairs, key=str) for name, pairs in found.items()}


def concept(pair: tuple[str | None, str | None]) -> Resource:
    return {"coding": [{"system": pair[0], "code": pair[1]}]}


class Person:
    """One patient: resources as they are planted, and what each measure must say."""

    def __init__(self, at: int, seed: int, codes: Codes) -> None:
        self.random = random.Random(f"{seed}/{at}")
        self.codes = codes
        self.id = f"p{at:07d}"
        self.resources: list[Resource] = []
        self.born = PERIOD[1] - timedelta(days=self.random.randrange(10 * 365, 91 * 365))
        self.female = self.random.random() < 0.5
        self.dead = self.random.random() < 0.02

    def age(self, on: date) -> int:
        return on.year - self.born.year - ((on.month, on.day) < (self.born.month, self.born.day))

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def day(self, first: date = PERIOD[0], last: date = PERIOD[1]) -> date:
        return first + timedelta(days=self.random.randrange((last - first).days + 1))

    def add(self, kind: str, **elements: Any) -> Resource:
        resource = {"resourceType": kind, "id": f"{self.id}-{len(self.resources)}", **elements}
        if kind != "Patient":
            resource["subject"] = {"reference": f"Patient/{self.id}"}
        self.resources.append(resource)
        return resource

    def visit(self, name: str, on: date, *, status: str = "finished", kind: str = "AMB") -> None:
        self.add(
            "Encounter",
            status=status,
            **{"class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": kind}},
            type=[concept(self.random.choice(self.codes[name]))],
            period={"start": f"{on}T09:00:00Z", "end": f"{on}T09:40:00Z"},
        )

    def condition(self, name: str, onset: date, *, refuted: bool = False, category: str = "problem-list-item") -> None:
        system = "http://terminology.hl7.org/CodeSystem/condition-"
        verification = "refuted" if refuted else "confirmed"
        self.add(
            "Condition",
            clinicalStatus=concept((f"{system}clinical", "active")),
            verificationStatus=concept((f"{system}ver-status", verification)),
            category=[concept((f"{system}category", category))],
            code=concept(self.random.choice(self.codes[name])),
            onsetDateTime=f"{onset}T08:00:00Z",
        )

    def observation(self, name: str, on: date, category: str, value: float | None = None, **more: Any) -> None:
        body: Resource = {"status": "final", "category": [concept((CATEGORY, category))], **more}
        if value is not None:
            body["valueQuantity"] = {"value": value, "code": "%", "system": "http://unitsofmeasure.org"}
        code = self.random.choice(self.codes[name]) if name in self.codes else ("http://loinc.org", name)
        self.add("Observation", code=concept(code), effectiveDateTime=f"{on}T10:00:00Z", **body)

    def procedure(self, name: str, on: date) -> None:
        code = concept(self.random.choice(self.codes[name]))
        self.add("Procedure", status="completed", code=code, performedDateTime=f"{on}T11:00:00Z")


def person(at: int, seed: int, codes: Codes) -> tuple[list[Resource], dict[str, tuple[int, ...]]]:
    """Return a patient's resources, and (initial population, exclusion, exception, numerator) by measure."""
    p = Person(at, seed, codes)
    _patient(p)
    seen = _visits(p)
    hospice = p.chance(0.03)
    if hospice:
        p.visit("Hospice Encounter", p.day())
    end = p.age(PERIOD[1])
    truth = {
        "CMS165": _pressure(p, seen and 18 <= end <= 85, hospice),
        "CMS122": _diabetes(p, seen and 18 <= end <= 75, hospice),
        "CMS125": _breast(p, seen and p.female and 42 <= end <= 74, hospice),
        "CMS130": _colon(p, seen and 46 <= end <= 75, hospice),
        "CMS349": _hiv(p, seen and 15 <= p.age(PERIOD[0]) <= 65),
    }
    for _ in range(NOISE):
        _noise(p)
    return p.resources, truth


def _flags(initial: bool, excluded: bool, met: bool, excepted: bool = False) -> tuple[int, ...]:
    hit = initial and not excluded and met
    return int(initial), int(initial and excluded), int(initial and not excluded and not met and excepted), int(hit)


def _patient(p: Person) -> None:
    base = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
    race = p.random.choice(("2106-3", "2054-5", "2028-9"))
    omb = {"url": "ombCategory", "valueCoding": {"system": "urn:oid:2.16.840.1.113883.6.238", "code": race}}
    sex = "248152002" if p.female else "248153007"
    extension = [{"url": f"{base}race", "extension": [omb]}, {"url": f"{base}sex", "valueCode": sex}]
    more = {"deceasedDateTime": f"{p.day()}T00:00:00Z"} if p.dead else {}
    gender = "female" if p.female else "male"
    p.add("Patient", extension=extension, gender=gender, birthDate=p.born.isoformat(), **more)["id"] = p.id


def _visits(p: Person) -> bool:
    seen = False
    for _ in range(p.random.randrange(4)):
        status = "cancelled" if p.chance(0.1) else "finished"
        on = p.day(PERIOD[0] - timedelta(days=365), PERIOD[1] + timedelta(days=90))
        p.visit("Office Visit", on, status=status)
        seen |= status == "finished" and PERIOD[0] <= on <= PERIOD[1]
    return seen


def _pressure(p: Person, eligible: bool, hospice: bool) -> tuple[int, ...]:
    ill = excluded = False
    if p.chance(0.4):
        onset, refuted = p.day(date(2020, 1, 1), PERIOD[1]), p.chance(0.1)
        p.condition("Essential Hypertension", onset, refuted=refuted)
        ill = not refuted and onset < date(2026, 7, 1)
    if p.chance(0.04):
        p.condition("End Stage Renal Disease", p.day(date(2020, 1, 1), PERIOD[1]))
        excluded = True
    readings: dict[date, list[tuple[int, int]]] = {}
    for _ in range(p.random.randrange(5)):
        on = p.day()
        for _ in range(p.random.choice((1, 1, 2))):
            value = p.random.randrange(105, 175), p.random.randrange(60, 110)
            readings.setdefault(on, []).append(value)
            parts = [
                {"code": concept(("http://loinc.org", code)), "valueQuantity": {"value": number, "code": "mm[Hg]"}}
                for code, number in zip(("8480-6", "8462-4"), value, strict=True)
            ]
            p.observation("85354-9", on, "vital-signs", component=parts)
    last = readings.get(max(readings)) if readings else None
    met = last is not None and min(s for s, _ in last) < 140 and min(d for _, d in last) < 90
    return _flags(eligible and ill, hospice or excluded, met)


def _diabetes(p: Person, eligible: bool, hospice: bool) -> tuple[int, ...]:
    ill = p.chance(0.3)
    if ill:
        p.condition("Diabetes", p.day(date(2018, 1, 1), PERIOD[1]), category="encounter-diagnosis")
    tests: dict[date, list[float | None]] = {}
    for _ in range(p.random.randrange(3)):
        on, value = p.day(), None if p.chance(0.1) else p.random.randrange(50, 120) / 10
        tests.setdefault(on, []).append(value)
        p.observation("HbA1c Laboratory Test", on, "laboratory", value)
    last = tests[max(tests)] if tests else [None]
    # Without a value sorts first: the day's lowest is then the one without.
    poor = None in last or min(value for value in last if value is not None) > 9
    return _flags(eligible and ill, hospice, poor)


def _breast(p: Person, eligible: bool, hospice: bool) -> tuple[int, ...]:
    met, removed = False, p.female and p.chance(0.03)
    if p.female and p.chance(0.7):
        on = p.day(date(2023, 1, 1), PERIOD[1])
        p.observation("Mammography", on, "imaging")
        met = on >= date(2024, 10, 1)
    if removed:
        p.procedure("Bilateral Mastectomy", p.day(date(2015, 1, 1), PERIOD[1]))
    return _flags(eligible, hospice or removed, met)


def _colon(p: Person, eligible: bool, hospice: bool) -> tuple[int, ...]:
    met, cancer = False, p.chance(0.02)
    if p.chance(0.4):
        on = p.day(date(2012, 1, 1), PERIOD[1])
        p.procedure("Colonoscopy", on)
        met |= on >= date(2017, 1, 1)
    if p.chance(0.3):
        on, value = p.day(date(2025, 1, 1), PERIOD[1]), None if p.chance(0.2) else 1.0
        p.observation("Fecal Occult Blood Test (FOBT)", on, "laboratory", value)
        met |= value is not None and on >= PERIOD[0]
    if cancer:
        p.condition("Malignant Neoplasm of Colon", p.day(date(2015, 1, 1), PERIOD[1]))
    return _flags(eligible, hospice or cancer, met)


def _hiv(p: Person, eligible: bool) -> tuple[int, ...]:
    met = False
    name = "Human Immunodeficiency Virus (HIV) Laboratory Test Codes (Ab and Ag)"
    if p.chance(0.4):
        on, value = p.day(date(2010, 1, 1), PERIOD[1]), None if p.chance(0.1) else 0.0
        p.observation(name, on, "laboratory", value)
        met = value is not None and 15 <= p.age(on) <= 65
    infected = p.chance(0.02)
    if infected:
        onset = p.day(date(2015, 1, 1), PERIOD[1])
        p.condition("HIV", onset)
        infected = onset < PERIOD[0]
    return _flags(eligible, infected, met, p.dead)


def _noise(p: Person) -> None:
    on, code = p.day(date(2016, 1, 1), PERIOD[1]), concept(("http://example.org/noise", f"n{p.random.randrange(500)}"))
    kind = p.random.choice(("Observation", "Observation", "Encounter", "Condition", "Procedure", "MedicationRequest"))
    if kind == "Encounter":
        period = {"start": f"{on}T12:00:00Z", "end": f"{on}T12:30:00Z"}
        p.add(kind, status="finished", **{"class": {"code": "AMB"}}, type=[code], period=period)
    elif kind == "Observation":
        category, value = [concept((CATEGORY, "laboratory"))], {"value": p.random.randrange(100), "code": "mg/dL"}
        p.add(
            kind, status="final", category=category, code=code, effectiveDateTime=f"{on}T10:00:00Z", valueQuantity=value
        )
    elif kind == "Condition":
        p.add(kind, code=code, onsetDateTime=f"{on}T10:00:00Z")
    elif kind == "Procedure":
        p.add(kind, status="completed", code=code, performedDateTime=f"{on}T10:00:00Z")
    else:
        p.add(kind, status="active", intent="order", medicationCodeableConcept=code, authoredOn=f"{on}T10:00:00Z")


def write(folder: Path, measures: list[Measure], patients: int, *, seed: int = 7) -> dict[str, Counter[str]]:
    """Write a population as NDJSON, one file a type; return each measure's planted counts.

    The patients come in an order of their own in each file, as they do from a server.
    """
    codes, encode = value_sets(measures), msgspec.json.Encoder().encode
    truth = {name: Counter(dict.fromkeys(COLUMNS, 0)) for name in MEASURES}
    folder.mkdir(parents=True)
    files: dict[str, Any] = {}
    # A step that has no factor in common with the number of patients visits each of them once.
    step = next(n for n in range(max(patients * 5 // 8, 1), patients + 2) if _coprime(n, patients))
    try:
        for at in range(patients):
            resources, flags = person(at * step % patients, seed, codes)
            for name, values in flags.items():
                truth[name].update(dict(zip(COLUMNS, values, strict=True)))
            for resource in resources:
                kind = resource["resourceType"]
                if kind not in files:
                    files[kind] = (folder / f"{kind}.ndjson").open("wb")
                files[kind].write(encode(resource) + b"\n")
    finally:
        for file in files.values():
            file.close()
    return truth


def _coprime(a: int, b: int) -> bool:
    while b:
        a, b = b, a % b
    return a == 1
