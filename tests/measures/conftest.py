"""Small patients and encounters in the lake's layout, written by hand."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

Row = dict[str, Any]


def wide(rows: list[Row]) -> pa.Table:
    """Make a table with the columns of all rows: ``from_pylist`` looks at the first only."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])


@pytest.fixture
def encounter() -> Callable[..., Row]:
    """Build an Encounter row: id, patient, class, start, end, and the rest by keyword."""

    def build(key: str, patient: str, kind: str, start: str | None, end: str | None = None, **more: Any) -> Row:
        row: Row = {
            "resourceType": "Encounter",
            "id": key,
            "status": more.pop("status", "finished"),
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": kind},
            "subject": {"reference": f"Patient/{patient}"},
            "period": {"start": start, "end": end if end is not None or "open" in more else start},
        }
        more.pop("open", None)
        if disposition := more.pop("disposition", None):
            row["hospitalization"] = {"dischargeDisposition": {"coding": [{"code": disposition}]}}
        return row | more

    return build


@pytest.fixture
def tables() -> Callable[..., dict[str, pa.Table]]:
    """Build a source from Encounter rows; every patient they name exists, with the given elements."""

    def build(encounters: list[Row], **patients: Row) -> dict[str, pa.Table]:
        names = sorted({row["subject"]["reference"].removeprefix("Patient/") for row in encounters} | set(patients))
        people = [
            {"resourceType": "Patient", "id": name, "deceasedDateTime": None, **patients.get(name, {})}
            for name in names
        ]
        return {"Encounter": wide(encounters), "Patient": wide(people)}

    return build


# A measure of our own in ELM, written by hand: adults with a visit; numerator a final systolic under 140.

SYSTEM = "{urn:hl7-org:elm-types:r1}"
FHIR = "{http://hl7.org/fhir}"
QICORE = "http://hl7.org/fhir/us/qicore/StructureDefinition/"
VISITS = "http://example.org/ValueSet/visits"
PRESSURES = "http://example.org/ValueSet/pressures"


def literal(kind: str, value: str) -> Row:
    return {"type": "Literal", "valueType": SYSTEM + kind, "value": value}


def ref(name: str, kind: str = "ExpressionRef", **more: Any) -> Row:
    return {"type": kind, "name": name, **more}


def retrieve(kind: str, profile: str, path: str, value_set: str) -> Row:
    return {
        "type": "Retrieve",
        "dataType": FHIR + kind,
        "templateId": QICORE + profile,
        "codeProperty": path,
        "codeComparator": "in",
        "codes": ref(value_set, "ValueSetRef", preserve=True),
    }


def during(alias: str, path: str, convert: str) -> Row:
    """``<alias>.<path> during day of "Measurement Period"``."""
    value = ref(
        convert, "FunctionRef", libraryName="FHIRHelpers", operand=[{"type": "Property", "path": path, "scope": alias}]
    )
    return {"type": "IncludedIn", "precision": "Day", "operand": [value, ref("Measurement Period", "ParameterRef")]}


def elm(name: str, defines: dict[str, Row], *, includes: list[Row] | None = None, version: str = "1.0.0") -> Row:
    statements = [{"name": key, "context": "Patient", "expression": value} for key, value in defines.items()]
    period = {"type": "IntervalTypeSpecifier", "pointType": {"type": "NamedTypeSpecifier", "name": SYSTEM + "DateTime"}}
    return {
        "library": {
            "identifier": {"id": name, "version": version},
            "includes": {"def": includes or []},
            "parameters": {"def": [{"name": "Measurement Period", "parameterTypeSpecifier": period}]},
            "valueSets": {"def": [{"name": "Visits", "id": VISITS}, {"name": "Pressures", "id": PRESSURES}]},
            "statements": {"def": statements},
        }
    }


