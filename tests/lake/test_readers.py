"""Readers beside a writer: one whole snapshot a call, whatever is compacted and vacuumed meanwhile."""

from __future__ import annotations

import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from hiexchange.errors import LakeError
from hiexchange.lake import Lake

WRITER = """
import sys
from pathlib import Path
from hiexchange.lake import Lake
lake, source = Lake(sys.argv[1]), Path(sys.argv[1] + ".ndjson")
for number in range(6):
    lines = (b'{"resourceType":"Patient","id":"%d","name":[{"family":"%d"}]}' % (ident, number) for ident in range(300))
    source.write_bytes(b"\\n".join(lines))
    lake.ingest(source)
    lake.compact(rows_a_file=100)
    lake.vacuum(keep_snapshots=3, keep_days=0, dry_run=False)
"""
READS = (
    lambda lake: lake.table("Patient").to_arrow(["id", "name"]),
    lambda lake: lake.sql("select id, name from Patient"),
    lambda lake: lake.table("Patient", where=pc.field("id") != "x").sql("select id, name from self"),
)


def test_readers_see_whole_snapshots_while_others_write_compact_and_vacuum(tmp_path):
    lake, seen, gone = Lake(tmp_path / "lake"), set(), 0
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "lake")]) as writer:
        while writer.poll() is None:
            for read in READS:
                if "Patient" not in lake.tables():
                    time.sleep(0.01)
                    continue
                try:
                    rows = read(lake).to_pylist()
                except LakeError as error:  # three commits came during one read, on a very busy machine
                    assert "vacuumed" in str(error)
                    gone += 1
                    continue
                assert len(rows) == len({row["id"] for row in rows}) == 300
                (family,) = {row["name"][0]["family"] for row in rows}
                seen.add(int(family))
    assert writer.returncode == 0
    assert len(seen) > 1
    assert gone < 5
    assert len(lake.snapshots()) == 3
    assert {path.name for path in (tmp_path / "lake" / "Patient").iterdir()} >= {
        path.name for path in lake.files("Patient")
    }


@pytest.fixture
def lake(tmp_path):
    source = tmp_path / "Encounter.ndjson"
    source.write_bytes(
        b'{"resourceType":"Encounter","id":"a","status":"finished","period":{"start":"2026-01-01"}}\n'
        b'{"resourceType":"Encounter","id":"b","status":"planned"}\n'
        b'{"resourceType":"Encounter","id":"c","status":"finished","period":{"start":"2026-03-01","end":"2026-03-02"}}\n'
    )
    lake = Lake(tmp_path / "lake")
    lake.ingest(source)
    return lake


def test_a_table_whose_files_were_vacuumed_says_so(lake):
    pinned = lake.table("Encounter")
    lake.ingest(lake.path.parent / "Encounter.ndjson")
    lake.vacuum(keep_snapshots=1, keep_days=0, dry_run=False)
    for read in (pinned.to_arrow, lambda: pinned.sql("select * from self"), lambda: list(pinned.to_batches())):
        with pytest.raises(LakeError, match="vacuumed"):
            read()
    assert lake.table("Encounter").to_arrow().num_rows == 3


def test_a_vacuum_between_manifest_and_snapshot_is_not_seen(lake, monkeypatch):
    lake.ingest(lake.path.parent / "Encounter.ndjson")
    store = lake._store
    store.snapshot_path(1).unlink()
    answers = iter([1, 2])
    monkeypatch.setattr(store, "_number", lambda: next(answers))
    assert store.current().number == 2


def test_sql_over_a_table_keeps_to_its_rows_and_columns(lake):
    table = lake.table("Encounter", columns=["id", "period.start"], where=pc.field("status") == "finished")
    rows = table.sql('select id, "period.start" as start from self order by id').to_pylist()
    assert rows == [{"id": "a", "start": "2026-01-01"}, {"id": "c", "start": "2026-03-01"}]
    assert table.sql("select a.id from self a join self b on a.id = b.id where b.id = ?", ["c"]).to_pylist() == [
        {"id": "c"}
    ]
    assert table.sql("select * from self limit 0").schema.names == ["id", "period.start"]
    times = lake.table("Encounter").sql("select count(*) as n, max(period.__end_end) as last from self").to_pylist()
    assert [(row["n"], row["last"].isoformat()) for row in times] == [(3, "2026-03-02T23:59:59.999000+00:00")]
    assert lake.table("issue").sql("select count(*) as n from self").to_pylist() == [{"n": 0}]


def test_a_filter_reaches_annotations_and_a_narrowed_table_narrows_on(lake):
    late = pc.field("period", "__start_start") >= pa.scalar(1_767_312_000_000, pa.timestamp("ms", "UTC"))
    table = lake.table("Encounter", where=pc.field("status") == "finished").select(where=late)
    assert table.to_arrow(["id"]).to_pylist() == [{"id": "c"}]
    assert table.sql("select id from self").to_pylist() == [{"id": "c"}]
    assert len(table) == 1
    assert [len(table.head(1)), len(table.select(["id"]).head(5))] == [1, 1]


def test_files_that_are_gone_or_damaged_are_said_by_readers_and_writers(lake, tmp_path):
    (part,) = lake.files("Encounter")
    whole = part.read_bytes()
    flipped = whole[:100] + b"\xff" * 100 + whole[200:]
    asked = (
        lambda: lake.table("Encounter").to_arrow(),
        lambda: list(lake.to_ndjson("Encounter")),
        lambda: lake.sql("select * from Encounter"),
        lambda: lake.table("Encounter").sql("select * from self"),
        lambda: lake.ingest(tmp_path / "Encounter.ndjson"),
        lambda: lake.compact(),
        lambda: lake.copy_to(f"file://{tmp_path}/copy"),
    )
    for content in (None, b"", whole[:400], flipped):
        part.unlink() if content is None else part.write_bytes(content)
        # A copy doesn't look at bytes, and DuckDB doesn't say what kind of error they are.
        for ask in (*asked[:2], *asked[4:-1]) if content == flipped else asked:
            with pytest.raises(LakeError, match=r"vacuumed|damaged"):
                ask()
        part.write_bytes(whole)
    assert lake.snapshots() == [1]
    assert lake.sql("select count(*) as n from Encounter").to_pylist() == [{"n": 3}]


def test_a_query_that_can_not_be_answered_says_why_without_values(lake):
    for query, reason in (("selec", "syntax"), ("select nope from Encounter", "nope"), ("from Claim", "Claim")):
        with pytest.raises(LakeError, match=reason):
            lake.sql(query)
    for ask in (lake.sql, lake.table("Encounter").sql):
        table = "Encounter" if ask == lake.sql else "self"
        with pytest.raises(LakeError) as error:
            ask(f"select cast(status as integer) from {table}")
        assert "finished" not in str(error.value)
        with pytest.raises(LakeError, match="one SELECT"):
            ask("")


def test_tables_that_differ_in_case_are_told_apart(lake, tmp_path):
    (tmp_path / "Person.ndjson").write_bytes(b'{"resourceType":"Person","id":"1"}')
    lake.ingest(tmp_path / "Person.ndjson")
    assert lake.sql("select id from Person").to_pylist() == [{"id": "1"}]
    assert lake.sql("select person_id from person").to_pylist() == []
