"""The index by person: the same decisions from a handful of rows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from hiexchange.routing import RoutingIndex, route
from hiexchange.tables import ATTRIBUTION, ENCOUNTER_EVENT, PERSON_LINK


def test_looked_up_rows_route_as_the_whole_table_does(world: SimpleNamespace, tmp_path: Path) -> None:
    attributions = [world.attribution(f"m{n}", f"payer-{n % 2}", [world.NPI_A, world.NPI_B][n % 2]) for n in range(40)]
    links = [world.link(f"m{n}", f"p{n % 10}") for n in range(40)]
    links.append(world.link("m0", "p9", known_from=datetime(2026, 3, 1, tzinfo=UTC)))
    links.append(world.link("m1", None, "none"))
    later = world.attribution("m2", known_from=datetime(2026, 4, 1, tzinfo=UTC))
    events = [world.event(f"e{n}", f"p{n}") for n in range(3)] + [world.event("nobody", None)]
    whole = world.routed(events, [*attributions, later], links)
    tables = ATTRIBUTION.from_rows([*attributions, later]), PERSON_LINK.from_rows(links)
    path = tmp_path / "index.duckdb"
    path.write_text("an old one")
    with RoutingIndex(path, attribution=tables[0], links=tables[1], known_at=world.KNOWN) as index:
        attribution, few = index.lookup(event["person_id"] for event in events)
        assert index.lookup([]) == (attribution.slice(0, 0), few.slice(0, 0))
    assert attribution.num_rows < 20 and few.num_rows < 20
    again = route(ENCOUNTER_EVENT.from_rows(events), attribution, few, [world.subscription()], known_at=world.KNOWN)
    assert again.decisions == whole.decisions
