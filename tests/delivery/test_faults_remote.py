"""What other computers do to us, each fault against a real server."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime, timedelta

import asyncssh
import pytest

from hiexchange.delivery import RetryPolicy
from hiexchange.delivery.channel import current
from hiexchange.delivery.https import POLICY, HTTPSDestination
from hiexchange.delivery.mllp import MLLPDestination
from hiexchange.errors import ConfigError
from hiexchange.testing.sftp_sink import PASSWORD, SFTPSink
from hiexchange.testing.sinks import Answer, HTTPSink, MLLPSink, S3Sink, acknowledge, hang_up

OUTCOME = b'{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"%s"}]}'


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    """Secrets by reference, as a configuration names them."""
    monkeypatch.setenv("SINK_PASSWORD", PASSWORD)
    monkeypatch.setenv("SINK_KEY_ID", "sink")
    monkeypatch.setenv("SINK_KEY", "sink-secret")
    monkeypatch.setenv("WRONG", "not-the-password")


def codes(outbox) -> list[tuple[str, str]]:
    return [(row["outcome"], row["transport_code"]) for row in outbox.receipts().to_pylist()]


# HTTPS ----------------------------------------------------------------------------------------------


@pytest.fixture
def by_https(exchange, open_outbox, now):
    """Deliver one event to a scripted HTTP sink; return the outbox and the sink's url."""

    def deliver(sink, **given):
        outbox = open_outbox(**given)
        subscription = exchange.subscription("c", sink.url, format="ndjson")
        outbox.deliver(exchange.routing([exchange.event(1)], [subscription]), now=now)
        return outbox

    return deliver


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_a_refusal_that_can_pass_is_tried_again(by_https, now, status):
    with HTTPSink([Answer(status)]) as sink:
        outbox = by_https(sink)
        assert outbox.deliveries()["state"].to_pylist() == ["retry"]
        assert outbox.run(now + timedelta(minutes=5)).states == {"acked": 1}
        assert len({item.key for item in sink.arrived}) == len(sink.arrived) == 1


@pytest.mark.parametrize("status", [408, 502, 504])
def test_a_gateways_answer_is_a_doubt_and_is_tried_again(by_https, now, status):
    with HTTPSink([Answer(status)]) as sink:
        outbox = by_https(sink)
        assert codes(outbox) == [("unknown", f"HTTP {status}")]
        assert outbox.run(now + timedelta(minutes=5)).states == {"acked": 1}
        assert len(sink.arrived) == 1


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refusal_that_will_not_pass_is_parked_and_can_be_requeued(by_https, now, status):
    with HTTPSink([Answer(status)]) as sink:
        outbox = by_https(sink)
        assert codes(outbox) == [("dead", f"HTTP {status}")]
        assert outbox.run(now + timedelta(days=1)).states == {"dead": 1}
        assert outbox.retry(now=now) == 1
        assert outbox.run(now).states == {"acked": 1}


def test_retry_after_is_honoured(by_https, now):
    with HTTPSink([Answer(429, headers=(("Retry-After", "3600"),))]) as sink:
        outbox = by_https(sink)
        assert outbox.run(now + timedelta(minutes=59)).states == {"retry": 1}
        assert outbox.run(now + timedelta(minutes=61)).states == {"acked": 1}


def test_retry_after_leaves_the_whole_endpoint_alone(exchange, open_outbox, now):
    with HTTPSink([Answer(429, headers=(("Retry-After", "3600"),))]) as sink:
        outbox = open_outbox()
        events = [exchange.event(number) for number in range(5)]
        routing = exchange.routing(events, [exchange.subscription("c", sink.url, format="fhir")])
        assert outbox.deliver(routing, now=now).states == {"retry": 1, "pending": 4}
        assert sink.arrived == []
        assert outbox.due(now + timedelta(minutes=30)) == ()
        assert outbox.run(now + timedelta(hours=2)).states == {"acked": 5}


