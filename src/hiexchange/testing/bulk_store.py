"""The data behind the loopback Bulk Data server: a folder of NDJSON, cut into output files.

Unfiltered exports are slices of the plain files; filtered ones (a group, ``_since``, patients,
``_elements``) are written for the job. Memory stays bounded by one page.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from hiexchange import ndjson

PATIENT_FIELDS = ("subject", "patient", "beneficiary", "individual")
PLAIN_COPY = 1 << 20


@dataclass(frozen=True, slots=True)
class OutputSlice:
    """One output file: bytes ``start`` to ``end`` of a plain file."""

    type: str
    path: Path
    start: int
    end: int
    count: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    def read(self) -> bytes:
        """Return the content."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a kick-off asks for."""

    types: tuple[str, ...] = ()
    group: str | None = None
    since: str | None = None
    until: str | None = None
    patients: frozenset[str] | None = None
    elements: tuple[str, ...] = ()

    @property
    def filters(self) -> bool:
        """Whether lines have to be looked at."""
        whole_group = self.group in (None, "all")
        return not (whole_group and not self.since and not self.until and self.patients is None and not self.elements)


class NdjsonStore:
    """Resources of a folder by type."""

    def __init__(self, folder: str | Path, *, page_size: int = 1000) -> None:
        """Look at the first line of every file; nothing else is read yet."""
        self.page_size = page_size
        self._work = Path(tempfile.mkdtemp(prefix="hiexchange-serve-"))
        self._sources: dict[str, list[Path]] = {}
        for path in sorted(Path(folder).iterdir()):
            if path.name.endswith((".ndjson", ".ndjson.gz")) and (name := _type_of(path)):
                self._sources.setdefault(name, []).append(path)
        self._pages: dict[str, list[OutputSlice]] = {}

    @property
    def types(self) -> tuple[str, ...]:
        """The types there are."""
        return tuple(self._sources)

    def close(self) -> None:
        """Remove the working copies."""
        shutil.rmtree(self._work, ignore_errors=True)

    def group_ids(self) -> list[str]:
        """Return the ids of the folder's groups."""
        return [str(group["id"]) for group in self.resources("Group")]

    def resources(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the resources of one type."""
        for path in self._sources.get(name, ()):
            yield from ndjson.reader(path)

    def select(self, selection: Selection, job: str) -> list[OutputSlice]:
        """Return the output files of a job.

        Raises:
            KeyError: There is no such group.
        """
        wanted = [name for name in self._sources if not selection.types or name in selection.types]
        if not selection.filters:
            return [page for name in wanted for page in self._plain(name)]
        keep = self._keeper(selection)
        return [page for name in wanted for page in self._filtered(name, keep, selection, job)]

    def _plain(self, name: str) -> list[OutputSlice]:
        if name not in self._pages:
            pages: list[OutputSlice] = []
            for number, path in enumerate(self._sources[name]):
                plain = path
                if path.suffix == ".gz":
                    plain = self._work / f"{name}.{number}.plain"
                    with ndjson.open_bytes(path) as source, plain.open("wb") as target:
                        shutil.copyfileobj(source, target, PLAIN_COPY)
                pages += self._slices(name, plain)
            self._pages[name] = pages
        return self._pages[name]

    def _slices(self, name: str, path: Path) -> Iterator[OutputSlice]:
        start = end = count = 0
        with path.open("rb") as file:
            for line in file:
                end += len(line)
                count += 1
                if count == self.page_size:
                    yield OutputSlice(name, path, start, end, count)
                    start, count = end, 0
        if count:
            yield OutputSlice(name, path, start, end, count)

    def _filtered(
        self, name: str, keep: Callable[[str, Mapping[str, Any]], bool], selection: Selection, job: str
    ) -> list[OutputSlice]:
        path = self._work / f"{job}.{name}.plain"
        with path.open("wb") as file:
            for source in self._sources[name]:
                with ndjson.open_bytes(source) as lines:
                    for line in lines:
                        value = msgspec.json.decode(line)
                        if keep(name, value):
                            file.write(_subset(value, selection.elements) if selection.elements else line)
        return list(self._slices(name, path))

    def _keeper(self, selection: Selection) -> Callable[[str, Mapping[str, Any]], bool]:
        members = self._members(selection.group) if selection.group not in (None, "all") else None
        if selection.patients is not None:
            members = selection.patients if members is None else members & selection.patients

        def keep(name: str, value: Mapping[str, Any]) -> bool:
            updated = str((value.get("meta") or {}).get("lastUpdated") or "9999")
            if (selection.since and updated < selection.since[:19]) or (selection.until and updated > selection.until):
                return False
            if members is None:
                return True
            if name == "Patient":
                return value.get("id") in members
            if name == "Group":
                return selection.group is None or value.get("id") == selection.group
            patient = patient_of(value)
            return patient is None or patient in members

        return keep

    def _members(self, group: str | None) -> frozenset[str]:
        for value in self.resources("Group"):
            if value.get("id") == group:
                return frozenset(_bare_id(str(member["entity"]["reference"])) for member in value.get("member", ()))
        raise KeyError(group)


@dataclass(slots=True)
class Job:
    """One export at the server."""

    id: str
    selection: Selection
    files: list[OutputSlice]
    polls: int = 0
    deleted: bool = False
    request_url: str = ""
    begun: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    params: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def patient_of(value: Mapping[str, Any]) -> str | None:
    """Return the id of the patient a resource is about, or None."""
    for name in PATIENT_FIELDS:
        reference = value.get(name)
        text = reference.get("reference") if isinstance(reference, Mapping) else None
        if isinstance(text, str) and (text.startswith(("Patient/", "urn:uuid:")) or "/Patient/" in text):
            return _bare_id(text)
    return None


def _bare_id(reference: str) -> str:
    return reference.removeprefix("urn:uuid:").rsplit("/", 1)[-1]


def _type_of(path: Path) -> str | None:
    with ndjson.open_bytes(path) as file:
        first = file.readline()
    try:
        value = msgspec.json.decode(first)
    except msgspec.DecodeError:
        return None
    name = value.get("resourceType") if isinstance(value, dict) else None
    return name if isinstance(name, str) else None


def _subset(value: Mapping[str, Any], elements: Iterable[str]) -> bytes:
    wanted = {"resourceType", "id", *(text.rsplit(".", 1)[-1] for text in elements)}
    kept = {name: item for name, item in value.items() if name in wanted}
    tag = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
    kept["meta"] = {**(value.get("meta") or {}), "tag": [tag]}
    return msgspec.json.encode(kept) + b"\n"
