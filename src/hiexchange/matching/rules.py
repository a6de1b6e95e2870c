"""The deterministic cascade and its guards, as data: what must agree before two records are one person.

The principle: never link without evidence that tells the person from everyone else in the same household.
Surname, address and phone prove the household; birth date and surname prove at most a pair of twins;
first name, surname and address prove at most a father and his son. So each rule asks for a first name that
agrees, a birth date that agrees, and something more. Without a birth date an id must be seen to be of one person: a subscriber's id
is his son's, too. A slip at the start or the end of a first name (Bella for Ella,
Patriciy for Patricia) is how twins' names differ: such a pair is linked on an id, ssn4 or middle name, never on the
home. Pure: SQL text over the levels of :mod:`.compare`.
"""

from __future__ import annotations

from dataclasses import dataclass

BUDGETS = {"relative": 1e-5, "stranger": 4e-5}
"""Wrong links, as a share of all links, the rules may be expected to make here in all, by :attr:`Rule.risk`."""

CONFUSIONS = 5e-6
"""Wrong links, as a share of all links, that may be expected in all from members known by id whom a rule would have taken for a
relative."""

LOOKALIKES = 3e-6
"""Wrong links, as a share of all links, that may be expected in all because of absent relatives."""

ID = "(i = 2 OR mb = 2)"
PERSONAL = "(sole OR mb = 2)"
PROOF = "(i = 2 OR mb = 2 OR s = 2)"
HOME = "(a >= 2 OR ph = 1 OR em = 1)"
SAME_FIRST = "(f >= 4 OR sw)"
SAME_LAST = "(l >= 3 OR sw)"
SURE_FIRST = "(f = 5 OR sw OR (f = 4 AND NOT vague))"
PLAIN = "(i >= 0 AND mb >= 0 AND x >= 0 AND su >= 0 AND s >= 0 AND g >= 0)"
LIKE_HOME = f"f IN (3, 4) AND l >= 3 AND d = 5 AND {HOME} AND {PLAIN}"
NAMED = f"{SURE_FIRST} AND {SAME_LAST} AND d = 5 AND {PLAIN}"
RARE_NAMED = f"f >= 4 AND NOT vague AND l = 5 AND d = 5 AND expected < 0.003 AND {PLAIN}"
TYPO_HOME = f"f = 3 AND NOT vague AND l >= 3 AND d = 5 AND {HOME} AND {PLAIN}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One way in which a pair may be the same person."""

    name: str
    """As it appears in PERSON_LINK.rule."""
    when: str
    """SQL condition over levels."""
    risk: str | None = None
    """Whom the rule could take for the person: a ``relative``, or a ``stranger`` of the same name and birth date. :mod:`.audit`
    withdraws it where the data show too many. None: it rests on ids or on name, birth date and home together."""
    lookalike: str | None = None
    """Whose record the rule would take for an absent member's own: a ``parent``'s, or a ``twin``'s, whose name shares the start
    (``cut``) or merely resembles. :mod:`.audit` counts such members, and withdraws the rule where there are enough of them."""


GUARDS: dict[str, str] = {
    "birth_date_conflict": f"d = -1 AND NOT (s = 2 AND {ID} AND f >= 4 AND l >= 3 AND NOT elder)",
    "suffix_conflict": "su = -1",
    "deceased_before": "dead",
    "sex_conflict": f"x = -1 AND NOT (f = 5 AND d = 5 AND ({PROOF} OR {HOME}))",
    "ssn4_conflict": f"""s = -1 AND NOT (d >= 4 AND {SAME_FIRST} AND {SAME_LAST} AND ({ID} OR (a >= 2 AND ph = 1))
        OR d = 5 AND f = 5 AND l = 5 AND (a = 3 AND ph = 0 OR a = 1 AND ph = 1))""",
    "middle_name_conflict": f"""g = -1 AND NOT (d = 5 AND ({PROOF} OR ({SAME_FIRST} AND {HOME} AND NOT lead))
        OR d >= 3 AND {PROOF} AND {SAME_FIRST} AND {SAME_LAST} AND {HOME})""",
    "first_name_conflict": f"f IN (-1, 2) AND NOT sw AND NOT ({ID} AND (d >= 4 AND s = 2 OR d = 5 AND f = 2 AND edge = 3))",
    "no_birth_date": f"d = 0 AND NOT (({PERSONAL} OR s = 2) AND {SAME_FIRST})",
}
"""Why a pair may not be linked unseen, in order; the first that holds is the reason given."""

