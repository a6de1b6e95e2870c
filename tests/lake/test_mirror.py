"""A snapshot copied to a folder and to a bucket: a lake again, sent once, never half."""

from __future__ import annotations

import shutil

import pytest

from hiexchange.errors import ConfigError, LakeError, StorageError
from hiexchange.lake import Lake
from hiexchange.testing.sinks import Answer, S3Sink

pytest.importorskip("obstore", reason="the cloud extra is not installed")


@pytest.fixture
def lake(tmp_path):
    lake = Lake(tmp_path / "lake")
    add(lake, "a")
    return lake


def add(lake, ident):
    source = lake.path.parent / "Patient.ndjson"
    source.write_bytes(b'{"resourceType":"Patient","id":"%s"}\n{"resourceType"\n' % ident.encode())
    lake.ingest(source)


def ids(lake):
    return sorted(lake.table("Patient").to_arrow(["id"])["id"].to_pylist())


def test_a_copy_is_a_lake_and_a_second_one_sends_only_what_is_new(lake, tmp_path):
    url = (tmp_path / "copy").as_uri()
    first = lake.copy_to(url)
    assert (first.snapshot, first.files, first.present) == (1, 2, 0)
    copy = Lake(tmp_path / "copy")
    assert (ids(copy), copy.snapshots(), copy.table("_rejects").to_arrow().num_rows) == (["a"], [1], 1)
    add(lake, "b")
    second = lake.copy_to(url)
    assert (second.snapshot, second.files, second.present) == (2, 2, 2)
    assert lake.copy_to(url).files == 0
    assert ids(Lake(tmp_path / "copy")) == ["a", "b"]
    add(copy, "c")
    assert ids(copy) == ["a", "b", "c"]
    with pytest.raises(LakeError, match="later snapshot"):
        lake.copy_to(url)


def options(sink, key="sink-secret"):
    return {"endpoint": sink.endpoint, "access_key_id": "sink", "secret_access_key": key, "region": "us-east-1"}


def test_a_bucket_holds_the_lake_after_its_manifest(lake, tmp_path):
    with S3Sink() as sink:
        done = lake.copy_to("s3://bucket/lakes/one", options=options(sink))
        assert done.files == 2
        assert sink.puts[-1] == ("/bucket/lakes/one/_hx/manifest.json", 200)
        for name, data in sink.objects.items():
            path = tmp_path / "back" / name.removeprefix("/bucket/lakes/one/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        assert ids(Lake(tmp_path / "back")) == ["a"]


def test_a_copy_that_breaks_off_leaves_the_one_before(lake):
    with S3Sink() as sink:
        lake.copy_to("s3://bucket/x", options=options(sink))
        manifest = sink.objects["/bucket/x/_hx/manifest.json"]
        add(lake, "b")
        sink.script += [Answer(), Answer(403)]
        with pytest.raises(StorageError):
            lake.copy_to("s3://bucket/x", options=options(sink))
        assert sink.objects["/bucket/x/_hx/manifest.json"] == manifest
        assert lake.copy_to("s3://bucket/x", options=options(sink)).present == 3


def test_what_can_not_be_copied_is_said_without_secrets(lake, tmp_path):
    with pytest.raises(LakeError, match="empty"):
        Lake(tmp_path / "none").copy_to("file:///x")
    with pytest.raises(ConfigError):
        lake.copy_to("nothing://x")
    with S3Sink() as sink, pytest.raises(StorageError) as caught:
        lake.copy_to("s3://bucket/x", options=options(sink, "WRONG-KEY"))
    assert "WRONG-KEY" not in str(caught.value)
    other = tmp_path / "other" / "_hx"
    other.mkdir(parents=True)
    (other / "manifest.json").write_text("[]")
    with pytest.raises(LakeError, match="something else"):
        lake.copy_to(other.parent.as_uri())
    shutil.rmtree(other)
