"""What a lake takes of the disk: nothing after a failure, and no more each day."""

from __future__ import annotations

import random
import resource
from dataclasses import replace

import pytest

from hiexchange.errors import StorageError
from hiexchange.lake import Lake
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
