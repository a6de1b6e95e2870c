"""The questions feedback asks, in SQL. Everything starts from one payer's own rows: no other payer's enter.

Parameters: ``payer``, ``first`` and ``after`` (local dates, half-open), ``known_at``.
"""

from __future__ import annotations

LINKS = """
CREATE TEMP TABLE link AS
SELECT * EXCLUDE (nth) FROM (
  SELECT *, row_number() OVER (PARTITION BY member_key ORDER BY known_from DESC, band = 'auto', person_id) AS nth
  FROM link_in WHERE payer_id = $payer AND known_from <= $known_at
) WHERE nth = 1 AND known_to > $known_at
"""

ATTRIBUTION = """
CREATE TEMP TABLE attributed AS
SELECT * EXCLUDE (nth) FROM (
  SELECT *, row_number() OVER (
    PARTITION BY attribution_id ORDER BY known_from DESC, list_seq DESC NULLS LAST, as_of_on DESC, change_type) AS nth
  FROM attribution_in WHERE payer_id = $payer AND known_from <= $known_at
) WHERE nth = 1 AND known_to > $known_at AND change_type <> 'cancelled' AND valid_from < valid_to
"""

# (b) A conflict is a field that speaks against the link; its value stays with us.
MATCHES = """
SELECT member_id, l.member_key, band, grade, method, rule, l.candidates,
       list_transform(list_filter(coalesce(evidence, []), lambda x: x.bits < 0), lambda x: x.field) AS conflicts,
       l.reason
FROM link l
LEFT JOIN (SELECT member_key, any_value(member_id) AS member_id FROM attribution_in WHERE payer_id = $payer
           GROUP BY member_key) a USING (member_key)
ORDER BY member_id, member_key
"""

# The payer's events: of its members, attributed by its own roster, inside its coverage, in the period.
EVENTS = """
CREATE TEMP TABLE theirs AS
SELECT e.*, a.member_id, a.member_key, a.provider_npi, a.org_id, a.attribution_id,
       len(list_filter(coalesce(e.labels, []), lambda x: NOT list_contains($open_labels, upper(x)))) > 0 AS labelled
FROM event_in e
JOIN link l ON l.person_id = e.person_id AND l.band = 'auto'
JOIN attributed a ON a.member_key = l.member_key AND a.valid_from <= e.event_on AND e.event_on < a.valid_to
WHERE e.material AND $first <= e.event_on AND e.event_on < $after
  AND (a.coverage_from IS NULL OR a.coverage_from <= e.event_on)
  AND (a.coverage_to IS NULL OR e.event_on < a.coverage_to)
"""

# What the person or the law keeps from this payer, by the reasons of routing.
WITHHELD = """
CREATE TEMP TABLE withheld AS
SELECT event_key, attribution_id FROM theirs WHERE labelled
UNION
SELECT t.event_key, t.attribution_id FROM theirs t JOIN decision_in d USING (event_key)
WHERE list_contains($private, d.reason_code)
  AND (d.attribution_ids IS NULL OR list_contains(d.attribution_ids, t.attribution_id)
       OR d.reason_code IN ('opted_out', 'no_opt_in'))
"""

DELIVERED = """
CREATE TEMP TABLE fate AS
SELECT d.event_key, unnest(d.attribution_ids) AS attribution_id, d.subscriber_id, d.channel_id,
       v.state, v.acked_at, v.batch_id, r.sent_at
FROM decision_in d
LEFT JOIN delivery_in v ON v.event_key = d.event_key AND v.subscriber_id = d.subscriber_id AND v.channel_id = d.channel_id
LEFT JOIN (SELECT batch_id, min(started_at) AS sent_at FROM receipt_in GROUP BY batch_id) r ON r.batch_id = v.batch_id
WHERE d.decision = 'deliver'
"""

