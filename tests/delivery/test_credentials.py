"""How channels prove who we are: tokens, passwords, keys, signatures, certificates."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import ssl
import threading
from datetime import datetime, timedelta

import asyncssh
import pytest

from hiexchange import hl7v2
from hiexchange.delivery import Outbox
from hiexchange.delivery.base import Parcel
from hiexchange.delivery.channel import ChannelSpec, current
from hiexchange.delivery.credentials import file_option, key_file, secret
from hiexchange.delivery.destinations import destination_for
from hiexchange.delivery.https import operation_outcome
from hiexchange.delivery.mllp import MLLPDestination
from hiexchange.delivery.sftp import SFTPDestination
from hiexchange.errors import ConfigError, DeliveryError, UnknownLayout
from hiexchange.testing.sftp_sink import PASSWORD, SFTPSink
from hiexchange.testing.sinks import Answer, HTTPSink, S3Sink, acknowledge


@pytest.fixture
def posted(exchange, open_outbox, now, monkeypatch):
    """Deliver one event over HTTP with these credentials; return the request's headers and body."""
    monkeypatch.setenv("A_USER", "exchange")
    monkeypatch.setenv("A_SECRET", "s3cret")

    def post(**credentials):
        with HTTPSink() as sink:
            subscription = exchange.subscription("c", sink.url, format="fhir", credentials=credentials)
            report = open_outbox().deliver(exchange.routing([exchange.event(1)], [subscription]), now=now)
            assert report.states == {"acked": 1}
            return sink.arrived[0]

    return post


def test_a_token_travels_as_bearer(posted):
    assert posted(token="env:A_SECRET").headers["Authorization"] == "Bearer s3cret"


def test_user_and_password_travel_as_basic(posted):
    expected = "Basic " + base64.b64encode(b"exchange:s3cret").decode()
    assert posted(username="env:A_USER", password="env:A_SECRET").headers["Authorization"] == expected


def test_a_signing_key_signs_the_body(posted):
    arrived = posted(signing_key="env:A_SECRET")
    expected = "sha256=" + hmac.new(b"s3cret", arrived.body, hashlib.sha256).hexdigest()
    assert arrived.headers["X-Hiexchange-Signature"] == expected


def test_without_credentials_nothing_is_sent(posted):
    arrived = posted()
    assert "Authorization" not in arrived.headers
    digest = base64.b64encode(hashlib.sha256(arrived.body).digest()).decode()
    assert arrived.headers["Content-Digest"] == f"sha-256=:{digest}:"


@pytest.mark.parametrize("url", ["http", "s3", "sftp"])
def test_a_missing_secret_waits_and_names_the_reference_only(exchange, open_outbox, now, tmp_path, url):
    with HTTPSink() as http, S3Sink() as s3, SFTPSink(tmp_path / "remote") as sftp:
        channel = {
            "http": (http.url, {"credentials": {"token": "env:NOT_SET"}}),
            "s3": ("s3://b/c", {"credentials": {"access_key_id": "env:NOT_SET"}, "options": {"endpoint": s3.endpoint}}),
            "sftp": (
                sftp.url,
                {
                    "credentials": {"password": "env:NOT_SET"},
                    "options": {"known_hosts": sftp.known_hosts(tmp_path / "known_hosts")},
                },
            ),
        }[url]
        outbox = open_outbox()
        routing = exchange.routing([exchange.event(1)], [exchange.subscription("c", channel[0], **channel[1])])
        report = outbox.deliver(routing, now=now)
        assert report.states == {"retry": 1}
        assert "env:NOT_SET" in report.problems["c/default"]


