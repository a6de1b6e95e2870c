"""The HTTPS channel: POST with an idempotency key; no redirect is followed.

A 2xx whose body is an OperationOutcome with an error is no success. 401 and 403 are retried, not
parked: a credential is repaired once for the whole channel, and the circuit breaker spares the
endpoint until then.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from hiexchange._http import NoAnswer, Policy, Response, Session, Tls, now_utc, retry_after
from hiexchange.delivery.base import Outcome, Parcel
from hiexchange.delivery.channel import ChannelSpec
from hiexchange.delivery.credentials import file_option, key_file, secret
from hiexchange.errors import DeliveryError, HIExchangeError, PolicyViolation

RETRYABLE = {401, 403, 425, 429}
DOUBTFUL = {408, 502, 504}
"""A gateway may have passed the message on before it answered so: tried again, but as a doubt, probe first."""
TRANSIENT = {"transient", "lock-error", "no-store", "timeout", "incomplete", "throttled", "exception"}
"""OperationOutcome issue types that trying again can help."""
POLICY = Policy(redirects_max=0, connect_timeout_s=10, write_timeout_s=60, read_timeout_s=60)


class HTTPSDestination:
    """One endpoint; ``http`` only on this machine."""

    def __init__(self, spec: ChannelSpec, base: Path, *, policy: Policy = POLICY) -> None:
        self._spec = spec
        self._base = base
        self._policy = policy
        self._session: Session | None = None
        self._key: bytes | None = None

    def open(self) -> None:
        """See :class:`~hiexchange.delivery.base.Destination`. Sockets open with the first request."""
        spec, base = self._spec, self._base
        try:
            tls = Tls(
                file_option(spec, "ca_file", base),
                key_file(spec, "client_certificate", base),
                key_file(spec, "client_key", base),
            )
            signing = secret(spec, "signing_key", base)
            self._key = signing.encode() if signing else None
            self._session = Session(self._origin(), policy=self._policy, tls=tls, headers=self._authorization())
        except HIExchangeError as error:
            raise DeliveryError(error.what, where=error.where, hint=error.hint, retryable=True) from error

    def _origin(self) -> str:
        parts = urlsplit(self._spec.url)
        return urlunsplit((parts.scheme, parts.netloc, "", "", ""))

    def _authorization(self) -> dict[str, str]:
        token = secret(self._spec, "token", self._base)
        if token:
            return {"Authorization": f"Bearer {token}"}
        user, password = (secret(self._spec, name, self._base) for name in ("username", "password"))
        if user is None:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password or ''}".encode()).decode()}

    def send(self, parcel: Parcel) -> Outcome:
        """See :class:`~hiexchange.delivery.base.Destination`."""
        body = parcel.payload if parcel.payload_expected else parcel.manifest
        try:
            response = self._opened().send(
                "POST", self._spec.url, token=False, headers=self._headers(parcel, body), content=body
            )
        except PolicyViolation:
            return Outcome("dead", "redirect refused")
        except NoAnswer as error:
            # A certificate refused, or no connection: not a byte of the body has left.
            return Outcome("unknown" if error.sent and not error.fatal else "retry", error.what)
        return self._judge(response, parcel)

    def _opened(self) -> Session:
        if self._session is None:
            self.open()
        assert self._session is not None
        return self._session

    def _headers(self, parcel: Parcel, body: bytes) -> dict[str, str]:
        manifest = msgspec.json.decode(parcel.manifest)
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        headers = {
            "Content-Type": parcel.content_type if parcel.payload_expected else "application/json",
            "Idempotency-Key": parcel.key,
            "Content-Digest": f"sha-256=:{digest}:",
            "X-Hiexchange-File": parcel.name,
            "X-Hiexchange-Channel": self._spec.key,
            "X-Hiexchange-Sequence": str(parcel.sequence),
            "X-Hiexchange-Void": ",".join(map(str, manifest["void_sequences"])),
            "X-Hiexchange-Replay": "true" if manifest["replay"] else "false",
        }
        if self._key is not None:
            headers["X-Hiexchange-Signature"] = "sha256=" + hmac.new(self._key, body, hashlib.sha256).hexdigest()
        return headers

    def _judge(self, response: Response, parcel: Parcel) -> Outcome:
        status = response.status_code
        code = f"HTTP {status}"
        if 200 <= status < 300:
            problem = operation_outcome(response.content)
            if problem is None:
                return Outcome("acked", code)
            return Outcome("retry" if problem in TRANSIENT else "dead", f"{code} OperationOutcome {problem}")
        wait = retry_after(response.headers, now_utc())
        if status == 409:
            return Outcome("acked", "HTTP 409, already there") if self.probe(parcel) else Outcome("retry", code, wait)
        if status in DOUBTFUL:
            return Outcome("unknown", code, wait)
        if status in RETRYABLE or status >= 500:
            return Outcome("retry", code, wait)
        return Outcome("dead", code)

    def probe(self, parcel: Parcel) -> bool | None:
        """See :class:`~hiexchange.delivery.base.Destination`: HEAD of the key under the endpoint.

        Only a digest that agrees says yes. Few receivers offer this, so anything else says nothing,
        and the same bytes are sent under the same Idempotency-Key.
        """
        parts = urlsplit(self._spec.url)
        path = f"{parts.path.rstrip('/')}/{parcel.key}"
        url = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
        try:
            response = self._opened().send("HEAD", url, token=False)
        except HIExchangeError:
            return None
        body = parcel.payload if parcel.payload_expected else parcel.manifest
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        there = response.status_code == 200 and response.headers.get("content-digest") == f"sha-256=:{digest}:"
        return True if there else None

    def close(self) -> None:
        """See :class:`~hiexchange.delivery.base.Destination`."""
        if self._session is not None:
            self._session.close()
            self._session = None


def operation_outcome(body: bytes) -> str | None:
    """Return the type of the first error in an OperationOutcome (or a response Bundle's); None when there is none."""
    try:
        found: Any = msgspec.json.decode(body) if body[:1] in (b"{", b" ", b"\n") else None
    except msgspec.DecodeError:
        return None
    if not isinstance(found, dict):
        return None
    if found.get("resourceType") == "Bundle":
        header: dict[str, Any] = next((entry.get("resource", {}) for entry in found.get("entry") or ()), {})
        answer = header.get("response", {}).get("code")
        return {"transient-error": "transient", "fatal-error": "processing"}.get(answer)
    if found.get("resourceType") != "OperationOutcome":
        return None
    for issue in found.get("issue") or ():
        if issue.get("severity") in ("error", "fatal"):
            return str(issue.get("code") or "processing")
    return None
