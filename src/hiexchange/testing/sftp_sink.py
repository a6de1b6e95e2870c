"""An SFTP server on loopback that records every rename into a final name, with faults on request."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

USER, PASSWORD = "exchange", "sink-password"


@dataclass(frozen=True, slots=True)
class Renamed:
    """One file that got its final name."""

    name: str
    sha256: str
    size_bytes: int


class SFTPSink:
    """One user, one folder. ``faults`` are taken one a session operation: see :meth:`_server_class`."""

    def __init__(self, folder: Path, *, faults: Iterable[str] = (), posix_rename: bool = True) -> None:
        """Make a server for ``folder``; needs the ``sftp`` extra.

        Args:
            folder: What the user sees as ``/``.
            faults: Of ``disk full`` and ``drop`` (at the next write), ``rename refused`` and ``drop after
                rename`` (at the next rename); each strikes once, in order.
            posix_rename: Offer the OpenSSH extension that replaces an existing file.
        """
        import asyncssh

        self._ssh: Any = asyncssh
        self.client_key: Any = None
        """Public key accepted in place of the password."""
        self.folder = folder
        self.faults = list(faults)
        self.renamed: list[Renamed] = []
        self.quota_bytes: int | None = None
        """Bytes that the folder may hold; a write beyond them is refused."""
        self.tap: Callable[[], None] | None = None
        """Called at every write, before it is done."""
        self._posix_rename = posix_rename
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._acceptor: Any = None

    @property
    def url(self) -> str:
        """Where to deliver."""
        return f"sftp://{USER}@127.0.0.1:{self.port}/"

    def known_hosts(self, path: Path, *, key: Any = None) -> str:
        """Write a known_hosts file that trusts this server (or another ``key``); return its path."""
        public = (key or self.key).export_public_key().decode().strip()
        path.write_text(f"[127.0.0.1]:{self.port} {public}\n", encoding="utf-8")
        return str(path)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        self._acceptor = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.port = self._acceptor.get_port()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> Any:
        sink = self

        class Server(self._ssh.SSHServer):  # type: ignore[misc, name-defined]  # asyncssh is an extra
            def public_key_auth_supported(self) -> bool:
                return sink.client_key is not None

            def validate_public_key(self, username: str, key: Any) -> bool:
                return username == USER and bool(key == sink.client_key)

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == (USER, PASSWORD)

        return await self._ssh.listen(
            "127.0.0.1",
            0,
            server_factory=Server,
            server_host_keys=[self.key],
            sftp_factory=self._server_class(),
            allow_scp=False,
        )

    async def _stop(self) -> None:
        self._acceptor.close()
        await self._acceptor.wait_closed()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _fault(self, *names: str) -> str:
        return self.faults.pop(0) if self.faults and self.faults[0] in names else ""

    def _held(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def _record(self, path: Path) -> None:
        data = path.read_bytes()
        self.renamed.append(Renamed(path.name, hashlib.sha256(data).hexdigest(), len(data)))

    def _server_class(self) -> Any:
        sink, ssh = self, self._ssh
        base = ssh.SFTPServer

        class Server(base):  # type: ignore[misc, valid-type]  # asyncssh is an extra
            def __init__(self, channel: Any) -> None:
                super().__init__(channel, chroot=str(sink.folder).encode())
                self._channel = channel

            def write(self, file_obj: Any, offset: int, data: bytes) -> Any:
                if sink.tap is not None:
                    sink.tap()
                fault = sink._fault("disk full", "drop")
                if fault == "disk full":
                    super().write(file_obj, offset, data[: len(data) // 2])
                    raise ssh.SFTPNoSpaceOnFilesystem("no space")
                if fault == "drop":
                    self._channel.get_connection().abort()
                if sink.quota_bytes is not None and sink._held() + len(data) > sink.quota_bytes:
                    raise ssh.SFTPQuotaExceeded("quota exceeded")
                return super().write(file_obj, offset, data)

            def posix_rename(self, oldpath: bytes, newpath: bytes) -> Any:
                if not sink._posix_rename:
                    raise ssh.SFTPOpUnsupported("posix-rename")
                return self._final(super().posix_rename, oldpath, newpath)

            def rename(self, oldpath: bytes, newpath: bytes) -> Any:
                if Path(self.map_path(newpath).decode()).exists():
                    raise ssh.SFTPFailure("the file exists")
                return self._final(super().rename, oldpath, newpath)

            def _final(self, rename: Any, oldpath: bytes, newpath: bytes) -> Any:
                fault = sink._fault("rename refused", "drop after rename")
                if fault == "rename refused":
                    raise ssh.SFTPPermissionDenied("rename")
                done = rename(oldpath, newpath)
                sink._record(Path(self.map_path(newpath).decode()))
                if fault:
                    self._channel.get_connection().abort()
                return done

        return Server
