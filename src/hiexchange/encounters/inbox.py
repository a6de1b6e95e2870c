"""An inbox that keeps what was read: each file is parsed once, however long it lies there.

A file counts as read when every message of it was taken. One with a refused message is read again each time, so that
it stays on the list of what is refused until somebody mends it or takes it away, and so that a message dated ahead of
its time is taken when its time has come.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.encounters.adt import RawMessage, files_of, messages_in
from hiexchange.tables import INSTANT, INT, TEXT, Column, Table

INBOX_FILE = Table(
    "inbox_file",
    "One file of an inbox of which every message was taken.",
    ("name", "size_bytes", "modified_ns"),
    (
        Column("name", TEXT, "path within the inbox", True),
        Column("size_bytes", INT, "its size", True),
        Column("modified_ns", INT, "when it was last modified: nanoseconds since 1970", True),
        Column("messages", INT, "messages in it", True),
        Column("read_at", INSTANT, "knowledge time of the run that read it", True),
    ),
)
SETTLED_NS = 2_000_000_000
"""A file modified later than this before it is read may be written to within one tick of a coarse file system's clock
and look unchanged: it is read once more."""

_Mark = tuple[str, int, int]


class Inbox:
    """A folder, or one file, of HL7 v2 messages; files read before are passed over while they stay as they are."""

    def __init__(self, path: str | Path, done: pa.Table) -> None:
        """Name the inbox.

        Args:
            path: Folder or file.
            done: INBOX_FILE rows of earlier readings.
        """
        self._path = Path(path)
        names = ("name", "size_bytes", "modified_ns")
        self._done: set[_Mark] = set(zip(*(done[name].to_pylist() for name in names), strict=True))
        self._read: dict[_Mark, tuple[str, int]] = {}
        """Name of the file, which issues bear, and messages in it."""

    def messages(self, received_at: datetime) -> Iterator[RawMessage]:
        """Yield the messages of files that are new or changed; ``received_at`` holds where the name says no instant."""
        for file in files_of(self._path):
            # Before the bytes are read: what is written meanwhile changes it.
            stat = file.stat()
            within = file.relative_to(self._path) if file != self._path else Path(file.name)
            mark = (within.as_posix(), stat.st_size, stat.st_mtime_ns)
            if mark in self._done:
                continue
            number = 0
            for message in messages_in(file, received_at):
                yield message
                number += 1
            if time.time_ns() - stat.st_mtime_ns > SETTLED_NS:
                self._read[mark] = file.name, number

    def taken(self, issues: pa.Table, *, read_at: datetime) -> pa.Table:
        """Return INBOX_FILE rows of the files read in this call whose every message was taken.

        Args:
            issues: ISSUE rows of these messages; an error names the file of a refused one.
            read_at: Knowledge time.
        """
        refused = set(issues["file"].filter(pc.equal(issues["severity"], "error")).to_pylist())
        return INBOX_FILE.from_rows(
            {"name": name, "size_bytes": size, "modified_ns": at, "messages": count, "read_at": read_at}
            for (name, size, at), (file, count) in self._read.items()
            if file not in refused
        )
