"""Which person of the exchange's index a message is about: by identifier, checked by birth date, merged by A40.

Precision first: an identifier that two people share, or a birth date that contradicts, resolves to nobody. Two
hospitals number their patients from one upwards: a number under another namespace than the index has it under, or under
none, is only taken where birth date and a name agree.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import ConfigError

_NO_DIGIT = re.compile(r"[^0-9]+")


@dataclass(frozen=True, slots=True)
class Merge:
    """An A40: two identifiers of one person; the old one ends."""

    system: str | None
    """Namespace of both."""
    old: str
    new: str
    at: datetime


class Faces:
    """Birth date and names of the index's people, read where they lie: a state's millions are not copied."""

    def __init__(self, table: pa.Table, people: list[str]) -> None:
        """Number the rows of PERSON, whose ids are ``people``; the last row of a person counts."""
        self._rows = {person: row for row, person in enumerate(people)}
        self._birth = table["birth_date"]
        self._names = [table[name] for name in ("last_name", "first_name") if name in table.column_names]

    def birth(self, person: str) -> str:
        """Return the birth date in digits, as far as it is known."""
        row = self._rows.get(person)
        return "" if row is None else digits(self._birth[row].as_py())

    def names(self, person: str) -> set[str]:
        """Return the family and the given name, folded; those that are known."""
        row = self._rows.get(person)
        return set() if row is None else {folded(column[row].as_py()) for column in self._names} - {""}


def digits(date: str | None) -> str:
    """Return the digits of a date, of a year, month or day: ``1970-01-31`` and ``197001311200`` are ``19700131``."""
    return _NO_DIGIT.sub("", date or "")[:8]


def folded(name: str | None) -> str:
    """Return the letters of a name without case and accents."""
    plain = unicodedata.normalize("NFKD", name or "").casefold()
    return "".join(letter for letter in plain if letter.isalpha())


@dataclass(frozen=True)
class Identities:
    """Identifiers of persons, and merges."""

    persons: Mapping[str, str | None] = field(default_factory=dict)
    """Identifier as the index has it (``system|value``, or plain) -> person_id; None where several people share it."""
    bare: Mapping[str, str | None] = field(default_factory=dict)
    """The value alone of those with a namespace, likewise."""
    faces: Faces | None = None
    """What identifiers are checked by."""
    merges: Mapping[str, str] = field(default_factory=dict)
    """Identifier that ended, as ``system|value`` -> identifier that took its place."""
    authorities: Mapping[str, str] = field(default_factory=dict)
    """Name of a namespace (URI, OID, PID-3.4) -> the authority that assigns its numbers; under other names it stands for itself."""

    @classmethod
    def of(
        cls, persons: Any, *, identifiers: Any = None, authorities: Mapping[str, Iterable[str]] | None = None
    ) -> Identities:
        """Build from PERSON rows: ``mrn`` (plain or ``system|value``) and ``member_ids``.

        Args:
            persons: PERSON rows.
            identifiers: All identifiers of these people, of any type: ``person_id``, ``system``, ``value``.
            authorities: Authority -> the names its namespace goes by.

        Raises:
            ConfigError: Two authorities share a name.
        """
        named = names_of(authorities or {})
        if persons is None:
            return cls(authorities=named)
        table = persons if isinstance(persons, pa.Table) else pa.table(persons)
        found: dict[str, str | None] = {}
        bare: dict[str, str | None] = {}
        people = table["person_id"].to_pylist()
        for person, mrn, members in zip(people, *(table[n].to_pylist() for n in ("mrn", "member_ids")), strict=True):
            for identifier in (mrn, *(members or ())):
                if not identifier:
                    continue
                system, _, value = identifier.rpartition("|")
                _note(found, _key(named, system, value), person)
                if value and value != identifier:
                    _note(bare, value, person)
        if identifiers is not None:
            rows = (identifiers[name].to_pylist() for name in ("person_id", "system", "value"))
            for person, system, value in zip(*rows, strict=True):
                if system and value:
                    _note(found, _key(named, system, value), person)
        return cls(found, bare, Faces(table, people), authorities=named)

    def _key(self, system: str | None, value: str) -> str:
        return _key(self.authorities, system, value)

    def merged(self, merges: Iterable[Merge]) -> Identities:
        """Return these identities with more merges, in order of receipt."""
        joined = dict(self.merges)
        for merge in merges:
            survivor = self._key(merge.system, merge.new)
            joined[self._key(merge.system, merge.old)] = survivor
            # A hospital that joined them the wrong way round joins them again: what survives has not ended.
            joined.pop(survivor, None)
        return replace(self, merges=joined) if joined != self.merges else self

    def resolve(self, row: dict[str, Any]) -> None:
        """Set ``person_id`` of a candidate row, and follow merges in the patient id.

        The row says ``birth`` (:func:`digits`) and ``names`` (:func:`folded`).
        """
        sent_key = self._key(row["patient_id_system"], row["patient_id_sent"])
        key = self._current(sent_key)
        row["patient_id_sent"] = key.rpartition("|")[2]
        person, sure = self._whose(key)
        if person is not None and self.faces is not None:
            sent, known = row.get("birth") or "", self.faces.birth(person)
            told = min(len(sent), len(known))
            if sent[:told] != known[:told]:
                row["flags"].append("identity_conflict")
                person = None
            elif not sure and not (told == 8 and self.faces.names(person) & set(row.get("names") or ())):
                row["flags"].append("identity_unproven")
                person = None
            elif key != sent_key and row["trigger"] != "merge" and self._another(person, row):
                row["flags"].append("merge_unproven")
                person = None
        row["person_id"] = person

    def _another(self, person: str, row: Mapping[str, Any]) -> bool:
        """Say whether a message's first name is none of a person's: twins are merged in error at times."""
        known = self.faces.names(person) if self.faces is not None else set()
        given = list(row.get("names") or ())[1:]
        return bool(given and given[0] and known and given[0] not in known and "newborn" not in row["flags"])

    def _whose(self, key: str) -> tuple[str | None, bool]:
        """Return the person of an identifier, and whether the index has it under the very namespace."""
        if key in self.persons:
            return self.persons.get(key), True
        value = key.rpartition("|")[2]
        plain, other = self.persons.get(value), self.bare.get(value)
        if value in self.persons and value in self.bare:
            return (plain if plain == other else None), False
        return plain or other, False

    def canonical(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row on record as it reads after the merges, so that a merge alone is no news."""
        key = self._key(row["patient_id_system"], row["patient_id_sent"] or "")
        current = self._current(key)
        if current == key:
            return dict(row)
        person, sure = self._whose(current)
        if not sure and not (person and row["person_id"] and self._alike(person, row["person_id"])):
            person = row["person_id"]
        return {**row, "patient_id_sent": current.rpartition("|")[2], "person_id": person}

    def _alike(self, one: str, other: str) -> bool:
        """Say whether two records of the index agree in birth date and a name."""
        if self.faces is None or one == other:
            return True
        births = {self.faces.birth(one), self.faces.birth(other)}
        return len(births) == 1 and len(max(births)) == 8 and bool(self.faces.names(one) & self.faces.names(other))

    def _current(self, key: str) -> str:
        seen = {key}
        while (after := self.merges.get(key)) is not None and after not in seen:
            seen.add(after)
            key = after
        return key


