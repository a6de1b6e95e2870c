"""The bytes of one body on their way to the disk: written, hashed, and their lines checked.

The lines are checked in this process, or by :mod:`hiexchange.bulk.prover` once the body is known to be long.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from hiexchange._policy import Policy
from hiexchange.bulk.lines import BLOCK, NO_LINE_END, LineCheck
from hiexchange.bulk.prover import Prover, Watch

FLUSH = 8 << 20
APART_FROM = 8 << 20
"""Plain bytes from which on a body is worth a second process, which takes 0.05 s to start."""
SEEN_FIRST = BLOCK
"""Bytes of a body announced as long that are checked here, to see whether it needs setting right."""


class Stopped(Exception):
    """The job was stopped while a body was being read."""


class Terms(msgspec.Struct, frozen=True):
    """How the bodies of one job are received."""

    policy: Policy
    stopped: Callable[[], bool]
    """Says whether to stop."""
    dated: bool = False
    """Look for ``meta.lastUpdated``."""
    prover: Callable[[], Prover | None] = lambda: None
    """Gives the process that checks long bodies, if there can be one."""

    def new_check(self) -> LineCheck:
        """Return a check that has seen nothing."""
        return LineCheck(dated=self.dated, max_line_bytes=self.policy.max_line_bytes)


class Spool:
    """Writes ``.part`` and hashes it."""

    def __init__(self, file: IO[bytes]) -> None:
        """Start with an empty, unbuffered file."""
        self._file = file
        self._digest = hashlib.sha256()
        self._flushed = self.size = 0
        self.ends_line = True

    @property
    def sha256(self) -> str:
        """The hash of what is stored."""
        return self._digest.hexdigest()

    def store(self, data: bytes) -> None:
        """Write a block."""
        if not data:
            return
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self.size += len(data)
        self.ends_line = data.endswith(b"\n")
        if self.size - self._flushed >= FLUSH:
            self._begin_flush()

    def _begin_flush(self) -> None:
        """Let the kernel begin to write to the disk, so that the fsync at the end finds little to do.

        On Linux this advice starts the writing of dirty pages and, given once for each, keeps them cached. The fsync
        of 500 MB then waits 0.02 s instead of 0.22 s (ext4, 2026-11).
        """
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), self._flushed, self.size - self._flushed, os.POSIX_FADV_DONTNEED)
        self._flushed = self.size

    def sync(self) -> None:
        """Wait until the file is on the disk."""
        os.fsync(self._file.fileno())


class Proof:
    """Where the lines of one body are checked: here, or in the second process once it is known to be long.

    Here, what is stored are the clean lines. For the other process a body is stored as it comes, which is begun only
    while nothing had to be set right: what is on the disk by then are the same bytes.
    """

    def __init__(self, part: Path, check: LineCheck, terms: Terms, *, expected: int = 0) -> None:
        """Begin here; for a body of which many bytes are ``expected`` the other process is started at once."""
        self._part, self._check, self._terms = part, check, terms
        self._fed = 0
        self._apart_from = APART_FROM
        if expected >= APART_FROM and terms.prover():
            self._apart_from = SEEN_FIRST
        self._here = True
        self._watch: Watch | None = None

    def feed(self, plain: bytes) -> bytes:
        """Take bytes as they come; return those to store."""
        if self._watch is not None:
            return plain
        self._fed += len(plain)
        clean = self._check.feed(plain)
        if self._here and self._fed >= self._apart_from and self._check.untouched:
            self._here = False
            if prover := self._terms.prover():
                clean += self._check.held()
                longest = self._terms.policy.max_line_bytes
                self._watch = prover.watch(self._part, dated=self._terms.dated, max_line_bytes=longest)
        return clean

    def finish(self) -> bytes:
        """Return what is still to store."""
        return b"" if self._watch is not None else self._check.finish()

    def stored(self, size: int) -> None:
        """Say how much of the file is written."""
        if self._watch is not None:
            self._watch.grown(size)

    def ended(self, spool: Spool) -> bool:
        """Sync a body that is stored to its end; False if it must be checked again, and tidied, here.

        Raises:
            Stopped: The job was stopped in the meantime.
        """
        if self._watch is None:
            spool.sync()
            return True
        self._watch.grown(spool.size, ended=True)
        if not spool.ends_line:
            spool.store(b"\n")
            self._check.notes.add(NO_LINE_END)
        spool.sync()
        found = self._watch.verdict(self._terms.stopped)
        if self._terms.stopped():
            raise Stopped
        if found is None or not found.clean:
            return False
        check = self._check
        check.lines, check.types = found.lines, found.types
        check.oldest, check.newest = found.oldest, found.newest
        return True

    def __enter__(self) -> Proof:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None and self._watch is not None:
            self._watch.drop()


def tidy(part: Path, size: int, terms: Terms) -> tuple[Spool, LineCheck]:
    """Check the first ``size`` bytes of a stored body in this process, and keep its clean lines only.

    Raises:
        Stopped: The job was stopped in the meantime.
    """
    rough = part.with_suffix(".rough.part")
    check = terms.new_check()
    part.replace(rough)
    try:
        with rough.open("rb", buffering=0) as source, part.open("wb", buffering=0) as file:
            spool = Spool(file)
            while size and (block := source.read(min(BLOCK, size))):
                if terms.stopped():
                    raise Stopped
                size -= len(block)
                spool.store(check.feed(block))
            spool.store(check.finish())
            spool.sync()
    finally:
        rough.unlink()
    return spool, check
