"""Follow-up after an inpatient discharge, within 7 and within 30 days."""

from __future__ import annotations

from hiexchange.measures.native.episodes import EPISODES
from hiexchange.measures.native.model import NativeMeasure

DEFINITION = """\
Episode: the inpatient stays of a patient (Encounter.class IMP, ACUTE or NONAC; not planned, cancelled or
entered in error), joined while the next one starts no later than the day after the last one ended (a
transfer or a direct return). The episode is named by its last stay, and its discharge day is that stay's end.
Initial population and denominator: episodes whose last stay is finished, discharged within the period
and at least {days} days before its last day, alive and not to hospice (disposition exp, hosp, or UB-04 20,
40-42, 50, 51; Patient.deceased on or before the discharge day).
Denominator exclusion: the patient died, or was admitted again, on days 1 to {days} after discharge.
Numerator: not excluded, and an ambulatory, virtual or home visit (class AMB, VR or HH; same statuses)
starts on days 1 to {days}; the day of discharge is day 0. Days are calendar days in the evaluation's offset."""

SQL = (
    EPISODES
    + """, discharge AS (
    SELECT e.patient, e.n, e.last_stay.id AS id, e.last_stay.end_on AS day, any_value(p.deceased_on) AS deceased_on
    FROM episode e LEFT JOIN patient p ON p.id = e.patient
    WHERE e.last_stay.status = 'finished'
      AND e.last_stay.end_on BETWEEN $period_start AND $period_end - $days
      AND NOT list_has_any(e.last_stay.disposition, ['exp', 'hosp', '20', '40', '41', '42', '50', '51'])
    GROUP BY ALL
    HAVING deceased_on IS NULL OR deceased_on > day
), judged AS (
    SELECT d.*,
           coalesce(d.deceased_on <= d.day + $days, false) OR EXISTS (
               SELECT 1 FROM episode o
               WHERE o.patient = d.patient AND o.n > d.n AND o.admitted_on <= d.day + $days) AS excluded
    FROM discharge d
), visit AS (
    SELECT j.id, first(v.id ORDER BY v.start_at, v.id) AS visit_id
    FROM judged j JOIN encounter v ON v.patient = j.patient
    WHERE v.class IN ('AMB', 'VR', 'HH') AND v.start_on BETWEEN j.day + 1 AND j.day + $days
      AND coalesce(v.status, '') NOT IN ('planned', 'cancelled', 'entered-in-error')
    GROUP BY j.id
)
SELECT j.patient AS subject, 'Encounter/' || j.id AS episode,
       1 AS initial_population, 1 AS denominator,
       j.excluded::INT AS denominator_exclusion,
       (NOT j.excluded AND v.visit_id IS NOT NULL)::INT AS numerator,
       list_transform(list_filter([j.id, v.visit_id], lambda i: i IS NOT NULL),
                      lambda i: {'type': 'Encounter', 'id': i, 'source': 'clinical'}) AS evidence
FROM judged j LEFT JOIN visit v ON v.id = j.id
ORDER BY subject, j.day, episode
"""
)


def _followup(days: int) -> NativeMeasure:
    return NativeMeasure(
        id=f"followup-{days}d",
        version="1.0.0",
        title=f"Follow-up within {days} days",
        definition=DEFINITION.format(days=days),
        basis="Encounter",
        types=("Patient", "Encounter"),
        sql=SQL,
        parameters={"days": days},
    )


MEASURES = (_followup(7), _followup(30))
