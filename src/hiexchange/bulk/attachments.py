"""Fetch the documents that exported resources point to, each failure by itself.

Attachments with a URL (DocumentReference.content, DiagnosticReport.presentedForm, Media) and Binary
references. A document that cannot be had is listed, not raised: the export is whole without it. The
token follows the manifest's rule and never leaves the server's origin.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiexchange import ndjson
from hiexchange._files import atomic_file
from hiexchange._http import NoAnswer, Policy, Session, raw_body
from hiexchange._urls import join, redact
from hiexchange.bulk.decode import BodyDecoder, Broken
from hiexchange.errors import BadLine, PolicyViolation, ServerUnavailable

TRIES = 3
MIME = re.compile(r"[ -~]{1,200}")
LATER = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class AttachmentReceipt:
    """One document: where it is, or why it could not be had."""

    resource: str
    """``Type`` of the resource that points to it; ids are not kept here."""
    url_sha256: str
    file: str | None
    size_bytes: int = 0
    content_type: str | None = None
    problem: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pointer:
    """An attachment found in a resource."""

    type: str
    url: str
    content_type: str | None


def pointers(resource: Mapping[str, Any]) -> Iterator[Pointer]:
    """Yield the attachments with a URL in a resource; those with inline data need no fetching."""
    name = str(resource.get("resourceType"))
    found: list[Any] = [item.get("attachment") for item in ndjson.objects(resource.get("content"))]
    found += ndjson.objects(resource.get("presentedForm"))
    if name == "Media":
        found.append(resource.get("content"))
    for item in found:
        if isinstance(item, Mapping) and isinstance(item.get("url"), str) and "data" not in item:
            kind = item.get("contentType")
            yield Pointer(name, item["url"], kind if isinstance(kind, str) and MIME.fullmatch(kind) else None)


def fetch_attachments(
    folder: Path, files: Iterator[Path], session: Session, *, requires_token: bool | None
) -> Iterator[AttachmentReceipt]:
    """Yield a receipt for every distinct attachment of the exported files; repeats nothing that is there.

    Args:
        folder: The job folder; documents go to ``attachments/``, named by the hash of their URL.
        files: NDJSON files to look through.
        session: The server.
        requires_token: The manifest's ``requiresAccessToken``.
    """
    seen: set[str] = set()
    for path in files:
        for resource in ndjson.reader(path):
            for pointer in pointers(resource):
                url = join(session.base_url + "/", pointer.url)
                if url not in seen:
                    seen.add(url)
                    yield _fetch(folder, pointer, url, session, requires_token)


def _fetch(
    folder: Path, pointer: Pointer, url: str, session: Session, requires_token: bool | None
) -> AttachmentReceipt:
    digest = hashlib.sha256(url.encode()).hexdigest()
    target = folder / "attachments" / digest
    if target.exists():
        return AttachmentReceipt(pointer.type, digest, f"attachments/{digest}", target.stat().st_size)
    problem = "not tried"
    for attempt in range(TRIES):
        try:
            return _once(target, pointer, url, session, requires_token)
        except PolicyViolation as error:
            problem = error.what
            break
        except _Refused as error:
            problem = str(error)
            break
        except (NoAnswer, Broken, ServerUnavailable) as error:
            problem = getattr(error, "what", str(error))
        if session.wait(min(session.policy.backoff_min_s * 2**attempt, session.policy.backoff_max_s)):
            break
    return AttachmentReceipt(pointer.type, digest, None, problem=problem)


class _Refused(Exception):
    """The server does not give the document."""


def _once(target: Path, pointer: Pointer, url: str, session: Session, requires_token: bool | None) -> AttachmentReceipt:
    token = session.auth is not None and requires_token is not False and session.in_token_scope(url)
    headers = {"Accept": pointer.content_type or "*/*"}
    response = session.send("GET", url, token=token, headers=headers, stream=True)
    try:
        if response.status_code in LATER:
            raise ServerUnavailable(f"HTTP {response.status_code}", where=redact(url))
        if response.status_code != 200:
            raise _Refused(f"HTTP {response.status_code}")
        given = response.headers.get("content-type", "").split(";")[0].strip()
        data = _body(response, session.policy)
    finally:
        response.close()
    notes: tuple[str, ...] = ()
    if given in ("application/fhir+json", "application/json") and (inner := _unwrap(data)) is not None:
        data, given = inner
        notes = ("unwrapped from a Binary resource",)
    if pointer.content_type and given and given != pointer.content_type.split(";")[0].strip():
        notes = (*notes, f"announced as {pointer.content_type[:60]}, sent as {given[:60]}")
    with atomic_file(target) as file:
        file.write(data)
    return AttachmentReceipt(pointer.type, target.name, f"attachments/{target.name}", len(data), given, notes=notes)


def _body(response: Any, policy: Policy) -> bytes:
    decoder = BodyDecoder(response.headers.get("content-encoding", ""))
    data = bytearray()
    for raw in raw_body(response):
        for piece in decoder.feed(raw):
            data += piece
            if len(data) > policy.max_attachment_bytes:
                raise _Refused("larger than the limit")
    for piece in decoder.finish():
        data += piece
    return bytes(data)


def _unwrap(data: bytes) -> tuple[bytes, str] | None:
    """Return content and type of a Binary resource, or None when the JSON is the document itself."""
    try:
        values = ndjson.loads(data.replace(b"\n", b" "))
    except BadLine:
        return None
    value = values[0] if len(values) == 1 else None
    if not isinstance(value, dict) or value.get("resourceType") != "Binary" or not isinstance(value.get("data"), str):
        return None
    try:
        return base64.b64decode(value["data"], validate=True), str(value.get("contentType", ""))
    except (binascii.Error, ValueError):
        return None
