"""When the index joins two records or parts them again, or a link proves wrong: links move, history stays.

PERSON_LINK is append-only on the known axis: a correction closes the old row at ``known_at`` and opens the
right one. What went out under the wrong one is listed, since a disclosure cannot be recalled, only reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange import tables
from hiexchange._duck import quiet_connection
from hiexchange.errors import DataError
from hiexchange.matching import compare, prepare
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
    order, last = _by_member(known)
    return known.take(order.filter(last))


def relink(history: Any, links: Any, *, known_at: datetime) -> pa.Table:
    """Return the rows to append so that ``links`` hold from ``known_at``: only those that say something new.

    A row says something new when person or band differ from what was known. Applied twice it appends nothing.
    """
    before = current(history, known_at=known_at)
    rows = tables.check(links, PERSON_LINK)
    place = pc.index_in(rows["member_key"], value_set=before["member_key"].combine_chunks())
    same = pc.and_(pc.is_valid(place), _alike(rows["band"], before["band"].take(place)))
    same = pc.and_(same, _alike(rows["person_id"], before["person_id"].take(place)))
    news = rows.filter(pc.invert(same))
    stamp = pa.repeat(pa.scalar(known_at, INSTANT), news.num_rows)
    return news.set_column(news.schema.get_field_index("known_from"), PERSON_LINK.schema.field("known_from"), stamp)


def _alike(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    """Say where two columns hold the same, nulls included."""
    return pc.equal(pc.fill_null(one, ""), pc.fill_null(other, ""))


def _by_member(rows: pa.Table) -> tuple[pa.Array, pa.Array]:
    """Return the order by member and knowledge time, ties as they stand, and which row in it is its member's last."""
    order = pc.sort_indices(rows, sort_keys=[("member_key", "ascending"), ("known_from", "ascending")])
    keys = rows["member_key"].take(order).combine_chunks()
    last = pc.not_equal(keys[:-1], keys[1:]) if len(keys) else pa.array([], pa.bool_())
    return order, pa.concat_arrays([last, pa.array([True] * min(len(keys), 1), pa.bool_())])


def close_superseded(history: Any) -> pa.Table:
    """Return PERSON_LINK rows with ``known_to`` derived: the next row of the same member ends the one before."""
    rows = tables.check(history, PERSON_LINK)
    order, last = _by_member(rows)
    rows = rows.take(order)
    starts = rows["known_from"].combine_chunks()
    open_end = pa.scalar(tables.OPEN_INSTANT, INSTANT)
    following = pa.concat_arrays([starts[1:], pa.array([tables.OPEN_INSTANT] * min(len(starts), 1), INSTANT)])
    ends = pc.if_else(last, open_end, following)
    return rows.set_column(rows.schema.get_field_index("known_to"), PERSON_LINK.schema.field("known_to"), ends)


def misdirected(before: Any, after: Any, decisions: Any, deliveries: Any) -> pa.Table:
    """List what went out under links that no longer hold.

    Args:
        before: PERSON_LINK rows as they stood.
        after: PERSON_LINK rows as they stand now. A person merged into another is not a wrong link: pass
            both through :func:`all_records` first.
        decisions: ROUTING_DECISION rows.
        deliveries: DELIVERY rows.

    Returns:
        DISCLOSURE rows, sorted by delivery and member; empty when no link was taken back.
    """
    with quiet_connection() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, data, table in (
            ("was", before, PERSON_LINK),
            ("now", after, PERSON_LINK),
            ("decision", decisions, tables.ROUTING_DECISION),
            ("delivery", deliveries, tables.DELIVERY),
        ):
            connection.register(name, tables.check(data, table))
        return tables.check(connection.sql(_MISDIRECTED).to_arrow_table(), DISCLOSURE)


