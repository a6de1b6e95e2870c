"""Export as The Tuva Project's input table ``provider_attribution``: one provider a member month."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pyarrow as pa

from hiexchange._duck import quiet_connection
from hiexchange.attribution.knowledge import as_known
from hiexchange.attribution.resolve import Policy

COLUMNS = (
    *("person_id", "patient_id", "member_id", "year_month", "payer", "plan", "data_source"),
    *("payer_attributed_provider", "payer_attributed_provider_practice"),
    *("payer_attributed_provider_organization", "payer_attributed_provider_lob"),
    *("custom_attributed_provider", "custom_attributed_provider_practice"),
    *("custom_attributed_provider_organization", "custom_attributed_provider_lob"),
)
"""Exactly the columns of input_layer provider_attribution (tuva 6be34c7), all text."""
SCHEMA = pa.schema([pa.field(name, pa.string()) for name in COLUMNS])


def provider_attribution(
    history: Any,
    links: Any,
    *,
    months: tuple[date, date],
    known_at: datetime,
    data_source: str,
    policy: Policy | None = None,
) -> tuple[pa.Table, pa.Table]:
    """Return Tuva's table, and the rows beside it that its key has no place for.

    Args:
        history: ATTRIBUTION rows as stored.
        links: PERSON_LINK rows; members without an automatic link are left out of both tables.
        months: First and last month, any day of each.
        known_at: Knowledge time.
        data_source: Name of this exchange.
        policy: Order among several providers of a member; the first one is exported.

    Returns:
        ``(primary, others)``, both with :data:`COLUMNS`. A member month shows who is attributed on
        its last day. ``year_month`` is YYYYMM: Tuva documents no format.
    """
    rules = policy or Policy()
    con = quiet_connection()
    try:
        con.execute("SET TimeZone = 'UTC'")
        con.register("k", as_known(history, known_at))
        con.register("l", links if isinstance(links, pa.Table) else pa.table(links))
        for name, order in (("basis_rank", rules.basis_order), ("level_rank", rules.level_order)):
            con.register(name, pa.table({"name": list(order), "n": list(range(len(order)))}))
        given = {"first": months[0], "last": months[1], "at": known_at, "source": data_source}
        con.execute(f"CREATE TEMP TABLE found AS {_MONTHS}", given)
        names = ", ".join(COLUMNS)
        sort = "ORDER BY year_month, payer, member_id, plan, nth"
        primary = con.sql(f"SELECT {names} FROM found WHERE nth = 1 {sort}").to_arrow_table()
        others = con.sql(f"SELECT {names} FROM found WHERE nth > 1 {sort}").to_arrow_table()
    finally:
        con.close()
    return primary.cast(SCHEMA), others.cast(SCHEMA)


_MONTHS = """
WITH months AS (
    SELECT last_day(d::DATE) AS month_end
    FROM generate_series(date_trunc('month', $first::DATE), date_trunc('month', $last::DATE), INTERVAL 1 MONTH) g(d)),
linked AS (
    SELECT member_key, person_id FROM (FROM l WHERE known_from <= $at
        QUALIFY row_number() OVER (PARTITION BY member_key ORDER BY known_from DESC) = 1)
    WHERE band = 'auto' AND known_to > $at),
rows AS (
    SELECT x.person_id, k.*, strftime(m.month_end, '%Y%m') AS year_month, coalesce(b.n, 99) AS basis_n,
        coalesce(v.n, 99) AS level_n
    FROM k JOIN linked x USING (member_key) JOIN months m ON k.valid_from <= m.month_end AND m.month_end < k.valid_to
    LEFT JOIN basis_rank b ON b.name = k.basis LEFT JOIN level_rank v ON v.name = k.attribution_level)
SELECT person_id, person_id AS patient_id, member_id, year_month, payer_id AS payer,
    coalesce(plan_id, contract_id, payer_id) AS plan, $source AS data_source,
    coalesce(provider_npi, provider_tin, org_id) AS payer_attributed_provider,
    coalesce(provider_tin, location_id) AS payer_attributed_provider_practice,
    org_id AS payer_attributed_provider_organization, line_of_business AS payer_attributed_provider_lob,
    NULL::VARCHAR AS custom_attributed_provider, NULL::VARCHAR AS custom_attributed_provider_practice,
    NULL::VARCHAR AS custom_attributed_provider_organization, NULL::VARCHAR AS custom_attributed_provider_lob,
    row_number() OVER (
        PARTITION BY person_id, member_id, payer_id, coalesce(plan_id, contract_id, payer_id), year_month
        ORDER BY basis_n, valid_from DESC, level_n, coalesce(rank, 9999), attribution_id) AS nth
FROM rows
"""