RULES: tuple[Rule, ...] = (
    Rule("id_name_birth", f"{ID} AND {SAME_FIRST} AND d = 5 AND {SAME_LAST}"),
    Rule("ssn4_name_birth", f"s = 2 AND {SAME_FIRST} AND d = 5 AND {SAME_LAST}"),
    Rule("name_birth_home", f"(f = 5 OR sw) AND {SAME_LAST} AND d = 5 AND {HOME}"),
    Rule("id_first_birth", f"{ID} AND {SAME_FIRST} AND d = 5"),
    Rule("id_name_near_birth", f"{ID} AND {SAME_FIRST} AND d >= 3 AND {SAME_LAST}"),
    Rule(
        "name_birth_middle",
        f"{SURE_FIRST} AND {SAME_LAST} AND d = 5 AND g = 2 AND expected < 0.1 AND {PLAIN} AND NOT (a = -1 AND ph = -1)",
    ),
    Rule("id_ssn4_name", f"{ID} AND s = 2 AND f >= 3 AND l >= 3"),
    Rule("id_typo_first_birth", f"{ID} AND f = 3 AND d = 5 AND (l >= 3 OR {HOME})"),
    Rule(
        "id_cut_first_birth",
        f"{ID} AND f = 2 AND edge = 3 AND d = 5 AND l >= 3 AND {HOME} AND x >= 0",
        risk="relative",
    ),
    Rule("id_similar_first_birth", f"{ID} AND f = 2 AND d = 5 AND l >= 3 AND s = 2"),
    Rule("id_ssn4_birth", f"{ID} AND s = 2 AND d = 5"),
    Rule("ssn4_birth_unnamed", f"s = 2 AND f = 0 AND edge <> 1 AND d = 5 AND l >= 3 AND {HOME} AND {PLAIN}"),
    Rule("id_birth_unnamed", f"{ID} AND f = 0 AND edge <> 1 AND d = 5 AND l >= 3 AND {HOME}"),
    Rule("id_initial_birth", f"{ID} AND f = 1 AND d = 5 AND l >= 3"),
    Rule("ssn4_typo_first_birth", f"s = 2 AND f >= 3 AND d = 5 AND (l >= 3 OR {HOME})"),
    Rule("ssn4_initial_birth", f"s = 2 AND f = 1 AND d = 5 AND l >= 3 AND {HOME}"),
    Rule("ssn4_name_near_birth", f"s = 2 AND {SAME_FIRST} AND d >= 3 AND {SAME_LAST}"),
    Rule("id_ssn4_no_birth", f"{ID} AND s = 2 AND {SAME_FIRST} AND {SAME_LAST}"),
    Rule("ssn4_name_home_no_birth", f"s = 2 AND f >= 4 AND l >= 4 AND d = 0 AND {HOME}"),
    Rule(
        "nickname_birth_home",
        f"f = 4 AND NOT vague AND {SAME_LAST} AND d = 5 AND {HOME} AND {PLAIN}",
        risk="relative",
    ),
    Rule(
        "first_birth_home",
        f"{SURE_FIRST} AND d = 5 AND (a = 3 OR ph = 1 OR em = 1) AND expected_first < 0.05 AND (f = 5 OR {PLAIN})",
        risk="relative",
    ),
    Rule(
        "name_near_birth_home",
        f"{SURE_FIRST} AND l >= 3 AND d = 4 AND {HOME} AND {PLAIN}",
        risk="relative",
    ),
    Rule(
        "name_part_birth_home",
        f"{SURE_FIRST} AND l >= 3 AND d = 3 AND {HOME} AND {PLAIN}",
        risk="relative",
        lookalike="parent",
    ),
    Rule(
        "like_first_birth_home_middle",
        f"{LIKE_HOME} AND (g = 2 OR g = 1 AND (f = 4 OR edge IN (0, 3)))",
        risk="relative",
    ),
    Rule("typo_inside_first_birth_home", f"{TYPO_HOME} AND edge = 0", risk="relative"),
    Rule("cut_first_birth_home", f"{TYPO_HOME} AND edge = 3", risk="relative", lookalike="cut"),
    Rule("vague_first_birth_home", f"{LIKE_HOME} AND edge IN (0, 3)", risk="relative", lookalike="twin"),
    Rule(
        "name_birth_initial",
        f"(f = 5 OR sw) AND {SAME_LAST} AND d = 5 AND g = 1 AND expected < 0.01 AND {PLAIN}",
        risk="stranger",
    ),
    Rule("name_birth_zip_no_street", f"{NAMED} AND a = 1 AND streetless AND expected < 0.01", risk="stranger"),
    Rule("name_birth_zip", f"{NAMED} AND a = 1 AND ph = 0 AND expected < 0.01", risk="stranger"),
    Rule("rare_name_birth_middle", f"{RARE_NAMED} AND g = 2", risk="stranger"),
    Rule("rare_name_birth_placeless", f"{RARE_NAMED} AND a = 0", risk="stranger"),
    Rule("rare_name_birth_moved", f"{RARE_NAMED} AND ph >= 0", risk="stranger"),
    Rule("rare_name_birth", RARE_NAMED, risk="stranger"),
    Rule(
        "id_name_no_birth",
        f"{PERSONAL} AND f >= 4 AND l >= 4 AND d = 0 AND ({HOME} OR a = 1) AND g >= 0",
        risk="relative",
    ),
    Rule(
        "fellegi_sunter",
        f"bits >= auto_bits AND f >= 3 AND d >= 4 AND {PLAIN} AND ({PROOF} OR ({HOME} AND ({SURE_FIRST} OR (edge = 0 AND NOT vague))))",
        risk="relative",
    ),
)
"""Strongest first: a pair takes the first rule it meets. ``expected`` is the number of other people of the
index one would expect to agree on the same name and birth date by chance."""

