"""One step of a stream in a thread of its own, so that receiving and storing overlap.

Receiving, inflating, hashing and writing release the interpreter lock; only the check of the lines holds it.
A short body never starts a thread: a job may have twenty thousand of them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

from hiexchange._memory import keep_freed

INLINE = 1 << 20
"""Bytes worked on in the caller's thread before one is started."""
DEPTH = 1
"""Blocks that may wait; a block is at most 1 MB (``_http.STRAIGHT_READ``), and there are up to sixteen lanes."""
KEPT = 4 << 20
"""Size of the largest pieces of a body whose memory is used again."""


class Lane:
    """Calls ``work`` with each block put, in order. Leaving its block without an error waits for all of them."""

    def __init__(self, work: Callable[[bytes], None]) -> None:
        """Start in the caller's thread."""
        self._work = work
        self._seen = 0
        self._waiting: queue.Queue[bytes | None] = queue.Queue(DEPTH)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def put(self, block: bytes) -> None:
        """Hand a block over.

        Raises:
            BaseException: What ``work`` raised, on this block or one before.
        """
        if self._thread is None:
            self._seen += len(block)
            if self._seen <= INLINE:
                self._work(block)
                return
            keep_freed(KEPT)
            self._thread = threading.Thread(target=self._run, name="download-lane", daemon=True)
            self._thread.start()
        if self._error is not None:
            raise self._error
        self._waiting.put(block)

    def _run(self) -> None:
        while (block := self._waiting.get()) is not None:
            if self._error is None:
                try:
                    self._work(block)
                except BaseException as error:  # raised again in the thread that puts
                    self._error = error

    def __enter__(self) -> Lane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            if error is not None and self._error is None:
                self._error = error  # what still waits is not worked on
            self._waiting.put(None)
            self._thread.join()
        if error is None and self._error is not None:
            raise self._error
