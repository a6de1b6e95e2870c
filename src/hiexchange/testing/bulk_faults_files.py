"""Faults 41 to 64: files."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from collections.abc import Callable
from typing import Any

from hiexchange.testing.bulk_faults import Exchange, Hook, Reply, always_file, edit_manifest, fault, first_file

XML = (("Content-Type", "application/xml"),)
CHECKSUM, LENGTH = "https://ab2d.cms.gov/checksum", "https://ab2d.cms.gov/file_length"


def _gzipped(reply: Reply, body: bytes, coding: str | None = "gzip") -> Reply:
    return reply.change(body=body, encoded=True).with_header("Content-Encoding", coding)


# Transport ------------------------------------------------------------------------------------


@fault(41)
def body_short(ex: Exchange, reply: Reply) -> Reply:
    """Close before Content-Length is reached."""
    return reply.change(encoded=True, cut_after=len(reply.body) // 2) if first_file(ex) else reply


@fault(41)
def chunk_cut(ex: Exchange, reply: Reply) -> Reply:
    """Close in the middle of a chunked body."""
    return reply.change(encoded=True, framing="chunked", cut_after=len(reply.body) // 2) if first_file(ex) else reply


@fault(41)
def connection_reset(ex: Exchange, reply: Reply) -> Reply:
    """Reset the connection in the middle of a body."""
    return reply.change(encoded=True, cut_after=len(reply.body) // 2, reset=True) if first_file(ex) else reply


@fault(41)
def body_stalls(ex: Exchange, reply: Reply) -> Reply:
    """Say nothing for a while in the middle of a body."""
    return reply.change(encoded=True, drip=(len(reply.body) // 2, 0.6)) if first_file(ex) else reply


@fault(42)
def gzip_truncated(ex: Exchange, reply: Reply) -> Reply:
    """Send gzip without its end, with a length that fits."""
    return _gzipped(reply, gzip.compress(reply.body)[:-20]) if first_file(ex) else reply


@fault(42)
def gzip_bad_crc(ex: Exchange, reply: Reply) -> Reply:
    """Send gzip with a wrong CRC."""
    packed = bytearray(gzip.compress(reply.body))
    packed[-8] ^= 0xFF
    return _gzipped(reply, bytes(packed)) if first_file(ex) else reply


@fault(42)
def gzip_members(ex: Exchange, reply: Reply) -> Reply:
    """Send gzip as several members."""
    half = len(reply.body) // 2
    both = gzip.compress(reply.body[:half]) + gzip.compress(b"") + gzip.compress(reply.body[half:])
    return _gzipped(reply, both) if ex.kind == "file" else reply


@fault(42)
def gzip_garbage_after(ex: Exchange, reply: Reply) -> Reply:
    """Send bytes after the end of the gzip data, always."""
    return _gzipped(reply, gzip.compress(reply.body) + b"garbage") if always_file(ex) else reply


@fault(43)
def plain_called_gzip(ex: Exchange, reply: Reply) -> Reply:
    """Send a plain body labelled gzip."""
    return _gzipped(reply, reply.body) if ex.kind == "file" else reply


@fault(43)
def gzip_unlabelled(ex: Exchange, reply: Reply) -> Reply:
    """Send gzip without Content-Encoding."""
    return _gzipped(reply, gzip.compress(reply.body), None) if ex.kind == "file" else reply


@fault(43)
def gzip_twice(ex: Exchange, reply: Reply) -> Reply:
    """Send gzip in gzip."""
    return _gzipped(reply, gzip.compress(gzip.compress(reply.body))) if ex.kind == "file" else reply


@fault(43)
def gzip_by_old_name(ex: Exchange, reply: Reply) -> Reply:
    """Call gzip X-GZIP."""
    return _gzipped(reply, gzip.compress(reply.body), "X-GZIP") if ex.kind == "file" else reply


@fault(44)
def length_of_decoded(ex: Exchange, reply: Reply) -> Reply:
    """Give the decoded size as Content-Length of a gzip body, and close."""
    if ex.kind != "file":
        return reply
    size = len(reply.body)
    packed = gzip.compress(reply.body)
    return _gzipped(reply, packed).change(claim_length=max(size, len(packed) + 1), cut_after=len(packed))


# Content --------------------------------------------------------------------------------------


@fault(45)
def html_instead(ex: Exchange, reply: Reply) -> Reply:
    """Send HTML with 200, always."""
    return reply.change(body=b"<html>\n<body>Please log in</body>\n</html>\n") if always_file(ex) else reply


@fault(45)
def outcome_instead(ex: Exchange, reply: Reply) -> Reply:
    """Send one OperationOutcome with 200 instead of the first file, once."""
    issue = {"severity": "error", "code": "exception"}
    line = json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}).encode() + b"\n"
    return reply.change(body=line) if first_file(ex) else reply


@fault(46)
def empty_with_count(ex: Exchange, reply: Reply) -> Reply:
    """Send an empty body for a file that has resources, always."""
    return reply.change(body=b"", encoded=True) if always_file(ex) else reply


@fault(46)
def no_content(ex: Exchange, reply: Reply) -> Reply:
    """Announce no resources and answer 204."""
    if always_file(ex):
        return Reply(204)
    return edit_manifest(_first_count_zero)(ex, reply)


def _first_count_zero(ex: Exchange, manifest: dict[str, Any]) -> None:
    manifest["output"][0]["count"] = 0


def _lines(change: Any, name: str, doc: str) -> None:
    def hook(ex: Exchange, reply: Reply) -> Reply:
        return reply.change(body=change(reply.body)) if always_file(ex) else reply

    hook.__name__, hook.__doc__ = name, doc
    fault(47)(hook)


_lines(lambda body: body.rstrip(b"\n"), "no_last_newline", "Send no line end after the last line.")
_lines(lambda body: body.replace(b"\n", b"\r\n"), "crlf_lines", "Send CRLF line ends.")
_lines(lambda body: b"\n" + body.replace(b"\n", b"\n\n"), "blank_lines", "Send blank lines.")
_lines(lambda body: b"\xef\xbb\xbf" + body, "byte_order_mark", "Send a byte-order mark.")
_lines(lambda body: body + b"\0" * 64, "nul_padding", "Pad the file with NUL bytes.")
_lines(
    lambda body: body.replace(b"{", b'{"x":"a\xe2\x80\xa8b",', 1), "line_separator", "Send a raw U+2028 in a string."
)
_lines(lambda body: body.replace(b"{", b'{"x":"\xff\xfe",', 1), "invalid_utf8", "Send a line of invalid UTF-8.")
_lines(lambda body: body.replace(b"{", b'{"x":"\\ud800",', 1), "lone_surrogate", "Send a lone surrogate escape.")
_lines(
    lambda body: b"{not json}\n" + body.split(b"\n", 1)[1],
    "invalid_line",
    "Send a line that is no JSON.",
)


@fault(48)
def half_json(ex: Exchange, reply: Reply) -> Reply:
    """End in the middle of a line, with a length that fits, always."""
    return reply.change(body=reply.body[:-30]) if always_file(ex) else reply


@fault(49)
def long_line(ex: Exchange, reply: Reply) -> Reply:
    """Send a line of 20 MB."""
    if not always_file(ex):
        return reply
    first, _, rest = reply.body.partition(b"\n")
    return reply.change(body=first[:-1] + b',"x":"' + b"y" * (20 << 20) + b'"}\n' + rest)


@fault(50)
def wrong_type(ex: Exchange, reply: Reply) -> Reply:
    """Put a resource of another type into a file."""
    if not always_file(ex):
        return reply
    return reply.change(body=b'{"resourceType":"Device","id":"x"}\n' + reply.body.split(b"\n", 1)[1])


@fault(51)
def one_missing(ex: Exchange, reply: Reply) -> Reply:
    """Leave one resource out of a file, always."""
    return reply.change(body=reply.body.split(b"\n", 1)[1]) if always_file(ex) else reply


@fault(51)
@edit_manifest
def count_too_low(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Announce one resource less than a file has."""
    manifest["output"][0]["count"] -= 1


