"""A lock is held by one, known by who holds it, and not disturbed by those who only look."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from paperbench.engine.lock import FileLock
from paperbench.errors import DiskFullError, EnvironmentError_


def test_one_holds_it_and_the_others_see_who(tmp_path: Path) -> None:
    lock, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert not lock.is_held()
    assert lock.acquire()
    assert lock.acquire(), "holding it already"
    assert other.is_held()
    assert not other.acquire()
    assert other.holder().startswith(f"pid {os.getpid()} on ")
    lock.release()
    lock.release()
    assert not other.is_held()
    assert other.acquire()
    other.release()


def test_looking_does_not_keep_others_from_taking_it(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    lock.acquire()
    lock.release()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            FileLock(tmp_path / "lock").is_held()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(50):
            assert lock.acquire()
            lock.release()
            time.sleep(0.001)
    finally:
        stop.set()
        thread.join()


def test_a_place_that_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentError_, match="cannot write"):
        FileLock(tmp_path / "nowhere" / "lock").acquire()
    assert not FileLock(tmp_path / "nowhere" / "lock").is_held()
    assert FileLock(tmp_path / "nowhere" / "lock").holder() == "another process"


def test_a_full_disk_is_named_with_the_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="Windows limits no sizes of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        with pytest.raises(DiskFullError, match=rf"cannot write {re.escape(str(tmp_path / 'lock'))}"):
            FileLock(tmp_path / "lock").acquire()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire(), "the failed one holds nothing"
    lock.release()
