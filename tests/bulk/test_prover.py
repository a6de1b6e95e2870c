"""Long bodies proved in a second process: the same verdict as in this one, whatever happens to either."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange._policy import Policy
from hiexchange.bulk.lines import BLOCK, LineCheck
from hiexchange.bulk.proof import APART_FROM, SEEN_FIRST, Proof, Spool, Stopped, Terms, tidy
from hiexchange.bulk.prover import ROOM, Prover, ProverOnCall, Reading, Task

LINE = (
    b'{"resourceType":"Patient","id":"-1","meta":{"lastUpdated":"2026-01-02T00:00:00Z"},"note":"' + b"x" * 900 + b'"}\n'
)
PIECES = [
    b"\n",
    b"\r\n",
    b" \n",
    b"\0\0\n",
    b"\xef\xbb\xbf",
    b'{"resourceType":"Group"}\n',
    b'{"resourceType":"Group"}\r\n',
    b'{"resourceType":"Group"}',
    b'{"resourceType":1}\n',
    b'{"a":\xff}\n',
    b"[]\n",
    b"x",
]


@pytest.fixture(scope="module")
def prover() -> Iterator[Prover]:
    """A helper process."""
    started = Prover()
    yield started
    started.close()


def long_body(tail: bytes = b"", head: bytes = b"") -> bytes:
    """Return a body that is worth a second process."""
    return head + LINE * (APART_FROM // len(LINE) + 600) + tail


def received(part: Path, body: bytes, terms: Terms) -> tuple[bytes, LineCheck, Spool, bool]:
    """Store and prove a body as a download does; also say whether it was proved at once."""
    check = terms.new_check()
    with part.open("wb", buffering=0) as file, Proof(part, check, terms) as proof:
        spool = Spool(file)
        for start in range(0, len(body), BLOCK):
            spool.store(proof.feed(body[start : start + BLOCK]))
            proof.stored(spool.size)
        spool.store(proof.finish())
        proved = proof.ended(spool)
    if not proved:
        spool, check = tidy(part, len(body), terms)
    return part.read_bytes(), check, spool, proved


def terms(prover: Callable[[], Prover | None] = lambda: None, *, stopped: bool = False) -> Terms:
    """Return the terms of a job."""
    return Terms(Policy(), lambda: stopped, dated=True, prover=prover)


@given(st.lists(st.sampled_from(PIECES), max_size=6), st.integers(1, 40))
def test_the_helper_calls_clean_what_needs_no_setting_right(pieces: list[bytes], step: int) -> None:
    body = b'{"resourceType":"Patient"}\n' + b"".join(pieces)
    path = Path(tempfile.gettempdir()) / f"hiexchange-prover-{os.getpid()}.ndjson"
    path.write_bytes(body)
    try:
        reading = Reading(Task(1, os.fsencode(path).hex(), False, 1 << 20))
        for size in (*range(step, len(body), step), len(body)):
            reading.go_on(size)
        found = reading.verdict(1)
        reading.close()
    finally:
        path.unlink()
    here = LineCheck()
    kept = here.feed(body) + here.finish()
    assert found.clean == (kept == body + (b"" if body.endswith(b"\n") else b"\n") and not here.rejected)
    if found.clean:
        assert (found.lines, found.types) == (here.lines, here.types)


@pytest.mark.parametrize(
    ("tail", "head", "at_once"),
    [
        (b"", b"", True),
        (LINE[:-1], b"", True),  # no last line end
        (LINE[:-1] + b"\r\n", b"", False),
        (b"\n\n", b"", False),
        (b"\0\0\0", b"", False),
        (b'{"resourceType": "Patient"\n', b"", False),
        (b"\xff\n" + LINE, b"", False),
        (b'{"resourceType":"Group"}\n', b"", True),
        (b"", b"\xef\xbb\xbf", True),  # known before the second process is asked, so it is not
        (b"", LINE[:-1] + b"\r\n", True),
    ],
)
def test_both_ways_store_and_find_the_same(
    prover: Prover, tmp_path: Path, tail: bytes, head: bytes, at_once: bool
) -> None:
    body = long_body(tail, head)
    here, apart = tmp_path / "here.part", tmp_path / "apart.part"
    stored, check, spool, _ = received(here, body, terms())
    stored2, check2, spool2, proved = received(apart, body, terms(lambda: prover))
    assert stored == stored2 and proved == at_once
    for name in ("lines", "types", "rejected", "rejects", "notes", "oldest", "newest", "too_long"):
        assert getattr(check, name) == getattr(check2, name), name
    assert (spool.size, spool.sha256) == (spool2.size, spool2.sha256)
    assert sorted(tmp_path.iterdir()) == [apart, here]


@pytest.mark.parametrize(("longest", "clean"), [(4 * ROOM, True), (2 * ROOM, False)])
def test_a_line_longer_than_the_buffer_is_read_up_to_the_limit(tmp_path: Path, longest: int, clean: bool) -> None:
    body = LINE + b'{"resourceType":"Binary","data":"' + b"\xc3\xa9" * (3 * ROOM // 2) + b'"}\n' + LINE
    path = tmp_path / "long.part"
    path.write_bytes(body)
    reading = Reading(Task(1, os.fsencode(path).hex(), False, longest))
    reading.go_on(len(body) - 1)
    reading.go_on(len(body))
    found = reading.verdict(1)
    reading.close()
    assert found.clean == clean
    assert not clean or (found.lines, found.types) == (3, {"Patient": 2, "Binary": 1})


def test_a_body_announced_as_long_is_handed_over_at_once(prover: Prover, tmp_path: Path) -> None:
    part = tmp_path / "announced.part"
    asked = terms(lambda: prover)
    for expected, apart in ((APART_FROM, True), (APART_FROM - 1, False)):
        with part.open("wb", buffering=0) as file, Proof(part, asked.new_check(), asked, expected=expected) as proof:
            spool = Spool(file)
            spool.store(proof.feed(LINE * (SEEN_FIRST // len(LINE) + 1) + LINE[:9]))
            assert proof.feed(LINE[9:]) == (LINE[9:] if apart else b"")
            proof.stored(spool.size)
            spool.store(LINE[9:] if apart else proof.finish())
            assert proof.ended(spool)


def test_several_files_at_once_and_one_given_up(prover: Prover, tmp_path: Path) -> None:
    watches = []
    for number in range(4):
        path = tmp_path / f"{number}.part"
        path.write_bytes(LINE * 50 * (number + 1))
        watches.append((prover.watch(path, dated=False, max_line_bytes=1 << 20), path.stat().st_size))
    for share in (3, 2):
        for watch, size in watches:
            watch.grown(size // share)
    watches[0][0].drop()
    for watch, size in watches[1:]:
        watch.grown(size, ended=True)
    lines = [found.lines for watch, _ in watches[1:] if (found := watch.verdict(lambda: False))]
    assert lines == [100, 150, 200]


def test_a_file_that_is_gone_is_not_clean(prover: Prover, tmp_path: Path) -> None:
    watch = prover.watch(tmp_path / "absent.part", dated=False, max_line_bytes=1 << 20)
    watch.grown(10, ended=True)
    found = watch.verdict(lambda: False)
    assert found is not None and not found.clean
    (tmp_path / "short.part").write_bytes(LINE)
    watch = prover.watch(tmp_path / "short.part", dated=False, max_line_bytes=1 << 20)
    watch.grown(2 * len(LINE), ended=True)
    found = watch.verdict(lambda: False)
    assert found is not None and not found.clean


def test_a_helper_that_dies_costs_nothing_but_time(tmp_path: Path) -> None:
    helper = Prover()

    def asked() -> Prover:
        os.kill(helper.pid, signal.SIGSTOP)  # so that it has answered nothing when it dies
        os.kill(helper.pid, signal.SIGKILL)
        return helper

    body = long_body(LINE[:-1])
    stored, check, _, proved = received(tmp_path / "x.part", body, terms(asked))
    helper.close()
    assert not proved and stored == body + b"\n" and check.lines == stored.count(b"\n")
    watch = helper.watch(tmp_path / "x.part", dated=False, max_line_bytes=1)
    assert watch.verdict(lambda: False) is None, "nobody waits for the dead"


def test_a_stop_does_not_wait_for_the_helper(tmp_path: Path) -> None:
    helper = Prover()
    os.kill(helper.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Stopped):
            received(tmp_path / "x.part", long_body(), terms(lambda: helper, stopped=True))
    finally:
        helper.close()


def test_the_helper_ends_with_a_killed_parent() -> None:
    code = "import time; from hiexchange.bulk.prover import Prover; print(Prover().pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        helper = int(parent.stdout.readline())
        parent.kill()
    until = time.monotonic() + 20
    while running(helper) and time.monotonic() < until:
        time.sleep(0.02)
    assert not running(helper)


def running(pid: int) -> bool:
    """Say whether a process lives; one that only waits to be collected does not."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_the_helper_is_started_once_and_again_after_it_was_closed() -> None:
    call = ProverOnCall()
    first = call()
    if first is None:
        pytest.skip("one core")
    assert call() is first
    call.close()
    again = call()
    assert again is not None and again is not first
    call.close()
