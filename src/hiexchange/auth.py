"""Credentials: SMART Backend Services, client id and secret as CMS uses them, a fixed token.

Each is an ``httpx.Auth``. A token is fetched once, shared by all threads, renewed by one of them
before it expires, and after a 401 exactly once. The engine binds a credential to one server
(:meth:`TokenAuth.bind`); it never travels to another origin. Nothing here logs an assertion, a
secret or a token.
"""

from __future__ import annotations

import base64
import re
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from hiexchange import ndjson
from hiexchange._http import (
    Auth,
    NoAnswer,
    Request,
    Response,
    Session,
    answered,
    now_utc,
    parse_http_date,
    retrying,
    unavailable,
)
from hiexchange._urls import host_of, is_private, origin, redact
from hiexchange.config import Secret
from hiexchange.errors import AuthError, ConfigError, PolicyViolation, ProtocolViolation, ServerUnavailable
from hiexchange.events import Reporter, TokenRefreshed, Warned, ignore

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, RSAKey

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEFAULT_LIFETIME_S = 300.0
MAX_LIFETIME_S = 86_400.0
ASSERTION_LIFETIME_S = 300
SKEW_WORTH_CORRECTING_S = 20
SCOPE_ADVICE = "the server does not offer one of the types' scopes: ask for fewer types or give scope=…"
VISIBLE = re.compile(r"[!-~]+")
"""What a header may carry: a token with a line end in it would be another header, or be shown in an error."""
LATER = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Token:
    """An access token; its text is not part of the repr."""

    value: str = field(repr=False)
    renew_at: float
    """Monotonic seconds after which it is renewed before use."""
    scope: str = ""


