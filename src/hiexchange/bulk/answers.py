"""Reduce responses to what the pure protocol decides on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hiexchange import ndjson
from hiexchange._http import Response, now_utc, retry_after
from hiexchange.bulk.protocol import Answer


def to_answer(response: Response) -> Answer:
    """Reduce a read response."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, response.content, retry_after(response.headers, now_utc()))


def read_object(data: bytes) -> Mapping[str, Any] | None:
    """Return a JSON object, or None."""
    value = ndjson.value(data)
    return value if isinstance(value, Mapping) else None
