"""The only module that imports httpx: sessions, redirects by hand, Retry-After, redaction.

A :class:`Session` knows one server: which origins may see its token, which hosts may be visited at
all, how long to wait. It retries nothing by itself except what :func:`retrying` is asked to; the
engine above decides. No request carries a credential unless the caller says ``token=True`` *and*
the URL lies inside the token's origins.
"""

# ruff: noqa: E402 - httpx is told before its import what not to load
from __future__ import annotations

import contextlib
import email.utils
import queue
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any


@contextlib.contextmanager
def _never_found(module: str) -> Iterator[None]:
    """Let a module that was not imported yet be not found, for the time of this block."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


# httpx loads its command line, with rich and pygments, where they are installed: 40 % of its import (0.28.1). It does
# without when that cannot be imported; a program that wants it can import it afterwards.
with _never_found("httpx._main"):
    import httpcore
    import httpx
from httpx import Auth, Client, Headers, Request, Response

from hiexchange._policy import Policy
from hiexchange._tls import Tls
from hiexchange._urls import PUBLIC_STORAGE, check_url, host_of, is_address, is_private, join, origin, redact
from hiexchange.errors import PolicyViolation, ServerError, ServerUnavailable

if TYPE_CHECKING:
    import tenacity

__all__ = ["Auth", "Client", "Headers", "NoAnswer", "Policy", "Request", "Response", "Session", "Tls"]

USER_AGENT = "hiexchange/0.1"
STRAIGHT_FROM, STRAIGHT_READ = 1 << 20, 1 << 20  # bodies at least this long are read past the HTTP parser
PROXY = ("the proxy refused", "check HTTPS_PROXY or HTTP_PROXY and the proxy's credentials")
# OpenSSL's names: ours was wrong about the server, or the server's alert about us (mTLS: no certificate, a wrong one).
CERTIFICATE_TROUBLE = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|ALERT_\w*CERTIFICATE|ALERT_UNKNOWN_CA|ALERT_HANDSHAKE_FAILURE|ALERT_ACCESS_DENIED"
)
ANSWER_BYTES = 256 << 20
"""Longest answer that is no file; a manifest of 50,000 files has some 10 MB."""
FRAMING = ("content-encoding", "transfer-encoding", "content-length")
DECIMAL = re.compile(r"[+-]?\d+(\.\d+)?$")


class NoAnswer(ServerUnavailable):
    """The connection failed; ``sent`` says whether the server may have seen the request."""

    def __init__(self, what: str, *, sent: bool = True, fatal: bool = False, **parts: Any) -> None:
        super().__init__(what, **parts)
        self.sent = sent
        self.fatal = fatal
        if fatal:
            self.resumable = False
            self.exit_code = 4


class Session:
    """One server as seen by one job: client, origins of the token, hosts that may be visited."""

    def __init__(
        self,
        base_url: str,
        *,
        auth: Auth | None = None,
        policy: Policy | None = None,
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
        token_origins: tuple[str, ...] = (),
        allowed_hosts: tuple[str, ...] = (),
    ) -> None:
        """Open a pool of connections; nothing is sent yet.

        Raises:
            PolicyViolation: The base URL is not https, or holds a user name.
        """
        self.base_url = base_url.rstrip("/")
        self.auth = auth
        self.policy = policy or Policy()
        self.stopped = threading.Event()
        self.closed = False
        self.allowed_hosts = {host.lower() for host in (*allowed_hosts, *self.policy.allowed_hosts)}
        check_url(self.base_url, allow_http=self.policy.allow_http)
        self.token_scope = {origin(self.base_url), *map(origin, (*token_origins, *self.policy.token_origins))}
        self._tls = tls or Tls()
        self._lock = threading.Lock()
        # A server on this machine without TLS needs no certificates, which take 0.04 s to read: until an https URL is
        # met the context trusts nobody.
        self._trusting = self.base_url.lower().startswith("https:")
        self._context = self._tls.context() if self._trusting else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        limits = httpx.Limits(
            max_connections=self.policy.workers_max + 4, max_keepalive_connections=self.policy.workers_max
        )
        self.client = httpx.Client(
            auth=None,
            follow_redirects=False,
            http2=False,
            limits=limits,
            verify=self._context,
            # AB2D recognises the token "gzip" alone, so no q-values and no other codings.
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **(headers or {})},
            timeout=httpx.Timeout(
                connect=self.policy.connect_timeout_s,
                read=self.policy.read_timeout_s,
                write=self.policy.write_timeout_s,
                pool=None,
            ),
        )

    def _trust(self, url: str) -> None:
        """Read the certificates if ``url`` is the first that needs them."""
        with self._lock:
            if not self._trusting and url.lower().startswith("https:"):
                self._tls.fill(self._context)
                self._trusting = True

    def in_token_scope(self, url: str) -> bool:
        """Say whether the token may travel to ``url``."""
        return origin(url) in self.token_scope

    def send(
        self,
        method: str,
        url: str,
        *,
        token: bool,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        stream: bool = False,
        idle_s: float | None = None,
    ) -> Response:
        """Send one request, follow its redirects by hand, and return the answer whatever its status.

        Args:
            method: GET, POST or DELETE.
            url: Absolute URL; checked against the policy, as is every redirect.
            token: Attach the credential. It is dropped for good at the first hop to another origin.
            headers: Beyond the session's own.
            content: Body, for POST.
            stream: Leave the body unread; the caller closes the response.
            idle_s: Longest silence of the server; the policy's by default.

        Raises:
            PolicyViolation: A URL may not be visited, or may not have the token.
            NoAnswer: No connection, no answer, or a broken one.
        """
        self.permit(url, token=token)
        auth = self.auth if token else None
        for _ in range(self.policy.redirects_max + 1):
            with transport_errors(url):
                request = self.client.build_request(method, url, headers=headers, content=content)
                if idle_s is not None:
                    request.extensions["timeout"]["read"] = idle_s
                response = self.client.send(request, auth=auth, stream=True, follow_redirects=False)
            if response.status_code == 407:
                response.close()
                raise NoAnswer(PROXY[0], sent=False, where=redact(url), said="HTTP 407", hint=PROXY[1])
            if response.status_code not in (301, 302, 303, 307, 308) or "location" not in response.headers:
                return response if stream else _read(response, url, self.policy)
            target = join(url, response.headers["location"])
            response.close()
            self.permit(target, token=False)
            if origin(target) != origin(url):
                auth = None
            if response.status_code in (301, 302, 303) and method == "POST":
                method, content = "GET", None
            url = target
        raise PolicyViolation(f"more than {self.policy.redirects_max} redirects", where=redact(url))

    def metadata(self) -> Response:
        """GET the server's CapabilityStatement, within a short time: it is good to have, and no more.

        Raises:
            PolicyViolation, NoAnswer: As :meth:`send`.
        """
        url = f"{self.base_url}/metadata"
        limit_s = min(self.policy.metadata_timeout_s, self.policy.read_timeout_s)
        answers: queue.SimpleQueue[Response | BaseException] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(
                    self.send("GET", url, token=False, headers={"Accept": "application/fhir+json"}, idle_s=limit_s)
                )
            except BaseException as error:  # raised again in the caller's thread
                answers.put(error)

        # A socket can be told how long to bear silence, not how long an answer may drip. The thread of one that does
        # is left behind; it ends with the session's connections.
        threading.Thread(target=ask, name="metadata", daemon=True).start()
        try:
            answer = answers.get(timeout=limit_s)
        except queue.Empty:
            raise NoAnswer(
                "the server stopped answering", where=redact(url), said=f"no whole answer within {limit_s:g} s"
            ) from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def fetch_public(self, url: str) -> Response:
        """GET a URL that the caller configured (a JWKS), without a token; its host becomes agreed.

        Raises:
            PolicyViolation, NoAnswer: As :meth:`send`.
        """
        self.allowed_hosts.add(host_of(url))
        return self.send("GET", url, token=False, headers={"Accept": "application/json"})

    def permit(self, url: str, *, token: bool) -> None:
        """Check a URL before it is visited.

        Raises:
            PolicyViolation: Scheme, user name, host, or the token outside its origins.
        """
        check_url(url, allow_http=self.policy.allow_http)
        self._trust(url)
        if not self._known_host(url):
            raise PolicyViolation(
                "the server points to a host that is not agreed",
                where=redact(url),
                hint="if the host is right, list it in Policy(allowed_hosts=…)",
            )
        if token and not self.in_token_scope(url):
            raise PolicyViolation(
                "the token is asked for by another origin",
                where=redact(url),
                hint="if that origin is right, list it in Policy(token_origins=…)",
            )

    def _known_host(self, url: str) -> bool:
        host = host_of(url)
        base = host_of(self.base_url)
        if host == base or host in self.allowed_hosts or origin(url) in self.token_scope:
            return True
        if is_private(host) or is_address(host):
            return False
        site = base.split(".", 1)[-1]
        return host.endswith(PUBLIC_STORAGE) or ("." in site and host.endswith("." + site) and not is_address(base))

    def wait(self, delay_s: float) -> bool:
        """Sleep, but wake at once when the job is stopped; True if it was."""
        return self.stopped.wait(max(0.0, delay_s))

    def close(self) -> None:
        """Close every idle connection."""
        self.closed = True
        self.client.close()


class transport_errors:
    """Turn httpx's exceptions into :class:`NoAnswer` with one plain sentence each."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL | UnicodeError):
            raise PolicyViolation("not a URL that can be visited", where=redact(self.url)) from None
        if isinstance(error, httpx.TransportError):
            raise _no_answer(error, self.url) from error