GRADES = f"""CASE
    WHEN f >= 4 AND l >= 4 AND ({ID} OR (d = 5 AND s = 2 AND i = 1)) THEN 0.99
    WHEN f >= 4 AND l >= 4 AND d = 5 AND ((a = 3) OR em = 1) THEN 0.8
    WHEN f >= 4 AND l >= 4 AND d = 5 AND (ph = 1 OR (x = 1 AND (s = 2 OR a >= 1 OR g = 2))) THEN 0.7
    WHEN f >= 4 AND l >= 4 AND d = 5 THEN 0.6 END"""
"""HL7 Identity Matching IG responder grades; ours beside the score, never instead of it."""


def rule_sql(auto_bits: float) -> str:
    """Return a SQL expression: index into :data:`RULES` of the first rule met without a guard, or null."""
    guards = " OR ".join(f"({guard})" for guard in GUARDS.values())
    arms = " ".join(f"WHEN {rule.when} THEN {index}" for index, rule in enumerate(RULES))
    return f"CASE WHEN {guards} THEN NULL {arms} END".replace("auto_bits", repr(auto_bits))


def guard_sql() -> str:
    """Return a SQL expression: the name of the first guard that holds, or null."""
    return "CASE " + " ".join(f"WHEN {guard} THEN '{name}'" for name, guard in GUARDS.items()) + " END"


def rule_name_sql(column: str) -> str:
    """Return a SQL expression that names the rule of an index column."""
    return f"([{', '.join(repr(rule.name) for rule in RULES)}])[{column} + 1]"


CLOSENESS = "(bits - rarity - CASE WHEN f >= 4 OR sw THEN 0 ELSE 6 END)"
"""What candidates compete by. A name that is exactly right beats a similar one by far more than its bits say:
the similar one is the twin. How rare the first name is tells nothing here: what competes bears much the same."""
