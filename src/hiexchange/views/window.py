"""Read NDJSON through one buffer that is used again and again.

Memory fresh from the system costs more than the bytes that go into it, and a piece that fits the cache is
decoded from there.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hiexchange.lake.cut import MAX_LINE, Block
from hiexchange.lake.scan import number_of
from hiexchange.ndjson import BOM

_NEWLINE = ord("\n")
SIZE = 1 << 20
"""Bytes of the buffer: the objects made of more would leave the cache, fewer would repeat what each window costs."""


class Window(NamedTuple):
    """Whole lines of a file."""

    data: memoryview
    """Good until the next window is asked for."""
    line: int
    """1-based number of the first line."""
    offset: int
    """Byte offset of the first line in the (decompressed) file."""
    lines: int
    """How many."""
    too_long: bool = False
    """This is the start of one line above the limit; what follows it is not read."""

    def check(self) -> None:
        """Prove the text to be UTF-8.

        Raises:
            ArrowInvalid: It is not.
        """
        # Arrow looks at the bytes where they are; decoding them would fill fresh memory.
        offsets = np.array([0, len(self.data)], np.int32)
        text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(self.data)])
        text.validate(full=True)

    def block(self) -> Block:
        """Return a copy, for the encoder."""
        return Block(bytes(self.data), self.line, self.offset, self.too_long)


def windows(stream: io.BufferedIOBase, buffer: bytearray) -> Iterator[Window]:
    """Yield what fits into a buffer, cut at ``\\n`` and at nothing else.

    A longer line gets a larger buffer, up to the lake's limit; a line beyond that is the last window. A byte-order
    mark at the start of the file is dropped; the offsets still count it.
    """
    view = memoryview(buffer)
    begin, have, line, offset = 0, 0, 1, 0
    while True:
        view[: have - begin] = view[begin:have]
        begin, have = 0, have - begin
        read = 1
        while have < len(view) and (read := stream.readinto(view[have:])):
            have += read
        if not offset and have >= len(BOM) and view[: len(BOM)] == BOM:
            begin = offset = len(BOM)
        end = have if not read else buffer.rfind(b"\n", begin, have) + 1
        if end > begin:
            lines = number_of(np.frombuffer(view[begin:end], np.uint8), _NEWLINE) + (view[end - 1] != _NEWLINE)
            yield Window(view[begin:end], line, offset, lines)
            line, offset, begin = line + lines, offset + end - begin, end
        elif read and have > MAX_LINE:
            yield Window(view[begin : begin + 1024], line, offset, 1, too_long=True)
            return
        elif read:
            buffer = bytearray(2 * len(buffer))
            buffer[:have] = view[:have]
            view = memoryview(buffer)
        if not read:
            return
