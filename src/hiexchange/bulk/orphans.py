"""Find a job of ours that runs at the server without our knowing its address.

After a lost answer to a kick-off, or a 429 that means "this export is running": BCDA lists jobs, AB2D
names them in the 429. Other servers say nothing, and the kick-off is repeated with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from hiexchange import ndjson
from hiexchange._http import Session
from hiexchange._urls import join
from hiexchange.bulk.answers import read_object
from hiexchange.bulk.manifest import parse_instant
from hiexchange.errors import HIExchangeError
from hiexchange.servers import Preset

URL = re.compile(r"https?://[^\s,]+")
OVER = {"failed", "cancelled", "rejected", "entered-in-error"}
CLOCKS_DIFFER = timedelta(minutes=2)


def same_export(one: str, two: str) -> bool:
    """Say whether two kick-off URLs ask for the same, whatever the order and spelling of parameters."""
    try:
        first, second = urlsplit(one), urlsplit(two)
    except ValueError:
        return False
    return first.path.rstrip("/").endswith(second.path.rstrip("/").rsplit("/fhir", 1)[-1]) and (
        _parameters(first.query) == _parameters(second.query)
    )


def _parameters(query: str) -> list[tuple[str, list[str]]]:
    return sorted((name, sorted(value.split(","))) for name, value in parse_qsl(query))


def find_listed(session: Session, preset: Preset, url: str, *, since: datetime | None) -> str | None:
    """Return the status URL of a listed job for kick-off ``url``, or None.

    Args:
        session: The server.
        preset: Says whether there is a list.
        url: The kick-off URL that was sent.
        since: Only jobs begun after it, with an allowance for clocks; None for running ones only.
    """
    if preset.adopt != "jobs_list":
        return None
    try:
        response = session.send(
            "GET",
            f"{session.base_url}/jobs",
            token=session.auth is not None,
            headers={"Accept": "application/fhir+json"},
        )
    except HIExchangeError:
        return None
    bundle = read_object(response.content) or {}
    found = [(_begun(task), task) for task in _tasks(bundle) if _asks_for(task, url) and _alive(task, since)]
    for _, task in sorted(found, key=lambda pair: pair[0] or datetime.min.replace(tzinfo=UTC), reverse=True):
        return _status_url(session, task)
    return None


def _tasks(bundle: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for entry in ndjson.objects(bundle.get("entry")):
        task = entry.get("resource")
        if isinstance(task, Mapping) and task.get("resourceType") == "Task":
            yield task


def _asks_for(task: Mapping[str, Any], url: str) -> bool:
    return any(same_export(found, url) for text in _texts(task) for found in URL.findall(text) if "$export" in found)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _begun(task: Mapping[str, Any]) -> datetime | None:
    period = task.get("executionPeriod")
    start = period.get("start") if isinstance(period, Mapping) else None
    return parse_instant(start if isinstance(start, str) else task.get("authoredOn"))


def _alive(task: Mapping[str, Any], since: datetime | None) -> bool:
    status = str(task.get("status", ""))
    if status in OVER:
        return False
    if since is None:
        return status != "completed"
    begun = _begun(task)
    return begun is None or begun >= since - CLOCKS_DIFFER


def _status_url(session: Session, task: Mapping[str, Any]) -> str | None:
    for identifier in ndjson.objects(task.get("identifier")):
        value = identifier.get("value")
        if isinstance(value, str | int) and re.fullmatch(r"[A-Za-z0-9-]{1,64}", str(value)):
            return f"{session.base_url}/jobs/{value}"
    return None


def split_locations(text: str, base: str) -> list[str]:
    """Return the URLs of a Content-Location that joins several with commas (AB2D)."""
    return [join(base, part.strip()) for part in re.split(r",\s*(?=https?:)", text) if part.strip()]


def find_named(session: Session, locations: list[str], url: str, *, lost: bool) -> str | None:
    """Return the one of several running jobs that is ours, or None.

    A finished job says what was asked (``request`` of its manifest); a running one does not, and is
    taken only when an answer of ours was lost and it is the only one.
    """
    running = []
    for location in locations:
        try:
            response = session.send(
                "GET", location, token=session.auth is not None, headers={"Accept": "application/json"}
            )
        except HIExchangeError:
            continue
        body = read_object(response.content) or {}
        asked = body.get("request")
        if response.status_code == 200 and isinstance(asked, str) and same_export(asked, url):
            return location
        if response.status_code == 202:
            running.append(location)
    return running[0] if lost and len(running) == 1 else None