@pytest.mark.parametrize(("issue", "state"), [(b"processing", "dead"), (b"throttled", "retry")])
def test_success_with_an_error_in_the_body_is_no_success(by_https, issue, state):
    with HTTPSink([Answer(200, OUTCOME % issue)]) as sink:
        assert codes(by_https(sink)) == [(state, f"HTTP 200 OperationOutcome {issue.decode()}")]


def test_a_warning_in_the_body_is_success(by_https):
    body = b'{"resourceType":"OperationOutcome","issue":[{"severity":"information","code":"informational"}]}'
    with HTTPSink([Answer(200, body)]) as sink:
        assert codes(by_https(sink)) == [("acked", "HTTP 200")]


def test_a_conflict_is_looked_up_before_it_is_believed(by_https, now):
    with HTTPSink([Answer(200, drop=True)], probes=False) as sink:
        outbox = by_https(sink)
        assert codes(outbox)[0][0] == "unknown"
        sink.probes = True
        sink.script = [Answer(409)]
        assert outbox.run(now + timedelta(hours=1)).states == {"acked": 1}
        assert len(sink.arrived) == 1  # the probe found it: it was not even sent again


def test_a_conflict_that_is_there_already_is_success(exchange, open_outbox, now):
    with HTTPSink() as sink:
        outbox = open_outbox()
        routing = exchange.routing([exchange.event(1)], [exchange.subscription("c", sink.url, format="fhir")])
        spec = current(routing.subscriptions, now.date())[0]

        class AsIfNew(HTTPSDestination):
            """Sends it first by another way, so that the receiver has it already."""

            def send(self, parcel):
                super().send(parcel)
                sink.script = [Answer(409)]
                return super().send(parcel)

        outbox.deliver(routing, now=now, destinations={"c": AsIfNew(spec, outbox._base)})
        assert codes(outbox) == [("acked", "HTTP 409, already there")]


def test_a_connection_lost_after_the_last_byte_is_settled_by_a_probe(by_https, now):
    with HTTPSink([Answer(200, drop=True)]) as sink:
        outbox = by_https(sink)
        assert outbox.deliveries()["state"].to_pylist() == ["unknown"]
        outbox.run(now + timedelta(hours=1))
        assert codes(outbox)[-1] == ("acked", "probe: already there")
        assert len(sink.arrived) == 1


def test_without_a_probe_the_same_bytes_go_under_the_same_key(by_https, now):
    with HTTPSink([Answer(200, drop=True)], probes=False) as sink:
        outbox = by_https(sink)
        assert outbox.run(now + timedelta(hours=1)).states == {"acked": 1}
        first, second = sink.arrived
        assert (first.key, first.body) == (second.key, second.body)


def test_a_slow_endpoint_leaves_a_doubt_not_a_success(exchange, open_outbox, now):
    from dataclasses import replace

    with HTTPSink([Answer(delay_s=1.0)]) as sink:
        outbox = open_outbox()
        routing = exchange.routing([exchange.event(1)], [exchange.subscription("c", sink.url, format="fhir")])
        spec = current(routing.subscriptions, now.date())[0]
        hasty = HTTPSDestination(spec, outbox._base, policy=replace(POLICY, read_timeout_s=0.2))
        outbox.deliver(routing, now=now, destinations={"c": hasty})
        assert codes(outbox) == [("unknown", "the server stopped answering")]


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/other", "http://elsewhere.example/in"])
def test_a_redirect_is_refused(by_https, target):
    with HTTPSink([Answer(307, headers=(("Location", target),))]) as sink:
        assert codes(by_https(sink)) == [("dead", "redirect refused")]


def test_an_endpoint_that_is_down_is_retried_and_no_byte_was_sent(exchange, open_outbox, now):
    with HTTPSink() as sink:
        url = sink.url
    outbox = open_outbox()
    routing = exchange.routing([exchange.event(1)], [exchange.subscription("c", url, format="fhir")])
    assert outbox.deliver(routing, now=now).states == {"retry": 1}