@pytest.mark.parametrize("known", [True, False])
def test_an_sftp_key_opens_the_door_only_where_it_is_known(tmp_path, known):
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(tmp_path / "id"), "pkcs8-pem", passphrase="long enough")
    (tmp_path / "phrase").write_text("long enough\n")
    with SFTPSink(tmp_path / "remote") as sink:
        sink.client_key = (key if known else asyncssh.generate_private_key("ssh-ed25519")).convert_to_public()
        spec = ChannelSpec(
            subscriber_id="a",
            channel_id="b",
            url=sink.url,
            options={"known_hosts": sink.known_hosts(tmp_path / "known_hosts")},
            credentials={"private_key": "file:id", "passphrase": "file:phrase"},
        )
        destination = SFTPDestination(spec, tmp_path)
        if known:
            destination.open()
        else:
            with pytest.raises(DeliveryError, match="PermissionDenied"):
                destination.open()
        destination.close()


def test_a_server_that_stops_answering_is_a_doubt(tmp_path, monkeypatch):
    monkeypatch.setenv("SINK_PASSWORD", PASSWORD)
    with SFTPSink(tmp_path / "remote") as sink:
        spec = ChannelSpec(
            subscriber_id="a",
            channel_id="b",
            url=f"{sink.url}~/",
            options={"known_hosts": sink.known_hosts(tmp_path / "known_hosts")},
            credentials={"password": "env:SINK_PASSWORD"},
        )
        destination = SFTPDestination(spec, tmp_path, idle_s=0.0)
        parcel = Parcel("k", "f.csv", b"x", hashlib.sha256(b"x").hexdigest(), "text/csv", 1, b"{}")
        destination.open()
        assert destination.send(parcel).state == "unknown"
        assert destination.probe(parcel) is None
        destination.close()


def test_a_folder_that_is_not_on_the_server_is_a_failure_to_connect(exchange, open_outbox, now, tmp_path, monkeypatch):
    monkeypatch.setenv("SINK_PASSWORD", PASSWORD)
    with SFTPSink(tmp_path / "remote") as sink:
        subscription = exchange.subscription(
            "c",
            f"{sink.url}absent",
            options={"known_hosts": sink.known_hosts(tmp_path / "known_hosts")},
            credentials={"password": "env:SINK_PASSWORD"},
        )
        report = open_outbox().deliver(exchange.routing([exchange.event(1)], [subscription]), now=now)
        assert report.problems == {"c/default": "the folder does not exist on the server"}


@pytest.fixture
def tls(certificate):
    """The context of a server for localhost, whose CA is ``cert.pem``."""
    return certificate(datetime(2026, 1, 1), datetime(2036, 1, 1))


@pytest.mark.parametrize(("ca", "state"), [("cert.pem", "acked"), (None, "retry")])
def test_mllps_speaks_only_to_a_receiver_it_can_verify(exchange, open_outbox, now, tls, ca, state):
    listener = socket.create_server(("127.0.0.1", 0))
    got: list[bytes] = []

    def serve():
        plain, _ = listener.accept()
        with plain:
            try:
                with tls.wrap_socket(plain, server_side=True) as secure:
                    frames = hl7v2.Frames()
                    while data := secure.recv(4096):
                        for whole in frames.feed(data):
                            got.append(whole)
                            secure.sendall(acknowledge("AA")(hl7v2.parse(whole)))
            except ssl.SSLError:
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    port = listener.getsockname()[1]
    options = {"ca_file": ca} if ca else {}
    subscription = exchange.subscription("c", f"mllps://localhost:{port}", format="hl7v2", options=options)
    outbox = open_outbox()
    report = outbox.deliver(exchange.routing([exchange.event(1)], [subscription]), now=now)
    thread.join(10)
    listener.close()
    assert report.states == {state: 1}
    assert bool(got) == (state == "acked")


