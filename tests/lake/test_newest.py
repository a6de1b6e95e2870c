"""Random loads and deletions against the rules of ``merge`` written down a second time, one key at a time."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import msgspec
import pytest

from hiexchange.lake import Lake

DAYS = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 5)]


def winner(candidates):
    """Of the versions of one key in the order they came: the one that stands."""
    rivals = [one for one in candidates if not one["subsetted"]] or candidates
    undated = max((place for place, one in enumerate(rivals) if one["updated"] is None), default=None)
    if undated is not None:
        if undated == len(rivals) - 1:
            return rivals[undated]
        rivals = rivals[undated + 1 :]
    never = datetime.min.replace(tzinfo=UTC)
    newest = [one for one in rivals if one["updated"] == max(rival["updated"] for rival in rivals)]
    numbered = all(one["version"] is not None for one in newest)
    return max(
        enumerate(newest), key=lambda item: (item[1]["version"] if numbered else 0, item[1]["at"] or never, item[0])
    )[1]


def buried(one, deletions, load):
    """Whether a deletion beats a version; a deletion is (instant of its export or None, its load)."""
    for at, of in deletions:
        fresh = of == load
        if at is None and fresh:
            return True
        if at is not None and one["updated"] is not None and one["updated"] <= at:
            return True
        if at is not None and one["updated"] is None and (fresh or (one["at"] is not None and one["at"] <= at)):
            return True
    return False


def made(chance, number, at):
    updated = chance.choice([None, *DAYS])
    version = chance.choice([None, "2", "10", "x"])
    subsetted = chance.random() < 0.15
    meta = {
        **({"lastUpdated": updated.isoformat()} if updated else {}),
        **({"versionId": version} if version else {}),
        **({"tag": [{"code": "SUBSETTED"}]} if subsetted else {}),
    }
    key = f"k{chance.randrange(12)}"
    value = {"resourceType": "Patient", "id": key, "name": [{"text": f"{number}"}], **({"meta": meta} if meta else {})}
    numbered = int(version) if version in ("2", "10") else None
    return value, {
        "key": key, "text": f"{number}", "updated": updated, "version": numbered, "subsetted": subsetted, "at": at
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_the_lake_holds_what_the_rules_say(tmp_path, seed):
    chance = random.Random(seed)
    lake, folder = Lake(tmp_path / "lake"), tmp_path / "in"
    (folder / "deleted").mkdir(parents=True)
    expected, graves, number = {}, {}, 0
    for load in range(4):
        at = chance.choice([None, *DAYS])
        lines, arrived = [], []
        for _ in range(chance.randrange(1, 25)):
            number += 1
            value, known = made(chance, number, at)
            lines.append(msgspec.json.encode(value) + b"\n")
            arrived.append(known)
        (folder / "Patient.ndjson").write_bytes(b"".join(lines))
        gone = [f"k{chance.randrange(12)}" for _ in range(chance.choice((0, 0, 2)))]
        entries = [{"request": {"method": "DELETE", "url": f"Patient/{key}"}} for key in gone]
        (folder / "deleted" / "1.ndjson").write_bytes(msgspec.json.encode({"entry": entries}))
        for key in gone:
            graves.setdefault(key, []).append((at, load))
        lake.ingest(folder, transaction_time=at)
        if chance.random() < 0.3:
            lake.compact(rows_a_file=4)
        for key in {one["key"] for one in arrived} | set(graves) & set(expected):
            rivals = [*([expected[key]] if key in expected else []), *(one for one in arrived if one["key"] == key)]
            best = winner(rivals)
            expected.pop(key, None)
            if not buried(best, graves.get(key, ()), load):
                expected[key] = best
        rows = lake.sql("select id, name[1].text as text from Patient").to_pylist()
        assert {row["id"]: row["text"] for row in rows} == {key: one["text"] for key, one in expected.items()}
        assert len(rows) == len(expected)
