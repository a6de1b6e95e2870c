"""Snapshots, newest wins, deletions, quarantine, watermark, compaction, vacuum: on real files."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime

import msgspec
import pyarrow as pa
import pytest

from hiexchange.errors import ConfigError, JobLocked, LakeError, SchemaMismatch
from hiexchange.lake import Lake
from hiexchange.tables import ISSUE


def patient(ident, **members):
    return {"resourceType": "Patient", "id": ident, **members}


def dated(ident, updated, family, **meta):
    return patient(ident, meta={"lastUpdated": updated, **meta}, name=[{"family": family}])


@pytest.fixture
def put(tmp_path):
    """Write resources into a numbered folder and ingest them."""
    lake = Lake(tmp_path / "lake")
    count = 0

    def run(*values, deleted=(), name="Patient.ndjson", **options):
        nonlocal count
        count += 1
        folder = tmp_path / f"in{count}"
        folder.mkdir()
        (folder / name).write_bytes(b"".join(msgspec.json.encode(value) + b"\n" for value in values))
        if deleted:
            (folder / "deleted").mkdir()
            bundle = {
                "resourceType": "Bundle",
                "entry": [{"request": {"method": "DELETE", "url": url}} for url in deleted],
            }
            (folder / "deleted" / "1.ndjson").write_bytes(msgspec.json.encode(bundle) + b"\n")
        return lake, lake.ingest(folder, **options)

    return run


def families(lake):
    rows = lake.sql("select __hx_key as k, name[1].family as f from Patient order by 1").to_pylist()
    return {row["k"]: row["f"] for row in rows}


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_newest_last_updated_wins_as_an_instant_not_as_text(put):
    put(dated("a", "2026-01-01T10:00:00+02:00", "old"), dated("b", "2026-01-01T10:00:00Z", "kept"))
    lake, _ = put(dated("a", "2026-01-01T09:00:00Z", "new"), dated("b", "2026-01-01T10:30:00+02:00", "older"))
    assert families(lake) == {"a": "new", "b": "kept"}


def test_equal_last_updated_lets_the_incoming_row_repair(put):
    put(dated("a", "2026-01-01T00:00:00Z", "wrong"))
    lake, _ = put(dated("a", "2026-01-01T00:00:00Z", "repaired"))
    assert families(lake) == {"a": "repaired"}


def test_version_id_decides_as_a_number_when_instants_are_equal(put):
    put(dated("a", "2026-01-01T00:00:00Z", "ten", versionId="10"))
    lake, _ = put(dated("a", "2026-01-01T00:00:00Z", "nine", versionId="9"))
    assert families(lake) == {"a": "ten"}


def test_a_version_id_does_not_keep_a_row_without_one_from_repairing(put):
    put(dated("a", "2026-01-01T00:00:00Z", "old", versionId="3"))
    lake, _ = put(dated("a", "2026-01-01T00:00:00Z", "repaired"))
    assert families(lake) == {"a": "repaired"}


def test_without_last_updated_the_incoming_row_wins(put):
    put(patient("a", name=[{"family": "one"}]))
    put(dated("a", "2020-01-01T00:00:00Z", "two"))
    lake, _ = put(patient("a", name=[{"family": "three"}]))
    assert families(lake) == {"a": "three"}


def test_a_later_line_of_the_same_load_wins(put):
    lake, report = put(dated("a", "2026-01-01T00:00:00Z", "one"), dated("a", "2026-01-02T00:00:00Z", "two"),
                       dated("a", "2026-01-01T12:00:00Z", "three"))  # fmt: skip
    assert families(lake) == {"a": "two"}
    assert report.rows == 3
    assert lake.tables() == {"Patient": 1}


def test_subsetted_never_replaces_a_whole_resource(put):
    put(
        dated("a", "2026-01-01T00:00:00Z", "whole"),
        dated("b", "2026-01-01T00:00:00Z", "part", tag=[{"code": "SUBSETTED"}]),
    )
    lake, _ = put(
        dated("a", "2026-02-01T00:00:00Z", "part", tag=[{"code": "x"}, {"code": "SUBSETTED"}]),
        dated("b", "2025-01-01T00:00:00Z", "whole"),
    )
    assert families(lake) == {"a": "whole", "b": "whole"}


def test_untouched_files_are_referenced_not_rewritten(put):
    lake, _ = put(dated("a", "2026-01-01T00:00:00Z", "A"))
    put(dated("b", "2026-01-01T00:00:00Z", "B"))
    before = set(lake.files("Patient"))
    put(dated("b", "2026-01-02T00:00:00Z", "B2"))
    after = set(lake.files("Patient"))
    assert len(before & after) == 1
    assert families(lake) == {"a": "A", "b": "B2"}


def test_deletions_beat_what_is_not_newer_and_a_newer_creation_beats_them(put):
    put(
        dated("a", "2026-01-01T00:00:00Z", "A"),
        dated("b", "2026-03-01T00:00:00Z", "B"),
        dated("c", "2026-01-01T00:00:00Z", "C"),
    )
    lake, report = put(
        dated("d", "2026-01-01T00:00:00Z", "D"),
        deleted=["Patient/a", "https://x.example/fhir/Patient/b", "Group/c"],
        transaction_time=at("2026-02-01"),
    )
    assert report.deleted == 3
    assert families(lake) == {"b": "B", "c": "C", "d": "D"}
    put(dated("a", "2026-01-15T00:00:00Z", "late echo"))
    assert families(lake) == {"b": "B", "c": "C", "d": "D"}
    put(dated("a", "2026-02-15T00:00:00Z", "created again"))
    assert families(lake)["a"] == "created again"
    assert lake.table("_tombstones").to_arrow().num_rows == 3


def test_undated_resource_of_a_later_export_survives_an_older_deletion(put):
    put(patient("a", name=[{"family": "old"}]), transaction_time=at("2026-01-01"))
    lake, _ = put(deleted=["Patient/a"], transaction_time=at("2026-02-01"))
    assert families(lake) == {}
    put(patient("a", name=[{"family": "again"}]), transaction_time=at("2026-03-01"))
    assert families(lake) == {"a": "again"}


@pytest.mark.parametrize(
    ("line", "gone"),
    [
        ('{"entry":[{"request":{"method":"DELETE","url":"https://x.example/fhir/Patient/a/_history/3"}}]}', True),
        ('{"entry":[{"request":{"method":"delete","url":"/Patient/a"}}]}', True),
        ('{"resourceType":"Bundle","entry":[{"request":{"method":"PUT","url":"Patient/a"}}]}', False),
        ('{"resourceType":"Bundle"}', False),
        ('{"entry":[{"request":{"method":"DELETE","url":"https://x.example/fhir/Patient?identifier=a"}}]}', None),
        ('{"entry":[{"request":{"method":"DELETE","url":"patient/a"}}]}', None),
        ('{"entry":[{"request":null}]}', None),
        ('{"entry":[null]}', None),
        ('{"entry":[{}]}', None),
        ('{"entry":"Patient/a"}', None),
        ('{"resourceType":"Patient","id":"a"}', None),
        ('["Patient/a"]', None),
    ],
)
def test_a_deletion_is_followed_or_said_never_passed_over(line, gone, put, tmp_path):
    lake, _ = put(patient("a"))
    folder = tmp_path / "next" / "deleted"
    folder.mkdir(parents=True)
    (folder / "1.ndjson").write_text(line + "\n")
    if gone is None:
        with pytest.raises(LakeError, match="deletion"):
            lake.ingest(folder.parent)
    else:
        lake.ingest(folder.parent)
    assert lake.tables() == {"Patient": 0 if gone else 1}


def test_the_watermark_moves_with_the_rows(put):
    lake, report = put(patient("a"), transaction_time=at("2026-02-01"), watermark_key="server|group")
    assert report.watermark == ("server|group", "2026-02-01T00:00:00Z")
    assert lake.watermark("server|group") == "2026-02-01T00:00:00Z"
    assert lake.watermark("another") is None


def test_a_watermark_always_has_an_offset(put):
    lake, _ = put(patient("a"), transaction_time=datetime(2026, 1, 1), watermark_key="k")
    assert lake.watermark("k") == "2026-01-01T00:00:00Z"


def test_an_export_result_is_taken_over_once(tmp_path):
    class Result:
        folder = tmp_path / "job"
        watermark = ("k", "2026-01-01T00:00:00Z")

    (Result.folder / "output").mkdir(parents=True)
    (Result.folder / "output" / "Patient.00001.ndjson").write_bytes(msgspec.json.encode(patient("a")) + b"\n")
    (Result.folder / "receipt.json").write_bytes(b'{"transactionTime":"2026-01-01T00:00:00Z"}')
    lake = Lake(tmp_path / "lake")
    first = lake.ingest(Result())
    assert (first.rows, first.skipped, lake.watermark("k")) == (1, False, "2026-01-01T00:00:00Z")
    again = lake.ingest(Result())
    assert (again.skipped, again.snapshot) == (True, first.snapshot)
    times = lake.table("Patient").to_arrow(["__hx_transaction_time"])["__hx_transaction_time"].to_pylist()
    assert times == [at("2026-01-01")]


def test_bad_lines_are_kept_apart_and_can_fail_the_load_after_it_is_stored(tmp_path):
    source = tmp_path / "Patient.ndjson"
    source.write_bytes(b'{"resourceType":"Patient","id":"a"}\n{"resourceType":"Pat\n')
    lake = Lake(tmp_path / "lake")
    with pytest.raises(LakeError) as caught:
        lake.ingest(source, max_bad_lines=0)
    assert caught.value.exit_code == 7
    assert "Pat" not in str(caught.value).replace("Patient", "")
    assert lake.tables() == {"Patient": 1}
    (reject,) = lake.table("_rejects").to_arrow().to_pylist()
    assert (reject["file"], reject["line"], reject["offset"], reject["reason"]) == (
        "Patient.ndjson",
        2,
        36,
        "truncated",
    )
    assert reject["raw"] == b'{"resourceType":"Pat'
    assert (tmp_path / "lake").joinpath(*lake.files("_rejects")[0].parts[-2:]).stat().st_mode & 0o077 == 0


def test_gzip_bom_crlf_blank_lines_and_no_final_newline(tmp_path):
    text = b'\xef\xbb\xbf{"resourceType":"Patient","id":"a"}\r\n\r\n   \n{"resourceType":"Patient","id":"b"}'
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "Patient.NDJSON.gz").write_bytes(gzip.compress(text))
    (tmp_path / "in" / "Group.ndjson").write_bytes(b"")
    (tmp_path / "in" / "log.ndjson").write_bytes(b'{"eventId":"kickoff"}\n')
    (tmp_path / "in" / "manifest.json").write_bytes(b"{}")
    lake = Lake(tmp_path / "lake")
    report = lake.ingest(tmp_path / "in")
    assert report.tables == {"Patient": 2}
    assert lake.table("Patient").to_arrow(["id", "__hx_line"]).to_pylist() == [
        {"id": "a", "__hx_line": 1},
        {"id": "b", "__hx_line": 4},
    ]


def test_small_files_are_put_together_above_eight(put):
    for number in range(12):
        lake, _ = put(
            dated(str(number), "2026-01-01T00:00:00Z", f"F{number}", **({"versionId": "1"} if number % 2 else {}))
        )
    assert len(lake.files("Patient")) <= 9
    assert len(families(lake)) == 12
    assert len(list(lake.to_ndjson("Patient"))) == 12


def test_quarantine_and_deletions_of_many_loads_stay_few_files(tmp_path):
    lake, folder = Lake(tmp_path / "lake"), tmp_path / "in"
    (folder / "deleted").mkdir(parents=True)
    for number in range(11):
        (folder / "Patient.ndjson").write_text('{"resourceType":"Patient"')
        bundle = {"resourceType": "Bundle", "entry": [{"request": {"method": "DELETE", "url": f"Patient/{number}"}}]}
        (folder / "deleted" / "1.ndjson").write_bytes(msgspec.json.encode(bundle))
        lake.ingest(folder, transaction_time=at("2026-01-01"))
    for name in ("_rejects", "_tombstones"):
        assert len(lake.files(name)) < 9
        assert len(lake.table(name).to_arrow()) == 11
    assert sorted(lake.table("_tombstones").to_arrow()["id"].to_pylist(), key=int) == [str(one) for one in range(11)]


def test_compaction_sorts_to_one_schema_and_changes_no_resource(put):
    put(*(dated(f"p{number:02}", "2026-01-01T00:00:00Z", "x") for number in range(30, 0, -1)))
    lake, _ = put(patient("p00", gender="male", foo=1), patient("q", contact=[{"gender": "female"}]))
    before = sorted(lake.to_ndjson("Patient"))
    number = lake.compact(rows_a_file=10)
    assert sorted(lake.to_ndjson("Patient")) == before
    assert len(lake.files("Patient")) == 4
    keys = lake.table("Patient").to_arrow(["__hx_key"])["__hx_key"].to_pylist()
    assert keys == sorted(keys)
    assert lake.compact(rows_a_file=10) == number


def test_compaction_parts_rows_without_a_patient_by_key(tmp_path):
    source = tmp_path / "Organization.ndjson"
    source.write_bytes(b"".join(b'{"resourceType":"Organization","id":"%d"}\n' % number for number in range(25)))
    lake = Lake(tmp_path / "lake")
    lake.ingest(source)
    lake.compact(rows_a_file=10)
    assert lake.tables() == {"Organization": 25}
    assert len(lake.files("Organization")) == 3
    assert len(set(lake.table("Organization").to_arrow(["id"])["id"].to_pylist())) == 25


def test_vacuum_removes_what_no_kept_snapshot_needs(put):
    for number in range(4):
        lake, _ = put(dated("a", f"2026-01-0{number + 1}T00:00:00Z", str(number)))
    orphan = lake.path / "Patient" / "part-crashed.parquet"
    orphan.write_bytes(b"half")
    would = lake.vacuum(keep_snapshots=1, keep_days=0)
    assert would.dry_run
    assert orphan.exists()
    done = lake.vacuum(keep_snapshots=1, keep_days=0, dry_run=False)
    assert done.files == would.files
    assert "Patient/part-crashed.parquet" in done.files
    assert lake.snapshots() == [4]
    assert families(lake) == {"a": "3"}
    with pytest.raises(LakeError):
        lake.tables(snapshot=1)


def test_a_pinned_snapshot_does_not_change(put):
    lake, first = put(dated("a", "2026-01-01T00:00:00Z", "one"))
    pinned = lake.table("Patient", snapshot=first.snapshot)
    current = lake.table("Patient")
    put(dated("a", "2026-01-02T00:00:00Z", "two"), dated("b", "2026-01-02T00:00:00Z", "B"))
    assert len(pinned.to_arrow()) == len(current.to_arrow()) == 1
    assert lake.tables(snapshot=first.snapshot) == {"Patient": 1}
    assert lake.tables() == {"Patient": 2}


def test_corridor_tables_are_appended_and_checked(tmp_path):
    lake = Lake(tmp_path / "lake")
    assert len(lake.table("issue").to_arrow()) == 0
    assert lake.sql("select count(*) as n from issue").to_pylist() == [{"n": 0}]
    lake.append("custom", pa.table({"a": [1]}))
    number = lake.append("custom", pa.table({"a": [2]}))
    assert lake.table("custom").to_arrow()["a"].to_pylist() == [1, 2]
    assert lake.append("custom", pa.table({"a": pa.array([], pa.int64())})) == number
    with pytest.raises(LakeError):
        lake.append("custom", pa.table({"b": [2]}))
    with pytest.raises(SchemaMismatch):
        lake.append("issue", pa.table({"b": [2]}))
    for name, columns in (("../x", ["b"]), ("twice", ["a", "a"])):
        with pytest.raises(ConfigError):
            lake.append(name, pa.table([[1]] * len(columns), names=columns))
    assert lake.append("issue", ISSUE.empty()) == number


def test_two_writers_are_kept_apart(tmp_path):
    code = "import sys,time;from hiexchange._files import folder_lock\nwith folder_lock(sys.argv[1]): print('in',flush=True);time.sleep(30)"
    lake = Lake(tmp_path / "lake")
    holder = subprocess.Popen([sys.executable, "-c", code, str(lake.path / "_hx")], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(JobLocked):
            lake.append("x", pa.table({"a": [1]}))
        holder.kill()
    lake.append("x", pa.table({"a": [1]}))


def test_a_failed_load_leaves_the_lake_as_it_was(put, tmp_path):
    lake, first = put(patient("a"))
    bad = tmp_path / "x.ndjson"
    bad.write_bytes(b'{"resourceType":"Nonsense","id":"a"}\n')
    with pytest.raises(ConfigError):
        lake.ingest(bad)
    cut = tmp_path / "Patient.ndjson.gz"
    cut.write_bytes(gzip.compress(msgspec.json.encode(patient("b")) * 1000)[:-20])
    with pytest.raises(LakeError):
        lake.ingest(cut)
    assert lake.snapshots() == [first.snapshot]
    assert lake.tables() == {"Patient": 1}
    assert lake.files("Patient") == list((lake.path / "Patient").iterdir())


def test_a_load_that_fails_late_leaves_no_files_behind(put, tmp_path):
    put(*(patient(f"a{number}") for number in range(50)))
    lake, second = put(*(patient(f"b{number}") for number in range(50)))
    before = sorted((lake.path / "Patient").iterdir())
    part = lake.files("Patient")[1]
    whole = part.read_bytes()
    part.write_bytes(whole[:100] + b"\xff" * 100 + whole[200:])
    with pytest.raises(LakeError, match="damaged"):  # after the first file was rewritten
        put(patient("a1"), patient("b1"))
    assert sorted((lake.path / "Patient").iterdir()) == before
    assert lake.snapshots()[-1] == second.snapshot


def test_a_failed_load_spares_what_an_older_snapshot_needs(put, tmp_path):
    lake, _ = put(dated("1", "2026-01-01T00:00:00Z", "Old"))
    before = lake.table("Patient")
    put(dated("1", "2026-01-02T00:00:00Z", "New"))  # rewrites, within the same second, the only file of the first
    with pytest.raises(LakeError):
        put(patient("2", nonsense=1), strict=True)
    assert before.to_arrow()["name"].to_pylist()[0][0]["family"] == "Old"


def test_a_damaged_manifest_is_said_not_guessed(tmp_path):
    lake = Lake(tmp_path / "lake")
    lake.append("x", pa.table({"a": [1]}))
    manifest = lake.path / "_hx" / "manifest.json"
    manifest.write_bytes(b"{")
    with pytest.raises(LakeError):
        lake.tables()
    manifest.write_bytes(json.dumps({"layout": "99", "snapshot": 1}).encode())
    with pytest.raises(LakeError, match="layout 99"):
        lake.tables()


def test_workers_give_the_same_rows(tmp_path, maker, as_lines):
    (tmp_path / "in").mkdir()
    for number in range(3):
        values = [maker(seed + number * 100).resource("Condition") for seed in range(20)]
        for index, value in enumerate(values):
            value["id"] = f"{number}-{index}"
        (tmp_path / "in" / f"Condition.{number}.ndjson").write_bytes(as_lines(values))
    one, two = Lake(tmp_path / "one"), Lake(tmp_path / "two")
    one.ingest(tmp_path / "in")
    two.ingest(tmp_path / "in", workers=2)
    assert list(one.to_ndjson("Condition", order="source")) == list(two.to_ndjson("Condition", order="source"))
    assert one.table("Condition").schema.equals(two.table("Condition").schema)


def test_arrow_has_its_allocator_back_after_loads_that_overlap():
    from hiexchange.lake.memory import system_allocator

    before = pa.default_memory_pool()
    try:
        for chosen, meanwhile in (("mimalloc", "system"), ("jemalloc", "jemalloc")):
            if chosen not in pa.supported_memory_backends():
                continue
            pa.set_memory_pool(getattr(pa, f"{chosen}_memory_pool")())
            first, second = system_allocator(), system_allocator()
            first.__enter__()
            second.__enter__()
            first.__exit__(None, None, None)
            assert pa.default_memory_pool().backend_name == meanwhile
            second.__exit__(None, None, None)
            assert pa.default_memory_pool().backend_name == chosen
    finally:
        pa.set_memory_pool(before)


def test_files_are_taken_as_they_arrive(tmp_path):
    def arriving():
        for number in range(3):
            path = tmp_path / f"Patient.{number}.ndjson"
            path.write_bytes(msgspec.json.encode(patient(str(number))) + b"\n")
            yield path

    lake = Lake(tmp_path / "lake")
    report = lake.ingest(arriving())
    assert (report.files, report.rows, lake.tables()) == (3, 3, {"Patient": 3})
    with pytest.raises(ConfigError):
        lake.ingest(iter([tmp_path / "absent.ndjson"]))


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
def test_what_workers_made_is_removed_when_a_load_ends_early(tmp_path, failure):
    for number in range(8):
        lines = (b'{"resourceType":"Patient","id":"%d-%d"}\n' % (number, line) for line in range(500))
        (tmp_path / f"Patient.{number}.ndjson").write_bytes(b"".join(lines))

    def fail(event):
        raise failure

    lake = Lake(tmp_path / "lake")
    with pytest.raises(failure):
        lake.ingest(sorted(tmp_path.glob("*.ndjson")), workers=2, on_event=fail)
    assert list(lake.path.rglob("*.parquet")) == []
    assert lake.tables() == {}
    assert lake.ingest(sorted(tmp_path.glob("*.ndjson")), workers=2).rows == 4000


def test_a_large_file_is_shared_among_workers_without_losing_lineage(tmp_path):
    from dataclasses import replace as changed

    from hiexchange.lake import ingest

    path = tmp_path / "Patient.ndjson"
    path.write_bytes(b"".join(b'{"resourceType":"Patient","id":"%d"}\n' % number for number in range(2_000_000)))
    whole = ingest.Work(path, "Patient.ndjson", "Patient", "Patient", "4.0.1", "load")
    cut = list(ingest.pieces(whole, 4))
    assert len(cut) == 4
    assert sum(piece.size for piece in cut) == path.stat().st_size
    assert cut[0].line == 1
    text = path.read_bytes()
    for piece in cut:
        assert text[: piece.start].count(b"\n") + 1 == piece.line
    done = ingest.load_file(tmp_path, changed(cut[3], size=4_000))
    first = int(text[cut[3].start :].split(b'"id":"', 1)[1].split(b'"', 1)[0])
    assert cut[3].line == first + 1
    assert done.rows > 50
    assert len(list(ingest.pieces(changed(whole, path=tmp_path / done.parts[0].path), 4))) == 1