def test_a_ca_file_that_is_no_certificate_sends_nothing(exchange, open_outbox, now, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"mllps://localhost:{listener.getsockname()[1]}"
    subscription = exchange.subscription("c", url, format="hl7v2", options={"ca_file": "ca.pem"})
    report = open_outbox().deliver(exchange.routing([exchange.event(1)], [subscription]), now=now)
    listener.close()
    assert report.states == {"retry": 1}


def test_an_mllp_receiver_that_went_away_is_connected_to_again(exchange, open_outbox, now):
    spec = ChannelSpec(subscriber_id="a", channel_id="b", url="mllp://127.0.0.1:9", format="hl7v2")
    destination = MLLPDestination(spec, open_outbox()._base)
    parcel = Parcel("k", "f.hl7", b"MSH|^~\\&|a", "", "", 1, b"{}")
    assert destination.send(parcel).state == "retry"


def test_files_named_in_a_channel_start_from_its_base(tmp_path):
    spec = ChannelSpec(
        subscriber_id="a",
        channel_id="b",
        url="in",
        options={"ca_file": "ca.pem"},
        credentials={"client_certificate": "file:client.pem", "token": "env:X"},
        credentials_base=str(tmp_path / "conf"),
    )
    assert file_option(spec, "ca_file", tmp_path) == str(tmp_path / "ca.pem")
    assert file_option(spec, "known_hosts", tmp_path) is None
    assert key_file(spec, "client_certificate", tmp_path) == str(tmp_path / "conf" / "client.pem")
    assert key_file(spec, "client_key", tmp_path) is None
    assert secret(spec, "password", tmp_path) is None


def test_a_literal_secret_is_refused_before_it_is_stored(exchange, open_outbox, now):
    from dataclasses import dataclass, field

    @dataclass(frozen=True)
    class Literal:
        id: str = "default"
        url: str = "https://host.example/in"
        credentials: dict = field(default_factory=lambda: {"password": "plain text"})

    @dataclass(frozen=True)
    class Subscription:
        id: str = "a"
        channels: tuple = (Literal(),)

    with pytest.raises(ConfigError) as caught:
        open_outbox().configure([Subscription()], now=now)
    assert "plain text" not in str(caught.value)


def test_an_unknown_transport_is_named_with_those_that_exist(tmp_path):
    with pytest.raises(UnknownLayout, match="sftp"):
        destination_for(ChannelSpec(subscriber_id="a", channel_id="b", url="fax://1"), tmp_path)


def test_of_several_spans_the_one_in_force_counts(exchange, now):
    spans = [
        exchange.subscription("a", "file:old") | {"active_to": "2026-11-01"},
        exchange.subscription("a", "file:new") | {"active_from": "2026-11-01"},
    ]
    routing = exchange.routing([], spans)
    assert [spec.url for spec in current(routing.subscriptions, now.date())] == ["file:new"]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", None),
        (b"ok", None),
        (b"{not json", None),
        (b"[1]", None),
        (b'{"resourceType":"Patient"}', None),
        (b'{"resourceType":"OperationOutcome","issue":[{"severity":"fatal"}]}', "processing"),
        (b'{"resourceType":"Bundle","entry":[{"resource":{"response":{"code":"ok"}}}]}', None),
        (b'{"resourceType":"Bundle","entry":[{"resource":{"response":{"code":"fatal-error"}}}]}', "processing"),
        (b'{"resourceType":"Bundle","entry":[{"resource":{"response":{"code":"transient-error"}}}]}', "transient"),
        (b'{"resourceType":"Bundle"}', None),
    ],
)
def test_what_a_body_says_about_failure(body, found):
    assert operation_outcome(body) == found


def test_an_empty_period_is_posted_as_its_manifest(exchange, open_outbox, now):
    with HTTPSink([Answer(200, drop=True)]) as sink:
        subscription = exchange.subscription("c", sink.url, format="csv", cadence="every 15 minutes")
        outbox = open_outbox()
        outbox.configure(exchange.routing([], [subscription]).subscriptions, now=now)
        outbox.run(now + timedelta(minutes=15))
        assert sink.arrived[0].headers["Content-Type"] == "application/json"
        # In doubt: the probe compares what was sent, which here is the manifest.
        outbox.run(now + timedelta(minutes=29))
        assert len(sink.arrived) == 1
        assert outbox.receipts()["outcome"].to_pylist() == ["unknown", "acked"]


def test_a_ledger_can_be_a_store_of_ones_own(tmp_path):
    from hiexchange.delivery.sqlite import SQLiteStore

    with Outbox(store=SQLiteStore(tmp_path / "x.sqlite"), base=tmp_path) as outbox:
        assert outbox.verify().ok