def _no_answer(error: httpx.TransportError, url: str) -> NoAnswer:
    # What we cannot send is shown by h11 as it is: a header among it may be a credential.
    text = "LocalProtocolError" if isinstance(error, httpx.LocalProtocolError) else _root_cause(error)
    sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError | httpx.PoolTimeout)
    fatal = CERTIFICATE_TROUBLE.search(text) is not None
    if fatal:
        what, hint = (
            "the certificate was not accepted",
            "check the server's name, the private CA or the client certificate",
        )
    elif isinstance(error, httpx.ProxyError):
        what, hint = PROXY
    elif not sent:
        what, hint = (
            "the server cannot be reached",
            "check the address, the network, and whether your IP is allow-listed",
        )
    elif isinstance(error, httpx.TimeoutException):
        what, hint = "the server stopped answering", "run the same command again: it resumes"
    else:
        what, hint = "the connection broke", "run the same command again: it resumes"
    return NoAnswer(what, sent=sent, fatal=fatal, where=redact(url), said=text, hint=hint)


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return f"{type(error).__name__}: {error}"[:200]


def _read(response: Response, url: str, policy: Policy) -> Response:
    """Read an answer that is no file: bounded, and not longer than a body may trickle."""
    body = bytearray()
    begun = time.monotonic()
    with transport_errors(url), contextlib.closing(response):
        try:
            for piece in response.iter_bytes():
                body += piece
                took = time.monotonic() - begun
                slow = took > policy.stall_window_s and len(body) < took * policy.stall_floor_bytes_s
                if slow or len(body) > ANSWER_BYTES:
                    said = f"{len(body):,} bytes in {took:,.0f} s"
                    raise NoAnswer(f"the answer is too {'slow' if slow else 'long'}", where=redact(url), said=said)
        except httpx.DecodingError:
            raise NoAnswer("the body cannot be decoded", where=redact(url), sent=True) from None
    headers = [(name, value) for name, value in response.headers.multi_items() if name not in FRAMING]
    return Response(response.status_code, headers=headers, content=bytes(body), request=response.request)


