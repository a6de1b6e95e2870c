"""Put bits, rule and guard to compared pairs: :mod:`.weights` and :mod:`.rules` applied to one index."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from hiexchange.matching import rules
from hiexchange.matching.weights import Weights, rarity_sql, score_sql


@dataclass(frozen=True, slots=True)
class Policy:
    """What kind of people the tables hold, and how much doubt is borne."""

    households: bool = True
    """False: the records are unrelated individuals, so the score decides alone. Never for payers' rosters."""
    min_gap: float = 3.0
    """Bits by which the best candidate must beat the runner-up, and a claim on a person the next claim."""
    auto_bits: float | None = None
    """Overrides the threshold of the weights."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """Weights, and what of the index they depend on."""

    weights: Weights
    people: int
    """Records in the index: the prior is one right one among them."""
    days: float
    """Effective number of birth dates (inverse Simpson index)."""
    policy: Policy = Policy()

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, weights: Weights, policy: Policy) -> Scoring:
        """Measure the prepared index ``p``."""
        people = int(con.execute("SELECT count(*) FROM p").fetchall()[0][0])
        days = con.execute(
            "SELECT sum(c) * sum(c) / sum(c * c) FROM (SELECT count(*)::DOUBLE AS c FROM p WHERE b IS NOT NULL GROUP BY b)"
        ).fetchall()[0][0]
        # A handful of records says nothing about how birth dates spread.
        return cls(weights, people, max(float(days or 0.0), min(20_000.0, 20.0 * people), 1.0), policy)

    def select(self, source: str = "levels") -> str:
        """Return a SELECT that adds expected, expected_first, bits, closeness, rule, guard, withdrawn to compared pairs."""
        auto = self.weights.auto_bits if self.policy.auto_bits is None else self.policy.auto_bits
        rule, guard, closeness = rules.rule_sql(auto), rules.guard_sql(), rules.CLOSENESS
        if not self.policy.households:
            rule, guard, closeness = (
                f"CASE WHEN bits >= {auto} THEN {len(rules.RULES) - 1} END",
                "NULL::VARCHAR",
                "bits",
            )
        return f"""
            SELECT * EXCLUDE rarity, {closeness} AS closeness, {rule} AS rule, {guard} AS guard,
                   false AS withdrawn
            FROM (SELECT *, cf::DOUBLE * cl / {max(self.people, 1)} / {self.days} AS expected, cf::DOUBLE / {self.days} AS expected_first,
                         {score_sql(self.weights, self.people)} AS bits, {rarity_sql(self.weights, self.people)} AS rarity FROM {source})
            """
