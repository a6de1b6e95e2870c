"""What an export hands over: receipts of files and the result as a whole. Values only."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from hiexchange import ndjson
from hiexchange.bulk.deletions import Deletion, Odd, read_deletions
from hiexchange.bulk.manifest import Manifest
from hiexchange.bulk.organize import part_name


class FileReceipt(msgspec.Struct, frozen=True):
    """Proof that one file is whole."""

    file: str
    """Path in the job folder, such as ``output/Patient.00001.ndjson``."""
    kind: str
    type: str | None
    url_sha256: str
    """Hash of the link without its query: links may be capabilities."""
    wire_bytes: int
    plain_bytes: int
    stored_bytes: int
    lines: int
    resources: int
    sha256: str
    """Of the stored file."""
    verified: tuple[str, ...]
    """Which proofs applied: transport, gzip, parse, type, count, size, sha256."""
    attempts: int = 1
    rejected_lines: int = 0
    types: Mapping[str, int] = msgspec.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    newest: str = ""
    """Newest ``meta.lastUpdated``, when asked for."""
    oldest: str = ""

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> FileReceipt:
        """Rebuild a receipt from a journal entry or ``receipt.json``."""
        values: dict[str, Any] = {key: data[key] for key in cls.__struct_fields__ if key in data}
        # A job may keep twenty thousand receipts: what most of them have alike is kept once.
        values["verified"] = _shared(tuple(data.get("verified", ())))
        values["notes"] = _shared(tuple(data.get("notes", ())))
        values["types"] = _shared_types(tuple(data.get("types", {}).items()))
        return cls(**values)

    def to_data(self) -> dict[str, Any]:
        """Return plain data."""
        return msgspec.structs.asdict(self)


@lru_cache(maxsize=1024)
def _shared(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sys.intern(text) for text in texts)


@lru_cache(maxsize=1024)
def _shared_types(types: tuple[tuple[str, int], ...]) -> Mapping[str, int]:
    return {sys.intern(name): count for name, count in types}


class JobStatus(msgspec.Struct, frozen=True):
    """Where a job stands, read from its folder alone."""

    phase: str
    folder: Path
    status_url: str | None
    """Without its query."""
    files_total: int | None
    files_done: int
    resources: int
    failed: Mapping[str, str]
    interrupted: bool
    transaction_time: str | None


@dataclass(frozen=True, slots=True)
class ExportResult:
    """A downloaded export; ``folder`` describes itself and is what a lake ingests."""

    folder: Path
    manifest: Manifest = field(repr=False)
    receipts: tuple[FileReceipt, ...] = field(repr=False)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Issues of the export's OperationOutcomes, counted by ``severity/code``."""
    deleted: int = 0
    """Resources the server lists as deleted."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Files that could not be had, with the reason."""
    warnings: tuple[str, ...] = ()
    ignored_parameters: tuple[str, ...] = ()
    partial: bool = False
    watermark: tuple[str, str] | None = None
    """Key and value to commit with the data; None when it must not move (``held`` says why)."""
    held: str | None = None

    @property
    def resources(self) -> int:
        """Resources in the output files."""
        return sum(receipt.resources for receipt in self.receipts if receipt.kind == "output")

    @property
    def size_bytes(self) -> int:
        """Plain bytes of the output files."""
        return sum(receipt.plain_bytes for receipt in self.receipts if receipt.kind == "output")

    def read(self, type: str) -> Iterator[dict[str, Any]]:
        """Yield the resources of one type, one at a time."""
        for receipt in self.receipts:
            if receipt.kind == "output" and type in receipt.types:
                for value in ndjson.reader(self.folder / _data_file(receipt, type)):
                    if value.get("resourceType") == type:
                        yield value

    def deletions(self) -> Iterator[Deletion | Odd]:
        """Yield the resources the server lists as deleted; to be applied after the upserts."""
        return read_deletions(self.folder)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td>{count:,}</td></tr>" for name, count in sorted(self.count_by_type().items())
        )
        state = "partial" if self.partial else "complete"
        return f"<table><caption>Export, {state}</caption><tr><th>type</th><th>resources</th></tr>{rows}</table>"

    def count_by_type(self) -> dict[str, int]:
        """Return resources by type."""
        totals: dict[str, int] = {}
        for receipt in self.receipts:
            if receipt.kind == "output":
                for name, count in receipt.types.items():
                    totals[name] = totals.get(name, 0) + count
        return totals


def _data_file(receipt: FileReceipt, type: str) -> str:
    """Return where the resources of one type are: organized files are split by type."""
    if receipt.file.startswith("organized/"):
        return f"output/{part_name(type, Path(receipt.file).stem)}"
    return receipt.file
