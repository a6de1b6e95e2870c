"""Quarantine of lines that are no FHIR resources: ``rejected.ndjson`` in the job folder, mode 600."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Container
from pathlib import Path

import msgspec

from hiexchange._files import storage_errors, write_bytes
from hiexchange.bulk.lines import LineCheck


class Rejects:
    """Shared by the workers of one job; counts against the job's allowance."""

    def __init__(self, path: Path, *, already: int = 0) -> None:
        """Start with ``already`` lines from files committed before."""
        self.path = path
        self.total = already
        self._lock = threading.Lock()

    def take(self, file: str, check: LineCheck, allowed: int) -> bool:
        """Quarantine a file's rejected lines; False, and nothing written, if that passes the allowance."""
        if not check.rejected:
            return True
        with self._lock, storage_errors(self.path):
            if self.total + check.rejected > allowed:
                return False
            self.total += check.rejected
            rows = (
                {
                    "file": file,
                    "line": reject.line,
                    "offset": reject.offset,
                    "reason": reject.reason,
                    "content": base64.b64encode(reject.text).decode(),
                }
                for reject in check.rejects
            )
            with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as out:
                for row in rows:
                    out.write(msgspec.json.encode(row) + b"\n")
                out.flush()
                os.fsync(out.fileno())
            return True


def keep_rows_of(path: Path, committed: Container[str]) -> None:
    """Remove the rows of files that are not committed: they are fetched, and their lines quarantined, again."""
    if not path.exists():
        return
    rows = path.read_bytes().splitlines(keepends=True)
    kept = [row for row in rows if _file_of(row) in committed]
    if kept != rows:
        write_bytes(path, b"".join(kept))


def _file_of(row: bytes) -> str:
    try:
        return str(msgspec.json.decode(row)["file"])
    except msgspec.DecodeError:
        return ""  # a row that was torn by a kill
