"""Where memory comes from while a load runs.

Arrow's default allocator (mimalloc) asks for huge pages. On a machine whose memory is full of cached files, which is
what loading makes of it, the system has to make each of them: ten took 45 ms. The system's allocator takes 7 to 14 %
less CPU for a load, and 40 to 60 MB less memory (docs/benchmarks/ingest.md).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from hiexchange._memory import keep_freed

_LOCK = threading.Lock()
_before: list[pa.MemoryPool] = []
"""The pool to return to, once for each load that runs."""


@contextmanager
def system_allocator() -> Iterator[None]:
    """Have Arrow use the system's allocator in mimalloc's place until the last load ends; another choice stays."""
    keep_freed()
    with _LOCK:
        pool = _before[-1] if _before else pa.default_memory_pool()
        _before.append(pool)
        if pool.backend_name == "mimalloc":
            pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        with _LOCK:
            pool = _before.pop()
            if not _before:
                pa.set_memory_pool(pool)
