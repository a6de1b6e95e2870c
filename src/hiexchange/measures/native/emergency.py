"""Return to an emergency department within 72 hours of leaving one for home."""

from __future__ import annotations

from hiexchange.measures.native.model import NativeMeasure

DEFINITION = """\
Initial population and denominator: emergency visits (Encounter.class EMER, finished) that end within the period and
at least 72 hours before its last day ends, of patients who went home: alive, with a discharge disposition in the list
(parameter ``home``: home, 01, 06, or none recorded), and no inpatient or observation stay (class IMP, ACUTE, NONAC or
OBSENC; not planned, cancelled or entered in error) that begins from the visit's start to 6 hours after its end.
Denominator exclusion: the patient died within 72 hours without coming back.
Numerator (lower is better): another emergency visit (not planned, cancelled or entered in error) starts after the end
and not more than 72 hours after it, at any facility, for any cause. A return may be an index itself. A visit
that starts before the other one ends is the same visit, told twice, and no return."""

SQL = """
WITH visit AS (
    SELECT id, patient, class, status, start_at, end_at, disposition FROM encounter
    WHERE patient IS NOT NULL AND start_at IS NOT NULL
      AND coalesce(status, '') NOT IN ('planned', 'cancelled', 'entered-in-error')
), index_visit AS (
    SELECT v.id, v.patient, v.start_at, v.end_at, p.deceased_on
    FROM visit v LEFT JOIN (SELECT id, any_value(deceased_on) AS deceased_on FROM patient GROUP BY id) p ON p.id = v.patient
    WHERE v.class = 'EMER' AND v.status = 'finished'
      AND v.end_at >= $period_start AND v.end_at < $period_end + 1 - INTERVAL 72 HOUR
      AND (len(v.disposition) = 0 OR list_has_any(v.disposition, $home))
      AND (p.deceased_on IS NULL OR p.deceased_on > v.end_at::DATE)
      AND NOT EXISTS (
          SELECT 1 FROM visit s
          WHERE s.patient = v.patient AND s.class IN ('IMP', 'ACUTE', 'NONAC', 'OBSENC')
            AND s.start_at BETWEEN v.start_at AND v.end_at + INTERVAL 6 HOUR)
), again AS (
    SELECT i.id, first(v.id ORDER BY v.start_at, v.id) AS visit_id
    FROM index_visit i JOIN visit v ON v.patient = i.patient
    WHERE v.class = 'EMER' AND v.start_at > i.end_at AND v.start_at <= i.end_at + INTERVAL 72 HOUR
    GROUP BY i.id
)
SELECT i.patient AS subject, 'Encounter/' || i.id AS episode, 1 AS initial_population, 1 AS denominator,
       (a.visit_id IS NULL AND coalesce(i.deceased_on <= (i.end_at + INTERVAL 72 HOUR)::DATE, false))::INT
           AS denominator_exclusion,
       (a.visit_id IS NOT NULL)::INT AS numerator,
       list_transform(list_filter([i.id, a.visit_id], lambda x: x IS NOT NULL),
                      lambda x: {'type': 'Encounter', 'id': x, 'source': 'clinical'}) AS evidence
FROM index_visit i LEFT JOIN again a ON a.id = i.id
ORDER BY subject, i.end_at, episode
"""

MEASURES = (
    NativeMeasure(
        id="ed-return-72h",
        version="1.0.0",
        title="Return to an emergency department within 72 hours",
        definition=DEFINITION,
        basis="Encounter",
        types=("Patient", "Encounter"),
        sql=SQL,
        improvement="decrease",
        parameters={"home": ["home", "01", "06"]},
    ),
)
