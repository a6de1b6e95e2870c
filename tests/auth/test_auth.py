"""Credentials: keys of every form, one token for all threads, bound to one server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey

from hiexchange._http import Policy, Session
from hiexchange._keys import algorithm_of, key_in_jwks, read_key
from hiexchange.auth import (
    ClientCredentials,
    SmartBackendServices,
    StaticToken,
    TokenAuth,
)
from hiexchange.config import Secret
from hiexchange.errors import AuthError, ConfigError, PolicyViolation, ServerUnavailable
from hiexchange.servers import Server
from hiexchange.testing.bulk_server import BulkServer

FAST = Policy(backoff_min_s=0.005, backoff_max_s=0.01, wait_cap_s=0.02, read_timeout_s=2)


@pytest.fixture(params=["ES384", "RS384"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BulkServer]:
    (tmp_path / "Patient.ndjson").write_text('{"resourceType":"Patient","id":"-1"}\n', encoding="utf-8")
    with BulkServer(tmp_path, auth="smart", algorithm=request.param) as running:
        yield running


def bound(server: BulkServer, auth: TokenAuth, types: tuple[str, ...] = ()) -> Session:
    session = Session(server.url, auth=auth, policy=FAST)
    auth.bind(session, types=types)
    return session


def test_both_algorithms_are_accepted_by_a_server_that_verifies(server: BulkServer) -> None:
    auth = SmartBackendServices(server.client_id, server.private_key)
    session = bound(server, auth, ("Patient",))
    assert auth.token().value in server.tokens and auth.granted_scope == "system/Patient.rs"
    assert algorithm_of(auth.private_key()) == server.algorithm
    session.close()


def test_pem_needs_a_kid(server: BulkServer, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(server.private_pem, encoding="utf-8")
    auth = SmartBackendServices(server.client_id, tmp_path / "key.pem", kid="loopback")
    session = bound(server, auth)
    assert auth.token().value
    session.close()
    without = SmartBackendServices(server.client_id, server.private_pem)
    session = bound(server, without)
    with pytest.raises(AuthError) as caught:
        without.token()
    assert caught.value.said == "invalid_client" and "kid" in str(caught.value.hint)
    session.close()


def test_a_thousand_calls_from_eight_threads_ask_for_one_token(server: BulkServer) -> None:
    auth = SmartBackendServices(server.client_id, server.private_key)
    session = bound(server, auth)
    threads = [threading.Thread(target=lambda: [auth.token() for _ in range(125)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests("token")) == 1
    refused = auth.token()
    assert auth.token(instead_of=refused).value == auth.token(instead_of=refused).value
    assert len(server.requests("token")) == 2, "one refresh for a token refused many times"
    session.close()


def test_a_credential_stays_with_its_server(server: BulkServer, tmp_path: Path) -> None:
    auth = SmartBackendServices(server.client_id, server.private_key)
    session = bound(server, auth)
    other = Session("https://other.example/fhir", policy=FAST)
    with pytest.raises(ConfigError):
        auth.bind(other)
    session.close()
    with pytest.raises(ConfigError):  # not even when no session is open any more: the token is cached
        auth.bind(other)
    session = bound(server, auth)
    with pytest.raises(PolicyViolation):
        session.send("GET", "http://localhost:1/x", token=True)
    other.close()
    session.close()


def test_jobs_at_the_same_time_share_a_token_for_the_types_of_both(server: BulkServer) -> None:
    auth = SmartBackendServices(server.client_id, server.private_key)
    first = bound(server, auth, ("Patient",))
    assert auth.token().scope == "system/Patient.rs"
    second = bound(server, auth, ())
    assert auth.token().scope == "system/*.rs"
    second.close()
    assert auth.token(instead_of=auth.token()).value in server.tokens  # through the session still open
    first.close()
    with pytest.raises(ConfigError):
        auth.token(instead_of=auth.token())


def test_secrets_and_tokens_are_in_no_text(server: BulkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HX_TEST_SECRET", "s3cret-value")
    auth = ClientCredentials("id", Secret("env:HX_TEST_SECRET"), token_url="/auth/token")
    session = bound(server, auth)
    texts = [repr(auth), repr(Server(server.url, auth))]
    with pytest.raises(AuthError) as caught:
        auth.token()
    texts += [str(caught.value), repr(caught.value)]
    smart = SmartBackendServices(server.client_id, server.private_key)
    smart_session = bound(server, smart)
    texts += [repr(smart.token()), repr(smart)]
    assert not any("s3cret-value" in text or smart.token().value in text for text in texts)
    session.close()
    smart_session.close()


def test_missing_secret_is_a_configuration_error(server: BulkServer) -> None:
    auth = ClientCredentials("id", Secret("env:HX_NOT_SET_ANYWHERE"), token_url="/auth/token")
    session = bound(server, auth)
    with pytest.raises(ConfigError) as caught:
        auth.token()
    assert caught.value.code == "HX-202"
    session.close()


def test_an_endpoint_that_cannot_be_reached_is_resumable() -> None:
    auth = ClientCredentials("id", "secret", token_url="http://127.0.0.1:9/token")
    session = Session("http://127.0.0.1:9/fhir", auth=auth, policy=replace(FAST, token_attempts=2))
    auth.bind(session)
    with pytest.raises(ServerUnavailable) as caught:
        auth.token()
    assert caught.value.resumable and "token endpoint" in str(caught.value.where)
    session.close()


def test_static_token() -> None:
    auth = StaticToken("abc")
    session = Session("http://127.0.0.1:9/fhir", auth=auth, policy=FAST)
    with pytest.raises(ConfigError):
        auth.token()
    auth.bind(session)
    assert auth.token().value == "abc" and "abc" not in repr(auth.token())
    session.close()


def jwk(kind: Any, *, private: bool = True, **values: str) -> dict[str, Any]:
    return {**kind.as_dict(private=private), **values}


EC, RSA = ECKey.generate_key("P-384"), RSAKey.generate_key(2048)


def test_keys_of_every_form(tmp_path: Path) -> None:
    keys = {"keys": [jwk(EC, kid="a", alg="ES384"), jwk(RSA, kid="b", alg="RS384")]}
    (tmp_path / "set.json").write_text(json.dumps(keys), encoding="utf-8")
    forms: list[Any] = [
        jwk(EC), json.dumps(jwk(RSA)), tmp_path / "set.json", str(tmp_path / "set.json"),
        Secret(f"file:{tmp_path / 'set.json'}"), EC.as_pem(private=True).decode(), RSA.as_pem(private=True).decode(),
    ]  # fmt: skip
    assert [algorithm_of(read_key(form)) for form in forms] == [
        "ES384", "RS384", "ES384", "ES384", "ES384", "ES384", "RS384"
    ]  # fmt: skip
    assert algorithm_of(read_key(keys, kid="b")) == "RS384"


@pytest.mark.parametrize(
    "source",
    [
        jwk(EC, private=False), jwk(ECKey.generate_key("P-256")), "{}", "{not json", {"keys": []},
        "-----BEGIN PRIVATE KEY-----\nxx\n-----END PRIVATE KEY-----", "no-such-file.jwk",
    ],
)  # fmt: skip
def test_keys_that_cannot_be_used(source: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        read_key(source)
    assert caught.value.code == "HX-204"


def test_a_published_key_set_is_compared() -> None:
    published = json.dumps({"keys": [jwk(EC, private=False, kid="a")]}).encode()
    assert key_in_jwks(EC, "a", published) and not key_in_jwks(RSA, "a", published)
    assert not key_in_jwks(EC, "b", published) and not key_in_jwks(EC, "a", b"<html>")
