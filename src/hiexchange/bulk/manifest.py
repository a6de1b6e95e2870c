"""Read a manifest of any version of the standard (STU1 to STU4), tolerantly. Pure.

One parser for all: ``error`` or ``outcome``; ``extension`` an object or an array; items with or
without ``type``; null or missing arrays. What is odd becomes a warning; what is dangerous is left
to the policy, which sees every URL before it is visited.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from hiexchange._urls import join, redact
from hiexchange.bulk.lines import could_be_a_type
from hiexchange.errors import ProtocolViolation

KINDS = ("output", "deleted", "outcome")
LISTS = (*KINDS, "error")
GO_TIME = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(\.\d+)? ([+-]\d{4})")
DIGITS = re.compile(r"[0-9]{1,18}")
MOST = 10**18


class OutputFile(msgspec.Struct, frozen=True):
    """One file the manifest lists."""

    kind: str
    """``output``, ``deleted`` or ``outcome``."""
    type: str | None
    """Resource type; None for organized output."""
    url: str
    count: int | None = None
    size: int | None = None
    """``fileSize`` of STU4, in bytes."""
    checksum: str | None = None
    """Hex SHA-256 of the plain content."""
    length: int | None = None
    """Length in bytes by a server's own extension."""
    continues_in: str | None = None
    checksum_note: str | None = None
    """Why a checksum that was given cannot be used."""

    def __repr__(self) -> str:
        # A link may be a capability: whoever has its query has the file.
        return f"OutputFile(kind={self.kind!r}, type={self.type!r}, url={redact(self.url)!r}, count={self.count})"

    @property
    def key(self) -> str:
        """What identifies the file when its link is renewed: the URL without its query."""
        try:
            parts = urlsplit(self.url)
        except ValueError:
            return self.url
        return f"{parts.netloc}{parts.path}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One page of a manifest, or all of them joined."""

    transaction_time: str | None
    requires_access_token: bool | None
    """None when the server did not say."""
    output: tuple[OutputFile, ...] = ()
    deleted: tuple[OutputFile, ...] = ()
    outcome: tuple[OutputFile, ...] = ()
    links: tuple[str, ...] = field(default=(), repr=False)
    """URLs of the next pages."""
    organized_by: str | None = None
    expires: datetime | None = None
    extensions: tuple[Any, ...] = ()
    warnings: tuple[str, ...] = ()
    version_hint: str = "2.0.0"
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """As received, without the lists of files (50,000 entries kept twice would be too many)."""

    def files(self) -> Iterator[OutputFile]:
        """Yield every file in the manifest's order: output, deleted, outcome."""
        yield from self.output
        yield from self.deleted
        yield from self.outcome


def parse_manifest(
    body: object, *, url: str, integrity: Mapping[str, str] | None = None, expires: str | None = None
) -> Manifest:
    """Return a manifest page from its decoded JSON.

    Args:
        body: The decoded JSON.
        url: Where it came from; relative URLs start there.
        integrity: Extension URLs of a preset: ``checksum``, ``length``.
        expires: The response's ``Expires`` header.

    Raises:
        ProtocolViolation: Not an object, or no sign of a manifest: never read as "no files".
    """
    if not isinstance(body, Mapping) or not _looks_like_one(body):
        raise ProtocolViolation("the server did not answer with a manifest")
    warnings: list[str] = []
    hints = integrity or {}
    found = {
        "output": _items(body.get("output"), "output", url, hints, warnings),
        "deleted": _items(body.get("deleted"), "deleted", url, hints, warnings),
        "outcome": _items(body.get("outcome", body.get("error")), "outcome", url, hints, warnings),
    }
    token = body.get("requiresAccessToken")
    if isinstance(token, str):
        token = {"true": True, "false": False}.get(token.lower())
    if not isinstance(token, bool):
        warnings.append("requiresAccessToken is missing: the token goes to the server's own origin only")
        token = None
    extension = body.get("extension")
    time = body.get("transactionTime")
    return Manifest(
        transaction_time=time if isinstance(time, str) else None,
        requires_access_token=token,
        links=tuple(_links(body.get("link"), url)),
        organized_by=_text(body.get("outputOrganizedBy")),
        expires=parse_expires(expires) if expires else None,
        extensions=tuple(extension) if isinstance(extension, list) else (extension,) if extension else (),
        warnings=tuple(warnings),
        version_hint=_version(body),
        raw={name: value for name, value in body.items() if name not in LISTS},
        **found,
    )


