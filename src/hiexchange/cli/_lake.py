"""Open a lake that is to be read: a folder nobody made one of is an error, not an empty answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hiexchange.lake import Lake


def opened(folder: Path) -> Lake:
    """Return the lake in a folder.

    Raises:
        ConfigError: The folder does not exist, or is no lake.
    """
    from hiexchange.errors import ConfigError
    from hiexchange.lake import Lake

    if not (folder / "_hx").is_dir():
        raise ConfigError(
            "there is no lake here" if folder.exists() else "there is no such folder",
            where=str(folder),
            hint="give the lake's folder; `hiexchange lake ingest`, `pull` and `run` make one",
        )
    return Lake(folder)
