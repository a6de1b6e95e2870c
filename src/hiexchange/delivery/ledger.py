"""The ledger's tables and the small interface of a store: the same SQL on SQLite and PostgreSQL.

Times are whole microseconds since 1970 (UTC), hashes are hex text. A delivery row holds its own
state only until it is sealed; from then on its batch's state is its state, so one row changes when
a batch of ten thousand events is acknowledged, and the two can never disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

SCHEMA_VERSION = "1"

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS config_version (sha TEXT PRIMARY KEY, spec TEXT NOT NULL, first_seen BIGINT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS channel (
        subscriber_id TEXT NOT NULL, channel_id TEXT NOT NULL, config_sha TEXT NOT NULL, active INTEGER NOT NULL,
        sealed_to BIGINT NOT NULL, next_sequence BIGINT NOT NULL, PRIMARY KEY (subscriber_id, channel_id))""",
    "CREATE TABLE IF NOT EXISTS column_set (sha TEXT PRIMARY KEY, names TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS endpoint (name TEXT PRIMARY KEY, failures INTEGER NOT NULL, open_until BIGINT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS event (
        event_key TEXT NOT NULL, material_version TEXT NOT NULL, visit TEXT NOT NULL, trigger_class TEXT NOT NULL,
        version BIGINT NOT NULL, event_at BIGINT NOT NULL, person_id TEXT, data TEXT NOT NULL,
        PRIMARY KEY (event_key, material_version))""",
    "CREATE INDEX IF NOT EXISTS event_visit ON event (visit)",
    """CREATE TABLE IF NOT EXISTS delivery (
        delivery_id TEXT PRIMARY KEY, subscriber_id TEXT NOT NULL, channel_id TEXT NOT NULL, event_key TEXT NOT NULL,
        material_version TEXT NOT NULL, template_major INTEGER NOT NULL, state TEXT NOT NULL, due_at BIGINT NOT NULL,
        batch_id TEXT, reason TEXT, context TEXT NOT NULL, created_at BIGINT NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS delivery_open ON delivery (subscriber_id, channel_id, due_at) WHERE batch_id IS NULL",
    "CREATE INDEX IF NOT EXISTS delivery_batch ON delivery (batch_id)",
    "CREATE INDEX IF NOT EXISTS delivery_event ON delivery (event_key)",
    """CREATE TABLE IF NOT EXISTS batch (
        batch_id TEXT PRIMARY KEY, subscriber_id TEXT NOT NULL, channel_id TEXT NOT NULL, sequence BIGINT NOT NULL,
        state TEXT NOT NULL, attempts INTEGER NOT NULL, due_at BIGINT NOT NULL, lease_until BIGINT NOT NULL,
        owner TEXT, parcel_key TEXT NOT NULL, name TEXT NOT NULL, content_type TEXT NOT NULL, sha256 TEXT NOT NULL,
        size_bytes BIGINT NOT NULL, row_count BIGINT NOT NULL, replay INTEGER NOT NULL, config_sha TEXT NOT NULL,
        period_from BIGINT NOT NULL, period_to BIGINT NOT NULL, sealed_at BIGINT NOT NULL, acked_at BIGINT,
        reason TEXT, announced_in BIGINT, doubtful INTEGER NOT NULL DEFAULT 0,
        UNIQUE (subscriber_id, channel_id, sequence))""",
    "CREATE INDEX IF NOT EXISTS batch_open ON batch (due_at) WHERE state IN ('pending','retry','unknown','claimed','sent')",
    "CREATE INDEX IF NOT EXISTS batch_state ON batch (state, replay, row_count)",
    "CREATE TABLE IF NOT EXISTS payload (batch_id TEXT PRIMARY KEY, payload {blob}, manifest {blob} NOT NULL)",
    "CREATE TABLE IF NOT EXISTS replay_item (batch_id TEXT NOT NULL, delivery_id TEXT NOT NULL, PRIMARY KEY (batch_id, delivery_id))",
    """CREATE TABLE IF NOT EXISTS attempt (
        batch_id TEXT NOT NULL, attempt_no INTEGER NOT NULL, started_at BIGINT NOT NULL, ended_at BIGINT NOT NULL,
        outcome TEXT NOT NULL, code TEXT NOT NULL, PRIMARY KEY (batch_id, attempt_no))""",
    """CREATE TABLE IF NOT EXISTS audit (
        n BIGINT PRIMARY KEY, at BIGINT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, data TEXT NOT NULL,
        previous TEXT NOT NULL, hash TEXT NOT NULL)""",
)

OPEN_BATCH = ("pending", "retry", "unknown", "claimed", "sent")
"""States of a batch that is not settled."""

Row = tuple[Any, ...]


class Store(Protocol):
    """A transactional store: SQLite for one computer, PostgreSQL for several workers."""

    skip_locked: str
    """Appended to a SELECT that picks rows for this worker alone; empty where writers are serialised."""

    def transaction(self) -> AbstractContextManager[None]:
        """Commit durably at the end of the block, roll back on any exception."""

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        """Return every row of a query; ``?`` marks arguments."""

    def run(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Run one statement and return how many rows it changed."""

    def run_many(self, sql: str, args: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each set of arguments."""

    def owner(self) -> str:
        """Return this worker's name; it counts as alive until the process ends."""

    def owner_alive(self, name: str) -> bool:
        """Say whether the worker of that name still runs."""

    def serialise(self, what: str) -> None:
        """Within a transaction, wait until no other worker changes ``what``."""

    def close(self) -> None:
        """Release the store."""


def create(store: Store, *, blob: str) -> None:
    """Create the tables that are absent; an existing ledger is left as it is."""
    with store.transaction():
        for statement in SCHEMA:
            store.run(statement.replace("{blob}", blob))
        store.run("INSERT INTO meta VALUES ('schema', ?) ON CONFLICT DO NOTHING", (SCHEMA_VERSION,))
