"""Helpers of the FHIRPath tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.definitions import Definitions
from hiexchange.fhirpath import Collection, Frame, Part, environment, parse
from hiexchange.fhirpath.kinds import kind_of
from hiexchange.lake.cut import Block
from hiexchange.lake.decode import Source, encode
from hiexchange.views.contained import ContainedReader

NOW = datetime(2026, 5, 17, 8, 30, 15, 123000, tzinfo=UTC)


def structs_of(*resources: dict[str, Any] | str) -> tuple[str, pa.StructArray]:
    """Encode resources of one type as the lake does."""
    texts = [item if isinstance(item, str) else json.dumps(item) for item in resources]
    kind = json.loads(texts[0])["resourceType"]
    found = encode(Block("\n".join(texts).encode(), 1, 0), {}, Source(kind, "t", "t"))
    assert not found.rejects
    return kind, found.batch.to_struct_array()


def values_of(collection: Collection) -> list[list[Any]]:
    """Return each row's values in order: decimals as Decimal, quantities as (number, unit)."""
    ranked: list[tuple[int, int, Any]] = []
    for part, ranks in zip(collection.sparse(), collection.ranks(), strict=True):
        kind = kind_of(part.type)
        assert part.rows is not None
        for row, rank, value in zip(part.rows.tolist(), ranks.tolist(), part.values.to_pylist(), strict=True):
            if value is not None and kind == "Decimal":
                value = Decimal(value)
            elif value is not None and kind == "Quantity":
                value = (Decimal(value["value"]), value.get("code") or value.get("unit"))
            ranked.append((rank, row, value))
    rows: list[list[Any]] = [[] for _ in range(collection.n)]
    for _, row, value in sorted(ranked, key=lambda item: item[0]):
        rows[row].append(value)
    return rows


@pytest.fixture(scope="session")
def evaluate() -> Callable[..., list[list[Any]]]:
    """Evaluate an expression over resources of one type; one list of values a resource."""

    def run(expression: str, *resources: dict[str, Any] | str, now: datetime | None = NOW) -> list[list[Any]]:
        kind, structs = structs_of(*(resources or ({"resourceType": "Patient", "id": "-1"},)))
        env = environment(Definitions.load(), now=now, contained=ContainedReader("4.0.1"))
        return values_of(Frame(Collection(len(structs), (Part(structs, kind),)), env).eval(parse(expression)))

    return run


@pytest.fixture(scope="session")
def value(evaluate: Callable[..., list[list[Any]]]) -> Callable[..., list[Any]]:
    """Evaluate over a single resource."""

    def run(expression: str, resource: dict[str, Any] | str | None = None) -> list[Any]:
        (row,) = evaluate(expression, resource or {"resourceType": "Patient", "id": "-1"})
        return row

    return run
