"""Servers and their presets: what is known about a server is data, not code.

A preset (``servers.toml``) holds a server's habits; the engine reads them and knows no server by
name. ``Server(url)`` is a server of the standard; :func:`bcda`, :func:`ab2d` and :func:`dpc` fill
in what CMS publishes.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from hiexchange._http import Auth, Policy, Session, Tls
from hiexchange._urls import check_url
from hiexchange.auth import ClientCredentials, SmartBackendServices, StaticToken, TokenAuth
from hiexchange.config import Secret
from hiexchange.errors import ConfigError, PolicyViolation
from hiexchange.events import Reporter, ignore

OPTIONS: Mapping[str, str] = {
    "preset": "Kind of server, see `hiexchange servers`; a plain one where absent.",
    "url": "Base URL; needed where the preset has none.",
    "version": "API version of a preset that has several; the newest where absent.",
    "client_id": "Client id; may be a reference.",
    "client_secret": "Secret of a client that has one, by reference.",
    "key": "Private key (JWK, JWKS or PEM) of SMART Backend Services and DPC, by reference.",
    "kid": "Which key of a set, where the server knows it by a name.",
    "jku": "URL of the public keys, where the server asks for it.",
    "token_url": "Token endpoint, where discovery does not tell.",
    "scope": "Scopes to ask for, where they are not the standard's.",
    "token": "A fixed bearer token, by reference, instead of all of these.",
    "ca_file": "Certificate authorities for this server alone.",
    "client_cert": "Client certificate, for mutual TLS.",
    "client_key": "Its key.",
    "allowed_hosts": "Further hosts that files may come from.",
    "token_origins": "Further origins that the token may be shown to.",
    "policy": "Numbers of the client, below.",
}
"""Keys of ``[servers.NAME]`` and what they mean."""


@dataclass(frozen=True, slots=True)
class Preset:
    """The habits of a kind of server; a field left at its default means "as the standard says"."""

    name: str
    title: str = ""
    base: str = ""
    """Base URL with ``{version}``; empty when every installation has its own."""
    versions: tuple[int, ...] = ()
    fhir_version: str = "4.0.1"
    ig: str = "2.0.0"
    token_url: str | None = None
    token_form: Mapping[str, str] | None = None
    credential: str = "smart"
    scope: str | None = None
    refused_codes: tuple[int, ...] = (401,)
    levels: tuple[str, ...] = ("system", "Patient", "Group")
    groups: tuple[str, ...] = ()
    kickoff: str = "auto"
    """``auto`` (GET, POST where needed), ``GET`` or ``POST``."""
    poll_method: str = "GET"
    params: tuple[str, ...] = ()
    """Parameters the server knows; empty when unknown."""
    types: tuple[str, ...] = ()
    since_floor: Mapping[str, str] = field(default_factory=dict)
    since_required: bool = False
    poll_min_s: float | None = None
    poll_max_s: float | None = None
    deadline_s: float | None = None
    final_confirmations: int = 2
    error_entries_may_404: bool = False
    file_lifetime_s: float = 3600.0
    download_quota: int = 0
    integrity: Mapping[str, str] = field(default_factory=dict)
    length_of: str = "plain"
    """What the length extension counts: ``plain`` bytes, or ``any`` when it cannot be relied on."""
    range: str = "never"
    rate: tuple[int, float] | None = None
    adopt: str = "none"
    """How a lost job is found: ``jobs_list``, ``429_content_location`` or ``none``."""
    delete: str = "after_ingest"
    redirect_hosts: tuple[str, ...] = ()
    extra_headers: Mapping[str, str] = field(default_factory=dict)
    client_id_header: str = ""
    """Header in which the client id is sent wherever the token is."""
    notes: tuple[str, ...] = ()


@functools.cache
def presets() -> dict[str, Preset]:
    """Return every preset by name."""
    raw = tomllib.loads(resources.files("hiexchange").joinpath("servers.toml").read_text(encoding="utf-8"))
    return {name: _preset(name, raw) for name in raw}


def preset(name: str) -> Preset:
    """Return one preset.

    Raises:
        ConfigError: There is none of that name; lists those that exist.
    """
    try:
        return presets()[name]
    except KeyError:
        raise ConfigError(f"no server preset is called {name!r}", hint=f"known: {', '.join(presets())}") from None


def _preset(name: str, raw: Mapping[str, Any]) -> Preset:
    table = dict(raw[name])
    if parent := table.pop("extends", None):
        table = {**raw[parent], **table}
    known = {item.name for item in fields(Preset)}
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in table.items() if key in known
    }
    return Preset(name=name, **values)


@dataclass(frozen=True)
class Server:
    """One FHIR server: where it is, how to log in, what is known about it."""

    url: str
    auth: Auth | None = field(default=None, repr=False)
    preset: Preset = field(default_factory=lambda: preset("generic-stu2"), repr=False)
    policy: Policy = field(default_factory=Policy, repr=False)
    tls: Tls = field(default_factory=Tls, repr=False)
    version: int | None = None
    """API version of servers that have several; part of the watermark's key."""

    def __init__(
        self,
        url: str,
        auth: Auth | None = None,
        *,
        preset: Preset | str = "generic-stu2",
        policy: Policy | None = None,
        tls: Tls | None = None,
        version: int | None = None,
    ) -> None:
        """Check the URL; nothing is sent.

        Raises:
            PolicyViolation: Not https (http is for this machine only), or a user name in the URL.
            ConfigError: No such preset.
        """
        policy = policy or Policy()
        try:
            check_url(url, allow_http=policy.allow_http)
        except PolicyViolation as error:
            error.exit_code = ConfigError.exit_code  # it is the caller's address, not one that a server gave
            raise
        put = object.__setattr__
        put(self, "url", url.rstrip("/"))
        put(self, "auth", auth)
        put(self, "preset", _named(preset))
        put(self, "policy", policy)
        put(self, "tls", tls or Tls())
        put(self, "version", version)
        if isinstance(auth, ClientCredentials) and auth.token_url is None:
            auth.token_url = self.preset.token_url

    def connect(self, *, types: tuple[str, ...] = (), on_event: Reporter = ignore) -> Session:
        """Open a session and bind the credential to it; nothing is sent.

        Args:
            types: Resource types that will be asked for; scopes are limited to them.
            on_event: Hears of tokens renewed.
        """
        session = Session(
            self.url,
            auth=self.auth,
            policy=self.policy,
            tls=self.tls,
            headers=self.preset.extra_headers,
            allowed_hosts=self.preset.redirect_hosts,
        )
        if isinstance(self.auth, TokenAuth):
            self.auth.bind(session, types=types, on_event=on_event)
            self.auth.client_id_header = self.preset.client_id_header
        return session


