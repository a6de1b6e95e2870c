"""Private keys of every form in which they are handed out: JWK, JWKS, PEM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, RSAKey

from hiexchange.config import Secret
from hiexchange.errors import ConfigError

ALGORITHMS = ("RS384", "ES384")


def read_key(source: Secret | str | Path | dict[str, Any], *, kid: str | None = None) -> RSAKey | ECKey:
    """Read a private key from JWK, JWKS or PEM.

    Args:
        source: A path, a Secret, or the value itself (text or a dict).
        kid: Which key of a JWKS.

    Raises:
        ConfigError: Not readable, no private part, or neither RSA nor EC P-384.
    """
    text = _key_text(source)
    try:
        key = _parse_key(text, kid)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"the private key cannot be read: {type(error).__name__}",
            hint="give a JWK, JWKS or PEM file",
            code="HX-204",
        ) from None
    if not key.is_private:
        raise ConfigError("the key has no private part", hint="give the private JWK, not the public one", code="HX-204")
    algorithm_of(key)
    return key


def algorithm_of(key: RSAKey | ECKey) -> str:
    """Return RS384 or ES384, the two that SMART requires.

    Raises:
        ConfigError: An EC key on another curve than P-384.
    """
    if isinstance(key, RSAKey):
        return "RS384"
    if key.curve_name == "P-384":
        return "ES384"
    raise ConfigError(f"an EC key on {key.curve_name} cannot sign ES384", hint="use P-384 or RSA", code="HX-204")


def key_in_jwks(key: RSAKey | ECKey, kid: str | None, content: bytes) -> bool:
    """Say whether a JWKS holds the public half of ``key`` under its id."""
    try:
        keys = json.loads(content)["keys"]
    except (ValueError, KeyError, TypeError):
        return False
    mine = key.as_dict(private=False)
    numbers = ("n", "e") if isinstance(key, RSAKey) else ("crv", "x", "y")
    return any(
        isinstance(other, dict)
        and kid in (None, other.get("kid"))
        and all(other.get(name) == mine.get(name) for name in numbers)
        for other in keys
    )


def _key_text(source: Secret | str | Path | dict[str, Any]) -> str:
    if isinstance(source, dict):
        return json.dumps(source)
    if isinstance(source, Secret):
        return source.reveal()
    if isinstance(source, str) and source.lstrip().startswith(("{", "-----BEGIN")):
        return source
    try:
        return Path(source).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the private key cannot be read: {type(error).__name__}", where=str(source), code="HX-204"
        ) from None


def _parse_key(text: str, kid: str | None) -> RSAKey | ECKey:
    if text.lstrip().startswith("-----BEGIN"):
        try:
            return RSAKey.import_key(text)
        except (JoseError, ValueError, TypeError):
            return ECKey.import_key(text)
    value = json.loads(text)
    if "keys" in value:
        keys = [
            key for key in value["keys"] if ("d" in key or len(value["keys"]) == 1) and kid in (None, key.get("kid"))
        ]
        if not keys:
            raise ConfigError("the key set has no private key of that id", hint="check kid=…", code="HX-204")
        value = next((key for key in keys if key.get("alg") in ALGORITHMS), keys[0])
    KeySet.import_key_set({"keys": [value]})
    return RSAKey.import_key(value) if value["kty"] == "RSA" else ECKey.import_key(value)