def raw_body(response: Response) -> Iterator[bytes]:
    """Yield a streamed body's bytes as received, content encoding untouched.

    Raises:
        NoAnswer: The connection broke, or ended before the declared length.
    """
    with transport_errors(str(response.request.url)):
        # No chunk_size: it halves the speed and doubles the CPU time (bulk-data.md section 9).
        pieces = response.iter_raw()
        if (length := _known_length(response)) >= STRAIGHT_FROM:
            # The first piece is all that the HTTP parser has buffered; the rest is read past it.
            first = next(pieces, b"")
            yield first
            yield from _straight(response, len(first), length)
        else:
            yield from pieces


def beginning(response: Response, size: int) -> str:
    """Return the start of a streamed error body, for decisions: as much as can be read."""
    text = b""
    with contextlib.suppress(httpx.HTTPError):
        for piece in response.iter_bytes():
            text += piece
            if len(text) > size:
                break
    return text[:size].decode(errors="replace")


def _known_length(response: Response) -> int:
    """Return the length of a body that comes over a connection and is not chunked, or 0."""
    length = response.headers.get("content-length", "")
    chunked = "transfer-encoding" in response.headers or "network_stream" not in response.extensions
    return int(length) if response.status_code == 200 and length.isdigit() and not chunked else 0


