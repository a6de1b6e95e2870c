"""OpenPGP encryption to a recipient's certificate (pysequoia, extra ``pgp``)."""

from __future__ import annotations

from pathlib import Path

from hiexchange.delivery.channel import ChannelSpec
from hiexchange.errors import ConfigError, MissingExtra


def encrypt(payload: bytes, spec: ChannelSpec) -> bytes:
    """Return ``payload`` encrypted, binary OpenPGP.

    Raises:
        ConfigError: The certificate is missing, unreadable, expired, revoked or cannot encrypt:
            nothing is sealed for the channel until that is repaired.
        MissingExtra: pysequoia is not installed.
    """
    try:
        import pysequoia
    except ImportError:
        raise MissingExtra("pgp", "PGP encryption") from None
    path = Path(spec.pgp_key or "")
    try:
        certificate = pysequoia.Cert.from_file(str(path))
    except Exception as error:  # pysequoia raises bare Exceptions
        raise ConfigError(
            f"the OpenPGP certificate of {spec.key} cannot be read: {type(error).__name__}", where=str(path)
        ) from None
    if certificate.is_revoked:
        raise ConfigError(f"the OpenPGP certificate of {spec.key} is revoked", where=str(path))
    try:
        return bytes(pysequoia.encrypt(payload, recipients=[certificate], armor=False))
    except Exception:  # pysequoia raises bare Exceptions: expired, or no key that can encrypt
        raise ConfigError(
            f"the OpenPGP certificate of {spec.key} cannot encrypt",
            where=str(path),
            hint="it has expired, or has no encryption key: ask the subscriber for a new one",
        ) from None
