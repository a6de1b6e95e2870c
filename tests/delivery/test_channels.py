"""Every channel against a real server on loopback."""

from __future__ import annotations

import json

import pytest

from hiexchange import hl7v2
from hiexchange.testing.sftp_sink import PASSWORD, SFTPSink
from hiexchange.testing.sinks import HTTPSink, MLLPSink, S3Sink


@pytest.fixture
def keys(monkeypatch):
    """Secrets by reference, as a configuration names them."""
    monkeypatch.setenv("SINK_PASSWORD", PASSWORD)
    monkeypatch.setenv("SINK_KEY_ID", "sink")
    monkeypatch.setenv("SINK_KEY", "sink-secret")


def test_https_takes_a_bundle_for_each_event(exchange, open_outbox, now):
    with HTTPSink() as sink:
        routing = exchange.routing(
            [exchange.event(number) for number in (1, 2)], [exchange.subscription("c", sink.url, format="fhir")]
        )
        outbox = open_outbox()
        report = outbox.deliver(routing, now=now, persons=exchange.persons(1, 2))
        assert report.states == {"acked": 2}
        assert [item.key for item in sink.arrived] == [
            row["delivery_id"] for row in sorted(outbox.deliveries().to_pylist(), key=lambda row: row["sequence"])
        ]
        assert [item.headers["X-Hiexchange-Sequence"] for item in sink.arrived] == ["1", "2"]
        bundle = json.loads(sink.arrived[0].body)
        assert bundle["identifier"]["value"] == sink.arrived[0].key
        assert [entry["resource"]["resourceType"] for entry in bundle["entry"]][:3] == [
            "MessageHeader",
            "Encounter",
            "Patient",
        ]


def test_mllp_takes_an_adt_message_for_each_event(exchange, open_outbox, now):
    with MLLPSink() as sink:
        routing = exchange.routing([exchange.event(1)], [exchange.subscription("c", sink.url, format="hl7v2")])
        outbox = open_outbox()
        report = outbox.deliver(routing, now=now, persons=exchange.persons(1))
        assert report.states == {"acked": 1}
        (arrived,) = sink.arrived
        (delivery,) = outbox.deliveries().to_pylist()
        assert arrived.key == delivery["delivery_id"][:20]
        message = hl7v2.parse(arrived.body)
        assert message.value("MSH-9.2") == "A01"
        assert message.value("PID-18") == "v1"
        assert message.value("PID-5.1") == "Invented1"
        assert outbox.receipts().to_pylist()[0]["transport_code"] == "AA"


def test_s3_takes_file_and_manifest(exchange, open_outbox, now, keys):
    with S3Sink() as sink:
        subscription = exchange.subscription(
            "c",
            "s3://bucket/incoming",
            format="parquet",
            options={"endpoint": sink.endpoint},
            credentials={"access_key_id": "env:SINK_KEY_ID", "secret_access_key": "env:SINK_KEY"},
        )
        report = open_outbox().deliver(exchange.routing([exchange.event(1)], [subscription]), now=now)
        assert report.states == {"acked": 1}
        assert sorted(sink.objects) == [
            "/bucket/incoming/c_default_000001.parquet",
            "/bucket/incoming/c_default_000001.parquet.manifest.json",
        ]


def test_sftp_takes_file_and_manifest(exchange, open_outbox, now, keys, tmp_path):
    with SFTPSink(tmp_path / "remote") as sink:
        subscription = exchange.subscription(
            "c",
            sink.url,
            format="xlsx",
            options={"known_hosts": sink.known_hosts(tmp_path / "known_hosts")},
            credentials={"password": "env:SINK_PASSWORD"},
        )
        report = open_outbox().deliver(exchange.routing([exchange.event(1)], [subscription]), now=now)
        assert report.states == {"acked": 1}
        assert [item.name for item in sink.renamed] == [
            "c_default_000001.xlsx",
            "c_default_000001.xlsx.manifest.json",
        ]
        assert sorted(path.name for path in sink.folder.iterdir()) == [item.name for item in sink.renamed]
