"""Claim views on real payer payloads against totals worked out in plain Python over the JSON."""

from __future__ import annotations

import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from hiexchange.views import view

Reader = Callable[[Path], list[dict[str, Any]]]
STANDARD = (
    "http://terminology.hl7.org/CodeSystem/adjudication",
    "http://hl7.org/fhir/us/carin-bb/CodeSystem/C4BBAdjudication",
)
FOLDERS = ("cms-claims/r4-v2", "cms-claims/r4-v3", "synthea-100")


def eobs(shared: Path, folder: str, resources: Reader) -> list[dict[str, Any]]:
    (path,) = (shared / "data" / folder).glob("ExplanationOfBenefit.ndjson*")
    return resources(path)


def adjudications(eob: dict[str, Any]) -> Iterator[tuple[str, int | None, dict[str, Any]]]:
    for item in eob.get("item", []):
        for entry in item.get("adjudication", []):
            yield "line", item["sequence"], entry
    for entry in eob.get("adjudication", []):
        yield "claim", None, entry
    for entry in eob.get("total", []):
        yield "total", None, entry


def category(entry: dict[str, Any]) -> str:
    return next((item["code"] for item in entry["category"]["coding"] if item["system"] in STANDARD), "other")


def amount(entry: dict[str, Any]) -> Decimal:
    return Decimal(str(entry.get("amount", {}).get("value", 0)))


@pytest.mark.parametrize("folder", FOLDERS)
def test_amounts_by_level_and_category_are_exact(shared: Path, resources: Reader, folder: str) -> None:
    expected: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    counts: Counter[tuple[str, str]] = Counter()
    for eob in eobs(shared, folder, resources):
        for level, _, entry in adjudications(eob):
            expected[level, category(entry)] += amount(entry)
            counts[level, category(entry)] += 1
    given: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    seen: Counter[tuple[str, str]] = Counter()
    for row in view("claim_adjudication", shared / "data" / folder).to_pylist():
        given[row["level"], row["category"]] += Decimal(row["amount"] or 0)
        seen[row["level"], row["category"]] += 1
    assert given == expected
    assert seen == counts


@pytest.mark.parametrize("folder", FOLDERS)
def test_amount_texts_are_the_payers_digits(shared: Path, folder: str) -> None:
    rows = view("claim_adjudication", shared / "data" / folder)
    (path,) = (shared / "data" / folder).glob("ExplanationOfBenefit.ndjson*")
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    # Every amount of the view is written in the file just so.
    literals = set(re.findall(r'"value":(-?[0-9.eE+-]+)', text))
    assert set(pc.unique(rows["amount"].drop_null()).to_pylist()) <= literals


@pytest.mark.parametrize("folder", FOLDERS)
def test_claim_headers_agree_with_the_json(shared: Path, resources: Reader, folder: str) -> None:
    given = eobs(shared, folder, resources)
    rows = view("claim_header", shared / "data" / folder).to_pylist()
    assert len(rows) == len(given)
    for row, eob in zip(rows, given, strict=True):
        assert row["claim_key"] == eob.get("id", row["claim_key"])
        assert row["patient_id"] == eob["patient"]["reference"].removeprefix("Patient/")
        types = {item["system"]: item["code"] for item in eob["type"]["coding"]}
        assert row["claim_type"] == types["http://terminology.hl7.org/CodeSystem/claim-type"]
        paid = eob.get("payment", {}).get("amount", {}).get("value")
        assert (row["payment_amount"] and Decimal(row["payment_amount"])) == paid
        period = eob.get("billablePeriod", {})
        assert (row["billable_start"], row["billable_end"]) == (period.get("start"), period.get("end"))
        codes = [
            entry["diagnosisCodeableConcept"]["coding"][0]["code"]
            for entry in eob.get("diagnosis", [])
            if "diagnosisCodeableConcept" in entry
        ]
        assert row["diagnosis_codes"] == codes


@pytest.mark.parametrize(
    ("folder", "system"),
    [("cms-claims/r4-v2", "clm_id"), ("synthea-100", "clm_id")],
)
def test_claim_ids_are_the_payers(shared: Path, resources: Reader, folder: str, system: str) -> None:
    rows = view("claim_header", shared / "data" / folder).to_pylist()
    for row, eob in zip(rows, eobs(shared, folder, resources), strict=True):
        ids = [item["value"] for item in eob["identifier"] if re.search("clm_id|pde_id", item.get("system", ""))]
        assert row["claim_id"] == ids[0]


