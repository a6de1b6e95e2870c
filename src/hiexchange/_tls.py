"""Whom a connection trusts, and how it shows who it is."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hiexchange.errors import ConfigError


class Tls(msgspec.Struct, frozen=True):
    """How to trust and be trusted: a CA bundle, a client certificate. Verification has no off switch."""

    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    def context(self) -> ssl.SSLContext:
        """Build the context; TLS 1.2 or newer.

        Raises:
            ConfigError: A file is missing or is not PEM.
        """
        with self._readable():
            return self._completed(ssl.create_default_context(cafile=self._ca_path()))

    def fill(self, context: ssl.SSLContext) -> None:
        """Make a context that trusts nobody yet as :meth:`context` would build it.

        Raises:
            ConfigError: As there.
        """
        with self._readable():
            context.verify_flags = self.context().verify_flags
            if path := self._ca_path():
                context.load_verify_locations(path)
            else:
                context.load_default_certs()
            self._completed(context)

    def _ca_path(self) -> str | None:
        return str(Path(self.ca_file).expanduser()) if self.ca_file else None

    def _completed(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.client_cert:
            context.load_cert_chain(self.client_cert, self.client_key)
        return context

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"a certificate file cannot be used: {type(error).__name__}", where=self.ca_file or self.client_cert
            ) from None
