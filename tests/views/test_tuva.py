"""Tuva's input layer: exactly its columns and keys, amounts against plain Python."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.views import load_view, view

Reader = Callable[[Path], list[dict[str, Any]]]
KEYS = {
    "eligibility": [
        "person_id",
        "member_id",
        "enrollment_start_date",
        "enrollment_end_date",
        "payer",
        "plan",
        "data_source",
    ],
    "medical_claim": ["claim_id", "claim_line_number", "data_source"],
    "pharmacy_claim": ["claim_id", "claim_line_number", "data_source"],
}
FOLDERS = ("cms-claims/r4-v2", "cms-claims/r4-v3")


def tuva_columns(path: Path) -> list[str]:
    """Names of the model's columns, in its order: the entries at the indent of ``columns:``."""
    text = path.read_text()
    start = re.search(r"^( *)columns:\n", text, re.MULTILINE)
    assert start is not None
    return re.findall(rf"^{start[1]}(?:  )?- name: (\w+)$", text[start.end() :], re.MULTILINE)


@pytest.mark.parametrize("table", KEYS)
def test_columns_and_their_order_are_tuvas(shared: Path, table: str) -> None:
    assert load_view(f"tuva_{table}").schema().names == tuva_columns(shared / f"data/tuva-input-layer/{table}.yml")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("table", KEYS)
def test_keys_are_unique(shared: Path, table: str, folder: str) -> None:
    rows = view(f"tuva_{table}", shared / "data" / folder).select(KEYS[table]).to_pylist()
    assert rows
    assert len({tuple(row.values()) for row in rows}) == len(rows)


def test_dates_and_amounts_are_typed() -> None:
    schema = load_view("tuva_medical_claim").schema()
    for name in ("claim_start_date", "claim_line_end_date", "paid_date", "procedure_date_25"):
        assert schema.field(name).type == pa.date32(), name
    for name in ("paid_amount", "charge_amount", "total_cost_amount"):
        assert pa.types.is_decimal(schema.field(name).type), name


@pytest.mark.parametrize("folder", FOLDERS)
def test_medical_claims_have_every_line_that_is_not_pharmacy(shared: Path, resources: Reader, folder: str) -> None:
    lines = 0
    for eob in resources(shared / "data" / folder / "ExplanationOfBenefit.ndjson"):
        kinds = {item["code"] for item in eob["type"]["coding"]}
        if "pharmacy" not in kinds and eob["use"] != "preauthorization":
            lines += len(eob.get("item", [])) or 1
    assert view("tuva_medical_claim", shared / "data" / folder).num_rows == lines


def line_total(shared: Path, resources: Reader, folder: str, *variables: str) -> Decimal:
    total = Decimal(0)
    for eob in resources(shared / "data" / folder / "ExplanationOfBenefit.ndjson"):
        kinds = {item["code"] for item in eob["type"]["coding"]}
        if "pharmacy" in kinds or eob["use"] == "preauthorization":
            continue
        for item in eob.get("item", []):
            for entry in item.get("adjudication", []):
                codes = {coding["code"].rpartition("/")[2] for coding in entry["category"]["coding"]}
                if codes & set(variables):
                    total += Decimal(str(entry["amount"]["value"]))
    return total


@pytest.mark.parametrize(
    ("folder", "column", "variables"),
    [
        (FOLDERS[0], "charge_amount", ("line_sbmtd_chrg_amt", "rev_cntr_tot_chrg_amt")),
        (FOLDERS[0], "allowed_amount", ("line_alowd_chrg_amt",)),
        (FOLDERS[0], "paid_amount", ("line_nch_pmt_amt", "rev_cntr_pmt_amt_amt")),
        (
            FOLDERS[0],
            "deductible_amount",
            ("line_bene_ptb_ddctbl_amt", "rev_cntr_cash_ddctbl_amt", "rev_cntr_blood_ddctbl_amt"),
        ),
        (FOLDERS[1], "charge_amount", ("CLM_LINE_SBMT_CHRG_AMT",)),
        (FOLDERS[1], "allowed_amount", ("CLM_LINE_ALOWD_CHRG_AMT",)),
        (FOLDERS[1], "paid_amount", ("CLM_LINE_CVRD_PD_AMT",)),
        (FOLDERS[1], "deductible_amount", ("CLM_LINE_MDCR_DDCTBL_AMT", "CLM_LINE_BLOOD_DDCTBL_AMT")),
    ],
)
def test_totals_equal_plain_python(
    shared: Path, resources: Reader, folder: str, column: str, variables: tuple[str, ...]
) -> None:
    rows = view("tuva_medical_claim", shared / "data" / folder)
    given = sum((value for value in rows[column].to_pylist() if value is not None), Decimal(0))
    assert given == line_total(shared, resources, folder, *variables)


def test_a_pharmacy_claim(shared: Path) -> None:
    (row,) = view("tuva_pharmacy_claim", shared / "data/cms-claims/r4-v2").to_pylist()
    assert (row["claim_id"], row["ndc_code"], row["days_supply"]) == ("pde-89", "000000000", 30)
    assert (row["paid_amount"], row["copayment_amount"]) == (Decimal("126.99"), Decimal("235.85"))
    assert (row["prescribing_provider_npi"], row["dispensing_provider_npi"]) == ("1750384806", "1023011079")


def test_the_social_security_number_is_left_out(shared: Path) -> None:
    rows = view("tuva_eligibility", shared / "data/cms-claims/r4-v2")
    assert rows["social_security_number"].null_count == rows.num_rows


def test_the_data_source_is_a_parameter(shared: Path) -> None:
    rows = load_view("tuva_eligibility").run(shared / "data/cms-claims/r4-v2", {"data_source": "bcda"})
    assert set(rows["data_source"].to_pylist()) == {"bcda"}
