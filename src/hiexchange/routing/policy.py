"""The policy gate: consent, sensitivity labels, minimum necessary. Every rule fails closed.

Labels are the codes of ``meta.security`` (HL7 DS4P) and what HL7 v2 says in ARV and PV1-16. A label
that is not known here holds the event: nobody guesses what it meant.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import ConfigError, SchemaMismatch
from hiexchange.routing.subscriptions import CEILINGS, Subscription
from hiexchange.routing.values import zone
from hiexchange.tables import DAY, INSTANT, OPEN_DATE, TEXT

CONSENT = pa.schema(
    [
        pa.field("person_id", TEXT, nullable=False),
        pa.field("scope", TEXT, nullable=False),
        pa.field("party", TEXT),
        pa.field("decision", TEXT, nullable=False),
        pa.field("valid_from", DAY, nullable=False),
        pa.field("valid_to", DAY, nullable=False),
        pa.field("known_from", INSTANT),
        pa.field("statement", TEXT),
    ]
)
"""One consent decision. ``scope``: exchange, payer, provider or part2. ``party``: the payer id, or the
subscriber id, NPI, tax id or organisation it is about; null = all. ``decision``: permit or deny. ``statement``:
for part2, the explanation of the consent's scope that travels with each disclosure (42 CFR 2.32(b))."""

PROVIDER_ORG = pa.schema(
    [
        pa.field("npi", TEXT, nullable=False),
        pa.field("tin", TEXT),
        pa.field("org", TEXT),
        pa.field("valid_from", DAY, nullable=False),
        pa.field("valid_to", DAY, nullable=False),
    ]
)
"""Where a clinician works, and when: settles an NPI that several organisations name."""

MESSAGES = ("fhir", "hl7v2")
"""Formats that are messages: they have a place of their own for the statement of a Part 2 consent."""
SCOPES = ("exchange", "payer", "provider", "part2")
PERMIT, DENY = "permit", "deny"

# v3 ActCode, ValueSet InformationSensitivityPolicy: conditions, treatments, circumstances.
SENSITIVITIES = frozenset(
    "ETH ETHUD GDIS HIV MST SCA SDV SEX SPI BH COGN DVD EMOTDIS MH PSY PSYTHPN SUD ETHUD OPIOIDUD STD TBOO VIO SICKLE"
    " DEMO DOB GENDER LIVARG MARST RACE REL B EMPL LOCIS SSP ADOL CEL VIP DIA DRGIS EMP PDS PHY PRS COMPT INFODV"
    " DRUG RES ABORT REPRO".split()
)
PART2 = frozenset(("42CFRPART2", "PART2", "42CFRPART2CD"))
SUBSTANCE_USE = frozenset(("ETH", "ETHUD", "SUD", "OPIOIDUD", "DRUG"))
REFRAINS = frozenset(("NODSCLCD", "NODSCLCDS", "NOAUTH", "NOREDISCLOSE", "NOPAT", "NOPERSISTP", "NOMOU", "NOORGPOL"))
"""v3 ActCode RefrainPolicy that forbid what routing does, or ask what it cannot promise."""
INLINE = "PROCESSINLINELABEL"
# Labels that say why or by whom the data is labelled, and restrict nothing here.
NEUTRAL = frozenset(
    ("TREAT", "HPAYMT", "HOPERAT", "ETREAT", "COC", "HRESCH", "PATRQT", "DELABEL", "CPLYCC", "SUBSETTED")
)
TEST_DATA = "HTEST"


