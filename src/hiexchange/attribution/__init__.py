"""Attribution: who cares for whom, bitemporal and append-only, from rosters as they come."""

from __future__ import annotations

from hiexchange.attribution.history import attribute
from hiexchange.attribution.knowledge import active, as_known, versions

__all__ = ["active", "as_known", "attribute", "versions"]
