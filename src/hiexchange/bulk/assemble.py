"""Put a job's pages and receipts together: the result, its warnings, and whether the watermark may move."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from hiexchange import ndjson
from hiexchange._files import atomic_file
from hiexchange.bulk.answers import read_object
from hiexchange.bulk.journal import JobState
from hiexchange.bulk.manifest import Manifest, parse_instant, parse_manifest
from hiexchange.bulk.plan import Plan
from hiexchange.bulk.request import ExportRequest
from hiexchange.bulk.result import ExportResult, FileReceipt
from hiexchange.bulk.watermark import reason_to_hold, watermark_key, watermark_value
from hiexchange.errors import DataError, JournalCorrupt
from hiexchange.servers import Server

CODE = re.compile(r"[a-z-]{1,32}")
SERIOUS = ("fatal/", "error/")


def read_pages(folder: Path, state: JobState, integrity: Mapping[str, str]) -> list[Manifest]:
    """Return the manifest pages kept in a job folder, in order.

    Raises:
        JournalCorrupt: One is gone.
    """
    return [
        parse_manifest(
            read_object(_kept(folder / f"manifest-{number:03}.json")),
            url=state.pages[number],
            integrity=integrity,
            expires=state.expires.get(number),
        )
        for number in sorted(state.pages)
    ]


def _kept(page: Path) -> bytes:
    try:
        return page.read_bytes()
    except FileNotFoundError:
        raise JournalCorrupt(
            "a page of the manifest is gone, which the journal knows",
            where=str(page),
            hint="put it back, or start the export anew in another folder; committed files in this one are whole",
        ) from None


def result(
    folder: Path,
    state: JobState,
    plan: Plan,
    server: Server,
    request: ExportRequest,
    *,
    now: datetime,
    hold: str | None = None,
) -> ExportResult:
    """Return what the export gave, from what is committed; ``hold`` says why its watermark may never move."""
    manifest = plan.manifest
    receipts = tuple(state.files[file.file] for file in plan.files if file.file in state.files)
    failed = {name: reason for name, reason in state.failed.items() if name not in state.files}
    for file in plan.files:
        may_lack = file.item.kind == "outcome" and server.preset.error_entries_may_404
        if not may_lack and file.file not in state.files:
            failed.setdefault(file.file, "it has not been fetched")
    outcomes = count_outcomes(folder, receipts)
    serious = [name for name in outcomes if name.startswith(SERIOUS)]
    notes = [f"{receipt.file}: {note}" for receipt in receipts for note in receipt.notes]
    ignored = (*state.ignored, *ignored_parameters(request, receipts))
    partial = bool(failed or serious)
    held = hold or _held(manifest, receipts, request, server, failed=failed, serious=serious, ignored=ignored, now=now)
    value = None
    if held is None:
        newest = max((item.newest for item in receipts if item.kind == "output"), default="")
        value = watermark_value(
            manifest.transaction_time,
            until=request.until,
            newest=newest if server.policy.stale_guard else "",
            overlap_s=server.policy.overlap_s,
        )
    return ExportResult(
        folder=folder,
        manifest=manifest,
        receipts=receipts,
        outcomes=outcomes,
        deleted=sum(item.lines for item in receipts if item.kind == "deleted"),
        failed=failed,
        warnings=tuple(dict.fromkeys((*manifest.warnings, *plan.warnings, *state.warnings, *notes))),
        ignored_parameters=tuple(dict.fromkeys(ignored)),
        partial=partial,
        watermark=(watermark_key(server.url, server.version, request), value) if value else None,
        held=held,
    )


def _held(
    manifest: Manifest,
    receipts: Iterable[FileReceipt],
    request: ExportRequest,
    server: Server,
    *,
    failed: Mapping[str, str],
    serious: list[str],
    ignored: tuple[str, ...],
    now: datetime,
) -> str | None:
    if failed:
        return f"{len(failed)} files are missing"
    if serious and not server.policy.accept_partial:
        return f"the server reports {serious[0]}"
    if "_since" in ignored:
        return "the server ignored _since"
    total = sum(item.resources for item in receipts if item.kind == "output")
    expected = server.policy.expected_resources
    if total == 0 and (request.since is None or expected):
        return "the export is empty"
    if expected and total < expected * server.policy.collapse_floor:
        return f"the export collapsed: {total:,} resources where {expected:,} were expected"
    patients = sum(item.types.get("Patient", 0) for item in receipts if item.kind == "output")
    if request.since is None and "Patient" in request.types and total and not patients:
        return "no Patient came, though all were asked for"
    return reason_to_hold(manifest.transaction_time, now=now)


def ignored_parameters(request: ExportRequest, receipts: Iterable[FileReceipt]) -> list[str]:
    """Name the parameters that the content shows the server did not follow."""
    ignored = []
    output = [item for item in receipts if item.kind == "output"]
    if request.types and any(name not in (*request.types, "Parameters") for item in output for name in item.types):
        ignored.append("_type")
    if _since_ignored(request, output):
        ignored.append("_since")
    return ignored


def _since_ignored(request: ExportRequest, output: Iterable[FileReceipt]) -> bool:
    """Say whether resources are so old that the server cannot have followed ``_since``.

    At Patient and Group level the standard lets it add older ones: what the news refer to, and the history of new
    members (BCDA does for ``/Group/all``). There it has not followed if nothing at all is new.
    """
    since = parse_instant(request.since)
    dated = [item for item in output if item.oldest]
    if since is None or not dated:
        return False
    if request.level == "system":
        return any(moment < since for item in dated if (moment := parse_instant(item.oldest)))
    return all(moment < since for item in dated if (moment := parse_instant(item.newest)))


def count_outcomes(folder: Path, receipts: Iterable[FileReceipt]) -> dict[str, int]:
    """Count the issues of the export's OperationOutcomes by ``severity/code``; their text is not kept."""
    counts: Counter[str] = Counter()
    for receipt in receipts:
        if receipt.kind != "outcome":
            continue
        try:
            for value in ndjson.reader(folder / receipt.file):
                for issue in ndjson.objects(value.get("issue")):
                    names = (issue.get("severity", "error"), issue.get("code", "unknown"))
                    # Codes are shown, free text in their place is not.
                    counts["/".join(name if CODE.fullmatch(str(name)) else "unknown" for name in names)] += 1
        except DataError:
            counts["warning/unreadable"] += 1
    return dict(counts)


def write_receipt(folder: Path, done: ExportResult) -> None:
    """Write ``receipt.json``: what a lake needs to take the folder over. One line a file, written one by one."""
    head = {
        "transactionTime": done.manifest.transaction_time,
        "watermark": list(done.watermark) if done.watermark else None,
        "held": done.held,
        "partial": done.partial,
        "failed": dict(done.failed),
        "outcomes": dict(done.outcomes),
        "ignored_parameters": list(done.ignored_parameters),
        "warnings": list(done.warnings),
    }
    text = msgspec.json.format(msgspec.json.encode(head), indent=2)
    with atomic_file(folder / "receipt.json") as out:
        out.write(text.removesuffix(b"\n}") + b',\n  "files": [')
        for number, receipt in enumerate(done.receipts):
            out.write((b",\n    " if number else b"\n    ") + msgspec.json.encode(receipt.to_data()))
        out.write(b"\n  ]\n}\n")
