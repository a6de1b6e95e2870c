"""Faults 1 to 30: kick-off, token and polling."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from hiexchange.testing.bulk_faults import Exchange, Reply, fault

TRANSIENT = ("transient", "lock-error", "timeout", "throttled", "no-store", "incomplete")


def outcome(status: int, code: str, text: str = "") -> Reply:
    """Return an OperationOutcome."""
    issue = {"severity": "error", "code": code, "diagnostics": text}
    body = json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}).encode()
    return Reply(status, (("Content-Type", "application/fhir+json"),), body)


def text(status: int, body: str, kind: str = "text/plain") -> Reply:
    """Return a plain answer."""
    return Reply(status, (("Content-Type", kind),), body.encode())


# Kick-off -------------------------------------------------------------------------------------


@fault(1)
def no_content_location(ex: Exchange, reply: Reply) -> Reply:
    """Accept the kick-off without saying where its status is."""
    return reply.with_header("Content-Location", None) if ex.kind == "kickoff" else reply


@fault(2)
def relative_content_location(ex: Exchange, reply: Reply) -> Reply:
    """Give a relative Content-Location."""
    if ex.kind != "kickoff":
        return reply
    return reply.with_header("Content-Location", (reply.header("Content-Location") or "").removeprefix(ex.base))


@fault(3)
def foreign_content_location(ex: Exchange, reply: Reply) -> Reply:
    """Give a Content-Location on another origin."""
    if ex.kind != "kickoff":
        return reply
    here = reply.header("Content-Location") or ""
    return reply.with_header("Content-Location", here.replace("127.0.0.1", "localhost"))


@fault(4)
def accepted_with_200(ex: Exchange, reply: Reply) -> Reply:
    """Answer the kick-off with 200 and a Content-Location."""
    return reply.change(status=200) if ex.kind == "kickoff" else reply


@fault(4)
def manifest_at_once(ex: Exchange, reply: Reply) -> Reply:
    """Answer the kick-off with 200 and the manifest itself."""
    if ex.kind != "kickoff" or reply.status != 202:
        return reply
    job = list(ex.server.jobs.values())[-1]
    entries = [ex.server.entry(job, index) for index in range(len(job.files))]
    body = {"transactionTime": ex.server.transaction_time, "requiresAccessToken": False, "output": entries}
    return text(200, json.dumps(body), "application/json")


@fault(5)
def refuses_type_filter(ex: Exchange, reply: Reply) -> Reply:
    """Refuse _typeFilter with 400 and an OperationOutcome that names it."""
    if ex.kind == "kickoff" and "_typeFilter" in ex.query:
        return outcome(400, "not-supported", "the parameter _typeFilter is not supported")
    return reply


@fault(6)
def get_not_offered(ex: Exchange, reply: Reply) -> Reply:
    """Answer 405 to a kick-off by GET."""
    return text(405, "Method Not Allowed") if ex.kind == "kickoff" and ex.method == "GET" else reply


@fault(7)
def busy_duplicate(ex: Exchange, reply: Reply) -> Reply:
    """Answer the first kick-off with an empty 429, though its job is running (BCDA)."""
    return Reply(429, (("Retry-After", "0"),)) if ex.kind == "kickoff" and ex.count == 1 else reply


@fault(8)
def busy_with_locations(ex: Exchange, reply: Reply) -> Reply:
    """Drop the first kick-off's answer; then 429 with the running jobs in Content-Location (AB2D)."""
    if ex.kind != "kickoff":
        return reply
    if ex.count == 1:
        return Reply(drop=True)
    jobs = [f"{ex.base}/jobs/{name}" for name in list(ex.server.jobs)[:1]]
    return Reply(429, (("Retry-After", "1"), ("Content-Location", ", ".join([f"{ex.base}/jobs/gone", *jobs]))))


@fault(9)
def answer_lost(ex: Exchange, reply: Reply) -> Reply:
    """Take the first kick-off and drop the connection before the answer."""
    return reply.change(drop=True) if ex.kind == "kickoff" and ex.count == 1 else reply


@fault(10)
def no_attribution(ex: Exchange, reply: Reply) -> Reply:
    """Answer 404: no up-to-date attribution (BCDA in January)."""
    if ex.kind == "kickoff":
        return outcome(404, "not-found", "No up-to-date attribution information is available for the group")
    return reply


@fault(11)
def token_expired_at_kickoff(ex: Exchange, reply: Reply) -> Reply:
    """Answer the first kick-off with 401 though the token is fresh."""
    if ex.kind == "kickoff" and ex.count == 1:
        ex.server.revoke_tokens()
        return text(401, "Unauthorized")
    return reply


