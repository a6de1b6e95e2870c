"""Well-child and well-care visits, social-need screening, and completeness of demographics."""

from __future__ import annotations

from hiexchange.measures.native.model import NativeMeasure

# ICD-10-CM reasons of routine examinations; own codes are passed as the parameter ``visit_codes``.
WELL_VISITS = [
    "Z00.00", "Z00.01", "Z00.110", "Z00.111", "Z00.121", "Z00.129", "Z00.2", "Z00.3", "Z76.1", "Z76.2", "Z02.5",
]  # fmt: skip
# LOINC panels and questions of social-need screening: PRAPARE, AHC-HRSN, housing, food, transport.
SCREENINGS = ["93025-5", "96777-8", "71802-3", "88122-7", "88123-5", "93030-5", "93031-3", "96778-6"]

_VISIT = """
    class IN ('AMB', 'VR', 'HH') AND coalesce(status, '') NOT IN ('planned', 'cancelled', 'entered-in-error')
"""

WELL_CHILD = f"""
WITH child AS (
    SELECT id, birth_on, CAST(birth_on + INTERVAL 15 MONTH AS DATE) AS due_on FROM patient
    WHERE birth_on IS NOT NULL AND CAST(birth_on + INTERVAL 15 MONTH AS DATE) BETWEEN $period_start AND $period_end
      AND coalesce(deceased_on > CAST(birth_on + INTERVAL 15 MONTH AS DATE), true)
), visit AS (
    SELECT c.id AS patient, v.start_on, min(v.id) AS id FROM child c JOIN encounter v ON v.patient = c.id
    WHERE {_VISIT} AND v.start_on BETWEEN c.birth_on AND c.due_on AND list_has_any(list_concat(v.type, v.reason), $visit_codes)
    GROUP BY ALL
), counted AS (
    SELECT patient, count(*) AS visits,
           list({{'type': 'Encounter', 'id': id, 'source': 'clinical'}} ORDER BY start_on) AS evidence
    FROM visit GROUP BY patient
)
SELECT c.id AS subject, CAST(NULL AS VARCHAR) AS episode, 1 AS initial_population, 1 AS denominator,
       (coalesce(v.visits, 0) >= 6)::INT AS numerator, v.evidence
FROM child c LEFT JOIN counted v ON v.patient = c.id ORDER BY subject
"""

WELL_CARE = f"""
WITH person AS (
    SELECT id FROM patient
    WHERE date_sub('year', birth_on, $period_end) BETWEEN 3 AND 21 AND coalesce(deceased_on > $period_end, true)
), visit AS (
    SELECT v.patient, first(v.id ORDER BY v.start_on, v.id) AS id FROM person p JOIN encounter v ON v.patient = p.id
    WHERE {_VISIT} AND v.start_on BETWEEN $period_start AND $period_end
      AND list_has_any(list_concat(v.type, v.reason), $visit_codes)
    GROUP BY v.patient
)
SELECT p.id AS subject, CAST(NULL AS VARCHAR) AS episode, 1 AS initial_population, 1 AS denominator,
       (v.id IS NOT NULL)::INT AS numerator,
       CASE WHEN v.id IS NOT NULL THEN [{{'type': 'Encounter', 'id': v.id, 'source': 'clinical'}}] END AS evidence
FROM person p LEFT JOIN visit v ON v.patient = p.id ORDER BY subject
"""

