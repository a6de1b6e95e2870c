"""The patient a row belongs to, held against the definitions of every FHIR version."""

from __future__ import annotations

import json

import pytest

from hiexchange.definitions import VERSIONS, Definitions

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
