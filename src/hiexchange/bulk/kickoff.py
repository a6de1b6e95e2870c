"""Send the kick-off: it is not idempotent, so intent is journaled first and repeats are rare.

A kick-off is repeated only when it was provably not accepted: the connection failed before it was
sent, or the server answered that it did not take it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import msgspec

from hiexchange._files import write_json
from hiexchange._http import NoAnswer, Response, Session, now_utc
from hiexchange._urls import host_of, join, origin, redact
from hiexchange.auth import TokenAuth
from hiexchange.bulk.answers import keep_answer, read_object, to_answer
from hiexchange.bulk.journal import Journal
from hiexchange.bulk.log import ABOUT, ExportLog
from hiexchange.bulk.orphans import find_listed, find_named, split_locations
from hiexchange.bulk.protocol import Action, Answer, classify_kickoff, named_parameter
from hiexchange.bulk.request import ExportRequest, KickOff, joined_parameters, kick_off, without_parameter
from hiexchange.errors import (
    AttributionUnavailable,
    AuthError,
    HIExchangeError,
    KickOffRejected,
    PolicyViolation,
    ProtocolViolation,
    ServerUnavailable,
)
from hiexchange.events import KickedOff, Reporter, Throttled, Warned
from hiexchange.servers import Preset

LAPSED = "lapsed-members.json"
LOST = (502, 504)
"""A gateway's word that it got no answer: what is behind it may have accepted the export."""


class Accepted(msgspec.Struct, frozen=True):
    """The server took the export."""

    status_url: str | None
    manifest: bytes | None = None
    """A manifest given at once, without a job."""


