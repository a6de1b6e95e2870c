"""Destinations by transport, loaded on first use; a package adds one by ``hiexchange.destinations``.

An entry point is a callable of (:class:`ChannelSpec`, base folder) that returns a Destination; its
name is the URL's scheme.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from hiexchange.delivery.base import Destination
from hiexchange.delivery.channel import ChannelSpec
from hiexchange.errors import UnknownLayout

BUILT_IN = {
    "folder": "hiexchange.delivery.folder:FolderDestination",
    "sftp": "hiexchange.delivery.sftp:SFTPDestination",
    "http": "hiexchange.delivery.https:HTTPSDestination",
    "https": "hiexchange.delivery.https:HTTPSDestination",
    "mllp": "hiexchange.delivery.mllp:MLLPDestination",
    "mllps": "hiexchange.delivery.mllp:MLLPDestination",
    "s3": "hiexchange.delivery.s3:S3Destination",
}


def destination_for(spec: ChannelSpec, base: Path) -> Destination:
    """Return the destination of a channel; nothing is connected yet.

    Args:
        spec: The channel.
        base: Folder that relative folder channels and key paths start from.

    Raises:
        UnknownLayout: No transport of that name is built in or installed.
    """
    where = BUILT_IN.get(spec.scheme)
    if where is None:
        found = [point for point in entry_points(group="hiexchange.destinations") if point.name == spec.scheme]
        if not found:
            raise UnknownLayout(f"there is no transport '{spec.scheme}'", hint=f"one of {', '.join(BUILT_IN)}")
        return cast(Destination, found[0].load()(spec, base))
    module, _, attribute = where.partition(":")
    return cast(Destination, getattr(importlib.import_module(module), attribute)(spec, base))
