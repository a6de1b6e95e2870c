"""Kill a delivering process two hundred times, then look at what the receivers hold."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from hiexchange import hl7v2
from hiexchange._files import sha256_text
from hiexchange.delivery import Outbox
from hiexchange.tables import ATTRIBUTION, ENCOUNTER_EVENT, OPEN_DATE, OPEN_INSTANT, PERSON_LINK
from hiexchange.testing.sftp_sink import PASSWORD, SFTPSink
from hiexchange.testing.sinks import HTTPSink, MLLPSink

KILLS = 200
SUBSCRIBERS = 40
EVENTS_A_PART = 3
WHOLE_DAY = KILLS
KNOWN = datetime(2026, 11, 1, tzinfo=UTC)


def _write(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _npi(number: int) -> str:
    return f"19{number:08d}"


def _subscriptions(folder: Path, http: HTTPSink, mllp: MLLPSink, sftp: SFTPSink, known_hosts: str) -> str:
    kinds = [
        lambda number: f'channel = "file:folder/s{number}"\nformat = "{("csv", "xlsx", "ndjson")[number % 3]}"',
        lambda number: (
            f'channel = "{sftp.url}"\nformat = "csv"\noptions = {{ known_hosts = "{known_hosts}" }}\n'
            'credentials = { password = "env:SINK_PASSWORD" }'
        ),
        lambda number: f'channel = "{http.url}"\nformat = "{("fhir", "ndjson")[number % 2]}"',
        lambda number: f'channel = "{mllp.url}"\nformat = "hl7v2"',
    ]
    # A new SSH session costs as much as all the rest of a run: five of the forty are SFTP.
    kind_of = [1 if number % 8 == 1 else (0, 2, 3)[number % 3] for number in range(SUBSCRIBERS)]
    return "\n".join(
        f'[[subscriptions]]\nid = "s{number}"\nnpi = ["{_npi(number)}"]\nself_visits = true\n{kinds[kind](number)}\n'
        for number, kind in enumerate(kind_of)
    )


def _attribution(person: int, provider: int) -> dict[str, object]:
    member = sha256_text("payer-a", "payer-a", f"m{person}")
    return {
        "attribution_id": sha256_text(member, str(provider)),
        "business_key": sha256_text(member, str(provider)),
        "payer_id": "payer-a",
        "member_key": member,
        "member_id": f"m{person}",
        "member_id_system": "payer-a",
        "provider_npi": _npi(provider),
        "attribution_level": "clinician",
        "basis": "payer_assigned",
        "valid_from": date(2026, 1, 1),
        "valid_to": OPEN_DATE,
        "known_from": KNOWN,
        "known_to": OPEN_INSTANT,
        "as_of_on": date(2026, 11, 1),
        "change_type": "new",
        "roster_id": "r",
        "row_no": person,
        "row_sha": "x",
        "status": "active",
    }


def _day(home: Path, exchange) -> int:
    """Write the tables of a day; return how many deliveries it comes to."""
    people = KILLS * EVENTS_A_PART
    rows = [
        _attribution(person, (person * 7 + step * 13) % SUBSCRIBERS) for person in range(people) for step in range(8)
    ]
    _write(ATTRIBUTION.from_rows(rows), home / "attribution.arrow")
    links = [
        {
            "member_key": sha256_text("payer-a", "payer-a", f"m{person}"),
            "payer_id": "payer-a",
            "person_id": f"-{person}",
            "method": "member_id",
            "band": "auto",
            "candidates": 1,
            "run_id": "r",
            "known_from": KNOWN,
            "known_to": OPEN_INSTANT,
        }
        for person in range(people)
    ]
    _write(PERSON_LINK.from_rows(links), home / "links.arrow")
    _write(exchange.persons(*range(people)), home / "persons.arrow")
    day = ENCOUNTER_EVENT.from_rows(exchange.event(number) for number in range(people))
    _write(day, home / f"events-{WHOLE_DAY}.arrow")
    for part in range(KILLS):
        _write(day.slice(part * EVENTS_A_PART, EVENTS_A_PART), home / f"events-{part}.arrow")
    return people * 8


class Victim:
    """The forking worker, and the child that may be killed just now."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crash_worker.py")), str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "SINK_PASSWORD": PASSWORD},
        )
        self._lock = threading.Lock()
        self._pid = 0
        self._chunks = 0

    def start(self, part: int, *, after_chunks: int = 0) -> None:
        """Begin a part; die by itself when that many chunks have reached any sink."""
        with self._lock:
            self._chunks = after_chunks
            self._process.stdin.write(f"{part}\n")
            self._process.stdin.flush()
            self._pid = int(self._process.stdout.readline())

    def kill(self) -> None:
        with self._lock:
            if self._pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)

    def tap(self) -> None:
        """A chunk has reached a sink: bytes are on the wire this very moment."""
        self._chunks -= 1
        if self._chunks == 0:
            self.kill()

    def wait(self) -> int:
        status = int(self._process.stdout.readline())
        with self._lock:
            self._pid = 0
        return status

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def _rows(name: str, data: bytes) -> list[str]:
    """The delivery ids in a file."""
    if name.endswith(".csv"):
        return [row["delivery_id"] for row in csv.DictReader(io.StringIO(data.decode()))]
    if name.endswith(".ndjson"):
        return [json.loads(line)["delivery_id"] for line in data.splitlines()]
    import python_calamine

    sheet = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data)).get_sheet_by_index(0).to_python()
    return [row[sheet[0].index("delivery_id")] for row in sheet[1:]]


