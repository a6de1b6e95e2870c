"""What a server's answer means for the job: kick-off and status polling. Pure.

``classify_kickoff`` and ``classify_poll`` turn an :class:`Answer` into an :class:`Action`; the I/O
around them sends, waits and journals. The state between polls is :class:`PollState`, a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from hiexchange import ndjson

TRANSIENT = frozenset({"transient", "lock-error", "timeout", "throttled", "no-store", "incomplete"})
# R4 makes "exception" a child of "transient" too; BCDA reports a dead job with it, so it is final here.
GATEWAY = frozenset({408, 425})
UNREADABLE_TRIES = 3


class Answer(msgspec.Struct, frozen=True):
    """A response reduced to what decides: status, a few headers, the decoded body."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = b""
    retry_after_s: float | None = None

    def json(self) -> Any:
        """Return the body as JSON; None when it is not."""
        return ndjson.value(self.body)

    def outcome(self) -> tuple[tuple[str, str], ...]:
        """Return severity and code of each issue if the body is an OperationOutcome, else nothing."""
        body = self.json()
        if not isinstance(body, Mapping) or body.get("resourceType") != "OperationOutcome":
            return ()
        issues = ndjson.objects(body.get("issue"))
        return tuple((str(issue.get("severity", "error")), str(issue.get("code", ""))) for issue in issues)

    def codes(self) -> tuple[str, ...]:
        """Return the issue codes of the body's OperationOutcome."""
        return tuple(code for _, code in self.outcome())

    def diagnostics(self) -> str:
        """Return the free text of an OperationOutcome or a plain-text body, shortened, for decisions only."""
        body = self.json()
        if isinstance(body, Mapping):
            texts = []
            for issue in ndjson.objects(body.get("issue")):
                details = issue.get("details")
                detail = details.get("text") if isinstance(details, Mapping) else None
                texts.append(str(issue.get("diagnostics") or detail or ""))
                texts.append(str(issue.get("expression") or issue.get("location") or ""))
            return " ".join(texts)[:2000]
        return self.body[:500].decode(errors="replace")


class Action(msgspec.Struct, frozen=True):
    """What to do next.

    ``wait`` poll again after ``wait_s``; ``complete`` the body is the manifest; ``failed``, ``vanished``,
    ``expired``, ``refused``, ``violation`` end the job with ``reason``; ``unauthorized`` the credential
    is not accepted.
    """

    kind: str
    wait_s: float = 0.0
    reason: str = ""
    throttled: bool = False
    page: bool = False
    """The body of a 202 is a manifest page that may be taken already."""


class PollRules(msgspec.Struct, frozen=True):
    """Numbers that steer polling, from policy and preset."""

    min_s: float = 2
    factor: float = 1.5
    max_s: float = 60
    error_budget: int = 30
    confirmations: int = 2
    confirmation_s: float = 30
    grace_s: float = 60
    separate_status: bool = False
    allow_partial: bool = False
    refused_codes: tuple[int, ...] = (401,)


class PollState(msgspec.Struct, frozen=True):
    """What is remembered between polls."""

    interval_s: float = 0.0
    stretch: float = 1.0
    """Doubled by every 429, for good."""
    errors: int = 0
    """Consecutive answers with a transient code."""
    confirmations: int = 0
    unreadable: int = 0


def classify_poll(answer: Answer, state: PollState, rules: PollRules, *, age_s: float) -> tuple[Action, PollState]:
    """Decide what a poll's answer means.

    Args:
        answer: The response.
        state: From the last poll.
        rules: Numbers.
        age_s: Seconds since the kick-off was accepted.

    Returns:
        The action, and the state for the next poll.

    Source:
        Bulk Data Access IG, export: "Bulk Data Status Request"; quirks as in docs/bulk-export.md.
    """
    status = answer.status
    if status in (200, 202) and rules.separate_status and "x-export-status" in answer.headers:
        declared = answer.headers["x-export-status"].strip()[:3]
        if declared.isdigit():
            status = int(declared)
    if status == 202:
        return _running(answer, state, rules)
    if 200 <= status < 300:
        return _done(status, answer, state, rules)
    if status == 429:
        stretched = replace(state, stretch=min(state.stretch * 2, 64.0))
        action, after = _next(answer, stretched, rules, reason="asked to slow down")
        return replace(action, throttled=True), after
    if status in rules.refused_codes or status == 401:
        return Action("unauthorized", reason=f"HTTP {status}"), state
    if status in GATEWAY:
        return _next(answer, state, rules, reason=f"HTTP {status}")
    return _trouble(status, answer, state, rules, age_s)


