"""Read what other exporters leave behind: smart-fetch and bulk-data-client folders, or ours, or any.

smart-fetch keeps numbered sub-folders with logs and links to their files (``001.2025-06-26/``,
``Condition.001.ndjson.gz``); bulk-data-client writes ``1.Patient.ndjson`` beside ``log.ndjson``, with
``error/``, ``deleted/`` and ``attachments/``. Both write the shared ``log.ndjson``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiexchange import ndjson
from hiexchange._files import read_json
from hiexchange.errors import BadLine, ConfigError

NOT_DATA = {"error", "errors", "outcome", "deleted", "attachments", "organized"}
ENDINGS = (".ndjson", ".ndjson.gz")


@dataclass(frozen=True, slots=True)
class ExportFolder:
    """An export on disk, whoever made it."""

    folder: Path
    tool: str
    """hiexchange, smart-fetch, bulk-data-client or unknown."""
    files: tuple[Path, ...]
    """Data files, each once, links resolved."""
    deleted: tuple[Path, ...]
    errors: tuple[Path, ...]
    transaction_time: str | None
    """The oldest of all exports in the folder."""
    complete: bool
    """Whether every export in it says it is; unknown tools are taken as complete."""
    watermark: tuple[str, str] | None = None


def open_export(folder: str | Path) -> ExportFolder:
    """Look at an export folder; no file is read but logs and manifests.

    Raises:
        ConfigError: There is no such folder, or no NDJSON in it.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ConfigError("there is no such folder", where=str(place))
    if (place / "receipt.json").exists():
        return _ours(place)
    files, deleted, errors = _sorted_files(place)
    if not files:
        raise ConfigError("the folder holds no NDJSON", where=str(place))
    logs = sorted({path.resolve() for path in place.rglob("log.ndjson")})
    events = [event for log in logs for event in _events(log)]
    times = [str(time) for time in map(_transaction_time, events) if time]
    if (manifest := place / "manifest.json").exists():
        times += [str(time) for time in [_manifest_time(manifest)] if time]
    begun = {str(event.get("exportId")) for event in events if event.get("eventId") != "kickoff"}
    ended = {str(event.get("exportId")) for event in events if event.get("eventId") == "export_complete"}
    return ExportFolder(place, _tool(place, events), files, deleted, errors, min(times, default=None), begun <= ended)


def _ours(place: Path) -> ExportFolder:
    receipt = read_json(place / "receipt.json")
    files, deleted, errors = _sorted_files(place / "output")
    mark = receipt.get("watermark")
    return ExportFolder(
        place,
        "hiexchange",
        files,
        tuple(sorted((place / "deleted").glob("*.ndjson"))) or deleted,
        tuple(sorted((place / "outcome").glob("*.ndjson"))) or errors,
        receipt.get("transactionTime"),
        not receipt.get("partial"),
        (mark[0], mark[1]) if mark else None,
    )


def _sorted_files(place: Path) -> tuple[tuple[Path, ...], tuple[Path, ...], tuple[Path, ...]]:
    data: dict[Path, None] = {}
    deleted: dict[Path, None] = {}
    errors: dict[Path, None] = {}
    for path in sorted(place.rglob("*")):
        if not path.name.endswith(ENDINGS) or path.name.startswith(("log.", ".")) or not path.is_file():
            continue
        kinds = {part.lower() for part in path.relative_to(place).parts[:-1]}
        if "deleted" in kinds:
            deleted[path.resolve()] = None
        elif kinds & {"error", "errors", "outcome"}:
            errors[path.resolve()] = None
        elif not kinds & NOT_DATA:
            data[path.resolve()] = None
    return tuple(data), tuple(deleted), tuple(errors)


def _events(log: Path) -> Iterator[Mapping[str, Any]]:
    try:
        for row in ndjson.reader(log):
            if isinstance(row, Mapping) and isinstance(row.get("eventDetail"), Mapping | None):
                yield row
    except BadLine:
        return  # a log torn by a kill; what came before it counts


def _transaction_time(event: Mapping[str, Any]) -> str | None:
    detail = event.get("eventDetail") or {}
    found = detail.get("transactionTime") if event.get("eventId") in ("status_complete", "manifest_complete") else None
    return found if isinstance(found, str) else None


def _manifest_time(path: Path) -> str | None:
    try:
        found = read_json(path)
    except ValueError:
        return None
    time = found.get("transactionTime") if isinstance(found, Mapping) else None
    return time if isinstance(time, str) else None


def _tool(place: Path, events: list[Mapping[str, Any]]) -> str:
    for event in events:
        if event.get("_client"):
            return str(event["_client"])
    if events:
        return "bulk-data-client"
    return "smart-fetch" if (place / ".metadata").exists() else "unknown"
