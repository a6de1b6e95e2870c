"""Look at everything an export needs before it is needed: key, clock, metadata, token, proxy, disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import getproxies

from hiexchange._http import NoAnswer, Response, Session, now_utc, parse_http_date
from hiexchange._keys import algorithm_of, key_in_jwks
from hiexchange._urls import redact
from hiexchange.auth import SmartBackendServices, TokenAuth
from hiexchange.bulk.answers import read_object
from hiexchange.errors import HIExchangeError
from hiexchange.servers import Server

SKEW_S = 30
LITTLE_SPACE = 5 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and its result."""

    name: str
    state: str
    """ok, warn or fail."""
    text: str
    advice: str = ""


def examine(server: Server, folder: str | Path) -> list[Finding]:
    """Return findings, most basic first; asks for a token, exports nothing.

    Args:
        server: The server, with its credential.
        folder: Where jobs will be written.
    """
    session = server.connect(types=())
    try:
        return [*_local(server, Path(folder)), *_remote(server, session)]
    finally:
        session.close()


def _local(server: Server, folder: Path) -> Iterator[Finding]:
    auth = server.auth
    if isinstance(auth, SmartBackendServices):
        try:
            key = auth.private_key()
            kid = auth.key_id or "no kid: servers with several keys need one"
            yield Finding("key", "ok" if auth.key_id else "warn", f"{algorithm_of(key)}, {kid}")
        except HIExchangeError as error:
            yield Finding("key", "fail", error.what, error.hint or "")
    elif auth is None:
        yield Finding("key", "warn", "no credential: only servers open to everyone will answer")
    proxy = getproxies().get(server.url.split(":", 1)[0])
    yield Finding("proxy", "ok", redact(proxy) if proxy else "none")
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    state = "ok" if free > LITTLE_SPACE else "warn"
    yield Finding("disk", state, f"{free / 1e9:,.1f} GB free")
    if not place.is_dir():
        yield Finding("disk", "fail", "a file is where the folder should be", "choose another --folder")
    elif not os.access(place, os.W_OK):
        yield Finding("disk", "fail", "the folder cannot be written", "choose another --folder")


def _remote(server: Server, session: Session) -> Iterator[Finding]:
    try:
        response = session.metadata()
    except HIExchangeError as error:
        yield Finding("network", "fail", f"{error.what} ({error.said})", error.hint or "")
        if not (isinstance(error, NoAnswer) and error.sent):
            return
    else:
        yield from _metadata(response)
    if isinstance(server.auth, TokenAuth):
        yield from _credential(server.auth, session)


def _metadata(response: Response) -> Iterator[Finding]:
    body = read_object(response.content) or {}
    if body.get("resourceType") == "CapabilityStatement":
        version = str(body.get("fhirVersion", "unknown"))
        yield Finding("metadata", "ok", f"FHIR {version}")
    else:
        yield Finding(
            "metadata", "warn", f"HTTP {response.status_code}: no CapabilityStatement", "is the base URL right?"
        )
    date = parse_http_date(response.headers.get("date", ""))
    if date is not None:
        skew = (now_utc() - date).total_seconds()
        state = "ok" if abs(skew) <= SKEW_S else "warn"
        yield Finding(
            "clock", state, f"{skew:+.0f} s against the server", "" if state == "ok" else "set the clock by NTP"
        )


def _credential(auth: TokenAuth, session: Session) -> Iterator[Finding]:
    if isinstance(auth, SmartBackendServices) and auth.jku:
        yield _checked("jwks", lambda: _jwks(auth, session))
    yield _checked("token", lambda: _token(auth))


def _checked(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except HIExchangeError as error:
        said = f" ({error.said})" if error.said else ""
        return Finding(name, "fail", error.what + said, error.hint or "")


def _token(auth: TokenAuth) -> Finding:
    auth.token()
    return Finding("token", "ok", auth.granted_scope or "granted")


def _jwks(auth: SmartBackendServices, session: Session) -> Finding:
    response = session.fetch_public(str(auth.jku))
    if key_in_jwks(auth.private_key(), auth.key_id, response.content):
        cached = response.headers.get("cache-control")
        return Finding(
            "jwks", "ok" if cached else "warn", "holds the key" if cached else "holds the key, no Cache-Control"
        )
    return Finding("jwks", "fail", "does not hold the public key", "publish the public JWK under the registered URL")
