"""What ``route`` and ``feedback`` need before they can begin: the tables of a lake, and files beside it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from hiexchange.lake import Lake
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


def routed(
    lake: Path, subscriptions: Path, *, adt: Path | None, consent: Path | None, zone: str | None, known_at: str | None
) -> Routed:
    """Read a lake and the files beside it, and route.

    Raises:
        ConfigError: A file or option cannot be used.
        LakeError: The lake lacks what routing needs.
    """
    import pyarrow as pa

    from hiexchange.encounters import lookups, read_adt, read_view
    from hiexchange.lake import Lake
    from hiexchange.routing import load_consents, load_subscriptions, route
    from hiexchange.tables import ATTRIBUTION, PERSON, check
    from hiexchange.views import view

    at = instant(known_at)
    wanted = load_subscriptions(_entries(subscriptions))
    store = Lake(existing(lake, "lake"))
    persons = check(view("patient_demographics", store), PERSON) if "Patient" in store.tables() else PERSON.empty()
    zones = {"*": zone} if zone else None
    intakes = []
    if "Encounter" in store.tables():
        intakes.append(read_view(view("encounter", store), **lookups(store), received_at=at, zones=zones))
    if adt is not None:
        intakes.append(read_adt(existing(adt, "inbox"), received_at=at, persons=persons, zones=zones))
    if not intakes:
        raise _nothing(lake)
    # Files, not rows: of a state's rosters the join reads what it needs.
    attribution = store.files("attribution") if "attribution" in store.tables() else ATTRIBUTION.empty()
    links = _links(store, persons, at)
    routing = route(
        pa.concat_tables([intake.events for intake in intakes]),
        attribution,
        links,
        wanted,
        known_at=at,
        consent=load_consents(consent) if consent else None,
        persons=persons,
    )
    return Routed(store, routing, links, persons, sum(intake.quarantined for intake in intakes))


def _entries(path: Path) -> Any:
    """Return the subscriptions of a configuration such as ``hiexchange.toml``, else the path of the file itself."""
    import tomllib

    from hiexchange import config

    existing(path, "subscriptions file")
    try:
        keys = set(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return path  # read again there, with a message that says what is wrong
    return config.load(path).subscriptions if keys & {"servers", "rosters", "output", "lake"} else path


def _links(lake: Lake, persons: pa.Table, known_at: datetime) -> pa.Table:
    from hiexchange.matching import match
    from hiexchange.tables import MEMBER, PERSON_LINK, check

    if "person_link" in lake.tables():
        return check(lake.table("person_link").to_arrow(), PERSON_LINK)
    if "member" not in lake.tables():
        return PERSON_LINK.empty()
    return match(check(lake.table("member").to_arrow(), MEMBER), persons, known_at=known_at)


def instant(text: str | None) -> datetime:
    """Return an instant given on the command line, or now."""
    from hiexchange.errors import ConfigError

    if text is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"'{text}' is no instant", hint="write 2026-03-06T00:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


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
