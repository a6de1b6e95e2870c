"""Rates by race, ethnicity, language, sex, payer or provider, with small cells suppressed.

Race and ethnicity come from the US Core extensions (OMB categories; several are "two or more", none
is "unknown"), language from Patient.communication with the preferred one first, payer from Coverage
in the period, provider from ATTRIBUTION at the period's end. "unknown" is a stratum like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any

import pyarrow as pa

from hiexchange.errors import ConfigError
from hiexchange.measures import sources
from hiexchange.measures.result import POPULATIONS, GroupSummary, MeasureInfo, aggregated, scored
from hiexchange.tables import OPEN_INSTANT

UNKNOWN = "unknown"
MIN_CELL = 11
"""Counts under it are hidden: the CMS cell size suppression policy."""
RACE = "us-core-race"
ETHNICITY = "us-core-ethnicity"
_OMB = {
    "1002-5": "American Indian or Alaska Native",
    "2028-9": "Asian",
    "2054-5": "Black or African American",
    "2076-8": "Native Hawaiian or Other Pacific Islander",
    "2106-3": "White",
    "2131-1": "Other",
    "2135-2": "Hispanic or Latino",
    "2186-5": "Not Hispanic or Latino",
}
KEYS = ("race", "ethnicity", "language", "sex", "payer", "provider")


def check_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the keys, each of which is known.

    Raises:
        ConfigError: One is not.
    """
    wanted = tuple(keys)
    unknown = [key for key in wanted if key not in KEYS]
    if unknown:
        raise ConfigError(f"results cannot be cut by {unknown[0]!r}", hint=f"use {', '.join(KEYS)}")
    return wanted


def people(
    source: Any,
    keys: Iterable[str],
    period: tuple[date, date],
    *,
    attribution: pa.Table | None = None,
    links: pa.Table | None = None,
) -> dict[str, dict[str, str]]:
    """Return {key: {subject: stratum}} for the keys asked for.

    Raises:
        ConfigError: A key is not known, or provider is asked for without attribution.
    """
    wanted = check_keys(keys)
    found: dict[str, dict[str, str]] = {key: {} for key in wanted}
    if "provider" in wanted:
        if attribution is None or links is None:
            raise ConfigError("a rate by provider needs attribution and links", hint="pass attribution=, links=")
        found["provider"] = providers(attribution, links, period[1])
    readers = {key: reader for key, reader in _READERS.items() if key in wanted}
    if readers and source is None:
        raise ConfigError("the run's patients cannot be read again", hint="pass source=")
    if readers:
        for subject, rows in sources.subjects(source, frozenset({"Patient", "Coverage"}), None):
            resources = [sources.decode(row) if isinstance(row, bytes) else row for row in rows]
            for key, reader in readers.items():
                found[key][subject] = reader(resources, period)
    return found


def providers(attribution: pa.Table, links: pa.Table, on: date) -> dict[str, str]:
    """Return {subject: NPI, or organisation} of the payer's first attribution that holds on a day.

    Both tables are histories, whose rows are never edited: what was known last counts. An attribution that is
    suppressed (an opt-out, a dispute) names nobody.
    """
    from hiexchange.attribution import active
    from hiexchange.matching import current

    persons = {
        row["member_key"]: row["person_id"]
        for row in current(links, known_at=OPEN_INSTANT).select(["member_key", "person_id", "band"]).to_pylist()
        if row["person_id"] is not None and row["band"] == "auto"
    }
    best: dict[str, tuple[Any, str]] = {}
    columns = ["member_key", "provider_npi", "org_id", "rank", "status"]
    for row in active(attribution, on, OPEN_INSTANT).select(columns).to_pylist():
        person, name = persons.get(row["member_key"]), row["provider_npi"] or row["org_id"]
        if person is None or name is None or row["status"] in ("inactive", "suppressed"):
            continue
        order = (row["rank"] or 0, name)
        if person not in best or order < best[person][0]:
            best[person] = (order, name)
    return {person: name for person, (_, name) in best.items()}


def _patient(resources: list[Any]) -> Mapping[str, Any]:
    return next((row for row in resources if row.get("resourceType", "Patient") == "Patient" and _is_patient(row)), {})


def _is_patient(row: Mapping[str, Any]) -> bool:
    return row.get("resourceType") == "Patient" or "birthDate" in row or "gender" in row


def _omb(resources: list[Any], name: str) -> str:
    labels = []
    for extension in _patient(resources).get("extension") or ():
        if str(extension.get("url", "")).endswith(name):
            for inner in extension.get("extension") or ():
                coding = inner.get("valueCoding") or {}
                if inner.get("url") == "ombCategory" and coding.get("code") in _OMB:
                    labels.append(_OMB[coding["code"]])
    return UNKNOWN if not labels else labels[0] if len(set(labels)) == 1 else "two or more"


def _language(resources: list[Any], period: tuple[date, date]) -> str:
    spoken = list(_patient(resources).get("communication") or ())
    spoken.sort(key=lambda item: item.get("preferred") is not True)
    for item in spoken:
        concept = item.get("language") or {}
        code = next(
            (coding.get("code") for coding in concept.get("coding") or () if coding.get("code")), concept.get("text")
        )
        if code:
            return str(code)
    return UNKNOWN


