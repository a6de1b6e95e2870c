"""The job's journal: append-only lines with a checksum each, and what they add up to.

A line is ``{"seq", "at", "event", "data", "crc"}``. A torn last line (the process died while writing
it) is cut off; damage anywhere else is :class:`JournalCorrupt`, never guessed. Tokens, secrets and
patient ids are not written.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from hiexchange._files import storage_errors, sync_folder
from hiexchange.bulk.result import FileReceipt
from hiexchange.errors import JournalCorrupt

CRC = b',"crc":"'


class Entry(msgspec.Struct, frozen=True):
    """One line."""

    seq: int
    at: str
    event: str
    data: Mapping[str, Any]


def encode_entry(entry: Entry) -> bytes:
    """Return the line, its checksum last."""
    body = msgspec.json.encode({"seq": entry.seq, "at": entry.at, "event": entry.event, "data": entry.data})
    return body[:-1] + CRC + b'%08x"}\n' % zlib.crc32(body)


def read_entries(lines: Iterable[bytes], *, name: str = "journal.ndjson") -> Iterator[tuple[Entry, int]]:
    """Yield the entries, each with the number of bytes up to its end; a torn last line is left out.

    Args:
        lines: The journal's lines with their ends, such as an open file: a long journal is never in memory.
        name: For the error.

    Raises:
        JournalCorrupt: A line before the last is damaged, or one is missing.
    """
    good = 0
    remaining = iter(lines)
    for number, line in enumerate(remaining, 1):
        entry = _decode(line[:-1]) if line.endswith(b"\n") else None
        if entry is None and next(remaining, None) is None:
            return
        if entry is None or entry.seq != number:
            raise JournalCorrupt(
                "the journal is damaged",
                where=f"{name} line {number:,} (byte {good:,})",
                hint="start the export anew in another folder; committed files in this one are whole",
            )
        good += len(line)
        yield entry, good


def _decode(line: bytes) -> Entry | None:
    body, mark, tail = line.rpartition(CRC)
    if not mark or len(tail) != 10 or tail[8:] != b'"}':
        return None
    body += b"}"
    if b"%08x" % zlib.crc32(body) != tail[:8]:
        return None
    try:
        return msgspec.json.decode(body, type=Entry)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


class JobState(msgspec.Struct):
    """What the journal adds up to."""

    phase: str = "planned"
    """planned, intent, polling, complete, downloaded, ingested, finished, cancelled, failed."""
    status_url: str | None = None
    accepted_at: datetime | None = None
    intent_at: datetime | None = None
    method: str = "auto"
    pages: dict[int, str] = msgspec.field(default_factory=dict)
    """Page number to its URL."""
    expires: dict[int, str] = msgspec.field(default_factory=dict)
    """Page number to the ``Expires`` it came with."""
    more: list[str] = msgspec.field(default_factory=list)
    """Next links that are known and not yet fetched."""
    files: dict[str, FileReceipt] = msgspec.field(default_factory=dict)
    """Receipt of every verified file, by its path in the folder."""
    failed: dict[str, str] = msgspec.field(default_factory=dict)
    failure_kinds: dict[str, str] = msgspec.field(default_factory=dict)
    urls: dict[str, str] = msgspec.field(default_factory=dict)
    """Renewed links, by file."""
    attempts: dict[str, int] = msgspec.field(default_factory=dict)
    downloads: dict[str, int] = msgspec.field(default_factory=dict)
    """Downloads that ran to the end, whether or not the content was right: some servers count them."""
    fatal: tuple[str, str] | None = None
    """Kind and reason of a failure that ended the job."""
    warnings: list[str] = msgspec.field(default_factory=list)
    ignored: list[str] = msgspec.field(default_factory=list)
    separate_status: bool = False
    watermark_done: bool = False
    interrupted: bool = False
    static: bool = False
    """The kick-off itself answered with the manifest: there is no status URL."""

    def apply(self, entry: Entry) -> None:
        """Take one more entry into account."""
        step = _STEPS.get(entry.event)
        if step is not None:
            step(self, entry)
        self.interrupted = entry.event == "interrupted"


def _intent(state: JobState, entry: Entry) -> None:
    state.phase, state.method = "intent", entry.data.get("method", "auto")
    state.intent_at = datetime.fromisoformat(entry.at)


def _accepted(state: JobState, entry: Entry) -> None:
    state.phase, state.status_url = "polling", entry.data.get("status_url")
    state.accepted_at = datetime.fromisoformat(entry.at)
    state.separate_status = bool(entry.data.get("separate_status"))
    state.static = state.status_url is None


def _page(state: JobState, entry: Entry) -> None:
    state.pages[entry.data["page"]] = entry.data["url"]
    if entry.data.get("expires"):
        state.expires[entry.data["page"]] = entry.data["expires"]
    fetched = set(state.pages.values())
    state.more = [url for url in (*state.more, *entry.data.get("next", ())) if url not in fetched]


def _started(state: JobState, entry: Entry) -> None:
    state.attempts[entry.data["file"]] = entry.data["attempt"]


def _downloaded_once(state: JobState, entry: Entry) -> None:
    state.downloads[entry.data["file"]] = entry.data["times"]


def _verified(state: JobState, entry: Entry) -> None:
    receipt = FileReceipt.from_data(entry.data)
    state.files[receipt.file] = receipt
    state.attempts.pop(receipt.file, None)
    state.failed.pop(receipt.file, None)


def _file_failed(state: JobState, entry: Entry) -> None:
    state.failed[entry.data["file"]] = entry.data["reason"]
    state.failure_kinds[entry.data["file"]] = entry.data.get("kind", "absent")


def _renewed(state: JobState, entry: Entry) -> None:
    state.urls.update(entry.data["urls"])


def _job_failed(state: JobState, entry: Entry) -> None:
    state.phase, state.fatal = "failed", (entry.data["kind"], entry.data["reason"])


def _forget(state: JobState, entry: Entry) -> None:
    """A committed file is gone or changed on disk: it has to be fetched again."""
    state.files.pop(entry.data["file"], None)
    if state.phase == "downloaded":
        state.phase = "complete"


def _phase(name: str) -> Callable[[JobState, Entry], None]:
    def step(state: JobState, entry: Entry) -> None:
        state.phase = name

    return step


def _noted(state: JobState, entry: Entry) -> None:
    state.warnings.append(entry.data["message"])


def _ignored(state: JobState, entry: Entry) -> None:
    state.ignored += [name for name in entry.data["parameters"] if name not in state.ignored]


def _watermark(state: JobState, entry: Entry) -> None:
    state.watermark_done = True


_STEPS: dict[str, Callable[[JobState, Entry], None]] = {
    "intent": _intent,
    "rejected": _phase("planned"),
    "accepted": _accepted,
    "page": _page,
    "complete": _phase("complete"),
    "started": _started,
    "received": _downloaded_once,
    "verified": _verified,
    "file_failed": _file_failed,
    "forgotten": _forget,
    "renewed": _renewed,
    "downloaded": _phase("downloaded"),
    "ingested": _phase("ingested"),
    "watermark": _watermark,
    "finished": _phase("finished"),
    "cancelled": _phase("cancelled"),
    "failed": _job_failed,
    "warned": _noted,
    "ignored": _ignored,
}


class Journal:
    """The journal file of one job folder; safe to use from many threads."""

    def __init__(self, path: str | Path) -> None:
        """Replay what is there; a torn last line is cut off on the next write.

        Raises:
            JournalCorrupt: See :func:`read_entries`.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        self._handle: int | None = None
        self.refresh()

    def refresh(self) -> JobState:
        """Read the file again (another process may have gone on with the job) and return the state."""
        self._seq = self._good = 0
        self.state = JobState()
        if self.path.exists():
            with self.path.open("rb") as lines:
                for entry, end in read_entries(lines, name=self.path.name):
                    self._seq, self._good = entry.seq, end
                    self.state.apply(entry)
        return self.state

    def write(self, event: str, *, sync: bool = True, **data: Any) -> None:
        """Append an entry; with ``sync`` it is on disk when this returns."""
        with self._lock, storage_errors(self.path):
            entry = Entry(self._seq + 1, datetime.now(UTC).isoformat(timespec="milliseconds"), event, data)
            line = encode_entry(entry)
            handle = self._open()
            _write_all(handle, line)
            if sync:
                os.fsync(handle)
            self._seq += 1
            self._good += len(line)
            self.state.apply(entry)

    def _open(self) -> int:
        if self._handle is None:
            self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
            if self._good == 0:
                sync_folder(self.path.parent)
        # After a torn line or a failed write the next entry starts where the good ones end.
        if os.fstat(self._handle).st_size != self._good:
            os.ftruncate(self._handle, self._good)
        os.lseek(self._handle, self._good, os.SEEK_SET)
        return self._handle

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]
