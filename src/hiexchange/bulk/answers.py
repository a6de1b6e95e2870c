"""Reduce responses to what the pure protocol decides on."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiexchange import ndjson
from hiexchange._files import write_bytes
from hiexchange._http import Response, now_utc, retry_after
from hiexchange.bulk.protocol import Answer
from hiexchange.errors import StorageError

ANSWER, ANSWER_BYTES = "server-answer.txt", 1 << 16


def to_answer(response: Response) -> Answer:
    """Reduce a read response."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, response.content, retry_after(response.headers, now_utc()))


def keep_answer(folder: Path, response: Response | None, hint: str | None) -> str | None:
    """Keep what a server said about a refusal in the job's folder: it may name patients, so no message shows it.

    Returns:
        The refusal's hint, and where the answer is, if there was one.
    """
    if response is None or not response.content.strip():
        return hint
    with contextlib.suppress(StorageError):  # the refusal itself is more to the point
        write_bytes(folder / ANSWER, response.content[:ANSWER_BYTES])
    kept = f"what the server said is in the job's folder, {ANSWER}"
    return f"{hint}; {kept}" if hint else kept


def read_object(data: bytes) -> Mapping[str, Any] | None:
    """Return a JSON object, or None."""
    value = ndjson.value(data)
    return value if isinstance(value, Mapping) else None
