"""The shipped views and queries, by name."""

from __future__ import annotations

import difflib
import importlib.resources
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pyarrow as pa

from hiexchange.errors import ConfigError, ViewError
from hiexchange.views.sqlquery import SQLQuery
from hiexchange.views.view import View, load_json


def view_names() -> tuple[str, ...]:
    """Return the names of the shipped views and SQL queries, sorted."""
    return tuple(sorted(_shipped_files()))


def load_view(name_or_path: str | Path, *, fhir_version: str = "4.0.1") -> View | SQLQuery:
    """Return a shipped view or query by name or canonical URL, or the one in a file.

    A file is a ViewDefinition (``.json``), a Library of the SQLQuery profile (``.json``), or annotated
    SQL (``.sql``).

    Raises:
        ViewError: There is no such view, or the file is not a valid one.
        ConfigError: The file cannot be read.
    """
    name = str(name_or_path)
    if isinstance(name_or_path, str):
        shipped = name.rpartition("/")[2].partition("|")[0] if "://" in name else name
        if shipped in _shipped_files():
            return _shipped(shipped, fhir_version)
    path = Path(name_or_path)
    if path.suffix in (".json", ".sql") or path.is_file():
        return _from_file(path, fhir_version)
    near = difflib.get_close_matches(name, view_names(), 1)
    raise ViewError(
        f"there is no view {name!r}",
        hint=f"did you mean {near[0]}?" if near else f"shipped: {', '.join(view_names())}; or give a file",
    )


def view(name_or_path: str | Path, source: Any, *, fhir_version: str = "4.0.1") -> pa.Table:
    """Return the rows of a view: a shipped one by name, or one in a file.

    Args:
        name_or_path: ``patient_demographics``, ``encounter``, ``tuva_medical_claim`` ...
            (:func:`view_names`), or a path.
        source: A lake, a lake table, Arrow data in the lake's layout, or NDJSON paths.
        fhir_version: FHIR version of the resources.

    Raises:
        ViewError: No such view, or it does not fit the data.
    """
    return load_view(name_or_path, fhir_version=fhir_version).run(source)


def _from_file(path: Path, fhir_version: str) -> View | SQLQuery:
    # A query in a file may need views that lie beside it.
    def load(name: str) -> View | SQLQuery:
        beside = path.with_name(f"{name.rpartition('/')[2]}.json")
        return load_view(beside if beside.is_file() else name, fhir_version=fhir_version)

    if path.suffix == ".sql":
        try:
            return SQLQuery.from_sql(path.read_text(encoding="utf-8"), load=load)
        except OSError as error:
            raise ConfigError("the query cannot be read", where=str(path), said=error.strerror) from None
        except UnicodeDecodeError:
            raise ViewError("the query is not UTF-8", where=str(path)) from None
    return _from_json(load_json(path), fhir_version, load)


def _from_json(given: Any, fhir_version: str, load: Any) -> View | SQLQuery:
    if isinstance(given, dict) and given.get("resourceType") == "Library":
        return SQLQuery.from_json(given, load=load)
    return View.from_json(given, fhir_version=fhir_version)


def _shipped_files() -> dict[str, Traversable]:
    folder = importlib.resources.files(__package__).joinpath("library")
    return {item.name.rpartition(".")[0]: item for item in folder.iterdir() if item.name.endswith((".json", ".sql"))}


@lru_cache(maxsize=64)
def _shipped(name: str, fhir_version: str) -> View | SQLQuery:
    file = _shipped_files()[name]
    text = file.read_text(encoding="utf-8")
    if file.name.endswith(".sql"):
        return SQLQuery.from_sql(text, load=lambda needed: load_view(needed, fhir_version=fhir_version))
    return View.from_json(load_json(text), fhir_version=fhir_version)
