"""Encounter events from FHIR Encounter rows, HL7 v2 ADT messages and Da Vinci Alerts bundles."""

from __future__ import annotations

from hiexchange.encounters.adt import AdtSettings, RawMessage, from_adt, read_adt
from hiexchange.encounters.alerts import from_alerts, read_alerts
from hiexchange.encounters.completeness import COMPLETENESS, Silence, completeness, silent_sources
from hiexchange.encounters.fhir import from_view, read_view
from hiexchange.encounters.inbox import INBOX_FILE, Inbox
from hiexchange.encounters.lookups import identifiers, lookups
from hiexchange.encounters.people import Identities, Merge, joined_people
from hiexchange.encounters.resources import to_fhir
from hiexchange.encounters.rows import Intake
from hiexchange.encounters.sources import encounter_events

__all__ = [
    "COMPLETENESS",
    "INBOX_FILE",
    "AdtSettings",
    "Identities",
    "Inbox",
    "Intake",
    "Merge",
    "RawMessage",
    "Silence",
    "completeness",
    "encounter_events",
    "from_adt",
    "from_alerts",
    "from_view",
    "identifiers",
    "joined_people",
    "lookups",
    "read_adt",
    "read_alerts",
    "read_view",
    "silent_sources",
    "to_fhir",
]
