"""Undo the content encoding of a download, in bounded memory, trusting the bytes and not the header.

Servers label plain bodies gzip, send gzip without a label, compress twice, say ``x-gzip``; the magic
number decides. A gzip body is whole only with its trailer: CRC and length of every member.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from typing import Any

MAGIC = b"\x1f\x8b"
STEP, PORTION = 1 << 20, 1 << 17
"""Bytes decoded at a time at most, and bytes given to the inflater at a time: it copies what it has not used, so that
1 MB at a time costs a quarter more (isal 1.9, 2026-11)."""
MAX_LAYERS = 2
GZIP_WINDOW = 31


class Broken(Exception):
    """The body cannot be decoded to its end; the text says why."""


class NotOffered(Broken):
    """A coding that cannot be undone here; the plain body may be had by asking for identity."""


@functools.cache
def _inflating() -> Any:
    """Return the module to inflate with: isal where it is installed, zlib otherwise."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib


def _new_inflater() -> Any:
    return _inflating().decompressobj(GZIP_WINDOW)


class Gunzip:
    """Decode concatenated gzip members, never more than ``STEP`` bytes at a time."""

    def __init__(self) -> None:
        self._inflater = _new_inflater()
        self._fresh = True

    @property
    def at_end(self) -> bool:
        """Whether the last member is complete."""
        return self._fresh

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield decoded pieces.

        Raises:
            Broken: A member's data or CRC is wrong, or what follows the last member is no gzip.
        """
        for start in range(0, len(data), PORTION):
            yield from self._inflate(data[start : start + PORTION])

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._fresh and not MAGIC.startswith(data[:2]):
                if not data.strip(b"\0"):
                    return  # zero padding after the last member is allowed (RFC 1952 writers do it)
                raise Broken("bytes after the end of the gzip data")
            self._fresh = False
            try:
                piece = self._inflater.decompress(data, STEP)
            except (zlib.error, _inflating().error):  # isal's own class is no subclass
                raise Broken("gzip data is damaged") from None
            if piece:
                yield piece
            data = self._inflater.unconsumed_tail
            if self._inflater.eof:
                data = self._inflater.unused_data
                self._inflater, self._fresh = _new_inflater(), True

    def finish(self) -> None:
        """Raise Broken if the last member's trailer is missing."""
        if not self._fresh:
            raise Broken("gzip data ends before its trailer")


class Inflate:
    """Decode a ``deflate`` body, zlib-wrapped or raw."""

    def __init__(self) -> None:
        self._inflater: Any = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield decoded pieces."""
        if self._inflater is None:
            wrapped = len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
            self._inflater = zlib.decompressobj(15 if wrapped else -15)
        while data:
            try:
                piece = self._inflater.decompress(data, STEP)
            except zlib.error:
                raise Broken("deflate data is damaged") from None
            if piece:
                yield piece
            data = self._inflater.unconsumed_tail

    def finish(self) -> None:
        """Raise Broken if the data ended early."""
        if self._inflater is not None and not self._inflater.eof:
            raise Broken("deflate data ends early")


class BodyDecoder:
    """Decode a body by what it is; ``notes`` says where the header lied."""

    def __init__(self, content_encoding: str) -> None:
        """Start; ``content_encoding`` is the header's text.

        Raises:
            Broken: A coding we did not offer and cannot undo.
        """
        codings = [text.strip().lower() for text in content_encoding.split(",") if text.strip()]
        self.declared = [coding for coding in codings if coding != "identity"]
        unknown = [coding for coding in self.declared if coding not in ("gzip", "x-gzip", "deflate")]
        if unknown:
            raise NotOffered(f"content encoding {unknown[0][:20]!r} was not offered")
        self.notes: list[str] = []
        self.layers = 0
        self._stages: list[Gunzip | Inflate] | None = None
        self._head = self._inner = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield decoded pieces of at most about ``STEP`` bytes.

        Raises:
            Broken: See :class:`Gunzip`.
        """
        if self._stages is None:
            self._head += data
            if len(self._head) < 2:
                return
            self._choose()
            data, self._head = self._head, b""
        yield from self._through(0, data)

    def finish(self) -> Iterator[bytes]:
        """Yield what is left.

        Raises:
            Broken: The data ended early.
        """
        if self._stages is None:  # a body of 0 or 1 bytes
            self._stages = []
            if self._head:
                yield self._head
            return
        for stage in self._stages:
            stage.finish()
        if self._inner:
            yield self._inner

    @property
    def whole(self) -> bool:
        """Whether a gzip body has been decoded up to and including a trailer."""
        stages = self._stages or []
        return bool(stages) and all(isinstance(stage, Gunzip) and stage.at_end for stage in stages)

    def _choose(self) -> None:
        stages: list[Gunzip | Inflate] = []
        gzipped = self._head.startswith(MAGIC)
        if gzipped:
            stages.append(Gunzip())
            if not self.declared:
                self.notes.append("the body is gzip without a Content-Encoding")
        elif "deflate" in self.declared:
            stages.append(Inflate())
        elif self.declared:
            self.notes.append(f"Content-Encoding says {self.declared[0]}, the body is plain")
        self._stages = stages
        self.layers = len(stages)
        self._sniff_inner = gzipped

    def _through(self, level: int, data: bytes) -> Iterator[bytes]:
        stages = self._stages or []
        if level == len(stages):
            if self._sniff_inner and level == self.layers and data:
                data, self._inner = self._inner + data, b""
                if len(data) < len(MAGIC):
                    self._inner = data  # the inflater may give a single byte first
                    return
                self._sniff_inner = False
                if data.startswith(MAGIC):
                    if self.layers >= MAX_LAYERS:
                        raise Broken("compressed more than twice")
                    stages.append(Gunzip())
                    self.layers += 1
                    self.notes.append("the body is compressed twice")
                    self._sniff_inner = True
                    yield from self._through(level, data)
                    return
            yield data
            return
        for piece in stages[level].feed(data):
            yield from self._through(level + 1, piece)
