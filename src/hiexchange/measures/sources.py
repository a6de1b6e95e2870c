"""Patients one by one, with their resources: out of a lake, a folder of Bundles, or Bundles in memory.

A subject is (id, resources as JSON bytes or dictionaries, in file order). Memory holds one block of
patients at a time, whatever the size of the population.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from hiexchange.errors import MeasureError
from hiexchange.measures.cql.library import Library
from hiexchange.measures.lakes import SHARED, Raw, SubjectRows, patient_ids, quoted, scan, subjects_of

__all__ = [
    "SHARED",
    "Raw",
    "SubjectRows",
    "bundled",
    "decode",
    "elements_of",
    "patient_ids",
    "quoted",
    "scan",
    "subjects",
]

_ALWAYS = {
    "resourceType", "id", "meta", "extension", "modifierExtension", "contained", "status", "category", "code", "type",
    "doNotPerform", "encounter", "subject", "patient", "for", "medication", "vaccineCode", "event", "class", "identifier",
}  # fmt: skip

decode = msgspec.json.Decoder(float_hook=Decimal).decode


def subjects(
    source: Any,
    types: frozenset[str],
    elements: frozenset[str] | None,
    only: Any = None,
    *,
    keep: pa.Array | None = None,
) -> Iterator[SubjectRows]:
    """Yield the patients of a source.

    Args:
        source: A lake (it has ``files`` and ``tables``), a path, or an iterable of Bundles.
        types: FHIR types needed.
        elements: Top-level elements needed, None for all; choice elements by stem.
        only: Patient ids to restrict the source to, None for all.
        keep: Ids of a lake's patients whose resources are read; others come without any. None for all.

    Raises:
        MeasureError: A path does not exist, or a file holds no Bundle.
    """
    if hasattr(source, "files") and hasattr(source, "tables"):
        return subjects_of(source, types, elements, only=only, keep=keep)
    bundles = _folder(Path(source)) if isinstance(source, str | Path) else iter(source)
    return (found for found in map(bundled, bundles) if only is None or found[0] in only)


def elements_of(libraries: Iterable[Library]) -> frozenset[str]:
    """Return the names of elements any expression of the libraries may read at top level."""
    names = set(_ALWAYS)
    for elm in libraries:
        for node in elm.nodes:
            if node["type"] in ("Property", "ByColumn"):
                names.add(node["path"].partition(".")[0])
            elif node["type"] == "IdentifierRef":
                names.add(node["name"])
            elif node["type"] == "Retrieve":
                names.update(node[key].partition(".")[0] for key in ("codeProperty", "dateProperty") if node.get(key))
    return frozenset(names)


def bundled(bundle: Any) -> SubjectRows:
    """Return the patient a Bundle holds.

    Raises:
        MeasureError: It is no Bundle.
    """
    if not isinstance(bundle, Mapping) or bundle.get("resourceType") != "Bundle":
        raise MeasureError(
            "a patient must come as a FHIR Bundle", hint="NDJSON of single resources is loaded into a lake first"
        )
    rows = [entry["resource"] for entry in bundle.get("entry") or () if isinstance(entry.get("resource"), Mapping)]
    found = next((row.get("id") for row in rows if row.get("resourceType") == "Patient"), None)
    return str(found or bundle.get("id") or ""), rows


def _folder(path: Path) -> Iterator[Any]:
    if not path.exists():
        raise MeasureError("there is no data here", where=str(path), hint="give a lake, a folder of Bundles or a file")
    if (path / "_hx").is_dir():
        raise MeasureError("this folder is a lake", where=str(path), hint="give hiexchange.Lake(path)")
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [file for file in found if file.is_file() and file.name.removesuffix(".gz").endswith((".json", ".ndjson"))]
    if not files:
        raise MeasureError(
            "there is no Bundle here", where=str(path), hint="give a lake, a folder of Bundles or a file"
        )
    for file in files:
        yield from _bundles(file)


def _bundles(file: Path) -> Iterator[Any]:
    data = file.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    try:
        texts = [data] if file.name.removesuffix(".gz").endswith(".json") else data.split(b"\n")
        for text in texts:
            if text.strip():
                yield decode(text)
    except msgspec.DecodeError:
        raise MeasureError("the file is not JSON", where=file.name) from None