def _payer(resources: list[Any], period: tuple[date, date]) -> str:
    for row in resources:
        if row.get("resourceType") != "Coverage":
            continue
        span = row.get("period") or {}
        start, end = str(span.get("start") or "0001")[:10], str(span.get("end") or "9999")[:10]
        if start <= period[1].isoformat() and end >= period[0].isoformat():
            for payor in row.get("payor") or ():
                name = payor.get("display") or (payor.get("identifier") or {}).get("value") or payor.get("reference")
                if name:
                    return str(name)
    return UNKNOWN


_READERS: dict[str, Callable[[list[Any], tuple[date, date]], str]] = {
    "race": lambda rows, period: _omb(rows, RACE),
    "ethnicity": lambda rows, period: _omb(rows, ETHNICITY),
    "language": _language,
    "sex": lambda rows, period: str(_patient(rows).get("gender") or UNKNOWN),
    "payer": _payer,
}


def table(
    rows: pa.Table, info: MeasureInfo, keys: tuple[str, ...], strata: Mapping[str, Mapping[str, str]], min_cell: int
) -> pa.Table:
    """Return one row a group and combination of strata, suppressed; see :meth:`MeasureRun.by`."""
    cells: dict[tuple[str, ...], dict[str, Any]] = {}
    columns = ["subject", "group", "basis", "status", *POPULATIONS]
    if any(info.observations.values()):
        columns.append("observations")
    for batch in rows.select(columns).to_batches():
        for row in batch.to_pylist():
            cut = tuple(strata[key].get(row["subject"], UNKNOWN) for key in keys)
            cell = cells.setdefault(
                (row["group"], *cut),
                {"subjects": set(), "errors": 0, "basis": row["basis"], "counts": {}, "observed": {}},
            )
            cell["subjects"].add(row["subject"])
            if row["status"] != "ok":
                cell["errors"] += 1
                continue
            for name in POPULATIONS:
                if row[name] is not None:
                    cell["counts"][name] = cell["counts"].get(name, 0) + row[name]
            for item in row.get("observations") or ():
                if item["value"] is not None:
                    cell["observed"].setdefault(item["id"], []).append(item["value"])
    summaries = {key: _summary(key[0], cell, info) for key, cell in sorted(cells.items())}
    hidden = suppressed(summaries, min_cell)
    return pa.Table.from_pylist(
        [_row(key, keys, summary, key in hidden) for key, summary in summaries.items()], schema=_schema(keys)
    )


def _summary(group: str, cell: Mapping[str, Any], info: MeasureInfo) -> GroupSummary:
    plain = GroupSummary(
        group=group,
        basis=cell["basis"],
        scoring=info.scoring.get(group, "proportion"),
        improvement=info.improvement.get(group, "increase"),
        subjects=len(cell["subjects"]),
        errors=cell["errors"],
        counts=cell["counts"],
        rate=None,
        low=None,
        high=None,
        observations=aggregated(cell["observed"], info.observations.get(group, ())),
    )
    return scored(plain, info)


def suppressed(summaries: Mapping[tuple[str, ...], GroupSummary], min_cell: int) -> set[tuple[str, ...]]:
    """Return the cells to hide: small ones, and where one alone is hidden in a group, the next smallest too.

    A cell is small when its subjects, its denominator or a part of it (numerator or the rest) is above
    zero and under ``min_cell``. Without the second rule the total would give the hidden cell away.
    """
    hidden: set[tuple[str, ...]] = set()
    for group in {key[0] for key in summaries}:
        cells = {key: summary for key, summary in summaries.items() if key[0] == group}
        small = {key for key, summary in cells.items() if _small(summary, min_cell)}
        if len(small) == 1 and len(cells) > 1:
            rest = [key for key in cells if key not in small]
            small.add(min(rest, key=lambda key: (cells[key].subjects, key)))
        hidden |= small
    return hidden


def _small(summary: GroupSummary, min_cell: int) -> bool:
    parts = (summary.subjects, summary.eligible, summary.hits, summary.eligible - summary.hits)
    return any(0 < part < min_cell for part in parts)


def _schema(keys: tuple[str, ...]) -> pa.Schema:
    counts = [(name, pa.int64()) for name in ("subjects", "eligible", "hits")]
    rates = [(name, pa.float64()) for name in ("rate", "low", "high")]
    return pa.schema(
        [("group", pa.string()), *((key, pa.string()) for key in keys), *counts, *rates, ("suppressed", pa.bool_())]
    )


def _row(key: tuple[str, ...], keys: tuple[str, ...], summary: GroupSummary, hidden: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"group": key[0], **dict(zip(keys, key[1:], strict=True)), "suppressed": hidden}
    if not hidden:
        row |= {
            "subjects": summary.subjects,
            "eligible": summary.eligible,
            "hits": summary.hits,
            "rate": summary.rate,
            "low": summary.low,
            "high": summary.high,
        }
    return row