def no_answer(state: PollState, rules: PollRules, *, reason: str) -> tuple[Action, PollState]:
    """Decide what a poll without an answer means: wait, until the deadline."""
    return _next(Answer(0, {}), state, rules, reason=reason)


def _running(answer: Answer, state: PollState, rules: PollRules) -> tuple[Action, PollState]:
    calm = replace(state, errors=0, confirmations=0, unreadable=0)
    action, after = _next(answer, calm, rules, reason=answer.headers.get("x-progress", "")[:100])
    body = answer.json() if rules.allow_partial and answer.body else None
    is_page = isinstance(body, Mapping) and isinstance(body.get("output"), list) and not body.get("resourceType")
    return replace(action, page=is_page), after


def _done(status: int, answer: Answer, state: PollState, rules: PollRules) -> tuple[Action, PollState]:
    body = answer.json() if status == 200 else None
    if isinstance(body, Mapping) and not body.get("resourceType") and ("output" in body or "transactionTime" in body):
        return Action("complete"), state
    tried = replace(state, unreadable=state.unreadable + 1)
    if tried.unreadable >= UNREADABLE_TRIES:
        return Action("violation", reason=f"HTTP {status} without a manifest"), tried
    return _next(answer, tried, rules, reason=f"HTTP {status} without a manifest")


def _trouble(status: int, answer: Answer, state: PollState, rules: PollRules, age_s: float) -> tuple[Action, PollState]:
    codes = answer.codes()
    if any(code in TRANSIENT for code in codes):
        counted = replace(state, errors=state.errors + 1)
        if counted.errors > rules.error_budget:
            return Action("failed", reason=f"still {', '.join(codes)} after {counted.errors} polls"), counted
        return _next(answer, counted, rules, reason=", ".join(codes))
    if status == 404 and age_s < rules.grace_s:
        return _next(answer, state, rules, reason="404 right after the kick-off")
    if status == 404:
        return Action("vanished", reason="HTTP 404"), state
    if status == 410:
        return Action("expired", reason="HTTP 410"), state
    if status >= 500 and not codes:
        return _next(answer, state, rules, reason=f"HTTP {status}")
    if status >= 500 and state.confirmations < rules.confirmations:
        confirming = replace(state, confirmations=state.confirmations + 1)
        return Action("wait", wait_s=rules.confirmation_s, reason=", ".join(codes)), confirming
    if status == 405:
        return Action("violation", reason="HTTP 405: the status cannot be polled by this method"), state
    return Action("failed", reason=_reason(status, answer)), state


def _next(answer: Answer, state: PollState, rules: PollRules, *, reason: str) -> tuple[Action, PollState]:
    """Wait: our own growing interval, or longer if the server asks for it."""
    interval = min(max(state.interval_s * rules.factor, rules.min_s), rules.max_s)
    delay = interval * state.stretch
    asked = answer.retry_after_s
    if asked is not None:
        # What the server asks for replaces the growing interval, but never goes under the floor.
        delay = max(asked, rules.min_s * state.stretch)
        interval = state.interval_s
    return Action("wait", wait_s=delay, reason=reason), replace(state, interval_s=interval)


def _reason(status: int, answer: Answer) -> str:
    codes = ", ".join(answer.codes())
    return f"HTTP {status}" + (f": {codes}" if codes else "")


def classify_kickoff(answer: Answer) -> Action:
    """Decide what the answer to a kick-off means.

    Returns:
        ``accepted`` (poll Content-Location), ``manifest`` (the body is one already), ``busy`` (429:
        another export is running), ``retry`` (5xx, nothing was accepted), ``post`` (GET is not
        offered), ``unauthorized``, ``violation`` or ``refused``.
    """
    status = answer.status
    located = bool(answer.headers.get("content-location"))
    if status in (200, 201, 202) and located:
        return Action("accepted")
    if status in (200, 201, 202):
        body = answer.json()
        if isinstance(body, Mapping) and not body.get("resourceType") and "output" in body:
            return Action("manifest")
        return Action("violation", reason=f"{status} without Content-Location")
    if status == 429:
        return Action("busy", reason="HTTP 429", throttled=True)
    if status in (405, 501):
        return Action("post", reason=f"HTTP {status}")
    if status >= 500 or status in GATEWAY:
        return Action("retry", reason=_reason(status, answer))
    if status in (401, 403):
        return Action("unauthorized", reason=_reason(status, answer))
    return Action("refused", reason=_reason(status, answer))


def named_parameter(answer: Answer, sent: tuple[str, ...]) -> str | None:
    """Return the parameter a refusal names, one of those sent; the longest match wins."""
    text = answer.diagnostics().lower()
    found = [name for name in sent if name.lower() in text]
    return max(found, key=len) if found else None