@pytest.mark.parametrize(("ends", "state"), [(datetime(2036, 1, 1), "acked"), (datetime(2026, 1, 2), "retry")])
def test_an_expired_certificate_gets_no_data(exchange, open_outbox, now, tmp_path, certificate, ends, state):
    with HTTPSink(tls=certificate(datetime(2026, 1, 1), ends)) as sink:
        subscription = exchange.subscription("c", sink.url, format="fhir", options={"ca_file": "cert.pem"})
        outbox = open_outbox()
        outbox.deliver(exchange.routing([exchange.event(1)], [subscription]), now=now)
        assert outbox.deliveries()["state"].to_pylist() == [state]
        assert bool(sink.arrived) == (state == "acked")


def test_a_circuit_opens_after_failures_and_one_parcel_probes_it(exchange, open_outbox, now):
    policy = RetryPolicy(first_s=1, cap_s=1, jitter=0, breaker_failures=3, breaker_s=600)
    with HTTPSink([Answer(503)] * 4) as sink:
        outbox = open_outbox(retry=policy)
        events = [exchange.event(number) for number in range(10)]
        routing = exchange.routing(events, [exchange.subscription("c", sink.url, format="fhir")])
        assert outbox.deliver(routing, now=now).states == {"retry": 3, "pending": 7}
        assert outbox.due(now + timedelta(minutes=5)) == ()
        assert outbox.run(now + timedelta(minutes=5)).batches_failed == 0  # left alone
        assert outbox.run(now + timedelta(minutes=11)).batches_failed == 1  # half open: one, and it failed
        assert outbox.run(now + timedelta(minutes=22)).states == {"acked": 10}


def test_one_subscribers_dead_endpoint_does_not_hold_the_others(exchange, open_outbox, now, tmp_path):
    with HTTPSink([Answer(500)] * 50) as sink:
        subscribers = [exchange.subscription("bad", sink.url, format="fhir"), exchange.subscription("good", "file:in")]
        outbox = open_outbox()
        report = outbox.deliver(exchange.routing([exchange.event(1), exchange.event(2)], subscribers), now=now)
        assert report.states["acked"] == 2


# MLLP -----------------------------------------------------------------------------------------------


@pytest.fixture
def by_mllp(exchange, open_outbox, now):
    """Deliver events to a scripted MLLP sink by a destination that waits half a second for its answer."""

    def deliver(sink, *, events=1, at=now, outbox=None):
        outbox = outbox or open_outbox()
        routing = exchange.routing(
            [exchange.event(number) for number in range(events)],
            [exchange.subscription("c", sink.url, format="hl7v2")],
        )
        spec = current(routing.subscriptions, now.date())[0]
        destination = MLLPDestination(spec, outbox._base, ack_s=0.5)
        outbox.enqueue(routing, now=now)
        outbox.run(at, destinations={"c": destination})
        return outbox

    return deliver


def test_an_application_error_is_tried_again_with_the_same_control_id(by_mllp, now):
    with MLLPSink([acknowledge("AE", error_code="207")]) as sink:
        outbox = by_mllp(sink)
        assert codes(outbox) == [("retry", "AE 207")]
        by_mllp(sink, at=now + timedelta(hours=1), outbox=outbox)
        assert codes(outbox)[-1] == ("acked", "AA")
        first, second = sink.arrived
        assert (first.key, first.body) == (second.key, second.body)


def test_a_rejection_is_parked(by_mllp):
    with MLLPSink([acknowledge("AR", error_code="101")]) as sink:
        assert codes(by_mllp(sink)) == [("dead", "AR 101")]


