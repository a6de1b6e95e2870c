"""Why a possible recipient did or did not get an event: the chain from roster row to delivery state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import DataError
from hiexchange.routing.route import Routing


@dataclass(frozen=True, slots=True)
class Evidence:
    """One attribution row that spoke for a recipient, and the link that made it this person's."""

    payer_id: str
    attribution_id: str
    roster_id: str | None = None
    """Accepted file the row came from."""
    row_no: int | None = None
    """Row in that file."""
    valid_from: date | None = None
    valid_to: date | None = None
    known_from: datetime | None = None
    """When the roster was accepted."""
    basis: str | None = None
    method: str | None = None
    """How the payer's member was matched."""
    rule: str | None = None
    score: float | None = None
    """Bits."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One possible recipient of one event."""

    event_key: str
    decision: str
    reason_code: str
    reason: str
    subscriber_id: str | None
    channel_id: str | None
    provider_npi: str | None
    event_on: date
    """Who: attribution on this local day ..."""
    known_at: datetime
    """... as known at this instant, which is also the clock of the policy gate."""
    delivery_state: str | None
    """State of the delivery, where the ledger has one."""
    evidence: tuple[Evidence, ...]
    """Attribution rows; empty when none speaks for anybody."""


def explain(
    routing: Routing, event_key: str, *, attribution: Any = None, links: Any = None, deliveries: Any = None
) -> tuple[Explanation, ...]:
    """Return, for every possible recipient of an event, why it did or did not get it.

    Args:
        routing: The result to explain.
        event_key: Its event; a prefix is enough where it is unique.
        attribution: ATTRIBUTION rows, to name roster file and row.
        links: PERSON_LINK rows, to name method and score.
        deliveries: DELIVERY rows, to name the state.

    Raises:
        DataError: No event of the routing has that key, or several begin so.
    """
    keys = [key for key in routing.events["event_key"].to_pylist() if key.startswith(event_key)]
    if len(keys) != 1:
        raise DataError(f"{len(keys)} events have a key that begins so", hint="give the whole event_key", code="HX-520")
    key = keys[0]
    event = routing.events.filter(pc.equal(routing.events["event_key"], key)).to_pylist()[0]
    rows = routing.decisions.filter(pc.equal(routing.decisions["event_key"], key)).to_pylist()
    wanted = sorted({item for row in rows for item in row["attribution_ids"] or ()})
    members = sorted({item for row in rows for item in row["member_keys"] or ()})
    asserted = _newest(attribution, "attribution_id", wanted, routing.known_at)
    linked = _newest(links, "member_key", members, routing.known_at)
    states = _states(deliveries, key)
    return tuple(
        Explanation(
            key,
            row["decision"],
            row["reason_code"],
            row["reason"],
            row["subscriber_id"],
            row["channel_id"],
            row["provider_npi"],
            event["event_on"],
            routing.known_at,
            states.get((row["subscriber_id"], row["channel_id"])),
            tuple(
                _evidence(payer, asserted.get(item, {}), linked.get(member, {}), item)
                for payer, member, item in zip(
                    row["payer_ids"] or (), row["member_keys"] or (), row["attribution_ids"] or (), strict=True
                )
            ),
        )
        for row in rows
    )


def _evidence(payer: str, row: Mapping[str, Any], link: Mapping[str, Any], attribution_id: str) -> Evidence:
    return Evidence(
        payer,
        attribution_id,
        row.get("roster_id"),
        row.get("row_no"),
        row.get("valid_from"),
        row.get("valid_to"),
        row.get("known_from"),
        row.get("basis"),
        link.get("method"),
        link.get("rule"),
        link.get("score"),
    )


def _newest(data: Any, key: str, wanted: list[str], known_at: datetime) -> dict[str, dict[str, Any]]:
    """Return the newest row of each wanted key that was known at an instant."""
    if data is None or not wanted:
        return {}
    table = data if isinstance(data, pa.Table) else pa.table(data)
    chosen = table.filter(pc.is_in(table[key], value_set=pa.array(wanted, pa.string())))
    rows = [row for row in chosen.to_pylist() if row["known_from"] <= known_at]
    return {row[key]: row for row in sorted(rows, key=lambda row: row["known_from"])}


def _states(deliveries: Any, event_key: str) -> dict[tuple[str | None, str | None], str]:
    if deliveries is None:
        return {}
    table = deliveries if isinstance(deliveries, pa.Table) else pa.table(deliveries)
    rows = table.filter(pc.equal(table["event_key"], event_key)).to_pylist()
    return {(row["subscriber_id"], row["channel_id"]): row["state"] for row in rows}
