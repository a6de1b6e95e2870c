"""Which files a manifest asks for, and under which names of our own they are kept. Pure.

Names come from our counter and the type, never from URLs: duplicate names lost data elsewhere. They
depend only on the order of the pages, so a resumed job finds its files again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec.structs import replace

from hiexchange.bulk.manifest import Manifest, OutputFile, join_pages

NEVER = datetime.max.replace(tzinfo=UTC)
UNTYPED = {"output": "organized", "outcome": "OperationOutcome", "deleted": "Bundle"}
"""Names of files without a type: organized output, and all of STU4's deleted and outcome."""


class PlannedFile(msgspec.Struct, frozen=True):
    """One file to fetch, and where it goes."""

    file: str
    item: OutputFile
    requires_token: bool | None
    expires: datetime | None = None
    """When the page that lists it says its links end."""


class Plan(msgspec.Struct, frozen=True):
    """All pages of a job's manifest, and the files they ask for."""

    manifest: Manifest
    files: tuple[PlannedFile, ...]
    warnings: tuple[str, ...]


def make_plan(pages: Iterable[Manifest]) -> Plan:
    """Return what the pages ask for; a URL listed twice is fetched once.

    Raises:
        ValueError: There is no page.
    """
    pages = list(pages)
    counters: Counter[tuple[str, str]] = Counter()
    seen: dict[str, PlannedFile] = {}
    planned: list[PlannedFile] = []
    # The SMART server gives a bare file name where others give a URL: names are what both have.
    names: set[str] = set()
    continued: set[str] = set()
    warnings: list[str] = []
    for page in pages:
        for item in page.files():
            if item.url in seen:
                warnings.append(f"{seen[item.url].file} is listed more than once; it is fetched once")
                continue
            names.add(item.url.split("?", 1)[0].rsplit("/", 1)[-1])
            if item.continues_in:
                continued.add(item.continues_in.rsplit("/", 1)[-1])
            name = item.type or UNTYPED[item.kind]
            folder = "organized" if item.kind == "output" and item.type is None else item.kind
            counters[item.kind, name] += 1
            file = f"{folder}/{name}.{counters[item.kind, name]:05}.ndjson"
            seen[item.url] = PlannedFile(file, item, page.requires_access_token, page.expires)
            planned.append(seen[item.url])
    warnings += [f"a block goes on in a file that is not listed: {name[:80]}" for name in sorted(continued - names)]
    return Plan(join_pages(pages), tuple(planned), tuple(dict.fromkeys(warnings)))


def renewed_urls(planned: Iterable[PlannedFile], fresh: Iterable[Manifest]) -> Mapping[str, OutputFile]:
    """Match renewed links to planned files: by full URL, else by URL without query where that is unique.

    Returns:
        Our file name to the renewed entry, for those that were found.
    """
    exact: dict[str, OutputFile] = {}
    by_path: dict[str, list[OutputFile]] = {}
    for page in fresh:
        for item in page.files():
            exact[item.url] = item
            by_path.setdefault(item.key, []).append(item)
    found: dict[str, OutputFile] = {}
    for file in planned:
        same_path = by_path.get(file.item.key, [])
        fresh_item = exact.get(file.item.url) or (same_path[0] if len(same_path) == 1 else None)
        if fresh_item is not None:
            found[file.file] = fresh_item
    return found


def renew(planned: Iterable[PlannedFile], urls: Mapping[str, str]) -> list[PlannedFile]:
    """Return the files with the links in ``urls``, those that have one there."""
    return [
        replace(file, item=replace(file.item, url=urls[file.file])) if file.file in urls else file for file in planned
    ]


def shortest_life_first(files: Iterable[PlannedFile]) -> list[PlannedFile]:
    """Return the files whose links end soonest first; otherwise the order of the manifest stays."""
    return sorted(files, key=_ends_at)


def _ends_at(file: PlannedFile) -> datetime:
    known = [moment for moment in (file.expires, signed_until(file.item.url)) if moment is not None]
    return min(known, default=NEVER)


def signed_until(url: str) -> datetime | None:
    """Return when a signed link ends, as its own query says; None when it does not.

    Source:
        AWS Signature Version 4 and Google V4 (``X-Amz-Date`` and ``X-Amz-Expires``, ``X-Goog-…``), their version 2
        and CloudFront (``Expires``, epoch seconds), Azure shared access signatures (``se``).
    """
    try:
        query = urlsplit(url).query
        if not query:
            return None
        given = {name.lower(): value for name, value in parse_qsl(query)}
        for vendor in ("x-amz-", "x-goog-"):
            if vendor + "date" in given and vendor + "expires" in given:
                begun = datetime.strptime(given[vendor + "date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return begun + timedelta(seconds=int(given[vendor + "expires"]))
        if "expires" in given:
            return datetime.fromtimestamp(int(given["expires"]), UTC)
        if "se" in given:
            ends = datetime.fromisoformat(given["se"])
            return ends if ends.tzinfo else ends.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None  # a parameter of that name that means something else
    return None
