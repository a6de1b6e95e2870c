"""Our own destinations and formats against the checks that users run on theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiexchange.delivery.channel import ChannelSpec
from hiexchange.delivery.folder import FolderDestination, folder_path
from hiexchange.delivery.formats import BUILT_IN, format_named
from hiexchange.delivery.s3 import S3Destination
from hiexchange.delivery.sftp import SFTPDestination
from hiexchange.testing.delivery_checks import DestinationChecks, check_format
from hiexchange.testing.sftp_sink import PASSWORD, SFTPSink
from hiexchange.testing.sinks import S3Sink


class TestFolder(DestinationChecks):
    @pytest.fixture
    def destination(self, tmp_path):
        self.folder = tmp_path / "in"
        return FolderDestination(ChannelSpec(subscriber_id="a", channel_id="b", url="file:in"), tmp_path)

    def arrived(self, destination):
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


class TestSFTP(DestinationChecks):
    @pytest.fixture
    def destination(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SINK_PASSWORD", PASSWORD)
        with SFTPSink(tmp_path / "remote") as sink:
            self.folder = sink.folder
            spec = ChannelSpec(
                subscriber_id="a",
                channel_id="b",
                url=sink.url,
                options={"known_hosts": sink.known_hosts(tmp_path / "known_hosts")},
                credentials={"password": "env:SINK_PASSWORD"},
            )
            destination = SFTPDestination(spec, tmp_path)
            yield destination
            destination.close()

    def arrived(self, destination):
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


class TestS3(DestinationChecks):
    @pytest.fixture
    def destination(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KEY_ID", "sink")
        monkeypatch.setenv("KEY", "sink-secret")
        with S3Sink() as sink:
            self.sink = sink
            spec = ChannelSpec(
                subscriber_id="a",
                channel_id="b",
                url="s3://bucket",
                options={"endpoint": sink.endpoint},
                credentials={"access_key_id": "env:KEY_ID", "secret_access_key": "env:KEY"},
            )
            yield S3Destination(spec, tmp_path)

    def arrived(self, destination):
        return {path.rpartition("/")[2]: data for path, data in self.sink.objects.items()}


@pytest.mark.parametrize("name", BUILT_IN)
def test_formats_hold_their_contract(name, exchange):
    event = exchange.event(1)
    record = {**event, "delivery_id": "0" * 64, "provider_npi": "1777777778", "last_name": "Invented"}
    spec = ChannelSpec(subscriber_id="a", channel_id="b", url="in", format=name)
    assert check_format(format_named(name), [record], ["delivery_id", "event_at", "last_name"], spec)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("in/box", Path("in/box")),
        ("file:in/box", Path("in/box")),
        ("file:///srv/in%20box", Path("/srv/in box")),
        ("file:/srv/in", Path("/srv/in")),
    ],
)
def test_folder_urls_are_paths(url, path):
    assert folder_path(url) == path
