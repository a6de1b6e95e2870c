"""An MLLP listener that stores before it acknowledges.

AA means: the message is a whole file under its final name, and file and folder are on disk (fsync). A
message that cannot be stored gets AE and the sender keeps it. Whatever is readable and has a control
id is taken: what cannot become an event is quarantined when the inbox is read, since refusing it here
would block the sender's queue. Resends are stored again and counted as duplicates then.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from hiexchange import hl7v2
from hiexchange._files import write_bytes
from hiexchange.encounters.adt import RawMessage
from hiexchange.errors import ConfigError, DataError, HIExchangeError

PORT = 2575
IDLE_S = 600.0
CHUNK = 1 << 16
# HL7 table 0357.
REQUIRED_FIELD, TYPE_ERROR, INTERNAL_ERROR = "101", "102", "207"

log = logging.getLogger("hiexchange.encounters")


@dataclass(frozen=True, slots=True)
class Counts:
    """What a listener has done so far."""

    stored: int
    """Acknowledged with AA."""
    refused: int
    """Answered with AR: unreadable, or without a control id. Kept in ``refused/``."""
    failed: int
    """Answered with AE: could not be stored."""


def _now() -> datetime:
    return datetime.now(UTC)


class MLLPListener:
    """A server on one port; messages become files in ``inbox``, a folder a day.

    Use as a context manager, or ``start`` and ``stop``.
    """

    def __init__(
        self,
        inbox: str | Path,
        *,
        host: str = "127.0.0.1",
        port: int = PORT,
        tls: ssl.SSLContext | None = None,
        on_message: Callable[[RawMessage], None] | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        """Bind the port.

        Args:
            inbox: Folder of the messages; made when absent.
            host: Address to listen on; anything but loopback should come with ``tls``.
            port: TCP port; 0 = any free one, see :attr:`port`.
            tls: Server context (:func:`server_tls`), for MLLP over TLS.
            on_message: Called after the ACK with each stored message, from connection threads.
            clock: Time of receipt.

        Raises:
            ConfigError: The port cannot be bound.
        """
        self.inbox = Path(inbox)
        self._clock = clock
        self._on_message = on_message
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._tally = {"stored": 0, "refused": 0, "failed": 0}
        try:
            self._server = _Server((host, port), _Connection, tls, self)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another port") from None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._server.server_address[1])

    @property
    def counts(self) -> Counts:
        """How many messages were stored, refused, and could not be stored."""
        with self._lock:
            return Counts(**self._tally)

    def start(self) -> Self:
        """Serve in a thread."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="mllp", daemon=True)
        self._thread.start()
        return self

    def serve(self) -> None:
        """Serve in this thread until interrupted."""
        try:
            self._server.serve_forever(0.2)
        finally:
            self._server.server_close()

    def stop(self) -> None:
        """Take no more connections and close; what was acknowledged is on disk."""
        self._server.shutdown()
        self._server.server_close()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def take(self, data: bytes) -> bytes:
        """Store one message and return its acknowledgement."""
        received_at = self._clock()
        message: hl7v2.Message | None = None
        try:
            message = hl7v2.parse(data)
            refusal = "" if message.control_id else REQUIRED_FIELD
        except DataError:
            refusal = TYPE_ERROR
        name = f"{received_at:%Y%m%dT%H%M%S.%f}Z-{next(self._numbers):06d}-{hashlib.sha256(data).hexdigest()[:12]}.hl7"
        folder = self.inbox / "refused" if refusal else self.inbox / f"{received_at:%Y-%m-%d}"
        try:
            write_bytes(folder / name, data)
        except (OSError, HIExchangeError) as error:
            log.error("a message could not be stored: %s", type(error).__name__)
            return self._answer(message, "AE", "failed", INTERNAL_ERROR, received_at)
        if refusal:
            return self._answer(message, "AR", "refused", refusal, received_at)
        return self._answer(message, "AA", "stored", "", received_at)

    def told(self, data: bytes) -> None:
        """Hand a stored message on, after its ACK has left."""
        if self._on_message is not None:
            self._on_message(RawMessage(data, None, None, self._clock()))

    def _answer(self, message: hl7v2.Message | None, code: str, kind: str, error: str, now: datetime) -> bytes:
        with self._lock:
            self._tally[kind] += 1
            number = sum(self._tally.values())
        control_id = f"HX{now:%y%m%d%H%M%S}{number % 1_000_000:06d}"
        return hl7v2.ack(message, code, now=now, control_id=control_id, error_code=error)


def server_tls(
    certificate: str | Path, key: str | Path | None = None, *, client_ca: str | Path | None = None
) -> ssl.SSLContext:
    """Return a TLS 1.2+ server context; with ``client_ca`` only clients with its certificates may connect.

    Raises:
        ConfigError: A file is absent or is no certificate or key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the TLS certificate or key cannot be used: {type(error).__name__}", where=str(certificate)
        ) from None
    return context


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[socketserver.BaseRequestHandler],
        tls: ssl.SSLContext | None,
        listener: MLLPListener,
    ) -> None:
        self.tls = tls
        self.listener = listener
        super().__init__(address, handler)

    def handle_error(self, request: object, client_address: object) -> None:
        # The default prints a traceback; a broken connection is the peer's affair, and it will resend.
        log.warning("a connection ended with an error", exc_info=False)


class _Connection(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        connection: socket.socket = self.request
        connection.settimeout(IDLE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.server.tls is not None:
            connection = self.server.tls.wrap_socket(connection, server_side=True)
        frames = hl7v2.Frames()
        with contextlib.closing(connection), contextlib.suppress(OSError, DataError):
            while chunk := connection.recv(CHUNK):
                for data in frames.feed(chunk):
                    answer = self.server.listener.take(data)
                    connection.sendall(hl7v2.frame(answer))
                    if answer.find(b"\rMSA|AA|") > 0:
                        self.server.listener.told(data)
