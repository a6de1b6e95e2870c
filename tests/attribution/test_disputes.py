"""Disputes: states, overlay on attribution, and the round trip through CSV and XLSX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.attribution import active, advance, overlay, raise_dispute, read_answer, settle, to_csv, to_xlsx
from hiexchange.attribution.disputes import current, to_parameters
from hiexchange.errors import DataError

Build = Callable[..., Any]
JAN, FEB = date(2026, 1, 1), date(2026, 2, 1)
LATER = datetime(2031, 1, 1, tzinfo=UTC)
AT = datetime(2026, 2, 3, tzinfo=UTC)


@pytest.fixture
def known(build: Build, line: Build, fold: Build) -> pa.Table:
    return active(fold([build("a", JAN, [line("m1"), line("m2", "2")])]), FEB, LATER)


def test_states_follow_each_other(known: pa.Table) -> None:
    rows = raise_dispute(known, "remove", raised_by="Jo Hill", raised_on=FEB)
    identity = rows["dispute_id"].to_pylist()[0]
    for state in ("sent", "accepted", "effective"):
        rows = pa.concat_tables([rows, advance(rows, {identity: state}, at=AT.replace(day=AT.day + len(rows)))])
    assert {row["dispute_id"]: row["state"] for row in current(rows).to_pylist()}[identity] == "effective"
    assert advance(rows, {identity: "effective"}, at=LATER).num_rows == 0
    with pytest.raises(DataError):
        advance(rows, {identity: "sent"}, at=LATER)
    with pytest.raises(DataError):
        advance(rows, {"unknown": "sent"}, at=LATER)
    with pytest.raises(DataError):
        raise_dispute(known, "complain", raised_by="Jo Hill", raised_on=FEB)


def test_disputed_rows_keep_routing_except_not_my_patient(known: pa.Table) -> None:
    first, second = known.slice(0, 1), known.slice(1, 1)
    rows = pa.concat_tables(
        [
            raise_dispute(first, "not_my_patient", raised_by="Jo Hill", raised_on=FEB),
            raise_dispute(second, "remove", raised_by="Jo Hill", raised_on=FEB),
        ]
    )
    found = {row["attribution_id"]: (row["status"], row["reason_code"]) for row in overlay(known, rows).to_pylist()}
    assert found[first["attribution_id"][0].as_py()] == ("suppressed", "not_my_patient")
    assert found[second["attribution_id"][0].as_py()] == ("disputed", "disputed")
    identity = rows["dispute_id"].to_pylist()
    rows = pa.concat_tables([rows, advance(rows, dict.fromkeys(identity, "sent"), at=AT)])
    refused = advance(
        rows, dict.fromkeys(identity, "refused"), at=LATER, reasons=dict.fromkeys(identity, "seen in May")
    )
    assert set(overlay(known, pa.concat_tables([rows, refused]))["status"].to_pylist()) == {"active"}


@pytest.mark.parametrize("form", ["csv", "xlsx"])
def test_the_sheet_goes_out_and_comes_back_with_the_payers_answer(known: pa.Table, form: str) -> None:
    if form == "xlsx":
        pytest.importorskip("xlsxwriter")
        pytest.importorskip("python_calamine")
    rows = raise_dispute(known, "remove", raised_by="Jo Hill", raised_on=FEB)
    rows = pa.concat_tables([rows, advance(rows, dict.fromkeys(rows["dispute_id"].to_pylist(), "sent"), at=AT)])
    data = to_csv(rows) if form == "csv" else to_xlsx(rows)
    assert data == (to_csv(rows) if form == "csv" else to_xlsx(rows))
    assert read_answer(data, rows, at=LATER).num_rows == 0
    lines = list(csv.DictReader(io.StringIO(to_csv(rows).decode("utf-8-sig"))))
    lines[0]["state"], lines[1]["state"], lines[1]["reason"] = "Accepted", "refused", "seen in May"
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]))
    writer.writeheader()
    writer.writerows(lines)
    answer = read_answer(text.getvalue().encode(), rows, at=LATER)
    assert sorted(answer["state"].to_pylist()) == ["accepted", "refused"]


def test_no_text_of_a_practice_runs_in_the_payers_spreadsheet(known: pa.Table) -> None:
    rows = raise_dispute(known, "remove", raised_by="=cmd|'/C calc'!A0", raised_on=FEB)
    (line, _) = csv.DictReader(io.StringIO(to_csv(rows).decode("utf-8-sig")))
    assert line["raised_by"] == "'=cmd|'/C calc'!A0"


def test_answers_that_cannot_be_taken(known: pa.Table) -> None:
    rows = raise_dispute(known, "remove", raised_by="Jo Hill", raised_on=FEB)
    identity = rows["dispute_id"].to_pylist()[0]
    rows = pa.concat_tables([rows, advance(rows, {identity: "sent"}, at=AT)])
    for text in (
        f"id,state\n{identity},accepted\n",
        f"dispute_id,state\n{identity},perhaps\n",
        f"dispute_id,state\n{identity},refused\n",
    ):
        with pytest.raises(DataError):
            read_answer(text.encode(), rows, at=LATER)


def test_an_accepted_dispute_becomes_effective_when_the_list_shows_it(
    build: Build, line: Build, fold: Build, known: pa.Table
) -> None:
    rows = raise_dispute(known, "remove", raised_by="Jo Hill", raised_on=FEB)
    identities = dict.fromkeys(rows["dispute_id"].to_pylist())
    for number, state in enumerate(("sent", "accepted")):
        rows = pa.concat_tables([rows, advance(rows, dict.fromkeys(identities, state), at=AT.replace(day=4 + number))])
    assert settle(rows, known, on=FEB, at=LATER).num_rows == 0
    history = fold([build("a", JAN, [line("m1"), line("m2", "2")]), build("b", date(2026, 3, 1), [line("m2", "2")])])
    fresh = settle(rows, active(history, date(2026, 3, 1), LATER), on=date(2026, 3, 1), at=LATER)
    assert [(row["member_id"], row["state"]) for row in fresh.to_pylist()] == [("m1", "effective")]


def test_atr_parameters() -> None:
    found = to_parameters({"member_id": "m1", "provider_npi": "1234567893"})
    assert [parameter["name"] for parameter in found["parameter"]] == ["memberId", "providerNpi"]
