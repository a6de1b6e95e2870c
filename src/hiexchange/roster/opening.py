"""Open a payer's file safely: archives confined and bounded, bytes turned into UTF-8 text.

Nothing is unpacked to disk, so a path inside an archive can never leave it; still, an archive that
tries is refused, because whoever made it is not who we think.
"""

from __future__ import annotations

import codecs
import fnmatch
import gzip
import io
import mmap
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa

from hiexchange import _files
from hiexchange.errors import ConfigError
from hiexchange.roster.issues import refusal

CHUNK = 1 << 22
BOMB_RATIO = 200
"""Expansion factor over which an archive member larger than BOMB_FLOOR is refused."""
BOMB_FLOOR = 64 << 20
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class Opened:
    """The bytes of a roster file, out of its archive."""

    name: str
    """File name as received, without folders."""
    inner: str
    """Name of the archive member, or the same."""
    sha256: str
    """Of the bytes as received."""
    size_bytes: int
    data: pa.Buffer
    """Content; memory-mapped where the file is plain."""
    mapped: mmap.mmap | None = None

    def forget(self) -> None:
        """Give back the memory of mapped pages that were read; reading them again is safe."""
        if self.mapped is not None and hasattr(self.mapped, "madvise"):
            self.mapped.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Text:
    """Content as UTF-8."""

    data: pa.Buffer
    encoding: str
    guessed: bool
    """True when neither a mark nor the layout said so: the bytes were no UTF-8."""


def open_file(
    path: str | Path, *, member: str | None = None, max_bytes: int = 8_000_000_000, together: bool = False
) -> Opened:
    """Return a file's content; gzip and zip are known by their magic, not by their names.

    Args:
        path: The file as received; with ``together`` also a folder of them.
        member: Pattern of the archive member to take; without it the archive must hold one file.
        max_bytes: Limit on the expanded size.
        together: Take every file of a folder or zip as one text, as for the NDJSON files of an export.

    Raises:
        ConfigError: There is no such file, or it cannot be read.
        RosterError: Empty, truncated, encrypted, oversized or unsafe.
    """
    file = Path(path)
    if together and file.is_dir():
        return _open_folder(file, max_bytes)
    try:
        sha = _files.sha256_file(file)
        size = file.stat().st_size
        with file.open("rb") as stream:
            magic = stream.read(8)
    except OSError as error:
        raise ConfigError(
            "the roster cannot be read", where=str(file), said=error.strerror, hint="check the path and permissions"
        ) from None
    if not magic:
        raise refusal("empty_file", "the file is empty", file=file.name, hint="ask the payer to send it again")
    inner, mapped = file.name, None
    if magic.startswith(b"\x1f\x8b"):
        data = _gunzip(file, max_bytes)
    elif magic.startswith(b"PK") and not _is_workbook(file):
        inner, data = _unzip(file, member, max_bytes, together)
    else:
        with file.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        data = pa.py_buffer(mapped)
    if data.size == 0:
        raise refusal("empty_file", "the archive holds an empty file", file=file.name, hint="ask for it again")
    return Opened(file.name, inner, sha, size, data, mapped)


def as_text(opened: Opened, encoding: str = "auto") -> Text:
    """Return the content as UTF-8 without a byte-order mark.

    A file that is neither marked nor UTF-8 is read as cp1252, which is what Windows spreadsheets
    write; ``guessed`` says so, because a wrong guess garbles names and nothing else would tell.

    Raises:
        RosterError: The bytes do not fit the encoding the layout states.
    """
    head = opened.data.slice(0, min(4, opened.data.size)).to_pybytes()
    for mark, name in MARKS:
        if head.startswith(mark):
            body = opened.data.slice(len(mark))
            return Text(body if name == "utf-8" else _transcode(body, name, opened.name), name, False)
    start = opened.data.slice(0, min(4096, opened.data.size)).to_pybytes()
    if encoding in ("auto", "utf-8") and start.count(0) > len(start) // 4:
        raise refusal(
            "encoding",
            "the text is full of NUL bytes: UTF-16 without its mark?",
            file=opened.name,
            hint="set file.encoding in the layout to utf-16-le or utf-16-be",
        )
    if encoding not in ("auto", "utf-8"):
        return Text(_transcode(opened.data, encoding, opened.name), encoding, False)
    if _is_utf8(opened.data):
        return Text(opened.data, "utf-8", False)
    if encoding == "utf-8":
        raise refusal("encoding", "the file is not UTF-8", file=opened.name, hint="set file.encoding in the layout")
    return Text(_transcode(opened.data, "cp1252", opened.name), "cp1252", True)


