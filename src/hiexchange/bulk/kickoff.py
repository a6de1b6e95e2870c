"""Send the kick-off: it is not idempotent, so intent is journaled first and repeats are rare.

A kick-off is repeated only when it was provably not accepted: the connection failed before it was
sent, or the server answered that it did not take it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit, urlunsplit

from hiexchange._http import NoAnswer, Response, Session, now_utc, origin, redact, retry_after
from hiexchange.bulk.journal import Journal
from hiexchange.bulk.protocol import Action, Answer, classify_kickoff, named_parameter
from hiexchange.bulk.request import ExportRequest, KickOff, kick_off
from hiexchange.errors import (
    AttributionUnavailable,
    AuthError,
    KickOffRejected,
    PolicyViolation,
    ProtocolViolation,
    ServerUnavailable,
)
from hiexchange.events import KickedOff, Reporter, Throttled, Warned
from hiexchange.servers import Preset


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server took the export."""

    status_url: str | None
    manifest: bytes | None = None
    """A manifest given at once, without a job."""


def to_answer(response: Response) -> Answer:
    """Reduce a response to what the pure protocol decides on."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, response.content, retry_after(response.headers, now_utc()))


class KickOffPhase:
    """One export's way to an accepted job."""

    def __init__(
        self, session: Session, request: ExportRequest, preset: Preset, journal: Journal, report: Reporter
    ) -> None:
        """Nothing is sent yet."""
        self.session, self.request, self.preset = session, request, preset
        self.journal, self.report = journal, report
        self._tries = 0
        self._method = preset.kickoff

    def run(self) -> Accepted:
        """Send until the server accepts; journals intent, then acceptance.

        Raises:
            KickOffRejected, AuthError, ProtocolViolation: It will not.
            ServerUnavailable: It could not, within the budget.
        """
        policy = self.session.policy
        wait = policy.backoff_min_s
        while True:
            sent = kick_off(
                self.request, self.session.base_url, method=self._method, url_bytes_max=policy.url_bytes_max
            )
            self.journal.write("intent", method=sent.method, attempt=self._tries + 1)
            try:
                response = self.session.send(
                    sent.method, sent.url, token=self.session.auth is not None, headers=sent.headers, content=sent.content
                )
            except NoAnswer as error:
                wait = self._unanswered(error, wait)
                continue
            accepted = self._judge(sent, response)
            if accepted is not None:
                return accepted

    def _unanswered(self, error: NoAnswer, wait: float) -> float:
        policy = self.session.policy
        self._tries += 1
        if error.sent or error.fatal or self._tries >= policy.kickoff_attempts:
            self.journal.write("rejected", reason=error.what) if not error.sent else None
            raise error
        if self.session.wait(wait):
            raise error
        return min(wait * 2, policy.backoff_max_s)

    def _judge(self, sent: KickOff, response: Response) -> Accepted | None:
        answer = to_answer(response)
        action = classify_kickoff(answer)
        if action.kind == "accepted":
            return self._accepted(response)
        if action.kind == "manifest":
            self.report(Warned("the server answered with a manifest at once"))
            return Accepted(None, response.content)
        if action.kind == "post" and sent.method == "GET":
            self._method = "POST"
            self.request = replace(self.request, method="POST")
            return None
        if action.kind in ("busy", "retry"):
            self._later(answer, action, response)
            return None
        self.journal.write("rejected", reason=action.reason)
        raise self._refusal(answer, action, sent)

    def _later(self, answer: Answer, action: Action, response: Response) -> None:
        policy = self.session.policy
        self._tries += 1
        floor = policy.busy_wait_s if action.kind == "busy" else policy.backoff_min_s
        wait = min(max(floor * 2 ** (self._tries - 1), answer.retry_after_s or 0), policy.wait_cap_s)
        if self._tries >= policy.kickoff_attempts or self.session.stopped.is_set():
            self.journal.write("rejected", reason=action.reason)
            raise ServerUnavailable(
                "the server does not take the export now",
                retry_after_s=answer.retry_after_s,
                where=_where(response),
                said=action.reason,
                hint="run the same command again later",
            )
        self.report(Throttled(wait, clamped=(answer.retry_after_s or 0) > policy.wait_cap_s))
        self.session.wait(wait)

    def _accepted(self, response: Response) -> Accepted:
        raw = response.headers["content-location"].strip()
        asked = str(response.request.url)
        url = urljoin(asked, raw)
        if url != raw:
            self.report(Warned("Content-Location is relative"))
        here, there = urlsplit(asked), urlsplit(url)
        if here.scheme == "https" and there.scheme == "http" and here.hostname == there.hostname:
            # Behind a TLS proxy servers write their inner scheme (ab2d PR 236); a port 80 goes with it.
            url = urlunsplit(there._replace(scheme="https", netloc=there.netloc.removesuffix(":80")))
            self.report(Warned("Content-Location says http, https is used"))
        if origin(url) not in self.session.token_scope and self.session.auth is not None:
            raise PolicyViolation(
                "the job's status lies on another origin",
                where=redact(url),
                hint="if that is right, list it in Policy(token_origins=…)",
            )
        applied = "separate-export-status" in response.headers.get("preference-applied", "").lower()
        self.journal.write("accepted", status_url=url, separate_status=applied)
        self.report(KickedOff(redact(url)))
        return Accepted(url)

    def _refusal(self, answer: Answer, action: Action, sent: KickOff) -> Exception:
        where = f"{sent.method} {redact(sent.url)}"
        codes = answer.codes()
        said = f"OperationOutcome: {', '.join(codes)}" if codes else action.reason
        if action.kind == "unauthorized":
            granted = getattr(self.session.auth, "granted_scope", "")
            return AuthError(
                f"the server refuses the credential ({answer.status})",
                where=where,
                said=said + (f"; granted scope: {granted}" if granted else ""),
                hint="check the credential and that it may export these types",
            )
        if action.kind == "violation":
            return ProtocolViolation("the server accepted the export without saying where its status is", where=where)
        if action.kind == "post":
            return KickOffRejected("the server offers no export by this method", where=where, said=said)
        return self._rejected(answer, where, said)

    def _rejected(self, answer: Answer, where: str, said: str) -> KickOffRejected:
        names = tuple(dict.fromkeys(name for name, _ in self.request.parameters()))
        text = answer.diagnostics().lower()
        if answer.status == 404 and "attribution" in text:
            return AttributionUnavailable(
                "the payer has not attributed anyone yet",
                where=where,
                said=said,
                hint="try again when attribution has arrived; the former year's leavers are group 'runout'",
            )
        if answer.status == 406:
            hint: str | None = "re-attest the roster: its attributions have lapsed"
        elif self.preset.groups and self.request.group not in (None, *self.preset.groups):
            groups = " and ".join(f'"{name}"' for name in self.preset.groups)
            hint = f"{self.preset.name} accepts only {groups}; see `hiexchange servers {self.preset.name}`"
        else:
            hint = None
        return KickOffRejected(
            f"the server refused the export ({answer.status})",
            parameter=named_parameter(answer, names),
            issues=answer.codes(),
            where=where,
            said=said,
            hint=hint,
        )


def _where(response: Response) -> str:
    return f"{response.request.method} {redact(str(response.request.url))}"


def read_object(data: bytes) -> Mapping[str, object] | None:
    """Return a JSON object, or None."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, Mapping) else None
