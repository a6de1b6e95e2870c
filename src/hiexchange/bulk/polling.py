"""Wait for the job: poll, take manifest pages, journal each. Decisions are in ``protocol``."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import datetime

import msgspec

from hiexchange._http import NoAnswer, Policy, Response, Session, now_utc
from hiexchange._urls import redact
from hiexchange.bulk.answers import keep_answer, read_object, to_answer
from hiexchange.bulk.log import ExportLog
from hiexchange.bulk.protocol import Action, PollRules, PollState, classify_poll, no_answer
from hiexchange.errors import (
    AuthError,
    ExportError,
    HIExchangeError,
    JobExpired,
    JobFailed,
    JobInterrupted,
    JobTimeout,
    JobVanished,
    ProtocolViolation,
    ServerUnavailable,
)
from hiexchange.events import Polled, Reporter, Throttled
from hiexchange.servers import Preset

FATAL: dict[str, type[HIExchangeError]] = {
    "failed": JobFailed,
    "vanished": JobVanished,
    "expired": JobExpired,
    "violation": ProtocolViolation,
}
NEXT_TRIES = 5


class Page(msgspec.Struct, frozen=True):
    """A manifest page as received."""

    url: str
    content: bytes
    expires: str | None
    last: bool
    """The job is complete; only ``next`` links remain."""


def poll_rules(policy: Policy, preset: Preset, *, separate_status: bool, allow_partial: bool) -> PollRules:
    """Combine policy and preset; a server's floor counts only against the default policy's pace."""
    default = Policy()
    slow = policy.poll_min_s >= default.poll_min_s
    min_s = max(policy.poll_min_s, preset.poll_min_s or 0) if slow else policy.poll_min_s
    return PollRules(
        min_s=min_s,
        factor=policy.poll_factor,
        max_s=max(min_s, preset.poll_max_s or policy.poll_max_s) if slow else policy.poll_max_s,
        error_budget=policy.poll_error_budget,
        confirmations=preset.final_confirmations,
        confirmation_s=policy.confirmation_wait_s,
        grace_s=policy.vanish_grace_s,
        separate_status=separate_status,
        allow_partial=allow_partial,
        refused_codes=preset.refused_codes,
    )


class Poller:
    """Polls one status URL."""

    def __init__(
        self,
        session: Session,
        url: str,
        rules: PollRules,
        preset: Preset,
        *,
        report: Reporter,
        log: ExportLog,
        accepted_at: datetime,
    ) -> None:
        """Nothing is sent yet."""
        self.session, self.url, self.rules, self.preset = session, url, rules, preset
        self.report, self.log = report, log
        self._accepted_at = accepted_at
        self._state = PollState()

    def until_complete(self, deadline_s: float, on_page: Callable[[Page], None]) -> None:
        """Poll until the job is complete; pages go to ``on_page`` as they come.

        Raises:
            JobFailed, JobVanished, JobExpired, ProtocolViolation: The job is over.
            AuthError: The credential is not accepted any more.
            JobTimeout: ``deadline_s`` seconds are over; the job goes on at the server.
        """
        started = time.monotonic()
        while True:
            action, response = self._once()
            self._note(action, response)
            if action.kind == "complete" and response is not None:
                on_page(self._page(response, last=True))
                return
            if action.page and response is not None:
                on_page(self._page(response, last=False))
            if action.kind != "wait":
                raise self._over(action, response)
            delay = self._delay(action)
            if time.monotonic() - started + delay > deadline_s:
                raise JobTimeout(
                    f"the job was not complete after {deadline_s:,.0f} s",
                    where=redact(self.url),
                    hint="it goes on at the server: `hiexchange export resume` waits again",
                )
            if self.session.wait(delay):
                raise JobInterrupted("the job was asked to stop")

    def _once(self) -> tuple[Action, Response | None]:
        try:
            response = self.session.send(
                self.preset.poll_method,
                self.url,
                token=self.session.auth is not None,
                headers={"Accept": "application/json"},
            )
        except NoAnswer as error:
            if error.fatal:
                raise
            action, self._state = no_answer(self._state, self.rules, reason=error.what)
            return action, None
        except ServerUnavailable as error:  # the token endpoint's troubles, not the job's
            action, self._state = no_answer(self._state, self.rules, reason=error.what)
            return action, None
        # A clock that was set back since must not make the job look new for ever.
        age = abs((now_utc() - self._accepted_at).total_seconds())
        action, self._state = classify_poll(to_answer(response), self._state, self.rules, age_s=age)
        return action, response

    def _note(self, action: Action, response: Response | None) -> None:
        if action.kind == "complete":
            return
        running = response is not None and response.status_code == 202
        codes = () if response is None else to_answer(response).codes()
        self.log.status(response, failed=not running, message=action.reason, codes=codes)

    def _delay(self, action: Action) -> float:
        policy = self.session.policy
        clamped = action.wait_s > policy.poll_cap_s
        delay = min(action.wait_s, policy.poll_cap_s) * random.uniform(1.0, 1.0 + policy.jitter)
        self.report(Throttled(delay, clamped) if action.throttled or clamped else Polled(delay, action.reason))
        return delay

    def _over(self, action: Action, response: Response | None) -> HIExchangeError:
        if action.kind == "unauthorized":
            return AuthError(
                "the server refuses the credential for the job's status",
                where=redact(self.url),
                said=action.reason,
                hint="renew the credential, then `hiexchange export resume`",
                resumable=True,
            )
        hints = {
            "failed": "start the export anew; what was committed stays in the folder",
            "vanished": "start the export anew",
            "expired": "start the export anew",
        }
        hint = keep_answer(self.log.path.parent, response, hints.get(action.kind))
        kind = FATAL[action.kind]
        text = {
            "failed": "the server reports that the job failed",
            "vanished": "the server does not know the job any more",
            "expired": "the server does not keep the job any more",
        }.get(action.kind, "the status answer cannot be read")
        return kind(text, where=redact(self.url), said=action.reason, hint=hint)

    def _page(self, response: Response, *, last: bool) -> Page:
        return Page(str(response.request.url), response.content, response.headers.get("expires"), last)


def fetch_next(session: Session, url: str) -> Page:
    """Fetch a linked manifest page.

    Raises:
        ServerUnavailable: It cannot be had now; pages so far stay.
        ProtocolViolation: What came is no manifest.
    """
    policy = session.policy
    said = ""
    for attempt in range(NEXT_TRIES):
        if attempt and session.wait(min(policy.backoff_min_s * 2**attempt, policy.backoff_max_s)):
            raise JobInterrupted("the job was asked to stop")
        try:
            token = session.auth is not None and session.in_token_scope(url)
            response = session.send("GET", url, token=token, headers={"Accept": "application/json"})
        except NoAnswer as error:
            if error.fatal:
                raise
            said = error.what
            continue
        said = f"HTTP {response.status_code}"
        if response.status_code == 200 and read_object(response.content) is not None:
            return Page(url, response.content, response.headers.get("expires"), last=True)
    raise ServerUnavailable("a manifest page cannot be had", where=redact(url), said=said, hint="resume later")


ENDINGS: tuple[type[ExportError], ...] = (JobFailed, JobVanished, JobExpired)
