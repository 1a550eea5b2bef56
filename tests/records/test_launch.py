"""A run from overrides to its outcome, without a terminal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from paperbench.errors import CheckpointError, ConfigError, DataError
from paperbench.records.launch import compose_for, resume, start
from paperbench.records.record import read_run
from tests.engine import toy
from tests.sweeps import toys


@pytest.fixture(autouse=True)
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    toy.register(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return toys.conf(tmp_path / "elsewhere")


def test_a_run_is_composed_done_and_read(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = start(compose_for("train", "toy", ["seed=7"], conf_dir=conf))
    run = read_run(outcome.directory)
    assert (outcome.status, outcome.exit_code) == ("done", 0)
    assert (run.done, run.seed, run.experiment) == (True, 7, "toy")
    assert run.headline[0] == "test/error"
    assert run.history["train/loss"][0] == sorted(run.history["train/loss"][0])
    assert resume(outcome.directory).results == outcome.results
    assert capsys.readouterr().out == ""


def test_mistakes_and_refusals_are_errors_and_leave_nothing_behind(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="lenght: no such key"):
        compose_for("train", "toy", ["lenght=3"], conf_dir=conf)
    with pytest.raises(ConfigError, match="use `paperbench train toy`"):
        compose_for("estimate", "toy", conf_dir=conf)
    with pytest.raises(ConfigError, match="no such run directory"):
        resume(tmp_path / "nowhere")

    def refusing(config: toy.ToyConfig) -> dict[str, str]:
        raise DataError("points.txt: no such file")

    monkeypatch.setattr(toy, "plan", refusing)
    with pytest.raises(DataError, match="no such file"):
        start(compose_for("train", "toy", conf_dir=conf))
    assert not (tmp_path / "outputs").exists()


def test_a_run_without_its_checkpoints_begins_again_only_when_told_to(
    conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = start(compose_for("train", "toy", conf_dir=conf))
    directory = outcome.directory
    steps = json.loads((directory / "status.json").read_text())["steps"]
    (directory / "results.json").unlink()
    shutil.rmtree(directory / "checkpoints")
    with pytest.raises(CheckpointError, match=rf"step {steps} of {steps}.*no checkpoint left.*--from-start"):
        resume(directory)

    again = resume(directory, from_start=True)
    assert again.results is not None
    assert outcome.results is not None
    assert again.results["metrics"]["test/error"] == outcome.results["metrics"]["test/error"]
    assert f"begins again at step 0: it had come to step {steps}" in (directory / "log.txt").read_text()
