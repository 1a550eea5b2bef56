"""Saving and loading, and what is on the disk after every single line of a save."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from paperbench.engine import checkpoints, files
from paperbench.engine.checkpoints import CheckpointStore, load_for_evaluation
from paperbench.engine.reporter import SilentReporter
from paperbench.errors import CheckpointError, ConfigError


class Ear(SilentReporter):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def state(value: float) -> dict[str, Any]:
    return {"weights": torch.full((50,), float(value)), "rng": (3, (1, 2), None), "name": "x", "best": None}


def value_of(loaded: tuple[dict[str, Any], int] | None) -> tuple[float, int]:
    assert loaded is not None
    return float(loaded[0]["weights"][0]), loaded[1]


def test_round_trip(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    assert store.load() is None
    store.save(state(1.5), step=7)
    loaded = CheckpointStore(tmp_path / "checkpoints").load()
    assert loaded is not None
    assert loaded[1] == loaded[0]["step"] == 7
    assert torch.equal(loaded[0]["weights"], torch.full((50,), 1.5))
    assert loaded[0]["rng"] == (3, (1, 2), None)
    assert sorted(file.name for file in (tmp_path / "checkpoints").iterdir()) == ["last.pt", "manifest.json"]


def test_last_previous_and_best(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step, best in ((1, True), (2, False), (3, True), (4, False)):
        store.save(state(step / 10), step=step, best=best)
    assert [value_of(store.load(which))[1] for which in ("last", "previous", "best")] == [4, 3, 3]


def test_manifest_holds_hash_step_and_size_of_each_file(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 3):
        store.save(state(step), step=step, best=step == 1)
    manifest = json.loads((tmp_path / "manifest.json").read_text())["files"]
    assert set(manifest) == {"last.pt", "previous.pt", "best.pt"}
    for name, step in (("last.pt", 3), ("previous.pt", 2), ("best.pt", 1)):
        content = (tmp_path / name).read_bytes()
        assert manifest[name] == [{"sha256": hashlib.sha256(content).hexdigest(), "step": step, "bytes": len(content)}]


def test_a_file_system_without_hard_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        store.save(state(step), step=step, best=step == 1)
    assert [value_of(CheckpointStore(tmp_path).load(which))[1] for which in ("last", "previous", "best")] == [2, 1, 1]
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_writer_left_is_swept_by_the_holder_of_the_run_alone(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(state(1), step=1)
    rubbish = tmp_path / ".last.pt.123.tmp"
    rubbish.write_bytes(b"half")
    CheckpointStore(tmp_path, sweep=False)
    assert rubbish.exists()
    CheckpointStore(tmp_path)
    assert not rubbish.exists()


# --- a kill at any line -----------------------------------------------------------------------------------------------


def snapshots(directory: Path, work: Callable[[], None]) -> list[dict[str, bytes]]:
    """Every content that `directory` had between two lines of the modules under test while `work` was done.

    It is what a SIGKILL at that line would leave: what Python still buffers is lost with the process, and not in here.
    """
    sources = {checkpoints.__file__, files.__file__}
    seen: list[dict[str, bytes]] = []

    def look(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in sources:
            return None
        content = {file.name: file.read_bytes() for file in sorted(directory.iterdir())}
        if not seen or seen[-1] != content:
            seen.append(content)
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        work()
    finally:
        sys.settrace(before)
    return seen


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize(("saved_before", "damaged"), [(1, False), (2, False), (3, False), (2, True), (3, True)])
@pytest.mark.parametrize("links", [True, False])
def test_any_moment_of_a_save_leaves_a_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: bool, saved_before: int, damaged: bool, links: bool
) -> None:
    """`damaged`: last.pt went bad, the run resumed from previous.pt, and saves again."""
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    directory = tmp_path / "checkpoints"
    store = CheckpointStore(directory)
    for step in range(1, saved_before + 1):
        store.save(state(step), step=step, best=step == 1)
    good = saved_before
    if damaged:
        (directory / "last.pt").write_bytes(b"rot")
        good = saved_before - 1
    store = CheckpointStore(directory)
    assert value_of(store.load()) == (good, good)

    new = saved_before + 1
    seen = snapshots(directory, lambda: store.save(state(new), step=new, best=best))
    assert len(seen) > 6, "the trace must have seen the save at work"
    steps = []
    for number, content in enumerate(seen):
        place = tmp_path / f"killed-{number}"
        place.mkdir()
        for name, data in content.items():
            (place / name).write_bytes(data)
        ear = Ear()
        survivor = CheckpointStore(place, ear)
        value, step = value_of(survivor.load())
        assert value == step
        steps.append(step)
        assert value_of(survivor.load("best"))[1] in (1, new)
        if not damaged:
            assert ear.said == [], "every file is good, and known to be"
        # And from there it must be possible to go on.
        survivor.save(state(9), step=9)
        assert value_of(CheckpointStore(place).load()) == (9, 9)
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (good, new)


# --- for evaluation ---------------------------------------------------------------------------------------------------


def test_evaluation_takes_a_run_or_a_file_and_writes_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    for step in (1, 2):
        store.save(state(step), step=step, best=step == 1)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    for path, step, name in (
        (tmp_path, 1, "best.pt"),
        (tmp_path / "checkpoints", 1, "best.pt"),
        (tmp_path / "checkpoints" / "last.pt", 2, "last.pt"),
    ):
        loaded, at, file = load_for_evaluation(path)
        assert (float(loaded["weights"][0]), at, file.name) == (step, step, name)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_evaluation_takes_the_last_where_none_is_the_best(tmp_path: Path) -> None:
    CheckpointStore(tmp_path / "checkpoints").save(state(1), step=4)
    assert load_for_evaluation(tmp_path)[1:] == (4, tmp_path / "checkpoints" / "last.pt")


def test_evaluation_checks_a_file_that_was_copied_away_from_its_manifest(tmp_path: Path) -> None:
    CheckpointStore(tmp_path / "checkpoints").save(state(1), step=4)
    copy = tmp_path / "model.pt"
    content = bytearray((tmp_path / "checkpoints" / "last.pt").read_bytes())
    copy.write_bytes(content)
    assert load_for_evaluation(copy)[1] == 4
    content[content.find(torch.full((50,), 1.0).numpy().tobytes()) + 20] ^= 1
    copy.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"model\.pt is damaged: the checksum of its part .*data/0 does not match"
    ):
        load_for_evaluation(copy)


def test_evaluation_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint=.*nowhere: there is no such run or file"):
        load_for_evaluation(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no checkpoint has been saved there yet"):
        load_for_evaluation(tmp_path)
