"""The element tables against facts of the published specifications."""

from __future__ import annotations

import pickle

import pytest

from hiexchange.definitions import VERSIONS, Definitions
from hiexchange.errors import ConfigError


def test_versions_and_their_other_names():
    assert Definitions.load() is Definitions.load("R4") is Definitions.load("4.0")
    assert Definitions.load("STU3").version == "3.0.2"
    assert Definitions.load("3.0.1").version == "3.0.2"
    with pytest.raises(ConfigError, match="no FHIR definitions"):
        Definitions.load("6.0.0")


@pytest.mark.parametrize(("version", "resources"), [("3.0.2", 117), ("4.0.1", 147), ("4.3.0", 141), ("5.0.0", 158)])
def test_number_of_concrete_resources(version, resources):
    assert len(Definitions.load(version).resources) == resources


@pytest.mark.parametrize("version", VERSIONS)
def test_every_type_that_is_named_exists(version):
    fhir = Definitions.load(version)
    named = {kind for name in fhir for element in fhir.type(name).elements.values() for kind in element.types}
    assert named <= set(fhir)
    for name in fhir:
        assert fhir.type(name).base in fhir or name in ("Base", "Element", "Resource")


def test_elements_of_r4():
    fhir = Definitions.load("4.0.1")
    patient = fhir.type("Patient")
    assert (patient.kind, patient.base) == ("resource", "DomainResource")
    assert (patient.elements["name"].types, patient.elements["name"].many) == (("HumanName",), True)
    assert patient.elements["deceased"].choice
    assert patient.json_members["deceasedDateTime"][1] == "dateTime"
    assert patient.elements["contact"].types == ("Patient.contact",)
    assert patient.elements["id"].types == ("id",)
    assert fhir.type("Questionnaire.item").elements["item"].types == ("Questionnaire.item",)
    assert fhir.type("Observation.component").elements["referenceRange"].types == ("Observation.referenceRange",)
    assert fhir.type("Observation").elements["status"].required
    assert fhir.type("Extension").elements["url"].types == ("uri",)
    assert len(fhir.type("Extension").elements["value"].types) == 50
    assert "contained" not in fhir.type("Binary").elements


def test_elements_of_stu3_differ_where_the_versions_do():
    fhir = Definitions.load("STU3")
    assert fhir.type("Coverage").elements["grouping"].types == ("Coverage.grouping",)
    assert fhir.type("Encounter").elements["reason"].types == ("CodeableConcept",)
    assert fhir.is_a("Money", "Quantity")
    assert "ImagingManifest" in fhir.resources


def test_kinds_and_ancestors():
    fhir = Definitions.load("4.0.1")
    assert fhir.is_a("Age", "Quantity")
    assert fhir.is_a("Patient.contact", "Element")
    assert not fhir.is_a("Patient", "Element")
    assert fhir.is_primitive("code")
    assert fhir.is_resource("DomainResource")
    assert "DomainResource" not in fhir.resources
    assert fhir.get("Nothing") is None
    with pytest.raises(ConfigError, match="Patient"):
        fhir.type("Patinet")


def test_definitions_travel_to_other_processes():
    fhir = Definitions.load("4.0.1")
    assert pickle.loads(pickle.dumps(fhir)) is fhir
    assert repr(fhir) == "Definitions('4.0.1')"
