"""The point-in-time join, in SQL: events, links and attribution to candidates, candidates to decisions.

Tables on the connection before: ``event``, ``link_first``, ``link_again``, ``attribution_in``,
``consent``, ``provider_org_in``, ``person_in`` and the small tables of subscriptions made by ``route``. All time is
in the parameters ``known_at`` (instant) and ``known_on`` (its day in the exchange's zone).
"""

from __future__ import annotations

# Which members are the events' people. A member's latest link decides, even if it is another person's now; of two links of one
# instant the one that is in doubt.
# Links are read twice, so that a state's millions of them need not be held.
CONCERNED = """
CREATE TEMP TABLE concerned AS
SELECT DISTINCT member_key FROM link_first WHERE person_id IN (SELECT person_id FROM event WHERE material)
"""
LINKS = """
CREATE TEMP TABLE link AS
SELECT member_key, payer_id, person_id, band FROM (
  SELECT member_key, payer_id, person_id, band, known_to,
         row_number() OVER (PARTITION BY member_key ORDER BY known_from DESC, band = 'auto', person_id) AS nth
  FROM link_again WHERE known_from <= $known_at AND member_key IN (SELECT member_key FROM concerned)
)
WHERE nth = 1 AND known_to > $known_at AND person_id IN (SELECT person_id FROM event WHERE material)
"""

# What is known of those members at known_at: the last assertion of each attribution_id. Files of one run share known_from, and a
# late one may speak of an earlier day: their order is list_seq.
ATTRIBUTION = """
CREATE TEMP TABLE attributed AS
SELECT * EXCLUDE (nth) FROM (
  SELECT a.attribution_id, a.payer_id, a.member_key, a.provider_npi, a.provider_tin, a.org_id, a.attribution_level,
         a.basis, a.rank, a.valid_from, a.valid_to, a.known_from, a.known_to, a.as_of_on, a.change_type,
         a.sharing_pref, a.sharing_pref_from, a.samhsa_pref, a.status,
         row_number() OVER (PARTITION BY a.attribution_id ORDER BY a.known_from DESC, a.list_seq DESC NULLS LAST,
           a.as_of_on DESC, a.change_type) AS nth,
         min(a.known_from) OVER (PARTITION BY a.attribution_id) AS first_known
  FROM attribution_in a
  WHERE a.member_key IN (SELECT member_key FROM link WHERE band = 'auto') AND a.known_from <= $known_at
)
WHERE nth = 1 AND known_to > $known_at AND change_type <> 'cancelled' AND valid_from < valid_to
"""

# A cancel goes to those who were told: it is looked up on the day of what it takes back.
LOOKUP = """
CREATE TEMP TABLE told AS
SELECT e.* EXCLUDE (event_on), e.event_on, coalesce(o.event_on, e.event_on) AS lookup_on,
       CASE WHEN o.trigger IS NOT NULL AND e.trigger LIKE 'cancel%' THEN [o.trigger]
            WHEN e.trigger = 'cancel_admit' THEN ['admit', 'register']
            WHEN e.trigger = 'cancel_transfer' THEN ['transfer']
            WHEN e.trigger = 'cancel_discharge' THEN ['discharge']
            ELSE [e.trigger] END AS triggers
FROM event e LEFT JOIN event o ON o.event_key = e.corrects
WHERE e.material AND e.person_id IS NOT NULL
"""

CANDIDATES = """
CREATE TEMP TABLE candidate AS
SELECT row_number() OVER () AS cid, e.event_key, a.*,
       a.valid_from <= e.lookup_on AND e.lookup_on < a.valid_to AS at_event,
       a.valid_from <= $known_on AND $known_on < a.valid_to AS at_delivery,
       a.first_known > e.received_at AS catch_up,
       date_diff('day', e.event_on, (a.first_known AT TIME ZONE 'UTC')::DATE) AS age_days
FROM told e
JOIN link l ON l.person_id = e.person_id AND l.band = 'auto'
JOIN attributed a ON a.member_key = l.member_key
WHERE (a.valid_from <= e.lookup_on AND e.lookup_on < a.valid_to)
   OR (a.valid_from <= $known_on AND $known_on < a.valid_to)
"""