def _named(value: Preset | str) -> Preset:
    return preset(value) if isinstance(value, str) else value


def bcda(
    *,
    client_id: Secret | str,
    client_secret: Secret | str,
    env: str = "prod",
    version: int = 3,
    policy: Policy | None = None,
) -> Server:
    """Return CMS BCDA, ``env`` being ``prod`` or ``sandbox``."""
    found = _of_env("bcda", env)
    auth = ClientCredentials(client_id, client_secret, token_url=found.token_url)
    return _versioned(found, version, auth, policy)


def ab2d(
    *,
    client_id: Secret | str,
    client_secret: Secret | str,
    env: str = "prod",
    version: int = 2,
    policy: Policy | None = None,
) -> Server:
    """Return CMS AB2D, ``env`` being ``prod`` or ``sandbox``; tokens come from Okta."""
    found = _of_env("ab2d", env)
    auth = ClientCredentials(
        client_id,
        client_secret,
        token_url=found.token_url,
        form=dict(found.token_form or {}),
        refused_codes=found.refused_codes,
    )
    return _versioned(found, version, auth, policy)


def dpc(
    *,
    client_token: Secret | str,
    key: Secret | str | Path,
    kid: str,
    env: str = "sandbox",
    url: str | None = None,
    policy: Policy | None = None,
) -> Server:
    """Return CMS DPC: the client token (macaroon) is the client id, ``kid`` the public key's id.

    Args:
        client_token: From the DPC portal.
        key: Private RSA key.
        kid: Id of the public key in the portal.
        env: ``sandbox`` or ``prod``; production needs ``url`` from the portal.
        url: Base URL.
        policy: Numbers to change.
    """
    found = _of_env("dpc", env)
    base = url or found.base.format(version=1)
    if not base:
        raise ConfigError("the DPC production address comes from the DPC portal", hint="give url=…")
    token_url = base.rstrip("/") + str(found.token_url)
    auth = SmartBackendServices(client_token, key, kid=kid, token_url=token_url, scope=found.scope, audience=token_url)
    return Server(base, auth, preset=found, policy=policy, version=1)


