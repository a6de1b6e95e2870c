"""The corridor: the Arrow tables in which stages meet. Nothing else crosses between them.

Each table is a :class:`Table`: a name, a key, and columns with type and meaning. ``*_at`` are
instants (UTC, microseconds), ``*_on`` dates; ``valid_from``/``valid_to`` are half-open dates of the
payer's truth, ``known_from``/``known_to`` half-open instants of when we knew it. Open ends are
9999-12-31 (:data:`OPEN_DATE`, :data:`OPEN_INSTANT`), never null, so that joins stay plain ranges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

import pyarrow as pa

from hiexchange.errors import SchemaMismatch

OPEN_DATE = date(9999, 12, 31)
OPEN_INSTANT = datetime(9999, 12, 31, tzinfo=UTC)

TEXT = pa.string()
DAY = pa.date32()
INSTANT = pa.timestamp("us", tz="UTC")
INT = pa.int64()
FLAG = pa.bool_()
NUMBER = pa.float64()
TEXTS = pa.list_(pa.string())


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a corridor table."""

    name: str
    type: pa.DataType
    doc: str
    required: bool = False
    """A null here is an error of the stage that wrote the row."""


@dataclass(frozen=True)
class Table:
    """The schema of one corridor table."""

    name: str
    doc: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema; every field carries its meaning as metadata ``doc``."""
        fields = [
            pa.field(column.name, column.type, nullable=not column.required, metadata={"doc": column.doc})
            for column in self.columns
        ]
        return pa.schema(fields, metadata={"hx.table": self.name})

    def empty(self) -> pa.Table:
        """Return a table of this schema with no rows."""
        return self.schema.empty_table()

    def from_rows(self, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
        """Build a table from dictionaries; absent keys become null, unknown keys are an error."""
        rows = list(rows)
        unknown = {key for row in rows for key in row} - set(self.schema.names)
        if unknown:
            raise SchemaMismatch(f"{self.name} has no column {', '.join(sorted(unknown))}")
        return pa.Table.from_pylist([dict(row) for row in rows], schema=self.schema)


def check(data: Any, table: Table) -> pa.Table:
    """Return ``data`` as a table with exactly the columns of ``table``, in its order.

    Args:
        data: A ``pyarrow.Table`` or anything with ``__arrow_c_stream__``.
        table: The corridor table it must be.

    Raises:
        SchemaMismatch: A column is missing, has another type that cannot be cast without loss, or
            a required one holds nulls. Columns beyond the schema are dropped.
    """
    given = data if isinstance(data, pa.Table) else pa.table(data)
    missing = [column.name for column in table.columns if column.name not in given.column_names]
    if missing:
        raise SchemaMismatch(
            f"a {table.name} table lacks {', '.join(missing)}",
            hint=f"its columns are listed in hiexchange.tables.{table.name.upper()}",
        )
    arrays = [_checked(given[column.name], column, table) for column in table.columns]
    return pa.table(arrays, schema=table.schema)


def _checked(array: pa.ChunkedArray, column: Column, table: Table) -> pa.ChunkedArray:
    if array.type != column.type:
        try:
            array = array.cast(column.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise SchemaMismatch(
                f"{table.name}.{column.name} is {array.type} and cannot become {column.type}"
            ) from None
    if column.required and array.null_count:
        raise SchemaMismatch(f"{table.name}.{column.name} holds {array.null_count:,} nulls and may hold none")
    return array


# Shared column groups -------------------------------------------------------------------------

_LIST = (
    Column("payer_id", TEXT, "payer that handed the list in", True),
    Column("line_of_business", TEXT, "Medicaid, Medicare, commercial, as the payer names it"),
    Column("contract_id", TEXT, "contract under which the list is published"),
    Column("plan_id", TEXT, "plan within the contract"),
    Column(
        "member_key",
        TEXT,
        "sha256 of payer, member id system and member id: joins MEMBER, ATTRIBUTION, PERSON_LINK",
        True,
    ),
    Column("member_id", TEXT, "the payer's id of the person, normalised", True),
    Column("member_id_system", TEXT, "namespace of member_id; the payer's own where the file gives none", True),
)
_PROVIDER = (
    Column("provider_npi", TEXT, "attributed clinician or organisation NPI"),
    Column("provider_tin", TEXT, "attributed tax id, nine digits"),
    Column("org_id", TEXT, "attributed practice or organisation"),
    Column("location_id", TEXT, "attributed location"),
    Column("attribution_level", TEXT, "clinician, practice, org or aco", True),
    Column(
        "basis",
        TEXT,
        "patient_choice, provider_attested, payer_assigned, claims_plurality, claims_other, geographic, settlement_entity",
        True,
    ),
    Column("rank", pa.int16(), "the payer's own order among several providers"),
    Column("method_text", TEXT, "method as the payer publishes it"),
)
_COVERAGE = (
    Column("coverage_from", DAY, "start of coverage"),
    Column("coverage_to", DAY, "end of coverage, exclusive"),
    Column("program_year", pa.int16(), "performance year"),
    Column("sharing_pref", TEXT, "opt-in, opt-out or null, as the payer reports it"),
    Column("sharing_pref_from", DAY, "first day of that preference"),
    Column("samhsa_pref", TEXT, "preference for substance-use data, apart from the general one"),
)
_SOURCE = (
    Column("roster_id", TEXT, "id of the accepted file: sha256 of payer, list and bytes", True),
    Column("row_no", INT, "1-based row in that file, header not counted", True),
    Column("row_sha", TEXT, "sha256 of the row's values", True),
)

MEMBER = Table(
    "member",
    "One accepted roster line: a member, and the provider it is attributed to.",
    ("roster_id", "row_no"),
    (
        *_SOURCE,
        *_LIST,
        Column("subscriber_id", TEXT, "insurance subscriber; shared by dependants, so never a person's id"),
        Column("mbi", TEXT, "Medicare Beneficiary Identifier, current one"),
        Column("first_name", TEXT, "given name as sent"),
        Column("middle_name", TEXT, "middle name as sent"),
        Column("last_name", TEXT, "family name as sent"),
        Column("suffix", TEXT, "Jr, Sr, II, III"),
        Column("birth_on", DAY, "date of birth"),
        Column("sex", TEXT, "male, female, other or unknown"),
        Column("ssn4", TEXT, "last four digits of the SSN"),
        Column("address_line", TEXT, "street address"),
        Column("city", TEXT, "city"),
        Column("state", TEXT, "two-letter state"),
        Column("zip", TEXT, "ZIP code, five digits or ZIP+4"),
        Column("phone", TEXT, "telephone as sent"),
        Column("email", TEXT, "email as sent"),
        Column("deceased_on", DAY, "date of death"),
        *_PROVIDER,
        Column("valid_from", DAY, "first day of the attribution", True),
        Column("valid_to", DAY, "first day after it; open = 9999-12-31", True),
        *_COVERAGE,
        Column("payer_change_type", TEXT, "change code as sent"),
        Column("synthetic", FLAG, "the identifiers are of the synthetic kind (MBI with S second)", True),
        Column("as_of_on", DAY, "day the file speaks of: the newest line says who the member is"),
    ),
)

ROSTER = Table(
    "roster",
    "One roster file that was handed in, and what became of it.",
    ("roster_id", "received_at"),
    (
        Column("roster_id", TEXT, "see MEMBER", True),
        Column("payer_id", TEXT, "payer that handed it in", True),
        Column("list_id", TEXT, "which of its lists: only files of one list replace each other", True),
        Column("file_name", TEXT, "name as received", True),
        Column("file_sha256", TEXT, "of the bytes", True),
        Column("header_sha", TEXT, "of the folded header: tells when columns change"),
        Column("layout", TEXT, "name and version of the layout", True),
        Column("mode", TEXT, "full or delta", True),
        Column("as_of_on", DAY, "the day the file speaks of", True),
        Column("received_at", INSTANT, "when it was read", True),
        Column("state", TEXT, "accepted, held or refused", True),
        Column("accepted_by", TEXT, "who released a held file"),
        Column("rows_read", INT, "rows in the file", True),
        Column("rows_accepted", INT, "rows that became MEMBER rows", True),
        Column("rows_refused", INT, "rows that became ISSUE rows", True),
        Column("rows_duplicate", INT, "exact duplicates, counted once", True),
    ),
)

ATTRIBUTION_BASES = (
    "patient_choice",
    "provider_attested",
    "payer_assigned",
    "claims_plurality",
    "claims_other",
    "geographic",
    "settlement_entity",
)
"""Grounds of an attribution, strongest first. HCP-LAN (2016): patient choice and attestation first, claims only
when they are missing."""
ATTRIBUTION_LEVELS = ("clinician", "practice", "org", "aco")
"""What is attributed, closest to the patient first."""

ATTRIBUTION = Table(
    "attribution",
    "Who cares for whom, bitemporal and append-only. Stored rows are assertions, never edited.",
    ("attribution_id", "known_from"),
    (
        Column("attribution_id", TEXT, "sha256 of business_key and valid_from: stable across reloads", True),
        Column("business_key", TEXT, "hash of payer, contract, plan, member, provider or organisation, level", True),
        *_LIST,
        *_PROVIDER,
        Column("valid_from", DAY, "first day, the payer's truth", True),
        Column("valid_to", DAY, "first day after it", True),
        Column("known_from", INSTANT, "when the roster that says so was accepted", True),
        Column("known_to", INSTANT, "when a later roster said otherwise", True),
        Column("as_of_on", DAY, "the day the roster speaks of", True),
        Column("change_type", TEXT, "computed: new, changed, nochange, dropped, cancelled", True),
        Column("payer_change_type", TEXT, "as sent"),
        *_COVERAGE,
        *_SOURCE,
        Column("status", TEXT, "active, inactive, disputed, suppressed", True),
        Column("reason_code", TEXT, "why the status is not active"),
        Column("list_id", TEXT, "which of the payer's lists: only files of one list replace each other"),
        Column("list_mode", TEXT, "full (absent = dropped) or delta (absent = unchanged)"),
        Column("list_seq", INT, "1, 2, ... files of the list in the order they became known; orders equal known_from"),
        Column("received_at", INSTANT, "when the file came; orders files of one as-of date"),
        Column("authority_from", DAY, "first day the file speaks for: its as-of date, earlier in a restatement"),
        Column("authority_to", DAY, "first day after it"),
        Column("asserted_from", DAY, "start as the row says; null where the row follows from absence"),
        Column("asserted_to", DAY, "end as the row says"),
    ),
)

PERSON = Table(
    "person",
    "One person of the exchange's patient index: what matching reads (view patient_demographics).",
    ("person_id",),
    (
        Column("person_id", TEXT, "the index's id: Patient.id", True),
        Column("first_name", TEXT, "first given name of the official name"),
        Column("middle_name", TEXT, "second given name"),
        Column("last_name", TEXT, "family name"),
        Column("suffix", TEXT, "name suffix"),
        Column("birth_date", TEXT, "date of birth, FHIR date text (may be partial)"),
        Column("sex", TEXT, "administrative gender"),
        Column("deceased_at", TEXT, "FHIR dateTime of death, or 'true'"),
        Column("ssn4", TEXT, "last four digits of the SSN"),
        Column("mbi", TEXT, "Medicare Beneficiary Identifier"),
        Column("mrn", TEXT, "medical record number"),
        Column("member_ids", TEXTS, "payers' member ids known to the index, each 'system|value'"),
        Column("address_line", TEXT, "street address of the home address"),
        Column("city", TEXT, "city"),
        Column("state", TEXT, "state"),
        Column("zip", TEXT, "postal code"),
        Column("phone", TEXT, "telephone"),
        Column("email", TEXT, "email"),
    ),
)

PERSON_LINK = Table(
    "person_link",
    "The person a payer's member is, if we are sure. One row a distinct member.",
    ("member_key", "known_from"),
    (
        Column("member_key", TEXT, "see MEMBER", True),
        Column("payer_id", TEXT, "payer of the member", True),
        Column("person_id", TEXT, "Patient.id; of the best candidate when band is review; null when band is none"),
        Column("method", TEXT, "decision, member_id, deterministic, probabilistic or none", True),
        Column("rule", TEXT, "name of the rule that fired"),
        Column("score", NUMBER, "bits: log2 of the likelihood ratio"),
        Column("gap", NUMBER, "bits between the best candidate and the runner-up"),
        Column("grade", NUMBER, "HL7 Identity Matching grade: .99 best, .8, .7, .6"),
        Column("band", TEXT, "auto (routed), review (never routed) or none", True),
        Column("candidates", INT, "how many people were considered", True),
        Column(
            "evidence",
            pa.list_(pa.struct([("field", TEXT), ("level", TEXT), ("bits", NUMBER)])),
            "agreement per field; no values",
        ),
        Column("reason", TEXT, "why the band is not auto"),
        Column("run_id", TEXT, "matching run", True),
        Column("weights_sha", TEXT, "hash of the weights used"),
        Column("known_from", INSTANT, "when the link was made", True),
        Column("known_to", INSTANT, "when it was replaced", True),
    ),
)

_CODING = pa.struct([("system", TEXT), ("code", TEXT), ("display", TEXT)])

ENCOUNTER_EVENT = Table(
    "encounter_event",
    "One message or status of one visit, normalised; material changes are those that are routed.",
    ("event_key",),
    (
        Column("event_key", TEXT, "sha256 of facility, visit number, trigger class and version", True),
        Column("facility_id", TEXT, "organisation where the visit is", True),
        Column("facility_name", TEXT, "its name"),
        Column("facility_npi", TEXT, "its NPI"),
        Column("visit_number", TEXT, "visit number at the facility (PV1-19, Encounter.id)", True),
        Column(
            "trigger",
            TEXT,
            "admit, register, discharge, transfer, class_change, update, cancel_admit, cancel_transfer, cancel_discharge, merge, preadmit",
            True,
        ),
        Column("trigger_code", TEXT, "HL7 v2 trigger event (A01 ...), or null"),
        Column("version", INT, "1, 2, ... within facility, visit and trigger", True),
        Column("event_at", INSTANT, "when it happened", True),
        Column("event_time_text", TEXT, "the time as sent, with its offset"),
        Column("event_on", DAY, "local date at the facility: the day attribution is looked up", True),
        Column("received_at", INSTANT, "when we got it", True),
        Column("person_id", TEXT, "Patient.id in the exchange's index; null when unresolved"),
        Column("patient_id_sent", TEXT, "patient id as sent"),
        Column("patient_id_system", TEXT, "its namespace"),
        Column("encounter_id", TEXT, "FHIR Encounter.id, where there is one"),
        Column("class", TEXT, "v3 ActCode: EMER, IMP, ACUTE, OBSENC, AMB, VR, HH, PRENC"),
        Column("status", TEXT, "planned, arrived, in-progress, finished, cancelled", True),
        Column("period_start_at", INSTANT, "start of the visit"),
        Column("period_end_at", INSTANT, "end of the visit"),
        Column("admit_source", TEXT, "code"),
        Column("discharge_disposition", TEXT, "code"),
        Column("attending_npi", TEXT, "attending clinician"),
        Column("diagnoses", pa.list_(_CODING), "codes of the visit"),
        Column("labels", TEXTS, "security labels (meta.security codes, ARV, VIP)"),
        Column("material_hash", TEXT, "hash of what a recipient cares about", True),
        Column("material", FLAG, "false: swallowed, see swallowed_reason", True),
        Column(
            "swallowed_reason", TEXT, "unchanged, duplicate, test_patient, bed_move, cancelled_before_send, superseded"
        ),
        Column("flags", TEXTS, "discharge_without_admit, naive_time, back_fill, ..."),
        Column("source", TEXT, "fhir, hl7v2 or alert", True),
        Column("source_file", TEXT, "file it came from"),
        Column("source_line", INT, "line or message number there"),
        Column("message_sha", TEXT, "sha256 of the raw message or resource", True),
        Column("message_control_id", TEXT, "MSH-10"),
        Column("sending_facility", TEXT, "MSH-4"),
        Column("corrects", TEXT, "event_key of the event that a cancel or a later version takes back"),
    ),
)

ROUTING_DECISION = Table(
    "routing_decision",
    "One event x candidate recipient, with the reason. An event with none still has one row.",
    ("event_key", "subscriber_id", "channel_id", "org_id", "provider_npi"),
    (
        Column("event_key", TEXT, "see ENCOUNTER_EVENT", True),
        Column("person_id", TEXT, "resolved person"),
        Column("decision", TEXT, "deliver, held, unattributed, unmatched or swallowed", True),
        Column("reason_code", TEXT, "why: attributed, or the gate's rule, or the stage that ended it", True),
        Column("reason", TEXT, "the same in words, without patient data"),
        Column("subscriber_id", TEXT, "subscription that would receive it"),
        Column("channel_id", TEXT, "entry of the subscription's channels"),
        Column("provider_npi", TEXT, "attributed clinician"),
        Column("org_id", TEXT, "attributed organisation"),
        Column("primary", FLAG, "first in the order of the resolution policy"),
        Column("payer_ids", TEXTS, "payers that name this provider, sorted"),
        Column("member_keys", TEXTS, "their members, in the same order"),
        Column("attribution_ids", TEXTS, "rows of ATTRIBUTION that decided, in the same order"),
        Column("known_at", INSTANT, "knowledge time of the decision", True),
        Column("columns", TEXTS, "minimum necessary: columns this recipient may get"),
        Column("replay", FLAG, "sent again on request"),
        Column("catch_up", FLAG, "back-filled after a retroactive attribution"),
        Column("notice", TEXT, "text that must travel with it: scope of a Part 2 consent (42 CFR 2.32(b))"),
    ),
)

SENSITIVE_REASONS = (
    "unknown_label",
    "refrain",
    "inline_labels",
    "access_restricted",
    "vip",
    "above_ceiling",
    "sensitive",
    "part2_no_consent",
    "part2_no_notice",
)
"""Reason codes of ROUTING_DECISION by which an item is withheld because of what it says."""

DELIVERY = Table(
    "delivery",
    "One event for one subscriber channel, in its present state.",
    ("delivery_id",),
    (
        Column(
            "delivery_id", TEXT, "sha256 of subscriber and channel, event key, material version, template major", True
        ),
        Column("subscriber_id", TEXT, "who receives", True),
        Column("channel_id", TEXT, "over which of its channels", True),
        Column("event_key", TEXT, "see ENCOUNTER_EVENT", True),
        Column("material_version", TEXT, "material_hash of the event", True),
        Column("template_major", INT, "major version of the format", True),
        Column("state", TEXT, "pending, claimed, sent, acked, retry, unknown, dead, held, cancelled, superseded", True),
        Column("attempts", INT, "sends so far", True),
        Column("due_at", INSTANT, "when it may be sent", True),
        Column("batch_id", TEXT, "batch it was sealed in"),
        Column("sequence", INT, "gapless per subscriber channel"),
        Column("reason", TEXT, "why held, dead, cancelled"),
        Column("created_at", INSTANT, "when the ledger row was committed", True),
        Column("acked_at", INSTANT, "when the destination took it"),
    ),
)

RECEIPT = Table(
    "receipt",
    "One attempt to send one batch.",
    ("batch_id", "attempt_no"),
    (
        Column("batch_id", TEXT, "hash of its sorted delivery ids", True),
        Column("attempt_no", INT, "1, 2, ...", True),
        Column("subscriber_id", TEXT, "who", True),
        Column("channel_id", TEXT, "which channel", True),
        Column("sequence", INT, "sequence number printed in file and manifest", True),
        Column("name", TEXT, "file or message name; never holds patient data", True),
        Column("started_at", INSTANT, "first byte", True),
        Column("ended_at", INSTANT, "last answer", True),
        Column("outcome", TEXT, "acked, retry, unknown or dead", True),
        Column("transport_code", TEXT, "what the transport said"),
        Column("rows", INT, "events in the batch", True),
        Column("size_bytes", INT, "payload size", True),
        Column("payload_sha256", TEXT, "payload hash", True),
    ),
)

MEASURE_RESULT = Table(
    "measure_result",
    "One measure x subject x group (x episode). Counts are population membership; null = not computed.",
    ("measure", "measure_version", "period_start", "period_end", "group", "subject", "episode"),
    (
        Column("measure", TEXT, "measure id or canonical URL", True),
        Column("measure_version", TEXT, "its version", True),
        Column("engine", TEXT, "native or elm, with the library's version", True),
        Column("run_id", TEXT, "evaluation run", True),
        Column("period_start", DAY, "first day of the measurement period", True),
        Column("period_end", DAY, "last day, inclusive", True),
        Column("subject", TEXT, "Patient.id", True),
        Column("group", TEXT, "group of the measure", True),
        Column("basis", TEXT, "boolean or a resource type", True),
        Column("episode", TEXT, "resource key, for resource basis; else null"),
        Column("initial_population", INT, "0, 1 or more"),
        Column("denominator", INT, "members of the denominator, the excluded ones included"),
        Column("denominator_exclusion", INT, "those of them that are excluded"),
        Column("denominator_exception", INT, "those excepted, not in the numerator"),
        Column("numerator", INT, "members of the numerator"),
        Column("numerator_exclusion", INT, "those of them that are excluded"),
        Column("measure_population", INT, "continuous variable: members measured"),
        Column("measure_population_exclusion", INT, "those of them that are excluded"),
        Column(
            "observations",
            pa.list_(pa.struct([("id", TEXT), ("value", NUMBER), ("unit", TEXT)])),
            "measure observations",
        ),
        Column("strata", TEXTS, "stratifier id = value"),
        Column(
            "evidence", pa.list_(pa.struct([("type", TEXT), ("id", TEXT), ("source", TEXT)])), "resources that decided"
        ),
        Column("status", TEXT, "ok or error", True),
        Column("error_code", TEXT, "HX code"),
        Column("error_define", TEXT, "library and define that failed"),
        Column("messages", TEXTS, "warnings of the evaluation, without content"),
        Column("profiles_inferred", INT, "resources whose profile was inferred from their structure"),
        Column("initial_populations", TEXTS, "ids of those the row is in, where the group has several; else null"),
    ),
)

ISSUE = Table(
    "issue",
    "One refused or doubtful row: where, code, message. Never holds the value itself.",
    ("stage", "file", "row_no", "column", "code"),
    (
        Column("stage", TEXT, "room that noticed", True),
        Column("severity", TEXT, "error (row refused), warning or information", True),
        Column("code", TEXT, "short machine code", True),
        Column("message", TEXT, "what is wrong, without patient data", True),
        Column("file", TEXT, "file name"),
        Column("row_no", INT, "1-based row or line"),
        Column("byte_offset", INT, "where the row starts"),
        Column("column", TEXT, "column or JSON pointer"),
        Column("subject_key", TEXT, "member_key, event_key or Type/id it concerns"),
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        MEMBER,
        ROSTER,
        ATTRIBUTION,
        PERSON,
        PERSON_LINK,
        ENCOUNTER_EVENT,
        ROUTING_DECISION,
        DELIVERY,
        RECEIPT,
        MEASURE_RESULT,
        ISSUE,
    )
}