@fault(11)
def scope_refused(ex: Exchange, reply: Reply) -> Reply:
    """Answer every kick-off with 403."""
    return outcome(403, "forbidden") if ex.kind == "kickoff" else reply


@fault(12)
def no_active_members(ex: Exchange, reply: Reply) -> Reply:
    """Answer the kick-off with 406 (DPC: every attribution has lapsed)."""
    return outcome(406, "processing", "No active attributions") if ex.kind == "kickoff" else reply


# Token ----------------------------------------------------------------------------------------


def _token(reply: Reply, **changes: Any) -> Reply:
    body = {**json.loads(reply.body), **changes}
    return reply.change(body=json.dumps({key: value for key, value in body.items() if value is not None}).encode())


@fault(13)
def expires_in_text(ex: Exchange, reply: Reply) -> Reply:
    """Give expires_in as a string."""
    return _token(reply, expires_in="1200") if ex.kind == "token" else reply


@fault(13)
def expires_in_missing(ex: Exchange, reply: Reply) -> Reply:
    """Give no expires_in."""
    return _token(reply, expires_in=None) if ex.kind == "token" else reply


@fault(13)
def expires_in_zero(ex: Exchange, reply: Reply) -> Reply:
    """Give expires_in 0."""
    return _token(reply, expires_in=0) if ex.kind == "token" else reply


@fault(13)
def expires_in_huge(ex: Exchange, reply: Reply) -> Reply:
    """Give an expires_in of thirty years."""
    return _token(reply, expires_in=10**9) if ex.kind == "token" else reply


@fault(14)
def flaky_client(ex: Exchange, reply: Reply) -> Reply:
    """Refuse the second token request with invalid_client, though the client is known (Epic)."""
    if ex.kind == "token" and ex.count == 2:
        return text(400, json.dumps({"error": "invalid_client"}), "application/json")
    return reply


@fault(15)
def token_throttled(ex: Exchange, reply: Reply) -> Reply:
    """Answer the first token request with 429."""
    return Reply(429, (("Retry-After", "1"),)) if ex.kind == "token" and ex.count == 1 else reply


@fault(16)
def clock_ahead(ex: Exchange, reply: Reply) -> Reply:
    """Run the server's clock an hour ahead: every assertion has expired."""
    if ex.kind == "setup":
        ex.server.clock_offset_s = 3600.0
    return reply


@fault(17)
def narrow_scope(ex: Exchange, reply: Reply) -> Reply:
    """Grant one scope only."""
    return _token(reply, scope="system/Patient.rs") if ex.kind == "token" else reply


@fault(18)
def revoked_for_files(ex: Exchange, reply: Reply) -> Reply:
    """Answer 401 to every file from the second on, whatever the token."""
    return text(401, "Unauthorized") if ex.kind == "file" and ex.count > 1 else reply


# Polling --------------------------------------------------------------------------------------


def _asks(value: str) -> Any:
    def hook(ex: Exchange, reply: Reply) -> Reply:
        return reply.with_header("Retry-After", value) if ex.kind == "status" and reply.status == 202 else reply

    return hook


RETRY_AFTER = {
    "retry_after_seconds": ("2", "Ask for two seconds between polls."),
    "retry_after_past": ("Sat, 01 Jan 2000 00:00:00 GMT", "Give a Retry-After date in the past."),
    "retry_after_garbage": ("soon", "Give a Retry-After nobody can read."),
    "retry_after_doubled": ("120, 120", "Give Retry-After twice in one header."),
    "retry_after_decimal": ("1.5", "Give a decimal Retry-After."),
    "retry_after_five_hours": ("18000", "Ask for five hours between polls."),
}
for _name, (_value, _doc) in RETRY_AFTER.items():
    _hook = _asks(_value)
    _hook.__name__, _hook.__doc__ = _name, _doc
    fault(19)(_hook)


@fault(19)
def retry_after_date(ex: Exchange, reply: Reply) -> Reply:
    """Give Retry-After as an HTTP date ten seconds ahead."""
    if ex.kind == "status" and reply.status == 202:
        return reply.with_header("Retry-After", format_datetime(datetime.now(UTC) + timedelta(seconds=10), usegmt=True))
    return reply


@fault(20)
def silent_progress(ex: Exchange, reply: Reply) -> Reply:
    """Poll answers without Retry-After and without X-Progress."""
    return Reply(202) if ex.kind == "status" and ex.count <= 4 else reply