def test_an_acknowledgement_of_another_message_is_not_ours(by_mllp, now):
    with MLLPSink([acknowledge("AA", control_id="SOMEBODYELSE")]) as sink:
        outbox = by_mllp(sink)
        assert codes(outbox) == [("unknown", "no acknowledgement in time")]


def test_a_late_acknowledgement_is_never_taken_for_the_next_messages(by_mllp, now):
    def late(message):
        time.sleep(0.8)  # after the sender has given up and closed the socket
        return acknowledge("AA")(message)

    with MLLPSink([late]) as sink:
        outbox = by_mllp(sink, events=2)
        states = sorted(outbox.deliveries()["state"].to_pylist())
        assert states == ["acked", "unknown"]
        by_mllp(sink, events=2, at=now + timedelta(hours=1), outbox=outbox)
        assert outbox.deliveries()["state"].to_pylist() == ["acked", "acked"]
        assert len({item.key for item in sink.arrived}) == 2


def test_a_stray_acknowledgement_before_the_right_one_is_read_past(by_mllp):
    def both(message):
        return acknowledge("AA", control_id="EARLIER")(message) + acknowledge("AA")(message)

    with MLLPSink([both]) as sink:
        assert codes(by_mllp(sink)) == [("acked", "AA")]


def test_a_hang_up_without_answer_is_a_doubt_and_the_queue_goes_on(by_mllp, now):
    with MLLPSink([hang_up]) as sink:
        outbox = by_mllp(sink, events=3)
        assert sorted(outbox.deliveries()["state"].to_pylist()) == ["acked", "acked", "unknown"]
        by_mllp(sink, events=3, at=now + timedelta(hours=1), outbox=outbox)
        assert set(outbox.deliveries()["state"].to_pylist()) == {"acked"}


def test_an_answer_that_is_no_acknowledgement_is_a_doubt(by_mllp):
    with MLLPSink([lambda message: b"\x0bMSH|^~\\&|x\r\x1c\r"]) as sink:
        assert codes(by_mllp(sink))[0][0] == "unknown"


def test_mllp_takes_hl7_only(exchange, open_outbox, now):
    with MLLPSink() as sink:
        report = open_outbox().deliver(
            exchange.routing([exchange.event(1)], [exchange.subscription("c", sink.url, format="csv")]), now=now
        )
        assert report.states == {"pending": 1}
        assert "MLLP" in report.problems["c/default"]


# SFTP -----------------------------------------------------------------------------------------------


@pytest.fixture
def by_sftp(exchange, open_outbox, now, tmp_path):
    """Deliver one event to an SFTP sink; ``given`` overrides the channel."""

    def deliver(sink, *, at=now, key=None, outbox=None, **given):
        outbox = outbox or open_outbox()
        channel = {
            "options": {"known_hosts": sink.known_hosts(tmp_path / "known_hosts", key=key)},
            "credentials": {"password": "env:SINK_PASSWORD"},
        } | given
        routing = exchange.routing([exchange.event(1)], [exchange.subscription("c", sink.url, **channel)])
        outbox.enqueue(routing, now=now)
        outbox.run(at)
        return outbox

    return deliver


def test_a_wrong_host_key_gets_no_password_and_no_data(by_sftp, tmp_path):
    with SFTPSink(tmp_path / "remote") as sink:
        outbox = by_sftp(sink, key=asyncssh.generate_private_key("ssh-ed25519"))
        assert codes(outbox) == [("retry", "cannot connect: HostKeyNotVerifiable")]
        assert sink.renamed == []


def test_a_missing_known_hosts_file_is_no_permission_to_trust(by_sftp, tmp_path):
    with SFTPSink(tmp_path / "remote") as sink:
        outbox = by_sftp(sink, options={"known_hosts": "absent"})
        assert codes(outbox) == [("retry", "there is no known_hosts file")]


