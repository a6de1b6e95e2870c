"""Encounter events from FHIR Encounter rows, HL7 v2 ADT messages and Da Vinci Alerts bundles."""

from __future__ import annotations

from hiexchange.encounters.fhir import from_view, read_view
from hiexchange.encounters.rows import Intake

__all__ = ["Intake", "from_view", "read_view"]
