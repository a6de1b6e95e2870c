"""One attempt at one file: stream it to ``.part``, prove it, and say what was proved.

Nothing here retries; :mod:`hiexchange.bulk.download` does.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from hiexchange._files import storage_errors
from hiexchange._http import NoAnswer, Policy, Response, raw_body
from hiexchange.bulk.decode import BodyDecoder, Broken
from hiexchange.bulk.lane import Lane
from hiexchange.bulk.lines import LineCheck
from hiexchange.bulk.manifest import OutputFile
from hiexchange.bulk.proof import Proof, Spool, Stopped, Terms, tidy

HEADER_TYPE = "Parameters"
BUFFER = 1 << 20
TELL_S = 5.0
PACKED = 5
"""Plain bytes in a byte of gzip, at least; FHIR packs eight- to twentyfold."""


class Body(msgspec.Struct):
    """What came out of one attempt."""

    wire_bytes: int = 0
    plain_bytes: int = 0
    stored_bytes: int = 0
    sha256: str = ""
    plain_sha256: str = ""
    length_lied: bool = False
    complete: bool = False
    """The bytes ran to the end the sender meant; only the content can still be wrong."""
    verified: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)
    check: LineCheck = msgspec.field(default_factory=LineCheck)


class Meter:
    """Abort a body that trickles: fewer bytes than the floor over the window."""

    def __init__(self, policy: Policy) -> None:
        """Start now."""
        self._floor = policy.stall_floor_bytes_s * policy.stall_window_s
        self._window = policy.stall_window_s
        self._since = time.monotonic()
        self._bytes = 0

    def count(self, size: int) -> None:
        """Take ``size`` more bytes into account.

        Raises:
            Broken: Too slow.
        """
        self._bytes += size
        now = time.monotonic()
        if now - self._since >= self._window:
            if self._bytes < self._floor:
                raise Broken("the body trickled below the stall floor")
            self._since, self._bytes = now, 0


def receive(
    response: Response,
    part: Path,
    item: OutputFile,
    terms: Terms,
    *,
    kept: Path | None = None,
    tell: Callable[[int], None] = lambda size: None,
) -> Body:
    """Stream an answer into ``part`` and check it on the way; ``part`` is fsynced.

    Args:
        response: A 200, or the 206 that goes on where ``kept`` ends.
        part: Where the file is written.
        item: The file as the manifest lists it.
        terms: Limits and helpers.
        kept: The beginning, from an earlier attempt; it is checked again with the rest.
        tell: Called every few seconds with the plain bytes so far.

    Raises:
        NoAnswer: The connection broke.
        Broken: The bytes cannot be whole.
        Stopped: ``terms.stopped()`` became true.
        StorageError: The disk.
    """
    body = Body(check=terms.new_check())
    decoder = BodyDecoder(response.headers.get("content-encoding", ""))
    plain_digest = hashlib.sha256() if item.checksum else None
    with storage_errors(part), part.open("wb", buffering=0) as file:
        spool = Spool(file)
        with Proof(part, body.check, terms, expected=_expected(response)) as proof:

            def store(data: bytes) -> None:
                spool.store(data)
                proof.stored(spool.size)

            with Lane(store) as stored:
                for plain in _decoded(_from(kept, response, decoder, body), decoder, body, terms, tell):
                    if plain_digest:
                        plain_digest.update(plain)
                    if clean := proof.feed(plain):
                        stored.put(clean)
                stored.put(proof.finish())
            proved = proof.ended(spool)
        if not proved:
            spool, body.check = tidy(part, body.plain_bytes, terms)
    body.stored_bytes, body.sha256 = spool.size, spool.sha256
    body.plain_sha256 = plain_digest.hexdigest() if plain_digest else ""
    _note_proofs(body, response, decoder)
    return body


def _expected(response: Response) -> int:
    """Return how many plain bytes a body will have, roughly; 0 when it does not say."""
    length = response.headers.get("content-length", "")
    return int(length) * (PACKED if "content-encoding" in response.headers else 1) if length.isdecimal() else 0


def _note_proofs(body: Body, response: Response, decoder: BodyDecoder) -> None:
    """Say what of the transport was proved."""
    body.notes += [*decoder.notes, *sorted(body.check.notes)]
    body.complete = True
    chunked = "chunked" in response.headers.get("transfer-encoding", "").lower()
    if not body.length_lied and ("content-length" in response.headers or chunked):
        body.verified.append("transport")
    if decoder.layers:
        body.verified.append("gzip")


def _decoded(
    raws: Iterator[bytes], decoder: BodyDecoder, body: Body, terms: Terms, tell: Callable[[int], None]
) -> Iterator[bytes]:
    policy = terms.policy
    meter = Meter(policy)
    told = time.monotonic()
    for raw in raws:
        if terms.stopped():
            raise Stopped
        body.wire_bytes += len(raw)
        meter.count(len(raw))
        if time.monotonic() - told >= TELL_S:
            told = time.monotonic()
            tell(body.plain_bytes)
        for piece in decoder.feed(raw):
            body.plain_bytes += len(piece)
            if body.plain_bytes > policy.max_file_bytes or (
                body.plain_bytes > BUFFER and body.plain_bytes > body.wire_bytes * policy.max_ratio
            ):
                raise Broken("the body grows past every sensible size")
            yield piece
    for piece in decoder.finish():
        body.plain_bytes += len(piece)
        yield piece


def _from(kept: Path | None, response: Response, decoder: BodyDecoder, body: Body) -> Iterator[bytes]:
    """Yield the raw bytes kept from an earlier attempt, then those of the answer."""
    if kept is not None:
        with kept.open("rb") as file:
            while block := file.read(BUFFER):
                yield block
    yield from _until_cut(response, decoder, body)


def _until_cut(response: Response, decoder: BodyDecoder, body: Body) -> Iterator[bytes]:
    """Yield raw bytes; a gzip body that ended with its trailer is whole whatever Content-Length said."""
    try:
        yield from raw_body(response)
    except NoAnswer:
        if not (decoder.whole and body.wire_bytes < int(response.headers.get("content-length") or 0)):
            raise
        body.notes.append("Content-Length is not that of the body; the gzip trailer is")
        body.length_lied = True


def problem_with(body: Body, item: OutputFile, *, length_of: str, strict: bool) -> str | None:
    """Return why a received body is not the file the manifest promised, or None; fills ``verified``.

    Counts of error entries are not compared: the SMART server's are wrong (1000 for one line).
    """
    check = body.check
    if check.too_long:
        return "a line is longer than the limit"
    if not check.rejected:
        body.verified.append("parse")
    elif not check.lines:
        return f"the body is not NDJSON: {check.first_reject}"
    if wrong := _wrong_types(body, item, strict):
        return wrong
    if item.kind == "output" and item.count is not None:
        found = resources_in(check, item) + check.rejected
        if found < item.count:
            return f"{found:,} of {item.count:,} resources arrived"
        if found > item.count:
            body.notes.append(f"{found:,} resources arrived, {item.count:,} were announced")
        else:
            body.verified.append("count")
    return _wrong_bytes(body, item, length_of)


def resources_in(check: LineCheck, item: OutputFile) -> int:
    """Count resources; the header lines of organized output are none."""
    headers = check.types.get(HEADER_TYPE, 0) if item.type is None else 0
    return check.lines - headers


def _wrong_types(body: Body, item: OutputFile, strict: bool) -> str | None:
    types = body.check.types
    if item.kind != "output" or item.type is None:
        return None
    others = sorted(name for name in types if name != item.type)
    if not others:
        body.verified.append("type")
        return None
    if set(types) == {"OperationOutcome"}:
        return "the body is an OperationOutcome instead of the file"
    text = f"holds {', '.join(others[:3])} beside {item.type}"
    if strict:
        return text
    body.notes.append(text)
    return None


def _wrong_bytes(body: Body, item: OutputFile, length_of: str) -> str | None:
    if item.checksum:
        if body.plain_sha256 != item.checksum:
            return "the checksum differs"
        body.verified.append("sha256")
    elif item.checksum_note:
        body.notes.append(item.checksum_note)
    for name, expected in (("fileSize", item.size), ("length", item.length)):
        if expected is None:
            continue
        if expected in (body.plain_bytes, body.wire_bytes):
            body.verified.append("size")
        elif name == "length" and length_of == "plain" and not item.checksum:
            return f"the file has {body.plain_bytes:,} bytes, {expected:,} were announced"
        else:
            body.notes.append(f"{name} says {expected:,} bytes, the plain file has {body.plain_bytes:,}")
    return None