# (c) One row a member, event and attributed provider; the best delivery stands for several channels.
PERFORMANCE = """
CREATE TEMP TABLE performance AS
SELECT t.member_id, t.member_key, t.event_key, t.trigger, t.event_on, t.event_at, t.class, t.facility_name,
       t.facility_npi, t.visit_number, t.period_start_at, t.period_end_at, t.discharge_disposition, t.provider_npi, t.org_id,
       CASE WHEN count(f.subscriber_id) = 0 THEN 'not_sent' WHEN bool_or(f.state = 'acked') THEN 'acked'
            WHEN bool_or(f.state IS NULL OR f.state IN ('pending', 'claimed', 'sent', 'retry', 'unknown')) THEN 'pending'
            WHEN bool_or(f.state = 'dead') THEN 'dead' ELSE 'held' END AS outcome,
       min(f.sent_at) AS delivered_at, min(f.acked_at) AS acked_at,
       CASE WHEN min(f.acked_at) IS NOT NULL THEN epoch(min(f.acked_at)) - epoch(any_value(t.received_at)) END AS latency_s,
       list_sort(list_distinct(list(c.kind) FILTER (WHERE c.kind IS NOT NULL))) AS channel_kinds
FROM theirs t
LEFT JOIN fate f ON f.event_key = t.event_key AND f.attribution_id = t.attribution_id
LEFT JOIN channel_in c ON c.subscriber_id = f.subscriber_id AND c.channel_id = f.channel_id
WHERE NOT EXISTS (SELECT 1 FROM withheld w WHERE w.event_key = t.event_key AND w.attribution_id = t.attribution_id)
GROUP BY ALL
"""

PERFORMANCE_ROWS = """
SELECT * EXCLUDE (event_at) FROM performance ORDER BY event_at, member_id, event_key, provider_npi, org_id
"""

# (d) Episodes are inpatient discharges; follow-up is an ambulatory visit after the day of discharge.
SCORECARD = """
WITH provider AS (
  SELECT coalesce(provider_npi, '') AS npi, coalesce(org_id, '') AS org, count(DISTINCT member_key) AS members
  FROM attributed WHERE valid_from < $after AND valid_to > $first GROUP BY ALL
), sent AS (
  SELECT coalesce(provider_npi, '') AS npi, coalesce(org_id, '') AS org, count(*) AS events,
         count(*) FILTER (WHERE outcome <> 'not_sent') AS notices,
         count(*) FILTER (WHERE delivered_at IS NOT NULL OR outcome = 'acked') AS delivered,
         count(*) FILTER (WHERE outcome = 'acked') AS acked,
         count(*) FILTER (WHERE outcome = 'dead') AS undeliverable, median(latency_s) AS median_latency_s
  FROM performance GROUP BY ALL
), discharge AS (
  SELECT DISTINCT ON (member_key, visit_number, npi, org) coalesce(provider_npi, '') AS npi, coalesce(org_id, '') AS org,
         member_key, visit_number, event_on
  FROM performance WHERE trigger = 'discharge' AND class IN ('IMP', 'ACUTE', 'NONAC')
    AND coalesce(discharge_disposition, '') NOT IN ('exp', '20', 'hosp', '50', '51')
  ORDER BY event_on DESC
), after AS (
  SELECT DISTINCT l.member_key, e.visit_number, e.class, e.trigger, e.event_on
  FROM event_in e JOIN link l ON l.person_id = e.person_id AND l.band = 'auto'
  WHERE e.material AND len(list_filter(coalesce(e.labels, []), lambda x: NOT list_contains($open_labels, upper(x)))) = 0
), episode AS (
  SELECT d.npi, d.org, d.member_key, d.visit_number, d.event_on,
         bool_or(a.class IN ('AMB', 'VR', 'HH') AND a.event_on > d.event_on AND a.event_on <= d.event_on + 7) AS seen_7,
         bool_or(a.class IN ('AMB', 'VR', 'HH') AND a.event_on > d.event_on AND a.event_on <= d.event_on + 30) AS seen_30,
         bool_or(a.class IN ('IMP', 'ACUTE') AND a.trigger IN ('admit', 'transfer') AND a.visit_number <> d.visit_number
                 AND a.event_on >= d.event_on AND a.event_on <= d.event_on + 30) AS back_30
  FROM discharge d LEFT JOIN after a USING (member_key) GROUP BY ALL
), outcome AS (
  -- An episode whose thirty days are not over cannot be judged yet.
  SELECT npi, org, count(*) FILTER (WHERE event_on + 7 < $known_on) AS discharges_7,
         count(*) FILTER (WHERE event_on + 7 < $known_on AND coalesce(seen_7, false)) AS followed_7,
         count(*) FILTER (WHERE event_on + 30 < $known_on) AS discharges_30,
         count(*) FILTER (WHERE event_on + 30 < $known_on AND coalesce(seen_30, false)) AS followed_30,
         count(*) FILTER (WHERE event_on + 30 < $known_on AND coalesce(back_30, false)) AS readmitted_30
  FROM episode GROUP BY ALL
)
SELECT nullif(p.npi, '') AS provider_npi, nullif(p.org, '') AS org_id, p.members, coalesce(s.events, 0) AS events,
       coalesce(s.notices, 0) AS notices, coalesce(s.delivered, 0) AS delivered, coalesce(s.acked, 0) AS acked,
       coalesce(s.undeliverable, 0) AS undeliverable, s.median_latency_s,
       coalesce(o.discharges_7, 0) AS discharges_7, coalesce(o.followed_7, 0) AS followed_7,
       coalesce(o.discharges_30, 0) AS discharges_30, coalesce(o.followed_30, 0) AS followed_30,
       coalesce(o.readmitted_30, 0) AS readmitted_30
FROM provider p LEFT JOIN sent s USING (npi, org) LEFT JOIN outcome o USING (npi, org)
ORDER BY p.npi, p.org
"""

