"""Receivers on loopback that record everything: HTTP, MLLP and S3, each with faults on request.

Real sockets, real protocols. A fault is the next entry of ``script``; when it is empty the sink
behaves. Nothing is de-duplicated here: a test counts what really arrived. The SFTP sink is in
:mod:`hiexchange.testing.sftp_sink`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from hiexchange import hl7v2

STEP = 4096


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request or message as it came in."""

    key: str
    """Idempotency key, or MSH-10."""
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """How an HTTP sink answers one request."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    take: bool = True
    """Record the request as taken."""
    drop: bool = False
    """Close the connection instead of answering, after the body was read."""
    delay_s: float = 0.0


class _Server:
    """Start a socketserver in a thread, stop it at the end of the block."""

    server: socketserver.BaseServer
    tap: Callable[[], None] | None = None
    """Called for every chunk of bytes that arrives, also within a request or message."""

    def _tapped(self) -> None:
        if self.tap is not None:
            self.tap()

    @property
    def port(self) -> int:
        """The port it listens on."""
        address: Any = self.server.server_address
        return int(address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that was killed is what these tests are about."""


class _TCP(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that was killed is what these tests are about."""


class HTTPSink(_Server):
    """A receiver of POSTs that keeps bodies by Idempotency-Key, as a careful receiver would."""

    def __init__(
        self, script: Iterable[Answer] = (), *, tls: ssl.SSLContext | None = None, probes: bool = True
    ) -> None:
        self.script = list(script)
        self.arrived: list[Arrived] = []
        """Every POST that was read whole and taken, repeats included."""
        self.probes = probes
        self._lock = threading.Lock()
        self._tls = tls
        server = _Quiet(("127.0.0.1", 0), self._handler())
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        self.server = server

    @property
    def url(self) -> str:
        """Where to POST."""
        return f"{'https' if self._tls else 'http'}://{'localhost' if self._tls else '127.0.0.1'}:{self.port}/in"

    def _next(self) -> Answer:
        with self._lock:
            return self.script.pop(0) if self.script else Answer()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body, length = b"", int(self.headers.get("Content-Length", 0))
                while len(body) < length:
                    chunk = self.rfile.read(min(STEP, length - len(body)))
                    if not chunk:
                        self.close_connection = True
                        return
                    body += chunk
                    sink._tapped()
                answer = sink._next()
                if answer.take and answer.status < 300:
                    with sink._lock:
                        sink.arrived.append(Arrived(self.headers.get("Idempotency-Key", ""), body, dict(self.headers)))
                time.sleep(answer.delay_s)
                if answer.drop:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self._reply(answer.status, answer.body, answer.headers)

            def do_HEAD(self) -> None:
                key = urlsplit(self.path).path.rpartition("/")[2]
                body = next((item.body for item in sink.arrived if item.key == key), None) if sink.probes else None
                if body is None:
                    self._reply(404, b"", ())
                else:
                    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
                    self._reply(200, b"", (("Content-Digest", f"sha-256=:{digest}:"),))

            def _reply(self, status: int, body: bytes, headers: Iterable[tuple[str, str]]) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the test's output clean."""

        return Handler


Reply = Callable[[hl7v2.Message], bytes | None]
"""Makes the bytes to answer a message with; None = no answer, and the connection is left open."""


def acknowledge(code: str, *, control_id: str | None = None, error_code: str = "") -> Reply:
    """Return a reply with MSA-1 ``code``; ``control_id`` stands for MSA-2 where it is not the message's own."""

    def reply(message: hl7v2.Message) -> bytes:
        answer = hl7v2.ack(
            message, code, now=datetime(2026, 1, 1, tzinfo=UTC), control_id="sink", error_code=error_code
        )
        if control_id is not None:
            answer = answer.replace(message.control_id.encode(), control_id.encode())
        return hl7v2.frame(answer)

    return reply


def hang_up(message: hl7v2.Message) -> bytes:
    """Close the connection after the message was read whole."""
    raise ConnectionAbortedError


class MLLPSink(_Server):
    """A receiver of ADT that records every whole message before it answers."""

    def __init__(self, script: Iterable[Reply] = (), *, step: int = STEP) -> None:
        self.script = list(script)
        self.step = step
        """Bytes read at a time."""
        self.arrived: list[Arrived] = []
        self._lock = threading.Lock()
        self.server = _TCP(("127.0.0.1", 0), self._handler())

    @property
    def url(self) -> str:
        """Where to connect."""
        return f"mllp://127.0.0.1:{self.port}"

    def _handler(self) -> type[socketserver.BaseRequestHandler]:
        sink = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                frames = hl7v2.Frames()
                while data := self.request.recv(sink.step):
                    sink._tapped()
                    for whole in frames.feed(data):
                        message = hl7v2.parse(whole)
                        with sink._lock:
                            sink.arrived.append(Arrived(message.control_id, whole))
                            reply = sink.script.pop(0) if sink.script else acknowledge("AA")
                        answer = reply(message)
                        if answer is not None:
                            self.request.sendall(answer)

        return Handler


class S3Sink(_Server):
    """A bucket that checks Signature Version 4, honours ``If-None-Match: *`` and keeps objects in memory."""

    def __init__(
        self, script: Iterable[Answer] = (), *, access_key_id: str = "sink", secret_access_key: str = "sink-secret"
    ) -> None:
        self.script = list(script)
        self.objects: dict[str, bytes] = {}
        """Objects by ``/bucket/key``."""
        self.puts: list[tuple[str, int]] = []
        """Every PUT that was read whole, with the status it was answered."""
        self._keys = (access_key_id, secret_access_key)
        self._lock = threading.Lock()
        self.server = _Quiet(("127.0.0.1", 0), self._handler())

    @property
    def endpoint(self) -> str:
        """For the channel's ``endpoint`` option."""
        return f"http://127.0.0.1:{self.port}"

    def _put(self, path: str, body: bytes, *, create: bool) -> Answer:
        with self._lock:
            answer = self.script.pop(0) if self.script else Answer()
            if answer.status < 300 and create and path in self.objects:
                answer = Answer(412)
            if answer.status < 300 and answer.take:
                self.objects[path] = body
            self.puts.append((path, answer.status))
        return answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if not signed(self.command, self.path, dict(self.headers.items()), body, *sink._keys):
                    self._reply(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
                    return
                answer = sink._put(self._key(), body, create=self.headers.get("If-None-Match") == "*")
                time.sleep(answer.delay_s)
                if answer.drop:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self._reply(answer.status, answer.body, body)

            def do_GET(self) -> None:
                found = sink.objects.get(self._key())
                if found is None:
                    self._reply(404, b"<Error><Code>NoSuchKey</Code></Error>")
                else:
                    self._reply(200, found, found)

            do_HEAD = do_GET

            def _key(self) -> str:
                return unquote(urlsplit(self.path).path)

            def _reply(self, status: int, body: bytes, tagged: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("ETag", f'"{hashlib.md5(tagged).hexdigest()}"')
                self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the test's output clean."""

        return Handler


def signed(
    method: str, path: str, headers: dict[str, str], body: bytes, access_key_id: str, secret_access_key: str
) -> bool:
    """Say whether a request carries a right Signature Version 4 of these keys (AWS, "Authenticating Requests")."""
    lower = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    scheme, _, rest = lower.get("authorization", "").partition(" ")
    parts = dict(item.strip().split("=", 1) for item in rest.split(",") if "=" in item)
    credential = parts.get("Credential", "").split("/")
    if scheme != "AWS4-HMAC-SHA256" or len(credential) != 5 or credential[0] != access_key_id:
        return False
    claimed = lower.get("x-amz-content-sha256", "")
    if claimed != "UNSIGNED-PAYLOAD" and claimed != hashlib.sha256(body).hexdigest():
        return False
    url = urlsplit(path)
    names = parts["SignedHeaders"].split(";")
    canonical = "\n".join(
        [
            method,
            url.path,
            "&".join(sorted(url.query.split("&"))) if url.query else "",
            *(f"{name}:{lower.get(name, '')}" for name in names),
            "",
            ";".join(names),
            claimed,
        ]
    )
    scope = "/".join(credential[1:])
    text = "\n".join([scheme, lower["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret_access_key}".encode()
    for step in credential[1:]:
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), parts.get("Signature", ""))
