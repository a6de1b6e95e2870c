"""Delta Lake, repairs, sampled validation, reading by other tools."""

# ruff: noqa: E501  (JSON lines are whole)

from __future__ import annotations

import json

import duckdb
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from hiexchange.errors import ConfigError, LakeError
from hiexchange.lake import Lake
from hiexchange.lake.delta import write_delta


def lake_of(tmp_path, *lines, **options):
    """Ingest JSON lines; the file is named after the first one's type."""
    tmp_path.mkdir(exist_ok=True)
    lake = Lake(tmp_path / "lake")
    source = tmp_path / "in.ndjson"
    source.write_bytes(b"\n".join(lines) + b"\n")
    return lake, lake.ingest(source, **options)


ONE = b'{"resourceType":"Patient","id":"a","meta":{"lastUpdated":"2026-01-01T00:00:00Z"},"name":[{"family":"A"}],"birthDate":"1970"}'
TWO = b'{"resourceType":"Patient","id":"b","meta":{"lastUpdated":"2026-01-01T00:00:00Z","versionId":"2"},"name":[{"family":"B","given":["C"]}]}'


def test_delta_merge_keeps_nested_columns_of_untouched_rows(tmp_path):
    delta = pytest.importorskip("deltalake")
    lake, _ = lake_of(tmp_path, ONE)
    first = write_delta(lake.table("Patient"), tmp_path / "delta")
    wider, _ = lake_of(tmp_path / "two", TWO)
    second = write_delta(wider.table("Patient"), tmp_path / "delta")
    assert (first.inserted, second.inserted, second.updated) == (1, 1, 0)
    rows = pa.table(delta.DeltaTable(str(tmp_path / "delta")).to_pyarrow_table()).to_pylist()
    names = {row["id"]: (row["name"][0]["family"], row["meta"]["lastUpdated"]) for row in rows}
    assert names == {"a": ("A", "2026-01-01T00:00:00Z"), "b": ("B", "2026-01-01T00:00:00Z")}
    third = write_delta(wider.table("Patient"), tmp_path / "delta")
    assert (third.inserted, third.updated) == (0, 1)
    narrower = write_delta(lake.table("Patient"), tmp_path / "delta")  # its names have no given
    assert (narrower.inserted, narrower.updated) == (0, 1)
    rows = pa.table(delta.DeltaTable(str(tmp_path / "delta")).to_pyarrow_table()).to_pylist()
    assert {row["id"]: row["name"][0]["given"] for row in rows} == {"a": None, "b": ["C"]}
    for rows in (lake.table("Patient", columns=["id"]), pa.concat_tables([lake.table("Patient").to_arrow()] * 2)):
        with pytest.raises(ConfigError, match="__hx_key"):
            write_delta(rows, tmp_path / "delta")


EOB = b'{"resourceType":"ExplanationOfBenefit","id":"e","insurance":[{"coverage":{"reference":"Coverage/1"}}],"item":[{"sequence":1,"net":{"value":1.50}}],"provider":{"display":"x"}}'
BARE = b'{"resourceType":"ExplanationOfBenefit","id":"f","total":[{"amount":{"value":2.00}}]}'


def test_repairs_are_counted_and_keep_decimals(tmp_path):
    lake, report = lake_of(tmp_path, EOB, BARE, repairs=["bcda"])
    assert report.repaired == {"missing-focal": 1, "missing-product-or-service": 1, "missing-provider": 1}
    first, second = (line.decode() for line in lake.to_ndjson("ExplanationOfBenefit"))
    assert '"value":1.50' in first
    assert json.loads(first)["provider"] == {"display": "x"}
    assert json.loads(second)["provider"]["extension"][0]["valueCode"] == "unknown"
    assert '"value":2.00' in second


def test_nothing_is_repaired_unless_asked(tmp_path):
    lake, report = lake_of(tmp_path, BARE)
    assert report.repaired == {}
    assert json.loads(next(lake.to_ndjson("ExplanationOfBenefit"))) == json.loads(BARE)
    with pytest.raises(ConfigError):
        lake.ingest(tmp_path / "in.ndjson", repairs=["unknown"])


