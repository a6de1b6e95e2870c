"""The MLLP channel: one message, one acknowledgement that names it.

Acked means AA *and* MSA-2 equal to our MSH-10: an acknowledgement of another message (a late one
after a timeout; nextgen connect issue 1441) is read past, never matched. On a timeout the socket is
closed before the same message is sent again, so a late answer has nowhere to arrive.
"""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

from hiexchange import hl7v2
from hiexchange._http import Tls
from hiexchange.delivery.base import Outcome, Parcel
from hiexchange.delivery.channel import ChannelSpec
from hiexchange.delivery.credentials import file_option, key_file
from hiexchange.errors import ConfigError, DataError, DeliveryError

PORT = 2575
CONNECT_S = 10.0
ACK_S = 30.0


class MLLPDestination:
    """One receiver; ``mllps`` is TLS with verification."""

    def __init__(self, spec: ChannelSpec, base: Path, *, ack_s: float = ACK_S) -> None:
        if spec.format != "hl7v2":
            raise ConfigError(f"channel {spec.key} is MLLP and its format is {spec.format}", hint='format = "hl7v2"')
        parts = urlsplit(spec.url)
        self._address = (parts.hostname or "", parts.port or PORT)
        self._spec = spec
        self._base = base
        self._ack_s = ack_s
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """See :class:`~hiexchange.delivery.base.Destination`."""
        self.close()
        try:
            plain = socket.create_connection(self._address, timeout=CONNECT_S)
        except OSError as error:
            raise DeliveryError(f"cannot connect: {type(error).__name__}", retryable=True) from error
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._spec.scheme != "mllps":
            self._socket = plain
            return
        try:
            context = Tls(
                file_option(self._spec, "ca_file", self._base),
                key_file(self._spec, "client_certificate", self._base),
                key_file(self._spec, "client_key", self._base),
            ).context()
            self._socket = context.wrap_socket(plain, server_hostname=self._address[0])
        except (OSError, ConfigError) as error:
            plain.close()
            what = "the certificate was not accepted" if isinstance(error, ssl.SSLError) else type(error).__name__
            raise DeliveryError(f"cannot connect: {what}", retryable=True) from error

    def send(self, parcel: Parcel) -> Outcome:
        """See :class:`~hiexchange.delivery.base.Destination`."""
        if self._socket is None:
            try:
                self.open()
            except DeliveryError as error:
                return Outcome("retry", error.what)
        assert self._socket is not None
        try:
            self._socket.settimeout(self._ack_s)
            self._socket.sendall(hl7v2.frame(parcel.payload))
            answer = self._answer(self._socket, hl7v2.parse(parcel.payload).control_id)
        except (OSError, DataError) as error:
            self.close()
            late = isinstance(error, TimeoutError)
            return Outcome(
                "unknown", "no acknowledgement in time" if late else f"no acknowledgement: {type(error).__name__}"
            )
        if answer.accepted:
            return Outcome("acked", answer.code)
        detail = f"{answer.code} {answer.error_code}".strip()
        return Outcome("retry" if answer.code in ("AE", "CE") else "dead", detail)

    def _answer(self, connection: socket.socket, control_id: str) -> hl7v2.Ack:
        frames = hl7v2.Frames()
        deadline = time.monotonic() + self._ack_s
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            data = connection.recv(65536)
            if not data:
                raise ConnectionError
            for whole in frames.feed(data):
                answer = hl7v2.read_ack(whole)
                if answer.control_id == control_id:
                    return answer

    def probe(self, parcel: Parcel) -> bool | None:
        """See :class:`~hiexchange.delivery.base.Destination`: MLLP has no way to ask."""
        return None

    def close(self) -> None:
        """See :class:`~hiexchange.delivery.base.Destination`."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
