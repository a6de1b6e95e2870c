"""The patient a row belongs to, held against the definitions of every FHIR version."""

from __future__ import annotations

import itertools
import json
import random
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from hiexchange.definitions import VERSIONS, Definitions
from hiexchange.lake import annotate

# Written from the patient compartment (hl7.org/fhir/R4/compartmentdefinition-patient.html) and the types' pages,
# not from the code: the member of each type that refers to one patient where it isn't patient or subject.
OTHERS = {
    "AppointmentResponse": "actor",
    "Coverage": "beneficiary",
    "EnrollmentRequest": "candidate",
    "ResearchSubject": "individual",
    "Task": "for",
    "Transport": "for",
}
# Types with a single reference that can be a patient but isn't whom they are about, or that are about nobody.
NOT_ABOUT_ONE_PATIENT = {"Ingredient", "Linkage"}


def links(version):
    """{resource: member}: each type's one reference to its patient."""
    definitions = Definitions.load(version)
    found = {}
    for name in definitions.resources:
        elements = definitions.type(name).elements
        for member in ("patient", "subject", OTHERS.get(name, "patient")):
            element = elements.get(member)
            # subject[x] of definitional types (ActivityDefinition) names a group for whom they are meant.
            if element is not None and "Reference" in element.types and not (element.many or element.choice):
                found[name] = member
                break
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_type_with_a_patient_has_its_key(version, encoded):
    found = links(version)
    assert len(found) > 50
    for name, member in found.items():
        line = json.dumps({"resourceType": name, "id": "-1", member: {"reference": "Patient/-7"}}).encode()
        batch = encoded(line + b"\n", name, version=version).batch
        assert (name, batch["__hx_patient"].to_pylist()) == (name, ["-7"])


def test_what_is_not_about_a_patient_has_no_key(encoded):
    for name, member in (("Task", "for"), ("Observation", "subject"), ("Flag", "subject"), ("Coverage", "beneficiary")):
        line = json.dumps({"resourceType": name, "id": "-1", member: {"reference": "Group/-7"}}).encode()
        assert encoded(line + b"\n", name).batch["__hx_patient"].to_pylist() == [None]


def test_types_with_a_member_of_their_own_are_those_named_here():
    """A new definition whose patient stands under another name must be looked at."""
    for version in VERSIONS:
        definitions = Definitions.load(version)
        for name in definitions.resources:
            members = set(definitions.type(name).elements) & set(OTHERS.values())
            singles = {member for member in members if not definitions.type(name).elements[member].many}
            referring = {member for member in singles if "Reference" in definitions.type(name).elements[member].types}
            if referring - {OTHERS.get(name)}:
                assert name in NOT_ABOUT_ONE_PATIENT, (version, name, referring)


INSTANTS = {
    "2026-01-01T00:00:00.123456Z": datetime(2026, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC),
    "2026-01-01T00:00:00.1234567Z": datetime(2026, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC),  # as .NET servers send it
    "2026-01-01T00:00:00+14:00": datetime(2025, 12, 31, 10, tzinfo=UTC),
    "1969-12-31T23:59:59.9995Z": datetime(1969, 12, 31, 23, 59, 59, 999_500, tzinfo=UTC),
    "0000-01-01T00:00:00Z": None,
    "0001-01-01T00:00:00+14:00": None,
    "9999-12-31T23:59:59-12:00": None,
    "2026-01-01T24:00:00Z": None,
    "2016-12-31T23:59:60Z": None,
    "2026-01-01T00:00:00+24:00": None,
}


def test_an_instant_is_the_same_beside_any_other():
    for text, other in itertools.product(INSTANTS, repeat=2):
        assert annotate.instant(pa.array([text, other])).to_pylist()[0] == INSTANTS[text], (text, other)
        start, end = (bound.to_pylist()[0] for bound in annotate.interval(pa.array([text, other])))
        known = INSTANTS[text]
        assert start == (known and known.replace(microsecond=known.microsecond // 1000 * 1000)), (text, other)
        assert (end is None) == (known is None)


def test_instants_of_any_century_have_the_bounds_they_have_alone():
    chance = random.Random(5)
    parts = ((2, 9998), (1, 12), (1, 28), (0, 23), (0, 59), (0, 59))
    texts = []
    for _ in range(300):
        year, *rest = (chance.randint(*between) for between in parts)
        ending = chance.choice(("", ".5", ".123", ".1239", ".999999", ".0000")) + chance.choice(
            ("Z", "+05:30", "-12:00")
        )
        texts.append("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}".format(year, *rest) + ending)
    together = [bound.to_pylist() for bound in annotate.interval(pa.array([*texts, None]))]
    alone = [annotate.bounds_of(text) for text in texts] + [(None, None)]
    assert list(zip(*together, strict=True)) == alone


def test_a_year_no_calendar_has_does_not_keep_its_table_from_being_read(encoded, restored):
    line = b'{"resourceType":"Patient","id":"1","deceasedDateTime":"0000-01-01T00:00:00Z"}'
    batch = encoded(line, "Patient").batch
    assert batch["__deceasedDateTime_start"].to_pylist() == [None]
    assert restored(batch, "Patient")[0] == line


LONG = {
    "1e-45": None,
    "1." + "5" * 45: None,
    "1.5" + "0" * 44: Decimal("1.5"),
    "1" + "0" * 45 + "e-45": Decimal(1),
    "0." + "0" * 60 + "1": None,
    "1e400": None,
}


@pytest.mark.parametrize("number", LONG)
def test_long_and_tiny_numbers_are_exact_or_null(number):
    for beside in ("1.5", "0.1234567", "1e3"):
        assert annotate.numeric(pa.array([number, beside])).to_pylist()[0] == LONG[number]
