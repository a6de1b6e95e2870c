"""The registry of faults the loopback server can produce, by number and by name.

A fault is a function ``(exchange, reply) -> reply``: it sees one request and the honest answer to it,
and may change the answer. The numbers are those of docs/bulk-export.md. Modules
``bulk_faults_*`` register them; :func:`load` imports these.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hiexchange.errors import ConfigError

MODULES = ("bulk_faults_jobs", "bulk_faults_manifest", "bulk_faults_files", "bulk_faults_other")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request as a fault sees it."""

    kind: str
    """smart, metadata, token, kickoff, status, page, file, delete, jobs, group, binary or other."""
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    count: int
    """How many requests of this kind came before, this one included."""
    times: int
    """The same for this very path."""
    base: str
    """The server's origin."""
    server: Any
    job: Any = None
    file: Any = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and how it goes over the wire."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    framing: str = "length"
    """length, chunked, or close (neither: the end of the connection ends the body)."""
    encoded: bool = False
    """The body is as it shall travel; otherwise gzip is applied where the client takes it."""
    cut_after: int | None = None
    """Bytes of the body after which the connection is closed."""
    reset: bool = False
    """Close by a reset instead of an orderly end."""
    drop: bool = False
    """Close without any answer."""
    claim_length: int | None = None
    """A Content-Length that is not the body's."""
    delay_s: float = 0.0
    drip: tuple[int, float] | None = None
    """Send so many bytes at a time, so many seconds apart."""

    def with_header(self, name: str, value: str | None) -> Reply:
        """Return the reply with a header set, or without it."""
        kept = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=kept if value is None else (*kept, (name, value)))

    def header(self, name: str) -> str | None:
        """Return a header's value."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def change(self, **values: Any) -> Reply:
        """Return the reply with other values."""
        return replace(self, **values)


Hook = Callable[[Exchange, Reply], Reply]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to misbehave."""

    number: int
    name: str
    doc: str
    hook: Hook = field(repr=False)


REGISTRY: dict[str, Fault] = {}


def fault(number: int) -> Callable[[Hook], Hook]:
    """Register a function as fault ``number``; variants of one number have names of their own."""

    def register(hook: Hook) -> Hook:
        name = hook.__name__
        REGISTRY[name] = Fault(number, name, (hook.__doc__ or "").strip().splitlines()[0], hook)
        return hook

    return register


def load() -> dict[str, Fault]:
    """Return every fault by name."""
    for module in MODULES:
        importlib.import_module(f"hiexchange.testing.{module}")
    return REGISTRY


def find(wanted: Iterable[int | str | Hook]) -> list[Fault]:
    """Return faults by number (every variant of it), by name, or made from a function.

    Raises:
        ConfigError: There is no such fault.
    """
    found: list[Fault] = []
    for item in wanted:
        if callable(item):
            found.append(Fault(0, item.__name__, "", item))
            continue
        text = str(item)
        matches = [known for known in load().values() if text in (known.name, str(known.number))]
        if not matches:
            raise ConfigError(f"there is no fault {text!r} the server can produce", hint="hiexchange serve --faults")
        # A number alone means its first, plainest variant.
        found.append(matches[0])
    return found


def edit_manifest(change: Callable[[Exchange, dict[str, Any]], None]) -> Hook:
    """Make a hook that changes every complete manifest page before it is sent."""

    @functools.wraps(change)
    def hook(exchange: Exchange, reply: Reply) -> Reply:
        if exchange.kind not in ("status", "page") or reply.status != 200 or not reply.body.startswith(b"{"):
            return reply
        manifest = json.loads(reply.body)
        with contextlib.suppress(LookupError):  # another fault has left nothing to change
            change(exchange, manifest)
        return reply.change(body=json.dumps(manifest).encode())

    return hook


def first_file(exchange: Exchange) -> bool:
    """Say whether this is the first try at the first file of a job."""
    return exchange.kind == "file" and exchange.path.endswith("/0.ndjson") and exchange.times == 1


def always_file(exchange: Exchange) -> bool:
    """Say whether this is any try at the first file of a job."""
    return exchange.kind == "file" and exchange.path.endswith("/0.ndjson")
