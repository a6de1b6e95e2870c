"""Vendor repairs: optional, counted, and never applied unless asked for.

A repair adds what the base specification requires and a server leaves out, with the extension that says so;
it overwrites nothing but a placeholder known to be wrong. The rows then hold the repaired resource, and
``to_ndjson`` gives it back repaired. Rules follow google/bulk_fhir_tools ``bcdarectify.go`` (2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from hiexchange.errors import ConfigError
from hiexchange.lake.lines import BLANKS, Refused, parse

ABSENT = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}


def _provider(value: dict[str, Any]) -> int:
    # BCDA v1 and v2: ExplanationOfBenefit.provider is required and not mapped.
    if "provider" in value:
        return 0
    value["provider"] = ABSENT
    return 1


def _focal(value: dict[str, Any]) -> int:
    return _missing_in(value.get("insurance"), "focal", "_focal")


def _product(value: dict[str, Any]) -> int:
    return _missing_in(value.get("item"), "productOrService", "productOrService")


def _missing_in(items: Any, name: str, put: str) -> int:
    count = 0
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and name not in item and put not in item:
            item[put] = ABSENT
            count += 1
    return count


def _contract(value: dict[str, Any]) -> int:
    # BCDA: Coverage.contract refers to a Coverage that does not exist, as a placeholder.
    count = 0
    contracts = value.get("contract")
    for reference in contracts if isinstance(contracts, list) else []:
        if isinstance(reference, dict) and reference.get("reference") == "Coverage/part-a-contract1":
            reference["reference"] = "Contract/part-a-contract1"
            count += 1
    return count


RULES: dict[str, dict[str, dict[str, Callable[[dict[str, Any]], int]]]] = {
    "bcda": {
        "ExplanationOfBenefit": {
            "missing-provider": _provider,
            "missing-focal": _focal,
            "missing-product-or-service": _product,
        },
        "Coverage": {"placeholder-contract": _contract},
    }
}
"""{set: {resource type: {name: rule}}}; a rule changes the parsed resource and returns how often."""


def check_repairs(names: tuple[str, ...]) -> None:
    """Refuse a name that is no set of repairs.

    Raises:
        ConfigError: No set has that name.
    """
    for name in names:
        if name not in RULES:
            raise ConfigError(f"there is no set of repairs {name!r}", hint=f"use {', '.join(RULES)}")


def repaired(line: bytes, resource: str, names: tuple[str, ...]) -> tuple[bytes, dict[str, int]] | None:
    """Return a repaired line and what was done, or None when nothing was or the line can't be read."""
    rules = {name: rule for chosen in names for name, rule in RULES[chosen].get(resource, {}).items()}
    if not rules:
        return None
    try:
        value = parse(line.strip(BLANKS))
    except Refused:
        return None
    counts = {name: count for name, rule in rules.items() if (count := rule(value))}
    return (msgspec.json.encode(value), counts) if counts else None
