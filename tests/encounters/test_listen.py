"""The MLLP listener: on disk before it is acknowledged."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from hiexchange import hl7v2
from hiexchange.encounters import read_adt
from hiexchange.encounters.listen import MLLPListener, server_tls
from hiexchange.errors import ConfigError
from hiexchange.testing.mllp import MLLPSender

CLOCK = datetime(2026, 3, 10, 12, 0, 0, 5, tzinfo=UTC)


def stored(inbox: Path) -> list[str]:
    return [hl7v2.parse(file.read_bytes()).control_id for file in sorted(inbox.rglob("2*/*.hl7"))]


def test_a_message_is_on_disk_when_its_ack_arrives(world: SimpleNamespace, tmp_path: Path) -> None:
    with MLLPListener(tmp_path, port=0, clock=lambda: CLOCK) as listener, MLLPSender(listener.port) as sender:
        for number in range(5):
            message = world.adt("A01", control=f"C{number}", visit=f"V{number}")
            answer = sender.send(message, cut=7 * number)
            assert answer == hl7v2.Ack("AA", f"C{number}")
            assert stored(tmp_path) == [f"C{index}" for index in range(number + 1)]
        assert listener.counts.stored == 5
    events = read_adt(tmp_path, received_at=datetime(2030, 1, 1, tzinfo=UTC)).events
    assert set(events["received_at"].to_pylist()) == {CLOCK}
    assert {path.stat().st_mode & 0o077 for path in tmp_path.rglob("*.hl7")} == {0}


def test_unreadable_messages_are_refused_and_kept_apart(world: SimpleNamespace, tmp_path: Path) -> None:
    with MLLPListener(tmp_path, port=0) as listener, MLLPSender(listener.port) as sender:
        assert sender.send(b"no message").code == "AR"
        nameless = world.adt("A01", control="CTRL").replace(b"|CTRL|", b"||")
        assert sender.send(nameless) == hl7v2.Ack("AR", "", "101")
        assert sender.send(world.adt("A31", control="C1")).code == "AA"
    assert len(list((tmp_path / "refused").iterdir())) == 2
    assert listener.counts.refused == 2


def test_a_message_that_cannot_be_stored_is_not_acknowledged(world: SimpleNamespace, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.write_text("a file where the folder should be")
    with MLLPListener(inbox, port=0) as listener, MLLPSender(listener.port) as sender:
        assert sender.send(world.adt("A01", control="C1")) == hl7v2.Ack("AE", "C1", "207")
        assert listener.counts.failed == 1


def test_names_hold_nothing_of_the_message(world: SimpleNamespace, tmp_path: Path) -> None:
    with MLLPListener(tmp_path, port=0) as listener, MLLPSender(listener.port) as sender:
        sender.send(world.adt("A01", control="Zylstra-1960"))
    assert not [path for path in tmp_path.rglob("*") if "Zylstra" in path.name]


def test_stored_messages_are_handed_on_after_the_ack(world: SimpleNamespace, tmp_path: Path) -> None:
    got: list[bytes] = []
    message = world.adt("A01")
    listener = MLLPListener(tmp_path, port=0, on_message=lambda raw: got.append(raw.data))
    with listener, MLLPSender(listener.port) as sender:
        sender.send(message)
        sender.send(message)
        sender.send(b"junk")
    assert got == [message, message]


def test_a_half_message_and_a_hang_up_leave_nothing(world: SimpleNamespace, tmp_path: Path) -> None:
    with MLLPListener(tmp_path, port=0) as listener:
        with MLLPSender(listener.port) as sender:
            sender.raw(hl7v2.frame(world.adt("A01"))[:-10])
        with MLLPSender(listener.port) as sender:
            assert sender.send(world.adt("A01", control="C2")).accepted
    assert stored(tmp_path) == ["C2"]


def test_a_taken_port_is_one_clear_message(tmp_path: Path) -> None:
    with MLLPListener(tmp_path, port=0) as listener, pytest.raises(ConfigError, match="cannot listen"):
        MLLPListener(tmp_path, port=listener.port)


def test_tls_with_a_client_certificate(world: SimpleNamespace, tmp_path: Path, certificate: Path) -> None:
    server = server_tls(certificate, client_ca=certificate)
    client = ssl.create_default_context(cafile=str(certificate))
    client.load_cert_chain(certificate)
    with MLLPListener(tmp_path / "in", port=0, tls=server) as listener:
        with MLLPSender(listener.port, tls=client, host="127.0.0.1") as sender:
            assert sender.send(world.adt("A01", control="C1")).accepted
        stranger = ssl.create_default_context(cafile=str(certificate))
        with pytest.raises((ssl.SSLError, ConnectionError)), MLLPSender(listener.port, tls=stranger) as sender:
            sender.send(world.adt("A01", control="C2"))
    assert stored(tmp_path / "in") == ["C1"]
    with pytest.raises(ConfigError, match="certificate"):
        server_tls(tmp_path / "absent.pem")


@pytest.mark.kill
def test_nothing_acknowledged_is_lost_when_the_listener_is_killed(world: SimpleNamespace, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from hiexchange.cli import main; main()", "listen", str(tmp_path), "--port", "0"]
    acknowledged = []
    for round_ in range(5):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        port = int(process.stdout.readline().split(":")[1].split()[0])
        with process.stdout, MLLPSender(port) as sender:
            for number in range(10 + round_):
                control = f"R{round_}N{number}"
                if sender.send(world.adt("A01", control=control, visit=control)).accepted:
                    acknowledged.append(control)
            sender.raw(hl7v2.frame(world.adt("A01"))[: 40 * round_ + 1])
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert set(acknowledged) <= set(stored(tmp_path))
    assert len(acknowledged) == sum(range(10, 15))
