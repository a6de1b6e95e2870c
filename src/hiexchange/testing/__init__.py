"""What tests, demos and users' own tests need: loopback servers and a synthetic population."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiexchange.testing.bulk_server import BulkServer

__all__ = ["BulkServer"]


def __getattr__(name: str) -> Any:
    # On first use: the population needs no server.
    if name != "BulkServer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hiexchange.testing.bulk_server import BulkServer

    return BulkServer
