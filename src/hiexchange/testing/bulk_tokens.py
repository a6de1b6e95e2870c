"""The loopback server's token desk: one registered client, assertions truly verified."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeyParameters, RSAKey

from hiexchange.testing.bulk_faults import Reply

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LIFETIME_S = 300
ALGORITHMS = ["RS384", "ES384"]


class TokenDesk:
    """Issues and knows tokens; ``kind`` is smart, basic or none."""

    def __init__(self, kind: str, *, types: tuple[str, ...], algorithm: str) -> None:
        """Register a client with a fresh key and secret."""
        self.kind = kind
        self.types = types
        self.algorithm = algorithm
        self.client_id = "client-" + secrets.token_hex(4)
        self.client_secret = secrets.token_urlsafe(16)
        self.tokens: set[str] = set()
        parameters = KeyParameters(kid="loopback", alg=algorithm, use="sig")
        self._key: RSAKey | ECKey
        if algorithm == "RS384":
            self._key = RSAKey.generate_key(2048, parameters=parameters)
        else:
            self._key = ECKey.generate_key("P-384", parameters=parameters)
        self.private_key: dict[str, Any] = dict(self._key.as_dict(private=True))
        self.private_pem = self._key.as_pem(private=True).decode()
        self._used_jti: set[str] = set()
        self._lock = threading.Lock()

    def discovery(self, token_url: str) -> Reply:
        """Return the SMART configuration."""
        if self.kind != "smart":
            return Reply(404)
        return json_reply(
            {
                "token_endpoint": token_url,
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": ["private_key_jwt"],
                "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
                "capabilities": ["client-confidential-asymmetric", "permission-v2"],
            }
        )

    def issue(self, headers: Mapping[str, str], body: bytes, *, audience: str, now: datetime) -> Reply:
        """Answer a token request."""
        if self.kind == "basic":
            return self._basic(headers)
        form = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
        if form.get("grant_type") != "client_credentials" or form.get("client_assertion_type") != ASSERTION:
            return json_reply({"error": "invalid_request"}, 400)
        problem = self._problem(form.get("client_assertion", ""), audience, now)
        if problem:
            return json_reply({"error": "invalid_client", "error_description": problem}, 400)
        scope = form.get("scope", "")
        for item in scope.split():
            name = item.removeprefix("system/").rsplit(".", 1)[0]
            if not item.startswith("system/") or name not in ("*", *self.types):
                return json_reply({"error": "invalid_scope"}, 400)
        return self._grant(scope, LIFETIME_S)

    def accepts(self, headers: Mapping[str, str]) -> bool:
        """Say whether a request carries a token of ours, or needs none."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        with self._lock:
            return self.kind == "none" or (kind.lower() == "bearer" and token in self.tokens)

    def revoke(self) -> None:
        """Forget every token issued so far."""
        with self._lock:
            self.tokens.clear()

    def _problem(self, text: str, audience: str, now: datetime) -> str | None:
        """Verify signature, header, audience, life and single use; return what is wrong."""
        public = type(self._key).import_key(dict(self._key.as_dict(private=False)))
        try:
            token = jwt.decode(text, public, algorithms=ALGORITHMS)
        except (JoseError, ValueError):
            return "the signature is not valid"
        claims = token.claims
        if token.header.get("typ") != "JWT" or token.header.get("kid") != "loopback":
            return "typ or kid"
        if claims.get("iss") != self.client_id or claims.get("sub") != self.client_id:
            return "iss or sub"
        if claims.get("aud") != audience:
            return "aud"
        if not 0 < float(claims.get("exp", 0)) - now.timestamp() <= LIFETIME_S:
            return "exp"
        jti = claims.get("jti")
        with self._lock:
            if not jti or jti in self._used_jti:
                return "jti"
            self._used_jti.add(str(jti))
        return None

    def _basic(self, headers: Mapping[str, str]) -> Reply:
        pair = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        if headers.get("authorization") != f"Basic {pair}":
            return Reply(401, (("Content-Type", "text/plain"),), b"Unauthorized")
        # BCDA gives the lifetime as a string.
        return self._grant("", str(LIFETIME_S))

    def _grant(self, scope: str, expires_in: int | str) -> Reply:
        token = secrets.token_urlsafe(24)
        with self._lock:
            self.tokens.add(token)
        body = {"access_token": token, "token_type": "bearer", "expires_in": expires_in, "scope": scope}
        return json_reply(body)


def json_reply(value: Any, status: int = 200) -> Reply:
    """Return a reply with JSON."""
    return Reply(status, (("Content-Type", "application/json"),), json.dumps(value).encode())
