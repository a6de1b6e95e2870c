"""The corridor: schemas are documented, and a table that is not one is refused."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

from hiexchange import errors, tables
from hiexchange.errors import SchemaMismatch


@pytest.mark.parametrize("table", tables.TABLES.values(), ids=lambda table: table.name)
def test_every_column_has_a_meaning_and_every_key_is_a_column(table: tables.Table) -> None:
    assert set(table.key) <= set(table.schema.names)
    assert len(set(table.schema.names)) == len(table.columns)
    undocumented = [column.name for column in table.columns if not column.doc]
    assert undocumented == []


def test_a_missing_column_is_named() -> None:
    with pytest.raises(SchemaMismatch, match="lacks code"):
        tables.check(tables.ISSUE.empty().drop_columns(["code"]), tables.ISSUE)


def test_columns_are_ordered_cast_and_extra_ones_dropped() -> None:
    rows = tables.ISSUE.from_rows(
        [{"stage": "lake", "severity": "error", "code": "not-json", "message": "cut", "row_no": 3}]
    )
    shuffled = rows.select(rows.column_names[::-1]).append_column("extra", pa.array([1]))
    narrow = shuffled.set_column(shuffled.column_names.index("row_no"), "row_no", pa.array([3], pa.int32()))
    assert tables.check(narrow, tables.ISSUE).equals(rows)


def test_a_null_in_a_required_column_is_an_error() -> None:
    with pytest.raises(SchemaMismatch, match=r"issue\.code holds 1 nulls"):
        tables.check(
            pa.Table.from_pylist([dict.fromkeys(tables.ISSUE.schema.names)], tables.ISSUE.schema)
            .set_column(0, "stage", pa.array(["x"]))
            .set_column(1, "severity", pa.array(["error"])),
            tables.ISSUE,
        )


def test_a_type_that_loses_is_refused() -> None:
    table = tables.ISSUE.empty().set_column(5, "row_no", pa.array([], pa.list_(pa.string())))
    with pytest.raises(SchemaMismatch, match="cannot become int64"):
        tables.check(table, tables.ISSUE)


def test_an_unknown_key_of_a_row_is_an_error() -> None:
    with pytest.raises(SchemaMismatch, match="has no column colour"):
        tables.ISSUE.from_rows([{"colour": "red"}])


def every_error() -> list[type[errors.HIExchangeError]]:
    found, todo = [], [errors.HIExchangeError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo += [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return found


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_survives_a_process_boundary_with_its_parts(kind: type[errors.HIExchangeError]) -> None:
    arguments = {"BadLine": {"file": "a", "line": 1, "offset": 0}}.get(kind.__name__, {})
    error = kind("sftp", "delivery") if kind is errors.MissingExtra else kind("it broke", hint="mend it", **arguments)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind and str(copy) == str(error) and copy.__dict__ == error.__dict__
    assert error.code.startswith("HX-") and error.exit_code in {1, 3, 4, 5, 6, 7, 8, 130}
