"""Checkpoint files that went bad: each is found, named, and never executed, and the previous good one is used and said."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.launch import resume, start
from paperbench.engine.reporter import SilentReporter
from paperbench.errors import CheckpointError
from tests.engine import toy
from tests.engine.test_checkpoints import Ear, state, value_of


class Bomb:
    """Writes a file when it is unpickled by anything that executes what it reads."""

    def __init__(self, fuse: Path) -> None:
        self.fuse = fuse

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return exec, (f"open({str(self.fuse)!r}, 'w').close()",)


def bit_flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def plant_pickle(file: Path) -> None:
    file.write_bytes(pickle.dumps({"weights": Bomb(file.parent / "exploded")}))


def plant_torch_file(file: Path) -> None:
    torch.save({"weights": torch.ones(3), "step": 2, "extra": Bomb(file.parent / "exploded")}, file)


def plant_list(file: Path) -> None:
    torch.save([1, 2, 3], file)


def forge_manifest(directory: Path) -> None:
    """Gives every file the hash that it has, as somebody who can write one file could do with the other."""
    manifest = json.loads((directory / "manifest.json").read_text())
    for name, known in manifest["files"].items():
        content = (directory / name).read_bytes()
        known[:] = [{"sha256": hashlib.sha256(content).hexdigest(), "step": 1, "bytes": len(content)}]
    (directory / "manifest.json").write_text(json.dumps(manifest))


DAMAGE = {
    "bit-flipped": (bit_flip, False, "its SHA-256 "),
    "truncated": (truncate, False, "it is cut short, "),
    "empty": (empty, False, "it is empty"),
    "pickle": (plant_pickle, False, "it is cut short, "),
    "torch file": (plant_torch_file, False, "it is cut short, "),
    "pickle, forged hash": (plant_pickle, True, "it does not hold plain tensors and numbers"),
    "torch file, forged hash": (plant_torch_file, True, "it does not hold plain tensors and numbers"),
    "another thing, forged hash": (plant_list, True, "it holds a list, not a training state"),
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        store.save(state(step), step=step)
    return tmp_path


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_previous_good_one_is_used(directory: Path, kind: str) -> None:
    damage, forged, found = DAMAGE[kind]
    damage(directory / "last.pt")
    if forged:
        forge_manifest(directory)
    ear = Ear()
    assert value_of(CheckpointStore(directory, ear).load()) == (1, 1)
    assert len(ear.said) == 2
    assert ear.said[0].startswith(f"{directory / 'last.pt'} is damaged: {found}")
    assert ear.said[1] == f"using {directory / 'previous.pt'} of step 1 instead"
    assert not (directory / "exploded").exists()


@pytest.mark.parametrize("kind", DAMAGE)
def test_none_good_names_all(directory: Path, kind: str) -> None:
    damage, forged, found = DAMAGE[kind]
    for name in ("last.pt", "previous.pt"):
        damage(directory / name)
    if forged:
        forge_manifest(directory)
    with pytest.raises(CheckpointError) as caught:
        CheckpointStore(directory).load()
    for name in ("last.pt", "previous.pt"):
        assert f"{directory / name} is damaged: {found}" in str(caught.value)
    assert not (directory / "exploded").exists()


def test_the_best_one_is_the_last_resort(directory: Path) -> None:
    CheckpointStore(directory).save(state(3), step=3, best=True)
    CheckpointStore(directory).save(state(4), step=4)
    CheckpointStore(directory).save(state(5), step=5)
    for name in ("last.pt", "previous.pt"):
        truncate(directory / name)
    ear = Ear()
    assert value_of(CheckpointStore(directory, ear).load()) == (3, 3)
    assert ear.said[-1] == f"using {directory / 'best.pt'} of step 3 instead"


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"files": {"last.pt": 3}}'], ids=str)
def test_without_a_manifest_the_files_own_checksums_count(directory: Path, content: str | None) -> None:
    manifest = directory / "manifest.json"
    manifest.unlink() if content is None else manifest.write_text(content)
    ear = Ear()
    store = CheckpointStore(directory, ear)
    assert value_of(store.load()) == (2, 2)
    assert ear.said == [f"{manifest} is missing or damaged: checkpoints are checked by their own checksums alone"]

    file = directory / "last.pt"
    with zipfile.ZipFile(file) as archive:
        info = next(item for item in archive.infolist() if item.filename.endswith("data/0"))
    flipped = bytearray(file.read_bytes())
    flipped[info.header_offset + 200] ^= 1
    file.write_bytes(flipped)
    assert value_of(CheckpointStore(directory, ear).load()) == (1, 1)
    assert f"{file} is damaged: the checksum of its part" in ear.said[-2]

    plant_torch_file(file)
    assert value_of(CheckpointStore(directory, ear).load()) == (1, 1)
    assert not (directory / "exploded").exists()


def test_a_lost_manifest_is_made_anew_by_the_next_save(directory: Path) -> None:
    (directory / "manifest.json").unlink()
    CheckpointStore(directory).save(state(3), step=3)
    ear = Ear()
    store = CheckpointStore(directory, ear)
    assert [value_of(store.load(which)) for which in ("last", "previous")] == [(3, 3), (2, 2)]
    assert ear.said == []


def test_a_damaged_last_never_replaces_a_good_previous(directory: Path) -> None:
    bit_flip(directory / "last.pt")
    CheckpointStore(directory).save(state(3), step=3)
    truncate(directory / "last.pt")
    assert value_of(CheckpointStore(directory).load()) == (1, 1)


def test_a_run_resumes_from_the_previous_one_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)
    undisturbed, run_dir = tmp_path / "undisturbed", tmp_path / "run"
    start(toy.config(), run_dir=undisturbed, reporter=SilentReporter())
    assert start(toy.config(fault="term@4"), run_dir=run_dir, reporter=SilentReporter()).status == "stopped"
    bit_flip(run_dir / "checkpoints" / "last.pt")
    ear = Ear()
    assert resume(run_dir, ear).status == "done"
    assert "last.pt is damaged" in ear.said[0]
    assert "previous.pt of step 4" in ear.said[1]
    assert "last.pt is damaged" in (run_dir / "log.txt").read_text()
    weights, expected = toy.weights(run_dir), toy.weights(undisturbed)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_run_without_any_good_checkpoint_fails_and_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.register(monkeypatch)
    run_dir = tmp_path / "run"
    start(toy.config(fault="term@4"), run_dir=run_dir, reporter=SilentReporter())
    for file in (run_dir / "checkpoints").glob("*.pt"):
        empty(file)
    with pytest.raises(CheckpointError, match=r"(?s)last\.pt is damaged: it is empty.*previous\.pt is damaged"):
        resume(run_dir, SilentReporter())