def npi_of(provider: dict[str, Any], eob: dict[str, Any]) -> str | None:
    if "identifier" in provider:
        kinds = [item.get("code", "").lower() for item in provider["identifier"].get("type", {}).get("coding", [])]
        if "npi" in provider["identifier"].get("system", "") or "npi" in kinds:
            return provider["identifier"]["value"]
    target = provider.get("reference", "")
    for resource in eob.get("contained", []):
        if target == "#" + resource["id"]:
            for item in resource.get("identifier", []):
                kinds = [coding.get("code", "").lower() for coding in item.get("type", {}).get("coding", [])]
                if "npi" in item.get("system", "") or "npi" in kinds:
                    return item["value"]
    return None


@pytest.mark.parametrize("folder", FOLDERS[:2])
def test_provider_npis_by_role(shared: Path, resources: Reader, folder: str) -> None:
    roles = {"attending": {"attending"}, "operating": {"operating"}, "rendering": {"rendering", "performing"}}
    rows = view("claim_header", shared / "data" / folder).to_pylist()
    for row, eob in zip(rows, eobs(shared, folder, resources), strict=True):
        assert row["provider_npi"] == npi_of(eob["provider"], eob)
        for column, codes in roles.items():
            team = [
                npi_of(member["provider"], eob)
                for member in eob.get("careTeam", [])
                if codes & {item["code"] for item in member["role"]["coding"]}
            ]
            assert row[f"{column}_npi"] == (team[0] if team else None)


@pytest.mark.parametrize("folder", FOLDERS)
def test_claim_lines_agree_with_the_json(shared: Path, resources: Reader, folder: str) -> None:
    items = [item for eob in eobs(shared, folder, resources) for item in eob.get("item", [])]
    rows = view("claim_line", shared / "data" / folder).to_pylist()
    assert [row["line_number"] for row in rows] == [item["sequence"] for item in items]
    for row, item in zip(rows, items, strict=True):
        codings = item["productOrService"].get("coding", [{}])
        assert row["service_code"] == codings[0].get("code")
        assert row["care_team_sequences"] == item.get("careTeamSequence", [])
        modifiers = [modifier["coding"][0]["code"] for modifier in item.get("modifier", [])]
        assert [row[f"modifier_{at}"] for at in range(1, 6)] == (modifiers + [None] * 5)[:5]
        net = item.get("net", {}).get("value")
        assert (row["net"] and Decimal(row["net"])) == (None if net is None else Decimal(str(net)))


@pytest.mark.parametrize(("folder", "diagnoses", "procedures"), [("r4-v2", 40, 8), ("r4-v3", 42, 25)])
def test_diagnoses_and_procedures_are_complete(
    shared: Path, resources: Reader, folder: str, diagnoses: int, procedures: int
) -> None:
    source = shared / "data/cms-claims" / folder
    given = resources(source / "ExplanationOfBenefit.ndjson")
    found = view("claim_diagnosis", source)
    assert found.num_rows == sum(len(eob.get("diagnosis", [])) for eob in given) == diagnoses
    found = view("claim_procedure", source)
    assert found.num_rows == sum(len(eob.get("procedure", [])) for eob in given) == procedures


def test_present_on_admission_comes_from_either_place(shared: Path) -> None:
    # CMS v2 puts it in an extension, v3 in onAdmission.
    for folder, values in (("r4-v2", {"Y", "N", "U", "W", "1", "0", "Z"}), ("r4-v3", {"Y", "N"})):
        rows = view("claim_diagnosis", shared / "data/cms-claims" / folder)
        found = set(pc.unique(rows["poa"].drop_null()).to_pylist())
        assert found and found <= values


def test_claims_carry_the_beneficiarys_mbi(shared: Path) -> None:
    rows = view("claim_with_mbi", shared / "data/cms-claims/r4-v2").to_pylist()
    assert {row["mbi"] for row in rows} == {"3456789"}
    v3 = view("claim_with_mbi", shared / "data/cms-claims/r4-v3").to_pylist()
    assert {row["mbi"] for row in v3 if row["patient_id"] == "123456789"} == {"ABB2BB0BB22"}
