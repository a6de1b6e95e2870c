"""Helpers of the view tests."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hiexchange.lake.cut import Block
from hiexchange.lake.decode import Source, encode


@pytest.fixture(scope="session")
def resources() -> Callable[[Path], list[dict[str, Any]]]:
    """Read NDJSON with exact decimals: the plain way that expected values come from."""

    def read(path: Path) -> list[dict[str, Any]]:
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        return [json.loads(line, parse_float=Decimal) for line in text.split(b"\n") if line]

    return read


@pytest.fixture(scope="session")
def encoded() -> Callable[..., pa.Table]:
    """Encode resources (dictionaries or JSON text) of one type as a lake stores them."""

    def make(*items: dict[str, Any] | str, version: str = "4.0.1") -> pa.Table:
        texts = [item if isinstance(item, str) else json.dumps(item) for item in items]
        kind = json.loads(texts[0])["resourceType"]
        found = encode(Block("\n".join(texts).encode(), 1, 0), {}, Source(kind, "test.ndjson", "test", version))
        assert not found.rejects
        return pa.Table.from_batches([found.batch])

    return make
