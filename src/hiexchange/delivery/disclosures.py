"""What was disclosed to whom: AuditEvent (IHE BALP) and the accounting of disclosures.

Treatment disclosures are exempt from 45 CFR 164.528; the content it asks for (date, recipient and
address, what, purpose) is kept for every delivery anyway. One row a person and disclosure: a
replay is a disclosure of its own.

Source: IHE BALP, profile IHE.BasicAudit.PrivacyDisclosure.Source; 45 CFR 164.528(b)(2).
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import pyarrow as pa

from hiexchange._cells import neutral
from hiexchange.delivery.base import instant, microseconds
from hiexchange.delivery.channel import from_json
from hiexchange.delivery.ledger import Store
from hiexchange.tables import FLAG, INSTANT, INT, TEXT

PURPOSE = "TREAT"
"""v3 ActReason of every delivery this room makes: events go to those who treat."""
DESCRIPTION = "Encounter notification"
ACCOUNTING = pa.schema(
    [
        ("disclosed_at", INSTANT),
        ("person_id", TEXT),
        ("recipient", TEXT),
        ("recipient_npi", TEXT),
        ("recipient_address", TEXT),
        ("description", TEXT),
        ("purpose", TEXT),
        ("trigger", TEXT),
        ("facility_id", TEXT),
        ("delivery_id", TEXT),
        ("batch_id", TEXT),
        ("sequence", INT),
        ("replay", FLAG),
    ]
)
PROFILE = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.PrivacyDisclosure.Source"
_NAMESPACE = uuid.UUID("0f3f6c1e-57a0-5a77-8d8e-3c1b5f0a6d42")
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
_DCM = "http://dicom.nema.org/resources/ontology/DCM"


def accounting(
    store: Store, *, person_id: str | None = None, since: datetime | None = None, until: datetime | None = None
) -> pa.Table:
    """Return the disclosures, by time: columns of :data:`ACCOUNTING`.

    Args:
        store: The ledger.
        person_id: Only this person's.
        since: From this instant on.
        until: Up to but not including this instant.
    """
    rows = list(_rows(store, person_id, since, until))
    return pa.Table.from_pylist(rows, schema=ACCOUNTING)


def accounting_csv(table: pa.Table) -> bytes:
    """Return an accounting as CSV, instants in ISO 8601 (UTC)."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in table.to_pylist():
        writer.writerow([_cell(value) for value in row.values()])
    return buffer.getvalue().encode()


