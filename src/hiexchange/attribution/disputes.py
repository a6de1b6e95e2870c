"""Disputes: a provider asks to add or remove a patient, the payer decides, the next roster shows it.

States: open -> sent -> accepted | refused -> effective. A disputed row keeps routing, except "not my
patient", which is suppressed for that provider at once: the payer's answer takes weeks, a wrong
disclosure is immediate. The table is append-only; the last row of a dispute is its state.

Tables travel as CSV or XLSX bytes: payers take spreadsheets with an attestation (NC Medicaid AMH), and
answer in the same sheet.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from hiexchange._cells import neutral
from hiexchange._duck import quiet_connection
from hiexchange.errors import DataError, MissingExtra
from hiexchange.tables import ATTRIBUTION, DAY, INSTANT, TEXT, Column, Table, check

DISPUTE = Table(
    "dispute",
    "One change of state of one dispute.",
    ("dispute_id", "changed_at"),
    (
        Column("dispute_id", TEXT, "sha256 of member, provider, kind and the day it was raised", True),
        Column("state", TEXT, "open, sent, accepted, refused or effective", True),
        Column("changed_at", INSTANT, "when it came into that state", True),
        Column("kind", TEXT, "add, remove or not_my_patient", True),
        Column("payer_id", TEXT, "payer whose list is disputed", True),
        Column("member_key", TEXT, "member concerned", True),
        Column("member_id", TEXT, "the payer's id of the member", True),
        Column("provider_npi", TEXT, "provider who asks"),
        Column("provider_tin", TEXT, "its practice"),
        Column("org_id", TEXT, "its organisation"),
        Column("raised_on", DAY, "day it was raised", True),
        Column("raised_by", TEXT, "person who attests it", True),
        Column("reason", TEXT, "why it is asked, or why it was refused"),
        Column("documentation", TEXT, "name of the document that supports it"),
    ),
)
KINDS = ("add", "remove", "not_my_patient")
NEXT = {
    "open": ("sent",),
    "sent": ("accepted", "refused"),
    "accepted": ("effective",),
    "refused": (),
    "effective": (),
}
"""State -> states that may follow."""


def raise_dispute(
    attribution: Any,
    kind: str,
    *,
    raised_by: str,
    raised_on: date,
    reason: str | None = None,
    documentation: str | None = None,
) -> pa.Table:
    """Return an open dispute for each attribution row.

    Args:
        attribution: ATTRIBUTION rows that are disputed; for ``add`` rows as they should be.
        kind: ``add``, ``remove`` or ``not_my_patient``.
        raised_by: Person who attests it.
        raised_on: Day it is raised.
        reason: Why.
        documentation: Name of a supporting document.

    Raises:
        DataError: No such kind.
    """
    if kind not in KINDS:
        raise DataError(f"there is no dispute of kind {kind}", hint=f"one of {', '.join(KINDS)}", code="HX-511")
    table = attribution if isinstance(attribution, pa.Table) else pa.table(attribution)
    names = ["payer_id", "member_key", "member_id", "provider_npi", "provider_tin", "org_id"]
    rows = []
    for row in table.select(names).to_pylist():
        parts = (*(row[name] or "" for name in names), kind, raised_on.isoformat())
        identity = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
        rows.append(
            {
                **row,
                "dispute_id": identity,
                "state": "open",
                "changed_at": datetime(raised_on.year, raised_on.month, raised_on.day, tzinfo=UTC),
                "kind": kind,
                "raised_on": raised_on,
                "raised_by": raised_by,
                "reason": reason,
                "documentation": documentation,
            }
        )
    return DISPUTE.from_rows(rows)


def current(disputes: Any) -> pa.Table:
    """Return the last row of each dispute, sorted by id."""
    con = quiet_connection()
    try:
        con.execute("SET TimeZone = 'UTC'")
        con.register("d", check(disputes, DISPUTE))
        found = con.sql(
            "FROM d QUALIFY row_number() OVER (PARTITION BY dispute_id ORDER BY changed_at DESC, state) = 1 ORDER BY dispute_id"
        ).to_arrow_table()
    finally:
        con.close()
    return check(found, DISPUTE)


def advance(disputes: Any, states: dict[str, str], *, at: datetime, reasons: dict[str, str] | None = None) -> pa.Table:
    """Return the rows to append when disputes change state.

    Args:
        disputes: DISPUTE rows so far.
        states: Dispute id -> new state. A dispute that is in that state already adds nothing.
        at: When.
        reasons: Dispute id -> why, for refusals.

    Raises:
        DataError: An unknown dispute, or a state that may not follow (a refusal needs a reason).
    """
    now = {row["dispute_id"]: row for row in current(disputes).to_pylist()}
    rows = []
    for identity, state in sorted(states.items()):
        row = now.get(identity)
        if row is None:
            raise DataError("a dispute in the answer is not known", where=f"dispute {identity}", code="HX-511")
        if row["state"] == state:
            continue
        if state not in NEXT[row["state"]]:
            raise DataError(
                f"a dispute cannot go from {row['state']} to {state}",
                where=f"dispute {identity}",
                hint=f"possible: {', '.join(NEXT[row['state']]) or 'none, it is closed'}",
                code="HX-511",
            )
        reason = (reasons or {}).get(identity) or (None if state == "refused" else row["reason"])
        if state == "refused" and not reason:
            raise DataError("a refused dispute needs a reason", where=f"dispute {identity}", code="HX-511")
        rows.append({**row, "state": state, "changed_at": at, "reason": reason})
    return DISPUTE.from_rows(rows)


def settle(disputes: Any, attribution: Any, *, on: date, at: datetime) -> pa.Table:
    """Return the rows to append for accepted disputes that the payer's lists show by now.

    Args:
        disputes: DISPUTE rows.
        attribution: Attributions in force on ``on`` (:func:`active`).
        on: The day looked at.
        at: When.
    """
    con = quiet_connection()
    try:
        con.register("d", current(disputes))
        con.register("a", check(attribution, ATTRIBUTION))
        found = con.sql(
            """SELECT dispute_id FROM d WHERE state = 'accepted' AND (kind = 'add') = EXISTS (
                SELECT 1 FROM a WHERE a.member_key = d.member_key AND a.valid_from <= $on AND $on < a.valid_to
                    AND a.provider_npi IS NOT DISTINCT FROM d.provider_npi
                    AND (d.provider_tin IS NULL OR a.provider_tin IS NOT DISTINCT FROM d.provider_tin)
                    AND (d.org_id IS NULL OR a.org_id IS NOT DISTINCT FROM d.org_id))""",
            params={"on": on},
        ).to_arrow_table()
    finally:
        con.close()
    return advance(disputes, dict.fromkeys(found["dispute_id"].to_pylist(), "effective"), at=at)


def overlay(attribution: Any, disputes: Any) -> pa.Table:
    """Return attributions with the status that open disputes give them.

    ``not_my_patient`` suppresses the row for that provider until it is refused; other disputed rows
    keep routing and are marked ``disputed``.
    """
    con = quiet_connection()
    try:
        con.register("a", check(attribution, ATTRIBUTION))
        con.register("d", current(disputes))
        found = con.sql(
            """WITH o AS (SELECT *, kind = 'not_my_patient' AS stop FROM d
                WHERE kind <> 'add' AND (state IN ('open', 'sent') OR state = 'accepted'))
            SELECT a.* REPLACE (
                CASE WHEN a.status <> 'active' OR x.stop IS NULL THEN a.status WHEN x.stop THEN 'suppressed' ELSE 'disputed' END
                    AS status,
                CASE WHEN a.status <> 'active' OR x.stop IS NULL THEN a.reason_code WHEN x.stop THEN 'not_my_patient'
                    ELSE 'disputed' END AS reason_code)
            FROM a LEFT JOIN (
                SELECT a.attribution_id, bool_or(o.stop) AS stop FROM a JOIN o ON o.member_key = a.member_key
                    AND o.provider_npi IS NOT DISTINCT FROM a.provider_npi
                    AND o.provider_tin IS NOT DISTINCT FROM a.provider_tin AND o.org_id IS NOT DISTINCT FROM a.org_id
                GROUP BY a.attribution_id) x USING (attribution_id)
            ORDER BY a.business_key, a.valid_from"""
        ).to_arrow_table()
    finally:
        con.close()
    return check(found, ATTRIBUTION)


def to_csv(disputes: Any) -> bytes:
    """Return disputes as the CSV that goes to the payer; the same table gives the same bytes."""
    rows = current(disputes).to_pylist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(DISPUTE.schema.names)
    # What a practice wrote as its reason is opened in the payer's spreadsheet.
    writer.writerows([neutral(_plain(row[name])) for name in DISPUTE.schema.names] for row in rows)
    return text.getvalue().encode("utf-8-sig")


def to_xlsx(disputes: Any) -> bytes:
    """Return disputes as a worksheet, ids as text.

    Raises:
        MissingExtra: xlsxwriter is not installed (extra ``excel``).
    """
    try:
        import xlsxwriter
    except ImportError:
        raise MissingExtra("excel", "writing disputes as XLSX") from None
    sink = io.BytesIO()
    book = xlsxwriter.Workbook(sink, {"in_memory": True})
    book.set_properties({"created": datetime(2000, 1, 1)})
    sheet = book.add_worksheet("disputes")
    bold, text = book.add_format({"bold": True}), book.add_format({"num_format": "@"})
    for column, name in enumerate(DISPUTE.schema.names):
        sheet.write_string(0, column, name, bold)
    for line, row in enumerate(current(disputes).to_pylist(), 1):
        for column, name in enumerate(DISPUTE.schema.names):
            sheet.write_string(line, column, _plain(row[name]), text)
    sheet.set_column(0, len(DISPUTE.schema.names) - 1, 18)
    book.close()
    return sink.getvalue()


def read_answer(data: bytes, disputes: Any, *, at: datetime) -> pa.Table:
    """Return the rows to append from a payer's answer: the sheet we sent, with ``state`` filled in.

    Args:
        data: CSV or XLSX bytes with at least ``dispute_id``, ``state``, and ``reason`` for refusals.
        disputes: DISPUTE rows so far.
        at: When the answer came.

    Raises:
        DataError: A column is missing, a dispute unknown, or a state impossible.
        MissingExtra: XLSX without the ``excel`` extra.
    """
    rows = list(_rows_of(data))
    if rows and not {"dispute_id", "state"} <= set(rows[0]):
        raise DataError(
            "the answer lacks the columns dispute_id and state", hint="answer in the sheet sent", code="HX-511"
        )
    states = {row["dispute_id"]: row["state"].strip().casefold() for row in rows if row["state"].strip()}
    reasons = {row["dispute_id"]: row.get("reason", "") for row in rows}
    wrong = sorted(set(states.values()) - set(NEXT))
    if wrong:
        raise DataError("the answer holds an unknown state", hint=f"one of {', '.join(NEXT)}", code="HX-511")
    return advance(disputes, states, at=at, reasons=reasons)


def _rows_of(data: bytes) -> Iterable[dict[str, str]]:
    if not data.startswith(b"PK"):
        return csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    try:
        import python_calamine
    except ImportError:
        raise MissingExtra("excel", "reading disputes from XLSX") from None
    header, *lines = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data)).get_sheet_by_index(0).to_python()
    return [dict(zip(map(str, header), map(str, line), strict=True)) for line in lines]


def _plain(value: Any) -> str:
    return "" if value is None else value.isoformat() if isinstance(value, date | datetime) else str(value)


def to_parameters(dispute: dict[str, Any]) -> dict[str, Any]:
    """Return the FHIR Parameters of Da Vinci ATR's ``$member-add`` or ``$member-remove`` for one dispute.

    Source:
        HL7 Da Vinci ATR 2.1: memberId and providerNpi identify member and provider.
    """
    parameters: list[dict[str, Any]] = [{"name": "memberId", "valueIdentifier": {"value": dispute["member_id"]}}]
    if dispute.get("provider_npi"):
        npi = {"system": "http://hl7.org/fhir/sid/us-npi", "value": dispute["provider_npi"]}
        parameters.append({"name": "providerNpi", "valueIdentifier": npi})
    return {"resourceType": "Parameters", "parameter": parameters}
