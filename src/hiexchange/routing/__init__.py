"""Which recipients an event has, and why: subscriptions, the point-in-time join and the policy gate."""

from __future__ import annotations

from hiexchange.routing.policy import Policy, may_still
from hiexchange.routing.route import Routing, route
from hiexchange.routing.subscriptions import Channel, Subscription, Subscriptions, load_subscriptions

__all__ = [
    "Channel",
    "Policy",
    "Routing",
    "Subscription",
    "Subscriptions",
    "load_subscriptions",
    "may_still",
    "route",
]
