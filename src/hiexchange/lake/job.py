"""What a caller gave to ingest: which files, which deletions, and what is published with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec
import pyarrow as pa

from hiexchange._files import read_json, sha256_text
from hiexchange.errors import ConfigError, LakeError
from hiexchange.lake.ingest import NDJSON, find_files
from hiexchange.ndjson import reader

TOMBSTONES = pa.schema(
    [
        pa.field("type", pa.string()),
        pa.field("id", pa.string()),
        pa.field("at", pa.timestamp("us", tz="UTC")),
        pa.field("load", pa.string()),
    ]
)
"""Columns of table ``_tombstones``: what servers said was deleted, and when we learnt it."""


@runtime_checkable
class ExportFolder(Protocol):
    """What a bulk export hands over: a folder, and the watermark to set with its rows."""

    @property
    def folder(self) -> Path:
        """The job folder."""

    @property
    def watermark(self) -> tuple[str, str] | None:
        """Key and value, or None when it must not move."""


Loadable: TypeAlias = "str | Path | Iterable[str | Path] | ExportFolder"


@dataclass(frozen=True)
class Job:
    """The files of one load, and what is to be published with them."""

    files: Iterable[tuple[Path, str]]
    """Path and name in the lineage; an iterator when files arrive while they are loaded."""
    deleted: list[Path]
    key: str
    """Identity of the export; empty for plain files, which are loaded every time."""
    transaction_time: datetime | None
    watermark: tuple[str, str] | None

    @staticmethod
    def of(source: Loadable, transaction_time: datetime | None, watermark_key: str | None) -> Job:
        """Look at what the caller gave.

        Raises:
            ConfigError: A folder or file does not exist.
        """
        watermark = None
        folder: Path | None = None
        files: Iterable[tuple[Path, str]]
        if isinstance(source, str | Path):
            folder = Path(source)
            files = _files_of(folder)
        elif isinstance(source, ExportFolder):
            folder, watermark = Path(source.folder), source.watermark
            files = _files_of(folder)
        else:
            files = ((_existing(Path(path)), Path(path).name) for path in source)
            files = files if isinstance(source, Iterator) else list(files)
        receipt = _receipt(folder)
        at = transaction_time or _instant(receipt.get("transactionTime") or receipt.get("transaction_time"))
        if at is not None and at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        told = receipt.get("watermark")
        if watermark is None and isinstance(told, list) and len(told) == 2:
            watermark = (str(told[0]), str(told[1]))
        if watermark is None and watermark_key and at is not None:
            watermark = (watermark_key, at.isoformat().replace("+00:00", "Z"))
        key = sha256_text(msgspec.json.encode(receipt).decode()) if receipt else ""
        return Job(files, _deleted_of(folder), key, at, watermark)

    def tombstones(self, load: str) -> pa.Table:
        """Read what the server lists as deleted: Bundles whose entries say ``DELETE Type/id``.

        Raises:
            LakeError: An entry can't be read; a deletion must not be lost.
        """
        rows = [
            {"type": kind, "id": ident, "at": self.transaction_time, "load": load}
            for path in self.deleted
            for bundle in reader(path)
            for kind, ident in _deletions(bundle, path.name)
        ]
        return pa.Table.from_pylist(rows, schema=TOMBSTONES)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError("there is no such file to ingest", where=str(path))
    return path


def _files_of(folder: Path) -> list[tuple[Path, str]]:
    if folder.is_file():
        return [(folder, folder.name)]
    if folder.is_dir():
        return find_files(folder)
    raise ConfigError("there is no such folder or file to ingest", where=str(folder))


def _deleted_of(folder: Path | None) -> list[Path]:
    base = folder / "deleted" if folder else None
    if base is None or not base.is_dir():
        return []
    return sorted(path for path in base.iterdir() if path.name.lower().endswith(NDJSON))


class _Request(msgspec.Struct):
    method: str = "DELETE"
    url: str = ""


class _Entry(msgspec.Struct):
    request: _Request = msgspec.field(default_factory=_Request)


class _Bundle(msgspec.Struct):
    resourceType: Literal["Bundle"] = "Bundle"
    entry: list[_Entry] = []


_DELETED = re.compile(r"/?(?:.*/)?([A-Z][A-Za-z]+)/([^/?#]+)(?:/_history/[^/]*)?/?")
"""A full URL, or Type/id, or with a history part; a search names no resource."""


def _deletions(line: Any, file: str) -> list[tuple[str, str]]:
    try:
        bundle = msgspec.convert(line, _Bundle)
    except msgspec.ValidationError:
        raise LakeError("a line of the deletions is no Bundle of requests", where=file) from None
    found = []
    for entry in bundle.entry:
        if entry.request.method.upper() != "DELETE":
            continue
        match = _DELETED.fullmatch(entry.request.url)
        if match is None:
            raise LakeError("an entry of a deletion Bundle names no resource", where=file)
        found.append((match[1], match[2]))
    return found


def _receipt(folder: Path | None) -> dict[str, Any]:
    path = folder / "receipt.json" if folder else None
    if path is None or not path.is_file():
        return {}
    try:
        found = read_json(path)
    except msgspec.DecodeError:
        raise LakeError("the job's receipt can't be read", where=str(path)) from None
    return found if isinstance(found, dict) else {}


def _instant(text: Any) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
