"""Governor, watermarks, orphans, deletions, other exporters' folders."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hiexchange.bulk.deletions import Deletion, Odd, parse_entry
from hiexchange.bulk.foreign import open_export
from hiexchange.bulk.governor import Governor
from hiexchange.bulk.orphans import same_export, split_locations
from hiexchange.bulk.request import ExportRequest
from hiexchange.bulk.watermark import SqliteWatermarks, reason_to_hold, watermark_key, watermark_value
from hiexchange.errors import ConfigError

NOW = datetime(2026, 8, 1, tzinfo=UTC)


def test_the_governor_halves_once_and_climbs_again() -> None:
    time = [0.0]
    governor = Governor(start=8, maximum=16, clock=lambda: time[0])
    governor.throttle(10)
    governor.throttle(10)
    assert governor.limit == 4
    time[0] = 11
    governor.throttle(1)
    assert governor.limit == 2
    for _ in range(8):
        governor.succeeded()
    assert governor.limit == 4


def test_the_governor_never_lets_more_in_than_its_limit() -> None:
    governor = Governor(start=3, maximum=3)
    inside, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with governor.slot():
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < most <= 3


def test_the_rate_holds_starts_back() -> None:
    stopped = threading.Event()
    governor = Governor(start=4, maximum=4, rate=(2, 100), stopped=stopped, clock=lambda: 0.0)
    for _ in range(2):
        with governor.slot():
            pass
    threading.Timer(0.05, stopped.set).start()
    with governor.slot():
        assert stopped.is_set()


def test_watermark_keys_tell_versions_and_filters_apart() -> None:
    plain = ExportRequest(group="all", types=("Patient", "Coverage"))
    turned = ExportRequest(group="all", types=("Coverage", "Patient"), since="2026-01-01T00:00:00Z")
    assert watermark_key("u", 2, plain) == watermark_key("u", 2, turned) != watermark_key("u", 3, plain)
    assert watermark_key("u", 2, plain) != watermark_key("u", 2, ExportRequest(group="all"))


def test_watermark_values() -> None:
    assert watermark_value("2026-08-01T02:00:00+02:00") == "2026-08-01T00:00:00.000Z"
    assert watermark_value("2026-08-01T00:00:00Z", newest="2026-07-01T00:00:00Z") == "2026-07-01T00:00:00.000Z"
    assert watermark_value("2026-08-01T00:00:00Z", overlap_s=60) == "2026-07-31T23:59:00.000Z"
    assert watermark_value(None) is None
    assert reason_to_hold("2026-08-01T00:00:00Z", now=NOW) is None
    assert [
        bool(reason_to_hold(text, now=NOW)) for text in (None, "", "x", "2026-08-01T00:00:00", "2027-01-01T00:00:00Z")
    ] == [True] * 5


def test_sqlite_watermarks(tmp_path: Path) -> None:
    store = SqliteWatermarks(tmp_path / "marks.sqlite")
    assert store.get("k") is None
    store.commit("k", "2026-08-01T00:00:00Z", "run")
    store.commit("k", "2026-08-02T00:00:00Z", "run")
    assert SqliteWatermarks(tmp_path / "marks.sqlite").get("k") == "2026-08-02T00:00:00Z"


def test_the_same_export_however_spelled() -> None:
    one = "https://a.example/fhir/Group/all/$export?_type=Patient,Coverage&_since=2026-01-01T00:00:00Z"
    two = "https://a.example/fhir/Group/all/$export?_since=2026-01-01T00%3A00%3A00Z&_type=Coverage%2CPatient"
    assert same_export(one, two) and not same_export(one, one.replace("all", "runout"))
    assert not same_export(one, one + "&_outputFormat=ndjson")
    joined = "https://a.example/1/$status, https://a.example/2/$status"
    assert split_locations(joined, "https://a.example") == [
        "https://a.example/1/$status",
        "https://a.example/2/$status",
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("Patient/1", Deletion("Patient", "1")), ("Patient/1/_history/2", Deletion("Patient", "1")),
        ("https://a.example/fhir/Encounter/x", Deletion("Encounter", "x")),
    ],
)  # fmt: skip
def test_deletions_are_normalised(url: str, expected: Deletion) -> None:
    assert parse_entry({"request": {"method": "DELETE", "url": url}}) == expected


def test_odd_deletions_are_named() -> None:
    entries = (
        {},
        {"request": {"method": "PUT", "url": "Patient/1"}},
        {"request": {"method": "DELETE", "url": "Patient"}},
    )
    assert all(isinstance(parse_entry(entry), Odd) for entry in entries)


def log(folder: Path, *events: tuple[str, dict[str, object]], client: str | None = None) -> None:
    rows = [{"exportId": "x", "eventId": name, "eventDetail": detail} for name, detail in events]
    if client:
        rows[0]["_client"] = client
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_folder_of_smart_fetch(tmp_path: Path) -> None:
    time = {"transactionTime": "2026-01-01T00:00:00Z"}
    log(
        tmp_path / "001.2026-01-02",
        ("kickoff", {}),
        ("status_complete", time),
        ("export_complete", {}),
        client="smart-fetch",
    )
    later = {"transactionTime": "2026-01-02T00:00:00Z"}
    log(tmp_path / "002.2026-01-03", ("kickoff", {}), ("status_complete", later), ("export_complete", {}))
    data = tmp_path / "001.2026-01-02" / "Condition.001.ndjson.gz"
    data.write_bytes(b"")
    (tmp_path / "Condition.001.ndjson.gz").symlink_to(data)
    found = open_export(tmp_path)
    assert (found.tool, found.files, found.complete) == ("smart-fetch", (data.resolve(),), True)
    assert found.transaction_time == "2026-01-01T00:00:00Z"


def test_a_folder_of_bulk_data_client(tmp_path: Path) -> None:
    log(
        tmp_path,
        ("kickoff", {}),
        ("status_complete", {"transactionTime": "2026-01-01T00:00:00Z"}),
        ("download_request", {}),
    )
    for name in (
        "1.Patient.ndjson",
        "deleted/1.Bundle.ndjson",
        "error/1.OperationOutcome.ndjson",
        "attachments/x.ndjson",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}\n")
    found = open_export(tmp_path)
    assert (found.tool, found.complete) == ("bulk-data-client", False)
    assert [path.name for path in (*found.files, *found.deleted, *found.errors)] == [
        "1.Patient.ndjson", "1.Bundle.ndjson", "1.OperationOutcome.ndjson"
    ]  # fmt: skip


def test_no_export_at_all(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ConfigError):
            open_export(place)
