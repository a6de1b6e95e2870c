"""Formats by name, loaded on first use; a package adds one by the entry point ``hiexchange.formats``."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import cast

from hiexchange.delivery.base import Format
from hiexchange.errors import UnknownLayout

BUILT_IN = {
    "csv": "hiexchange.delivery.text:CSV",
    "tsv": "hiexchange.delivery.text:TSV",
    "pipe": "hiexchange.delivery.text:PIPE",
    "ndjson": "hiexchange.delivery.text:NDJSON",
    "xlsx": "hiexchange.delivery.excel:XLSX",
    "parquet": "hiexchange.delivery.parquet:PARQUET",
    "fhir": "hiexchange.delivery.alerts:FHIR",
    "hl7v2": "hiexchange.delivery.adt:HL7V2",
}


def format_named(name: str) -> Format:
    """Return a format.

    Raises:
        UnknownLayout: There is none of that name, built in or installed.
        MissingExtra: It needs an optional dependency.
    """
    where = BUILT_IN.get(name)
    if where is None:
        found = [point for point in entry_points(group="hiexchange.formats") if point.name == name]
        if not found:
            raise UnknownLayout(f"there is no format '{name}'", hint=f"one of {', '.join(BUILT_IN)}")
        return cast(Format, found[0].load())
    module, _, attribute = where.partition(":")
    return cast(Format, getattr(importlib.import_module(module), attribute))
