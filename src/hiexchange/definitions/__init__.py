"""FHIR element tables: which elements a type has, of which types, and whether they repeat.

    >>> fhir = Definitions.load("4.0.1")
    >>> fhir.type("Patient").elements["name"].types
    ('HumanName',)

One packed table per FHIR version is shipped (STU3 3.0.2, R4 4.0.1, R4B 4.3.0, R5 5.0.0), compiled by
``tools/build_definitions.py`` from the published StructureDefinitions. Facts only: no profiles,
no value sets, no invariants, no text.
"""

from hiexchange.definitions.load import VERSIONS, Definitions, Element, TypeDef

__all__ = ["VERSIONS", "Definitions", "Element", "TypeDef"]
