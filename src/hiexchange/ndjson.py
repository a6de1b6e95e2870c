"""Read and write NDJSON: one JSON value a line, lines split on ``\\n`` and on nothing else.

The verbs are those of the ``ndjson`` package, which this replaces: it joins ``str.splitlines()``
with commas, so a raw U+2028 or U+0085 inside a string silently becomes a comma. Here files are
read as a stream of bytes, ``.gz`` included, and an error names its line and byte offset. Blank
lines and a byte-order mark are passed over. Decimals keep their text: pass ``decimals=str``.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from hiexchange.errors import BadLine

BOM = b"\xef\xbb\xbf"

_encode = msgspec.json.encode


def loads(data: bytes | str, *, name: str = "<data>", decimals: Callable[[str], Any] = float) -> list[Any]:
    """Return every value in ``data``.

    Args:
        data: NDJSON text; a ``str`` is taken as UTF-8.
        name: What to call the data in an error.
        decimals: Called with the literal text of each number that has a point or an exponent.

    Raises:
        BadLine: A line is not JSON; says which, and its byte offset.
    """
    raw = data.encode() if isinstance(data, str) else data
    return list(_parse(raw.split(b"\n"), name, decimals))


def value(data: bytes) -> Any:
    """Return the value of one JSON text that somebody else sent; None when it is none.

    Also None for what Python could not store again: lone surrogates, nesting without end.
    """
    try:
        return msgspec.json.decode(data.removeprefix(BOM))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def objects(array: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects of an array that somebody else sent; nothing where it is none."""
    yield from (item for item in array if isinstance(item, dict)) if isinstance(array, list) else ()


def load(file: str | Path | IO[bytes], *, decimals: Callable[[str], Any] = float) -> list[Any]:
    """Return every value in a file (plain or ``.gz``); see :func:`loads`."""
    return list(reader(file, decimals=decimals))


def reader(file: str | Path | IO[bytes], *, decimals: Callable[[str], Any] = float) -> Iterator[Any]:
    """Yield the values of a file one at a time, in memory bounded by the longest line.

    Raises:
        BadLine: A line is not JSON; the lines before it have been yielded.
    """
    if isinstance(file, str | Path):
        with open_bytes(file) as stream:
            yield from _parse(stream, Path(file).name, decimals)
    else:
        yield from _parse(file, getattr(file, "name", "<stream>"), decimals)


def dumps(values: Iterable[Any]) -> bytes:
    """Return ``values`` as NDJSON bytes, each line ended by ``\\n``."""
    return b"".join(_encode(value) + b"\n" for value in values)


def dump(values: Iterable[Any], file: IO[bytes]) -> int:
    """Write ``values`` to a binary file; return how many there were."""
    write = writer(file)
    count = 0
    for value in values:
        write(value)
        count += 1
    return count


def writer(file: IO[bytes]) -> Callable[[Any], None]:
    """Return a function that writes one value as one line."""

    def write(value: Any) -> None:
        file.write(_encode(value) + b"\n")

    return write


def open_bytes(path: str | Path) -> IO[bytes]:
    """Open a plain or gzipped file for reading bytes; gzip is known by its magic, not its name."""
    raw = Path(path).open("rb")  # noqa: SIM115 - the caller closes it
    magic = raw.read(2)
    raw.seek(0)
    if magic == b"\x1f\x8b":
        return _GzipFile(raw)  # type: ignore[return-value]
    return raw


class _GzipFile(gzip.GzipFile):
    """A gzip reader that also closes the file under it."""

    def __init__(self, under: IO[bytes]) -> None:
        super().__init__(fileobj=under)
        self._under = under

    def close(self) -> None:
        super().close()
        self._under.close()


def _parse(lines: Iterable[bytes], name: str, decimals: Callable[[str], Any]) -> Iterator[Any]:
    decode = msgspec.json.Decoder(float_hook=decimals).decode
    offset = 0
    for number, line in enumerate(lines, 1):
        body = line.removeprefix(BOM) if number == 1 else line
        if body.strip():
            try:
                yield decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise BadLine(
                    f"not JSON: {_reason(error)}",
                    file=name,
                    line=number,
                    offset=offset,
                    hint="fetch the file again, or quarantine the line with Lake.ingest",
                ) from None
        offset += len(line) + (0 if line.endswith(b"\n") else 1)


def _reason(error: Exception) -> str:
    # msgspec's messages hold positions, never content; a UnicodeDecodeError's holds bytes.
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "invalid UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
