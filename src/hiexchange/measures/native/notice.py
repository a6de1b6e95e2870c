"""Notice of a discharge within 24 hours: routing and delivery, measured as quality."""

from __future__ import annotations

from hiexchange.measures.native.model import NativeMeasure

DEFINITION = """\
Episode: one discharge from an inpatient or emergency visit (ENCOUNTER_EVENT: trigger discharge, class IMP, ACUTE,
NONAC, EMER or OBSENC, material, of a known person), told by facility and visit number; its first version counts, and
a discharge cancelled afterwards does not.
Initial population: discharges on days of the period.
Denominator: those a notice is owed for: the ledger holds a delivery to at least one subscriber that was neither
cancelled nor superseded. Discharges of people attributed to nobody, or held by policy, owe none.
Numerator: every subscriber who is owed it acknowledged a notice of it, over any channel, within 24 hours (parameter
``hours``) of the discharge. A notice sent without acknowledgement is not yet a notice."""

SQL = """
WITH told AS (
    SELECT facility_id, visit_number, first(struct_pack(person := person_id, at := event_at, on_day := event_on,
               encounter := coalesce(encounter_id, visit_number)) ORDER BY event_at, version) AS d,
           list(event_key) AS keys
    FROM encounter_event
    WHERE "trigger" = 'discharge' AND material AND person_id IS NOT NULL
      AND class IN ('IMP', 'ACUTE', 'NONAC', 'EMER', 'OBSENC')
    GROUP BY facility_id, visit_number
), standing AS (
    SELECT * FROM told t WHERE NOT EXISTS (
        SELECT 1 FROM encounter_event c
        WHERE c.facility_id = t.facility_id AND c.visit_number = t.visit_number
          AND c."trigger" = 'cancel_discharge' AND c.event_at >= t.d.at)
), owed AS (
    SELECT s.facility_id, s.visit_number, v.subscriber_id,
           min(v.acked_at) AS acked_at, first(v.delivery_id ORDER BY v.acked_at NULLS LAST, v.delivery_id) AS delivery_id
    FROM standing s JOIN delivery v ON list_contains(s.keys, v.event_key)
    WHERE v.state NOT IN ('cancelled', 'superseded')
    GROUP BY ALL
), judged AS (
    SELECT s.facility_id, s.visit_number, any_value(s.d) AS d, count(o.subscriber_id) AS owed,
           coalesce(bool_and(coalesce(o.acked_at <= s.d.at + $hours * INTERVAL 1 HOUR, false)), false) AS in_time,
           list(o.delivery_id ORDER BY o.delivery_id) FILTER (o.delivery_id IS NOT NULL) AS deliveries
    FROM standing s LEFT JOIN owed o USING (facility_id, visit_number)
    GROUP BY s.facility_id, s.visit_number
)
SELECT d.person AS subject, 'Encounter/' || d.encounter AS episode, 1 AS initial_population,
       (owed > 0)::INT AS denominator, (owed > 0 AND in_time)::INT AS numerator,
       list_transform(coalesce(deliveries, []), lambda x: {'type': 'Delivery', 'id': x, 'source': 'ledger'}) AS evidence
FROM judged
WHERE d.on_day BETWEEN $period_start AND $period_end
ORDER BY subject, d.at, episode
"""

MEASURES = (
    NativeMeasure(
        id="notice-24h",
        version="1.0.0",
        title="Notice of discharge within 24 hours",
        definition=DEFINITION,
        basis="Encounter",
        types=(),
        corridor=("encounter_event", "delivery"),
        sql=SQL,
        parameters={"hours": 24},
    ),
)
