"""Our FHIRHelpers against the ELM bodies of the official library, which are never run otherwise."""

from __future__ import annotations

import base64
import gzip
import itertools
import json

import msgspec
import pytest

from hiexchange.errors import MeasureError
from hiexchange.measures.cql import library
from hiexchange.measures.cql.compiler import Program, Unit
from hiexchange.measures.cql.fhirhelpers import FUNCTIONS
from hiexchange.measures.cql.model import Model
from hiexchange.measures.cql.subject import Context, Subject
from hiexchange.measures.cql.values import Concept

MODEL = Model()
UNITS = ({"code": "mg/dL"}, {"unit": "days"}, {"unit": "d", "code": "d"}, {"code": "year"}, {"unit": "g"}, {})
QUANTITIES = [
    {"value": value, "system": "http://unitsofmeasure.org", **unit, **comparator}
    for value, unit, comparator in itertools.product(
        (5, None), UNITS, ({}, {"comparator": "<"}, {"comparator": "<="}, {"comparator": ">"}, {"comparator": ">="})
    )
]
QUANTITIES = [{key: value for key, value in item.items() if value is not None} for item in QUANTITIES]
QUANTITIES += [
    {"value": 5, "code": "a", "system": system}
    for system in ("http://hl7.org/fhirpath/CodeSystem/calendar-units", "http://example.org/units")
]
STARTS = ("2026-01-02T03:04:05Z", "2026-02", None)
PERIODS = [{k: v for k, v in (("start", a), ("end", b)) if v} for a, b in itertools.product(STARTS, STARTS)]
RANGES = [
    {k: {"value": n, "code": "mg"} for k, n in pair}
    for pair in ([("low", 1), ("high", 2)], [("low", 1)], [("high", 2)])
]
CODINGS = [{"code": "a", "system": "s", "version": "1", "display": "A"}, {"code": "b"}, {"system": "s"}]
CONCEPTS = [{"coding": CODINGS, "text": "t"}, {"coding": CODINGS[:1]}, {"text": "t"}]
RATIOS = [{"numerator": {"value": 1, "code": "mg"}, "denominator": {"value": 2, "code": "mL"}}]
INPUTS = {
    "ToQuantity": [("Quantity", item) for item in QUANTITIES],
    "ToQuantityIgnoringComparator": [("Quantity", item) for item in QUANTITIES],
    "ToInterval": [
        *(("Period", item) for item in PERIODS),
        *(("Range", item) for item in RANGES),
        *(("Quantity", item) for item in QUANTITIES if "value" in item),
    ],
    "ToConcept": [("CodeableConcept", item) for item in CONCEPTS],
    "ToCode": [("Coding", item) for item in CODINGS],
    "ToRatio": [("Ratio", item) for item in RATIOS],
    "ToValue": [
        *(("Quantity", item) for item in QUANTITIES),
        *(("Period", item) for item in PERIODS),
        *(("CodeableConcept", item) for item in CONCEPTS),
        *(("Coding", item) for item in CODINGS),
        *(("Range", item) for item in RANGES),
    ],
    "ToString": [("string", "x"), ("code", "final")],
    "ToBoolean": [("boolean", True), ("boolean", False)],
    "ToInteger": [("integer", 3)],
    "ToDateTime": [("dateTime", "2026-03-04T05:06:07-05:00"), ("dateTime", "2026")],
    "ToDate": [("date", "2026-03-04"), ("date", "2026-03")],
    "ToTime": [("time", "12:13:14")],
    "ToCalendarUnit": [("string", unit) for unit in ("ms", "s", "min", "h", "d", "wk", "mo", "a", "mg", "days")],
}
CASES = [(name, kind, value) for name, items in INPUTS.items() for kind, value in items]


@pytest.fixture(scope="module")
def official(shared):
    """The official library under another name, so that its own bodies run."""
    file = next((shared / "ecqm" / "measures").glob("CMS165*.json.gz"))
    entries = json.loads(gzip.decompress(file.read_bytes()))["entry"]
    held = next(e["resource"] for e in entries if e["resource"].get("id", "").startswith("FHIRHelpers"))
    elm = msgspec.json.decode(base64.b64decode(held["content"][0]["data"]))
    elm["library"]["identifier"]["id"] = "Official"
    return Unit(Program(MODEL), library.read(elm), {}, {}, "official")


def shown(value):
    if isinstance(value, Concept):
        return ("Concept", value.display, [shown(code) for code in value.codes])
    if hasattr(value, "__slots__"):
        return (
            type(value).__name__,
            *(shown(getattr(value, name)) for name in type(value).__slots__ if name != "kind"),
        )
    return value


def outcome(call):
    try:
        return shown(call())
    except MeasureError:
        return "error"


def test_conversions_are_those_of_the_official_library(official):
    subject = Subject(Context(official.program, {}), [])
    differences, compared = [], 0
    for name, kind, raw in CASES:
        value = MODEL.converter(kind)(raw)
        fits = [(f.fit([value]), at, f) for at, f in enumerate(official.functions[name]) if f.arity == 1]
        chosen = min((item for item in fits if item[0] is not None), default=None)
        if chosen is None:
            continue
        compared += 1
        theirs = outcome(lambda f=chosen[2], v=value: f.call(subject, [v]))
        ours = outcome(lambda n=name, v=value: FUNCTIONS[n](v))
        if ours != theirs:
            differences.append((name, kind, raw, ours, theirs))
    assert differences == []
    assert compared > 200
