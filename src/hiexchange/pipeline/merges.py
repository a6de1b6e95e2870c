"""Merges (A40): what becomes of the links, and of the events, of a record that ended.

A message about the ended identifier speaks of the surviving record from that moment on, so the members of the ended
record must be members of the survivor by the same night, or their providers hear nothing more. PERSON_XREF in the lake
remembers each merge, also when the ended record has left the index; a person may add a row to take one back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange import tables
from hiexchange.encounters import Identities, joined_people
from hiexchange.matching import PERSON_XREF, contradicted, survivors
from hiexchange.pipeline.inputs import stored
from hiexchange.routing.policy import records_of

if TYPE_CHECKING:
    from hiexchange.lake import Lake


@dataclass(frozen=True, slots=True)
class Merges:
    """Which records of the index live on in which."""

    merged: dict[str, str] = field(default_factory=dict)
    """Person that ended -> person that survives, chains followed."""
    news: pa.Table = field(default_factory=PERSON_XREF.empty)
    """PERSON_XREF rows that are not in the lake yet."""
    doubtful: tuple[tuple[str, str], ...] = ()
    """Merges of records that contradict each other: no link follows them."""
    same: tuple[tuple[str, str], ...] = ()
    """All pairs that some merge said are one, doubtful ones and those taken back among them: what one refused, all did."""

    @classmethod
    def of(
        cls,
        lake: Lake,
        persons: pa.Table,
        *,
        known_at: datetime,
        messages: pa.Table | None = None,
        identities: Identities | None = None,
    ) -> Merges:
        """Return the merges of the lake's messages that hold at an instant.

        Args:
            lake: Its encounter_event and person_xref tables are read.
            persons: PERSON rows of the index.
            known_at: Knowledge time; ``known_from`` of what is new.
            messages: ENCOUNTER_EVENT rows that are not in the lake, likewise.
            identities: Who the numbers of messages mean, where assigning authorities are configured.
        """
        recorded = stored(lake, tables.ENCOUNTER_EVENT, where=pc.field("trigger") == "merge")
        messages = recorded if messages is None else pa.concat_tables([recorded, messages])
        xref = stored(lake, PERSON_XREF)
        told = dict.fromkeys(zip(xref["person_id"].to_pylist(), xref["survivor_id"].to_pylist(), strict=True))
        said = joined_people(messages, persons, known=identities)
        standing = survivors(xref, known_at=known_at)
        # The last merge of a record counts, and one that was recorded before stands as people left it.
        fresh = [pair for pair in dict(said).items() if pair not in told]
        concerned = {person for pair in fresh for person in pair}
        groups = records_of([*standing.items(), *fresh])
        conflicts = contradicted(persons, _within({one: group for one, group in groups.items() if one in concerned}))
        links, rows, doubtful = dict(standing), [], []
        groups = records_of(links.items())
        for ended, survivor in fresh:
            if _root(links, ended) == _root(links, survivor):
                continue
            these, those = groups.get(ended, {ended}), groups.get(survivor, {survivor})
            if not conflicts.isdisjoint((*product(these, those), *product(those, these))):
                doubtful.append((ended, survivor))
                continue
            links[ended] = survivor
            groups |= dict.fromkeys(these | those, these | those)
            rows.append({"person_id": ended, "survivor_id": survivor, "known_from": known_at, "source": "A40"})
        merged = {person: _root(links, person) for person in links}
        same = dict.fromkeys([*said, *(pair for pair in told if pair[1] is not None)])
        return cls(merged, PERSON_XREF.from_rows(rows), tuple(doubtful), tuple(same))


def _root(links: dict[str, str], person: str) -> str:
    while person in links:
        person = links[person]
    return person


def _within(groups: dict[str, set[str]]) -> list[tuple[str, str]]:
    pairs = (product(group, group) for group in groups.values())
    return sorted({(one, other) for found in pairs for one, other in found if one < other})
