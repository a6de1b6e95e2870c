"""Files that are either whole or absent: atomic writes, locks, hashes.

Nothing here knows FHIR. A path under its final name is always complete: writers go through a
temporary name in the same folder, fsync, rename, and fsync the folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from hiexchange.errors import JobLocked, StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
PRIVATE = 0o600


@contextlib.contextmanager
def atomic_file(path: str | Path, *, mode: int = PRIVATE) -> Iterator[IO[bytes]]:
    """Give a binary file that appears under ``path`` only if the block ends without an error.

    Raises:
        StorageError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
            sync_folder(target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace a file's content atomically (mode 600)."""
    with atomic_file(path) as file:
        file.write(data)


def write_json(path: str | Path, value: Any) -> None:
    """Replace a file with indented JSON, atomically."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def read_json(path: str | Path) -> Any:
    """Return the value of a JSON file."""
    return msgspec.json.decode(Path(path).read_bytes())


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable; a no-op where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise StorageError(
                "the disk is full, or a quota or size limit is reached",
                where=str(path),
                hint="free space, then run the same command again: it resumes",
            ) from error
        if error.errno == errno.EIO:
            raise StorageError(
                "the disk reports an error",
                where=str(path),
                hint="check the disk, then run the same command again: it resumes",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise StorageError(
                "the folder cannot be written", where=str(path), hint="choose a folder this user may write"
            ) from error
        raise


@contextlib.contextmanager
def folder_lock(folder: str | Path, *, what: str = "folder") -> Iterator[None]:
    """Hold ``folder/lock`` for this process; the operating system frees it if we are killed.

    Raises:
        JobLocked: Another process holds it; the message names its pid and host.
    """
    path = Path(folder) / "lock"
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                owner = file.read(200).decode(errors="replace").strip() or "another process"
                raise JobLocked(
                    f"the {what} is in use by {owner}",
                    where=str(folder),
                    hint="wait for it to end; a killed process releases the lock by itself",
                ) from None
        file.seek(0)
        file.truncate()
        file.write(f"pid {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        yield


def sha256_file(path: str | Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(*parts: str) -> str:
    """Return the hex SHA-256 of parts joined unambiguously (each preceded by its length)."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()
