"""Layouts as data: shipped ones, extension, mistakes, inference, crosswalks."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.errors import ConfigError, RosterError, UnknownLayout
from hiexchange.roster import Roster, check_providers, infer_layout, load_layout, read_crosswalk, shipped_layouts

Read = Callable[..., Roster]
Codes = Callable[[Roster], list[tuple[int | None, str, str | None]]]


def test_every_shipped_layout_loads_and_unverified_ones_say_so() -> None:
    layouts = {layout.name: layout for layout in shipped_layouts()}
    assert set(layouts) == {
        *("csv", "tsv", "pipe", "fixed", "xlsx", "atr-ndjson", "dpc-group", "x12-834", "tuva", "healthgorilla"),
        *("alr-1-1", "alr-1-4", "alr-1-5", "reach-bar", "cclf8", "cclf9", "hinfonet"),
    }
    unverified = {name for name, layout in layouts.items() if not layout.verified}
    assert unverified == {"reach-bar", "hinfonet"}
    assert all(layout.description and layout.version for layout in layouts.values())


@pytest.mark.parametrize(
    "values",
    [
        {"name": "x", "colums": {}},
        {"name": "x", "columns": {"npi": "NPI"}},
        {"name": "x", "columns": {"member_id": {"sauce": "A"}}},
        {"name": "x", "file": {"kind": "pdf"}},
        {"name": "x", "file": {"delimiter": "||"}},
        {"name": "x", "list": {"as_of": {"file_name": "no group"}}},
        {"name": "x", "list": {"as_of": {"file_name": "("}}},
    ],
)
def test_a_mistake_in_a_layout_is_named(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        load_layout(values)


def test_unknown_layouts_and_broken_toml(tmp_path: Path) -> None:
    with pytest.raises(UnknownLayout) as caught:
        load_layout("payer-z")
    assert "csv" in str(caught.value.hint)
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(ConfigError):
        load_layout(tmp_path / "bad.toml")


def test_a_layout_extends_another_and_keeps_its_rules(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\nextends = "pipe"\n[columns]\nprovider_npi = "DOC"\n')
    layout = load_layout(tmp_path / "mine.toml")
    assert (layout.name, layout.file.delimiter, layout.columns["provider_npi"].source) == ("mine", "|", "DOC")
    assert layout.columns["member_id"].required


def test_health_gorilla_panel(read: Read) -> None:
    data = (
        "First_name,Last_name,Date_of_birth,Gender,Zip_code,Subscriber_ID,Internal_ID,PCPID,MBI\n"
        "Ann,Smith,01/02/1960,F,02138,S1,I1,1234567893,1SG4TE5MK73\n"
    )
    row = read(data.encode(), "healthgorilla").members.to_pylist()[0]
    assert (row["member_id"], row["subscriber_id"], row["birth_on"], row["zip"]) == (
        "I1",
        "S1",
        date(1960, 1, 2),
        "02138",
    )
    panel = data.replace(",PCPID,MBI", "").replace(",1234567893,1SG4TE5MK73", "")
    with pytest.raises(RosterError):
        read(panel.encode(), "healthgorilla")
    layout = {"extends": "healthgorilla", "columns": {"org_id": {"constant": "clinic-7"}}}
    assert read(panel.encode(), layout).members["org_id"].to_pylist() == ["clinic-7"]


def test_hinfonet_takes_its_date_from_the_file_name(read: Read) -> None:
    layout = {"extends": "hinfonet", "verified": True, "columns": {"org_id": {"constant": "site-1"}}}
    roster = read(b"member_id|last_name\nM1|Hill\n", layout, name="pmat_user_site1_01312026.txt", as_of=None)
    assert roster.as_of == date(2026, 1, 31)


def test_tuva_member_months(read: Read, shared: Path) -> None:
    header = "person_id,patient_id,member_id,year_month,payer,plan,data_source,payer_attributed_provider,payer_attributed_provider_lob"
    data = f"{header}\nP1,P1,M1,202601,aetna,gold,x,1234567893,commercial\nP1,P1,M1,202602,aetna,gold,x,1234567893,commercial\n"
    rows = read(data.encode(), "tuva").members.to_pylist()
    assert [(row["valid_from"], row["valid_to"]) for row in rows] == [
        (date(2026, 1, 1), date(2026, 2, 1)),
        (date(2026, 2, 1), date(2026, 3, 1)),
    ]
    assert (rows[0]["payer_id"], rows[0]["plan_id"], rows[0]["line_of_business"]) == ("aetna", "gold", "commercial")
    text = (shared / "data" / "tuva-input-layer" / "provider_attribution.yml").read_text()
    used = {rule.source for rule in load_layout("tuva").columns.values()}
    assert all(f"- name: {name}\n" in text for name in used)


# Element, start, width: CMS CCLF Information Packet 36 (see layouts/cclf8.toml), as a writer of the file would use it.
CCLF8 = (
    *(("BENE_MBI_ID", 11), ("BENE_HIC_NUM", 11), ("BENE_FIPS_STATE_CD", 2), ("BENE_FIPS_CNTY_CD", 3)),
    *(("BENE_ZIP_CD", 5), ("BENE_DOB", 10), ("BENE_SEX_CD", 1), ("BENE_RACE_CD", 1), ("BENE_AGE", 3)),
    *(("BENE_MDCR_STUS_CD", 2), ("BENE_DUAL_STUS_CD", 2), ("BENE_DEATH_DT", 10), ("BENE_RNG_BGN_DT", 10)),
    *(("BENE_RNG_END_DT", 10), ("BENE_1ST_NAME", 30), ("BENE_MIDL_NAME", 15), ("BENE_LAST_NAME", 40)),
    *(("BENE_ORGNL_ENTLMT_RSN_CD", 1), ("BENE_ENTLMT_BUYIN_IND", 1)),
)
CCLF9 = (("XREF", 1), ("CRNT_NUM", 11), ("PRVS_NUM", 11), ("EFCTV", 10), ("OBSLT", 10), ("RRB", 12))


def fixed_line(elements: tuple[tuple[str, int], ...], **values: str) -> str:
    return "".join(values.get(name, "").ljust(width) for name, width in elements) + "\n"


@pytest.mark.parametrize(
    "name",
    [
        "P.A1234.ACO.ZC8Y26.D260131.T1234567",
        "P.A1234.ACO.ZC8R26.D260131.T1234567",
        "P.A1234.ACO.ZC8WY26.D260131.T1234567",
        "P.A1234.ACO.ZC8WY26.S260124.E260130.D260131.T1234567",
    ],
)
def test_cclf8_element_by_element_and_its_own_date(read: Read, codes: Codes, name: str) -> None:
    ann = {"BENE_MBI_ID": "1SG4TE5MK73", "BENE_ZIP_CD": "72032", "BENE_DOB": "1950-01-02", "BENE_SEX_CD": "2"}
    ann |= {"BENE_1ST_NAME": "ANN", "BENE_MIDL_NAME": "LOU", "BENE_LAST_NAME": "SMITH", "BENE_DEATH_DT": "2026-01-15"}
    # Dates that mean nothing, and the mark for no code.
    bo = {"BENE_MBI_ID": "1SG4TE5MK72", "BENE_DOB": "1000-01-01", "BENE_SEX_CD": "~", "BENE_DEATH_DT": "1000-01-01"}
    cy = {"BENE_MBI_ID": "1SG4TE5MK71", "BENE_DOB": "1951-02-03", "BENE_SEX_CD": "0", "BENE_DEATH_DT": "9999-12-31"}
    data = "".join(fixed_line(CCLF8, BENE_RNG_BGN_DT="1000-01-01", **values) for values in (ann, bo, cy))
    layout = {"extends": "cclf8", "columns": {"org_id": {"constant": "A1234"}}}
    roster = read(data.encode(), layout, name=name, as_of=None)
    assert roster.as_of == date(2026, 1, 31)
    assert [code for _, code, _ in codes(roster)] == ["deceased"]
    first, second, third = roster.members.to_pylist()
    assert (first["member_id"], first["mbi"], first["attribution_level"]) == ("1SG4TE5MK73", "1SG4TE5MK73", "aco")
    assert (first["first_name"], first["middle_name"], first["last_name"]) == ("ANN", "LOU", "SMITH")
    assert (first["zip"], first["sex"]) == ("72032", "female")
    assert (first["birth_on"], first["deceased_on"]) == (date(1950, 1, 2), date(2026, 1, 15))
    assert (second["birth_on"], second["sex"], second["deceased_on"]) == (None, None, None)
    assert (third["birth_on"], third["sex"], third["deceased_on"]) == (date(1951, 2, 3), "unknown", None)


# The header lines of the sources named in the layouts.
ALR_PERSON = "BENE_MBI_ID,BENE_HIC_NUM,BENE_1ST_NAME,BENE_LAST_NAME,BENE_SEX_CD,BENE_BRTH_DT,BENE_DEATH_DT"
ALR_PLACE = "GEO_SSA_CNTY_CD_NAME,GEO_SSA_STATE_NAME,STATE_COUNTY_CD,IN_VA_MAX,VA_TIN,VA_NPI,CBA_FLAG,ASSIGNMENT_TYPE"
ACO = {"org_id": {"constant": "A1234"}}


def test_alr_1_1_of_a_prospective_list(read: Read, codes: Codes) -> None:
    header = f"{ALR_PERSON},{ALR_PLACE},ASG_STATUS,PARTD_MONTHS,EXCLUDED,DECEASED_EXCLUDED"
    tail = "Faulkner,Arkansas,04220,0,,,1,1,1,12"
    data = (
        f"{header}\n1SG4TE5MK73,,Ann,Smith,2,08/13/1948,,{tail},0,0\n"
        f"1SG4TE5MK72,,Bo,Hill,0,01/03/1945,01/09/2026,{tail},1,1\n"
    )
    roster = read(data.encode(), {"extends": "alr-1-1", "columns": ACO})
    assert codes(roster) == []
    ann, bo = roster.members.to_pylist()
    assert (ann["birth_on"], ann["sex"], ann["payer_change_type"]) == (date(1948, 8, 13), "female", None)
    assert (bo["sex"], bo["deceased_on"], bo["payer_change_type"]) == ("unknown", date(2026, 1, 9), "dropped")
    # The report restates the year; who is excluded was assigned until the day it speaks of.
    assert (ann["valid_from"].isoformat(), ann["valid_to"].isoformat()) == ("2026-01-01", "9999-12-31")
    assert (bo["valid_from"].isoformat(), bo["valid_to"].isoformat()) == ("2026-01-01", "2026-02-01")


def test_alr_turnover_drops_from_the_assigned_list(read: Read) -> None:
    quarterly = f"{ALR_PERSON},{ALR_PLACE},ASSIGNED_BEFORE,ASG_STATUS,PARTD_MONTHS"
    line = "1SG4TE5MK73,,Ann,Smith,2,08/13/1948,"
    one = read(
        f"{quarterly}\n{line},,,,0,,,1,1,1,1,12\n".encode(), {"extends": "alr-1-1", "columns": ACO}, name="one.csv"
    )
    five = read(
        f"{ALR_PERSON},PLUR_R05,AB_R01,HMO_R03,NO_US_R02,MDM_R04,NOFND_R06\n{line},1,0,0,0,0,0\n".encode(),
        {"extends": "alr-1-5", "columns": ACO},
        name="five.csv",
    )
    assert one.list_id == five.list_id
    assert one.members["birth_on"].to_pylist() == five.members["birth_on"].to_pylist() == [date(1948, 8, 13)]
    assert (five.mode, five.members["payer_change_type"].to_pylist()) == ("delta", ["dropped"])


def test_alr_1_4_names_clinician_and_practice(read: Read, codes: Codes) -> None:
    # Every header quoted, as CMS sends them; a spreadsheet took the leading zero of one TIN.
    header = ",".join(f'"{name}"' for name in f"{ALR_PERSON},MASTER_ID,NPI_USED,PCS_COUNT".split(","))
    person = "1SG4TE5MK73,,Ann,Smith,2,08-13-1948,"
    data = f"{header}\n{person},710000001,1234567893,4\n{person},10000001,1999999984,1\n"
    roster = read(data.encode(), "alr-1-4")
    assert codes(roster) == []
    assert [
        (row["provider_tin"], row["provider_npi"], row["attribution_level"]) for row in roster.members.to_pylist()
    ] == [
        ("710000001", "1234567893", "clinician"),
        ("010000001", "1999999984", "clinician"),
    ]


def test_reach_alignment_is_a_workbook(read: Read, tmp_path: Path) -> None:
    xlsxwriter = pytest.importorskip("xlsxwriter")
    path = tmp_path / "P.D0001.ALGC26.RP.D260201.T0100000.xlsx"
    header = (
        *("Beneficiary MBI ID", "Beneficiary Alignment Effective Start Date"),
        *("Beneficiary Alignment Effective Termination Date", "Beneficiary First Name", "Beneficiary Last Name"),
        *("Beneficiary Line 1 Address", "Beneficiary City", "Beneficiary USPS State Code", "Beneficiary Zip 5"),
        *("Beneficiary Gender", "Race-Ethnicity", "Beneficiary Date of Birth", "Beneficiary Date of Death"),
    )
    with xlsxwriter.Workbook(path) as workbook:
        sheet = workbook.add_worksheet()
        sheet.write_row(0, 0, header)
        sheet.write_row(
            *(1, 0),
            *(
                (
                    "1SG4TE5MK73",
                    "1/1/2026",
                    "",
                    "Ann",
                    "Smith",
                    "1 Elm St",
                    "Conway",
                    "AR",
                    2138,
                    "F",
                    "1",
                    "8/13/1948",
                    "",
                ),
            ),
        )
        sheet.write_row(2, 0, ("1SG4TE5MK72", "01/01/2026", "01/15/2026", "Bo", "Hill"))
    with pytest.raises(RosterError):
        read(path, {"extends": "reach-bar", "columns": ACO}, as_of=None)
    reach = read(path, {"extends": "reach-bar", "verified": True, "columns": ACO}, as_of=None)
    ann, bo = reach.members.to_pylist()
    assert reach.as_of == date(2026, 2, 1)
    assert (ann["valid_from"], ann["birth_on"], ann["sex"], ann["zip"]) == (
        *(date(2026, 1, 1), date(1948, 8, 13)),
        *("female", "02138"),
    )
    assert (ann["address_line"], ann["city"], ann["state"]) == ("1 Elm St", "Conway", "AR")
    assert [row["valid_to"].isoformat() for row in (ann, bo)] == ["9999-12-31", "2026-01-16"]


def test_a_crosswalk_is_read_element_by_element(tmp_path: Path) -> None:
    path = tmp_path / "cclf9.txt"
    path.write_text(
        fixed_line(
            CCLF9, XREF="M", CRNT_NUM="1SG4TE5MK74", PRVS_NUM="1SG4TE5MK73", EFCTV="2026-01-01", OBSLT="9999-12-31"
        )
        + fixed_line(CCLF9, XREF="M", CRNT_NUM="1SG4TE5MK76", EFCTV="2026-01-01")
    )
    assert read_crosswalk(path).to_pylist() == [{"previous": "1SG4TE5MK73", "current": "1SG4TE5MK74"}]
    with pytest.raises(RosterError):
        read_crosswalk(path, {"extends": "cclf9", "verified": False})


def test_inference_proposes_and_a_person_accepts(read: Read, write: Any, tmp_path: Path) -> None:
    header = "Mbr No|DOC|Birth Date|Gender|Postal Code|Start|Odd"
    text = "M1|1234567893|01/02/1960|F|72032|20260101|x\nM2|1999999984|02/03/1961|M|72033|20260101|y\n"
    path = write(text, name="panel.txt", header=header)
    proposal = infer_layout(path)
    found = {guess.column: (guess.source, guess.confidence, guess.format) for guess in proposal.guesses}
    assert found["member_id"] == ("Mbr No", 0.8, None)
    assert found["provider_npi"] == ("DOC", 0.5, None)
    assert found["birth_on"] == ("Birth Date", 0.95, "%m/%d/%Y")
    assert found["valid_from"] == ("Start", 0.95, "%Y%m%d")
    assert proposal.unused == ("Odd",)
    values = tomllib.loads(proposal.to_toml())
    assert values["verified"] is False
    with pytest.raises(RosterError):
        read(path, values)
    assert read(path, {**values, "verified": True}).counts.accepted == 2


@pytest.mark.parametrize(("data", "base"), [(b"ISA*00*", "x12-834"), (b'{"resourceType":"Group"}', "atr-ndjson")])
def test_inference_knows_the_standards(tmp_path: Path, data: bytes, base: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert tomllib.loads(infer_layout(path).to_toml())["extends"] == base


def test_inference_gives_up_on_text_without_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("HEADER\nM00001SMITH\n")
    with pytest.raises(RosterError):
        infer_layout(path)


def test_the_registry_tells_wrong_kinds_and_deactivated_npis(read: Read, rows: Callable[..., str]) -> None:
    roster = read("\n".join([rows(1), rows(2, provider_npi="1999999984"), rows(3, provider_npi="1003000126")]))
    registry = pa.table(
        {"npi": ["1234567893", "1999999984"], "entity_type": ["2", "1"], "deactivated_on": [None, date(2025, 1, 1)]}
    )
    found = check_providers(roster.members, registry, file="roster.csv")
    assert found["code"].to_pylist() == ["npi_type_2", "npi_deactivated", "npi_unknown"]
