"""What a payer gets back: receipt, matches, performance, scorecard, disputes. Table in, table out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange._duck import quiet_connection
from hiexchange.errors import ConfigError
from hiexchange.feedback import sql
from hiexchange.tables import (
    ATTRIBUTION,
    DELIVERY,
    ENCOUNTER_EVENT,
    ISSUE,
    MEASURE_RESULT,
    PERSON_LINK,
    RECEIPT,
    SENSITIVE_REASONS,
    check,
)

OPEN_LABELS = ("U", "L", "M", "N", "TREAT", "HPAYMT", "HOPERAT", "ETREAT", "COC")
"""Labels under which a payer may see an event of its member; under any other it may not."""
PRIVATE = (*SENSITIVE_REASONS, "opted_out", "no_opt_in", "payer_opt_out", "opted_out_of_payer")
"""Reasons of routing that speak of the person, not of the recipient: the payer does not see such events."""


class RoutingLike(Protocol):
    """What feedback reads of ``routing.Routing``."""

    @property
    def decisions(self) -> pa.Table:
        """ROUTING_DECISION rows."""

    @property
    def subscriptions(self) -> Iterable[Any]:
        """Subscriptions with ``id`` and ``channels`` (``id``, ``url``)."""

    @property
    def known_at(self) -> datetime:
        """Knowledge time."""


@dataclass(frozen=True)
class Feedback:
    """One payer's feedback for one period. ``shareable()`` is the form that may leave the payer's own desk."""

    payer_id: str
    period: tuple[date, date]
    """First and last day, inclusive."""
    known_at: datetime
    intake: pa.Table
    """(a) One row a roster file: state, rows read, accepted, refused, and the changes it made."""
    refusals: pa.Table
    """(a) ISSUE rows of those files, one a refused or doubtful row."""
    matches: pa.Table
    """(b) One row a member: band, grade, candidates, fields in conflict."""
    performance: pa.Table
    """(c) One row a member, event and attributed provider."""
    scorecard: pa.Table
    """(d) One row a provider."""
    measures: pa.Table
    """(d) Measures by provider, as handed in."""
    disputes: pa.Table
    """(e) One row a dispute, with its age in days."""
    withheld: int
    """Events of its members that it does not see: labels and opt-outs."""
    suppressed: bool = False
    """Whether small cells are blanked and person-level tables empty."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Totals for the page."""

    def member(self, member_id: str) -> tuple[pa.Table, pa.Table]:
        """Return the performance rows of one member, and ISSUE rows: the audit of an ask for someone else.

        The answer about a person of another payer is that about a person of none.
        """
        rows = self.performance.filter(pc.equal(self.performance["member_id"], member_id))
        known = pc.any(pc.equal(self.matches["member_id"], member_id)).as_py() or rows.num_rows
        if known:
            return rows, ISSUE.empty()
        asked = {
            "stage": "feedback",
            "severity": "warning",
            "code": "not_a_member",
            "message": "the payer asked for a member id that is not on its rosters",
            "file": self.payer_id,
        }
        return rows, ISSUE.from_rows([asked])

    def tables(self) -> dict[str, pa.Table]:
        """Return the file set by name, the same for every payer."""
        return {
            "intake": self.intake,
            "refusals": self.refusals,
            "matches": self.matches,
            "performance": self.performance,
            "scorecard": self.scorecard,
            "measures": self.measures,
            "disputes": self.disputes,
        }

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><td>{name}</td><td>{count:,}</td></tr>" for name, count in self.counts.items())
        return f"<table>{cells}</table>"