# Measures computed elsewhere, by the provider attributed on the period's last day.
MEASURES = """
SELECT a.provider_npi, a.org_id, m.measure, m."group",
       sum(coalesce(m.denominator, 0) - least(coalesce(m.denominator_exclusion, 0) + coalesce(m.denominator_exception, 0),
           coalesce(m.denominator, 0))) AS denominator,
       sum(CASE WHEN coalesce(m.denominator_exclusion, 0) + coalesce(m.denominator_exception, 0) = 0
                THEN coalesce(m.numerator, 0) ELSE 0 END) AS numerator
FROM result_in m JOIN link l ON l.person_id = m.subject AND l.band = 'auto'
JOIN attributed a ON a.member_key = l.member_key AND a.valid_from <= $last AND $last < a.valid_to
WHERE m.status = 'ok'
GROUP BY ALL ORDER BY ALL
"""

CHANGES = """
SELECT roster_id, as_of_on, count(*) AS rows, min(known_from) AS accepted_at,
       count(*) FILTER (WHERE change_type = 'new') AS new,
       count(*) FILTER (WHERE change_type = 'changed') AS changed,
       count(*) FILTER (WHERE change_type = 'dropped') AS dropped,
       count(*) FILTER (WHERE change_type = 'nochange') AS nochange,
       count(*) FILTER (WHERE change_type = 'cancelled') AS cancelled
FROM attribution_in WHERE payer_id = $payer AND known_from <= $known_at GROUP BY ALL ORDER BY as_of_on, roster_id
"""

MISDIRECTED = """
SELECT d.event_key, d.subscriber_id, d.channel_id, v.delivery_id, v.state, v.acked_at, k.member_key,
       CASE WHEN l.person_id IS DISTINCT FROM d.person_id OR l.band <> 'auto' THEN 'person_changed'
            WHEN a.attribution_id IS NULL OR a.change_type = 'cancelled' OR a.valid_from >= a.valid_to
              OR NOT (a.valid_from <= e.event_on AND e.event_on < a.valid_to) THEN 'attribution_withdrawn'
       END AS why
FROM (SELECT * FROM decision_in WHERE decision = 'deliver') d
JOIN (SELECT event_key, subscriber_id, channel_id, provider_npi, org_id,
             unnest(member_keys) AS member_key, unnest(attribution_ids) AS attribution_id FROM decision_in
      WHERE decision = 'deliver') k
  ON k.event_key = d.event_key AND k.subscriber_id = d.subscriber_id AND k.channel_id = d.channel_id
 AND k.provider_npi IS NOT DISTINCT FROM d.provider_npi AND k.org_id IS NOT DISTINCT FROM d.org_id
JOIN event_in e ON e.event_key = d.event_key
JOIN delivery_in v ON v.event_key = d.event_key AND v.subscriber_id = d.subscriber_id AND v.channel_id = d.channel_id
LEFT JOIN (SELECT * FROM link_in WHERE known_from <= $known_at
           QUALIFY row_number() OVER (PARTITION BY member_key ORDER BY known_from DESC, band = 'auto') = 1) l ON l.member_key = k.member_key
LEFT JOIN (SELECT * FROM attribution_in WHERE known_from <= $known_at
           QUALIFY row_number() OVER (PARTITION BY attribution_id
             ORDER BY known_from DESC, list_seq DESC NULLS LAST, as_of_on DESC, change_type) = 1) a
  ON a.attribution_id = k.attribution_id
WHERE v.state IN ('sent', 'unknown', 'acked') AND why IS NOT NULL
ORDER BY v.acked_at, v.delivery_id, k.member_key
"""
