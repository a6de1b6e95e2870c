"""Merges, unmerges, and what went out under a link that proved wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from hiexchange import tables
from hiexchange.errors import DataError
from hiexchange.matching import PERSON_XREF, close_superseded, current, follow, misdirected, relink, survivors

DAY1 = datetime(2026, 11, 1, tzinfo=UTC)
DAY2 = DAY1 + timedelta(days=1)
DAY3 = DAY1 + timedelta(days=2)


def links(at: datetime, **people: str | None) -> pa.Table:
    return tables.PERSON_LINK.from_rows(
        {
            "member_key": key, "payer_id": "a", "person_id": person, "method": "deterministic", "band": "auto" if person else "none",
            "candidates": 1, "run_id": "r", "known_from": at, "known_to": tables.OPEN_INSTANT,
        }
        for key, person in people.items()
    )  # fmt: skip


def xref(*rows: tuple[str, str | None, datetime]) -> pa.Table:
    return PERSON_XREF.from_rows({"person_id": a, "survivor_id": b, "known_from": at} for a, b, at in rows)


def test_chains_of_merges_are_followed_and_unmerges_end_them() -> None:
    history = xref(("a", "b", DAY1), ("b", "c", DAY2), ("a", None, DAY3))
    assert survivors(history, known_at=DAY1) == {"a": "b"}
    assert survivors(history, known_at=DAY2) == {"a": "c", "b": "c"}
    assert survivors(history, known_at=DAY3) == {"b": "c"}
    assert follow(links(DAY1, m="a"), {"a": "c"})["person_id"].to_pylist() == ["c"]


def test_a_circle_of_merges_is_refused() -> None:
    with pytest.raises(DataError, match="circle"):
        survivors(xref(("a", "b", DAY1), ("b", "a", DAY1)), known_at=DAY1)


def test_only_news_is_appended_and_twice_appends_nothing() -> None:
    history = links(DAY1, m1="a", m2="b")
    news = relink(history, links(DAY2, m1="a", m2="c"), known_at=DAY2)
    assert news.select(["member_key", "person_id", "known_from"]).to_pylist() == [
        {"member_key": "m2", "person_id": "c", "known_from": DAY2}
    ]
    whole = pa.concat_tables([history, news])
    assert relink(whole, links(DAY3, m1="a", m2="c"), known_at=DAY3).num_rows == 0
    assert current(whole, known_at=DAY1)["person_id"].to_pylist() == ["a", "b"]
    assert current(whole, known_at=DAY2)["person_id"].to_pylist() == ["a", "c"]
    ends = close_superseded(whole).select(["member_key", "known_to"]).to_pylist()
    assert [row["known_to"] for row in ends] == [tables.OPEN_INSTANT, DAY2, tables.OPEN_INSTANT]


def test_what_went_out_under_a_wrong_link_is_listed() -> None:
    decision = {
        "event_key": "e1", "person_id": "b", "decision": "deliver", "reason_code": "attributed", "subscriber_id": "s1", "channel_id": "c1",
        "member_keys": ["m1", "m2"], "known_at": DAY1, "primary": True, "replay": False, "catch_up": False,
    }  # fmt: skip
    decisions = tables.ROUTING_DECISION.from_rows([decision, decision | {"event_key": "e2", "decision": "held"}])
    required = {column.name: _any(column) for column in tables.DELIVERY.columns if column.required}
    delivery = required | {
        "delivery_id": "d1",
        "subscriber_id": "s1",
        "channel_id": "c1",
        "event_key": "e1",
        "state": "acked",
    }
    deliveries = tables.DELIVERY.from_rows([delivery, delivery | {"delivery_id": "d2", "subscriber_id": "s2"}])
    found = misdirected(links(DAY1, m1="b", m2="b"), links(DAY2, m1="b", m2="c"), decisions, deliveries)
    assert [(row["delivery_id"], row["member_key"], row["state"]) for row in found.to_pylist()] == [
        ("d1", "m2", "acked")
    ]
    assert misdirected(links(DAY1, m1="b"), links(DAY2, m1="b"), decisions, deliveries).num_rows == 0


def _any(column: tables.Column) -> object:
    if pa.types.is_timestamp(column.type):
        return DAY1
    return 1 if pa.types.is_integer(column.type) else False if pa.types.is_boolean(column.type) else "x"
