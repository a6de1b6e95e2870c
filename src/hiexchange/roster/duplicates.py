"""Duplicates and contradictions between the rows of one file.

Candidates are found by 64-bit hashes in numpy, a few bytes a row; only rows that share a hash are
looked at as rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Hashes:
    """One value a row: hash of the whole row, of member and provider, of the member."""

    row: npt.NDArray[np.uint64]
    key: npt.NDArray[np.uint64]
    member: npt.NDArray[np.uint64]


def exact(members: pa.Table, hashes: Hashes) -> Mask:
    """Return True for rows that repeat an earlier row of the file value by value."""
    repeated = np.zeros(len(members), dtype=bool)
    rows = _shared(hashes.row)
    seen: set[str] = set()
    for index, sha in zip(rows.tolist(), members["row_sha"].take(pa.array(rows)).to_pylist(), strict=True):
        repeated[index] = sha in seen
        seen.add(sha)
    return repeated


def conflicting(members: pa.Table, hashes: Hashes, alive: Mask, *, policy: str) -> Mask:
    """Return True for rows that contradict another: same member and provider, overlapping periods.

    Args:
        members: Rows in file order.
        hashes: Their hashes.
        alive: Rows to consider; exact repetitions are left out.
        policy: ``quarantine`` refuses every row of a contradiction, ``last`` all but the last.
    """
    wrong = np.zeros(len(members), dtype=bool)
    rows = _shared(hashes.key, alive)
    if not len(rows):
        return wrong
    take = pa.array(rows)
    starts = members["valid_from"].take(take).cast(pa.int32()).to_numpy()
    ends = members["valid_to"].take(take).cast(pa.int32()).to_numpy()
    keys = hashes.key[rows]
    order = np.lexsort((rows, starts, keys))
    group: list[int] = []
    reach, last_key = -1, None
    for place in order.tolist():
        key, start, end = keys[place], starts[place], ends[place]
        if key != last_key or start >= reach:
            _settle(group, rows, wrong, policy)
            group, reach, last_key = [], end, key
        group.append(place)
        reach = max(reach, end)
    _settle(group, rows, wrong, policy)
    return wrong


def shared_ids(members: pa.Table, hashes: Hashes, alive: Mask) -> Mask:
    """Return True for rows whose member id stands for people born on different days.

    A subscriber id used as member id does that: parents and children share it. Taken for one member
    they would be matched to one person, so all of them are refused.
    """
    wrong = np.zeros(len(members), dtype=bool)
    rows = _shared(hashes.member, alive)
    if not len(rows) or "birth_on" not in members.column_names:
        return wrong
    births = pc.fill_null(members["birth_on"].take(pa.array(rows)).cast(pa.int32()), -(1 << 30)).to_numpy()
    known = births != -(1 << 30)
    rows, births = rows[known], births[known]
    keys = hashes.member[rows]
    order = np.lexsort((births, keys))
    keys, births, rows = keys[order], births[order], rows[order]
    if not len(rows):
        return wrong
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    sizes = np.diff(np.append(starts, len(keys)))
    mixed = births[starts] != births[starts + sizes - 1]
    wrong[rows[np.repeat(mixed, sizes)]] = True
    return wrong


def _settle(group: list[int], rows: npt.NDArray[np.int64], wrong: Mask, policy: str) -> None:
    if len(group) < 2:
        return
    hit = sorted(int(rows[place]) for place in group)
    wrong[hit[:-1] if policy == "last" else hit] = True


def _shared(values: npt.NDArray[np.uint64], alive: Mask | None = None) -> npt.NDArray[np.int64]:
    """Return the places, ascending, of values that occur more than once."""
    places = np.arange(len(values)) if alive is None else np.flatnonzero(alive)
    if not len(places):
        return places
    chosen = values[places]
    ordered = np.sort(chosen)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    return places[np.isin(chosen, np.unique(twice))]
