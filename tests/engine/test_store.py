"""The store: keys of content, arrays written entirely or not at all, and folders in which one process at a time works."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from paperbench.engine import store
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.lock import FileLock
from paperbench.engine.metriclog import MetricLog
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.engine.store import ArrayStore, StoreEntry, content_key, recorded_folder
from paperbench.errors import EnvironmentError_, Stopped


def make_run(path: Path) -> Run:
    return Run(
        directory=RunDirectory(path),
        device=torch.device("cpu"),
        precision="float32",
        ranks=Ranks(),
        reporter=SilentReporter(),
        stop=StopFlag(),
        log=MetricLog(),
        checkpoints=CheckpointStore(path / "checkpoints"),
        seed=0,
        config_hash="",
    )


def test_a_key_is_the_hash_of_recipe_and_content() -> None:
    recipe = {"b": (1, 2), "a": 0.5}
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = hashlib.sha256(b'{"a": 0.5, "b": [1, 2]}' + b"name" + values.tobytes()).hexdigest()
    assert content_key(recipe, b"name", values) == expected
    assert content_key(recipe, b"name", values.T.copy().T) == expected, "memory layout is no content"
    assert content_key("text") == hashlib.sha256(b"text").hexdigest()
    assert content_key("text", np.zeros((0, 3))) == content_key("text")
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_key({"a": float("nan")})


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_come_back_and_damaged_ones_do_not(tmp_path: Path, suffix: str) -> None:
    arrays = ArrayStore(tmp_path, suffix)  # pyright: ignore[reportArgumentType]
    key = content_key("a")
    assert arrays.load(key) is None
    arrays.save(key, np.arange(3))
    (found,) = arrays.load(key) or []
    np.testing.assert_array_equal(found, np.arange(3))
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.np?")] == [Path(key[:2]) / f"{key}{suffix}"]
    content = arrays.path(key).read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"something else"):
        arrays.path(key).write_bytes(damaged)
        assert arrays.load(key) is None


def test_several_arrays_keep_their_order(tmp_path: Path) -> None:
    arrays = ArrayStore(tmp_path)
    arrays.save("key", np.zeros(1), np.ones((2, 2)), np.arange(3))
    assert [array.shape for array in arrays.load("key") or []] == [(1,), (2, 2), (3,)]


def test_half_written_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "ke"
    folder.mkdir()
    abandoned, in_use = folder / ".key.npz.1.tmp", folder / ".key.npz.2.tmp"
    for path in (abandoned, in_use):
        path.write_bytes(b"half")
    os.utime(abandoned, (0, 0))
    ArrayStore(tmp_path).save("key", np.zeros(1))
    assert not abandoned.exists()
    assert in_use.exists(), "another process may be writing it"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentError_, match="file/ke"):
        ArrayStore(tmp_path / "file").save("key", np.zeros(1))
    with pytest.raises(EnvironmentError_, match="file/key"), StoreEntry(tmp_path / "file", "key").try_locked():
        pass


# --- entries ----------------------------------------------------------------------------------------------------------


def test_an_entry_is_a_folder_of_its_key_with_its_recipe(tmp_path: Path) -> None:
    recipe = {"net": "mlp", "seed": 0}
    entry = StoreEntry(tmp_path, content_key(recipe), prefix="net-", recipe=recipe)
    assert entry.path == tmp_path / f"net-{content_key(recipe)[:16]}"
    with entry.locked(make_run(tmp_path / "run"), "net"):
        assert json.loads((entry.path / "recipe.json").read_text()) == recipe
        assert FileLock(entry.path / "lock").is_held()
        with StoreEntry(tmp_path, entry.key, prefix="net-").try_locked() as acquired:
            assert not acquired
    assert not FileLock(entry.path / "lock").is_held()


def test_a_run_waits_for_the_process_that_works_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_SECONDS_BETWEEN_TRIES", 0.01)
    first, second = StoreEntry(tmp_path, "0" * 64), StoreEntry(tmp_path, "0" * 64)
    order: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with first.locked(make_run(tmp_path / "a"), "net"):
            inside.set()
            leave.wait()
            order.append("first")

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    threading.Timer(0.05, leave.set).start()
    with second.locked(make_run(tmp_path / "b"), "net"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_a_run_that_waits_can_be_stopped(tmp_path: Path) -> None:
    other = FileLock(StoreEntry(tmp_path, "0" * 64).path / "lock")
    other.path.parent.mkdir()
    assert other.acquire()
    run = make_run(tmp_path / "run")
    run.stop.set("SIGTERM")
    with (
        pytest.raises(Stopped, match="while another process computes net"),
        StoreEntry(tmp_path, "0" * 64).locked(run, "net"),
    ):
        pass
    other.release()


def test_a_resume_in_another_directory_has_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, note = make_run(tmp_path / "run"), tmp_path / "run" / "checkpoints" / "nets.json"
    monkeypatch.chdir(tmp_path)
    assert recorded_folder(run, note, Path("outputs/nets")) == tmp_path / "outputs" / "nets"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert recorded_folder(run, note, Path("outputs/nets")) == tmp_path / "outputs" / "nets"
    note.write_text("damaged")
    assert recorded_folder(run, note, Path("nets")) == tmp_path / "elsewhere" / "nets"
