"""Row structure beyond the official suite: crossing, unions, nulls, %rowIndex, repeat, order."""

from __future__ import annotations

from typing import Any

import pytest

from hiexchange.errors import FHIRPathError, ViewError
from hiexchange.views import View

PATIENTS = (
    {
        "resourceType": "Patient",
        "id": "-1",
        "name": [{"family": "A", "given": ["a", "b"]}, {"family": "B"}],
        "telecom": [{"value": "1"}, {"value": "2"}],
    },
    {"resourceType": "Patient", "id": "-2"},
    {"resourceType": "Patient", "id": "-3", "name": [{"given": ["c"]}], "telecom": [{"value": "3"}]},
)


def rows(
    encoded: Any, *select: dict[str, Any], where: str | None = None, resources: Any = PATIENTS
) -> list[tuple[Any, ...]]:
    given: dict[str, Any] = {"resource": resources[0]["resourceType"], "select": list(select)}
    if where:
        given["where"] = [{"path": where}]
    return [tuple(row.values()) for row in View.from_json(given).run(encoded(*resources)).to_pylist()]


def col(name: str, path: str, **rest: Any) -> dict[str, Any]:
    return {"name": name, "path": path, **rest}


ID = {"column": [col("id", "id")]}


def test_siblings_are_crossed_per_resource(encoded: Any) -> None:
    names = {"forEach": "name", "column": [col("family", "family")]}
    phones = {"forEach": "telecom", "column": [col("phone", "value")]}
    assert rows(encoded, ID, names, phones) == [
        ("-1", "A", "1"),
        ("-1", "A", "2"),
        ("-1", "B", "1"),
        ("-1", "B", "2"),
        ("-3", None, "3"),
    ]


def test_nested_levels_under_a_kept_null(encoded: Any) -> None:
    inner = {"forEachOrNull": "given", "column": [col("given", "$this"), col("at", "%rowIndex")]}
    names = {"forEachOrNull": "name", "column": [col("family", "family")], "select": [inner]}
    assert rows(encoded, ID, names) == [
        ("-1", "A", "a", 0),
        ("-1", "A", "b", 1),
        ("-1", "B", None, 0),
        ("-2", None, None, 0),
        ("-3", None, "c", 0),
    ]


def test_where_filters_resources_before_the_rows(encoded: Any) -> None:
    names = {"forEach": "name", "column": [col("family", "family")]}
    assert rows(encoded, ID, names, where="telecom.count() > 1") == [("-1", "A"), ("-1", "B")]
    assert rows(encoded, ID, where="id = 'none'") == []


def test_unions_stay_together_per_parent(encoded: Any) -> None:
    union = {
        "unionAll": [
            {"forEach": "telecom", "column": [col("x", "value"), col("at", "%rowIndex")]},
            {"column": [col("x", "'-'"), col("at", "%rowIndex")]},
            {"forEachOrNull": "name", "column": [col("x", "family"), col("at", "%rowIndex")]},
        ]
    }
    assert [row for row in rows(encoded, ID, union) if row[0] != "-1"] == [
        ("-2", "-", 0),
        ("-2", None, 0),
        ("-3", "3", 0),
        ("-3", "-", 0),
        ("-3", None, 0),
    ]


def test_row_index_reaches_into_criteria(encoded: Any) -> None:
    names = {
        "forEach": "name",
        "column": [col("second", "given.where(%rowIndex = 1).exists()"), col("at", "%rowIndex")],
    }
    assert rows(encoded, ID, names) == [("-1", False, 0), ("-1", False, 1), ("-3", False, 0)]


def test_the_resource_is_in_reach_from_every_level(encoded: Any) -> None:
    names = {"forEach": "name.given", "column": [col("given", "$this"), col("phones", "%resource.telecom.count()")]}
    assert rows(encoded, ID, names) == [("-1", "a", 2), ("-1", "b", 2), ("-3", "c", 1)]


def test_a_choice_element_as_rows_keeps_its_order(encoded: Any) -> None:
    code = {"code": {"text": "x"}}
    parts = [{**code, "valueString": "a"}, {**code, "valueInteger": 2}, {**code}, {**code, "valueString": "c"}]
    observation = {"resourceType": "Observation", "id": "-1", "status": "final", **code, "component": parts}
    values = {"forEach": "component.value", "column": [col("v", "$this.toString()"), col("at", "%rowIndex")]}
    assert rows(encoded, values, resources=(observation,)) == [("a", 0), ("2", 1), ("c", 2)]
    kept = {"forEachOrNull": "component.value", "column": [col("v", "$this.toString()")]}
    empty = {"resourceType": "Observation", "id": "-2", "status": "final", **code}
    assert rows(encoded, kept, resources=(observation, empty)) == [("a",), ("2",), ("c",), (None,)]


