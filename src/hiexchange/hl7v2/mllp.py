"""MLLP: the envelope of messages on a TCP connection. Source: HL7 Minimal Lower Layer Protocol, release 1."""

from __future__ import annotations

from hiexchange.errors import DataError
from hiexchange.hl7v2.reader import CODE, MAX_BYTES

START, END = b"\x0b", b"\x1c\r"


def frame(message: bytes) -> bytes:
    """Return a message in its MLLP envelope."""
    return START + message + END


class Frames:
    """Cut a byte stream into MLLP messages; bytes outside of envelopes are dropped and counted."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._buffer = bytearray()
        self._max = max_bytes
        self.stray = 0
        """Bytes seen outside of an envelope, line ends not counted."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes off the wire; return the messages that are now whole.

        Raises:
            DataError: A message grows beyond the limit: the peer is no sender of ADT.
        """
        self._buffer += data
        whole = []
        while True:
            begin = self._buffer.find(START)
            if begin < 0:
                self._drop(len(self._buffer))
                break
            self._drop(begin)
            end = self._buffer.find(END, 1)
            if end < 0:
                break
            whole.append(bytes(self._buffer[1:end]))
            del self._buffer[: end + len(END)]
        if len(self._buffer) > self._max:
            raise DataError(f"an MLLP message is longer than {self._max:,} bytes", code=CODE)
        return whole

    @property
    def pending(self) -> int:
        """Bytes of a message that is not whole yet."""
        return len(self._buffer)

    def _drop(self, count: int) -> None:
        self.stray += len(bytes(self._buffer[:count]).strip(b"\r\n"))
        del self._buffer[:count]