HITS = """
CREATE TEMP TABLE hit AS
SELECT cid, sub, bool_or(kind = 'npi') AS by_npi, bool_or(kind = 'tin') AS by_tin, bool_or(kind = 'org') AS by_org
FROM (
  SELECT c.cid, k.sub, k.kind FROM candidate c JOIN key k ON k.kind = 'npi' AND k.value = c.provider_npi
  UNION ALL
  SELECT c.cid, k.sub, k.kind FROM candidate c JOIN key k ON k.kind = 'tin' AND k.value = c.provider_tin
  UNION ALL
  SELECT c.cid, k.sub, k.kind FROM candidate c JOIN key k ON k.kind = 'org' AND k.value = c.org_id
) GROUP BY cid, sub
"""

# The roster's TIN or organisation decides between several that name one NPI; then provider_org at the
# event; still ambiguous = nobody gets it (a wrong practice is a breach).
PLACES = """
CREATE TEMP TABLE placed AS
WITH judged AS (
  SELECT h.cid, h.sub, c.event_key, c.provider_npi,
         h.by_tin OR h.by_org AS strong,
         NOT h.by_tin AND NOT h.by_org AND (
           (c.provider_tin IS NOT NULL AND len(s.tin) > 0) OR (c.org_id IS NOT NULL AND len(s.org) > 0)
         ) AS elsewhere,
         s.npi_shared
  FROM hit h JOIN candidate c USING (cid) JOIN sub s USING (sub)
), counted AS (
  SELECT *, bool_or(strong) OVER (PARTITION BY cid) AS any_strong,
         count(*) FILTER (WHERE NOT strong AND NOT elsewhere AND NOT npi_shared) OVER (PARTITION BY cid) AS rivals
  FROM judged
), confirmed AS (
  SELECT DISTINCT j.cid, j.sub
  FROM judged j JOIN told e USING (event_key)
  JOIN provider_org_in p ON p.npi = j.provider_npi AND p.valid_from <= e.lookup_on AND e.lookup_on < p.valid_to
  JOIN key k ON k.sub = j.sub AND ((k.kind = 'tin' AND k.value = p.tin) OR (k.kind = 'org' AND k.value = p.org))
  WHERE NOT j.strong
), tally AS (SELECT cid, count(*) AS n FROM confirmed GROUP BY cid)
SELECT r.cid, r.sub,
       CASE WHEN r.strong OR r.npi_shared AND NOT r.elsewhere THEN NULL
            WHEN r.elsewhere THEN 'other_organisation'
            WHEN r.rivals <= 1 THEN NULL
            WHEN t.n = 1 THEN CASE WHEN f.sub IS NULL THEN 'other_organisation' END
            ELSE 'ambiguous_npi' END AS place_reason
FROM counted r LEFT JOIN tally t ON t.cid = r.cid LEFT JOIN confirmed f ON f.cid = r.cid AND f.sub = r.sub
"""

# Clock two, per attribution: may this row still route, and may this payer's?
ROWS = """
CREATE TEMP TABLE offered AS
SELECT c.*, p.sub,
       CASE WHEN c.sharing_pref = 'opt-out' AND coalesce(c.sharing_pref_from, DATE '0001-01-01') <= $known_on
              THEN 'payer_opt_out'
            WHEN c.status = 'suppressed' THEN 'suppressed'
            WHEN NOT CASE s.late WHEN 'event_time' THEN c.at_event
                                 WHEN 'delivery_time' THEN c.at_delivery ELSE true END THEN 'not_attributed_then'
            WHEN p.place_reason IS NOT NULL THEN p.place_reason
            WHEN d.person_id IS NOT NULL THEN 'opted_out_of_payer'
            WHEN s.grace_days IS NOT NULL AND c.valid_to <= $known_on - s.grace_days THEN 'attribution_ended'
            WHEN $stale_days IS NOT NULL AND c.as_of_on < $known_on - $stale_days THEN 'stale_roster'
            WHEN c.catch_up AND c.age_days > s.back_fill_days THEN 'beyond_back_fill'
       END AS row_reason
FROM placed p JOIN candidate c USING (cid) JOIN sub s USING (sub) JOIN told e USING (event_key)
LEFT JOIN (
  SELECT DISTINCT n.person_id, y.payer_id
  FROM consent_now n JOIN (SELECT DISTINCT payer_id FROM candidate) y ON n.party IS NULL OR n.party = y.payer_id
  WHERE n.scope = 'payer' AND n.decision = 'deny'
) d ON d.person_id = e.person_id AND d.payer_id = c.payer_id
WHERE c.at_event OR s.late <> 'event_time'
"""

CONSENT_NOW = """
CREATE TEMP TABLE consent_now AS
SELECT * FROM consent
WHERE valid_from <= $known_on AND $known_on < valid_to AND (known_from IS NULL OR known_from <= $known_at)
"""

