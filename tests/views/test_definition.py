"""ViewDefinitions that are refused, warned about, or checked against profiles; schemas known before running."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.errors import FHIRPathError, ViewError
from hiexchange.views import View, check_view

ID = {"name": "id", "path": "id"}


def definition(*columns: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"resource": "Patient", "select": [{"column": list(columns) or [ID]}], **rest}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "JSON object"),
        ({"resourceType": "Patient"}, "not a ViewDefinition"),
        ({"resource": "Patient"}, "no select"),
        ({"resource": "Patient", "select": []}, "no select"),
        ({"resource": "Patient", "select": {}}, "not a list"),
        ({"resource": "Patient", "select": [1]}, "not a JSON object"),
        ({"resource": "Patient", "select": [{}]}, "no column, select or unionAll"),
        ({"resource": "Planet", "select": [{"column": [ID]}]}, "no resource 'Planet'"),
        ({"resource": "HumanName", "select": [{"column": [ID]}]}, "no resource"),
        (definition({"name": "1x", "path": "id"}), "no column name"),
        (definition({"name": "x"}), "no path"),
        (definition({"name": "x", "path": ""}), "not a text"),
        (definition(ID, ID), "used twice"),
        (definition({"name": "x", "path": "id", "collection": "yes"}), "true or false"),
        (definition(ID, where=[{}]), "no path"),
        (definition(ID, where=[{"path": "gender"}]), "not true or false"),
        (definition(ID, constant=[{"name": "x"}]), "value[x]"),
        (definition(ID, constant=[{"name": "x", "valueString": 1}]), "no string"),
        (definition(ID, constant=[{"name": "x", "valueInteger": True}]), "no integer"),
        (definition(ID, constant=[{"name": "x", "valueString": "a"}, {"name": "x", "valueString": "b"}]), "twice"),
        (definition({"name": "x", "path": "id", "tag": [{"name": "ansi/type", "value": "BLOB"}]}), "ansi/type"),
        (definition({"name": "x", "path": "id", "tag": [{"name": "ansi/type"}]}), "no value"),
        (definition({"name": "x", "path": "id", "tag": [{"name": "ansi/type", "value": "DECIMAL(2,5)"}]}), "possible"),
        (definition({"name": "x", "path": "id", "tag": [{"name": "ansi/type", "value": "DECIMAL(99)"}]}), "possible"),
        (definition({"name": "x", "path": "id", "type": "strin"}), "FHIR does not know"),
        (definition(ID, where=["active"]), "not a JSON object"),
        (definition(ID, fhirVersion="4.0.1"), "not a list"),
        (definition(ID, constant=[{"name": "x", "valueInteger64": "1.5"}]), "no integer64"),
        (definition(ID, constant=[{"name": "x", "valueDecimal": "a"}]), "no decimal"),
        (definition(ID, constant=[{"name": "x", "valueDecimal": True}]), "no decimal"),
        (definition(ID, constant=[{"name": "x", "valuePositiveInt": 0}]), "no positiveInt"),
        (definition(ID, constant=[{"name": "x", "valueInteger": 2**31}]), "no integer"),
        (definition(ID, constant=[{"name": "x", "valueBoolean": "true"}]), "no boolean"),
        (definition(ID, constant=[{"name": "x", "valueDate": "2020-13-45"}]), "no date"),
        (definition(ID, constant=[{"name": "x", "valueTime": "25:00:00"}]), "no time"),
        (
            {"resource": "Patient", "select": [{"forEach": "name", "forEachOrNull": "name", "column": [ID]}]},
            "more than one",
        ),
        ({"resource": "Patient", "select": [{"repeat": "name", "column": [ID]}]}, "list of paths"),
        (
            {
                "resource": "Patient",
                "select": [{"unionAll": [{"column": [ID]}, {"column": [{"name": "x", "path": "id"}]}]}],
            },
            "other columns",
        ),
        (
            {
                "resource": "Patient",
                "select": [{"unionAll": [{"column": [ID]}, {"column": [{"name": "id", "path": "active"}]}]}],
            },
            "different types",
        ),
    ],
)
def test_what_is_no_view_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ViewError) as caught:
        View.from_json(given)
    assert message in str(caught.value)
    with pytest.raises(ViewError):
        View.from_json(json.dumps(given))


@pytest.mark.parametrize(
    ("path", "message"),
    [("name.", "at the end"), ("name.fist()", "first"), ("%x", "not defined"), ("name < 1", "cannot be compared")],
)
def test_a_bad_path_is_refused_before_any_data_is_read(path: str, message: str) -> None:
    with pytest.raises(FHIRPathError) as caught:
        View.from_json(definition({"name": "x", "path": path}))
    assert message in str(caught.value)
    assert path in str(caught.value)


def test_unknown_elements_are_empty_with_a_warning(encoded: Any) -> None:
    view = View.from_json(definition({"name": "x", "path": "nmae.family", "type": "string"}))
    assert view.warnings == ("Patient has no element nmae: always empty",)
    assert view.run(encoded({"resourceType": "Patient", "id": "-1"})).to_pylist() == [{"x": None}]


@pytest.mark.parametrize(
    ("path", "tag", "arrow"),
    [
        ("active", None, pa.bool_()),
        ("multipleBirth.ofType(integer)", None, pa.int32()),
        ("birthDate", None, pa.string()),
        ("meta.lastUpdated", None, pa.timestamp("us", tz="UTC")),
        ("name.count()", None, pa.int32()),
        ("birthDate", "DATE", pa.date32()),
        ("birthDate", "TIMESTAMP", pa.timestamp("us")),
        ("birthDate", "TIMESTAMP WITH TIME ZONE", pa.timestamp("us", tz="UTC")),
        ("extension('x').value.ofType(decimal).first()", None, pa.string()),
        ("extension('x').value.ofType(decimal).first()", "DECIMAL(18, 2)", pa.decimal128(18, 2)),
        ("extension('x').value.ofType(decimal).first()", "numeric(50,4)", pa.decimal256(50, 4)),
        ("extension('x').value.ofType(decimal).first()", "DOUBLE PRECISION", pa.float64()),
        ("multipleBirth.ofType(integer)", "BIGINT", pa.int64()),
        ("gender", "CHARACTER VARYING(20)", pa.string()),
    ],
)
def test_the_schema_is_known_before_running_and_kept(
    encoded: Any, path: str, tag: str | None, arrow: pa.DataType
) -> None:
    column: dict[str, Any] = {"name": "x", "path": path}
    if tag:
        column["tag"] = [{"name": "ansi/type", "value": tag}]
    view = View.from_json(definition(column))
    assert view.schema().field("x").type == arrow
    patient = {
        "resourceType": "Patient",
        "id": "-1",
        "active": True,
        "gender": "male",
        "birthDate": "1970-06-15",
        "multipleBirthInteger": 2,
        "meta": {"lastUpdated": "2020-01-01T00:00:00.123456+02:00"},
        "extension": [{"url": "x", "valueDecimal": 12.5}],
    }
    rows = view.run(encoded(patient, {"resourceType": "Patient", "id": "-2"}))
    assert rows.schema == view.schema()
    assert rows["x"].null_count <= 1


def test_ansi_values(encoded: Any) -> None:
    def one(path: str, tag: str, **patient: Any) -> Any:
        view = View.from_json(definition({"name": "x", "path": path, "tag": [{"name": "ansi/type", "value": tag}]}))
        return view.run(encoded({"resourceType": "Patient", "id": "-1", **patient}))["x"][0].as_py()

    assert str(one("birthDate", "DATE", birthDate="1970-06-15")) == "1970-06-15"
    assert one("birthDate", "DATE", birthDate="1970-06") is None
    late = {"deceasedDateTime": "2020-01-31T23:59:59-05:00"}
    assert str(one("deceased.ofType(dateTime)", "DATE", **late)) == "2020-01-31"
    assert str(one("birthDate", "TIMESTAMP", birthDate="1970-06")) == "1970-06-01 00:00:00"
    amount = {"extension": [{"url": "x", "valueDecimal": 12.5}]}
    path = "extension('x').value.ofType(decimal)"
    assert str(one(f"{path}.first()", "DECIMAL(9,2)", **amount)) == "12.50"
    with pytest.raises(ViewError, match="do not fit"):
        one(f"{path}.first()", "DECIMAL(9,0)", **amount)
    assert one("active", "VARCHAR", active=True) == "true"


def test_a_column_of_a_complex_type_is_refused(encoded: Any) -> None:
    view = View.from_json(definition({"name": "x", "path": "name.first()"}))
    with pytest.raises(ViewError, match="not a single value"):
        view.run(encoded({"resourceType": "Patient", "id": "-1", "name": [{"family": "A"}]}))


def test_profiles(tmp_path: Path) -> None:
    path = tmp_path / "view.json"
    path.write_text(json.dumps(definition({"name": "x", "path": "name.given.upper()", "collection": True})))
    messages = [finding.message for finding in check_view(path, profile="shareable")]
    assert [text.rpartition(" ")[2] for text in messages[:3]] == ["url", "name", "fhirVersion"]
    assert any("no type" in text for text in messages) and any("upper()" in text for text in messages)
    (finding,) = check_view(path, profile="tabular")
    assert (finding.severity, "collection" in finding.message) == ("error", True)
    assert check_view(path) == []
    with pytest.raises(ViewError, match="no profile"):
        check_view(path, profile="round")


def test_shipped_views_are_shareable() -> None:
    errors = [item for item in check_view("claim_header", profile="shareable") if item.severity == "error"]
    assert errors == []
    assert check_view("tuva_eligibility") == []


def test_a_slip_in_a_member_name_is_a_warning() -> None:
    column = {"name": "x", "path": "id", "colection": True}
    given = {"resource": "Patient", "select": [{"column": [column], "where": [{"path": "active"}]}], "wher": []}
    found = View.from_json({**given, "status": "draft", "purpose": "any", "_name": {}})
    assert found.warnings == (
        "select[0].column[0] has a member colection, which means nothing there",
        "select[0] has a member where, which means nothing there",
        "the view has a member wher, which means nothing there",
    )


def test_a_bad_fhir_version_is_said() -> None:
    from hiexchange.errors import ConfigError

    with pytest.raises(ConfigError, match=r"1\.0\.2"):
        View.from_json(definition(ID), fhir_version="1.0.2")
