"""What a run starts from: the rules of a configuration, and the tables that a lake may not have yet.

Light to import: the command line reads the same rules and tables by the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange import tables
from hiexchange.config import Settings
from hiexchange.encounters import Identities, identifiers
from hiexchange.encounters.times import Zones
from hiexchange.routing import Policy, Recheck, Subscriptions, load_consents, load_subscriptions, shared_denials
from hiexchange.routing.policy import DENY

if TYPE_CHECKING:
    from hiexchange.lake import Lake


@dataclass(frozen=True, slots=True)
class Rules:
    """Who wants what, and who may have it."""

    subscriptions: Subscriptions
    consent: pa.Table | None
    """CONSENT rows; None where no decisions are recorded."""
    policy: Policy
    """The exchange's own rules."""

    def after(self, same: Iterable[tuple[str, str]]) -> Rules:
        """Return the rules in which what a person refused holds for all records that merges say are its.

        Args:
            same: Pairs of person ids that are one person.
        """
        return self if self.consent is None else replace(self, consent=shared_denials(self.consent, same))

    def of_nobody(self, persons: pa.Table) -> int:
        """Return how many refusals name nobody of the patient index: each may be an opt-out that finds no one."""
        if self.consent is None:
            return 0
        denied = self.consent.filter(pc.equal(self.consent["decision"], DENY))
        return int(pc.sum(pc.invert(pc.is_in(denied["person_id"], value_set=persons["person_id"]))).as_py() or 0)

    def recheck(self, now: datetime) -> Recheck:
        """Return what is asked again before anything is sent."""
        return Recheck(self.subscriptions, self.consent, now=now, policy=self.policy)


def rules_of(settings: Settings, *, subscriptions: Subscriptions | None = None, consent: Path | None = None) -> Rules:
    """Return the rules of a configuration.

    Args:
        settings: Its ``[routing]`` and ``[[subscriptions]]``.
        subscriptions: In place of its own, where they were read already.
        consent: Consent file in place of its own.

    Raises:
        ConfigError: A rule, a subscription or the consent file cannot be used.
    """
    own = settings.routing
    file = consent or (settings.path(own.consents) if own.consents else None)
    return Rules(
        load_subscriptions(settings.subscriptions) if subscriptions is None else subscriptions,
        load_consents(file) if file else None,
        Policy(
            consent_default=own.consent_default,
            stale_after_days=own.stale_after_days,
            zone=own.zone or settings.events.zone or "UTC",
        ),
    )


def zones_of(settings: Settings) -> dict[str, str] | None:
    """Return the zone of times without an offset, by facility.

    Raises:
        ConfigError: It is not in the IANA database.
    """
    zones = {"*": settings.events.zone} if settings.events.zone else None
    Zones(zones)
    return zones


def identities_of(settings: Settings, lake: Lake, persons: pa.Table) -> Identities | None:
    """Return whom the numbers of messages mean by a configuration's assigning authorities; None where it has none."""
    if not settings.events.authorities or "Patient" not in lake.tables():
        return None
    return Identities.of(persons, identifiers=identifiers(lake), authorities=settings.events.authorities)


def stored(lake: Lake, table: tables.Table, *, where: pc.Expression | None = None) -> pa.Table:
    """Return the rows of a corridor table that ``where`` admits, none where the lake has no such table yet."""
    if table.name not in lake.tables():
        return table.empty()
    return tables.check(lake.table(table.name).to_arrow(where=where), table)