def _of_env(name: str, env: str) -> Preset:
    if env not in ("prod", "sandbox"):
        raise ConfigError(f"env is 'prod' or 'sandbox', not {env!r}")
    return preset(name if env == "prod" else f"{name}-sandbox")


def _versioned(found: Preset, version: int, auth: Auth, policy: Policy | None) -> Server:
    if version not in found.versions:
        known = ", ".join(f"v{number}" for number in found.versions)
        raise ConfigError(f"{found.name} has no version {version}", hint=f"known: {known}")
    return Server(found.base.format(version=version), auth, preset=found, policy=policy, version=version)


def build(options: Mapping[str, Any], *, base: Path | None = None) -> Server:
    """Build a server from a table of settings, as in ``[servers.<name>]`` of the configuration.

    Args:
        options: Keys of :data:`OPTIONS`; secrets as references (``env:`` or ``file:``).
        base: Folder that relative paths start from.

    Raises:
        ConfigError: An unknown key, a missing one, or a literal secret.
    """
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ConfigError(f"unknown server setting {unknown[0]!r}", hint=f"known: {', '.join(OPTIONS)}")
    found = preset(str(options.get("preset", "generic-stu2")))
    version = int(options.get("version", max(found.versions, default=0))) or None
    url = str(options.get("url") or found.base.format(version=version))
    if not url:
        raise ConfigError("the server has no address", hint="set url")
    policy = _policy(options)
    tls = Tls(*(options.get(key) and str(options[key]) for key in ("ca_file", "client_cert", "client_key")))
    return Server(url, _credential(options, found, url, base), preset=found, policy=policy, tls=tls, version=version)


# What a setting of the policy may be, by its annotation; the others are lists.
KINDS: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "int | None": (int,),
    "float": (float, int),
    "str": (str,),
}


def _policy(options: Mapping[str, Any]) -> Policy:
    numbers = dict(options.get("policy") or {})
    for key in ("allowed_hosts", "token_origins"):
        if key in options:
            numbers[key] = tuple(options[key])
    known = {item.name: KINDS.get(str(item.type), (list, tuple)) for item in fields(Policy)}
    for key, value in numbers.items():
        if key not in known:
            raise ConfigError(f"unknown policy setting {key}")
        kinds = known[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ConfigError(f"the policy's {key} is no {kinds[0].__name__}", said=repr(value)[:40])
    return replace(Policy(), **numbers)


def _credential(options: Mapping[str, Any], found: Preset, url: str, base: Path | None) -> Auth | None:
    def secret(key: str) -> Secret:
        value = options.get(key)
        if value is None:
            raise ConfigError(f"the server needs {key}", hint=f'set {key} = "env:NAME" or "file:PATH"', code="HX-202")
        return value if isinstance(value, Secret) else Secret(str(value), base=base)

    def plain_or_secret(key: str) -> Secret | str:
        value = options.get(key)
        if value is None:
            raise ConfigError(f"the server needs {key}", code="HX-202")
        return Secret(value, base=base) if isinstance(value, str) and value[:4] in ("env:", "file") else str(value)

    token_url = options.get("token_url") or found.token_url
    if "token" in options:
        return StaticToken(secret("token"))
    if found.credential == "macaroon":
        token_url = url.rstrip("/") + str(token_url) if str(token_url).startswith("/") else token_url
        return SmartBackendServices(
            secret("client_id"), secret("key"), kid=options.get("kid"), token_url=token_url,
            scope=found.scope, audience=token_url,
        )  # fmt: skip
    if "client_secret" in options or found.credential == "client-secret":
        form = dict(found.token_form) if found.token_form else None
        return ClientCredentials(
            plain_or_secret("client_id"), secret("client_secret"), token_url=token_url, form=form,
            refused_codes=found.refused_codes,
        )  # fmt: skip
    if "key" in options:
        return SmartBackendServices(
            plain_or_secret("client_id"), secret("key"), kid=options.get("kid"), jku=options.get("jku"),
            token_url=token_url, scope=options.get("scope"),
        )  # fmt: skip
    if "client_id" in options:
        raise ConfigError("client_id alone is no credential", hint="add key or client_secret", code="HX-202")
    return None
