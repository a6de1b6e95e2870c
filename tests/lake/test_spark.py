"""The same rows under PySpark, in two local workers."""

from __future__ import annotations

import gzip
import sys

import pytest

from hiexchange.lake import Lake

LEFT_OUT = {"__hx_line", "__hx_ingest"}


@pytest.mark.spark
@pytest.mark.filterwarnings("ignore")
def test_spark_gives_the_rows_of_the_lake(tmp_path, shared, monkeypatch):
    pyspark = pytest.importorskip("pyspark", reason="the spark extra is not installed")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    from hiexchange.spark import encode, rejects

    lines = gzip.decompress((shared / "data" / "synthea-100" / "Encounter.ndjson.gz").read_bytes()).split(b"\n")[:800]
    lines.insert(100, b'{"resourceType":"Encounter"')
    lines.insert(200, b'{"resourceType":"Encounter","id":"odd","foo":1.50,"status":5}')
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "Encounter 1.ndjson").write_bytes(b"\n".join(lines[:500]) + b"\n")
    (folder / "Encounter.2.ndjson").write_bytes(b"\n".join(lines[500:]) + b"\n")
    lake = Lake(tmp_path / "lake")
    lake.ingest(folder)
    builder = pyspark.sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()
    try:
        found = encode(spark, str(folder / "*.ndjson"), "Encounter").toArrow().to_pylist()
        bad = rejects(spark, str(folder / "*.ndjson"), "Encounter").collect()
    finally:
        spark.stop()
    expected = lake.table("Encounter").to_arrow().to_pylist()

    def comparable(rows):
        kept = [{name: value for name, value in row.items() if name not in LEFT_OUT} for row in rows]
        return sorted(kept, key=lambda row: row["__hx_key"])

    assert comparable(found) == comparable(expected)
    assert [(row["reason"], row["length"]) for row in bad] == [("truncated", 27)]