def _files(folder: Path, seen: dict[str, list[str]], numbers: dict[str, list[int]]) -> None:
    for path in folder.rglob("*.manifest.json"):
        manifest = json.loads(path.read_bytes())
        data = path.with_name(manifest["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == manifest["sha256"]
        seen[manifest["subscriber"]] += _rows(manifest["file"], data)
        numbers[manifest["subscriber"]].append(manifest["sequence"])


def _messages(http: HTTPSink, mllp: MLLPSink, seen, numbers, repeats: Counter[str]) -> None:
    bodies: dict[str, bytes] = {}
    for item in http.arrived:
        if item.key in bodies:
            assert bodies[item.key] == item.body  # the same bytes under the same key
            repeats["https"] += 1
            continue
        bodies[item.key] = item.body
        subscriber = item.headers["X-Hiexchange-Channel"].partition("/")[0]
        numbers[subscriber].append(int(item.headers["X-Hiexchange-Sequence"]))
        fhir = item.headers["Content-Type"].startswith("application/fhir")
        seen[subscriber] += [json.loads(item.body)["identifier"]["value"]] if fhir else _rows(".ndjson", item.body)
    bodies.clear()
    for item in mllp.arrived:
        if item.key in bodies:
            assert bodies[item.key] == item.body
            repeats["mllp"] += 1
            continue
        bodies[item.key] = item.body
        message = hl7v2.parse(item.body)
        subscriber = message.value("MSH-6")
        numbers[subscriber].append(int(message.value("MSH-13")))
        seen[subscriber].append(message.value("ZHX-1"))


@pytest.mark.crash
def test_nothing_is_lost_or_sent_twice_by_two_hundred_kills(exchange, tmp_path):
    expected = _day(tmp_path, exchange)
    dice = random.Random(7)
    with HTTPSink() as http, MLLPSink(step=100) as mllp, SFTPSink(tmp_path / "remote") as sftp:
        known_hosts = sftp.known_hosts(tmp_path / "known_hosts")
        text = _subscriptions(tmp_path, http, mllp, sftp, known_hosts)
        (tmp_path / "subscriptions.toml").write_text(text, encoding="utf-8")
        victim = Victim(tmp_path)
        for sink in (http, mllp, sftp):
            sink.tap = victim.tap
        killed, ended = 0, 0
        typical_s = 1.0
        began = time.monotonic()
        try:
            part = 0
            while killed < KILLS:
                on_the_wire = dice.random() < 0.5
                started = time.monotonic()
                victim.start(part % KILLS, after_chunks=dice.randint(1, 120) if on_the_wire else 0)
                timer = threading.Timer(dice.uniform(0, typical_s), victim.kill)
                if not on_the_wire:
                    timer.start()
                status = victim.wait()
                timer.cancel()
                if os.WIFSIGNALED(status):
                    killed += 1
                else:
                    assert status == 0
                    ended += 1
                    typical_s = 0.7 * typical_s + 0.3 * (time.monotonic() - started)
                part += 1
                assert time.monotonic() - began < 900, f"only {killed} kills in 15 minutes"
                if part % 25 == 0:
                    print(f"{part} runs, {killed} kills, {time.monotonic() - began:.0f} s")
            for _ in range(2):  # once to end the day, once to find nothing to do
                victim.start(WHOLE_DAY)
                assert victim.wait() == 0
        finally:
            victim.close()
        seen: dict[str, list[str]] = defaultdict(list)
        numbers: dict[str, list[int]] = defaultdict(list)
        repeats: Counter[str] = Counter()
        _files(tmp_path / "folder", seen, numbers)
        _files(tmp_path / "remote", seen, numbers)
        _messages(http, mllp, seen, numbers, repeats)
    with Outbox(tmp_path / "outbox.sqlite", base=tmp_path) as outbox:
        deliveries = outbox.deliveries().to_pylist()
        verified = outbox.verify()
        attempts = outbox.receipts().num_rows
    assert len(deliveries) == expected
    assert {row["state"] for row in deliveries} == {"acked"}
    owed = defaultdict(list)
    for row in deliveries:
        owed[row["subscriber_id"]].append(row["delivery_id"])
    assert {who: sorted(ids) for who, ids in seen.items()} == {who: sorted(ids) for who, ids in owed.items()}
    assert len(owed) == SUBSCRIBERS
    for subscriber, found in numbers.items():
        assert sorted(found) == list(range(1, len(found) + 1)), subscriber
    assert verified.problems == ()
    print(
        f"\n{killed} kills, {ended} runs ended by themselves; {expected:,} deliveries to {SUBSCRIBERS} subscribers in "
        f"{verified.batches:,} batches, {attempts:,} attempts; repeats seen by receivers, same key and bytes: "
        f"{dict(repeats)}; audit rows {verified.audit_rows:,}"
    )
