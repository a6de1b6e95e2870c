"""Memory that is used again and again, instead of new memory each time."""

from __future__ import annotations

import functools

MOST = (32 << 20) - (64 << 10)
"""The largest size that glibc heeds (DEFAULT_MMAP_THRESHOLD_MAX), and room for its own bookkeeping."""


@functools.cache
def keep_freed(size: int = MOST) -> None:
    """Have glibc keep the memory of blocks up to ``size`` bytes that are freed, instead of handing it back.

    It gives every block from 128 KB on a mapping of its own, whose pages the system faults in one by one: up to
    0.4 s of 500 MB downloaded, and an eighth of a load's time. Once a larger block was freed it maps none smaller
    (mallopt(3), M_MMAP_THRESHOLD). This one is never touched; other systems' allocators do not mind.
    """
    bytes(size)
