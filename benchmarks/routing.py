"""A synthetic Arkansas day: parse, route, ledger, render, and the immediate path.

    python benchmarks/routing.py                    # the whole day; 3 GB of disk in a temporary folder
    python benchmarks/routing.py --scale 0.02       # a fiftieth of it

Figures (reference section 10): 3,067,732 people, rosters of 1.5 million rows from each of four payers,
250,000 raw messages, 763 subscribers. Everything is invented; ids only, no names.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from hiexchange import hl7v2
from hiexchange.delivery import Outbox
from hiexchange.encounters import AdtSettings, Identities, RawMessage, to_fhir
from hiexchange.encounters.adt import collect
from hiexchange.encounters.listen import MLLPListener
from hiexchange.routing import Router, RoutingIndex, Subscriptions, load_subscriptions, route
from hiexchange.tables import ATTRIBUTION, PERSON_LINK
from hiexchange.testing.mllp import MLLPSender

PEOPLE, ROSTER_ROWS, PAYERS, SUBSCRIBERS = 3_067_732, 1_500_000, 4, 763
HOSPITAL, CLINIC = 18_000, 35_300
"""Visits of the day: eight messages each in hospitals, three in clinics: 249,900 messages."""
DAY = datetime(2026, 3, 10, tzinfo=UTC)
KNOWN = DAY + timedelta(days=1)
FORMATS = ("csv", "csv", "ndjson", "tsv", "parquet", "xlsx", "hl7v2", "fhir")


def npi(number: int) -> str:
    """A number of ten digits for clinician ``number``."""
    return f"19{number:08d}"


class Clock:
    """Wall and CPU seconds of a step: on a busy machine they part."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def wall(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._wall

    def __str__(self) -> str:
        return f"{self.wall:.1f} s (CPU {time.process_time() - self._cpu:.1f} s)"


def tables(folder: Path, people: int, rows: int) -> None:
    """Write attribution and links of all payers; two members of five have two attributed clinicians."""
    clinicians = SUBSCRIBERS * 3 * 11 // 10  # three a subscriber; a tenth more whom nobody subscribes to
    con = duckdb.connect()
    con.execute(
        "SET enable_progress_bar = false; SET threads = 2; SET memory_limit = '1GB'; SET preserve_insertion_order = false"
    )
    (folder / "attribution").mkdir()
    (folder / "link").mkdir()
    for payer in range(PAYERS):
        members = rows * 5 // 7
        person = f"(m.range * {people} // {members} + {payer} * 7919) % {people}"
        key = f"sha256('{payer}/' || m.range)"
        cells = {
            "attribution_id": f"sha256('{payer}/' || m.range || '/' || n.range)",
            "business_key": key,
            "payer_id": f"'payer-{payer}'",
            "member_key": key,
            "member_id": f"'{payer}-' || m.range",
            "member_id_system": f"'payer-{payer}'",
            "provider_npi": f"'19' || lpad((({person}) * 31 + n.range * 17) % {clinicians} || '', 8, '0')",
            "attribution_level": "'clinician'",
            "basis": "'payer_assigned'",
            "valid_from": "DATE '2026-01-01'",
            "valid_to": "CASE WHEN m.range % 20 = 0 THEN DATE '2026-02-01' ELSE DATE '9999-12-31' END",
            "known_from": "TIMESTAMPTZ '2026-01-05 00:00:00+00'",
            "known_to": "TIMESTAMPTZ '9999-12-31 00:00:00+00'",
            "as_of_on": "DATE '2026-01-01'",
            "change_type": "'new'",
            "roster_id": f"'roster-{payer}'",
            "row_no": "m.range",
            "row_sha": key,
            "status": "'active'",
        }
        select = ", ".join(
            f"{cells[column.name]} AS {column.name}"
            if column.name in cells
            else f"NULL::{_sql(column.type)} AS {column.name}"
            for column in ATTRIBUTION.columns
        )
        con.execute(
            f"COPY (SELECT {select} FROM range({members}) m JOIN range(2) n ON n.range = 0 OR m.range % 5 < 2) "
            f"TO '{folder}/attribution/{payer}.parquet' (FORMAT parquet, COMPRESSION zstd)"
        )
        links = {
            "member_key": key,
            "payer_id": f"'payer-{payer}'",
            "person_id": f"'p' || ({person})",
            "method": "'member_id'",
            "band": "CASE WHEN m.range % 50 = 0 THEN 'review' ELSE 'auto' END",
            "candidates": "1",
            "run_id": "'run'",
            "known_from": "TIMESTAMPTZ '2026-01-05 00:00:00+00'",
            "known_to": "TIMESTAMPTZ '9999-12-31 00:00:00+00'",
        }
        select = ", ".join(
            f"{links[column.name]} AS {column.name}"
            if column.name in links
            else f"NULL::{_sql(column.type)} AS {column.name}"
            for column in PERSON_LINK.columns
        )
        con.execute(
            f"COPY (SELECT {select} FROM range({members}) m) TO '{folder}/link/{payer}.parquet' (FORMAT parquet, COMPRESSION zstd)"
        )
    con.close()


