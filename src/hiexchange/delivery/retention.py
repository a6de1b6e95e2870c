"""Forget what is no longer needed: stored bytes and event content of settled deliveries.

Ids, times, states, hashes, numbers and the audit trail stay: they are the proof, and the accounting
needs them for six years. What goes is what was in the files. A forgotten delivery cannot be replayed.
"""

from __future__ import annotations

from datetime import datetime

from hiexchange.delivery import audit
from hiexchange.delivery.base import microseconds
from hiexchange.delivery.ledger import Store

_OLD = "state = 'acked' AND acked_at < ?"
_OPEN = (
    "SELECT 1 FROM delivery d LEFT JOIN batch b ON b.batch_id = d.batch_id "
    "WHERE d.event_key = event.event_key AND d.material_version = event.material_version "
    "AND (b.batch_id IS NULL AND d.state IN ('pending', 'held', 'dead') OR b.state <> 'acked' OR b.acked_at >= ?)"
)


def forget(store: Store, now: datetime, before: datetime) -> int:
    """Drop the content of everything acknowledged before an instant; return the batches emptied.

    An event that any recipient still waits for, or has had since, keeps its content.
    """
    limit = microseconds(before)
    with store.transaction():
        emptied = store.run(
            f"DELETE FROM payload WHERE batch_id IN (SELECT batch_id FROM batch WHERE {_OLD})", (limit,)
        )
        events = store.run(f"UPDATE event SET data = '' WHERE data <> '' AND NOT EXISTS ({_OPEN})", (limit,))
        if emptied or events:
            audit.append(store, microseconds(now), "forgotten", "", before=limit, batches=emptied, events=events)
    return emptied
