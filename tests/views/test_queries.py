"""SQLQuery libraries: the annotated file, the FHIR Library, parameters, dialects, errors."""

from __future__ import annotations

import base64
import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.errors import ViewError
from hiexchange.views import SQLQuery, load_view, view_names

TEXT = """-- @name born_after
-- @title People born after a day
-- @needs patient_demographics as person
-- @param since date
-- @param floor decimal
-- What a comment says stays in the SQL.
SELECT person_id FROM person WHERE birth_date > CAST($since AS VARCHAR) AND coalesce($floor, 0) < 2
"""
PEOPLE = pa.table({"person_id": ["-1", "-2"], "birth_date": ["1970-01-01", "2001-05-05"]})


def library(*contents: tuple[str, str], **rest: Any) -> dict[str, Any]:
    entries = [{"contentType": kind, "data": base64.b64encode(sql.encode()).decode()} for kind, sql in contents]
    return {
        "resourceType": "Library",
        "name": "q",
        "type": {"coding": [{"code": "sql-query"}]},
        "relatedArtifact": [{"type": "depends-on", "resource": "https://x/ViewDefinition/p", "label": "person"}],
        "content": entries,
        **rest,
    }


def test_an_annotated_file_is_a_query() -> None:
    query = SQLQuery.from_sql(TEXT)
    assert (query.name, query.title) == ("born_after", "People born after a day")
    assert [(need.view, need.table) for need in query.needs] == [("patient_demographics", "person")]
    assert "What a comment says" in query.sql
    rows = query.run({"person": PEOPLE}, {"since": "2000-01-01"})
    assert rows.to_pylist() == [{"person_id": "-2"}]
    assert query.run({"person": PEOPLE}, {"since": date(1960, 1, 1)}).num_rows == 2
    assert query.run({"person": PEOPLE}).num_rows == 0


def test_the_library_of_a_query_is_the_same_query() -> None:
    made = SQLQuery.from_sql(TEXT).to_json()
    assert made["content"][0]["contentType"] == "application/sql;dialect=duckdb"
    again = SQLQuery.from_json(json.loads(json.dumps(made)))
    assert again.sql == SQLQuery.from_sql(TEXT).sql
    assert again.parameters == SQLQuery.from_sql(TEXT).parameters
    assert again.run({"person": PEOPLE}, {"since": "2000-01-01"}).num_rows == 1


def test_the_dialect_is_chosen() -> None:
    ours, ansi, other = "SELECT 1 AS x", "SELECT 2 AS x", "SELECT 3 AS x"
    chosen = library(
        ("application/sql;dialect=postgresql", other),
        ("application/sql", ansi),
        ("application/sql;dialect=duckdb", ours),
    )
    assert SQLQuery.from_json(chosen).sql == ours
    assert SQLQuery.from_json(library(("application/sql; dialect=ansi-sql", ansi))).sql == ansi
    with pytest.raises(ViewError, match="no SQL for DuckDB"):
        SQLQuery.from_json(library(("application/sql;dialect=postgresql", other)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SQLQuery.from_sql("SELECT 1"), "no name"),
        (lambda: SQLQuery.from_sql("-- @name q\n-- @needs a as 1b\nSELECT 1"), "no table name"),
        (lambda: SQLQuery.from_sql("-- @name q\n-- @param a planet\nSELECT 1"), "planet"),
        (lambda: SQLQuery.from_json({"resourceType": "Measure"}), "not a Library"),
        (lambda: SQLQuery.from_json({"resourceType": "Library"}), "sql-query"),
        (lambda: SQLQuery.from_sql(TEXT).run({}), "not given"),
        (lambda: SQLQuery.from_sql(TEXT).run({"person": PEOPLE}, {"since": "soon"}), "no date"),
        (lambda: SQLQuery.from_sql(TEXT).run({"person": PEOPLE}, {"until": "x"}), "no parameter until"),
        (lambda: SQLQuery.from_sql("-- @name q\nSELEC 1").run({}), "fails"),
        (lambda: SQLQuery.from_sql(TEXT).run("folder"), "not given"),
    ],
)
def test_errors(make: Any, message: str) -> None:
    with pytest.raises(ViewError) as caught:
        make()
    assert message in str(caught.value)


def test_errors_of_the_run_quote_no_values() -> None:
    query = SQLQuery.from_sql(
        "-- @name q\n-- @needs p as person\nSELECT CAST(person_id || 'Secret' AS INTEGER) FROM person"
    )
    with pytest.raises(ViewError) as caught:
        query.run({"person": PEOPLE})
    assert "Secret" not in str(caught.value) and caught.value.said == "ConversionException"


def test_a_query_file_may_need_a_view_beside_it(tmp_path: Path, encoded: Any) -> None:
    own = {"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"}]}]}
    (tmp_path / "own.json").write_text(json.dumps(own))
    (tmp_path / "count.sql").write_text("-- @name count\n-- @needs own as o\nSELECT count(*) AS n FROM o\n")
    query = load_view(tmp_path / "count.sql")
    assert query.run(encoded({"resourceType": "Patient", "id": "-1"})).to_pylist() == [{"n": 1}]
    (tmp_path / "count.json").write_text(json.dumps(SQLQuery.from_sql((tmp_path / "count.sql").read_text()).to_json()))
    again = load_view(tmp_path / "count.json")
    assert again.run(encoded({"resourceType": "Patient", "id": "-1"})).to_pylist() == [{"n": 1}]


def test_shipped_queries_make_valid_libraries() -> None:
    queries = [found for name in view_names() if isinstance(found := load_view(name), SQLQuery)]
    assert len(queries) == 5
    for query in queries:
        made = query.to_json()
        assert SQLQuery.from_json(made).sql == query.sql
        for artifact in made["relatedArtifact"]:
            assert load_view(artifact["resource"]) is not None
