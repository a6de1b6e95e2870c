"""One governor for all workers of a job: how many requests at once, how fast, and when to be silent.

Additive increase, multiplicative decrease (RFC 5681's idea): a 429, 503 or timeout halves the limit
at most once in a back-off window; a run of clean files raises it by one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CLEAN_FILES_A_STEP = 4


class Governor:
    """Shared by threads; ``slot()`` is held during one request and its body."""

    def __init__(
        self,
        *,
        start: int = 4,
        maximum: int = 16,
        rate: tuple[int, float] | None = None,
        stopped: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with ``start`` slots; ``rate`` is requests per seconds."""
        self.limit = max(1, min(start, maximum))
        self._maximum = maximum
        self._rate = rate
        self._stopped = stopped or threading.Event()
        self._clock = clock
        self._condition = threading.Condition()
        self._active = 0
        self._blocked_until = 0.0
        self._clean = 0
        self._starts: deque[float] = deque(maxlen=rate[0] if rate else 1)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for a slot, the rate and the end of any back-off; return at once when stopped."""
        with self._condition:
            while not self._stopped.is_set():
                delay = self._delay()
                if delay == 0.0 and self._active < self.limit:
                    break
                self._condition.wait(min(delay or 0.2, 0.2))
            self._active += 1
            self._starts.append(self._clock())
        try:
            yield
        finally:
            with self._condition:
                self._active -= 1
                self._condition.notify_all()

    def _delay(self) -> float:
        now = self._clock()
        delay = max(0.0, self._blocked_until - now)
        if self._rate and len(self._starts) == self._rate[0]:
            delay = max(delay, self._starts[0] + self._rate[1] - now)
        return delay

    def throttle(self, wait_s: float) -> None:
        """Be silent for ``wait_s``; halve the limit unless that was just done."""
        with self._condition:
            now = self._clock()
            if now >= self._blocked_until:
                self.limit = max(1, self.limit // 2)
            self._blocked_until = max(self._blocked_until, now + wait_s)
            self._clean = 0

    def slower(self) -> None:
        """Lower the limit by one: a body stalled."""
        with self._condition:
            self.limit = max(1, self.limit - 1)
            self._clean = 0

    def succeeded(self) -> None:
        """Count a clean file; now and then allow one more at once."""
        with self._condition:
            self._clean += 1
            if self._clean >= CLEAN_FILES_A_STEP and self.limit < self._maximum:
                self.limit += 1
                self._clean = 0
                self._condition.notify()
