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
    assert unverified == {"alr-1-1", "alr-1-4", "alr-1-5", "reach-bar", "cclf8", "cclf9", "hinfonet"}
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


def test_cclf8_positions_and_its_own_date(read: Read) -> None:
    line = list(" " * 170)
    for start, text in ((1, "1SG4TE5MK73"), (28, "72032"), (33, "1950-01-02"), (43, "2"), (82, "ANN"), (127, "SMITH")):
        line[start - 1 : start - 1 + len(text)] = text
    layout = {"extends": "cclf8", "verified": True, "columns": {"org_id": {"constant": "A1234"}}}
    name = "P.A1234.ACO.ZC8Y26.D260131.T1234567"
    roster = read(("".join(line) + "\n").encode(), layout, name=name, as_of=None)
    row = roster.members.to_pylist()[0]
    assert roster.as_of == date(2026, 1, 31)
    assert (row["member_id"], row["last_name"], row["sex"], row["zip"], row["birth_on"]) == (
        *("1SG4TE5MK73", "SMITH", "female", "72032"),
        date(1950, 1, 2),
    )


def test_alr_turnover_drops_from_the_assigned_list(read: Read) -> None:
    constant = {"org_id": {"constant": "A1234"}}
    one = read(b"BENE_MBI_ID\n1SG4TE5MK73\n", {"extends": "alr-1-1", "verified": True, "columns": constant})
    five = read(
        b"BENE_MBI_ID,REASON\n1SG4TE5MK73,moved\n", {"extends": "alr-1-5", "verified": True, "columns": constant}
    )
    assert one.list_id == five.list_id
    assert (five.mode, five.members["payer_change_type"].to_pylist()) == ("delta", ["dropped"])


def test_alr_1_4_and_reach(read: Read) -> None:
    four = read(
        b"BENE_MBI_ID,MASTER_ID,NPI_USED\n1SG4TE5MK73,710000001,1234567893\n", {"extends": "alr-1-4", "verified": True}
    )
    row = four.members.to_pylist()[0]
    assert (row["provider_tin"], row["provider_npi"], row["attribution_level"]) == (
        "710000001",
        "1234567893",
        "clinician",
    )
    data = b"MBI,Effective Date,Removal Date,Data Sharing Preference\n1SG4TE5MK73,01/01/2026,,Y\n1SG4TE5MK72,01/01/2026,01/15/2026,N\n"
    reach = read(data, {"extends": "reach-bar", "verified": True, "columns": {"org_id": {"constant": "D0001"}}})
    assert [row["valid_to"].isoformat() for row in reach.members.to_pylist()] == ["9999-12-31", "2026-01-16"]
    assert reach.members["sharing_pref"].to_pylist() == ["opt-in", "opt-out"]


def test_a_crosswalk_is_read_once_somebody_confirmed_it(tmp_path: Path) -> None:
    path = tmp_path / "cclf9.txt"
    path.write_text("M1SG4TE5MK741SG4TE5MK732026-01-01          \nM1SG4TE5MK76           2026-01-01          \n")
    with pytest.raises(RosterError):
        read_crosswalk(path)
    found = read_crosswalk(path, {"extends": "cclf9", "verified": True})
    assert found.to_pylist() == [{"previous": "1SG4TE5MK73", "current": "1SG4TE5MK74"}]


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