# The gate, per event and subscriber; the first rule that holds it names the reason.
GATE = """
CREATE TEMP TABLE gated AS
WITH pair AS (SELECT DISTINCT event_key, sub FROM offered),
exchange AS (
  SELECT person_id, bool_or(decision = 'deny') AS denied, bool_or(decision = 'permit') AS permitted
  FROM consent_now WHERE scope = 'exchange' GROUP BY person_id
),
provider AS (
  SELECT DISTINCT n.person_id, k.sub FROM consent_now n JOIN party k ON n.party IS NULL OR k.value = n.party
  WHERE n.scope = 'provider' AND n.decision = 'deny'
),
part2 AS (
  SELECT n.person_id, k.sub, bool_or(n.decision = 'deny') AS denied,
         max(CASE WHEN n.decision = 'permit' THEN n.statement END) AS statement
  FROM consent_now n JOIN party k ON n.party IS NULL OR k.value = n.party
  WHERE n.scope = 'part2' GROUP BY ALL
),
samhsa AS (
  SELECT event_key, sub FROM offered GROUP BY ALL HAVING bool_or(samhsa_pref = 'opt-out')
)
SELECT q.event_key, q.sub, v.part2, f.statement,
       CASE WHEN NOT s.in_force THEN 'subscription_inactive'
            WHEN e.lookup_on < s.since THEN 'before_subscription'
            WHEN x.denied THEN 'opted_out'
            WHEN $opt_in AND NOT coalesce(x.permitted, false) THEN 'no_opt_in'
            WHEN o.sub IS NOT NULL THEN 'opted_out_of_provider'
            WHEN v.reason IS NOT NULL THEN v.reason
            WHEN v.part2 AND (f.denied OR f.statement IS NULL) THEN 'part2_no_consent'
            WHEN v.substance_use AND z.sub IS NOT NULL THEN 'part2_no_consent'
            WHEN NOT s.self_visits AND (list_contains(s.org, e.facility_id) OR list_contains(s.org, e.facility_npi)
              OR list_contains(s.npi, e.facility_npi)) THEN 'self_visit'
            WHEN NOT s.after_death AND try_cast(left(h.deceased_at, 10) AS DATE) < e.lookup_on THEN 'deceased'
            WHEN len(s.classes) > 0 AND e.trigger <> 'merge' AND NOT coalesce(list_contains(s.classes, e.class), false)
              THEN 'filtered_class'
            WHEN len(s.triggers) > 0 AND NOT list_has_any(s.triggers, e.triggers) THEN 'filtered_trigger'
            WHEN len(s.triggers) = 0 AND e.trigger IN ('preadmit', 'merge') THEN 'filtered_trigger'
            WHEN list_contains(e.flags, 'diagnosis_only') AND len(s.diagnoses) = 0 THEN 'filtered_diagnosis'
            WHEN len(s.diagnoses) > 0 AND NOT coalesce(list_bool_or(list_transform(e.codes,
              lambda x: list_bool_or(list_transform(s.diagnoses, lambda y: starts_with(x, y))))), false)
              THEN 'filtered_diagnosis'
            WHEN s.age_min IS NOT NULL OR s.age_max IS NOT NULL THEN
              CASE WHEN try_cast(h.birth_date AS DATE) IS NULL THEN 'age_unknown'
                   WHEN NOT date_sub('year', try_cast(h.birth_date AS DATE), e.lookup_on)
                     BETWEEN coalesce(s.age_min, 0) AND coalesce(s.age_max, 999) THEN 'filtered_age' END
       END AS gate_reason
FROM pair q JOIN told e USING (event_key) JOIN sub s USING (sub)
LEFT JOIN verdict v ON v.labels_no = e.labels_no AND v.profile = s.profile
LEFT JOIN exchange x ON x.person_id = e.person_id
LEFT JOIN provider o ON o.person_id = e.person_id AND o.sub = q.sub
LEFT JOIN part2 f ON f.person_id = e.person_id AND f.sub = q.sub
LEFT JOIN samhsa z ON z.event_key = q.event_key AND z.sub = q.sub
LEFT JOIN (
  SELECT person_id, min(birth_date) AS birth_date, min(deceased_at) AS deceased_at
  FROM person_in SEMI JOIN told USING (person_id) GROUP BY person_id
) h ON h.person_id = e.person_id
"""

