"""The job's folder as others find it: what was asked, where it stands, what is whole in it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiexchange._files import read_json, sha256_file
from hiexchange._http import Auth, Policy
from hiexchange._urls import redact
from hiexchange.bulk import assemble
from hiexchange.bulk.journal import Journal
from hiexchange.bulk.plan import make_plan
from hiexchange.bulk.rejects import keep_rows_of
from hiexchange.bulk.result import ExportResult, FileReceipt, JobStatus
from hiexchange.errors import (
    ConfigError,
    ExportError,
    FileExhausted,
    IntegrityError,
    JobMismatch,
    PartialExport,
    StorageError,
)
from hiexchange.events import Reporter, Warned
from hiexchange.servers import Server


def repair(folder: Path, journal: Journal, *, full: bool, report: Reporter) -> None:
    """Bring the disk to what the journal says: finish renames, drop strays, forget files that are gone.

    Args:
        folder: The job's folder.
        journal: Its journal; files that are not as they were committed are journaled as forgotten.
        full: Hash every file again, instead of comparing sizes.
        report: Hears of files that will be fetched again.
    """
    for name, receipt in list(journal.state.files.items()):
        final, part = folder / name, folder / f"{name}.part"
        if not final.exists() and part.exists() and part.stat().st_size == receipt.stored_bytes:
            part.replace(final)
        if not intact(final, receipt, full=full):
            report(Warned(f"{name} is not as it was committed; it is fetched again"))
            journal.write("forgotten", file=name)
    keep_rows_of(folder / "rejected.ndjson", journal.state.files)
    for stray in (*folder.glob("*/*.part"), *folder.glob(".*.part")):
        stray.unlink()


def intact(path: Path, receipt: FileReceipt, *, full: bool) -> bool:
    """Say whether a committed file is still what its receipt says."""
    if not path.exists() or path.stat().st_size != receipt.stored_bytes:
        return False
    return not full or sha256_file(path) == receipt.sha256


def require_room(folder: Path, wanted: int) -> None:
    """Refuse to begin with files that will not fit.

    Raises:
        StorageError: They are announced as larger than the free space.
    """
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise StorageError(
            "the files will not fit on the disk",
            where=str(folder),
            said=f"{wanted:,} bytes are announced, {free:,} are free",
            hint="free space, then run the same command again: it resumes",
        )


def read_status(folder: str | Path) -> JobStatus:
    """Return where the job in ``folder`` stands, from its files alone.

    Raises:
        ConfigError: There is no job in the folder.
    """
    place = Path(folder)
    read_request(place)
    state = Journal(place / "journal.ndjson").state
    # Checksums do not matter here, and the preset may be the caller's own.
    pages = assemble.read_pages(place, state, {})
    plan = make_plan(pages) if pages else None
    return JobStatus(
        phase=state.phase,
        folder=place,
        status_url=redact(state.status_url) if state.status_url else None,
        files_total=None if plan is None else len(plan.files),
        files_done=len(state.files),
        resources=sum(receipt.resources for receipt in state.files.values() if receipt.kind == "output"),
        failed=dict(state.failed),
        interrupted=state.interrupted,
        transaction_time=None if plan is None else plan.manifest.transaction_time,
    )


def partial_error(result: ExportResult, kinds: Mapping[str, str]) -> ExportError:
    """Build the error of a partial result: of one kind where every failed file has it."""
    if not result.failed:
        return PartialExport(
            "the server reports errors of its own",
            result=result,
            where=str(result.folder),
            said=", ".join(f"{count:,} x {name}" for name, count in result.outcomes.items()),
            hint="look into outcome/; --accept-partial takes what is there",
            resumable=False,
        )
    name, reason = next(iter(result.failed.items()))
    count = f"{len(result.failed):,} of {len(result.receipts) + len(result.failed):,}"
    only = {kinds.get(file, "absent") for file in result.failed}
    single = {"integrity": IntegrityError, "exhausted": FileExhausted}.get(only.pop() if len(only) == 1 else "")
    if single is not None:
        return single(
            f"{count} files could not be {'proved whole' if single is IntegrityError else 'downloaded any more'}",
            where=f"{result.folder} {name}",
            said=reason,
            hint="`hiexchange export resume` tries again; --accept-partial takes what is there",
        )
    return PartialExport(
        f"{count} files could not be had",
        result=result,
        where=str(result.folder),
        said=f"{name}: {reason}",
        hint="`hiexchange export resume` tries them again; --accept-partial takes what is there",
    )


def read_request(place: Path) -> Any:
    """Return ``request.json``.

    Raises:
        ConfigError: There is no job in the folder, or its request is damaged.
    """
    try:
        stored = read_json(place / "request.json")
        _ = stored["server"]["url"], stored["server"]["preset"], stored["request"]
    except OSError:
        raise ConfigError("there is no export job in the folder", where=str(place)) from None
    except (ValueError, LookupError, TypeError):
        raise ConfigError(
            "the job's request.json is damaged",
            where=str(place),
            hint="export anew into another folder; committed files in this one are whole",
        ) from None
    return stored


def patients_left_out(stored: Mapping[str, Any]) -> bool:
    """Say whether a job was for patients whose ids are not stored."""
    return isinstance(stored["request"].get("patients"), Mapping)


def reason_to_hold_always(stored: Mapping[str, Any]) -> str | None:
    """Say why a job's request forbids that its watermark ever moves, or None."""
    if stored["request"].get("patients"):
        return "only some patients were asked for"
    if stored.get("request_known") is False:
        return "what the adopted job was asked for is not known"
    return None


def server_from(stored: Mapping[str, Any], auth: Auth | None, policy: Policy | None) -> Server:
    """Return the server a folder names, with a credential, which is never stored."""
    known = stored["server"]
    policy = policy or Policy(allow_http=str(known["url"]).startswith("http:"))
    return Server(known["url"], auth, preset=known["preset"], policy=policy, version=known.get("version"))


def same_server(stored: Mapping[str, Any], server: Server) -> Server:
    """Return ``server`` if it is the one the folder names.

    Raises:
        JobMismatch: It is another.
    """
    if stored["server"]["url"] != server.url:
        raise JobMismatch(
            "the folder belongs to another server",
            said=f"stored: {redact(stored['server']['url'])}; given: {redact(server.url)}",
            hint="use another folder for another server",
        )
    return server


def refuse_strangers(place: Path) -> None:
    """Refuse a folder that holds something else: an export must not mix with other files.

    What a process killed before its first commit leaves is no stranger: the lock, and ``request.json`` under
    its temporary name.
    """
    if place.exists() and not place.is_dir():
        raise ConfigError("a job needs a folder, and this is a file", where=str(place))
    if place.is_dir() and set(place.iterdir()) - unborn(place) - {place / "lock"}:
        raise JobMismatch("the folder is not empty and holds no job", where=str(place), hint="use an empty folder")


def unborn(place: Path) -> set[Path]:
    """Return what writers of ``request.json`` that were killed on the way left in the folder."""
    return set(place.glob(".request.json.*.part"))
