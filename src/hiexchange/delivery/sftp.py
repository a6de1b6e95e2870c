"""The SFTP channel (asyncssh, extra ``sftp``): part file, size checked, POSIX rename, then the manifest.

Host keys are always verified: against ``known_hosts`` of the channel's options, else the user's
own file. There is no switch to turn that off.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from hiexchange.delivery.base import Outcome, Parcel
from hiexchange.delivery.channel import ChannelSpec
from hiexchange.delivery.credentials import file_option, secret
from hiexchange.errors import ConfigError, DeliveryError, HIExchangeError, MissingExtra

CONNECT_S = 20.0
FLOOR_BYTES_S = 20_000
"""Slowest transfer that is waited for, on top of :data:`IDLE_S`."""
IDLE_S = 60.0

T = TypeVar("T")


class SFTPDestination:
    """One folder of one server: ``sftp://user@host:port/folder``."""

    def __init__(self, spec: ChannelSpec, base: Path, *, idle_s: float = IDLE_S) -> None:
        try:
            import asyncssh
        except ImportError:
            raise MissingExtra("sftp", "delivery by SFTP") from None
        self._ssh: Any = asyncssh
        self._spec = spec
        self._base = base
        self._idle_s = idle_s
        parts = urlsplit(spec.url)
        self._host, self._port = parts.hostname or "", parts.port or 22
        self._user = unquote(parts.username) if parts.username else None
        path = unquote(parts.path) or "/"
        self._folder = path.removeprefix("/~/") if path.startswith("/~/") else path
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Any = None
        self._client: Any = None

    def open(self) -> None:
        """See :class:`~hiexchange.delivery.base.Destination`."""
        self.close()
        try:
            self._run(self._connect(), CONNECT_S)
        except (self._ssh.Error, OSError, TimeoutError, HIExchangeError) as error:
            self.close()
            if isinstance(error, HIExchangeError):
                raise DeliveryError(error.what, where=error.where, hint=error.hint, retryable=True) from error
            raise DeliveryError(f"cannot connect: {type(error).__name__}", retryable=True) from error

    async def _connect(self) -> None:
        spec, base, ssh = self._spec, self._base, self._ssh
        known_hosts = file_option(spec, "known_hosts", base) or str(Path("~/.ssh/known_hosts").expanduser())
        if not Path(known_hosts).is_file():
            raise ConfigError("there is no known_hosts file", where=known_hosts, hint="ssh-keyscan, and check the key")
        key = secret(spec, "private_key", base)
        options: dict[str, Any] = {"client_keys": None, "password": secret(spec, "password", base)}
        if key is not None:
            options["client_keys"] = [ssh.import_private_key(key + "\n", secret(spec, "passphrase", base))]
        self._connection = await ssh.connect(
            self._host,
            self._port,
            username=secret(spec, "username", base) or self._user,
            known_hosts=known_hosts,
            agent_path=None,
            config=None,
            login_timeout=CONNECT_S,
            keepalive_interval=15,
            **options,
        )
        self._client = await self._connection.start_sftp_client()
        if not await self._client.isdir(self._folder):
            raise DeliveryError("the folder does not exist on the server", retryable=True)

    def send(self, parcel: Parcel) -> Outcome:
        """See :class:`~hiexchange.delivery.base.Destination`."""
        ssh = self._ssh
        if self._client is None:
            try:
                self.open()
            except DeliveryError as error:
                return Outcome("retry", error.what)
        try:
            self._run(self._send(parcel), self._idle_s + len(parcel.payload) / FLOOR_BYTES_S)
        except (ssh.SFTPNoConnection, ssh.SFTPConnectionLost) as error:
            self.close()
            return Outcome("unknown", type(error).__name__)
        except ssh.SFTPError as error:
            # The server answered: disk full, quota, rename refused. The manifest is not there.
            return Outcome("retry", type(error).__name__)
        except (ssh.Error, OSError, TimeoutError) as error:
            self.close()
            return Outcome("unknown", type(error).__name__)
        return Outcome("acked", "manifest renamed")

    async def _send(self, parcel: Parcel) -> None:
        if parcel.payload_expected:
            await self._put(parcel.name, parcel.payload)
        await self._put(parcel.manifest_name, parcel.manifest)

    async def _put(self, name: str, data: bytes) -> None:
        part = posixpath.join(self._folder, f".{name}.part")
        final = posixpath.join(self._folder, name)
        async with self._client.open(part, "wb") as file:
            await file.write(data)
            # fsync is an extension of OpenSSH; the size below is checked in any case.
            with contextlib.suppress(self._ssh.SFTPOpUnsupported):
                await file.fsync()
        size = (await self._client.stat(part)).size
        if size != len(data):
            raise self._ssh.SFTPFailure(f"{size} bytes of {len(data)} arrived")
        try:
            await self._client.posix_rename(part, final)
        except self._ssh.SFTPOpUnsupported:
            # SFTP version 3 alone cannot replace a file: one of an earlier attempt has to go first.
            if await self._client.exists(final):
                await self._client.remove(final)
            await self._client.rename(part, final)

    def probe(self, parcel: Parcel) -> bool | None:
        """See :class:`~hiexchange.delivery.base.Destination`: manifest by content, file by size."""
        if self._client is None:
            try:
                self.open()
            except DeliveryError:
                return None
        try:
            return self._run(self._there(parcel), self._idle_s)
        except (self._ssh.SFTPNoSuchFile, self._ssh.SFTPNoSuchPath):
            return False
        except (self._ssh.Error, OSError, TimeoutError):
            self.close()
            return None

    async def _there(self, parcel: Parcel) -> bool:
        async with self._client.open(posixpath.join(self._folder, parcel.manifest_name), "rb") as file:
            if await file.read() != parcel.manifest:
                return False
        if not parcel.payload_expected:
            return True
        found = (await self._client.stat(posixpath.join(self._folder, parcel.name))).size
        return bool(found == len(parcel.payload))

    def _run(self, work: Coroutine[Any, Any, T], limit_s: float) -> T:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(asyncio.wait_for(work, limit_s))

    def close(self) -> None:
        """See :class:`~hiexchange.delivery.base.Destination`."""
        loop, connection = self._loop, self._connection
        self._loop = self._connection = self._client = None
        if loop is None:
            return
        try:
            if connection is not None:
                connection.abort()
                loop.run_until_complete(asyncio.wait_for(connection.wait_closed(), 5))
        except (self._ssh.Error, OSError, TimeoutError):
            pass  # it was broken already
        finally:
            loop.close()
