"""Prove long bodies in a second process, while they are being written.

The check of the lines holds the interpreter lock, against which receiving, inflating, hashing and writing would have
to wait: half the time of a download (docs/benchmarks/download.md). So one helper process per job reads what this one
writes, behind it, from the page cache. It never writes and decides nothing: it says what a
:class:`~hiexchange.bulk.lines.LineCheck` found, and if a file is not clean, or the helper dies, the check is done
again in this process. The helper ends when its standard input does, so it cannot outlive its parent.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable
from io import FileIO
from typing import TYPE_CHECKING

import msgspec

from hiexchange.bulk.lines import BLOCK, NO_LINE_END, LineCheck

if TYPE_CHECKING:
    from pathlib import Path  # the helper starts a tenth faster without

# The parent's search path replaces that of ``site``, whose start-up the helper is spared.
COMMAND = (
    "import os, sys; sys.path[:] = sys.argv[1].split(os.pathsep); from hiexchange.bulk import prover; prover.serve()"
)
LISTEN_S = 0.2
ROOM = BLOCK + (1 << 16)
"""Bytes of the helper's buffer: a block, and the beginning of a line that the one before left."""


class Task(msgspec.Struct, array_like=True):
    """How far a file may be read; the helper opens it at the first word of it."""

    key: int
    path: str
    """The path's bytes, in hexadecimal."""
    dated: bool
    max_line_bytes: int
    size: int = 0
    ended: bool = False
    dropped: bool = False


class Verdict(msgspec.Struct, array_like=True):
    """What was found in a file that has ended."""

    key: int
    clean: bool
    """Every line is one JSON object of FHIR, and nothing had to be set right but a last line without an end."""
    lines: int = 0
    types: dict[str, int] = {}
    oldest: str = ""
    newest: str = ""


class Reading:
    """In the helper: one file, read as far as it has been written.

    One buffer is used over and over: memory taken anew for each block would be handed back to the system and
    faulted in again, page by page, which cost a fifth of the helper's time (2026-11).
    """

    def __init__(self, task: Task) -> None:
        """Open the file, which the parent may have given up in the meantime."""
        self._check = LineCheck(dated=task.dated, max_line_bytes=task.max_line_bytes)
        self._longest = task.max_line_bytes
        self._buffer = bytearray(ROOM)
        self._read = self._kept = self._filled = 0
        self._file: FileIO | None = None
        with contextlib.suppress(OSError):
            self._file = FileIO(os.fsdecode(bytes.fromhex(task.path)))

    def go_on(self, size: int) -> None:
        """Check what lies before ``size``."""
        while self._file is not None and self._read < size:
            if self._filled == len(self._buffer):
                self._buffer.extend(bytes(self._filled))  # a line that is longer than the buffer
            room = memoryview(self._buffer)[self._filled : self._filled + min(BLOCK, size - self._read)]
            got = self._file.readinto(room)
            del room  # a bytearray that is looked into cannot grow
            if not got:
                self.close()
                return
            self._read += got
            self._filled += got
            self._sift(got)

    def _sift(self, got: int) -> None:
        """Check the whole lines that end in the last ``got`` bytes, and move what follows them to the front."""
        buffer = self._buffer
        end = buffer.rfind(b"\n", self._filled - got, self._filled) + 1
        if end:
            cleaned = self._check.sift(buffer, end)
            self._kept += end if cleaned is None else len(cleaned)
            self._filled -= end
            buffer[: self._filled] = buffer[end : end + self._filled]
        elif self._filled > self._longest:
            self.close()

    def verdict(self, key: int) -> Verdict:
        """Say what was found."""
        if self._file is None:
            return Verdict(key, False)
        check = self._check
        self._kept += len(check.feed(bytes(self._buffer[: self._filled])))
        self._kept += len(check.finish())
        added = NO_LINE_END in check.notes
        clean = not (check.rejected or check.too_long or check.notes - {NO_LINE_END})
        return Verdict(
            key, clean and self._kept == self._read + added, check.lines, check.types, check.oldest, check.newest
        )

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def serve() -> None:
    """Answer the tasks on standard input until it ends: the helper's whole life."""
    decode, encode = msgspec.json.Decoder(Task).decode, msgspec.json.encode
    readings: dict[int, Reading] = {}
    for line in sys.stdin.buffer:
        task = decode(line)
        if task.key not in readings:
            if task.dropped:
                continue
            readings[task.key] = Reading(task)
        reading = readings[task.key]
        if not task.dropped:
            reading.go_on(task.size)
        if task.ended:
            os.write(1, encode(reading.verdict(task.key)) + b"\n")
        if task.ended or task.dropped:
            readings.pop(task.key).close()


