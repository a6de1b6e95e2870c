"""Bring events to providers: once, in their format, at their cadence, with a ledger that proves it.

Read ``outbox.py`` first. Routing decides who; this room only asks (at claim time) whether they
still may. The route inside: ``intake`` (rows into the ledger) -> ``sealing`` (rows become bytes
under a sequence number) -> ``sending`` (bytes reach a destination, or a state says why not).
"""

from hiexchange.delivery.alarms import Alarm, AlarmBell, Limits, alarms
from hiexchange.delivery.base import (
    DeliveryReport,
    Destination,
    Due,
    Format,
    Health,
    Outcome,
    Parcel,
    RetryPolicy,
    delivery_id,
)
from hiexchange.delivery.outbox import Outbox

__all__ = [
    "Alarm",
    "AlarmBell",
    "DeliveryReport",
    "Destination",
    "Due",
    "Format",
    "Health",
    "Limits",
    "Outbox",
    "Outcome",
    "Parcel",
    "RetryPolicy",
    "alarms",
    "delivery_id",
]
