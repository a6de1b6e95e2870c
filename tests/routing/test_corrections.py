"""Messages to files: what a cancel does before and after the original went out; no patient in logs."""

from __future__ import annotations

import csv
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from hiexchange import hl7v2
from hiexchange.delivery import Outbox
from hiexchange.encounters import Intake, read_adt
from hiexchange.encounters.listen import MLLPListener
from hiexchange.errors import DataError
from hiexchange.routing import Routing, route
from hiexchange.tables import ATTRIBUTION, PERSON_LINK
from hiexchange.testing.mllp import MLLPSender

NAME, MRN, BORN = "Quibblesworth", "MRN-778899", "19591231"
NOW = datetime(2026, 3, 6, tzinfo=UTC)


def adt(trigger: str, at: str, **changes: str) -> bytes:
    pv1: list[Any] = [None] * 45
    pv1[1], pv1[18] = "I", "V1"
    pv1[35], pv1[44] = changes.get("disposition"), at if trigger == "A03" else None
    return hl7v2.write(
        [
            ("MSH", "A", "GENERAL", "HX", "HIE", at, None, ("ADT", trigger), f"{trigger}-{at}", "P", "2.5.1"),
            ("EVN", trigger, at),
            ("PID", "1", None, (MRN, None, None, "GH", "MR"), None, (NAME, "Ada"), None, BORN),
            ("PV1", *pv1),
        ]
    )


def people() -> pa.Table:
    return pa.Table.from_pylist(
        [{"person_id": "p1", "mrn": MRN, "member_ids": [], "birth_date": "1959-12-31", "last_name": NAME}]
    )


def read(*messages: bytes, history: Any = None) -> Intake:
    return read_adt(list(messages), received_at=NOW, persons=people(), history=history)


def routed(world: SimpleNamespace, events: pa.Table, folder: Path, **wish: Any) -> Routing:
    wanted = world.subscription(channel=str(folder), columns=["trigger", "event_key", "corrects"], **wish)
    tables = ATTRIBUTION.from_rows([world.attribution()]), PERSON_LINK.from_rows([world.link()])
    return route(events, *tables, [wanted], known_at=NOW)


def sent(folder: Path) -> list[str]:
    rows = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows += [row["trigger"] for row in csv.DictReader(file)]
    return rows


@pytest.mark.parametrize(
    ("original", "cancel", "triggers"),
    [("A01", "A11", ["admit", "cancel_admit"]), ("A03", "A13", ["discharge", "cancel_discharge"])],
)
def test_a_cancel_after_the_send_is_a_correction(
    world: SimpleNamespace, tmp_path: Path, original: str, cancel: str, triggers: list[str]
) -> None:
    out = tmp_path / "out"
    first = read(adt(original, "20260302100000+0000"))
    second = read(adt(cancel, "20260303100000+0000"), history=first.events)
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        outbox.deliver(routed(world, first.events, out), now=NOW)
        outbox.deliver(routed(world, second.events, out), now=NOW + timedelta(minutes=1))
        outbox.deliver(routed(world, second.events, out), now=NOW + timedelta(minutes=2))
    assert sent(out) == triggers


def test_a_cancel_before_the_send_leaves_nothing_to_say(world: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    both = read(adt("A01", "20260302100000+0000"), adt("A11", "20260302110000+0000"))
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        routing = routed(world, both.events, out, cadence="0 6 * * *")
        outbox.enqueue(routing, now=NOW)
        outbox.run(NOW + timedelta(days=1))
        deliveries = outbox.deliveries()
    assert sent(out) == []
    assert set(deliveries["state"].to_pylist()) == {"cancelled"}
    assert routing.identity(deliveries) == {
        "events": 2, "swallowed": 2, "unmatched": 0, "unattributed": 0, "held": 0, "delivered": 0, "pending": 0, "dead": 0,
    }  # fmt: skip


def test_running_a_day_twice_sends_nothing_twice(world: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    messages = [adt("A01", "20260302100000+0000"), adt("A08", "20260302110000+0000"), adt("A03", "20260304100000+0000")]
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        for minute in range(3):
            outbox.deliver(routed(world, read(*messages).events, out), now=NOW + timedelta(minutes=minute))
        # One more message arrives in the same inbox, and everything is read again.
        messages.append(adt("A03", "20260304120000+0000", disposition="20"))
        outbox.deliver(routed(world, read(*messages).events, out), now=NOW + timedelta(hours=1))
    assert sorted(sent(out)) == ["admit", "discharge", "discharge"]


def test_logs_errors_and_reprs_name_no_patient(
    world: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    broken = adt("A01", "20260302100000+0000").replace(b"\rPV1", f"\r{NAME} ran on a line\rPV1".encode())
    with pytest.raises(DataError) as refused:
        hl7v2.parse(broken)
    with MLLPListener(tmp_path / "in", port=0) as listener, MLLPSender(listener.port) as sender:
        sender.send(adt("A01", "20260302100000+0000"))
        assert sender.send(broken).code == "AR"
    intake = read(adt("A01", "20260302100000+0000"), broken, adt("A01", "2099"))
    routing = routed(world, intake.events, tmp_path / "out")
    seen += [
        str(refused.value),
        repr(refused.value),
        caplog.text,
        str(intake.issues.to_pylist()),
        repr(routing.identity()),
    ]
    seen += [routing._repr_html_(), str(routing.decisions.to_pylist()), *(path.name for path in tmp_path.rglob("*"))]
    for secret in (NAME, MRN, BORN, "1959-12-31"):
        assert not [text for text in seen if secret in text]
