"""Which recipients an event has, and why: subscriptions, the point-in-time join and the policy gate."""

from __future__ import annotations

from hiexchange.routing.subscriptions import Channel, Subscription, Subscriptions, load_subscriptions

__all__ = ["Channel", "Subscription", "Subscriptions", "load_subscriptions"]