def small_measure() -> tuple[Row, list[Row]]:
    """The Measure and its libraries' ELM."""
    visits = {
        "type": "Query",
        "source": [{"alias": "E", "expression": retrieve("Encounter", "qicore-encounter", "type", "Visits")}],
        "where": during("E", "period", "ToInterval"),
    }
    pressures = {
        "type": "Query",
        "source": [
            {"alias": "O", "expression": retrieve("Observation", "qicore-simple-observation", "code", "Pressures")}
        ],
        "where": {
            "type": "And",
            "operand": [
                during("O", "effective", "ToValue"),
                {
                    "type": "Less",
                    "operand": [
                        ref(
                            "ToQuantity",
                            "FunctionRef",
                            libraryName="FHIRHelpers",
                            operand=[{"type": "Property", "path": "value", "scope": "O"}],
                        ),
                        {"type": "Quantity", "value": 140, "unit": "mm[Hg]"},
                    ],
                },
            ],
        },
    }
    birth = {"type": "Property", "path": "birthDate.value", "source": ref("Patient")}
    age = {
        "type": "CalculateAgeAt",
        "precision": "Year",
        "operand": [
            birth,
            {"type": "DateFrom", "operand": {"type": "Start", "operand": ref("Measurement Period", "ParameterRef")}},
        ],
    }
    patient = {
        "type": "SingletonFrom",
        "operand": {"type": "Retrieve", "dataType": FHIR + "Patient", "templateId": QICORE + "qicore-patient"},
    }
    initial = {
        "type": "And",
        "operand": [
            {"type": "GreaterOrEqual", "operand": [age, literal("Integer", "18")]},
            {"type": "Exists", "operand": ref("Visits in Period")},
        ],
    }
    main = elm(
        "SmallMeasure",
        {
            "Patient": patient,
            "Visits in Period": visits,
            "Controlled Pressures": pressures,
            "Initial Population": initial,
            "Numerator": {"type": "Exists", "operand": ref("Controlled Pressures")},
            "Is Female": {
                "type": "Equal",
                "operand": [
                    {"type": "Property", "path": "gender", "source": ref("Patient")},
                    literal("String", "female"),
                ],
            },
        },
        includes=[{"localIdentifier": "FHIRHelpers", "path": "FHIRHelpers", "version": "4.4.000"}],
    )
    helpers = {"library": {"identifier": {"id": "FHIRHelpers", "version": "4.4.000"}, "statements": {"def": []}}}
    code = "http://terminology.hl7.org/CodeSystem/measure-population"
    populations = [
        {"id": name, "code": {"coding": [{"system": code, "code": name}]}, "criteria": {"expression": expression}}
        for name, expression in (
            ("initial-population", "Initial Population"),
            ("denominator", "Initial Population"),
            ("numerator", "Numerator"),
        )
    ]
    measure = {
        "resourceType": "Measure",
        "id": "SmallMeasure",
        "url": "http://example.org/Measure/SmallMeasure",
        "version": "1.0.0",
        "title": "Small measure",
        "copyright": "None: a fixture",
        "library": ["http://example.org/Library/SmallMeasure"],
        "scoring": {"coding": [{"code": "proportion"}]},
        "group": [
            {
                "id": "g1",
                "population": populations,
                "stratifier": [{"id": "s1", "criteria": {"expression": "Is Female"}}],
            }
        ],
    }
    return measure, [main, helpers]


def as_bundle(measure: Row, libraries: list[Row], value_sets: dict[str, list[str]]) -> Row:
    entries: list[Row] = [measure]
    for library in libraries:
        name = library["library"]["identifier"]
        data = base64.b64encode(json.dumps(library).encode()).decode()
        entries.append(
            {
                "resourceType": "Library",
                "id": name["id"],
                "url": f"http://example.org/Library/{name['id']}",
                "version": name["version"],
                "content": [{"contentType": "application/elm+json", "data": data}],
            }
        )
    for url, codes in value_sets.items():
        contains = [{"system": "http://example.org", "code": code} for code in codes]
        entries.append(
            {"resourceType": "ValueSet", "url": url, "expansion": {"total": len(codes), "contains": contains}}
        )
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": entry} for entry in entries]}


