"""Faults 71 to 96: semantics, and the habits of servers seen on the wire."""

from __future__ import annotations

import json
import time
import zlib
from typing import Any

from hiexchange.testing.bulk_faults import Exchange, Reply, always_file, edit_manifest, fault
from hiexchange.testing.bulk_faults_jobs import outcome, text
from hiexchange.testing.bulk_faults_manifest import organized


def _misbehave(ex: Exchange, reply: Reply, kind: int) -> Reply:
    half = len(reply.body) // 2
    return (
        lambda: reply.change(encoded=True, cut_after=half),
        lambda: reply.change(encoded=True, cut_after=half, reset=True),
        lambda: reply.change(encoded=True, framing="chunked", cut_after=half),
        lambda: Reply(503, (("Retry-After", "1"),)),
        lambda: text(500, "<html>error</html>", "text/html"),
        lambda: Reply(404),
        lambda: reply.change(body=reply.body[:half], encoded=True),
        lambda: reply.change(drop=True),
    )[kind]()


@fault(0)
def one_percent(ex: Exchange, reply: Reply) -> Reply:
    """Spoil one answer in a hundred to first tries at files, each in one of eight ways, by the path's hash."""
    if ex.kind != "file" or ex.times > 1:
        return reply
    lot = zlib.crc32(ex.path.rsplit("/", 1)[1].encode())
    return _misbehave(ex, reply, lot // 100 % 8) if lot % 100 == 0 else reply


@fault(71)
def ignores_parameters(ex: Exchange, reply: Reply) -> Reply:
    """Pay no attention to _since, _type and _typeFilter."""
    if ex.kind == "setup":
        ex.server.ignored = {"_since", "_type", "_typeFilter"}
    return reply


@fault(72)
@edit_manifest
def empty_export(ex: Exchange, manifest: dict[str, Any]) -> None:
    """List no file."""
    manifest["output"] = []


@fault(73)
@edit_manifest
def repeated_resources(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Give the first file's resources in another file again, one of them newer."""
    lines = ex.job.files[0].read().splitlines(keepends=True)
    newer = {**json.loads(lines[0]), "active": False, "meta": {"lastUpdated": "2027-01-01T00:00:00Z", "versionId": "9"}}
    ex.server.extra["again.ndjson"] = json.dumps(newer).encode() + b"\n" + b"".join(lines[1:])
    again = {**manifest["output"][0], "url": f"{ex.base}/extra/again.ndjson"}
    manifest["output"] = [*manifest["output"], again]


@fault(74)
@edit_manifest
def deleted_bundles(ex: Exchange, manifest: dict[str, Any]) -> None:
    """List deletions: plain, versioned, absolute, conditional, and one that is a PUT."""
    urls = ("Patient/1", "Patient/2/_history/3", f"{ex.base}/fhir/Encounter/4", "Patient?identifier=5")
    entries: list[dict[str, Any]] = [{"request": {"method": "DELETE", "url": url}} for url in urls]
    entries.append({"request": {"method": "PUT", "url": "Patient/6"}})
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    ex.server.extra["deleted.ndjson"] = json.dumps(bundle).encode() + b"\n"
    manifest["deleted"] = [{"type": "Bundle", "url": f"{ex.base}/extra/deleted.ndjson", "count": 1}]


@fault(75)
def subsetted(ex: Exchange, reply: Reply) -> Reply:
    """Send only ids, tagged SUBSETTED."""
    if ex.kind != "file":
        return reply
    tag = [{"code": "SUBSETTED"}]
    values = [json.loads(line) for line in reply.body.splitlines()]
    short = [{"resourceType": value["resourceType"], "id": value["id"], "meta": {"tag": tag}} for value in values]
    return reply.change(body=b"".join(json.dumps(value).encode() + b"\n" for value in short))


def _outcomes(ex: Exchange, manifest: dict[str, Any], severity: str, count: int) -> None:
    line = {"resourceType": "OperationOutcome", "issue": [{"severity": severity, "code": "exception"}]}
    # The SMART server ends its error files without a line end.
    ex.server.extra["error.ndjson"] = json.dumps(line).encode()
    manifest["error"] = [{"type": "OperationOutcome", "url": f"{ex.base}/extra/error.ndjson", "count": count}]


@fault(76)
@edit_manifest
def error_outcomes(ex: Exchange, manifest: dict[str, Any]) -> None:
    """List an error file with an issue of severity error."""
    _outcomes(ex, manifest, "error", 1)


@fault(77)
def attachments(ex: Exchange, reply: Reply) -> Reply:
    """Serve documents: a good one, a wrapped Binary, one of a wrong type, one that is absent."""
    name = ex.path.removeprefix("/fhir/Binary/")
    if ex.path == name:
        return reply
    if name == "good":
        return text(200, "a document", "text/plain")
    if name == "wrapped":
        value = {"resourceType": "Binary", "contentType": "text/plain", "data": "d3JhcHBlZA=="}
        return text(200, json.dumps(value), "application/fhir+json")
    if name == "huge":
        return text(200, "x" * 5000, "text/plain")
    return text(200, "%PDF", "application/pdf") if name == "mistyped" else reply


def _deletes(status: int) -> None:
    def hook(ex: Exchange, reply: Reply) -> Reply:
        return reply.change(status=status) if ex.kind == "delete" else reply

    hook.__name__, hook.__doc__ = f"delete_{status}", f"Answer DELETE with {status}."
    fault(78)(hook)


for _status in (200, 204, 404, 405, 500):
    _deletes(_status)


@fault(79)
def retry_after_epoch(ex: Exchange, reply: Reply) -> Reply:
    """Give Retry-After as epoch seconds, and once as epoch milliseconds (SMART)."""
    if ex.kind == "status" and ex.count == 1:
        return Reply(429, (("Retry-After", str(int((time.time() + 5) * 1000))),))
    if ex.kind == "status" and reply.status == 202:
        return reply.with_header("Retry-After", str(int(time.time()) + 5))
    return reply


@fault(80)
def route_blocked(ex: Exchange, reply: Reply) -> Reply:
    """Block the file route with 429 text/plain for a window after the second request (SMART)."""
    if ex.kind != "file":
        return reply
    if ex.count == 3:
        ex.server.blocked_until = time.monotonic() + 0.15
    if time.monotonic() < getattr(ex.server, "blocked_until", 0.0):
        return text(429, "Too many requests").with_header("Retry-After", "1")
    return reply


@fault(81)
def always_unauthorized(ex: Exchange, reply: Reply) -> Reply:
    """Answer every poll with 401 in plain text, a new token no better."""
    return text(401, "Unauthorized! Invalid token") if ex.kind == "status" else reply


@fault(82)
@edit_manifest
def wrong_error_count(ex: Exchange, manifest: dict[str, Any]) -> None:
    """Announce 1000 for an error file of one line (SMART)."""
    _outcomes(ex, manifest, "warning", 1000)


@fault(83)
def too_many_files(ex: Exchange, reply: Reply) -> Reply:
    """End polling with 413 in plain text (SMART)."""
    return text(413, "Too many files") if ex.kind == "status" and ex.count > 1 else reply


@fault(84)
def kickoff_500(ex: Exchange, reply: Reply) -> Reply:
    """Answer the first two kick-offs with 500 and an OperationOutcome (SMART)."""
    return outcome(500, "processing") if ex.kind == "kickoff" and ex.count <= 2 else reply


@fault(84)
def kickoff_500_forever(ex: Exchange, reply: Reply) -> Reply:
    """Answer every kick-off with 500."""
    return outcome(500, "processing") if ex.kind == "kickoff" else reply


@fault(85)
def other_base(ex: Exchange, reply: Reply) -> Reply:
    """Give a Content-Location under another path than the request's (SMART)."""
    if ex.kind != "kickoff":
        return reply
    return reply.with_header(
        "Content-Location", (reply.header("Content-Location") or "").replace("/jobs/", "/elsewhere/jobs/")
    )


@fault(87)
def invalid_scope(ex: Exchange, reply: Reply) -> Reply:
    """Refuse the scopes with 400 invalid_scope."""
    return text(400, json.dumps({"error": "invalid_scope"}), "application/json") if ex.kind == "token" else reply


@fault(88)
def early_manifest(ex: Exchange, reply: Reply) -> Reply:
    """Send a manifest with no file yet in the body of every 202."""
    if ex.kind == "status" and reply.status == 202:
        body = {"transactionTime": ex.server.transaction_time, "requiresAccessToken": False, "output": []}
        return reply.change(body=json.dumps(body).encode()).with_header("Content-Type", "application/json")
    return reply


@fault(89)
def fails_after_pages(ex: Exchange, reply: Reply) -> Reply:
    """Give most of the files in partial manifests, then fail the job."""
    if ex.kind != "status":
        return reply
    if ex.count > 2:
        return outcome(500, "exception", "generation failed")
    honest: Reply = ex.server.manifest_page(ex.job, 1)
    return honest.change(status=202)


@fault(90)
def repeated_line(ex: Exchange, reply: Reply) -> Reply:
    """Repeat a line within a file."""
    return reply.change(body=reply.body + reply.body.splitlines(keepends=True)[0]) if always_file(ex) else reply


@fault(91)
def brotli_unasked(ex: Exchange, reply: Reply) -> Reply:
    """Send a coding that was not offered, unless identity is asked for."""
    if ex.kind == "file" and ex.headers.get("accept-encoding") != "identity":
        return reply.change(encoded=True, body=b"\x1b\x0f\x00").with_header("Content-Encoding", "br")
    return reply


@fault(91)
def deflate_unasked(ex: Exchange, reply: Reply) -> Reply:
    """Send deflate."""
    if ex.kind == "file":
        return reply.change(encoded=True, body=zlib.compress(reply.body)).with_header("Content-Encoding", "deflate")
    return reply


@fault(92)
def status_by_post_only(ex: Exchange, reply: Reply) -> Reply:
    """Answer 405 to a GET of the status."""
    return text(405, "Method Not Allowed") if ex.kind == "status" and ex.method == "GET" else reply


@fault(93)
def token_503(ex: Exchange, reply: Reply) -> Reply:
    """Answer the first two token requests with 503."""
    return Reply(503) if ex.kind == "token" and ex.count <= 2 else reply


@fault(93)
def token_html(ex: Exchange, reply: Reply) -> Reply:
    """Answer token requests with 200 and HTML."""
    return text(200, "<html>Sign in</html>", "text/html") if ex.kind == "token" else reply


@fault(94)
def storage_wants_token(ex: Exchange, reply: Reply) -> Reply:
    """Redirect files to another origin that then answers 401."""
    if ex.kind == "file":
        other = ex.base.replace("127.0.0.1", "localhost")
        return Reply(307, (("Location", f"{other}/open{ex.path}"),))
    return Reply(401) if ex.path.startswith("/open/") else reply


@fault(95)
def one_gone(ex: Exchange, reply: Reply) -> Reply:
    """Answer 410 to one file, always."""
    return Reply(410) if always_file(ex) else reply


@fault(96)
def close_delimited_cut(ex: Exchange, reply: Reply) -> Reply:
    """Cut a body that has neither length nor chunks, at a line's end, once."""
    if ex.kind != "file":
        return reply
    plain = reply.change(framing="close", encoded=True)
    if ex.times > 1:
        return plain
    return plain.change(body=reply.body[: reply.body.index(b"\n") + 1])


@fault(86)
def continues_by_bare_name(ex: Exchange, reply: Reply) -> Reply:
    """Name the file a block goes on in by its bare name (SMART)."""
    return organized(ex, reply)
