"""The synthetic population: the same for the same seed, plainly synthetic, and true to its plan."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from hiexchange import ndjson
from hiexchange.testing.population import Population, generate
from hiexchange.testing.population.people import npi


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Population:
    return generate(tmp_path_factory.mktemp("population"), patients=600, seed=11)


def test_same_seed_same_bytes(population: Population, tmp_path: Path) -> None:
    again = generate(tmp_path, patients=600, seed=11)
    for path in sorted(population.folder.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again.folder / path.relative_to(population.folder)).read_bytes()


def test_a_larger_population_does_not_change_the_people_of_a_block(population: Population, tmp_path: Path) -> None:
    larger = generate(tmp_path, patients=1100, seed=11)
    first = [line for line, _ in zip(ndjson.reader(population.fhir / "Patient.ndjson"), range(500), strict=False)]
    same = [line for line, _ in zip(ndjson.reader(larger.fhir / "Patient.ndjson"), range(500), strict=False)]
    assert [person["id"] for person in first] == [person["id"] for person in same]


def test_everybody_is_plainly_synthetic(population: Population) -> None:
    ids = set()
    for person in ndjson.reader(population.fhir / "Patient.ndjson"):
        ids.add(person["id"])
        assert person["id"].startswith("-")
        for identifier in person["identifier"]:
            if identifier["system"].endswith("us-ssn"):
                assert identifier["value"].startswith("999-")
    assert len(ids) == 600


def test_mbis_follow_the_form_with_s_second() -> None:
    from hiexchange.testing.population.people import Person

    a, an = "[AC-HJKMNP-RT-Y]", "[AC-HJKMNP-RT-Y0-9]"
    form = re.compile(rf"^[1-9]S{an}\d{a}{an}\d{a}{a}\d\d$")
    people = [
        Person(n, "A", "B", "", "female", date(1950, 1, 1), "", "", "", "", ("", ""), False, "en")
        for n in (1, 999, 123_456, 2_000_000)
    ]
    assert all(form.match(person.mbi) for person in people)
    assert len({person.mbi for person in people}) == len(people)


def test_npis_pass_their_check_digit() -> None:
    def luhn(number: str) -> int:
        digits = [int(digit) for digit in reversed("80840" + number)]
        return sum(sum(divmod(digit * 2, 10)) if place % 2 else digit for place, digit in enumerate(digits)) % 10

    assert {luhn(npi(base)) for base in range(99_900_000, 99_900_200)} == {0}


def test_every_reference_leads_to_a_resource(population: Population) -> None:
    present, wanted = set(), set()
    for path in population.fhir.iterdir():
        text = path.read_text()
        present |= {f"{path.stem}/{json.loads(line)['id']}" for line in text.splitlines()}
        wanted |= set(re.findall(r'"reference":"([^"]+)"', text))
    assert wanted <= present


def test_planted_follow_up_agrees_with_a_recount_of_the_visits(population: Population) -> None:
    """The plan says who was followed up; count the encounters' dates again, without the plan."""
    stays, clinic, deaths = {}, {}, {}
    for person in ndjson.reader(population.fhir / "Patient.ndjson"):
        if "deceasedDateTime" in person:
            deaths[person["id"]] = date.fromisoformat(person["deceasedDateTime"])
    for visit in ndjson.reader(population.fhir / "Encounter.ndjson"):
        person = visit["subject"]["reference"].split("/")[1]
        start, end = (date.fromisoformat(visit["period"][key][:10]) for key in ("start", "end"))
        kind = visit["class"]["code"]
        if kind == "IMP":
            home = visit["hospitalization"]["dischargeDisposition"]["coding"][0]["code"]
            stays.setdefault(person, []).append((visit["id"], start, end, home))
        elif kind == "AMB":
            clinic.setdefault(person, []).append(start)
    planted = {fact["encounter"]: fact for fact in population.truth.facts("discharges")}
    assert len(planted) == sum(len(rows) for rows in stays.values())
    for person, rows in stays.items():
        for visit, _, end, home in rows:
            fact = planted[visit]
            assert fact["denominator"] == (home != "hosp" and end <= date(2025, 12, 24))
            again = any(0 < (start - end).days <= 7 for other, start, _, _ in rows if other != visit)
            died = person in deaths and (deaths[person] - end).days <= 7
            if fact["denominator"]:
                assert fact["excluded"] == (again or died)
                followed = any(1 <= (day - end).days <= 7 for day in clinic.get(person, []))
                assert fact["numerator"] == (followed and not fact["excluded"])


def test_rosters_hold_every_class_of_trouble(population: Population) -> None:
    classes = Counter(fact["trouble"] for fact in population.truth.facts("members"))
    assert {"clean", "no-id", "nickname", "married", "moved", "typo", "absent"} <= set(classes)
    assert any(name.startswith("twin") for name in classes)


def test_comparison_notices_one_planted_difference_of_each_kind(population: Population) -> None:
    truth = population.truth
    links = [
        (fact["payer"], fact["member_id"], "auto" if fact["expect"] == "link" else "review", fact["person"])
        for fact in truth.facts("members")
    ]
    assert not any(truth.matching(links).values())
    payer, member, _, _ = links[0]
    assert truth.matching([(payer, member, "auto", "-1"), *links[1:]])[next(truth.facts("members"))["trouble"]]
    notices = {(fact["encounter"], fact["trigger"], fact["subscriber"]) for fact in truth.facts("notices")}
    assert truth.routing(notices) == []
    assert [item.kind for item in truth.routing(notices | {("x", "admit", "practice-1")})] == ["unexpected"]
    must = next(fact for fact in truth.facts("notices") if fact["expect"] == "must")
    gone = notices - {(must["encounter"], must["trigger"], must["subscriber"])}
    assert [item.kind for item in truth.routing(gone)] == ["missing"]
    episodes = [
        (fact["encounter"], int(fact["denominator"]), int(fact["excluded"]), int(fact["numerator"]))
        for fact in truth.facts("discharges")
    ]
    assert truth.measure(episodes) == []
    counted = next(episode for episode in episodes if episode[1])
    assert truth.measure([episode for episode in episodes if episode != counted]) != []
