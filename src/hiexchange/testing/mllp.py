"""A sender of HL7 v2 messages over MLLP, for tests: real socket, one message, one answer.

The receiving side for delivery tests is :class:`hiexchange.testing.sinks.MLLPSink`.
"""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import Self

from hiexchange import hl7v2


class MLLPSender:
    """One connection to a listener."""

    def __init__(
        self, port: int, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, wait_s: float = 30.0
    ) -> None:
        plain = socket.create_connection((host, port), timeout=wait_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = tls.wrap_socket(plain, server_hostname=host) if tls else plain
        self._frames = hl7v2.Frames()

    def send(self, message: bytes, *, cut: int | None = None) -> hl7v2.Ack:
        """Send a message, in two pieces when ``cut`` is given, and return its acknowledgement.

        Raises:
            ConnectionError: The listener hung up instead of answering.
        """
        data = hl7v2.frame(message)
        for piece in (data,) if cut is None else (data[:cut], data[cut:]):
            self._socket.sendall(piece)
        return hl7v2.read_ack(self.answer())

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def answer(self) -> bytes:
        """Return the next framed answer."""
        while True:
            chunk = self._socket.recv(65536)
            if not chunk:
                raise ConnectionError("the listener hung up")
            whole = self._frames.feed(chunk)
            if whole:
                return whole[0]

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
