"""Which person of the exchange's index a message is about: by identifier, checked by birth date, merged by A40.

Precision first: an identifier that two people share, or a birth date that contradicts, resolves to nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Merge:
    """An A40: two identifiers of one person; the old one ends."""

    system: str | None
    """Namespace of both."""
    old: str
    new: str
    at: datetime


@dataclass(frozen=True)
class Identities:
    """Identifiers of persons, and merges."""

    persons: Mapping[str, str | None] = field(default_factory=dict)
    """``system|value``, and ``value`` alone, -> person_id; None where several people share it."""
    births: Mapping[str, str] = field(default_factory=dict)
    """person_id -> birth date as eight digits, where it is whole."""
    merges: Mapping[str, str] = field(default_factory=dict)
    """Identifier that ended, as ``system|value`` -> identifier that took its place."""

    @classmethod
    def of(cls, persons: Any) -> Identities:
        """Build from PERSON rows: ``mrn`` (plain or ``system|value``) and ``member_ids``."""
        if persons is None:
            return cls()
        table = persons if isinstance(persons, pa.Table) else pa.table(persons)
        found: dict[str, str | None] = {}
        births: dict[str, str] = {}
        names = ("person_id", "mrn", "member_ids", "birth_date")
        for person, mrn, members, birth in zip(*(table[name].to_pylist() for name in names), strict=True):
            if birth and len(birth) == 10:
                births[person] = birth.replace("-", "")
            for identifier in (mrn, *(members or ())):
                for key in {identifier, identifier.rpartition("|")[2]} if identifier else ():
                    if found.setdefault(key, person) != person:
                        found[key] = None
        return cls(found, births)

    def merged(self, merges: Iterable[Merge]) -> Identities:
        """Return these identities with more merges."""
        added = {_key(merge.system, merge.old): _key(merge.system, merge.new) for merge in merges}
        return Identities(self.persons, self.births, {**self.merges, **added}) if added else self

    def resolve(self, row: dict[str, Any]) -> None:
        """Set ``person_id`` of a candidate row, and follow merges in the patient id."""
        key = self._current(_key(row["patient_id_system"], row["patient_id_sent"]))
        row["patient_id_sent"] = key.rpartition("|")[2]
        person = self.persons.get(key)
        if person is None and key not in self.persons:
            person = self.persons.get(row["patient_id_sent"])
        birth = row.get("birth") or ""
        if person is not None and len(birth) == 8 and self.births.get(person, birth) != birth:
            row["flags"].append("identity_conflict")
            person = None
        row["person_id"] = person

    def canonical(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row on record as it reads after the merges, so that a merge alone is no news."""
        key = _key(row["patient_id_system"], row["patient_id_sent"] or "")
        current = self._current(key)
        if current == key:
            return dict(row)
        identifier = current.rpartition("|")[2]
        person = self.persons.get(current, self.persons.get(identifier, row["person_id"]))
        return {**row, "patient_id_sent": identifier, "person_id": person}

    def _current(self, key: str) -> str:
        seen = {key}
        while (after := self.merges.get(key)) is not None and after not in seen:
            seen.add(after)
            key = after
        return key


def _key(system: str | None, value: str) -> str:
    return f"{system}|{value}" if system else value
