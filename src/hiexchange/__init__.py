"""FHIR-based data exchange: bulk export, a lossless Parquet lake, roster routing, quality measures.

A first script, the whole of a claims pull:

    import hiexchange as hx

    lake = hx.Lake("claims")
    server = hx.bcda(client_id="…", client_secret=hx.Secret("env:BCDA_SECRET"))
    hx.pull(server, lake, hx.ExportRequest(group="all", types=("Patient", "Coverage", "ExplanationOfBenefit")), folder="jobs/bcda")
    lake.sql("select count(*) from ExplanationOfBenefit")

Names are loaded on first use, so that ``import hiexchange`` stays light. Stages take and return
Arrow tables whose columns are documented in ``hiexchange.tables``; read that module next.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiexchange.attribution import active, as_known, attribute, resolve
    from hiexchange.auth import ClientCredentials, SmartBackendServices, StaticToken
    from hiexchange.bulk import ExportJob, ExportRequest, ExportResult, Policy
    from hiexchange.config import Secret, Settings
    from hiexchange.delivery import Outbox
    from hiexchange.encounters import from_adt, from_view
    from hiexchange.errors import HIExchangeError
    from hiexchange.feedback import payer_feedback
    from hiexchange.lake import Lake
    from hiexchange.matching import match
    from hiexchange.measures import Measure
    from hiexchange.measures.native import evaluate
    from hiexchange.pipeline import pull, run
    from hiexchange.roster import read_roster
    from hiexchange.routing import load_subscriptions
    from hiexchange.routing.route import route
    from hiexchange.servers import Server, ab2d, bcda, dpc
    from hiexchange.views import view

_HOMES = {
    "attribution": ("active", "as_known", "attribute", "resolve"),
    "auth": ("ClientCredentials", "SmartBackendServices", "StaticToken"),
    "bulk": ("ExportJob", "ExportRequest", "ExportResult", "Policy"),
    "config": ("Secret", "Settings"),
    "delivery": ("Outbox",),
    "encounters": ("from_adt", "from_view"),
    "errors": ("HIExchangeError",),
    "feedback": ("payer_feedback",),
    "lake": ("Lake",),
    "matching": ("match",),
    "measures": ("Measure", "evaluate"),
    "pipeline": ("pull", "run"),
    "roster": ("read_roster",),
    "routing": ("load_subscriptions", "route"),
    "servers": ("Server", "ab2d", "bcda", "dpc"),
    "views": ("view",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "ClientCredentials",
    "ExportJob",
    "ExportRequest",
    "ExportResult",
    "HIExchangeError",
    "Lake",
    "Measure",
    "Outbox",
    "Policy",
    "Secret",
    "Server",
    "Settings",
    "SmartBackendServices",
    "StaticToken",
    "ab2d",
    "active",
    "as_known",
    "attribute",
    "bcda",
    "dpc",
    "evaluate",
    "from_adt",
    "from_view",
    "load_subscriptions",
    "match",
    "payer_feedback",
    "pull",
    "read_roster",
    "resolve",
    "route",
    "run",
    "view",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'hiexchange' has no attribute {name!r}")
    # A function may share its name with its room (feedback): the function is what users mean.
    value = getattr(importlib.import_module(f"hiexchange.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
