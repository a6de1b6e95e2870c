"""SQLQuery libraries: SQL over the results of views, run by DuckDB in memory.

A query is a FHIR Library of the SQLQuery profile, or an ``.sql`` file whose leading comments say the
same: ``-- @name``, ``-- @title``, ``-- @needs VIEW as TABLE``, ``-- @param NAME TYPE``. The file is what
people edit; :meth:`SQLQuery.to_json` writes the Library that other tools run.

Source: StructureDefinition-SQLQuery (FHIR/sql-on-fhir-v2).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from hiexchange._duck import quiet_connection, said
from hiexchange.errors import ViewError

PROFILE = "https://sql-on-fhir.org/ig/StructureDefinition/SQLQuery"
BASE = "https://hiexchange.example"
DIALECT = "duckdb"
_HEADER = re.compile(r"--\s*@(\w+)\s+(.+?)\s*\Z")
_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_PYTHON: dict[str, Callable[[str], Any]] = {
    "string": str,
    "code": str,
    "uri": str,
    "id": str,
    "integer": int,
    "decimal": Decimal,
    "boolean": lambda text: {"true": True, "false": False}[text],
    "date": date.fromisoformat,
    "dateTime": datetime.fromisoformat,
}
"""Parameter types, and how their text is read."""


@dataclass(frozen=True, slots=True)
class Need:
    """A table the SQL reads."""

    table: str
    """Its name in the SQL."""
    view: str
    """Name or canonical URL of the view that gives it."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A named parameter, ``$name`` in the SQL; null where the caller gives none."""

    name: str
    type: str


