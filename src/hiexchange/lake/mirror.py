"""Copy a snapshot to an object store or another folder (extra ``cloud``): files first, its manifest last.

Data files never change under their name, so a second copy sends only what is new, and whoever reads the
copy meanwhile sees the snapshot before. What arrives is a lake: copied back by any tool it opens as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hiexchange.errors import ConfigError, LakeError, MissingExtra, StorageError
from hiexchange.lake.schema import LAYOUT
from hiexchange.lake.store import META, Snapshot, Store

_MANIFEST = f"{META}/manifest.json"


@dataclass(frozen=True)
class Copied:
    """What a copy did."""

    snapshot: int
    files: int
    """Data files sent; the others were there."""
    size_bytes: int
    present: int
    """Data files that were there already."""


def copy(store: Store, snapshot: Snapshot, url: str, options: Mapping[str, str]) -> Copied:
    """Copy one snapshot; see ``Lake.copy_to``."""
    if not snapshot.number:
        raise LakeError("the lake is empty: there is nothing to copy", where=str(store.root))
    target = _Target(url, options)
    there = target.get(_MANIFEST)
    if there is not None and _number(there, url) > snapshot.number:
        raise LakeError(
            "the copy holds a later snapshot", where=url, hint="choose another place, or copy that one back"
        )
    sent = size = present = 0
    for file in dict.fromkeys(snapshot.files()):
        if target.size(file.path) == file.size_bytes:
            present += 1
            continue
        local = store.root / file.path
        if not local.is_file() or local.stat().st_size != file.size_bytes:
            raise LakeError("a file of this snapshot is gone or damaged", where=str(local))
        target.put(file.path, local)
        sent, size = sent + 1, size + file.size_bytes
    local = store.snapshot_path(snapshot.number)
    target.put(local.relative_to(store.root).as_posix(), local)
    target.put(_MANIFEST, msgspec.json.encode({"layout": LAYOUT, "snapshot": snapshot.number}))
    return Copied(snapshot.number, sent, size, present)


def _number(manifest: bytes, url: str) -> int:
    try:
        return int(msgspec.json.decode(manifest)["snapshot"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        raise LakeError("there is something else under this address", where=url) from None


class _Target:
    """An object store, as far as a copy needs it."""

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError:
            raise MissingExtra("cloud", "copying a lake to an object store") from None
        self._obstore = obstore
        self._url = url
        place: dict[str, Any] = {"mkdir": True} if url.startswith("file:") else {}
        if options:
            place["config"] = dict(options)
        # Plain HTTP only to this machine: rows are patients' data.
        if str(options.get("endpoint", "")).startswith(("http://127.0.0.1", "http://localhost")):
            place["client_options"] = {"allow_http": True}
        try:
            self._store = from_url(url, **place)
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise ConfigError(
                f"{type(error).__name__}: the address of the copy or an option of it can't be used",
                where=url,
                hint="use s3://bucket/prefix, gs://, az:// or file:///folder",
            ) from None

    def get(self, name: str) -> bytes | None:
        """Return an object, or None where there is none."""
        try:
            return bytes(self._obstore.get(self._store, name).bytes())
        except (FileNotFoundError, self._obstore.exceptions.NotFoundError):
            return None
        except self._obstore.exceptions.BaseError as error:
            raise self._failed(error) from None

    def size(self, name: str) -> int | None:
        """Return the size of an object, or None where there is none."""
        try:
            return int(self._obstore.head(self._store, name)["size"])
        except (FileNotFoundError, self._obstore.exceptions.NotFoundError):
            return None
        except self._obstore.exceptions.BaseError as error:
            raise self._failed(error) from None

    def put(self, name: str, data: bytes | Path) -> None:
        """Store an object; it appears whole or not at all."""
        try:
            self._obstore.put(self._store, name, data)
        except (self._obstore.exceptions.BaseError, OSError) as error:
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> StorageError:
        # The library's message may hold headers and names of objects; its kind is enough.
        return StorageError(
            f"{type(error).__name__}: the object store did not take or give a file",
            where=self._url,
            hint="check credentials and network, then run the same command again: what arrived is not sent twice",
        )
