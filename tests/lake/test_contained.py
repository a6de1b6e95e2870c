"""Contained resources as rows: keyed by their parent, in the layout of their type, gone with their parent."""

from __future__ import annotations

import gzip
import json

import pyarrow.compute as pc
import pytest

from hiexchange.errors import ConfigError, LakeError
from hiexchange.lake import Lake
from hiexchange.views import View


def claim(ident, *inner, **members):
    value = {"resourceType": "Claim", "id": ident, "patient": {"reference": f"Patient/p-{ident}"}, **members}
    return value | ({"contained": list(inner)} if inner else {})


def practitioner(ident, family):
    return {"resourceType": "Practitioner", "id": ident, "name": [{"family": family}]}


@pytest.fixture
def put(tmp_path):
    lake = Lake(tmp_path / "lake")

    def run(*values):
        source = tmp_path / "Claim.ndjson"
        source.write_text("".join(json.dumps(value) + "\n" for value in values))
        lake.ingest(source)
        return lake

    return run


def test_contained_resources_are_rows_keyed_by_their_parent(put):
    organization = {"resourceType": "Organization", "id": "o", "name": "Clinic\nwith a line end", "x": 1.50}
    lake = put(
        claim("1", practitioner("a", "A"), organization),
        claim("2"),
        claim("3", practitioner("a", "B"), {"resourceType": "Practitioner", "active": True}, {"resourceType": "Foo"}),
    )
    found = lake.contained("Claim", "Practitioner")
    keys = found["__hx_key"].to_pylist()
    assert (keys[:2], keys[2].startswith("3#sha256:")) == (["1#a", "3#a"], True)
    assert [row["name"] and row["name"][0]["family"] for row in found.to_pylist()] == ["A", "B", None]
    assert found["__hx_patient"].to_pylist() == ["p-1", "p-3", "p-3"]
    assert found["__hx_line"].to_pylist() == [1, 3, 3]
    (row,) = lake.contained("Claim", "Organization").to_pylist()
    assert (row["name"], row["__unmapped"]) == ("Clinic\nwith a line end", '{"/x":1.5}')
    assert lake.contained("Claim", "Practitioner", where=pc.field("id") == "1").num_rows == 1
    assert lake.contained("Claim", "Location").num_rows == 0
    assert [json.loads(line)["id"] for line in lake.to_ndjson("Claim")] == ["1", "2", "3"]


def test_those_of_an_older_version_are_gone_with_it(put):
    first = put(claim("1", practitioner("a", "A"), practitioner("b", "B")))
    lake = put(claim("1", practitioner("b", "C")))
    assert lake.contained("Claim", "Practitioner")["__hx_key"].to_pylist() == ["1#b"]
    assert len(first.contained("Claim", "Practitioner", snapshot=1)) == 2


def test_a_table_without_any_gives_no_rows_and_unknown_names_an_error(put):
    lake = put(claim("1"))
    assert lake.contained("Claim", "Practitioner").num_rows == 0
    with pytest.raises(ConfigError):
        lake.contained("Claim", "Nonsense")
    with pytest.raises(LakeError):
        lake.contained("Patient", "Practitioner")


def test_views_run_over_them(tmp_path, shared):
    lines = gzip.decompress((shared / "data" / "synthea-100" / "ExplanationOfBenefit.ndjson.gz").read_bytes())
    source = tmp_path / "ExplanationOfBenefit.ndjson"
    source.write_bytes(b"\n".join(lines.split(b"\n")[:50]))
    lake = Lake(tmp_path / "lake")
    lake.ingest(source)
    coverages = lake.contained("ExplanationOfBenefit", "Coverage")
    expected = [
        f"{value['id']}#{inner['id']}"
        for value in map(json.loads, source.read_bytes().split(b"\n"))
        for inner in value["contained"]
        if inner["resourceType"] == "Coverage"
    ]
    assert coverages["__hx_key"].to_pylist() == expected
    definition = {
        "resourceType": "ViewDefinition",
        "resource": "Coverage",
        "status": "active",
        "select": [
            {
                "column": [
                    {"name": "key", "path": "getResourceKey()"},
                    {"name": "payor", "path": "payor.first().display"},
                ]
            }
        ],
    }
    rows = View.from_json(definition).run(coverages)
    assert rows.num_rows == len(expected) > 0
    assert rows["payor"].null_count < rows.num_rows