def test_a_wrong_password_waits_and_goes_after_it_is_repaired(by_sftp, now, tmp_path):
    with SFTPSink(tmp_path / "remote") as sink:
        outbox = by_sftp(sink, credentials={"password": "env:WRONG"})
        assert codes(outbox) == [("retry", "cannot connect: PermissionDenied")]
        by_sftp(sink, at=now + timedelta(hours=1), outbox=outbox)
        assert codes(outbox)[-1] == ("acked", "manifest renamed")


@pytest.mark.parametrize(
    ("fault", "code"), [("disk full", "SFTPNoSpaceOnFilesystem"), ("rename refused", "SFTPPermissionDenied")]
)
def test_a_server_that_cannot_take_the_file_keeps_no_final_name(by_sftp, now, tmp_path, fault, code):
    with SFTPSink(tmp_path / "remote", faults=[fault]) as sink:
        outbox = by_sftp(sink)
        assert codes(outbox)[0][0] == "retry"
        assert sink.renamed == []
        by_sftp(sink, at=now + timedelta(hours=1), outbox=outbox)
        assert codes(outbox)[-1] == ("acked", "manifest renamed")
        assert len(sink.renamed) == 2


def test_a_full_quota_is_tried_again_until_there_is_room(by_sftp, now, tmp_path):
    with SFTPSink(tmp_path / "remote") as sink:
        outbox = by_sftp(sink)
        assert codes(outbox)[-1][0] == "acked"
        sink.quota_bytes = sum(path.stat().st_size for path in sink.folder.iterdir()) + 100
        outbox.replay(now=now, subscriber_id="c", period=(now - timedelta(days=1), now + timedelta(days=1)))
        by_sftp(sink, at=now + timedelta(hours=1), outbox=outbox)
        state, code = codes(outbox)[-1]
        assert (state, code) in {("retry", "SFTPQuotaExceeded"), ("retry", "SFTPFailure")}
        assert len(sink.renamed) == 2
        sink.quota_bytes = 10**9
        by_sftp(sink, at=now + timedelta(hours=3), outbox=outbox)
        assert codes(outbox)[-1] == ("acked", "manifest renamed")
        assert len(sink.renamed) == 4
        assert not [path for path in sink.folder.iterdir() if path.name.endswith(".part")]


def test_a_connection_dropped_within_the_file_is_sent_again(by_sftp, now, tmp_path):
    with SFTPSink(tmp_path / "remote", faults=["drop"]) as sink:
        outbox = by_sftp(sink)
        assert codes(outbox)[0][0] == "unknown"
        by_sftp(sink, at=now + timedelta(hours=1), outbox=outbox)
        assert codes(outbox)[-1] == ("acked", "manifest renamed")


def test_a_connection_dropped_after_the_last_rename_is_settled_by_a_probe(by_sftp, now, tmp_path):
    with SFTPSink(tmp_path / "remote") as sink:
        sink._fault = lambda *names, original=sink._fault: (
            "drop after rename" if "drop after rename" in names and len(sink.renamed) == 1 else original(*names)
        )
        outbox = by_sftp(sink)
        assert codes(outbox)[0][0] == "unknown"
        assert len(sink.renamed) == 2
        by_sftp(sink, at=now + timedelta(hours=1), outbox=outbox)
        assert codes(outbox)[-1] == ("acked", "probe: already there")
        assert len(sink.renamed) == 2


def test_a_server_without_posix_rename_replaces_its_own_earlier_file(by_sftp, now, tmp_path):
    with SFTPSink(tmp_path / "remote", faults=["drop after rename"], posix_rename=False) as sink:
        outbox = by_sftp(sink)
        assert codes(outbox)[0][0] == "unknown"
        by_sftp(sink, at=now + timedelta(hours=1), outbox=outbox)
        assert codes(outbox)[-1] == ("acked", "manifest renamed")
        assert sorted({item.name for item in sink.renamed}) == [
            "c_default_000001.csv",
            "c_default_000001.csv.manifest.json",
        ]


# S3 -------------------------------------------------------------------------------------------------


