"""Builders of ADT messages and Encounter rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from hiexchange import hl7v2
from hiexchange.encounters import Intake, read_adt

RECEIVED = datetime(2026, 3, 10, tzinfo=UTC)
_numbers = count(1)


def adt(
    trigger: str,
    at: str = "20260302100000-0600",
    *,
    visit: str = "V1",
    patient: str = "100",
    control: str | None = None,
    class_: str = "I",
    start: str | None = None,
    end: str | None = None,
    disposition: str | None = None,
    diagnoses: tuple[str, ...] = (),
    sender: str = "GENERAL",
    location: str | None = "3W",
    before: str | None = None,
    processing: str = "P",
    name: tuple[str, str] = ("Zylstra", "Odo"),
    born: str = "19600101",
    old: str | None = None,
    vip: str | None = None,
    extra: tuple[tuple[Any, ...], ...] = (),
) -> bytes:
    """One ADT message of an invented patient."""
    pv1: list[Any] = [None] * 45
    for number, value in {
        1: "1", 2: class_, 3: (location, None, None, sender) if location else None, 6: (before, None, None, sender) if before else None,
        7: ("1999999984", "Fixit", "Ann", *[None] * 10), 16: vip, 19: visit, 36: disposition, 44: start, 45: end,
    }.items():  # fmt: skip
        pv1[number - 1] = value
    segments: list[tuple[Any, ...]] = [
        ("MSH", "APP", sender, "HX", "HIE", at, None, ("ADT", trigger, "ADT_A01"), control or f"M{next(_numbers)}", processing, "2.5.1"),
        ("EVN", trigger, at),
        ("PID", "1", None, [(patient, None, None, "GH", "MR")], None, name, None, born, "M"),
    ]  # fmt: skip
    if old is not None:
        segments.append(("MRG", (old, None, None, "GH", "MR")))
    else:
        segments.append(("PV1", *pv1))
    segments += [("DG1", str(index), "I10", code) for index, code in enumerate(diagnoses, 1)]
    return hl7v2.write([*segments, *extra])


def read(*messages: bytes, **arguments: Any) -> Intake:
    """Read messages received on 2026-03-10."""
    return read_adt(list(messages), **{"received_at": RECEIVED, **arguments})


def story(intake: Intake) -> list[tuple[str, str | None]]:
    """(trigger, why it was swallowed) of each event, in order of time."""
    return list(zip(*(intake.events[name].to_pylist() for name in ("trigger", "swallowed_reason")), strict=True))


def person(person_id: str, mrn: str, birth_date: str = "1960-01-01") -> dict[str, Any]:
    """A PERSON row, as far as resolution reads it."""
    names = {"last_name": "Zylstra", "first_name": "Odo"}
    return {"person_id": person_id, "mrn": mrn, "member_ids": [], "birth_date": birth_date, **names}


@pytest.fixture(scope="session", name="adt")
def adt_builder() -> Callable[..., bytes]:
    """The builder of messages, for property tests."""
    return adt


@pytest.fixture
def world() -> SimpleNamespace:
    """The builders above."""
    make: dict[str, Callable[..., Any] | Any] = {
        "adt": adt,
        "read": read,
        "story": story,
        "person": person,
        "RECEIVED": RECEIVED,
        "table": pa.Table.from_pylist,
    }
    return SimpleNamespace(**make)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1 with its key, in one PEM file."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = builder.add_extension(address, False).add_extension(x509.BasicConstraints(True, 0), True)
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = signed.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + pem)
    return path
