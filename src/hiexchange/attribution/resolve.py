"""Resolution is a policy, not a deletion: every payer's row stays, this says who may receive, and why.

``resolve`` answers for one day and one knowledge time. Two payers that name one provider give one
recipient that lists both; a clinician who works in several places is blocked until something says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from hiexchange._duck import quiet_connection
from hiexchange.attribution.knowledge import active
from hiexchange.tables import ATTRIBUTION_BASES, ATTRIBUTION_LEVELS, DAY, FLAG, INT, TEXT, TEXTS, Column, Table, check

RECIPIENT = Table(
    "recipient",
    "One person x candidate recipient on a day, with the reason.",
    ("person_id", "member_key", "provider_npi", "provider_tin", "org_id"),
    (
        Column("person_id", TEXT, "linked person; null when unmatched: never routed, always reported"),
        Column("member_key", TEXT, "first of the members that name the recipient", True),
        Column("provider_npi", TEXT, "clinician; null for a practice or organisation"),
        Column("provider_tin", TEXT, "tax id of the practice"),
        Column("org_id", TEXT, "organisation"),
        Column("decision", TEXT, "deliver, blocked, suppressed, stale or unmatched", True),
        Column("reason", TEXT, "attributed, rerouted, ambiguous_npi, opt_out, disputed, stale_list, unmatched", True),
        Column("primary", FLAG, "first of the person's recipients by the policy's order", True),
        Column("place", INT, "1, 2, ... in that order", True),
        Column("payer_ids", TEXTS, "payers that name the recipient, sorted", True),
        Column("attribution_ids", TEXTS, "rows of ATTRIBUTION behind it, sorted", True),
        Column("basis", TEXT, "strongest basis among them", True),
        Column("valid_from", DAY, "latest start among them", True),
    ),
)

PROVIDER_ORG_COLUMNS = ("npi", "tin", "org", "valid_from", "valid_to")
"""Where clinicians work and when: columns of the ``provider_org`` argument (half-open dates)."""


@dataclass(frozen=True)
class Policy:
    """How recipients are ordered, and when a list is too old to act on."""

    basis_order: tuple[str, ...] = ATTRIBUTION_BASES
    level_order: tuple[str, ...] = ATTRIBUTION_LEVELS
    payer_order: tuple[str, ...] = ()
    """Payers by precedence (Medicare first, say); others follow."""
    stale_after_days: int | None = 90
    """Days after a list's last as-of date on which it stops routing, as DPC and Connie do; None: never."""
    allow_ambiguous: bool = False
    """Deliver to every place of a clinician with several: a breach waiting to happen, so off."""


def resolve(
    history: Any,
    links: Any,
    on: date,
    *,
    known_at: datetime,
    policy: Policy | None = None,
    provider_org: Any = None,
) -> pa.Table:
    """Return every recipient of every attributed person on a day, with decision and reason.

    Args:
        history: ATTRIBUTION rows as stored.
        links: PERSON_LINK rows; only the band ``auto`` links.
        on: The day, local at the facility.
        known_at: Knowledge time.
        policy: Order and limits.
        provider_org: Where clinicians work: npi, tin, org, valid_from, valid_to (half-open); None when
            nothing is known. A clinician without practice in the roster is looked up there: one place
            settles it, several block, and after the last one ended its rows go to that organisation's inbox.

    Returns:
        RECIPIENT rows, sorted by person and place. The order of the inputs has no effect.

    Raises:
        SchemaMismatch: A table is not what it should be.
    """
    rules = policy or Policy()
    con = quiet_connection()
    try:
        con.register("a", active(history, on, known_at))
        con.register("link", _links(links, known_at))
        con.register("place", _places(provider_org))
        con.register("basis_rank", _ranks(rules.basis_order))
        con.register("level_rank", _ranks(rules.level_order))
        con.register("payer_rank", _ranks(rules.payer_order))
        limits = {"on": on, "stale": rules.stale_after_days, "several": rules.allow_ambiguous}
        found = con.sql(_RECIPIENTS, params=limits).to_arrow_table()
    finally:
        con.close()
    return check(found, RECIPIENT)


def _links(links: Any, known_at: datetime) -> pa.Table:
    table = links if isinstance(links, pa.Table) else pa.table(links)
    con = quiet_connection()
    try:
        con.execute("SET TimeZone = 'UTC'")
        con.register("l", table)
        return con.sql(
            "SELECT member_key, person_id FROM (SELECT * FROM l WHERE known_from <= $at QUALIFY row_number() OVER "
            "(PARTITION BY member_key ORDER BY known_from DESC) = 1) WHERE band = 'auto' AND known_to > $at",
            params={"at": known_at},
        ).to_arrow_table()
    finally:
        con.close()