@pytest.fixture
def by_s3(exchange, open_outbox, now):
    """Deliver one event to an S3 sink."""

    def deliver(sink, *, at=now, outbox=None, secret="env:SINK_KEY"):
        outbox = outbox or open_outbox()
        subscription = exchange.subscription(
            "c",
            "s3://bucket/in",
            options={"endpoint": sink.endpoint},
            credentials={"access_key_id": "env:SINK_KEY_ID", "secret_access_key": secret},
        )
        outbox.enqueue(exchange.routing([exchange.event(1)], [subscription]), now=now)
        outbox.run(at)
        return outbox

    return deliver


def test_an_object_that_is_there_with_the_same_bytes_is_done(by_s3, now):
    with S3Sink([Answer(200, drop=True)]) as sink:
        outbox = by_s3(sink)
        assert codes(outbox)[0][0] == "unknown"
        by_s3(sink, at=now + timedelta(hours=1), outbox=outbox)
        assert codes(outbox)[-1][0] == "acked"
        assert [status for _, status in sink.puts] == [200, 412, 200]


def test_an_object_of_another_is_never_overwritten(by_s3):
    with S3Sink() as sink:
        sink.objects["/bucket/in/c_default_000001.csv"] = b"another's"
        assert codes(by_s3(sink)) == [("dead", "another object has that name")]
        assert sink.objects["/bucket/in/c_default_000001.csv"] == b"another's"


def test_a_wrong_key_is_refused_and_retried(by_s3, now):
    with S3Sink() as sink:
        outbox = by_s3(sink, secret="env:WRONG")
        assert codes(outbox)[0][0] == "retry"
        assert sink.objects == {}
        by_s3(sink, at=now + timedelta(hours=1), outbox=outbox)
        assert codes(outbox)[-1][0] == "acked"


# PGP ------------------------------------------------------------------------------------------------


def _pgp(exchange, key="key.pgp"):
    return exchange.subscription("c", "file:in", encryption="pgp", pgp_key=key)


def test_a_file_is_encrypted_once_and_only_its_recipient_reads_it(exchange, open_outbox, now, tmp_path):
    import pysequoia

    mine, other = (pysequoia.Tsk.generate(user_id=name) for name in ("clinic@example.org", "other@example.org"))
    (tmp_path / "key.pgp").write_bytes(bytes(mine.extract_certificate()))
    outbox = open_outbox()
    outbox.deliver(exchange.routing([exchange.event(1)], [_pgp(exchange)]), now=now)
    data = (tmp_path / "in" / "c_default_000001.csv.pgp").read_bytes()
    assert b"General Hospital" not in data
    plain = pysequoia.decrypt(data, decryptor=mine.decryptor())
    assert b"General Hospital" in plain.bytes
    with pytest.raises(Exception, match=r"."):
        pysequoia.decrypt(data, decryptor=other.decryptor())
    assert outbox.receipts()["size_bytes"].to_pylist() == [len(data)]


@pytest.mark.parametrize("fault", ["expired", "revoked", "missing"])
def test_an_unusable_key_seals_nothing_and_stops_nobody_else(exchange, open_outbox, now, tmp_path, fault):
    import pysequoia

    key = pysequoia.Tsk.generate(user_id="clinic@example.org", validity_seconds=3600)
    certificate = key.extract_certificate()
    if fault == "revoked":
        certificate = certificate.revoke(key.certifier())
    if fault != "missing":
        (tmp_path / "key.pgp").write_bytes(bytes(certificate))
    outbox = open_outbox()
    routing = exchange.routing([exchange.event(1)], [_pgp(exchange), exchange.subscription("d", "file:other")])
    # The run's clock decides: an hour and more after the real one the certificate has expired.
    at = datetime.now(UTC) + timedelta(hours=2) if fault == "expired" else now
    report = outbox.deliver(routing, now=at)
    assert report.states == {"pending": 1, "acked": 1}
    assert "c/default" in report.problems
    assert not (tmp_path / "in").exists()


