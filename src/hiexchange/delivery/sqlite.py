"""The ledger on SQLite: WAL, synchronous=FULL, one file on a local disk.

SQLite serialises writers, so a claim needs no row lock; a worker's life is a lock on a small file
beside the ledger, which the operating system frees when the process is killed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from hiexchange._files import FULL_DISK, PRIVATE, storage_errors
from hiexchange.delivery.ledger import SCHEMA_VERSION, Row, create
from hiexchange.errors import DeliveryError, StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BUSY_S = 30.0


class SQLiteStore:
    """One connection to one ledger file."""

    skip_locked = ""

    def __init__(self, path: str | Path, *, busy_s: float = BUSY_S) -> None:
        """Open or create the ledger (mode 600) and prove that it is whole.

        Args:
            path: The file; a ``-wal`` and a ``-shm`` file beside it belong to it.
            busy_s: How long to wait for another process's transaction.

        Raises:
            DeliveryError: The file is no ledger, is corrupt, or of another layout (HX-610).
            StorageError: The disk is full or the folder cannot be written.
        """
        self.path = Path(path)
        self._owner_file: IO[bytes] | None = None
        self._owner = ""
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Created before SQLite opens it, so that it is private from its first byte.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, PRIVATE))
        with _sqlite_errors(self.path):
            self._connection = sqlite3.connect(self.path, timeout=busy_s, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("PRAGMA cache_size=-65536")
            self._check()
            create(self, blob="BLOB")

    def _check(self) -> None:
        found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise _corrupt(self.path)
        names = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if names and "meta" not in names:
            raise DeliveryError("the file is a database, but no delivery ledger", where=str(self.path), code="HX-610")
        if names:
            version = self._connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
            if version is not None and version[0] != SCHEMA_VERSION:
                raise DeliveryError(
                    f"the ledger has layout {version[0]}, this release reads {SCHEMA_VERSION}",
                    where=str(self.path),
                    code="HX-610",
                )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        with _sqlite_errors(self.path):
            # IMMEDIATE: take the writer's place at once, not in the middle, where SQLite cannot wait.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        with _sqlite_errors(self.path):
            return self._connection.execute(sql, args).fetchall()

    def run(self, sql: str, args: Sequence[Any] = ()) -> int:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        with _sqlite_errors(self.path):
            return self._connection.execute(sql, args).rowcount

    def run_many(self, sql: str, args: Iterable[Sequence[Any]]) -> None:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        with _sqlite_errors(self.path):
            self._connection.executemany(sql, args)

    def owner(self) -> str:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        if self._owner_file is None:
            self._owner = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
            folder = self._workers()
            folder.mkdir(mode=0o700, exist_ok=True)
            self._owner_file = (folder / self._owner).open("wb")
            if fcntl is not None:
                fcntl.flock(self._owner_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self._owner

    def owner_alive(self, name: str) -> bool:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        if name == self._owner:
            return True
        path = self._workers() / name
        if fcntl is None:
            return path.exists()
        try:
            with path.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def serialise(self, what: str) -> None:
        """See :class:`~hiexchange.delivery.ledger.Store`: a transaction here already excludes every other."""

    def close(self) -> None:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        self._connection.close()
        if self._owner_file is not None:
            (self._workers() / self._owner).unlink(missing_ok=True)
            self._owner_file.close()
            self._owner_file = None

    def _workers(self) -> Path:
        return self.path.with_name(f".{self.path.name}.workers")


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise StorageError(
                "the disk is full", where=str(path), hint="free space, then run the same command again: it resumes"
            ) from error
        if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise DeliveryError(
                "the ledger stayed locked by another process",
                where=str(path),
                hint="let the other process end, then run the same command again",
                code="HX-611",
                retryable=True,
                resumable=True,
            ) from error
        raise StorageError(f"the ledger cannot be used: {error}", where=str(path)) from error
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        raise _corrupt(path) from error
    except OSError as error:
        if error.errno in FULL_DISK:
            raise StorageError("the disk is full", where=str(path), hint="free space, then run again") from error
        raise


def _corrupt(path: Path) -> DeliveryError:
    return DeliveryError(
        "the delivery ledger is damaged; nothing is sent",
        where=str(path),
        hint="restore it from a backup: sending from a damaged ledger could send twice",
        code="HX-610",
    )