@pytest.fixture
def small() -> tuple[Row, list[Row], dict[str, list[str]]]:
    """The parts of the small measure, to break one of."""
    measure, libraries = small_measure()
    return measure, libraries, {VISITS: ["visit"], PRESSURES: ["bp"]}


@pytest.fixture
def bundle_of() -> Callable[..., Row]:
    """Pack parts into a bundle."""
    return as_bundle


@pytest.fixture
def small_bundle(small: tuple[Row, list[Row], dict[str, list[str]]]) -> Row:
    """The small measure whole."""
    return as_bundle(*small)


@pytest.fixture
def supplemental_bundle(small: tuple[Row, list[Row], dict[str, list[str]]], bundle_of: Callable[..., Row]) -> Row:
    """The small measure, asking for a truth, a code, a number of visits, and for what cannot be had."""
    measure, libraries, sets = small
    pair = [
        {"name": "code", "value": literal("String", "x")},
        {"name": "system", "value": literal("String", "http://x.org")},
    ]
    code = {"type": "Instance", "classType": SYSTEM + "Code", "element": pair}
    several = {"type": "List", "element": [literal("Integer", "1")] * 2}
    libraries[0]["library"]["statements"]["def"] += [
        {"name": "Coded", "expression": {"type": "Tuple", "element": [{"name": "kind", "value": code}]}},
        {"name": "Visits", "expression": {"type": "Count", "source": ref("Visits in Period")}},
        {"name": "Broken", "expression": {"type": "SingletonFrom", "operand": several}},
    ]
    usage = [{"coding": [{"code": "risk-adjustment-factor"}]}]
    measure["supplementalData"] = [
        {"id": "sde-female", "criteria": {"expression": "Is Female"}},
        {"id": "sde-coded", "criteria": {"expression": "Coded"}},
        {"id": "risk-visits", "usage": usage, "criteria": {"expression": "Visits"}},
        {"id": "risk-broken", "usage": usage, "criteria": {"expression": "Broken"}},
    ]
    return bundle_of(measure, libraries, sets)


@pytest.fixture
def people() -> list[Row]:
    """Six patients as Bundles; who is in and who is a hit is told by the id."""

    def person(
        name: str, born: str, *, visit: str | None, value: Any = None, gender: str = "female", on: str = "2026-06-02"
    ) -> Row:
        about = {"subject": {"reference": f"Patient/{name}"}}
        rows: list[Row] = [{"resourceType": "Patient", "id": name, "birthDate": born, "gender": gender}]
        coded = {"coding": [{"system": "http://example.org", "code": "visit"}]}
        if visit is not None:
            span = {"start": f"{visit}T09:00:00Z", "end": f"{visit}T10:00:00Z"}
            rows.append(
                {
                    "resourceType": "Encounter",
                    "id": f"{name}-v",
                    "status": "finished",
                    "type": [coded],
                    "period": span,
                    **about,
                }
            )
        if value is not None:
            quantity = {"value": value, "unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"}
            if isinstance(value, dict):
                quantity = value
            pressure = {"coding": [{"system": "http://example.org", "code": "bp"}]}
            observation = {"resourceType": "Observation", "id": f"{name}-o", "status": "final", "code": pressure}
            rows.append({**observation, "effectiveDateTime": f"{on}T09:30:00Z", "valueQuantity": quantity, **about})
        return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": row} for row in rows]}

    return [
        person("a-hit", "1970-01-01", visit="2026-06-02", value=139.9),
        person("b-high", "1970-01-01", visit="2026-06-02", value=140, gender="male"),
        person("c-none", "1970-01-01", visit="2026-12-31"),
        person("d-old-value", "1970-01-01", visit="2026-06-02", value=120, on="2025-06-02"),
        person("e-young", "2008-01-02", visit="2026-06-02", value=120),
        person("f-no-visit", "1970-01-01", visit="2025-12-31", value=120),
    ]
