"""What compaction and merges write: order, declared order, bloom filters, files of bounded size, no scratch left."""

from __future__ import annotations

import inspect
import random

import duckdb
import msgspec
import pyarrow.parquet as pq
import pytest

from hiexchange.lake import Lake


def observation(ident, patient, **members):
    value = {"resourceType": "Observation", "id": ident, "status": "final", **members}
    return value | ({"subject": {"reference": f"Patient/{patient}"}} if patient else {})


@pytest.fixture
def put(tmp_path):
    lake = Lake(tmp_path / "lake")

    def run(values, **options):
        source = tmp_path / "Observation.ndjson"
        source.write_bytes(b"".join(msgspec.json.encode(value) + b"\n" for value in values))
        lake.ingest(source, **options)
        return lake

    return run


@pytest.mark.parametrize("seed", range(4))
def test_files_are_ranges_of_patients_sorted_and_none_is_split(put, seed):
    chance = random.Random(seed)
    owners = [chance.choice([None, *(f"p{number}é" for number in range(chance.choice((3, 40))))]) for _ in range(300)]
    values = [observation(f"o{number}", owner) for number, owner in enumerate(owners)]
    chance.shuffle(values)
    lake = put(values[:200])
    put([*values[200:], {**values[0], "status": "amended"}])
    before = sorted(lake.to_ndjson("Observation"))
    lake.compact(rows_a_file=chance.choice((7, 60)))
    assert sorted(lake.to_ndjson("Observation")) == before
    where = {}
    last = ("", "")
    for number, path in enumerate(lake.files("Observation")):
        for row in pq.read_table(path, columns=["__hx_patient", "__hx_key"]).to_pylist():
            # Rows without a patient come last; "\U0010ffff" is after any id.
            place = (row["__hx_patient"] or "\U0010ffff", row["__hx_key"])
            assert place > last
            last = place
            if row["__hx_patient"]:
                assert where.setdefault(row["__hx_patient"], number) == number
    assert len(lake.files("Observation")) > 2
    assert [path.name for path in (lake.path / "_hx").iterdir() if path.name.startswith("tmp-")] == []


def test_order_is_declared_and_keys_have_bloom_filters(put):
    values = [observation(f"o{number}", f"p{number % 7}", code={"text": "x"}) for number in range(100)]
    lake = put(values)
    loaded = pq.ParquetFile(lake.files("Observation")[0])
    assert loaded.metadata.row_group(0).sorting_columns == ()
    lake.compact()
    lake = put([{**values[3], "status": "amended"}])  # a merge rewrites the file, still in order
    for path in lake.files("Observation")[:1]:
        metadata = pq.ParquetFile(path).metadata
        group = metadata.row_group(0)
        assert metadata.num_rows == 99
        assert [group.column(one.column_index).path_in_schema for one in group.sorting_columns] == [
            "__hx_patient",
            "__hx_key",
        ]
        assert group.column(0).compression == "ZSTD"
        if "bloom_filter_options" in inspect.signature(pq.ParquetWriter.__init__).parameters:
            con = duckdb.connect()
            filters = con.execute(
                "select path_in_schema from parquet_metadata(?) where bloom_filter_length > 0 order by 1", [str(path)]
            ).fetchall()
            assert filters == [("__hx_key",), ("id",)]


def test_a_compact_table_is_left_alone_until_rows_come(put):
    lake = put([observation(f"o{number}", "p") for number in range(30)])
    first = lake.compact(rows_a_file=10)
    assert lake.compact(rows_a_file=10) == first
    put([observation("new", "p")])
    assert lake.compact() > first
    assert len(lake.files("Observation")) == 1


def test_vacuum_removes_the_scratch_of_a_killed_writer(put):
    lake = put([observation("o", "p")])
    scratch = lake.path / "_hx" / "tmp-killed"
    scratch.mkdir()
    (scratch / "0.arrow").write_bytes(b"half")
    lake.vacuum()
    assert scratch.exists()
    lake.vacuum(dry_run=False)
    assert not scratch.exists()


def test_a_merge_with_little_memory_is_right(put, monkeypatch):
    # 60,000 keys twice over, half of them newer, against what DuckDB may hold in 40 MB.
    from hiexchange.lake import merge

    monkeypatch.setattr(merge, "MEMORY", "40MB")
    monkeypatch.setattr(merge, "FEW", 0)
    rows = range(60_000)
    lake = put([observation(f"o{number}", "p", meta={"lastUpdated": "2026-01-01T00:00:00Z"}) for number in rows])
    put(
        [
            observation(f"o{number}", "q", meta={"lastUpdated": f"202{5 + number % 2}-06-01T00:00:00Z"})
            for number in rows
        ]
    )
    counts = lake.sql("select __hx_patient as p, count(*) as n from Observation group by 1 order by 1").to_pylist()
    assert counts == [{"p": "p", "n": 30_000}, {"p": "q", "n": 30_000}]
    assert len(lake.files("Observation")) == 2