class TokenAuth(Auth):
    """What every token-based credential shares: one cached token, one refresh at a time."""

    requires_response_body = False
    refused_codes: frozenset[int] = frozenset({401})
    advice = "check the credential, and whether it has expired"
    client_id_header = ""
    """Header in which the server wants the client id beside the token (Epic)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client_id: Secret | str | None = None
        self._token: Token | None = None
        self._origin = ""
        self._bindings: list[tuple[Session, tuple[str, ...]]] = []
        self._on_event: Reporter = ignore
        self._types: tuple[str, ...] = ()
        self._once_accepted = False

    def bind(self, session: Session, *, types: Iterable[str] = (), on_event: Reporter = ignore) -> None:
        """Tie the credential to a server: its origins, its client, the types to ask scopes for.

        Raises:
            ConfigError: It is already bound to another origin; make a second credential.
        """
        wanted = tuple(types)
        with self._lock:
            self._bindings = [known for known in self._bindings if not known[0].closed]
            # For good, even after every session is closed: the cached token is that server's.
            self._origin = self._origin or origin(session.base_url)
            if self._origin != origin(session.base_url):
                raise ConfigError(
                    "a credential belongs to one server",
                    where=redact(session.base_url),
                    hint="make one credential object for each server",
                    code="HX-203",
                )
            self._bindings.append((session, wanted))
            self._on_event = on_event
            # Jobs that run at the same time share a token, which has to do for the types of all of them.
            lists = [names for _, names in self._bindings]
            union = tuple(dict.fromkeys(name for names in lists for name in names)) if all(lists) else ()
            if union != self._types:
                self._types, self._token = union, None

    @property
    def granted_scope(self) -> str:
        """The scope of the last token, as the server put it; empty before the first."""
        return self._token.scope if self._token else ""

    def sync_auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        """Attach the token; after a refusal renew it once and send the request once more."""
        session = self._bound()
        if not session.in_token_scope(str(request.url)):
            raise PolicyViolation("the token would leave its origin", where=redact(str(request.url)))
        used = self.token()
        request.headers["Authorization"] = f"Bearer {used.value}"
        if self.client_id_header and self._client_id is not None:
            request.headers[self.client_id_header] = _reveal(self._client_id)
        response = yield request
        if response.status_code in self.refused_codes:
            renewed = self.token(instead_of=used)
            if renewed.value != used.value:
                request.headers["Authorization"] = f"Bearer {renewed.value}"
                yield request

    def token(self, *, instead_of: Token | None = None) -> Token:
        """Return a valid token, fetching one if needed.

        Args:
            instead_of: A token the server has just refused; if another thread has renewed it in the
                meantime, that one is returned without a second request.

        Raises:
            AuthError: The credential is not accepted.
            ServerUnavailable: The token endpoint cannot be reached, or keeps failing.
        """
        with self._lock:
            current = self._token
            if current is not None and current is not instead_of and time.monotonic() < current.renew_at:
                return current
            self._token = self._fetch(self._bound())
            self._once_accepted = True
            return self._token

    def _bound(self) -> Session:
        for session, _ in reversed(self._bindings):
            if not session.closed:
                return session
        raise ConfigError("the credential is not bound to a server", hint="give it to Server(auth=…)", code="HX-203")

    def _fetch(self, session: Session) -> Token:
        raise NotImplementedError

    def _ask(self, session: Session, make: Callable[[], tuple[str, dict[str, str], bytes]]) -> Token:
        """Send token requests until one is answered for good; ``make`` builds a fresh one each time."""

        def attempt() -> Token:
            url, headers, content = make()
            session.allowed_hosts.add(host_of(url))
            try:
                response = session.send("POST", url, token=False, headers=headers, content=content)
            except NoAnswer as error:
                error.where = f"token endpoint {redact(url)}"
                raise
            return self._read(response)

        attempts = retrying(session, session.policy.token_attempts, retry=_is_passing)
        return attempts(attempt)

    def _read(self, response: Response) -> Token:
        status = response.status_code
        if status in LATER:
            raise unavailable(response, "the token endpoint is not available")
        if status >= 400:
            raise self._refused(response)
        body = _json_object(response)
        value = body.get("access_token")
        if value is None:
            raise ProtocolViolation(
                "the token endpoint did not answer with a token",
                where=redact(str(response.request.url)),
                said=answered(response),
            )
        if (
            not isinstance(value, str)
            or not VISIBLE.fullmatch(value)
            or str(body.get("token_type", "bearer")).lower() != "bearer"
        ):
            raise ProtocolViolation("the token is not a bearer token", where=redact(str(response.request.url)))
        life = _lifetime(body.get("expires_in"), value)
        self._on_event(TokenRefreshed(life))
        return Token(value, time.monotonic() + life - max(min(30.0, life / 2), life / 10), str(body.get("scope") or ""))

    def _refused(self, response: Response) -> AuthError:
        code = _oauth_error(response)
        error = AuthError(
            f"the token endpoint refused the credential ({response.status_code})",
            where=redact(str(response.request.url)),
            said=code or answered(response),
            hint=SCOPE_ADVICE if code == "invalid_scope" else self.advice,
        )
        # Epic, seen by smart-fetch: a bare 400 now and then for a client it accepted before.
        error.resumable = self._once_accepted and response.status_code == 400 and code != "invalid_scope"
        return error


class StaticToken(TokenAuth):
    """A bearer token obtained elsewhere; it cannot be renewed."""

    def __init__(self, token: Secret | str) -> None:
        """Keep the token, or where to find it."""
        super().__init__()
        self._secret = token

    def _fetch(self, session: Session) -> Token:
        value = _reveal(self._secret).strip()
        if not VISIBLE.fullmatch(value):
            raise ConfigError("the token holds blanks or other characters that no header may have", code="HX-203")
        return Token(value, float("inf"))


class ClientCredentials(TokenAuth):
    """Client id and secret against an OAuth token endpoint, as BCDA and AB2D use it.

    BCDA wants HTTP Basic and an empty body; Okta (AB2D) wants HTTP Basic and a form.
    """

    advice = "check the client id and its secret, and whether they have expired"

    def __init__(
        self,
        client_id: Secret | str,
        client_secret: Secret | str,
        *,
        token_url: str | None = None,
        form: dict[str, str] | None = None,
        refused_codes: Iterable[int] = (401,),
    ) -> None:
        """Keep the credential.

        Args:
            client_id: The id, or where to find it.
            client_secret: The secret, or where to find it.
            token_url: Absolute, or a path under the server's origin; the preset's when None.
            form: Body to send; empty body when None.
            refused_codes: Answers that mean "renew the token" (AB2D says 403 for a bad one).
        """
        super().__init__()
        self._client_id, self._client_secret = client_id, client_secret
        self.token_url = token_url
        self._form = form
        self.refused_codes = frozenset(refused_codes)

    def _fetch(self, session: Session) -> Token:
        if self.token_url is None:
            raise ConfigError("no token URL is known for this server", hint="give token_url=…", code="HX-203")
        url = self.token_url if "://" in self.token_url else _join_origin(session.base_url, self.token_url)
        pair = f"{_reveal(self._client_id or '')}:{_reveal(self._client_secret)}".encode()
        headers = {"Authorization": "Basic " + base64.b64encode(pair).decode(), "Accept": "application/json"}
        content = b""
        if self._form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            content = urlencode(self._form).encode()
        return self._ask(session, lambda: (url, headers, content))


class SmartBackendServices(TokenAuth):
    """A client assertion signed with the client's private key (SMART Backend Services)."""

    advice = "check the client id, that the public key is registered, its kid, and the clock"

    def __init__(
        self,
        client_id: Secret | str,
        key: Secret | str | Path | dict[str, Any],
        *,
        kid: str | None = None,
        jku: str | None = None,
        token_url: str | None = None,
        scope: str | None = None,
        audience: str | None = None,
    ) -> None:
        """Keep the credential; the key is read on first use.

        Args:
            client_id: The registered id, or where to find it (DPC: the client token).
            key: Private JWK, JWKS or PEM: a path, a Secret, or the value itself.
            kid: Key id; needed for PEM, and to choose from a JWKS.
            jku: Registered JWKS URL, sent along when given.
            token_url: Skips discovery.
            scope: Fixed scopes; by default ``system/<type>.read`` (or ``.rs``) for the types exported.
            audience: ``aud`` where it is not the token URL (DPC).
        """
        super().__init__()
        self._client_id = client_id
        self._key_source = key
        self._kid, self._jku, self._scope, self._audience = kid, jku, scope, audience
        self.token_url = token_url
        self._read_suffix = "read"
        self._key: RSAKey | ECKey | None = None
        self._offset_s = 0.0

    def private_key(self) -> RSAKey | ECKey:
        """Return the key, read and checked once.

        Raises:
            ConfigError: It cannot be read, is public, or fits neither RS384 nor ES384.
        """
        if self._key is None:
            # Cryptography takes a quarter of the time the client takes to start; servers without SMART need none.
            from hiexchange._keys import read_key

            self._key = read_key(self._key_source, kid=self._kid)
        return self._key

    @property
    def key_id(self) -> str | None:
        """The key's id as it is sent, or None."""
        return self._kid or self.private_key().kid

    @property
    def jku(self) -> str | None:
        """The registered JWKS URL, when given."""
        return self._jku

    def _fetch(self, session: Session) -> Token:
        token = self._signed(session)
        missing = sorted(set(self._asked().split()) - set(token.scope.split())) if token.scope else []
        if missing:
            self._on_event(Warned(f"the server grants less than was asked: not {', '.join(missing)}"))
        return token

    def _signed(self, session: Session) -> Token:
        key = self.private_key()
        url = self.token_url or self._discover(session)
        try:
            return self._ask(session, lambda: self._request(url, key))
        except AuthError as error:
            if not self._skew_found:
                raise
            self._skew_found = False
            self._on_event(Warned("the clocks differ: the assertion is signed again by the server's"))
            try:
                return self._ask(session, lambda: self._request(url, key))
            except AuthError:
                raise error from None

    _skew_found = False

    def _refused(self, response: Response) -> AuthError:
        date = parse_http_date(response.headers.get("date", ""))
        offset = (date - now_utc()).total_seconds() if date else 0.0
        if abs(offset - self._offset_s) > SKEW_WORTH_CORRECTING_S:
            self._offset_s, self._skew_found = offset, True
        error = super()._refused(response)
        if error.said == "invalid_scope":
            error.said = f"invalid_scope: {self._asked()[:300]}"
        return error

    def _request(self, url: str, key: RSAKey | ECKey) -> tuple[str, dict[str, str], bytes]:
        form = {
            "grant_type": "client_credentials",
            "scope": self._asked(),
            "client_assertion_type": ASSERTION,
            "client_assertion": self._assertion(url, key),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        return url, headers, urlencode(form).encode()

    def _asked(self) -> str:
        if self._scope:
            return self._scope
        return " ".join(f"system/{name}.{self._read_suffix}" for name in self._types or ("*",))

    def _assertion(self, url: str, key: RSAKey | ECKey) -> str:
        from joserfc import jwt

        from hiexchange._keys import ALGORITHMS, algorithm_of

        client = _reveal(self._client_id or "")
        header = {"alg": algorithm_of(key), "typ": "JWT"}
        kid = self.key_id
        if kid:
            header["kid"] = kid
        if self._jku:
            header["jku"] = self._jku
        claims = {
            "iss": client,
            "sub": client,
            "aud": self._audience or url,
            # One second under the five minutes allowed, so that rounding never passes them.
            "exp": int(time.time() + self._offset_s) + ASSERTION_LIFETIME_S - 1,
            "jti": uuid.uuid4().hex,
        }
        return jwt.encode(header, claims, key, algorithms=list(ALGORITHMS))

    def _discover(self, session: Session) -> str:
        """Return the token URL from SMART discovery, or else from the CapabilityStatement."""
        wanted = session.base_url + "/.well-known/smart-configuration"
        response = session.send("GET", wanted, token=False, headers={"Accept": "application/json"})
        if response.status_code in LATER:
            raise unavailable(response, "SMART discovery is not available")
        body = _json_object(response)
        url = body.get("token_endpoint")
        if not isinstance(url, str):
            metadata = session.send(
                "GET", session.base_url + "/metadata", token=False, headers={"Accept": "application/fhir+json"}
            )
            url = _token_extension(_json_object(metadata))
        if url is None:
            raise AuthError(
                "the server does not say where tokens are issued",
                where=wanted,
                said=answered(response),
                hint="check the base URL, or give token_url=…",
            )
        if is_private(host_of(url)) and not is_private(host_of(session.base_url)):
            raise PolicyViolation(
                "the server names a token endpoint in a private network",
                where=redact(url),
                hint="if that is right, give token_url=…",
            )
        if "permission-v2" in str(body.get("capabilities")):
            self._read_suffix = "rs"
        # The assertion's audience is this URL; keep it for the life of the credential.
        self.token_url = str(url)
        return self.token_url


def _reveal(value: Secret | str) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _join_origin(base_url: str, path: str) -> str:
    from urllib.parse import urljoin

    return urljoin(base_url, path)


def _lifetime(expires_in: object, token: str) -> float:
    """Return seconds of life: BCDA sends a string, others nothing; then the token's own ``exp`` or 300."""
    try:
        seconds = float(str(expires_in))
    except ValueError:
        seconds = 0.0
    if not seconds > 0:  # also NaN
        seconds = _jwt_lifetime(token) or DEFAULT_LIFETIME_S
    return min(seconds, MAX_LIFETIME_S)


def _jwt_lifetime(token: str) -> float | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = ndjson.value(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        seconds = float(claims["exp"]) - time.time()
    except (ValueError, KeyError, TypeError):
        return None
    return seconds if seconds > 0 else None


def _is_passing(error: BaseException) -> bool:
    """Say whether another attempt may help: the network, a busy endpoint, a flaky 400 after success."""
    if isinstance(error, NoAnswer):
        return not error.fatal
    return isinstance(error, ServerUnavailable) or (isinstance(error, AuthError) and error.resumable)


def _oauth_error(response: Response) -> str | None:
    body = _json_object(response)
    code = body.get("error") or body.get("errorCode")  # Okta has both forms
    return code if isinstance(code, str) and len(code) < 60 else None


def _json_object(response: Response) -> dict[str, Any]:
    body = ndjson.value(response.content)
    return body if isinstance(body, dict) else {}


def _token_extension(metadata: dict[str, Any]) -> str | None:
    """Find the token URL in a CapabilityStatement's oauth-uris extension."""
    for rest in ndjson.objects(metadata.get("rest")):
        security = rest.get("security")
        for outer in ndjson.objects(security.get("extension") if isinstance(security, dict) else None):
            for inner in ndjson.objects(outer.get("extension")):
                if inner.get("url") == "token" and isinstance(inner.get("valueUri"), str):
                    return str(inner["valueUri"])
    return None
