"""OpenPGP encryption to a recipient's certificate (pysequoia, extra ``pgp``)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from hiexchange.delivery.channel import ChannelSpec
from hiexchange.errors import ConfigError, MissingExtra


def encrypt(payload: bytes, spec: ChannelSpec, at: datetime) -> bytes:
    """Return ``payload`` encrypted, binary OpenPGP; ``at`` is when the certificate must be in force.

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
    # pysequoia 0.1.35 encrypts to expired and revoked certificates without a word.
    ends = certificate.expiration
    if certificate.is_revoked or (ends is not None and ends <= at):
        raise ConfigError(
            f"the OpenPGP certificate of {spec.key} {'is revoked' if certificate.is_revoked else 'has expired'}",
            where=str(path),
            hint="ask the subscriber for a new one",
        )
    try:
        return bytes(pysequoia.encrypt(payload, recipients=[certificate], armor=False))
    except Exception:  # pysequoia raises bare Exceptions: the certificate has no key that can encrypt
        raise ConfigError(f"the OpenPGP certificate of {spec.key} cannot encrypt", where=str(path)) from None