def join_pages(pages: Iterable[Manifest]) -> Manifest:
    """Return all pages as one manifest; the top-level fields are the last page's.

    Raises:
        ValueError: There is no page.
    """
    known = list(pages)
    if not known:
        raise ValueError("no manifest page")
    last = known[-1]
    lives = [page.expires for page in known if page.expires]
    return Manifest(
        transaction_time=next((page.transaction_time for page in reversed(known) if page.transaction_time), None),
        requires_access_token=last.requires_access_token,
        output=tuple(item for page in known for item in page.output),
        deleted=tuple(item for page in known for item in page.deleted),
        outcome=tuple(item for page in known for item in page.outcome),
        organized_by=last.organized_by,
        expires=min(lives) if lives else None,
        extensions=tuple(item for page in known for item in page.extensions),
        warnings=tuple(dict.fromkeys(text for page in known for text in page.warnings)),
        version_hint=last.version_hint,
        raw=last.raw,
    )


def parse_expires(text: str) -> datetime | None:
    """Return an ``Expires`` header as an aware time: HTTP date, Go's ``time.String()``, ISO; else None."""
    try:
        if found := GO_TIME.match(text):
            # BCDA: "2026-08-14 00:07:48.123456 +0000 UTC"
            return datetime.strptime(f"{found[1]} {found[2]} {found[4]}", "%Y-%m-%d %H:%M:%S %z").astimezone(UTC)
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return parse_instant(text)
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def parse_instant(text: str | None) -> datetime | None:
    """Return a FHIR instant as an aware time; None when it is missing, unreadable or has no offset."""
    if not text:
        return None
    try:
        value = datetime.fromisoformat(text)
        return value.astimezone(UTC) if value.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _looks_like_one(body: Mapping[str, Any]) -> bool:
    if body.get("resourceType"):  # an OperationOutcome or a Bundle is never "0 files"
        return False
    return "output" in body or "transactionTime" in body


def _items(
    value: object, kind: str, base: str, integrity: Mapping[str, str], warnings: list[str]
) -> tuple[OutputFile, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        warnings.append(f"{kind} is not a list")
        return ()
    items = []
    for entry in value:
        if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
            warnings.append(f"an entry of {kind} has no URL")
            continue
        items.append(_item(entry, kind, base, integrity))
    return tuple(items)


def _item(entry: Mapping[str, Any], kind: str, base: str, integrity: Mapping[str, str]) -> OutputFile:
    name = entry.get("type")
    extensions = entry.get("extension")
    known = list(_extension_values(extensions)) if extensions else []
    checksum, note = _checksum(next((v for u, v in known if u == integrity.get("checksum", "")), None))
    length = next((v for u, v in known if u == integrity.get("length", "")), None)
    continues = entry.get("continuesInFile")
    return OutputFile(
        kind=kind,
        type=name if isinstance(name, str) and could_be_a_type(name) else None,
        url=entry["url"] if entry["url"].startswith(("https://", "http://")) else join(base, entry["url"]),
        count=_whole(entry.get("count")),
        size=_whole(entry.get("fileSize")),
        checksum=checksum,
        length=_whole(length),
        continues_in=continues if isinstance(continues, str) else None,
        checksum_note=note,
    )


def _extension_values(extensions: object) -> Iterator[tuple[str, object]]:
    """Yield URL and value of FHIR Extensions (an array), or the pairs of a plain object."""
    if isinstance(extensions, Mapping):
        yield from extensions.items()
    elif isinstance(extensions, list):
        for item in extensions:
            if isinstance(item, Mapping) and isinstance(item.get("url"), str):
                value = next((item[key] for key in item if key.startswith("value")), None)
                yield item["url"], value


def _checksum(value: object) -> tuple[str | None, str | None]:
    """Return hex and None, or None and the reason (DPC may send a bare ``sha256:``)."""
    if not isinstance(value, str):
        return None, None
    algorithm, _, digest = value.rpartition(":")
    if algorithm.lower() not in ("sha256", "sha-256", ""):
        return None, f"checksum algorithm {algorithm[:20]!r} is not known"
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        return None, "the checksum is empty or not hexadecimal"
    return digest.lower(), None


def _links(value: object, base: str) -> Iterator[str]:
    if not isinstance(value, list):
        return
    for link in value:
        if isinstance(link, Mapping) and link.get("relation") == "next" and isinstance(link.get("url"), str):
            yield join(base, link["url"])


def _version(body: Mapping[str, Any]) -> str:
    if "outcome" in body or "manifestType" in body:
        return "4.0.0"
    return "3.0.0" if "link" in body or "outputOrganizedBy" in body else "2.0.0"


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and DIGITS.fullmatch(value):
        return int(value)
    return int(value) if isinstance(value, int | float) and 0 <= value < MOST else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
