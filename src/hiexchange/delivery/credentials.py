"""A channel's secrets and key files, revealed only where a connection is made."""

from __future__ import annotations

from pathlib import Path

from hiexchange.config import Secret
from hiexchange.delivery.channel import ChannelSpec


def secret(spec: ChannelSpec, name: str, base: Path) -> str | None:
    """Return a credential's text, or None when the channel has none of that name.

    Raises:
        ConfigError: The variable is not set, or the file cannot be read.
    """
    reference = spec.credentials.get(name)
    if reference is None:
        return None
    return Secret(reference, base=Path(spec.credentials_base) if spec.credentials_base else base).reveal()


def file_option(spec: ChannelSpec, name: str, base: Path) -> str | None:
    """Return the path of a file named in the channel's options, or None."""
    given = spec.options.get(name)
    return str(base / Path(given).expanduser()) if given else None


def key_file(spec: ChannelSpec, name: str, base: Path) -> str | None:
    """Return the path of a ``file:`` credential that is read by a library, such as a client certificate."""
    reference = spec.credentials.get(name, "")
    if not reference.startswith("file:"):
        return None
    root = Path(spec.credentials_base) if spec.credentials_base else base
    return str(root / Path(reference.removeprefix("file:")).expanduser())