@dataclass(frozen=True, eq=False)
class SQLQuery:
    """SQL with the views and parameters it needs."""

    name: str
    sql: str
    needs: tuple[Need, ...]
    parameters: tuple[Parameter, ...] = ()
    title: str | None = None
    load: Callable[[str], Any] | None = None
    """Finds a view by name or URL; :func:`hiexchange.views.load_view` puts itself here."""

    warnings = ()

    @classmethod
    def from_sql(cls, text: str, *, load: Callable[[str], Any] | None = None) -> SQLQuery:
        """Return the query of an annotated ``.sql`` text.

        Raises:
            ViewError: The header has no name, or an entry cannot be read.
        """
        entries = list(_entries(text))
        names = [value for key, value in entries if key == "name"]
        if not names:
            raise ViewError("the SQL has no name", hint="start the file with: -- @name my_query")
        needs = []
        for value in (value for key, value in entries if key == "needs"):
            view, _, table = value.partition(" as ")
            needs.append(_need(view.strip(), (table or view).strip()))
        parameters = tuple(_parameter(*value.split()[:2]) for key, value in entries if key == "param")
        title = next((value for key, value in entries if key == "title"), None)
        body = "\n".join(line for line in text.splitlines() if not _HEADER.match(line)).strip() + "\n"
        return cls(names[0], body, tuple(needs), parameters, title, load)

    @classmethod
    def from_json(cls, library: Mapping[str, Any], *, load: Callable[[str], Any] | None = None) -> SQLQuery:
        """Return the query of a FHIR Library; of several dialects, DuckDB's or the one without a dialect.

        Raises:
            ViewError: It is no SQLQuery library, or has no SQL that DuckDB reads.
        """
        if library.get("resourceType") != "Library":
            raise ViewError(f"this is a {library.get('resourceType')}, not a Library")
        codes = [coding.get("code") for coding in (library.get("type") or {}).get("coding") or ()]
        if "sql-query" not in codes:
            raise ViewError("the Library is not of type sql-query")
        needs = tuple(
            _need(str(item.get("resource")), str(item.get("label")))
            for item in library.get("relatedArtifact") or ()
            if item.get("type") == "depends-on"
        )
        parameters = tuple(
            _parameter(str(item.get("name")), str(item.get("type")))
            for item in library.get("parameter") or ()
            if item.get("use", "in") == "in"
        )
        name = str(library.get("name") or library.get("id") or "query")
        return cls(name, _dialect(library.get("content") or ()), needs, parameters, library.get("title"), load)

    def to_json(self) -> dict[str, Any]:
        """Return the FHIR Library of the SQLQuery profile."""
        return {
            "resourceType": "Library",
            "meta": {"profile": [PROFILE]},
            "url": f"{BASE}/Library/{self.name}",
            "name": self.name,
            "title": self.title or self.name,
            "status": "active",
            "type": {
                "coding": [{"system": "https://sql-on-fhir.org/ig/CodeSystem/LibraryTypesCodes", "code": "sql-query"}]
            },
            "relatedArtifact": [
                {"type": "depends-on", "resource": _canonical(need.view), "label": need.table} for need in self.needs
            ],
            "parameter": [{"name": item.name, "use": "in", "type": item.type} for item in self.parameters],
            "content": [
                {
                    "contentType": f"application/sql;dialect={DIALECT}",
                    "title": self.sql,
                    "data": base64.b64encode(self.sql.encode()).decode(),
                }
            ],
        }

    def run(self, source: Any, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Return the rows of the query over a source's views.

        Args:
            source: What :meth:`View.run` takes, holding all resource types the views need; or a mapping
                of table names to Arrow data that stand in for them.
            parameters: Values by name; text is read by the declared type.

        Raises:
            ViewError: A view is unknown, a parameter is not declared, or the SQL fails.
        """
        tables = {need.table: self._table(need, source) for need in self.needs}
        return self._execute(tables, self._values(parameters or {}))

    def schema(self) -> pa.Schema:
        """Return the Arrow schema of the result; known without data."""
        tables = {need.table: self._view(need).schema().empty_table() for need in self.needs}
        return self._execute(tables, self._values({})).schema

    def stream(self, source: Any) -> Iterator[pa.RecordBatch]:
        """Yield the rows batch by batch (a query is computed whole)."""
        yield from self.run(source).to_batches()

    def _view(self, need: Need) -> Any:
        if self.load is None:
            raise ViewError(f"the table {need.table} is not given", hint="pass its rows, or load the query by name")
        return self.load(need.view)

    def _table(self, need: Need, source: Any) -> pa.Table:
        if isinstance(source, Mapping):
            if need.table in source:
                given = source[need.table]
                return given if isinstance(given, pa.Table) else pa.table(given)
            raise ViewError(f"the table {need.table} is not given")
        view = self._view(need)
        if (
            hasattr(view, "definition")
            and hasattr(source, "tables")
            and view.definition.resource not in source.tables()
        ):
            # Claims of a lake without Coverage are still claims: such a table is empty, its columns null.
            return view.schema().empty_table()
        return view.run(source)

    def _values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        declared = {item.name: item.type for item in self.parameters}
        unknown = sorted(set(given) - set(declared))
        if unknown:
            raise ViewError(f"the query has no parameter {', '.join(unknown)}", hint=f"it has {', '.join(declared)}")
        values: dict[str, Any] = {}
        for name, type in declared.items():
            value = given.get(name)
            try:
                values[name] = _PYTHON[type](value) if isinstance(value, str) else value
            except (ValueError, KeyError, ArithmeticError):
                raise ViewError(f"the parameter {name} is no {type}") from None
        return values

    def _execute(self, tables: Mapping[str, pa.Table], values: dict[str, Any]) -> pa.Table:
        with quiet_connection() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for name, table in tables.items():
                connection.register(name, table)
            try:
                found = connection.sql(self.sql, params=values or None).to_arrow_table()
            except duckdb.Error as error:
                raise ViewError(f"the SQL of {self.name} fails", said=said(error)) from None
        return found


def _entries(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        match = _HEADER.match(line)
        if match:
            yield match[1], match[2]


def _need(view: str, table: str) -> Need:
    if not _TABLE.match(table):
        raise ViewError(f"{table!r} is no table name")
    return Need(table, view)


def _parameter(name: str, type: str = "string") -> Parameter:
    if type not in _PYTHON:
        raise ViewError(f"the parameter {name} has type {type!r}", hint=f"one of {', '.join(_PYTHON)}")
    return Parameter(name, type)


def _dialect(contents: Any) -> str:
    """Pick the SQL for DuckDB."""
    plain = None
    for item in contents:
        kind, _, rest = str(item.get("contentType", "")).replace(" ", "").partition(";")
        if kind != "application/sql" or not item.get("data"):
            continue
        dialect = rest.removeprefix("dialect=")
        if dialect == DIALECT:
            return base64.b64decode(item["data"]).decode()
        # ANSI SQL, or SQL that names no dialect, is worth a try; another product's is not.
        if dialect in ("", "ansi-sql", "ansi"):
            plain = base64.b64decode(item["data"]).decode()
    if plain is None:
        raise ViewError("the Library has no SQL for DuckDB")
    return plain


def _canonical(view: str) -> str:
    return view if "://" in view else f"{BASE}/ViewDefinition/{view}"