@dataclass(frozen=True, slots=True)
class Policy:
    """The exchange's own rules, beside each subscriber's."""

    consent_default: str = PERMIT
    """What holds for a person of whom no consent is recorded: ``permit`` (opt-out state) or ``deny``."""
    stale_after_days: int | None = None
    """Hold what a roster older than this says; None = rosters do not age."""
    zone: str = "UTC"
    """IANA zone whose calendar says what day it is: consents, attribution, rosters and subscriptions turn at its midnight."""

    def day(self, at: datetime) -> date:
        """Return the day that an instant (aware) falls on."""
        return at.astimezone(ZoneInfo(self.zone)).date()

    def __post_init__(self) -> None:
        try:
            zone(self.zone)
        except ConfigError as error:
            raise ConfigError(f"the zone of the exchange {error.what}", hint=error.hint) from None
        if self.consent_default not in (PERMIT, DENY):
            raise ConfigError("consent_default must be permit or deny")
        if self.stale_after_days is not None and self.stale_after_days < 0:
            raise ConfigError(
                "stale_after_days must be a number of days, 0 or more", hint="leave it out: rosters do not age"
            )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the labels of an event mean for one recipient."""

    reason: str | None
    """Rule that holds it, or None."""
    part2: bool
    """Needs a Part 2 consent of the patient, and its statement."""
    substance_use: bool
    """Speaks of substance use: the payer-reported SAMHSA preference applies too."""


def judge(labels: Iterable[str], ceiling: str, admitted: Iterable[str]) -> Verdict:
    """Return what labels mean for a recipient with this ceiling and these admitted sensitivities.

    The strictest rule wins; an unknown label is ``unknown_label``.
    """
    admitted = {item.upper() for item in admitted}
    codes = {label.rpartition("|")[2].upper() for label in labels}
    reasons = {_judge(code, ceiling, admitted) for code in codes} - {None}
    worst = next((reason for reason in _STRICTEST if reason in reasons), None)
    return Verdict(worst, bool(codes & PART2), bool(codes & (SUBSTANCE_USE | PART2)))


_STRICTEST = ("unknown_label", "refrain", "inline_labels", "access_restricted", "vip", "above_ceiling", "sensitive")


def _judge(code: str, ceiling: str, admitted: set[str]) -> str | None:
    if code in CEILINGS:
        return "above_ceiling" if CEILINGS.index(code) > CEILINGS.index(ceiling) else None
    if code in admitted or code in NEUTRAL or code in PART2 or code == TEST_DATA:
        return None
    if code == "VIP":
        return "vip"
    if code.startswith("ARV:"):
        return "access_restricted"
    if code in REFRAINS:
        return "refrain"
    if code == INLINE:
        # Parts of the resource carry their own labels, which a flat event has lost.
        return "inline_labels"
    return "sensitive" if code in SENSITIVITIES else "unknown_label"


def visit_labels(events: pa.Table) -> dict[int, tuple[str, ...]]:
    """Return the labels that events stand under: their own, and what was said of the same visit later.

    A message may restrict a visit and bring no news: what had not gone out by then stays. Later means received later; of
    one receipt, what happened later. What comes after a restriction says itself whether it still holds.

    Args:
        events: ENCOUNTER_EVENT rows, those that are no news among them.

    Returns:
        Row number -> sorted labels, for the rows that have any.
    """
    # Most events carry no label: only visits of which something was said are looked at.
    speaks = pc.greater(pc.fill_null(pc.list_value_length(events["labels"]), 0), 0)
    spoken = pc.unique(events["visit_number"].filter(speaks))
    concerned = pc.indices_nonzero(pc.is_in(events["visit_number"], value_set=spoken))
    names = ("facility_id", "visit_number", "received_at", "event_at", "labels")
    visits: dict[tuple[str, str], list[tuple[int, tuple[datetime, datetime], set[str]]]] = {}
    for row, facility, visit, received_at, event_at, labels in zip(
        concerned.to_pylist(), *(events[name].take(concerned).to_pylist() for name in names), strict=True
    ):
        visits.setdefault((facility, visit), []).append((row, (received_at, event_at), set(labels or ())))
    found = {}
    for messages in visits.values():
        said = [(at, labels) for _, at, labels in messages if labels]
        for row, at, own in messages:
            held = own.union(*(labels for later, labels in said if later >= at))
            if held:
                found[row] = tuple(sorted(held))
    return found


def consent_table(consent: Any) -> pa.Table:
    """Return CONSENT rows from a table or from dictionaries.

    Raises:
        SchemaMismatch: A column is missing, or a scope or decision is not one of the known ones:
            a consent that cannot be read must not be passed over.
    """
    if consent is None:
        return CONSENT.empty_table()
    if isinstance(consent, list | tuple):
        rows = [_consent_row(row) for row in consent]
        table = pa.Table.from_pylist(rows, schema=CONSENT)
    else:
        given = consent if isinstance(consent, pa.Table) else pa.table(consent)
        missing = [field.name for field in CONSENT if field.name not in given.column_names and not field.nullable]
        if missing:
            raise SchemaMismatch(f"a consent table lacks {', '.join(missing)}")
        arrays = [
            given[field.name].cast(field.type)
            if field.name in given.column_names
            else pa.nulls(given.num_rows, field.type)
            for field in CONSENT
        ]
        table = pa.table(arrays, schema=CONSENT)
    strange = set(table["scope"].to_pylist()) - set(SCOPES) | set(table["decision"].to_pylist()) - {PERMIT, DENY}
    if strange:
        raise SchemaMismatch(
            f"consent holds an unknown scope or decision: {', '.join(sorted(map(str, strange)))}",
            hint=f"scopes {', '.join(SCOPES)}; decisions permit, deny",
        )
    return table


def shared_denials(consent: Any, same: Iterable[tuple[str, str]]) -> pa.Table:
    """Return CONSENT rows in which a denial of one record of a person is a denial of its other records, too.

    A merge (A40) sends the events of the record that ended to the other one. What its person refused stays refused; a
    permit is not carried over: merges are made in error at times.

    Args:
        consent: CONSENT rows or dictionaries.
        same: Pairs of person ids that are one person; chains are followed.
    """
    table = consent_table(consent)
    groups = records_of(same)
    if not groups:
        return table
    spoken = pc.is_in(table["person_id"], value_set=pa.array(sorted(groups), TEXT))
    more = [
        {**row, "person_id": other}
        for row in table.filter(pc.and_(spoken, pc.equal(table["decision"], DENY))).to_pylist()
        for other in sorted(groups[row["person_id"]] - {row["person_id"]})
    ]
    return pa.concat_tables([table, pa.Table.from_pylist(more, schema=CONSENT)])


def records_of(same: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Return, for each person of these pairs, all that the pairs say are one with it, itself among them."""
    groups: dict[str, set[str]] = {}
    for pair in same:
        group = set(pair).union(*(groups.get(person, ()) for person in pair))
        groups |= dict.fromkeys(group, group)
    return groups


