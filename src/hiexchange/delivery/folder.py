"""The folder channel: temporary file, fsync, atomic replace, then the manifest."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from hiexchange._files import sha256_file, write_bytes
from hiexchange.delivery.base import Outcome, Parcel
from hiexchange.delivery.channel import ChannelSpec
from hiexchange.errors import DeliveryError, HIExchangeError


class FolderDestination:
    """A folder of this computer or of a mounted share."""

    def __init__(self, spec: ChannelSpec, base: Path) -> None:
        self._folder = base / folder_path(spec.url)

    def open(self) -> None:
        """See :class:`~hiexchange.delivery.base.Destination`."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DeliveryError(
                f"the folder cannot be made: {error.strerror}", where=str(self._folder), retryable=True
            ) from error

    def send(self, parcel: Parcel) -> Outcome:
        """See :class:`~hiexchange.delivery.base.Destination`. Nothing half-written has a final name."""
        try:
            if parcel.payload_expected:
                write_bytes(self._folder / parcel.name, parcel.payload)
            write_bytes(self._folder / parcel.manifest_name, parcel.manifest)
        except HIExchangeError as error:
            return Outcome("retry", error.what)
        except OSError as error:
            # The file's name appears last of all, so a failed write was surely not taken whole.
            return Outcome("retry", error.strerror or type(error).__name__)
        return Outcome("acked", "renamed")

    def probe(self, parcel: Parcel) -> bool | None:
        """See :class:`~hiexchange.delivery.base.Destination`."""
        manifest = self._folder / parcel.manifest_name
        if not manifest.is_file() or manifest.read_bytes() != parcel.manifest:
            return False
        target = self._folder / parcel.name
        return not parcel.payload_expected or (target.is_file() and sha256_file(target) == parcel.sha256)

    def close(self) -> None:
        """See :class:`~hiexchange.delivery.base.Destination`."""


def folder_path(url: str) -> Path:
    """Return the path of a folder channel: ``file:relative``, ``file:///absolute`` or a plain path."""
    if not url.startswith("file:"):
        return Path(url)
    parts = urlsplit(url)
    return Path(unquote(parts.path if not parts.netloc else f"{parts.netloc}{parts.path}"))