# One row an event x subscriber x channel x provider, listing every payer that names the provider. Lists are
# sorted when whole: an aggregate with an order of its own took three times as long.
DECISIONS = """
CREATE TEMP TABLE routed AS
WITH best AS (
  SELECT event_key, sub, provider_npi, org_id,
         bool_or(row_reason IS NULL) AS allowed,
         min(row_reason) AS row_reason,
         list_sort(coalesce(
           list({'payer': payer_id, 'member': member_key, 'id': attribution_id}) FILTER (WHERE row_reason IS NULL),
           list({'payer': payer_id, 'member': member_key, 'id': attribution_id}))) AS rows_ok,
         bool_and(catch_up) FILTER (WHERE row_reason IS NULL) AS catch_up,
         min(struct_pack(basis := basis_order, since := -epoch(valid_from), level := level_order,
                         hash := attribution_id)) AS first
  FROM (
    SELECT o.*, coalesce(list_position($bases, basis), 99) AS basis_order,
           coalesce(list_position($levels, attribution_level), 99) AS level_order
    FROM offered o
  )
  GROUP BY event_key, sub, provider_npi, org_id
), decided AS (
  SELECT b.*, s.subscriber_id, coalesce(g.gate_reason, CASE WHEN NOT b.allowed THEN b.row_reason END) AS reason,
         g.part2, g.statement, e.person_id, e.trigger, e.triggers, e.class
  FROM best b JOIN gated g USING (event_key, sub) JOIN sub s USING (sub) JOIN told e USING (event_key)
), spread AS (
  SELECT d.*, c.channel_id, c.columns, c.carries_notice
  FROM decided d LEFT JOIN channel c ON d.reason IS NULL AND c.sub = d.sub
   AND (len(c.classes) = 0 OR d.trigger = 'merge' OR coalesce(list_contains(c.classes, d.class), false))
   AND (len(c.triggers) = 0 OR list_has_any(c.triggers, d.triggers))
), named AS (
  SELECT *, CASE WHEN reason IS NOT NULL THEN reason WHEN channel_id IS NULL THEN 'filtered_channel'
                 WHEN part2 AND NOT carries_notice THEN 'part2_no_notice' END AS held
  FROM spread
)
SELECT event_key, person_id, CASE WHEN held IS NULL THEN 'deliver' ELSE 'held' END AS decision,
       coalesce(held, 'attributed') AS reason_code, subscriber_id, channel_id, provider_npi, org_id,
       held IS NULL AND dense_rank() OVER (PARTITION BY event_key ORDER BY held IS NOT NULL, first) = 1 AS "primary",
       list_transform(rows_ok, lambda x: x.payer) AS payer_ids,
       list_transform(rows_ok, lambda x: x.member) AS member_keys,
       list_transform(rows_ok, lambda x: x.id) AS attribution_ids,
       columns, coalesce(catch_up, false) AS catch_up, CASE WHEN part2 THEN statement END AS notice
FROM named
"""

# Events that reached nobody still have one row, which says where they ended.
REST = """
CREATE TEMP TABLE ended AS
SELECT e.event_key, e.person_id,
       CASE WHEN NOT e.material THEN 'swallowed'
            WHEN e.person_id IS NULL OR NOT coalesce(l.linked, false) THEN 'unmatched'
            WHEN c.event_key IS NULL THEN 'unattributed'
            ELSE 'held' END AS decision,
       CASE WHEN NOT e.material THEN coalesce(e.swallowed_reason, 'unchanged')
            WHEN e.person_id IS NULL THEN 'no_person'
            WHEN l.person_id IS NULL THEN 'no_member'
            WHEN NOT l.linked THEN 'match_in_review'
            WHEN c.event_key IS NULL THEN 'no_attribution'
            ELSE 'no_subscription' END AS reason_code
FROM event e
LEFT JOIN (SELECT person_id, bool_or(band = 'auto') AS linked FROM link GROUP BY person_id) l
  ON l.person_id = e.person_id
LEFT JOIN (SELECT DISTINCT event_key FROM candidate WHERE at_event) c ON c.event_key = e.event_key
WHERE e.event_key NOT IN (SELECT event_key FROM routed)
"""

RESULT = """
SELECT event_key, person_id, decision, reason_code, NULL AS reason, subscriber_id, channel_id, provider_npi, org_id,
       "primary", payer_ids, member_keys, attribution_ids, $known_at AS known_at, columns, false AS replay, catch_up,
       notice
FROM routed
UNION ALL
SELECT event_key, person_id, decision, reason_code, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, $known_at,
       NULL, false, false, NULL
FROM ended
ORDER BY ALL
"""