def _consent_row(row: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(row) - set(CONSENT.names)
    if unknown:
        raise SchemaMismatch(f"consent has no column {', '.join(sorted(unknown))}")
    return {"valid_from": date.min, "valid_to": OPEN_DATE, **row}


def minimum_necessary(subscription: Subscription, columns: tuple[str, ...]) -> list[str] | None:
    """Return the columns a channel may carry: its own, within the subscription's; None = delivery's default set."""
    if not columns:
        return list(subscription.columns) or None
    if not subscription.columns:
        return list(columns)
    return [name for name in columns if name in subscription.columns]


def carries_notice(form: str, columns: Iterable[str] | None) -> bool:
    """Say whether a channel can carry the statement of a Part 2 consent.

    Messages always do (:data:`MESSAGES`); a file of rows does when ``notice`` is among its columns.
    """
    return form in MESSAGES or "notice" in (columns or ())


class Consents:
    """CONSENT rows by person: what somebody decided that holds at an instant."""

    def __init__(self, consent: Any) -> None:
        """Index a table or dictionaries (:func:`consent_table`)."""
        self._rows: dict[str, list[dict[str, Any]]] = {}
        for row in consent_table(consent).to_pylist():
            self._rows.setdefault(row["person_id"], []).append(row)

    def of(self, person_id: str | None, now: datetime, on: date) -> list[dict[str, Any]]:
        """Return the decisions of a person that are in force on a day and known at ``now`` (aware)."""
        return [
            row
            for row in self._rows.get(person_id or "", ())
            if row["valid_from"] <= on < row["valid_to"] and (row["known_from"] is None or row["known_from"] <= now)
        ]


def consent_reason(rows: Iterable[Mapping[str, Any]], names: Container[str], policy: Policy) -> str | None:
    """Return the rule by which a person's decisions keep everything from a recipient, or None.

    Args:
        rows: The person's decisions in force.
        names: What the recipient goes by: id, NPIs, tax ids, organisations.
        policy: The exchange's rules.
    """
    exchange = {row["decision"] for row in rows if row["scope"] == "exchange"}
    if DENY in exchange:
        return "opted_out"
    if policy.consent_default == DENY and PERMIT not in exchange:
        return "no_opt_in"
    if any(row["scope"] == "provider" and row["decision"] == DENY and concerns(row, names) for row in rows):
        return "opted_out_of_provider"
    return None


def part2_statement(rows: Iterable[Mapping[str, Any]], names: Container[str]) -> str | None:
    """Return the statement of a person's Part 2 consent to a recipient; None when there is none, or a denial."""
    mine = [row for row in rows if row["scope"] == "part2" and concerns(row, names)]
    if any(row["decision"] == DENY for row in mine):
        return None
    return max((row["statement"] for row in mine if row["statement"] is not None), default=None)


def concerns(row: Mapping[str, Any], names: Container[str]) -> bool:
    """Say whether a consent decision is about one of these parties; one without a party is about all."""
    return row["party"] is None or row["party"] in names


class Recheck:
    """May this recipient still have it? Asked for every delivery again when it is sealed and when it is sent.

    An opt-out, or the end of a subscription, that arrives between route and send stops the delivery. Pass
    it to ``Outbox.run(recheck=...)``; it answers a reason code, or None to let it go.
    """

    def __init__(
        self, subscriptions: Iterable[Subscription], consent: Any, *, now: datetime, policy: Policy | None = None
    ) -> None:
        """Index what is known at ``now`` (aware).

        Args:
            subscriptions: As they stand now.
            consent: CONSENT rows or dictionaries, as they stand now.
            now: The clock of both.
            policy: The exchange's rules.
        """
        self._now = now.astimezone(UTC)
        self._policy = policy or Policy()
        self._on = self._policy.day(now)
        self._active = {item.id: item for item in subscriptions if item.active(self._on)}
        self._consents = Consents(consent)

    def __call__(self, candidate: Any) -> str | None:
        """Return the rule that now forbids a delivery already decided, or None.

        Args:
            candidate: Anything with ``subscriber_id``, ``person_id`` and ``payer_ids``, and ``notice`` where it goes
                out under a Part 2 consent: revoked since, it does not.
        """
        subscription = self._active.get(candidate.subscriber_id)
        if subscription is None:
            return "subscription_inactive"
        rows = self._consents.of(candidate.person_id, self._now, self._on)
        names = subscription.names
        reason = consent_reason(rows, names, self._policy)
        if reason is not None:
            return reason
        if getattr(candidate, "notice", None) is not None and part2_statement(rows, names) is None:
            return "part2_no_consent"
        refused = {row["party"] for row in rows if row["scope"] == "payer" and row["decision"] == DENY}
        payers = list(candidate.payer_ids)
        if payers and (None in refused or refused.issuperset(payers)):
            return "opted_out_of_payer"
        return None
