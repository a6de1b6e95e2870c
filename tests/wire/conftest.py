"""A small data set, a loopback server with faults, and an export through it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hiexchange._http import Policy
from hiexchange.auth import ClientCredentials, SmartBackendServices
from hiexchange.bulk import ExportJob, ExportRequest, ExportResult
from hiexchange.events import Event
from hiexchange.servers import Preset, Server
from hiexchange.testing.bulk_server import BulkServer

FAST = Policy(
    read_timeout_s=5,
    backoff_min_s=0.005,
    backoff_max_s=0.02,
    poll_min_s=0.005,
    poll_max_s=0.02,
    poll_cap_s=0.03,
    wait_cap_s=0.03,
    busy_wait_s=0.005,
    confirmation_wait_s=0.005,
    fresh_404_window_s=0.5,
    vanish_grace_s=60,
    stop_grace_s=0.2,
    deadline_s=20,
)
PATIENTS, ENCOUNTERS, PAGE = 20, 20, 10


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where the suite was started in the background: there it is
    ignored, and what is started inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 patients and 20 encounters: four files of ten resources."""
    folder = tmp_path_factory.mktemp("data")
    meta = {"lastUpdated": "2026-01-01T00:00:00Z", "versionId": "1"}
    patients = [
        {"resourceType": "Patient", "id": f"-{number}", "meta": meta, "gender": "male", "active": True}
        for number in range(1, PATIENTS + 1)
    ]
    encounters = [
        {
            "resourceType": "Encounter",
            "id": f"-{number}",
            "meta": meta,
            "status": "finished",
            "class": {"code": "AMB"},
            "subject": {"reference": f"Patient/-{number}"},
        }
        for number in range(1, ENCOUNTERS + 1)
    ]
    for name, values in (("Patient", patients), ("Encounter", encounters)):
        lines = "".join(json.dumps(value) + "\n" for value in values)
        (folder / f"{name}.ndjson").write_text(lines, encoding="utf-8")
    return folder


@dataclass
class Wire:
    """Servers with faults, and exports from them."""

    data: Path
    work: Path
    stack: ExitStack
    events: list[Event] = field(default_factory=list)
    jobs: int = 0
    triggers: list[tuple[type[Event], int, Callable[[], None]]] = field(default_factory=list)

    def note(self, event: Event) -> None:
        """Keep an event, and fire what waits for it."""
        self.events.append(event)
        for kind, count, action in self.triggers:
            if isinstance(event, kind) and len(self.of(kind)) == count:
                action()

    def when(self, kind: type[Event], count: int, action: Callable[[], None]) -> None:
        """Call ``action`` at the ``count``-th event of a kind."""
        self.triggers.append((kind, count, action))

    def serve(self, *faults: Any, **options: Any) -> BulkServer:
        """Start a server."""
        options.setdefault("page_size", PAGE)
        return self.stack.enter_context(BulkServer(options.pop("data", self.data), faults=faults, **options))

    def server(self, bulk: BulkServer, *, preset: Preset | str = "generic-stu2", **policy: Any) -> Server:
        """Return the client's view of a server, with the right credential."""
        auth: Any = None
        if bulk.auth == "smart":
            auth = SmartBackendServices(bulk.client_id, bulk.private_key)
        if bulk.auth == "basic":
            auth = ClientCredentials(bulk.client_id, bulk.client_secret, token_url="/auth/token")
        return Server(bulk.url, auth, preset=preset, policy=replace(FAST, **policy))

    def start(
        self,
        bulk: BulkServer,
        request: ExportRequest | None = None,
        *,
        preset: Preset | str = "generic-stu2",
        **policy: Any,
    ) -> ExportJob:
        """Kick an export off."""
        self.jobs += 1
        wanted = request or ExportRequest(group="all")
        job = ExportJob.start(
            self.server(bulk, preset=preset, **policy),
            wanted,
            self.work / f"job{self.jobs}",
            on_event=self.note,
        )
        self.stack.callback(job.close)
        return job

    def export(self, bulk: BulkServer, request: ExportRequest | None = None, **options: Any) -> ExportResult:
        """Kick off, wait, download."""
        return self.start(bulk, request, **options).download()

    def of(self, kind: type[Event]) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def wire(data_folder: Path, tmp_path: Path) -> Iterator[Wire]:
    """Servers and exports that end with the test."""
    with ExitStack() as stack:
        yield Wire(data_folder, tmp_path, stack)


@pytest.fixture
def complete() -> Callable[[ExportResult], None]:
    """Assert that an export is whole: every resource of the data set, once."""

    def check(result: ExportResult) -> None:
        assert result.count_by_type() == {"Patient": PATIENTS, "Encounter": ENCOUNTERS}
        assert not result.failed and not result.partial
        assert sum(1 for _ in result.read("Patient")) == PATIENTS
        assert not list(result.folder.rglob("*.part"))

    return check


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    return str(folder / "cert.pem"), str(folder / "key.pem")