def _sql(kind: pa.DataType) -> str:
    known = {
        pa.string(): "VARCHAR",
        pa.date32(): "DATE",
        pa.int16(): "SMALLINT",
        pa.int64(): "BIGINT",
        pa.float64(): "DOUBLE",
    }
    return known.get(kind, "STRUCT(field VARCHAR, level VARCHAR, bits DOUBLE)[]")


def message(trigger: str, at: datetime, *, visit: str, patient: int, class_: str, extra: tuple[Any, ...] = ()) -> bytes:
    """One ADT message of the size hospitals send (a kilobyte or so)."""
    stamp = hl7v2.dtm(at)
    facility = f"H{int(visit[1:]) % 116}" if class_ in "IE" else f"C{int(visit[1:]) % 2825}"
    pv1: list[Any] = [None] * 45
    pv1[0], pv1[1], pv1[2], pv1[18], pv1[43] = "1", class_, ("3W", "301", "A", facility), visit, stamp
    pv1[6] = (npi(patient % 9000), "Clinician", "Some", None, None, None, None, None, "NPI")
    if trigger == "A03":
        pv1[35], pv1[44] = "01", stamp
    identifiers: Any = [(f"p{patient}", None, None, "HIE", "MR"), (f"{patient:09d}", None, None, "SSA", "SS")]
    name, home, phone = ("Family", "Given", "M"), ("1 Elm Road", None, "Conway", "AR", "72032"), "(555)555-5555"
    control = f"{visit}{trigger}{stamp[8:14]}"
    return hl7v2.write(
        [
            ("MSH", "ADT", facility, "HX", "HIE", stamp, None, ("ADT", trigger, "ADT_A01"), control, "P", "2.5.1"),
            ("EVN", trigger, stamp, None, None, ("op", "Operator", "Some"), stamp),
            ("PID", "1", None, identifiers, None, name, None, "19600101", "F", None, None, home, None, phone, *[None] * 4, visit),
            ("NK1", "1", ("Family", "Other"), "SPO", home, phone),
            ("PV1", *pv1),
            ("PV2", None, None, ("R07.9", "Chest pain, unspecified", "I10")),
            *extra,
            ("IN1", "1", "PLAN", "PAYER", "Some Payer", ("PO Box 1", None, "Little Rock", "AR", "72201")),
        ]
    )  # fmt: skip


