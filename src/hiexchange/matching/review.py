"""The review queue: what people are asked, and their answers, which outrank everything computed."""

from __future__ import annotations

from hiexchange.tables import INSTANT, TEXT, Column, Table

DECISION = Table(
    "match_decision",
    "One person's ruling on one pair. Append-only; the latest ruling on a pair counts.",
    ("member_key", "person_id", "decided_at"),
    (
        Column("member_key", TEXT, "see MEMBER", True),
        Column("person_id", TEXT, "the candidate ruled on; null when verdict is nobody"),
        Column("verdict", TEXT, "same, different, or nobody (the member is not in the index)", True),
        Column("decided_at", INSTANT, "when", True),
        Column("decided_by", TEXT, "who", True),
        Column("reason", TEXT, "why"),
        Column("band", TEXT, "band of the link when it was ruled on"),
        Column("score", TEXT, "bits of the link when it was ruled on"),
    ),
)
