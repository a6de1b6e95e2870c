"""Inpatient episodes: stays of a patient joined while the next starts no later than the day after."""

from __future__ import annotations

# Transfers often carry a time before the previous stay's end, hence the running maximum instead of lag().
EPISODES = """
WITH stay AS (
    SELECT id, patient, start_on, end_on, status, disposition,
           coalesce(end_on, DATE '9999-12-30') AS until_on,
           coalesce(end_at, TIMESTAMP '9999-12-30') AS until_at, start_at
    FROM encounter
    WHERE class IN ('IMP', 'ACUTE', 'NONAC') AND patient IS NOT NULL AND start_on IS NOT NULL
      AND coalesce(status, '') NOT IN ('planned', 'cancelled', 'entered-in-error')
), marked AS (
    SELECT *, start_on > 1 + max(until_on) OVER (
        PARTITION BY patient ORDER BY start_at, until_at, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS fresh
    FROM stay
), numbered AS (
    SELECT *, sum(CASE WHEN coalesce(fresh, true) THEN 1 ELSE 0 END) OVER (
        PARTITION BY patient ORDER BY start_at, until_at, id) AS n
    FROM marked
), episode AS (
    SELECT patient, n, min(start_on) AS admitted_on,
           last(struct_pack(id := id, end_on := end_on, status := status, disposition := disposition)
                ORDER BY until_at, start_at, id) AS last_stay
    FROM numbered GROUP BY patient, n
)"""
"""CTEs ``stay``, ``marked``, ``numbered``, ``episode`` (patient, n, admitted_on, last_stay) over table ``encounter``."""
