"""Say why a member and a person were, or were not, taken for one: field by field, in words and bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from hiexchange import tables
from hiexchange.errors import DataError
from hiexchange.matching import compare, prepare, rules
from hiexchange.matching.score import Policy, Scoring
from hiexchange.matching.weights import FIELD_SQL, LEVELS, Weights, field_bits_sql, load_weights


@dataclass(frozen=True)
class Explanation:
    """What speaks for and against one pair. Holds levels, never names or dates."""

    fields: tuple[tuple[str, str, float], ...]
    """Field, level and bits of each field both sides have."""
    prior: float
    """Bits of the prior: one right record in the whole index."""
    bits: float
    """The sum: log2 odds that the two are one person."""
    rule: str | None
    """Rule of the cascade the pair meets, if no guard holds."""
    guard: str | None
    """Why the pair may not be linked unseen, if it may not."""
    grade: float | None
    """HL7 Identity Matching grade."""
    expected: float
    """Other people of the index expected to share name and birth date by chance."""

    def text(self) -> str:
        """Return the explanation as lines of text."""
        lines = [f"{field:<8} {level:<38} {bits:+7.1f}" for field, level, bits in self.fields]
        lines.append(f"{'prior':<8} {'one right record in the index':<38} {self.prior:+7.1f}")
        lines.append(f"{'sum':<8} {'':<38} {self.bits:+7.1f}")
        verdict = f"guard: {self.guard}" if self.guard else f"rule: {self.rule}" if self.rule else "no rule is met"
        lines.append(
            f"{verdict}; grade {self.grade if self.grade is not None else 'none'}; namesakes expected {self.expected:.2g}"
        )
        return "\n".join(lines)


def explain(
    members: Any,
    persons: Any,
    *,
    member_key: str,
    person_id: str,
    weights: Weights | None = None,
    policy: Policy | None = None,
) -> Explanation:
    """Explain one pair as :func:`~hiexchange.matching.match` sees it.

    Competition is not part of it: a pair may meet a rule and still be reviewed, because another person fits as well
    or the data objected to the rule. PERSON_LINK.reason tells.

    Args:
        members: MEMBER rows that hold the member.
        persons: PERSON rows: the whole index, since how common a name is depends on it.
        member_key: The member.
        person_id: The person.
        weights: As for ``match``.
        policy: As for ``match``.

    Raises:
        SchemaMismatch: A table lacks a column of its corridor schema.
        DataError: The member or the person is not in the tables.
    """
    weights = weights or load_weights()
    rows = tables.check(members, tables.MEMBER)
    con = prepare.connect()
    try:
        prepare.prepare_persons(con, tables.check(persons, tables.PERSON))
        prepare.prepare_members(con, rows.filter(pc.equal(rows["member_key"], member_key)))
        prepare.finish(con)
        con.execute("CREATE TABLE pairs AS SELECT m.n AS ln, p.n AS rn FROM m, p WHERE p.key = $1", [person_id])
        compare.id_pairs(con)
        compare.compare_pairs(con, everything=True)
        scoring = Scoring.of(con, weights, policy or Policy())
        steps = ", ".join(
            f"({FIELD_SQL[name]})::INTEGER, {field_bits_sql(weights, name, scoring.people)}" for name in LEVELS
        )
        found = con.execute(
            f"""SELECT bits, {rules.rule_name_sql("rule")}, guard, {rules.GRADES}, expected, {steps}
                FROM ({scoring.select()}) ORDER BY rule IS NULL, bits DESC LIMIT 1"""
        ).fetchall()
    finally:
        con.close()
    if not found:
        raise DataError(
            "the member or the person is not in the tables given", code="HX-524", hint="check the key and the id"
        )
    bits, rule, guard, grade, expected, *cells = found[0]
    fields = tuple(
        (name, LEVELS[name][level], round(float(value), 2))
        for (name, level, value) in zip(LEVELS, cells[::2], cells[1::2], strict=True)
        if level in LEVELS[name]
    )
    prior = round(float(bits) - sum(float(value) for value in cells[1::2]), 2)
    return Explanation(
        fields, prior, round(float(bits), 2), rule, guard, None if grade is None else float(grade), float(expected)
    )
