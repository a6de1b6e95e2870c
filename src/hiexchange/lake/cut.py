"""Cut a stream of bytes into blocks of whole lines, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import IO

import numpy as np

from hiexchange.lake.scan import Indices, places_of
from hiexchange.ndjson import BOM

BLOCK_SIZE = 8 << 20
MAX_LINE = 256 << 20


@dataclass(frozen=True)
class Block:
    """Whole lines of one file."""

    data: bytes
    line: int
    """1-based number of the first line."""
    offset: int
    """Byte offset of the first line in the (decompressed) file."""
    too_long: bool = False
    """The block is the start of one line above the limit; the rest of it was skipped."""
    length: int = 0
    """Length in bytes of that line."""

    @cached_property
    def line_ends(self) -> Indices:
        """Places of the line ends."""
        return places_of(np.frombuffer(self.data, np.uint8), 10)


def blocks(
    stream: IO[bytes], *, size: int = BLOCK_SIZE, max_line: int = MAX_LINE, line: int = 1, offset: int = 0
) -> Iterator[Block]:
    """Yield blocks of about ``size`` bytes, cut at ``\\n`` and at nothing else.

    A longer line makes its block longer, up to ``max_line``; beyond that it is passed over and
    yielded as one ``too_long`` block. A byte-order mark at the start of the file is dropped; the
    offsets still count it.
    """
    rest = b""
    while chunk := stream.read(size):
        if line == 1 and offset == 0 and not rest and chunk.startswith(BOM):
            chunk = chunk[len(BOM) :]
            offset = len(BOM)
        end = chunk.rfind(b"\n") + 1
        if not end:
            rest += chunk
            if len(rest) > max_line:
                skipped, after = _skip_line(stream, size)
                yield Block(rest[:1024], line, offset, True, len(rest) + skipped)
                line, offset, rest = line + 1, offset + len(rest) + skipped, after
            continue
        block = Block(b"".join((rest, memoryview(chunk)[:end])), line, offset)
        rest = chunk[end:]
        del chunk  # new memory costs the system as much time as the rest of reading: what is held is not used again
        yield block
        line += len(block.line_ends)
        offset += len(block.data)
        del block
    if rest:
        yield Block(rest, line, offset)


def _skip_line(stream: IO[bytes], size: int) -> tuple[int, bytes]:
    """Read to the end of the line; return how many bytes were passed over, and what follows."""
    skipped = 0
    while chunk := stream.read(size):
        end = chunk.find(b"\n") + 1
        if end:
            return skipped + end, chunk[end:]
        skipped += len(chunk)
    return skipped, b""