def payer_feedback(  # each argument is a corridor table of its own; bundling them would only move the list
    payer: str,
    period: tuple[date, date],
    *,
    attribution: Any,
    links: Any,
    events: Any,
    routing: RoutingLike,
    deliveries: Any = None,
    receipts: Any = None,
    results: Any = None,
    rosters: Any = None,
    issues: Any = None,
    disputes: Any = None,
) -> Feedback:
    """Return what one payer gets back for one period: only its members, only inside its coverage.

    Args:
        payer: Its ``payer_id``.
        period: First and last local day of events, inclusive.
        attribution: ATTRIBUTION history.
        links: PERSON_LINK rows.
        events: ENCOUNTER_EVENT rows; also those after the period, for follow-up.
        routing: Decisions; their ``known_at`` is the clock.
        deliveries: DELIVERY rows.
        receipts: RECEIPT rows.
        results: MEASURE_RESULT rows.
        rosters: ROSTER rows, for the intake receipt.
        issues: ISSUE rows of roster files, for the reasons of refused rows.
        disputes: Rows with ``payer_id``, ``state``, ``opened_at``, ``decided_at`` and whatever else.

    Raises:
        ConfigError: ``period`` is not two days.
    """
    if not (isinstance(period, tuple | list) and len(period) == 2 and all(isinstance(day, date) for day in period)):
        raise ConfigError("a period is two days", hint="period=(date(2026, 3, 1), date(2026, 3, 31)), both included")
    first, last = period
    known_at = routing.known_at.astimezone(UTC)
    parameters: dict[str, Any] = {
        "payer": payer,
        "first": first,
        "after": last + timedelta(days=1),
        "last": last,
        "known_at": known_at,
        "known_on": known_at.date(),
        "open_labels": list(OPEN_LABELS),
        "private": list(PRIVATE),
    }
    given = {
        "attribution_in": _given(attribution, ATTRIBUTION),
        "link_in": _given(links, PERSON_LINK),
        "event_in": _given(events, ENCOUNTER_EVENT),
        "decision_in": routing.decisions,
        "delivery_in": _given(deliveries, DELIVERY),
        "receipt_in": _given(receipts, RECEIPT),
        "result_in": _given(results, MEASURE_RESULT),
        "channel_in": _channels(routing.subscriptions),
    }
    found = _computed(given, parameters)
    intake, refusals = _intake(payer, found["changes"], rosters, issues)
    return Feedback(
        payer,
        period,
        known_at,
        intake,
        refusals,
        found["matches"],
        found["performance"],
        found["scorecard"],
        found["measures"],
        _disputes(payer, disputes, known_at),
        withheld=pc.count_distinct(found["withheld"]["event_key"]).as_py(),
        counts=_counts(found["matches"], found["performance"]),
    )


_STEPS = (sql.LINKS, sql.ATTRIBUTION, sql.EVENTS, sql.WITHHELD, sql.DELIVERED, sql.PERFORMANCE)
_RESULTS = {
    "matches": sql.MATCHES,
    "performance": sql.PERFORMANCE_ROWS,
    "scorecard": sql.SCORECARD,
    "measures": sql.MEASURES,
    "changes": sql.CHANGES,
    "withheld": "SELECT event_key FROM withheld",
}


def _computed(given: Mapping[str, pa.Table], parameters: Mapping[str, Any]) -> dict[str, pa.Table]:
    with _connect() as connection:
        for name, table in given.items():
            connection.register(name, table)
        for step in _STEPS:
            _run(connection, step, parameters)
        return {name: _table(connection, query, parameters) for name, query in _RESULTS.items()}


def _counts(matches: pa.Table, performance: pa.Table) -> dict[str, int]:
    bands = Counter(matches["band"].to_pylist())
    return {
        "members": matches.num_rows,
        "matched": bands["auto"],
        "in review": bands["review"],
        "not found": bands["none"],
        "events": len(set(performance["event_key"].to_pylist())),
        "notices acknowledged": performance["outcome"].to_pylist().count("acked"),
    }


def misdirected(
    *, routing: RoutingLike, events: Any, deliveries: Any, attribution: Any, links: Any, known_at: datetime
) -> pa.Table:
    """Return what went out under a link or attribution that no longer stands: unmerge, A40, retroactive drop.

    Returns:
        One row a delivery and member: event_key, subscriber_id, channel_id, delivery_id, state, acked_at,
        member_key, ``why`` (person_changed or attribution_withdrawn).
    """
    with _connect() as connection:
        connection.register("decision_in", routing.decisions)
        connection.register("event_in", _given(events, ENCOUNTER_EVENT))
        connection.register("delivery_in", _given(deliveries, DELIVERY))
        connection.register("attribution_in", _given(attribution, ATTRIBUTION))
        connection.register("link_in", _given(links, PERSON_LINK))
        return _table(connection, sql.MISDIRECTED, {"known_at": known_at})


