"""Consent decisions from the file of a consent registry. A line that cannot be read stops everything.

Passing over one line might pass over an opt-out, so nothing is skipped and nothing is guessed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from hiexchange import ndjson
from hiexchange.errors import ConfigError, HIExchangeError
from hiexchange.routing.policy import CONSENT, DENY, PERMIT, SCOPES
from hiexchange.tables import OPEN_DATE


def load_consents(path: str | Path) -> pa.Table:
    """Return CONSENT rows of a CSV file with a header, or of NDJSON.

    Columns are those of :data:`~hiexchange.routing.policy.CONSENT`: ``person_id``, ``scope`` and ``decision``
    must have a value, ``valid_from`` (first day) and ``valid_to`` (day after the last) default to always,
    ``known_from`` is an instant with an offset (without one: UTC). An empty field is null.

    Raises:
        ConfigError: The file is empty or cannot be read, or a line is not a consent decision; says which line,
            never whose.
    """
    file = Path(path)
    # A registry that decided nothing still writes a header; no byte at all is a transfer that failed.
    if file.is_file() and file.stat().st_size == 0:
        raise ConfigError(
            "the consent file is empty: every opt-out would be forgotten",
            where=str(file),
            hint="have the registry write it again; without decisions leave the setting out",
        )
    read = _csv if file.suffix.lower() == ".csv" else _ndjson
    rows = []
    try:
        for line, row in read(file):
            rows.append(_row(row, f"{file.name} line {line}"))
    except FileNotFoundError:
        raise ConfigError("the consent file does not exist", where=str(file)) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"the consent file cannot be read: {type(error).__name__}", where=str(file)) from None
    return pa.Table.from_pylist(rows, schema=CONSENT)


def _csv(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        lacking = [name for name in ("person_id", "scope", "decision") if name not in (reader.fieldnames or ())]
        if lacking:
            raise _refused(f"file whose header lacks {', '.join(lacking)}", f"{file.name} line 1")
        for row in reader:
            if None in row or None in row.values():
                raise _refused(
                    "decision has more or fewer fields than the header", f"{file.name} line {reader.line_num}"
                )
            yield reader.line_num, row


def _ndjson(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        for number, row in enumerate(ndjson.reader(file), 1):
            if not isinstance(row, Mapping):
                raise _refused("decision is no JSON object", f"{file.name} line {number}")
            yield number, row
    except HIExchangeError as error:
        if isinstance(error, ConfigError):
            raise
        raise _refused("decision is no JSON", error.where or file.name) from None


def _row(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    unknown = set(given) - set(CONSENT.names)
    if unknown:
        raise _refused(f"decision has unknown columns: {', '.join(sorted(unknown))}", where)
    row: dict[str, Any] = {"valid_from": date.min, "valid_to": OPEN_DATE}
    stripped = {name: value.strip() if isinstance(value, str) else value for name, value in given.items()}
    row |= {name: value for name, value in stripped.items() if value not in (None, "")}
    for name in ("person_id", "scope", "decision"):
        if not row.get(name):
            raise _refused(f"decision has no {name}", where)
    if row["scope"] not in SCOPES or row["decision"] not in (PERMIT, DENY):
        raise _refused(f"decision has a scope beside {', '.join(SCOPES)} or a decision beside {PERMIT}, {DENY}", where)
    for name, parse in _PARSERS.items():
        if isinstance(row.get(name), str):
            try:
                row[name] = parse(row[name])
            except ValueError:
                raise _refused(f"decision has a {name} that is no ISO date", where) from None
    if isinstance(row["person_id"], str):
        row["person_id"] = row["person_id"].removeprefix("Patient/")
    if isinstance(row.get("party"), str):
        row["party"] = _TAX_ID.sub(r"\1\2", row["party"])
    if any(not isinstance(value, _TYPES.get(name, str)) for name, value in row.items()):
        raise _refused("decision has a value of the wrong type", where)
    return row


_TAX_ID = re.compile(r"\A([0-9]{2})-([0-9]{7})\Z")


def _instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


_PARSERS: dict[str, Callable[[str], date | datetime]] = {
    "valid_from": date.fromisoformat,
    "valid_to": date.fromisoformat,
    "known_from": _instant,
}
_TYPES: dict[str, type] = {"valid_from": date, "valid_to": date, "known_from": datetime}


def _refused(what: str, where: str) -> ConfigError:
    return ConfigError(
        f"a consent {what}",
        where=where,
        hint=f"columns are {', '.join(CONSENT.names)}; dates as 2026-01-31; correct the line, nothing was sent",
    )
