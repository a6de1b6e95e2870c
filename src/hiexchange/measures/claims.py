"""What claims alone tell of a measure, what clinical data alone, and what both together: the completeness report.

A hybrid measure (blood pressure, glycaemic status, depression screening) takes its denominator from claims and its
values from clinical data. A low rate may be care that is not given, or data that is not there; this report tells
which. Claims are read as the visits, diagnoses and procedures they stand for, since no measure retrieves a claim.

Source: reference of the pilot of North Carolina, which compared claims with claims and clinical data for CBP, HBD and
CDF; CARIN Blue Button (ExplanationOfBenefit) for the elements read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa

from hiexchange.measures import sources
from hiexchange.measures.evaluate import Engine, Job
from hiexchange.measures.gaps import PREFIX
from hiexchange.measures.measure import Measure
from hiexchange.measures.rows import VARYING, Row

CLAIM = "ExplanationOfBenefit"
PARTS = ("claims", "clinical", "both")
"""Which data an evaluation was given."""
_ELEMENTS = {"item", "subType", "diagnosis", "procedure", "billablePeriod", "use", "outcome", "patient", "created"}
_COUNTS = ("initial_population", "denominator", "denominator_exclusion", "denominator_exception", "numerator")
_REASONS = ("not-found", "out-of-period", "value-missing", "not-qualifying", "negated")
SCHEMA = pa.schema(
    [
        ("measure", pa.string()),
        ("group", pa.string()),
        ("data", pa.string()),
        ("patients", pa.int64()),
        *((name, pa.int64()) for name in _COUNTS),
        ("rate", pa.float64()),
        ("denominator_share", pa.float64()),
        ("numerator_share", pa.float64()),
        *((name.replace("-", "_"), pa.int64()) for name in _REASONS),
        ("errors", pa.int64()),
    ]
)
"""One row a measure, group and kind of data.

