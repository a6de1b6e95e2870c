"""FHIR R4 resources of the invented people; claims in the manner of CARIN Blue Button."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from random import Random
from typing import Any

import msgspec

from hiexchange.testing.population.answers import Answers, Screening
from hiexchange.testing.population.people import Person, Practice
from hiexchange.testing.population.visits import Visit, Year

Resource = dict[str, Any]

CARIN_TYPE = "http://terminology.hl7.org/CodeSystem/claim-type"
ADJUDICATION = "http://terminology.hl7.org/CodeSystem/adjudication"
UPDATED = "2026-01-05T06:00:00.000Z"


def money(cents: int) -> msgspec.Raw:
    """Return an exact decimal literal with two places: ``123.40`` must not become ``123.4``."""
    return msgspec.Raw(f"{cents // 100}.{cents % 100:02d}".encode())


def organization(place: Practice) -> Resource:
    """Return an Organization with its NPI and TIN."""
    return {
        "resourceType": "Organization",
        "id": place.id,
        "meta": {"lastUpdated": UPDATED},
        "identifier": [
            {"system": "http://hl7.org/fhir/sid/us-npi", "value": place.npis[0]},
            {"system": "urn:oid:2.16.840.1.113883.4.4", "value": place.tin},
        ],
        "active": True,
        "type": [_concept("http://terminology.hl7.org/CodeSystem/organization-type", "prov", "Healthcare Provider")],
        "name": place.name,
    }


def practitioners(place: Practice) -> Iterator[Resource]:
    """Yield the clinicians of a practice or hospital."""
    for index, number in enumerate(place.npis):
        yield {
            "resourceType": "Practitioner",
            "id": practitioner_id(number),
            "meta": {"lastUpdated": UPDATED},
            "identifier": [{"system": "http://hl7.org/fhir/sid/us-npi", "value": number}],
            "active": True,
            "name": [{"family": f"Clinician{place.number}", "given": [f"Dr{index + 1}"]}],
        }


def practitioner_id(npi: str) -> str:
    """Return the Practitioner.id of an NPI."""
    return f"-npi-{npi}"


def patient(person: Person, died: date | None, missing: tuple[str, ...] = ()) -> Resource:
    """Return a US Core Patient: race, ethnicity, language, MRN, SSN (999-…), address, telephone.

    ``missing`` names what its record lacks of the first three.
    """
    ethnicity = ("2135-2", "Hispanic or Latino") if person.hispanic else ("2186-5", "Not Hispanic or Latino")
    omb = {"race": person.race, "ethnicity": ethnicity}
    name: Resource = {"use": "official", "family": person.last, "given": [person.first]}
    if person.suffix:
        name["suffix"] = [person.suffix]
    resource: Resource = {
        "resourceType": "Patient",
        "id": person.id,
        "meta": {"lastUpdated": UPDATED},
        "extension": [
            _us_core(f"us-core-{name}", "urn:oid:2.16.840.1.113883.6.238", *value)
            for name, value in omb.items()
            if name not in missing
        ],
        "identifier": [
            _identifier("MR", "urn:hiexchange:demo:mrn", f"M{person.number:08d}"),
            _identifier("SS", "http://hl7.org/fhir/sid/us-ssn", f"999-{person.number % 90 + 10:02d}-{person.ssn4}"),
            *([_identifier("MC", "http://hl7.org/fhir/sid/us-mbi", person.mbi)] if "mbi" in person.extras else []),
            *(
                _identifier("MB", f"urn:hiexchange:payer:{payer}", member)
                for payer, member in sorted(person.extras.items())
                if payer != "mbi"
            ),
        ],
        "active": True,
        "name": [name],
        "telecom": [{"system": "phone", "value": _spoken(person.phone), "use": "home"}],
        "gender": person.sex,
        "birthDate": person.born.isoformat(),
        "address": [
            {
                "use": "home",
                "line": [person.line],
                "city": person.city,
                "state": "AR",
                "postalCode": person.zip,
                "country": "US",
            }
        ],
        "communication": [
            {
                "language": _concept(
                    "urn:ietf:bcp:47", person.language, {"en": "English", "es": "Spanish"}[person.language]
                ),
                "preferred": True,
            }
        ],
    }
    if died:
        resource["deceasedDateTime"] = died.isoformat()
    if not resource["extension"]:
        del resource["extension"]
    if "language" in missing:
        del resource["communication"]
    return resource


def coverage(person: Person, payer: str, member_id: str, year: int) -> Resource:
    """Return a Coverage of one payer."""
    return {
        "resourceType": "Coverage",
        "id": f"{person.id}-c-{payer}",
        "meta": {"lastUpdated": UPDATED},
        "status": "active",
        "subscriberId": member_id,
        "beneficiary": _reference("Patient", person.id),
        "relationship": _concept("http://terminology.hl7.org/CodeSystem/subscriber-relationship", "self", "Self"),
        "period": {"start": f"{year}-01-01", "end": f"{year}-12-31"},
        "payor": [{"identifier": {"system": "urn:hiexchange:payer", "value": payer}, "display": payer}],
    }


def encounter(visit: Visit) -> Resource:
    """Return a finished Encounter."""
    displays = {"AMB": "ambulatory", "EMER": "emergency", "IMP": "inpatient encounter"}
    period = {"start": _instant(visit.start), "end": _instant(visit.end)}
    resource: Resource = {
        "resourceType": "Encounter",
        "id": visit.id,
        "meta": {"lastUpdated": UPDATED},
        "status": "finished",
        "class": {
            "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
            "code": visit.kind,
            "display": displays[visit.kind],
        },
        "type": [{"text": f"{displays[visit.kind]} visit"}],
        "subject": _reference("Patient", visit.person.id),
        "participant": [
            {
                "type": [_concept("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "ATND", "attender")],
                "individual": _reference("Practitioner", practitioner_id(visit.npi)),
            }
        ],
        "period": period,
        "diagnosis": [{"condition": _reference("Condition", f"{visit.id}-dx")}],
        "serviceProvider": _reference("Organization", visit.place.id),
    }
    if visit.disposition:
        system = "http://terminology.hl7.org/CodeSystem/discharge-disposition"
        display = {"home": "Home", "hosp": "Hospice", "exp": "Expired"}[visit.disposition]
        resource["hospitalization"] = {"dischargeDisposition": _concept(system, visit.disposition, display)}
    return resource


def condition(visit: Visit) -> Resource:
    """Return the encounter diagnosis."""
    code, display = visit.reason
    return {
        "resourceType": "Condition",
        "id": f"{visit.id}-dx",
        "meta": {"lastUpdated": UPDATED},
        "clinicalStatus": _concept("http://terminology.hl7.org/CodeSystem/condition-clinical", "active", "Active"),
        "category": [
            _concept(
                "http://terminology.hl7.org/CodeSystem/condition-category", "encounter-diagnosis", "Encounter Diagnosis"
            )
        ],
        "code": _concept("http://hl7.org/fhir/sid/icd-10-cm", code, display),
        "subject": _reference("Patient", visit.person.id),
        "encounter": _reference("Encounter", visit.id),
        "recordedDate": _instant(visit.start),
    }


def observations(rng: Random, visit: Visit) -> Iterator[Resource]:
    """Yield vital signs of the visit: blood pressure, weight, pulse, and now and then HbA1c."""

    def base(suffix: str, loinc: str, display: str, category: str) -> Resource:
        return {
            **_observation(f"{visit.id}-{suffix}", visit.person, (loinc, display), category=category),
            "encounter": _reference("Encounter", visit.id),
            "effectiveDateTime": _instant(visit.start),
        }

    pressure = base("bp", "85354-9", "Blood pressure panel", "vital-signs")
    pressure["component"] = [
        {
            "code": _concept("http://loinc.org", "8480-6", "Systolic"),
            "valueQuantity": _quantity(str(rng.randint(98, 165)), "mm[Hg]"),
        },
        {
            "code": _concept("http://loinc.org", "8462-4", "Diastolic"),
            "valueQuantity": _quantity(str(rng.randint(55, 104)), "mm[Hg]"),
        },
    ]
    yield pressure
    weight = base("wt", "29463-7", "Body weight", "vital-signs")
    weight["valueQuantity"] = _quantity(f"{rng.randint(500, 1200) / 10:.1f}", "kg")
    yield weight
    pulse = base("hr", "8867-4", "Heart rate", "vital-signs")
    pulse["valueQuantity"] = _quantity(str(rng.randint(52, 110)), "/min")
    yield pulse
    if visit.reason[0] == "E11.9":
        a1c = base("a1c", "4548-4", "Hemoglobin A1c", "laboratory")
        a1c["valueQuantity"] = _quantity(f"{rng.randint(50, 120) / 10:.1f}", "%")
        yield a1c


def screening(person: Person, planted: Screening) -> Resource:
    """Return the Observation of a screening for social needs."""
    moment = _instant(planted.at)
    when = {"effectivePeriod": {"start": moment}} if planted.spanning else {"effectiveDateTime": moment}
    found = _observation(f"{person.id}-need", person, planted.code, category=planted.category, status=planted.status)
    return {**found, **when, "valueString": "answered"}


def _observation(name: str, person: Person, code: tuple[str, str], *, category: str, status: str = "final") -> Resource:
    return {
        "resourceType": "Observation",
        "id": name,
        "meta": {"lastUpdated": UPDATED},
        "status": status,
        "category": [_concept("http://terminology.hl7.org/CodeSystem/observation-category", category, category)],
        "code": _concept("http://loinc.org", *code),
        "subject": _reference("Patient", person.id),
    }


def claim(rng: Random, visit: Visit, payer: str, member_id: str) -> Resource:
    """Return an ExplanationOfBenefit with line items and exact adjudication amounts."""
    institutional = visit.kind != "AMB"
    lines = [
        _claim_line(rng, visit, sequence, institutional) for sequence in range(1, (4 if visit.kind == "IMP" else 2))
    ]
    submitted = sum(cents for _, cents, _ in lines)
    paid = sum(cents for _, _, cents in lines)
    return {
        "resourceType": "ExplanationOfBenefit",
        "id": f"{visit.id}-claim",
        "meta": {"lastUpdated": UPDATED},
        "identifier": [{"system": f"urn:hiexchange:payer:{payer}:claim", "value": f"{visit.id}-claim"}],
        "status": "active",
        "type": _concept(CARIN_TYPE, "institutional" if institutional else "professional", ""),
        "use": "claim",
        "patient": _reference("Patient", visit.person.id),
        "billablePeriod": {"start": visit.start.date().isoformat(), "end": visit.end.date().isoformat()},
        "created": visit.end.date().isoformat(),
        "insurer": {"identifier": {"system": "urn:hiexchange:payer", "value": payer}},
        "provider": _reference("Organization", visit.place.id),
        "outcome": "complete",
        "careTeam": [
            {
                "sequence": 1,
                "provider": {"identifier": {"system": "http://hl7.org/fhir/sid/us-npi", "value": visit.npi}},
                "role": _concept(
                    "http://terminology.hl7.org/CodeSystem/claimcareteamrole",
                    "attending" if institutional else "performing",
                    "",
                ),
            }
        ],
        "diagnosis": [
            {
                "sequence": 1,
                "diagnosisCodeableConcept": _concept("http://hl7.org/fhir/sid/icd-10-cm", *visit.reason),
                "type": [_concept("http://terminology.hl7.org/CodeSystem/ex-diagnosistype", "principal", "Principal")],
            }
        ],
        "insurance": [{"focal": True, "coverage": _reference("Coverage", f"{visit.person.id}-c-{payer}")}],
        "item": [item for item, _, _ in lines],
        "total": [
            {
                "category": _concept(ADJUDICATION, "submitted", ""),
                "amount": {"value": money(submitted), "currency": "USD"},
            },
            {"category": _concept(ADJUDICATION, "benefit", ""), "amount": {"value": money(paid), "currency": "USD"}},
        ],
    }


def _claim_line(rng: Random, visit: Visit, sequence: int, institutional: bool) -> tuple[Resource, int, int]:
    submitted = rng.randint(60_00, 4_000_00) if institutional else rng.randint(60_00, 300_00)
    paid = submitted * rng.randint(40, 90) // 100
    item: Resource = {
        "sequence": sequence,
        "diagnosisSequence": [1],
        "productOrService": _concept("urn:hiexchange:demo:service", f"S{rng.randint(100, 999)}", "demo service"),
        "servicedDate": visit.start.date().isoformat(),
        "quantity": {"value": 1},
        "adjudication": [
            {
                "category": _concept(ADJUDICATION, "submitted", ""),
                "amount": {"value": money(submitted), "currency": "USD"},
            },
            {"category": _concept(ADJUDICATION, "benefit", ""), "amount": {"value": money(paid), "currency": "USD"}},
        ],
    }
    return item, submitted, paid


def of_person(
    rng: Random, person: Person, year: Year, *, answers: Answers, payers: dict[str, str], calendar: int
) -> Iterator[Resource]:
    """Yield every resource of one person; ``payers`` maps payer to the person's member id there."""
    yield patient(person, year.died, answers.missing)
    if answers.screening is not None:
        yield screening(person, answers.screening)
    for payer, member_id in sorted(payers.items()):
        yield coverage(person, payer, member_id, calendar)
    for visit in year.visits:
        yield encounter(visit)
        yield condition(visit)
        yield from observations(rng, visit)
        for payer, member_id in sorted(payers.items())[:1]:
            yield claim(rng, visit, payer, member_id)


