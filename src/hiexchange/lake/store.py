"""Snapshots and the manifest: what the lake holds is what the current snapshot lists, nothing else.

```
_hx/manifest.json            {"layout": "1", "snapshot": n}, replaced atomically
_hx/snapshots/<n>.json       immutable: files and shape of each table, loads, watermarks
```
A commit writes and syncs the data files, then the snapshot, then replaces the manifest. Readers pin a
snapshot and never list folders, so a crash at any moment leaves the old snapshot or the new one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from hiexchange._files import folder_lock, read_json, sync_folder, write_json
from hiexchange.errors import LakeError
from hiexchange.lake.schema import LAYOUT

META = "_hx"
UNKEYED_LOADS = 100


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a table."""

    path: str
    """Relative to the lake's folder."""
    rows: int
    size_bytes: int
    load: str
    min_patient: str | None = None
    max_patient: str | None = None
    sorted: bool = False
    """Whether rows are sorted by (``__hx_patient``, ``__hx_key``)."""


@dataclass(frozen=True)
class TableState:
    """A table in one snapshot."""

    kind: str
    """``fhir`` or ``corridor``."""
    files: tuple[DataFile, ...]
    resource: str = ""
    version: str = ""
    shape: dict[str, Any] = field(default_factory=dict)
    extras: tuple[str, ...] = ()
    """Optional columns that some file has, see ``lineage``."""

    @property
    def rows(self) -> int:
        """Number of rows in all files."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True)
class Load:
    """One ingest or append."""

    id: str
    key: str
    """Identity of what was loaded; a load of the same key is a no-op. Empty: never skipped."""
    at: str
    rows: int
    rejected: int
    deleted: int = 0


@dataclass(frozen=True)
class Snapshot:
    """Everything the lake holds at one moment."""

    number: int
    written_at: str = ""
    layout: str = LAYOUT
    tables: dict[str, TableState] = field(default_factory=dict)
    tombstones: tuple[DataFile, ...] = ()
    rejects: tuple[DataFile, ...] = ()
    loads: tuple[Load, ...] = ()
    watermarks: dict[str, str] = field(default_factory=dict)

    def next(self, load: Load | None = None, **changes: Any) -> Snapshot:
        """Return the snapshot that follows this one, with some parts replaced, and a load added.

        Loads without a key are never asked for again: the last hundred tell what happened of late, and all of
        them would fill the disk of who appends every few minutes, for each snapshot repeats them.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        old = {done.id for done in [done for done in self.loads if not done.key][: -UNKEYED_LOADS + 1]}
        loads = self.loads if load is None else (*(done for done in self.loads if done.id not in old), load)
        return replace(self, number=self.number + 1, written_at=now, loads=loads, **changes)

    def files(self) -> Iterator[DataFile]:
        """Yield every data file the snapshot refers to."""
        for state in self.tables.values():
            yield from state.files
        yield from self.tombstones
        yield from self.rejects


class Store:
    """The files of a lake's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._manifest = root / META / "manifest.json"

    def current(self) -> Snapshot:
        """Return the current snapshot; of a new lake the empty one, number 0.

        Raises:
            LakeError: The folder holds a lake of another layout, or its manifest is damaged.
        """
        number = self._number()
        while True:
            try:
                return self.snapshot(number)
            except LakeError:
                # Two commits and a vacuum may come between the reading of the manifest and of the snapshot.
                newer = self._number()
                if newer == number:
                    raise
                number = newer

    def _number(self) -> int:
        """Read the manifest."""
        if not self._manifest.exists():
            return 0
        try:
            manifest = read_json(self._manifest)
            layout, number = manifest["layout"], int(manifest["snapshot"])
        except (msgspec.DecodeError, KeyError, TypeError, ValueError):
            raise LakeError("the lake's manifest is damaged", where=str(self._manifest)) from None
        if layout != LAYOUT:
            raise LakeError(
                f"the lake is of layout {layout}, this version reads {LAYOUT}",
                where=str(self.root),
                hint="use the version of hiexchange that wrote it",
            )
        return number

    def snapshot(self, number: int) -> Snapshot:
        """Return a snapshot by number.

        Raises:
            LakeError: It was vacuumed, or never was.
        """
        path = self.snapshot_path(number)
        if number == 0 and not path.exists():
            return Snapshot(0)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Snapshot)
        except FileNotFoundError:
            raise LakeError(f"snapshot {number} is not kept", where=str(self.root)) from None
        except msgspec.DecodeError:
            raise LakeError(f"snapshot {number} is damaged", where=str(path)) from None

    def snapshot_path(self, number: int) -> Path:
        """Return the path of a snapshot's file."""
        return self.root / META / "snapshots" / f"{number}.json"

    def snapshots(self) -> list[int]:
        """Return the numbers of the snapshots kept, oldest first."""
        folder = self.root / META / "snapshots"
        numbers = sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit())
        current = self.current().number
        return [number for number in numbers if number <= current]

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the lake's only writer.

        Raises:
            JobLocked: Another process writes to it.
        """
        with folder_lock(self.root / META, what="lake"):
            yield

    def commit(self, snapshot: Snapshot) -> None:
        """Make ``snapshot`` the current one; its data files must be complete and synced.

        Raises:
            LakeError: Another writer committed in the meantime.
        """
        now = self.current().number
        if now != snapshot.number - 1:
            raise LakeError(
                f"another writer committed snapshot {now}", where=str(self.root), hint="run the same command again"
            )
        for folder in {(self.root / file.path).parent for file in snapshot.files()}:
            sync_folder(folder)
        write_json(self.snapshot_path(snapshot.number), msgspec.to_builtins(snapshot))
        write_json(self._manifest, {"layout": LAYOUT, "snapshot": snapshot.number})


def sync_file(path: Path) -> None:
    """Make a file's bytes durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
