"""The S3-compatible channel (obstore, extra ``cloud``): conditional put of payload, then manifest.

``If-None-Match: *`` makes the first writer win: an object that is there already is the same bytes
(done) or another's (refused), never overwritten.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hiexchange.delivery.base import Outcome, Parcel
from hiexchange.delivery.channel import ChannelSpec
from hiexchange.delivery.credentials import secret
from hiexchange.errors import DeliveryError, HIExchangeError, MissingExtra


class S3Destination:
    """One bucket and prefix: ``s3://bucket/prefix``."""

    def __init__(self, spec: ChannelSpec, base: Path, *, timeout_s: float = 60) -> None:
        try:
            import obstore
        except ImportError:
            raise MissingExtra("cloud", "delivery to S3") from None
        self._obstore = obstore
        self._spec = spec
        self._base = base
        self._timeout_s = timeout_s
        self._store: Any = None

    def open(self) -> None:
        """See :class:`~hiexchange.delivery.base.Destination`. The first request connects."""
        from obstore.store import S3Store

        parts = urlsplit(self._spec.url)
        options = self._spec.options
        config: dict[str, Any] = {"region": options.get("region", "us-east-1")}
        if options.get("endpoint"):
            config |= {"endpoint": options["endpoint"], "virtual_hosted_style_request": False}
        try:
            for name, key in (
                ("access_key_id", "access_key_id"),
                ("secret_access_key", "secret_access_key"),
                ("session_token", "token"),
            ):
                value = secret(self._spec, name, self._base)
                if value is not None:
                    config[key] = value
        except HIExchangeError as error:
            raise DeliveryError(error.what, where=error.where, hint=error.hint, retryable=True) from error
        local = str(options.get("endpoint", "")).startswith(("http://127.0.0.1", "http://localhost"))
        self._store = S3Store(
            parts.hostname or "",
            prefix=parts.path.strip("/") or None,
            client_options={"allow_http": local, "timeout": timedelta(seconds=self._timeout_s)},
            # The ledger retries, where each attempt is a row.
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=self._timeout_s)},
            **config,
        )

    def send(self, parcel: Parcel) -> Outcome:
        """See :class:`~hiexchange.delivery.base.Destination`."""
        if self._store is None:
            self.open()
        parts = [(parcel.name, parcel.payload)] if parcel.payload_expected else []
        code = "HTTP 200"
        for name, data in (*parts, (parcel.manifest_name, parcel.manifest)):
            outcome = self._put(name, data)
            if outcome is not None and outcome.state != "acked":
                return outcome
            code = outcome.code if outcome is not None else code
        return Outcome("acked", code)

    def _put(self, name: str, data: bytes) -> Outcome | None:
        errors = self._obstore.exceptions
        try:
            self._obstore.put(self._store, name, data, mode="create", use_multipart=False)
        except errors.AlreadyExistsError:
            if self._same(name, data):
                return Outcome("acked", "HTTP 412, same bytes")
            return Outcome("dead", "another object has that name")
        except (errors.PermissionDeniedError, errors.UnauthenticatedError, errors.NotFoundError) as error:
            # Refused, or no such bucket: nothing was stored, and repairing the channel helps.
            return Outcome("retry", type(error).__name__)
        except errors.BaseError as error:
            return Outcome("unknown", type(error).__name__)
        return None

    def _same(self, name: str, data: bytes) -> bool:
        found = bytes(self._obstore.get(self._store, name).bytes())
        return hashlib.sha256(found).digest() == hashlib.sha256(data).digest()

    def probe(self, parcel: Parcel) -> bool | None:
        """See :class:`~hiexchange.delivery.base.Destination`: manifest and payload compared by hash."""
        if self._store is None:
            self.open()
        errors = self._obstore.exceptions
        try:
            there = self._same(parcel.manifest_name, parcel.manifest)
            return there and (not parcel.payload_expected or self._same(parcel.name, parcel.payload))
        except (errors.NotFoundError, FileNotFoundError):
            return False
        except errors.BaseError:
            return None

    def close(self) -> None:
        """See :class:`~hiexchange.delivery.base.Destination`."""
        self._store = None
