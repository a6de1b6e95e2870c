"""Readmission within 30 days of an inpatient discharge."""

from __future__ import annotations

from hiexchange.measures.native.episodes import EPISODES
from hiexchange.measures.native.model import NativeMeasure

DEFINITION = """\
Episode: inpatient stays joined as in follow-up (class IMP, ACUTE or NONAC; a transfer, or a return the same or
the next day, is the same episode), named by its last stay.
Initial population and denominator: episodes whose last stay is finished and ends within the period, at least 30
days before its last day.
Denominator exclusion: the patient died in the stay or on the discharge day, or left against advice
(disposition exp, 20, 40-42; aadvice, 07).
Numerator (lower is better): not excluded, and the patient's next acute inpatient stay (class IMP or ACUTE) starts on
days 1 to 30 after discharge, for any cause, unless a reason or type code of that stay is in the list of planned
ones (parameter ``planned``, empty by default). Observation stays (OBSENC) do not count. A readmission may be an
index itself."""

SQL = (
    EPISODES
    + """, discharge AS (
    SELECT e.patient, e.n, e.last_stay.id AS id, e.last_stay.end_on AS day,
           list_has_any(e.last_stay.disposition, ['exp', '20', '40', '41', '42', 'aadvice', '07'])
               OR EXISTS (SELECT 1 FROM patient p WHERE p.id = e.patient AND p.deceased_on <= e.last_stay.end_on) AS excluded
    FROM episode e
    WHERE e.last_stay.status = 'finished' AND e.last_stay.end_on BETWEEN $period_start AND $period_end - 30
), again AS (
    SELECT d.id, first(v.id ORDER BY v.start_at, v.id) AS visit_id
    FROM discharge d
    JOIN episode o ON o.patient = d.patient AND o.n > d.n AND o.admitted_on <= d.day + 30
    JOIN encounter v ON v.patient = d.patient AND v.start_on = o.admitted_on
    WHERE v.class IN ('IMP', 'ACUTE') AND coalesce(v.status, '') NOT IN ('planned', 'cancelled', 'entered-in-error')
      AND NOT list_has_any(list_concat(v.reason, v.type), $planned)
    GROUP BY d.id
)
SELECT d.patient AS subject, 'Encounter/' || d.id AS episode, 1 AS initial_population, 1 AS denominator,
       d.excluded::INT AS denominator_exclusion, (NOT d.excluded AND a.visit_id IS NOT NULL)::INT AS numerator,
       list_transform(list_filter([d.id, a.visit_id], lambda i: i IS NOT NULL),
                      lambda i: {'type': 'Encounter', 'id': i, 'source': 'clinical'}) AS evidence
FROM discharge d LEFT JOIN again a ON a.id = d.id
ORDER BY subject, d.day, episode
"""
)

MEASURES = (
    NativeMeasure(
        id="readmission-30d",
        version="1.0.0",
        title="Readmission within 30 days",
        definition=DEFINITION,
        basis="Encounter",
        types=("Patient", "Encounter"),
        sql=SQL,
        improvement="decrease",
        parameters={"planned": ["-"]},
    ),
)
