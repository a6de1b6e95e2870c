"""Groups out of the ordinary: several initial populations, stratifiers that cut some populations only."""

from __future__ import annotations

from datetime import date

import pytest

from hiexchange.measures import Measure

YEAR = (date(2026, 1, 1), date(2026, 12, 31))
CODE = "http://terminology.hl7.org/CodeSystem/measure-population"
CQFM = "http://hl7.org/fhir/us/cqfmeasures/StructureDefinition/cqfm-"


def population(name, code, expression, source=None):
    item = {"id": name, "code": {"coding": [{"system": CODE, "code": code}]}, "criteria": {"expression": expression}}
    reference = {"url": f"{CQFM}criteriaReference", "valueString": source}
    return {**item, "extension": [reference]} if source else item


@pytest.fixture
def linked(small, bundle_of):
    """Adults with a visit are the denominator's source, women the numerator's."""
    measure, libraries, sets = small
    measure["scoring"] = {"coding": [{"code": "ratio"}]}
    measure["group"][0]["population"] = [
        population("adults", "initial-population", "Initial Population"),
        population("women", "initial-population", "Is Female"),
        population("den", "denominator", "Initial Population", "adults"),
        population("num", "numerator", "Numerator", "women"),
    ]
    return Measure.load(bundle_of(measure, libraries, sets))


@pytest.fixture
def controlled_man(people):
    """The same people, the man's pressure controlled."""
    (observation,) = (e["resource"] for e in people[1]["entry"] if e["resource"]["resourceType"] == "Observation")
    observation["valueQuantity"]["value"] = 120
    return people


def counts(report):
    return {item["id"]: item["count"] for item in report["group"][0]["population"]}


def test_each_population_of_a_ratio_draws_from_the_initial_population_it_is_linked_to(linked, controlled_man):
    run = linked.evaluate(controlled_man, period=YEAR)
    rows = {row["subject"]: row for row in run.table.to_pylist()}
    assert {name for name, row in rows.items() if row["denominator"]} == {"a-hit", "b-high", "c-none", "d-old-value"}
    # The man is a hit and in the other initial population; two women are hits without being in his.
    assert {name for name, row in rows.items() if row["numerator"]} == {"a-hit", "e-young", "f-no-visit"}
    assert rows["a-hit"]["initial_populations"] == ["adults", "women"]
    assert rows["b-high"]["initial_populations"] == ["adults"]
    assert rows["f-no-visit"]["initial_populations"] == ["women"]
    assert all(row["initial_population"] == 1 for row in rows.values())


def test_reports_count_each_initial_population_by_its_id(linked, controlled_man):
    run = linked.evaluate(controlled_man, period=YEAR)
    assert counts(run.to_fhir()) == {"adults": 4, "women": 5, "den": 4, "num": 3}
    assert counts(run.individual("b-high")) == {"adults": 1, "women": 0, "den": 1, "num": 0}


def test_episodes_of_two_initial_populations_are_told_apart(small, bundle_of, people):
    measure, libraries, sets = small
    measure["scoring"] = {"coding": [{"code": "ratio"}]}
    group = measure["group"][0]
    group["extension"] = [{"url": f"{CQFM}populationBasis", "valueCode": "Encounter"}]
    group["stratifier"] = []
    defines = libraries[0]["library"]["statements"]["def"]
    everything = {"type": "Retrieve", "dataType": "{http://hl7.org/fhir}Encounter", "templateId": ""}
    defines.append({"name": "Every Visit", "context": "Patient", "expression": everything})
    group["population"] = [
        population("every", "initial-population", "Every Visit"),
        population("year", "initial-population", "Visits in Period"),
        population("den", "denominator", "Every Visit", "year"),
        population("num", "numerator", "Every Visit", "every"),
    ]
    run = Measure.load(bundle_of(measure, libraries, sets)).evaluate(people, period=YEAR)
    assert counts(run.to_fhir()) == {"every": 6, "year": 5, "den": 5, "num": 6}


def test_a_stratifier_cuts_only_the_populations_it_applies_to(small, bundle_of, people):
    measure, libraries, sets = small
    applies = {"url": f"{CQFM}appliesTo", "valueCodeableConcept": {"coding": [{"system": CODE, "code": "denominator"}]}}
    measure["group"][0]["stratifier"][0]["extension"] = [applies]
    run = Measure.load(bundle_of(measure, libraries, sets)).evaluate(people, period=YEAR)
    for report in (run.to_fhir(), run.individual("a-hit")):
        for stratum in report["group"][0]["stratifier"][0]["stratum"]:
            assert [item["id"] for item in stratum["population"]] == ["denominator"]
            assert "measureScore" not in stratum
    women = next(stratum for stratum in run.summary().first.strata if stratum.value == "true")
    assert women.counts == {"denominator": 3}
    assert women.rate is None


@pytest.mark.parametrize("engine", ["rows", "columns"])
def test_a_criterion_that_does_not_fit_the_basis_is_an_error_and_never_nobody(small, bundle_of, people, engine):
    measure, libraries, sets = small
    group = measure["group"][0]
    group["stratifier"] = []
    group["population"][0]["criteria"]["expression"] = "Visits in Period"
    run = Measure.load(bundle_of(measure, libraries, sets)).evaluate(people, period=YEAR, engine=engine)
    assert set(run.table["error_define"].to_pylist()) == {"SmallMeasure|1.0.0 Visits in Period"}
    group["population"][0]["criteria"]["expression"] = "Initial Population"
    group["extension"] = [{"url": f"{CQFM}populationBasis", "valueCode": "Encounter"}]
    run = Measure.load(bundle_of(measure, libraries, sets)).evaluate(people, period=YEAR, engine=engine)
    assert set(run.table["status"].to_pylist()) == {"error"}


@pytest.mark.parametrize("order", [("num", "den"), ("den", "num")])
def test_a_ratio_of_observations_is_numerator_over_denominator_in_whatever_order_they_stand(
    small, bundle_of, people, order
):
    measure, libraries, sets = small
    measure["scoring"] = {"coding": [{"code": "ratio"}]}
    defines = libraries[0]["library"]["statements"]["def"]
    integer = "{urn:hl7-org:elm-types:r1}Integer"
    for name, value in (("den Value", "4"), ("num Value", "3")):
        defines.append({"name": name, "expression": {"type": "Literal", "valueType": integer, "value": value}})
    method = {"url": f"{CQFM}aggregateMethod", "valueString": "Sum"}
    observations = [population(None, "measure-observation", f"{name} Value", name) for name in order]
    for item in observations:
        item["extension"].append(method)
    measure["group"][0]["population"] = [
        population("ip", "initial-population", "Initial Population"),
        population("den", "denominator", "Initial Population"),
        population("num", "numerator", "Numerator"),
        *observations,
    ]
    run = Measure.load(bundle_of(measure, libraries, sets)).evaluate(people, period=YEAR)
    # One hit of 3, four in the denominator of 4 each; neither observation has an id to be told by.
    assert run.to_fhir()["group"][0]["measureScore"] == {"value": 0.1875}
    assert run.summary().rate == 0.1875
    assert {row["sex"]: row["rate"] for row in run.by("sex", min_cell=0).to_pylist()} == {"female": 0.25, "male": 0.0}
    assert all(stratum.rate is None for stratum in run.summary().first.strata)
