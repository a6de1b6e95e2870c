"""What ``route`` and ``feedback`` need before they can begin: the tables of a lake, and files beside it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from hiexchange.config import Settings
    from hiexchange.lake import Lake
    from hiexchange.pipeline.inputs import Rules
    from hiexchange.routing import Routing


@dataclass(frozen=True)
class Routed:
    """A routing result with the tables it was made of."""

    lake: Lake
    routing: Routing
    links: pa.Table
    persons: pa.Table
    refused: int
    """Messages and resources that could not become events."""


def rules(path: Path, consent: Path | None) -> Rules:
    """Read subscriptions and consent decisions.

    ``path`` is a file of subscriptions, or a configuration such as ``hiexchange.toml``, whose ``[routing]`` then
    gives the policy and, unless ``consent`` is given, the consent file.

    Raises:
        ConfigError: A file cannot be used.
    """
    from hiexchange import config
    from hiexchange.pipeline.inputs import rules_of
    from hiexchange.routing import load_subscriptions

    if (settings := _configuration(path)) is not None:
        return rules_of(settings, consent=consent)
    return rules_of(config.Settings(), subscriptions=load_subscriptions(path), consent=consent)


def _configuration(path: Path) -> Settings | None:
    """Return the settings of a file that is a whole configuration, None of one that holds subscriptions alone."""
    import tomllib

    from hiexchange import config

    existing(path, "subscriptions file")
    try:
        keys = set(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        keys = set()  # read again as subscriptions, with a message that says what is wrong
    return config.load(path) if keys & {"servers", "rosters", "output", "lake", "routing"} else None


def routed(
    lake: Path, subscriptions: Path, *, adt: Path | None, consent: Path | None, zone: str | None, known_at: str | None
) -> Routed:
    """Read a lake and the files beside it, and route.

    Raises:
        ConfigError: A file or option cannot be used.
        LakeError: The lake lacks what routing needs.
    """
    import pyarrow as pa

    from hiexchange.attribution import DISPUTE, overlay
    from hiexchange.encounters import lookups, read_adt, read_view
    from hiexchange.lake import Lake
    from hiexchange.matching import follow
    from hiexchange.pipeline.inputs import identities_of
    from hiexchange.pipeline.merges import Merges
    from hiexchange.routing import route
    from hiexchange.tables import ATTRIBUTION, PERSON, check
    from hiexchange.views import view

    at = instant(known_at)
    wanted = rules(subscriptions, consent)
    store = Lake(existing(lake, "lake"))
    persons = check(view("patient_demographics", store), PERSON) if "Patient" in store.tables() else PERSON.empty()
    zones = {"*": zone} if zone else None
    settings = _configuration(subscriptions)
    people = identities_of(settings, store, persons) if settings is not None else None
    intakes = []
    if "Encounter" in store.tables():
        intakes.append(read_view(view("encounter", store), **lookups(store), received_at=at, zones=zones))
    if adt is not None:
        inbox = existing(adt, "inbox")
        intakes.append(read_adt(inbox, received_at=at, persons=persons, zones=zones, identities=people))
    if not intakes:
        raise _nothing(lake)
    # Files, not rows: of a state's rosters the join reads what it needs.
    attribution: Any = store.files("attribution") if "attribution" in store.tables() else ATTRIBUTION.empty()
    if {DISPUTE.name, "attribution"} <= set(store.tables()):
        attribution = overlay(store.table("attribution"), store.table(DISPUTE.name))
    events = pa.concat_tables([intake.events for intake in intakes])
    merges = Merges.of(store, persons, known_at=at, messages=events, identities=people)
    links = follow(_links(store, follow(persons, merges.merged), at), merges.merged)
    wanted = wanted.after(merges.same)
    routing = route(
        follow(events, merges.merged),
        attribution,
        links,
        wanted.subscriptions,
        known_at=at,
        consent=wanted.consent,
        persons=persons,
        policy=wanted.policy,
    )
    return Routed(store, routing, links, persons, sum(intake.quarantined for intake in intakes))


def _links(lake: Lake, persons: pa.Table, known_at: datetime) -> pa.Table:
    from hiexchange.matching import match
    from hiexchange.pipeline.inputs import stored
    from hiexchange.tables import MEMBER, PERSON_LINK

    if "person_link" in lake.tables():
        return stored(lake, PERSON_LINK)
    members = stored(lake, MEMBER)
    return match(members, persons, known_at=known_at) if members.num_rows else PERSON_LINK.empty()


def instant(text: str | None) -> datetime:
    """Return an instant given on the command line, or now, in UTC.

    Raises:
        ConfigError: It is no instant with an offset.
    """
    from hiexchange.errors import ConfigError

    if text is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"'{text}' is no instant", hint="write 2026-03-06T00:00:00Z") from None
    if found.tzinfo is None:
        raise ConfigError(f"the instant '{text}' has no offset", hint="write 2026-03-06T00:00:00Z")
    return found.astimezone(UTC)


def existing(path: Path, what: str) -> Path:
    """Return the path.

    Raises:
        ConfigError: There is nothing there.
    """
    from hiexchange.errors import ConfigError

    if not path.exists():
        raise ConfigError(f"the {what} does not exist", where=str(path))
    return path


def _nothing(lake: Path) -> Exception:
    from hiexchange.errors import ConfigError

    return ConfigError("there are no events", where=str(lake), hint="ingest Encounter resources, or give --adt INBOX")
