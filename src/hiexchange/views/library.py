"""The shipped views, by name."""

from __future__ import annotations

import difflib
import importlib.resources
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from hiexchange.errors import ViewError
from hiexchange.views.view import View, load_json

_FOLDER = "library"


def view_names() -> tuple[str, ...]:
    """Return the names of the shipped views, sorted."""
    folder = importlib.resources.files(__package__).joinpath(_FOLDER)
    return tuple(sorted(item.name.removesuffix(".json") for item in folder.iterdir() if item.name.endswith(".json")))


def load_view(name_or_path: str | Path, *, fhir_version: str = "4.0.1") -> View:
    """Return a shipped view by name, or the view in a JSON file.

    Raises:
        ViewError: There is neither, or the file is not a valid view.
    """
    if isinstance(name_or_path, str) and name_or_path in view_names():
        return _shipped(name_or_path, fhir_version)
    path = Path(name_or_path)
    if path.suffix == ".json" or path.is_file():
        return View.from_json(path, fhir_version=fhir_version)
    near = difflib.get_close_matches(str(name_or_path), view_names(), 1)
    raise ViewError(
        f"there is no view {str(name_or_path)!r}",
        hint=f"did you mean {near[0]}?" if near else f"shipped: {', '.join(view_names())}; or give a .json file",
    )


def view(name_or_path: str | Path, source: Any, *, fhir_version: str = "4.0.1") -> pa.Table:
    """Return the rows of a view: a shipped one by name, or a ViewDefinition file.

    Args:
        name_or_path: ``patient_demographics``, ``encounter`` ... (:func:`view_names`), or a path.
        source: A lake, a lake table, Arrow data in the lake's layout, or NDJSON paths.
        fhir_version: FHIR version of the resources.

    Raises:
        ViewError: No such view, or it does not fit the data.
    """
    return load_view(name_or_path, fhir_version=fhir_version).run(source)


@lru_cache(maxsize=64)
def _shipped(name: str, fhir_version: str) -> View:
    text = importlib.resources.files(__package__).joinpath(_FOLDER, f"{name}.json").read_bytes()
    return View.from_json(load_json(text.decode()), fhir_version=fhir_version)