# The latest decision names the disclosure, if one and the same was made in several runs.
_MISDIRECTED = """
WITH wrong AS (
  SELECT member_key, person_id FROM was WHERE band = 'auto'
  EXCEPT SELECT member_key, person_id FROM now WHERE band = 'auto'
)
SELECT v.delivery_id, d.event_key, d.subscriber_id, d.member_key, d.person_id, v.state, d.known_at
FROM (SELECT * EXCLUDE (member_keys), unnest(member_keys) AS member_key FROM decision WHERE decision = 'deliver') d
JOIN wrong USING (member_key, person_id)
JOIN delivery v ON v.event_key = d.event_key AND v.subscriber_id = d.subscriber_id AND v.channel_id = d.channel_id
QUALIFY row_number() OVER (PARTITION BY v.delivery_id, d.member_key ORDER BY d.known_at DESC) = 1
ORDER BY v.delivery_id, d.member_key
"""


def follow(rows: pa.Table, merged: Mapping[str, str]) -> pa.Table:
    """Return rows with every merged person in ``person_id`` replaced by its survivor.

    Links then hold for the survivor; PERSON rows become aliases of one person for :func:`~hiexchange.matching.match`.
    """
    if not merged:
        return rows
    place = rows.schema.get_field_index("person_id")
    moved = pc.index_in(rows["person_id"], value_set=pa.array(list(merged), pa.string()))
    people = pc.coalesce(pa.array(list(merged.values()), pa.string()).take(moved.combine_chunks()), rows["person_id"])
    return rows.set_column(place, rows.schema.field(place), people)


def all_records(links: pa.Table, merged: Mapping[str, str]) -> pa.Table:
    """Return links with one row more for each record that lives on in the linked one: its notices rest on the link, too."""
    records: dict[str, list[str]] = {}
    for record, survivor in merged.items():
        records.setdefault(survivor, []).append(record)
    links = follow(links, merged)
    rows = pc.indices_nonzero(pc.is_in(links["person_id"], value_set=pa.array(list(records), pa.string())))
    linked = zip(rows.to_pylist(), links["person_id"].take(rows).to_pylist(), strict=True)
    more = [(row, record) for row, person in linked for record in records[person]]
    place = links.schema.get_field_index("person_id")
    added = links.take(pa.array([row for row, _ in more], pa.int64()))
    names = pa.array([record for _, record in more], pa.string())
    return pa.concat_tables([links, added.set_column(place, links.schema.field(place), names)])


# Newborns without a name and what a record does not know contradict nothing; twins of one home do.
_ONE_PERSON = (
    "d >= 0 AND mb >= 0 AND x >= 0 AND su >= 0 AND s >= 0 AND g >= 0 "
    "AND (f IN (0, 1) OR f >= 4 OR sw OR (f = 3 AND edge IN (0, 3)))"
)


def contradicted(persons: Any, pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the pairs of index records that cannot be one person: merges are made in error at times.

    Birth date, first name, sex, suffix, MBI or ssn4 of the two differ beyond a slip, as the guards of matching see it.

    Args:
        persons: PERSON rows. A pair of which a record is absent contradicts nothing.
        pairs: Person ids that an A40 says are one.
    """
    wanted = sorted({pair for pair in pairs if pair[0] != pair[1]})
    if not wanted:
        return set()
    rows = tables.check(persons, tables.PERSON)
    named = pa.array(sorted({person for pair in wanted for person in pair}), pa.string())
    con = prepare.connect()
    try:
        prepare.prepare_persons(con, rows.filter(pc.is_in(rows["person_id"], value_set=named)))
        prepare.prepare_members(con, tables.MEMBER.empty())
        prepare.finish(con)
        con.register("pair_in", pa.table({"one": [one for one, _ in wanted], "other": [other for _, other in wanted]}))
        con.execute(
            "CREATE TABLE joined AS SELECT one, other, a.n AS ln, b.n AS rn "
            "FROM pair_in JOIN p a ON a.key = one JOIN p b ON b.key = other"
        )
        compare.id_pairs(con, left="p", right="p")
        compare.compare_pairs(con, left="p", right="p", pairs="joined", everything=True)
        return set(
            con.execute(
                f"SELECT one, other FROM levels JOIN joined USING (ln, rn) WHERE NOT ({_ONE_PERSON})"
            ).fetchall()
        )
    finally:
        con.close()
