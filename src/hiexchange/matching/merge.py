"""When the index joins two records or parts them again, or a link proves wrong: links move, history stays.

PERSON_LINK is append-only on the known axis: a correction closes the old row at ``known_at`` and opens the
right one. What went out under the wrong one is listed, since a disclosure cannot be recalled, only reported.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange import tables
from hiexchange.errors import DataError
from hiexchange.tables import INSTANT, PERSON_LINK, TEXT, Column, Table

PERSON_XREF = Table(
    "person_xref",
    "The index's merges and unmerges. Append-only; the latest row of a person counts.",
    ("person_id", "known_from"),
    (
        Column("person_id", TEXT, "the record that was merged away, or taken out again", True),
        Column("survivor_id", TEXT, "the record it lives on in; null: unmerged, it stands for itself again"),
        Column("known_from", INSTANT, "when the index said so (A40, Patient.link)", True),
        Column("source", TEXT, "message or file that said so"),
    ),
)

DISCLOSURE = Table(
    "misdirected_disclosure",
    "One delivery that went out under a link now known to be wrong.",
    ("delivery_id", "member_key"),
    (
        Column("delivery_id", TEXT, "see DELIVERY", True),
        Column("event_key", TEXT, "see ENCOUNTER_EVENT", True),
        Column("subscriber_id", TEXT, "who received it", True),
        Column("member_key", TEXT, "member under whose attribution it was routed", True),
        Column("person_id", TEXT, "whose event it was", True),
        Column("state", TEXT, "state of the delivery"),
        Column("known_at", INSTANT, "knowledge time of the routing decision", True),
    ),
)


def survivors(xref: Any, *, known_at: datetime) -> dict[str, str]:
    """Return each merged record with the record it lives on in, chains followed, as known at an instant.

    Raises:
        DataError: The merges form a circle; nobody survives.
    """
    latest: dict[str, str | None] = {}
    for row in sorted(tables.check(xref, PERSON_XREF).to_pylist(), key=lambda row: row["known_from"]):
        if row["known_from"] <= known_at:
            latest[row["person_id"]] = row["survivor_id"]
    found: dict[str, str] = {}
    for start in latest:
        seen, here = {start}, start
        while (onward := latest.get(here)) is not None:
            if onward in seen:
                raise DataError(
                    "the merges of the patient index form a circle",
                    code="HX-522",
                    hint="correct the person_xref rows, then match again",
                )
            seen.add(onward)
            here = onward
        if here != start:
            found[start] = here
    return found


def current(history: Any, *, known_at: datetime) -> pa.Table:
    """Return the PERSON_LINK rows that hold at an instant: the latest of each member known by then."""
    rows = tables.check(history, PERSON_LINK)
    known = rows.filter(pc.less_equal(rows["known_from"], pa.scalar(known_at, INSTANT)))
    last = known.sort_by([("member_key", "ascending"), ("known_from", "ascending")])
    keys = last["member_key"].to_pylist()
    keep = [index for index, key in enumerate(keys) if index + 1 == len(keys) or keys[index + 1] != key]
    return last.take(pa.array(keep, pa.int64()))


def relink(history: Any, links: Any, *, known_at: datetime) -> pa.Table:
    """Return the rows to append so that ``links`` hold from ``known_at``: only those that say something new.

    A row says something new when person or band differ from what was known. Applied twice it appends nothing.
    """
    before = {
        row["member_key"]: (row["person_id"], row["band"]) for row in current(history, known_at=known_at).to_pylist()
    }
    rows = tables.check(links, PERSON_LINK)
    pairs = zip(rows["member_key"].to_pylist(), rows["person_id"].to_pylist(), rows["band"].to_pylist(), strict=True)
    news = rows.filter(pa.array([before.get(key) != (person, band) for key, person, band in pairs], pa.bool_()))
    stamp = pa.repeat(pa.scalar(known_at, INSTANT), news.num_rows)
    return news.set_column(news.schema.get_field_index("known_from"), PERSON_LINK.schema.field("known_from"), stamp)


def close_superseded(history: Any) -> pa.Table:
    """Return PERSON_LINK rows with ``known_to`` derived: the next row of the same member ends the one before."""
    rows = tables.check(history, PERSON_LINK).sort_by([("member_key", "ascending"), ("known_from", "ascending")])
    keys, starts = rows["member_key"].to_pylist(), rows["known_from"].to_pylist()
    ends = [
        starts[index + 1] if index + 1 < len(keys) and keys[index + 1] == key else tables.OPEN_INSTANT
        for index, key in enumerate(keys)
    ]
    return rows.set_column(
        rows.schema.get_field_index("known_to"), PERSON_LINK.schema.field("known_to"), pa.array(ends, INSTANT)
    )


def misdirected(before: Any, after: Any, decisions: Any, deliveries: Any) -> pa.Table:
    """List what went out under links that no longer hold.

    Args:
        before: PERSON_LINK rows as they stood.
        after: PERSON_LINK rows as they stand now. A person merged into another is not a wrong link: pass
            ``before`` through :func:`follow` first.
        decisions: ROUTING_DECISION rows.
        deliveries: DELIVERY rows.

    Returns:
        DISCLOSURE rows, sorted by delivery and member; empty when no link was taken back.
    """
    now = {row["member_key"]: row["person_id"] for row in _auto(after)}
    wrong = {
        (row["member_key"], row["person_id"]) for row in _auto(before) if now.get(row["member_key"]) != row["person_id"]
    }
    sent: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in tables.check(deliveries, tables.DELIVERY).to_pylist():
        sent.setdefault((row["event_key"], row["subscriber_id"], row["channel_id"]), []).append(row)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in tables.check(decisions, tables.ROUTING_DECISION).to_pylist():
        for member in row["member_keys"] or []:
            if row["decision"] == "deliver" and (member, row["person_id"]) in wrong:
                for delivery in sent.get((row["event_key"], row["subscriber_id"], row["channel_id"]), []):
                    found[delivery["delivery_id"], member] = {
                        "delivery_id": delivery["delivery_id"], "event_key": row["event_key"], "subscriber_id": row["subscriber_id"],
                        "member_key": member, "person_id": row["person_id"], "state": delivery.get("state"), "known_at": row["known_at"],
                    }  # fmt: skip
    return DISCLOSURE.from_rows([found[key] for key in sorted(found)])


def follow(links: Any, merged: dict[str, str]) -> pa.Table:
    """Return links with every merged person replaced by its survivor."""
    rows = tables.check(links, PERSON_LINK)
    people = pa.array([merged.get(person, person) for person in rows["person_id"].to_pylist()], pa.string())
    return rows.set_column(rows.schema.get_field_index("person_id"), PERSON_LINK.schema.field("person_id"), people)


def _auto(links: Any) -> list[dict[str, Any]]:
    rows = tables.check(links, PERSON_LINK)
    held: list[dict[str, Any]] = (
        rows.filter(pc.equal(rows["band"], "auto")).select(["member_key", "person_id"]).to_pylist()
    )
    return held
