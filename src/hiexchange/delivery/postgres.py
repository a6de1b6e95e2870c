"""The ledger on PostgreSQL (psycopg 3, extra ``postgres``): several workers on several computers.

Workers share the queue by ``FOR UPDATE SKIP LOCKED``; a worker's life is a session advisory lock,
which the server frees when the connection ends, however it ends. The audit chain and the numbers
of a channel are serialised by transaction advisory locks.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hiexchange.delivery.ledger import SCHEMA_VERSION, Row, create
from hiexchange.errors import DeliveryError, MissingExtra, StorageError


class PostgresStore:
    """One connection to one schema of a PostgreSQL database."""

    skip_locked = " FOR UPDATE SKIP LOCKED"

    def __init__(self, conninfo: str, *, schema: str = "hiexchange") -> None:
        """Connect, and create the tables that are absent.

        Args:
            conninfo: libpq connection text; keep the password in ``~/.pgpass`` or ``PGPASSWORD``.
            schema: Namespace of the tables: one outbox a schema.

        Raises:
            DeliveryError: The server cannot be reached, or the schema holds another layout (HX-610).
            MissingExtra: psycopg is not installed.
        """
        try:
            import psycopg
        except ImportError:
            raise MissingExtra("postgres", "a ledger on PostgreSQL") from None
        self._errors: Any = psycopg.errors
        self._error: Any = psycopg.Error
        self._number = 0
        try:
            self._connection: Any = psycopg.connect(conninfo, autocommit=True)
        except psycopg.Error as error:
            raise DeliveryError(
                f"the ledger's server cannot be used: {type(error).__name__}", hint="check the connection text"
            ) from None
        name = psycopg.sql.Identifier(schema)
        with self._translated():
            with self.transaction():
                self.serialise("schema")
                self._connection.execute(psycopg.sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
            self._connection.execute(psycopg.sql.SQL("SET search_path TO {}").format(name))
            with self.transaction():
                self.serialise("schema")
                create(self, blob="BYTEA")
            found = self.rows("SELECT value FROM meta WHERE key = 'schema'")
        if found[0][0] != SCHEMA_VERSION:
            raise DeliveryError(
                f"the ledger has layout {found[0][0]}, this release reads {SCHEMA_VERSION}", code="HX-610"
            )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        with self._translated(), self._connection.transaction():
            yield

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        with self._translated():
            found: list[Row] = self._connection.execute(_marked(sql), args).fetchall()
            return found

    def run(self, sql: str, args: Sequence[Any] = ()) -> int:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        with self._translated():
            return int(self._connection.execute(_marked(sql), args).rowcount)

    def run_many(self, sql: str, args: Iterable[Sequence[Any]]) -> None:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        with self._translated(), self._connection.cursor() as cursor:
            cursor.executemany(_marked(sql), list(args))

    def owner(self) -> str:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        if not self._number:
            self._number = secrets.randbits(62) + 1
            self._connection.execute("SELECT pg_advisory_lock(%s)", (self._number,))
        return str(self._number)

    def owner_alive(self, name: str) -> bool:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        number = int(name)
        if number == self._number:
            return True
        free = bool(self.rows("SELECT pg_try_advisory_lock(?)", (number,))[0][0])
        if free:
            self._connection.execute("SELECT pg_advisory_unlock(%s)", (number,))
        return not free

    def serialise(self, what: str) -> None:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        self._connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 7))", (what,))

    def close(self) -> None:
        """See :class:`~hiexchange.delivery.ledger.Store`."""
        self._connection.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        # The server's messages can quote values of rows: only their kind is passed on.
        try:
            yield
        except (self._errors.DiskFull, self._errors.OutOfMemory) as error:
            raise StorageError(f"the ledger's server is full: {type(error).__name__}") from None
        except (
            self._errors.DeadlockDetected,
            self._errors.SerializationFailure,
            self._errors.LockNotAvailable,
        ) as error:
            raise DeliveryError(
                f"another worker was in the way: {type(error).__name__}",
                hint="run the same command again",
                code="HX-611",
                retryable=True,
                resumable=True,
            ) from None
        except self._error as error:
            raise DeliveryError(f"the ledger's server failed: {type(error).__name__}", code="HX-610") from None


def _marked(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")
