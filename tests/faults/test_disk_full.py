"""A disk that fills up: what stood there before survives, nothing half written stays, and the error says how much is needed."""

from __future__ import annotations

import errno
import os
import re
import resource
import sys
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from paperbench.engine import checkpoints, files
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.metriclog import JsonLines, read
from paperbench.engine.rundir import RunDirectory
from paperbench.errors import DiskFullError
from tests.engine import processes, toy
from tests.engine.test_checkpoints import value_of


def big(value: float) -> dict[str, Any]:
    return {"weights": torch.full((50_000,), value)}


class FullDisk:
    """A file that takes `room` bytes and refuses the rest."""

    def __init__(self, file: IO[bytes], room: int, number: int) -> None:
        self._file = file
        self._room = room
        self._number = number

    def write(self, data: Any) -> int:
        if self._file.tell() + len(data) > self._room:
            raise OSError(self._number, os.strerror(self._number))
        return self._file.write(data)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=errno.errorcode.get)
@pytest.mark.parametrize("room", [0, 1000, 150_000])
def test_the_last_good_checkpoint_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, room: int
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(big(1), step=1)
    content = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    original = checkpoints._HashingFile.__init__

    def init(self: checkpoints._HashingFile, file: IO[bytes] | None) -> None:
        original(self, file if file is None else FullDisk(file, room, number))  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._HashingFile, "__init__", init)
        with pytest.raises(DiskFullError) as caught:
            store.save(big(2), step=2, best=True)
    assert caught.value.exit_code == 4
    told = re.search(r"last\.pt \((.+)\): ([\d,]+) bytes needed, ([\d,]+) bytes free in (\S+);", str(caught.value))
    assert told is not None
    assert told[1] == os.strerror(number)
    assert int(told[3].replace(",", "")) > 0
    assert told[4] == str(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == content

    store.save(big(2), step=2)  # somebody made room
    assert int(told[2].replace(",", "")) == (tmp_path / "last.pt").stat().st_size
    assert value_of(CheckpointStore(tmp_path).load()) == (2, 2)


@pytest.mark.parametrize("during", ["manifest.json", "previous.pt"])
def test_room_that_runs_out_late_in_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: str) -> None:
    store = CheckpointStore(tmp_path)
    store.save(big(1), step=1)
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == during:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(DiskFullError):
            store.save(big(2), step=2)
    assert value_of(CheckpointStore(tmp_path, sweep=False).load()) == (1, 1)
    assert not list(tmp_path.glob(".*"))


def _save_beyond_the_limit(directory: Path) -> None:
    """Saves under a real limit on the size of files: the kernel refuses the write, in torch's own writer."""
    limit = 100_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        CheckpointStore(directory).save(big(2), step=2)
    except DiskFullError as error:
        (directory.parent / "said").write_text(str(error))
        sys.exit(error.exit_code)
    sys.exit(0)


def test_a_real_limit_of_the_kernel(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    CheckpointStore(directory).save(big(1), step=1)
    assert processes.join(processes.spawn(_save_beyond_the_limit, directory)) == 4
    said = (tmp_path / "said").read_text()
    assert os.strerror(errno.EFBIG) in said
    assert "ulimit -f" in said
    assert not list(directory.glob(".*"))
    assert value_of(CheckpointStore(directory).load()) == (1, 1)


def test_a_run_fails_with_exit_code_4_and_resumes_once_there_is_room(tmp_path: Path) -> None:
    undisturbed, run_dir = tmp_path / "undisturbed", tmp_path / "run"
    assert processes.start(toy.config(), undisturbed) == 0
    assert processes.start(toy.config(fault="full@6"), run_dir) == 4
    status = processes.status(run_dir)
    assert (status["state"], status["error"], status["exit_code"]) == ("failed", "DiskFullError", 4)
    assert "bytes needed" in status["message"]
    assert not list((run_dir / "checkpoints").glob(".*"))
    assert processes.resume(run_dir) == 0
    weights, expected = toy.weights(run_dir), toy.weights(undisturbed)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_full_output_root_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"config\.yaml .*bytes needed"):
        RunDirectory.create(tmp_path / "outputs", "toy", toy.config())
    assert list(tmp_path.iterdir()) == []
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(DiskFullError):
        RunDirectory.create(tmp_path / "outputs", "toy", toy.config(), mine)
    assert list(mine.iterdir()) == []


def test_metrics_name_the_file_that_could_not_grow(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.write(1, {"a": 1.0})
    with Path("/dev/full").open("wb", buffering=0) as full:
        file = log._file
        file._file, kept = full, file._file
        with pytest.raises(DiskFullError, match=r"metrics\.jsonl \(No space left on device\)"):
            log.write(2, {"a": 2.0})
        file._file = kept
    log.close()
    assert [record["a"] for record in read(tmp_path / "metrics.jsonl")] == [1.0]