def test_placeholder_contract_of_coverage_is_repaired(tmp_path):
    line = b'{"resourceType":"Coverage","id":"c","contract":[{"reference":"Coverage/part-a-contract1"},{"reference":"Contract/1"}]}'
    lake, report = lake_of(tmp_path, line, repairs=["bcda"])
    assert report.repaired == {"placeholder-contract": 1}
    assert [one["reference"] for one in json.loads(next(lake.to_ndjson("Coverage")))["contract"]] == [
        "Contract/part-a-contract1",
        "Contract/1",
    ]


def test_a_sample_is_validated_without_blocking_or_telling_values(tmp_path):
    bad = b'{"resourceType":"Patient","id":"z","gender":"female","birthDate":"SECRET"}'
    _, report = lake_of(tmp_path, ONE, bad, validate=10)
    found = report.validation["Patient"]
    assert (found.checked, found.failed) == (2, 1)
    assert "SECRET" not in str(found.faults)
    assert any("birthDate" in place for place in found.faults)


@pytest.mark.parametrize("odd", ['"contained":[{"resourceType":"Nope"}]', '"multipleBirthInteger":' + "9" * 5000])
def test_what_the_models_stumble_over_is_a_fault_and_no_error(odd, tmp_path):
    _, report = lake_of(tmp_path, ONE, b'{"resourceType":"Patient","id":"z",' + odd.encode() + b"}", validate=10)
    found = report.validation["Patient"]
    assert (report.rows, found.checked, found.failed) == (2, 2, 1)
    assert "can't read it" in str(found.faults)


def test_a_sample_is_spread_over_the_table(tmp_path):
    lines = [b'{"resourceType":"Patient","id":"%d"}' % number for number in range(1000)]
    lake, _ = lake_of(tmp_path, *lines[:990])
    lake_of(tmp_path, *lines[990:])
    for count, step in ((1, 1000), (7, 142), (1000, 1), (5000, 1)):
        assert list(lake._pinned(None).spread("Patient", count)) == lines[::step][:count]


def test_tables_are_read_by_polars_pandas_duckdb_and_arrow(tmp_path):
    lake, _ = lake_of(tmp_path, ONE, TWO)
    table = lake.table("Patient", columns=["id", "birthDate", "meta.versionId"])
    assert polars.DataFrame(table).get_column("id").to_list() == ["a", "b"]
    assert pa.table(table).column_names == ["id", "birthDate", "meta.versionId"]
    assert table.to_pandas()["meta.versionId"].isna().tolist() == [True, False]
    assert table.to_polars().height == 2
    con = duckdb.connect()
    con.register("rows", pa.RecordBatchReader.from_stream(table))
    assert con.execute("select count(*) from rows").fetchall() == [(2,)]
    assert pa.schema(table).names == table.schema.names
    assert "birthDate" in table._repr_html_()
    assert "1970" not in table._repr_html_()
    assert len(table) == 2
    assert table.head(1).num_rows == 1


def test_filter_and_projection_reach_into_structs(tmp_path):
    lake, _ = lake_of(tmp_path, ONE, TWO)
    chosen = lake.table("Patient", where=pc.field("meta", "versionId") == "2")
    assert chosen.to_arrow(["id"])["id"].to_pylist() == ["b"]
    assert len(chosen) == 1
    assert [batch.num_rows for batch in chosen.to_batches(where=pc.field("id") == "a")] == []
    with pytest.raises(LakeError):
        lake.table("Patient", columns=["nothing.here"])
    with pytest.raises(LakeError):
        lake.table("Nothing")


def test_sql_sees_every_table_and_takes_parameters(tmp_path):
    lake, _ = lake_of(tmp_path, ONE, TWO)
    lake.append("notes", pa.table({"patient": ["a"], "text": ["x"]}))
    query = 'select p.id, n.text from "Patient" p join notes n on n.patient = p.id where p.id = ?'
    assert lake.sql(query, ["a"]).to_pylist() == [{"id": "a", "text": "x"}]
    assert lake.sql("select count(*) as n from _rejects").to_pylist() == [{"n": 0}]
    # A file written before a member was seen reads as null, nested ones too.
    other = tmp_path / "more.ndjson"
    other.write_bytes(b'{"resourceType":"Patient","id":"c","name":[{"family":"C","period":{"start":"2020"}}]}\n')
    lake.ingest(other)
    rows = lake.sql("select id, name[1].period.start as s from Patient order by id").to_pylist()
    assert rows == [{"id": "a", "s": None}, {"id": "b", "s": None}, {"id": "c", "s": "2020"}]