def day(people: int, scale: float) -> Iterator[bytes]:
    """Yield the messages of the day in order of visits; noise as hospitals make it."""
    diagnosis = (("DG1", "1", "I10", ("R07.9", "Chest pain", "I10")),)
    for number in range(int(HOSPITAL * scale)):
        visit, patient = f"V{number}", number * 7_919 % people
        at = DAY + timedelta(seconds=number * 43_200 // max(int(HOSPITAL * scale), 1))
        yield message("A01", at, visit=visit, patient=patient, class_="I")
        yield message("A02", at + timedelta(minutes=30), visit=visit, patient=patient, class_="I")
        for index in range(4):
            yield message("A08", at + timedelta(hours=1, minutes=index), visit=visit, patient=patient, class_="I")
        yield message("A08", at + timedelta(hours=2), visit=visit, patient=patient, class_="I", extra=diagnosis)
        yield message("A03", at + timedelta(hours=6), visit=visit, patient=patient, class_="I", extra=diagnosis)
    for number in range(int(CLINIC * scale)):
        visit, patient = f"W{number}", (number * 104_729 + 13) % people
        at = DAY + timedelta(seconds=36_000 + number)
        yield message("A04", at, visit=visit, patient=patient, class_="O")
        yield message("A08", at + timedelta(minutes=5), visit=visit, patient=patient, class_="O")
        yield message("A08", at + timedelta(minutes=9), visit=visit, patient=patient, class_="O")


def subscriptions(folder: Path, *, daily: bool = True) -> Subscriptions:
    """Return 763 subscribers of three clinicians each: daily files in eight formats, or NDJSON at once."""
    return load_subscriptions(
        [
            {
                "id": f"practice-{number}",
                "npi": [npi(number * 3 + index) for index in range(3)],
                "channel": str(folder / "out" / f"practice-{number}"),
                "format": FORMATS[number % len(FORMATS)] if daily else "ndjson",
                "cadence": "0 6 * * *" if daily else "immediate",
                "zone": "America/Chicago",
            }
            for number in range(SUBSCRIBERS)
        ]
    )


class EveryPatient(dict[str, str]):
    """Identifiers that are person ids already: the index of a day need not be built twice."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return the identifier itself."""
        return key.rpartition("|")[2]

    def __contains__(self, key: object) -> bool:
        return True


def readers(messages: list[bytes]) -> list[tuple[str, str]]:
    """Return messages a second: ours with FHIR, ours with four fields, and the same four fields by others."""

    def fhir(data: bytes) -> None:
        to_fhir(hl7v2.parse(data), received_at=KNOWN)

    def fields(data: bytes) -> None:
        parsed = hl7v2.parse(data)
        _ = [parsed.value(path) for path in ("PID-3", "PID-5", "PV1-19", "PV1-44")]

    found = [
        ("ours, to FHIR Patient, Encounter and Conditions", rate(fhir, messages)),
        ("ours, four fields", rate(fields, messages)),
    ]
    with contextlib.suppress(ImportError):
        import hl7

        places = (("PID", 1, 3), ("PID", 1, 5), ("PV1", 1, 19), ("PV1", 1, 44))

        def theirs(data: bytes) -> None:
            parsed = hl7.parse(data.decode())
            _ = [str(parsed.extract_field(*place)) for place in places]

        found.append(("hl7 0.4.5, four fields", rate(theirs, messages[: max(len(messages) // 20, 20)])))
    with contextlib.suppress(ImportError):
        from hl7apy.parser import parse_message

        def others(data: bytes) -> None:
            parsed = parse_message(data.decode(), find_groups=False)
            _ = [parsed.pid.pid_3.value, parsed.pid.pid_5.value, parsed.pv1.pv1_19.value, parsed.pv1.pv1_44.value]

        found.append(("hl7apy 1.3.5, four fields", rate(others, messages[: max(len(messages) // 500, 10)])))
    return found


def rate(work: Callable[[bytes], None], messages: list[bytes]) -> str:
    """Return messages a second of wall and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    for data in messages:
        work(data)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return f"{len(messages) / wall:,.0f}/s ({len(messages) / cpu:,.0f} a CPU second)"


def immediate(folder: Path, index: RoutingIndex, *, count: int, people: int, rate: float) -> list[float]:
    """Return seconds from message on the wire to file at the sink, for messages that arrive at a rate.

    The listener hands on; a loop takes what has come, routes and delivers it.
    """
    came: list[tuple[RawMessage, float]] = []
    wanted = subscriptions(folder / "now", daily=False)
    settings = AdtSettings(identities=Identities(EveryPatient()))
    waits: list[float] = []
    clock = time.perf_counter
    router = Router(index, wanted)
    with (
        Outbox(folder / "now.sqlite") as outbox,
        MLLPListener(folder / "inbox", port=0, on_message=lambda raw: came.append((raw, clock()))) as listener,
        MLLPSender(listener.port) as sender,
    ):
        outbox.configure(wanted, now=KNOWN)
        sent = 0
        begun = clock()
        while sent < count or came:
            while sent < count and clock() >= begun + sent / rate:
                now = datetime.now(UTC)
                sender.send(message("A01", now, visit=f"V{10**6 + sent}", patient=sent * 7_919 % people, class_="I"))
                sent += 1
            batch, came[:] = came[:], []
            if not batch:
                time.sleep(0.001)  # a loop that never waits keeps the listener's threads from running
                continue
            now = datetime.now(UTC)
            events = collect((raw for raw, _ in batch), settings).events
            outbox.deliver(router.route(events, known_at=now), now=now)
            ended = clock()
            waits += [ended - at for _, at in batch]
    return waits


def main() -> None:
    """Run the day and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scale", type=float, default=1.0)
    options.add_argument("--immediate", type=int, default=200, help="messages of the immediate path")
    given = options.parse_args()
    people, rows = int(PEOPLE * given.scale), int(ROSTER_ROWS * given.scale)
    lines = Lines()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Made in another process, so that its memory is not ours.
        maker = multiprocessing.get_context("spawn").Process(target=tables, args=(folder, people, rows))
        maker.start()
        maker.join()
        attribution, links = (sorted((folder / name).iterdir()) for name in ("attribution", "link"))
        messages = list(day(people, given.scale))
        size = sum(map(len, messages)) / len(messages)
        for label, speed in readers(messages[: max(int(20_000 * given.scale), 1_000)]):
            lines.append((f"HL7 reader: {label}", speed, ">= 2,000/s" if "FHIR" in label else ""))
        settings = AdtSettings(identities=Identities(EveryPatient()))
        clock = Clock()
        intake = collect((RawMessage(data, received_at=KNOWN) for data in messages), settings)
        step = f"events of {len(messages):,} messages ({size:,.0f} bytes)"
        lines.append((step, f"{clock}, {len(messages) / clock.wall:,.0f}/s", ">= 2,000/s"))
        del messages
        lines.append(("memory so far", f"{peak():.2f} GB", ""))
        wanted = subscriptions(folder)
        clock = Clock()
        routing = route(intake.events, attribution, links, wanted, known_at=KNOWN)
        lines.append((f"route the day ({rows * PAYERS:,} attribution rows)", str(clock), "<= 10 s"))
        lines.append(("memory so far", f"{peak():.2f} GB", ""))
        identity = routing.identity()
        with Outbox(folder / "outbox.sqlite") as outbox:
            outbox.configure(wanted, now=DAY)
            clock = Clock()
            count = outbox.enqueue(routing, now=KNOWN)
            per = f"{clock.wall / max(count, 1) * 100_000:.1f} s per 100,000"
            lines.append((f"{count:,} ledger rows", f"{clock}, {per}", "<= 30 s per 100,000"))
            clock = Clock()
            report = outbox.run(KNOWN + timedelta(hours=13))
            step = f"render and file {report.sealed:,} batches, {report.rows_acked:,} rows"
            lines.append((step, str(clock), "<= 120 s"))
            final = routing.identity(outbox.deliveries())
        clock = Clock()
        with RoutingIndex(folder / "index.duckdb", attribution=attribution, links=links, known_at=KNOWN) as index:
            lines.append(("index by person for the immediate path", str(clock), ""))
            clock = Clock()
            waits = sorted(immediate(folder, index, count=given.immediate, people=people, rate=7.0))
        p95 = waits[int(len(waits) * 0.95) - 1]
        step = f"message to sink, {len(waits)} at 7/s"
        lines.append((step, f"median {statistics.median(waits):.2f} s, p95 {p95:.2f} s; {clock}", "p95 <= 2 s"))
    lines.append(("peak memory of the whole run", f"{peak():.2f} GB", "< 3 GB"))
    out = io.StringIO()
    out.write("| step | measured | target |\n|---|---|---|\n")
    for line in lines:
        out.write("| " + " | ".join(line) + " |\n")
    print(out.getvalue())
    print("routed:   ", _sum(identity))
    print("delivered:", _sum(final))


class Lines(list[tuple[str, str, str]]):
    """Rows of the table; each is also said when it is known, since the whole takes minutes."""

    def append(self, line: tuple[str, str, str]) -> None:
        """Keep and say a row."""
        super().append(line)
        print(" | ".join(line), file=sys.stderr, flush=True)


def peak() -> float:
    """Return the most memory this process has held, in GB (``ru_maxrss`` would include its parent's)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024**2
    return 0.0


def _sum(identity: dict[str, int]) -> str:
    parts = " + ".join(f"{count:,} {name}" for name, count in identity.items() if name != "events")
    holds = identity["events"] == sum(count for name, count in identity.items() if name != "events")
    return f"{identity['events']:,} events = {parts}{'' if holds else '  DOES NOT HOLD'}"


if __name__ == "__main__":
    main()
