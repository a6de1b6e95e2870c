"""A Bulk Data server on this machine: real sockets, SMART tokens truly verified, faults on demand.

```python
with BulkServer("folder", auth="smart", faults=(41,)) as server:
    auth = SmartBackendServices(server.client_id, server.private_key)
    ExportJob.start(Server(server.url, auth), ExportRequest(group="all"), "job")
```
"""

from __future__ import annotations

import json
import secrets
import socket
import ssl
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hiexchange.testing.bulk_faults import Exchange, Fault, Hook, Reply, find
from hiexchange.testing.bulk_store import Job, NdjsonStore, OutputSlice, Selection
from hiexchange.testing.bulk_tokens import TokenDesk, json_reply

SLICE = 1 << 16
CAPABILITIES = {
    "resourceType": "CapabilityStatement",
    "fhirVersion": "4.0.1",
    "kind": "instance",
    "software": {"name": "hiexchange loopback", "version": "1", "releaseDate": "2026-01-01"},
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One line of the server's log."""

    kind: str
    method: str
    path: str
    status: int
    authorized: bool
    """Whether the request carried a credential."""
    headers: Mapping[str, str]


class BulkServer:
    """A context manager; ``url`` is the FHIR base. ``log`` lists every request."""

    def __init__(
        self,
        folder: str | Path,
        *,
        auth: str = "none",
        faults: Iterable[int | str | Hook] = (),
        gzip: bool = True,
        page_size: int = 1000,
        polls: int = 1,
        manifest_pages: int = 1,
        host: str = "127.0.0.1",
        port: int = 0,
        algorithm: str = "ES384",
        tls: tuple[str, str] | None = None,
        client_ca: str | None = None,
    ) -> None:
        """Read the folder's file names; the socket is opened on entering.

        Args:
            folder: NDJSON or NDJSON.gz files, one type a file.
            auth: ``smart``, ``basic`` (as BCDA: id and secret at ``/auth/token``) or ``none``.
            faults: Numbers, names or functions, see :mod:`hiexchange.testing.bulk_faults`.
            gzip: Compress files when the client takes it.
            page_size: Resources a file.
            polls: How many polls say "in progress" first.
            manifest_pages: Into how many linked pages the manifest is cut.
            host: Address to listen on.
            port: Port; 0 takes a free one.
            algorithm: ES384 or RS384, for the client's key.
            tls: Certificate and key files, to answer https.
        """
        self.auth, self.gzip, self.polls, self.manifest_pages = auth, gzip, polls, manifest_pages
        self.faults: list[Fault] = find(faults)
        self.store = NdjsonStore(folder, page_size=page_size)
        self.log: list[Seen] = []
        self.jobs: dict[str, Job] = {}
        self.ignored: set[str] = set()
        """Parameters this server pays no attention to."""
        self.extra: dict[str, bytes] = {}
        """Further files by name, served under ``/extra/``; the token is asked for as for data files."""
        self.transaction_time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.desk = TokenDesk(auth, types=self.store.types, algorithm=algorithm)
        self.client_id, self.client_secret = self.desk.client_id, self.desk.client_secret
        self.private_key, self.private_pem = self.desk.private_key, self.desk.private_pem
        self.tokens = self.desk.tokens
        self.algorithm = algorithm
        self.clock_offset_s = 0.0
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._host, self._port = host, port
        self._tls, self._client_ca = tls, client_ca
        self._http: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        for known in self.faults:
            known.hook(Exchange("setup", "", "", "", {}, 0, 0, "", self), Reply())

    # Life -------------------------------------------------------------------------------------

    def __enter__(self) -> BulkServer:
        if self._http is None:
            self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, in a thread."""
        server = self

        class Handler(_Handler):
            owner = server

        self._http = _Listener((self._host, self._port), Handler)
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
            if self._client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self._client_ca)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, name="bulk-server", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and remove working copies."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
        self.store.close()

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        assert self._http is not None, "the server is not running"
        return f"{'https' if self._tls else 'http'}://{self._host}:{self._http.server_address[1]}"

    @property
    def url(self) -> str:
        """The FHIR base URL."""
        return f"{self.origin}/fhir"

    def requests(self, kind: str) -> list[Seen]:
        """Return the log's entries of one kind."""
        with self._lock:
            return [entry for entry in self.log if entry.kind == kind]

    # Answers ----------------------------------------------------------------------------------

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Return the answer to a request, changed by the active faults; logs it."""
        parts = urlsplit(target)
        kind, job, file = self._route(method, parts.path)
        with self._lock:
            self._counts[kind] += 1
            self._counts[target] += 1
            count, times = self._counts[kind], self._counts[target]
        exchange = Exchange(kind, method, parts.path, parts.query, headers, count, times, self.origin, self, job, file)
        reply = self._honest(exchange, body)
        for known in self.faults:
            reply = known.hook(exchange, reply)
        with self._lock:
            authorized = "authorization" in headers
            self.log.append(Seen(kind, method, target, 0 if reply.drop else reply.status, authorized, dict(headers)))
        return reply

    def _route(self, method: str, path: str) -> tuple[str, Job | None, OutputSlice | None]:
        if path in ("/fhir/.well-known/smart-configuration", "/fhir/metadata", "/token", "/auth/token"):
            return {"smart-configuration": "smart"}.get(path.rsplit("/", 1)[1], path.rsplit("/", 1)[1]), None, None
        if path == "/fhir/jobs":
            return "jobs", None, None
        if path.startswith("/extra/"):
            return "extra", None, None
        if path.startswith("/fhir") and path.endswith("/$export"):
            return "kickoff", None, None
        # A status URL under another path prefix is the same job's.
        pieces = path.removeprefix("/fhir").removeprefix("/elsewhere").strip("/").split("/")
        job = self.jobs.get(pieces[1]) if len(pieces) > 1 else None
        if pieces[0] == "jobs" and len(pieces) == 2:
            return ("delete" if method == "DELETE" else "status"), job, None
        if pieces[0] == "jobs" and len(pieces) == 4 and pieces[2] == "page":
            return "page", job, None
        if pieces[0] == "files" and len(pieces) == 3:
            index = pieces[2].split(".")[0]
            found = job.files[int(index)] if job and index.isdigit() and int(index) < len(job.files) else None
            return "file", job, found
        return "other", None, None

    def _honest(self, exchange: Exchange, body: bytes) -> Reply:
        kind = exchange.kind
        if kind == "smart":
            return self.desk.discovery(f"{self.origin}/token")
        if kind == "metadata":
            return json_reply(CAPABILITIES)
        if kind == "token":
            return self.desk.issue(exchange.headers, body, audience=f"{self.origin}/token", now=self.now())
        if kind == "other":
            return outcome(404, "not-found")
        if not self.desk.accepts(exchange.headers):
            return Reply(401, (("Content-Type", "text/plain"), ("WWW-Authenticate", "Bearer")), b"Unauthorized")
        if kind == "kickoff":
            return self._kick_off(exchange, body)
        if kind == "jobs":
            return self._listed()
        if kind == "extra":
            found = self.extra.get(exchange.path.rsplit("/", 1)[1])
            return outcome(404, "not-found") if found is None else ndjson_reply(found)
        if exchange.job is None or exchange.job.deleted:
            return outcome(404, "not-found")
        if kind == "delete":
            exchange.job.deleted = True
            return Reply(202)
        if kind == "status":
            return self._status(exchange.job)
        if kind == "page":
            return self.manifest_page(exchange.job, int(exchange.path.rsplit("/", 1)[1]))
        if exchange.file is None:
            return outcome(404, "not-found")
        return ndjson_reply(exchange.file.read())

    def now(self) -> datetime:
        """Return the server's clock; a fault may set it wrong."""
        return datetime.now(UTC) + timedelta(seconds=self.clock_offset_s)

    # Jobs -------------------------------------------------------------------------------------

    def _kick_off(self, exchange: Exchange, body: bytes) -> Reply:
        if exchange.headers.get("accept") != "application/fhir+json":
            return outcome(400, "invalid", "Accept must be application/fhir+json")
        if "respond-async" not in exchange.headers.get("prefer", ""):
            return outcome(400, "invalid", "Prefer must be respond-async")
        params = _parameters(exchange.method, exchange.query, body)
        asked = exchange.path + (f"?{exchange.query}" if exchange.query else "")
        params = {name: values for name, values in params.items() if name not in self.ignored}
        unknown = [name for name in params.get("_type", ()) if name not in self.store.types]
        if unknown:
            return outcome(400, "invalid", "_type: unknown resource type")
        pieces = exchange.path.split("/")
        group = pieces[3] if pieces[2] == "Group" else None
        patients = params.get("patient")
        selection = Selection(
            types=params.get("_type", ()),
            group=group,
            since=params.get("_since", (None,))[0],
            until=params.get("_until", (None,))[0],
            patients=frozenset(text.rsplit("/", 1)[-1] for text in patients) if patients else None,
            elements=params.get("_elements", ()),
        )
        identity = secrets.token_hex(8)
        try:
            files = self.store.select(selection, identity)
        except KeyError:
            return outcome(404, "not-found", "the group is not known")
        job = Job(identity, selection, files, request_url=f"{self.origin}{asked}", params=params)
        with self._lock:
            self.jobs[identity] = job
        return outcome(202, "informational").with_header("Content-Location", f"{self.origin}/jobs/{identity}")

    def _listed(self) -> Reply:
        """List the jobs as BCDA does: a Bundle of Tasks."""
        tasks = [
            {
                "resourceType": "Task",
                "identifier": [{"use": "official", "value": job.id}],
                "status": "in-progress" if job.polls <= self.polls else "completed",
                "executionPeriod": {"start": job.begun},
                "input": [{"type": {"text": "BULK FHIR Export"}, "valueString": f"GET {job.request_url}"}],
            }
            for job in self.jobs.values()
            if not job.deleted
        ]
        return json_reply(
            {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": task} for task in tasks]}
        )

    def revoke_tokens(self) -> None:
        """Forget every token issued so far."""
        self.desk.revoke()

    def _status(self, job: Job) -> Reply:
        job.polls += 1
        if job.polls <= self.polls:
            done = round(100 * (job.polls - 1) / max(1, self.polls))
            return Reply(202, (("X-Progress", f"{done}% complete"),))
        return self.manifest_page(job, 1)

    def manifest_page(self, job: Job, number: int) -> Reply:
        """Return one page of a job's manifest, as an honest server gives it."""
        size = -(-len(job.files) // self.manifest_pages) or 1
        start = (number - 1) * size
        entries = [self.entry(job, index) for index in range(start, min(start + size, len(job.files)))]
        manifest: dict[str, Any] = {
            "transactionTime": self.transaction_time,
            "request": job.request_url,
            "requiresAccessToken": self.auth != "none",
            "output": entries,
            "deleted": [],
            "error": [],
        }
        if start + size < len(job.files):
            manifest["link"] = [{"relation": "next", "url": f"{self.origin}/jobs/{job.id}/page/{number + 1}"}]
        expires = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
        return json_reply(manifest).with_header("Expires", expires)

    def entry(self, job: Job, index: int) -> dict[str, Any]:
        """Return the manifest entry of one file."""
        file = job.files[index]
        return {"type": file.type, "url": f"{self.origin}/files/{job.id}/{index}.ndjson", "count": file.count}


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients of a fault server come and go as they like."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: BulkServer
    # Small answers would otherwise wait for the other side's delayed ACK (40 ms each).
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_PUT(self) -> None:
        self._respond()

    def do_DELETE(self) -> None:
        self._respond()

    def log_message(self, format: str, *args: Any) -> None:
        """The server has its own log."""

    def _respond(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length") or 0))
        reply = self.owner.answer(self.command, self.path, headers, body)
        if reply.delay_s:
            time.sleep(reply.delay_s)
        if reply.drop:
            self._hang_up(reset=reply.reset)
            return
        try:
            self._send(reply, takes_gzip="gzip" in headers.get("accept-encoding", ""))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send(self, reply: Reply, *, takes_gzip: bool) -> None:
        body, framing = reply.body, reply.framing
        named = {name.lower() for name, _ in reply.headers}
        self.send_response_only(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        if "date" not in named:
            self.send_header("Date", format_datetime(self.owner.now(), usegmt=True))
        is_file = (reply.header("Content-Type") or "").startswith("application/fhir+ndjson")
        if is_file and takes_gzip and self.owner.gzip and not reply.encoded:
            body = gzip_bytes(body)
            self.send_header("Content-Encoding", "gzip")
            framing = "chunked" if framing == "length" and reply.claim_length is None else framing
        if framing == "length":
            self.send_header("Content-Length", str(len(body) if reply.claim_length is None else reply.claim_length))
        elif framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self._send_body(reply, body, chunked=framing == "chunked")

    def _send_body(self, reply: Reply, body: bytes, *, chunked: bool) -> None:
        end = len(body) if reply.cut_after is None else min(reply.cut_after, len(body))
        step, pause = reply.drip or (SLICE, 0.0)
        for start in range(0, end, step):
            piece = body[start : min(start + step, end)]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            if pause:
                self.wfile.flush()
                time.sleep(pause)
        if reply.cut_after is not None:
            self._hang_up(reset=reply.reset)
        elif chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _hang_up(self, *, reset: bool) -> None:
        self.close_connection = True
        self.wfile.flush()
        if reset:
            # A linger time of zero makes the kernel send RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)


def ndjson_reply(data: bytes) -> Reply:
    """Return a reply with NDJSON."""
    return Reply(200, (("Content-Type", "application/fhir+ndjson"),), data)


def gzip_bytes(data: bytes) -> bytes:
    """Return gzip data, quickly."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def outcome(status: int, code: str, text: str = "") -> Reply:
    """Return a reply with an OperationOutcome of one issue."""
    issue = {"severity": "error" if status >= 400 else "information", "code": code}
    if text:
        issue["diagnostics"] = text
    reply = json_reply({"resourceType": "OperationOutcome", "issue": [issue]}, status)
    return reply.with_header("Content-Type", "application/fhir+json")


def _parameters(method: str, query: str, body: bytes) -> dict[str, tuple[str, ...]]:
    pairs: dict[str, tuple[str, ...]] = {}
    if method == "POST":
        for entry in json.loads(body or b"{}").get("parameter", ()):
            value = next((entry[key] for key in entry if key.startswith("value")), "")
            text = value.get("reference", "") if isinstance(value, dict) else str(value)
            pairs[entry["name"]] = (*pairs.get(entry["name"], ()), text)
        return pairs
    for name, values in parse_qs(query).items():
        pairs[name] = tuple(item for value in values for item in value.split(","))
    return pairs