def _places(provider_org: Any) -> pa.Table:
    types = (TEXT, TEXT, TEXT, DAY, DAY)
    schema = pa.schema(list(zip(PROVIDER_ORG_COLUMNS, types, strict=True)))
    if provider_org is None:
        return schema.empty_table()
    table = provider_org if isinstance(provider_org, pa.Table) else pa.table(provider_org)
    return table.select(list(PROVIDER_ORG_COLUMNS)).cast(schema)


def _ranks(names: tuple[str, ...]) -> pa.Table:
    return pa.table({"name": pa.array(names, TEXT), "n": pa.array(range(len(names)), INT)})


_RECIPIENTS = """
WITH lists AS (SELECT payer_id, list_id, max(as_of_on) AS last_on FROM a GROUP BY ALL),
here AS (SELECT npi, tin, org FROM place WHERE valid_from <= $on AND $on < valid_to GROUP BY ALL),
before AS (
    SELECT npi, arg_max(org, valid_to) AS org, arg_max(tin, valid_to) AS tin FROM place
    WHERE valid_to <= $on AND npi NOT IN (SELECT npi FROM here) GROUP BY npi),
settled AS (SELECT npi, count(*) AS places, any_value(tin) AS tin, any_value(org) AS org FROM here GROUP BY npi),
candidate AS (
    SELECT l.person_id, a.member_key, a.payer_id, a.attribution_id, a.basis, a.valid_from, a.attribution_level AS level,
        -- A clinician who left every place is reached through the last one's inbox.
        CASE WHEN b.npi IS NOT NULL THEN NULL ELSE a.provider_npi END AS npi,
        coalesce(a.provider_tin, CASE WHEN s.places = 1 THEN s.tin END, b.tin) AS tin,
        coalesce(a.org_id, CASE WHEN s.places = 1 THEN s.org END, b.org) AS org,
        CASE WHEN l.person_id IS NULL THEN 'unmatched'
            WHEN a.status = 'suppressed' THEN CASE WHEN a.reason_code = 'opt_out' THEN 'opt_out' ELSE 'disputed' END
            WHEN $stale::INTEGER IS NOT NULL AND lists.last_on + $stale::INTEGER < $on THEN 'stale_list'
            WHEN a.provider_tin IS NULL AND a.org_id IS NULL AND s.places > 1 AND NOT $several THEN 'ambiguous_npi'
            WHEN b.npi IS NOT NULL THEN 'rerouted' ELSE 'attributed' END AS reason
    FROM a LEFT JOIN link l USING (member_key)
    LEFT JOIN lists ON lists.payer_id = a.payer_id AND lists.list_id IS NOT DISTINCT FROM a.list_id
    LEFT JOIN settled s ON s.npi = a.provider_npi
    LEFT JOIN before b ON b.npi = a.provider_npi),
ranked AS (
    SELECT c.*, coalesce(x.n, 99) AS basis_n, coalesce(y.n, 99) AS level_n, coalesce(z.n, 99) AS payer_n
    FROM candidate c LEFT JOIN basis_rank x ON x.name = c.basis LEFT JOIN level_rank y ON y.name = c.level
    LEFT JOIN payer_rank z ON z.name = c.payer_id),
merged AS (
    SELECT person_id, min(member_key) AS member_key, npi, tin, org, reason, list_sort(list_distinct(list(payer_id))) AS payers,
        list_sort(list(attribution_id)) AS ids, arg_min(basis, basis_n) AS basis, max(valid_from) AS valid_from,
        min(basis_n) AS basis_n, min(level_n) AS level_n, min(payer_n) AS payer_n
    FROM ranked GROUP BY person_id, CASE WHEN person_id IS NULL THEN member_key END, npi, tin, org, reason),
placed AS (
    SELECT *, CASE reason WHEN 'attributed' THEN 'deliver' WHEN 'rerouted' THEN 'deliver' WHEN 'unmatched' THEN 'unmatched'
        WHEN 'stale_list' THEN 'stale' WHEN 'ambiguous_npi' THEN 'blocked' ELSE 'suppressed' END AS decision,
        row_number() OVER (
            PARTITION BY coalesce(person_id, member_key)
            ORDER BY (reason NOT IN ('attributed', 'rerouted')), basis_n, valid_from DESC, level_n, payer_n, ids[1]) AS place
    FROM merged)
SELECT person_id, member_key, npi AS provider_npi, tin AS provider_tin, org AS org_id, decision, reason,
    place = 1 AND decision = 'deliver' AS "primary", place, payers AS payer_ids, ids AS attribution_ids, basis, valid_from
FROM placed ORDER BY person_id NULLS LAST, member_key, place
"""