SCREENING = f"""
WITH person AS (
    SELECT DISTINCT p.id FROM patient p JOIN encounter v ON v.patient = p.id
    WHERE {_VISIT} AND v.start_on BETWEEN $period_start AND $period_end
      AND date_sub('year', p.birth_on, $period_start) >= 18
), screening AS (
    SELECT o.patient, first(o.id ORDER BY coalesce(o.on_day, o.from_day), o.id) AS id
    FROM observation o
    WHERE o.status IN ('final', 'amended', 'corrected') AND coalesce(o.on_day, o.from_day) BETWEEN $period_start AND $period_end
      AND (list_has_any(o.code, $screenings) OR list_contains(o.category, 'sdoh'))
    GROUP BY o.patient
)
SELECT p.id AS subject, CAST(NULL AS VARCHAR) AS episode, 1 AS initial_population, 1 AS denominator,
       (s.id IS NOT NULL)::INT AS numerator,
       CASE WHEN s.id IS NOT NULL THEN [{{'type': 'Observation', 'id': s.id, 'source': 'clinical'}}] END AS evidence
FROM person p LEFT JOIN screening s ON s.patient = p.id ORDER BY subject
"""

COMPLETENESS = """
SELECT id AS subject, CAST(NULL AS VARCHAR) AS episode, 1 AS initial_population, 1 AS denominator,
       (birth_on IS NOT NULL AND gender IS NOT NULL AND has_race AND has_ethnicity AND has_language AND has_address)::INT
           AS numerator,
       list_concat(
           CASE WHEN birth_on IS NULL THEN ['missing birthDate'] ELSE [] END,
           CASE WHEN gender IS NULL THEN ['missing gender'] ELSE [] END,
           CASE WHEN NOT has_race THEN ['missing race'] ELSE [] END,
           CASE WHEN NOT has_ethnicity THEN ['missing ethnicity'] ELSE [] END,
           CASE WHEN NOT has_language THEN ['missing language'] ELSE [] END,
           CASE WHEN NOT has_address THEN ['missing address'] ELSE [] END) AS messages
FROM patient WHERE EXISTS (
    SELECT 1 FROM encounter v WHERE v.patient = patient.id AND v.start_on BETWEEN $period_start AND $period_end)
ORDER BY subject
"""

MEASURES = (
    NativeMeasure(
        id="well-child-15m",
        version="1.0.0",
        title="Six well-child visits by 15 months",
        definition="""\
Initial population and denominator: children who turn 15 months old in the period (and are alive then).
Numerator: well-child visits on at least six different days from birth to the day they turn 15 months: ambulatory,
virtual or home visits (AMB, VR, HH) whose type or reason has a code of the list (ICD-10-CM Z00.1-, Z76.1, Z76.2 and
kin; parameter ``visit_codes``). The rate is only as good as that coding: claims often carry it, EHR exports may not.""",
        basis="boolean",
        types=("Patient", "Encounter"),
        sql=WELL_CHILD,
        parameters={"visit_codes": WELL_VISITS},
    ),
    NativeMeasure(
        id="well-care",
        version="1.0.0",
        title="Well-care visit, 3 to 21 years",
        definition="""\
Initial population and denominator: persons aged 3 to 21 years on the last day of the period, alive.
Numerator: at least one well-care visit in the period, told as for well-child visits (parameter ``visit_codes``).""",
        basis="boolean",
        types=("Patient", "Encounter"),
        sql=WELL_CARE,
        parameters={"visit_codes": WELL_VISITS},
    ),
    NativeMeasure(
        id="social-need-screening",
        version="1.0.0",
        title="Screening for social needs",
        definition="""\
Initial population and denominator: adults (18 years on the first day of the period) with an ambulatory, virtual or home
visit in the period.
Numerator: a final Observation in the period of category ``sdoh``, or with a LOINC code of a screening panel or
question (PRAPARE, AHC-HRSN; parameter ``screenings``).""",
        basis="boolean",
        types=("Patient", "Encounter", "Observation"),
        sql=SCREENING,
        parameters={"screenings": SCREENINGS},
    ),
    NativeMeasure(
        id="data-completeness",
        version="1.0.0",
        title="Complete demographics",
        definition="""\
Initial population and denominator: patients with an encounter in the period.
Numerator: birth date, gender, race, ethnicity (US Core extensions), language and address are all there; what is not
is in the row's messages.""",
        basis="boolean",
        types=("Patient", "Encounter"),
        sql=COMPLETENESS,
    ),
)
