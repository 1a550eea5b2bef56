"""What a run directory holds and how it is written."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from paperbench.engine import environment, files
from paperbench.engine.files import write_atomic
from paperbench.engine.rundir import RunDirectory
from paperbench.errors import ConfigError, DiskFullError, EnvironmentError_, RunLockedError

CONFIG: dict[str, Any] = {"experiment": "toy", "task": "toy", "scale": "smoke", "seed": 5, "optim": {"lr": 0.1}}


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    made = RunDirectory.create(tmp_path / "outputs", "toy", CONFIG)
    made.release()
    return made


def test_the_name_of_a_new_run(tmp_path: Path) -> None:
    made = RunDirectory.create(tmp_path / "outputs", "toy", CONFIG)
    assert made.path.parent == tmp_path / "outputs" / "toy"
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", made.path.name)
    assert yaml.safe_load((made.path / "config.yaml").read_text()) == CONFIG == made.config()
    assert made.status()["state"] == "running"
    assert made.status()["pid"] == os.getpid()
    made.release()


def test_a_directory_of_ones_own_may_be_new_or_empty(tmp_path: Path) -> None:
    for path in (tmp_path / "a" / "b", tmp_path / "empty"):
        if path.name == "empty":
            path.mkdir()
        made = RunDirectory.create(tmp_path / "outputs", "toy", CONFIG, path)
        assert made.path == path
        made.release()
    assert not (tmp_path / "outputs").exists()


def test_a_directory_that_holds_something_is_refused_untouched(tmp_path: Path, directory: RunDirectory) -> None:
    before = {file: file.read_bytes() for file in directory.path.iterdir()}
    with pytest.raises(ConfigError, match=f"already holds a run; `paperbench resume {directory.path}`") as caught:
        RunDirectory.create(tmp_path, "toy", CONFIG, directory.path)
    assert caught.value.exit_code == 2
    assert {file: file.read_bytes() for file in directory.path.iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"mine is not empty \(it holds thesis\.tex\)"):
        RunDirectory.create(tmp_path, "toy", CONFIG, tmp_path / "mine")


@pytest.mark.parametrize("folder", ["checkpoints", "checkpoints/sub", "figures"])
def test_a_run_is_not_made_within_the_folders_of_another(tmp_path: Path, directory: RunDirectory, folder: str) -> None:
    place = directory.path / folder
    with pytest.raises(ConfigError, match=r"--run-dir .* which the run .* writes"):
        RunDirectory.create(tmp_path, "toy", CONFIG, place)
    with pytest.raises(ConfigError, match=r"output\.root=.* which the run .* writes"):
        RunDirectory.create(place, "toy", CONFIG)
    with pytest.raises(ConfigError, match="which the run"):
        RunDirectory.refuse_unusable(place)
    assert not place.exists()


def test_a_link_to_nothing_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(EnvironmentError_, match="link is a link to nothing"):
        RunDirectory.create(tmp_path, "toy", CONFIG, tmp_path / "link")


def test_opening_what_is_no_run(tmp_path: Path, directory: RunDirectory) -> None:
    with pytest.raises(ConfigError, match=r"there is no run directory .*nowhere; `paperbench runs`"):
        RunDirectory.open(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"is not a run directory: it has no config\.yaml"):
        RunDirectory.open(tmp_path)
    directory.config_file.write_text("{")
    with pytest.raises(ConfigError, match=r"cannot read .*config\.yaml"):
        RunDirectory.open(directory.path).config()
    directory.config_file.write_text("3")
    with pytest.raises(ConfigError, match="holds no configuration"):
        RunDirectory.open(directory.path).config()


def test_the_lock_names_its_holder_and_ends_with_it(directory: RunDirectory) -> None:
    other = RunDirectory.open(directory.path)
    directory.acquire()
    directory.acquire()
    assert directory.is_locked()
    assert other.is_locked()
    with pytest.raises(RunLockedError, match=f"in use by pid {os.getpid()} on "):
        other.acquire()
    directory.release()
    directory.release()
    assert not other.is_locked()
    other.acquire()
    other.release()


def test_a_run_that_says_running_while_nobody_holds_it_was_killed(directory: RunDirectory) -> None:
    assert directory.current_state() == "killed"
    directory.acquire()
    assert directory.current_state() == "running"
    directory.release()
    for state in ("done", "failed", "stopped"):
        directory.update_status(state=state)
        assert directory.current_state() == state
    directory.status_file.write_text('{"sta')
    assert directory.status() == {}
    assert directory.current_state() == "killed"


def test_status_keeps_what_is_not_changed_and_counts_the_seconds_of_all_sessions(directory: RunDirectory) -> None:
    directory.update_status(step=5, steps=10, best=0.5)
    directory.status_file.write_text(json.dumps({**directory.status(), "seconds": 1000.0}))
    later = RunDirectory.open(directory.path)
    later.update_status(state="stopped", message="why")
    status = later.status()
    assert (status["step"], status["steps"], status["best"], status["message"]) == (5, 10, 0.5, "why")
    assert 1000.0 <= status["seconds"] < 1100.0
    assert {"state", "step", "steps", "pid", "host", "best", "message", "updated"} <= set(status)


def test_results_have_exactly_the_documented_shape(directory: RunDirectory) -> None:
    assert directory.results() is None
    metrics = {"coco/AP50": 85.5, "test/errors": 3, "voc/mAP": float("nan")}
    given = directory.write_results(config=CONFIG, metrics=metrics, data="10 points", device="cpu", precision="float32")
    results = json.loads((directory.path / "results.json").read_text())
    seconds = results.pop("seconds")
    assert 0 <= seconds < 100
    assert results == {
        "schema_version": 1,
        "experiment": "toy",
        "task": "toy",
        "scale": "smoke",
        "seed": 5,
        "status": "done",
        "data": "10 points",
        "metrics": {"coco/AP50": 85.5, "test/errors": 3, "voc/mAP": None},
        "device": "cpu",
        "precision": "float32",
    }
    assert directory.results() == given == {**results, "seconds": seconds}


def test_small_files_are_replaced_entirely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    write_atomic(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(
            DiskFullError, match=r"status\.json \(No space left on device\): 3 bytes needed, [\d,]+ bytes free"
        ):
            write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomic(path, b"new")
    assert path.read_text() == "new"


def test_the_environment_of_later_sessions_is_added(directory: RunDirectory) -> None:
    for number in range(3):
        directory.write_environment({"number": number})
    assert json.loads(directory.env_file.read_text()) == {"number": 0, "resumed": [{"number": 1}, {"number": 2}]}


def test_what_the_environment_tells() -> None:
    facts = environment.describe_environment(device="cpu", threads=3, world=2)
    assert (facts["device"], facts["threads"], facts["processes"]) == ("cpu", 3, 2)
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["packages"]["torch"]
    assert facts["argv"] == sys.argv
    json.dumps(facts)


def test_the_state_of_a_checkout(tmp_path: Path) -> None:
    assert environment.git_state(tmp_path) is None

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ("git", "-C", str(tmp_path), *identity, *arguments), check=True, capture_output=True, text=True
        ).stdout

    git("init")
    (tmp_path / "a.txt").write_text("one\n")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "a.txt").write_text("two\n")
    state = environment.git_state(tmp_path)
    assert state is not None
    assert state["commit"] == git("rev-parse", "HEAD").strip()
    assert "+two" in state["diff"]


def test_run_directories_are_read_without_torch() -> None:
    modules = ", ".join(f"paperbench.engine.{name}" for name in ("rundir", "launch", "metriclog", "environment"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