class Watch:
    """In the parent: one file that the helper reads behind its writer."""

    def __init__(self, prover: Prover, task: Task) -> None:
        """Nothing is read yet."""
        self._prover, self._task = prover, task
        self.answered = threading.Event()
        self.found: Verdict | None = None

    def grown(self, size: int, *, ended: bool = False) -> None:
        """Say how far the file is written, and whether that is all of it. Waits if the helper is far behind."""
        self._task.size, self._task.ended = size, ended
        self._prover.tell(self._task)

    def drop(self) -> None:
        """Say that nobody wants to know any more."""
        self._task.dropped = True
        self._prover.tell(self._task)
        self._prover.forget(self._task.key)

    def verdict(self, stopped: Callable[[], bool]) -> Verdict | None:
        """Wait for what was found; None if the helper died, or if ``stopped()`` became true."""
        while not self.answered.wait(LISTEN_S):
            if stopped():
                return None
        return self.found


class Prover:
    """The helper process, as its parent sees it. Safe to share among threads."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            OSError: The system allows no process.
        """
        import subprocess  # most jobs, and the helper itself, do without

        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", COMMAND, os.pathsep.join(map(str, sys.path))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the parent alone
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._tasks, self._verdicts = self._process.stdin, self._process.stdout
        self._keys = itertools.count()
        self._watches: dict[int, Watch] = {}
        self._lock, self._pipe = threading.Lock(), threading.Lock()
        self._over = False
        self._listener = threading.Thread(target=self._listen, name="prover-listener", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def watch(self, path: Path, *, dated: bool, max_line_bytes: int) -> Watch:
        """Begin with one file, whose writer tells how it grows."""
        task = Task(next(self._keys), os.fsencode(path.absolute()).hex(), dated, max_line_bytes)
        watch = Watch(self, task)
        with self._lock:
            self._watches[task.key] = watch
            if self._over:
                watch.answered.set()
        return watch

    def tell(self, task: Task) -> None:
        """Send a task; one that the helper does not live to read is answered by its death."""
        data = msgspec.json.encode(task) + b"\n"
        with self._pipe:
            try:
                while data and not self._over:
                    data = data[self._tasks.write(data) :]
            except OSError:
                self._end()

    def forget(self, key: int) -> None:
        """Expect no answer any more."""
        with self._lock:
            self._watches.pop(key, None)

    def close(self) -> None:
        """End the helper, which has nothing to lose."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        with self._pipe:
            self._tasks.close()
        self._verdicts.close()

    def _listen(self) -> None:
        decode, rest = msgspec.json.Decoder(Verdict).decode, b""
        while data := self._verdicts.read(1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                found = decode(line)
                with self._lock:
                    watch = self._watches.pop(found.key, None)
                if watch is not None:
                    watch.found = found
                    watch.answered.set()
        self._end()

    def _end(self) -> None:
        with self._lock:
            self._over = True
            for watch in self._watches.values():
                watch.answered.set()


class ProverOnCall:
    """Starts the helper when it is first wanted. Where there is one core, or no second process, there is none."""

    def __init__(self) -> None:
        """Start nothing."""
        self._lock = threading.Lock()
        self._possible = (os.cpu_count() or 1) > 1 and bool(sys.executable)
        self._prover: Prover | None = None

    def __call__(self) -> Prover | None:
        """Return the helper, or None."""
        with self._lock:
            if self._prover is None and self._possible:
                self._possible = False
                with contextlib.suppress(OSError):
                    self._prover = Prover()
            return self._prover

    def close(self) -> None:
        """End the helper, if there is one."""
        with self._lock:
            if self._prover is not None:
                self._prover.close()
                self._prover, self._possible = None, True
