"""A small exchange made by hand: visits, people, subscribers, and the routing result they come to."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.delivery import Outbox
from hiexchange.routing import Subscriptions, load_subscriptions
from hiexchange.tables import ENCOUNTER_EVENT, PERSON, ROUTING_DECISION

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Routing:
    """What ``Outbox.enqueue`` reads of a routing result."""

    decisions: pa.Table
    events: pa.Table
    subscriptions: Subscriptions


@dataclass(frozen=True)
class Exchange:
    """Builders of corridor rows; every id and time is derived from a small number."""

    now: datetime = NOON

    def event(self, number: int, **given: Any) -> dict[str, Any]:
        """An admission of person ``number`` at facility ``fac-1``, visit ``v<number>``."""
        row: dict[str, Any] = {
            "facility_id": "fac-1",
            "facility_name": "General Hospital",
            "facility_npi": "1999999984",
            "visit_number": f"v{number}",
            "trigger": "admit",
            "trigger_code": "A01",
            "version": 1,
            "event_at": self.now - timedelta(hours=2) + timedelta(seconds=number),
            "event_time_text": "20261110060000-0600",
            "event_on": self.now.date(),
            "received_at": self.now - timedelta(hours=1),
            "person_id": f"-{number}",
            "patient_id_sent": f"mrn{number}",
            "patient_id_system": "urn:oid:2.16.840.1.113883.3.999",
            "encounter_id": f"enc-{number}",
            "class": "IMP",
            "status": "in-progress",
            "period_start_at": self.now - timedelta(hours=2) + timedelta(seconds=number),
            "attending_npi": "1888888886",
            "diagnoses": [
                {
                    "system": "http://hl7.org/fhir/sid/icd-10-cm",
                    "code": "I50.9",
                    "display": "Heart failure, unspecified",
                }
            ],
            "labels": [],
            "material": True,
            "flags": [],
            "source": "hl7v2",
        }
        row |= given
        name = f"{row['facility_id']}{row['visit_number']}{row['trigger']}{row['version']}"
        row["event_key"] = given.get("event_key", hashlib.sha256(name.encode()).hexdigest())
        row["material_hash"] = given.get("material_hash", hashlib.sha256(f"m{name}".encode()).hexdigest())
        row["message_sha"] = hashlib.sha256(f"raw{name}".encode()).hexdigest()
        return row

    def decision(
        self, event: Mapping[str, Any], subscriber: str, channel: str = "default", **given: Any
    ) -> dict[str, Any]:
        """A decision to deliver, for a provider of payer-a."""
        return {
            "event_key": event["event_key"],
            "person_id": event["person_id"],
            "decision": "deliver",
            "reason_code": "attributed",
            "subscriber_id": subscriber,
            "channel_id": channel,
            "provider_npi": "1777777778",
            "org_id": "org-1",
            "primary": True,
            "payer_ids": ["payer-a"],
            "known_at": self.now,
        } | given

    def routing(
        self,
        events: Iterable[Mapping[str, Any]],
        subscriptions: Iterable[Mapping[str, Any]],
        decisions: Iterable[Mapping[str, Any]] | None = None,
    ) -> Routing:
        """A routing result; without decisions every event goes to every channel."""
        events = list(events)
        loaded = load_subscriptions([dict(item) for item in subscriptions])
        if decisions is None:
            decisions = [
                self.decision(event, item.id, channel.id)
                for event in events
                for item in loaded
                for channel in item.channels
            ]
        return Routing(ROUTING_DECISION.from_rows(decisions), ENCOUNTER_EVENT.from_rows(events), loaded)

    def persons(self, *numbers: int) -> pa.Table:
        """Invented people with negative ids."""
        return PERSON.from_rows(
            {
                "person_id": f"-{number}",
                "last_name": f"Invented{number}",
                "first_name": "Ada",
                "birth_date": "1950-02-03",
                "sex": "female",
                "mrn": f"mrn{number}",
                "address_line": "1 Example Street",
                "city": "Little Rock",
                "state": "AR",
                "zip": "72201",
                "member_ids": [],
            }
            for number in numbers
        )

    def subscription(self, subscriber: str, url: str, **channel: Any) -> dict[str, Any]:
        """A subscription with one channel, ``default``."""
        return {"id": subscriber, "npi": ["1777777778"], "channels": [{"id": "default", "url": url, **channel}]}


@pytest.fixture
def exchange() -> Exchange:
    """Builders of events, people and routing results."""
    return Exchange()


@pytest.fixture
def now() -> datetime:
    """The instant tests start at: a Tuesday noon (UTC)."""
    return NOON


@pytest.fixture
def open_outbox(tmp_path: Path) -> Iterable[Callable[..., Outbox]]:
    """Open the test's ledger, as often as asked: each a new process as far as the ledger can tell."""
    opened: list[Outbox] = []

    def opener(**given: Any) -> Outbox:
        opened.append(Outbox(tmp_path / "outbox.sqlite", base=tmp_path, **given))
        return opened[-1]

    yield opener
    for outbox in opened:
        outbox.close()


@pytest.fixture
def certificate(tmp_path):
    """Make a certificate for localhost with the given dates; ``cert.pem`` is the CA; returns the server's context."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def make(begins: datetime, ends: datetime):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        built = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(7)
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        (tmp_path / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (tmp_path / "key.pem").write_bytes(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        return context

    return make