def _straight(response: Response, got: int, length: int) -> Iterator[bytes]:
    """Yield the rest of a body of known length from the connection itself.

    httpcore's parser copies every byte three times: 500 MB take 0.86 s of CPU time instead of 0.2 (1.0.9, 2026-11).
    The connection cannot be used again; httpcore sees that by its own state and closes it with the response.
    """
    stream = response.extensions["network_stream"]
    timeout = response.request.extensions.get("timeout", {}).get("read")
    while got < length:
        try:
            piece = stream.read(min(STRAIGHT_READ, length - got), timeout=timeout)
        except httpcore.TimeoutException as error:
            raise httpx.ReadTimeout(str(error)) from error
        except httpcore.NetworkError as error:
            raise httpx.ReadError(str(error)) from error
        if not piece:
            raise httpx.RemoteProtocolError(f"the connection ended after {got:,} of {length:,} bytes")
        got += len(piece)
        yield piece


def shut_down(response: Response) -> None:
    """Wake a thread that is blocked reading ``response``; closing the client does not (httpx 0.28)."""
    import socket

    stream = response.extensions.get("network_stream")
    raw = stream.get_extra_info("socket") if stream is not None else None
    if raw is not None:
        with contextlib.suppress(OSError):  # the other side may have closed it in the meantime
            raw.shutdown(socket.SHUT_RDWR)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds a server asks us to wait, at least 1; None when it does not say or cannot be read.

    Seconds (decimal, repeated), epoch seconds, epoch milliseconds and HTTP dates are understood;
    the last three are taken relative to the response's own ``Date``. Not clamped: the caller knows
    its cap.

    Source:
        RFC 9110 section 10.2.3; the SMART bulk data server sends epoch seconds and milliseconds.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    sent_at = parse_http_date(headers.get("date", "")) or now
    first = text.split(",", 1)[0].strip()
    if DECIMAL.match(first):
        value = float(first)
        if value >= 1e12:
            value = value / 1000 - sent_at.timestamp()
        elif value >= 1e9:
            value -= sent_at.timestamp()
        return max(1.0, float(-(-value // 1)))
    date = parse_http_date(text)
    return None if date is None else max(1.0, (date - sent_at).total_seconds())


def parse_http_date(text: str) -> datetime | None:
    """Return an HTTP date as an aware datetime, or None."""
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def now_utc() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def retrying(session: Session, attempts: int, *, retry: Callable[[BaseException], bool]) -> tenacity.Retrying:
    """Return a retrying loop with full jitter whose sleep ends when the session is stopped.

    ``retry`` says of an exception whether another try may help; its ``retry_after_s`` is a lower bound on the wait,
    clamped to the policy's cap.
    """
    import tenacity  # a job that needs no token and deletes nothing does without

    policy = session.policy
    jittered = tenacity.wait_random_exponential(multiplier=policy.backoff_min_s, max=policy.backoff_max_s)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = getattr(error, "retry_after_s", None) or 0.0
        return min(max(jittered(state), asked), policy.wait_cap_s)

    def sleep(seconds: int | float) -> None:
        session.wait(seconds)

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_when_event_set(session.stopped),
        wait=wait,
        retry=tenacity.retry_if_exception(retry),
        sleep=sleep,
        reraise=True,
    )


def unavailable(response: Response, what: str) -> ServerUnavailable:
    """Build the error for an answer that says 'later'."""
    return ServerUnavailable(
        what,
        retry_after_s=retry_after(response.headers, now_utc()),
        where=redact(str(response.request.url)),
        said=f"HTTP {response.status_code}",
        hint="run the same command again later: it resumes",
    )


def answered(response: Response) -> str:
    """Describe an answer in a few words, without its content."""
    kind = response.headers.get("content-type", "no content type").split(";")[0]
    request_id = response.headers.get("x-request-id")
    return f"HTTP {response.status_code} ({kind})" + (f" request-id {request_id}" if request_id else "")


def refuse_answer(response: Response, what: str) -> ServerError:
    """Build the error for an answer that cannot be read."""
    return ServerError(what, where=redact(str(response.request.url)), said=answered(response))