def test_repeat_is_preorder_over_levels_of_different_shape(encoded: Any) -> None:
    items = [
        {"linkId": "1", "item": [{"linkId": "1.1", "item": [{"linkId": "1.1.1", "text": "deep"}]}, {"linkId": "1.2"}]},
        {"linkId": "2", "prefix": "p"},
    ]
    first = {"resourceType": "Questionnaire", "id": "-1", "status": "draft", "item": items}
    second = {"resourceType": "Questionnaire", "id": "-2", "status": "draft", "item": [{"linkId": "9"}]}
    select = {"repeat": ["item"], "column": [col("link", "linkId"), col("text", "text"), col("at", "%rowIndex")]}
    assert rows(encoded, ID, select, resources=(first, second)) == [
        ("-1", "1", None, 0),
        ("-1", "1.1", None, 1),
        ("-1", "1.1.1", "deep", 2),
        ("-1", "1.2", None, 3),
        ("-1", "2", None, 4),
        ("-2", "9", None, 0),
    ]


def test_constants_of_every_kind_compare(encoded: Any) -> None:
    given = {
        "resource": "Patient",
        "constant": [
            {"name": "flag", "valueBoolean": True},
            {"name": "day", "valueDate": "1970-06-15"},
            {"name": "number", "valueDecimal": "1.50"},
            {"name": "many", "valueInteger64": "3"},
        ],
        "select": [
            {
                "column": [
                    col("a", "active = %flag"),
                    col("b", "birthDate = %day"),
                    col("c", "%number", type="decimal"),
                    col("d", "%many + 1"),
                ]
            }
        ],
    }
    patient = {"resourceType": "Patient", "id": "-1", "active": True, "birthDate": "1970-06-15"}
    (row,) = View.from_json(given).run(encoded(patient)).to_pylist()
    assert row == {"a": True, "b": True, "c": "1.50", "d": 4}


def test_several_values_in_a_column_name_the_column(encoded: Any) -> None:
    with pytest.raises(ViewError, match="column given has several values"):
        rows(encoded, {"column": [col("given", "name.given")]})
    with pytest.raises(FHIRPathError, match="single value") as caught:
        rows(encoded, {"column": [col("up", "name.given.upper()")]})
    assert "column up" in str(caught.value)


def test_errors_hold_no_patient_data(encoded: Any) -> None:
    patient = {"resourceType": "Patient", "id": "-1", "name": [{"family": "Secret", "given": ["x", "y"]}]}
    for path in ("name.given", "name.given.upper()", "name.given + 'a'"):
        with pytest.raises(ViewError) as caught:
            rows(encoded, {"column": [col("given", path)]}, resources=(patient,))
        assert "Secret" not in repr(caught.value) and "'x'" not in str(caught.value)


def test_contained_resources_are_no_rows_but_can_be_walked(encoded: Any) -> None:
    inside = {"resourceType": "Patient", "id": "in", "name": [{"family": "Inner"}]}
    patient = {
        "resourceType": "Patient",
        "id": "-1",
        "contained": [inside, {"resourceType": "Organization", "name": "O"}],
    }
    select = {"column": [col("id", "id"), col("inner", "contained.ofType(Patient).name.family", type="string")]}
    assert rows(encoded, select, resources=(patient,)) == [("-1", "Inner")]
    assert rows(encoded, {"column": [col("n", "contained.count()")]}, resources=(patient,)) == [(2,)]


def test_fhir_r5_and_stu3_definitions_are_used(encoded: Any) -> None:
    given = {"resource": "Encounter", "select": [{"column": [col("klass", "class.coding.code.first()", type="code")]}]}
    r5 = {"resourceType": "Encounter", "id": "-1", "status": "completed", "class": [{"coding": [{"code": "AMB"}]}]}
    view = View.from_json(given, fhir_version="5.0.0")
    assert view.warnings == ()
    assert view.run(encoded(r5, version="5.0.0")).to_pylist() == [{"klass": "AMB"}]