# Zip ------------------------------------------------------------------------------------------------


def _zip(exchange, password="file:zip.txt"):
    return exchange.subscription("c", "file:in", encryption="zip", credentials={"zip_password": password})


def test_an_archive_opens_with_its_password_alone(exchange, open_outbox, now, tmp_path):
    import pyzipper

    (tmp_path / "zip.txt").write_text("correct horse battery\n")
    outbox = open_outbox()
    report = outbox.deliver(exchange.routing([exchange.event(1)], [_zip(exchange)]), now=now)
    assert report.states == {"acked": 1}
    (path,) = (tmp_path / "in").glob("*.zip")
    assert path.name == "c_default_000001.csv.zip"
    manifest = json.loads((tmp_path / "in" / "c_default_000001.csv.zip.manifest.json").read_text())
    assert (manifest["file"], manifest["sha256"]) == (path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    with pyzipper.AESZipFile(path) as archive:
        (entry,) = archive.infolist()
        assert (entry.filename, entry.wz_aes_strength, entry.date_time[0]) == ("c_default_000001.csv", 3, 1980)
        archive.setpassword(b"correct horse battery")
        assert b"General Hospital" in archive.read(entry)
        archive.setpassword(b"another password")
        with pytest.raises(RuntimeError):
            archive.read(entry)
    assert b"General Hospital" not in path.read_bytes()
    assert outbox.verify().ok


@pytest.mark.parametrize("password", ["too short", None])
def test_without_a_good_password_nothing_is_sealed(exchange, open_outbox, now, tmp_path, password):
    if password:
        (tmp_path / "zip.txt").write_text(password)
    routing = exchange.routing([exchange.event(1)], [_zip(exchange), exchange.subscription("d", "file:other")])
    report = open_outbox().deliver(routing, now=now)
    assert report.states == {"pending": 1, "acked": 1}
    assert password is None or password not in report.problems["c/default"]
    assert not (tmp_path / "in").exists()


def test_zip_without_a_password_is_refused_by_the_subscription(exchange):
    with pytest.raises(ConfigError, match="no password"):
        exchange.routing([], [exchange.subscription("c", "file:in", encryption="zip")])


def test_retries_end_in_a_dead_letter_that_says_why(by_https, now):
    policy = RetryPolicy(first_s=1, cap_s=1, jitter=0, max_attempts=3, breaker_failures=100)
    with HTTPSink([Answer(500)] * 3) as sink:
        outbox = by_https(sink, retry=policy)
        for minute in (1, 2, 3):
            outbox.run(now + timedelta(minutes=minute))
        (row,) = outbox.deliveries().to_pylist()
        assert (row["state"], row["attempts"], row["reason"]) == ("dead", 3, "given up after 3 attempts: HTTP 500")


def test_waits_grow_and_are_spread_but_never_beyond_the_cap():
    policy = RetryPolicy(first_s=10, cap_s=100, jitter=0.5)
    waits = [policy.wait_s("batch", attempt, None) for attempt in range(1, 12)]
    assert all(0.5 * min(100, 10 * 2 ** (n - 1)) <= wait <= 1.5 * 100 for n, wait in enumerate(waits, 1))
    assert policy.wait_s("batch", 1, None) == policy.wait_s("batch", 1, None) != policy.wait_s("other", 1, None)
    assert policy.wait_s("batch", 1, 7.0) == 7.0


def test_the_clock_of_attempts_is_the_runs_own(by_https, now):
    with HTTPSink() as sink:
        (receipt,) = by_https(sink).receipts().to_pylist()
        assert now <= receipt["started_at"] <= receipt["ended_at"] < now + timedelta(minutes=1)
        assert receipt["started_at"].tzinfo is not None
        assert receipt["started_at"].astimezone(UTC).date() == now.date()