def _gunzip(file: Path, limit: int) -> pa.Buffer:
    sink = io.BytesIO()
    try:
        with gzip.open(file, "rb") as stream:
            _copy(stream, sink, min(limit, max(BOMB_FLOOR, file.stat().st_size * BOMB_RATIO)), file.name)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise refusal(
            "truncated", "the gzip file is cut off or damaged", file=file.name, hint="ask for it again"
        ) from None
    return pa.py_buffer(sink.getbuffer())


def _open_folder(folder: Path, max_bytes: int) -> Opened:
    """Open the JSON files of a folder as one text; its sha256 covers names and bytes."""
    files = sorted(file for file in folder.iterdir() if re.search(r"\.(nd)?json(\.gz)?$", file.name))
    if not files:
        raise refusal("empty_file", "the folder holds no NDJSON file", file=folder.name, hint="check the path")
    sink = io.BytesIO()
    parts: list[str] = []
    for file in files:
        opened = open_file(file, max_bytes=max_bytes)
        sink.write(opened.data.to_pybytes().strip() + b"\n")
        parts += [file.name, opened.sha256]
    return Opened(folder.name, folder.name, _files.sha256_text(*parts), sink.tell(), pa.py_buffer(sink.getbuffer()))


def _unzip(file: Path, pattern: str | None, limit: int, together: bool) -> tuple[str, pa.Buffer]:
    try:
        with zipfile.ZipFile(file) as archive:
            chosen = _choose(archive, pattern, file.name, together)
            if any(info.flag_bits & 0x1 for info in chosen):
                raise refusal(
                    "encrypted", "the zip file needs a password", file=file.name, hint="decrypt it before intake"
                )
            allowed = min(limit, max(BOMB_FLOOR, sum(info.compress_size for info in chosen) * BOMB_RATIO))
            sink = io.BytesIO()
            for info in chosen:
                with archive.open(info) as stream:
                    _copy(stream, sink, allowed, file.name)
                if together:
                    sink.write(b"\n")
            return chosen[0].filename, pa.py_buffer(sink.getbuffer())
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError):
        raise refusal(
            "truncated", "the zip file is cut off or damaged", file=file.name, hint="ask for it again"
        ) from None


def _choose(archive: zipfile.ZipFile, pattern: str | None, name: str, together: bool) -> list[zipfile.ZipInfo]:
    files = [info for info in archive.infolist() if not info.is_dir()]
    for info in files:
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
            raise refusal(
                "unsafe_path", "a path in the zip file leads out of it", file=name, hint="ask who made this file"
            )
    wanted = [info for info in files if pattern is None or fnmatch.fnmatch(info.filename, pattern)]
    if len(wanted) != 1 and not (together and wanted):
        raise refusal(
            "archive_member",
            f"the zip file holds {len(wanted)} files that could be the roster",
            file=name,
            hint="set file.member in the layout to the pattern of the one that is",
        )
    return wanted


def _copy(stream: object, sink: io.BytesIO, limit: int, name: str) -> None:
    read = stream.read  # type: ignore[attr-defined]  # gzip and zip readers share no public type
    while block := read(CHUNK):
        sink.write(block)
        if sink.tell() > limit:
            raise refusal(
                "expansion",
                "the archive expands beyond its limit",
                file=name,
                hint="raise file.max_bytes if it is sane",
            )


def _is_workbook(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return "[Content_Types].xml" in archive.namelist()
    except zipfile.BadZipFile:
        return False


def _is_utf8(data: pa.Buffer) -> bool:
    decode = codecs.getincrementaldecoder("utf-8")().decode
    try:
        for start in range(0, data.size, CHUNK):
            decode(data.slice(start, min(CHUNK, data.size - start)).to_pybytes())
        decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


def _transcode(data: pa.Buffer, encoding: str, name: str) -> pa.Buffer:
    sink = io.BytesIO()
    try:
        decode = codecs.getincrementaldecoder(encoding)("strict" if encoding != "cp1252" else "replace").decode
        for start in range(0, data.size, CHUNK):
            sink.write(decode(data.slice(start, min(CHUNK, data.size - start)).to_pybytes()).encode())
        sink.write(decode(b"", True).encode())
    except (UnicodeDecodeError, LookupError):
        raise refusal(
            "encoding", f"the file is not {encoding}", file=name, hint="set file.encoding in the layout"
        ) from None
    return pa.py_buffer(sink.getbuffer())