def names_of(authorities: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return each name of a namespace with the authority that assigns its numbers.

    Raises:
        ConfigError: Two authorities share a name: their numbers would be each other's.
    """
    named: dict[str, str] = {}
    for authority, names in authorities.items():
        for name in (authority, *names):
            if named.setdefault(_plain(name), authority) != authority:
                raise ConfigError(
                    f"two assigning authorities, {named[_plain(name)]} and {authority}, go by the name {name}",
                    hint="their numbers would be taken for each other's: a name belongs to one authority",
                )
    return named


def _plain(system: str) -> str:
    return system.removeprefix("urn:oid:")


def _key(authorities: Mapping[str, str], system: str | None, value: str) -> str:
    return f"{authorities.get(_plain(system), system)}|{value}" if system else value


def _note(found: dict[str, str | None], identifier: str, person: str) -> None:
    if found.setdefault(identifier, person) != person:
        found[identifier] = None


def joined_people(events: Any, persons: Any, *, known: Identities | None = None) -> list[tuple[str, str]]:
    """Return the pairs of persons that merges say are one: whose identifier ended, and who has the one in its place.

    In order of receipt, each pair once.

    Args:
        events: ENCOUNTER_EVENT rows; of trigger ``merge`` are those that are read.
        persons: PERSON rows.
        known: Their identities, where assigning authorities are configured; made of ``persons`` otherwise.
    """
    merges = events.filter(pc.equal(events["trigger"], "merge"))
    merges = merges.filter(pc.is_valid(merges["person_id"]))
    if not merges.num_rows:
        return []
    people = known or _concerned_people(merges, persons)
    order = ("received_at", "event_at", "source_file", "source_line")
    merges = merges.sort_by([(name, "ascending") for name in order])
    names = ("patient_id_system", "visit_number", "person_id")
    found: dict[tuple[str, str], None] = {}
    for system, ended, survivor in zip(*(merges[name].to_pylist() for name in names), strict=True):
        person, sure = people._whose(people._key(system, ended))
        if person is not None and person != survivor and (sure or people._alike(person, survivor)):
            found[person, survivor] = None
    return list(found)


def _concerned_people(merges: pa.Table, persons: pa.Table) -> Identities:
    """Return, of a state's people, those with a number that ended and those they were joined to."""
    numbers = pc.replace_substring_regex(persons["mrn"], r"^.*\|", "")
    concerned = pc.or_(
        pc.is_in(numbers, value_set=pc.unique(merges["visit_number"])),
        pc.is_in(persons["person_id"], value_set=pc.unique(merges["person_id"])),
    )
    return Identities.of(persons.filter(concerned))