class KickOffPhase:
    """One export's way to an accepted job."""

    def __init__(
        self,
        session: Session,
        request: ExportRequest,
        preset: Preset,
        *,
        journal: Journal,
        report: Reporter,
        log: ExportLog,
    ) -> None:
        """Nothing is sent yet."""
        self.session, self.request, self.preset = session, request, preset
        self.journal, self.report, self.log = journal, report, log
        self._tries = 0
        self._about: Mapping[str, str | None] = {}
        self._method = preset.kickoff
        # An intent without an outcome: the server may have accepted a kick-off whose answer was lost.
        self._lost_at = journal.state.intent_at if journal.state.phase == "intent" else None
        self._repeated = False

    def run(self) -> Accepted:
        """Send until the server accepts; journals intent, then acceptance.

        Raises:
            KickOffRejected, AuthError, ProtocolViolation: It will not.
            ServerUnavailable: It could not, within the budget.
        """
        self._about = about_server(self.session)
        while True:
            sent = kick_off(
                self.request,
                self.session.base_url,
                method=self._method,
                url_bytes_max=self.session.policy.url_bytes_max,
            )
            self._log_in()
            if self._lost_at is not None and (found := self._recovered(sent)):
                return found
            self.journal.write("intent", method=sent.method, attempt=self._tries + 1)
            try:
                response = self._send(sent)
            except NoAnswer as error:
                self._unanswered(error)
                continue
            except HIExchangeError as error:
                # Raised before the request went out, or at a redirect: nothing was accepted.
                self.journal.write("rejected", reason=error.what)
                raise
            accepted = self._judge(sent, response)
            if accepted is not None:
                return accepted

    def _log_in(self) -> None:
        """Get the token first: its troubles are not the kick-off's."""
        if isinstance(self.session.auth, TokenAuth):
            self.session.auth.token()

    def _send(self, sent: KickOff) -> Response:
        return self.session.send(
            sent.method, sent.url, token=self.session.auth is not None, headers=sent.headers, content=sent.content
        )

    def _recovered(self, sent: KickOff) -> Accepted | None:
        """Look for the job of a kick-off whose answer was lost; without a list, allow one repeat."""
        found = find_listed(self.session, self.preset, sent.url, since=self._lost_at)
        if found is not None:
            return self._adopted(found)
        if self.preset.adopt == "none":
            text = "possible_orphan: a kick-off may have been accepted unseen; it is sent again"
            self.report(Warned(text))
        if self.preset.adopt != "429_content_location":
            self._lost_at = None
        return None

    def _adopted(self, url: str) -> Accepted:
        self.report(Warned("a job for the same request was found at the server; it is taken over"))
        self.journal.write("accepted", status_url=url, adopted=True)
        self.report(KickedOff(redact(url)))
        return Accepted(url)

    def _unanswered(self, error: NoAnswer) -> None:
        """Count a try without an answer; a request that may have arrived is repeated once at most."""
        policy = self.session.policy
        self._tries += 1
        if not error.sent:
            self.journal.write("rejected", reason=error.what)
        over = self._tries >= (policy.kickoff_attempts if error.sent else policy.connect_attempts)
        if error.fatal or over or (error.sent and self._repeated):
            raise error
        if error.sent:
            self._repeated = True
            self._lost_at = now_utc()
        if self.session.wait(min(policy.backoff_min_s * 2 ** (self._tries - 1), policy.backoff_max_s)):
            raise error

    def _judge(self, sent: KickOff, response: Response) -> Accepted | None:
        answer = to_answer(response)
        action = classify_kickoff(answer)
        located = self._located(response) if action.kind == "accepted" else None
        self.log.export_id = located or self.log.export_id
        self.log.kickoff(sent.url, joined_parameters(self.request), response, codes=answer.codes(), about=self._about)
        if located is not None:
            return self._accepted(located, response)
        if action.kind == "manifest":
            self.report(Warned("the server answered with a manifest at once"))
            return Accepted(None, response.content)
        if action.kind == "post" and sent.method == "GET":
            self._method = "POST"
            self.request = replace(self.request, method="POST")
            return None
        if action.kind == "busy" and (found := self._running_already(answer, sent)):
            return self._adopted(found)
        if answer.status in LOST:
            self._lost_at = self.journal.state.intent_at
        if action.kind in ("busy", "retry"):
            self._later(answer, action, response)
            return None
        if action.kind in ("violation", "accepted") and (listed := self._listed_now(sent)):
            return self._adopted(listed)
        self.journal.write("rejected", reason=action.reason)
        refusal = self._refusal(answer, action, sent)
        if isinstance(refusal, KickOffRejected) and self._adapted(refusal.parameter):
            return None
        raise self._with_answer(refusal, response)

    def _with_answer(self, error: HIExchangeError, response: Response) -> HIExchangeError:
        error.hint = keep_answer(self.journal.path.parent, response, error.hint)
        return error

    def _running_already(self, answer: Answer, sent: KickOff) -> str | None:
        """Find the identical job that a 429 speaks of."""
        named = answer.headers.get("content-location")
        if named:
            locations = split_locations(named, self.session.base_url)
            return find_named(self.session, locations, sent.url, lost=self._lost_at is not None)
        return find_listed(self.session, self.preset, sent.url, since=None)

    def _listed_now(self, sent: KickOff) -> str | None:
        return find_listed(self.session, self.preset, sent.url, since=self.journal.state.intent_at)

    def _adapted(self, parameter: str | None) -> bool:
        """Drop the parameter a refusal names, once each, if the policy allows it; never silently."""
        if not self.session.policy.adapt or parameter is None or parameter in self.journal.state.ignored:
            return False
        smaller = without_parameter(self.request, parameter)
        if smaller is None:
            return False
        self.journal.write("ignored", parameters=[parameter])
        self.report(Warned(f"the server refuses {parameter}; the export goes on without it"))
        self.request = smaller
        return True

    def _later(self, answer: Answer, action: Action, response: Response) -> None:
        policy = self.session.policy
        self._tries += 1
        floor = policy.busy_wait_s if action.kind == "busy" else policy.backoff_min_s
        wait = min(max(floor * 2 ** (self._tries - 1), answer.retry_after_s or 0), policy.wait_cap_s)
        if self._tries >= policy.kickoff_attempts or self.session.stopped.is_set():
            if answer.status not in LOST:
                self.journal.write("rejected", reason=action.reason)
            refusal = ServerUnavailable(
                "the server does not take the export now",
                retry_after_s=answer.retry_after_s,
                where=_where(response),
                said=action.reason,
                hint="run the same command again later",
            )
            raise self._with_answer(refusal, response)
        self.report(Throttled(wait, clamped=(answer.retry_after_s or 0) > policy.wait_cap_s))
        self.session.wait(wait)

    def _located(self, response: Response) -> str | None:
        """Return where the job's status is; None if that cannot be read."""
        raw = response.headers["content-location"].strip()
        asked = str(response.request.url)
        url = join(asked, raw)
        if not origin(url):
            return None
        if url != raw:
            self.report(Warned("Content-Location is relative"))
        if asked.startswith("https:") and url.startswith("http:") and host_of(asked) == host_of(url):
            # Behind a TLS proxy servers write their inner scheme (ab2d PR 236); a port 80 goes with it.
            inner = urlsplit(url)
            url = urlunsplit(inner._replace(scheme="https", netloc=inner.netloc.removesuffix(":80")))
            self.report(Warned("Content-Location says http, https is used"))
        return url

    def _accepted(self, url: str, response: Response) -> Accepted:
        applied = "separate-export-status" in response.headers.get("preference-applied", "").lower()
        # Before anything is refused: with another policy the job can be gone on with, instead of a second one.
        self.journal.write("accepted", status_url=url, separate_status=applied)
        if origin(url) not in self.session.token_scope and self.session.auth is not None:
            raise PolicyViolation(
                "the job's status lies on another origin",
                where=redact(url),
                hint="if that is right, list it in Policy(token_origins=…) and run the same command again",
            )
        self.report(KickedOff(redact(url)))
        return Accepted(url)

    def _refusal(self, answer: Answer, action: Action, sent: KickOff) -> HIExchangeError:
        where = f"{sent.method} {redact(sent.url)}"
        codes = answer.codes()
        said = f"OperationOutcome: {', '.join(codes)}" if codes else action.reason
        if action.kind == "unauthorized":
            granted = getattr(self.session.auth, "granted_scope", "")
            return AuthError(
                f"the server refuses the credential ({answer.status})",
                where=where,
                said=said + (f"; granted scope: {granted}" if granted else ""),
                hint="check the credential and that it may export these types"
                if self.session.auth is not None
                else "the server wants a credential: give client_id with key or client_secret",
            )
        if action.kind in ("violation", "accepted"):
            return ProtocolViolation("the server accepted the export without saying where its status is", where=where)
        if action.kind == "post":
            return KickOffRejected("the server offers no export by this method", where=where, said=said)
        return self._rejected(answer, where, said)

    def _lapsed(self) -> str:
        """List the members whose attributions have lapsed, in the folder: ids of patients are not for messages."""
        advice = "re-attest the roster: its attributions have lapsed"
        if self.request.group is None:
            return advice
        from hiexchange.bulk.dpc import lapsing, read_members  # only for this refusal

        try:
            found = lapsing(read_members(self.session, self.request.group), before=now_utc())
        except HIExchangeError:
            return advice
        place = self.journal.path.with_name(LAPSED)
        rows = [{"patient": item.patient_id, "ends_at": item.ends_at, "active": item.active} for item in found]
        write_json(place, rows)
        return f"{advice}; {len(found):,} members are listed in {place.name}"

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
            hint: str | None = self._lapsed()
        elif self.preset.groups and self.request.group not in (None, *self.preset.groups):
            groups = " and ".join(f'"{name}"' for name in self.preset.groups)
            hint = f"{self.preset.name} accepts only {groups}; see `hiexchange servers {self.preset.name}`"
        else:
            hint = None
        parameter = named_parameter(answer, names)
        return KickOffRejected(
            f"the server refused {parameter or 'the export'} ({answer.status})",
            parameter=parameter,
            issues=answer.codes(),
            where=where,
            said=said,
            hint=hint,
        )


def about_server(session: Session) -> Mapping[str, str | None]:
    """Return what a server says of itself, for the log; nothing when its CapabilityStatement cannot be had."""
    try:
        response = session.metadata()
    except HIExchangeError:
        return {}
    body = read_object(response.content) or {}
    software = body.get("software")
    software = software if isinstance(software, Mapping) else {}
    found = (software.get("name"), software.get("version"), software.get("releaseDate"), body.get("fhirVersion"))
    return {name: value if isinstance(value, str) else None for name, value in zip(ABOUT, found, strict=True)}


def _where(response: Response) -> str:
    return f"{response.request.method} {redact(str(response.request.url))}"