``denominator_share`` and ``numerator_share`` say what part of the count with both kinds of data the row's own count
is. ``not_found`` to ``negated`` count who has a gap for that reason: what is missing where the numerator is not met.
"""

Resource = Mapping[str, Any]


def completeness(
    measures: Sequence[Measure],
    source: Any,
    *,
    period: tuple[date, date],
    offset: timedelta = timedelta(0),
    profiles: str = "infer",
) -> pa.Table:
    """Evaluate measures on claims alone, on clinical data alone, and on both, and compare.

    Args:
        measures: Loaded measures.
        source: A ``Lake`` with ExplanationOfBenefit rows, a folder of Bundles, or Bundles.
        period: First and last day of the measurement period, inclusive.
        offset: Offset from UTC in which days are told apart.
        profiles: Policy on profiles.

    Returns:
        See :data:`SCHEMA`.
    """
    engine = Engine(Job(tuple(measures), period, offset, profiles))
    tallies = {
        (measure.id, group.id, part): _Tally() for measure in measures for group in measure.groups for part in PARTS
    }
    types = frozenset({CLAIM}).union(*(measure.types for measure in measures))
    elements = sources.elements_of(library for measure in measures for library in measure.libraries) | _ELEMENTS
    for name, raw in sources.subjects(source, types, elements):
        rows = [sources.decode(item) if isinstance(item, bytes) else item for item in raw]
        for part, given in zip(PARTS, _parts(rows), strict=True):
            for measure, found in zip(measures, engine.evaluate((name, given)), strict=True):
                _count(tallies, measure.id, part, found)
    return pa.Table.from_pylist(
        [
            _row(tallies, measure.id, group.id, part)
            for measure in measures
            for group in measure.groups
            for part in PARTS
        ],
        schema=SCHEMA,
    )


def _parts(rows: list[Resource]) -> tuple[list[Any], list[Any], list[Any]]:
    """Return what claims tell, what clinical data tells, and both; the person and their coverage are in each."""
    known = [row for row in rows if row["resourceType"] in ("Patient", "Coverage")]
    told = [item for row in rows if row["resourceType"] == CLAIM for item in events(row)]
    clinical = [row for row in rows if row["resourceType"] not in ("Patient", "Coverage", CLAIM)]
    return [*known, *told], [*known, *clinical], [*known, *told, *clinical]


def events(claim: Resource) -> Iterator[dict[str, Any]]:
    """Yield the visits, diagnoses and procedures an ExplanationOfBenefit stands for.

    One Encounter for each span of service, with the codes of its lines as types; one Condition a diagnosis, active
    from the first day of service; one Procedure a line and a procedure. Claims that are not active, are no claims
    (preauthorization, predetermination) or ended in error give nothing.
    """
    if claim.get("status") != "active" or claim.get("use", "claim") != "claim" or claim.get("outcome") == "error":
        return
    name, patient = claim.get("id") or "", claim.get("patient")
    lines: dict[tuple[str, str], list[Any]] = {}
    for line in claim.get("item") or ():
        lines.setdefault(_span(line, claim), []).append(line.get("productOrService"))
    concepts = [claim.get("type"), claim.get("subType")]
    kinds = {coding.get("code") for item in concepts for coding in (item or {}).get("coding") or ()}
    # CARIN: the type is institutional, professional ..., the subtype inpatient or outpatient.
    visit = {"class": {"code": "IMP" if "inpatient" in kinds else "AMB"}, "status": "finished"}
    for at, ((start, end), codes) in enumerate(sorted(lines.items())):
        types, period = [code for code in codes if code], {"start": start, "end": end}
        head = {"subject": patient, "meta": {"source": "urn:hx:claims"}}
        yield {"resourceType": "Encounter", "id": f"{name}-e{at}", **head, **visit, "type": types, "period": period}
        for number, code in enumerate(types):
            done = {"status": "completed", "code": code, "performedPeriod": period}
            yield {"resourceType": "Procedure", "id": f"{name}-p{at}-{number}", **head, **done}
    yield from _diagnoses(claim, name, min(lines, default=_span({}, claim))[0])


def _diagnoses(claim: Resource, name: str, start: str) -> Iterator[dict[str, Any]]:
    head = {"subject": claim.get("patient"), "meta": {"source": "urn:hx:claims"}}
    system = "http://terminology.hl7.org/CodeSystem/condition-"
    state = {
        "clinicalStatus": {"coding": [{"system": f"{system}clinical", "code": "active"}]},
        "verificationStatus": {"coding": [{"system": f"{system}ver-status", "code": "confirmed"}]},
        "category": [{"coding": [{"system": f"{system}category", "code": "encounter-diagnosis"}]}],
    }
    for at, item in enumerate(claim.get("diagnosis") or ()):
        code = item.get("diagnosisCodeableConcept")
        if code and start:
            yield {
                "resourceType": "Condition",
                "id": f"{name}-d{at}",
                **head,
                **state,
                "code": code,
                "onsetDateTime": start,
            }
    for at, item in enumerate(claim.get("procedure") or ()):
        code, on = item.get("procedureCodeableConcept"), item.get("date") or start
        if code and on:
            done = {"status": "completed", "code": code, "performedDateTime": on}
            yield {"resourceType": "Procedure", "id": f"{name}-q{at}", **head, **done}


def _span(line: Resource, claim: Resource) -> tuple[str, str]:
    day = line.get("servicedDate")
    period = {"start": day, "end": day} if day else line.get("servicedPeriod") or claim.get("billablePeriod") or {}
    start = period.get("start") or claim.get("created") or ""
    return start, period.get("end") or start


# Counting -------------------------------------------------------------------------------------


class _Tally:
    """Counts of one measure, group and kind of data."""

    def __init__(self) -> None:
        self.patients: set[str] = set()
        self.counts = dict.fromkeys(_COUNTS, 0)
        self.reasons = dict.fromkeys(_REASONS, 0)
        self.errors = 0


def _count(tallies: dict[tuple[str, str, str], _Tally], measure: str, part: str, rows: Iterable[Row]) -> None:
    for values in rows:
        row = dict(zip(VARYING, values, strict=True))
        tally = tallies[measure, row["group"], part]
        if row["status"] != "ok":
            tally.errors += 1
            continue
        tally.patients.add(row["subject"])
        for name in _COUNTS:
            tally.counts[name] += row[name] or 0
        gaps = [text.removeprefix(PREFIX) for text in row["messages"] or () if text.startswith(PREFIX)]
        for code in {text.partition(" ")[0] for text in gaps} & set(_REASONS):
            tally.reasons[code] += 1


def _row(tallies: dict[tuple[str, str, str], _Tally], measure: str, group: str, part: str) -> dict[str, Any]:
    tally, whole = tallies[measure, group, part], tallies[measure, group, "both"]
    counts = tally.counts
    left = counts["denominator"] - counts["denominator_exclusion"] - counts["denominator_exception"]
    return {
        "measure": measure,
        "group": group,
        "data": part,
        "patients": len(tally.patients),
        **counts,
        "rate": counts["numerator"] / left if left > 0 else None,
        "denominator_share": _share(counts["denominator"], whole.counts["denominator"]),
        "numerator_share": _share(counts["numerator"], whole.counts["numerator"]),
        **{name.replace("-", "_"): count for name, count in tally.reasons.items()},
        "errors": tally.errors,
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