def _connect() -> duckdb.DuckDBPyConnection:
    connection = quiet_connection()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _run(connection: duckdb.DuckDBPyConnection, step: str, parameters: Mapping[str, Any]) -> None:
    connection.execute(step, {name: value for name, value in parameters.items() if _uses(step, name)})


def _table(connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, Any]) -> pa.Table:
    used = {name: value for name, value in parameters.items() if _uses(query, name)}
    return connection.sql(query, params=used).to_arrow_table()


def _uses(step: str, name: str) -> bool:
    return any(part[:1] not in "_abcdefghijklmnopqrstuvwxyz" or not part for part in step.split(f"${name}")[1:])


def _given(data: Any, table: Any) -> pa.Table:
    if data is None:
        return table.empty()
    return check(data.to_arrow() if hasattr(data, "to_arrow") else data, table)


def _channels(subscriptions: Iterable[Any]) -> pa.Table:
    schema = pa.schema({"subscriber_id": pa.string(), "channel_id": pa.string(), "kind": pa.string()})
    kinds = {
        (item.id, channel.id): urlsplit(channel.url).scheme if "://" in channel.url else "folder"
        for item in subscriptions
        for channel in item.channels
    }
    rows = [{"subscriber_id": one, "channel_id": two, "kind": kind} for (one, two), kind in kinds.items()]
    return pa.Table.from_pylist(rows, schema=schema)


_INTAKE = pa.schema(
    [
        ("roster_id", pa.string()),
        ("file_name", pa.string()),
        ("as_of_on", pa.date32()),
        ("received_at", pa.timestamp("us", tz="UTC")),
        ("state", pa.string()),
        *((name, pa.int64()) for name in ("rows_read", "rows_accepted", "rows_refused", "rows_duplicate")),
        *((name, pa.int64()) for name in ("new", "changed", "dropped", "nochange", "cancelled")),
    ]
)


def _intake(payer: str, changes: pa.Table, rosters: Any, issues: Any) -> tuple[pa.Table, pa.Table]:
    made = {row["roster_id"]: row for row in changes.to_pylist()}
    if rosters is None:
        rows = [{"state": "accepted", "received_at": row["accepted_at"], **row} for row in made.values()]
    else:
        table = rosters.to_arrow() if hasattr(rosters, "to_arrow") else rosters
        rows = [{**made.get(row["roster_id"], {}), **row} for row in table.to_pylist() if row["payer_id"] == payer]
        rows.sort(key=lambda row: (row["received_at"], row["roster_id"]))
    names = set(_INTAKE.names)
    intake = pa.Table.from_pylist([{key: row[key] for key in row if key in names} for row in rows], schema=_INTAKE)
    files = {str(row["file_name"]) for row in rows if row.get("file_name")}
    if issues is None or not files:
        return intake, ISSUE.empty()
    found = _given(issues, ISSUE)
    return intake, found.filter(pc.is_in(found["file"], value_set=pa.array(sorted(files), pa.string())))


def _disputes(payer: str, disputes: Any, known_at: datetime) -> pa.Table:
    if disputes is None:
        return pa.table({"state": pa.array([], pa.string()), "age_days": pa.array([], pa.int64())})
    table = disputes if isinstance(disputes, pa.Table) else pa.table(disputes)
    table = table.filter(pc.equal(table["payer_id"], payer))
    ages = [
        ((decided or known_at) - opened).days
        for opened, decided in zip(table["opened_at"].to_pylist(), table["decided_at"].to_pylist(), strict=True)
    ]
    return table.append_column("age_days", pa.array(ages, pa.int64()))