def group(payer: str, people: list[str]) -> Resource:
    """Return the payer's Group of the given Patient ids."""
    return {
        "resourceType": "Group",
        "id": payer,
        "active": True,
        "type": "person",
        "actual": True,
        "name": payer,
        "quantity": len(people),
        "member": [{"entity": {"reference": f"Patient/{person}"}} for person in people],
    }


def _concept(system: str, code: str, display: str) -> Resource:
    coding = {"system": system, "code": code}
    if display:
        coding["display"] = display
    return {"coding": [coding]}


def _identifier(code: str, system: str, value: str) -> Resource:
    kind = _concept("http://terminology.hl7.org/CodeSystem/v2-0203", code, "")
    return {"type": kind, "system": system, "value": value}


def _us_core(name: str, system: str, code: str, text: str) -> Resource:
    return {
        "url": f"http://hl7.org/fhir/us/core/StructureDefinition/{name}",
        "extension": [
            {"url": "ombCategory", "valueCoding": {"system": system, "code": code, "display": text}},
            {"url": "text", "valueString": text},
        ],
    }


def _quantity(literal: str, unit: str) -> Resource:
    return {"value": msgspec.Raw(literal.encode()), "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}


def _reference(kind: str, identifier: str) -> Resource:
    return {"reference": f"{kind}/{identifier}"}


def _spoken(phone: str) -> str:
    return f"({phone[:3]}) {phone[3:6]}-{phone[6:]}"


def _instant(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
