"""The hash-chained audit trail: each row carries its predecessor's hash, so an edit shows.

A chain alone cannot show that its tail was cut off: keep :func:`head` somewhere else (a log line a
day is enough) and give it to :func:`hiexchange.delivery.verify.verify`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hiexchange._files import sha256_text
from hiexchange.delivery.ledger import Store

GENESIS = "0" * 64


def append(store: Store, at: int, kind: str, subject: str, **data: Any) -> None:
    """Add one row to the chain, within the caller's transaction.

    Args:
        store: The ledger, in a transaction.
        at: Microseconds.
        kind: enqueued, sealed, acked, retry, unknown, dead, void, held, replayed, requeued, cancelled ...
        subject: Batch id, or subscriber/channel; never patient data.
        data: Facts, JSON types only.
    """
    store.serialise("audit")
    number, previous = head(store)
    text = msgspec.json.encode(data, order="sorted").decode()
    row = (number + 1, at, kind, subject, text, previous)
    store.run("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, link(*row)))


def head(store: Store) -> tuple[int, str]:
    """Return number and hash of the last row; ``(0, GENESIS)`` when there is none."""
    last = store.rows("SELECT n, hash FROM audit ORDER BY n DESC LIMIT 1")
    return (int(last[0][0]), str(last[0][1])) if last else (0, GENESIS)


def link(number: int, at: int, kind: str, subject: str, data: str, previous: str) -> str:
    """Return the hash of one row."""
    return sha256_text(previous, str(number), str(at), kind, subject, data)
