"""Which resources a server says are gone: the ``deleted`` Bundles of an export, normalised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from hiexchange import ndjson


class Deletion(msgspec.Struct, frozen=True):
    """One resource that no longer exists at the server; applied after the upserts."""

    type: str
    id: str

    def __repr__(self) -> str:
        return f"Deletion({self.type!r}, …)"  # an id may be a patient's


class Odd(msgspec.Struct, frozen=True):
    """An entry that is no plain deletion, and why."""

    file: str
    reason: str


def read_deletions(folder: str | Path) -> Iterator[Deletion | Odd]:
    """Yield what the ``deleted`` folder of a job holds, each a :class:`Deletion` or :class:`Odd`."""
    for path in sorted(Path(folder).glob("deleted/*.ndjson*")):
        for bundle in ndjson.reader(path):
            for entry in ndjson.objects(bundle.get("entry")):
                yield parse_entry(entry, path.name)


def parse_entry(entry: Mapping[str, object], file: str = "") -> Deletion | Odd:
    """Normalise one entry of a transaction Bundle: absolute and versioned URLs become type and id."""
    request = entry.get("request")
    if not isinstance(request, Mapping) or request.get("method") != "DELETE":
        return Odd(file, "not a DELETE")
    url = str(request.get("url", ""))
    try:
        parts = urlsplit(url)
    except ValueError:
        return Odd(file, "the URL names no resource")
    if parts.query:
        return Odd(file, "a conditional delete names no resource")
    pieces = [piece for piece in parts.path.split("/") if piece]
    if "_history" in pieces:
        pieces = pieces[: pieces.index("_history")]
    if len(pieces) < 2 or not pieces[-2][:1].isupper():
        return Odd(file, "the URL names no resource")
    return Deletion(pieces[-2], pieces[-1])
