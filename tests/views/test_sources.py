"""Where views read from: lakes, Parquet, Arrow of other tools, NDJSON; and that pruning changes nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hiexchange.errors import BadLine, ConfigError, LakeError, ViewError
from hiexchange.lake import Lake
from hiexchange.views import View, load_view, view
from hiexchange.views.view import load_json

CLINICAL = ("encounter", "patient_demographics", "observation", "claim_header", "claim_adjudication", "claim_line")


@pytest.fixture(scope="module")
def lake(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("lake"))
    names = ("Patient", "Encounter", "Observation", "ExplanationOfBenefit")
    made.ingest([shared / f"data/synthea-100/{name}.ndjson.gz" for name in names])
    return made


@pytest.mark.parametrize("name", CLINICAL)
def test_lake_arrow_and_ndjson_give_the_same(shared: Path, lake: Lake, name: str) -> None:
    found = load_view(name)
    assert isinstance(found, View)
    from_lake = found.run(lake)
    table = lake.table(found.definition.resource)
    assert found.run(table) == from_lake
    assert found.run(table.to_arrow()) == from_lake
    from_text = found.run(shared / "data/synthea-100")
    key = from_text.column_names[0]
    rows = sorted(map(str, from_text.drop_columns([]).to_pylist()))
    assert sorted(map(str, from_lake.to_pylist())) == rows, key


def test_a_folder_of_parquet_files_is_a_source(lake: Lake, tmp_path: Path) -> None:
    pq.write_table(lake.table("Patient").to_arrow(), tmp_path / "Patient.parquet")
    assert view("patient_demographics", tmp_path).num_rows == 100


def test_an_element_exists_although_its_needed_member_was_never_seen(encoded: Any, tmp_path: Path) -> None:
    table = encoded({"resourceType": "Patient", "id": "-1", "name": [{"given": ["Ann"]}, {"given": ["Bea"]}]})
    pq.write_table(table, tmp_path / "Patient.parquet")
    select = [
        {"forEach": "name", "column": [{"name": "family", "path": "family"}, {"name": "at", "path": "%rowIndex"}]}
    ]
    rows = View.from_json({"resource": "Patient", "select": select}).run(tmp_path).to_pylist()
    assert rows == [{"family": None, "at": 0}, {"family": None, "at": 1}]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("name.first().iif(use = 'old', family, 'none')", "Roe"),
        ("gender.iif($this = 'female', %resource.name.first().family, 'none')", "Roe"),
        ("telecom.value.aggregate($total & $this, gender)", "female1"),
        ("resourceType", "Patient"),
        ("iif(resourceType.exists() and __hx_line.exists(), gender, 'none')", "female"),
    ],
)
def test_what_arguments_read_is_not_left_out(tmp_path: Path, encoded: Any, path: str, expected: str) -> None:
    line = (
        '{"resourceType":"Patient","id":"-1","gender":"female",'
        '"name":[{"use":"old","family":"Roe"}],"telecom":[{"value":"1"}]}'
    )
    (tmp_path / "Patient.ndjson").write_text(line)
    one = View.from_json({"resource": "Patient", "select": [{"column": [{"name": "x", "path": path}]}]})
    for source in (tmp_path, encoded(line)):
        assert one.run(source).to_pylist() == [{"x": expected}]


@pytest.mark.parametrize("path", ["$this.exists()", "iif(Patient.count() = 1, true, false)"])
def test_a_resource_itself_exists(tmp_path: Path, encoded: Any, path: str) -> None:
    pq.write_table(encoded({"resourceType": "Patient", "id": "-1"}), tmp_path / "Patient.parquet")
    one = View.from_json({"resource": "Patient", "select": [{"column": [{"name": "x", "path": path}]}]})
    assert one.run(tmp_path).to_pylist() == [{"x": True}]


def test_other_tools_arrow_is_a_source(encoded: Any) -> None:
    table = encoded({"resourceType": "Patient", "id": "-1", "name": [{"family": "A", "given": ["B", "C"]}]})
    plain = table.drop_columns([name for name in table.column_names if name.startswith("__")])
    select = [{"column": [{"name": "id", "path": "id"}, {"name": "given", "path": "name.given", "collection": True}]}]
    found = View.from_json({"resource": "Patient", "select": select})
    # polars hands over large strings, large lists and string views.
    assert found.run(polars.DataFrame(plain)).to_pylist() == [{"id": "-1", "given": ["B", "C"]}]


def test_a_view_streams_in_batches(shared: Path) -> None:
    batches = list(load_view("observation").stream(shared / "data/synthea-100"))
    assert sum(batch.num_rows for batch in batches) == 18285
    tables = load_view("observation").run(shared / "data/synthea-100")
    assert pa.Table.from_batches(batches) == tables


def test_a_bad_line_stops_a_view_of_ndjson(tmp_path: Path) -> None:
    path = tmp_path / "Patient.ndjson"
    path.write_text('{"resourceType":"Patient","id":"-1"}\n{"resourceType":"Patient",\n')
    with pytest.raises(BadLine) as caught:
        view("patient_demographics", path)
    assert caught.value.line == 2


@pytest.mark.parametrize("end", [-9, -1])
def test_a_damaged_gzip_file_is_said(tmp_path: Path, end: int) -> None:
    path = tmp_path / "Patient.ndjson.gz"
    path.write_bytes(gzip.compress(b'{"resourceType":"Patient","id":"-1"}\n')[:end])
    with pytest.raises(LakeError, match="cut short"):
        view("patient_demographics", path)


def test_tables_of_something_else_are_refused(tmp_path: Path) -> None:
    other = pa.table({"resourceType": ["Patient", "Group"], "id": ["-1", "-2"]})
    pq.write_table(other, tmp_path / "Patient.parquet")
    for source in (other, tmp_path / "Patient.parquet"):
        with pytest.raises(ViewError, match="holds Group"):
            view("patient_demographics", source)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "Patient.parquet")
    for source in (pa.table({"x": [1]}), tmp_path / "Patient.parquet"):
        with pytest.raises(ViewError, match="no element of Patient"):
            view("patient_demographics", source)
    (tmp_path / "Patient.parquet").write_bytes(b"PAR1, no")
    with pytest.raises(ViewError, match="not Parquet"):
        view("patient_demographics", tmp_path)


def test_a_file_of_several_types_is_refused_at_the_first_other_one(tmp_path: Path) -> None:
    path = tmp_path / "all.ndjson"
    path.write_text('{"resourceType":"Patient","id":"-1"}\n{"resourceType":"Group","id":"-2"}\n{"x":1}\n')
    with pytest.raises(BadLine, match="not a Patient: wrong-resource-type, and 1 lines more") as caught:
        view("patient_demographics", path)
    assert caught.value.line == 2


@pytest.mark.parametrize("text", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_a_file_without_resources_gives_no_rows(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "Patient.ndjson"
    path.write_bytes(text)
    assert view("patient_demographics", path).num_rows == 0


def test_a_type_the_lake_lacks_is_said(lake: Lake) -> None:
    with pytest.raises(LakeError, match="Condition"):
        view("condition", lake)


def test_a_query_takes_absent_types_as_empty(shared: Path, tmp_path: Path) -> None:
    made = Lake(tmp_path / "lake")
    made.ingest([shared / "data/cms-claims/r4-v2/ExplanationOfBenefit.ndjson"])
    rows = view("tuva_medical_claim", made)
    assert rows.num_rows == 8
    assert rows["plan"].null_count == 8


@pytest.mark.parametrize("source", [42, object(), []])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(ConfigError):
        view("condition", source)


def test_a_folder_without_the_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Condition"):
        view("condition", tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        view("condition", tmp_path / "absent.ndjson")


def test_an_unknown_view_suggests_a_near_one() -> None:
    with pytest.raises(ViewError) as caught:
        load_view("encountr")
    assert caught.value.hint == "did you mean encounter?"


def test_view_files_are_read_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"}]}]}))
    assert load_view(path).schema().names == ["id"]
    path.write_text("{")
    with pytest.raises(ViewError, match="not JSON"):
        load_view(path)
    with pytest.raises(ConfigError):
        load_json(tmp_path / "absent.json")
