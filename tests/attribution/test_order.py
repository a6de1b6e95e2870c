"""The order of arrival has no effect: any permutation, any re-delivery, the same history."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiexchange.attribution import active, as_known, attribute
from hiexchange.tables import ATTRIBUTION, OPEN_DATE

DAY0 = date(2026, 1, 1)
LATER = datetime(2040, 1, 1, tzinfo=UTC)
days = st.integers(0, 8).map(lambda n: DAY0 + timedelta(days=15 * n))

lines = st.tuples(
    st.sampled_from(["m1", "m2", "m3"]),
    st.sampled_from(["1", "2"]),
    st.one_of(st.none(), days),
    st.one_of(st.none(), st.integers(1, 6)),
    st.sampled_from([None, None, None, "dropped", "cancelled"]),
)
files = st.tuples(days, st.sampled_from(["full", "full", "delta"]), st.lists(lines, min_size=1, max_size=4))


def rows_of(as_of: date, mode: str, found: list[tuple[Any, ...]], line: Callable[..., Any]) -> list[dict[str, Any]]:
    """Lines of one file without contradictions: one a member and provider, as the intake leaves them."""
    result = {}
    for member, npi, start, length, change in found:
        begin = start or as_of
        end = begin + timedelta(days=15 * length) if length else None
        if change == "dropped" and end is None:
            end = max(as_of, begin)
        result[member, npi] = line(member, npi, start, end, payer_change_type=change)
    return list(result.values())


def picture(history: pa.Table) -> list[dict[str, Any]]:
    table = as_known(history, LATER).drop_columns(["known_from", "known_to", "list_seq"])
    return sorted(table.to_pylist(), key=lambda row: row["attribution_id"])


def oracle(sheets: list[Any]) -> set[tuple[str, str, date, date]]:
    """The fold by the rules of the documentation, one spell at a time, without a database."""
    state: dict[tuple[str, str], list[tuple[date, date]]] = {}
    for sheet in sorted(sheets, key=lambda s: (s.as_of, s.received_at, s.roster_id)):
        said: dict[tuple[str, str], tuple[str, date, date]] = {}
        for row in sheet.members.to_pylist():
            kind = {"cancelled": "cancelled", "dropped": "dropped"}.get(row["payer_change_type"] or "", "active")
            if kind == "active" and row["valid_from"] >= row["valid_to"]:
                kind = "dropped"
            said[row["member_id"], row["provider_npi"]] = (kind, row["valid_from"], row["valid_to"])
        for key in set(state) | set(said):
            old = state.get(key, [])
            fresh, gone = [], []
            if key in said:
                kind, begin, end = said[key]
                start = begin
                if (kind == "active" and begin == sheet.as_of) or (kind == "dropped" and begin >= end):
                    day = sheet.as_of if kind == "active" else end
                    covering = [f for f, t in old if f <= day <= t]
                    start = min(covering) if covering else day
                reach = begin if kind == "cancelled" else start
                gone = [(f, t) for f, t in old if (f < end and t > reach) or f == start]
                if kind != "cancelled" and start < end:
                    fresh = [(start, end)]
            rest = [spell for spell in old if spell not in gone]
            if sheet.mode == "full":
                rest = [(f, max(f, min(t, sheet.as_of))) for f, t in rest]
            state[key] = [(f, t) for f, t in [*rest, *fresh] if f < t]
    return {(m, n, f, t) for (m, n), found in state.items() for f, t in found}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_files=st.lists(files, min_size=2, max_size=4), data=st.data())
def test_any_arrival_gives_the_same_history(
    given_files: list[Any],
    data: st.DataObject,
    build: Callable[..., Any],
    line: Callable[..., Any],
    fold: Callable[..., Any],
) -> None:
    sheets = [
        build(f"r{number}", as_of, rows_of(as_of, mode, found, line), mode=mode)
        for number, (as_of, mode, found) in enumerate(given_files)
    ]
    in_order = fold(sheets)
    shuffled = data.draw(st.permutations(sheets))
    again = fold([*shuffled, data.draw(st.sampled_from(sheets))])
    assert picture(again) == picture(in_order)
    found = {(r["member_id"], r["provider_npi"], r["valid_from"], r["valid_to"]) for r in picture(in_order)}
    spells = oracle(sheets)
    assert found == spells
    for day in data.draw(st.lists(days, min_size=3, max_size=3)):
        now = {(r["member_id"], r["provider_npi"]) for r in active(in_order, day, LATER).to_pylist()}
        assert now == {(member, npi) for member, npi, begin, end in spells if begin <= day < end}


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_files=st.lists(files, min_size=2, max_size=4), data=st.data())
def test_past_answers_stay_and_spells_never_overlap(
    given_files: list[Any], data: st.DataObject, build: Callable[..., Any], line: Callable[..., Any]
) -> None:
    sheets = [
        build(f"r{number}", as_of, rows_of(as_of, mode, found, line), mode=mode)
        for number, (as_of, mode, found) in enumerate(given_files)
    ]
    history = ATTRIBUTION.empty()
    answers = []
    arrived = data.draw(st.permutations(sheets))
    for number, sheet in enumerate(arrived, 1):
        known_at = datetime(2030, 1, number, tzinfo=UTC)
        history = pa.concat_tables([history, attribute(sheet, history, known_at=known_at)])
        answers.append((known_at, as_known(history, known_at)))
        # What is known after some of the files is what these files say, in whatever order they came.
        rows = answers[-1][1].to_pylist()
        known = {(r["member_id"], r["provider_npi"], r["valid_from"], r["valid_to"]) for r in rows}
        assert known == oracle(arrived[:number])
    for known_at, answer in answers:
        assert as_known(history, known_at).equals(answer)
    ends: dict[str, date] = {}
    for row in as_known(history, LATER).to_pylist():
        assert row["valid_from"] >= ends.get(row["business_key"], date.min)
        assert row["valid_from"] < row["valid_to"] <= OPEN_DATE
        ends[row["business_key"]] = row["valid_to"]


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    windows=st.lists(st.tuples(days, days, st.lists(lines, min_size=1, max_size=3)), min_size=2, max_size=3),
    data=st.data(),
)
def test_restatements_are_order_free_too(
    windows: list[Any],
    data: st.DataObject,
    build: Callable[..., Any],
    line: Callable[..., Any],
    fold: Callable[..., Any],
) -> None:
    sheets = [build("r0", DAY0, [line("m1"), line("m2", start=date(2025, 1, 1)), line("m3", "2")])]
    for number, (one, two, found) in enumerate(windows, 1):
        begin, stop = min(one, two), max(one, two) + timedelta(days=15)
        as_of = DAY0 + timedelta(days=150)
        body = [line(member, npi) for member, npi, *_ in {found_[:2]: found_ for found_ in found}.values()]
        sheets.append(build(f"r{number}", as_of, body, authority_from=begin, authority_to=stop))
    assert picture(fold(data.draw(st.permutations(sheets)))) == picture(fold(sheets))
