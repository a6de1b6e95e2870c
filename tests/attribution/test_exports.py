"""Reports and exports: re-attribution by quarter, Tuva's table, an ATR list, crosswalks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from hiexchange._files import sha256_text
from hiexchange.attribution import attribution_list, chase, current_ids, provider_attribution, reattribution
from hiexchange.attribution.tuva import COLUMNS
from hiexchange.errors import ConfigError
from hiexchange.tables import MEMBER, OPEN_INSTANT, PERSON_LINK

Build = Callable[..., Any]
JAN, FEB, MAR = (date(2026, month, 1) for month in (1, 2, 3))
LATER = datetime(2031, 1, 1, tzinfo=UTC)


def link(key: str, person: str) -> dict[str, Any]:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    more = {"method": "member_id", "band": "auto", "candidates": 1, "run_id": "r"}
    return {
        "member_key": key,
        "payer_id": "payer-a",
        "person_id": person,
        "known_from": start,
        "known_to": OPEN_INSTANT,
        **more,
    }


def test_a_quarter_in_lines_and_counts(build: Build, line: Build, fold: Build) -> None:
    first = build(
        "a", JAN, [line("stays"), line("leaves"), line("moves"), line("gains"), line("loses"), line("loses", "2")]
    )
    second = build(
        "b", FEB, [line("stays"), line("moves", "2"), line("gains"), line("gains", "2"), line("loses"), line("joins")]
    )
    rows, summary = reattribution(fold([first, second]), 2026, 1, known_at=LATER)
    assert {row["member_id"]: (row["change"], row["changed_on"]) for row in rows.to_pylist()} == {
        "leaves": ("left", FEB),
        "moves": ("moved", FEB),
        "gains": ("provider_added", FEB),
        "loses": ("provider_removed", FEB),
        "joins": ("joined", FEB),
    }
    left = next(row for row in rows.to_pylist() if row["member_id"] == "leaves")
    assert (left["roster_id"], left["row_no"], left["from_providers"], left["to_providers"]) == ("b", 0, ["1"], [])
    counts = summary.to_pylist()[0]
    assert counts["members_start"] + counts["joined"] - counts["left"] == counts["members_end"]
    assert (counts["members_start"], counts["members_end"], counts["share_changed"]) == (5, 5, 0.8)


def test_quarters_end_where_the_next_begins(build: Build, line: Build, fold: Build) -> None:
    history = fold([build("a", JAN, [line("m1")]), build("b", date(2026, 10, 1), [line("m2")])])
    assert reattribution(history, 2026, 3, known_at=LATER)[0]["change"].to_pylist() == ["left", "joined"]
    assert reattribution(history, 2026, 4, known_at=LATER)[0].num_rows == 0
    with pytest.raises(ConfigError):
        reattribution(history, 2026, 5, known_at=LATER)


def test_tuva_gets_one_provider_a_member_month_and_the_others_beside(build: Build, line: Build, fold: Build) -> None:
    rows = [
        line("m1", "1", basis="claims_plurality"),
        line("m1", "2", basis="patient_choice"),
        line("m2", end=date(2026, 2, 15)),
    ]
    links = PERSON_LINK.from_rows([link("payer-a|m1", "P1"), link("payer-a|m2", "P2")])
    primary, others = provider_attribution(
        fold([build("a", JAN, rows)]), links, months=(JAN, date(2026, 2, 28)), known_at=LATER, data_source="hie"
    )
    assert tuple(primary.column_names) == COLUMNS
    found = [(row["person_id"], row["year_month"], row["payer_attributed_provider"]) for row in primary.to_pylist()]
    assert found == [("P1", "202601", "2"), ("P2", "202601", "1"), ("P1", "202602", "2")]
    assert others["payer_attributed_provider"].to_pylist() == ["1", "1"]
    keys = [
        tuple(row[name] for name in ("person_id", "member_id", "payer", "plan", "year_month", "data_source"))
        for row in primary.to_pylist()
    ]
    assert len(keys) == len(set(keys))


def test_tuva_columns_are_the_projects(shared: Any) -> None:
    text = (shared / "data" / "tuva-input-layer" / "provider_attribution.yml").read_text()
    names = [line.split("name:")[1].strip() for line in text.splitlines() if line.startswith("      - name:")]
    assert names and tuple(COLUMNS) == tuple(sorted(names, key=COLUMNS.index))


def test_an_exported_list_is_valid_fhir_and_reads_back(build: Build, line: Build, fold: Build) -> None:
    people = {"last_name": "Smith", "first_name": "Ann", "birth_on": date(1960, 1, 2), "sex": "female"}
    first = build("a", JAN, [line("m1", **people), line("m2", **people), line("m3", None, provider_tin="710000001")])
    second = build("b", FEB, [line("m1", **people), line("m3", None, provider_tin="710000001")])
    found = attribution_list(
        fold([first, second]), first.members, list_id="payer-a", known_at=LATER, as_of=FEB, status="open"
    )
    group = found["Group"][0]
    seen = {
        entry["entity"]["reference"]: (
            entry["extension"][0]["valueCode"],
            entry["inactive"],
            entry["period"].get("end"),
        )
        for entry in group["member"]
    }
    assert sorted(seen.values(), key=str) == [
        ("dropped", True, "2026-01-31"),
        ("nochange", False, None),
        ("nochange", False, None),
    ]
    from fhir.resources.R4B import get_fhir_model_class

    for kind, values in found.items():
        for resource in values:
            assert get_fhir_model_class(kind).model_validate(resource).get_resource_type() == kind
    references = {f"{kind}/{value['id']}" for kind, values in found.items() for value in values}
    for entry in group["member"]:
        for extension in entry["extension"][1:]:
            assert extension["valueReference"]["reference"] in references
    final = attribution_list(
        fold([first, second]), first.members, list_id="payer-a", known_at=LATER, as_of=FEB, status="final"
    )
    assert len(final["Group"][0]["member"]) == 2


def crosswalk(*pairs: tuple[str, str]) -> pa.Table:
    return pa.table({"previous": [a for a, _ in pairs], "current": [b for _, b in pairs]})


def test_chains_are_chased_and_cycles_and_forks_refused() -> None:
    found, issues = chase(
        crosswalk(("A", "B"), ("B", "C"), ("X", "Y"), ("Y", "X"), ("F", "G"), ("F", "H"), ("E", "F"), ("S", "S"))
    )
    assert {row["previous"]: row["current"] for row in found.to_pylist()} == {"A": "C", "B": "C"}
    assert sorted(issues["code"].to_pylist()) == ["crosswalk_cycle", "crosswalk_fork"]
    assert not any(name in text for text in issues["message"].to_pylist() for name in ("X", "F "))


def test_members_are_brought_to_their_current_mbi() -> None:
    system = "http://hl7.org/fhir/sid/us-mbi"
    base = {
        "roster_id": "r",
        "row_sha": "x",
        "payer_id": "cms",
        "attribution_level": "aco",
        "basis": "claims_plurality",
        "valid_from": JAN,
        "valid_to": MAR,
        "synthetic": True,
    }
    rows = [
        {
            **base,
            "row_no": 1,
            "member_id": "A",
            "mbi": "A",
            "member_id_system": system,
            "member_key": sha256_text("cms", system, "A"),
        },
        {
            **base,
            "row_no": 2,
            "member_id": "C",
            "mbi": "C",
            "member_id_system": system,
            "member_key": sha256_text("cms", system, "C"),
        },
        {
            **base,
            "row_no": 3,
            "member_id": "A",
            "mbi": "A",
            "member_id_system": "cms",
            "member_key": sha256_text("cms", "cms", "A"),
        },
    ]
    found = current_ids(MEMBER.from_rows(rows), chase(crosswalk(("A", "B"), ("B", "C")))[0]).to_pylist()
    assert [(row["member_id"], row["mbi"]) for row in found] == [("C", "C"), ("C", "C"), ("A", "C")]
    assert found[0]["member_key"] == found[1]["member_key"] == sha256_text("cms", system, "C")
    assert found[2]["member_key"] == sha256_text("cms", "cms", "A")
