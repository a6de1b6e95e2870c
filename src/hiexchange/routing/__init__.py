"""Which recipients an event has, and why: subscriptions, the point-in-time join and the policy gate."""

from __future__ import annotations

from hiexchange.routing.explain import Evidence, Explanation, explain
from hiexchange.routing.index import RoutingIndex
from hiexchange.routing.policy import CONSENT, PROVIDER_ORG, Policy, Recheck, shared_denials
from hiexchange.routing.registry import load_consents
from hiexchange.routing.route import Routing, route
from hiexchange.routing.router import Router
from hiexchange.routing.subscriptions import Channel, Subscription, Subscriptions, load_subscriptions

__all__ = [
    "CONSENT",
    "PROVIDER_ORG",
    "Channel",
    "Evidence",
    "Explanation",
    "Policy",
    "Recheck",
    "Router",
    "Routing",
    "RoutingIndex",
    "Subscription",
    "Subscriptions",
    "explain",
    "load_consents",
    "load_subscriptions",
    "route",
    "shared_denials",
]