@fault(21)
def polls_throttled(ex: Exchange, reply: Reply) -> Reply:
    """Answer the first three polls with 429."""
    return text(429, "Too many requests") if ex.kind == "status" and ex.count <= 3 else reply


@fault(22)
def job_failed(ex: Exchange, reply: Reply) -> Reply:
    """Report a dead job as 500 with code exception (BCDA)."""
    if ex.kind == "status":
        return outcome(500, "exception", "Service encountered numerous errors. Unable to complete the request.")
    return reply


@fault(23)
def gateway_html(ex: Exchange, reply: Reply) -> Reply:
    """Answer the first polls with HTML of a gateway: 502, 503, 504."""
    if ex.kind == "status" and ex.count <= 3:
        return text(501 + ex.count, "<html>Bad Gateway</html>", "text/html")
    return reply


@fault(24)
def transient_codes(ex: Exchange, reply: Reply) -> Reply:
    """Answer polls with 500 and each transient code in turn."""
    return outcome(500, TRANSIENT[ex.count - 1]) if ex.kind == "status" and ex.count <= len(TRANSIENT) else reply


@fault(24)
def transient_forever(ex: Exchange, reply: Reply) -> Reply:
    """Answer every poll with 500 transient."""
    return outcome(500, "transient") if ex.kind == "status" else reply


@fault(25)
def job_appears_late(ex: Exchange, reply: Reply) -> Reply:
    """Answer the first two polls with 404."""
    return outcome(404, "not-found") if ex.kind == "status" and ex.count <= 2 else reply


@fault(26)
def job_vanishes(ex: Exchange, reply: Reply) -> Reply:
    """Answer 404 after the first poll."""
    return outcome(404, "not-found") if ex.kind == "status" and ex.count > 1 else reply


@fault(26)
def job_expires(ex: Exchange, reply: Reply) -> Reply:
    """Answer 410 after the first poll."""
    return text(410, "Gone") if ex.kind == "status" and ex.count > 1 else reply


@fault(27)
def empty_status(ex: Exchange, reply: Reply) -> Reply:
    """Answer polls with 200 and nothing."""
    return Reply(200) if ex.kind == "status" else reply


@fault(27)
def html_status(ex: Exchange, reply: Reply) -> Reply:
    """Answer polls with 200 and HTML."""
    return text(200, "<html>Please log in</html>", "text/html") if ex.kind == "status" else reply


@fault(27)
def outcome_status(ex: Exchange, reply: Reply) -> Reply:
    """Answer polls with 200 and an OperationOutcome, twice; then honestly."""
    return outcome(200, "informational") if ex.kind == "status" and ex.count <= 2 else reply


@fault(28)
def odd_progress(ex: Exchange, reply: Reply) -> Reply:
    """Report progress of 0 %, 150 %, 99 % and localised text."""
    steps = ("0%", "150%", "99%", "99%", "presque fini")
    if ex.kind == "status" and ex.count <= len(steps):
        return Reply(202, (("X-Progress", steps[ex.count - 1]),))
    return reply


@fault(29)
def separate_status(ex: Exchange, reply: Reply) -> Reply:
    """Apply separate-export-status: 200 is the poll, X-Export-Status the job."""
    if ex.kind == "kickoff":
        return reply.with_header("Preference-Applied", "respond-async, separate-export-status")
    if ex.kind == "status":
        return reply.change(status=200).with_header("X-Export-Status", str(reply.status))
    return reply


@fault(29)
def separate_status_failed(ex: Exchange, reply: Reply) -> Reply:
    """Apply separate-export-status and report a failed job."""
    if ex.kind == "status":
        return outcome(200, "exception").with_header("X-Export-Status", "500")
    return separate_status(ex, reply)


@fault(29)
def separate_status_forgotten(ex: Exchange, reply: Reply) -> Reply:
    """Promise separate-export-status and leave the header out."""
    return separate_status(ex, reply) if ex.kind == "kickoff" else reply


@fault(30)
def status_redirects(ex: Exchange, reply: Reply) -> Reply:
    """Redirect the finished status to a manifest on another origin."""
    if ex.kind == "status" and reply.status == 200:
        ex.server.extra["redirected"] = reply.body
        other = ex.base.replace("127.0.0.1", "localhost")
        return Reply(303, (("Location", f"{other}/open/redirected"),))
    if ex.path == "/open/redirected":
        return Reply(200, (("Content-Type", "application/json"),), ex.server.extra["redirected"])
    return reply
