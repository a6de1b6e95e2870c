"""Attribution: who cares for whom, bitemporal and append-only, from rosters as they come."""

from __future__ import annotations

from hiexchange.attribution.atr import attribution_list
from hiexchange.attribution.crosswalk import CROSSWALK, chase, current_ids
from hiexchange.attribution.disputes import (
    DISPUTE,
    advance,
    overlay,
    raise_dispute,
    read_answer,
    settle,
    to_csv,
    to_xlsx,
)
from hiexchange.attribution.history import attribute
from hiexchange.attribution.knowledge import active, as_known, versions
from hiexchange.attribution.report import REATTRIBUTION, reattribution
from hiexchange.attribution.resolve import RECIPIENT, Policy, resolve
from hiexchange.attribution.tuva import provider_attribution

__all__ = [
    "CROSSWALK",
    "DISPUTE",
    "REATTRIBUTION",
    "RECIPIENT",
    "Policy",
    "active",
    "advance",
    "as_known",
    "attribute",
    "attribution_list",
    "chase",
    "current_ids",
    "overlay",
    "provider_attribution",
    "raise_dispute",
    "read_answer",
    "reattribution",
    "resolve",
    "settle",
    "to_csv",
    "to_xlsx",
    "versions",
]
