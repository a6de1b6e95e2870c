"""All sources at once: one table of events from whatever an exchange receives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from hiexchange.encounters.adt import RawMessage, from_adt
from hiexchange.encounters.alerts import from_alerts
from hiexchange.encounters.fhir import from_view
from hiexchange.tables import ENCOUNTER_EVENT


def encounter_events(
    *,
    received_at: datetime,
    adt: str | Path | Iterable[bytes | RawMessage] | None = None,
    encounters: Any = None,
    alerts: Iterable[bytes | Mapping[str, Any]] | None = None,
    persons: Any = None,
    zones: Mapping[str, str] | None = None,
    history: Any = None,
) -> pa.Table:
    """Return ENCOUNTER_EVENT rows of every source that is given, in order of time.

    Args:
        received_at: When resources, and messages that do not say it, were received (aware).
        adt: HL7 v2 ADT: a folder, a file, or messages.
        encounters: Rows of the view ``encounter``.
        alerts: Da Vinci Alerts message Bundles.
        persons: PERSON rows, to resolve the patients of messages.
        zones: Facility id -> IANA zone; ``*`` for all others.
        history: ENCOUNTER_EVENT rows of earlier calls.
    """
    found = [ENCOUNTER_EVENT.empty()]
    if encounters is not None:
        found.append(from_view(encounters, received_at=received_at, zones=zones, history=history))
    if adt is not None:
        found.append(from_adt(adt, received_at=received_at, persons=persons, zones=zones, history=history))
    if alerts is not None:
        found.append(from_alerts(alerts, received_at=received_at, persons=persons, zones=zones, history=history))
    return pa.concat_tables(found).sort_by([("event_at", "ascending"), ("event_key", "ascending")])
