"""Files are whole or absent; a lock has one holder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hiexchange import _files
from hiexchange.errors import JobLocked, StorageError


def test_a_file_appears_only_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    with pytest.raises(RuntimeError), _files.atomic_file(target) as file:
        file.write(b"half")
        raise RuntimeError("stop")
    assert list(target.parent.iterdir()) == []
    with _files.atomic_file(target) as file:
        file.write(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_one_clear_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    _files.write_bytes(target, b"old")
    with pytest.raises(StorageError) as caught, _files.atomic_file(target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "disk is full" in caught.value.what
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_real_full_device_is_reported() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageError), _files.storage_errors(Path("/dev/full")), Path("/dev/full").open("wb", 0) as file:
        file.write(b"x")


HOLDER = """
import sys
from hiexchange import _files
with _files.folder_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_has_one_holder_and_dies_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(JobLocked, match=f"pid {holder.pid}"), _files.folder_lock(tmp_path):
            pass
        holder.kill()
    with _files.folder_lock(tmp_path):
        pass


def test_parts_of_a_hash_cannot_be_shifted() -> None:
    assert _files.sha256_text("ab", "c") != _files.sha256_text("a", "bc")