def _cell(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else neutral(value) if isinstance(value, str) else value


def audit_events(
    store: Store, *, exchange: str, address: str, since: datetime | None = None, until: datetime | None = None
) -> Iterator[bytes]:
    """Yield one AuditEvent a disclosure, as NDJSON lines.

    Args:
        store: The ledger.
        exchange: Name of the disclosing organisation.
        address: Its host name, for the source agent's network address.
        since: From this instant on.
        until: Up to but not including this instant.
    """
    for row in _rows(store, None, since, until):
        yield msgspec.json.encode(_audit_event(row, exchange, address)) + b"\n"


def _rows(
    store: Store, person_id: str | None, since: datetime | None, until: datetime | None
) -> Iterator[dict[str, Any]]:
    specs = {sha: from_json(spec) for sha, spec in store.rows("SELECT sha, spec FROM config_version")}
    start = microseconds(since) if since else 0
    end = microseconds(until) if until else 2**62
    found = store.rows(
        "SELECT b.acked_at, e.person_id, d.subscriber_id, d.context, b.config_sha, e.trigger_class, e.visit, "
        "d.delivery_id, b.batch_id, b.sequence, b.replay FROM batch b "
        "JOIN delivery d ON d.batch_id = b.batch_id AND b.replay = 0 "
        "JOIN event e ON e.event_key = d.event_key AND e.material_version = d.material_version "
        "WHERE b.state = 'acked' AND b.acked_at >= ? AND b.acked_at < ? "
        "UNION ALL "
        "SELECT b.acked_at, e.person_id, d.subscriber_id, d.context, b.config_sha, e.trigger_class, e.visit, "
        "d.delivery_id, b.batch_id, b.sequence, b.replay FROM batch b "
        "JOIN replay_item r ON r.batch_id = b.batch_id JOIN delivery d ON d.delivery_id = r.delivery_id "
        "JOIN event e ON e.event_key = d.event_key AND e.material_version = d.material_version "
        "WHERE b.state = 'acked' AND b.acked_at >= ? AND b.acked_at < ? ORDER BY 1, 10, 8",
        (start, end, start, end),
    )
    for acked, person, subscriber, context, sha, trigger, visit, key, batch, sequence, replay in found:
        if person_id is not None and person != person_id:
            continue
        yield {
            "disclosed_at": instant(acked),
            "person_id": person,
            "recipient": subscriber,
            "recipient_npi": next(iter(msgspec.json.decode(context).get("npi", ())), None),
            "recipient_address": public_address(specs[sha].url),
            "description": DESCRIPTION,
            "purpose": PURPOSE,
            "trigger": trigger,
            "facility_id": visit.partition("\x1f")[0],
            "delivery_id": key,
            "batch_id": batch,
            "sequence": sequence,
            "replay": bool(replay),
        }


def public_address(url: str) -> str:
    """Return a channel's address without user name or query."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, f"{parts.hostname or ''}{port}", parts.path, "", ""))


def _audit_event(row: dict[str, Any], exchange: str, address: str) -> dict[str, Any]:
    recipient: dict[str, Any] = {"display": row["recipient"]}
    if row["recipient_npi"]:
        recipient["identifier"] = {"system": "http://hl7.org/fhir/sid/us-npi", "value": row["recipient_npi"]}
    recorded = row["disclosed_at"].astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "resourceType": "AuditEvent",
        "id": str(uuid.uuid5(_NAMESPACE, f"{row['batch_id']}/{row['delivery_id']}")),
        "meta": {"profile": [PROFILE]},
        "type": {"system": _DCM, "code": "110106", "display": "Export"},
        "subtype": [{"system": f"{_TERMINOLOGY}iso-21089-lifecycle", "code": "disclose"}],
        "action": "R",
        "recorded": recorded,
        "outcome": "0",
        "purposeOfEvent": [{"coding": [{"system": f"{_TERMINOLOGY}v3-ActReason", "code": row["purpose"]}]}],
        "agent": [
            _agent("110153", "Source Role ID", {"display": exchange}, address, "1"),
            _agent("110152", "Destination Role ID", recipient, row["recipient_address"], "5"),
        ],
        "source": {
            "observer": {"display": exchange},
            "type": [{"system": f"{_TERMINOLOGY}security-source-type", "code": "4"}],
        },
        "entity": [
            {
                "what": {"reference": f"Patient/{row['person_id']}"},
                "type": {"system": f"{_TERMINOLOGY}audit-entity-type", "code": "1"},
                "role": {"system": f"{_TERMINOLOGY}object-role", "code": "1"},
            },
            {
                "what": {"identifier": {"system": "urn:hiexchange:delivery-id", "value": row["delivery_id"]}},
                "type": {"system": f"{_TERMINOLOGY}audit-entity-type", "code": "2"},
                "role": {"system": f"{_TERMINOLOGY}object-role", "code": "3"},
                "description": row["description"],
                "detail": [
                    {"type": "trigger", "valueString": row["trigger"]},
                    {"type": "sequence", "valueString": str(row["sequence"])},
                    {"type": "replay", "valueString": str(row["replay"]).lower()},
                ],
            },
        ],
    }


def _agent(code: str, display: str, who: dict[str, Any], address: str, kind: str) -> dict[str, Any]:
    return {
        "type": {"coding": [{"system": _DCM, "code": code, "display": display}]},
        "who": who,
        "requestor": False,
        "network": {"address": address, "type": kind},
    }