def _integrity(ex: Exchange, manifest: dict[str, Any], checksum: str | None, off_by: int = 0) -> None:
    for entry in manifest["output"]:
        number = entry["url"].rsplit("/", 1)[1].split(".")[0]
        if not number.isdecimal():
            continue  # put there by another fault
        data = ex.job.files[int(number)].read()
        digest = "sha256:" + hashlib.sha256(data).hexdigest() if checksum is None else checksum
        entry["extension"] = [
            {"url": CHECKSUM, "valueString": digest},
            {"url": LENGTH, "valueDecimal": len(data) + off_by},
        ]


@fault(52)
@edit_manifest
def checksum_right(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Give checksums and lengths that are right."""
    _integrity(ex, manifest, None)


@fault(52)
@edit_manifest
def checksum_wrong(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Give wrong checksums."""
    _integrity(ex, manifest, "sha256:" + "0" * 64)


@fault(52)
@edit_manifest
def checksum_empty(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Give a bare "sha256:" (DPC)."""
    _integrity(ex, manifest, "sha256:")


@fault(52)
@edit_manifest
def checksum_unknown(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Give a checksum of an unknown algorithm."""
    _integrity(ex, manifest, "crc32:12345678")


@fault(53)
@edit_manifest
def length_differs(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Give right checksums and wrong lengths."""
    _integrity(ex, manifest, None, off_by=17)


# Access ---------------------------------------------------------------------------------------


@fault(54)
def fresh_404(ex: Exchange, reply: Reply) -> Reply:
    """Answer 404 to the first two tries at every file."""
    return Reply(404) if ex.kind == "file" and ex.times <= 2 else reply


@fault(54)
@edit_manifest
def error_file_absent(ex: Exchange, manifest: dict[str, Any]) -> None:
    """List an error file that is not there (BCDA)."""
    manifest["error"] = [{"type": "OperationOutcome", "url": f"{ex.base}/extra/absent.ndjson"}]


@fault(55)
def links_expire(ex: Exchange, reply: Reply) -> Reply:
    """Answer 410 to every link without the mark that a second manifest gives."""
    if ex.kind == "status" and reply.status == 200 and ex.server.requests("file"):
        manifest = json.loads(reply.body)
        for entry in manifest["output"]:
            entry["url"] += "?fresh=1"
        return reply.change(body=json.dumps(manifest).encode())
    return Reply(410) if ex.kind == "file" and not ex.query and not ex.path.endswith("/1.ndjson") else reply


@fault(55)
def links_stay_expired(ex: Exchange, reply: Reply) -> Reply:
    """Answer 410 to a file, and give the same link again."""
    return Reply(410) if always_file(ex) else reply


@fault(56)
def quota_reached(ex: Exchange, reply: Reply) -> Reply:
    """Answer 500: the maximum number of downloads is reached (AB2D)."""
    if always_file(ex):
        text = b'{"resourceType":"OperationOutcome","issue":[{"diagnostics":"The file has reached the maximum number of downloads"}]}'
        return Reply(500, (("Content-Type", "application/json"),), text)
    return reply


@fault(57)
def token_ends_midway(ex: Exchange, reply: Reply) -> Reply:
    """Revoke the token once, in the middle of the list."""
    if ex.kind == "file" and ex.count == 3:
        ex.server.revoke_tokens()
        return Reply(401)
    return reply


@fault(58)
def one_forbidden(ex: Exchange, reply: Reply) -> Reply:
    """Answer 403 to one file, always."""
    return Reply(403, (), b"Forbidden") if always_file(ex) else reply


@fault(59)
def partial_content(ex: Exchange, reply: Reply) -> Reply:
    """Answer 206 to a request without Range, once."""
    if not first_file(ex):
        return reply
    half = reply.body[: len(reply.body) // 2]
    return reply.change(status=206, body=half, encoded=True).with_header("Content-Range", f"bytes 0-{len(half) - 1}/*")


def _ranged(answer: Callable[[Reply, int], Reply]) -> Hook:
    """Make a hook: the first try at each file is cut, a request with ``Range`` and the right ``If-Range`` answered."""

    @functools.wraps(answer)
    def hook(ex: Exchange, reply: Reply) -> Reply:
        if ex.kind != "file":
            return checksum_right(ex, reply)
        whole = reply.change(encoded=True).with_header("ETag", '"one"')
        if ex.times == 1:
            return whole.change(cut_after=len(reply.body) * 3 // 4)
        asked = ex.headers.get("range", "")
        if not asked or ex.headers.get("if-range") != '"one"':
            return whole
        return answer(whole, int(asked.removeprefix("bytes=").removesuffix("-")))

    return hook


def _part(reply: Reply, start: int, said: str) -> Reply:
    return reply.change(status=206, body=reply.body[start:]).with_header("Content-Range", said)


@fault(59)
@_ranged
def range_kept(reply: Reply, start: int) -> Reply:
    """Go on where the client asks."""
    size = len(reply.body)
    return _part(reply, start, f"bytes {start}-{size - 1}/{size}")


@fault(59)
@_ranged
def range_false_total(reply: Reply, start: int) -> Reply:
    """Go on where the client asks, and give the part's size as the total (DPC)."""
    size = len(reply.body)
    return _part(reply, start, f"bytes {start}-{size - 1}/{size - start}")


@fault(59)
@_ranged
def range_elsewhere(reply: Reply, start: int) -> Reply:
    """Send another part than the one asked for."""
    return _part(reply, start // 2, f"bytes {start // 2}-{len(reply.body) - 1}/{len(reply.body)}")


@fault(59)
@_ranged
def range_lies(reply: Reply, start: int) -> Reply:
    """Send another part, labelled as the one asked for."""
    return _part(reply, start // 2, f"bytes {start}-{len(reply.body) - 1}/{len(reply.body)}")


@fault(59)
@_ranged
def range_refused(reply: Reply, start: int) -> Reply:
    """Answer 416."""
    return reply.change(status=416, body=b"").with_header("Content-Range", f"bytes */{len(reply.body)}")


@fault(59)
@_ranged
def range_ignored(reply: Reply, start: int) -> Reply:
    """Send the whole with 200."""
    return reply


@fault(60)
def storage_redirect(ex: Exchange, reply: Reply) -> Reply:
    """Redirect files to another origin that takes no token (Cerner)."""
    if ex.kind == "file":
        other = ex.base.replace("127.0.0.1", "localhost")
        return Reply(307, (("Location", f"{other}/open{ex.path}"),))
    if ex.path.startswith("/open/files/"):
        _, _, _, job, name = ex.path.split("/")
        data = ex.server.jobs[job].files[int(name.split(".")[0])].read()
        return Reply(200, (("Content-Type", "application/fhir+ndjson"),), data)
    return reply


@fault(61)
def other_content_on_retry(ex: Exchange, reply: Reply) -> Reply:
    """Cut the first try; send other content with another ETag on the second."""
    if not always_file(ex):
        return reply
    if ex.times == 1:
        return reply.with_header("ETag", '"one"').change(encoded=True, cut_after=len(reply.body) // 2)
    return reply.with_header("ETag", '"two"').change(body=reply.body.replace(b'"male"', b'"other"'))


@fault(62)
def files_throttled(ex: Exchange, reply: Reply) -> Reply:
    """Answer 429 or 503 to the first try at every other file."""
    if ex.kind == "file" and ex.times == 1 and ex.count % 2:
        return Reply(429 if ex.count % 4 == 1 else 503, (("Retry-After", "1"),))
    return reply


@fault(63)
def trickle(ex: Exchange, reply: Reply) -> Reply:
    """Send the first try at a file byte by byte."""
    return reply.change(encoded=True, drip=(1, 0.03)) if first_file(ex) else reply


@fault(63)
def silent_midway(ex: Exchange, reply: Reply) -> Reply:
    """Send half of the first file, then nothing for half a minute."""
    return reply.change(encoded=True, drip=(len(reply.body) // 2, 30.0)) if first_file(ex) else reply


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(b" " * (16 << 20), 6)


@fault(64)
def gzip_bomb(ex: Exchange, reply: Reply) -> Reply:
    """Send a small body that decodes to 16 MB of blanks."""
    return _gzipped(reply, _bomb()) if always_file(ex) else reply
