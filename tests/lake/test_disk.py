"""What a lake takes of the disk: nothing after a failure, and no more each day."""

from __future__ import annotations

import random
import resource
from dataclasses import replace

import pytest

from hiexchange.errors import StorageError
from hiexchange.lake import Lake, merge
from hiexchange.lake.store import Load, Snapshot


def test_a_full_disk_ends_writers_without_a_trace(tmp_path):
    source = tmp_path / "Patient.ndjson"
    names = (random.Random(number).randbytes(30).hex() for number in range(2000))
    source.write_text("".join(f'{{"resourceType":"Patient","id":"{name}"}}\n' for name in names))
    lake = Lake(tmp_path / "lake")
    lake.ingest(source)
    before = sorted(lake.path.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (10_000, 1_000):
        for write in (lambda: lake.ingest(source), lambda: lake.compact(rows_a_file=200)):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                with pytest.raises(StorageError, match="disk is full"):
                    write()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert sorted(lake.path.rglob("*")) == before
    lake.compact(rows_a_file=200)
    assert lake.tables() == {"Patient": 2000}


def test_a_snapshot_does_not_grow_with_every_append():
    load = Load("x", "", "", 0, 0)
    snapshot = Snapshot(0).next(replace(load, id="export", key="k"))
    for number in range(300):
        snapshot = snapshot.next(replace(load, id=str(number)))
    assert [done.id for done in snapshot.loads] == ["export", *(str(number) for number in range(200, 300))]
    assert snapshot.next(tables={}).loads == snapshot.loads


def test_vacuum_takes_what_a_killed_writer_left_and_nothing_of_others(tmp_path):
    lake = Lake(tmp_path / "lake")
    source = tmp_path / "Patient.ndjson"
    source.write_bytes(b'{"resourceType":"Patient","id":"1"}')
    lake.ingest(source)
    left = [lake.path / "_hx" / ".manifest.json.1f.part", lake.path / "_hx" / "snapshots" / ".2.json.1f.part"]
    left.append(lake.path / "Patient" / "part-1f.parquet")
    mine = [lake.path / "Patient" / "mine.parquet", lake.path / "charts" / "a.parquet"]
    mine[1].parent.mkdir()
    for path in (*left, *mine):
        path.write_bytes(b"x")
    lake.vacuum(dry_run=False)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in mine)
    assert lake.table("Patient").to_arrow().num_rows == 1


def test_a_merge_that_finds_no_room_for_its_keys_says_so(tmp_path, monkeypatch):
    source = tmp_path / "Patient.ndjson"
    source.write_bytes(b"".join(b'{"resourceType":"Patient","id":"%d"}\n' % number for number in range(5000)))
    lake = Lake(tmp_path / "lake")
    lake.ingest(source)
    monkeypatch.setattr(merge, "FEW", 0)
    monkeypatch.setattr(merge, "MEMORY", "100KB")
    with pytest.raises(StorageError, match="no room"):
        lake.ingest(source)
    assert lake.snapshots() == [1]
