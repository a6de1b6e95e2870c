"""Helpers of the lake's tests: FHIR resources made at random along the definitions, and one-block encoding."""

# ruff: noqa: E501  (JSON lines are whole)

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from hiexchange.definitions import Definitions
from hiexchange.lake import restore
from hiexchange.lake.cut import Block
from hiexchange.lake.decode import Encoded, Source, encode

TEXTS = ["", "a", "Ramón", "日本", 'quote " and \\ slash', '{"value":1.50}', '\\"value\\":2', "\u2028line\u2029", "😀", "x" * 70, "null", "[]", "{}", "contained", '"contained":[1]', "a\tb\nc"]  # fmt: skip
NUMBERS = ["0", "1", "-1", "1.00", "1.50", "-0", "-0.0", "1e3", "1E-7", "100", "0.1234567", "12345678901234567890.5", "1e400", "99999999999999999999"]  # fmt: skip
DATES = ["2020", "2020-02", "2020-02-29", "2020-02-29T10:00:00Z", "2020-02-29T10:00:00.123+02:00", "not a date", "0001-01-01", "9999-12-31", "2015-02-07T13:28:17.239-05:00"]  # fmt: skip


class Maker:
    """Makes JSON values of FHIR types; the same seed gives the same value."""

    def __init__(self, seed: int, *, odd: float = 0.0, version: str = "4.0.1") -> None:
        self.random = random.Random(seed)
        self.definitions = Definitions.load(version)
        self.odd = odd
        self.texts = TEXTS if self.random.random() < 0.3 else TEXTS[:5]

    def resource(self, name: str) -> dict[str, Any]:
        """Return a resource with an id and some members."""
        value = self.members(name, 0, 0.3 if self.random.random() < 0.5 else 0.12)
        value = {"resourceType": name, **value, "id": f"-{self.random.randrange(10**9)}"}
        if self.random.random() < 0.3:
            value["contained"] = [
                {"resourceType": "Basic", "id": "c", "code": {"text": self.text()}, "n": self.number()}
            ]
        items = list(value.items())
        self.random.shuffle(items)
        return dict(items)

    def members(self, type_name: str, depth: int, share: float) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for name, (element, kind) in self.definitions.type(type_name).json_members.items():
            if self.random.random() > share or (depth == 0 and name in ("id", "contained")):
                continue
            if depth > 3 and not self.definitions.is_primitive(kind):
                continue
            many = element.many
            items = [self.value(kind, depth) for _ in range(self.random.choice((1, 1, 2, 3)) if many else 1)]
            if all(item is not None for item in items):
                value[name] = items if many else items[0]
            if self.definitions.is_primitive(kind) and self.random.random() < 0.05:
                sibling = {"extension": [{"url": "http://x.example/e", "valueDecimal": self.number()}]}
                value["_" + name] = [sibling] * len(items) if many else sibling
        if self.odd:
            self.spoil(value)
        return value or {"id": "x"}

    def spoil(self, value: dict[str, Any]) -> None:
        """Make a member odd: unknown, null, empty, of another JSON type."""
        for name in list(value):
            if self.random.random() < self.odd:
                value[name] = self.random.choice(
                    [None, {}, [], 5, 1.5, True, "text", [None], [{}], {"foo": 1}, ["a"], 2**40]
                )
        if self.random.random() < self.odd:
            value[self.random.choice(["unknown", "_unknown", "a/b~c", "value"])] = self.random.choice(
                [1, {"a": [1, {"b": None}]}, "x"]
            )

    def value(self, kind: str, depth: int) -> Any:
        if kind == "boolean":
            return self.random.random() < 0.5
        if kind in ("integer", "positiveInt", "unsignedInt"):
            return self.random.choice([0, 1, 7, 2**31 - 1])
        if kind == "decimal":
            return self.number()
        if kind in ("date", "dateTime", "instant"):
            return self.random.choice(DATES)
        if self.definitions.is_primitive(kind):
            return self.text()
        if self.definitions.is_resource(kind):
            return {"resourceType": "Basic", "id": "nested", "n": self.number()}
        return self.members(kind, depth + 1, 0.35 if len(self.definitions.type(kind).json_members) < 12 else 0.05)

    def text(self) -> str:
        return self.random.choice(self.texts)

    def number(self) -> msgspec.Raw:
        return msgspec.Raw(self.random.choice(NUMBERS).encode())


@pytest.fixture(scope="session")
def maker() -> Callable[..., Maker]:
    """Return the class that makes resources."""
    return Maker


@pytest.fixture(scope="session")
def as_lines() -> Callable[[list[Any]], bytes]:
    """Return a function from values to NDJSON."""
    return lambda values: b"".join(msgspec.json.encode(value) + b"\n" for value in values)


def encode_text(text: bytes, resource: str, **options: Any) -> Encoded:
    shape = options.pop("shape", {})
    version = options.pop("version", "4.0.1")
    return encode(Block(text, 1, 0), shape, Source(resource, "file", "load", version=version, **options))


@pytest.fixture(scope="session")
def encoded() -> Callable[..., Encoded]:
    """Return a function that encodes NDJSON bytes as one block."""
    return encode_text


@pytest.fixture(scope="session")
def restored() -> Callable[..., list[bytes]]:
    """Return a function from a stored batch to its JSON lines."""

    def run(batch: pa.RecordBatch, resource: str, version: str = "4.0.1") -> list[bytes]:
        return list(restore.lines(batch, resource, version))

    return run
